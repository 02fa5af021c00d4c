"""LNCC against the plain form by dense convolutions, in value and gradient, and the laws it promises."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, Diffusion, lncc
from pullback.energies.lncc import EPS
from pullback.errors import InputError
from pullback.numerics.smooth import gaussian
from pullback.space import Displacement, Grid, Image

SHAPES = [(13, 11), (9, 8, 10)]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def window_sum(values, window):
    """By one dense convolution, zeros beyond the border."""
    ndim = values.ndim - 2
    convolve = {2: F.conv2d, 3: F.conv3d}[ndim]
    flat = values.reshape(-1, 1, *values.shape[2:])
    out = convolve(flat, values.new_ones(1, 1, *[window] * ndim), padding=window // 2)
    return out.reshape(values.shape)


def truncated(fixed, moved, window, mask=None, floor=0.0):
    """The definition: windows hold only the voxels that exist and that the mask admits, and n counts them."""
    inside = torch.ones_like(moved) if mask is None else mask.to(moved).expand_as(moved)
    fixed = fixed.expand_as(moved) if fixed.shape[0] < moved.shape[0] else fixed
    n = window_sum(inside, window).clamp(min=1)
    i_mean, j_mean = window_sum(fixed * inside, window) / n, window_sum(moved * inside, window) / n
    c = window_sum(fixed * moved * inside, window) - n * i_mean * j_mean
    v = window_sum(fixed**2 * inside, window) - n * i_mean**2
    w = window_sum(moved**2 * inside, window) - n * j_mean**2
    if floor:
        s = n * floor**2 + EPS**0.5
        correlation = torch.where(v * w > 1e-12, c**2 / (v * w).clamp(min=1e-12), 0)
        squared = 1 - v / (v + s) * (1 - correlation)
    else:
        squared = c**2 / (v * w + EPS)
    each = (squared * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
    return each.mean()


def zero_padded(fixed, moved, window):
    """The common form: every window has windowᵈ voxels, zeros beyond the border among them."""
    n = window ** (moved.ndim - 2)
    i, j = window_sum(fixed, window), window_sum(moved, window)
    c = window_sum(fixed * moved, window) - i * j / n
    v, w = window_sum(fixed**2, window) - i**2 / n, window_sum(moved**2, window) - j**2 / n
    return (c**2 / (v * w + EPS)).mean()


def random_mask(shape, batch=1, seed=3):
    return gaussian(noise(batch, 1, *shape, seed=seed), 1.0) > -0.1


@pytest.mark.parametrize(
    ("shape", "window"), [(s, w) for s in SHAPES for w in (3, 5, 9)] + [(SHAPES[0], 21)]
)  # the last window is larger than its image
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("floor", [0.0, 0.4])
def test_value_and_gradients_as_by_convolution(shape, window, masked, floor):
    mask = random_mask(shape, batch=2) if masked else None
    fixed, moved = noise(2, 3, *shape, seed=1), noise(2, 3, *shape, seed=2)
    moved = 0.5 * fixed + moved
    answers = []
    for form in (lncc, truncated):
        i, j = fixed.clone().requires_grad_(), moved.clone().requires_grad_()
        value = form(i, j, window, mask, floor)
        answers.append((value.detach(), *torch.autograd.grad(3 * value, (i, j))))
    for ours, dense in zip(*answers, strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-12)
    assert answers[0][1].abs().max() > 1e-5
    if masked:
        assert not answers[0][2][~mask.expand_as(moved)].any()


@pytest.mark.parametrize(("shape", "window"), [((24, 22), 5), ((16, 15, 17), 3)])
def test_as_the_zero_padded_form_where_the_margin_is_wide(shape, window):
    """Window by window the two forms agree where a window is whole, or empty."""
    margin = 2 * (window // 2)
    core = [n - 2 * margin for n in shape]
    fixed, moved = (F.pad(noise(1, 1, *core, seed=s), [margin] * 2 * len(shape)) for s in (1, 2))
    moved = fixed + moved
    i, j = moved.clone().requires_grad_(), moved.clone().requires_grad_()
    ours, common = lncc(fixed, i, window), zero_padded(fixed, j, window)
    torch.testing.assert_close(ours, common, rtol=1e-9, atol=0)
    (a,), (b,) = torch.autograd.grad(ours, i), torch.autograd.grad(common, j)
    inside = (slice(None), slice(None), *[slice(margin, -margin)] * len(shape))
    torch.testing.assert_close(a[inside], b[inside], rtol=1e-7, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 3)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("batches", "channels"), [pytest.param((2, 2), 2, marks=pytest.mark.nightly), ((1, 2), 1), ((2, 1), 1)]
)
def test_gradcheck(shape, masked, batches, channels):
    fixed = noise(batches[0], channels, *shape, seed=1).requires_grad_()
    moved = noise(batches[1], channels, *shape, seed=2).requires_grad_()
    mask = random_mask(shape, seed=4) if masked else None
    assert mask is None or 0 < mask.sum() < mask.numel()
    assert torch.autograd.gradcheck(lambda i, j: lncc(i, j, 3, mask), (fixed, moved))
    assert torch.autograd.gradcheck(lambda i, j: lncc(i, j, 3, mask, 0.5), (fixed, moved))


@pytest.mark.parametrize("shape", SHAPES)
def test_contrast_below_the_noise_hardly_counts_and_contrast_above_it_does(shape):
    """Fixed patches of nothing else are alike to anything; structure beside nothing is as unlike as ever."""
    fixed, other = noise(1, 1, *shape, seed=1), noise(1, 1, *shape, seed=2)
    related = fixed + 0.5 * other
    plain = float(lncc(1e3 * fixed, 1e3 * related, 5))
    assert float(lncc(1e3 * fixed, 1e3 * related, 5, noise=1.0)) == pytest.approx(plain, rel=1e-4)
    assert float(lncc(1e3 * fixed, 0 * related, 5, noise=1.0)) < 1e-4
    pulls = []
    for size in (1e-3, 1.0):
        moved = (size * other).requires_grad_()
        value = lncc(size * fixed, moved, 5, noise=1.0)
        pulls.append(size * torch.autograd.grad(value, moved)[0].norm())  # what a displacement feels
        assert (value.item() > 1 - 1e-5) == (size == 1e-3)
    assert pulls[0] < 1e-5 * pulls[1]


CHANGES = {
    "sharpened": lambda x, z: 2 * x - gaussian(x, 1.0),
    "smoothed": lambda x, z: gaussian(x, 1.0),
    "next voxel": lambda x, z: x.roll(1, 2),
    "noisy": lambda x, z: x + 0.02 * z,
    "another": lambda x, z: z,
    "flat": lambda x, z: torch.zeros_like(x),
}


def faint(shape, contrast, seed=1):
    """A texture of this standard deviation on one half, nothing on the other: where floors count most."""
    image = contrast * noise(1, 1, *shape, seed=seed) + 0.6
    image[:, :, shape[0] // 2 :] = 0.6
    return image


@given(
    st.floats(0.003, 1) | st.floats(1e-6, 1e-3),
    st.floats(1e-3, 1),
    st.sampled_from([3, 5, 9, 21]),
    st.sampled_from(SHAPES),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_with_noise_nothing_is_more_alike_than_the_same(floor, contrast, window, shape, masked, seed):
    """And only an affine change of it is as much; any resampling changes contrasts, and none may gain by it."""
    image, other = faint(shape, contrast, seed), noise(1, 1, *shape, seed=seed + 1)
    mask = random_mask(shape, seed=seed) if masked else None
    still = image.clone().requires_grad_()
    value = lncc(image, still, window, mask, floor)
    assert value.item() == pytest.approx(1, abs=1e-10)
    (slope,) = torch.autograd.grad(value, still)
    (typical,) = torch.autograd.grad(lncc(image, still.flip(3), window, mask, floor), still)
    assert slope.norm() < 1e-8 * typical.norm()
    for scale in (1.5, 0.7, -1.0):
        assert float(lncc(image, 1 + scale * image, window, mask, floor)) == pytest.approx(1, abs=1e-10)
    for change in CHANGES.values():
        changed = change(image, other)
        assert float(lncc(image, changed, window, mask, floor)) < 1
        assert float(lncc(changed, image, window, mask, floor)) < 1 or changed.std() == 0


@given(st.floats(1e-5, 1), st.sampled_from([3, 5, 9]), st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_without_noise_no_more_is_to_be_gained_than_epsilon_allows(contrast, window, shape, seed):
    """A window's value is at most 1, and v² / (v² + ε) at identical images: a hundredth less at 0.18 / √n."""
    image, other = faint(shape, contrast, seed), noise(1, 1, *shape, seed=seed + 1)
    n = window_sum(torch.ones_like(image), window)
    v = window_sum(image**2, window) - window_sum(image, window) ** 2 / n
    v = v.where(v > 1e-12, torch.inf)  # what is flat in one image gives nothing, whatever the other
    least = float(lncc(image, image, window))
    assert all(
        float(lncc(image, change(image, other), window)) <= least + float((EPS / (v**2 + EPS)).mean()) + 1e-12
        for change in CHANGES.values()
    )
    assert EPS / ((0.18**2) ** 2 + EPS) < 0.01


