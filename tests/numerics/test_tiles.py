"""Tiles: cut and laid they are the array again, and blended they keep what all of them agree on."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, strategies as st

from pullback.numerics.random import make_generator
from pullback.numerics.tiles import Tiling, bell, hat


@st.composite
def tilings(draw, overlap=None):
    """Tilings of one to three axes, that overlap or not."""
    axes = [draw(st.tuples(st.integers(1, 40), st.integers(1, 24))) for _ in range(draw(st.integers(1, 3)))]
    shape, size = zip(*axes, strict=True)
    stride = size if overlap is False else tuple(draw(st.integers(1, s)) for s in size)
    return Tiling(shape, size, stride)


def noise(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=make_generator(seed), dtype=dtype)


@given(tilings(overlap=False))
def test_what_is_cut_and_laid_is_the_same_bit_for_bit(tiling):
    values = noise(2, 3, *tiling.shape, dtype=torch.float32)
    parts = tiling.cut(values)
    assert tuple(parts.shape) == (len(tiling), 2, 3, *tiling.size)
    assert torch.equal(tiling.laid(parts), values)
    assert torch.equal(tiling.blended(parts), values)  # no tile overlaps: each weight is 1


@given(tilings())
def test_tiles_cover_the_array_and_are_not_further_apart_than_the_stride(tiling):
    for starts, n, size, stride in zip(tiling.starts, tiling.shape, tiling.size, tiling.stride, strict=True):
        assert starts[0] == 0
        assert starts[-1] + size >= n
        assert all(0 < b - a <= stride for a, b in pairwise(starts))
        if stride < size <= n:
            assert starts[-1] + size == n
            assert len(starts) == -(-(n - size) // stride) + 1  # the fewest there can be


@given(tilings(), st.sampled_from([hat, bell]))
def test_weights_are_a_partition_of_unity(tiling, window):
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        ones = tiling.cut(torch.ones(1, 1, *tiling.shape, dtype=dtype))
        assert (tiling.blended(ones, window) - 1).abs().max() < close


@given(tilings(), st.sampled_from([hat, bell]))
def test_tiles_of_one_affine_function_are_that_function(tiling, window):
    """Each made from its own place, so that a tile that lies elsewhere is seen."""
    slopes, grids = noise(len(tiling.shape)), []
    for place in tiling.places:
        axes = [torch.arange(a, a + n, dtype=torch.float64) for a, n in zip(place, tiling.size, strict=True)]
        where = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        grids.append(torch.tensordot(slopes, where, 1)[None, None] + 2)
    axes = [torch.arange(n, dtype=torch.float64) for n in tiling.shape]
    whole = torch.tensordot(slopes, torch.stack(torch.meshgrid(*axes, indexing="ij")), 1) + 2
    blended = tiling.blended(iter(grids), window)[0, 0]
    assert (blended - whole).abs().max() < 1e-9


def test_the_cut_of_a_ramp_has_the_right_offsets():
    rows, columns = torch.meshgrid(torch.arange(30.0), torch.arange(17.0), indexing="ij")
    tiling = Tiling((30, 17), (12, 10), (8, 5))
    assert tiling.starts == ((0, 6, 12, 18), (0, 4, 7))
    for part, (row, column) in zip(tiling.cut((100 * rows + columns)[None, None]), tiling.places, strict=True):
        assert part[0, 0, 0, 0] == 100 * row + column
        assert part[0, 0, -1, -1] == 100 * (row + 11) + column + 9


def test_blending_shrinks_the_jump_that_pasting_makes():
    """Tiles that each answer with noise of their own about one smooth truth: one dimension, brief and plain."""
    tiling = Tiling((400,), (64,), (32,))
    truth = torch.sin(torch.arange(400.0) / 30)[None, None]
    noisy = [part + 0.3 * noise(1, 1, 1, dtype=torch.float32, seed=n) for n, part in enumerate(tiling.cut(truth))]
    pasted = torch.cat([part[..., :32] for part in noisy], 2)  # the first halves, one after the other
    blended = tiling.blended(noisy)
    jumps = [float((values[..., 1:] - values[..., :-1]).abs().max()) for values in (pasted, blended, truth)]
    assert jumps[0] > 10 * jumps[2]
    assert jumps[1] < 2 * jumps[2]


def test_weights_reach_the_rim_and_fall_from_the_middle():
    for window in (hat, bell):
        weights = window(9)
        assert (weights > 0).all()
        assert torch.equal(weights, weights.flip(0))
        assert int(weights.argmax()) == 4
    assert hat(6).tolist() == [0.5, 1.5, 2.5, 2.5, 1.5, 0.5]


def test_one_tile_at_a_time_is_asked_for():
    tiling, asked = Tiling((32,), (8,), (4,)), []

    def parts():
        for n in range(len(tiling)):
            asked.append(n)
            yield torch.full((1, 1, 8), float(n))

    blended = tiling.blended(parts())
    assert asked == [*range(7)]
    assert blended[0, 0, 0] == 0
    assert blended[0, 0, -1] == 6


@pytest.mark.parametrize(
    ("shape", "size", "stride"), [((8,), (4,), (5,)), ((8, 8), (4,), (4,)), ((8,), (0,), (0,)), ((8,), (4,), (0,))]
)
def test_gaps_and_other_axes_are_refused(shape, size, stride):
    with pytest.raises(ValueError, match="strides from 1 to the size"):
        Tiling(shape, size, stride)


def test_what_does_not_fit_is_refused():
    tiling = Tiling((10,), (4,), (2,))
    with pytest.raises(ValueError, match="overlap; blend"):
        tiling.laid(torch.zeros(4, 1, 1, 4))
    with pytest.raises(ValueError, match=r"shape \(10,\) expected"):
        tiling.cut(torch.zeros(1, 1, 9))
    with pytest.raises(ValueError, match="4 tiles of"):
        tiling.blended(torch.zeros(4, 1, 1, 5))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        tiling.blended(torch.zeros(3, 1, 1, 4))
