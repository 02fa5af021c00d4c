"""Several players: whose weights move by what, and that a pause changes nothing."""

import csv
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, SparseAdam

from pullback.errors import InputError
from pullback.space import Image
from pullback.training import Player, Steps, Training, load_tensors, save_tensors
from pullback.training.player import shares
from pullback.training.train import train


class Number:
    """An example: which of five samples, and a number."""

    images: tuple[Image, ...] = ()

    def __init__(self, sample: int, value: float):
        self.sample, self.value, self.name = torch.tensor([sample]), torch.tensor([value]), str(sample)

    def to(self, device):
        return self


class Numbers:
    def draw(self, generator):
        return Number(int(torch.randint(5, (), generator=generator)), float(torch.randn((), generator=generator)))


class Duel(nn.Module):
    """A supervision with a judge of one weight, and a trust value of each sample."""

    def __init__(self, sparse=True):
        super().__init__()
        self.judge = nn.Linear(1, 1, bias=False)
        self.trust = nn.Embedding(5, 1, sparse=sparse)
        nn.init.constant_(self.judge.weight, 0.5)
        nn.init.zeros_(self.trust.weight)

    def forward(self, network, example, progress) -> dict[str, Tensor]:
        off = (network(example.value) - 2).square().mean()
        return {"off": off * self.trust(example.sample).mean().exp(), "fool": self.judge(network(example.value)).sum()}


def judging(supervision, network, example, progress) -> dict[str, Tensor]:
    return {"real": (supervision.judge(network(example.value)) - example.value).square().sum()}


JUDGE = Player("judge", ("supervision.judge.",), judging, lr=0.1, optimiser=SGD)
TRUST = Player("trust", ("supervision.trust.",), lr=0.1, optimiser=SparseAdam)
NUMBERS = Training(updates=6, lr=0.05, optimiser=SGD, log_every=1, save_every=1, players=(JUDGE, TRUST))


def learned(training, out=None, resume=False, supervision=None, examples=Numbers()):
    """The network and the supervision after it, of which the first weights are known."""
    network, supervision = nn.Linear(1, 1), supervision or Duel()
    nn.init.constant_(network.weight, 1.0)
    nn.init.constant_(network.bias, 0.1)
    train(network, examples, supervision, training, out=out, resume=resume)
    return {**network.state_dict(), **supervision.state_dict()}


def test_each_player_moves_by_its_own_losses_alone():
    """One update written out: the network by both common losses, trust by the first, and the judge by its own, after
    the network has moved."""
    seen = []

    class Watched(Numbers):
        def draw(self, generator):
            seen.append(super().draw(generator))
            return seen[-1]

    network, supervision = nn.Linear(1, 1), Duel(sparse=False)
    nn.init.constant_(network.weight, 1.0)
    nn.init.constant_(network.bias, 0.1)
    trust = replace(TRUST, optimiser=SGD)
    train(network, Watched(), supervision, replace(NUMBERS, updates=1, players=(JUDGE, trust)))
    (example,) = seen
    x, answer = float(example.value), float(example.value) + 0.1
    slope = 2 * (answer - 2) + 0.5
    weight, bias = (float(w.detach()) for w in network.parameters())
    assert weight == pytest.approx(1 - 0.05 * slope * x, rel=1e-5)
    assert bias == pytest.approx(0.1 - 0.05 * slope, rel=1e-5)
    rows = supervision.trust.weight.detach()[:, 0]
    assert float(rows[example.sample]) == pytest.approx(-0.1 * (answer - 2) ** 2, rel=1e-5)
    assert int((rows != 0).sum()) == 1
    moved = weight * x + bias
    assert float(supervision.judge.weight.detach()) == pytest.approx(
        0.5 - 0.1 * 2 * (0.5 * moved - x) * moved, rel=1e-4
    )


