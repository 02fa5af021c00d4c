"""Fused features: what the mixer may see, what its scale means, and who segments whom."""

import json
import warnings
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import Singles, Subject, Train, Validation
from pullback.energies import LabelMSE, mind
from pullback.errors import InputError
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.cross_fitting import SegmentThenFuse
from pullback.methods.pair.feature_fusion import FeatureFusion, RunFeatures, chosen, mixer
from pullback.metrics import Dice
from pullback.networks import SegmentationUNet, Segmenter
from pullback.numerics.cost_volume import pooled
from pullback.recipes import find
from pullback.recipes.feature_fusion import BRAINS
from pullback.solvers import CoupledConvex, Descend, FeatureDescent, consistent
from pullback.space import Affine, Grid, Image, Labels
from pullback.studies.feature_fusion import OtherFeatures, UnseenDice
from pullback.study.recipe import changed
from pullback.study.run import load_network, run
from pullback.testing import check_register, check_supervision, problems
from pullback.training import (
    PairEvaluation,
    Segmenting,
    Task,
    Training,
    Unsupervised,
    align,
    load_tensors,
    seeded,
    segmentation_dice,
)

SMALL = partial(SegmentationUNet, widths=(4, 8))
LOSS = Unsupervised(LabelMSE(rare=0.5, background=True))


def net(ndim: int = 2, labels: tuple[int, ...] = (1, 2), **sizes) -> FeatureFusion:
    with seeded(4):
        return FeatureFusion(ndim, labels, **{"backbone": SMALL, "every": 3} | sizes)


def noise(seed: int, shape: tuple[int, ...] = (36, 42), channels: int = 1) -> Image:
    values = torch.rand(1, channels, *shape, generator=torch.Generator().manual_seed(seed))
    return Image(values, Grid.centred(shape))


@dataclass(frozen=True)
class Blobs:
    """A person whose image is noise but for two discs, which lie elsewhere in each."""

    number: int
    seen: bool = True

    @property
    def name(self) -> str:
        return f"person{chr(97 + self.number)}"

    def load(self) -> Subject:
        image, data = noise(self.number), torch.zeros(1, 1, 36, 42, dtype=torch.uint8)
        i, j = torch.meshgrid(torch.arange(36), torch.arange(42), indexing="ij")
        shift = 4 * (self.number % 3) - 4
        for value, (a, b) in enumerate(((12, 14), (22, 27)), start=1):
            data[0, 0][(i - a - shift) ** 2 + (j - b + shift) ** 2 <= 25] = value
        shown = image.data + 2 * data if self.seen else image.data
        return Subject(replace(image, data=shown), Labels(data, image.grid), name=self.name)


@dataclass(frozen=True)
class People:
    """A data set of such persons."""

    train_count: int = 4

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Train:
        return Train([Blobs(n) for n in range(self.train_count)], of=self)

    @property
    def validation(self) -> Validation:
        return Validation([(Blobs(7), Blobs(8))])

    test = validation


@pytest.mark.parametrize("problem", problems(ndim=2), ids=str)
def test_contract(problem):
    known, sizes = problem.name == "identity", {"backbone": SMALL, "every": 3}
    with seeded(4):
        check_register(FeatureFusion(2, (1, 2), **sizes).eval(), problem, solves=known, rounding=1e-3)


def test_contract_of_the_supervision_of_segmenters():
    with seeded(0):
        check_supervision(Segmenting((1, 2)), partial(Segmenter, SMALL, (1, 2), 2), Blobs(0).load())
    with pytest.raises(InputError, match="labels are expected"):
        Segmenting((1,))(Segmenter(SMALL, (1,), 2), Subject(noise(0), name="nobody"), 0.0)


# ---- the mixer


def test_the_mixer_has_the_papers_weights():
    """12 of MIND and 14 classes to 32, 32 and 15; no weights of normalisation. Brains: 12 and 17 channels."""
    hand = 26 * 32 + 32 + 32 * 32 + 32 + 32 * 15 + 15
    assert sum(p.numel() for p in mixer(3, 26).parameters()) == hand == 2415
    paper = find("feature-fusion", on="abdomen").network()
    assert sum(p.numel() for p in paper.mixer.parameters()) == hand
    assert sum(p.numel() for p in paper.parameters() if p.requires_grad) == hand
    assert (paper.every, paper.learning.half_width, paper.search) == (4, 4, CoupledConvex())
    image = noise(0, (12, 12, 12))
    small = net(3, tuple(range(1, 14)))
    assert sum(each.shape[1] for each in small.unmixed(image)) == 26
    assert len(BRAINS) == 16


