"""Laws of pulling and pushing, in two and three dimensions, on grids of any orientation."""

import pytest
import torch
from hypothesis import given, strategies as st

from pullback.numerics.random import make_generator
from pullback.space import (
    Affine,
    Displacement,
    Grid,
    Image,
    Labels,
    Points,
    Velocity,
    pull,
    pull_smooth_labels,
    push,
)

SHAPES = [(22, 20), (16, 15, 14)]
shapes, seeds = st.sampled_from(SHAPES), st.integers(0, 10**6)


def inner(values, margin):
    return values[(slice(None), slice(None), *[slice(margin, -margin)] * (values.ndim - 2))]


def picture(waves, grid, seed, shortest=12.0):
    """An image that is a formula of world points, and the formula."""
    value = waves(grid.ndim, seed, shortest)
    where = grid.voxels(torch.zeros((), dtype=torch.float64))[None]
    return Image(value(grid.to_world(where)), grid), value


def small_affine(ndim, seed, scale=0.04, shift=0.5):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, :-1] += scale * torch.randn(ndim, ndim, dtype=torch.float64, generator=generator)
    matrix[:-1, -1] = shift * torch.randn(ndim, dtype=torch.float64, generator=generator)
    return Affine(matrix)


def world(grid):
    """Each voxel as a point, `(1, N, d)`."""
    return grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None]).flatten(2).mT


@given(shapes, seeds)
def test_pulled_twice_is_pulled_once_through_the_composite(oblique, waves, smooth_field, shape, seed):
    grid = oblique(shape, seed, low=0.9, high=1.1)
    image, _ = picture(waves, grid, seed)
    phi = Displacement(smooth_field(shape, seed, amplitude=1.2), grid)
    psi = small_affine(len(shape), seed) @ Velocity(smooth_field(shape, seed + 1, amplitude=1.2), grid)
    twice = pull(pull(image, phi, grid, "cubic"), psi, grid, "cubic")
    once = pull(image, phi @ psi, grid, "cubic")
    wrong = pull(image, psi @ phi, grid, "cubic")
    off = inner(twice.data - once.data, 5).abs().max()
    assert off < 0.03  # φ is linear between its voxels; the picture is not
    assert inner(wrong.data - once.data, 5).abs().max() > 3 * off


@given(shapes, seeds)
def test_the_value_at_x_is_the_value_of_the_moving_image_at_the_pushed_x(oblique, waves, smooth_field, shape, seed):
    """The formula of the picture, at the pushed points, without any resampling: pull and push are one map."""
    moving_grid, fixed_grid = oblique(shape, seed), oblique(tuple(n - 3 for n in shape), seed + 1)
    image, value = picture(waves, moving_grid, seed)
    transform = small_affine(len(shape), seed) @ Displacement(
        smooth_field(fixed_grid.shape, seed, amplitude=1.2, fade=False), fixed_grid
    )
    moved = pull(image, transform, fixed_grid, "cubic")
    pushed = push(Points(world(fixed_grid)), transform).data.mT
    at = moving_grid.to_voxels(pushed)
    upper = torch.tensor(shape).view(1, -1, 1) - 1
    inside = ((at > 2) & (at < upper - 2)).all(1)[0]
    assert inside.sum() > 20
    off = (moved.data.flatten(2)[0, 0] - value(pushed)[0, 0])[inside].abs().max()
    assert off < 0.03  # the error of a cubic spline two voxels inside, at eight voxels to the shortest wave


@pytest.mark.parametrize("shape", SHAPES)
def test_a_blob_at_phi_of_x_appears_at_x(oblique, smooth_field, shape):
    fixed, moving = oblique(shape, 3), oblique(shape, 4)
    gentle = smooth_field(shape, 2, amplitude=2.0, shortest=60, fade=False)
    transform = small_affine(len(shape), 1, shift=1.0) @ Displacement(gentle, fixed)
    x = torch.full((1, 1, len(shape)), 0.7, dtype=torch.float64)
    there = push(Points(x), transform).data
    assert (there - x).norm() > 0.75
    near = (world(moving) - there).square().sum(-1)
    blob = Image(torch.exp(-near / 2).view(1, 1, *shape), moving)
    moved = pull(blob, transform, fixed).data.flatten()
    centroid = (world(fixed)[0] * moved[:, None]).sum(0) / moved.sum()
    assert (centroid - x[0, 0]).norm() < 0.15  # mm; the blob is bent a little


