"""Damped scoring: the least of a parabola in a step, no value that rises, and each problem by itself."""

import pytest
import torch

from pullback.errors import InputError
from pullback.solvers.levenberg import Levenberg


def bowl(centre, steep):
    """A parabola for each row."""

    def at(x):
        off = x - centre
        return (steep * off.square()).sum(1) / 2, steep * off, torch.diag_embed(steep)

    return at


CENTRE = torch.tensor([[1.0, -2.0], [30.0, 0.5]], dtype=torch.float64)
STEEP = torch.tensor([[2.0, 700.0], [1e-4, 3.0]], dtype=torch.float64)


def test_a_parabola_is_at_its_least_after_a_few_steps():
    found, stats = Levenberg(8, 1e-3, 1e-9)(bowl(CENTRE, STEEP), torch.zeros_like(CENTRE))
    torch.testing.assert_close(found, CENTRE, rtol=0, atol=1e-8)
    assert stats.stopped == "converged"
    assert (stats.energies.diff() <= 0).all()


def test_where_the_curvature_is_far_too_small_it_still_never_climbs():
    def steep(x):
        return (x**4).sum(1), 4 * x**3, torch.full((len(x), 1, 1), 0.05, dtype=x.dtype)

    found, stats = Levenberg(40, 1e-3, 1e-6)(steep, torch.full((1, 1), 2.0, dtype=torch.float64))
    assert (stats.energies.diff() <= 0).all()
    assert abs(float(found)) < 0.2


def test_problems_do_not_see_each_other():
    together, _ = Levenberg(3)(bowl(CENTRE, STEEP), torch.zeros_like(CENTRE))
    for n in range(2):
        alone, _ = Levenberg(3)(bowl(CENTRE[n : n + 1], STEEP[n : n + 1]), torch.zeros(1, 2, dtype=torch.float64))
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-12, atol=1e-12)


def test_what_is_no_solver_is_refused():
    with pytest.raises(InputError, match="damping above 0"):
        Levenberg(damping=0)
