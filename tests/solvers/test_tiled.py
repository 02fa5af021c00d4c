"""Registration by tiles: what all tiles agree on stays, nothing moves where the register moves nothing, no seams."""

import json
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import pytest
import torch

from pullback.alignment import BACK, Alignment, Pair
from pullback.errors import InputError
from pullback.files import write
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian, smooth_noise
from pullback.numerics.tiles import bell
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.solvers import Descend, FeatureDescent, Tiled
from pullback.space import Affine, Displacement, Grid, Image, pull
from pullback.study.trained import Trained
from pullback.training import seeded
from pullback.workflows import how

GRID = Grid((70, 55), torch.tensor([[1.0, 0.2, 3], [-0.1, 2.0, -7], [0, 0, 1]], dtype=torch.float64))


def picture(grid=GRID, seed=0, dtype=torch.float32):
    noise = smooth_noise((1, 1, *grid.shape), 2.0, make_generator(seed), torch.empty(0, dtype=dtype))
    return Image((noise - noise.min()) / (noise.max() - noise.min()), grid)


def answering(transform, **more):
    def register(fixed, moving):
        return Alignment(Pair(fixed, moving), transform, **more)

    return register


@dataclass(frozen=True)
class Looking:
    """A register that notes what it sees, and moves nothing."""

    seen: list

    def __call__(self, fixed, moving):
        self.seen.append((fixed, moving))
        return Alignment(Pair(fixed, moving), Affine.identity(fixed.grid.ndim))


def near_identity(ndim=2):
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1] += 0.01 * torch.randn(ndim, ndim + 1, generator=make_generator(1), dtype=torch.float64)
    return Affine(matrix)


@pytest.mark.parametrize("options", [{}, {"stride": 7}, {"margin": 5}, {"window": bell}, {"stride": (24, 20)}])
def test_one_linear_map_of_all_tiles_is_that_map(options):
    fixed, linear = picture(dtype=torch.float64), near_identity()
    found = Tiled(answering(linear), (24, 20), **options)(fixed, picture(seed=1, dtype=torch.float64))
    off = found.transform.displacement(GRID) - linear.displacement(GRID)
    assert off.abs().max() < 1e-9
    assert found.stats.numbers["tiles"] > 8


def test_a_register_that_moves_nothing_moves_nothing_however_often():
    still = answering(Displacement(torch.zeros(1, 2, *GRID.shape), GRID))
    for passes in (1, 3):
        found = Tiled(still, 20, passes=passes)(picture(), picture(seed=1))
        assert not found.transform.displacement(GRID).any()
        linear = Tiled(Looking([]), 20, passes=passes)(picture(), picture(seed=1))
        assert linear.transform.displacement(GRID).abs().max() < 1e-12  # what an identity in mm is in oblique voxels


@pytest.mark.parametrize("margin", [0, 6])
def test_tiles_are_parts_of_the_images_where_they_lie(margin):
    """To the bit; and beyond the ends there is the least value of the border."""
    seen: list = []
    fixed, moving = picture(), picture(seed=1)
    low = replace(fixed, data=fixed.data - 3.0)
    Tiled(Looking(seen), (24, 20), margin=margin)(low, moving)
    for one, two in seen:
        assert one.grid == two.grid
        assert one.grid.shape == (24 + 2 * margin, 20 + 2 * margin)
        first = torch.linalg.solve(GRID.affine, one.grid.affine)[:-1, -1].round().long()
        inside = [
            (max(int(a), 0), min(int(a) + n, m)) for a, n, m in zip(first, one.grid.shape, GRID.shape, strict=True)
        ]
        where = tuple(slice(a - int(f), b - int(f)) for (a, b), f in zip(inside, first, strict=True))
        there = tuple(slice(a, b) for a, b in inside)
        for part, whole in ((one, low), (two, moving)):
            assert torch.equal(part.data[(..., *where)], whole.data[(..., *there)])
            beyond = torch.ones_like(part.data, dtype=torch.bool)
            beyond[(..., *where)] = False
            border = min(whole.data[..., side, :].min() for side in (0, -1))
            border = min(border, *(whole.data[..., side].min() for side in (0, -1)), torch.tensor(0.0))
            assert (part.data[beyond] == border).all()
    assert {
        tuple(round(float(x)) for x in torch.linalg.solve(GRID.affine, one.grid.affine)[:-1, -1]) for one, _ in seen
    } >= {
        (-margin, -margin),
        (70 - 24 - margin, 55 - 20 - margin),
    }


