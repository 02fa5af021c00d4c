"""NCR-Net: its levels, that it marks a disc that nobody has outlined, and maps that come back as files."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.files import read_image, write
from pullback.methods.pair.ncr_net import MAP, NCRNet
from pullback.methods.pair.non_correspondence import (
    Corresponding,
)
from pullback.networks import instance_norm_relu
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.recipes import find
from pullback.space import Affine, Grid, Image, Velocity, pull
from pullback.study.run import load_network, run
from pullback.study.trained import Trained
from pullback.testing import check_register, problems
from pullback.training import Training, seeded
from pullback.training.train import train
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.register import register_files


def network(ndim=2, width=2, **options):
    with seeded(3):
        return NCRNet(ndim, width, **options)


def noise(*shape, seed=0, sigma=2.0):
    return smooth_noise(shape, sigma, make_generator(seed), torch.zeros(()))


def disc(shape, radius, at=None):
    """1 within a disc or ball, else 0, `(1, 1, *shape)`."""
    grid = Grid.centred(shape, 1.0)
    where = grid.voxels(torch.zeros(()))[None]
    middle = torch.tensor([(n - 1) / 2 for n in shape] if at is None else at).view(1, -1, *[1] * len(shape))
    return ((where - middle).norm(dim=1, keepdim=True) <= radius).float()


# ---- the network


@pytest.mark.parametrize(("width", "weights"), [(8, 1_022_833), (6, 575_907)])
def test_it_has_as_many_weights_as_the_code_of_its_successor(width, weights):
    assert sum(weight.numel() for weight in network(2, width).parameters()) == weights


@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("identity", "thin", ndim=3)], ids=str)
def test_register(problem):
    with seeded(5):
        made = NCRNet(problem.pair.fixed.grid.ndim, 2)
    check_register(made, problem, solves=problem.name == "identity", rounding=1e-3)


def test_register_is_named():
    check_register(NCRNet(2, 1, finish=instance_norm_relu), problems("shift", ndim=2)[0], solves=False, rounding=1e-3)


@pytest.mark.parametrize("shape", [(32, 40), (33, 39), (20, 24, 17)])
def test_levels_have_half_and_a_quarter_of_the_size_and_lie_where_the_image_does(shape):
    grid = Grid.centred(shape, 2.0)
    image = Image(noise(1, 1, *shape), grid)
    answer = network(len(shape)).eval()(image, image)
    for power, level in enumerate((answer, *answer.coarser)):
        own = level.pair.fixed.grid
        assert own.shape == tuple(-(-n // 2**power) for n in shape)
        assert level.maps[MAP].data.shape == (1, 1, *own.shape)
        assert own.spacing.tolist() == pytest.approx([2.0 * 2**power] * len(shape))
        corner = (2**power - 1) / 2  # a coarse voxel lies in the middle of its fine ones
        at = torch.full((1, len(shape), 1), corner, dtype=torch.float64)
        torch.testing.assert_close(grid.to_world(at), own.to_world(torch.zeros_like(at)))
    assert 0 < float(answer.maps[MAP].data.detach().mean()) < 0.3


def test_a_velocity_is_in_voxels_of_its_level():
    made, shape = network(), (32, 24)
    for head in made.velocities:
        nn.init.zeros_(head[-1].weight)
        head[-1].bias.data = torch.tensor([2.0, -1.0])
    image = Image(noise(1, 1, *shape), Grid.centred(shape, 1.0))
    answer = made.eval()(image, image)
    for power, level in enumerate((answer, *answer.coarser)):
        field = level.transform.displacement(image.grid)[0, :, shape[0] // 2, shape[1] // 2]
        torch.testing.assert_close(field, torch.tensor([2.0, -1.0]) * 2**power, rtol=0, atol=1e-4)


# ---- the whole


def test_it_marks_a_disc_that_one_image_has_and_finds_the_shift():
    """The smoke test of the method: texture shifted by some voxels, and a disc that is in the fixed image alone."""
    shape, shift = (40, 40), 3
    texture = 0.5 + 0.12 * noise(1, 1, shape[0] + 12, shape[1] + 12, sigma=2.5)
    inside = disc(shape, 7.0, (24.0, 17.0))
    grid = Grid.centred(shape, 1.0)
    fixed = Image(torch.where(inside > 0, 0.0, texture[:, :, 6 : 6 + shape[0], 6 : 6 + shape[1]]), grid)
    moving = Image(texture[:, :, 6 - shift : 6 - shift + shape[0], 6 : 6 + shape[1]], grid)
    pair = Pair(fixed, moving, name="disc")

    class One:
        def draw(self, generator):
            return pair

    found = train(
        network(2, 4, finish=instance_norm_relu),
        One(),
        Corresponding(beta=0.03, gamma=0.3, regularity=0.01),
        Training(updates=160, lr=4e-3, log_every=1000),
    )
    answer = found(fixed, moving)
    marked, border = answer.maps[MAP].data > 0.5, torch.zeros_like(inside)
    border[:, :, 5:-5, 5:-5] = 1
    marked = marked & (border > 0)
    overlap = 2 * float((marked & (inside > 0)).sum()) / float(marked.sum() + inside.sum())
    assert overlap > 0.9
    where = marked[0, 0].nonzero().double().mean(0)
    assert (where - torch.tensor([24.0, 17.0])).norm() < 1
    off = (answer.transform.displacement(grid) - torch.tensor([float(shift), 0.0]).view(1, 2, 1, 1)).norm(dim=1)
    outside = (border[:, 0] > 0) & (disc(shape, 10.0, (24.0, 17.0))[:, 0] == 0)
    assert float(off[outside].mean()) < 0.5


class Dark(nn.Module):
    """A network that marks what is darkest, and moves nothing."""

    def forward(self, fixed, moving):
        there = Velocity(torch.zeros(1, fixed.grid.ndim, *fixed.grid.shape), fixed.grid)
        return Alignment(Pair(fixed, moving), there, {MAP: Image((fixed.data < 0.1).float(), fixed.grid)})


def test_a_map_comes_back_on_the_asked_grid(oblique):
    """On an oblique, flipped, anisotropic image what is marked lies on the lesion as on the grid of the training."""
    grid = oblique((26, 30, 22), seed=4)
    where = grid.to_world(grid.voxels(grid.affine)[None])
    middle = grid.centre.view(1, 3, 1, 1, 1)
    lesion = (where - middle).norm(dim=1, keepdim=True) < 0.25 * float((grid.spacing * torch.tensor(grid.shape)).min())
    image = Image(torch.where(lesion, 0.0, 1.0), grid)
    trained = Trained(Dark(), spacing=(1.0, 1.0, 1.0))
    there = trained.shown(image)
    true = pull(Image(lesion.float(), grid), Affine.identity(3), onto=there.grid).data > 0.5
    near = pull(Image(torch.ones_like(image.data), grid), Affine.identity(3), onto=there.grid).data > 0.99

    def overlap(one, two):
        return 2 * float((one & two).sum()) / float(one.sum() + two.sum())

    on_its_own = overlap((there.data < 0.5) & near, true & near)
    back = trained(image, image).maps[MAP]
    assert back.grid == grid
    inner = torch.nn.functional.max_pool3d((~lesion).float(), 3, 1, 1) == 0
    assert (back.data[inner] > 0.5).all()
    assert overlap(back.data > 0.5, lesion) > on_its_own - 0.3


def test_register_writes_the_map(tmp_path):
    grid = Grid.centred((32, 30), 2.0)
    for seed, name in enumerate(("fixed", "moving")):
        write(Image(noise(1, 1, 32, 30, seed=seed), grid), tmp_path / f"{name}.nii.gz")
    files = (ImageFiles((tmp_path / f"{name}.nii.gz",)) for name in ("fixed", "moving"))
    register_files(*files, Trained(network(2, 4).eval()), tmp_path / "out")
    map_ = read_image(tmp_path / "out" / "maps" / "non_correspondence.nii.gz")
    assert map_.grid == grid
    assert float(map_.data.min()) > 0
    assert float(map_.data.max()) < 1


@pytest.mark.nightly
def test_the_recipe_trains_and_its_run_is_a_register(tmp_path):
    """On the built-in cohort: β is chosen, and the run that is read back marks."""
    recipe = find("ncr-net")
    cohort = replace(recipe.data.data, spacing=9.0, train_subjects=2, validation_subjects=2, test_subjects=2)
    small = replace(
        recipe,
        data=replace(recipe.data, data=cohort, kinds=recipe.data.kinds[:1]),
        network=partial(NCRNet, ndim=3, width=1),
        training=replace(recipe.training, updates=4, validate_every=4),
    )
    run(small, tmp_path)
    assert json.loads((tmp_path / "chosen.json").read_text())["beta"] > 0
    _, read = load_network(tmp_path)
    pair = next(iter(small.data.test))
    assert read(*pair.images).maps[MAP].grid == pair.fixed.grid
