"""What one register finds is where the next begins."""

from dataclasses import dataclass, replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, MI, MSE, Diffusion
from pullback.methods.pair.classical import Classical
from pullback.solvers import Chain, DeformableStage, InstanceOptimisation, Levels, LinearStage, chain, within_view
from pullback.solvers.descend import Descend
from pullback.space import Affine, Displacement, Grid, Image, Motion, Velocity


@dataclass(frozen=True, eq=False)
class Answers:
    """A register that answers what it was given, as a trained network might."""

    transform: object
    asked: list

    def __call__(self, fixed, moving):
        self.asked.append((fixed, moving))
        return Alignment(Pair(fixed, moving), self.transform)


@dataclass(frozen=True, eq=False)
class Further:
    """Goes on from a start by one more map."""

    step: Affine

    def __call__(self, fixed, moving, start=None):
        return Alignment(Pair(fixed, moving), start @ self.step)


def some(ndim: int, seed: int) -> Affine:
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1] += 0.1 * torch.randn(ndim, ndim + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Affine(matrix)


@pytest.fixture
def pair(waves, oblique, smooth_field):
    """A field of the fixed world, seen by an image of another grid."""
    grid, other = oblique((36, 34), 2, 1.0, 1.3), oblique((44, 46), 7, 0.9, 1.2)
    truth = Velocity(smooth_field((36, 34), 5, amplitude=2.0, shortest=24), grid)
    value = waves(2, 1, 8.0, count=12)

    def seen(at):
        return (0.5 + value(at)).float()

    world, there = (g.to_world(g.voxels(g.affine)[None]) for g in (grid, other))
    return Pair(Image(seen(truth.at(world)), grid), Image(seen(there), other), truth=truth)


@pytest.mark.parametrize("ndim", [2, 3])
def test_starts_are_handed_on_in_order(ndim):
    image = Image(torch.ones(1, 1, *[4] * ndim), Grid.centred((4,) * ndim))
    asked: list = []
    a, b, c = (some(ndim, seed) for seed in (1, 2, 3))
    register = chain(Answers(a, asked), Further(b), Further(c))
    assert isinstance(register, Chain)
    torch.testing.assert_close(register(image, image).transform.matrix, (a @ b @ c).matrix)
    assert asked == [(image, image)]
    assert torch.equal(chain(Answers(a, asked))(image, image).transform.matrix, a.matrix)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Displacement, Velocity])
def test_a_networks_field_is_refined(pair, kind):
    """By each solver that goes on from a field, and by the classical chain, which leaves out what comes before."""
    rough = (0.5 * pair.truth.field).float().requires_grad_()  # connected, as a network's answer
    asked: list = []
    network = Answers(kind(rough, pair.fixed.grid), asked)
    energy = LNCC(7) + 0.3 * Diffusion()
    deformed = DeformableStage(energy, levels=Levels(coarsest=12), steps=(30,))
    classical = Classical(deformable=deformed)
    seen = replace(pair, moving=within_view(pair.moving))
    before = LNCC(7)(Alignment(seen, network(pair.fixed, pair.moving).transform)).detach()
    for solver in (deformed, InstanceOptimisation(energy, Descend(30)), classical):
        found = chain(network, solver)(pair.fixed, pair.moving).transform
        assert float(LNCC(7)(Alignment(seen, found))) < 0.6 * float(before)
    assert [stage.name for stage in chain(network, classical)(pair.fixed, pair.moving).stats.stages] == [
        "Answers",
        "deformable",
    ]
    assert rough.grad is None


@pytest.mark.slow
def test_linear_and_then_deformable(pair):
    """Posed, twice, and Deformed: a chain by hand, better at every step by what both see."""
    posed = chain(LinearStage(Motion.rigid, MI()), LinearStage(Motion.affine, MSE()))
    deformed = chain(posed, DeformableStage(MSE() + 0.05 * Diffusion(), levels=Levels(coarsest=12), steps=(30,)))
    seen = replace(pair, moving=within_view(pair.moving))
    one, two = (MSE()(Alignment(seen, r(pair.fixed, pair.moving).transform)) for r in (posed, deformed))
    assert float(two) < 0.7 * float(one)
