"""The drift against pycpd and scipy, and what its equations promise."""

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from pycpd import DeformableRegistration
from scipy.interpolate import RBFInterpolator
from scipy.spatial.transform import Rotation
from torch.distributions import MultivariateNormal, kl_divergence

from pullback.errors import InputError
from pullback.methods.points.coherent_drift import CoherentDrift, LabelledClouds
from pullback.methods.points.organ_kernel import OrganField, OrganKernel


def drawn(count: int, ndim: int = 3, seed: int = 0, size: float = 80.0) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    points = size * torch.rand(count, ndim, generator=chance, dtype=torch.float64)
    return (points - size / 2) * torch.tensor([1.0, 0.8, 1.2], dtype=torch.float64)[:ndim]


def clouds(fixed, moving, organs=None, labels=None, confusion=None, density=None) -> LabelledClouds:
    organs = torch.zeros(len(fixed), dtype=torch.long) if organs is None else organs
    labels = torch.zeros(len(moving), dtype=torch.long) if labels is None else labels
    confusion = torch.eye(int(organs.max()) + 1, dtype=torch.float64) if confusion is None else confusion
    density = 1 / len(moving) if density is None else density
    return LabelledClouds(
        fixed, organs, moving, labels, confusion, torch.full((len(confusion),), density, dtype=torch.float64)
    )


def kernel(coherence=1.0, bandwidth=(30.0,), magnitude=(10.0,)) -> OrganKernel:
    count = len(bandwidth)
    matrix = torch.full((count, count), coherence, dtype=torch.float64).fill_diagonal_(1.0)
    return OrganKernel(matrix, torch.tensor(bandwidth).double(), torch.tensor(magnitude).double())


def bent(points: torch.Tensor) -> torch.Tensor:
    return points + 6 * (points.roll(1, 1) / 25).sin()


CPD = CoherentDrift("none", posterior=False)


@pytest.mark.parametrize(("ndim", "outliers"), [(2, 0.0), (3, 0.0), (3, 0.2)])
def test_one_organ_without_pose_is_cpd(ndim, outliers):
    """At every turn, by another package."""
    fixed = drawn(45, ndim)
    moving = bent(fixed)[5:] + 4 + drawn(40, ndim, 1, 6.0)  # else σ goes to 0, and with it what digits mean
    told = clouds(fixed, moving)
    factor, _ = kernel(bandwidth=(20.0,), magnitude=(5.0,)).factor(fixed, told.organs, 0.0)
    drift = replace(CPD, outliers=outliers)
    peer = DeformableRegistration(X=moving.numpy(), Y=fixed.numpy(), alpha=1 / 25, beta=20.0, w=outliers)
    for state in islice(drift.states(told, factor, drift.begin(told, factor)), 20):
        peer.iterate()
        assert float((fixed + state.displacement - torch.from_numpy(peer.TY)).abs().max()) < 1e-10
        assert state.sigma**2 == pytest.approx(peer.sigma2, rel=1e-10)
    assert 0.5 < state.sigma < 6


def turned(degrees: float) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, -0.48, 0.64])).as_matrix())


@pytest.mark.parametrize("flat", [False, True])
def test_a_similarity_is_found_to_rounding(flat):
    """Also of points in a plane, of which a reflection would do as well."""
    fixed = drawn(60) * (torch.tensor([1.0, 1, 0]) if flat else 1)
    turn, shift = turned(30.0), torch.tensor([4.0, -8, 3]).double()
    told = clouds(
        fixed, (1.2 * fixed @ turn.mT + shift)[torch.randperm(60, generator=torch.Generator().manual_seed(2))]
    )
    drift = CoherentDrift(start=2.0, least_change=0.0, turns=60)
    none = torch.zeros(60, 0).double()
    state, sigmas = drift(told, none, drift.begin(told, none))
    assert len(sigmas) == 60
    assert state.pose.scale == pytest.approx(1.2, abs=1e-6)
    torch.testing.assert_close(state.pose.rotation, turn, rtol=0, atol=1e-6)
    torch.testing.assert_close(state.pose.shift, shift, rtol=0, atol=1e-6)
    assert not state.displacement.any()


