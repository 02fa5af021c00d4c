"""Pulling against SimpleITK's Resample: oblique, anisotropic, flipped, each thing on its own grid.

ITK extrapolates by half a voxel beyond the border, so only voxels that look one voxel and more inside are compared.
"""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.space import Affine, Displacement, Image, pull

SHAPES = [((24, 21), (20, 23)), ((17, 14, 15), (13, 16, 12))]


def lps(ndim):
    return np.diag([-1.0, -1.0, 1.0][:ndim])


def itk_affine(matrix):
    d = len(matrix) - 1
    out = sitk.AffineTransform(d)
    out.SetMatrix((lps(d) @ matrix[:d, :d] @ lps(d)).ravel().tolist())
    out.SetTranslation((lps(d) @ matrix[:d, d]).tolist())
    return out


def itk_field(field, grid, to_sitk):
    """`(1, d, *shape)` in voxels as ITK has it: vectors in LPS mm."""
    d = grid.ndim
    linear = lps(d) @ grid.affine.numpy()[:d, :d]
    vectors = np.einsum("ab,b...->...a", linear, field[0].numpy())
    return sitk.DisplacementFieldTransform(to_sitk(vectors, grid.affine.numpy()))


def looks_inside(transform, onto, grids, margin=1.0):
    """Voxels of `onto` that fall well inside each of `grids` (the first: where pushed; the second: as they lie)."""
    where = onto.to_world(onto.voxels(torch.zeros((), dtype=torch.float64))[None])
    inside = torch.ones(1, *onto.shape, dtype=torch.bool)
    for grid, points in zip(grids, (transform(where.flatten(2).mT).mT.view_as(where), where), strict=False):
        at = grid.to_voxels(points)
        upper = torch.tensor(grid.shape).view(1, -1, *[1] * grid.ndim) - 1
        inside &= ((at > margin) & (at < upper - margin)).all(1)
    return inside[0].numpy()


def noise(grid, seed):
    data = torch.randn(1, 1, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Image(data, grid)


def small_affine(ndim, seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:ndim, :ndim] += 0.1 * rng.normal(size=(ndim, ndim))
    matrix[:ndim, ndim] = rng.normal(size=ndim)
    return matrix


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("mode", "itk_mode"), [("linear", sitk.sitkLinear), ("cubic", sitk.sitkBSpline3)])
def test_affine(oblique, to_sitk, from_sitk, shapes, seed, mode, itk_mode):
    fixed, moving = oblique(shapes[0], seed), oblique(shapes[1], seed + 10)
    image, matrix = noise(moving, seed), small_affine(len(shapes[0]), seed)
    transform = Affine(torch.from_numpy(matrix))
    ours = pull(image, transform, fixed, mode).data[0, 0].numpy()
    reference = to_sitk(np.zeros(fixed.shape), fixed.affine.numpy())
    source = to_sitk(image.data[0, 0].numpy(), moving.affine.numpy())
    theirs = from_sitk(sitk.Resample(source, reference, itk_affine(matrix), itk_mode, 0.0, sitk.sitkFloat64))
    inside = looks_inside(transform, fixed, [moving])
    assert inside.sum() > 100
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-6)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("on_fixed", [True, False], ids=["field on the fixed grid", "field on a third grid"])
def test_displacement(oblique, smooth_field, to_sitk, from_sitk, shapes, seed, on_fixed):
    fixed, moving = oblique(shapes[0], seed), oblique(shapes[1], seed + 10)
    own = fixed if on_fixed else oblique(tuple(n + 4 for n in shapes[0]), seed + 20)
    field = smooth_field(own.shape, seed, amplitude=2.0, fade=False)
    image, transform = noise(moving, seed), Displacement(field, own)
    ours = pull(image, transform, fixed).data[0, 0].numpy()
    reference = to_sitk(np.zeros(fixed.shape), fixed.affine.numpy())
    source = to_sitk(image.data[0, 0].numpy(), moving.affine.numpy())
    itk = itk_field(field, own, to_sitk)
    theirs = from_sitk(sitk.Resample(source, reference, itk, sitk.sitkLinear, 0.0, sitk.sitkFloat64))
    inside = looks_inside(transform, fixed, [moving, own] if not on_fixed else [moving])
    assert inside.sum() > 100
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-6)


@pytest.mark.parametrize("shapes", SHAPES)
def test_affine_after_displacement_and_points(oblique, smooth_field, to_sitk, shapes):
    """`affine @ displacement` is ITK's composite with the displacement added last; points go the same way."""
    fixed = oblique(shapes[0], 5)
    d = fixed.ndim
    field, matrix = smooth_field(fixed.shape, 5, amplitude=1.5, fade=False), small_affine(d, 5)
    ours = Affine(torch.from_numpy(matrix)) @ Displacement(field, fixed)
    theirs = sitk.CompositeTransform([itk_affine(matrix), itk_field(field, fixed, to_sitk)])
    rng = np.random.default_rng(0)
    at = rng.uniform(1, np.array(fixed.shape) - 2, (30, d))
    points = at @ fixed.affine.numpy()[:d, :d].T + fixed.affine.numpy()[:d, d]
    expected = np.array([lps(d) @ theirs.TransformPoint((lps(d) @ p).tolist()) for p in points])
    np.testing.assert_allclose(ours(torch.from_numpy(points)).numpy(), expected, atol=1e-6)
    assert np.abs(expected - points).max() > 1
