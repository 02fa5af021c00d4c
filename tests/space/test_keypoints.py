"""Keypoints are corners, wherever and however an image is stored; centroids are those of labels."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass, gaussian_filter

from pullback.numerics.corners import distinctiveness
from pullback.numerics.random import make_generator
from pullback.space import Grid, Image, Labels, RandomPoints, canonical, centroids, keypoints

SHAPES = {2: (31, 28), 3: (25, 21, 23)}


def texture(shape, seed=0, channels=1):
    """Noise, smoothed a little, so that corners are between one and several voxels wide."""
    noise = np.random.default_rng(seed).normal(size=(channels, *shape))
    return torch.from_numpy(gaussian_filter(noise, [0, *[1.2] * len(shape)]))[None]


def rows(points):
    """As a set, to a thousandth of a mm."""
    return {tuple(row) for row in points.data[0].mul(1000).round().long().tolist()}


def box(grid, low, high):
    """1 in a box of voxels, both ends within."""
    data = torch.zeros(1, 1, *grid.shape)
    data[(0, 0, *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))] = 1
    return Image(data, grid)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_corners_of_a_box_are_found_and_nothing_else(oblique, ndim):
    """Not its faces, nor its edges, although the image changes as much there."""
    grid = oblique(SHAPES[ndim], 2, 1.0, 1.0)
    low, high = (8, 7, 6)[:ndim], (20, 19, 16)[:ndim]
    found = keypoints(box(grid, low, high)).data
    corners = torch.tensor([*itertools.product(*zip(low, high, strict=True))]).double()
    assert found.shape == (1, 2**ndim, ndim)
    apart = torch.cdist(grid.to_voxels(found.mT)[0].mT, corners)
    assert apart.argmin(1).sort().values.tolist() == list(range(2**ndim))
    assert float(apart.amin(1).max()) < 1.5 * ndim**0.5  # blurred by σ, a corner lies a little within


def test_an_edge_a_plane_and_a_ridge_are_no_keypoints():
    """T⁻¹ does not exist there."""
    grid = Grid.centred(SHAPES[3])
    x, y, z = grid.voxels(torch.zeros(())).unbind(0)
    for values in (x, (x > 12).float(), torch.exp(-((x - 12) ** 2) - (y - 10) ** 2), torch.ones_like(x), x + 2 * y - z):
        assert keypoints(Image(values[None, None], grid)).data.shape == (1, 0, 3)
    dot = torch.exp(-((x - 12) ** 2 + (y - 10) ** 2 + (z - 9) ** 2) / 4)
    found = keypoints(Image(dot[None, None], grid), most=1).data[0]
    torch.testing.assert_close(found, grid.to_world(torch.tensor([[[12.0], [10], [9]]]).double())[0].mT)


def naive(values, sigma, matrix):
    """1 / trace T⁻¹ by numpy's inverse, of derivatives in the world."""
    d = values.ndim
    padded = np.pad(values, 2, mode="edge")
    middle = [slice(2, -2)] * d
    slopes = []
    for axis in range(d):
        total = 0
        for step, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            part = list(middle)
            part[axis] = slice(2 + step, padded.shape[axis] - 2 + step)
            total = total + weight * padded[tuple(part)] / 12
        slopes.append(total)
    slopes = np.einsum("ab,b...->a...", np.linalg.inv(matrix).T, np.stack(slopes))
    tensor = np.empty((*values.shape, d, d))
    for a, b in itertools.product(range(d), repeat=2):
        product, weight = slopes[a] * slopes[b], np.ones_like(slopes[a])
        for part, kept in ((product, "sum"), (weight, "weight")):
            smooth = gaussian_filter(part, sigma, mode="constant", radius=[math.ceil(4 * s) for s in sigma])
            product, weight = (smooth, weight) if kept == "sum" else (product, smooth)
        tensor[..., a, b] = product / weight
    return 1 / np.trace(np.linalg.inv(tensor), axis1=-2, axis2=-1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_operator_is_that_of_numpy(oblique, ndim):
    values, matrix = texture(SHAPES[ndim], 1), oblique(SHAPES[ndim], 5).affine[:-1, :-1]
    matrix = matrix + 0.2 * torch.randn(ndim, ndim, generator=make_generator(3), dtype=torch.float64)  # sheared too
    sigma = (1.4, 1.1, 0.9)[:ndim]
    found = distinctiveness(values, sigma, matrix)[0, 0].numpy()
    np.testing.assert_allclose(found, naive(values[0, 0].numpy(), sigma, matrix.numpy()), rtol=1e-8)


@pytest.mark.parametrize("ndim", [2, 3])
def test_keypoints_are_the_largest_in_their_windows(ndim):
    """By going to each voxel; in the mask less its rim, not in the outermost voxels, and the most distinct first."""
    shape, grid = SHAPES[ndim], Grid.centred(SHAPES[ndim], (1.0, 1.5, 2.0)[:ndim])
    mask = torch.ones(1, 1, *shape, dtype=torch.bool)
    mask[..., : shape[-1] // 3] = False
    values = texture(shape, 2)
    edge = math.prod(grid.spacing.tolist()) ** (1 / ndim)
    found = keypoints(Image(values, grid, mask), apart=5.0)
    sigma = [1.4 * edge / step for step in grid.spacing.tolist()]
    strength = distinctiveness(values, sigma, grid.affine[:-1, :-1])[0, 0].numpy()
    reach = [2, 1, 1][:ndim]  # 5 mm in voxels of 1, 1.5 and 2 mm: windows of 5, 3 and 3
    expected = []
    for at in np.ndindex(*shape):
        window = tuple(slice(max(0, i - r), i + r + 1) for i, r in zip(at, reach, strict=True))
        around = tuple(slice(max(0, i - 1), i + 2) for i in at)
        inner = all(0 < i < n - 1 for i, n in zip(at, shape, strict=True))
        if inner and strength[at] == strength[window].max() and bool(mask[0, 0][around].all()):
            expected.append((strength[at], at))
    expected = [at for how, at in sorted(expected, reverse=True) if how >= 1e-4 * max(expected)[0]]
    torch.testing.assert_close(found.data, grid.to_world(torch.tensor(expected).double().mT[None]).mT)
    assert len(expected) > 5
    torch.testing.assert_close(keypoints(Image(values, grid, mask), 7, 5.0).data, found.data[:, :7])


@pytest.mark.parametrize("ndim", [2, 3])
def test_storage_changes_nothing_in_the_world(oblique, ndim):
    """Axes permuted and flipped: the same places, in the same order."""
    grid = oblique(SHAPES[ndim], 7)
    values = texture(SHAPES[ndim], 3)
    mask = texture(SHAPES[ndim], 4) > -0.3
    image = Image(values, grid, mask)
    turned = canonical(image)
    assert turned.data.shape != image.data.shape or not torch.equal(turned.data, image.data)
    found, again = keypoints(image, apart=4.0), keypoints(turned, apart=4.0)
    assert found.data.shape[1] > 5
    torch.testing.assert_close(again.data, found.data)


@pytest.mark.parametrize("ndim", [2, 3])
def test_intensities_and_units_change_nothing(ndim):
    grid = Grid.centred(SHAPES[ndim])
    values = texture(SHAPES[ndim], 5)
    found = keypoints(Image(values, grid))
    assert found.data.shape[1] > 3
    for other in (1e-3 * values + 7, -2e4 * values, values.float()):
        torch.testing.assert_close(keypoints(Image(other, grid)).data, found.data)
    coarse = Grid.centred(SHAPES[ndim], 3.0)
    torch.testing.assert_close(keypoints(Image(values, coarse)).data, 3 * found.data)


def test_channels_add_up():
    """As gradients of colours do: in one channel an edge, in the other one across it, together a corner."""
    grid = Grid.centred((31, 28))
    x, y = grid.voxels(torch.zeros(())).unbind(0)
    edges = torch.stack([(x > 14).float(), (y > 12).float()])[None]
    assert keypoints(Image(edges[:, :1], grid)).data.shape[1] == 0
    found = grid.to_voxels(keypoints(Image(edges, grid)).data.mT)[0].mT
    assert float((found - torch.tensor([14.5, 12.5])).norm(dim=1).min()) < 1
    both = texture(SHAPES[2], 6, channels=2)
    turned = torch.stack([both[:, 0] + both[:, 1], both[:, 0] - both[:, 1]], 1) / 2**0.5
    torch.testing.assert_close(distinctiveness(turned, 1.4), distinctiveness(both, 1.4))


def test_a_mask_that_leaves_nothing_has_no_keypoints():
    image = Image(texture(SHAPES[3]), Grid.centred(SHAPES[3]))
    for mask in (torch.zeros(image.data.shape) > 0, torch.arange(23).expand(image.data.shape) == 9):
        assert keypoints(Image(image.data, image.grid, mask)).data.shape == (1, 0, 3)


def test_several_images_are_refused():
    grid = Grid.centred(SHAPES[2])
    with pytest.raises(ValueError, match="one by one"):
        keypoints(Image(torch.rand(2, 1, *grid.shape), grid))
    with pytest.raises(ValueError, match="one by one"):
        centroids(Labels(torch.ones(2, 1, *grid.shape, dtype=torch.long), grid))


@pytest.mark.parametrize("ndim", [2, 3])
def test_centroids_are_those_of_scipy(oblique, ndim):
    grid = oblique(SHAPES[ndim], 9)
    values = torch.randint(0, 5, (1, 1, *grid.shape), generator=make_generator(8)) * 7 - 7
    found = centroids(Labels(values.short(), grid))
    assert found.label.tolist() == [[-7, 7, 14, 21]]
    expected = center_of_mass(np.ones(grid.shape), values[0, 0].numpy(), found.label[0].tolist())
    world = torch.from_numpy(np.array(expected)) @ grid.affine[:-1, :-1].mT + grid.affine[:-1, -1]
    torch.testing.assert_close(found.data[0], world)
    assert centroids(Labels(torch.zeros_like(values), grid)).data.shape == (1, 0, ndim)


@pytest.mark.parametrize("ndim", [2, 3])
def test_random_points_are_voxels_within_the_mask_and_the_same_each_time(oblique, ndim):
    grid = oblique(SHAPES[ndim], 4)
    mask = torch.rand(1, 1, *grid.shape, generator=make_generator(3)) < 0.2
    image = Image(texture(SHAPES[ndim]), grid, mask)
    found = RandomPoints(50)(image)
    assert found.data.shape == (1, 50, ndim)
    voxels = grid.to_voxels(found.data.mT)[0]
    torch.testing.assert_close(voxels, voxels.round(), rtol=0, atol=1e-9)
    assert bool(mask[0, 0][tuple(voxels.round().long())].all())
    assert len(voxels.mT.round().unique(dim=0)) == 50
    assert torch.equal(RandomPoints(50)(image).data, found.data)
    assert not torch.equal(RandomPoints(50, seed=1)(image).data, found.data)
    everywhere = RandomPoints(10**6)(Image(image.data, grid)).data
    assert everywhere.shape == (1, image.data[0, 0].numel(), ndim)
    with pytest.raises(ValueError, match="one by one"):
        RandomPoints()(Image(torch.rand(2, 1, *grid.shape), grid))
