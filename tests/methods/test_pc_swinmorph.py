"""PC-SwinMorph: patches know nothing of each other but by attention, both ways are one network, contrast is NT-Xent."""

import math
from dataclasses import replace

import pytest
import torch

from pullback.alignment import BACK, Pair
from pullback.energies import MSE, Diffusion
from pullback.errors import InputError
from pullback.methods.pair.patch_contrast import PatchAlignment, PatchContrastive
from pullback.methods.pair.pc_swinmorph import PCSwinMorph
from pullback.networks import together
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.numerics.tiles import Tiling
from pullback.recipes import find, known
from pullback.space import Grid, Image, Labels, Velocity, pull
from pullback.testing import check_register, problems
from pullback.training import seeded

SMALL = {"widths": (4, 8, 8), "embed": 12, "projected": 16}


def made(ndim=2, window=4, field=0.1, stitched=0.1, **options):
    """A network in evaluation mode, whose last layers answer with some motion, as if it had seen some images."""
    with seeded(3):
        network = PCSwinMorph(ndim, window=(window,) * ndim, **{**SMALL, **options})
        torch.nn.init.normal_(network.field.weight, std=field)
        if network.stitch is not None:
            torch.nn.init.normal_(network.stitch.out.weight, std=stitched)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            layer.momentum = 1.0  # its statistics are those of what it sees
    with torch.no_grad():
        network(*images(tuple(16 * count for count in network.tiles), seed=11))
    return network.eval().requires_grad_(False)


def images(shape, batch=1, seed=0):
    like, generator = torch.empty(0), make_generator(seed)
    data = [smooth_noise((batch, 1, *shape), 1.5, generator, like) for _ in range(2)]
    return [Image((each - each.min()) / (each.max() - each.min()), Grid.centred(shape)) for each in data]


def other_in(image, part):
    """The image with other intensities in a part of it, slices along its axes."""
    data = image.data.clone()
    data[(..., *part)] = 1 - data[(..., *part)]
    return replace(image, data=data)


def apart(one, two):
    return (one.field - two.field).abs().amax(1)[0]


# patches


@pytest.mark.parametrize(("shape", "tiles"), [((64, 96), (2, 2)), ((50, 71), (2, 3)), ((35, 16, 20), (2, 1, 1))])
def test_patches_are_independent_before_they_are_stitched(shape, tiles):
    """Exactly: other intensities in the first patch change no displacement of another."""
    network = made(len(shape), stitch=False, tiles=tiles)
    fixed, moving = images(shape)
    first = tuple(slice(seams[0] if seams else None) for seams in network.seams(shape))
    answer = network(fixed, moving)
    for changed in ((other_in(fixed, first), moving), (fixed, other_in(moving, first))):
        after = network(*changed)
        for one, two in ((answer.transform, after.transform), (answer.transforms[BACK], after.transforms[BACK])):
            far = apart(one, two)
            assert far[first].max() > 1e-3
            far[first] = 0
            assert not far.any()


@pytest.mark.parametrize(("window", "reach"), [(4, 2), (5, 2), (7, 3)])
def test_shifted_windows_cross_the_seams_and_no_farther(window, reach):
    """By half a window, in tokens of 4 voxels, and 2 voxels of the upsampling; unshifted ones by those 2 alone."""
    edge = math.lcm(8, 4 * window)
    shape = (2 * edge, edge)
    network, (fixed, moving) = made(window=window, tiles=(2, 1)), images(shape)
    assert network.patches(shape).size == (edge, edge)
    first = (slice(edge), slice(None))
    far = apart(network(fixed, moving).transform, network(other_in(fixed, first), moving).transform).amax(1)
    beyond = 4 * reach + 2
    assert far[:edge].min() > 0
    assert far[edge : edge + beyond].min() > 0
    assert not far[edge + beyond :].any()
    network.stitch.blocks[1].shift = (0, 0)
    far = apart(network(fixed, moving).transform, network(other_in(fixed, first), moving).transform).amax(1)
    assert far[edge : edge + 2].min() > 0
    assert not far[edge + 2 :].any()


