"""The whole chain on small images: any two grids, any start, no influence of what is hidden."""

from dataclasses import replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom
from pullback.energies import LNCC, Diffusion
from pullback.errors import InputError
from pullback.methods.pair.classical import ACCURATE, BALANCED, FAST, Classical, register
from pullback.methods.pose.initialise import Initialise, from_header, from_masses
from pullback.metrics import Dice, Folding, SDLogJ, numbers_of
from pullback.numerics.random import make_generator
from pullback.solvers import Converged, DeformableStage, Descend, Levels, LinearStage
from pullback.space import Affine, Composite, Grid, Image, Labels, Motion, Velocity, pull
from pullback.workflows.choices import KINDS, classical

SHAPES = {2: ((36, 34), (40, 44)), 3: ((24, 26, 24), (28, 25, 30))}
LINEAR = tuple(
    (name, LinearStage(motion, solver=Descend(steps=60, step_size=0.25, until=Converged(20, 0.002))))
    for name, motion in (("rigid", Motion.rigid), ("affine", Motion.affine))
)
QUICK = Classical(
    initialise=Initialise(guesses=(("header", from_header), ("masses", from_masses)), search=None, random=8),
    linear=LINEAR,
    deformable=DeformableStage(LNCC(7) + 0.3 * Diffusion(), levels=Levels(coarsest=12), steps=(30,)),
)


def linear_motion(ndim: int) -> Affine:
    some = Motion.affine(Affine.identity(ndim), Grid.centred((28,) * ndim))
    return Affine(some.with_params(torch.randn(len(some.coefficients), generator=make_generator(4)).double()).matrix)


@pytest.fixture(scope="module")
def scene(waves, oblique, smooth_field):
    """A textured body in the moving world; the fixed image sees it through an affine map and a field."""

    def make(ndim: int) -> Pair:
        one, two = (oblique(n, seed, 1.0, 1.3) for n, seed in zip(SHAPES[ndim], (1, 4), strict=True))
        truth = linear_motion(ndim) @ Velocity(smooth_field(SHAPES[ndim][0], 5, amplitude=2.5, shortest=20), one)
        value = waves(ndim, 1, 9.0, count=8)

        def seen(at: torch.Tensor) -> torch.Tensor:
            body = torch.sigmoid(1.5 * (11 - at.norm(dim=1, keepdim=True)))
            return (200 * (value(at) + 1.5) * body).round().float()  # whole numbers, as scanners write

        here, there = (g.to_world(g.voxels(g.affine)[None]) for g in (one, two))
        return Pair(Image(seen(truth.at(here)), one), Image(seen(there), two), truth=truth)

    return make


