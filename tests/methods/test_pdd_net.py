"""PDD-Net: what its numbers do, what a cache may not change, and what is learned from whom."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import grey_erosion, uniform_filter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pullback.alignment import Alignment, Pair
from pullback.data import Compressions, FramePairs
from pullback.energies import LabelMSE
from pullback.errors import InputError
from pullback.methods.pair.pdd_net import STEP, Distilled, InPhases, MeanField, Obelisk, PDDNet, Propagator
from pullback.metrics import Dice
from pullback.numerics.cost_volume import lower_envelope, offsets, twice_averaged
from pullback.numerics.sample import sample, voxels
from pullback.recipes import find
from pullback.space import Displacement, Grid, Image, Labels, pull
from pullback.study.evaluate import evaluate
from pullback.study.recipe import changed
from pullback.study.run import build
from pullback.testing import check_register, check_supervision, problems
from pullback.training import PairEvaluation, Task, Training, Unsupervised, VideoEvaluation, seeded

IDLE = 2  # numbers of its public code that have no effect
GRID = Grid.centred((72, 88))


def net(ndim: int = 2, **sizes) -> PDDNet:
    with seeded(3):
        return PDDNet(ndim, **sizes)


def frame(seed: int, grid: Grid = GRID) -> Image:
    values = torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(seed))
    return Image(values, grid)


def labelled(shift: int = 0) -> Pair:
    """Two blocks, which lie some voxels lower in the moving image."""
    data = torch.zeros(1, 1, *GRID.shape, dtype=torch.uint8)
    data[..., 20:40, 30:50], data[..., 45:60, 20:35] = 1, 2
    return Pair(frame(0), frame(1), Labels(data, GRID), Labels(data.roll(shift, 2), GRID), name="blocks")


def test_its_weights_are_counted():
    """23,426 of the public code in 2-D, less the two that have no effect; convolutions and normalisation by hand."""
    hand = 25 * 4 + 2 * 4 + 2 * 16 * 2 + 64 * 64 + 2 * 64 + 9 * 64 * 32 + 2 * 32 + 32 * 16 + 16 + 4
    assert sum(p.numel() for p in net().parameters()) == hand == 23_426 - IDLE


def test_its_work_is_counted():
    """Multiply-adds of the features of a frame of 320×256: below the 0.2 billion that suit a phone."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net().eval().features(torch.rand(1, 1, 320, 256))
    hand = 80 * 64 * (25 * 4 + 64 * 64) + 40 * 32 * (9 * 64 * 32 + 32 * 16)
    assert counter.get_total_flops() / 2 == hand < 2e8


