"""A pair seen through a transform: its consequences, each against the plain way to it."""

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.space import Affine, Displacement, Grid, Image, Labels, Points, pull, push

SHAPES = [(9, 8), (7, 8, 6)]


@pytest.mark.parametrize("shape", SHAPES)
def test_consequences(oblique, smooth_field, shape):
    d, generator = len(shape), torch.Generator().manual_seed(0)
    fixed, moving = oblique(shape, 1), oblique(tuple(n + 2 for n in shape), 2)
    data = torch.rand(1, 1, *moving.shape, dtype=torch.float64, generator=generator)
    pair = Pair(
        Image(torch.zeros(1, 1, *shape), fixed),
        Image(data, moving),
        moving_labels=Labels((5 * data).long(), moving),
        fixed_points=Points(torch.rand(1, 4, d, dtype=torch.float64, generator=generator)),
    )
    transform = Displacement(smooth_field(shape, 1, amplitude=1.0), fixed)
    alignment = Alignment(pair, transform)
    assert torch.equal(alignment.moved.data, pull(pair.moving, transform, fixed).data)
    assert torch.equal(alignment.moved_labels.data, pull(pair.moving_labels, transform, fixed).data)
    assert torch.equal(alignment.pushed.data, push(pair.fixed_points, transform).data)
    assert alignment.moved is alignment.moved  # computed once


def test_what_a_pair_lacks_is_none():
    grid = Grid.centred((5, 6))
    image = Image(torch.zeros(1, 1, 5, 6), grid)
    alignment = Alignment(Pair(image, image), Affine.identity(2))
    assert alignment.moved_labels is None
    assert alignment.pushed is None
    assert alignment.mask is None


@pytest.mark.parametrize("shape", SHAPES)
def test_the_jacobian_of_an_affine_is_its_determinant_on_any_grid(oblique, shape):
    """Volumes grow by det A wherever and however the voxels lie."""
    d = len(shape)
    matrix = torch.eye(d + 1, dtype=torch.float64)
    matrix[:d, :d] += 0.2 * torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = oblique(shape, 3)
    image = Image(torch.zeros(1, 1, *shape), grid)
    jacobian = Alignment(Pair(image, image), Affine(matrix)).jacobian
    torch.testing.assert_close(jacobian, torch.linalg.det(matrix).expand(1, 1, *shape))


def test_the_mask_is_where_both_may_be_looked_at():
    grid, data = Grid.centred((6, 8)), torch.rand(1, 1, 6, 8)
    left, top = (torch.zeros(1, 1, 6, 8, dtype=torch.bool) for _ in range(2))
    left[..., :5], top[:, :, :3] = True, True
    step = torch.eye(3, dtype=torch.float64)
    step[0, -1] = 1  # what lay one row below appears here
    moved_top = torch.zeros_like(top)
    moved_top[:, :, :2] = True
    for fixed, moving, expected in (
        (left, None, left),
        (None, top, moved_top),
        (left, top, left & moved_top),
    ):
        pair = Pair(Image(data, grid, fixed), Image(data, grid, moving))
        assert torch.equal(Alignment(pair, Affine(step)).mask, expected)
