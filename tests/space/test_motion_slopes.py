"""Slopes of motions: the derivatives of their matrices."""

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Motion


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", [Motion.translation, Motion.rigid, Motion.affine])
def test_slopes_are_what_autograd_says(ndim, kind):
    grid = Grid.centred((20, 30, 10)[:ndim], 2.0)
    start = torch.eye(ndim + 1, dtype=torch.float64)
    start[0, -1] = 40.0
    motion = kind(Affine(start), grid)
    count = motion.coefficients.shape[-1]
    drawn = 8 * torch.randn(3, count, generator=make_generator(0), dtype=torch.float64)
    found = motion.with_params(drawn).slopes  # (3, K, d+1, d+1)
    for n in range(3):
        known = torch.autograd.functional.jacobian(lambda c: motion.with_params(c).matrix, drawn[n])
        torch.testing.assert_close(found[n], known.movedim(-1, 0), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(motion.with_params(drawn[n]).slopes, found[n])
