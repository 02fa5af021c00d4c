"""Coupled convex optimisation: against loops, whole against in parts, soft against hard."""

import itertools
import subprocess
import sys

import pytest
import torch

from pullback.errors import InputError
from pullback.methods.pair.feature_registration import AUTHORS
from pullback.numerics.cost_volume import box_mean, cost_volume, cost_volume_bytes, offsets, pooled, unpooled
from pullback.numerics.integrate import compose
from pullback.numerics.smooth import gaussian
from pullback.solvers import CoupledConvex, consistent

SHAPES = [(9, 11), (6, 7, 8)]


def features(shape, channels=3, seed=0, dtype=torch.float32, smooth=1.0):
    generator = torch.Generator().manual_seed(seed)
    return gaussian(torch.randn(1, channels, *shape, generator=generator, dtype=dtype), smooth)


@pytest.mark.parametrize("shape", SHAPES)
def test_costs_are_what_a_loop_says(shape):
    fixed, moving = features(shape), features(shape, seed=1)
    where = offsets(2, len(shape), fixed)
    assert len(where) == 5 ** len(shape) == len({tuple(w) for w in where.tolist()})
    costs = cost_volume(fixed, moving, where)
    assert costs.numel() * costs.element_size() == cost_volume_bytes(fixed, where)
    for k in range(0, len(where), 7):
        step = [int(x) for x in where[k]]
        for x in itertools.product(*[range(0, n, 2) for n in shape]):
            y = [a + b for a, b in zip(x, step, strict=True)]
            inside = all(0 <= a < n for a, n in zip(y, shape, strict=True))
            there = moving[(0, slice(None), *y)] if inside else torch.zeros(3)
            expected = (fixed[(0, slice(None), *x)] - there).square().sum()
            torch.testing.assert_close(costs[(0, k, *x)], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_absolute_costs_are_those_of_five_times_the_features_in_other_units(shape):
    """The optimiser of cyclical self-training's authors: all in units five times as large gives the same answer."""
    fixed, moving = features(shape), features(shape, seed=1)
    where = offsets(2, len(shape), fixed)
    inner = (..., *[slice(2, -2)] * len(shape))
    step = where[-1].long().tolist()
    there = moving.roll([-n for n in step], [*range(2, len(shape) + 2)])
    torch.testing.assert_close(
        cost_volume(fixed, moving, where, power=1)[:, -1:][inner], (fixed - there).abs().sum(1, keepdim=True)[inner]
    )
    theirs = CoupledConvex(2, (0.003, 0.03, 0.3), 1 / 20, blur=1, power=1)(5 * fixed, 5 * moving)
    torch.testing.assert_close(AUTHORS(fixed, moving), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_means_at_the_end_are_box_means(shape):
    fixed, moving = features(shape), features(shape, seed=1)
    expected = CoupledConvex(2)(fixed, moving)
    for _ in range(4):
        expected = box_mean(expected, 3)
    torch.testing.assert_close(CoupledConvex(2, means=4)(fixed, moving), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_parts_as_well_as_at_once(shape):
    fixed, moving = features(shape), features(shape, seed=1)
    whole = CoupledConvex(2)(fixed, moving)
    few = cost_volume_bytes(fixed, offsets(2, len(shape), fixed))
    torch.testing.assert_close(CoupledConvex(2, memory=few)(fixed, moving), whole, rtol=0, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory", [2**30, 2**16])
def test_where_nothing_is_compared_nothing_moves(shape, memory):
    """Of displacements that cost the same, the shortest."""
    field = CoupledConvex(2, memory=memory)(features(shape), features(shape, seed=1), torch.zeros(1, 1, *shape))
    assert not field.any()


@pytest.mark.parametrize("shape", [(20, 24), (14, 16, 15)])
def test_a_whole_step_is_found(shape):
    """Where the moving features are the fixed ones two voxels on, the answer is two voxels, far from the border."""
    fixed = features(shape, 4)
    moving = fixed.roll(2, 2)
    field = CoupledConvex(3)(fixed, moving)
    inside = field[(..., *[slice(5, -5)] * len(shape))]
    expected = torch.zeros_like(inside)
    expected[:, 0] = 2
    torch.testing.assert_close(inside, expected, rtol=0, atol=1e-5)


def test_soft_becomes_hard_as_the_temperature_falls():
    fixed, moving = features((8, 9), 4), features((8, 9), 4, seed=1)
    hard = CoupledConvex(2)(fixed, moving)
    off = [float((CoupledConvex(2, temperature=t)(fixed, moving) - hard).abs().max()) for t in (1.0, 0.1, 1e-4)]
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-3


def test_gradients_of_the_soft_one():
    fixed, moving = (features((4, 5), 2, seed, torch.float64).requires_grad_() for seed in (0, 1))
    convex = CoupledConvex(1, temperature=0.5)
    assert torch.autograd.gradcheck(convex, (fixed, moving), atol=1e-6)


@pytest.mark.parametrize(("learning", "says"), [(False, "1e"), (True, "1.8e")])
def test_too_much_memory_is_refused_before_it_is_taken(learning, says):
    fixed = torch.zeros(1, 1, 1, 1, requires_grad=learning).expand(1, 1, 10_000, 10_000)
    with pytest.raises(InputError, match=rf"25 displacements of \(10000, 10000\) voxels cost {says}\+02 GB.*more than"):
        CoupledConvex(2, temperature=1.0)(fixed, fixed)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no peak can be measured anew")
@pytest.mark.parametrize(
    ("options", "learning"),
    [
        pytest.param("couplings=(0.1,), memory=400 << 20", False, marks=pytest.mark.nightly),
        pytest.param("couplings=(0.1,), memory=10**10", False, marks=pytest.mark.nightly),
        ("2, temperature=1.0, blur=0", True),
        pytest.param("couplings=(0.1,), temperature=1.0, memory=10**10", False, marks=pytest.mark.nightly),
    ],
)
def test_no_more_memory_is_taken_than_was_stated(options, learning):
    """In a process of its own, whose allocator has nothing left from before; with costs so large that it keeps none."""
    script = f"""
import torch
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.numerics.cost_volume import cost_volume_bytes, offsets
from pullback.solvers import CoupledConvex
convex, cpu = CoupledConvex({options}), torch.device("cpu")
fixed, moving = torch.rand(2, 1, 4, 44, 44, 44).requires_grad_({learning})
convex(*(each[..., :8, :8, :8].detach() for each in (fixed, moving)))  # loads what torch loads when it is first used
stated = convex.copies(4, {learning}) * cost_volume_bytes(fixed, offsets(convex.half_width, 3, fixed))
forget_peak_memory(cpu)
before = peak_memory_mb(cpu)
out = convex(fixed, moving)
print(peak_memory_mb(cpu) - before, min(stated, convex.memory) / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    taken, stated = map(float, done.stdout.split())
    assert 0.4 * stated < taken < 1.1 * stated


@pytest.mark.parametrize("shape", [(24, 26), (14, 16, 15)])
def test_consistent_fields_undo_each_other_better(shape):
    forward = 3 * features(shape, len(shape), 3, smooth=4.0) / features(shape, len(shape), 3, smooth=4.0).std()
    backward = -forward + 0.5 * features(shape, len(shape), 5, smooth=2.0)
    inside = (..., *[slice(5, -5)] * len(shape))
    before = float(compose(backward, forward)[inside].abs().mean())
    one, two = consistent(forward, backward)
    assert float(compose(two, one)[inside].abs().mean()) < 0.2 * before


def test_a_mean_at_the_border_is_of_what_is_there():
    values = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 4)
    torch.testing.assert_close(box_mean(values, 3)[0, 0, :, 0], torch.tensor([0.5, 1, 2, 3, 3.5]))


@pytest.mark.parametrize(("factor", "finer"), [(6, 1), (6, 2), (4, 2), (2, 1)])
def test_a_linear_displacement_comes_back_from_its_blocks(factor, finer):
    """u(x) = a x + b, pooled, in voxels of blocks, and spread out again: the same, but beyond the outermost blocks."""
    x = torch.arange(48.0, dtype=torch.float64)
    whole = torch.stack(torch.meshgrid(0.1 * x + 1, -0.2 * x + 3, indexing="ij"))[None]
    again = unpooled(pooled(whole, factor) / factor, factor, (48 // finer,) * 2, finer)
    inside = (..., *[slice(factor // finer, -factor // finer)] * 2)
    torch.testing.assert_close(again[inside], (pooled(whole, finer) / finer)[inside])


def test_a_linear_displacement_comes_back_from_every_eighth_voxel():
    x = torch.arange(41.0, dtype=torch.float64)
    whole = torch.stack(torch.meshgrid(0.1 * x + 1, -0.2 * x + 3, indexing="ij"))[None]
    again = unpooled(whole[..., ::8, ::8] / 8, 8, (41, 41), strided=True)
    torch.testing.assert_close(again, whole)
