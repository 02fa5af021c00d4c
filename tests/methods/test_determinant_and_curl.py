"""Maps by their determinant and curl: what is prescribed is reached, what is known comes back, inverses invert."""

import math

import pytest
import torch

from pullback.errors import InputError
from pullback.methods.pair.determinant_and_curl import (
    controlled,
    curl_about_axes,
    inverse_by,
    poisson,
    possible,
    prescribed,
    reached,
)
from pullback.numerics.difference import curl, curl_of, determinant, divergence, gradient, jacobian
from pullback.numerics.random import make_generator
from pullback.space import Affine, Displacement, Grid, inverted
from pullback.testing.problems import waved

dimensions = pytest.mark.parametrize("ndim", [2, 3])
EDGES = (1.0, 2.0, 0.5)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def bell(shape, edges, share=0.12):
    """A smooth bump in the middle of a box, next to 0 near its border, and its Laplacian in closed form."""
    x = torch.meshgrid(*(torch.linspace(-0.5, 0.5, n, dtype=torch.float64) for n in shape), indexing="ij")
    lengths = [edge * (n - 1) for edge, n in zip(edges, shape, strict=True)]
    widths = [share * length for length in lengths]
    scaled = [one * length / width for one, length, width in zip(x, lengths, widths, strict=True)]
    value = torch.exp(-sum(one.square() for one in scaled) / 2)
    laplacian = value * sum((one.square() - 1) / width**2 for one, width in zip(scaled, widths, strict=True))
    return value[None, None], laplacian[None, None]


# ---- the controls


@dimensions
def test_poisson_is_symmetric_and_still_at_the_border(ndim):
    shape, edges = (9, 8, 7)[:ndim], EDGES[:ndim]
    a, b = noise(1, ndim, *shape), noise(1, ndim, *shape, seed=1)
    one, other = float((poisson(a, edges) * b).sum()), float((a * poisson(b, edges)).sum())
    assert one == pytest.approx(other, rel=1e-12)
    u = poisson(a, edges)
    for axis in range(2, u.ndim):
        assert not u.select(axis, 0).any()
        assert not u.select(axis, -1).any()


@dimensions
def test_what_is_constant_moves_nothing(ndim):
    shape, edges = (9, 8, 7)[:ndim], EDGES[:ndim]
    f, g = noise(1, 1, *shape), noise(1, 1 if ndim == 2 else 3, *shape, seed=1)
    assert not controlled(torch.full_like(f, 0.7), torch.full_like(g, 2.0), edges).any()
    torch.testing.assert_close(controlled(f + 3, g, edges), controlled(f, g, edges), rtol=0, atol=1e-10)


@dimensions
def test_f_is_the_divergence_and_g_the_curl_of_potentials_that_vanish_at_the_border(ndim):
    """For f = Δβ, u = ∇β; for g = Δβ (3-D: along an axis, less what is a gradient), u = −∇×β; both of second order."""
    edges, errors = EDGES[:ndim], []
    for n in (25, 49) if ndim == 2 else (13, 25):
        scale = [edge * 48 / (n - 1) for edge in edges]
        shape = (n,) * ndim
        value, laplacian = bell(shape, scale)
        still = torch.zeros(1, 1 if ndim == 2 else 3, *shape, dtype=torch.float64)
        turned, potential = still.clone(), still.clone()
        turned[:, -1:], potential[:, -1:] = laplacian, value
        of_f = controlled(laplacian, still, scale) * torch.tensor(scale).double().view(-1, *[1] * ndim)
        of_g = controlled(still[:, :1], turned, scale) * torch.tensor(scale).double().view(-1, *[1] * ndim)
        size = gradient(value, scale).abs().max()
        errors.append(
            [
                float((of_f - gradient(value, scale)).abs().max() / size),
                float((of_g + curl_of(potential, scale)).abs().max() / size),
                float((divergence(of_f, scale) - laplacian).abs().max() / laplacian.abs().max()),
            ]
        )
    for coarse, fine in zip(*errors, strict=True):
        assert fine < coarse / 3.2  # 4, less what is left of higher orders


