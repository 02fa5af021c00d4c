"""VoxelMorph as a register: nearly still when untrained, the same from the same seed, any size and dimension."""

import pytest
import torch

from pullback.methods.pair.voxelmorph import ENCODER, VOXELMORPH_1, VOXELMORPH_2, VoxelMorph
from pullback.networks import together
from pullback.space import Displacement, Image, Velocity

SHAPES = [(20, 17), (18, 16, 13)]


def images(oblique, shape, other=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    fixed = Image(torch.rand(1, 1, *shape, generator=generator), oblique(shape, 1))
    grid = fixed.grid if other is None else oblique(other, 2)
    return fixed, Image(torch.rand(1, 1, *grid.shape, generator=generator), grid)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [Displacement, Velocity])
def test_untrained_it_hardly_moves_anything(oblique, shape, kind):
    torch.manual_seed(0)
    fixed, moving = images(oblique, shape)
    alignment = VoxelMorph(len(shape), transform=kind)(fixed, moving)
    assert isinstance(alignment.transform, kind)
    assert alignment.transform.grid == fixed.grid
    assert alignment.transform.field.shape == (1, len(shape), *shape)
    motion = alignment.transform.displacement(fixed.grid)
    assert 0 < motion.abs().max() < 1e-2
    assert (alignment.moved.data - moving.data).abs().max() < 1e-2
    assert alignment.pair.fixed is fixed
    assert alignment.pair.moving is moving


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(oblique, shape):
    networks = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        networks.append(VoxelMorph(len(shape)))
    one, two, three = (n.state_dict() for n in networks)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], three[k]) for k in one)
    fixed, moving = images(oblique, shape)
    assert torch.equal(networks[0](fixed, moving).transform.field, networks[1](fixed, moving).transform.field)


@pytest.mark.parametrize("shapes", [((20, 17), (15, 22)), ((18, 16, 13), (12, 17, 15))])
def test_the_moving_image_may_lie_on_another_grid(oblique, shapes):
    """What the network sees of it is what lies where the headers say: moving it with its header changes nothing."""
    torch.manual_seed(0)
    network = VoxelMorph(len(shapes[0]))
    fixed, moving = images(oblique, *shapes)
    answer = network(fixed, moving).transform
    assert answer.grid == fixed.grid
    flip = torch.eye(len(shapes[0]) + 1, dtype=torch.float64)
    flip[0, 0], flip[0, -1] = -1, shapes[1][0] - 1
    flipped = Image(moving.data.flip(2), type(moving.grid)(moving.grid.shape, moving.grid.affine @ flip))
    torch.testing.assert_close(network(fixed, flipped).transform.field, answer.field, rtol=0, atol=1e-7)


def test_the_order_of_the_images_matters(oblique):
    torch.manual_seed(0)
    fixed, moving = images(oblique, (20, 17))
    network = VoxelMorph(2)
    there, back = network(fixed, moving).transform.field, network(moving, fixed).transform.field
    assert (there - back).abs().max() > 0.1 * there.abs().max()


@pytest.mark.parametrize("decoder", [VOXELMORPH_1, VOXELMORPH_2])
def test_both_published_widths(oblique, decoder):
    fixed, moving = images(oblique, (18, 16, 13))
    network = VoxelMorph(3, ENCODER, decoder)
    assert network(fixed, moving).transform.field.shape == (1, 3, 18, 16, 13)
    assert network.unet.channels_out == decoder[-1]


def test_the_answer_can_be_learnt_from(oblique):
    torch.manual_seed(0)
    fixed, moving = images(oblique, (20, 17))
    network = VoxelMorph(2)
    (network(fixed, moving).moved.data - fixed.data).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.head.convolution.weight.grad.any()


def test_the_field_is_float32_also_where_the_network_is_not(oblique):
    torch.manual_seed(0)
    fixed, moving = images(oblique, (20, 17))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert VoxelMorph(2)(fixed, moving).transform.field.dtype == torch.float32


def test_where_headers_lay_the_moving_image_is_not_rounded(oblique):
    """Reduced precision is for convolutions: coordinates in bfloat16 are off by up to half a voxel."""
    fixed, moving = images(oblique, (60, 55), (50, 58))
    seen = together(fixed, moving)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(together(fixed, moving), seen)
