"""Clouds registered by learned features: small worlds whose answer is known."""

from dataclasses import replace

import pytest
import torch

from pullback.errors import InputError
from pullback.methods.points.cyclical import Cyclical, untrained
from pullback.methods.points.geometric import Match, RegisterClouds, overlaid
from pullback.methods.points.learn import Affines, Cloud, Learning
from pullback.methods.points.lessons import ByMetric, Labelled, RandomField, Rigid, Synthetic, from_landmarks
from pullback.methods.points.matched import match_points
from pullback.numerics.random import generator
from pullback.solvers import Propagate
from pullback.space import Points

QUICK = Match(Propagate(8, 5, 3, sharpness=0.5))
STILL = Match(lambda placed, moving, here, there: torch.zeros_like(placed))
REGISTER = RegisterClouds((Propagate(12, 5, 6), Propagate(8, 5, 6)), smoothing=10.0, settle=None)
SMALL = Cyclical(2, Learning(epochs=2, batch=2), REGISTER, QUICK, points=20, views=1)


def clouds(count=3, n=50):
    """A cloud, and the same stretched and shifted, in another order, each less some of its points."""
    made = []
    for seed in range(count):
        chance = generator(seed)
        fixed = 60 * torch.rand(n, 3, generator=chance)
        moving = (fixed * torch.tensor([1.2, 1.1, 0.9]) + 5)[torch.randperm(n, generator=chance)[: n - 5]]
        made.append(Cloud(fixed[:-3], moving))
    return made


class Knows:
    """A register of clouds whose points are paired: nothing moves at first, all points where they belong at last."""

    def stages(self, network, cloud):
        return [torch.zeros_like, lambda points: cloud.moving.to(points) - cloud.fixed]


def paired(linear):
    """A cloud and its points under a linear map, one to one."""
    fixed = 60 * torch.rand(40, 3, generator=generator(0))
    return Cloud(fixed, fixed @ linear)


def truth(points):
    return points * torch.tensor([0.2, 0.1, -0.1]).to(points) + 5


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_random_features_are_enough_for_a_smooth_map():
    cloud = clouds()[0]
    found = REGISTER(untrained(0, 0), cloud)
    before = truth(cloud.fixed).norm(dim=1).mean()
    after = (found(cloud.fixed.double()) - truth(cloud.fixed)).norm(dim=1).mean()
    assert after < 0.2 * before


def test_each_pass_goes_on_from_where_the_last_led():
    """A map that the overlay does not meet and the first pass does is what the second says too, which moves nothing."""
    cloud = paired(torch.eye(3) + 0.2 * torch.ones(3, 3).triu(1))
    passes = (lambda placed, moving, here, there: moving - placed, STILL.solver)
    stages = RegisterClouds(passes, settle=None).stages(torch.nn.Identity(), cloud)
    assert len(stages) == 2
    for stage in stages:
        torch.testing.assert_close(stage(cloud.fixed.double()).float(), cloud.moving - cloud.fixed, atol=1e-3, rtol=0)


def test_the_order_of_the_points_does_not_matter():
    cloud, network = clouds()[0], untrained(0, 0)
    f = torch.randperm(len(cloud.fixed), generator=generator(7))
    m = torch.randperm(len(cloud.moving), generator=generator(8))
    straight = QUICK(network, cloud.fixed, cloud.moving)
    shuffled = QUICK(network, cloud.fixed[f], cloud.moving[m])
    torch.testing.assert_close(shuffled, straight[f], atol=1e-3, rtol=1e-3)


def test_the_overlay_meets_mean_and_spread():
    cloud = clouds()[0]
    placed = overlaid(cloud.fixed, cloud.moving)
    torch.testing.assert_close(placed.mean(0), cloud.moving.mean(0))
    torch.testing.assert_close(placed.std(0), cloud.moving.std(0))


def test_chosen_points_get_their_own_displacements():
    """With all chosen, in another order, nothing but the order changes."""
    cloud, network = clouds()[1], untrained(0, 0)
    chosen = torch.arange(len(cloud.fixed)).flip(0)
    straight = QUICK(network, cloud.fixed, cloud.moving)
    torch.testing.assert_close(QUICK(network, cloud.fixed, cloud.moving, chosen), straight.flip(0))


@pytest.mark.parametrize("easy", [False, True])
def test_the_whole_training_repeats_bit_for_bit(easy):
    method = replace(SMALL, easy=easy)
    first, second = ([weights(net).clone() for net in method(clouds(), seed=3)] for _ in range(2))
    assert len(first) == 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    other = weights(next(iter(method(clouds(), seed=4))))
    assert not torch.equal(first[0], other)


def test_labels_of_turned_clouds_are_turned_back():
    cloud = paired(1.2 * torch.eye(3))
    label, _ = Cyclical(register=Knows(), affines=Affines(90.0, 0.1)).label(torch.nn.Identity(), cloud, generator(0))
    torch.testing.assert_close(label, cloud.moving - cloud.fixed, atol=1e-4, rtol=0)


def test_the_more_a_label_was_refined_the_less_its_pair_is_drawn():
    heard = []

    def learning(network, lesson, seed, pairs, weights, told):
        heard.append(weights)

    some = [paired((1 + 0.1 * n) * torch.eye(3)) for n in range(4)]
    list(Cyclical(1, learning, Knows(), easy=True)(some, seed=0))
    assert (heard[0].diff() < 0).all()