def test_g_is_the_curl_in_2d():
    n = 65
    value, laplacian = bell((n, n), (1.0, 1.0))
    u = controlled(torch.zeros_like(value), laplacian, (1.0, 1.0))
    assert float((curl(u) - laplacian).abs().max() / laplacian.abs().max()) < 0.02


# ---- what can be


def swirl(grid, size=0.15):
    """A determinant about 1, and a curl, of one map of the box onto itself."""
    u = waved(grid, size * float((grid.spacing * torch.tensor(grid.shape)).min()))
    return u, determinant(jacobian(u.field)), curl_about_axes(u.field, grid.spacing.tolist())


@dimensions
def test_the_mean_determinant_of_any_map_of_the_box_is_one(ndim):
    """In 2-D to rounding, whatever the map: differences and means obey Stokes' theorem exactly."""
    grid = Grid.centred((13, 11, 12)[:ndim], EDGES[:ndim])
    u = torch.nn.functional.pad(0.3 * noise(1, ndim, *(n - 2 for n in grid.shape)), [1, 1] * ndim)
    wanted = possible(determinant(jacobian(u)).clamp(min=1e-3) if ndim == 3 else 5 + determinant(jacobian(u)), grid)
    if ndim == 2:
        assert wanted.factor == pytest.approx(1 / 6, rel=1e-12)
    _, det, about = swirl(grid)
    known = possible(det, grid, about if ndim == 2 else None)
    assert known.factor == pytest.approx(1, abs=1e-10 if ndim == 2 else 1e-3)
    assert known.turn == pytest.approx(0, abs=1e-10)


def test_what_no_map_has_is_told():
    grid = Grid.centred((12, 10))
    even = torch.ones(1, 1, 12, 10)
    for det, about, words in (
        (-even, None, r"-1 at least, and not above 0 in 120 of 120 voxels"),
        (0 * even, None, "not above 0"),
        (even, torch.ones(1, 3, 12, 10), r"curl of a 2-D map has 1 channel on the grid 12×10; got 3 on 12×10"),
        (even[..., :9], None, r"determinant of a 2-D map has 1 channel on the grid 12×10; got 1 on 12×9"),
        (even * torch.nan, None, "not finite"),
    ):
        with pytest.raises(InputError, match=words):
            possible(det, grid, about)
    with pytest.raises(InputError, match="4 voxels or more along each axis"):
        possible(torch.ones(1, 1, 3, 10), Grid.centred((3, 10)))


def test_a_gradient_is_no_curl():
    grid = Grid.centred((16, 14, 15))
    value, _ = bell(grid.shape, (1.0,) * 3)
    det = torch.ones(1, 1, *grid.shape)
    potential = torch.cat([value, 0 * value, 2 * value], 1)
    assert possible(det, grid, gradient(value)).divergence > 0.85
    assert possible(det, grid, curl_of(potential)).divergence < 0.01


def test_what_is_normalised_is_told():
    grid = Grid.centred((20, 20))
    with pytest.warns(UserWarning, match=r"mean of 2 over the box.*multiplied by 0.5"):
        found = prescribed(torch.full((1, 1, 20, 20), 2.0), grid)
    assert not found.field.any()


# ---- maps


def grown(grid, size=0.4):
    value, _ = bell(grid.shape, grid.spacing.tolist())
    return 1 + size * (value - value.mean())


@dimensions
def test_a_volume_change_is_reached(ndim):
    """Within 0.005 but for a box's corners, in which the determinant of any map of it onto itself is 1."""
    grid = Grid.centred((33, 29, 31)[:ndim] if ndim == 2 else (19, 17, 18), EDGES[:ndim])
    wanted = possible(grown(grid), grid)
    found = determinant(jacobian(reached(wanted, 60).field))
    inside = (..., *[slice(3, -3)] * ndim)
    assert float((found - wanted.determinant)[inside].abs().max()) < 0.005
    assert float(found.max()) > 1.3


