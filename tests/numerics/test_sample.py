"""Sampling against scipy.ndimage.map_coordinates."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from pullback.numerics.sample import coverage, sample, spline_coefficients, voxels

SHAPES = [(9, 7), (6, 8, 5)]
LIKE_SCIPY = {"zeros": "grid-constant", "border": "nearest"}


def scattered(shape, reach, count=200, seed=0):
    """Random coordinates up to `reach` voxels beyond the grid (negative: inside), and the random image below them."""
    rng = np.random.default_rng(seed)
    upper = np.array(shape)[:, None] - 1
    return rng.normal(size=shape), rng.uniform(-reach, upper + reach, (len(shape), count))


def ours(image, where, mode, padding="zeros"):
    return sample(torch.from_numpy(image)[None, None], torch.from_numpy(where)[None], mode, padding)[0, 0].numpy()


@pytest.mark.parametrize("shape", [*SHAPES, (1, 7), (5, 1, 6), (1, 1, 4)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize(("mode", "order"), [("nearest", 0), ("linear", 1)])
def test_as_scipy_inside_and_beyond(shape, padding, mode, order):
    image, where = scattered(shape, reach=2.5)
    expected = map_coordinates(image, where, order=order, mode=LIKE_SCIPY[padding], cval=0)
    np.testing.assert_allclose(ours(image, where, mode, padding), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [*SHAPES, (2, 3), (2, 4, 3)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_cubic_as_scipy_within_the_grid(shape, padding):
    image, where = scattered(shape, reach=0)
    expected = map_coordinates(image, where, order=3, mode="mirror")
    np.testing.assert_allclose(ours(image, where, "cubic", padding), expected, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_cubic_beyond_the_grid(shape):
    image, where = scattered(shape, reach=2.5)
    upper = np.array(shape)[:, None] - 1
    nearest = where.clip(0, upper)
    edge = map_coordinates(image, nearest, order=3, mode="mirror")
    np.testing.assert_allclose(ours(image, where, "cubic", "border"), edge, atol=1e-10)
    fade = (1 - np.abs(where - nearest)).clip(0).prod(0)
    np.testing.assert_allclose(ours(image, where, "cubic", "zeros"), fade * edge, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_at_the_voxels_the_values_come_back(shape, mode):
    values = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample(values, voxels(shape, values)[None], mode), values, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_gradients(shape, padding, mode):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, 2, *(n - 3 for n in shape), dtype=torch.float64, generator=generator)
    d = len(shape)
    # between voxels, where linear interpolation has a derivative, and some beyond the border
    cell = torch.randint(-1, 4, (2, d, 6), generator=generator)
    where = cell + 0.15 + 0.7 * torch.rand(2, d, 6, dtype=torch.float64, generator=generator)
    if padding == "zeros" and mode == "cubic":  # its fade has corners where two axes are equally far out
        where = where.clamp(min=0.15, max=min(values.shape[2:]) - 1.15)
    inputs = (values.requires_grad_(), where.requires_grad_())
    assert torch.autograd.gradcheck(lambda v, w: sample(v, w, mode, padding), inputs)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool])
def test_nearest_keeps_every_integer(dtype, padding):
    if dtype == torch.bool:
        labels = torch.tensor([True, False, True, True])
    else:
        info = torch.iinfo(dtype)
        labels = torch.tensor([info.max, info.max - 2, info.min + 1, 7], dtype=dtype)
    values = labels.view(1, 1, 2, 2)
    where = voxels((2, 2), torch.zeros(()))[None] + 0.4
    out = sample(values, where, "nearest", padding)
    assert out.dtype == dtype
    assert torch.equal(out, values)
    beyond = sample(values, where - 5, "nearest", padding)
    assert torch.equal(beyond, torch.full_like(values, values[0, 0, 0, 0].item() if padding == "border" else 0))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_one_image_serves_many_coordinates_and_the_other_way(mode):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(3, 2, 5, 6, dtype=torch.float64, generator=generator)
    where = 4 * torch.rand(3, 2, 4, 7, dtype=torch.float64, generator=generator)
    for b in range(3):
        one = sample(values[b : b + 1], where[b : b + 1], mode)
        assert one.shape == (1, 2, 4, 7)
        torch.testing.assert_close(sample(values[b : b + 1], where, mode)[b], one[0])
        torch.testing.assert_close(sample(values, where[b : b + 1], mode)[b], one[0])


def test_the_number_of_threads_changes_nothing():
    image, where = scattered((6, 8, 5), reach=1, count=60)
    before, answers = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            answers.append(ours(image, where, "linear"))
    finally:
        torch.set_num_threads(before)
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_float32_coordinates_lose_little_at_real_size():
    values = torch.rand(1, 1, 160, 24, 20, generator=torch.Generator().manual_seed(3))
    where = voxels(values.shape[2:], values)[None] + 0.3
    exact = sample(values.double(), where.double(), "linear")
    assert (sample(values, where, "linear").double() - exact).abs().max() < 1e-4  # 160 voxels × float32 eps × slope


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 5)), r"2-D values need coordinates \(B, 2"),
        ((torch.zeros(1, 1, 4, 4), torch.zeros(2, 5)), "coordinates"),
        ((torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 5), "quintic"), "quintic"),
        ((torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 5), "linear", "wrap"), "wrap"),
    ],
)
def test_errors_say_what_was_expected(arguments, says):
    with pytest.raises(ValueError, match=says):
        sample(*arguments)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_nowhere_to_look_gives_no_values(mode):
    assert sample(torch.rand(1, 2, 4, 5), torch.zeros(1, 2, 0), mode).shape == (1, 2, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_doubles_a_voxel_has_its_own_number_whatever_lies_beside_it(shape):
    """The lowest float32 next to numbers of 0 … 1, as where ITK fills what it does not know."""
    values = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    values[..., ::2] = torch.finfo(torch.float32).min
    where = voxels(shape, torch.zeros((), dtype=torch.float64))[None]
    found = sample(values, where)
    assert found.dtype == values.dtype
    assert torch.equal(found, values)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 7), (5, 1, 6)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_doubles_and_floats_are_interpolated_alike(shape, padding):
    image, where = scattered(shape, reach=2.5)
    expected = map_coordinates(image, where, order=1, mode=LIKE_SCIPY[padding], cval=0)
    found = sample(torch.from_numpy(image).float()[None, None], torch.from_numpy(where)[None], "linear", padding)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 7)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_coverage_is_what_is_found_of_ones(shape, mode):
    _, where = scattered(shape, reach=2.5)
    ones, at = torch.ones(1, 1, *shape, dtype=torch.float64), torch.from_numpy(where)[None]
    torch.testing.assert_close(coverage(at, shape, mode), sample(ones, at, mode))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_spline_of_coefficients_is_the_cubic(shape):
    image, where = scattered(shape, reach=1.5)
    values, at = torch.from_numpy(image)[None, None], torch.from_numpy(where)[None]
    torch.testing.assert_close(sample(spline_coefficients(values), at, "spline"), sample(values, at, "cubic"))