def test_what_learns_begins_with_other_weights_than_what_labels():
    assert not torch.equal(weights(untrained(0, 0)), weights(untrained(0, 1)))


def test_every_epoch_is_told():
    heard = []
    list(SMALL(clouds(), 0, heard.append))
    assert len(heard) == 4
    assert all(loss > 0 for loss in heard)


LESSONS = {
    "labels": lambda c: Labelled(c, [truth(x.fixed) for x in c], QUICK, 30),
    "rigid": lambda c: Synthetic(c, Rigid(), match=QUICK, points=30),
    "field": lambda c: Synthetic(c, RandomField(), match=QUICK, points=30),
    "metric": lambda c: ByMetric(c, QUICK, 30, neighbours=5),
}


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_teaches(name):
    """The same chance before and after: the loss of what was learned from is less."""
    some = clouds(2)
    lesson, network = LESSONS[name](some), untrained(0, 1)

    def loss():
        with torch.no_grad():
            return sum(float(lesson(network, index, generator(5, index))) for index in (0, 1))

    before = loss()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(8):
        optimiser.zero_grad()
        for index in (0, 1):
            lesson(network, index, generator(5, index)).backward()
        optimiser.step()
    assert loss() < before


@pytest.mark.parametrize(
    "lesson",
    [
        lambda c: Labelled([c], [c.moving - c.fixed], STILL, 20, Affines(90.0, 0.1), RandomField(0.0)),
        lambda c: Synthetic([c], lambda points, _: 1.2 * points, 1.0, 0.0, STILL, 20),
        lambda c: ByMetric([c], STILL, 20, neighbours=5),
    ],
    ids=["labels", "synthetic", "metric"],
)
def test_the_truth_is_no_loss(lesson):
    """One stretch of all axes, which the overlay finds: the solver has nothing to add."""
    loss = lesson(paired(1.2 * torch.eye(3)))(torch.nn.Identity(), 0, generator(0))
    assert float(loss) < 1e-3


def test_labels_that_the_optimiser_makes_itself_are_no_loss():
    cloud, network = clouds()[0], untrained(0, 1)
    label = QUICK(network, cloud.fixed, cloud.moving)
    lesson = Labelled([cloud], [label.detach()], QUICK, 1000, Affines(0.0, 0.0), None)
    assert float(lesson(network, 0, generator(0)).detach()) < 1e-3


def test_a_learner_begins_near_its_labels():
    """From where the labels put the points, moved on by the field, so that something is left to learn."""
    cloud = clouds()[0]
    label = truth(cloud.fixed) + torch.tensor([300.0, 0.0, 0.0])
    shifted = Cloud(cloud.fixed, cloud.moving + torch.tensor([300.0, 0.0, 0.0]))
    near = Labelled([shifted], [label], QUICK, 1000, Affines(0.0, 0.0), RandomField(3.0))
    assert 0.1 < float(near(untrained(0, 1), 0, generator(0)).detach()) < 15


def test_landmarks_of_an_affine_map_label_every_point():
    cloud = clouds()[0]
    marked = 60 * torch.rand(20, 3, generator=generator(9), dtype=torch.float64)
    label = from_landmarks(cloud, marked, marked + truth(marked))
    torch.testing.assert_close(label, truth(cloud.fixed), atol=1e-3, rtol=1e-4)


def test_a_random_field_has_its_size_and_a_rigid_map_keeps_distances():
    points = 100 * torch.rand(80, 3, generator=generator(1))
    moved = RandomField(size=8.0)(points, generator(2)) - points
    assert float(moved.square().mean().sqrt()) == pytest.approx(8, rel=1e-4)
    torch.testing.assert_close(torch.pdist(Rigid()(points, generator(3))), torch.pdist(points), atol=1e-3, rtol=1e-4)


def test_the_unit_and_the_place_of_clouds_do_not_matter():
    """A mouse's clouds in m about a far origin: the same map, in that unit."""
    cloud = clouds()[0]
    anywhere = 60 * torch.rand(1, 20, 3, generator=generator(9)).double()

    def matched(unit, shift):
        ends = (Points(unit * each[None].double() + shift) for each in (cloud.fixed, cloud.moving))
        return (match_points(*ends, register=REGISTER)(unit * anywhere + shift) - shift) / unit

    here, there = matched(1.0, 0.0), matched(1e-3, -4.0)
    torch.testing.assert_close(there, here, atol=0.05, rtol=0)
    assert (here - anywhere - truth(anywhere)).norm(dim=2).mean() < 0.3 * truth(anywhere).norm(dim=2).mean()


@pytest.mark.parametrize(
    ("points", "what"),
    [
        (torch.rand(1, 19, 3), "at least 20 points in 3-D expected, got 19"),
        (torch.rand(1, 50, 2), "got 50, 2-D"),
        (torch.zeros(1, 50, 3), "lie in pairs"),
    ],
)
def test_clouds_that_cannot_be_matched_are_refused(points, what):
    with pytest.raises(InputError, match=what):
        match_points(Points(torch.rand(1, 40, 3)), Points(points))
