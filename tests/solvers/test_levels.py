"""Pyramids of any shape: what each level asks, and what it may not."""

import itertools

import pytest
import torch

from pullback.alignment import Pair
from pullback.numerics.random import make_generator
from pullback.solvers import Levels
from pullback.space import Grid, Image

GRIDS = {
    "cube": ((64, 64, 64), (1.0, 1.0, 1.0)),
    "thick slices": ((128, 120, 20), (0.8, 0.8, 6.0)),
    "anisotropic": ((50, 97, 61), (0.9, 1.4, 2.2)),
    "tiny": ((9, 7, 8), (1.0, 1.0, 1.0)),
    "one slice": ((70, 65, 1), (1.0, 1.0, 5.0)),
    "plane": ((130, 90), (0.5, 0.7)),
    "long": ((300, 20, 20), (1.0, 1.0, 1.0)),
}


def noise(grid: Grid) -> Image:
    return Image(torch.rand(1, 1, *grid.shape, generator=make_generator(1)), grid)


@pytest.fixture(params=GRIDS, scope="module")
def grid(request) -> Grid:
    return Grid.centred(*GRIDS[request.param])


@pytest.mark.parametrize("levels", [Levels(), Levels(finest=2), Levels(coarsest=12)])
def test_each_level_has_voxels_half_as_large_as_the_one_before(grid, levels):
    """But never smaller than an axis's own; the last is the finest that was asked for."""
    own, least = grid.spacing.tolist(), float(grid.spacing.min())
    edges = levels.of(grid)
    assert edges[-1] == pytest.approx([max(e, levels.finest * least) for e in own])
    for coarse, fine in itertools.pairwise(edges):
        assert min(coarse) == pytest.approx(2 * min(fine))
        for c, f, e in zip(coarse, fine, own, strict=True):
            assert c == pytest.approx(max(e, min(coarse)))
            assert f <= c <= 2 * f + 1e-9


@pytest.mark.parametrize("coarsest", [12, 24, 40])
def test_the_first_level_is_as_coarse_as_it_may_be(grid, coarsest):
    first = Levels(coarsest=coarsest).of(grid)[0]
    extents = [n * own for n, own in zip(grid.shape, grid.spacing.tolist(), strict=True)]
    longest = max(x / e for x, e in zip(extents, first, strict=True))
    again = [max(own, 2 * min(first)) for own in grid.spacing.tolist()]
    assert longest >= min(coarsest, max(grid.shape))
    assert max(x / e for x, e in zip(extents, again, strict=True)) < coarsest + 1


def test_thick_slices_join_late():
    """0.8 × 0.8 × 6 mm: slices stay apart until the voxels in the plane are as large."""
    edges = Levels(coarsest=12).of(Grid.centred((128, 120, 20), (0.8, 0.8, 6.0)))
    assert [e[2] for e in edges] == pytest.approx([6.4, 6.0, 6.0, 6.0])
    assert [e[0] for e in edges] == pytest.approx([6.4, 3.2, 1.6, 0.8])


def test_most_ends_the_pyramid_early():
    grid = Grid.centred((64, 64, 64))
    everything = Levels(coarsest=8).of(grid)
    for most in (5_000, 40_000, 10**6):
        some = Levels(coarsest=8, most=most).of(grid)
        assert some == everything[: len(some)]
        assert grid.at_spacing(some[-1]).shape[0] ** 3 <= 1.3 * most
    assert Levels(coarsest=8, most=1).of(grid) == everything[:1], "one level there is always"


def test_the_images_of_each_level(grid):
    """On the axes of their own; the last fixed image is the very image; the moving one has voxels as large."""
    other = Grid.centred([n + 3 for n in grid.shape], [0.7 * e for e in grid.spacing.tolist()])
    pair = Pair(noise(grid), noise(other))
    levels = Levels(coarsest=12)
    seen = list(levels(pair))
    assert seen[-1].fixed is pair.fixed
    for level, edges in zip(seen, levels.of(grid), strict=True):
        assert level.fixed.grid.spacing.tolist() == pytest.approx(list(edges))
        expected = [max(min(edges), e) for e in other.spacing.tolist()]
        assert level.moving.grid.spacing.tolist() == pytest.approx(expected)
        for image, whole in ((level.fixed, grid), (level.moving, other)):
            covered = (torch.tensor(image.grid.shape) - 1) * image.grid.spacing
            assert bool((covered >= (torch.tensor(whole.shape) - 1) * whole.spacing - 1e-6).all())


def test_masks_come_along():
    grid = Grid.centred((50, 50))
    image = noise(grid)
    half = torch.zeros(1, 1, 50, 50, dtype=torch.bool)
    half[..., :25] = True
    for level in Levels(coarsest=12)(Pair(Image(image.data, grid, half), image)):
        assert level.moving.mask is None
        assert float(level.fixed.mask.float().mean()) == pytest.approx(0.5, abs=0.07)
