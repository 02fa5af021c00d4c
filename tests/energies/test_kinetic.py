"""The energy of motion: closed forms, and one number for one motion, however it is told."""

import math
from functools import partial

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE, Kinetic
from pullback.energies.regularity import stiffened
from pullback.numerics.kernel import Gaussian, Sobolev
from pullback.numerics.random import make_generator
from pullback.space import Affine, Displacement, Flow, Geodesic, Grid, Image, Velocity

SHAPES = [(9, 8), (6, 7, 5)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=make_generator(seed))


def of(energy, transform, grid):
    image = Image(torch.zeros(1, 1, *grid.shape, dtype=torch.float64), grid)
    return energy(Alignment(Pair(image, image), transform))


@every_shape
@pytest.mark.parametrize("kernel", [Sobolev(2, 2, 0.5), Sobolev(3, 1.5, unit="mm"), Sobolev(0.0025, 4, unit="side")])
def test_of_a_sine_mode(shape, kernel):
    """½ a² (γ + α|k|²)^s / 2ᵈ, a in the kernel's unit; of n voxels, n − 1 lie between the border's middles."""
    d = len(shape)
    grid = Grid.centred(shape, [1.2, 0.7, 1.5][:d])
    edges = {"voxel": [1.0] * d, "mm": [1.2, 0.7, 1.5][:d], "side": [1 / n for n in shape]}[kernel.unit]
    field, k2, a = torch.zeros(1, d, *shape, dtype=torch.float64), 0.0, 0.4
    mode = torch.ones(shape, dtype=torch.float64)
    for axis, (n, edge) in enumerate(zip(shape, edges, strict=True)):
        k = 2 if axis == 0 else 1
        wave = torch.sin(math.pi * k * torch.arange(n, dtype=torch.float64) / (n - 1))
        mode = mode * wave.view(-1, *[1] * (d - 1 - axis))
        k2 += (2 * math.sin(math.pi * k / (n - 1) / 2) / edge) ** 2
    field[0, 1] = mode * a / edges[1]
    share = math.prod((n - 1) / n for n in shape)
    expected = 0.5 * a**2 * (kernel.gamma + kernel.alpha * k2) ** kernel.power / 2**d * share
    assert float(of(Kinetic(kernel), Velocity(field, grid), grid)) == pytest.approx(expected, rel=1e-10)


@every_shape
def test_one_motion_has_one_energy(shape):
    """A velocity, a geodesic that sets out with it, all of N pieces of it, a displacement: each at an even pace."""
    grid, kernel = Grid.centred(shape, 1.3), Sobolev(3, 2, unit="mm")
    field = noise(2, len(shape), *shape)
    pieces = (field / 5).repeat(5, *[1] * (grid.ndim + 1))
    for kind in (Velocity, Displacement, partial(Geodesic, kernel=kernel)):
        expected = of(Kinetic(kernel), kind(field, grid), grid)
        torch.testing.assert_close(of(Kinetic(kernel), Flow(pieces, grid, 5), grid), expected)
        each = [of(Kinetic(kernel), kind(field[n : n + 1], grid), grid) for n in range(2)]
        torch.testing.assert_close(expected, sum(each) / 2)


def test_a_flow_is_averaged_over_its_pieces():
    grid, kernel = Grid.centred((8, 9)), Sobolev(2, 2)
    pieces = noise(3, 2, 8, 9)
    each = [of(Kinetic(kernel), Velocity(3 * pieces[n : n + 1], grid), grid) for n in range(3)]
    torch.testing.assert_close(of(Kinetic(kernel), Flow(pieces, grid, 3), grid), sum(each) / 3)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [Sobolev(2, 2), Gaussian((2.0, 0.4), (1.0, 0.1))])
def test_gradcheck(kernel):
    grid = Grid.centred((5, 6))
    field = noise(3, 2, 5, 6).requires_grad_()
    tolerance = 1e-5 if isinstance(kernel, Sobolev) else 1e-2  # of conjugate gradients
    assert torch.autograd.gradcheck(
        lambda f: of(Kinetic(kernel), Flow(f, grid, 3), grid), (field,), eps=1e-4, atol=tolerance, rtol=tolerance
    )


@every_shape
def test_any_transform_has_a_motion(shape):
    grid = Grid.centred(shape)
    turn = torch.eye(len(shape) + 1, dtype=torch.float64)
    turn[0, 1] = 0.2
    dense = Displacement(Affine(turn).displacement(grid), grid)
    values = [float(of(Kinetic(Sobolev(1, 2)), t, grid)) for t in (Affine(turn), dense)]
    assert values[0] == pytest.approx(values[1])
    assert values[0] > 0


def test_it_is_a_regularity():
    grid, energy = Grid.centred((6, 7)), MSE() + 0.5 * Kinetic(Sobolev(1, 1))
    velocity = Velocity(noise(1, 2, 6, 7), grid)
    assert float(of(stiffened(energy, 3), velocity, grid)) == pytest.approx(3 * float(of(energy, velocity, grid)))
