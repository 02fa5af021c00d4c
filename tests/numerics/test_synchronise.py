"""Maps of a group from maps of pairs: what is consistent is found exactly, what is wrong is outvoted."""

import math

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.numerics.ransac import MODELS, projected
from pullback.numerics.rotation import planar
from pullback.numerics.synchronise import components, loops, misses, synchronised

COUNT, SIDE = 12, 800.0
CORNERS = torch.tensor([[0.0, 0], [0, SIDE], [SIDE, 0], [SIDE, SIDE]], dtype=torch.float64)


def truths(kind: str) -> torch.Tensor:
    """Return maps from the first member to each, that of the first the identity."""
    generator = make_generator(2)
    out = torch.eye(3, dtype=torch.float64).repeat(COUNT, 1, 1)
    out[:, :2, :2] = planar(2 * math.pi * torch.rand(COUNT, generator=generator, dtype=torch.float64))
    if kind != "rigid":
        out[:, :2, :2] *= 1 + 0.1 * torch.rand(COUNT, 1, 1, generator=generator, dtype=torch.float64)
    if kind in ("affine", "homography"):
        out[:, 0, :2] *= 1.05
    if kind == "homography":
        out[:, 2, :2] = 1e-4 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64)
    middle = torch.full((2,), SIDE / 2, dtype=torch.float64)  # as of sections that lie about one place
    out[:, :2, 2] = middle - out[:, :2, :2] @ middle + 20 * torch.randn(COUNT, 2, generator=generator).double()
    return out @ torch.linalg.inv(out[0])


def of_edges(maps: torch.Tensor, reach: int = 3) -> dict[tuple[int, int], torch.Tensor]:
    pairs = [(i, j) for i in range(COUNT) for j in range(i + 1, min(i + reach, COUNT - 1) + 1)]
    return {(i, j): maps[j] @ torch.linalg.inv(maps[i]) for i, j in pairs}


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((projected(one, CORNERS) - projected(other, CORNERS)).norm(dim=-1).max())


@pytest.mark.parametrize("reference", [0, 5])
@pytest.mark.parametrize("kind", MODELS)
def test_consistent_edges_give_the_chain(kind, reference):
    maps = truths(kind)
    found = synchronised(of_edges(maps), COUNT, kind, CORNERS, reference)
    expected = maps @ torch.linalg.inv(maps[reference])  # the chain from 0 after the inverse of the reference's
    assert far(found, expected) < 1e-7 if kind == "homography" else far(found, expected) < 1e-9
    assert torch.equal(found[reference], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", MODELS)
def test_one_grossly_wrong_edge_is_outvoted(kind):
    maps = truths(kind)
    edges = of_edges(maps)
    wrong = torch.eye(3, dtype=torch.float64)
    wrong[:2, :2], wrong[0, 2] = planar(torch.tensor([0.5]).double())[0], 150.0
    edges[4, 5] = wrong @ edges[4, 5]
    found = synchronised(edges, COUNT, kind, CORNERS, scale=1.0)
    assert far(found, maps) < 1.0
    off = misses(found, edges, CORNERS)
    assert max(off, key=off.get) == (4, 5)
    worst = loops(edges, CORNERS)
    assert all(((4, 5) in ((i, j), (j, k), (i, k))) == (error > 1) for (i, j, k), error in worst.items())


def test_longer_edges_take_noise_away():
    maps, generator = truths("rigid"), make_generator(3)

    def noisy(matrix):
        off = torch.eye(3, dtype=torch.float64)
        off[:2, :2] = planar(0.002 * torch.randn(1, generator=generator).double())[0]
        off[:2, 2] = torch.randn(2, generator=generator).double()
        return off @ matrix

    edges = {edge: noisy(matrix) for edge, matrix in of_edges(maps).items()}
    chain = {(i, j): matrix for (i, j), matrix in edges.items() if j == i + 1}
    by_all, by_chain = (synchronised(each, COUNT, "rigid", CORNERS, 6, 1e6) for each in (edges, chain))
    expected = maps @ torch.linalg.inv(maps[6])
    assert far(by_all, expected) < far(by_chain, expected)


def test_what_falls_apart_is_named():
    edges = of_edges(truths("rigid"), 1)
    del edges[7, 8]
    assert components(edges, COUNT) == [0] * 8 + [1] * 4
    with pytest.raises(ValueError, match=r"no edges join \[8, 9, 10, 11\] with 2"):
        synchronised(edges, COUNT, "rigid", CORNERS, 2)


def test_a_closed_loop_of_exact_maps_is_the_identity():
    edges = of_edges(truths("homography"))
    assert max(loops(edges, CORNERS).values()) < 1e-9
    assert len(loops(edges, CORNERS)) == (COUNT - 2) + 2 * (COUNT - 3)  # over two steps, and two over three
