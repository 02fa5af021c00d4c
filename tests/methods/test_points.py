"""Clouds registered by learned features: small worlds whose answer is known."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from rich.console import Console

from pullback.data import Singles, Validation
from pullback.errors import InputError
from pullback.example import PointPair
from pullback.methods.points.augment import (
    Affines,
    Chosen,
    NearTruth,
    RandomField,
    Rigid,
    SyntheticClouds,
    from_landmarks,
)
from pullback.methods.points.cyclical import PointLabels
from pullback.methods.points.evaluation import LandmarkEvaluation
from pullback.methods.points.graph_propagation import GraphPropagation, Match, RegisterClouds, overlaid, untrained
from pullback.methods.points.supervision import ByMetric, PointDistance
from pullback.numerics.random import make_generator
from pullback.solvers import BeliefPropagation
from pullback.space import Points
from pullback.training import Cyclical, InTurn, Task, Training

QUICK = Match(BeliefPropagation(8, 5, 3, sharpness=0.5))
STILL = Match(lambda placed, moving, here, there: torch.zeros_like(placed))
REGISTER = RegisterClouds((BeliefPropagation(12, 5, 6), BeliefPropagation(8, 5, 6)), smoothing=10.0, settle=None)
SELF = partial(Cyclical, PointLabels(REGISTER, views=1), rounds=2, augment=Affines(), easy=False)
LEARNS = PointDistance(QUICK)
TRAINING = Training(updates=4, batch=2, lr=1e-3, augment=InTurn((NearTruth(), Chosen(20))), save_every=1)


def clouds(count=3, n=50):
    """A cloud, and the same stretched and shifted, in another order, each less some of its points."""
    made = []
    for seed in range(count):
        generator = make_generator(seed)
        fixed = 60 * torch.rand(n, 3, generator=generator)
        moving = (fixed * torch.tensor([1.2, 1.1, 0.9]) + 5)[torch.randperm(n, generator=generator)[: n - 5]]
        marked = 60 * torch.rand(1, 20, 3, generator=make_generator(9, seed), dtype=torch.float64)
        made.append(
            PointPair(
                *(Points(each[None]) for each in (fixed[:-3], moving)),
                fixed_landmarks=Points(marked),
                moving_landmarks=Points(marked + truth(marked)),
                name=f"c{seed}",
            )
        )
    return made


@dataclass(frozen=True)
class Stored:
    """One of `clouds`."""

    number: int

    @property
    def name(self):
        return f"c{self.number}"

    def load(self):
        return clouds(self.number + 1)[-1]


FEW = Singles([Stored(n) for n in range(3)])


class Knows:
    """A register of clouds whose points are paired: nothing moves at first, all points where they belong at last."""

    def stages(self, network, pair):
        return [torch.zeros_like, lambda points: pair.moving.data[0].to(points) - pair.fixed.data[0].to(points)]


def paired(linear):
    """A cloud and its points under a linear map, one to one, which is known."""
    fixed = 60 * torch.rand(1, 40, 3, generator=make_generator(0))
    return PointPair(Points(fixed), Points(fixed @ linear), truth=Points(fixed @ linear))


def truth(points):
    return points * torch.tensor([0.2, 0.1, -0.1]).to(points) + 5


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def loss(supervision, network, pair):
    terms = supervision(network, pair, 0.0)
    return sum(terms.values())


def test_random_features_are_enough_for_a_smooth_map():
    pair = clouds()[0]
    fixed = pair.fixed.data[0]
    found = REGISTER(untrained(0), pair)
    before = truth(fixed).norm(dim=1).mean()
    after = (found(fixed.double()) - truth(fixed)).norm(dim=1).mean()
    assert after < 0.2 * before


def test_each_pass_goes_on_from_where_the_last_led():
    """A map that the overlay does not meet and the first pass does is what the second says too, which moves nothing."""
    pair = paired(torch.eye(3) + 0.2 * torch.ones(3, 3).triu(1))
    passes = (lambda placed, moving, here, there: moving - placed, STILL.solver)
    stages = RegisterClouds(passes, settle=None).stages(torch.nn.Identity(), pair)
    assert len(stages) == 2
    wanted = (pair.moving.data - pair.fixed.data)[0]
    for stage in stages:
        torch.testing.assert_close(stage(pair.fixed.data[0].double()).float(), wanted, atol=1e-3, rtol=0)


def test_a_dense_moving_cloud_has_a_graph_of_its_own():
    """Its features alone are those of a network of the same weights with so many neighbours, in every pass."""
    pair, wide = clouds()[0], untrained(0)
    wide.neighbours = 20
    seen = []

    def still(placed, moving, here, there):
        seen.append((here, there))
        return torch.zeros_like(placed)

    RegisterClouds((still, still), settle=None, moving_graph=20).stages(untrained(0), pair)
    assert len(seen) == 2
    moving = pair.moving.data[0]
    for _, there in seen:
        torch.testing.assert_close(there, wide(moving))
        assert not torch.allclose(there, untrained(0)(moving))
    placed = overlaid(pair.fixed.data[0], moving)
    torch.testing.assert_close(seen[0][0], untrained(0)(placed))


def test_the_order_of_the_points_does_not_matter():
    pair, network = clouds()[0], untrained(0)
    f = torch.randperm(pair.fixed.data.shape[1], generator=make_generator(7))
    m = torch.randperm(pair.moving.data.shape[1], generator=make_generator(8))
    other = replace(pair, fixed=Points(pair.fixed.data[:, f]), moving=Points(pair.moving.data[:, m]))
    torch.testing.assert_close(QUICK(network, other), QUICK(network, pair)[f], atol=1e-3, rtol=1e-3)


def test_the_overlay_meets_mean_and_spread():
    fixed, moving = clouds()[0].fixed.data[0], clouds()[0].moving.data[0]
    placed = overlaid(fixed, moving)
    torch.testing.assert_close(placed.mean(0), moving.mean(0))
    torch.testing.assert_close(placed.std(0), moving.std(0))


def test_chosen_points_get_their_own_displacements():
    """With all chosen, in another order, nothing but the order changes."""
    pair, network = clouds()[1], untrained(0)
    chosen = torch.arange(pair.fixed.data.shape[1]).flip(0)
    straight = QUICK(network, pair)
    torch.testing.assert_close(QUICK(network, replace(pair, chosen=chosen)), straight.flip(0))


def test_a_pair_of_clouds_is_of_one_dimension_and_what_is_known_is_of_each_point():
    fixed, moving = clouds()[0].fixed, clouds()[0].moving
    for known in ({"truth": moving}, {"start": moving}, {"moving_landmarks": moving}, {"fixed_surface": moving}):
        with pytest.raises(ValueError, match="PointPair"):
            PointPair(fixed, moving, **known)
    for other in (Points(torch.rand(1, 9, 2)), Points(torch.rand(2, 9, 3))):
        with pytest.raises(ValueError, match=r"one cloud of each, \(1, N, d\)"):
            PointPair(fixed, other)


@pytest.mark.parametrize("easy", [False, True])
def test_the_whole_training_repeats_bit_for_bit(easy):
    def learned(seed):
        task = Task(partial(untrained, seed), FEW, LEARNS, replace(TRAINING, seed=seed), console=Console(quiet=True))
        return [weights(network) for row, network in SELF(easy=easy).after_each(task) if row["round"]]

    first, second = learned(3), learned(3)
    assert len(first) == 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], learned(4)[0])


def test_labels_of_turned_clouds_are_turned_back():
    pair = paired(1.2 * torch.eye(3))
    labels, how = PointLabels(Knows()), SELF(augment=Affines(90.0, 0.1))
    label, change = labels.label(torch.nn.Identity(), replace(pair, truth=None), how, make_generator(0))
    torch.testing.assert_close(label, (pair.moving.data - pair.fixed.data)[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(labels.told(pair, label).truth.data, pair.moving.data, atol=1e-4, rtol=0)
    assert change == pytest.approx(float(label.norm(dim=1).mean()), rel=1e-4)
    plain, change = labels.label(torch.nn.Identity(), pair, replace(how, refined=False), make_generator(0))
    assert not plain.any()
    assert change == 0


def test_augmentation_carries_what_is_known_along():
    pair = clouds()[0]
    pair = replace(pair, truth=Points(pair.fixed.data + truth(pair.fixed.data)))
    seen = Affines(30.0, 0.2)(pair, make_generator(4))
    linear = Affines(30.0, 0.2).draw(make_generator(4))
    for name in ("fixed", "moving", "truth", "fixed_landmarks"):
        points = getattr(pair, name).data
        torch.testing.assert_close(getattr(seen, name).data, points @ linear.to(points))
    assert seen.fixed_landmarks.data.dtype == torch.float64
    torch.testing.assert_close((linear @ linear.mT).diag(), ((linear @ linear.mT)[0, 0]).expand(3))


SEEN = {
    "labels": (LEARNS, InTurn((Affines(), NearTruth(), Chosen(30)))),
    "landmarks": (LEARNS, InTurn((from_landmarks, Affines(), NearTruth(), Chosen(30)))),
    "rigid": (LEARNS, InTurn((SyntheticClouds(Rigid()), Chosen(30)))),
    "field": (LEARNS, InTurn((SyntheticClouds(RandomField()), Chosen(30)))),
    "metric": (ByMetric(QUICK, neighbours=5), InTurn((Affines(), Chosen(30)))),
}


@pytest.mark.parametrize("name", SEEN)
def test_every_strategy_teaches(name):
    """The same chance before and after: the loss of what was learned from is less."""
    supervision, augment = SEEN[name]
    known = [replace(pair, truth=Points(pair.fixed.data + truth(pair.fixed.data))) for pair in clouds(2)]
    seen, network = [augment(pair, make_generator(5, n)) for n, pair in enumerate(known)], untrained(0, 1)

    def now():
        with torch.no_grad():
            return sum(float(loss(supervision, network, pair)) for pair in seen)

    before = now()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(8):
        optimiser.zero_grad()
        for pair in seen:
            loss(supervision, network, pair).backward()
        optimiser.step()
    assert now() < before


@pytest.mark.parametrize(
    ("supervision", "augment"),
    [
        (PointDistance(STILL), InTurn((Affines(90.0, 0.1), NearTruth(RandomField(0.0)), Chosen(20)))),
        (PointDistance(STILL), InTurn((SyntheticClouds(lambda points, _: 1.2 * points, 1.0, 0.0), Chosen(20)))),
        (ByMetric(STILL, neighbours=5), Chosen(20)),
    ],
    ids=["labels", "synthetic", "metric"],
)
def test_the_truth_is_no_loss(supervision, augment):
    """One stretch of all axes, which the overlay finds: the solver has nothing to add."""
    seen = augment(paired(1.2 * torch.eye(3)), make_generator(0))
    assert float(loss(supervision, torch.nn.Identity(), seen)) < 1e-3


def test_labels_that_the_optimiser_makes_itself_are_no_loss():
    pair, network = clouds()[0], untrained(0, 1)
    told = PointLabels().told(pair, QUICK(network, pair).detach())
    assert float(loss(LEARNS, network, told).detach()) < 1e-3


def test_a_learner_begins_near_its_labels():
    """From where the labels put the points, moved on by the field, so that something is left to learn."""
    pair, far = clouds()[0], torch.tensor([300.0, 0.0, 0.0])
    label = truth(pair.fixed.data[0]) + far
    shifted = PointLabels().told(replace(pair, moving=Points(pair.moving.data + far)), label)
    seen = NearTruth(RandomField(3.0))(shifted, make_generator(0))
    assert 0.1 < float(loss(LEARNS, untrained(0, 1), seen).detach()) < 15


def test_what_is_not_known_is_not_learned():
    bare = replace(clouds()[0], fixed_landmarks=None, moving_landmarks=None)
    for fails in (lambda: LEARNS(untrained(0), bare, 0.0), lambda: NearTruth()(bare, make_generator(0))):
        with pytest.raises(InputError, match="c0: where its fixed points belong is not known"):
            fails()
    with pytest.raises(InputError, match="c0: has no landmarks"):
        from_landmarks(bare, make_generator(0))


def test_half_precision_is_the_networks_alone():
    """Features in bfloat16, of 8 bits, are handed on in the points' own type, after seven rounded layers."""
    points, network = clouds()[0].fixed.data[0], untrained(0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(points)
    assert rough.dtype == torch.float32
    off = (rough - network(points)).abs().mean() / network(points).abs().mean()
    assert 0 < off < 0.1


def test_landmarks_measure_and_choose():
    """Where they lie after the register, whose score rises as they come nearer; nothing changes in the network."""
    evaluation = LandmarkEvaluation(Validation.singles(FEW.cases), REGISTER)
    network = untrained(0).train()
    rows = list(evaluation.rows(network, torch.device("cpu")))
    assert [row["pair"] for row in rows] == ["c0", "c1", "c2"] == list(evaluation.names)
    pair = clouds()[1]
    here = pair.fixed_landmarks.data[0]
    off = (here + REGISTER(network, pair)(here) - pair.moving_landmarks.data[0]).norm(dim=1).mean()
    assert rows[1]["tre mm"] == pytest.approx(float(off))
    assert evaluation.score({"tre mm": 1.0}) > evaluation.score({"tre mm": 2.0}) > evaluation.score({"tre mm": np.nan})
    with pytest.raises(InputError, match="landmarks"):
        evaluation.score({"seconds": 1.0})
    assert network.training


def test_landmarks_of_an_affine_map_label_every_point():
    pair = clouds()[0]
    found = from_landmarks(pair, make_generator(0)).truth.data - pair.fixed.data
    torch.testing.assert_close(found, truth(pair.fixed.data), atol=1e-3, rtol=1e-4)


def test_a_random_field_has_its_size_and_a_rigid_map_keeps_distances():
    points = 100 * torch.rand(80, 3, generator=make_generator(1))
    moved = RandomField(size=8.0)(points, make_generator(2)) - points
    assert float(moved.square().mean().sqrt()) == pytest.approx(8, rel=1e-4)
    torch.testing.assert_close(
        torch.pdist(Rigid()(points, make_generator(3))), torch.pdist(points), atol=1e-3, rtol=1e-4
    )


def test_the_unit_and_the_place_of_clouds_do_not_matter():
    """A mouse's clouds in m about a far origin: the same map, in that unit."""
    pair = clouds()[0]
    anywhere = 60 * torch.rand(1, 20, 3, generator=make_generator(9)).double()

    def matched(unit, shift):
        ends = (Points(unit * each.data.double() + shift) for each in (pair.fixed, pair.moving))
        return (GraphPropagation(REGISTER)(PointPair(*ends))(unit * anywhere + shift) - shift) / unit

    here, there = matched(1.0, 0.0), matched(1e-3, -4.0)
    torch.testing.assert_close(there, here, atol=0.05, rtol=0)
    assert (here - anywhere - truth(anywhere)).norm(dim=2).mean() < 0.3 * truth(anywhere).norm(dim=2).mean()


@pytest.mark.parametrize(
    ("points", "what"),
    [
        (torch.rand(1, 19, 3), "at least 20 points in 3-D expected, got 19"),
        (torch.rand(1, 50, 2), "in 3-D expected, got 40, 2-D"),
        (torch.zeros(1, 50, 3), "lie in pairs"),
    ],
)
def test_clouds_that_cannot_be_matched_are_refused(points, what):
    with pytest.raises(InputError, match=what):
        GraphPropagation()(PointPair(Points(torch.rand(1, 40, points.shape[2])), Points(points)))