@pytest.mark.parametrize("key", [key for key in known() if key.method == "pc-swinmorph"], ids="-".join)
def test_each_seam_lies_within_a_shifted_window(key):
    """By sizes alone, for all images of that many voxels and more: windows fill patches, shifted ones cross seams."""
    network = find(*key).network()
    for n in (33, 48, 80, 91, 112, 160, 181, 216, 291):
        tiling = network.patches((n,) * len(network.window))
        sizes = zip(tiling.size, network.tiles, tiling.shape, network.window, network.seams(tiling.shape), strict=True)
        for edge, count, whole, window, seams in sizes:
            assert 4 <= window <= 7
            tokens, rest = divmod(edge, 4)
            assert rest == tokens % window == edge % 8 == 0
            assert whole == count * edge >= n
            starts = range(window // 2 - window, whole // 4, window)  # of shifted windows
            assert [*seams] == [*range(edge, whole, edge)]
            for seam in range(tokens, whole // 4, tokens):
                assert any(start < seam < start + window for start in starts)


def test_without_stitching_one_patch_is_a_plain_network():
    """Encoder, bottom and decoder by hand on the whole image, with the same weights."""
    network, (fixed, moving) = made(tiles=(1, 1), window=5, stitch=False), images((80, 40))
    values = together(fixed, moving)
    one, two = (network.encoder(each) for each in values.chunk(2, 1))
    below = network.bottom(torch.cat([network.pool(one[-1]), network.pool(two[-1])], 1))
    for rise, *level in zip(network.up, reversed(one), reversed(two), strict=True):
        (below,) = rise([torch.cat(level, 1), below])
    assert (network.field(below) - network(fixed, moving).transform.field).abs().max() < 1e-5


def test_stitching_by_nothing_is_laying_together():
    shape = (64, 50)
    network, (fixed, moving) = made(stitched=0.0), images(shape)
    answer = network(fixed, moving)
    network.stitch = None
    assert torch.equal(answer.transform.field, network(fixed, moving).transform.field)


def test_a_batch_of_patches_is_the_patches_one_by_one():
    network, (fixed, moving) = made(stitch=False, tiles=(2, 2)), images((64, 64))
    whole = network(fixed, moving).transform.field
    network.tiles = (1, 1)
    tiling = Tiling((64, 64), (32, 32), (32, 32))
    parts = []
    for one, two in zip(tiling.cut(fixed.data), tiling.cut(moving.data), strict=True):
        grid = Grid.centred((32, 32))
        parts.append(network(Image(one, grid), Image(two, grid)).transform.field)
    assert (tiling.laid(torch.stack(parts)) - whole).abs().max() < 1e-5


def test_a_batch_of_pairs_is_the_pairs_one_by_one():
    network, (fixed, moving) = made(), images((48, 66), batch=3)
    together_ = network(fixed, moving)
    for n in range(3):
        alone = network(fixed.nth(n), moving.nth(n))
        assert (together_.transform.nth(n).field - alone.transform.field).abs().max() < 1e-5
        assert (together_.projections.unflatten(1, (4, 3))[:, :, n] - alone.projections).abs().max() < 1e-5


@pytest.mark.parametrize("transform", [None, Velocity])
def test_images_exchanged_exchange_the_ways(transform):
    network = made(**({} if transform is None else {"transform": transform}))
    fixed, moving = images((50, 70))
    here, there = network(fixed, moving), network(moving, fixed)
    assert (here.transform.field - there.transforms[BACK].field).abs().max() < 1e-5
    assert (here.transforms[BACK].field - there.transform.field).abs().max() < 1e-5
    assert (here.transform.field - here.transforms[BACK].field).abs().max() > 1e-2
    assert (here.projections - there.projections.flip(0)).abs().max() < 1e-5


def test_a_border_that_goes_on_changes_seams_and_not_the_inside():
    """The two differ by what convolutions see beyond a patch, and have the same weights."""
    fixed, moving = images((160, 160))
    zeros, repeated = (made(window=5, border=kind, stitch=False) for kind in ("zeros", "replicate"))
    repeated.load_state_dict(zeros.state_dict())
    one, two = (network(fixed, moving).transform for network in (zeros, repeated))
    far = apart(one, two)
    assert far[79:81].mean() > 0.1 * one.field.abs().mean()
    assert far[36:44, 36:44].mean() < 0.1 * far[79:81].mean()


# contracts


REGISTERED = {"two patches": {"window": (4, 4)}, "one": {"tiles": (1, 1), "window": (4, 4), "stitch": False}}


@pytest.mark.parametrize("options", REGISTERED.values(), ids=REGISTERED)
@pytest.mark.parametrize("problem", problems(ndim=2), ids=str)
def test_the_register_keeps_its_contract(problem, options):
    """On images that are too small for two patches it may refuse."""
    solves = problem.name == "identity" and min(problem.pair.fixed.grid.shape) >= 24
    with seeded(5):
        check_register(PCSwinMorph(2, **options, **SMALL).eval(), problem, solves=solves, rounding=1e-3)


def test_in_three_dimensions_it_keeps_its_contract():
    (problem,) = problems("identity", ndim=3)
    with seeded(5):
        check_register(PCSwinMorph(3, (1, 1, 1), window=(4, 4, 4), **SMALL).eval(), problem, rounding=1e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tiles": (2, 0)}, "one patch or more"),
        ({"tiles": (2, 2, 2)}, "along each of 2 axes"),
        ({"window": (3, 6)}, "windows of 4 to 7"),
        ({"window": (8, 6)}, "windows of 4 to 7"),
        ({"border": "reflect"}, "zeros or replicate"),
    ],
)
def test_bad_numbers_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        PCSwinMorph(2, **options)


def test_images_that_are_too_small_for_the_patches_are_refused():
    with pytest.raises(InputError, match="2 patches along axis 1 need 24 voxels, got 21: take fewer patches"):
        made()(*images((40, 21)))


def test_labels_of_the_fixed_image_are_carried_by_the_way_back():
    """What the paper calls segmentation; a network that answers with a known shift there and its opposite back."""
    fixed, _ = images((48, 48))
    labels = torch.zeros(1, 1, 48, 48, dtype=torch.int16)
    labels[..., 20:30, 18:28] = 7
    network = made(tiles=(1, 1), stitch=False, field=0.0)
    with torch.no_grad():
        network.field.bias.copy_(torch.tensor([3.0, -2.0]))
    answer = network(fixed, fixed)
    carried = pull(Labels(labels, fixed.grid), answer.transforms[BACK], onto=fixed)
    assert torch.equal(carried.data[..., 17:27, 20:30], labels[..., 20:30, 18:28])
    assert isinstance(answer, PatchAlignment)


# learning


@pytest.mark.nightly
def test_it_learns_a_shift_that_patches_see():
    """Two voxels, of one pair."""
    noise = smooth_noise((1, 1, 34, 32), 4.0, make_generator(7), torch.empty(0))
    grid = Grid.centred((32, 32))
    pair = Pair(Image(noise[..., 2:, :].contiguous(), grid), Image(noise[..., :32, :].contiguous(), grid))
    with seeded(0):
        network = PCSwinMorph(2, window=(4, 4), **SMALL)
    supervision = PatchContrastive(MSE() + 0.05 * Diffusion())
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(200):
        optimiser.zero_grad()
        torch.stack(
            [value for name, value in supervision(network, pair, 0.0).items() if "/" not in name]
        ).sum().backward()
        optimiser.step()
    with torch.no_grad():
        found = network(*pair.images).transform.field
    truth = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    assert (found - truth)[..., 3:-5, 3:-3].norm(dim=1).mean() < 0.7
