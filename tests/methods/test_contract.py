"""Every published method keeps the house's promises."""

import importlib
import inspect
import pkgutil
from functools import partial

import pytest
import torch
from torch import nn

import pullback.methods
from pullback.alignment import Pair
from pullback.energies import LNCC, Diffusion
from pullback.methods.pair.classical import Classical
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.cyclical import WithRefinement
from pullback.methods.pair.feature_registration import FeatureRegistration
from pullback.methods.pair.ofg import Guided, GuidedByNetworks, Mixture, Portion
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.methods.pose.cross_ngf import CrossNGF
from pullback.methods.pose.initialise import Initialise
from pullback.numerics.smooth import gaussian
from pullback.solvers import DeformableStage, Descend, FeatureDescent, Levels, LinearStage
from pullback.space import Grid, Image, Transform
from pullback.training import seeded


def walked() -> list[type]:
    """All classes that the modules under `pullback.methods` define."""
    found = []
    for module in pkgutil.walk_packages(pullback.methods.__path__, "pullback.methods."):
        members = vars(importlib.import_module(module.name)).values()
        found += [m for m in members if inspect.isclass(m) and m.__module__ == module.name]
    return found


def called_with(*names: str) -> list[type]:
    """The classes whose instances are called with these arguments, networks apart."""
    calls = [c for c in walked() if "__call__" in vars(c) and not issubclass(c, nn.Module)]
    return [c for c in calls if list(inspect.signature(c.__call__).parameters)[1:] == list(names)]


def modules_with(*names: str) -> list[type]:
    """The networks whose forward takes these arguments."""
    networks = [c for c in walked() if issubclass(c, nn.Module)]
    return [c for c in networks if list(inspect.signature(c.forward).parameters)[1:] == list(names)]


WRAPPED = (WithRefinement,)  # around one of the others
REGISTERS = sorted(set(modules_with("fixed", "moving")) - {*WRAPPED}, key=lambda c: c.__name__, reverse=True)


def supervisions() -> list:
    """One of each kind; what teaches or makes labels is a small network with weights of its own."""
    with seeded(3):
        teacher = VoxelMorph(ndim=3)
        learning = GuidedByNetworks(partial(VoxelMorph, ndim=3))
    return [Guided(), Mixture(Guided(), Portion(0.5)), SelfTraining(teacher), learning]


SEARCHES = [
    CrossNGF(rotations=(6, 4, 2, 0), voxels=20_000),
    Initialise(search=CrossNGF(rotations=(6, 4, 2, 0), voxels=20_000), random=4, solver=Descend(5, 0.5)),
]
CHAINS = [
    Classical(
        initialise=None,
        linear=(("rigid", LinearStage(solver=Descend(5, 0.25))),),
        deformable=DeformableStage(LNCC(5) + Diffusion(), levels=Levels(coarsest=12), steps=(3,)),
    ),
    ConvexAdam(spacing=4, descent=FeatureDescent(solver=Descend(3, 1.0))),
]


def make_pair(ndim: int) -> Pair:
    generator = torch.Generator().manual_seed(1)
    grid = Grid.centred((19, 22, 17)[:ndim], 2.0)
    return Pair(*(Image(gaussian(torch.rand(1, 1, *grid.shape, generator=generator), 1.5), grid) for _ in range(2)))


def test_the_walk_visits_them_all():
    assert [c.__name__ for c in REGISTERS] == [
        "VoxelMorph",
        "ViTVNet",
        "TransMorph",
        "PooledUNet",
        "FeatureRegistration",
    ]
    assert {c.__name__ for c in modules_with("fixed", "moving")} - {c.__name__ for c in REGISTERS} == {"WithRefinement"}
    supervising = called_with("register", "pair", "progress") + modules_with("register", "pair", "progress")
    assert {c.__name__ for c in supervising} == {type(s).__name__ for s in supervisions()}
    assert len(supervising) == 4
    searches = {c.__name__ for c in called_with("fixed", "moving")}
    assert searches == {type(s).__name__ for s in SEARCHES} == {"CrossNGF", "Initialise"}
    chains = {c.__name__ for c in called_with("fixed", "moving", "start")}
    assert chains == {type(c).__name__ for c in CHAINS} == {"Classical", "ConvexAdam"}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("method", REGISTERS, ids=lambda c: c.__name__)
def test_register(method, ndim):
    pair = make_pair(ndim)
    before = [image.data.clone() for image in (pair.fixed, pair.moving)]
    answers = []
    for _ in range(2):
        with seeded(7):
            network = method(ndim=ndim).eval()
        with torch.no_grad():
            answers.append(network(pair.fixed, pair.moving).transform)
    first, second = (t.displacement(pair.fixed.grid) for t in answers)
    assert isinstance(answers[0], Transform)
    assert torch.isfinite(first).all()
    if method is not FeatureRegistration:  # which aligns by random features: the premise of its training
        assert float(first.abs().max()) < 0.01, "an untrained network stays near the identity"
    assert torch.equal(first, second), "the same seed gives the same answer"
    assert all(torch.equal(a, b.data) for a, b in zip(before, (pair.fixed, pair.moving), strict=True))
    fixed, moving = (Image(image.data.double(), image.grid) for image in (pair.fixed, pair.moving))
    with torch.no_grad():
        torch.testing.assert_close(network(fixed, moving).transform.displacement(fixed.grid).to(first), first)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("search", [*SEARCHES, *CHAINS], ids=lambda s: type(s).__name__)
def test_search(search, ndim):
    """A register without weights: the same answer every time, and the images as they were."""
    pair = make_pair(ndim)
    before = [image.data.clone() for image in (pair.fixed, pair.moving)]
    first, second = (search(pair.fixed, pair.moving).transform for _ in range(2))
    assert isinstance(first, Transform)
    assert torch.isfinite(first.displacement(pair.fixed.grid)).all()
    assert all(torch.equal(a, b) for a, b in zip(first.params, second.params, strict=True))
    assert all(torch.equal(a, b.data) for a, b in zip(before, (pair.fixed, pair.moving), strict=True))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda c: type(c).__name__)
def test_chain(chain, ndim):
    """It goes on from what another register found: from a linear map, and from a field."""
    pair = make_pair(ndim)
    first = chain(pair.fixed, pair.moving).transform
    for start in (SEARCHES[0](pair.fixed, pair.moving).transform, first):
        again = chain(pair.fixed, pair.moving, start=start).transform
        assert isinstance(again, Transform)
        assert torch.isfinite(again.displacement(pair.fixed.grid)).all()


@pytest.mark.parametrize("supervision", supervisions(), ids=lambda s: type(s).__name__)
def test_supervision(supervision):
    pair = make_pair(3)
    losses = []
    for _ in range(2):
        with seeded(7):
            network = VoxelMorph(ndim=3)
        terms = supervision(network, pair, 0.5)
        loss = sum(terms.values())
        loss.backward()
        losses.append(loss.item())
        assert all(isinstance(name, str) and value.ndim == 0 for name, value in terms.items())
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert losses[0] == losses[1]
