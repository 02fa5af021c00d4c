"""Plain realignment: known motions are found, whatever the gain of a frame, and the mean gets sharper."""

from dataclasses import replace

import pytest
import torch

from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.solvers.realign import Realign
from pullback.solvers.realigned import Realigned
from pullback.space import Affine, Grid, Image, Motion, Series, block_middles, mean_distance, pull


def made(shape: tuple[int, ...], count: int = 5, noise: float = 0.05) -> tuple[Series, Motion]:
    """A smooth pattern that fades towards the border, in poses of some mm; its world is oblique and far away."""
    grid = Grid.centred(shape, 2.0)
    affine = grid.affine.clone()
    affine[:2, :2] = affine[:2, :2] @ torch.tensor([[0.96, -0.28], [0.28, 0.96]], dtype=torch.float64)
    affine[0, -1] += 3000
    grid = Grid(shape, affine)
    pattern = smooth_noise((1, 1, *shape), 2.0, make_generator(1), torch.zeros(1, dtype=torch.float64))
    middle = (torch.tensor(shape).view(-1, *[1] * len(shape)) - 1) / 2
    away = ((grid.voxels(pattern) - middle) / middle).square().sum(0)
    image = Image((3 + pattern) * torch.exp(-3 * away), grid)
    motion = Motion.rigid(Affine.identity(len(shape)), grid)
    drawn = torch.randn(count, motion.coefficients.shape[-1], generator=make_generator(2), dtype=torch.float64)
    motion = motion.with_params(2.0 * (drawn - drawn.mean(0)))
    data = pull(image, motion.as_affine, onto=grid, mode="cubic").data
    data = data + noise * torch.randn(data.shape, generator=make_generator(3), dtype=torch.float64)
    return Series.of(Image(data, grid), torch.arange(count, dtype=torch.float64)), motion


def apart(found: Motion, known: Motion, grid: Grid) -> torch.Tensor:
    """Distances in mm between how frames lie to the first, found and known."""
    middles = block_middles(grid)
    relative = [torch.linalg.inv(motion.matrix[:1]) @ motion.matrix for motion in (found, known)]
    return mean_distance(Affine(relative[0]), Affine(relative[1]), middles)


SERIES, KNOWN = made((48, 40))


@pytest.mark.parametrize("scaled", [True, False])
def test_known_motions_are_found(scaled):
    found = Realign(scaled=scaled)(SERIES)
    still = KNOWN.with_params(torch.zeros_like(KNOWN.coefficients))
    assert float(apart(still, KNOWN, SERIES.grid)[1:].mean()) > 3
    assert float(apart(found.motion, KNOWN, SERIES.grid).max()) < 0.25, "an eighth of a voxel"


def test_so_they_are_in_3d():
    series, known = made((24, 22, 20), 3)
    assert float(apart(Realign()(series).motion, known, series.grid).max()) < 0.25


def test_gain_and_offset_of_frames_do_not_matter():
    gains = [1.0, 3.0, 0.5, 2.0, 1.5]
    frames = tuple(replace(f, data=g * f.data + 7 * g) for f, g in zip(SERIES, gains, strict=True))
    found = Realign()(replace(SERIES, frames=frames))
    assert float(apart(found.motion, KNOWN, SERIES.grid).max()) < 0.3
    blind = Realign(scaled=False)(replace(SERIES, frames=frames))
    assert float(apart(blind.motion, KNOWN, SERIES.grid).max()) > 1


def test_corrected_frames_are_alike_and_their_mean_is_the_mean():
    found = Realign()(SERIES)
    corrected = found.corrected("cubic").image.data
    inner = (..., slice(10, -10), slice(10, -10))
    before, after = SERIES.image.data[inner].std(0).mean(), corrected[inner].std(0).mean()
    assert float(after) < 0.25 * float(before)
    torch.testing.assert_close(found.mean("cubic").data[inner], corrected[inner].mean(0, keepdim=True))
    still = Realigned(SERIES, KNOWN.with_params(torch.zeros_like(KNOWN.coefficients)))
    torch.testing.assert_close(still.corrected("cubic").image.data, SERIES.image.data, rtol=0, atol=1e-9)


def test_frames_that_lie_on_each_other_stay():
    frames = (SERIES.frames[0],) * 3
    found = Realign()(Series(frames, SERIES.grid, torch.arange(3.0, dtype=torch.float64)))
    assert float(found.motion.coefficients.abs().max()) < 0.02


def test_what_cannot_be_realigned_is_refused():
    one = Series(SERIES.frames[:1], SERIES.grid, torch.zeros(1, dtype=torch.float64))
    with pytest.raises(InputError, match="two frames or more"):
        Realign()(one)
    flat = Image(torch.ones(2, 1, 48, 40), SERIES.grid)
    with pytest.raises(InputError, match="one intensity everywhere"):
        Realign()(Series.of(flat, torch.arange(2.0, dtype=torch.float64)))
    with pytest.raises(InputError, match="one pass"):
        Realign(smoothing=())