def test_each_rigid_turn_is_scipys_weighted_fit():
    fixed = drawn(50)
    told, none = clouds(fixed, bent(fixed[:40]) @ turned(20.0).mT), torch.zeros(50, 0).double()
    drift = CoherentDrift("rigid", outliers=0.1)
    before = drift.begin(told, none)
    for state in islice(drift.states(told, none, before), 8):
        weight, target = state.met.partners, state.met.sent / state.met.partners[:, None]
        total = weight.sum()
        middle, goal = (weight[:, None] * fixed).sum(0) / total, (weight[:, None] * target).sum(0) / total
        known = [each.numpy() for each in (target - goal, fixed - middle, weight)]
        peer = Rotation.align_vectors(*known)[0].as_matrix()
        torch.testing.assert_close(state.pose.rotation, torch.from_numpy(peer), rtol=0, atol=1e-9)
        assert state.pose.scale == 1


def test_a_body_is_not_turned_inside_out():
    """Of a mirrored cloud, whose partners are known by a label each, the nearest rotation is taken, as by scipy."""
    fixed, every = drawn(12), torch.arange(12)
    moving = fixed * torch.tensor([1.0, 1, -1])
    told, none = clouds(fixed, moving, every, every), torch.zeros(12, 0).double()
    drift = CoherentDrift("rigid")
    state = next(drift.states(told, none, drift.begin(told, none)))
    known = [(each - each.mean(0)).numpy() for each in (moving, fixed)]
    peer = Rotation.align_vectors(*known)[0].as_matrix()
    torch.testing.assert_close(state.pose.rotation, torch.from_numpy(peer), rtol=0, atol=1e-9)
    assert float(torch.linalg.det(state.pose.rotation)) == pytest.approx(1, abs=1e-12)


def test_organs_that_move_by_themselves_do_not_see_each_other():
    """In a turn with one σ, all of them at once are each alone."""
    fixed = drawn(60)
    organs = torch.arange(60) % 3
    moving = bent(fixed) + 3 * organs[:, None]
    told = clouds(fixed, moving, organs, organs)
    whole = kernel(0.0, (30.0, 20, 25), (10.0, 5, 8))
    drift = CoherentDrift("none")
    alone = []
    for organ in range(3):
        own = organs == organ
        part = clouds(fixed[own], moving[own])
        one = kernel(1.0, whole.bandwidth[organ : organ + 1].tolist(), whole.magnitude[organ : organ + 1].tolist())
        factor, _ = one.factor(fixed[own], part.organs, 0.0)
        alone.append((own, part, factor, drift.begin(part, factor)))
    factor, _ = whole.factor(fixed, organs, 0.0)
    state = drift.begin(told, factor)
    for _ in range(6):
        sigma = state.sigma
        state = next(drift.states(told, factor, state))
        for n, (own, part, factor_of_one, begun) in enumerate(alone):
            after = next(drift.states(part, factor_of_one, replace(begun, sigma=sigma)))
            torch.testing.assert_close(state.displacement[own], after.displacement, rtol=0, atol=1e-9)
            torch.testing.assert_close(state.variance[own], after.variance, rtol=0, atol=1e-9)
            alone[n] = own, part, factor_of_one, after


def test_a_turn_with_known_partners_is_scipys_smoothing():
    """A label for each point, so that it has one partner; all organs as one."""
    count = 30
    fixed = drawn(count)
    moving, every = bent(fixed) + 5, torch.arange(count)
    whole = kernel(1.0, (25.0,) * count, (6.0,) * count)
    told = clouds(fixed, moving, every, every)
    factor, pivots = whole.factor(fixed, every, 0.0)
    begun = CPD.begin(told, factor)
    state = next(CPD.states(told, factor, begun))
    peer = RBFInterpolator(
        fixed, moving - fixed, kernel="gaussian", epsilon=1 / (2**0.5 * 25), degree=-1, smoothing=(begun.sigma / 6) ** 2
    )
    found = OrganField.of(whole, fixed, every, factor, pivots, state.at)
    where = drawn(40, seed=3, size=120.0)
    torch.testing.assert_close(state.displacement, torch.from_numpy(peer(fixed.numpy())), rtol=0, atol=1e-8)
    torch.testing.assert_close(found(where) - where, torch.from_numpy(peer(where.numpy())), rtol=0, atol=1e-8)