def test_masks_come_along():
    seen: list = []
    mask = torch.zeros(1, 1, *GRID.shape, dtype=torch.bool)
    mask[..., 30:, :] = True
    Tiled(Looking(seen), 20, margin=3)(replace(picture(), mask=mask), replace(picture(seed=1), mask=mask))
    first, last = seen[0], seen[-1]
    for image in first:
        assert not image.mask.any()
    for image in last:
        assert image.mask[..., :-3, :-3].all()
        assert not image.mask[..., -3:, :].any()


def test_a_start_is_seen_through_and_composed():
    fixed, moving, begin = picture(), picture(seed=1), near_identity()
    seen: list = []
    field = Displacement(torch.full((1, 2, *GRID.shape), 0.4), GRID)
    register = Looking(seen)
    Tiled(register, 20)(fixed, moving, start=begin)
    assert (seen[0][1].data - pull(moving, begin, onto=seen[0][0]).data).abs().max() == 0
    found = Tiled(answering(field), 20)(fixed, moving, start=begin).transform
    wanted = begin @ field
    assert (found.displacement(GRID) - wanted.displacement(GRID)).abs().max() < 1e-4


def test_passes_compose_and_pull_the_image_itself():
    """φ² = φ¹ ∘ ψ: the second pass sees the moving image through the first answer, resampled once."""
    fixed, moving = picture(dtype=torch.float64), picture(seed=1, dtype=torch.float64)
    seen: list = []
    tiled = Tiled(lambda *_: None, 32)
    count = len(tiled.tiling(GRID.shape))
    first = Affine(torch.tensor([[1.0, 0, 2], [0, 1, -1], [0, 0, 1]], dtype=torch.float64))

    def register(one, two):
        seen.append((one, two))
        return Alignment(Pair(one, two), first if len(seen) <= count else near_identity())

    found = replace(tiled, register=register, passes=2)(fixed, moving).transform
    assert len(seen) == 2 * count
    assert torch.equal(seen[0][1].data, moving.data[..., :32, :32])
    inside = (..., slice(4, -4), slice(4, -4))
    once = pull(moving, first, onto=GRID).data[..., :32, :32]
    assert (seen[count][1].data - once)[inside].abs().max() < 1e-6
    off = found.displacement(GRID) - (first @ near_identity()).displacement(GRID)
    assert off[inside].abs().max() < 1e-6
    assert (found.displacement(GRID) - (near_identity() @ first).displacement(GRID))[inside].abs().max() > 1e-3


def test_maps_and_further_transforms_are_blended_too():
    linear = near_identity()
    back = linear.inverse()

    def register(fixed, moving):
        where = fixed.grid.to_world(fixed.grid.voxels(fixed.data)[None])
        maps = {"place": Image(where.float(), fixed.grid)}
        return Alignment(Pair(fixed, moving), linear, maps, {BACK: back, "half": linear})

    found = Tiled(register, (24, 20), margin=2)(picture(), picture(seed=1))
    where = GRID.to_world(GRID.voxels(torch.empty(0))[None])
    assert (found.maps["place"].data - where).abs().max() < 1e-3
    for name, one in ((BACK, back), ("half", linear)):
        assert (found.transforms[name].displacement(GRID) - one.displacement(GRID)).abs().max() < 1e-4
    shifted = Affine(torch.tensor([[1.0, 0, 2], [0, 1, -1], [0, 0, 1]], dtype=torch.float64))
    begun = Tiled(register, (24, 20))(picture(), picture(seed=1), start=shifted)
    point = torch.tensor([[[20.0, 30.0]]], dtype=torch.float64)
    home = begun.transforms[BACK](shifted(linear(point)))  # back @ start⁻¹, of the whole way there
    assert (home - point).abs().max() < 1e-3


