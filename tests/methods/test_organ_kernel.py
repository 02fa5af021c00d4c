"""The covariance of organs, and the field that continues a displacement between them."""

from itertools import pairwise

import pytest
import torch
from scipy.interpolate import RBFInterpolator

from pullback.errors import InputError
from pullback.methods.points.organ_kernel import OrganField, OrganKernel, squared
from pullback.space import Grid
from pullback.testing import check_transform


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel(coherence: float, bandwidth: list[float], magnitude: list[float]) -> OrganKernel:
    count = len(bandwidth)
    matrix = torch.full((count, count), coherence, dtype=torch.float64).fill_diagonal_(1.0)
    return OrganKernel(matrix, torch.tensor(bandwidth).double(), torch.tensor(magnitude).double())


def printed(points, organs, bandwidth, magnitude, coherence):
    """Equation 3, as the paper has it."""
    apart = torch.cdist(points, points).square()
    wide, high = bandwidth[organs], magnitude[organs]
    together = torch.full_like(apart, coherence).where(organs[:, None] != organs, 1.0)
    return high[:, None] * high * together * (-apart / (2 * wide[:, None] * wide)).exp()


@pytest.mark.parametrize("ndim", [2, 3])
def test_it_is_equation_3_where_bandwidths_are_alike(ndim):
    points, organs = 80 * drawn(40, ndim), torch.arange(40) % 3
    found = kernel(0.4, [25.0] * 3, [4.0, 10, 7]).between(points, organs, points, organs)
    wanted = printed(points, organs, torch.full((3,), 25.0), torch.tensor([4.0, 10, 7]), 0.4)
    torch.testing.assert_close(found, wanted.double(), rtol=0, atol=1e-10)


def test_it_is_a_covariance_whatever_the_bandwidths():
    """As printed, equation 3 is none for 20 and 30 mm."""
    points, organs = 100 * drawn(200, 3), torch.arange(200) % 2
    for one, other in [(20.0, 30.0), *pairwise((5 + 55 * drawn(6, seed=2)).tolist())]:
        found = kernel(1.0, [one, other], [1.0, 1]).between(points, organs, points, organs)
        assert float(torch.linalg.eigvalsh(found)[0]) > -1e-10 * 200, (one, other)
    wrong = printed(points, organs, torch.tensor([20.0, 30]), torch.ones(2), 1.0)
    assert float(torch.linalg.eigvalsh(wrong)[0]) < -0.1


def test_the_factor_makes_the_covariance():
    points, organs = 80 * drawn(60, 3), torch.arange(60) % 2
    known = kernel(0.3, [20.0, 30], [10.0, 5])
    factor, _ = known.factor(points, organs, 1e-12)
    torch.testing.assert_close(factor @ factor.mT, known.between(points, organs, points, organs), rtol=0, atol=1e-7)


def test_squared_distances_far_from_the_origin():
    points = 100 * drawn(50, 3) + 5000
    wanted = (points[:, None] - points[:9]).square().sum(2)
    torch.testing.assert_close(squared(points, points[:9]), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[1, 0.9, 0], [0.9, 1, 0.9], [0, 0.9, 1]], "least eigenvalue is -0.27.*organs [12] and [23]"),
        ([[1, 0.5], [0.4, 1]], "symmetric"),
        ([[2, 0.5], [0.5, 1]], "1 on the diagonal"),
    ],
)
def test_coherence_that_no_organs_have_is_refused(matrix, says):
    ones = torch.ones(len(matrix), dtype=torch.float64)
    with pytest.raises(InputError, match=says):
        OrganKernel(torch.tensor(matrix, dtype=torch.float64), 30 * ones, 10 * ones)


@pytest.mark.parametrize(("bandwidth", "magnitude"), [(0.0, 10.0), (30.0, -1.0)])
def test_numbers_out_of_range_are_refused(bandwidth, magnitude):
    with pytest.raises(InputError, match="bandwidths above 0 mm"):
        kernel(0.0, [bandwidth], [magnitude])


def field(ndim: int, coherence: float = 0.0, far: float = 45.0) -> OrganField:
    """Two organs, `far` mm from one another, of which each moves smoothly."""
    points = 30 * drawn(60, ndim, seed=4)
    organs = torch.arange(60) % 2
    points[:, 0] += far * organs
    known = kernel(coherence, [30.0, 24], [4.0, 3])
    factor, pivots = known.factor(points, organs, 1e-6)
    at = torch.randn(factor.shape[1], ndim, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 4
    return OrganField.of(known, points, organs, factor, pivots, at)


@pytest.mark.parametrize(("ndim", "coherence"), [(2, 0.5), (3, 0.0)])
def test_contract(ndim, coherence):
    shape = Grid(((9, 7) if ndim == 2 else (6, 5, 5)), torch.diag(torch.tensor([*[6.0] * ndim, 1.0]).double()))
    made = field(ndim, coherence)
    check = {"inverse": 1.0}  # near the inverse, but at the points
    check_transform(OrganField.of(made.kernel, made.points, made.organs, *parts(made)), shape, **check)


def parts(made: OrganField) -> tuple[torch.Tensor, ...]:
    factor, pivots = made.kernel.factor(made.points, made.organs, 1e-6)
    return factor, pivots, torch.linalg.lstsq(factor, made.displace(made.points, made.organs)).solution


def test_it_meets_the_displacement_at_the_points():
    made = field(3)
    factor, _, at = parts(made)
    torch.testing.assert_close(made.displace(made.points, made.organs), factor @ at, rtol=0, atol=1e-8)
    home = made.inverse()
    moved = made.points + made.displace(made.points, made.organs)
    back = home.displace(moved, made.organs)
    assert float((moved + back - made.points).norm(dim=1).max()) < 0.05


def test_one_organ_is_scipys_interpolation():
    points, goal = 80 * drawn(30, 3), 5 * drawn(30, 3, seed=1)
    known = kernel(1.0, [25.0], [6.0])
    organs = torch.zeros(30, dtype=torch.long)
    factor, pivots = known.factor(points, organs, 0.0)
    made = OrganField.of(known, points, organs, factor, pivots, torch.linalg.solve(factor, goal))
    peer = RBFInterpolator(points, goal, kernel="gaussian", epsilon=1 / (2**0.5 * 25), degree=-1)
    where = 100 * drawn(50, 3, seed=2)
    wanted = torch.from_numpy(peer(where.numpy()))
    torch.testing.assert_close(made(where) - where, wanted, rtol=0, atol=1e-6)


def test_between_organs_the_nearer_one_leads():
    """Where two organs lie far apart, a point on one moves with it; organs that move as one have no border."""
    made = field(3, far=200.0)
    own = made.displace(made.points, made.organs)
    torch.testing.assert_close(made(made.points) - made.points, own, rtol=0, atol=0.02)
    middle = made.points.mean(0)[None]
    each = torch.stack([made.displace(middle, torch.tensor([organ])) for organ in (0, 1)])
    between = made(middle) - middle
    assert bool((between >= each.amin(0) - 1e-9).all() and (between <= each.amax(0) + 1e-9).all())
    told = kernel(1.0, [30.0, 30], [4.0, 4])
    factor, pivots = told.factor(made.points, made.organs, 1e-6)
    one = OrganField.of(told, made.points, made.organs, factor, pivots, factor.mT @ own / 1000)
    torch.testing.assert_close(one(middle) - middle, one.displace(middle, torch.tensor([1])), rtol=0, atol=1e-9)