@given(shapes, seeds)
def test_how_the_voxels_are_stored_changes_nothing_in_the_world(oblique, waves, smooth_field, shape, seed):
    """Flip and permute the stored axes of the moving image, of the field and of the fixed grid, with their affines."""
    d = len(shape)
    moving, fixed, other = oblique(shape, seed), oblique(shape, seed + 1), oblique(shape, seed + 2)
    image, _ = picture(waves, moving, seed)
    image = Image(image.data, moving, image.data > -0.2)
    labels = Labels((10 * image.data).round().long(), moving)
    field = smooth_field(shape, seed, amplitude=1.5, fade=False)
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(d, generator=rng).tolist()
    flips = [a for a in range(d) if torch.rand((), generator=rng) < 0.5] or [0]

    def restored(data):
        return data.flip([2 + a for a in flips]).permute(0, 1, *(2 + a for a in order))

    def restored_grid(grid):
        """New voxel coordinates to old ones, then to the world."""
        to_old = torch.zeros(d + 1, d + 1, dtype=torch.float64)
        to_old[-1, -1] = 1
        for new, old in enumerate(order):
            to_old[old, new] = -1 if old in flips else 1
            to_old[old, -1] = shape[old] - 1 if old in flips else 0
        return Grid(tuple(shape[a] for a in order), grid.affine @ to_old)

    turned = field.clone()
    turned[:, flips] *= -1
    transform = Displacement(field, other)
    same_transform = Displacement(restored(turned[:, order]), restored_grid(other))
    same_image = Image(restored(image.data), restored_grid(moving), restored(image.mask))
    same_labels = Labels(restored(labels.data), restored_grid(moving))
    torch.testing.assert_close(same_transform(world(fixed)), transform(world(fixed)))
    assert (transform(world(fixed)) - world(fixed)).norm(dim=-1).max() > 0.5

    for mode in ("linear", "cubic"):
        expected = pull(image, transform, fixed, mode)
        assert inner(expected.data, 2).std() > 0.05
        answer = pull(same_image, same_transform, fixed, mode)
        torch.testing.assert_close(answer.data, expected.data, rtol=0, atol=1e-9)
        assert (answer.mask != expected.mask).sum() == 0
        onto = pull(same_image, same_transform, restored_grid(fixed), mode)
        torch.testing.assert_close(onto.data, restored(expected.data), rtol=0, atol=1e-9)
    assert torch.equal(pull(same_labels, same_transform, fixed).data, pull(labels, transform, fixed).data)