def test_a_real_register_by_tiles_finds_what_it_finds_on_the_whole():
    """A smooth motion of about a voxel and a half; tiles differ at their rims, which count least."""
    grid = Grid.centred((72, 64))
    moving = picture(grid)
    noise = smooth_noise((1, 2, *grid.shape), 12.0, make_generator(3), torch.empty(0))
    truth = Displacement(1.5 * noise, grid)
    fixed = pull(moving, truth, onto=grid)
    register = ConvexAdam(spacing=4, descent=FeatureDescent(solver=Descend(steps=30, step_size=1.0)))
    inside = (..., slice(8, -8), slice(8, -8))
    fields = [one(fixed, moving).transform.displacement(grid) for one in (register, Tiled(register, 48))]
    whole, tiles = (float((field - truth.field)[inside].norm(dim=1).mean()) for field in fields)
    before = float(truth.field[inside].norm(dim=1).mean())
    assert whole < 0.2 * before
    assert tiles < 0.2 * before


def test_a_batch_is_what_its_pairs_are_alone():
    fixed, moving = picture(), picture(seed=1)
    both = Image(torch.cat([moving.data, fixed.data]), GRID)

    def register(one, two):
        far = gaussian(two.data - one.data, 2.0)
        return Alignment(Pair(one, two), Displacement(torch.cat([far, -far], 1), one.grid))

    tiled = Tiled(register, 24)
    found = tiled(fixed, both).transform
    assert found.batch == 2
    assert torch.equal(found.nth(0).field, tiled(fixed, moving).transform.field)


def test_motion_that_may_come_from_beyond_is_warned_of():
    field = Displacement(torch.full((1, 2, *GRID.shape), 9.0), GRID)
    with pytest.warns(UserWarning, match="motion of 9 voxels along axis 0, where 32 are seen"):
        Tiled(answering(field), 32)(picture(), picture(seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tiled(answering(field), 64, stride=40)(picture(), picture(seed=1))
        Tiled(answering(field), 32, margin=8)(picture(), picture(seed=1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 12}, "16 voxels or more along each axis expected, got 12"),
        ({"size": (32, 8)}, "got 32×8"),
        ({"size": 32, "stride": 40}, "stride from 1 to their size"),
        ({"size": 32, "stride": 0}, "stride from 1"),
        ({"size": 32, "margin": -1}, "margin of 0 or more"),
        ({"size": 32, "passes": 0}, "one pass or more"),
    ],
)
def test_bad_numbers_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        Tiled(Looking([]), **options)


def test_sizes_of_other_axes_are_refused():
    with pytest.raises(
        InputError, match="one size, or one for each of the 2 axes of the images expected, got 32×32×32"
    ):
        Tiled(Looking([]), (32, 32, 32))(picture(), picture(seed=1))


def test_an_image_that_one_tile_covers_is_seen_as_it_is():
    seen: list = []
    fixed, moving = picture(), picture(seed=1)
    Tiled(Looking(seen), 128)(fixed, moving)
    ((one, two),) = seen
    assert torch.equal(one.data, fixed.data)
    assert torch.equal(two.data, moving.data)


def test_answers_of_different_kinds_are_refused():
    def register(fixed, moving):
        names = {"odd": Affine.identity(2)} if float(fixed.data.mean()) > 0.5 else {}
        return Alignment(Pair(fixed, moving), Affine.identity(2), {}, names)

    image = picture()
    data = image.data.clone()
    data[..., :35, :] = 0.0
    data[..., 35:, :] = 1.0
    with pytest.raises(InputError, match="same maps and transforms on each tile"):
        Tiled(register, 24)(replace(image, data=data), image)


# ---- trained networks by tiles


class Pointwise(torch.nn.Module):
    """A network whose field is the difference of both intensities at each voxel."""

    def forward(self, fixed, moving):
        off = moving.data - fixed.data
        return Alignment(
            Pair(fixed, moving), Displacement(off.repeat(1, fixed.grid.ndim, *[1] * fixed.grid.ndim), fixed.grid)
        )