def test_a_floor_under_both_variances_would_reward_contrast():
    """The mistake that moved faint textures."""
    image = faint((13, 11), 0.05)

    def alone(moved, floor=0.1, window=5):
        n = window_sum(torch.ones_like(moved), window)
        i, j = (t - t.mean() for t in (image, moved))
        c = window_sum(i * j, window) - window_sum(i, window) * window_sum(j, window) / n
        v, w = (window_sum(t**2, window) - window_sum(t, window) ** 2 / n + n * floor**2 for t in (i, j))
        return float((c**2 / (v * w + EPS)).mean())

    assert alone(CHANGES["sharpened"](image, image)) > alone(image) + 0.01
    assert float(lncc(image, CHANGES["sharpened"](image, image), 5, noise=0.1)) < 1 - 1e-4


@pytest.mark.parametrize("window", [3, 5, 9])
@pytest.mark.parametrize("floor", [1e-4, 0.01, 0.1])
def test_float32_holds_the_law_up_to_the_rounding_of_window_sums(window, floor):
    """Variance is what is left of sums of squares, of which float32 holds 1e-7: here 1e-3 of them is left."""
    image, off = faint((16, 15, 14), 0.02).float(), 1e-4
    assert float(lncc(image, image, window, noise=floor)) == pytest.approx(1, abs=off)
    for name in ("sharpened", "next voxel"):
        assert float(lncc(image, CHANGES[name](image, image), window, noise=floor)) < 1 + off


