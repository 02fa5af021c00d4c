"""Twins: gradients in V, and the variational problem that they solve."""

from functools import partial

import pytest
import torch

from pullback.alignment import Alignment
from pullback.data import Tori
from pullback.energies import MSE, Kinetic
from pullback.errors import InputError
from pullback.methods.pair.lddmm_twin import Twin
from pullback.numerics.integrate import euler
from pullback.numerics.random import make_generator
from pullback.recipes.lddmm_gan import ENERGY, KERNEL
from pullback.space import Geodesic, Grid, Image, Velocity
from pullback.testing import check_register, problems

GEODESIC = partial(Geodesic, kernel=KERNEL, steps=2, scheme=euler)
TWINS = {"stationary": Velocity, "geodesic": partial(GEODESIC, steps=4, frugal=False)}


@pytest.mark.parametrize("kind", TWINS.values(), ids=TWINS)
def test_a_twin_solves_the_variational_problem(kind):
    """Its energy ends far below that of no motion, nothing folds, and a mode the images cannot see decays."""
    pair = next(iter(Tori(side=32, test_subjects=2).test))
    twin = Twin(ENERGY, kind, KERNEL, steps=40)
    found = twin(*pair.images)
    before, after = (
        float(ENERGY(Alignment(pair, t))) for t in (kind(0 * found.transform.field, pair.fixed.grid), found.transform)
    )
    assert after < 0.25 * before
    assert float(found.jacobian.min()) > 0
    energies = found.stats.energies
    assert float(energies[-1]) < 1.1 * float(energies.min())


@pytest.mark.parametrize("problem", [*problems("identity", "batch", "smooth", ndim=2)], ids=str)
def test_twins_are_registers(problem):
    known = problem.name == "identity"
    for kind, steps in ((Velocity, 20), (GEODESIC, 3)):
        check_register(Twin(ENERGY, kind, KERNEL, steps), problem, solves=known, energy=ENERGY)


def test_the_gradient_in_v_of_the_kinetic_energy_is_the_velocity():
    """Without images to tell apart a step shortens every velocity, rough or smooth, by the same share."""
    grid = Grid.centred((20, 18), [1.0, 1.5])
    field = KERNEL.smooth(
        torch.randn(1, 2, 20, 18, dtype=torch.float64, generator=make_generator(1)), grid.spacing.tolist()
    )
    flat = Image(torch.zeros(1, 1, 20, 18, dtype=torch.float64), grid)
    field *= 0.5 / field.abs().max()  # shorter than a step may be at most
    moved = []

    def kind(values, grid):
        moved.append(values.detach().clone())
        return Velocity(values + field, grid)

    Twin(1.0 * Kinetic(KERNEL) + 1.0 * MSE(), kind, KERNEL, steps=2, step_size=0.1)(flat, flat)
    step = moved[1] - moved[0]  # the first, by Nesterov's momentum 1.9 times as long
    torch.testing.assert_close(step, -0.19 * field, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"step_size": -0.1}])
def test_descents_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="0 steps or more"):
        Twin(ENERGY, Velocity, KERNEL, **wrong)
