"""Residual networks: as many weights as others count, and what their stages keep."""

import pytest
import torch

from pullback.errors import InputError
from pullback.networks import ResidualNet
from pullback.networks.residual import Preactivated


@pytest.mark.parametrize(("blocks", "weights"), [((3, 4, 6, 3), 23_519_360), ((3, 4, 23, 3), 42_528_896)])
def test_weights_of_keras_without_their_top(blocks, weights):
    """As Keras counts the trainable ones of ResNet50V2 and ResNet101V2 of three channels."""
    with torch.device("meta"):
        net = ResidualNet(2, 3, blocks=blocks, bottleneck=True)
    assert sum(each.numel() for each in net.parameters()) == weights
    assert net.channels_out == 2048


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_whose_layers_are_silent_keeps_its_input(ndim, bottleneck):
    torch.manual_seed(0)
    block = Preactivated(ndim, 8, 2 if bottleneck else 8, 2, bottleneck).eval()
    for weight in block.layers[-1].parameters():
        torch.nn.init.zeros_(weight)
    values = torch.randn(2, 8, *[7, 6, 5][:ndim])
    assert torch.equal(block(values), values[(..., *[slice(None, None, 2)] * ndim)])


def test_each_stage_but_the_last_halves_the_size():
    net = ResidualNet(2, 1, (4, 6, 8), (1, 2, 1), first=4, kernel=5, pooled=False)
    sizes = []
    for stage in net.stages:
        stage.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    net(torch.zeros(2, 1, 40, 33))
    assert sizes == [(4, 10, 9), (6, 5, 5), (8, 5, 5)]


def test_stages_without_blocks_are_refused():
    with pytest.raises(InputError, match="widths and blocks of 1 or more"):
        ResidualNet(2, 1, (4, 8), (1,))
