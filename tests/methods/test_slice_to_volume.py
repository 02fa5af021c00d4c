"""The pose of slices in a volume: found, told where it is not determined, and the same however the world lies."""

import itertools
import math
import re
from dataclasses import replace

import pytest
import torch

from pullback.data.phantoms.femur import femur_in, femur_on, neck_slices
from pullback.errors import InputError
from pullback.methods.pose.freedom import Freedom
from pullback.methods.pose.radial import Radial, hull, loft
from pullback.methods.pose.radial_to_volume import (
    BinarySearch,
    RadialToVolume,
    body_of,
    place_body,
    turned,
)
from pullback.methods.pose.slice_to_volume import SliceToVolume, StartSearch
from pullback.numerics.rotation import of_vector
from pullback.numerics.smooth import smooth_noise
from pullback.solvers import Descend
from pullback.space import Affine, Grid, Image, emulated, placed

QUICK = Descend(steps=45, step_size=0.5, last=0.05)
DESCENT = SliceToVolume(search=StartSearch(starts=0), solver=QUICK)
STILL = replace(DESCENT, solver=Descend(steps=0))
GRID = Grid.centred((36, 36, 36), 2.0)
ONE = torch.zeros(1).double()


def tissue() -> Image:
    """Blobs without symmetry, of two sizes."""
    draws = torch.Generator().manual_seed(4)
    coarse, fine = (smooth_noise((1, 1, *GRID.shape), sigma, draws, torch.zeros(1)) for sigma in (6.0, 2.5))
    return Image(coarse + 0.5 * fine, GRID)


def other_contrast(image: Image) -> Image:
    """Another look at it, neither brighter where it is bright nor darker."""
    return Image((1.6 * image.data).sin() + 0.3 * image.data, image.grid)


def plane(degrees: float, side: int = 26, edge: float = 2.0, thickness: float = 4.0, centre=(1.0, -2.0, 0.5)) -> Grid:
    """A slice through an axis that is tilted in the world."""
    turn = of_vector(torch.tensor([[0.3, -0.2, 0.1]]).double())[0]
    t = math.radians(degrees)
    across, axis = turn @ torch.tensor([math.cos(t), math.sin(t), 0]).double(), turn[:, 2]
    affine = torch.eye(4).double()
    affine[:3, :3] = torch.stack([across * edge, axis * edge, torch.linalg.cross(across, axis) * thickness], 1)
    affine[:3, 3] = torch.tensor(centre).double() - affine[:3, :2].sum(1) * (side - 1) / 2
    return Grid((side, side, 1), affine)


def pose(mm: float, degrees: float, seed: int) -> Affine:
    draws = torch.Generator().manual_seed(seed)
    turn, shift = (torch.randn(3, generator=draws).double() for _ in range(2))
    centre = torch.tensor([1.0, -2, 0.5]).double()
    rotation = of_vector((turn / turn.norm() * math.radians(degrees))[None])[0]
    return Affine.about(rotation, centre, centre + shift / shift.norm() * mm)


def slices_at(truth: Affine, angles, volume: Image) -> list[Image]:
    """Slices of the other contrast, whose headers are wrong by `truth`: points of them → points of the volume."""
    seen = other_contrast(volume)
    return [placed(emulated(seen, Affine.identity(3), plane(angle)), truth) for angle in angles]


def error(found: Affine, truth: Affine) -> float:
    points = truth.inverse()(torch.tensor(list(itertools.product((-15.0, 15), repeat=3))).double())
    return float((found(points) - truth(points)).norm(dim=1).mean())


@pytest.mark.parametrize(("angles", "seed"), [((0,), 1), ((0, 90), 2), ((0, 60, 120), 3)])
def test_slices_are_found_from_8_mm_and_12_degrees(angles, seed):
    volume, truth = tissue(), pose(8, 12, seed)
    found = DESCENT(slices_at(truth, angles, volume), volume)
    assert error(Affine.identity(3), truth) > 7
    assert error(found.transform, truth) < 0.3
    assert found.overlap > 0.9
    assert found.freedom.in_words == ()
    assert found.stats.origin == "header"


