"""Jacobians against numpy, and of affine maps in closed form."""

import numpy as np
import pytest
import torch

from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.sample import voxels

SHAPES = [(6, 7), (5, 6, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_and_determinant_as_numpy(shape):
    d = len(shape)
    field = torch.randn(2, d, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = jacobian(field)
    assert ours.shape == (2, d, d, *shape)
    for b in range(2):
        rows = [np.stack(np.gradient(field[b, a].numpy())) for a in range(d)]
        expected = np.stack(rows) + np.eye(d).reshape(d, d, *[1] * d)
        np.testing.assert_allclose(ours[b].numpy(), expected, atol=1e-12)
        dets = np.linalg.det(np.moveaxis(expected, (0, 1), (-2, -1)))
        np.testing.assert_allclose(determinant(ours)[b, 0].numpy(), dets, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_of_an_affine_map_is_its_matrix_everywhere(shape):
    d = len(shape)
    matrix = torch.eye(d, dtype=torch.float64)
    matrix += 0.3 * torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = voxels(shape, matrix)
    field = (torch.einsum("ab,b...->a...", matrix, x) - x + 2.5)[None]
    expected = matrix.view(1, d, d, *[1] * d).expand(1, d, d, *shape)
    torch.testing.assert_close(jacobian(field), expected)
    torch.testing.assert_close(determinant(jacobian(field)), torch.linalg.det(matrix).expand(1, 1, *shape))


def test_determinant_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="expected"):
        determinant(torch.zeros(1, 4, 4, 5, 5))