def test_gradients_are_wanted_of_the_player_on_turn_and_of_nobody_else():
    seen = []

    class Watching(Duel):
        def forward(self, network, example, progress):
            seen.append(("all", {name for name, w in self.named_parameters() if w.requires_grad}))
            return super().forward(network, example, progress)

    def watching(supervision, network, example, progress):
        seen.append(("judge", {name for name, w in supervision.named_parameters() if w.requires_grad}))
        assert not network(example.value).requires_grad
        return judging(supervision, network, example, progress)

    supervision = Watching()
    players = (replace(JUDGE, losses=watching), TRUST)
    learned(replace(NUMBERS, updates=1, players=players), supervision=supervision)
    assert seen == [("all", {"trust.weight"}), ("judge", {"judge.weight"})]
    assert all(weight.requires_grad for weight in supervision.parameters())


@pytest.mark.parametrize("optimiser", [SGD, Adam])
def test_a_resumed_duel_ends_at_the_same_bits(tmp_path, optimiser):
    """Also in numbers that SparseAdam counts in Python, with a judge that learns at every other update."""
    judge = replace(JUDGE, optimiser=optimiser, every=2, schedule=Steps((0.5,)), clip=0.5)
    training = replace(NUMBERS, players=(judge, TRUST), batch=2)
    whole = learned(training, tmp_path / "whole")
    drawn = []

    class Broken(Numbers):
        def draw(self, generator):
            drawn.append(None)
            if len(drawn) == 8:
                raise RuntimeError("broken off")
            return super().draw(generator)

    with pytest.raises(RuntimeError, match="broken off"):
        learned(training, tmp_path / "again", examples=Broken())
    resumed = learned(training, tmp_path / "again", resume=True)
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())
    logs = [(tmp_path / name / "training.csv").read_text() for name in ("whole", "again")]
    assert logs[0] == logs[1]


def test_rows_that_were_not_drawn_stay_and_those_that_were_move_as_by_the_optimiser():
    """SparseAdam's own loop beside ours, over the same draws."""
    drawn = []

    class Watched(Numbers):
        def draw(self, generator):
            drawn.append(super().draw(generator))
            return drawn[-1]

    still = replace(NUMBERS, lr=1e-30, players=(replace(JUDGE, lr=1e-30), TRUST), updates=20)
    ours = learned(still, examples=Watched())["trust.weight"]
    trust = nn.Embedding(5, 1, sparse=True)
    nn.init.zeros_(trust.weight)
    optimiser = SparseAdam(trust.parameters(), lr=0.1)
    for example in drawn:
        optimiser.zero_grad()
        ((example.value + 0.1 - 2).square().mean() * trust(example.sample).mean().exp()).backward()
        optimiser.step()
    torch.testing.assert_close(ours, trust.weight.detach(), rtol=0, atol=1e-6)


def test_who_learns_seldom_learns_in_the_first_update_and_every_so_many_after(tmp_path):
    learned(replace(NUMBERS, players=(replace(JUDGE, every=4), TRUST)), tmp_path)
    with (tmp_path / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows if row["judge/real"]] == [1, 5]
    assert all(row["off"] and row["fool"] and row["loss"] for row in rows)


def test_frozen_weights_rest_and_the_others_learn():
    after = learned(replace(NUMBERS, frozen=("network.bias",)))
    assert float(after["bias"]) == pytest.approx(0.1)
    assert float(after["weight"]) != 1.0


