"""Templates: nobody's shape but the mean of all, whoever comes first, and means of maps in closed form."""

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch.nn import functional as F

from pullback.alignment import Alignment, Pair
from pullback.data import preprocessed
from pullback.energies import MSE, Diffusion
from pullback.errors import InputError
from pullback.group import Group
from pullback.methods.group.ages import age_weights, template_ages, usual_bandwidth
from pullback.methods.group.mean_shape import moved_by, polar, sharpness, towards, without_mean
from pullback.methods.group.template import Template, TemplateBuilder, common_grid, mean_image
from pullback.methods.pair.classical import FAST
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_vector
from pullback.numerics.smooth import smooth_noise
from pullback.solvers import DeformableStage, Descend
from pullback.space import Affine, Displacement, Grid, Image, Transform, Velocity, inverted
from pullback.testing import check_group, group_problems

GRID = Grid.centred((32, 32), 1.0)
QUICK = DeformableStage(MSE() + 0.02 * Diffusion(), steps=(20,), solver=Descend(step_size=0.4))
BUILDER = TemplateBuilder(linear=None, deformable=QUICK, rounds=2, change=0.0)
PEOPLE = 4


def points(grid: Grid = GRID) -> torch.Tensor:
    return grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])


def scene(at: torch.Tensor) -> torch.Tensor:
    """A disc with four organs, at points `(1, 2, …)`."""
    x, y = at[:, 0:1], at[:, 1:2]
    value = torch.sigmoid(2 * (11 - (x**2 + y**2).sqrt()))
    for middle, across, radius, height in ((4, 2, 3, 0.6), (-5, 2, 2.5, -0.5), (0, -5, 3, 0.5), (-2, 6, 2, 0.7)):
        value = value + height * torch.sigmoid(2 * (radius - ((x - middle) ** 2 + (y - across) ** 2).sqrt()))
    return value.float()


@cache
def person(n: int) -> tuple[Transform, Image]:
    """A person's map to the scene's world, and their image."""
    where = GRID.voxels(torch.zeros(()))
    still = torch.sin(torch.minimum(where, 31 - where).amin(0).clamp(max=5) / 5 * torch.pi / 2) ** 2
    noise = smooth_noise((1, 2, 32, 32), 4.0, make_generator(3, n), torch.zeros(()))
    to_scene = Velocity(1.5 * noise * still, GRID)
    return to_scene, Image(scene(to_scene.at(points())), GRID)


@cache
def built(builder: TemplateBuilder, order: tuple[int, ...]) -> Template:
    images = [person(n)[1] for n in order]
    return builder.template(images, builder.placed(images))


def off(maps: list[tuple[Transform, Transform]]) -> float:
    """Return how far a template is from the mean shape, in mm: by the maps template → person and person → scene."""
    mean = sum(inverted(person(n)[0]).at(points()) for n in range(PEOPLE)) / PEOPLE
    to_mean = Displacement((GRID.to_voxels(mean) - GRID.voxels(mean)[None]).float(), GRID)
    there = sum(to_mean.at(scene_of.at(found.at(points()))) for found, scene_of in maps) / len(maps)
    inside = points().square().sum(1).sqrt() < 11
    return float((there - points()).norm(dim=1)[inside].mean())


def off_by(builder: TemplateBuilder, order: tuple[int, ...]) -> float:
    found = built(builder, order)
    return off([(found.transform(k), person(n)[0]) for k, n in enumerate(order)])


FIRST, OTHER = tuple(range(PEOPLE)), (3, 1, 0, 2)


def test_the_template_is_nearer_to_the_mean_shape_than_any_person():
    people = [off([(Affine.identity(2), person(n)[0])]) for n in range(PEOPLE)]
    assert off_by(BUILDER, FIRST) < 0.25 * min(people)


def test_it_does_not_matter_who_comes_first():
    one, two = (built(BUILDER, order).image.data for order in (FIRST, OTHER))
    torch.testing.assert_close(one, two, atol=2e-4, rtol=0)


def test_without_centring_the_template_stays_near_whom_it_began_with():
    biased = replace(BUILDER, centred=False, begin=0)
    assert off_by(biased, FIRST) > 3 * off_by(BUILDER, FIRST)


def test_the_mean_of_the_maps_is_the_identity():
    found = built(BUILDER, FIRST)
    mean = sum(found.transform(n).displacement(GRID) for n in range(PEOPLE)) / PEOPLE
    lit = found.image.data[0, 0] > 0.1
    assert mean[0][:, lit].abs().max() < 0.02
    assert found.rounds[-1]["mean before mm"] > 20 * found.rounds[-1]["mean mm"]


