"""Groups: which images are compared, and what a descent may move of them."""

import pytest
import torch
from torch.optim import Adam

from pullback.data import BrainPhantom
from pullback.energies import MSE, Diffusion
from pullback.group import Group, GroupAlignment
from pullback.metrics import Dice
from pullback.solvers import Descend, Joint
from pullback.space import Affine, Displacement, Grid, Image, Labels, Motion, Velocity, pull


def blob(grid: Grid, at: list[float], width: float = 4.0) -> Image:
    """A Gaussian about a place of the world, in mm."""
    away = grid.to_world(grid.voxels(torch.zeros(()))[None]) - torch.tensor(at).view(1, -1, *[1] * grid.ndim)
    return Image((-away.square().sum(1, keepdim=True) / (2 * width**2)).exp(), grid)


def test_edges_of_a_star_and_of_a_chain():
    images = [blob(Grid.centred((6, 6)), [float(n), 0]) for n in range(5)]
    assert Group.star(images[0], images[1:]).edges == ((0, 1), (0, 2), (0, 3), (0, 4))
    assert Group.chain(images).edges == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert Group.chain(images, reach=3).edges == tuple((n, m) for n in range(5) for m in range(n + 1, 5) if m - n <= 3)
    assert len(Group.star(images[0], images[1:], labels=[None] * 4).labels) == 5


def test_what_is_no_group_is_refused():
    one, two = blob(Grid.centred((6, 6)), [0.0, 0]), blob(Grid.centred((6, 6, 6)), [0.0, 0, 0])
    for wrong, says in (
        (lambda: Group((), ()), "0 images"),
        (lambda: Group((one, one), ((0, 2),)), r"got \[\(0, 2\)\]"),
        (lambda: Group((one, one), ((1, 1),)), r"got \[\(1, 1\)\]"),
        (lambda: Group((one, two), ((0, 1),)), "2-D"),
        (lambda: Group((one, one), (), (None,)), "2 images and 1 labels"),
        (lambda: Group((Image(one.data.repeat(2, 1, 1, 1), one.grid), one), ()), r"got \[2\]"),
        (lambda: GroupAlignment(Group((one, one), ()), (Affine.identity(2),)), "2 images need"),
    ):
        with pytest.raises(ValueError, match=says):
            wrong()


@pytest.mark.parametrize("ndim", [2, 3])
def test_pairs_are_compositions_through_the_common_world(ndim, oblique, waves):
    """Of images of one scene, each on a grid and by a map of its own, each edge leads from image to image."""
    scene = waves(ndim, 3, 30.0)
    maps = [
        Affine.about(torch.eye(ndim) * (1 + 0.05 * n), torch.zeros(ndim), torch.full((ndim,), 0.7 * n))
        for n in range(3)
    ]
    grids = [oblique((22, 24, 20)[:ndim], seed) for seed in range(3)]
    images = []
    for grid, there in zip(grids, maps, strict=True):
        world = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])
        images.append(Image(scene(there.inverse().at(world)), grid))
    aligned = GroupAlignment(Group.chain(images, reach=2), tuple(maps))
    pairs = list(aligned.pairs)
    assert len(pairs) == 3
    inside = tuple([slice(None)] * 2 + [slice(5, -5)] * ndim)
    for (fixed, moving), pair in zip(aligned.group.edges, pairs, strict=True):
        assert pair.pair.fixed is images[fixed]
        expected = maps[moving].matrix @ torch.linalg.inv(maps[fixed].matrix)
        torch.testing.assert_close(pair.transform.as_affine.matrix, expected)
        unmoved = pull(images[moving], Affine.identity(ndim), onto=images[fixed])
        here, before = ((one.data - images[fixed].data)[inside].abs().median() for one in (pair.moved, unmoved))
        assert float(here) < 0.02 < float(before)
    common = Grid.centred((9, 8, 7)[:ndim], 1.0)
    there = scene(common.to_world(common.voxels(torch.zeros((), dtype=torch.float64))[None]))
    for image in aligned.moved(common):
        assert float((image.data - there).abs().max()) < 0.02