def test_numbers_added_to_all_costs_have_neither_effect_nor_gradient():
    """With six numbers, as in the public code: two do nothing."""
    costs = torch.rand(1, 25, 4, 5, dtype=torch.float64)
    alphas = torch.tensor([1.13, 0.076, 1.05, -0.75, 0.073, 1.13], dtype=torch.float64, requires_grad=True)

    def smooth(values):
        return twice_averaged(lower_envelope(values, 2))

    first = alphas[0] * costs + alphas[1]
    second = smooth(alphas[4] + alphas[2] * first + alphas[3] * smooth(first))
    likely = (-alphas[5] * second).softmax(1)
    field = MeanField(2).double()
    field.weights.data = alphas.detach()[[0, 2, 3, 5]]
    torch.testing.assert_close(field(costs), likely, atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad((likely * torch.rand_like(likely)).sum(), alphas)
    assert slope[[1, 4]].abs().max() < 1e-12
    assert slope[[0, 2, 3, 5]].abs().min() > 1e-6


def test_the_temperature_goes_from_no_motion_to_the_best():
    at = offsets(2, 2, torch.zeros((), dtype=torch.float64), nearest_first=False)
    costs = torch.rand(1, 25, 6, 6, dtype=torch.float64)
    field = MeanField(2).double()
    field.weights.data[3] = 0
    still = torch.einsum("bk...,kd->bd...", field(costs), at)
    assert float(still.detach().abs().max()) < 1e-6
    field.weights.data[3] = 1e6
    again = MeanField(2).double()
    smoothed = again._smoothed(costs)
    expected = again._smoothed(costs + smoothed).argmin(1)
    likely = field(costs).detach()
    assert torch.equal(likely.argmax(1), expected)
    assert float(likely.amax(1).min()) > 0.99


def test_a_shift_by_whole_steps_is_found():
    """Features that are noise, shifted by two steps and one: the answer is that, away from the border."""
    network = net()
    network.mean_field.weights.data[3] = 1e4
    grid = Grid.centred((24 * STEP, 26 * STEP))
    still = 3 * torch.randn(1, 16, 24, 26, generator=torch.Generator().manual_seed(1))
    image = Image(torch.zeros(1, 1, *grid.shape), grid)
    with torch.no_grad():
        found = network.between(still, still.roll((2, -1), (2, 3)), Pair(image, image)).transform.field
    inner = found[..., 6 * STEP : -8 * STEP, 8 * STEP : -6 * STEP]
    assert float((inner[:, 0] - 2 * STEP).abs().max()) < 1e-3 * STEP
    assert float((inner[:, 1] + STEP).abs().max()) < 1e-3 * STEP


def test_displacements_stand_as_on_their_lattice():
    """The answer by loops and scipy, with costs in an array whose axes are displacements and places."""
    grid, k = Grid.centred((32, 40)), 2
    here, there = torch.rand(2, 1, 16, 4, 5, generator=torch.Generator().manual_seed(4))
    costs = np.zeros((5, 5, 4, 5))
    for a, b, i, j in np.ndindex(costs.shape):
        seen = there[0, :, min(max(i + a - k, 0), 3), min(max(j + b - k, 0), 4)]
        costs[a, b, i, j] = float((here[0, :, i, j] - seen).square().sum())

    def smooth(values: np.ndarray) -> np.ndarray:
        out = np.pad(values, ((3, 3), (3, 3), (0, 0), (0, 0)), mode="edge")
        out = uniform_filter(uniform_filter(grey_erosion(out, (3, 3, 1, 1)), (3, 3, 1, 1)), (3, 3, 1, 1))[3:-3, 3:-3]
        out = np.pad(out, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
        return uniform_filter(uniform_filter(out, (1, 1, 3, 3)), (1, 1, 3, 3))[..., 2:-2, 2:-2]

    second = smooth(costs + smooth(costs))
    likely = np.exp(-(second - second.min((0, 1))))
    likely /= likely.sum((0, 1))
    steps = np.arange(-k, k + 1.0)
    expected = [STEP * np.einsum("abij,a->ij", likely, steps), STEP * np.einsum("abij,b->ij", likely, steps)]
    image = Image(torch.zeros(1, 1, *grid.shape), grid)
    with torch.no_grad():
        found = net(half_width=k).between(here, there, Pair(image, image)).transform.field
    np.testing.assert_allclose(found[0, :, ::STEP, ::STEP].numpy(), np.stack(expected), atol=1e-4)


def test_obelisk_is_the_difference_at_two_places():
    with seeded(0):
        layer = Obelisk(2, 3)
    values = torch.rand(2, 4, 9, 11)
    found = layer(values)
    assert found.shape == (2, 12, 9, 11)
    half = torch.tensor([4.0, 5.0])
    for n in range(3):
        one, other = (
            sample(
                values, (voxels((9, 11), values) + (layer.offsets[k, n] * half).view(2, 1, 1))[None], padding="border"
            )
            for k in range(2)
        )
        for channel in range(4):
            torch.testing.assert_close(found[:, 3 * channel + n], (one - other)[:, channel])


def test_features_are_those_of_every_eighth_voxel():
    """An image moved by 16 voxels has its features two points on, away from the border, where offsets allow."""
    network = net().eval()
    network.obelisk.offsets.data *= 0.2
    values = frame(2, Grid.centred((160, 120))).data
    with torch.no_grad():
        here, there = network.features(values), network.features(values.roll((16, 8), (2, 3)))
    assert here.shape == (1, 16, 20, 15)
    torch.testing.assert_close(here[..., 4:-6, 4:-5], there[..., 6:-4, 5:-4], atol=1e-4, rtol=1e-3)


def test_the_cache_changes_nothing_to_the_last_bit():
    network, reference, new = net().eval(), frame(0), frame(1)
    with torch.no_grad():
        plain = network(new, reference).transform.field
        assert torch.equal(Propagator(network, reference)(new).transform.field, plain)
    assert not torch.equal(plain, torch.zeros_like(plain))
    with pytest.raises(InputError, match="a frame on"):
        Propagator(network, reference)(frame(1, Grid.centred((64, 88))))


def test_what_lies_at_the_reach_is_told():
    network, pair = net().eval(), labelled()
    with torch.no_grad():
        spread = network(*pair.images).stats.numbers["at the reach"]
        network.mean_field.weights.data[3] = 0
        even = network(*pair.images).stats.numbers["at the reach"]
    assert even == pytest.approx((121 - 81) / 121, rel=1e-5)
    assert 0 <= spread < 1


def test_more_memory_than_allowed_is_refused():
    with pytest.raises(InputError, match="memory"):
        net(memory=10_000)(frame(0), frame(1))


@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("shift", "batch", ndim=3)], ids=str)
def test_contract(problem):
    with seeded(3):
        check_register(PDDNet(problem.pair.fixed.grid.ndim, half_width=2).eval(), problem, solves=False)


# ---- the teacher