def test_the_evidence_never_falls():
    """The lower bound, its divergence by torch, with outliers, confused labels, two bandwidths and a pose."""
    fixed = drawn(50)
    organs = torch.arange(50) % 2
    confusion = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double()
    moving = 1.1 * bent(fixed) @ turned(25.0).mT + 6
    told = clouds(fixed, moving, organs, organs.roll(1), confusion, 1e-6)
    whole = kernel(0.3, (20.0, 30), (10.0, 6))
    factor, _ = whole.factor(fixed, organs, 0.0)
    drift = CoherentDrift(outliers=0.1)
    states = [drift.begin(told, factor), *islice(drift.states(told, factor, drift.begin(told, factor)), 40)]
    prior = MultivariateNormal(torch.zeros(factor.shape[1]).double(), torch.eye(factor.shape[1]).double())
    bounds = []
    for before, state, after in zip(states, states[1:], states[2:], strict=False):
        precision = before.pose.scale**2 / before.sigma**2
        normal = prior.covariance_matrix + precision * factor.mT @ (state.met.partners[:, None] * factor)
        apart = sum(kl_divergence(MultivariateNormal(at, precision_matrix=normal), prior) for at in state.at.mT)
        bounds.append(after.met.evidence - float(apart))
        assert after.bound == pytest.approx(bounds[-1], abs=1e-6)
    assert min(b - a for a, b in pairwise(bounds)) > -1e-9 * abs(bounds[-1])
    assert bounds[-1] > bounds[0] + 1


def test_partners_are_probabilities():
    """As a dense matrix of them says; what is far from all does not divide by 0."""
    fixed = drawn(30)
    organs = torch.arange(30) % 2
    confusion = torch.tensor([[0.7, 0.3], [0.0, 1.0]]).double()
    moving = torch.cat([bent(fixed), torch.full((1, 3), 4000.0).double()])
    labels = torch.cat([organs, torch.tensor([0])])
    told = clouds(fixed, moving, organs, labels, confusion, 1e-7)
    drift = CoherentDrift(outliers=0.3)
    state = replace(drift.begin(told, torch.zeros(30, 0).double()), sigma=5.0, variance=torch.rand(30).double())
    met = drift.corresponding(told, state)
    apart = (fixed[:, None] - moving).square().sum(2)
    weight = torch.exp(-apart / 50 - 3 * state.variance[:, None] / 50) / 30
    weight = 0.7 * weight * confusion[organs][:, labels] / (2 * torch.pi * 25) ** 1.5
    chance = weight / (weight.sum(0) + 0.3e-7)
    torch.testing.assert_close(met.partners, chance.sum(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(met.found, chance.sum(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(met.sent, chance @ moving, rtol=0, atol=1e-9)
    torch.testing.assert_close(met.shares[:, 1], chance[:, labels == 1].sum(1), rtol=0, atol=1e-12)
    assert met.evidence == pytest.approx(float((weight.sum(0) + 0.3e-7).log().sum()), abs=1e-8)
    narrow = drift.corresponding(told, replace(state, sigma=0.05))
    assert narrow.shares.isfinite().all()
    assert float(narrow.found[-1]) == 0
    none = replace(told, confusion=torch.tensor([[1.0, 0], [1, 0]]).double())
    assert float(CPD.corresponding(none, state).found[labels == 1].max()) == 0


def test_a_prior_of_few_partners_evens_them_out():
    """By how much each fixed point is chosen: as seen where the prior is weak, all alike where it is strong."""
    fixed = drawn(20)
    told, none = clouds(fixed, fixed[:10].repeat(3, 1)), torch.zeros(20, 0).double()
    spread = []
    for concentration in (0.1, 1e6):
        drift = CoherentDrift("none", concentration=concentration)
        state, _ = drift(told, none, drift.begin(told, none))
        spread.append(float(state.chance.exp().std()))
    assert spread[0] > 100 * spread[1]


@pytest.mark.parametrize("wrong", [{"pose": "affine"}, {"outliers": 1.0}, {"start": 0.0}, {"turns": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        CoherentDrift(**wrong)
