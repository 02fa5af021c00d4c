"""DIR-Lab 4-D CT: ten patients, ten phases of a breath, 300 landmarks at its two ends, as they are distributed."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.case import LOADED, Singles, Test, Validation
from pullback.data.normalise import normalised
from pullback.errors import InputError
from pullback.space import Affine, Grid, Image, Points, Series, resample

PHASES = tuple(range(0, 100, 10))
INHALE, EXHALE = 0, 50  # T00 and T50
HALVES = ((0, 10, 20, 30, 40, 50), (0, 90, 80, 70, 60, 50))
"""Phases from inhale to exhale, by the one and by the other half of a breath."""
SIZES = (
    ((256, 256, 94), 0.97),
    ((256, 256, 112), 1.16),
    ((256, 256, 104), 1.15),
    ((256, 256, 99), 1.13),
    ((256, 256, 106), 1.10),
    ((512, 512, 128), 0.97),
    ((512, 512, 136), 0.97),
    ((512, 512, 128), 0.97),
    ((512, 512, 128), 0.97),
    ((512, 512, 120), 0.97),
)
"""Voxels, and their size in mm within a slice, of cases 1 to 10: no file says them."""
THICK = 2.5  # mm from slice to slice
AIR, LUNG = 624, 0.01  # stored numbers are HU + 1024: below −400 HU; least share of the voxels


def grid_of(case: int) -> Grid:
    """Return the grid of a case, its middle the origin: i runs to the left, j backwards, k up.

    Files do not say which way slices run; up is assumed, for images and landmarks alike.

    Raises:
        InputError: not one of cases 1 to 10.
    """
    if not 1 <= case <= len(SIZES):
        raise InputError(f"DIR-Lab 4-D CT: a case from 1 to {len(SIZES)} expected, got {case}")
    shape, edge = SIZES[case - 1]
    affine = torch.diag(torch.tensor([-edge, -edge, THICK, 1.0], dtype=torch.float64))
    return Grid(shape, affine).about_origin(shape)


def read_phase(root: str | Path, case: int, phase: int) -> Image:
    """Read one image of a pack, `Case1Pack/Images/case1_T00*.img`, raw numbers of 16 bits, as they are stored.

    Raises:
        InputError: no such file, several, or one of another size.
    """
    path, grid = _found(root, case, "Images", rf"case{case}_T{phase:02d}(_s|-ssm)?\.img"), grid_of(case)
    values = np.fromfile(path, dtype="<i2")
    if values.size != np.prod(grid.shape):
        raise InputError(
            f"{path}: {' × '.join(map(str, grid.shape))} numbers of 16 bits expected, got {values.size} of them"
        )
    data = values.reshape(grid.shape, order="F").astype(np.float32)
    return Image(torch.from_numpy(np.ascontiguousarray(data))[None, None], grid)


def read_landmarks(root: str | Path, case: int, phase: int) -> Points:
    """Read the 300 landmarks of T00 or T50, `(1, N, 3)` float64 in RAS mm; their files count voxels from 1.

    Raises:
        InputError: no such file, several, or no rows of three numbers within the image.
    """
    name = rf"case{case}_(300|dirlab300)_T{phase:02d}_xyz\.txt"
    path, grid = _found(root, case, "ExtremePhases", name), grid_of(case)
    try:
        voxels = torch.from_numpy(np.loadtxt(path, ndmin=2)).double() - 1
    except ValueError as error:
        raise InputError(f"{path}: rows of three numbers expected: {error}") from error
    last = torch.tensor(grid.shape) - 1
    if voxels.ndim != 2 or voxels.shape[1] != 3 or not len(voxels) or (voxels < 0).any() or (voxels > last).any():
        raise InputError(
            f"{path}: rows of three numbers expected, voxels from 1 to {', '.join(map(str, grid.shape))}; got "
            f"{tuple(voxels.shape)}"
        )
    return Points(grid.to_world(voxels.mT[None]).mT)


@dataclass(frozen=True)
class DirLab:
    """A dataset of breaths: exhale (T50, fixed) and inhale (T00, moving) of one patient, with the phases between.

    Images are laid on voxels of `spacing` mm about the middle of the lungs at inhale, intensities 0 … 1. For training
    both halves of a breath are examples, for validation and test the one from T00 by T10 to T50, with landmarks.

    Attributes:
        root: the folder with Case1Pack to Case10Pack, or "" until one is given.
        fold: 0 to 9: case `fold + 1` is tested on, the next chooses, the rest learn.
        spacing: mm.
        shape: voxels.

    Raises:
        InputError: no such fold.
    """

    root: str = ""
    fold: int = 0
    spacing: float = 2.0
    shape: tuple[int, ...] = (144, 96, 112)

    def __post_init__(self) -> None:
        if not 0 <= self.fold < len(SIZES):
            raise InputError(f"fold {self.fold}: one of 0 to {len(SIZES) - 1} expected")

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Singles:
        held = {self.fold + 1, self._next}
        cases = [case for case in range(1, len(SIZES) + 1) if case not in held]
        return Singles([self._case(case, half) for case in cases for half in range(len(HALVES))], of=self)

    @property
    def validation(self) -> Validation:
        return Validation.singles([self._case(self._next)])

    @property
    def test(self) -> Test:
        return Test.singles([self._case(self.fold + 1)])

    @property
    def _next(self) -> int:
        return (self.fold + 1) % len(SIZES) + 1

    def _case(self, number: int, half: int = 0) -> "DirLabCase":
        if not self.root or not Path(self.root).is_dir():
            raise InputError(f"{self.root or 'no folder given'}: not a folder; say where Case1Pack is with --data DIR")
        return DirLabCase(self.root, number, half, self.spacing, self.shape)


@dataclass(frozen=True)
class DirLabCase:
    """A case that is one half of one patient's breath: a pair by itself."""

    root: str
    number: int
    half: int = 0
    spacing: float = 2.0
    shape: tuple[int, ...] = (144, 96, 112)

    @property
    def name(self) -> str:
        return f"case{self.number}"

    def load(self) -> Pair:
        """Return the pair with what is between, kept until others need the room."""
        return LOADED.get(self, self._read)

    def _read(self) -> Pair:
        phases = HALVES[self.half]
        inhale = read_phase(self.root, self.number, INHALE)
        grid = _about_lungs(inhale, self.spacing, self.shape)
        laid = [self._laid(inhale, grid)]
        laid += [self._laid(read_phase(self.root, self.number, phase), grid) for phase in phases[1:]]
        moving, *between, fixed = laid
        there, here = (read_landmarks(self.root, self.number, phase) for phase in (INHALE, EXHALE))
        if there.data.shape != here.data.shape:
            counts = [len(points.data[0]) for points in (there, here)]
            raise InputError(
                f"{self.root}: case {self.number}: as many landmarks at T00 as at T50 expected, got {counts}"
            )
        times = torch.arange(1, len(phases) - 1, dtype=torch.float64) / (len(phases) - 1)
        return Pair(
            fixed,
            moving,
            fixed_points=here,
            moving_points=there,
            name=f"{self.name} {'by T10' if self.half == 0 else 'by T90'}",
            between=Series(tuple(between), grid, times, ""),
        )

    def _laid(self, image: Image, grid: Grid) -> Image:
        return normalised(resample(image, grid, Affine.identity(3)))


