"""Trust that is learned: its gradient, who moves whom, and that it finds what no vote can."""

import math
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

from pullback.data.candidates import CandidateDraws, Candidates
from pullback.errors import InputError
from pullback.methods.labels.consensus import dice_with, majority, simple
from pullback.methods.labels.deep_staple import (
    TRUST,
    CandidateAffine,
    LearnedTrust,
    TrustedSegmenter,
    consensus_quality,
    trust_loss,
    trusted_quality,
)
from pullback.networks import SegmentationUNet
from pullback.numerics.random import make_generator
from pullback.recipes import find
from pullback.records.csv_records import read_csv
from pullback.space import Grid, Image, Labels
from pullback.study.run import load_run
from pullback.testing import check_augmentation, check_supervision
from pullback.training import Training, seeded
from pullback.training.train import train

SIDE, EACH, TARGETS, ALIKE = 24, 6, 10, 5  # of which so many share an error
SMALL = partial(TrustedSegmenter, 2, (1,), backbone=partial(SegmentationUNet, widths=(4, 8)), count=EACH * TARGETS)


def disc(centre) -> torch.Tensor:
    """A disc of radius 5."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 25


@dataclass(frozen=True)
class Disc:
    """A target: a disc in noise. Of the first ones four of six label maps are shifted the same way; of others 30 %."""

    number: int

    @property
    def name(self) -> str:
        return f"disc {self.number}"

    def load(self) -> Candidates:
        draws, grid = make_generator(5, self.number), Grid.centred((SIDE, SIDE))
        centre = 8 + 8 * torch.rand(2, generator=draws)
        image = disc(centre) + 0.3 * torch.randn(SIDE, SIDE, generator=draws)
        angles = 2 * math.pi * torch.rand(EACH, generator=draws)
        if self.number < ALIKE:
            angles, wrong = angles[:1].expand(EACH), torch.arange(EACH) < 4
        else:
            wrong = torch.rand(EACH, generator=draws) < 0.3
        moved = [disc(centre + 5 * w * torch.stack([a.cos(), a.sin()])) for w, a in zip(wrong, angles, strict=True)]
        labels = Labels(torch.stack(moved)[:, None].to(torch.uint8), grid)
        truth = Labels(disc(centre)[None, None].to(torch.uint8), grid)
        numbers = torch.arange(self.number * EACH, (self.number + 1) * EACH)
        return Candidates(Image(image[None, None], grid), labels, numbers, truth, name=self.name)

    seen = load


DISCS = [Disc(n) for n in range(TARGETS)]
BATCH = CandidateDraws(DISCS).draw(make_generator(0))


# ---- the loss


def test_the_gradient_is_the_closed_form_and_scale_does_not_matter():
    """σ' (c − c̄) / s̄, with the weighted mean of costs c̄ (brief: 2.2); and Euler's law of degree 0."""
    parameters = torch.randn(8, generator=make_generator(1), dtype=torch.double).requires_grad_()
    cost = torch.rand(8, generator=make_generator(2), dtype=torch.double)
    (slope,) = torch.autograd.grad(trust_loss(parameters, cost), parameters)
    s = parameters.detach().sigmoid()
    mean = (s / s.mean() * cost).mean()
    assert torch.allclose(slope, s * (1 - s) * (cost - mean) / s.mean(), atol=1e-12, rtol=0)
    assert abs(float((slope / (1 - s)).sum())) < 1e-12  # Σ s ∂ℓ/∂s
    small = (s / 2).logit()
    assert float(trust_loss(small, cost)) == pytest.approx(float(trust_loss(parameters.detach(), cost)), abs=1e-12)


def test_as_printed_every_parameter_falls():
    parameters = torch.randn(8, generator=make_generator(1)).requires_grad_()
    (slope,) = torch.autograd.grad(trust_loss(parameters, torch.rand(8) + 0.1, balanced=False), parameters)
    assert (slope > 0).all()


class Told(nn.Module):
    """A network whose scores and data parameters are given."""

    def __init__(self, scores, parameters):
        super().__init__()
        self.scores, self.parameters_ = nn.Parameter(scores), nn.Parameter(parameters)

    def forward(self, image, numbers):
        return self.scores, self.parameters_


def told(marked: list[int], sure: float = 0.0) -> tuple[Told, Candidates]:
    """A batch of images of 1000 voxels, of which so many are marked, and a network that says the same of all."""
    grid = Grid.centred((10, 100))
    labels = torch.stack([(torch.arange(1000) < n).view(1, 10, 100) for n in marked]).to(torch.uint8)
    scores = torch.zeros(len(marked), 2, 10, 100)
    scores[:, 1] = sure
    example = Candidates(
        Image(torch.zeros(len(marked), 1, 10, 100), grid), Labels(labels, grid), torch.arange(len(marked))
    )
    return Told(scores, torch.zeros(len(marked))), example


def test_costs_are_divided_by_the_logarithm_of_what_is_marked():
    """All scores alike: the cost is log 2 whatever is marked, and n = 0 divides by ln e + e = 3.718."""
    network, example = told([0, 10, 1000])
    loss = LearnedTrust((1,), risk=False)(network, example, 0.0)["trust"].detach()
    expected = sum(math.log(2) / (math.log(n + math.e) + math.e) for n in (0, 10, 1000))
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert math.log(0 + math.e) + math.e == pytest.approx(3.718, abs=1e-3)
    plain = LearnedTrust((1,), risk=False, size=False)(network, example, 0.0)["trust"].detach()
    assert float(plain) == pytest.approx(3 * math.log(2), rel=1e-6)


def test_risk_is_the_share_that_the_network_marks():
    """All voxels are marked by the network: each sample's cost is one less, and nothing where it marks none."""
    for sure, share in ((4.0, 1.0), (-4.0, 0.0)):
        network, example = told([0, 10, 1000], sure)
        with_, without = (
            float(LearnedTrust((1,), risk=r, size=False)(network, example, 0.0)["trust"].detach())
            for r in (True, False)
        )
        assert without - with_ == pytest.approx(3 * share, rel=1e-6)