def test_a_search_finds_what_a_descent_does_not():
    volume, truth = tissue(), pose(18, 35, 5)
    slices = slices_at(truth, (0, 90), volume)
    assert error(DESCENT(slices, volume).transform, truth) > 5
    found = replace(DESCENT, search=StartSearch(starts=128, kept=6, pixels=700))(slices, volume)
    assert error(found.transform, truth) < 0.3
    assert found.stats.confidence > 0.25


def test_where_all_starts_end_in_one_place_there_is_no_rival():
    volume, truth = tissue(), pose(2, 3, 5)
    search = StartSearch(starts=6, shift=2, turn=2, kept=4, pixels=700)
    found = replace(DESCENT, search=search)(slices_at(truth, (0,), volume), volume)
    assert found.stats.confidence == 1
    assert error(found.transform, truth) < 0.3


def test_the_answer_goes_with_the_world():
    """Slices and volume, each moved by a rigid map, are brought together by the map between these."""
    volume, truth = tissue(), pose(4, 6, 6)
    volume, slices = replace(volume, data=volume.data.double()), slices_at(truth, (0, 90), volume)
    slices = [replace(one, data=one.data.double()) for one in slices]
    short = replace(DESCENT, solver=Descend(steps=12, step_size=0.3))
    here = short(slices, volume).transform
    of_slices, of_volume = pose(60, 70, 7), pose(40, 50, 8)
    moved = [placed(one, of_slices.inverse()) for one in slices]
    start = Affine(of_volume.matrix @ of_slices.inverse().matrix)
    there = short(moved, placed(volume, of_volume.inverse()), start).transform
    wanted = of_volume.matrix @ here.matrix @ of_slices.inverse().matrix
    assert torch.allclose(there.matrix, wanted, atol=1e-6)


# ---- what is not determined


def test_a_shift_that_shows_nothing_else_is_told():
    """A volume that is the same along the normal of its one slice leaves that shift free, and nothing else."""
    flat = smooth_noise((1, 1, 36, 36, 1), 3.0, torch.Generator().manual_seed(1), torch.zeros(1))
    volume = Image(flat.expand(1, 1, *GRID.shape).contiguous(), GRID)
    affine = torch.diag(torch.tensor([2.0, 2, 4, 1]).double())
    affine[:3, 3] = torch.tensor([-21.0, -21, 0])
    found = STILL([emulated(volume, Affine.identity(3), Grid((22, 22, 1), affine))], volume)
    (direction,), (words,) = found.freedom.directions[found.freedom.free], found.freedom.in_words
    assert abs(float(direction[5])) > 0.99
    assert words.startswith("a shift along (")


def test_a_turn_of_a_body_of_revolution_is_told():
    """It shows the same at any angle about its axis, which lies 3 mm from the world's."""

    def body(points):
        x, y, z = points[0]
        r = torch.hypot(x - 3, y)
        return (((0.12 * r + 0.05 * z).sin() + (0.07 * z).cos() * (-r / 30).exp())[None, None]).double()

    volume = Image(body(GRID.to_world(GRID.voxels(ONE)[None])), GRID)
    affine = torch.eye(4).double()
    affine[:3, :3] = torch.tensor([[1.9, 0, 0.4], [0.2, 0, -3.8], [0, 2, 0]]).double()
    affine[:3, 3] = torch.tensor([3.0, 0, 0]) - 10.5 * affine[:3, :2].sum(1)
    onto = Grid((22, 22, 1), affine)
    found = replace(STILL, layers=1)([Image(body(onto.to_world(onto.voxels(ONE)[None])), onto)], volume)
    (direction,), (words,) = found.freedom.directions[found.freedom.free], found.freedom.in_words
    assert abs(float(direction[2])) > 0.98
    assert words.startswith("a turn about (")
    through = torch.tensor([float(number) for number in re.findall(r"-?\d+\.\d", words.split("through")[1])])
    assert float((through[:2] - torch.tensor([3.0, 0])).norm()) < 1.5