@pytest.mark.parametrize("sparse", [False, True])
def test_a_long_gradient_is_shortened_as_one_vector(sparse):
    """By plain descent a step is as long as lr × clip, and has the direction it had; a short one stays."""
    players = (replace(JUDGE, lr=1e-30), replace(TRUST, lr=1.0, optimiser=SGD, clip=1e-3))
    training = replace(NUMBERS, updates=1, clip=1e-2, lr=1.0, players=players)

    class One:
        """Whose gradients of weight and bias are as long."""

        def draw(self, generator):
            return Number(2, 1.0)

    clipped = learned(training, supervision=Duel(sparse), examples=One())
    whole = learned(replace(training, clip=None), supervision=Duel(sparse), examples=One())
    steps = [torch.cat([w["weight"][0] - 1.0, w["bias"] - 0.1]) for w in (clipped, whole)]
    assert float(steps[0].norm()) == pytest.approx(1e-2, rel=1e-3)
    torch.testing.assert_close(steps[0] / steps[0].norm(), steps[1] / steps[1].norm(), rtol=1e-3, atol=1e-4)
    assert float(clipped["trust.weight"].norm()) == pytest.approx(1e-3, rel=1e-4)
    loose = learned(replace(training, clip=1e6), supervision=Duel(sparse), examples=One())
    assert all(torch.equal(whole[name], value) for name, value in loose.items())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            {"players": (replace(JUDGE, owns=("supervision.jury.",)),)},
            r"judge: .*'supervision\.jury\.'; they begin with",
        ),
        ({"players": (replace(JUDGE, owns=()),)}, "player judge owns nothing"),
        (
            {"players": (JUDGE, replace(TRUST, owns=("supervision.",)))},
            "judge.weight: is claimed by judge and by trust",
        ),
        ({"players": (JUDGE, replace(JUDGE, owns=("network.",)))}, "a name for each expected"),
        ({"players": (replace(JUDGE, name="network"),)}, "'network' being taken"),
        ({"frozen": ("supervision.judge",)}, "claimed by training.frozen and by judge"),
        ({"frozen": ("network.encoder.",)}, r"training\.frozen: no weight's name begins with 'network\.encoder\.'"),
        ({"frozen": ("network.",)}, "no weight is left to training.optimiser"),
    ],
)
def test_claims_that_cannot_be_are_told_before_anything_runs(tmp_path, numbers, message):
    with pytest.raises(InputError, match=message):
        learned(replace(NUMBERS, **numbers), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"every": 0}, {"clip": 0.0}, {"name": "a.b"}, {"name": "0"}])
def test_players_that_cannot_be(wrong):
    with pytest.raises(InputError, match=r"player "):
        replace(JUDGE, **wrong)
    with pytest.raises(InputError, match=r"player network: lr and clip above 0"):
        Training(clip=-1.0)


def test_what_is_owned_is_not_the_networks():
    learning = nn.ModuleDict({"network": nn.Linear(1, 1), "supervision": Duel()})
    mine = shares(learning, (JUDGE, TRUST), ("network.bias",))
    assert {who: [tuple(w.shape) for w in weights] for who, weights in mine.items()} == {
        "network": [(1, 1), (1,)],
        "judge": [(1, 1)],
        "trust": [(5, 1)],
    }


def test_checkpoints_of_one_player_are_read_as_the_networks(tmp_path):
    """As they were written when there was but one: `optimiser.<index>.<key>`."""
    plain = replace(NUMBERS, optimiser=Adam, players=())
    whole = learned(plain, tmp_path / "whole", supervision=Duel(sparse=False))
    short = replace(plain, updates=3)
    learned(short, tmp_path / "old", supervision=Duel(sparse=False))
    path = tmp_path / "old" / "last.safetensors"
    tensors, about = load_tensors(path)
    save_tensors({k.replace("optimiser.network.", "optimiser."): v for k, v in tensors.items()}, path, about)
    assert any(k.startswith("optimiser.0.") for k in load_tensors(path)[0])
    resumed = learned(plain, tmp_path / "old", True, Duel(sparse=False))
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())


def test_a_checkpoint_of_other_players_is_refused(tmp_path):
    learned(replace(NUMBERS, updates=1, players=(TRUST,)), tmp_path)
    with pytest.raises(InputError, match="has a player trust; there is network, faith"):
        learned(replace(NUMBERS, players=(replace(TRUST, name="faith"),)), tmp_path, resume=True)


class Rising:
    """An evaluation of which each answer is less than the one before."""

    aligns, names = "number", ()

    def __init__(self):
        self.answers = iter([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])

    def rows(self, network, device):
        return iter([{"pair": "a", "good": next(self.answers)}])

    def score(self, means):
        return means["good"]


def test_the_first_validations_are_told_and_never_chosen(tmp_path):
    network = nn.Linear(1, 1)
    training = replace(NUMBERS, players=(), optimiser=Adam, validate_every=1, choose_from=0.5)
    train(network, Numbers(), Duel(sparse=False), training, Rising(), tmp_path)
    with (tmp_path / "validation.csv").open() as file:
        assert [float(row["good"]) for row in csv.DictReader(file)] == [5, 4, 3, 2, 1, 0]
    assert load_tensors(tmp_path / "best.safetensors")[1] == {"update": 3, "good": 3.0}
    with pytest.raises(InputError, match="choose_from: a share"):
        Training(choose_from=1.5)
