"""TransMorph and ViT-V-Net: as large as their authors' networks, for any size, and what comes of dropout."""

import pytest
import torch

from pullback.errors import InputError
from pullback.methods.pair.transmorph import TransMorph
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import LIGHT, LIGHT_ENCODER, VoxelMorph
from pullback.networks import Up
from pullback.recipes import find
from pullback.space import Grid, Image
from pullback.training import seeded


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def images(shape):
    grid = Grid.centred(shape)
    generator = torch.Generator().manual_seed(0)
    return [Image(torch.rand(1, 1, *shape, generator=generator), grid) for _ in range(2)]


def test_as_many_parameters_as_the_authors_networks():
    """TransMorph: 46.77 million in its paper (table 3). ViT-V-Net: 31,560,079 in its authors' code; VoxelMorph: 301,411
    in its authors', which runs one convolution at full size that the paper (2018, fig. 3) has at half, and 274,387 in
    that of On-the-Fly Guidance."""
    assert count(TransMorph(3)) == pytest.approx(46.77e6, rel=1e-3)
    assert count(ViTVNet(3)) == 31_560_079
    assert count(VoxelMorph(3)) == 300_547
    assert count(VoxelMorph(3, halves=1)) == 301_411
    assert count(VoxelMorph(3, LIGHT_ENCODER, LIGHT, halves=1)) == 274_387
    for data in ("ixi", "phantom"):
        assert count(find("ofg", "voxelmorph-light", data).network()) == 274_387
        assert count(find("ofg", "voxelmorph", data).network()) == 300_547


def test_vit_v_net_begins_as_its_authors_have_it():
    """A linear layer of 252 channels draws from ±1/√252; Xavier for 252 and 3072 from ±√(6 / 3324)."""
    with seeded(0):
        block = ViTVNet(3).transformer[0]
    linear, xavier = 252**-0.5, (6 / 3324) ** 0.5
    attention = block.self_attn
    for weights in (attention.in_proj_weight, attention.out_proj.weight, block.linear1.weight, block.linear2.weight):
        bound = xavier if weights.shape[0] + weights.shape[1] == 3324 else linear
        assert bound * 0.999 < weights.abs().max() <= bound
        torch.testing.assert_close(weights.std(), torch.tensor(bound / 3**0.5), rtol=0.01, atol=0)
    for bias in (attention.in_proj_bias, attention.out_proj.bias):
        torch.testing.assert_close(bias.std(), torch.tensor(linear / 3**0.5), rtol=0.15, atol=0)
    for bias in (block.linear1.bias, block.linear2.bias):
        torch.testing.assert_close(bias.std(), torch.tensor(1e-6), rtol=0.15, atol=0)


@pytest.mark.parametrize("shape", [(16, 9), (40, 2), (16, 16, 16), (40, 40, 1)])
def test_images_too_small_for_transmorph(shape):
    image = Image(torch.rand(1, 1, *shape), Grid.centred(shape))
    with pytest.raises(InputError, match=r"3 voxels or more along each axis and more than 16 along one, got \("):
        TransMorph(len(shape), embed=12, heads=(1, 1, 1, 1), depths=(1, 1, 1, 1))(image, image)


@pytest.mark.parametrize("shape", [(37, 50), (40, 31), (33, 20, 26)])
@pytest.mark.parametrize("kind", [TransMorph, ViTVNet])
def test_any_size(kind, shape):
    with seeded(0):
        network = kind(len(shape))
    transform = network(*images(shape)).transform
    assert transform.field.shape == (1, len(shape), *shape)
    transform.field.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("size", [6, 5])
def test_what_was_filled_up_moves_nothing_in_the_decoder(size):
    """A ramp over three tokens goes on as one over six, and over the five of them that there are."""
    up = Up(2, 1, 1, 1, lambda channels: torch.nn.Identity())
    up.first, up.second = torch.nn.Identity(), torch.nn.Identity()
    ramp = torch.arange(3.0).view(1, 1, 3, 1).expand(1, 1, 3, 3)
    doubled, _ = up(ramp, torch.zeros(1, 1, size, size))[0]
    assert torch.allclose(doubled[1:5, 0], (torch.arange(1, 5) - 0.5) / 2)


@pytest.mark.parametrize("kind", [TransMorph, ViTVNet])
def test_every_weight_learns(kind):
    """None is without use: each gets a gradient."""
    with seeded(0):
        network = kind(2).eval()  # or stochastic depth leaves some out
        torch.nn.init.normal_(network.head.convolution.weight)
        network(*images((70, 90))).transform.field.square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []


def test_one_patch_is_too_little_to_train_on():
    with pytest.raises(InputError, match="32 voxels"):
        ViTVNet(2)(*images((30, 32)))
    assert ViTVNet(2).eval()(*images((30, 32))).transform.field.shape == (1, 2, 30, 32)


def test_no_two_blocks_of_attention_begin_alike():
    """As the copies of `nn.TransformerEncoder` do."""
    weights = [w for name, w in ViTVNet(2).named_parameters() if name.endswith(("in_proj_weight", "linear1.weight"))]
    assert len(weights) == 2 * 12
    assert not any(torch.equal(a, b) for n, a in enumerate(weights) for b in weights[:n])
