"""Structural types: distances and coordinates by independent tools, one type called one, and what is removed."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.spatial import procrustes
from sklearn.manifold import Isomap
from sklearn.metrics import normalized_mutual_info_score

from pullback.alignment import Alignment, Pair
from pullback.data.phantoms.partitions import Partitions
from pullback.errors import InputError
from pullback.methods.group.distances import hellinger, structural
from pullback.methods.group.embedding import correlation_dimension, isomap
from pullback.methods.group.kinship import heritability, kinships
from pullback.methods.group.onto_template import OntoTemplate, laid_on_centroids, on_one_grid, pulled_labels
from pullback.methods.group.structural_types import Types, removed, variance
from pullback.methods.group.type_maps import mean_map, variability
from pullback.numerics.mixture import adjusted_rand
from pullback.numerics.random import make_generator
from pullback.space import Affine, Displacement, Grid, Image, Labels, pull

QUICK = Types(most=6, starts=3, samples=20)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=make_generator(seed), dtype=torch.float64)


def apart(points: torch.Tensor) -> torch.Tensor:
    """Distances of points, 0 of each to itself."""
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def partitions(count: int, seed: int, size: int = 500, most: int = 5) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.integers(0, rng.integers(2, most + 1), size)) for _ in range(count)]


# ---- structure


@pytest.mark.parametrize("background", [False, True])
def test_structure_is_one_less_the_information_of_scikit_learn(background):
    maps = partitions(5, 3)
    maps = [torch.cat([each, torch.zeros(300, dtype=torch.long)]) for each in maps]  # where nobody has a label
    seen = torch.ones(800, dtype=torch.bool) if background else torch.stack(maps).any(0)
    found = structural(maps, background=background)
    expected = [[1 - normalized_mutual_info_score(a[seen], b[seen]) for a in maps] for b in maps]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    joint = [[1 - normalized_mutual_info_score(a[seen], b[seen], average_method="max") for a in maps] for b in maps]
    assert not np.allclose(found, joint, atol=1e-3)


def test_names_of_labels_and_the_field_of_view_do_not_matter():
    maps = partitions(4, 5)
    names = torch.tensor([0, 40, 7, 11, 3, 9])
    turned = [maps[0], names[maps[1]], *maps[2:]]
    torch.testing.assert_close(structural(maps), structural(turned), atol=1e-12, rtol=0)
    padded = [torch.nn.functional.pad(each, (50, 80)) for each in maps]
    torch.testing.assert_close(structural(maps), structural(padded), atol=1e-12, rtol=0)
    assert (structural(maps, background=True) - structural(padded, background=True)).abs().max() > 1e-3
    same = structural([maps[0], names[maps[0]], maps[1]])
    assert abs(float(same[0, 1])) < 1e-12
    assert float(same[0, 2]) > 0.5
    half = torch.arange(500) < 250
    torch.testing.assert_close(structural(maps, within=half), structural([each[half] for each in maps]))


def test_independent_partitions_are_far_apart_and_overlap_brings_them_near():
    rng = np.random.default_rng(0)
    far = structural([torch.from_numpy(rng.integers(1, 4, 10**6)) for _ in range(2)])
    assert float(far[0, 1]) == pytest.approx(1, abs=1e-3)
    line = torch.arange(100)
    shifted = [((line >= n) & (line < n + 20)).long() for n in (10, 12, 16, 25, 60)]
    away = structural(shifted)[0, 1:]
    assert (away.diff()[:2] > 0).all()
    assert float(away.min()) == float(away[0])  # also beside those with whom nothing is in common


@given(st.integers(0, 1000))
def test_by_the_joint_entropy_the_distance_is_a_metric(seed):
    d = structural(partitions(3, seed, size=30), joint=True)
    assert torch.equal(d, d.mT)
    assert d[0, 1] <= d[0, 2] + d[2, 1] + 1e-12


# ---- connections


def connections(count: int, regions: int, seed: int = 0) -> list[torch.Tensor]:
    return [drawn(regions, regions, seed=100 * seed + n).abs() for n in range(count)]


def test_connections_are_compared_by_the_roots_of_densities():
    matrices = connections(4, 6)
    roots = []
    for each in matrices:
        both = each + each.mT
        both.fill_diagonal_(0)
        roots.append((both / both.sum()).sqrt().flatten())
    expected = torch.stack([torch.stack([(a - b).norm() for a in roots]) for b in roots])
    torch.testing.assert_close(hellinger(matrices), expected, atol=1e-12, rtol=0)
    one, other = torch.zeros(4, 4), torch.zeros(4, 4)
    one[0, 1], other[2, 3] = 2.0, 5.0
    assert float(hellinger([one, other])[0, 1]) == pytest.approx(math.sqrt(2))


def test_as_printed_the_neighbours_are_the_same():
    """Read with i < j; a monotone map of the distance, so that each has the same ones nearest."""
    matrices = connections(12, 5)
    ours, printed = hellinger(matrices), hellinger(matrices, printed=True)
    assert printed.isfinite().all()
    assert torch.equal(ours.argsort(1), printed.argsort(1))
    assert (printed - ours).abs().max() > 0.01
    alike = (1 - ours.square() / 2).sqrt()
    torch.testing.assert_close(printed.square(), 2 * (1 - alike))


@given(st.integers(0, 1000))
def test_connections_have_the_triangle_inequality(seed):
    d = hellinger(connections(3, 4, seed))
    assert d[0, 1] <= d[0, 2] + d[2, 1] + 1e-12


def test_names_place_the_rows_and_scale_and_diagonal_do_not_matter():
    matrices = connections(3, 4)
    names = [["a", "b", "c", "d"]] * 3
    before = hellinger(matrices, names)
    order = torch.tensor([2, 0, 3, 1])
    turned = [matrices[0], matrices[1][order][:, order], 7 * matrices[2] + 3 * torch.eye(4)]
    own = [names[0], ["c", "a", "d", "b"], names[2]]
    torch.testing.assert_close(hellinger(turned, own), before)
    wider = [torch.nn.functional.pad(each, (0, 1, 0, 1)) for each in matrices]
    torch.testing.assert_close(hellinger(wider), before)
    lacking = [matrices[0][:3, :3], *matrices[1:]]
    padded = [torch.nn.functional.pad(matrices[0][:3, :3], (0, 1, 0, 1)), *matrices[1:]]
    torch.testing.assert_close(hellinger(lacking, [["a", "b", "c"], *names[1:]]), hellinger(padded))
    part = hellinger(matrices, names, rows=["b"])
    rows = [(each + each.mT)[1, [0, 2, 3]] for each in matrices]
    expected = [(a / a.sum()).sqrt() for a in rows]
    assert float(part[0, 2]) == pytest.approx(float((expected[0] - expected[2]).norm()))


# ---- coordinates


def test_a_rolled_strip_is_laid_flat():
    rng = np.random.default_rng(0)
    along, across = rng.uniform(1.5 * np.pi, 4.5 * np.pi, 800), rng.uniform(0, 15, 800)
    roll = np.stack([along * np.cos(along), across, along * np.sin(along)], 1)
    length = (along * np.sqrt(1 + along**2) + np.arcsinh(along)) / 2
    found = isomap(apart(torch.from_numpy(roll)), 2, 6)
    assert procrustes(np.stack([length, across], 1), found.coordinates.numpy())[2] < 0.01


def test_coordinates_are_those_of_scikit_learn():
    d = apart(drawn(60, 5))
    ours = isomap(d, 3, 6)
    theirs = Isomap(n_neighbors=6, n_components=3, metric="precomputed", path_method="D").fit_transform(d.numpy())
    signs = np.sign((ours.coordinates.numpy() * theirs).sum(0))
    np.testing.assert_allclose(ours.coordinates, theirs * signs, atol=1e-8)


def test_with_all_as_neighbours_it_is_classical_scaling():
    """Points in the plane come back, and all of the variance is theirs."""
    points = drawn(30, 2)
    found = isomap(apart(points), 4, 29)
    assert found.coordinates.shape == (30, 2)
    torch.testing.assert_close(apart(found.coordinates), apart(points))
    assert float(found.explained.sum()) == pytest.approx(1)


def test_explained_is_of_the_positive_eigenvalues_and_neighbours_grow_until_all_are_joined():
    two = torch.cat([drawn(12, 2), drawn(3, 2) + 50])
    found = isomap(apart(two), 2)
    assert found.neighbours > 5 or not found.apart
    far = torch.cat([drawn(12, 2), drawn(12, 2, seed=1) + 50])
    found = isomap(apart(far), 2)
    assert found.neighbours == 12
    assert set(found.apart) in ({*range(12)}, {*range(12, 24)})
    with pytest.raises(InputError, match="do not join"):
        isomap(apart(far), 2, 5)
    values = torch.cdist(*[drawn(20, 3)] * 2, p=math.inf)  # a metric that no space of Euclid has
    found = isomap(values, 20, 19)
    centring = torch.eye(20, dtype=torch.float64) - 1 / 20
    eigenvalues = torch.linalg.eigvalsh(-0.5 * centring @ values.square() @ centring).flip(0)
    positive = eigenvalues[eigenvalues > 1e-12]
    assert float(eigenvalues.min()) < -0.05
    torch.testing.assert_close(found.explained, positive / positive.sum())


def test_copies_are_neighbours_of_each_other():
    """A distance of 0 is an edge, and no absence of one."""
    points = drawn(10, 2).repeat_interleave(2, 0)
    found = isomap(apart(points), 2)
    torch.testing.assert_close(found.coordinates[::2], found.coordinates[1::2])


@pytest.mark.parametrize(("d", "expected", "within"), [(1, 1.0, 0.05), (2, 2.0, 0.15)])
def test_the_dimension_of_a_line_and_of_a_square(d, expected, within):
    points = torch.rand(1500, d, generator=make_generator(d), dtype=torch.float64)
    assert correlation_dimension(apart(points)) == pytest.approx(expected, abs=within)


def test_the_dimension_of_copies_is_not_told():
    assert correlation_dimension(torch.zeros(5, 5)) is None


# ---- types


def test_one_cloud_is_one_type_and_two_are_two():
    for seed in (4, 7):  # ISOMAP bends them so that the criterion says three, and two
        one = QUICK(apart(drawn(100, 4, seed=seed)))
        assert one.count == 1
        assert one.by_bic > 1
        assert one.p > 0.05
        assert one.by_silhouette > 1  # which cannot say one
        assert one.in_words.startswith("One type of 100 people")
    points = drawn(100, 4)
    points[60:, 0] += 6
    two = replace(QUICK, neighbours=99)(apart(points))
    assert two.count == 2
    assert sorted(two.sizes) == [40, 60]
    assert two.p == pytest.approx(1 / 21)
    assert adjusted_rand(two.types, (torch.arange(100) >= 60).long()) > 0.95


@pytest.mark.nightly
def test_one_cloud_is_one_type_forty_times():
    """In 38 of 40 at least; two clouds in the plane, 5 deviations apart, are two each time.

    In four dimensions the criterion asks 15 more parameters of a second type, and sees these in 30 of 40.
    """
    ones, twos, search = 0, 0, Types(most=5, starts=5, samples=39)
    for seed in range(40):
        points = drawn(100, 4, seed=seed)
        ones += search(apart(points)).count == 1
        points[50:, 0] += 5
        twos += replace(search, neighbours=99, samples=20)(apart(points[:, :2])).count == 2
    assert ones >= 38
    assert twos == 40


def test_a_population_of_one_type_is_called_one_and_of_two_two():
    one = Partitions(80, 1, side=24).population()
    found = QUICK(structural(list(one.labels)), regions=one.regions)
    assert found.count == 1
    assert float(found.embeddings[0].explained[0]) < 0.2
    two = Partitions(80, 2, side=24, seed=1).population()
    found = QUICK(structural(list(two.labels)), regions=two.regions)
    assert found.count == 2
    assert adjusted_rand(found.types, two.types) > 0.9
    assert float(found.embeddings[0].explained[0]) > 2 * float(found.embeddings[0].explained[1])
    assert float(torch.corrcoef(torch.stack([found.scores[:, 0], two.regions.double()]))[0, 1]) > 0.5
    assert found.scores[found.types == 1, 0].mean() > found.scores[found.types == 0, 0].mean()
    assert [int(found.types[found.typical(k)]) for k in range(2)] == [0, 1]
    assert found.in_words.startswith("At least 2 types of 80 people")
    with pytest.raises(InputError, match="types 0 … 1"):
        found.typical(2)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_of_four_types_no_more_are_claimed(seed):
    """The criterion says four or five, the silhouette two to four; "at least" is the lesser."""
    four = Partitions(400, 4, seed=seed).population()
    found = Types(samples=20, starts=10)(structural(list(four.labels)), regions=four.regions)
    assert found.p == pytest.approx(1 / 21)
    assert found.count in (4, 5)
    assert 2 <= min(found.count, found.by_silhouette) <= 4
    assert adjusted_rand(found.types, four.types) > 0.75


@pytest.mark.nightly
def test_populations_of_one_type_are_called_one_a_hundred_times():
    """In 95 of 100 at least; the silhouette never does."""
    found = [
        Types(samples=39, starts=5)(structural(list(Partitions(100, 1, seed=n).population().labels)))
        for n in range(100)
    ]
    assert sum(each.count == 1 for each in found) >= 95
    assert not any(each.by_silhouette == 1 for each in found)


def test_order_names_and_unit_change_nothing():
    points = drawn(60, 3)
    points[25:, 1] += 8
    d, order = apart(points), torch.randperm(60, generator=make_generator(2))
    search = replace(QUICK, neighbours=59, most=3)
    plain, turned, larger = search(d), search(d[order][:, order]), search(10 * d)
    assert plain.count == turned.count == larger.count == 2
    assert adjusted_rand(plain.types[order], turned.types) == 1
    assert torch.equal(plain.types, larger.types)
    torch.testing.assert_close(plain.embeddings[0].explained, turned.embeddings[0].explained, atol=1e-10, rtol=0)
    torch.testing.assert_close(plain.embeddings[0].coordinates * 10, larger.embeddings[0].coordinates)
    assert order[turned.typical()] == plain.typical()


def test_two_kinds_weigh_alike_and_dimensions_grow_with_regions():
    points, regions = drawn(40, 3), torch.arange(40)
    points[:, 0] -= 0.2 * regions
    d = apart(points)
    found = replace(QUICK, dims=2)(d, 1000 * d, regions=regions)
    assert found.scores.shape == (40, 4)
    torch.testing.assert_close(found.scores[:, :2], found.scores[:, 2:])
    assert float(found.scores[:, :2].var(0).sum()) == pytest.approx(1)
    assert float(torch.corrcoef(torch.stack([found.scores[:, 0], regions.double()]))[0, 1]) > 0.9
    torch.testing.assert_close(found.distances, d / d.mean())


def test_of_few_people_no_number_is_claimed():
    found = QUICK(apart(drawn(19, 3)))
    assert (found.count, found.by_bic, found.by_silhouette, found.sizes) == (None, None, None, (19,))
    assert "too few" in found.in_words


# ---- maps of types, and relatives


def test_maps_of_types():
    types = torch.tensor([0, 0, 0, 0, 1])
    maps = [torch.full((3,), float(n)) for n in range(5)]
    assert mean_map(maps, types, 0).tolist() == [1.5] * 3
    labels = [torch.tensor([1, 2, n]) for n in (3, 3, 4, 4, 9)]
    assert variability(labels, types, 0).tolist() == [0, 0, 1]  # one bit
    square = torch.zeros(4, 5, 5, dtype=torch.long)
    square[:, 2:] = 1
    square[3] = square[3].mT.clone()
    share = variability([*square, square[0]], types, 0, named=False)
    assert float(share[1, 0]) == pytest.approx(0.5)  # 3 of 6 pairs
    assert float(share[3, 3]) == 0
    with pytest.raises(InputError, match="borders"):
        variability(labels, types, 0, named=False)
    with pytest.raises(InputError, match="nobody"):
        mean_map(maps, types, 2)


def test_relatives_are_alike_where_they_are():
    """Of twenty families one score is the family's, and another is anybody's."""
    families = [f"f{n // 3}" for n in range(60)]
    twins = ["identical" if n % 3 < 2 else "" for n in range(60)]
    pairs = kinships(families, twins)
    assert {kin: len(listed) for kin, listed in pairs.items()} == {
        "identical": 20,
        "siblings": 40,
        "unrelated": 60 * 59 // 2 - 60,
    }
    scores = torch.stack([drawn(20).repeat_interleave(3) + 0.1 * drawn(60, seed=1), drawn(60, seed=2)], 1)
    found = heritability(scores, pairs, make_generator(0), samples=199)
    assert found["identical"].p[0] == pytest.approx(1 / 200)
    assert found["identical"].p[1] > 0.05
    assert found["identical"].difference[0] < 0.3 < found["unrelated"].difference[0]
    assert found["unrelated"].p is None
    assert kinships(["", ""], ["identical"] * 2) == {"unrelated": [(0, 1)]}


# ---- what registration removes


@dataclass(frozen=True)
class Knows:
    """A register that has been told: it finds the transform of an image by the image itself."""

    told: dict

    def __call__(self, fixed, moving, start=None):
        return Alignment(Pair(fixed, moving), self.told[id(moving)])

    def __hash__(self):
        return id(self)


def test_copies_come_back_by_their_truth_and_the_identity_removes_nothing(smooth_field):
    """One person under known maps, pulled back by their inverses: the variance goes, but for a rim."""
    grid = Grid.centred((160, 160))
    one = Partitions(3, 1, side=160, regions=5).population().labels[0]
    one[:30], one[-30:], one[:, :30], one[:, -30:] = 0, 0, 0, 0
    person = Labels(one[None, None], grid)
    people, truth = [], []
    for seed in range(6):
        there = Displacement(smooth_field((160, 160), seed, 9.0, 80), grid)
        people.append(pull(person, there, onto=grid))
        truth.append(there.inverse())
    images = [Image(each.data.double(), grid) for each in people]
    before = structural([each.data[0, 0] for each in people])
    still = Affine.identity(2)
    alone = pulled_labels(people, [still] * 6, grid)
    assert alone[0].grid.shape == (240, 240)
    assert removed(before, structural([each.data[0, 0] for each in alone])) == pytest.approx(0, abs=1e-12)
    to_first = [each @ people_to for each, people_to in zip(truth, [truth[0].inverse()] * 6, strict=True)]
    told = {id(image): map_ for image, map_ in zip(images, to_first, strict=True)}
    onto = OntoTemplate(Knows(dict.fromkeys(told, still)), Knows(told))
    starts = onto.affine(images, 0)
    after = pulled_labels(people, onto.deformed(images, 0, starts), grid)
    gone = removed(before, structural([each.data[0, 0] for each in after]))
    assert gone > 0.95


def test_variance_within_groups():
    d = torch.tensor([[0, 1, 4.0], [1, 0, 3], [4, 3, 0]])
    assert variance(d) == pytest.approx(26 / 3)
    assert variance(d, torch.tensor([0, 0, 1])) == 1
    with pytest.raises(InputError, match="no two"):
        variance(d, torch.arange(3))
    with pytest.raises(InputError, match="nothing to remove"):
        removed(0 * d, d)


def test_centroids_are_laid_on_each_other(oblique):
    """Crops of one thing with other borders are the same again; a grid of other axes, too, but for the rounding."""
    volume = torch.zeros(20, 22, 18, dtype=torch.long)
    volume[6:12, 8:15, 5:11] = 1
    volume[12:14, 8:15, 5:11] = 2
    grid = Grid.centred((20, 22, 18))
    whole = Labels(volume[None, None], grid)
    affine = grid.affine.clone()
    affine[:3, 3] += torch.tensor([30.0, -7.0, 2.0])
    part = Labels(volume[None, None, 4:, 5:, 3:], Grid((16, 17, 15), affine))
    assert not on_one_grid([whole, part])
    one, other = laid_on_centroids([whole, part])
    assert on_one_grid([one, other])
    assert torch.equal(one.data, other.data)
    assert int((one.data == 2).sum()) == int((volume == 2).sum())
    with pytest.raises(InputError, match="no centroid"):
        laid_on_centroids([whole, Labels(torch.zeros_like(whole.data), grid)])


# ---- refusals


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: structural([torch.ones(3, dtype=torch.long)]), "two label maps"),
        (lambda: structural([torch.ones(3, dtype=torch.long), torch.ones(4, dtype=torch.long)]), "one grid"),
        (lambda: structural([torch.ones(3, dtype=torch.long), torch.zeros(3, dtype=torch.long)]), "map 1 has no label"),
        (lambda: structural([torch.ones(3, dtype=torch.long), -torch.ones(3, dtype=torch.long)]), "from 0 on"),
        (lambda: structural([torch.ones(3), torch.ones(3)]), "whole numbers"),
        (lambda: structural(partitions(2, 0), within=torch.ones(3, dtype=torch.bool)), "mask"),
        (lambda: hellinger([torch.ones(3, 3), torch.ones(3, 2)]), "square"),
        (lambda: hellinger([torch.ones(3, 3), torch.ones(2, 2)]), "name their rows"),
        (lambda: hellinger([torch.ones(3, 3), -torch.ones(3, 3)]), "matrix 1: finite"),
        (lambda: hellinger([torch.ones(3, 3), torch.eye(3)]), "matrix 1: no connection"),
        (lambda: hellinger([torch.ones(3, 3)] * 2, rows=["z"]), "no region z"),
        (lambda: hellinger([torch.ones(2, 2)] * 2, [["a", "a"]] * 2), "names of their own"),
        (lambda: isomap(torch.ones(4, 4)), "0 on the diagonal"),
        (lambda: isomap(torch.zeros(4, 4)), "everybody is the same"),
        (lambda: isomap(torch.zeros(2, 2)), "three people"),
        (lambda: isomap(apart(drawn(5, 2)), 2, 5), "1 … 4 neighbours"),
        (lambda: Types(dims=0), "from 1 on"),
        (Types(), "distances of the same people"),
        (lambda: Partitions(2), "three subjects"),
        (lambda: heritability(drawn(3, 1), {"siblings": []}, make_generator(0)), "without pairs"),
    ],
)
def test_refused(ask, says):
    with pytest.raises(InputError, match=says):
        ask()
