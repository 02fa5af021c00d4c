"""LR-ASPP: sizes, strides, and as many weights as its table says."""

import pytest
import torch

from pullback.networks import Segmenter
from pullback.networks.lraspp import ASPP, LRASPP, ROWS, WIDE, Inverted, InvertedRow
from pullback.space import Grid, Image
from pullback.training import seeded


def count(module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("ndim", [2, 3])
def test_weights_are_as_many_as_the_table_says(ndim):
    """Convolutions without bias, and two numbers of normalisation for each channel."""
    volume = 3**ndim
    for row in ROWS:
        a, w, b = row.before, row.within, row.after
        assert count(Inverted(ndim, row)) == a * w + volume * w + w * b + 2 * (2 * w + b)
    first = Inverted(ndim, InvertedRow(1, 32, 16), first=True)
    assert count(first) == volume * 32 + volume * 32 + 32 * 16 + 2 * (2 * 32 + 16)
    pyramid = 2 * (64 * WIDE + 2 * WIDE) + 4 * (volume * 64 * WIDE + 2 * WIDE) + 6 * WIDE * WIDE + 2 * WIDE
    assert count(ASPP(ndim, 64)) == pyramid
    blocks = count(first) + sum(count(Inverted(ndim, row)) for row in ROWS)
    head = 16 * WIDE + 2 * WIDE + 16 * WIDE + 2 * (16 * WIDE + 16)
    assert count(LRASPP(ndim, 1)) == blocks + pyramid + head


@pytest.mark.parametrize("shape", [(17, 22), (9, 11, 14)])
def test_a_segmenter_of_it_answers_at_the_size_of_the_image(shape):
    with seeded(0):
        network = Segmenter(LRASPP, (1, 4), len(shape)).train()
    image = Image(torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0)), Grid.centred(shape))
    found = network.memberships(image)
    assert found.shape == (2, 3, *shape)
    found[:, 1].sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_fine_features_are_at_half_and_coarse_ones_at_a_quarter_of_the_size():
    """And look where they lie: an impulse is seen about its own place."""
    with seeded(0):
        network = LRASPP(2, 1).eval()
    impulse = torch.zeros(1, 1, 64, 64)
    impulse[..., 40, 16] = 1
    with torch.no_grad():
        fine = (network.fine(impulse) - network.fine(0 * impulse)).abs().sum(1)[0]
        blocks = network.coarse[:-1]
        coarse = (blocks(network.fine(impulse)) - blocks(network.fine(0 * impulse))).abs().sum(1)[0]
    assert (fine.shape, coarse.shape) == ((32, 32), (16, 16))
    for seen, stride in ((fine, 2), (coarse, 4)):
        total = seen.sum()
        centre = [float((seen.sum(1 - axis) * torch.arange(len(seen))).sum() / total) for axis in (0, 1)]
        assert centre == pytest.approx([40 / stride, 16 / stride], abs=1.0)


def test_blocks_are_added_where_channels_and_size_are_kept():
    assert [Inverted(2, row).adds for row in ROWS] == [True, False, True, False, True, False, False, True, True]
    assert not Inverted(2, InvertedRow(16, 32, 16), first=True).adds
