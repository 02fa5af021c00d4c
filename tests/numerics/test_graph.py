"""Neighbours against scipy's trees, Laplacians against the plain formula."""

import pytest
import torch
from scipy.spatial import cKDTree

from pullback.numerics.graph import edge_features, laplacian, nearest, neighbours, pairs
from pullback.numerics.random import make_generator


def cloud(n, seed, dtype=torch.float64):
    return 50 * torch.rand(n, 3, generator=make_generator(seed), dtype=dtype)


@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (40, 30, 5), (5000, 70, 70)])
def test_nearest_are_those_of_a_tree(n, m, k):
    points, others = cloud(n, 0), cloud(m, 1)
    distances, index = nearest(points, others, k)
    truth, which = cKDTree(others.numpy()).query(points.numpy(), k=[*range(1, k + 1)])
    torch.testing.assert_close(distances, torch.from_numpy(truth))
    assert (index == torch.from_numpy(which)).all()


def test_more_neighbours_than_points_are_refused():
    with pytest.raises(ValueError, match="4 neighbours asked of 3"):
        nearest(cloud(5, 0), cloud(3, 1), 4)


def test_no_point_is_its_own_neighbour_even_where_points_coincide():
    points = torch.cat([cloud(9, 2), cloud(9, 2), cloud(9, 2)])
    index = neighbours(points, 4)
    assert index.shape == (27, 4)
    assert (index != torch.arange(27)[:, None]).all()


def test_pairs_are_each_edge_once():
    index = neighbours(cloud(30, 3), 4)
    wanted = {tuple(sorted((i, j))) for i, row in enumerate(index.tolist()) for j in row}
    found = [tuple(pair) for pair in pairs(index).tolist()]
    assert sorted(wanted) == found


def test_edge_features_and_laplacian():
    points = cloud(12, 4)
    index = neighbours(points, 3)
    features = edge_features(points, index)
    for i in range(12):
        for slot, j in enumerate(index[i].tolist()):
            torch.testing.assert_close(features[i, slot], torch.cat([points[j] - points[i], points[i]]))
        torch.testing.assert_close(laplacian(points, index)[i], points[index[i]].mean(0) - points[i])
    assert laplacian(torch.ones(12, 2), index).abs().max() == 0
