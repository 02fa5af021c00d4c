"""All that works on images works on another device too.

A GPU is not needed: the tensors here say that they are elsewhere, hold their values on the CPU, and refuse to meet
those that are there, as CUDA's do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom, Synthesis
from pullback.energies import (
    LNCC,
    MI,
    MIND,
    MSE,
    NCC,
    NGF,
    NMI,
    SSIM,
    Bending,
    Diffusion,
    Kinetic,
    SoftDice,
    SoftHausdorff,
)
from pullback.example import PointPair
from pullback.methods.pair.classical import BALANCED, FAST
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.cyclical import AUGMENT
from pullback.methods.pair.ddmr import PooledUNet
from pullback.methods.pair.feature_registration import FeatureRegistration
from pullback.methods.pair.ofg import Guided, GuidedByNetworks
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.transmorph import TransMorph
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.methods.points.augment import (
    Affines,
    Chosen,
    NearTruth,
    RandomField,
    Rigid,
    SyntheticClouds,
    from_landmarks,
)
from pullback.methods.points.supervision import ByMetric, PointDistance
from pullback.metrics import (
    STANDARD,
    CentroidError,
    EndPointError,
    HausdorffDistance,
    StructuralSimilarity,
    numbers_of,
)
from pullback.networks import GraphFeatures
from pullback.numerics.kernel import Sobolev
from pullback.numerics.random import make_generator
from pullback.solvers import Descend, chain
from pullback.space import (
    Affine,
    Composite,
    Displacement,
    Geodesic,
    Grid,
    Image,
    Points,
    ThinPlate,
    Transform,
    Velocity,
)
from pullback.study.evaluate import unmoved
from pullback.study.trained import Trained
from pullback.training import InTurn, KnownTransform, UncertaintyWeighted, Unsupervised, seeded
from pullback.workflows.quality import verdict

ELSEWHERE = torch.device("meta")  # the one that torch knows everywhere
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
JOINS = {aten.stack.default, aten.cat.default}  # of which CUDA takes no scalar of the CPU either
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}  # by indices of the CPU as well


class Far(Tensor):
    """A tensor that says it is elsewhere; `held` is what it holds."""

    @staticmethod
    def __new__(cls, held):
        about = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, **about, device=ELSEWHERE)

    def __init__(self, held):
        self.held = held

    def new_tensor(self, data, *, dtype=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=ELSEWHERE)

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return done(operation, args, kwargs or {})


class Apart(TorchDispatchMode):
    """Of operations that make tensors too."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return done(operation, args, kwargs or {})


def done(operation, args, kwargs):
    parts, form = tree_flatten((args, kwargs))
    far = [part for part in parts if isinstance(part, Far)]
    near = [part for part in parts if isinstance(part, Tensor) and not isinstance(part, Far)]
    near = [part for part in near if part.ndim > 0 or operation in JOINS]
    allowed = operation in MOVES or (operation in INDEXED and isinstance(args[0], Far))
    if far and near and not allowed:
        shapes = [[tuple(part.shape) for part in side] for side in (far, near)]
        raise RuntimeError(f"{operation}: {shapes[0]} are elsewhere and {shapes[1]} on the CPU")
    asked = kwargs.get("device")
    answers_far = bool(far) if asked is None else torch.device(asked) == ELSEWHERE
    if operation is aten.copy_.default:
        answers_far = isinstance(args[0], Far)
    known = {id(part.held): part for part in far}
    args, kwargs = tree_unflatten([_held(part) for part in parts], form)
    answer = operation(*args, **kwargs)
    if not answers_far:
        return answer
    return tree_map(lambda part: _far(part, known), answer)


def _held(part):
    if isinstance(part, Far):
        return part.held
    return torch.device("cpu") if isinstance(part, torch.device) and part == ELSEWHERE else part


