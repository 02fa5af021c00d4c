"""What the study of PC-SwinMorph measures: jumps across seams, groups both ways, and rivals that are what they say."""

import math
from functools import partial

import pytest
import torch

from pullback.alignment import BACK, Alignment, Pair
from pullback.energies import MSE, Diffusion
from pullback.methods.pair.patch_contrast import PatchContrastive
from pullback.methods.pair.pc_swinmorph import PCSwinMorph
from pullback.metrics import Dice
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Displacement, Grid, Image, Labels, Velocity, pull
from pullback.studies._both_ways import HALF, OTHER, Cycle, Halfway, OneVelocity, TwoHalves
from pullback.studies.pc_swinmorph import BothDice, SeamJump, blended
from pullback.testing import check_supervision, problems
from pullback.training import Unsupervised, seeded

SMALL = partial(PCSwinMorph, ndim=2, window=(4, 4), widths=(4, 8, 8), embed=12, projected=8)
ALONE = partial(SMALL, tiles=(1, 1), stitch=False)
GRID = Grid.centred((64, 64))


def smooth(*shape, sigma=3.0, seed=0):
    return smooth_noise(shape, sigma, make_generator(seed), torch.empty(0))


def pair_of(fixed_labels=None, moving_labels=None):
    images = (Image(smooth(1, 1, 64, 64, seed=n), GRID) for n in (0, 1))
    return Pair(*images, fixed_labels, moving_labels)


def jump(field, grid=GRID):
    image = Image(torch.zeros(1, 1, *grid.shape), grid)
    return SeamJump(SMALL)(Alignment(Pair(image, image), Displacement(field, grid)))["seam jump"]


def test_a_smooth_field_has_no_seam_and_patches_of_their_own_are_seen():
    at = torch.arange(64.0) * 2 * math.pi / 64
    waves = torch.sin(3 * at[:, None] + 2 * at), torch.cos(at[:, None] - 4 * at)
    assert jump(torch.stack(waves)[None]) == pytest.approx(1, abs=0.05)  # whole periods along each seam
    rows = torch.arange(64.0).view(1, 1, 64, 1).expand(1, 2, 64, 64)
    assert jump(rows + rows.transpose(2, 3)) == pytest.approx(1, abs=1e-6)
    steps = torch.zeros(1, 2, 64, 64)
    steps[..., 32:, :] = 1.0
    steps[..., :, 32:] += 2.0
    assert jump(steps) > 1e5
    elsewhere = torch.zeros(1, 2, 64, 64)
    elsewhere[..., 16:, :] = 1.0
    assert jump(elsewhere) == 0
    assert not SeamJump(SMALL)(Alignment(pair_of(), Affine.identity(2)))


def test_seams_lie_where_the_network_has_them():
    """In images that are continued: 50 rows in patches of 32 have their seam after row 25."""
    grid = Grid.centred((50, 64))
    steps = torch.zeros(1, 2, 50, 64)
    steps[..., 25:, :] = 1.0
    assert jump(steps, grid) > 1e4
    assert jump(steps.roll(1, 2), grid) < 100


def test_convolutions_that_see_zeros_beyond_make_seams():
    with seeded(0):
        layers = torch.nn.Sequential(*(torch.nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 8), (8, 8), (8, 2))))
    values = 1 + 0.1 * smooth(1, 1, 64, 64)
    with torch.no_grad():
        parts = [layers(values[..., a : a + 32, b : b + 32]) for a in (0, 32) for b in (0, 32)]
        tiles = torch.cat([torch.cat(parts[:2], 3), torch.cat(parts[2:], 3)], 2)
        whole = layers(values)
    inside = (..., slice(4, -4), slice(4, -4))
    small = Grid.centred((56, 56))
    assert jump(tiles[inside], small) > 1.5 > 1.3 > jump(whole[inside], small)