@given(shapes, seeds)
def test_the_inverse_brings_the_picture_back(oblique, waves, smooth_field, shape, seed):
    grid = oblique(shape, seed)
    image, _ = picture(waves, grid, seed)
    for kind in (Displacement, Velocity):
        transform = kind(smooth_field(shape, seed, amplitude=1.2), grid)
        there = pull(image, transform, grid, "cubic")
        back = pull(there, transform.inverse(), grid, "cubic")
        off = inner(back.data - image.data, 3).abs().max()
        assert off < 0.1  # a residual of a tenth of a voxel on waves whose steepest slope is about 0.9 per voxel
        assert inner(there.data - image.data, 3).abs().max() > 2 * off


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shared_grid_is_no_special_case(oblique, waves, smooth_field, shape):
    """On one grid a pull stays in voxels; on an equal world through another header it must come to the same."""
    grid = oblique(shape, 1)
    image, _ = picture(waves, grid, 1)
    transform = Displacement(smooth_field(shape, 1, amplitude=1.5), grid)
    embedded = torch.zeros(1, 1, *(n + 2 for n in shape), dtype=torch.float64)
    embedded[(slice(None), slice(None), *[slice(1, -1)] * len(shape))] = image.data
    shift = torch.eye(len(shape) + 1, dtype=torch.float64)
    shift[:-1, -1] = -1
    larger = Image(embedded, Grid(tuple(embedded.shape[2:]), grid.affine @ shift))
    torch.testing.assert_close(pull(larger, transform, grid).data, pull(image, transform, grid).data, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_stay_labels(oblique, smooth_field, shape, dtype):
    grid = oblique(shape, 1)
    top = torch.iinfo(dtype).max
    data = torch.zeros(1, 1, *shape, dtype=dtype)
    data[:, :, 4:9, 3:10] = top
    data[:, :, 9:, 5:] = 3
    labels = Labels(data, grid)
    field = Displacement(smooth_field(shape, 1, amplitude=1.5).float(), grid)
    for transform in (Affine.identity(len(shape)), field, small_affine(len(shape), 2) @ field):
        moved = pull(labels, transform, oblique(shape, 2))
        assert isinstance(moved, Labels)
        assert moved.data.dtype == dtype
        assert set(moved.data.unique().tolist()) == {0, 3, top}
    assert torch.equal(pull(labels, Affine.identity(len(shape)), grid).data, data)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_travels_and_what_comes_from_beyond_leaves_it(shape):
    grid = Grid.centred(shape)
    data = torch.rand(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(data, dtype=torch.bool)
    mask[:, :, 5:8] = False
    shift = torch.eye(len(shape) + 1, dtype=torch.float64)
    shift[0, -1] = 3  # what lay at i + 3 appears at i
    moved = pull(Image(data, grid, mask), Affine(shift), grid)
    expected = torch.zeros_like(mask)
    expected[:, :, :-3] = mask[:, :, 3:]
    assert moved.mask.dtype == torch.bool
    assert torch.equal(moved.mask, expected)
    torch.testing.assert_close(moved.data[:, :, :-3], data[:, :, 3:])
    assert moved.data[:, :, -3:].abs().max() < 1e-12
    assert pull(Image(data, grid), Affine(shift), grid).mask is None


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
@pytest.mark.parametrize("shape", SHAPES)
def test_beyond_an_image_is_its_air(shape, mode):
    """A CT begins where its numbers do not matter: its unit's zero is water, and may lie anywhere."""
    grid, shift = Grid.centred(shape), torch.eye(len(shape) + 1, dtype=torch.float64)
    shift[:-1, -1] = 4
    away = Affine(shift)
    air = torch.rand(1, 2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    air[(..., 0)] = 0
    known = pull(Image(air, grid), away, grid, mode).data
    assert (known[(..., -3, -3)] == 0).all()
    for unit in (0.0, -1000.0):
        torch.testing.assert_close(pull(Image(air + unit, grid), away, grid, mode).data, known + unit)
    signed = air - 0.5
    for axis in range(len(shape)):
        for at in (0, -1):
            signed.select(axis + 2, at).zero_()
    assert (pull(Image(signed, grid), away, grid, mode).data[(..., -3, -3)] == 0).all()
    assert (pull(Image(air, grid), away, grid, mode, outside=7.0).data[(..., -3, -3)] == 7).all()


def test_batches_and_channels_are_pulled_each_by_its_own(smooth_field):
    shape = (8, 9)
    grid = Grid.centred(shape)
    data = torch.rand(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = torch.cat([smooth_field(shape, s, amplitude=1.0) for s in (1, 2)])
    whole = pull(Image(data, grid), Displacement(field, grid), grid).data
    assert whole.shape == data.shape
    for b in range(2):
        for c in range(3):
            one = pull(Image(data[b, c][None, None], grid), Displacement(field[b : b + 1], grid), grid).data
            torch.testing.assert_close(whole[b, c], one[0, 0])


def test_float32_is_kept_and_close():
    shape = (20, 18, 16)
    grid = Grid.centred(shape, (0.9, 1.2, 1.5))
    grid = Grid(shape, grid.affine + 0)
    grid.affine[:3, 3] += torch.tensor([120.0, -250.0, 900.0])  # scanners put the origin far away
    data = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    other = Grid.centred((18, 18, 18), 1.1)
    other.affine[:3, 3] += torch.tensor([120.0, -250.0, 900.0])
    transform = small_affine(3, 1, shift=0.2)
    around = torch.eye(4, dtype=torch.float64)
    around[:3, 3] = torch.tensor([120.0, -250.0, 900.0])
    transform = Affine(around) @ transform @ Affine(around).inverse()
    single = pull(Image(data, grid), transform, other).data
    exact = pull(Image(data.double(), grid), transform, other).data
    assert single.dtype == torch.float32
    assert (single - exact).abs().max() < 2e-5  # the affine's path is one float64 matrix: no rounding of 900 mm


def test_dimensions_must_agree():
    image = Image(torch.zeros(1, 1, 4, 5), Grid.centred((4, 5)))
    with pytest.raises(ValueError, match="2-D image cannot be pulled onto a 3-D grid"):
        pull(image, Affine.identity(2), Grid.centred((4, 5, 6)))


@pytest.mark.parametrize("thing", [Image, Labels])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_lies_where_the_image_lies(shape, thing):
    """As on a GPU, whatever device the transform was made on; there is always the device that holds no numbers."""
    grid, ndim = Grid.centred(shape), len(shape)
    away = thing(torch.zeros(1, 1, *shape, dtype=torch.float32 if thing is Image else torch.uint8, device="meta"), grid)
    field = Displacement(torch.zeros(1, ndim, *shape), grid)
    for transform in (Affine.identity(ndim), field, Affine.identity(ndim) @ field):
        assert pull(away, transform, Grid.centred(shape, 2.0)).data.device.type == "meta"


@pytest.mark.parametrize("shape", [(14, 12), (9, 10, 8)])
def test_smooth_labels_are_those_with_the_greatest_share(oblique, smooth_field, shape):
    """Of indicator images pulled one by one; all of background beyond the image."""
    grid, other = oblique(shape, 1), oblique(shape, 2)
    coarse = torch.randint(0, 4, (1, 1, *[n // 3 + 1 for n in shape]), generator=make_generator(0))
    values = torch.tensor([0, 7, 2, 40])[coarse]
    for axis in range(2, values.ndim):
        values = values.repeat_interleave(3, axis).narrow(axis, 0, shape[axis - 2])
    labels = Labels(values.int(), other)
    transform = Displacement(smooth_field(shape, 3, amplitude=1.5), grid)
    found = pull_smooth_labels(labels, transform, grid)
    each = torch.tensor([0, 2, 7, 40])
    shares = torch.cat([pull(Image((values == v).double(), other), transform, grid, outside=0).data for v in each], 1)
    shares[:, 0] = 1 - shares[:, 1:].sum(1)
    clear = shares.topk(2, 1).values.diff(dim=1).abs() > 1e-6
    assert found.data.dtype == torch.int32
    assert torch.equal(found.data[clear], each[shares.argmax(1, keepdim=True)].int()[clear])
    assert float(clear.float().mean()) > 0.9
    assert not torch.equal(found.data, pull(labels, transform, grid).data)
    assert torch.equal(pull_smooth_labels(labels, Affine.identity(len(shape)), other).data, labels.data)


def test_at_a_tie_the_nearest_label_wins():
    grid = Grid.centred((6, 2), 1.0)
    labels = Labels(torch.tensor([[5, 5], [5, 5], [5, 5], [3, 3], [3, 3], [3, 3]])[None, None], grid)
    half = Affine(torch.tensor([[1.0, 0, 0.5], [0, 1, 0], [0, 0, 1]], dtype=torch.float64))
    found, nearest = pull_smooth_labels(labels, half, grid), pull(labels, half, grid)
    assert torch.equal(found.data[..., 2, :], nearest.data[..., 2, :])