def test_a_template_leads_by_the_maps_themselves():
    """So that regularity sees the field that is descended, and not a chain of it."""
    grid = Grid.centred((8, 8))
    field = Velocity(torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)), grid)
    labels = [Labels((blob(grid, [0.0, 0]).data > 0.5).long(), grid)]
    group = Group.star(blob(grid, [0.0, 0]), [blob(grid, [1.0, 0])], labels)
    (pair,) = GroupAlignment(group, (Affine.identity(2), field)).pairs
    assert pair.transform is field
    assert pair.pair.moving_labels is labels[0]
    assert pair.pair.fixed_labels is None


@pytest.mark.slow
def test_a_chain_of_sections_is_straightened():
    """Rigid motions of a stack's sections, descended all at once: neighbours and those one further are compared."""
    grid, generator = Grid.centred((28, 28)), torch.Generator().manual_seed(1)
    shifts = 3 * torch.rand(5, 2, generator=generator) - 1.5
    images = [blob(grid, [4 + float(a), -3 + float(b)], 5.0) for a, b in shifts]
    motions = tuple(Motion.rigid(Affine.identity(2), grid) for _ in images)
    start = GroupAlignment(Group.chain(images, reach=2), motions)

    def apart(found: GroupAlignment) -> torch.Tensor:
        return torch.stack([MSE()(pair) for pair in found.pairs]).mean()

    found, stats = Descend(120, 0.1)(apart, start)
    assert float(apart(found)) < 0.05 * float(stats.energies[0])
    means = torch.stack([found.transforms[n](torch.zeros(1, 2, dtype=torch.float64))[0] for n in range(5)])
    moved = (shifts.double() - means).std(0)  # what is left of each section's own shift
    assert float(moved.max()) < 0.25 * float(shifts.std(0).max())


@pytest.mark.slow
def test_a_mean_shape_atlas_of_five_phantoms():
    """A star group, descended on the template's intensities and on the maps: through it all people lie nearer."""
    people = [case.load() for case in BrainPhantom(spacing=8.0, train_subjects=5).train.cases]
    images, labels = [one.image for one in people], [one.labels for one in people]
    grid, energy = images[0].grid, MSE() + 0.01 * Diffusion()
    mean = Image(torch.stack([image.data for image in images]).mean(0), grid)
    fields = tuple(Velocity(Displacement.identity(grid, mean.data).field, grid, squarings=4) for _ in images)

    def aligned(found: Joint) -> GroupAlignment:
        template, *maps = found.parts
        return GroupAlignment(Group.star(template, images, labels), (Affine.identity(3), *maps))

    def apart(found: Joint) -> torch.Tensor:
        return torch.stack([energy(pair) for pair in aligned(found).pairs]).mean()

    def slower(parameters: list, lr: float) -> Adam:
        return Adam([{"params": parameters[:1], "lr": lr / 10}, {"params": parameters[1:]}], lr=lr)

    found, stats = Descend(30, 0.2, optimiser=slower)(apart, Joint((mean, *fields)))
    assert float(apart(found)) < 0.1 * float(stats.energies[0])

    def overlap(maps: tuple) -> float:
        """Of all pairs of people, through the atlas."""
        chain = GroupAlignment(Group.chain(images, 4, labels), maps)
        dice = [Dice()(pair)["dice"] for pair in chain.pairs]
        return sum(dice) / len(dice)

    assert overlap(found.parts[1:]) > overlap(fields) + 0.05


def test_a_joint_descent_moves_each_of_its_parts():
    """A batch of poses and an image at once, to goals of their own."""
    grid = Grid.centred((6, 5))
    goal, motion = blob(grid, [1.0, 0]), Motion.rigid(Affine.identity(2), grid)
    poses = motion.with_params(torch.zeros(4, len(motion.coefficients), dtype=torch.float64))
    wanted = torch.arange(12, dtype=torch.float64).view(4, 3) / 10

    def objective(joint: Joint) -> torch.Tensor:
        image, many = joint.parts
        return (image.data - goal.data).square().sum() + (many.coefficients - wanted).square().sum().float()

    start = Joint((Image(torch.zeros_like(goal.data), grid), poses))
    found, _ = Descend(300, 0.02)(objective, start)
    torch.testing.assert_close(found.parts[0].data, goal.data, rtol=0, atol=1e-2)
    torch.testing.assert_close(found.parts[1].coefficients, wanted, rtol=0, atol=1e-2)
    assert float(start.parts[0].data.abs().max()) == 0
