"""Energies add up: `a + 0.02 * b`."""

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE, NCC, Bending, Diffusion
from pullback.space import Displacement, Grid, Image


@pytest.fixture(scope="module")
def alignment():
    grid, generator = Grid.centred((8, 9)), torch.Generator().manual_seed(0)
    fixed, moving = (torch.rand(1, 1, 8, 9, dtype=torch.float64, generator=generator) for _ in range(2))
    field = torch.rand(1, 2, 8, 9, dtype=torch.float64, generator=generator)
    return Alignment(Pair(Image(fixed, grid), Image(moving, grid)), Displacement(field, grid))


def value(energy, alignment):
    return float(energy(alignment))


def test_sums_and_weights(alignment):
    a, b = value(MSE(), alignment), value(Diffusion(), alignment)
    assert value(MSE() + 0.02 * Diffusion(), alignment) == pytest.approx(a + 0.02 * b)
    assert value(0.5 * (MSE() + 0.02 * Diffusion()), alignment) == pytest.approx(0.5 * a + 0.01 * b)
    assert value(3 * (2 * MSE()), alignment) == pytest.approx(6 * a)
    assert value(0 * MSE() + Diffusion(), alignment) == pytest.approx(b)


def test_terms_are_named_and_weighted(alignment):
    whole = MSE() + 0.02 * Diffusion() + 0.5 * (NCC() + Bending())
    terms = whole.terms(alignment)
    assert list(terms) == ["mse", "diffusion", "ncc", "bending"]
    assert float(terms["diffusion"]) == pytest.approx(0.02 * value(Diffusion(), alignment))
    assert float(terms["ncc"]) == pytest.approx(0.5 * value(NCC(), alignment))
    assert float(sum(terms.values())) == pytest.approx(value(whole, alignment))


def test_terms_of_one_name_add_up(alignment):
    terms = (MSE() + 2 * MSE()).terms(alignment)
    assert list(terms) == ["mse"]
    assert float(terms["mse"]) == pytest.approx(3 * value(MSE(), alignment))


def test_order_and_brackets_do_not_matter(alignment):
    a, b, c = MSE(), 0.3 * Diffusion(), 0.7 * NCC()
    assert value((a + b) + c, alignment) == pytest.approx(value(a + (b + c), alignment))
    assert value(a + b, alignment) == pytest.approx(value(b + a, alignment))


def test_energies_are_values():
    assert MSE() + 0.02 * Diffusion() == MSE() + 0.02 * Diffusion()
    assert MSE() + 0.02 * Diffusion() != MSE() + 0.03 * Diffusion()
    assert len({0.5 * NCC(), 0.5 * NCC()}) == 1


def test_on_a_pair_it_is_a_function_of_the_transform(alignment):
    energy = MSE() + 0.02 * Diffusion()
    assert float(energy.on(alignment.pair)(alignment.transform)) == pytest.approx(value(energy, alignment))
