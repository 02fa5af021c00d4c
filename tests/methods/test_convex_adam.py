"""ConvexAdam: it aligns what it should, whatever the contrast and the grids."""

from dataclasses import replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom
from pullback.energies import mind
from pullback.errors import InputError
from pullback.methods.pair.convex_adam import ConvexAdam, FeatureOptimised
from pullback.metrics import Dice, EndPointError
from pullback.numerics.cost_volume import box_mean, pooled, unpooled
from pullback.numerics.smooth import box_sum
from pullback.solvers import Descend, FeatureDescent
from pullback.space import Affine, Displacement, Grid, Image
from pullback.testing import check_register, problems


@pytest.fixture(scope="module")
def pair() -> Pair:
    return next(iter(BrainPhantom(spacing=4.0, test_subjects=2).test))


SMALL = ConvexAdam(spacing=4)


def measures(pair: Pair, transform) -> tuple[float, float]:
    alignment = Alignment(pair, transform)
    return EndPointError()(alignment)["epe mm"], Dice()(alignment)["dice"]


@pytest.mark.slow
def test_it_comes_nearer_to_the_truth_and_in_another_contrast_as_near(pair):
    before = measures(pair, Affine.identity(3))
    found = measures(pair, SMALL(pair.fixed, pair.moving).transform)
    assert found[0] < 0.6 * before[0]
    assert found[1] > before[1] + 0.05
    dark = replace(pair.moving, data=1 - pair.moving.data)
    inverted = measures(pair, SMALL(pair.fixed, dark).transform)
    assert inverted[0] == pytest.approx(found[0], rel=0.02)


@pytest.mark.slow
def test_the_moving_image_may_lie_on_another_grid_and_a_start_is_gone_on_from(pair):
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, -1] = 60.0
    away = Image(pair.moving.data, Grid(pair.moving.grid.shape, shift @ pair.moving.grid.affine))
    start = Affine(shift)
    found = SMALL(pair.fixed, away, start=start).transform
    plain = SMALL(pair.fixed, pair.moving).transform
    grid = pair.fixed.grid
    back = (Affine(torch.linalg.inv(shift)) @ found).displacement(grid)
    off = (back - plain.displacement(grid)).norm(dim=1)
    assert float(off.mean()) < 1e-3, float(off.mean())


def test_both_ways_there_and_back_is_where_one_was():
    """Nearer by far than of two searches that do not know of each other; no descent follows."""
    still = FeatureDescent(solver=Descend(0))
    (problem,) = problems("smooth", ndim=2)
    fixed, moving = problem.pair.images
    left = []
    for both_ways in (True, False):
        register = ConvexAdam(spacing=3, both_ways=both_ways, descent=still)
        there, back = (register(*images).transform for images in ((fixed, moving), (moving, fixed)))
        left.append(float((there @ back).displacement(fixed.grid).norm(dim=1).mean()))
    assert left[0] < 0.5 * left[1]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(72, 64), (36, 32, 40)])
@pytest.mark.parametrize("masked", [("fixed",), ("moving",), ("fixed", "moving")])
def test_nothing_pulls_at_an_image_that_is_compared_with_itself_within_masks(shape, masked):
    """Nor do the masks, though those of the two lie four voxels apart."""
    generator = torch.Generator().manual_seed(0)
    values = box_sum(torch.rand(1, 1, *shape, generator=generator), 3)
    masks = {}
    for name, first in (("fixed", 8), ("moving", 12)):
        masks[name] = torch.zeros(1, 1, *shape, dtype=torch.bool)
        masks[name][(..., *[slice(first, 20 + first)] * len(shape))] = True
    one, two = (Image(values, Grid.centred(shape), masks[n] if n in masked else None) for n in ("fixed", "moving"))
    field = SMALL(one, two).transform.field
    looked_at = torch.stack([masks[name] for name in masked]).all(0)
    assert float((field.norm(dim=1, keepdim=True) * looked_at).sum() / looked_at.sum()) < 0.05


def test_what_a_mask_hides_does_not_count():
    """The right half of the moving image is another; within the mask of the left one, the shift is found."""
    values = box_sum(torch.rand(1, 1, 80, 64, generator=torch.Generator().manual_seed(1)), 3)
    grid = Grid.centred((80, 64))
    other = torch.cat([values.roll(3, 3)[:, :, :40], values.flip(2)[:, :, 40:]], 2)
    mask = (torch.arange(80) < 36).view(1, 1, 80, 1).expand(1, 1, 80, 64)
    field = SMALL(Image(values, grid), Image(other, grid, mask)).transform.field
    assert float((field[0, 1, 8:32, 8:-8] - 3).abs().mean()) < 0.1


def test_an_image_of_one_block_is_refused():
    image = Image(torch.rand(1, 1, 11, 30), Grid.centred((11, 30)))
    with pytest.raises(InputError, match=r"blocks of 6 voxels.*11×30"):
        ConvexAdam()(image, image)


