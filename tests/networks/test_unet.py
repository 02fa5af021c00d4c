"""Padding and the U-Net: any size in, the same size out, nothing shifted."""

import pytest
import torch
import torch.nn.functional as F

from pullback.networks import UNet, convolution, padded

SIZES = [(16, 32), (17, 23), (5, 3), (16, 16, 16), (9, 14, 11), (2, 19, 7)]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 8, 16])
def test_an_identity_within_padding_gives_its_input_back(shape, stride):
    values, seen = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0)), []

    def identity(inner):
        seen.append(inner)
        return inner

    assert torch.equal(padded(identity, values, stride), values)
    (inner,) = seen
    assert all(n % stride == 0 and 0 <= n - m < stride for n, m in zip(inner.shape[2:], shape, strict=True))
    torch.testing.assert_close(inner.sum(), values.sum())  # the rest are zeros


@pytest.mark.parametrize(("size", "before"), [(16, 0), (15, 0), (14, 1), (9, 3), (10, 3)])
def test_the_image_lies_in_the_middle_of_what_the_network_sees(size, before):
    """With the odd voxel behind it: a network that answers with its coordinates tells where the crop begins."""

    def coordinates(inner):
        return torch.arange(inner.shape[2]).view(1, 1, -1, 1).expand(1, 1, *inner.shape[2:])

    out = padded(coordinates, torch.zeros(1, 1, size, 8), 8)
    assert out[0, 0, :, 0].tolist() == list(range(before, before + size))


@pytest.mark.parametrize("shape", SIZES)
def test_a_unet_takes_any_size(shape):
    network = UNet(len(shape), 2, (4, 6), (6, 5, 4, 3))
    out = network(torch.rand(2, 2, *shape))
    assert out.shape == (2, network.channels_out, *shape) == (2, 3, *shape)
    assert out.isfinite().all()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [((4,), (5, 4, 3)), ((4, 5, 6, 7), (7, 6, 5, 4, 4, 3)), ((4, 5, 6, 7), (7, 6, 5, 4, 4, 3, 2, 2))],
)
def test_any_depth(ndim, encoder, decoder):
    network = UNet(ndim, 3, encoder, decoder)
    assert network.stride == 2 ** len(encoder)
    assert network(torch.rand(1, 3, *[10] * ndim)).shape == (1, decoder[-1], *[10] * ndim)


def test_a_decoder_too_short_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        UNet(2, 2, (4, 4), (4, 4, 4))


def test_every_weight_has_a_part_in_the_answer():
    torch.manual_seed(0)
    network = UNet(2, 2, (4, 5, 6), (6, 5, 4, 4, 3))
    network(torch.randn(1, 2, 16, 24)).square().sum().backward()
    parameters = dict(network.named_parameters())
    assert len(parameters) == 2 * (3 + 5)
    assert all(p.grad is not None and p.grad.any() for p in parameters.values())


@pytest.mark.parametrize("halves", [1, 2])
def test_the_stage_after_the_encoders_number_runs_at_half_size_or_at_full(halves):
    network, seen = UNet(2, 1, (2, 2), (2, 2, 2, 2), halves), []
    for stage in network.up:
        stage.register_forward_hook(lambda layer, given, found: seen.append(found.shape[-1]))
    assert network(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)
    assert seen == [8, 16, *((16, 32) if halves == 2 else (32, 32))]
    with pytest.raises(ValueError, match="1 or 2 convolutions at half size"):
        UNet(2, 1, (2, 2), (2, 2, 2, 2), 3)


def test_the_input_itself_is_skipped_to_the_decoder():
    """All silenced but the way from the input over the last skip: it arrives, at full resolution and in its place."""
    network = UNet(2, 1, (2, 2), (2, 2, 2, 1))
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    (full,) = (stage for stage in network.up if stage.in_channels == 2 + 1)  # upsampled features, and the input
    assert full is network.up[-1]
    full.weight.data[0, -1, 1, 1] = 1
    values = torch.rand(1, 1, 11, 18)
    torch.testing.assert_close(network(values), values)


@pytest.mark.parametrize("ndim", [2, 3])
def test_moving_the_input_by_the_stride_moves_the_output(ndim):
    """Away from the border: what sees the same, answers the same, wherever it lies."""
    torch.manual_seed(0)
    network = UNet(ndim, 1, (3, 3), (3, 3, 3, 2))
    values = torch.zeros(1, 1, *[64] * ndim) if ndim == 2 else torch.zeros(1, 1, 48, 32, 32)
    values[(0, 0, *[slice(14, 18)] * ndim)] = torch.rand([4] * ndim)
    with torch.no_grad():
        still = network(values) - network(torch.zeros_like(values))
        moved = network(values.roll(4, 2)) - network(torch.zeros_like(values))
    assert still.abs().max() > 1e-4
    torch.testing.assert_close(moved, still.roll(4, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_convolution_is_of_its_dimension(ndim):
    layer = convolution(ndim, 2, 3, 3, padding=1)
    values = torch.rand(1, 2, *[5] * ndim)
    expected = {2: F.conv2d, 3: F.conv3d}[ndim](values, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(values), expected)