@dimensions
def test_determinant_and_curl_of_a_known_map_give_it_back(ndim):
    grid = Grid.centred((33, 29) if ndim == 2 else (17, 15, 16), (1.0, 1.5, 2.0)[:ndim])
    u, det, about = swirl(grid)
    found = reached(possible(det, grid, about))
    off = (found.field - u.field).norm(dim=1)
    assert float(u.field.norm(dim=1).max()) > 1.5
    assert float(off.mean()) < 0.02, float(off.mean())


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_map_in_the_world_does_not_depend_on_how_it_is_stored(ndim):
    """Axes permuted and one flipped: left-handed then, so that the curl about them is another."""
    shape = (21, 17) if ndim == 2 else (11, 9, 10)
    grid = Grid.centred(shape, (1.0, 1.5, 2.0)[:ndim])
    _, det, about = swirl(grid)
    order = (1, 0) if ndim == 2 else (1, 2, 0)
    affine = grid.affine[:, [*order, ndim]].clone()
    affine[:, -1] += affine[:, 0] * (shape[order[0]] - 1)
    affine[:, 0] *= -1
    stored = Grid(tuple(shape[axis] for axis in order), affine)

    def turned(values):
        return values.permute(0, 1, *(2 + axis for axis in order)).flip(2)

    one = reached(possible(det, grid, about), 40)  # whose axes are those of the world, and so is the curl about them
    other = reached(possible(turned(det), stored, turned(about)), 40)
    points = 0.4 * (torch.rand(50, ndim, dtype=torch.float64, generator=make_generator(0)) - 0.5)
    points = points * grid.spacing * torch.tensor(shape)
    assert float((one(points) - points).norm(dim=1).max()) > 0.5
    torch.testing.assert_close(one(points), other(points), rtol=0, atol=2e-3)


@dimensions
def test_the_inverse_that_is_constructed_is_the_inverse(ndim):
    grid = Grid.centred((33, 29) if ndim == 2 else (15, 14, 16), (1.0, 1.5, 2.0)[:ndim])
    u, _, _ = swirl(grid, 0.12)
    points = (torch.rand(200, ndim, dtype=torch.float64, generator=make_generator(1)) - 0.5) * 0.8
    points = points * grid.spacing * torch.tensor(grid.shape)
    constructed, exact = inverse_by(u, grid, 60)(points), inverted(u)(points)
    off = (constructed - exact).norm(dim=1) / grid.spacing.min()
    assert float((exact - points).norm(dim=1).max()) > 1
    assert float(off.mean()) < 0.03, float(off.mean())


def test_the_inverse_of_a_composite_is_of_its_parts():
    grid = Grid.centred((33, 29))
    u, _, _ = swirl(grid, 0.1)
    shift = Affine.about(torch.eye(2).double(), torch.zeros(2).double(), torch.tensor([30.0, -7.0]).double())
    points = 8 * (torch.rand(50, 2, dtype=torch.float64, generator=make_generator(2)) - 0.5)
    whole = shift @ u @ u
    assert float((inverse_by(whole, grid)(whole(points)) - points).norm(dim=1).max()) < 0.05


def test_a_map_that_moves_its_border_is_refused():
    grid = Grid.centred((12, 10))
    with pytest.raises(InputError, match="moves the border of its grid by 2 voxels"):
        inverse_by(Displacement(torch.full((1, 2, 12, 10), 2.0), grid), grid)


def test_an_identity_is_its_own_inverse():
    grid = Grid.centred((12, 10))
    assert not inverse_by(Displacement.identity(grid, torch.zeros(1)), grid).field.any()


def test_waves_are_what_a_sine_series_solves():
    """Δu of a product of sines is −Σ λ u, of the stencil's eigenvalue in closed form."""
    n = 12
    x = torch.arange(n, dtype=torch.float64) / (n - 1)
    wave = ((math.pi * x).sin()[:, None] * (2 * math.pi * x).sin())[None, None]
    value = sum(2 - 2 * math.cos(math.pi * k / (n - 1)) for k in (1, 2))
    torch.testing.assert_close(poisson(wave, (1.0, 1.0)), -wave / value, rtol=0, atol=1e-12)