def test_groups_are_fused_before_they_are_carried():
    """Two labels that lie exchanged are one group that lies right, and each by itself they are lost."""
    fixed, moving = (torch.zeros(1, 1, 64, 64, dtype=torch.int16) for _ in range(2))
    fixed[..., 10:20, 10:20], fixed[..., 10:20, 20:30] = 1, 2
    moving[..., 10:20, 10:20], moving[..., 10:20, 20:30] = 2, 1
    fixed[..., 40:50, 40:50] = moving[..., 40:50, 45:55] = 9
    still = Alignment(pair_of(Labels(fixed, GRID), Labels(moving, GRID)), Affine.identity(2))
    numbers = BothDice((("both", (1, 2)), ("other", (9,))))(still)
    assert numbers == {
        "dice": 0.75,
        "dice/both": 1.0,
        "dice/other": 0.5,
        "back dice": 0.75,
        "back dice/both": 1.0,
        "back dice/other": 0.5,
    }
    assert Dice()(still)["dice"] == pytest.approx(0.5 / 3)


def test_the_way_back_is_the_answers_own_or_the_inverse():
    """A shift of five voxels there lays the moving label right; back it is carried by what is asked."""
    fixed, moving = (torch.zeros(1, 1, 64, 64, dtype=torch.int16) for _ in range(2))
    fixed[..., 20:30, 20:30] = moving[..., 25:35, 20:30] = 1
    shift = Affine(torch.tensor([[1.0, 0, 5], [0, 1, 0], [0, 0, 1]], dtype=torch.float64))
    pair = pair_of(Labels(fixed, GRID), Labels(moving, GRID))
    there = Alignment(pair, shift)
    assert (BothDice()(there)["dice"], BothDice()(there)["back dice"]) == (1, 1)
    lost = Alignment(pair, shift, transforms={BACK: Affine.identity(2)})
    assert (BothDice()(lost)["dice"], BothDice()(lost)["back dice"]) == (1, 0.5)


def moving_network(make):
    with seeded(2):
        network = make().eval()
        for layer in network.modules():
            if isinstance(layer, PCSwinMorph):
                torch.nn.init.normal_(layer.field.weight, std=0.5)
                torch.nn.init.constant_(layer.field.bias, 1.0)
    return network.requires_grad_(False)


def test_velocities_of_rivals_lead_there_and_back():
    images = pair_of().images
    one = moving_network(partial(OneVelocity, partial(ALONE, transform=Velocity)))(*images)
    assert torch.equal(one.transforms[BACK].field, -one.transform.field)
    two = moving_network(partial(TwoHalves, partial(ALONE, transform=Velocity)))(*images)
    points = torch.rand(1, 50, 2, generator=make_generator(0), dtype=torch.float64) * 30 - 15
    middle = two.transforms[OTHER].inverse()(points)
    assert (two.transform(points) - two.transforms[HALF](middle)).abs().max() < 1e-6
    assert (two.transforms[BACK](two.transform(points)) - points).abs().max() < 0.05
    assert (middle - points).abs().max() > 0.1


RIVALS = {
    "DeepTag": (Unsupervised(), partial(OneVelocity, partial(ALONE, transform=Velocity))),
    "SYMNet": (Halfway(), partial(TwoHalves, partial(ALONE, transform=Velocity))),
    "CycleMorph": (Cycle(), ALONE),
}


@pytest.mark.nightly
@pytest.mark.parametrize(("supervision", "network"), RIVALS.values(), ids=RIVALS)
def test_supervisions_of_rivals(supervision, network):
    (problem,) = problems("smooth", ndim=2)
    check_supervision(supervision, network, problem.pair)


@pytest.mark.parametrize(("supervision", "network"), RIVALS.values(), ids=RIVALS)
def test_rivals_learn_by_the_sum_of_their_terms(supervision, network):
    grid = Grid.centred((24, 24))
    pair = Pair(*(Image(smooth(1, 1, 24, 24, seed=n), grid) for n in (0, 1)))
    with seeded(2):
        learner = network()
    terms = supervision(learner, pair, 0.0)
    torch.stack([*terms.values()]).sum().backward()
    fields = [layer.field.weight.grad for layer in learner.modules() if isinstance(layer, PCSwinMorph)]
    assert all(value.isfinite() for value in terms.values())
    assert fields[0].abs().max() > 0


