"""Two streams that learn from boxes: the network's laws, its two passes, its recipes, and what boxes teach."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom
from pullback.energies import LNCC, BoxMSE, Diffusion
from pullback.errors import InputError
from pullback.methods.pair.boxes import METHOD, TwoStreamUNet
from pullback.metrics import Dice
from pullback.networks import FieldHead
from pullback.numerics.random import make_generator
from pullback.recipes import find, known
from pullback.recipes.boxes import ENERGIES, HALF, SETS, WAYS
from pullback.recipes.unsupervised import NETWORKS
from pullback.space import Affine, Displacement, Grid, Image, Labels, pull
from pullback.studies import boxes
from pullback.study.arms import TrainedArm, Trial
from pullback.testing import check_register, check_supervision, problems
from pullback.training import Training, Unsupervised, seeded
from pullback.training.train import train

SHAPES = {2: (34, 29), 3: (18, 17, 21)}
dimensions = pytest.mark.parametrize("ndim", [2, 3])


def image(ndim, seed=0, shape=None):
    shape = shape or SHAPES[ndim]
    return Image(torch.rand(1, 1, *shape, generator=make_generator(seed)), Grid.centred(shape))


def made(ndim, **options):
    with seeded(3):
        return TwoStreamUNet(ndim, **options)


# ---- the network


@dimensions
@pytest.mark.parametrize("head_at", [1, 2])
def test_untrained_it_stays_and_it_never_goes_beyond_half_the_image(ndim, head_at):
    network = made(ndim, head_at=head_at).eval()
    still = network(image(ndim), image(ndim, 1)).displacement
    assert still.shape == (1, ndim, *SHAPES[ndim])
    assert 0 < float(still.detach().abs().max()) < 0.05
    network.repeated.network.head.convolution.weight.data *= 1e9
    far = (
        network.repeated.network(image(ndim), image(ndim, 1))
        .transform.field.detach()
        .abs()
        .amax((0, *range(2, ndim + 2)))
    )
    half = (torch.tensor(SHAPES[ndim]) - 1) / 2
    assert (far <= half).all()
    assert (far > 0.9 * half).all()


@dimensions
def test_the_slope_of_the_bound_is_half_the_image_at_rest(ndim):
    """u = s tanh(o): du/do = s = (n − 1)/2 voxels where o is 0, for each axis its own."""
    head = FieldHead(ndim, 1, Displacement, bound=1.0, kernel=1)
    assert head.convolution.weight.shape == (ndim, 1, *[1] * ndim)
    nn.init.ones_(head.convolution.weight)
    features = torch.zeros(1, 1, *SHAPES[ndim], requires_grad=True)
    field = head(features, image(ndim), image(ndim)).transform.field
    for axis, n in enumerate(SHAPES[ndim]):
        (slope,) = torch.autograd.grad(field[:, axis].sum(), features, retain_graph=True)
        torch.testing.assert_close(slope, torch.full_like(slope, (n - 1) / 2), rtol=1e-6, atol=0)


@dimensions
def test_both_images_have_the_same_stream_or_each_its_own(ndim):
    """Swapped images swap the halves of the features bit for bit; streams of their own do not."""
    both = torch.rand(1, 2, *SHAPES[ndim], generator=make_generator(5))
    for shared in (True, False):
        network = made(ndim, shared=shared).eval().repeated.network
        found, other = network.features(both), network.features(both.flip(1))
        assert found.shape == (1, 32, *[-(-n // 2) for n in SHAPES[ndim]])
        assert torch.equal(torch.cat([other[:, 16:], other[:, :16]], 1), found) is shared


class Told(nn.Module):
    """A look that answers with known transforms in turn, and remembers what it saw."""

    def __init__(self, *transforms):
        super().__init__()
        self.transforms, self.seen = transforms, []

    def forward(self, fixed, moving):
        self.seen.append(moving)
        return Alignment(Pair(fixed, moving), self.transforms[len(self.seen) - 1])


def test_it_looks_twice_at_what_it_moved_and_once_while_it_learns():
    """φ₁ ∘ φ₂, in that order: a shift and a scaling tell; and the image is resampled once."""
    fixed, moving, network = image(2), image(2, 1), made(2)
    shift, scaling = torch.eye(3, dtype=torch.float64), torch.diag(torch.tensor([1.25, 1.25, 1.0], dtype=torch.float64))
    shift[:2, 2] = torch.tensor([2.5, -1.5])
    network.repeated.network = look = Told(Affine(shift), Affine(scaling))
    answer = network.eval()(fixed, moving)
    assert torch.equal(look.seen[1].data, pull(moving, Affine(shift), onto=fixed).data)
    points = torch.tensor([[[4.0, 2.0], [-3.0, 5.0]]], dtype=torch.float64)
    expected = 1.25 * points + torch.tensor([2.5, -1.5], dtype=torch.float64)
    torch.testing.assert_close(answer.transform(points), expected, rtol=0, atol=1e-9)
    straight = pull(moving, Affine(shift @ scaling), onto=fixed).data
    torch.testing.assert_close(answer.moved.data, straight, rtol=0, atol=1e-5)
    assert (pull(look.seen[1], Affine(scaling), onto=fixed).data - straight).abs().max() > 0.05
    assert answer.pair.moving is moving
    network.repeated.network = look = Told(Affine(shift), Affine(scaling))
    assert torch.equal(network.train()(fixed, moving).transform.matrix, Affine(shift).matrix)
    assert len(look.seen) == 1
    both = made(2, passes_in_training=2)
    both.repeated.network = look = Told(Affine(shift), Affine(scaling))
    both.train()(fixed, moving)
    assert len(look.seen) == 2
    assert len(made(2).state_dict()) == len(made(2).repeated.network.state_dict())  # the same weights


def test_voxels_of_half_the_size_are_every_second_one():
    """A head at half the size interpolates linearly: a ramp stays a ramp, of an even and of an odd number of voxels."""
    network = made(2, head_at=2).repeated.network
    for shape in ((34, 29), (31, 30)):
        half = [-(-n // 2) for n in shape]
        ramp = torch.stack(torch.meshgrid(*[2 * torch.arange(n) for n in half], indexing="ij"))[None].float()
        full = network._at_full_size(ramp, shape)
        expected = torch.stack(torch.meshgrid(*[torch.arange(n).float() for n in shape], indexing="ij"))[None]
        last = 2 * (torch.tensor(half) - 1)
        torch.testing.assert_close(full, expected.minimum(last.view(1, 2, 1, 1).float()))


def test_what_it_cannot_look_at_is_refused():
    with pytest.raises(InputError, match="more than 16 voxels"):
        made(2)(image(2, shape=(16, 12)), image(2, shape=(16, 12)))
    with pytest.raises(InputError, match="head_at 1"):
        made(2, head_at=4)
    with pytest.raises(InputError, match="one pass or more"):
        made(2, passes_in_training=0)


@pytest.mark.parametrize("problem", [*problems("identity", "smooth", "anisotropic", "batch", ndim=2)], ids=str)
def test_contract(problem):
    with seeded(5):
        check_register(TwoStreamUNet(2).eval(), problem, solves=problem.name == "identity", rounding=1e-3)


def test_contract_of_the_supervision():
    labels = Labels((torch.rand(1, 1, *SHAPES[2], generator=make_generator(1)) * 3).int(), Grid.centred(SHAPES[2]))
    pair = Pair(image(2), image(2, 1), labels, Labels(labels.data.roll(1, 2), labels.grid))
    check_supervision(Unsupervised(LNCC(5) + 2.0 * BoxMSE(0.05)), lambda: made(2), pair)


# ---- recipes and study


def test_recipes_differ_in_what_is_known_of_organs_alone():
    keys = {key for key in known() if key.method in WAYS}
    assert {key.method for key in keys} == {"boxes", *METHOD.keys} == {*WAYS}
    assert {key.network for key in keys if key.method == "boxes"} == {"two-stream", *NETWORKS}
    assert len(keys) == len(SETS) * (2 * len(WAYS) + len(NETWORKS) - 1)
    for data in SETS:
        plain = find("boxes-unsupervised", on=data)
        for way, (_, energy) in WAYS.items():
            recipe = find(way, on=data)
            expected = plain.supervision.energy if energy is None else plain.supervision.energy + 2.0 * energy
            assert recipe.supervision == Unsupervised(expected)
            assert (recipe.network.keywords, recipe.training) == (plain.network.keywords, plain.training)
            assert (recipe.data == plain.data) is (way != HALF)
        assert (plain.network.keywords["head_at"] == 1) is (data in ENERGIES)
    assert find(HALF, on="hippocampus").data.learned == 0.5
    assert find(HALF).data == BrainPhantom(spacing=5.0, train_subjects=8)
    assert (find("boxes", on="abdomen").training.updates, find("boxes", on="abdomen").training.lr) == (7500, 1e-3)


def test_arms_share_their_data_but_for_half_of_the_people(tmp_path):
    experiment = boxes.study.tables["table1"].experiments["phantom"]
    trial = Trial(tmp_path, "phantom", experiment.data)
    units = {name: arm.unit(trial) for name, arm in experiment.arms.items() if isinstance(arm, TrainedArm)}
    names = {name: unit.arm.recipe.data.train.names for name, unit in units.items()}
    assert {name: len(each) for name, each in names.items()} == dict.fromkeys(units, 16) | {"labels of half": 8}
    assert {*names["labels of half"]} < {*names["labels"]}
    assert units["boxes"].folder == units["boxes, one pass"].folder, "one training, measured twice"
    assert len({unit.folder for unit in units.values()}) == 5
    network = made(2)
    assert boxes.once(network) is network.repeated.network


def test_a_known_annotation_is_descended():
    """Two blobs in noise, one off by two voxels: boxes and labels bring them together, images alone do not."""
    pair = blobs(make_generator(2))
    dice = []
    for energy in (None, BoxMSE()):
        full = LNCC(9) + 1.0 * Diffusion() if energy is None else LNCC(9) + 1.0 * Diffusion() + 10.0 * energy
        found, _ = boxes.DESCENT(full.on(pair), start=Displacement.identity(pair.fixed.grid, pair.fixed.data))
        dice.append(Dice()(Alignment(pair, found))["dice"])
    assert dice[1] > dice[0] + 0.1


# ---- what boxes teach


def blobs(draw, shape=(32, 32)):
    """Two ellipses, of different place and size in each image, in noise that says nothing of them."""
    grid, images, labels = Grid.centred(shape), [], []
    where = grid.voxels(torch.zeros(()))
    for _ in range(2):
        data = torch.zeros(1, 1, *shape, dtype=torch.int32)
        for value, middle in ((1, (10.0, 11.0)), (2, (21.0, 20.0))):
            at = torch.tensor(middle) + 6 * torch.rand(2, generator=draw) - 3
            radii = 3.5 + 2 * torch.rand(2, generator=draw)
            inside = ((where - at.view(2, 1, 1)) / radii.view(2, 1, 1)).square().sum(0) < 1
            data[0, 0][inside] = value
        seen = 0.5 * data + 0.25 * torch.randn(data.shape, generator=draw)
        images.append(Image(seen, grid))
        labels.append(Labels(data, grid))
    return Pair(*images, *labels)


class Blobs:
    """Pairs of blobs, new ones each time."""

    def draw(self, generator):
        return blobs(generator)

    names = ("blobs",)


@pytest.mark.slow
def test_a_network_learns_from_boxes_what_it_does_not_see():
    """160 updates by boxes alone: new pairs, of which no boxes are known, overlap much better than before."""
    tested = [blobs(make_generator(100 + n)) for n in range(10)]
    before = sum(Dice()(Alignment(pair, Affine.identity(2)))["dice"] for pair in tested) / 10
    found = {}
    for name, energy in (("boxes", 0.02 * Diffusion() + 2.0 * BoxMSE()), ("nothing", LNCC(9) + 1.0 * Diffusion())):
        network = made(2, head_at=2)
        train(network, Blobs(), Unsupervised(energy), Training(updates=160, lr=1e-3))
        network.eval()
        with torch.no_grad():
            dice = [Dice()(replace(network(*pair.images), pair=pair))["dice"] for pair in tested]
        found[name] = sum(dice) / 10
    print(before, found)
    assert found["boxes"] > before + 0.15
    assert found["boxes"] > found["nothing"] + 0.05
