"""What looks failed, and what does not: on real brains and slices, and on made ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.energies import LNCC, Diffusion
from pullback.files import read_image
from pullback.numerics.smooth import gaussian
from pullback.solvers import DeformableStage, Descend, Levels
from pullback.space import Affine, Displacement, Grid, Image, Labels
from pullback.workflows.quality import verdict


@pytest.fixture(scope="module")
def brains(shared) -> Pair:
    """Two people's brains, laid on each other by their headers."""
    folder = shared / "data" / "brains" / "2mm"
    return Pair(*(read_image(folder / f"sub-{name}_T1w.nii.gz") for name in ("15", "16")))


def slices(shared: Path, *names: str) -> Pair:
    folder = shared / "data" / "ants_2d_slices" / "inst" / "extdata"
    pixels = [torch.from_numpy(np.asarray(Picture.open(folder / name), np.float32).copy()) for name in names]
    return Pair(*(Image(data[None, None], Grid.centred(tuple(data.shape))) for data in pixels))


def about_middle(image: Image, *diagonal: float) -> Affine:
    """Mirrors or half turns about the middle of the grid."""
    matrix = torch.diag(torch.tensor([*diagonal, 1.0], dtype=torch.float64))
    matrix[:-1, -1] = image.grid.centre - matrix[:-1, :-1] @ image.grid.centre
    return Affine(matrix)


def judged(pair: Pair, after, before=None):
    before = before or Affine.identity(pair.fixed.grid.ndim)
    return verdict(Alignment(pair, before), Alignment(pair, after))


@pytest.mark.slow
def test_two_brains_that_lie_on_each_other_are_sound(brains):
    found = judged(brains, Affine.identity(3))
    assert found.passed
    assert found.score > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("turn", [(1, -1, -1), (-1, -1, 1), (-1, 1, -1)])
def test_a_brain_turned_by_half_looks_failed(brains, turn):
    found = judged(brains, about_middle(brains.fixed, *turn))
    assert not found.passed
    assert any("in another way" in reason for reason in found.reasons)
    assert found.score < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("smooth", [0.0, 4.0])
def test_noise_looks_failed(brains, smooth):
    noise = torch.rand(brains.fixed.data.shape, generator=torch.Generator().manual_seed(1))
    noise = gaussian(noise, smooth) if smooth else noise
    found = judged(Pair(brains.fixed, Image(noise, brains.fixed.grid)), Affine.identity(3))
    assert not found.passed


@pytest.mark.slow
def test_noise_that_was_bent_into_likeness_still_looks_failed(shared):
    """A deformation can make anything alike: the linear part has to stand out by itself."""
    fixed = slices(shared, "r16slice.jpg", "r16slice.jpg").fixed
    noise = Image(gaussian(torch.rand(fixed.data.shape, generator=torch.Generator().manual_seed(2)), 4.0), fixed.grid)
    bend = DeformableStage(
        LNCC(9) + 0.05 * Diffusion(), levels=Levels(finest=2), steps=(60,), solver=Descend(step_size=0.2)
    )
    found = judged(Pair(fixed, noise), bend(normalised(fixed), normalised(noise)).transform)
    assert found.numbers["similarity after"] > 2 * found.numbers["similarity before"]
    assert not found.passed


@pytest.mark.parametrize("contrast", [1.0, -1.0])
def test_contrast_does_not_matter(shared, contrast):
    pair = slices(shared, "r16slice.jpg", "r16slice.jpg")
    moving = Image(contrast * pair.moving.data, pair.moving.grid)
    assert judged(Pair(pair.fixed, moving), Affine.identity(2)).passed


def test_a_slice_upside_down_looks_failed(shared):
    pair = slices(shared, "r16slice.jpg", "r64slice.jpg")
    assert not judged(pair, about_middle(pair.fixed, -1, 1)).passed


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_folding_and_leaving_and_harm_are_told(ndim, waves):
    shape = (48, 44, 40)[:ndim]
    grid = Grid.centred(shape)
    values = waves(ndim, 3, 9.0)(grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None]))
    image = Image(values.float() + 1, grid)
    pair, still = Pair(image, image), Affine.identity(ndim)
    assert judged(pair, still).score == 1
    field = torch.zeros(1, ndim, *shape)
    field[:, 0] = 4 * (grid.voxels(field)[0] * 2 * torch.pi / 8).sin()  # slopes down to 1 − π
    told = judged(pair, Displacement(field, grid)).reasons
    assert any("folds" in reason for reason in told)
    away = torch.eye(ndim + 1, dtype=torch.float64)
    away[0, -1] = 36.0  # of 48 voxels
    told = judged(pair, Affine(away)).reasons
    assert any("less alike" in reason for reason in told)