def test_a_trained_network_sees_tiles_of_images_that_were_normalised_as_wholes():
    """What looks at single voxels answers the same; were each tile brought to its own scale, it would not."""
    grid = Grid.centred((64, 50))
    slope = torch.linspace(0, 40, 64).view(1, 1, -1, 1)
    fixed, moving = (Image(10 * picture(grid, seed=n).data + slope, grid) for n in (0, 1))
    whole, tiles = (Trained(Pointwise(), tiles=size)(fixed, moving) for size in (None, 24))
    assert (whole.transform.field - tiles.transform.field).abs().max() < 1e-6
    assert whole.transform.field.abs().max() > 0.1
    assert "tiles" not in whole.stats.numbers
    assert tiles.stats.numbers["tiles"] > 4


def test_a_way_back_leads_home_also_from_a_start():
    """Of images laid middle on middle: there by the start and the answer, back by the answer and the start."""
    shift = Affine(torch.tensor([[1.0, 0, 1], [0, 1, -2], [0, 0, 1]], dtype=torch.float64))

    class Both(torch.nn.Module):
        def forward(self, fixed, moving):
            return Alignment(Pair(fixed, moving), shift, transforms={BACK: shift.inverse()})

    far = Grid((40, 40), torch.tensor([[1.0, 0, 30], [0, 1, 9], [0, 0, 1]], dtype=torch.float64))
    fixed, moving = picture(Grid.centred((40, 40))), picture(far)
    for centred in (False, True):
        found = Trained(Both(), centred=centred)(fixed, moving if centred else replace(moving, grid=fixed.grid))
        point = torch.tensor([[[2.0, -3.0]]], dtype=torch.float64)
        assert (found.transforms[BACK](found.transform(point)) - point).abs().max() < 1e-6
    assert found.transform(point)[0, 0, 0] > 30


def test_the_command_takes_tiles(monkeypatch, pullback, tmp_path):
    monkeypatch.setattr(how, "load_run", lambda *_: (None, Trained(Pointwise(), ndim=2)))
    grid = Grid.centred((48, 40))
    for name, seed in (("fixed", 0), ("moving", 1)):
        write(picture(grid, seed), tmp_path / f"{name}.nii.gz")
    words = ("register", "-f", tmp_path / "fixed.nii.gz", "-m", tmp_path / "moving.nii.gz", "-o", tmp_path / "out")
    code, out, err = pullback(*words, "--network", "a_run", "--tiles", "24,20", "--json")
    assert code in (0, 3), err
    content = json.loads(out)
    assert content["settings"]["tiles"] == [24, 20]
    assert content["found"]["tiles"] == 9
    for given, says in (
        ("24,20,20", "one number, or 2 for images"),
        ("8", "tiles of 16 voxels or more"),
        ("half", "whole numbers are expected"),
    ):
        code, _, err = pullback(*words, "--network", "a_run", "--tiles", given)
        assert code == 2 or code == 1
        assert says in " ".join(err.split())
    code, _, err = pullback(*words, "--tiles", "32")
    assert "there is no --network" in " ".join(err.split())


def held(size):
    """The most memory in MB that a network of the whole needs beside what there was, by tiles of `size` or at once."""
    grid, cpu = Grid.centred((128, 128, 128)), torch.device("cpu")
    fixed, moving = (picture(grid, seed) for seed in (0, 1))
    with seeded(0):
        trained = Trained(VoxelMorph(3).eval(), tiles=size)
    forget_peak_memory(cpu)
    before = peak_memory_mb(cpu)
    _ = trained(fixed, moving).transform.displacement(grid)
    return peak_memory_mb(cpu) - before


@pytest.mark.nightly
def test_tiles_need_less_memory_than_the_whole():
    """Of a volume of 128³, by tiles of 64; each in a process of its own."""
    found = []
    for size in (None, 64):
        with ProcessPoolExecutor(1, get_context("spawn")) as own:
            found.append(own.submit(held, size).result())
    assert found[1] < 0.4 * found[0]