def test_classes_weigh_by_how_rare_they_are_in_the_networks_loss_alone():
    """Marked voxels, a tenth: (0.1 / 0.9)^−0.35 times as heavy, a mean weighed by class."""
    network, example = told([100], sure=1.0)
    terms = LearnedTrust((1,), rare=0.35, risk=False, size=False)(network, example, 0.0)
    terms = {name: value.detach() for name, value in terms.items()}
    costs = [math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(1.0))]  # of marked voxels, and others
    heavy = 9**0.35
    expected = (100 * heavy * costs[0] + 900 * costs[1]) / (100 * heavy + 900)
    assert float(terms["cross-entropy"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["trust"]) == pytest.approx(0.1 * costs[0] + 0.9 * costs[1], rel=1e-5)


def gradients(supervision, *names) -> dict[str, torch.Tensor]:
    with seeded(3):
        network = SMALL()
    terms = supervision(network, BATCH, 0.0)
    torch.stack([terms[name] for name in names or terms]).sum().backward()
    return {name: w.grad.to_dense() for name, w in network.named_parameters() if w.grad is not None}


def test_out_of_line_neither_sees_the_others_loss():
    """The network's gradients are those of the cross-entropy alone, bit for bit; trust's those of its own."""
    both, network, trust = (gradients(LearnedTrust((1,)), *names) for names in ((), ("cross-entropy",), ("trust",)))
    assert set(network) | set(trust) == set(both)
    assert set(trust) == {"trust.weight"} == {*both} - {*network}
    assert all(torch.equal(both[name], {**network, **trust}[name]) for name in both)
    assert both["trust.weight"].any()
    inline = gradients(LearnedTrust((1,), inline=True))
    assert set(inline) == set(both)
    assert not torch.equal(inline["segmenter.head.weight"], both["segmenter.head.weight"])


def test_the_risk_moves_trust_and_never_the_network():
    one, other = (gradients(LearnedTrust((1,), inline=True, risk=risk)) for risk in (True, False))
    assert all(torch.equal(one[name], other[name]) for name in one if name != "trust.weight")


def test_trust_that_begins_later_learns_nothing_before():
    supervision = LearnedTrust((1,), begins=0.5)
    network, example = told([10])
    assert set(supervision(network, example, 0.4)) == {"cross-entropy"}
    assert set(supervision(network, example, 0.5)) == {"cross-entropy", "trust"}
    assert supervision.paced
    assert not LearnedTrust((1,)).paced


def test_several_label_maps_of_one_image_are_as_many_images():
    """The image is seen once, and the losses are those of a copy for each label map."""
    known = DISCS[7].load()
    copies = replace(known, image=Image(known.image.data.expand(EACH, -1, -1, -1), known.image.grid), truth=None)
    with seeded(3):
        network = SMALL()
    one, other = (LearnedTrust((1,))(network, example, 0.0) for example in (known, copies))
    for name in one:
        assert float(one[name].detach()) == pytest.approx(float(other[name].detach()), rel=1e-5)
    two = DISCS[8].load()
    both = LearnedTrust((1,))(network, replace(known, truth=None).stack([two]), 0.0)
    images = known.image.data.expand(EACH, -1, -1, -1), two.image.data.expand(EACH, -1, -1, -1)
    labels = Labels(torch.cat([known.labels.data, two.labels.data]), known.image.grid)
    numbers = torch.cat([known.numbers, two.numbers])
    stacked = Candidates(Image(torch.cat(images), known.image.grid), labels, numbers)
    for name, value in LearnedTrust((1,))(network, stacked, 0.0).items():
        assert float(value.detach()) == pytest.approx(float(both[name].detach()), rel=1e-5)


class Dense(TrustedSegmenter):
    """With gradients of all rows, which the checks can read."""

    def __init__(self):
        super().__init__(2, (1,), backbone=partial(SegmentationUNet, widths=(4, 8)), count=EACH * TARGETS)
        self.trust.sparse = False


@pytest.mark.parametrize("inline", [True, False])
def test_contract_of_the_supervision(inline):
    check_supervision(LearnedTrust((1,), inline=inline), Dense, BATCH)


def test_contract_of_the_augmentation():
    check_augmentation(CandidateAffine(), BATCH)
    check_augmentation(CandidateAffine(), DISCS[0].load())


def test_label_maps_are_augmented_as_their_image():
    """Without noise, an image that is its label map stays so, but for voxels on edges."""
    known = replace(BATCH, image=Image(BATCH.labels.data.float(), BATCH.image.grid))
    moved = CandidateAffine(noise=0.0)(known, make_generator(4))
    assert not torch.equal(moved.labels.data, known.labels.data)
    assert ((moved.image.data > 0.5) != (moved.labels.data > 0)).float().mean() < 0.01


def test_the_vote_is_by_the_softmax_over_the_image_alone():
    """Whatever is trusted elsewhere; and a constant added to all of an image changes nothing."""
    known, network = DISCS[1].load(), SMALL()
    values = torch.tensor([2.0, -1.0, 0.5, 0.0, 3.0, 1.0])
    for shift, others in ((0.0, 0.0), (5.0, 20.0)):
        with torch.no_grad():
            network.trust.weight[:] = others
            network.trust.weight[known.numbers, 0] = values + shift
        expected = values.double().exp() / values.double().exp().sum()
        assert torch.allclose(network.consensus(known).weights, expected, atol=1e-6)


def test_there_is_a_data_parameter_for_each_label_map():
    with pytest.raises(InputError, match=r"set network\.count to 61 or more"):
        SMALL().data_parameters(torch.tensor([0, 60]))


# ---- what it learns


@pytest.fixture(scope="module")
def learned() -> TrustedSegmenter:
    with seeded(0):
        network = SMALL()
    numbers = Training(updates=90, lr=1e-2, players=(TRUST,))
    return train(network, CandidateDraws(DISCS[: TARGETS - 1]), LearnedTrust((1,)), numbers)


def test_it_finds_the_label_maps_that_are_shifted(learned):
    """By chance one in two that are compared; also where most are shifted alike."""
    known = [one.load() for one in DISCS[:-1]]
    trust = torch.cat([learned.data_parameters(one.numbers).detach() for one in known])
    right = torch.cat([dice_with(one.labels, one.truth) > 0.9 for one in known])
    assert (trust[right][:, None] > trust[~right]).float().mean() >= 0.95


def test_it_knows_what_no_vote_can(learned):
    """Where four of six share an error every vote follows them; the network has seen other images."""
    for known in (one.load() for one in DISCS[:ALIKE]):
        found = [trusted_quality(learned, known)["dice"]]
        found += [consensus_quality(lambda c, way=way: way(c.labels), known)["dice"] for way in (majority, simple)]
        assert found[0] > 0.95 > 0.7 > max(found[1:])
    assert trusted_quality(learned, DISCS[0].load())["rank"] > 0.8


def test_rows_that_are_never_in_a_batch_never_move(learned):
    rest = learned.trust.weight[(TARGETS - 1) * EACH :]
    assert not rest.any()
    assert learned.trust.weight[: (TARGETS - 1) * EACH].ne(0).all()


def test_the_recipes_know_the_truth_of_whom_they_choose_by_alone():
    data = find("deep-staple").data
    tested, chosen = ({*data.test.names}, {*data.validation.names})
    assert not tested & chosen
    assert tested | chosen == {*data.train.names}


@pytest.mark.nightly
def test_a_recipe_is_trained_stopped_gone_on_with_and_measured(pullback, tmp_path):
    """By the commands; data parameters lie with the weights."""
    sizes = {"data.data.spacing": 14, "data.targets": 4, "data.atlases": 3, "data.chosen_by": 2, "data.at_once": 4}
    sizes |= {"training.validate_every": 4, "network.backbone.widths": "[4, 8]"}
    words = ["train", "deep-staple", "-o", tmp_path / "run", "--json"]
    words += [word for key, value in sizes.items() for word in ("--set", f"{key}={value}")]
    for updates, more in ((8, ()), (8, ("--resume",))):
        code, _, err = pullback(*words, *more, "--set", f"training.updates={updates}")
        assert code == 0, err
    recipe, network = load_run(tmp_path / "run", aligns="labels")
    assert (network.trust.weight[:12] != 0).any()
    assert not network.trust.weight[12:].any()
    code, _, err = pullback("evaluate", tmp_path / "run", "-o", tmp_path / "measured")
    assert code == 0, err
    rows = read_csv(tmp_path / "measured" / "pairs.csv")
    assert [row["example"] for row in rows] == [*recipe.data.test.names]
    assert all(0 < row["dice"] <= 1 for row in rows)
