"""The study of slices in a volume (Abbas et al. 2022): made poses on real volumes, two contrasts, the femur's body.

    pullback study slice-to-volume recovery --data brains=DIR
    pullback study slice-to-volume contrasts --data heads=DIR
    pullback study slice-to-volume body
    pullback study slice-to-volume order --data brains=DIR

In `recovery`, slices are cut out of a real volume through their thickness, seen in a contrast that is neither brighter
where the volume is bright nor darker, and given noise and a header that is wrong by a known pose. In `contrasts`, those
of one image of a head are located in another contrast; the truth is the rigid map between the two whole images, by
mutual information of all voxels. In `body`, the bone that six sections of a femur make, hull or loft, is laid on the
whole bone. In `order`, radial slices are shuffled and flipped first.

Errors are mean distances over the corners of a cube about the slices, 40 mm from their middle. SimpleITK descends the
mutual information of the first slice alone, which is the one image that it takes.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from pullback.data import normalised
from pullback.data.phantoms.femur import femur_in, neck_slices
from pullback.errors import InputError
from pullback.files import read_image, write_image
from pullback.methods.pose.radial import Radial, hull, loft
from pullback.methods.pose.radial_to_volume import BinarySearch, Made, RadialToVolume, body_of, place_body
from pullback.methods.pose.slice_to_volume import SliceToVolume, StartSearch
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_vector
from pullback.solvers import LinearStage, within_view
from pullback.space import Affine, Grid, Image, emulated, placed
from pullback.study.arms import Arm, FunctionArm
from pullback.study.peers import RigidSimpleITK
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import Row

REACH = 40.0  # mm, of the corners at which errors are measured
FAILED = 5.0  # mm
PEER = RigidSimpleITK(levels=1, sampled=1.0)
NEAR, MIDDLE, FAR = (2.0, 5.0), (8.0, 12.0), (20.0, 30.0)  # mm and degrees
"""Starts: how wrong headers are."""


@dataclass(frozen=True)
class MadeSlices:
    """Slices cut out of real volumes, with headers that are wrong by a known pose.

    Attributes:
        root: folder of the volumes, or "" until one is given.
        images: pattern of their names.
        subjects: how many of them.
        trials: poses of each.
        slices: 1, 2 or 3 at right angles; more are radial, about an axis of the first.
        shift, degrees: of the pose.
        noise: deviation, as a share of the window.
        pixel, side, thickness: of the slices: mm, pixels, mm.
        reach: mm, from the middle of the slices to the corners at which errors are measured.
    """

    root: str = ""
    images: str = "*_T1w.nii.gz"
    subjects: int = 3
    trials: int = 2
    slices: int = 1
    shift: float = MIDDLE[0]
    degrees: float = MIDDLE[1]
    noise: float = 0.03
    pixel: float = 2.0
    side: int = 80
    thickness: float = 4.0
    reach: float = REACH

    def cases(self, seed: int) -> "Iterator[MadeCase]":
        """Yield the trials.

        Raises:
            InputError: there are no such volumes.
        """
        paths = sorted(Path(self.root).glob(self.images))[: self.subjects]
        if not paths:
            raise InputError(f"{self.root or 'no folder given'}: {self.images} expected; name it with --data NAME=DIR")
        for path, trial in product(paths, range(self.trials)):
            volume, centre = _read(path)
            draws = make_generator(32, seed, trial)
            truth = drawn_pose(centre, self.shift, self.degrees, draws)
            seen = other_contrast(volume)
            cut = [emulated(seen, Affine.identity(3), grid) for grid in self._grids(centre, trial)]
            noisy = [replace(one, data=one.data + self.noise * _noise(one.data, draws)) for one in cut]
            name = f"{path.name.split('.')[0]}, pose {trial + 1}"
            middle = truth.inverse().at(centre.view(1, 3, 1))
            yield MadeCase(name, [placed(one, truth) for one in noisy], volume, truth, middle, self.reach)

    def _grids(self, centre: Tensor, trial: int) -> list[Grid]:
        """Return where slices are cut: tilted, another way in each trial."""
        tilt = of_vector(torch.tensor([[0.2, -0.15, 0.1]]).double() * (1 + trial))[0]
        if self.slices > 3:
            return [self._grid(centre, tilt @ _about_y(math.pi * n / self.slices)) for n in range(self.slices)]
        turns = (torch.eye(3).double(), _about_y(math.pi / 2), _about_x(math.pi / 2))
        return [self._grid(centre, tilt @ turn) for turn in turns[: self.slices]]

    def _grid(self, centre: Tensor, turn: Tensor) -> Grid:
        affine = torch.eye(4).double()
        affine[:3, :3] = turn * torch.tensor([self.pixel, self.pixel, self.thickness]).double()
        affine[:3, 3] = centre - affine[:3, :2].sum(1) * (self.side - 1) / 2
        return Grid((self.side, self.side, 1), affine)


@dataclass(frozen=True, eq=False)
class MadeCase:
    """A trial.

    Attributes:
        name: of it.
        slices: with wrong headers.
        volume: in which they lie.
        truth: points of the slices → points of the volume.
        middle: of the slices, `(1, 3, 1)` mm in their world.
        reach: as of `MadeSlices`.
    """

    name: str
    slices: Sequence[Image]
    volume: Image
    truth: Affine
    middle: Tensor
    reach: float = REACH

    def error(self, found: Affine) -> float:
        """Return the mean distance of a pose from the truth, in mm."""
        corners = torch.tensor(list(product((-1.0, 1.0), repeat=3))).double().T * self.reach / 3**0.5
        points = (self.middle.reshape(3, 1) + corners)[None]
        return float((found.at(points) - self.truth.at(points)).norm(dim=1).mean())


@lru_cache(maxsize=4)
def _read(path: Path) -> tuple[Image, Tensor]:
    """Return a volume, 0 … 1, and the middle of what is bright in it."""
    volume = normalised(read_image(path))
    weight = (volume.data[0, 0] > 0.2).double().flatten()
    where = volume.grid.to_world(volume.grid.voxels(weight)[None]).flatten(2)[0]
    return volume, where @ weight / weight.sum()


def other_contrast(volume: Image) -> Image:
    """Return another look at a volume of intensities 0 … 1: what is in the middle of its range is brightest."""
    return replace(volume, data=(1.3 * (3.6 * volume.data).sin().abs() * (volume.data > 0.05)).clamp(0, 1.2))


def drawn_pose(centre: Tensor, shift: float, degrees: float, draws: torch.Generator) -> Affine:
    """Return a rigid map about a centre by a shift and an angle, in directions that are drawn."""
    turn, way = (torch.randn(3, generator=draws, dtype=torch.float64) for _ in range(2))
    rotation = of_vector((math.radians(degrees) * turn / turn.norm())[None])[0]
    return Affine.about(rotation, centre, centre + shift * way / way.norm())


def _noise(like: Tensor, draws: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=draws, dtype=like.dtype)


def _about_y(angle: float) -> Tensor:
    return of_vector(torch.tensor([[0.0, angle, 0.0]]).double())[0]


def _about_x(angle: float) -> Tensor:
    return of_vector(torch.tensor([[angle, 0.0, 0.0]]).double())[0]


# ---- what is measured


def before(data: MadeSlices, seed: int) -> Iterator[Row]:
    """Measure the headers."""
    for case in data.cases(seed):
        yield _row(case, Affine.identity(3), 0.0)


def located(data: MadeSlices, seed: int, locate: SliceToVolume) -> Iterator[Row]:
    """Measure the search for the pose."""
    for case in data.cases(seed):
        start = time.perf_counter()
        found = locate(case.slices, case.volume)
        lead: Row = {} if found.stats.confidence is None else {"lead": found.stats.confidence}
        yield _row(case, found.transform, time.perf_counter() - start) | lead


def by_simpleitk(data: MadeSlices, seed: int) -> Iterator[Row]:
    """Measure SimpleITK's descent of the mutual information of the first slice, a 3-D image one voxel thick.

    It sees all pixels at full resolution: its pyramids smooth along all axes, and take no image of one voxel.
    """
    for case in data.cases(seed):
        with TemporaryDirectory() as folder:
            fixed, moving = Path(folder) / "slice.nii.gz", Path(folder) / "volume.nii.gz"
            write_image(case.slices[0], fixed)
            write_image(case.volume, moving)
            answer = PEER(fixed, moving, Path(folder))
        found = answer.transform.as_affine
        assert found is not None
        yield _row(case, found, answer.seconds)


def reordered(data: MadeSlices, seed: int, locate: RadialToVolume) -> Iterator[Row]:
    """Measure radial slices that were shuffled and flipped, by how many come to lie where they were cut.

    A slice does so where what the volume shows in its place, in the slices' contrast, correlates with it by 0.9.
    """
    for n, case in enumerate(data.cases(seed)):
        draws = make_generator(33, seed, n)
        order = torch.randperm(len(case.slices), generator=draws).tolist()
        flips = torch.randint(2, (len(case.slices), 2), generator=draws).tolist()
        parts = zip(case.slices, order, flips, strict=True)
        stored = [replace(one, data=case.slices[m].data.flip([2] * a + [3] * b)) for one, m, (a, b) in parts]
        start = time.perf_counter()
        found = locate(stored, case.volume)
        spent = time.perf_counter() - start
        seen = other_contrast(case.volume)
        right = [_correlation(emulated(seen, found.found.transform, one).data, one.data) > 0.9 for one in found.slices]
        yield {"case": case.name, "right": sum(right) / len(right), "all": float(all(right)), "seconds": spent}


def _correlation(one: Tensor, two: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1])


def _row(case: MadeCase, found: Affine, seconds: float) -> Row:
    error = case.error(found)
    return {"case": case.name, "error mm": error, "failed": float(error > FAILED), "seconds": seconds}


# ---- two contrasts of one head


@dataclass(frozen=True)
class TwoContrasts(MadeSlices):
    """Slices of one image of a head, to be located in another, whose truth is the map between both whole images.

    Attributes:
        fixed, moving: names of both.
    """

    fixed: str = "chris_t1.nii.gz"
    moving: str = "chris_PD.nii.gz"
    trials: int = 6

    def cases(self, seed: int) -> Iterator[MadeCase]:
        """Yield the trials.

        Raises:
            InputError: a file is missing.
        """
        for name in (self.fixed, self.moving):
            if not (Path(self.root) / name).is_file():
                raise InputError(f"{Path(self.root) / name}: no such file; name its folder with --data NAME=DIR")
        one, _ = _read(Path(self.root) / self.fixed)
        volume, middle = _read(Path(self.root) / self.moving)
        whole = whole_map(Path(self.root) / self.fixed, Path(self.root) / self.moving)
        centre = whole.inverse().at(middle.view(1, 3, 1))[0, :, 0]
        for trial in range(self.trials):
            draws = make_generator(34, seed, trial)
            away = drawn_pose(centre, self.shift, self.degrees, draws)
            cut = [emulated(one, Affine.identity(3), grid) for grid in self._grids(centre, trial)]
            truth = Affine(whole.matrix @ away.matrix)
            moved = [placed(each, away) for each in cut]
            yield MadeCase(f"pose {trial + 1}", moved, volume, truth, away.inverse().at(centre.view(1, 3, 1)))


@lru_cache(maxsize=2)
def whole_map(fixed: Path, moving: Path) -> Affine:
    """Return the rigid map between two whole images, by mutual information."""
    found = LinearStage()(within_view(_read(fixed)[0]), _read(moving)[0]).transform.as_affine
    assert found is not None
    return found


# ---- the body


@dataclass(frozen=True)
class FemurPoses:
    """Six sections of a femur, and the whole bone, in known poses.

    Attributes:
        trials: poses.
        shift, degrees: of them.
        voxel: mm.
    """

    trials: int = 4
    shift: float = 15.0
    degrees: float = 20.0
    voxel: float = 2.5


def bodies(data: FemurPoses, seed: int, made: Made, viewed: bool = True) -> Iterator[Row]:
    """Measure the body of six sections, laid on the whole bone.

    Args:
        data: the poses.
        seed: of them.
        made: hull or loft.
        viewed: whether only what the slices see of the body counts.
    """
    grids = neck_slices()
    affine = torch.diag(torch.tensor([data.voxel] * 3 + [1.0]).double())
    affine[:3, 3] = torch.tensor([-70.0, -70, -150])
    whole = femur_in(Grid(tuple(round(n / data.voxel) for n in (175, 140, 210)), affine))
    centre = torch.stack([grid.centre for grid in grids]).mean(0)
    for trial in range(data.trials):
        truth = drawn_pose(centre, data.shift, data.degrees, make_generator(35, seed, trial))
        moved = [placed(femur_in(grid), truth) for grid in grids]
        start = time.perf_counter()
        radial = Radial.of([one.grid for one in moved])
        body = body_of(radial, moved, data.voxel, made)
        found = place_body(body if viewed else replace(body, mask=None), whole)
        spent = time.perf_counter() - start
        inside = emulated_dice(body, truth)
        case = MadeCase(f"pose {trial + 1}", [], body, truth, truth.inverse().at(centre.view(1, 3, 1)))
        yield _row(case, found, spent) | {"dice": inside}


def emulated_dice(body: Image, truth: Affine) -> float:
    """Return the Dice overlap of a body with the bone, where the slices see it."""
    bone = femur_in(Grid(body.grid.shape, truth.matrix @ body.grid.affine)).data > 0
    assert body.mask is not None
    one, two = (body.data > 0.5) & body.mask, bone & body.mask
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


# ---- tables

HERE = SliceToVolume(search=StartSearch(starts=0))
BEFORE: dict[str, Arm] = {"as the headers say": FunctionArm(before)}
ARMS: dict[str, Arm] = {
    **BEFORE,
    "SimpleITK, one slice": FunctionArm(by_simpleitk),
    "descent": FunctionArm(partial(located, locate=HERE)),
    "search, then descent": FunctionArm(partial(located, locate=SliceToVolume())),
}
PARTS: dict[str, Arm] = {
    "one layer": FunctionArm(partial(located, locate=replace(HERE, layers=1))),
    "a histogram of each slice": FunctionArm(partial(located, locate=replace(HERE, shared=False))),
}
COLUMNS = (
    Column("median error", "mm", better="less", of="median", digits=2, key="error mm"),
    Column("worst", "mm", better="less", of="max", digits=2, key="error mm"),
    Column("failed", "", better="less", of="rate"),
    Column("median time", "s", better="less", of="median", digits=1, key="seconds"),
    Column("lead", digits=2, key="lead"),
)
BASELINE = "search, then descent"


def _recovery() -> dict[str, Experiment]:
    found = {}
    for (shift, degrees), slices in product((NEAR, MIDDLE, FAR), (1, 3)):
        arms = ARMS if slices == 1 or (shift, degrees) != MIDDLE else {**ARMS, **PARTS}
        data = MadeSlices(slices=slices, shift=shift, degrees=degrees)
        found[f"brains/{shift:g} mm, {degrees:g}°, {slices} of them"] = Experiment(arms, BASELINE, data)
    return found


study = Study(
    about="2D/3D quasi-intramodal registration of quantitative MR: slices to a volume (Abbas et al. 2022)",
    tables={
        "recovery": Table(
            "Poses of slices cut out of brains, in another contrast, with noise",
            "None: results are pending in the paper.",
            _recovery(),
            COLUMNS,
        ),
        "contrasts": Table(
            "Slices of a T1 of a head in its PD, whose truth is the map between the whole images",
            "None: results are pending in the paper.",
            {
                f"heads/{slices} of them": Experiment(ARMS, BASELINE, TwoContrasts(slices=slices, trials=6))
                for slices in (1, 3)
            },
            COLUMNS,
        ),
        "body": Table(
            "The body of six sections of a femur, laid on the whole bone, from 15 mm and 20°",
            "The visual hull of six slices; results are pending in the paper.",
            {
                "femur": Experiment(
                    {
                        "hull": FunctionArm(partial(bodies, made=hull)),
                        "loft": FunctionArm(partial(bodies, made=loft)),
                        "loft, without the slices' view": FunctionArm(partial(bodies, made=loft, viewed=False)),
                    },
                    "loft",
                    FemurPoses(),
                )
            },
            (Column("Dice", better="more", key="dice"), *COLUMNS[:2], COLUMNS[3]),
        ),
        "order": Table(
            "Six radial slices in any order and with any flips, from 8 mm and 12°",
            "The paper orders slices by hand.",
            {
                "brains": Experiment(
                    {
                        "order": FunctionArm(partial(reordered, locate=RadialToVolume(HERE, reorder=True))),
                        "order and vote": FunctionArm(
                            partial(reordered, locate=RadialToVolume(HERE, reorder=True, binary=BinarySearch()))
                        ),
                    },
                    "order",
                    MadeSlices(slices=6, subjects=3, trials=1, side=64, pixel=2.5),
                )
            },
            (
                Column("slices right", better="more", digits=2, key="right"),
                Column("all right", better="more", of="rate", key="all"),
                Column("median time", "s", better="less", of="median", digits=1, key="seconds"),
            ),
        ),
    },
)
