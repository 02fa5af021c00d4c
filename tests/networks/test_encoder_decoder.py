"""Encoder and decoder: sizes, counts of weights in closed form, every level in its place, 2-D as 3-D."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from pullback.errors import InputError
from pullback.networks import (
    Add,
    Concatenate,
    Convolutions,
    Decoder,
    Encoder,
    Strided,
    Transposed,
    batch_norm_relu,
    convolution,
    instance_norm_leaky,
    instance_norm_relu,
    linear_up,
    max_pooling,
    nearest_up,
)

PLAIN = Convolutions(instance_norm_relu)
SIZES = [(16, 32), (17, 23), (9, 5), (16, 8, 24), (9, 14, 11), (5, 19, 7)]
SHRINKS = {"pooled": max_pooling, "strided": Strided(instance_norm_leaky)}
GROWTHS = {"nearest": nearest_up, "linear": linear_up} | {
    f"transposed {kernel}": Transposed(instance_norm_relu, kernel) for kernel in (2, 3, 4, 5)
}


def same(ndim: int, before: int, after: int) -> nn.Module:
    """A block that changes nothing."""
    return nn.Identity()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def halves(shape: tuple[int, ...], times: int) -> tuple[int, ...]:
    for _ in range(times):
        shape = tuple(-(-n // 2) for n in shape)
    return shape


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("shrink", SHRINKS.values(), ids=SHRINKS)
@pytest.mark.parametrize("grow", GROWTHS.values(), ids=GROWTHS)
def test_every_size_is_halved_rounded_up_and_comes_back(shape, shrink, grow):
    ndim = len(shape)
    encoder = Encoder(ndim, 2, (3, 4, 5), PLAIN, shrink)
    features = encoder(torch.rand(2, 2, *shape))
    assert [tuple(f.shape) for f in features] == [(2, 3 + n, *halves(shape, n)) for n in range(3)]
    assert encoder.stride == 4
    decoder = Decoder(ndim, encoder.widths, (7, 6), PLAIN, grow)
    up = decoder(features)
    assert [tuple(f.shape) for f in up] == [(2, 6, *shape), (2, 7, *halves(shape, 1))]
    assert decoder.channels_out == 6
    (half,) = Decoder(ndim, encoder.widths, (7,), PLAIN, grow)(features)
    assert half.shape == up[1].shape


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernels", [(3, 3), (3, 1), (5,)])
def test_counts_of_weights(ndim, bias, kernels):
    """In closed form: kᵈ a b of each convolution, b of a bias, nothing of pooling, of nearest growth or of the norm."""
    widths, up = (3, 5, 8, 13), (7, 4)

    def block(a: int, b: int) -> int:
        sizes = pairwise((a, *[b] * len(kernels)))
        return sum(k**ndim * one * two + bias * two for k, (one, two) in zip(kernels, sizes, strict=True))

    parts = Convolutions(instance_norm_relu, kernels, bias)
    encoder = Encoder(ndim, 2, widths, parts, max_pooling)
    assert count(encoder) == block(2, 3) + block(3, 5) + block(5, 8) + block(8, 13)
    assert count(Decoder(ndim, widths, up, parts, nearest_up)) == block(13 + 8, 7) + block(7 + 5, 4)
    transposed = Decoder(ndim, widths, up, parts, Transposed(kernel=4, bias=bias))
    grown = 4**ndim * (13 * 7 + 7 * 4) + bias * (7 + 4)
    assert count(transposed) == grown + block(7 + 8, 7) + block(4 + 5, 4)
    strided = Encoder(ndim, 2, widths, parts, Strided(batch_norm_relu, bias))
    between = sum(3**ndim * width**2 + bias * width + 2 * width for width in widths[:-1])
    assert count(strided) == count(encoder) + between


@pytest.mark.parametrize("shrink", ["pooled", "strided"])
@pytest.mark.parametrize("grow", ["nearest", "transposed 2", "transposed 3"])
def test_in_3d_a_thin_axis_is_2d(shrink, grow):
    """Of kernels that are 3-D ones' middle planes: what lies beyond the one plane is zero."""
    torch.manual_seed(0)
    flat, deep = (_whole(ndim, SHRINKS[shrink], GROWTHS[grow]) for ndim in (2, 3))
    for one, three in zip(flat.parameters(), deep.parameters(), strict=True):
        if three.ndim == 5:
            nn.init.normal_(three)
            # a transposed kernel of even edge has its plane at the front: there voxel 0 comes from
            one.data = three.data[..., (three.shape[-1] - 1) // 2]
        else:
            one.data = three.data
    values = torch.randn(2, 2, 13, 18)
    torch.testing.assert_close(deep(values[..., None])[..., 0], flat(values), rtol=1e-4, atol=1e-4)


def _whole(ndim, shrink, grow) -> nn.Module:
    parts = Convolutions(instance_norm_leaky, bias=True)
    encoder = Encoder(ndim, 2, (3, 4), parts, shrink)
    decoder = Decoder(ndim, encoder.widths, (3,), parts, grow)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def forward(self, values):
            return self.decoder(self.encoder(values))[0]

    return Whole()


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_each_size_is_joined_with_its_own_features_from_the_first_voxel_on(shape):
    """Blocks that change nothing: the finest answer holds every size of the image, each over the voxels it is of."""
    ndim = len(shape)
    values = torch.rand(1, 1, *shape)
    features = Encoder(ndim, 1, (1, 1, 1), same, max_pooling)(values)
    fine, middle = Decoder(ndim, (1, 1, 1), (2, 3), same, nearest_up, Concatenate())(features)
    assert torch.equal(fine[:, 2:], values)
    assert torch.equal(middle[:, 1:], features[1])
    where = torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij")
    for channel, level in ((0, 2), (1, 1)):
        cell = tuple(at // 2**level for at in where)
        assert torch.equal(fine[0, channel], features[level][0, 0][cell])


def test_a_skip_that_is_added_passes_as_it_is_where_nothing_comes_from_below():
    encoder = Encoder(2, 1, (4, 4), PLAIN, max_pooling)
    decoder = Decoder(2, encoder.widths, (4,), same, Transposed(bias=True), Add())
    for weight in decoder.parameters():
        nn.init.zeros_(weight)
    features = encoder(torch.rand(1, 1, 9, 12))
    assert torch.equal(decoder(features)[0], features[0])


def test_a_size_without_a_skip_is_grown_to_alone():
    features = Encoder(2, 1, (3, 4), PLAIN, max_pooling)(torch.rand(1, 1, 9, 12))
    (whole,) = Decoder(2, (0, 4), (5,), PLAIN, nearest_up)([features[0][:, :0], features[1]])
    assert whole.shape == (1, 5, 9, 12)


def test_every_weight_has_a_part_in_the_answer():
    torch.manual_seed(0)
    encoder = Encoder(2, 2, (3, 4, 5), PLAIN, Strided(instance_norm_leaky))
    decoder = Decoder(2, encoder.widths, (4, 3), PLAIN, Transposed(instance_norm_leaky, 3))
    decoder(encoder(torch.randn(1, 2, 24, 20)))[0].square().mul(torch.rand(24, 20)).sum().backward()
    for module in (encoder, decoder):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ([1, 1], [1, 1, 2, 2]),
        ([0, 1, 0], [1, 0, 2, 0]),
        ([0, 1, 1, 0], [1, 1, 2, 2]),
        ([0, 0, 1, 0, 0], [1, 0, 2, 0]),
    ],
)
def test_transposed_convolution_puts_voxel_n_at_2n(kernel, expected):
    grow = Transposed(kernel=len(kernel))(2, 1, 1)
    (weight,) = grow.parameters()
    weight.data = torch.outer(torch.tensor(kernel), torch.tensor(kernel)).float()[None, None]
    values = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
    assert grow(values, (4, 1))[0, 0, :, 0].tolist() == expected
    assert grow(values, (3, 2))[0, 0, :, 0].tolist() == expected[:3]


def test_a_block_is_of_its_dimension_and_kernels():
    block = Convolutions(batch_norm_relu, (5, 1), bias=True)(3, 2, 4)
    kinds = [m for m in block.modules() if isinstance(m, type(convolution(3, 1, 1, 1)))]
    assert [m.kernel_size for m in kinds] == [(5, 5, 5), (1, 1, 1)]
    assert block(torch.rand(2, 2, 6, 5, 7)).shape == (2, 4, 6, 5, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Encoder(2, 1, (), PLAIN, max_pooling), "channels of 1 or more"),
        (lambda: Encoder(2, 0, (4,), PLAIN, max_pooling), "channels of 1 or more"),
        (lambda: Decoder(2, (3, 4), (4, 4), PLAIN, nearest_up), "1 to 1 blocks"),
        (lambda: Decoder(2, (3, 4), (), PLAIN, nearest_up), "1 to 1 blocks"),
        (lambda: Decoder(2, (3, 4), (5,), PLAIN, nearest_up, Add()), "4 and 3"),
        (lambda: Transposed(kernel=1), "2 or more"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
