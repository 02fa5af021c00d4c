"""The detour must not show."""

import pytest
import torch
from torch import nn

from pullback.methods.pair.ddmr import PooledUNet
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.networks import FieldHead, channels_last, convolve
from pullback.networks.convolve import SMALL
from pullback.space import Grid, Image


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


@pytest.mark.parametrize("laid_out", [channels_last, torch.clone], ids=["channels last", "channels first"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv3d(16, 16, 3, padding=1), (2, 2, 2)),
        (nn.Conv3d(16, 16, 3, padding=1), (2, 3, 5)),
        (nn.Conv3d(16, 16, 3, padding=1, stride=2), (4, 3, 3)),
        (nn.Conv3d(16, 16, 4, stride=4), (4, 4, 4)),
        (nn.Conv2d(16, 16, 3, padding=1, stride=2), (7, 1)),
    ],
)
def test_bfloat16_is_right_on_a_few_voxels_too(layer, shape, laid_out):
    values = laid_out(torch.randn(1, 16, *shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    known = layer.double()(values.double())
    weight = torch.randn(known.shape, generator=torch.Generator().manual_seed(1))
    parts = (values, layer.weight)
    expected = torch.autograd.grad((known * weight).sum(), parts)
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(layer, values)
    for a, b in zip(
        (out, *torch.autograd.grad((out * weight).sum(), (values, layer.weight))), (known, *expected), strict=True
    ):
        assert (a - b).norm() < 0.01 * b.norm()


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (2, 3, 8, 9, 7)])
def test_channels_last_is_the_same_values_in_another_order(shape):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    laid_out = channels_last(values)
    assert torch.equal(laid_out, values)
    assert laid_out.stride(1) == 1


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    "make",
    [
        VoxelMorph,
        lambda ndim: PooledUNet(ndim, (4, 4)),
        lambda ndim: ViTVNet(ndim, hidden=12, mlp=12, blocks=1, heads=2),
    ],
    ids=["VoxelMorph", "PooledUNet", "ViTVNet"],
)
def test_no_layer_of_a_convolutional_network_undoes_the_layout(make, ndim):
    """One that did would have it made anew at every convolution after it."""
    network, seen = make(ndim).eval(), []
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d) and part.in_channels > 1:
            part.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    (head,) = (part for part in network.modules() if isinstance(part, FieldHead))
    head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    shape = (64,) * ndim
    data = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    image = Image(data, Grid.centred(shape))
    network(image, image)
    assert seen
    assert all(values.stride(1) == 1 for values in seen)
