"""What every energy promises. The test walks `pullback.energies` and counts what it has seen."""

import inspect

import pytest
import torch

import pullback.energies
from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, MSE, Diffusion, Energy, Sum, Weighted
from pullback.space import Affine, Displacement, Grid, Image, Velocity

SHAPES = [(14, 12), (9, 10, 8)]
COMPOUND = {"Sum": MSE() + 0.1 * Diffusion(), "Weighted": 0.5 * LNCC(5)}


def exported():
    found = {name: getattr(pullback.energies, name) for name in pullback.energies.__all__}
    return {n: c for n, c in found.items() if inspect.isclass(c) and issubclass(c, Energy) and c is not Energy}


ENERGIES = {name: COMPOUND[name] if name in COMPOUND else kind() for name, kind in exported().items()}
every = pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES.keys())
shapes = pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_energy_is_visited():
    assert set(ENERGIES) >= {"LNCC", "MSE", "NCC", "Bending", "Diffusion", "Sum", "Weighted"}
    assert all(isinstance(ENERGIES[name], kind) for name, kind in exported().items())
    assert isinstance(ENERGIES["Sum"], Sum)
    assert isinstance(ENERGIES["Weighted"], Weighted)


@every
@shapes
def test_finite_with_finite_gradient_also_for_identical_images_at_the_identity(energy, shape):
    grid = Grid.centred(shape)
    textured, empty = noise(1, 1, *shape), torch.zeros(1, 1, *shape)
    half = textured.clone()
    half[:, :, :4] = 0
    for fixed, moving in ((textured, textured), (half, half), (half, noise(1, 1, *shape, seed=1)), (empty, empty)):
        pair = Pair(Image(fixed, grid), Image(moving, grid))
        for start in (torch.zeros(1, len(shape), *shape), noise(1, len(shape), *shape, seed=2)):
            for kind in (Displacement, Velocity):
                field = start.clone().requires_grad_()
                terms = energy.terms(Alignment(pair, kind(field, grid)))
                assert terms
                assert all(t.shape == () and t.dtype == torch.float32 and t.isfinite() for t in terms.values())
                (gradient,) = torch.autograd.grad(sum(terms.values()), field)
                assert gradient.isfinite().all()


@every
@shapes
def test_smallest_at_identical_images_without_motion(energy, shape):
    grid, data = Grid.centred(shape), noise(1, 1, *shape)
    still = Alignment(Pair(Image(data, grid), Image(data, grid)), Displacement.identity(grid, data))
    assert float(energy(still)) == pytest.approx(0, abs=1e-3)
    moved = Alignment(still.pair, Displacement(noise(1, len(shape), *shape, seed=1), grid))
    assert float(energy(moved)) > 0.05


@every
@shapes
def test_what_the_mask_hides_has_no_influence(energy, shape):
    grid = Grid.centred(shape)
    fixed, moving = noise(1, 1, *shape), noise(1, 1, *shape, seed=1)
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[:, :, 2:7, 3:8] = True
    elsewhere = torch.where(mask, 0, 50 * noise(1, 1, *shape, seed=2))
    answers = []
    for f, m in ((fixed, moving), (fixed + elsewhere, moving), (fixed, moving + elsewhere)):
        field = torch.zeros(1, len(shape), *shape, requires_grad=True)
        # half a voxel of the moving image is looked at from the mask's edge: its own mask keeps that out of the sum
        alignment = Alignment(Pair(Image(f, grid, mask), Image(m, grid, mask)), Displacement(field, grid))
        value = energy(alignment)
        (gradient,) = torch.autograd.grad(value, field)
        deep = gradient[:, :, 3:6, 4:7]  # at the mask's edge the slope of the moving image reaches one voxel out
        answers.append((value.detach(), deep))
        assert not gradient[~mask.expand_as(gradient)].any()
    for value, gradient in answers[1:]:
        torch.testing.assert_close(value, answers[0][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(gradient, answers[0][1], rtol=1e-3, atol=1e-6)


@every
@shapes
def test_inputs_are_left_alone_and_the_answer_is_repeatable(energy, shape):
    grid = Grid.centred(shape)
    fixed, moving, field = noise(1, 1, *shape), noise(1, 1, *shape, seed=1), noise(1, len(shape), *shape, seed=2)
    kept = [t.clone() for t in (fixed, moving, field)]
    pair = Pair(Image(fixed, grid), Image(moving, grid))
    field.requires_grad_()
    first = energy(Alignment(pair, Displacement(field, grid)))
    first.backward()
    assert torch.equal(energy(Alignment(pair, Displacement(field, grid))), first)
    assert all(torch.equal(a, b) for a, b in zip((fixed, moving, field.detach()), kept, strict=True))


@every
def test_affines_can_be_descended_too(energy, oblique):
    grid = oblique((8, 9, 7), 1)
    pair = Pair(Image(noise(1, 1, 8, 9, 7), grid), Image(noise(1, 1, 8, 9, 7, seed=1), grid))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :] += 0.05 * noise(3, 4, seed=2)
    matrix.requires_grad_()
    (gradient,) = torch.autograd.grad(energy(Alignment(pair, Affine(matrix))), matrix)
    assert gradient.isfinite().all()