@pytest.mark.parametrize("noise_", [-0.1, float("nan"), float("inf")])
def test_noise_is_none_or_some(noise_):
    with pytest.raises(InputError, match="noise is a standard deviation of 0 or more"):
        LNCC(5, noise_)


def test_a_batch_is_the_mean_of_its_images():
    fixed, moved = noise(3, 2, 9, 8, seed=1), noise(3, 2, 9, 8, seed=2)
    mask = random_mask((9, 8), batch=3)
    each = [lncc(fixed[b : b + 1], moved[b : b + 1], 5, mask[b : b + 1]) for b in range(3)]
    torch.testing.assert_close(lncc(fixed, moved, 5, mask), torch.stack(each).mean())
    one = [lncc(fixed[:1], moved[b : b + 1], 5) for b in range(3)]
    torch.testing.assert_close(lncc(fixed[:1], moved, 5), torch.stack(one).mean())


@given(st.floats(0.1, 50) | st.floats(-50, -0.1), st.floats(-100, 100), st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_affine_changes_of_intensity_are_not_seen(scale, offset, shape, seed):
    """Contrast so high that ε, which is added to the variances, does not matter: the law is exact up to it."""
    fixed, moved = 100 * noise(1, 1, *shape, seed=seed), 100 * noise(1, 1, *shape, seed=seed + 1)
    moved = moved + fixed
    value = lncc(fixed, moved, 5)
    torch.testing.assert_close(lncc(fixed, scale * moved + offset, 5), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(lncc(scale * fixed + offset, moved, 5), value, rtol=1e-6, atol=0)
    assert float(lncc(fixed, scale * fixed + offset, 5)) == pytest.approx(1, abs=1e-6)
    assert 0 < float(value) < 0.9


@given(st.floats(1e-3, 1e6), st.floats(-10, 1e6), st.sampled_from([3, 5, 7, 9]))
def test_constant_images_give_nothing_at_all(one, other, window):
    shape = (1, 1, 12, 11, 13)
    texture = noise(*shape, dtype=torch.float32)
    for fixed, moved in (
        (torch.full(shape, one), torch.full(shape, other)),
        (torch.full(shape, one), texture),
        (texture, torch.full(shape, one)),
    ):
        for mask in (None, random_mask(shape[2:])):
            i, j = fixed.clone().requires_grad_(), moved.clone().requires_grad_()
            value = lncc(i, j, window, mask)
            assert value.item() == 0
            for gradient in torch.autograd.grad(value, (i, j)):
                assert torch.equal(gradient, torch.zeros_like(gradient))


@given(st.floats(-1e5, 1e5), st.sampled_from([3, 5, 7, 9]))
def test_constant_patches_beside_texture_give_nothing_and_pull_at_nothing(level, window):
    fixed, moved = (noise(1, 1, 36, 8, 9, seed=s, dtype=torch.float32) for s in (1, 2))
    fixed[:, :, 12:], moved[:, :, 12:] = level, level / 3
    i, j = fixed.requires_grad_(), moved.requires_grad_()
    value = lncc(i, j, window)
    alone = truncated(fixed.double(), moved.double(), window)  # exact: the constants' windows are 0 but for ε
    assert value.isfinite()
    gradients = torch.autograd.grad(value, (i, j))
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert not gradient[:, :, 12 + 2 * (window // 2) :].any()
    if abs(level) < 10:
        assert gradients[1][:, :, :8].abs().max() > 1e-7
        assert value.item() == pytest.approx(alone.item(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("offset", "contrast"), [(0, 1), (1, 0.2), (100, 1), (1000, 5)])
def test_float32_loses_little_where_the_offset_is_large(offset, contrast):
    """Anatomy-like: smooth structures and a little noise, within a background of nothing."""
    fixed, moved = (gaussian(noise(1, 1, 28, 26, 24, seed=s), 1.5) for s in (1, 2))
    moved = 0.6 * fixed + 0.4 * moved
    fixed, moved = (t / t.abs().max() + 0.02 * noise(*t.shape, seed=5 + s) for s, t in enumerate((fixed, moved)))
    fixed, moved = ((offset + contrast * t).float() for t in (fixed, moved))
    single, exact = lncc(fixed, moved, 9), truncated(fixed.double(), moved.double(), 9)
    assert abs(float(single) - float(exact)) < 1e-4
    i, j = moved.clone().requires_grad_(), moved.double().requires_grad_()
    (a,) = torch.autograd.grad(lncc(fixed, i, 9), i)
    (b,) = torch.autograd.grad(truncated(fixed.double(), j, 9), j)
    assert (a - b).norm() < 2e-3 * b.norm()


def test_only_the_wanted_gradients_are_made():
    fixed, moved = noise(1, 1, 8, 9, seed=1), noise(1, 1, 8, 9, seed=2)
    moved.requires_grad_()
    lncc(fixed, moved, 3).backward()
    assert fixed.grad is None
    assert moved.grad is not None
    assert not lncc(fixed, moved.detach(), 3).requires_grad


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        lncc(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 6))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batches", [(1, 1), (1, 3), (3, 3)])
def test_what_is_known_of_the_fixed_image_changes_nothing(masked, batches):
    """Value and gradient to the bit, and the fixed image's share is made once."""
    shape = (9, 8, 10)
    grid = Grid.centred(shape)
    mask = random_mask(shape) if masked else None
    fixed = Image(noise(batches[0], 2, *shape, seed=1), grid, mask)
    moving = Image(noise(batches[1], 2, *shape, seed=2), grid)
    pair = Pair(fixed, moving)
    energy = LNCC(5, 0.1) + 0.5 * Diffusion()
    ready = energy.ready(pair)
    assert ready != energy
    answers = []
    for one in (energy, ready, ready):
        field = (0.3 * noise(batches[1], 3, *shape, seed=3)).requires_grad_()
        value = one(Alignment(pair, Displacement(field, grid)))
        value.backward()
        answers.append((value.detach(), field.grad))
    for value, gradient in answers[1:]:
        assert torch.equal(value, answers[0][0])
        assert torch.equal(gradient, answers[0][1])
    seen = LNCC().ready(Pair(fixed, Image(moving.data, grid, torch.ones(1, 1, *shape, dtype=torch.bool))))
    assert seen == LNCC(), "where the moving mask comes to lie is not known"