def test_the_authors_numbers_are_the_defaults():
    """Siebert et al. 2022; with another step, width or weight it would be another method."""
    register, image = ConvexAdam(), Image(torch.rand(1, 1, 14, 14, 14), Grid.centred((14, 14, 14)))
    assert torch.equal(register.features(image), mind(image.data, radius=1, dilation=2))
    assert (register.spacing, register.fine, register.both_ways) == (6, 2, True)
    search, descent = register.discrete, register.descent
    assert (search.half_width, search.couplings, search.temperature) == (4, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), None)
    assert (descent.regularity, descent.solver.steps, descent.solver.step_size) == (1.25, 80, 1.0)


# ---- the descent alone


@pytest.mark.parametrize("problem", problems(ndim=2), ids=str)
def test_contract_of_the_descent(problem):
    solves = problem.name == "identity"
    check_register(FeatureOptimised(), problem, solves=solves, rounding=None if solves else problem.within)


def test_the_papers_numbers_are_the_defaults_of_the_descent():
    known = FeatureOptimised()
    assert (known.fine, known.descent.regularity, known.descent.solver.steps) == (2, 0.65, 50)
    assert known.descent.solver.step_size == 1.0


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_steps_the_start_is_smoothed(ndim):
    """Thrice by means of three blocks, and once more so where that is asked for."""
    grid = Grid.centred((24, 20, 16)[:ndim])
    image = Image(torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0)), grid)
    field = box_mean(torch.randn(1, ndim, *grid.shape, generator=torch.Generator().manual_seed(1)), 5)
    still = FeatureOptimised(descent=FeatureDescent(0.65, Descend(steps=0)))
    coarse = pooled(field, 2) / 2
    for _ in range(3):
        coarse = box_mean(coarse, 3)
    expected = unpooled(coarse, 2, grid.shape)
    start = Displacement(field, grid)
    torch.testing.assert_close(still(image, image, start).transform.field, expected)
    for _ in range(3):
        expected = box_mean(expected, 3)
    torch.testing.assert_close(replace(still, smoothed=True)(image, image, start).transform.field, expected)


def test_it_goes_on_from_where_a_start_leads_and_no_further():
    """A shift of ten voxels is beyond it alone; from eight it is found, linear or as a field."""
    values = box_sum(torch.rand(1, 1, 72, 64, generator=torch.Generator().manual_seed(2)), 3)
    grid = Grid.centred((72, 64))
    fixed, moving = Image(values, grid), Image(values.roll(10, 2), grid)
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, -1] = 8.0
    starts = {"none": None, "linear": Affine(matrix), "field": Displacement(torch.zeros(1, 2, 72, 64), grid)}
    starts["field"].field[:, 0] = 8.0
    inner = (0, 0, slice(12, 48), slice(8, 56))
    off = {
        name: float((FeatureOptimised()(fixed, moving, start).transform.displacement(grid)[inner] - 10).abs().mean())
        for name, start in starts.items()
    }
    assert max(off["linear"], off["field"]) < 0.3, off
    assert off["none"] > 3, off


def test_it_looks_within_masks_and_brings_their_borders_together():
    """What lies outside both masks does not count; of one texture without corners, the masks alone tell the shift."""
    values = box_sum(torch.rand(1, 1, 64, 48, generator=torch.Generator().manual_seed(3)), 3)
    grid = Grid.centred((64, 48))
    mask = (torch.arange(64) < 40).view(1, 1, 64, 1).expand(1, 1, 64, 48)
    other = torch.cat([values[:, :, :40], values.flip(2)[:, :, 40:]], 2)
    found, plain = (
        FeatureOptimised()(Image(values, grid, mask), Image(moving, grid, mask)).transform.field
        for moving in (other, values)
    )
    assert torch.equal(found, plain)
    whole, half = (
        FeatureOptimised()(Image(values, grid, one), Image(other, grid)).transform.field for one in (None, mask)
    )
    assert torch.equal(whole, half)
    flat = torch.linspace(0, 1, 48).expand(1, 1, 64, 48)
    disc = ((torch.arange(64)[:, None] - 32) ** 2 + (torch.arange(48) - 24) ** 2 < 14**2)[None, None]
    moved = FeatureOptimised()(Image(flat, grid, disc), Image(flat, grid, disc.roll(4, 2))).transform.field
    assert float(moved[:, 0, 24:40, 16:32].mean()) == pytest.approx(4, abs=1)


def test_the_descent_refuses_an_image_of_one_block():
    image = Image(torch.rand(1, 1, 3, 30), Grid.centred((3, 30)))
    with pytest.raises(InputError, match=r"blocks of 2 voxels.*3×30"):
        FeatureOptimised()(image, image)


def test_how_a_start_lies_in_memory_changes_nothing():
    values = box_sum(torch.rand(1, 1, 48, 40, generator=torch.Generator().manual_seed(2)), 3)
    grid = Grid.centred((48, 40))
    fixed, moving = Image(values, grid), Image(values.roll(3, 2), grid)
    field = box_mean(torch.randn(1, 2, 48, 40, generator=torch.Generator().manual_seed(1)), 9)
    turned = field.movedim(1, -1).contiguous().movedim(-1, 1)
    found = [FeatureOptimised()(fixed, moving, Displacement(start, grid)).transform.field for start in (field, turned)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-3)
