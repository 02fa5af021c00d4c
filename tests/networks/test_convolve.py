"""The detour must not show."""

import pytest
import torch
from torch import nn

from pullback.networks import convolve
from pullback.networks.convolve import SMALL


@pytest.mark.parametrize("depth", [4, 7, 8, 13])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_layer(depth, bias):
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv3d(5, 6, 3, padding=1, bias=bias)
    values = torch.randn(1, 5, depth, 9, 10, generator=generator, requires_grad=True)
    weight = torch.randn(1, 6, depth, 9, 10, generator=generator)
    ours, theirs = convolve(layer, values), layer(values)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    parts = (values, *layer.parameters())
    gradients = (torch.autograd.grad((out * weight).sum(), parts) for out in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(2, 3, 3, padding=1, stride=2),
        nn.Conv3d(2, 3, 1),
        nn.Conv3d(2, 3, 3),
        nn.Conv3d(2, 2, 3, padding=1, groups=2),
        nn.Conv3d(2, 3, 3, padding=2, dilation=2),
    ],
)
def test_other_layers_go_the_straight_way(layer):
    values = torch.rand(1, 2, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(convolve(layer, values), layer(values))


def test_2d_batches_and_large_volumes_go_the_straight_way():
    flat, solid = nn.Conv2d(2, 3, 3, padding=1), nn.Conv3d(1, 1, 3, padding=1)
    generator = torch.Generator().manual_seed(0)
    for layer, shape in ((flat, (1, 2, 9, 8)), (solid, (2, 1, 9, 8, 7)), (solid, (1, 1, 160, SMALL // 160 + 1, 4))):
        values = torch.rand(shape, generator=generator)
        assert torch.equal(convolve(layer, values), layer(values))