def test_the_template_is_sharper_than_the_plain_mean():
    images = [person(n)[1] for n in range(PEOPLE)]
    plain = mean_image(images, GRID, lambda n: Affine.identity(2), torch.full((PEOPLE,), 1 / PEOPLE), range(PEOPLE))
    inside = points().square().sum(1, keepdim=True).sqrt() < 11
    assert sharpness(built(BUILDER, FIRST).image, inside) > 1.05 * sharpness(plain, inside)


def test_equal_images_are_their_own_template():
    images, quick = [person(0)[1]] * 2, replace(BUILDER, rounds=1)
    found = quick.template(images, quick.placed(images))
    assert float(found.transform(0).displacement(GRID).abs().max()) < 1e-3
    shown = mean_image(images[:1], GRID, lambda n: Affine.identity(2), torch.ones(1), [0])
    torch.testing.assert_close(found.image.data, shown.data, atol=1e-3, rtol=0)


def test_who_weighs_nothing_has_no_part_in_it():
    images, weights = [person(n)[1] for n in (0, 1, 2)], torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    quick = replace(BUILDER, rounds=1)
    found = quick.template(images, quick.placed(images), weights)
    alone = quick.template(images[:2], quick.placed(images[:2]))
    torch.testing.assert_close(found.image.data, alone.image.data)
    assert found.who == [0, 1]
    assert found.transform(2).displacement(GRID).abs().max() > 0.3  # is still brought onto it


def test_the_mean_image_is_weighed_and_ends_where_fewer_than_half_are_seen():
    left, right = (Image(torch.rand(1, 1, 6, 6), Grid.centred((6, 6), 1.0)) for _ in range(2))
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, 2] = 3.0
    maps, weights = (Affine.identity(2), Affine(shift)), torch.tensor([0.75, 0.25])
    found = mean_image([left, right], left.grid, maps.__getitem__, weights, (0, 1)).data[0, 0]
    one, two = (preprocessed(image).data[0, 0] for image in (left, right))
    torch.testing.assert_close(found[:3], 0.75 * one[:3] + 0.25 * two[3:])
    torch.testing.assert_close(found[3:], one[3:])
    alone = mean_image([left, right], left.grid, maps.__getitem__, 1 - weights, (0, 1)).data[0, 0]
    assert not alone[3:].any()


@dataclass(frozen=True)
class Staying:
    """A register that leaves an image where it begins."""

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        return Alignment(Pair(fixed, moving), start or Affine.identity(fixed.grid.ndim))


def test_fields_go_on_from_the_linear_maps():
    images = list(group_problems("star_shifts", ndim=2)[0].group.images)
    builder = TemplateBuilder(Masses(), Staying(), rounds=1)
    placed = builder.placed(images)
    found = builder.template(images, placed)
    assert found.rounds[0]["motion mm"] < 1e-4
    moved = found.transform(1).displacement(placed.grid)
    torch.testing.assert_close(moved, Affine(placed.maps[1]).displacement(placed.grid).to(moved), atol=1e-4, rtol=0)
    assert moved.abs().max() > 0.5


@dataclass(frozen=True)
class Masses:
    """A register by the centres of mass alone, in closed form."""

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        one, two = (self.middle(image) for image in (fixed, moving))
        return Alignment(Pair(fixed, moving), Affine.about(torch.eye(len(one), dtype=torch.float64), one, two))

    def middle(self, image: Image) -> torch.Tensor:
        where = image.grid.to_world(image.grid.voxels(image.data.double())[None])
        axes = tuple(range(2, image.data.ndim))
        return ((where * image.data).sum(axes) / image.data.sum(axes))[0]


@pytest.mark.parametrize("problem", group_problems("star_shifts", "star_identity", ndim=2), ids=str)
def test_contract(problem):
    check_group(TemplateBuilder(Masses(), None), problem)


@pytest.mark.nightly
@pytest.mark.parametrize("problem", group_problems("star_shifts", "star_identity", ndim=2), ids=str)
def test_contract_by_the_classical_stages(problem):
    light = replace(FAST, initialise=None, deformable=None)
    check_group(TemplateBuilder(light, QUICK, linear_rounds=2, rounds=1), problem)