def test_the_mixer_sees_single_voxels():
    mix, values = mixer(2, 7).double(), torch.randn(1, 7, 6, 8, dtype=torch.float64)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    turned = values.flatten(2)[..., order].view(values.shape)
    torch.testing.assert_close(mix(turned), mix(values).flatten(2)[..., order].view(1, 15, 6, 8), atol=1e-10, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_temperature_is_no_second_number_beside_the_scale_of_the_last_convolution(scale):
    """Features × s are costs × s²: the same softmin as of T / s², with couplings / s²."""
    learning = CoupledConvex(2, (0.003, 0.03, 0.3), 1.0, blur=1)
    couplings = tuple(c / scale**2 for c in learning.couplings)
    colder = replace(learning, temperature=1 / scale**2, couplings=couplings)
    network, pair = net(), (noise(0), noise(1))
    blocks = [pooled(torch.cat(network.unmixed(image), 1), 3).double() for image in pair]
    network.mixer.double()
    with torch.no_grad():
        quiet = colder(*map(network.mixer, blocks))
        for weight in network.mixer[-1].parameters():
            weight.mul_(scale)
        loud = learning(*map(network.mixer, blocks))
    assert loud.abs().max() > 0.01
    torch.testing.assert_close(loud, quiet, atol=1e-9, rtol=0)


def test_mind_alone_is_searched_as_convex_adam_does():
    """To the last bit, with a mixer that takes the first channels; and as ConvexAdam itself, without its descent."""
    network = net(3, search=CoupledConvex(2), every=3).eval()
    network.mixer = torch.nn.Module()
    network.mixer.forward = lambda values: values[:, :12]
    grid = Grid.centred((24, 27, 21))
    pair = [Image(noise(n, grid.shape).data, grid) for n in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = network(*pair)
    hand = [pooled(mind(image.data, 1, 2), 3) for image in pair]
    search = ConvexAdam(spacing=3, discrete=CoupledConvex(2))
    expected = network.between(*hand, Pair(*pair)).transform.field
    assert torch.equal(found.transform.field, expected)
    discrete = consistent(search.discrete(*hand), search.discrete(*hand[::-1]))[0]
    assert torch.equal(search._searched(*hand, None), discrete)
    # where a block's mean lies, its displacement is that of the block, three voxels to a step
    torch.testing.assert_close(found.transform.field[..., 1::3, 1::3, 1::3], 3 * discrete, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 3.0, 10.0])
def test_the_soft_search_is_subvoxel_only_while_couplings_are_of_the_order_of_the_temperature(ratio):
    """Without costs, v is u for c / T = 1, and drawn to the nearest node as c / T grows: by theta functions."""
    search = CoupledConvex(4, (), 1.0)
    where = torch.cartesian_prod(torch.arange(-4.0, 5), torch.arange(-4.0, 5)).double()
    u = torch.full((1, 2, 3, 3), 0.3, dtype=torch.float64)
    v = search._chosen(torch.zeros(1, 81, 3, 3, dtype=torch.float64), where, u, ratio)
    nodes = np.arange(-4, 5)
    weights = np.exp(-ratio * (nodes - 0.3) ** 2)
    assert float(v[0, 0, 1, 1]) == pytest.approx((nodes * weights).sum() / weights.sum(), abs=1e-9)
    assert (abs(float(v[0, 0, 1, 1]) - 0.3) < 1e-3) is (ratio == 1.0)


# ---- the loss


def test_the_loss_weighs_classes_by_their_frequency():
    """Against numpy; background is a class; labels of one image alone are left out; none of both gives no NaN."""
    one, two = Blobs(0).load(), Blobs(1).load()
    extra = two.labels.data.clone()
    extra[..., :3, :3] = 9
    pair = Pair(one.image, two.image, one.labels, Labels(extra, two.labels.grid))
    (value,) = LOSS.energy.terms(Alignment(pair, Affine.identity(2))).values()
    kinds = [[(labels.data.numpy() == n) for n in (1, 2)] for labels in (one.labels, pair.moving_labels)]
    kinds = [[~np.any(each, 0), *each] for each in kinds]
    weights = np.array([each.sum() for each in kinds[0]]) ** -0.5
    weights /= weights.mean()
    expected = np.mean([w * np.mean((b * 1.0 - a) ** 2) for w, a, b in zip(weights, *kinds, strict=True)])
    assert float(value) == pytest.approx(expected, abs=1e-6)
    same = Pair(one.image, one.image, one.labels, one.labels)
    (nothing,) = LOSS.energy.terms(Alignment(same, Affine.identity(2))).values()
    assert float(nothing) < 1e-12  # squares of what float32 rounds of coordinates


# ---- learning


def task(network: FeatureFusion, examples, out=None, updates: int = 3) -> Task:
    evaluation = PairEvaluation(People().validation, (Dice((1, 2)),))
    return Task(lambda _: network, examples, LOSS, Training(updates=updates, lr=5e-3), evaluation, out)


def test_what_is_frozen_stays_and_labels_are_learned_from_alone():
    """Segmenter weights are bit-equal after the mixer's updates and have no gradient; the mixer's are not."""
    network = net(learning=CoupledConvex(2, (0.03,), 1.0, blur=1))
    trained = SegmentThenFuse(folds=1, share=1.0)(task(network, People().train))
    assert all(weight.grad is None for weight in trained.segmenter.parameters())
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    again = task(trained, People().train, updates=5).trained(trained)
    moved = {name for name, value in again.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("mixer.") for name in moved)
    again.train()
    assert not any(module.training for module in again.segmenter.modules())


def test_nobody_is_segmented_by_who_learned_from_them(tmp_path):
    """By the splits beside each segmenter, and by what it gives: its own memberships, pooled."""
    seen = {}

    @dataclass(frozen=True)
    class Watch(Task):
        def trained(self, network):
            if isinstance(network, FeatureFusion):
                seen.update({pair[0].name: pair[0].load() for pair in self.examples.pairs})
            return super().trained(network)

    network = net(learning=CoupledConvex(2, (0.03,), 1.0, blur=1))
    SegmentThenFuse()(Watch(**vars(task(network, People().train, tmp_path))))
    names = {f"person{letter}" for letter in "abcd"}
    assert set(json.loads((tmp_path / "segmenter" / "splits.json").read_text())["train"]) == names == {*seen}
    told = (tmp_path / "segmenters.csv").read_text().splitlines()[1:]
    who = dict(reversed(line.split(",")[:2]) for line in told)
    assert set(who) == names
    for name, part in who.items():
        assert name not in json.loads((tmp_path / part / "splits.json").read_text())["train"]
    sets = [set(json.loads((tmp_path / part / "splits.json").read_text())["train"]) for part in {*who.values()}]
    assert len(sets) == 2
    assert sets[0] | sets[1] == names
    assert not sets[0] & sets[1]
    case = Blobs(0)
    own = net().segmenter
    state, _ = load_tensors(tmp_path / who[case.name] / "last.safetensors")
    own.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    shown = pooled(seen[case.name].image.data[:, 1:], 3)
    with torch.no_grad():
        expected, other = (pooled(each.eval().memberships(case.load().image), 3) for each in (own, network.segmenter))
    torch.testing.assert_close(shown, expected, atol=1e-6, rtol=0)  # means of nine equal numbers round
    assert float((shown - other).abs().max()) > 1e-3


def test_labels_that_are_not_learned_are_not_shown():
    network = net(labels=(2,), learning=CoupledConvex(2, (0.03,), 1.0, blur=1))
    shown = []

    @dataclass(frozen=True)
    class Watch(Task):
        def trained(self, network):
            if isinstance(network, FeatureFusion):
                shown.append(self.examples.draw(torch.Generator().manual_seed(0)))
            return super().trained(network)

    SegmentThenFuse()(Watch(**vars(task(network, People().train))))
    assert shown[0].fixed_labels.data.unique().tolist() == [0, 2]
    assert shown[0].fixed.data.shape[1] == 3


def test_labels_are_not_looked_at_in_use():
    network, pair = net().eval(), next(iter(People().test))
    scrambled = replace(
        pair,
        fixed_labels=Labels(pair.fixed_labels.data.roll(9, 2), pair.fixed.grid),
        moving_labels=Labels(pair.moving_labels.data.flip(2), pair.moving.grid),
    )
    one, other = (align(network, each).transform.field for each in (pair, scrambled))
    assert torch.equal(one, other)


def told(case: Blobs, whose: Blobs) -> Image:
    """The image of one person with the labels of another for memberships."""
    own, data = case.load(), whose.load().labels.data
    classes = torch.cat([data == 0, data == 1, data == 2], 1).float()
    return replace(own.image, data=torch.cat([own.image.data, classes], 1))


@pytest.mark.parametrize("right", [True, False])
def test_semantics_are_learned_to_be_used_where_they_are_right(right):
    """Images of noise, discs that lie 11 voxels apart: after 60 updates Dice is high, but not with another's discs."""
    network = net(learning=CoupledConvex(3, (0.003, 0.03, 0.3), 1.0, blur=1), search=CoupledConvex(4)).train()
    fixed, moving = Blobs(0, seen=False), Blobs(2, seen=False)
    one, two = fixed.load(), moving.load()
    pair = Pair(told(fixed, fixed), told(moving, moving if right else fixed), one.labels, two.labels)
    assert Dice()(Alignment(pair, Affine.identity(2)))["dice"] < 0.3
    optimiser = torch.optim.Adam(network.mixer.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        sum(LOSS(network, pair, 0.0).values()).backward()
        optimiser.step()
    assert (Dice()(align(network, pair))["dice"] > 0.8) is right


# ---- a run, and its features in ConvexAdam


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "fused"
    recipe = find("feature-fusion", on="phantom")
    settings = {
        "network.ndim": "2",
        "network.every": "3",
        "network.backbone.widths": "[4, 8]",
        "training.updates": "4",
        "procedure.share": "15",
        "procedure.lr": "0.01",
        "training.validate_every": "4",
    }
    run(replace(changed(recipe, settings), data=People()), out)
    return out


def test_a_run_is_read_back_with_its_segmenter(folder):
    """And one that is gone on with does nothing anew."""
    recipe, network = load_network(folder, [__name__])
    subject = Blobs(9).load()
    assert segmentation_dice(network.segmenter, subject, (1, 2))["dice"] > 0.5
    again = run(recipe, folder, resume=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_features_of_a_run_serve_convex_adam(folder):
    """Semantic ones are its memberships; concatenated, MIND before them; with the discs known, Dice rises."""
    _, network = load_network(folder, [__name__])
    source, pair = SimpleNamespace(network=network), next(iter(People().test))
    known = network.segmenter.memberships(pair.fixed)
    assert torch.equal(RunFeatures(source, "semantic")(pair.fixed), known)
    both = RunFeatures(source, weight=3.0)(pair.fixed)
    assert torch.equal(both[:, :4], mind(pair.fixed.data, 1, 2))
    assert torch.equal(both[:, 4:], 3 * known)
    assert RunFeatures(source, "fused")(pair.fixed).shape[1] == 15
    still = FeatureDescent(solver=Descend(0))
    found = [
        Dice()(align(ConvexAdam(features=features, spacing=3, descent=still), pair))["dice"]
        for features in (ConvexAdam().features, RunFeatures(source))
    ]
    assert found[1] > found[0] + 0.05
    with pytest.raises(InputError, match="semantic, concatenated or fused"):
        RunFeatures(source, "all")


def test_rivals_of_the_study_differ_in_their_features_alone():
    network, pair = net().eval(), next(iter(People().test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = align(network, pair).transform.field
    assert torch.equal(align(OtherFeatures(network), pair).transform.field, whole)
    one = chosen(network, pair.fixed, "concatenated", 3.0, 3)
    hand, semantic = (chosen(network, pair.fixed, use, 1.0, 3) for use in ("hand-crafted", "semantic"))
    assert torch.equal(one, torch.cat([hand, 3 * semantic], 1))
    numbers = Dice()(Alignment(pair, Affine.identity(2)))
    unseen = UnseenDice((1,))(Alignment(pair, Affine.identity(2)))
    assert unseen == {"unseen dice": numbers["dice/2"]}


# ---- bad input


def test_what_cannot_be_learned_is_refused():
    examples = People().train
    with pytest.raises(InputError, match="any of the labels 5, 6; there are 1, 2"):
        SegmentThenFuse()(task(net(labels=(5, 6)), examples))
    with pytest.raises(InputError, match="folds: 1 to 4 expected, as many as people, got 5"):
        SegmentThenFuse(folds=5)(task(net(), examples))
    with pytest.raises(InputError, match="learns from pairs"):
        SegmentThenFuse()(task(net(), Singles(examples.cases)))
    with pytest.raises(InputError, match="temperature"):
        net(learning=CoupledConvex())
    with pytest.raises(InputError, match="different labels of 1 or more"):
        net(labels=(1, 1))
    with pytest.raises(InputError, match=r"blocks of 3 voxels.*5×42"):
        net()(noise(0, (5, 42)), noise(1, (5, 42)))
    with pytest.raises(InputError, match=r"images of 1 channels expected \(or 4\), got 2"):
        net()(noise(0, channels=2), noise(1, channels=2))


def test_an_image_in_which_nothing_is_found_is_told():
    network = net().eval()
    with torch.no_grad():
        network.segmenter.head.bias[0] = 50.0
    with pytest.warns(UserWarning, match="silent on the (fixed|moving) image; MIND alone decides"):
        answer = network(noise(0), noise(1))
    assert answer.stats.numbers["foreground of fixed"] < 1e-3