def error(transform, pair: Pair) -> float:
    """Mean, in voxels, over the fixed body."""
    body = pair.fixed.data[0, 0] > 100
    off = transform.displacement(pair.fixed.grid).double() - pair.truth.displacement(pair.fixed.grid)
    return float(off.norm(dim=1)[0][body].mean())


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_from_files_as_they_are_to_a_field(scene, ndim):
    """Every stage brings it nearer; the inverse takes points back; nothing that was given has changed."""
    pair = scene(ndim)
    before = [image.data.clone() for image in (pair.fixed, pair.moving)]
    solved = QUICK(pair.fixed, pair.moving)
    rough = replace(QUICK, deformable=None)(pair.fixed, pair.moving)
    errors = [error(t, pair) for t in (Affine.identity(ndim), rough.transform, solved.transform)]
    assert errors[0] > 1.3
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.7 * errors[1]
    assert [stage.name for stage in solved.stats.stages] == ["initialise", "rigid", "affine", "deformable"]
    assert [stage.name for stage in rough.stats.stages] == ["initialise", "rigid", "affine"]
    assert all(stage.seconds >= 0 for stage in solved.stats.stages)
    assert solved.stats.origin in {"header", "masses"}
    assert solved.pair.fixed is pair.fixed
    assert solved.pair.moving is pair.moving
    torch.testing.assert_close(solved.moved.data, Alignment(pair, solved.transform).moved.data)
    assert all(torch.equal(a, image.data) for a, image in zip(before, (pair.fixed, pair.moving), strict=True))
    assert isinstance(rough.transform, Affine)
    inner = [n // 4 for n in pair.fixed.grid.shape]
    core = tuple(slice(k, -k) for k in inner)
    points = pair.fixed.grid.to_world(pair.fixed.grid.voxels(pair.fixed.grid.affine)[None])[
        (slice(None), slice(None), *core)
    ]
    points = points.flatten(2).mT
    trip = (solved.inverse(solved.transform(points)) - points).norm(dim=-1) / pair.fixed.grid.spacing.min()
    assert float(trip.quantile(0.95)) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_what_masks_hide_has_no_influence_to_the_last_bit(scene, ndim):
    """Noise, brighter than anything or darker, in either image."""
    pair = scene(ndim)
    answers = []
    for seed, size in ((1, 1e4), (2, -1e3)):
        images = []
        for n, image in enumerate((pair.fixed, pair.moving)):
            away = image.grid.to_world(image.grid.voxels(image.data)[None]) - (4.0 if n == 0 else -3.0)
            hidden = away.norm(dim=1, keepdim=True) < 4
            noise = size * torch.rand(image.data.shape, generator=make_generator(seed, n))
            images.append(Image(torch.where(hidden, noise, image.data), image.grid, ~hidden))
        few = replace(QUICK, deformable=replace(QUICK.deformable, steps=(4,)))
        answers.append(few(*images))
    one, two = answers
    assert all(torch.equal(a, b) for a, b in zip(one.transform.params, two.transform.params, strict=True))
    assert one.stats.confidence == two.stats.confidence


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda x: 4 * x - 70, lambda x: x / 1024])
def test_units_of_intensity_do_not_matter(scene, change):
    """Where whole numbers and powers of two round nothing: to the last bit."""
    pair = scene(2)
    few = replace(QUICK, deformable=None)
    changed = Image(change(pair.moving.data), pair.moving.grid)
    one, two = few(pair.fixed, pair.moving).transform, few(pair.fixed, changed).transform
    assert torch.equal(one.matrix, two.matrix)


def test_a_linear_start_takes_the_place_of_the_initialisation(scene):
    """Linear stages that take no step hand it on as it is, and the field goes on from there."""
    pair, start = scene(2), linear_motion(2)
    still = tuple((name, replace(stage, solver=Descend(steps=0))) for name, stage in LINEAR)
    solved = replace(QUICK, linear=still)(pair.fixed, pair.moving, start=start)
    assert [stage.name for stage in solved.stats.stages] == ["rigid", "affine", "deformable"]
    assert solved.stats.origin == ""
    torch.testing.assert_close(solved.transform.outer.matrix, start.matrix, rtol=0, atol=1e-12)
    assert error(solved.transform, pair) < 0.4 * error(start, pair)


def test_a_field_as_a_start_is_refined_alone(scene):
    pair = scene(2)
    half = pair.truth.outer @ pair.truth.inner.with_params((0.3 * pair.truth.inner.field).float())
    solved = QUICK(pair.fixed, pair.moving, start=half)
    assert [stage.name for stage in solved.stats.stages] == ["deformable"]
    assert isinstance(solved.transform, Composite)
    assert torch.equal(solved.transform.outer.matrix, half.outer.matrix)
    assert error(solved.transform, pair) < 0.7 * error(half, pair)


def test_stages_may_be_left_out(scene):
    pair = scene(2)
    nothing = Classical(initialise=None, linear=(), deformable=None)
    start = linear_motion(2)
    assert torch.equal(nothing(pair.fixed, pair.moving).transform.matrix, torch.eye(3, dtype=torch.float64))
    assert nothing(pair.fixed, pair.moving, start=start).transform is start
    assert nothing(pair.fixed, pair.moving).stats.stages == ()


@pytest.mark.slow
def test_channels_go_together(scene):
    pair = scene(2)
    images = [Image(torch.cat([i.data, i.data.square() / 500], 1), i.grid) for i in (pair.fixed, pair.moving)]
    assert error(QUICK(*images).transform, pair) < 0.5


def test_the_presets_are_registers_of_growing_effort():
    assert register is BALANCED
    assert {type(p) for p in (FAST, BALANCED, ACCURATE)} == {Classical}
    assert sum(FAST.deformable.steps) < sum(BALANCED.deformable.steps) < sum(ACCURATE.deformable.steps)
    assert FAST.deformable.levels.most < BALANCED.deformable.levels.most
    assert ACCURATE.deformable.levels.most is None