def test_images_of_several_grids_lie_about_the_mean_of_their_middles():
    problem = group_problems("star_shifts", ndim=2)[0]
    images = [
        replace(image, grid=image.grid.padded((1, 0)), data=F.pad(image.data, (0, 0, 1, 1)))
        for image in problem.group.images[:2]
    ]
    found = TemplateBuilder(Masses(), None)(Group.star(images[0], problem.group.images[2:]))
    places = torch.stack([one.matrix[:-1, -1] for one in found.transforms])
    assert places.mean(0).abs().max() < 1e-6
    wanted = torch.stack([problem.truths[n].matrix[:-1, -1] for n in (0, 2, 3)])
    torch.testing.assert_close(places - places[:1], wanted - wanted[:1], atol=0.05, rtol=0)


# ---- means of maps


def turned(angle: float, sizes: tuple[float, float], shift: tuple[float, float]) -> torch.Tensor:
    linear = (
        of_vector(torch.tensor([[angle]], dtype=torch.float64))[0] @ torch.tensor(sizes, dtype=torch.float64).diag()
    )
    return Affine.about(linear, torch.tensor([3.0, -2.0]).double(), torch.tensor(shift).double()).matrix


def test_turns_to_both_sides_do_not_shrink_the_mean():
    """The mean of matrices would: cos 30° of both edges."""
    shift = (3.0, -2.0)
    maps = torch.stack([turned(angle, (1.0, 1.0), shift) for angle in (-0.5236, 0.5236)])
    kept = without_mean(maps, torch.tensor(shift).double(), torch.full((2,), 0.5).double())
    torch.testing.assert_close(kept, maps, atol=1e-9, rtol=0)


def test_the_mean_of_linear_maps_is_taken_away():
    centre, weights = torch.tensor([3.0, -2.0]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    maps = torch.stack(
        [turned(0.3, (1.2, 0.9), (8, 1)), turned(-0.1, (1.1, 1.3), (2, -9)), turned(0.6, (0.8, 1.0), (0, 4))]
    )
    found = without_mean(maps, centre, weights)
    turns, stretches = polar(found[:, :2, :2])
    values, vectors = torch.linalg.eigh(stretches)
    logs = vectors @ (values.log()[..., None] * vectors.mT)
    assert torch.tensordot(weights, logs, 1).abs().max() < 1e-8
    mean_turn = torch.tensordot(weights, turns, 1)
    assert (mean_turn - mean_turn.mT).abs().max() < 1e-8  # the nearest rotation is the identity
    there = torch.tensordot(weights, found[:, :2, :2] @ centre + found[:, :2, 2], 1)
    torch.testing.assert_close(there, centre, atol=1e-8, rtol=0)
    relative = maps[0] @ torch.linalg.inv(maps[1])
    torch.testing.assert_close(found[0] @ torch.linalg.inv(found[1]), relative)  # from person to person nothing changed


def test_the_mean_size_is_that_of_logarithms():
    maps = torch.stack([turned(0.0, (4.0, 4.0), (0, 0)), turned(0.0, (1.0, 1.0), (0, 0))])
    found = without_mean(maps, torch.zeros(2).double(), torch.full((2,), 0.5).double(), pose=False)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([2.0, 0.5]).double())


def test_the_mean_of_fields_is_taken_away():
    fields = [3 * smooth_noise((1, 2, 24, 24), 5.0, make_generator(n), torch.zeros(())) for n in range(3)]
    weights = (0.5, 0.3, 0.2)
    mean = sum(w * field for w, field in zip(weights, fields, strict=True))
    back = towards(mean)
    left = sum(w * moved_by(field, back) for w, field in zip(weights, fields, strict=True))
    assert left.abs().max() < 2e-3
    assert mean.abs().max() > 0.5


# ---- ages and grids


def test_weights_by_age():
    ages = torch.tensor([1.0, 2.0, 3.0, 10.0])
    weights = age_weights(ages, 2.0, 1.0)
    torch.testing.assert_close(weights[1] / weights[0], torch.tensor(0.5).double().exp())
    assert weights[3] == 0
    assert float(weights.sum()) == pytest.approx(1)
    assert template_ages(ages, 3) == pytest.approx([2.5, 5.5, 8.5])
    assert usual_bandwidth(ages, [2.5, 5.5, 8.5]) == pytest.approx(1.5)
    with pytest.raises(InputError, match="widen"):
        age_weights(ages, 10.0, 1.0)


def test_a_common_grid_holds_all_and_does_not_depend_on_their_order():
    grids = [Grid.centred((10, 20), (2.0, 1.0)), Grid.centred((30, 8), 1.0), Grid.centred((12, 12), 1.0)]
    one, two = common_grid(grids), common_grid(grids[::-1])
    assert one == two
    assert one.shape == (30, 20)
    assert common_grid(grids[:1] * 3) == grids[0]