class Shift(nn.Module):
    """A teacher that says one shift, and has a weight."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        field = torch.zeros(1, 2, *fixed.grid.shape)
        field = torch.cat([field[:, :1] + self.by, field[:, 1:]], 1)
        return Alignment(Pair(fixed, moving), Displacement(field, fixed.grid))


def test_a_teacher_that_is_the_student_tells_nothing_and_none_learns():
    network, pair = Shift(1.5), labelled(3)
    teacher = copy.deepcopy(network)
    losses = Distilled(teacher)(network, pair, 0.0)
    assert {*losses} == {"label mse", "soft"}
    assert float(losses["soft"].detach()) == 0
    far = Shift(4.0)
    losses = Distilled(teacher)(far, pair, 0.0)
    sum(losses.values()).backward()
    assert teacher.by.grad is None
    assert far.by.grad is not None


def test_the_soft_target_is_the_teachers_labels_pulled_linearly():
    """By hand, also between voxels, where nearest labels would be others."""
    pair, student, teacher = labelled(3), Shift(0.25), Shift(1.6)
    each = torch.cat([(pair.moving_labels.data == value).float() for value in (0, 1, 2)], 1)
    each[:, 0] -= 1  # background goes on beyond the image

    def pulled(shift: Shift) -> torch.Tensor:
        return pull(Image(each, GRID), shift(*pair.images).transform, onto=GRID).data.detach()

    expected = 0.5 * (pulled(student) - pulled(teacher)).square().mean()
    found = Distilled(teacher)(student, pair, 0.0)["soft"]
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_without_a_soft_target_the_gradient_is_that_of_labels_alone():
    pair = labelled(3)
    slopes = []
    for supervision in (Distilled(Shift(2.0), soft=0.0), Unsupervised(LabelMSE(background=True))):
        student = Shift(0.3)
        sum(supervision(student, pair, 0.0).values()).backward()
        slopes.append(float(student.by.grad))
    assert slopes[0] == pytest.approx(slopes[1], abs=1e-7)


def test_contract_of_the_supervision():
    check_supervision(Distilled(Shift(2.0)), lambda: net(half_width=2), labelled(3))


# ---- videos

TINY = Compressions(side=48, frames=12, train_videos=2, validation_videos=1, test_videos=1)


def test_two_phases_are_two_trainings(tmp_path):
    """The first learns from near frames, the second from references, on from the weights of the first."""
    seen: list[tuple[int, float]] = []

    class Watched(Unsupervised):
        def __call__(self, register, pair, progress):
            numbers = [int(name[-3:]) for name in pair.name.split(" ← ")]
            seen.append((numbers[0] - numbers[1], progress))
            return super().__call__(register, pair, progress)

    class Recorded(Task):
        def trained(self, network):
            told.append((self.training.updates, self.training.lr))
            return super().trained(network)

    told: list[tuple[int, float]] = []
    watched = Watched(LabelMSE(background=True))
    numbers = Training(updates=3, lr=1e-3, log_every=1, validate_every=3)
    task = Recorded(
        lambda _: net(half_width=2), TINY.train, watched, numbers, PairEvaluation(TINY.validation), tmp_path
    )
    InPhases(FramePairs(apart=6), rate=4.0, share=2 / 3)(task)
    assert [apart for apart, _ in seen[:2]] == [6, 6]
    assert all(apart % 4 == 0 for apart, _ in seen[2:])
    assert len(seen) == 5
    assert told == [(2, 4e-3), (3, 1e-3)]
    assert (tmp_path / "first" / "best.safetensors").is_file()
    assert (tmp_path / "best.safetensors").is_file()


@pytest.mark.parametrize("name", ["pdd-net", "pdd-net-labels"])
def test_recipes_run_two_steps(name):
    """On few small frames, and for both phases; the teacher is one that is at hand."""
    recipe = changed(find(name), {"training.updates": "2", "training.validate_every": "2"})
    assert recipe.aligns == "pair"
    supervision = recipe.supervision
    if isinstance(supervision, Distilled):
        supervision = replace(supervision, teacher=Shift(1.0))
    data = replace(TINY, at_once=2)
    network = build(recipe)
    before = copy.deepcopy(network.state_dict())
    task = Task(lambda _: network, data.train, supervision, recipe.training, recipe.evaluates(data.validation))
    recipe.procedure(task)
    learned = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key, _ in network.named_parameters()} <= learned


def test_videos_are_measured_each_by_the_mean_of_its_frames():
    """And how steady a number is, by its variance over the frames."""
    test = replace(TINY, test_videos=2).test
    still = lambda fixed, moving: Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data))  # noqa: E731
    cpu = torch.device("cpu")
    frames = [*PairEvaluation(test).rows(still, cpu)]
    videos = [*VideoEvaluation(test, steady=("dice",)).rows(still, cpu)]
    assert [row["pair"] for row in videos] == ["0000", "0001"]
    evaluated = evaluate({"still": still}, test, partial(VideoEvaluation, metrics=(Dice(),)))["still"]
    assert [(row["subject"], row["dice"]) for row in evaluated] == [(row["pair"], row["dice"]) for row in videos]
    for row in videos:
        own = torch.tensor([f["dice"] for f in frames if f["pair"].startswith(f"sub-{row['pair']}")]).double()
        assert row["dice"] == pytest.approx(float(own.mean()))
        assert row["variance of dice"] == pytest.approx(float(own.var()))
