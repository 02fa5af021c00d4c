"""A cloud is a set: its order does not matter, and no cloud sees another."""

import torch

from pullback.networks import GraphFeatures
from pullback.numerics.random import make_generator
from pullback.training import seeded


def network():
    with seeded(0):
        return GraphFeatures()


def test_features_follow_the_points_as_they_are_shuffled():
    points = 100 * torch.rand(60, 3, generator=make_generator(0))
    order = torch.randperm(60, generator=make_generator(1))
    torch.testing.assert_close(network()(points[order]), network()(points)[order], atol=1e-4, rtol=1e-4)


def test_features_tell_points_apart_and_are_of_the_authors_size():
    features = network()(100 * torch.rand(60, 3, generator=make_generator(2)))
    assert features.shape == (60, 64)
    assert torch.pdist(features).min() > 1e-3


def test_a_small_cloud_is_all_neighbours():
    assert network()(torch.rand(4, 3, generator=make_generator(3))).isfinite().all()


def test_training_and_evaluation_are_the_same():
    points, net = 100 * torch.rand(30, 3, generator=make_generator(4)), network()
    assert torch.equal(net.train()(points), net.eval()(points))
