"""What a network is shown in use: what it was shown in training."""

import math

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import FileCase, preprocessed
from pullback.files import read_image, write
from pullback.space import Affine, Composite, Displacement, Grid, Image, Labels, pull
from pullback.study.trained import AtItsSpacing, Trained


class Watching(nn.Module):
    """Finds nothing, and keeps what it saw."""

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        self.seen = fixed, moving
        return Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data))


def test_what_a_mask_hides_looks_as_it_did_in_training(tmp_path):
    generator, grid = torch.Generator().manual_seed(0), Grid.centred((12, 14, 10))
    paths = [tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"]
    inside = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    inside[..., 3:9, 4:11, 2:8] = 1
    write(Image(torch.rand(1, 1, *grid.shape, generator=generator) * 900, grid), paths[0])
    write(Labels(inside, grid), paths[1])
    learned = FileCase("one", paths[0], mask=paths[1]).load().image
    network, stored = Watching(), read_image(*paths)
    Trained(network, spacing=(1.0, 1.0, 1.0))(stored, stored)
    for seen in network.seen:
        torch.testing.assert_close(seen.data, learned.data)
        assert torch.equal(seen.mask, learned.mask)


def test_evaluation_shows_voxels_of_another_size_as_registration_does():
    """And those of the training's size as the data set has prepared them."""
    generator, network = torch.Generator().manual_seed(0), Watching()
    trained = Trained(network, spacing=(1.0, 1.0))
    for edge in (1.0, 2.0):
        grid = Grid.centred((24, 28), edge)
        image = preprocessed(Image(torch.rand(1, 1, 24, 28, generator=generator), grid))
        AtItsSpacing(trained)(image, image)
        seen = network.seen[0]
        if edge == 1:
            assert seen is image
        else:
            trained(image, image)
            assert torch.equal(seen.data, network.seen[0].data)
            assert seen.grid.shape == (47, 55)


@pytest.mark.parametrize("long", [0, 1, 2])
def test_axes_are_smoothed_by_how_much_their_own_voxels_grow(long):
    """A wave along an axis of 1 mm, shown at 2 mm, keeps what a Gaussian as wide as 2 mm less 1 mm leaves of it; along
    one of 4 mm, all of it at its voxels."""
    spacing = [4.0 if axis == long else 1.0 for axis in range(3)]
    grid = Grid(
        tuple(round(64 / h) + 1 for h in spacing), torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    )
    where = grid.to_world(grid.voxels(torch.zeros(1, dtype=torch.float64))[None])
    length = 16.0
    for axis in range(3):
        wave = (2 * math.pi * where[:, axis : axis + 1] / length).cos().float()
        network = Watching()
        Trained(network, spacing=(2.0, 2.0, 2.0))(Image(wave, grid), Image(wave, grid))
        (seen, _) = network.seen
        middle = seen.data[0, 0].movedim(axis, 0)[:, 16, 16]
        step = round(length / 2)
        at_peaks, at_troughs = middle[step:-step:step], middle[step + step // 2 : -step : step]
        kept = float(at_peaks.mean() - at_troughs.mean())
        sigma = 0.0 if axis == long else math.sqrt(2.0**2 - 1.0**2) / 2.355
        assert kept == pytest.approx(math.exp(-0.5 * (2 * math.pi * sigma / length) ** 2), rel=0.02)


@pytest.mark.parametrize("centred", [False, True])
def test_a_shift_to_start_from_also_moves_what_lies_beyond_the_grid(oblique, centred):
    """Where the network finds nothing, the answer is that shift, everywhere; without one, it is a displacement."""
    grid, away = oblique((12, 14, 10), seed=1), torch.tensor([300.0, -200.0, 100.0], dtype=torch.float64)
    affine = grid.affine.clone()
    affine[:3, 3] += away
    images = (Image(torch.rand(1, 1, *grid.shape), g) for g in (grid, Grid(grid.shape, affine)))
    found = Trained(Watching(), centred=centred)(*images).transform
    points = 500 * torch.rand(40, 3, dtype=torch.float64) - 250
    torch.testing.assert_close(found(points), points + away * centred)
    parts = (found.outer, found.inner) if isinstance(found, Composite) else (found,)
    assert tuple(map(type, parts)) == ((Affine, Displacement) if centred else (Displacement,))
    assert (parts[-1].grid, parts[-1].field.dtype) == (grid, torch.float32)


def test_images_whose_middles_meet_start_from_no_shift():
    image = Image(torch.rand(1, 1, 12, 14, 10), Grid.centred((12, 14, 10)))
    assert isinstance(Trained(Watching(), centred=True)(image, image).transform, Displacement)


class Knowing(nn.Module):
    """Answers with a transform of this kind, a map and a further transform, all on the grid that it is shown."""

    def __init__(self, transform):
        super().__init__()
        self.transform = transform

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        phase = Displacement(torch.ones(1, 3, *fixed.grid.shape), fixed.grid)
        known = {"deviation": Image(fixed.grid.to_world(fixed.grid.voxels(fixed.data)[None])[:, :1], fixed.grid)}
        return Alignment(Pair(fixed, moving), self.transform(fixed.grid), known, {"phase": phase})


def two_images(oblique):
    """On grids of their own, the fixed one of 1.2 mm."""
    generator = torch.Generator().manual_seed(1)
    grids = Grid.centred((20, 18, 16), 1.2), oblique((17, 19, 15), 4)
    return [Image(torch.rand(1, 1, *grid.shape, generator=generator), grid) for grid in grids]


def test_what_a_network_knows_comes_back_on_the_asked_grid(oblique):
    """Maps by their place in the world, and further transforms as the transform itself, from a 2 mm grid."""
    fixed, moving = two_images(oblique)

    def shifted(grid):
        return Displacement(grid.from_mm(torch.full((1, 3, *grid.shape), 0.5)), grid)

    answer = Trained(Knowing(shifted), spacing=(2.0, 2.0, 2.0))(fixed, moving)
    right = fixed.grid.to_world(fixed.grid.voxels(fixed.data)[None])[:, :1]
    inner = (..., *[slice(3, -3)] * 3)
    torch.testing.assert_close(answer.maps["deviation"].data[inner], right[inner], rtol=0, atol=1e-4)
    for transform, mm in ((answer.transform, 0.5), (answer.transforms["phase"], 2.0)):
        assert transform.grids == (fixed.grid,)
        moved = fixed.grid.to_mm(transform.displacement(fixed.grid))
        torch.testing.assert_close(moved[inner], torch.full_like(moved[inner], mm), rtol=0, atol=1e-4)


def test_a_linear_answer_stays_linear_from_any_start(oblique):
    fixed, moving = two_images(oblique)
    turn = Affine.about(torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), torch.tensor([1.0, 2, 3]))
    start = Affine.about(torch.eye(3), torch.zeros(3), torch.tensor([4.0, -5, 6]))
    trained = Trained(Knowing(lambda grid: turn), spacing=(2.0, 2.0, 2.0))
    torch.testing.assert_close(trained(fixed, moving).transform.matrix, turn.matrix)
    answer = trained(fixed, moving, start=start)
    torch.testing.assert_close(answer.transform.matrix, start.matrix @ turn.matrix)
    assert answer.stats.start is start


def test_a_network_goes_on_from_a_start_of_any_kind(oblique):
    """What it sees as moving is the moving image as the start lays it, and its answer comes before the start."""
    fixed, moving = two_images(oblique)
    bent = Displacement(torch.full((1, 3, *fixed.grid.shape), 0.7), fixed.grid)
    for start in (Affine.about(torch.eye(3), torch.zeros(3), torch.tensor([1.0, 0, -2])), bent):
        network = Watching()
        answer = Trained(network)(fixed, moving, start=start)
        torch.testing.assert_close(answer.transform.displacement(fixed.grid), start.displacement(fixed.grid).float())
        direct = Trained(other := Watching())(fixed, pull(preprocessed(moving), start, onto=fixed))
        assert direct.transform.grids == (fixed.grid,)
        inner = (..., *[slice(4, -4)] * 3)
        seen, expected = network.seen[1].data[inner], other.seen[1].data[inner]
        assert float(torch.corrcoef(torch.stack([seen.flatten(), expected.flatten()]))[0, 1]) > 0.99