def _far(part, known):
    if not isinstance(part, Tensor):
        return part
    return known[id(part)] if id(part) in known else Far(part)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Within it there is such a device."""

    class Autocast(torch.autocast):
        def __init__(self, device_type, *args, **kwargs):
            super().__init__("cpu" if device_type == ELSEWHERE.type else device_type, *args, **kwargs)

    def moving(make):
        def made(*args, device=None, **kwargs):
            answer = make(*args, **kwargs)
            return answer if device is None else answer.to(device)

        return made

    with (
        Apart(),
        mock.patch.object(torch, "autocast", Autocast),
        mock.patch.object(torch, "tensor", moving(torch.tensor)),
        mock.patch.object(torch, "as_tensor", moving(torch.as_tensor)),
        mock.patch("torch.optim.optimizer._get_fused_kernels_supported_devices", return_value=["cpu", "meta"]),
    ):
        yield


def begun(start, pair: Pair) -> float:
    """Gone on with by a field from a start that lies on the CPU, as one that was read does."""
    quick = replace(BALANCED.deformable, steps=(2, 2, 2))
    return moved_by(
        replace(BALANCED, initialise=None, linear=(), deformable=quick)(pair.fixed, pair.moving, start), pair
    )


def learned(make, supervision, pair: Pair) -> float:
    """One loss of a network, whose gradients lie where it does."""
    device = pair.fixed.data.device
    with seeded(0):
        network = make().to(device)
        supervision = supervision() if isinstance(supervision, partial) else supervision
        if isinstance(supervision, nn.Module):
            supervision.to(device)
        loss = sum(value for name, value in supervision(network, pair, 0.3).items() if "/" not in name)
        loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.device == device for gradient in gradients)
    return float(loss.detach())


def correlated(pair: Pair) -> float:
    with seeded(0):
        network = (
            FeatureRegistration(ndim=3, widths=(8, 8, 8), strides=(2, 2, 1), features=4)
            .to(pair.fixed.data.device)
            .eval()
        )
    with torch.no_grad():
        return moved_by(network.refined(pair.fixed, pair.moving), pair)


def moved_by(answer, pair: Pair) -> float:
    """How far, in voxels."""
    return float(answer.transform.displacement(pair.fixed.grid).detach().norm(dim=1).mean())


def still(pair: Pair) -> Displacement:
    return Displacement(torch.zeros(1, 3, *pair.fixed.grid.shape, device=pair.fixed.data.device), pair.fixed.grid)


def measured(transform, pair: Pair) -> float:
    alignment = Alignment(pair, transform)
    more = (HausdorffDistance((95.0,)), CentroidError(), StructuralSimilarity(), EndPointError())
    judged = verdict(Alignment(pair, Affine.identity(3)), alignment)
    return sum(numbers_of(alignment, (*STANDARD, *more)).values()) + judged.score


def answered(register, pair: Pair) -> float:
    return moved_by(register(pair.fixed, pair.moving), pair)


def small(**options) -> VoxelMorph:
    return VoxelMorph(ndim=3, encoder=(4, 4), decoder=(4, 4, 4, 4), **options)


def trained(pair: Pair) -> Trained:
    with seeded(0):
        return Trained(small().to(pair.fixed.data.device))


ENERGIES = (
    MSE(),
    NCC(),
    MI(),
    NMI(),
    NGF(),
    MIND(),
    SSIM(),
    LNCC(5, noise=0.1),
    Bending(),
    SoftDice(),
    SoftHausdorff(),
)
WORK = {
    "measures of what is unmoved": lambda pair: measured(unmoved(pair.fixed, pair.moving).transform, pair),
    "measures of an affine and a field": lambda pair: measured(Affine.identity(3) @ still(pair), pair),
    "fast": partial(answered, FAST),
    "ConvexAdam": partial(answered, ConvexAdam()),
    "a trained network": lambda pair: answered(trained(pair), pair),
    "one refined": lambda pair: answered(chain(trained(pair), replace(BALANCED, initialise=None, linear=())), pair),
    "features": correlated,
    "augmentation": lambda pair: float(AUGMENT(pair, make_generator(0)).moving.data.sum()),
    "synthesis": lambda pair: float(Synthesis()(pair, make_generator(0)).moving.data.sum()),
    "synthesis on another grid": lambda pair: float(
        Synthesis(shape=(14, 16, 18))(pair, make_generator(0)).moving.data.sum()
    ),
    **{type(e).__name__: partial(learned, small, Unsupervised(e + 0.1 * Diffusion())) for e in ENERGIES},
    "guided": partial(learned, small, Guided()),
    "guided velocity": partial(learned, partial(small, transform=Velocity), Guided()),
    "guided coarsely": partial(learned, small, Guided(coarser=2)),
    "guided by networks": partial(learned, small, partial(GuidedByNetworks, small)),
    "self-training": partial(learned, small, partial(SelfTraining, small(), Descend(2, 0.1))),
    "told": partial(learned, small, KnownTransform()),
    "weighted": partial(learned, small, partial(UncertaintyWeighted, (NCC(), SSIM(), SoftDice()))),
    "TransMorph": partial(learned, partial(TransMorph, ndim=3, embed=24), Guided()),
    "DDMR": partial(learned, partial(PooledUNet, ndim=3, widths=(4, 8)), Unsupervised()),
}


@pytest.fixture(scope="module")
def pair() -> Pair:
    return next(iter(BrainPhantom(spacing=9.0, train_subjects=2, validation_subjects=2, test_subjects=2).test))


def landmarks(pair: Pair) -> ThinPlate:
    """A map known at the corners of the image and in its middle."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in pair.fixed.grid.shape])
    here = Points(pair.fixed.grid.to_world(torch.cat([corners, corners.mean(0, keepdim=True)]).mT[None]).mT)
    return ThinPlate.between(here, Points(here.data + here.data.flip(1) / 50))