def test_the_middle_of_two_halves_is_where_both_images_meet():
    """Of images that are one image moved by opposite shifts, the similarity in the middle is that of one to itself."""
    grid = Grid.centred((40, 32))
    data = smooth(1, 1, 48, 32).square() * torch.exp(-(((torch.arange(48.0) - 24) / 6) ** 2)).view(
        1, 1, -1, 1
    )  # 0 at its ends
    fixed, moving = (Image(data[..., a : a + 40, :].contiguous(), grid) for a in (2, 6))  # M(x) = F(x + 4)

    def register(one, two):
        ways = [Velocity(torch.zeros(1, 2, 40, 32), grid) for _ in range(2)]
        for way, by in zip(ways, (-2.0, 2.0), strict=True):  # to the moving image, and to the fixed one
            way.field[:, 0] = by
        half, other = ways
        return Alignment(
            Pair(one, two), half @ other.inverse(), transforms={BACK: other @ half.inverse(), HALF: half, OTHER: other}
        )

    terms = Halfway(similarity=MSE())(register, Pair(fixed, moving), 0.0)
    still = float((fixed.data - moving.data).square().mean())
    assert float(terms["middle mse"]) < 0.02 * still
    assert float(terms["mse"]) < 0.02 * still
    assert float(terms["length"]) == 0


def test_images_that_are_alike_come_back_and_stay():
    """Nothing moves: nothing is left of the cycle, nor of what moves onto itself."""
    image = Image(smooth(1, 1, 32, 32), Grid.centred((32, 32)))
    still = moving_network(ALONE)
    for weight in still.field.parameters():
        torch.nn.init.zeros_(weight)
    terms = Cycle()(still, Pair(image, image), 0.0)
    assert float(terms["cycle"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["identity"]) == pytest.approx(0, abs=1e-2)  # a floor under the variances of LNCC


def test_blended_patches_have_the_weights_of_those_that_were_trained():
    network = moving_network(partial(SMALL, stitch=False))
    fixed, moving = pair_of().images
    register = blended(network)
    assert register.network.tiles == (1, 1)
    found = register(fixed, moving)
    assert found.stats.numbers["tiles"] == 9
    tiles = network(fixed, moving).transform.field
    assert (found.transform.field - tiles)[
        ..., 0, 0
    ].abs().max() < 0.02 * tiles.abs().max()  # others weigh little there


def moved_pair(number):
    """A picture, and the same one seen through a smooth motion of a voxel and a half."""
    image = Image(smooth(1, 1, 64, 64, sigma=2.5, seed=2 * number), GRID)
    motion = Displacement(1.5 * smooth(1, 2, 64, 64, sigma=10.0, seed=2 * number + 1), GRID)
    return Pair(pull(image, motion, onto=GRID), image)


def jump_of(register):
    """The mean J of a register on four pairs that are not learned from."""
    pairs = [moved_pair(number) for number in range(50, 54)]
    return sum(SeamJump(SMALL)(register(*pair.images))["seam jump"] for pair in pairs) / len(pairs)


def learned(**options):
    """A network that has learned from forty pairs."""
    with seeded(0):
        network = SMALL(widths=(8, 16, 16), **options)
    supervision = PatchContrastive(MSE() + 0.1 * Diffusion(), weight=0.0)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for number in range(200):
        optimiser.zero_grad()
        torch.stack([*supervision(network, moved_pair(number % 40), 0.0).values()]).sum().backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


@pytest.mark.nightly
def test_patches_that_have_learned_leave_seams_and_blended_they_leave_none():
    """Of the same weights."""
    network = learned(stitch=False)
    patches, none = jump_of(network), jump_of(blended(network))
    assert patches > 2
    assert none == pytest.approx(1, abs=0.3)


@pytest.mark.nightly
def test_attention_takes_away_some_of_the_seams():
    """Of the same weights, with what attention adds and without."""
    network = learned()
    stitched = jump_of(network)
    network.stitch = None
    assert stitched < jump_of(network)
