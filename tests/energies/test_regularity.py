"""Diffusion and bending energy: the plain formulas and closed forms."""

import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import Bending, Diffusion
from pullback.numerics.sample import voxels
from pullback.space import Affine, Displacement, Grid, Image, Velocity

SHAPES = [(7, 6), (5, 6, 4)]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of(energy, field, kind=Displacement):
    grid = Grid.centred(tuple(field.shape[2:]))
    image = Image(field.new_zeros(1, 1, *grid.shape), grid)
    return energy(Alignment(Pair(image, image), kind(field, grid)))


@pytest.mark.parametrize("kind", [Displacement, Velocity])
@pytest.mark.parametrize("shape", SHAPES)
def test_diffusion_is_the_mean_squared_step(shape, kind):
    """Of what the transform is made of: for a velocity, of the velocity."""
    d, field = len(shape), noise(2, len(shape), *shape)
    expected = np.mean([np.mean(np.diff(field.numpy(), axis=axis) ** 2) for axis in range(2, 2 + d)])
    assert float(of(Diffusion(), field, kind)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_diffusion_of_the_displacement_is_that_of_what_a_velocity_amounts_to(shape):
    field = noise(1, len(shape), *shape)
    exponential = Velocity(field, Grid.centred(shape)).own_displacement
    assert float(of(Diffusion(displacement=True), field, Velocity)) == float(of(Diffusion(), exponential))
    assert float(of(Diffusion(displacement=True), field)) == float(of(Diffusion(), field))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("energy", [Diffusion(), Bending()], ids=["diffusion", "bending"])
def test_gradcheck(shape, energy):
    field = noise(2, len(shape), *shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: 2.5 * of(energy, f), (field,))


@pytest.mark.parametrize("shape", SHAPES)
def test_of_linear_displacements(shape):
    d = len(shape)
    matrix = noise(d, d)
    field = torch.einsum("ab,b...->a...", matrix, voxels(shape, matrix))[None] + 3
    assert float(of(Diffusion(), field)) == pytest.approx(float(matrix.square().sum()) / d**2)
    assert float(of(Bending(), field)) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("shape", SHAPES)
def test_bending_of_a_quadratic_displacement_is_its_hessian(shape):
    """u_c = ½ xᵀ H_c x: the differences of second order are H_c, everywhere."""
    d = len(shape)
    hessian = noise(d, d, d)
    hessian = hessian + hessian.mT
    x = voxels(shape, hessian)
    field = 0.5 * torch.einsum("cab,a...,b...->c...", hessian, x, x)[None]
    # mixed: Δ_a Δ_b of ½(H_ab + H_ba) x_a x_b is H_ab; pure: Δ²  of ½ H_aa x² is H_aa
    assert float(of(Bending(), field)) == pytest.approx(float(hessian.square().mean()))


@pytest.mark.parametrize("energy", [Diffusion(), Bending()], ids=["diffusion", "bending"])
def test_any_transform_has_a_field(oblique, energy):
    """An affine is as rough as its displacement on the fixed grid."""
    grid = oblique((6, 5, 7), 1)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] += 0.2 * noise(3, 3)
    image = Image(torch.zeros(1, 1, *grid.shape), grid)
    pair, affine = Pair(image, image), Affine(matrix)
    dense = Displacement(affine.displacement(grid), grid)
    assert float(energy(Alignment(pair, affine))) == pytest.approx(float(energy(Alignment(pair, dense))), abs=1e-20)


@pytest.mark.parametrize("energy", [Diffusion(), Bending()], ids=["diffusion", "bending"])
@pytest.mark.parametrize("shape", [(2, 5), (5, 2, 4), (1, 6, 6)])
def test_thin_grids_are_no_trouble(energy, shape):
    field = noise(1, len(shape), *shape).requires_grad_()
    value = of(energy, field)
    assert value.isfinite()
    assert value > 0
    assert torch.autograd.grad(value, field)[0].isfinite().all()
