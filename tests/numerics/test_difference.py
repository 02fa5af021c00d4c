"""Derivatives against numpy and in closed form."""

import numpy as np
import pytest
import torch

from pullback.numerics.difference import (
    curl,
    curl_of,
    determinant,
    divergence,
    gradient,
    jacobian,
)
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


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def linear(shape, edges):
    """A linear field u = Ax by length, and A."""
    matrix = noise(len(shape), len(shape))
    x = voxels(shape, matrix) * torch.tensor(edges, dtype=torch.float64).view(-1, *[1] * len(shape))
    return torch.einsum("ab,b...->a...", matrix, x)[None], matrix


@pytest.mark.parametrize("shape", SHAPES)
def test_divergence_and_curl_of_a_linear_field_are_the_trace_and_the_skew_part(shape):
    edges = (0.5, 2.0, 3.0)[: len(shape)]
    field, a = linear(shape, edges)
    torch.testing.assert_close(divergence(field, edges), a.trace().expand(1, 1, *shape))
    pairs = ((0, 1),) if len(shape) == 2 else ((1, 2), (2, 0), (0, 1))
    for found, (i, j) in zip(curl(field, edges)[0], pairs, strict=True):
        torch.testing.assert_close(found, (a[j, i] - a[i, j]).expand(shape))
    for axis, one in enumerate(gradient(field[:, :1], edges)[0]):
        torch.testing.assert_close(one, a[0, axis].expand(shape))


def test_curl_is_that_of_a_right_handed_turn():
    """A turn from the first axis to the second: u = (−y, x) has the curl 2, and in 3-D it points along the third."""
    x, y = voxels((5, 6), noise(1))
    torch.testing.assert_close(curl(torch.stack([-y, x])[None]), torch.full((1, 1, 5, 6), 2.0, dtype=torch.float64))
    x, y, z = voxels((5, 6, 4), noise(1))
    found = curl(torch.stack([-y, x, 0 * z])[None])
    torch.testing.assert_close(found[:, 2], torch.full_like(found[:, 2], 2.0))
    assert not found[:, :2].any()


@pytest.mark.parametrize("shape", [(9, 10), (9, 8, 10)])
def test_what_is_a_curl_has_no_divergence_and_a_gradient_no_curl(shape):
    """To rounding two voxels inside, where differences along two axes commute with those of the border."""
    inside = (..., *[slice(2, -2)] * len(shape))
    edges = (0.5, 2.0, 3.0)[: len(shape)]
    potential = noise(1, 1 if len(shape) == 2 else 3, *shape)
    assert float(divergence(curl_of(potential, edges), edges)[inside].abs().max()) < 1e-12
    assert float(curl(gradient(noise(1, 1, *shape), edges), edges)[inside].abs().max()) < 1e-12
