"""Attention in windows, against attention among all tokens with a mask that says who shares a window."""

import itertools
import math

import pytest
import torch

from pullback.networks import Swin
from pullback.networks.swin import PatchMerging, SwinBlock
from pullback.training import seeded

WIDTH, HEADS = 12, 3


def block(window, shift):
    with seeded(1):
        made = SwinBlock(WIDTH, HEADS, window, shift, 0.0).eval()
        torch.nn.init.normal_(made.position)
    return made


def tokens(*shape):
    return torch.randn(1, *shape, WIDTH, generator=torch.Generator().manual_seed(2))


def by_hand(made: SwinBlock, values: torch.Tensor, window, shift) -> torch.Tensor:
    """Each token looks at those whose coordinates, less the shift, fall into the same window; one loop per token."""
    shape = values.shape[1:-1]
    where = list(itertools.product(*map(range, shape)))
    group = {x: tuple((a - s) // w for a, s, w in zip(x, shift, window, strict=True)) for x in where}
    known = made.norm(values)[0]
    projected = {x: made.look(known[x]).view(3, HEADS, -1) for x in where}
    out = torch.empty_like(known)
    for x in where:
        near = [y for y in where if group[y] == group[x]]
        scores = []
        for y in near:
            apart = tuple(a - b + w - 1 for a, b, w in zip(x, y, made.window, strict=True))
            bias = made.position[(slice(None), *apart)]
            scores.append((projected[x][0] * projected[y][1]).sum(-1) / math.sqrt(WIDTH / HEADS) + bias)
        weights = torch.stack(scores).softmax(0)
        out[x] = made.gather(sum(w[:, None] * projected[y][2] for w, y in zip(weights, near, strict=True)).flatten())
    after = values + out[None]
    return after + made.mlp(after)


@pytest.mark.parametrize(
    ("shape", "window", "shift"),
    [
        ((8, 6), (4, 3), (0, 0)),
        ((8, 6), (4, 3), (2, 1)),
        ((7, 5), (4, 3), (0, 0)),
        ((7, 5), (4, 3), (2, 1)),
        ((4, 5, 6), (2, 3, 4), (1, 1, 2)),
        ((5, 3, 6), (2, 3, 4), (1, 0, 2)),
    ],
)
def test_a_block_is_attention_among_those_that_share_a_window(shape, window, shift):
    made, values = block(window, shift), tokens(*shape)
    with torch.no_grad():
        torch.testing.assert_close(made(values), by_hand(made, values, window, shift), rtol=1e-4, atol=1e-5)


def test_where_there_are_fewer_tokens_than_a_window_all_look_at_all():
    values = tokens(3, 2)
    with torch.no_grad():
        made = block((4, 5), (2, 2))
        torch.testing.assert_close(made(values), by_hand(made, values, (3, 2), (0, 0)), rtol=1e-4, atol=1e-5)


def test_merging_takes_each_corner_of_a_cell_once():
    merge = PatchMerging(2, 3)
    values = torch.arange(4 * 6 * 3.0).view(1, 4, 6, 3)
    merge.norm = torch.nn.Identity()
    merge.reduce = torch.nn.Identity()
    cell = merge(values)[0, 1, 2]
    assert sorted(cell.tolist()) == sorted(values[0, 2:4, 4:6].flatten().tolist())


@pytest.mark.parametrize("shape", [(33, 18), (21, 16, 27)])
def test_the_features_of_any_size(shape):
    with seeded(0):
        swin = Swin(len(shape), 2, 4, 8, (2, 2), (2, 2), (3,) * len(shape), 0.1).eval()
    features = swin(torch.rand(2, 2, *shape))
    for n, (stage, width) in enumerate(zip(features, (8, 16), strict=True)):
        assert stage.shape == (2, width, *(math.ceil(math.ceil(s / 4) / 2**n) for s in shape))


def test_stochastic_depth_leaves_out_whole_pairs_and_keeps_the_mean():
    made = SwinBlock(WIDTH, HEADS, (2, 2), (0, 0), 0.5).train()
    residual = torch.ones(4000, 1, 1, 1)
    with seeded(0):
        kept = made._sometimes(residual).flatten()
    assert set(kept.tolist()) == {0.0, 2.0}
    assert 0.95 < float(kept.mean()) < 1.05
    assert torch.equal(made.eval()._sometimes(residual), residual)