def test_what_curves_a_thousandth_as_much_is_free():
    curvatures = torch.tensor([-1e-3, 0.9e-3, 1.1e-3, 0.1, 0.5, 1.0])
    found = Freedom(curvatures, torch.eye(6), torch.zeros(3), 20.0)
    assert found.free.tolist() == [True, True, False, False, False, False]
    assert found.in_words[0] == "a turn about (1.00, 0.00, 0.00) through (0.0, 0.0, 0.0) mm"
    assert replace(found, curvatures=curvatures.flip(0)).in_words[1] == "a shift along (0.00, 0.00, 1.00)"


# ---- the vote


def curves(peaks, lopsided: bool):
    """Energies with one well each, those of slices; the wells of one are steeper to one side."""

    def energies(angles):
        away = angles[:, None] - torch.as_tensor(peaks).double()
        steeper = torch.where(away > 0, 3.0, 1.0) if lopsided else 1.0
        return -1 / (1 + (away * steeper / 8).square())  # below 0, as of mutual information

    return energies


@pytest.mark.parametrize("lopsided", [False, True])
def test_the_search_ends_within_its_last_step(lopsided):
    """Within half of it where wells are symmetric, and the whole of it where they are not."""
    last = 15 / 2**4
    for peak in torch.linspace(-29, 29, 23).tolist():
        found = BinarySearch()(curves([peak] * 6, lopsided))
        assert abs(found - peak) <= (last if lopsided else last / 2) + 1e-9
        assert found == BinarySearch(vote=False)(curves([peak] * 6, lopsided))


def test_as_the_paper_says_it_a_right_start_is_left():
    """It comes back only to within the last step."""
    at = BinarySearch(stay=False)(curves([0.0] * 6, False))
    assert 0 < abs(at) <= 15 / 2**4
    assert BinarySearch()(curves([0.0] * 6, False)) == 0


def test_most_votes_win_over_a_loud_slice():
    def energies(angles):
        quiet = curves([10.0] * 5, False)(angles)
        return torch.cat([quiet, 100 * curves([-10.0], False)(angles)], 1)

    assert abs(BinarySearch()(energies) - 10) < 0.5
    assert abs(BinarySearch(vote=False)(energies) + 10) < 0.5


def test_the_localizers_own_plane_only_turns_in_itself():
    """Across the axis, what is emulated at an angle is what is emulated at 0, turned by it in the plane."""
    volume, radial = tissue(), Radial.of([plane(0), plane(90)])
    across = torch.linalg.cross(radial.axis, radial.first)
    affine = torch.eye(4).double()
    affine[:3, :3] = torch.stack([radial.first, across, radial.axis], 1) * 2
    affine[:3, 3] = radial.point - affine[:3, :2].sum(1) * 10
    onto = Grid((21, 21, 1), affine)
    at_90 = emulated(volume, turned(radial, 90), onto, 1).data[0, 0, :, :, 0]
    at_0 = emulated(volume, Affine.identity(3), onto, 1).data[0, 0, :, :, 0]
    assert torch.allclose(at_90, at_0.rot90(-1), atol=1e-5) or torch.allclose(at_90, at_0.rot90(1), atol=1e-5)
    assert not torch.allclose(at_90, at_0, atol=0.1)


# ---- radial slices


def shuffled(slices, seed: int):
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(slices), generator=draws).tolist()
    flips = torch.randint(2, (len(slices), 2), generator=draws).tolist()
    parts = zip(slices, order, flips, strict=True)
    return [Image(slices[m].data.flip([2] * a + [3] * b), one.grid) for one, m, (a, b) in parts]


@pytest.mark.parametrize(
    ("count", "seed"), [(4, 0), *(pytest.param(6, seed, marks=pytest.mark.nightly) for seed in range(12))]
)
def test_radial_slices_in_any_order_and_flip_are_found(count, seed):
    """From 8 mm and 12° they all come to lie where they were cut, each with its own pixels."""
    volume, truth = tissue(), pose(8, 12, 20 + seed)
    slices = slices_at(truth, [180 / count * n for n in range(count)], volume)
    pixels, steps = (300, 20) if count < 6 else (1000, 35)
    search = StartSearch(pixels=pixels, solver=Descend(steps=steps, step_size=0.5, last=0.2))
    locate = replace(DESCENT, search=search, solver=Descend(steps=steps + 5, step_size=0.5, last=0.05))
    found = RadialToVolume(locate, reorder=True)(shuffled(slices, seed), volume)
    assert len(set(found.order.slices)) == count
    seen = other_contrast(volume)
    for one in found.slices:
        there = emulated(seen, found.found.transform, one)
        inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
        assert float((there.data - one.data)[inner].abs().mean()) < 0.05 * float(one.data.std())


