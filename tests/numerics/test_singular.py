"""Singular is relative: the unit of length does not decide whether axes span a space."""

import pytest
import torch

from pullback.numerics.rotation import uniform
from pullback.numerics.singular import is_singular, spans
from pullback.space import Grid

SCALES = [4e-6, 1e-4, 1.0, 1e6]  # mm: voxels of 4 nm to 1 km
turns = torch.stack([*uniform(3, 4, torch.Generator().manual_seed(0))]).double()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("thick", [1e-3, 1.0, 1e3])
def test_axes_that_span_the_space_do_at_any_size(scale, thick):
    for turn in turns:
        linear = turn @ torch.diag(torch.tensor([1.0, 2.0, thick]).double()) * scale
        assert spans(linear)
        assert not is_singular(turn * scale)
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :3] = linear
        grid = Grid((4, 5, 6), affine)
        torch.testing.assert_close(grid.to_voxels(grid.to_world(grid.voxels(linear)[None])), grid.voxels(linear)[None])


@pytest.mark.parametrize("scale", SCALES)
def test_axes_in_one_plane_do_not_at_any_size_nor_in_the_rounding_of_files(scale):
    for turn in turns:
        flat = turn @ torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 0]]).double() * scale
        for stored in (flat, flat.float().double()):
            assert is_singular(stored)
            assert not spans(stored)


@pytest.mark.parametrize("bad", [0.0, torch.inf, torch.nan])
def test_a_column_of_nothing_or_of_no_numbers_is_singular(bad):
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:, 1] = bad
    assert is_singular(matrix)
    assert not spans(matrix)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = matrix
    with pytest.raises(ValueError, match="inverted"):
        Grid((2, 2, 2), affine)


def test_what_lays_all_in_one_plane_is_singular_though_its_columns_are_not_of_one_plane():
    """As a fit of points to those of a plane: what is left of the third direction is rounding."""
    matrix = torch.diag(torch.tensor([1.0, 1.0, 1e-15]).double())
    assert is_singular(matrix)
    assert spans(matrix)
