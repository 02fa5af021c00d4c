"""Uncertainty: closed forms of the posterior's energy, what its samples are, and the contracts of its registers."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import norm

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.pair.ensemble import ConstantDeviation
from pullback.methods.pair.posterior import LogDeviation, Posterior, PosteriorEnergy, edge_sum
from pullback.methods.pair.uncertainty import PosteriorNetwork, PosteriorSupervision, WithPosterior
from pullback.metrics import Calibration
from pullback.metrics.calibration import coverage_of, deviation_in
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import neighbour_correlation
from pullback.solvers import Descend
from pullback.space import Affine, Displacement, Grid, Image, Points
from pullback.study.evaluate import unmoved
from pullback.study.trained import Trained
from pullback.testing import check_register, check_supervision, problems
from pullback.training import seeded

DOUBLE = torch.zeros((), dtype=torch.float64)
SMALL = PosteriorEnergy(smooth=3.0)
QUICK = Descend(steps=20, step_size=0.05, last=0.05)


def grid_of(*shape):
    return Grid.centred(shape, 2.0)


def noisy(grid, seed=0):
    return Image(torch.rand(1, 1, *grid.shape, generator=make_generator(seed), dtype=torch.float64), grid)


def found(energy, pair, solver, start=0.0):
    """The deviation at which a descent of the energy ends, about a mean of zero."""
    mean = torch.zeros(1, pair.fixed.grid.ndim, *pair.fixed.grid.shape, dtype=torch.float64)
    generator = make_generator(0)

    def objective(deviation):
        return torch.stack([*energy.terms(pair, mean, deviation.values, generator).values()]).sum()

    return solver(objective, LogDeviation(mean + start))[0].values.exp()


# ---- samples


@pytest.mark.parametrize("shape", [(9, 8), (6, 5, 4)], ids=["2D", "3D"])
def test_samples_have_the_deviation_up_to_the_corners(shape):
    """Variance over G² is 1 everywhere and neighbours are as correlated as ρ says, within five standard errors."""
    grid, draws = grid_of(*shape), make_generator(1)
    deviation = 0.5 + torch.rand(1, len(shape), *shape, generator=draws, dtype=torch.float64)
    mean = Displacement(torch.randn(1, len(shape), *shape, generator=draws, dtype=torch.float64), grid)
    posterior = Posterior(mean, deviation, smooth=2.0)
    each = torch.cat([(one.field - mean.field) / deviation for one in posterior.draws(1500, make_generator(2))])
    assert float((each.square().mean(0) - 1).abs().max()) < 5 * math.sqrt(2 / 1500)
    rho = neighbour_correlation(2.0, 4)
    pairs = (each.narrow(2, 0, shape[0] - 1) * each.narrow(2, 1, shape[0] - 1)).mean(0)
    assert float((pairs - rho).abs().max()) < 5 * math.sqrt((1 + rho**2) / 1500)


def test_truth_that_is_drawn_from_the_posterior_is_covered_as_it_says():
    """Of samples of their own, 90 % of the components lie in the 90 % interval, ± 0.02."""
    grid = grid_of(24, 20)
    deviation = 0.5 + torch.rand(1, 2, *grid.shape, generator=make_generator(3), dtype=torch.float64)
    posterior = Posterior(Displacement(torch.zeros_like(deviation), grid), deviation, smooth=1.0)
    image = noisy(grid)
    errors = torch.cat([one.field[0].flatten(1).T for one in posterior.draws(100, make_generator(4))])
    said = deviation[0].flatten(1).T.repeat(100, 1)
    assert coverage_of(errors, said, 90.0) == pytest.approx(90, abs=2)
    scores = [
        Calibration()(Alignment(Pair(image, image, truth=one), posterior.mean, posterior.maps))
        for one in posterior.draws(60, make_generator(5))
    ]
    assert sum(score["coverage 90 %"] for score in scores) / 60 == pytest.approx(90, abs=2)


def test_log_density_is_scipys_in_mm_on_an_oblique_grid():
    """It is that of the components along the grid's axes, each in mm; voxels are of three sizes."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(6), dtype=torch.float64))[0]
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = turn @ torch.diag(torch.tensor([1.0, 2.0, 0.8], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([3.0, -8.0, 5.0])
    grid = Grid((6, 5, 7), affine)
    scale = torch.tensor([0.7, 1.2, 2.0], dtype=torch.float64)
    deviation = scale.view(1, 3, 1, 1, 1).expand(1, 3, *grid.shape)
    mean = Displacement(torch.full((1, 3, *grid.shape), 0.3, dtype=torch.float64), grid)
    fixed = grid.to_world(torch.tensor([[2.0, 3.1], [1.5, 2.0], [4.0, 2.2]], dtype=torch.float64)[None]).mT
    off = torch.randn(1, 2, 3, generator=make_generator(7), dtype=torch.float64)
    points = mean(fixed) + off
    along = off[0] @ turn
    expected = norm.logpdf(along.numpy(), scale=(scale * grid.spacing).numpy()).sum(1)
    said = Posterior(mean, deviation.contiguous()).log_density(Points(fixed), Points(points))
    torch.testing.assert_close(said, torch.from_numpy(expected), rtol=0, atol=1e-12)


# ---- the energy


def test_edges_are_the_trace_with_dense_matrices():
    """On 4 × 3 voxels: tr((D − A) Σ) with Σ = G R G, and μᵀ(D − A)μ; to rounding in double precision."""
    shape, rho = (4, 3), 0.9
    deviation = 0.5 + torch.rand(1, 1, *shape, generator=make_generator(8), dtype=torch.float64)
    index = torch.arange(12).view(shape)
    laplacian, related = torch.zeros(12, 12, dtype=torch.float64), torch.eye(12, dtype=torch.float64)
    edges = [(index[:-1], index[1:]), (index[:, :-1], index[:, 1:])]
    for one, other in ((a, b) for ones, others in edges for a, b in zip(ones.flatten(), others.flatten(), strict=True)):
        laplacian[one, other] = laplacian[other, one] = -1
        laplacian[one, one] += 1
        laplacian[other, other] += 1
        related[one, other] = related[other, one] = rho
    scale = deviation.flatten().diag()
    torch.testing.assert_close(
        edge_sum(deviation, rho), (laplacian @ scale @ related @ scale).trace(), rtol=0, atol=1e-10
    )
    flat = deviation.flatten()
    torch.testing.assert_close(edge_sum(deviation, 1.0), flat @ laplacian @ flat, rtol=0, atol=1e-10)


def test_the_trace_is_the_mean_roughness_of_samples():
    """E Σ (z_i − z_j)² over edges, by 2,000 samples of four components, within four standard errors."""
    grid = grid_of(8, 7)
    deviation = 0.5 + torch.rand(1, 2, *grid.shape, generator=make_generator(9), dtype=torch.float64)
    posterior = Posterior(Displacement(torch.zeros_like(deviation), grid), deviation, smooth=1.5)
    rough = torch.stack([edge_sum(one.field, 1.0) for one in posterior.draws(2000, make_generator(10))])
    expected = edge_sum(deviation, PosteriorEnergy(smooth=1.5).correlation)
    assert float((rough.mean() - expected).abs()) < 4 * float(rough.std()) / math.sqrt(2000)


def test_where_images_show_nothing_the_deviation_has_a_closed_form():
    """1 / √(2 d λ (1 − ρ)) to 0.5 % in the middle; and twice the trace is the number of components, to 1e-3."""
    grid, energy = grid_of(31, 31), PosteriorEnergy(noise=1e-2, prior=2.0, smooth=2.0)
    even, wide = (
        Image(torch.full((1, 1, *each.shape), 0.5, dtype=torch.float64), each) for each in (grid, grid_of(61, 61))
    )
    deviation = found(energy, Pair(even, wide), Descend(steps=150, step_size=0.05, last=0.01), start=-0.8)
    expected = 1 / math.sqrt(2 * 2 * 2.0 * (1 - energy.correlation))
    assert deviation[..., 14:17, 14:17].mean() == pytest.approx(expected, rel=5e-3)
    trace = 2.0 / 2 * edge_sum(deviation, energy.correlation) / (31 * 31)
    assert 2 * float(trace) == pytest.approx(2, rel=1e-3)


def test_of_the_papers_numbers_it_is_three_voxels():
    """Six millimetres at 1.95; by independent errors it would be 0.13 voxels."""
    energy = PosteriorEnergy()
    assert 1 / math.sqrt(6 * energy.prior * (1 - energy.correlation)) == pytest.approx(3.08, abs=5e-3)
    grid = grid_of(6, 6, 6)
    even = Image(torch.full((1, 1, *grid.shape), 0.5, dtype=torch.float64), grid)
    guess = energy.guess(Pair(even, even), torch.zeros(1, 3, *grid.shape, dtype=torch.float64)).exp()
    torch.testing.assert_close(guess, torch.full_like(guess, 3.0816), rtol=1e-4, atol=0)


@pytest.mark.parametrize("axis", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_along_a_ramp_it_is_laplaces(axis):
    """(2 d λ (1 − ρ) + g² / σ_I²)^(−1/2) along the slope, to 2 %, and as on flat images across it, to 0.5 %.

    Noise is short, so that a step sees many samples; permuted axes permute the answer.
    """
    grid, energy = grid_of(24, 24), PosteriorEnergy(noise=4e-4, prior=2.0, smooth=0.8, samples=2)
    where = grid.voxels(DOUBLE)[axis]
    wide = Grid.centred((80, 80), 2.0)
    ramp = Image((0.02 * (wide.voxels(DOUBLE)[axis] - 28))[None, None], wide)
    fixed = Image((0.02 * where)[None, None], grid)
    deviation = found(energy, Pair(fixed, ramp), Descend(steps=120, step_size=0.05, last=0.01), start=-0.7)
    free = 2 * 2 * 2.0 * (1 - energy.correlation)
    inner = deviation[0, :, 6:18, 6:18].mean((1, 2))
    assert inner[axis] == pytest.approx((free + 0.02**2 / 4e-4) ** -0.5, rel=2e-2)
    assert inner[1 - axis] == pytest.approx(free**-0.5, rel=5e-3)


# ---- around registers


def test_a_shift_of_both_changes_nothing():
    """The posterior around a shift is that around no motion, of images that lie on each other through it."""
    grid = grid_of(20, 18)
    image, matrix = noisy(grid), torch.eye(3, dtype=torch.float64)
    matrix[:2, 2] = torch.tensor([4.0, -6.0])
    far = Grid(grid.shape, matrix @ grid.affine)
    alone = WithPosterior(unmoved, SMALL, QUICK)
    one = alone.around(Pair(image, image), Affine.identity(2))[0]
    other = alone.around(Pair(image, Image(image.data, far)), Affine(matrix))[0]
    torch.testing.assert_close(other.deviation, one.deviation, rtol=1e-6, atol=1e-6)


def test_a_given_transform_stays_as_it_is_and_the_deviation_is_told_in_mm():
    grid = grid_of(20, 18)
    image = noisy(grid)
    answer = WithPosterior(unmoved, SMALL, QUICK)(image, image)
    assert answer.transform.as_affine is not None
    posterior = Posterior.of(answer, SMALL.smooth)
    torch.testing.assert_close(deviation_in(answer.maps, grid), posterior.deviation)
    assert set(answer.maps) == {"deviation", "deviation_r", "deviation_a"}
    twice = posterior.scaled(2.0)
    torch.testing.assert_close(twice.maps["deviation"].data, 2 * answer.maps["deviation"].data)
    with pytest.raises(InputError, match="maps of a deviation"):
        Posterior.of(unmoved(image, image))


def test_it_is_surer_where_there_is_more_to_see():
    """Flat on one half and of high contrast on the other."""
    grid = grid_of(40, 24)
    data = noisy(grid).data.clone()
    data[..., :20, :] = 0.5
    deviation = deviation_in(WithPosterior(unmoved, SMALL, QUICK)(Image(data, grid), Image(data, grid)).maps, grid)
    assert deviation[..., 28:, :].mean() < 0.5 * deviation[..., :12, :].mean()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="above 0"):
        PosteriorEnergy(noise=0.0)
    with pytest.raises(InputError, match="above 0"):
        PosteriorEnergy(prior=-1.0)
    with pytest.raises(ValueError, match="each component"):
        Posterior(Displacement(torch.zeros(1, 2, 4, 4), grid_of(4, 4)), torch.ones(1, 1, 4, 4))
    with pytest.raises(InputError, match="its own answers"):
        PosteriorNetwork(2, widths=(4, 8)).around(unmoved)


# ---- contracts


OTHERS = [*problems("contrast", "mask", "anisotropic", "batch", ndim=2), *problems("thin", ndim=3)]


@pytest.mark.parametrize("problem", OTHERS, ids=str)
def test_contract(problem):
    """What moves the image is not its own; that it is as good as its register is checked beside all methods."""
    check_register(WithPosterior(unmoved, SMALL, replace(QUICK, steps=3)), problem, solves=False)


def judged(register=unmoved):
    with seeded(5):
        return PosteriorNetwork(2, register, widths=(4, 8))


@pytest.mark.parametrize("problem", problems("identity", "batch", ndim=2), ids=str)
def test_contract_of_the_network(problem):
    known = problem.name == "identity"
    for register in (unmoved, None):
        with seeded(5):
            check_register(PosteriorNetwork(2, register, widths=(4, 8)), problem, solves=known, rounding=1e-3)


@pytest.mark.parametrize("register", [unmoved, None])
def test_contract_of_the_supervision(register):
    grid = grid_of(16, 12)
    pair = Pair(*(Image(noisy(grid, n).data.float(), grid) for n in (0, 1)), name="noise")
    energy = PosteriorEnergy(smooth=2.0)
    check_supervision(PosteriorSupervision(energy), lambda: judged(register), pair)
    terms = PosteriorSupervision(energy)(judged(register), pair, 0.5)
    assert set(terms) == {"data", "trace", "entropy"} | ({"mean"} if register is None else set())


def test_the_network_begins_at_one_voxel_and_learns_the_closed_form():
    """On flat images it ends where a descent does, since the energy is the same function of the deviation.

    Another register sees the same weights.
    """
    grid = grid_of(16, 16)
    even = Image(torch.full((1, 1, *grid.shape), 0.5), grid)
    network, energy = judged(), PosteriorEnergy(noise=1e-2, prior=2.0, smooth=2.0)
    before = network(even, even).log_deviation
    torch.testing.assert_close(before, torch.zeros_like(before), rtol=0, atol=1e-3)
    adam = torch.optim.Adam(network.parameters(), lr=2e-2)
    for n in range(60):
        loss = torch.stack([*PosteriorSupervision(energy)(network, Pair(even, even), n / 60).values()]).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    expected = 1 / math.sqrt(2 * 2 * 2.0 * (1 - energy.correlation))
    middle = network(even, even).log_deviation.detach().exp()[..., 6:10, 6:10].mean()
    assert float(middle) == pytest.approx(expected, rel=0.1)
    other = network.around(ConstantDeviation(unmoved))
    torch.testing.assert_close(other(even, even).log_deviation, network(even, even).log_deviation)
    assert isinstance(other.register, ConstantDeviation)


def test_a_trained_network_says_the_same_of_images_that_are_stored_otherwise():
    """Maps lie along R and A, whichever axis is stored first: permuted and flipped images get the same mm."""
    draws = make_generator(11)
    data = [torch.rand(1, 1, 12, 16, generator=draws) for _ in range(2)]
    affine = torch.tensor([[2.0, 0, -5], [0, 3, 7], [0, 0, 1]], dtype=torch.float64)
    turned = torch.tensor([[0, 2.0, -5], [-3, 0, 7 + 45], [0, 0, 1]], dtype=torch.float64)
    plain = [Image(each, Grid((12, 16), affine)) for each in data]
    stored = [Image(each.transpose(2, 3).flip(2).contiguous(), Grid((16, 12), turned)) for each in data]
    with seeded(5):
        network = PosteriorNetwork(2, unmoved, widths=(4, 8))
    torch.nn.init.normal_(network.head.weight, std=0.5)
    one, other = (Trained(network)(*images).maps for images in (plain, stored))
    for name in ("deviation", "deviation_r", "deviation_a"):
        back = other[name].data.flip(2).transpose(2, 3)
        torch.testing.assert_close(back, one[name].data, rtol=1e-4, atol=1e-5)
    assert (one["deviation_r"].data - one["deviation_a"].data).abs().max() > 0.1


def test_the_network_has_as_many_weights_as_by_hand():
    """Fourteen convolutions of 27 taps, a norm before each, and the head, for 3-D images beside a field."""
    ins = (5, 8, 16, 16, 32, 32, 64, 64, 128 + 64, 64, 64 + 32, 32, 32 + 16, 16)
    outs = (8, 16, 16, 32, 32, 64, 64, 128, 64, 64, 32, 32, 16, 16)
    by_hand = 27 * sum(a * b for a, b in zip(ins, outs, strict=True)) + 2 * sum(ins) + 16 * 3 + 3
    assert sum(weight.numel() for weight in PosteriorNetwork(3, unmoved).parameters()) == by_hand == 1_022_021