@pytest.mark.slow
@pytest.mark.parametrize("truth", ["affine", "landmarks"])
def test_a_truth_of_any_kind_goes_along(pair, truth):
    """And is of use where the pair is."""
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, -1] = 4.0
    known = replace(pair, truth=Affine(shift) if truth == "affine" else landmarks(pair))
    here = measured(known.truth, known)
    with elsewhere():
        far = known.to(ELSEWHERE)
        assert measured(far.truth, far) == pytest.approx(here, rel=2e-3)


def starts(pair: Pair) -> dict[str, Transform]:
    field, affine = still(pair), Affine.identity(3)
    of = {"affine": affine, "field": field, "affine of field": Composite(affine, field)}
    return of | {"field of affine": Composite(field, affine), "landmarks": landmarks(pair)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["affine", "field", "affine of field", "field of affine", "landmarks"])
def test_a_start_that_was_read_here_goes_along(pair, kind):
    start = starts(pair)[kind]
    here = begun(start, pair)
    with elsewhere():
        assert begun(start, pair.to(ELSEWHERE)) == pytest.approx(here, rel=2e-3)


def test_the_regularity_of_an_affine_lies_where_the_images_do(pair):
    energy, still = MSE() + Diffusion(), Affine.identity(3)
    here = float(energy(Alignment(pair, still)))
    with elsewhere():
        assert float(energy(Alignment(pair.to(ELSEWHERE), still))) == pytest.approx(here)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [Sobolev(4, 2), Sobolev(0.01, 3, unit="side")], ids=repr)
def test_flows_and_their_energy_lie_where_their_fields_do(pair, kernel):
    """There and back, and what a descent finds."""

    def found(pair):
        field = kernel.smooth(torch.zeros_like(still(pair).field.to(pair.fixed.data)) + 1, [1.0] * 3)
        energy, geodesic = MSE() + 0.01 * Kinetic(kernel), Geodesic(field, pair.fixed.grid, kernel, 2)
        better, _ = Descend(2, 0.1)(energy.on(pair), geodesic)
        ways = (better, better.inverse(), better.flow, better.flow.inverse())
        return [float(energy(Alignment(pair, way))) for way in ways]

    here = found(pair)
    with elsewhere():
        assert found(pair.to(ELSEWHERE)) == pytest.approx(here, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
def test_it_works_elsewhere_as_it_does_here(pair, name):
    here = WORK[name](pair)
    with elsewhere():
        there = WORK[name](pair.to(ELSEWHERE))
    # in 3-D the linear stages stop by a rule, and the order of sums parts them by some thousandths of a voxel
    assert there == pytest.approx(here, rel=1e-2 if name == "fast" else 2e-3)


CLOUDS = {
    "labels": (PointDistance(), InTurn((Affines(), NearTruth(), Chosen(20)))),
    "landmarks": (PointDistance(), InTurn((from_landmarks, Chosen(20)))),
    "fields": (PointDistance(), InTurn((SyntheticClouds(RandomField()), Chosen(20)))),
    "rigid": (PointDistance(), SyntheticClouds(Rigid())),
    "metric": (ByMetric(), Chosen(20)),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_elsewhere(name):
    """Augmented where they are, by what is drawn here, and learned from."""
    supervision, augment = CLOUDS[name]
    fixed = 60 * torch.rand(1, 40, 3, generator=make_generator(0))
    moving = fixed.flip(1)[:, :36] * 1.1
    marked = Points(fixed[:, :9].double() + 1)
    marks = {"fixed_landmarks": marked, "moving_landmarks": Points(1.1 * marked.data)}
    clouds = PointPair(Points(fixed), Points(moving), truth=Points(1.1 * fixed), **marks)
    here = learned(GraphFeatures, supervision, augment(clouds, make_generator(1)))
    with elsewhere():
        assert learned(GraphFeatures, supervision, augment(clouds.to(ELSEWHERE), make_generator(1))) == pytest.approx(
            here, rel=2e-3
        )


def test_vit_v_net_elsewhere():
    grid = Grid.centred((40, 36))
    images = [Image(torch.rand(1, 1, 40, 36, generator=make_generator(n)), grid) for n in range(2)]
    make = partial(ViTVNet, ndim=2, hidden=24, mlp=24, blocks=1, heads=2, dropout=0.0)
    here = learned(make, Guided(), Pair(*images))
    with elsewhere():
        there = learned(make, Guided(), Pair(*images).to(ELSEWHERE))
    assert there == pytest.approx(here, rel=2e-3)


def test_what_is_elsewhere_does_not_meet_what_is_here():
    with elsewhere():
        far = torch.ones(3).to(ELSEWHERE)
        assert float((far * 2 + torch.tensor(1.0)).sum()) == 9
        with pytest.raises(RuntimeError, match="elsewhere"):
            far + torch.ones(3)
        assert torch.equal(far.cpu() + torch.ones(3), torch.full((3,), 2.0))