@pytest.mark.nightly
def test_the_loft_of_a_femur_is_nearer_to_it_than_the_hull():
    grids, onto = neck_slices(), Grid.centred((50, 50, 50), 2.0)
    radial, sections = Radial.of(grids), [femur_on(grid) for grid in grids]
    along, r, _ = radial.within(onto.to_world(onto.voxels(ONE)[None]).flatten(2)[0].T)
    seen = ((along.abs() < 50) & (r < 50)).view(onto.shape)
    truth = (femur_in(onto).data[0, 0] > 0) & seen
    dice = {}
    for made in (hull, loft):
        inside = (made(radial, sections, onto).data[0, 0] <= 0) & seen
        dice[made] = float(2 * (inside & truth).sum() / (inside.sum() + truth.sum()))
    assert dice[loft] > 0.99
    assert 1 - dice[loft] < (1 - dice[hull]) / 4


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_a_body_of_slices_is_laid_on_the_bone(seed):
    """From 15 mm and 20° to where a descent goes on: 8 mm and 12° are some 11 mm at these corners."""
    affine = torch.diag(torch.tensor([2.5, 2.5, 2.5, 1]).double())
    affine[:3, 3] = torch.tensor([-70.0, -70, -150])
    bone, truth = femur_in(Grid((70, 56, 84), affine)), pose(15, 20, 40 + seed)
    moved = [placed(femur_in(grid), truth) for grid in neck_slices()]
    found = place_body(body_of(Radial.of([one.grid for one in moved]), moved, 2.5), bone)
    points = truth.inverse()(24 * torch.tensor(list(itertools.product((-1.0, 1), repeat=3))).double())
    assert float((found(points) - truth(points)).norm(dim=1).mean()) < 8


# ---- slices that moved, and bad input


def test_each_slice_may_have_a_pose_of_its_own():
    volume = tissue()
    seen = other_contrast(volume)
    truths = [pose(1.5, 2, seed) for seed in (31, 32)]
    slices = [
        placed(emulated(seen, Affine.identity(3), plane(angle)), truth)
        for angle, truth in zip((0, 90), truths, strict=True)
    ]
    as_one = DESCENT(slices, volume)
    found = replace(DESCENT, free=True, tether=1e-4)(slices, volume)
    before, after = (
        sum(error(one, truth) for one, truth in zip(each.poses, truths, strict=True)) for each in (as_one, found)
    )
    assert after < before / 2
    assert all(one is not other for one, other in itertools.combinations(found.poses, 2))


def test_headers_that_lead_elsewhere_are_left():
    volume, truth = tissue(), pose(8, 12, 2)
    away = Affine.about(torch.eye(3).double(), torch.zeros(3).double(), torch.tensor([300.0, 0, 0]).double())
    found = DESCENT([placed(one, away) for one in slices_at(truth, (0, 90), volume)], volume)
    assert found.stats.origin == "centres"
    with pytest.raises(InputError, match="shows 0% of the slices"):
        DESCENT(slices_at(truth, (0, 90), volume), volume, away)


def test_what_cannot_be_located_is_refused():
    volume = tissue()
    with pytest.raises(InputError, match="no slice to locate"):
        DESCENT([], volume)
    with pytest.raises(InputError, match=r"slice 1: .* one voxel thick"):
        DESCENT([volume], volume)
    with pytest.raises(InputError, match="a volume expected"):
        DESCENT(slices_at(pose(0, 0, 0), (0,), volume), slices_at(pose(0, 0, 0), (0,), volume)[0])
