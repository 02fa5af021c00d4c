"""MIND-SSC against its definition, patch by patch, and the laws it promises."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from pullback.alignment import Alignment, Pair
from pullback.energies import MIND, mind
from pullback.errors import InputError
from pullback.space import Affine, Grid, Image

SHAPES = [(9, 8), (6, 5, 7)]
CHANNELS = {(2, True): 4, (3, True): 12, (2, False): 4, (3, False): 6}


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def energy(fixed, moving, mask=None, **settings):
    grid = Grid.centred(tuple(fixed.shape[2:]))
    pair = Pair(Image(fixed, grid, mask), Image(moving, grid))
    return float(MIND(**settings)(Alignment(pair, Affine.identity(grid.ndim))))


def by_definition(image, radius, dilation, keep, context=True):
    """`(channels, *shape)`, patch by patch, on an image continued by its border: two neighbours at a right angle, or
    the voxel itself and a neighbour."""
    d, reach = image.ndim, radius + dilation
    image = np.pad(np.where(keep, image, np.nan), reach, mode="edge")
    neighbours = [sign * dilation * np.eye(d, dtype=int)[axis] for axis in range(d) for sign in (1, -1)]
    pairs = [(p, q) for p, q in itertools.combinations(neighbours, 2) if p @ q == 0]
    if not context:
        pairs = [(0 * p, p) for p in neighbours]
    out = np.zeros((len(pairs), *keep.shape))
    above, spread = np.full(out.shape, np.nan), np.zeros(keep.shape)
    for x in np.argwhere(keep):
        distances = np.full(len(pairs), np.nan)
        for k, ends in enumerate(pairs):
            one, other = (image[tuple(slice(n - radius, n + radius + 1) for n in x + reach + end)] for end in ends)
            square = (one - other) ** 2
            if not np.isnan(square).all():
                distances[k] = np.nanmean(square)
        if not np.isnan(distances).all():
            above[(slice(None), *x)] = distances - np.nanmin(distances)
            spread[tuple(x)] = np.nanmean(above[(slice(None), *x)])
    least = 1e-3 * spread[keep].mean()
    for x in np.argwhere(keep & ~np.isnan(above).all(0)):
        out[(slice(None), *x)] = np.nan_to_num(np.exp(-above[(slice(None), *x)] / (max(spread[tuple(x)], least) or 1)))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("radius", "dilation"), [(1, 2), (0, 1), (2, 1)])
@pytest.mark.parametrize("context", [True, False])
def test_as_defined(shape, masked, radius, dilation, context):
    """The order of channels is nobody's business."""
    image = noise(2, 2, *shape)
    mask = noise(2, 1, *shape, seed=3) > -0.2 if masked else None
    found = mind(image, radius, dilation, mask, context)
    count = CHANNELS[len(shape), context]
    assert found.shape == (2, 2 * count, *shape)
    found = found.unflatten(1, (2, count)).numpy()
    for b in range(2):
        for c in range(2):
            keep = np.ones(shape, bool) if mask is None else mask[b, 0].numpy()
            expected = by_definition(image[b, c].numpy(), radius, dilation, keep, context)
            np.testing.assert_allclose(np.sort(found[b, c], 0), np.sort(expected, 0), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("radius", "dilation", "context"), [(1, 2, True), (0, 1, True), (1, 2, False)])
def test_gradcheck(shape, masked, radius, dilation, context):
    """Of images without flat places: the least spread is a constant to the gradient."""
    image = noise(2, 1, *shape).requires_grad_()
    mask = noise(1, 1, *shape, seed=3) > -1 if masked else None
    weights = noise(2, CHANNELS[len(shape), context], *shape, seed=4)
    weighted = lambda x: (weights * mind(x, radius, dilation, mask, context)).sum()  # noqa: E731
    assert torch.autograd.gradcheck(weighted, (image,), eps=1e-7, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_is_the_mean_squared_difference(shape):
    fixed, moving = noise(2, 2, *shape, seed=1), noise(2, 2, *shape, seed=2)
    mask = noise(2, 1, *shape, seed=3) > -0.2
    squares = (mind(fixed) - mind(moving)).square().numpy()
    assert energy(fixed, moving) == pytest.approx(squares.mean(), rel=1e-9)
    squares = (mind(fixed, mask=mask) - mind(moving, mask=mask)).square().numpy()
    weights = mask.expand(2, squares.shape[1], *shape).numpy()
    assert energy(fixed, moving, mask) == pytest.approx(np.average(squares, weights=weights), rel=1e-9)


@given(st.floats(0.1, 50) | st.floats(-50, -0.1), st.floats(-100, 100), st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_affine_changes_of_intensity_are_not_seen(scale, offset, shape, seed):
    image = noise(1, 1, *shape, seed=seed)
    found = mind(image)
    torch.testing.assert_close(mind(scale * image + offset), found, rtol=1e-8, atol=1e-10)
    assert (found.amax(1) == 1).all()
    assert found.min() > 0


@given(st.integers(0, 10**6), st.sampled_from(SHAPES))
def test_neither_which_is_fixed_nor_how_axes_are_stored_is_seen(seed, shape):
    fixed, moving = noise(1, 1, *shape, seed=seed), noise(1, 1, *shape, seed=seed + 1)
    value = energy(fixed, moving)
    assert energy(moving, fixed) == pytest.approx(value, rel=1e-9)
    turned = [t.transpose(2, -1).flip(2) for t in (fixed, moving)]
    assert energy(*turned) == pytest.approx(value, rel=1e-9)
    assert 0 < value < 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_of_everything_is_none(shape):
    image = noise(2, 3, *shape)
    everywhere = torch.ones(1, 1, *shape, dtype=torch.bool)
    torch.testing.assert_close(mind(image, mask=everywhere), mind(image))
    assert not mind(image, mask=~everywhere).any()


@pytest.mark.parametrize("level", [0.0, 1.7, 31415.9])
def test_flat_images_are_alike_everywhere_and_pull_at_nothing(level):
    flat = torch.full((1, 1, 7, 8, 6), level, requires_grad=True)
    found = mind(flat)
    assert (found == 1).all()
    assert not torch.autograd.grad(found[:, ::2].sum(), flat)[0].any()


def test_noise_in_flat_places_is_nothing_beside_anatomy():
    """Without a least spread, descriptors of faint noise would differ as much as those of anatomy."""
    anatomy = torch.zeros(1, 1, 40, 20, dtype=torch.float64)
    anatomy[:, :, :16] = noise(1, 1, 16, 20)
    noisy = anatomy + 1e-3 * noise(1, 1, 40, 20, seed=1)
    difference = (mind(anatomy) - mind(noisy))[:, :, 20:]
    assert difference.abs().max() < 0.02


def test_patches_and_neighbours_are_somewhere():
    with pytest.raises(InputError, match="got -1 and 2"):
        MIND(radius=-1)
    with pytest.raises(InputError, match="got 1 and 0"):
        MIND(dilation=0)