def test_labels_that_part_are_told(waves):
    """Though the images, which repeat themselves, are as alike as before."""
    grid = Grid.centred((40, 44))
    where = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])
    image = Image((2 * torch.pi * where[:, :1] / 4).sin().float() + waves(2, 1, 30.0)(where).float() / 20 + 2, grid)
    labels = Labels((where.norm(dim=1, keepdim=True) < 12).to(torch.uint8), grid)
    pair, period = Pair(image, image, labels, labels), torch.eye(3, dtype=torch.float64)
    period[0, -1] = 4.0
    found = judged(pair, Affine(period))
    assert found.score < 0.5
    assert any("labels overlap less than before: Dice 0.7" in reason for reason in found.reasons)
    told = judged(pair, Affine.identity(2), before=Affine(period)).reasons
    assert not any("labels" in reason for reason in told)


def test_a_small_view_within_a_large_image_has_not_left(brains):
    """A slab of the moving brain covers little of the fixed one, and all of what it could."""
    data = brains.moving.data[..., 30:70]
    affine = brains.moving.grid.affine.clone()
    affine[:, -1] = affine @ torch.tensor([0.0, 0, 30, 1], dtype=torch.float64)
    slab = Image(data.contiguous(), Grid(tuple(data.shape[2:]), affine))
    found = judged(Pair(brains.fixed, slab), Affine.identity(3))
    assert found.numbers["share in view"] > 0.6
    assert found.passed


def test_where_the_images_never_meet_it_is_said(brains):
    away = torch.eye(4, dtype=torch.float64)
    away[0, -1] = 1000.0
    found = judged(brains, Affine(away))
    assert found.score == 0
    assert found.numbers["share in view"] == 0


@pytest.mark.slow
def test_what_a_lesion_mask_hides_does_not_count(brains):
    """Noise where nobody looks changes nothing."""
    mask = torch.ones(1, 1, *brains.fixed.grid.shape, dtype=torch.bool)
    mask[..., 30:50, 30:50, 30:60] = False
    noise = torch.rand(brains.fixed.data.shape, generator=torch.Generator().manual_seed(1)) * 900
    ruined = Image(torch.where(mask, brains.fixed.data, noise), brains.fixed.grid, mask)
    whole = Image(brains.fixed.data, brains.fixed.grid, mask)
    seen = [judged(Pair(fixed, brains.moving), Affine.identity(3)).numbers["lead"] for fixed in (ruined, whole)]
    assert seen[0] == pytest.approx(seen[1], rel=0.15)


def shift(*steps: float) -> Affine:
    matrix = torch.eye(len(steps) + 1, dtype=torch.float64)
    matrix[:-1, -1] = torch.tensor(steps, dtype=torch.float64)
    return Affine(matrix)


def made(grid: Grid, value, off: Affine, seed: int, noise: float) -> Image:
    """What `value` makes of the points of a world, seen from elsewhere."""
    where = off.inverse().at(grid.to_world(grid.voxels(off.matrix)[None]))[0]
    grain = torch.randn(1, 1, *grid.shape, generator=torch.Generator().manual_seed(seed))
    return Image(value(where).float()[None, None] + noise * grain, grid)


def ball(where: torch.Tensor) -> torch.Tensor:
    """In 2-D a disc: an edge, a ring, a core."""
    away = where.norm(dim=0)
    return torch.sigmoid(2 * (9 - away)) - 0.6 * torch.exp(-(((away - 5) / 1.2) ** 2))


@pytest.mark.parametrize("ndim", [2, 3])
def test_round_things_are_not_called_failed(ndim):
    """To turn a ring or a ball makes no difference; to miss it does."""
    grid, truth = Grid.centred((26, 24, 28)[:ndim]), shift(*[2.4, -2.2, 1.0][:ndim])
    pair = Pair(made(grid, ball, Affine.identity(ndim), 1, 0.01), made(grid, ball, truth, 2, 0.01))
    assert judged(pair, truth).passed
    assert not judged(pair, truth @ shift(7.0, *[0.0] * (ndim - 1))).passed


