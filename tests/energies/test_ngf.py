"""NGF against numpy's gradients, closed forms, and the laws it promises."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.ndimage import binary_erosion, generate_binary_structure

from pullback.alignment import Alignment, Pair
from pullback.energies import NGF
from pullback.errors import InputError
from pullback.space import Affine, Displacement, Grid, Image

SHAPES = [(9, 8), (6, 5, 7)]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(fixed, moving, mask=None, field=None, spacing=1.0):
    grid = Grid.centred(tuple(fixed.shape[2:]), spacing)
    transform = Affine.identity(grid.ndim) if field is None else Displacement(field, grid)
    return Alignment(Pair(Image(fixed, grid, mask), Image(moving, grid, mask)), transform)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_as_numpy(shape, masked, epsilon):
    """On anisotropic voxels; a mask is eroded by the cross of neighbours; each pair counts the same."""
    d = len(shape)
    spacing = (0.5, 2.0, 1.3)[:d]
    fixed, moving = noise(2, 2, *shape, seed=1), noise(2, 2, *shape, seed=2)
    mask = noise(2, 1, *shape, seed=3) > -1.2 if masked else None
    value = float(NGF(epsilon)(seen(fixed, moving, mask, spacing=spacing)))
    total = 0.0
    for b in range(2):
        keep = np.ones(shape, bool)
        if masked:
            keep = binary_erosion(mask[b, 0].numpy(), generate_binary_structure(d, 1), border_value=1)
            assert 3 < keep.sum() < keep.size
        for c in range(2):
            normals = []
            for image in (fixed, moving):
                slope = np.stack(np.gradient(image[b, c].numpy(), *spacing))
                edge = epsilon * np.linalg.norm(slope, axis=0)[keep].mean()
                normals.append(slope / np.sqrt((slope**2).sum(0) + edge**2))
            lengths = [np.linalg.norm(normal, axis=0) for normal in normals]
            normals[1] *= np.minimum(1, lengths[0] / lengths[1])
            total += ((normals[0] * normals[1]).sum(0) ** 2)[keep].mean()
    assert value == pytest.approx(1 - total / 4, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5, 4), (1, 6), (3, 4, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(shape, masked):
    fixed, moving = noise(2, 2, *shape, seed=1), noise(1, 2, *shape, seed=2)
    mask = None
    if masked:
        mask = torch.ones(1, 1, *shape, dtype=torch.bool)
        mask.view(-1)[0] = False
    field = (0.2 + 0.1 * noise(2, len(shape), *shape, seed=4)).requires_grad_()
    energy = NGF(0.5)
    assert torch.autograd.gradcheck(lambda u: 3 * energy(seen(fixed, moving, mask, u, 0.7)), (field,))
    (gradient,) = torch.autograd.grad(energy(seen(fixed, moving, mask, field)), field)
    assert gradient.any()


@given(st.floats(-math.pi, math.pi), st.floats(0.05, 3), st.floats(0.01, 100))
def test_ramps_at_an_angle(angle, epsilon, contrast):
    """Slopes of one length: n has the length 1 / √(1 + ε²)."""
    x, y = (t.double() for t in torch.meshgrid(torch.arange(9), torch.arange(8), indexing="ij"))
    fixed, moving = x[None, None], contrast * (x * math.cos(angle) + y * math.sin(angle))[None, None]
    expected = 1 - (math.cos(angle) / (1 + epsilon**2)) ** 2
    assert float(NGF(epsilon)(seen(fixed, moving))) == pytest.approx(expected, rel=1e-9)


@given(st.floats(0.1, 50) | st.floats(-50, -0.1), st.floats(-100, 100), st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_affine_changes_of_intensity_are_not_seen(scale, offset, shape, seed):
    fixed, moving = noise(1, 1, *shape, seed=seed), noise(1, 1, *shape, seed=seed + 1)
    of = partial(seen, spacing=0.8)
    value = float(NGF()(of(fixed, moving)))
    assert float(NGF()(of(scale * fixed + offset, moving))) == pytest.approx(value, rel=1e-9)
    assert float(NGF()(of(fixed, scale * moving + offset))) == pytest.approx(value, rel=1e-9)
    assert 0 < value < 1


@given(st.floats(0.01, 100), st.integers(0, 10**6))
def test_units_and_the_order_of_axes_are_not_seen(unit, seed):
    fixed, moving = noise(1, 1, 6, 5, 7, seed=seed), noise(1, 1, 6, 5, 7, seed=seed + 1)
    value = float(NGF()(seen(fixed, moving, spacing=(1.0, 2.0, 3.0))))
    assert float(NGF()(seen(fixed, moving, spacing=(unit, 2 * unit, 3 * unit)))) == pytest.approx(value, rel=1e-9)
    turned = [t.permute(0, 1, 4, 2, 3).flip(2) for t in (fixed, moving)]
    assert float(NGF()(seen(*turned, spacing=(3.0, 1.0, 2.0)))) == pytest.approx(value, rel=1e-9)


def test_noise_beside_strong_edges_has_a_voice_only_where_epsilon_is_tiny():
    edge = torch.linspace(-3, 3, 40, dtype=torch.float64).tanh().expand(1, 1, 30, 40)
    noisy = 0.01 * noise(*edge.shape) - edge

    def change(epsilon):
        return float(NGF(epsilon)(seen(edge, noisy))) - float(NGF(epsilon)(seen(edge, -edge)))

    assert 0 < 10 * change(1.0) < change(0.001)


@given(st.floats(0.05, 3), st.floats(1.5, 100), st.integers(0, 10**6))
def test_steeper_edges_at_the_same_places_are_no_more_alike(epsilon, steeper, seed):
    """One half of the moving image is so much steeper: by ε under both norms ⟨n(F), n(M)⟩² would be more there."""
    fixed = noise(1, 1, 20, 9, seed=seed)
    fixed[:, :, :10] *= 0.1
    moving = fixed.clone()
    moving[:, :, :10] *= steeper
    moving.requires_grad_()
    value = NGF(epsilon)(seen(fixed, moving))
    assert value.item() >= float(NGF(epsilon)(seen(fixed, fixed))) - 1e-9


@pytest.mark.parametrize("level", [0.0, 1.7, 1000.1])
def test_flat_images_have_no_edges_and_pull_at_nothing(level):
    flat, texture = torch.full((1, 1, 7, 8), level), noise(1, 1, 7, 8).float()
    for f, m in ((flat, texture), (texture, flat), (flat, flat)):
        field = torch.zeros(1, 2, 7, 8, requires_grad=True)
        value = NGF()(seen(f, m, field=field))
        assert value.item() == pytest.approx(1, abs=1e-6)
        if m is texture:
            assert not torch.autograd.grad(value, field)[0].any()


def test_epsilon_is_positive():
    with pytest.raises(InputError, match="positive share of the mean slope, got 0"):
        NGF(0)