def _about_lungs(inhale: Image, spacing: float, shape: tuple[int, ...]) -> Grid:
    """Return a grid of `shape` voxels about the middle of the lungs: the air that no side of the image touches."""
    from scipy.ndimage import label  # noqa: PLC0415 (slow to import, and few need it)

    air, _ = label((inhale.data[0, 0] < AIR).numpy())
    sides = np.unique(np.concatenate([np.take(air, end, axis).ravel() for axis in (0, 1) for end in (0, -1)]))
    counts = np.bincount(air.ravel())
    counts[[0, *sides]] = 0
    lungs = torch.from_numpy(np.isin(air, np.flatnonzero(counts > LUNG * air.size)))
    if not lungs.any():
        raise InputError("DIR-Lab 4-D CT: no lungs found: air within a body expected, HU + 1024 below 624")
    where = lungs.nonzero().double()
    middle: Tensor = inhale.grid.to_world(((where.amin(0) + where.amax(0)) / 2)[None, :, None])[0, :, 0]
    edges = torch.tensor([spacing] * 3, dtype=torch.float64)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:-1, :-1] = edges.diag()
    affine[:-1, -1] = middle - edges * (torch.tensor(shape, dtype=torch.float64) - 1) / 2
    return Grid(tuple(shape), affine)


def _found(root: str | Path, case: int, folder: str, name: str) -> Path:
    """Return the one file of a pack that is called so, in whatever letters."""
    place = Path(root)
    for wanted in (rf"case{case}(pack|deploy)", folder, name):
        listed = sorted(place.iterdir()) if place.is_dir() else []
        fitting = [path for path in listed if re.fullmatch(wanted, path.name, re.IGNORECASE)]
        if len(fitting) != 1:
            there = ", ".join(path.name for path in listed[:5]) or "nothing"
            raise InputError(f"{place}: one {wanted} expected, got {len(fitting)}; there is {there}")
        place = fitting[0]
    return place