def spine(where: torch.Tensor) -> torch.Tensor:
    """Vertebrae, 10 mm apart, that grow a little along the way."""
    wide = torch.sigmoid(1.5 * (6 + 0.08 * where[-1] - where[:-1].norm(dim=0)))
    return 0.2 + wide * torch.sigmoid(5 * (2 * torch.pi * where[-1] / 10).cos()) * (0.7 + 0.015 * where[-1])


def test_a_spine_one_vertebra_off_is_not_called_sound():
    grid, truth = Grid.centred((24, 60)), shift(-1.0, 1.0)
    pair = Pair(made(grid, spine, Affine.identity(2), 1, 0.03), made(grid, spine, truth, 2, 0.03))
    assert judged(pair, truth).passed
    for off in (10.0, -10.0):
        found = judged(pair, truth @ shift(0.0, off))
        assert any("in another way" in reason for reason in found.reasons)


def test_air_is_no_view():
    """Two views that share the body and little of the noise about it."""
    grid = Grid.centred((60, 40))

    def lopsided(where: torch.Tensor) -> torch.Tensor:
        away = (where / torch.tensor([7.0, 12.0]).view(2, 1, 1)).norm(dim=0) + 0.02 * where[0]
        return torch.sigmoid(4 * (1 - away)) * (1 + 0.4 * torch.sin(where[1] / 3 + where[0] / 5))

    fixed, moving = (made(grid, lopsided, shift(x, 0.0), n, 0.01) for n, x in enumerate((-20.0, 20.0)))
    found = judged(Pair(fixed, moving), shift(40.0, 0.0))
    assert found.numbers["share in view"] > 0.9
    assert found.passed


def test_a_body_that_left_the_view_is_told():
    grid = Grid.centred((60, 40))
    fixed, moving = (made(grid, ball, shift(x, 0.0), n, 0.01) for n, x in enumerate((0.0, 0.0)))
    told = judged(Pair(fixed, moving), shift(31.0, 0.0)).reasons
    assert any("in view" in reason for reason in told)


def test_a_mask_without_contrast_is_told(brains):
    """Noise of a thousandth, which percentiles within the mask would stretch to white and black."""
    grid = brains.fixed.grid
    mask = torch.zeros(1, 1, *grid.shape, dtype=torch.bool)
    mask[..., 30:50, 38:58, 46:66] = True
    data = brains.fixed.data.clone()
    grain = torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    data[mask] = 0.5 * data.max() + 1e-3 * data.max() * grain[mask]
    found = judged(Pair(Image(data, grid, mask), brains.moving), Affine.identity(3))
    assert found.numbers["contrast within masks"] < 0.01
    assert any("nothing to align" in reason for reason in found.reasons)
    whole = judged(Pair(Image(brains.fixed.data, grid, mask), brains.moving), Affine.identity(3))
    assert not any("nothing to align" in reason for reason in whole.reasons)


@pytest.mark.slow
def test_a_brain_flipped_left_to_right_is_told(brains):
    flipped = Image(brains.fixed.data.flip(2), brains.fixed.grid)
    found = judged(Pair(brains.fixed, flipped), Affine.identity(3))
    assert any("mirror image" in reason for reason in found.reasons)
    assert not any("mirror image" in reason for reason in judged(brains, Affine.identity(3)).reasons)


@pytest.mark.parametrize(("share", "told"), [(0.2, False), (0.5, True)])
def test_a_map_that_marks_much_of_the_foreground_is_told(share, told, waves):
    """A network whose β is below what is usual leaves no image to compare."""
    grid = Grid.centred((40, 44))
    image = Image(
        waves(2, 3, 9.0)(grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])).float() + 1, grid
    )
    mark = (torch.arange(40) < 40 * share).float().view(1, 1, 40, 1).expand(1, 1, 40, 44).contiguous()
    pair, still = Pair(image, image), Affine.identity(2)
    found = verdict(Alignment(pair, still), Alignment(pair, still, {"non_correspondence": Image(mark, grid)}))
    assert found.numbers["share without counterpart"] == pytest.approx(share, abs=0.01)
    assert any(f"{100 * share:.0f} % of the foreground is marked" in reason for reason in found.reasons) == told
    assert found.passed != told
