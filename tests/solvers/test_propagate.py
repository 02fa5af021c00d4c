"""Belief propagation against all labelings of small trees; soft against hard; gradients against differences."""

import itertools

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.solvers import BeliefPropagation
from pullback.solvers.belief_propagation import least

CHAIN = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4]])
STAR = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]])
BRANCHED = torch.tensor([[0, 1], [1, 2], [1, 3], [3, 4]])


def problem(seed, points=5, candidates=4):
    generator = make_generator(seed)
    unary = torch.rand(points, candidates, generator=generator, dtype=torch.float64)
    return unary, 3 * torch.randn(points, candidates, 3, generator=generator, dtype=torch.float64)


def energies(unary, displacements, edges, weight):
    """Of every labeling: `{labels: energy}`, by nothing but the definition."""
    answer = {}
    for labels in itertools.product(range(unary.shape[1]), repeat=len(unary)):
        total = sum(float(unary[i, label]) for i, label in enumerate(labels))
        for i, j in edges.tolist():
            total += weight * float((displacements[i, labels[i]] - displacements[j, labels[j]]).square().sum())
        answer[labels] = total
    return answer


def grounded(beliefs):
    return beliefs - beliefs.amin(1, keepdim=True)


@pytest.mark.parametrize("edges", [CHAIN, STAR, BRANCHED], ids=["chain", "star", "branched"])
@pytest.mark.parametrize("seed", [0, 1])
def test_least_energies_are_exact_on_trees(edges, seed):
    unary, displacements = problem(seed)
    all_of_them = energies(unary, displacements, edges, 0.05)
    truth = torch.zeros_like(unary)
    for i, k in itertools.product(range(5), range(4)):
        truth[i, k] = min(e for labels, e in all_of_them.items() if labels[i] == k)
    found = BeliefPropagation(iterations=4, weight=0.05).beliefs(unary, displacements, edges)
    torch.testing.assert_close(grounded(found), grounded(truth))
    assert tuple(found.argmin(1).tolist()) == min(all_of_them, key=all_of_them.get)


@pytest.mark.parametrize("edges", [CHAIN, STAR, BRANCHED], ids=["chain", "star", "branched"])
def test_marginals_are_exact_on_trees(edges):
    """The softmin sums over all labelings: its beliefs are free energies, −T log of the marginal."""
    unary, displacements = problem(2)
    all_of_them = energies(unary, displacements, edges, 0.05)
    truth = torch.zeros_like(unary)
    for labels, energy in all_of_them.items():
        for i, k in enumerate(labels):
            truth[i, k] += torch.exp(torch.tensor(-energy / 0.3, dtype=torch.float64))
    found = BeliefPropagation(iterations=4, weight=0.05, temperature=0.3).beliefs(unary, displacements, edges)
    torch.testing.assert_close((-found / 0.3).softmax(1), truth / truth.sum(1, keepdim=True))


def test_too_few_iterations_are_not_exact():
    """So that the theorems above say something of the messages."""
    unary, displacements = problem(0)
    few, enough = (BeliefPropagation(iterations=n, weight=0.05).beliefs(unary, displacements, CHAIN) for n in (1, 4))
    assert (grounded(few) - grounded(enough)).abs().max() > 1e-3


def test_damped_messages_come_to_the_same():
    unary, displacements = problem(3)
    plain = BeliefPropagation(iterations=4, weight=0.05).beliefs(unary, displacements, BRANCHED)
    damped = BeliefPropagation(iterations=80, weight=0.05, damping=0.5).beliefs(unary, displacements, BRANCHED)
    torch.testing.assert_close(grounded(damped), grounded(plain))


def clouds(seed, n=12, m=14, dtype=torch.float64):
    generator = make_generator(seed)
    points = [20 * torch.rand(size, 3, generator=generator, dtype=dtype) for size in (n, m)]
    return *points, *(torch.rand(size, 4, generator=generator, dtype=dtype) for size in (n, m))


def test_soft_becomes_hard_as_it_cools():
    fixed, moving, a, b = clouds(4)
    hard = BeliefPropagation(6, 3, 5, weight=0.01)(fixed, moving, a, b)
    gaps = []
    for temperature in (0.1, 0.01, 0.001, 0.0001):
        soft = BeliefPropagation(6, 3, 5, weight=0.01, temperature=temperature)(fixed, moving, a, b)
        gaps.append(float((soft - hard).abs().max()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1e-2
    assert gaps[-1] < 1e-3


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_gradients_of_the_features(temperature):
    fixed, moving, a, b = clouds(5, 6, 7)
    solver = BeliefPropagation(4, 2, 3, weight=0.01, sharpness=3, damping=0.2, temperature=temperature)
    inputs = (a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: solver(fixed, moving, x, y), inputs)


def test_features_that_know_their_partners_find_them():
    fixed, _, a, _ = clouds(6, 30, 30)
    order = torch.randperm(30, generator=make_generator(7))
    moving = (fixed + torch.tensor([4.0, -3.0, 2.0]).double())[order]
    found = BeliefPropagation(30, 5, weight=1e-4, sharpness=1e4)(fixed, moving, a, a[order])
    torch.testing.assert_close(found, torch.tensor([4.0, -3.0, 2.0]).double().expand(30, 3), atol=1e-6, rtol=0)


def test_alike_features_leave_the_smoothest_answer():
    """Nothing but neighbours decides: a shifted copy is one of the answers of least cost, and none is rougher."""
    fixed, _, a, _ = clouds(8, 40, 40)
    flat = torch.zeros_like(a)
    index = torch.arange(40)
    together = BeliefPropagation(20, 6, 20, weight=1.0)(fixed, fixed[index.flip(0)], flat, flat)
    alone = BeliefPropagation(20, 6, 20, weight=1e-9)(fixed, fixed[index.flip(0)], flat, flat)
    assert together.var(0).sum() < 0.5 * alone.var(0).sum()


@pytest.mark.parametrize("count", [1, 2, 31, 48, 64, 65])
def test_least_is_the_least(count):
    costs = torch.randn(200, 7, count, generator=make_generator(count))
    assert (costs.gather(-1, least(costs)[..., None])[..., 0] - costs.amin(-1)).abs().max() < 1e-4
    separated = torch.rand(50, 3, count, generator=make_generator(9)).argsort(-1).float() - 20
    assert (least(separated) == separated.argmin(-1)).all()
    assert (least(torch.zeros(3, count)) == 0).all()
