"""What a network is shown in use: what it was shown in training."""

import math

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import FileCase
from pullback.files import read_image, write
from pullback.space import Affine, Composite, Displacement, Grid, Image, Labels
from pullback.study.trained import Trained


class Watching(nn.Module):
    """Finds nothing, and keeps what it saw."""

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        self.seen = fixed, moving
        return Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data))


def test_what_a_mask_hides_looks_as_it_did_in_training(tmp_path):
    chance, grid = torch.Generator().manual_seed(0), Grid.centred((12, 14, 10))
    paths = [tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"]
    inside = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    inside[..., 3:9, 4:11, 2:8] = 1
    write(Image(torch.rand(1, 1, *grid.shape, generator=chance) * 900, grid), paths[0])
    write(Labels(inside, grid), paths[1])
    learned = FileCase("one", paths[0], mask=paths[1]).load().image
    network, stored = Watching(), read_image(*paths)
    Trained(network, spacing=(1.0, 1.0, 1.0))(stored, stored)
    for seen in network.seen:
        torch.testing.assert_close(seen.data, learned.data)
        assert torch.equal(seen.mask, learned.mask)


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