def test_images_of_different_dimension_are_refused(scene):
    with pytest.raises((ValueError, InputError), match="2-D"):
        QUICK(scene(2).fixed, scene(3).moving)


def test_registration_refuses_a_path_before_it_works():
    flat = Image(torch.zeros(1, 1, 9, 8), Grid.centred((9, 8)))
    for pair in ((flat, "b.nii.gz"), ("a.nii.gz", flat)):
        with pytest.raises(TypeError, match=r"pb\.read_image"):
            register(*pair)


@pytest.fixture(scope="module")
def brains():
    return next(iter(BrainPhantom(spacing=5.0, train_subjects=2, validation_subjects=2, test_subjects=2).test))


ALIGNED = replace(FAST, initialise=None, linear=())


def quality_of(pair, transform):
    return numbers_of(Alignment(pair, transform), (Dice(), SDLogJ(), Folding()))


@pytest.mark.slow
@pytest.mark.parametrize("middle", [(15, 20, 15), (10, 14, 12), (20, 24, 16)])
def test_what_is_excluded_of_the_moving_image_keeps_its_size(brains, middle):
    """A lesion is to be brought along, not to be closed over. At its rim it loses what regularity pulls in from around
    it: a voxel of its radius of 5 would be half of it, half a voxel a quarter, and up to 0.305 was seen.
    """
    grid = brains.moving.grid
    from_middle = grid.voxels(torch.zeros(1, dtype=torch.float64)) - torch.tensor(middle).view(3, 1, 1, 1)
    ball = Labels((from_middle.square().sum(0) <= 25)[None, None].to(torch.uint8), grid)
    whole, holed = brains.moving, replace(brains.moving, mask=ball.data == 0)
    free, spared = (
        pull(ball, ALIGNED(brains.fixed, moving).transform, onto=brains.fixed).data.sum() for moving in (whole, holed)
    )
    assert float(spared) == pytest.approx(float(free), rel=0.35)


@pytest.mark.slow
@pytest.mark.parametrize("sides", ["both", "fixed"])
def test_masks_of_the_brain_leave_the_field_as_smooth(brains, sides):
    fixed, moving = (replace(image, mask=image.data > 0.02) for image in (brains.fixed, brains.moving))
    plain = quality_of(brains, ALIGNED(brains.fixed, brains.moving).transform)
    masked = quality_of(brains, ALIGNED(fixed, moving if sides == "both" else brains.moving).transform)
    before = quality_of(brains, Affine.identity(3))
    assert masked["sdlogj"] < 1.1 * plain["sdlogj"]
    assert masked["dice"] - before["dice"] > 0.8 * (plain["dice"] - before["dice"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_every_kind_of_field_aligns_by_every_preset(brains, kind, preset):
    found = classical(preset, kind, aligned=True)(brains.fixed, brains.moving).transform
    assert quality_of(brains, found)["dice"] > quality_of(brains, Affine.identity(3))["dice"] + 0.1


def test_five_slices_are_registered_to_their_rim(waves):
    """All are deformed alike in plane, so all come back alike."""
    shape = (40, 36, 5)
    grid = Grid(shape, torch.diag(torch.tensor([0.3, 0.3, 1.5, 1.0], dtype=torch.float64)))
    where = grid.voxels(grid.affine)  # (3, *shape)
    bend = torch.zeros_like(where)
    bend[0] = 1.6 * (2 * torch.pi * where[1] / 36 + 0.5).sin()
    bend[1] = 1.6 * (2 * torch.pi * where[0] / 40).cos()
    value = waves(3, 2, 7.0, count=8)

    def slices(at: torch.Tensor) -> Image:
        middle = torch.tensor([19.5, 17.5]).view(2, 1, 1, 1)
        body = torch.sigmoid(1.5 * (14 - (at[:2] - middle).norm(dim=0)))
        stretched = at * torch.tensor([1.0, 1.0, 3.0]).view(3, 1, 1, 1)
        return Image((100 * body * (value(stretched[None])[0, 0] + 1.5)).float()[None, None], grid)

    fixed, moving = slices(where + bend), slices(where)
    found = classical("fast", aligned=True)(fixed, moving).transform.displacement(grid)[0].double()
    inside = fixed.data[0, 0] > 50
    off = [float((found - bend)[:2, ..., k].norm(dim=0)[inside[..., k]].mean()) for k in range(5)]
    assert max(off) < 1.3 * min(off)
    assert max(off) < 0.8
