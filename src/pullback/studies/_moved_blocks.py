"""Blocks of brains that were turned and shifted at random, in two contrasts: trials of a search for rigid motion."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from pullback.alignment import Pair
from pullback.data import Test
from pullback.errors import InputError
from pullback.files import read_image, read_labels
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import uniform
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image, Labels, Transform, pull

BLOCK_MM, SHIFT_MM = 151.0, 30.0
KINDS = ("same contrast", "inverted contrast", "two contrasts", "PET-like", "CT-like")
PET_MM, SPOT_MM, SPOTS = 3.0, 6.0, 6
BONE_MM, BONE = 4.0, (0.01, 0.15)  # the shell where so much is left of the head, blurred by so much


@dataclass(frozen=True)
class Trials:
    """Blocks of brains that were turned and shifted at random, with the true motion; a test split alone.

    Attributes:
        root: folder of *_T1w.nii.gz and *_dseg.nii.gz, or "" until one is given.
        kind: of the pairs, one of `KINDS`.
        trials: how many.
        first: the number of the first motion, to share work.
    """

    root: str = ""
    kind: str = KINDS[0]
    trials: int = 20
    first: int = 0

    @property
    def test(self) -> Test:
        """The pairs, one per trial."""
        return Test.singles(self.blocks())

    def blocks(self) -> "list[MovedBlock]":
        """Return the trials.

        Raises:
            InputError: there are no such brains.
        """
        names = sorted(path.name.split("_")[0] for path in Path(self.root).glob("*_dseg.nii.gz"))
        if not names:
            raise InputError(f"{self.root or 'no folder given'}: *_T1w.nii.gz and *_dseg.nii.gz expected")
        numbers = range(self.first, self.first + self.trials)
        return [MovedBlock(self.root, names[n % len(names)], n, self.kind) for n in numbers]


@dataclass(frozen=True)
class MovedBlock:
    """A trial: the brain of a name, moved by the motion of a number."""

    root: str
    subject: str
    number: int
    kind: str

    @property
    def name(self) -> str:
        return f"{self.subject}, motion {self.number}"

    def load(self) -> Pair:
        """Return the moved block ← the block as it is, in the contrast of the kind."""
        image, moving = self.images()
        block, truth = block_of(image.grid), motion(image.grid, self.number)
        fixed = pull(image, truth, onto=block, mode="cubic")
        return Pair(fixed, pull(moving, Affine.identity(3), onto=block), truth=truth, name=self.name)

    def images(self) -> tuple[Image, Image]:
        """Return the whole head, and the same in the contrast of the kind."""
        image = read_image(Path(self.root) / f"{self.subject}_T1w.nii.gz")
        if self.kind == KINDS[0]:
            return image, image
        if self.kind == KINDS[1]:
            return image, Image(image.data.max() - image.data, image.grid)
        labels = read_labels(Path(self.root) / f"{self.subject}_dseg.nii.gz")
        return image, CONTRASTS[self.kind](labels, self.number)


def block_of(grid: Grid) -> Grid:
    """Return a cube of 151 mm about the middle of the grid, voxels as there."""
    shape = tuple(round(BLOCK_MM / s) for s in grid.spacing.tolist())
    affine = grid.about_origin(shape).affine
    affine[:-1, -1] += grid.centre
    return Grid(shape, affine)


def motion(grid: Grid, number: int) -> Affine:
    """Return a rotation about the middle of the grid and a shift, others for each number."""
    draws = make_generator(26, number)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = uniform(3, 1, draws)[0]
    shift = SHIFT_MM * (2 * torch.rand(3, generator=draws, dtype=torch.float64) - 1)
    matrix[:3, 3] = grid.centre - matrix[:3, :3] @ grid.centre + shift
    return Affine(matrix)


def contrast(labels: Labels, number: int) -> Image:
    """Return another look at a brain: any intensity per label, a little blurred, and noise."""
    draws = make_generator(27, number)
    intensities = torch.rand(int(labels.data.max()) + 1, generator=draws) * 0.85 + 0.15
    intensities[0] = 0
    data = gaussian(intensities[labels.data.long()], 0.7)
    return Image((data + 0.03 * torch.randn(data.shape, generator=draws)).clamp(min=0), labels.grid)


def pet_like(labels: Labels, number: int) -> Image:
    """Return uptake: any per label, smoothed to some 7 mm, with hot spots anywhere in the brain, and noise."""
    draws = make_generator(28, number)
    uptake = torch.rand(int(labels.data.max()) + 1, generator=draws) * 0.7 + 0.3
    uptake[0] = 0
    inside = (labels.data[0, 0] > 0).nonzero()
    spots = torch.zeros(labels.data.shape)
    for n in torch.randint(len(inside), (SPOTS,), generator=draws).tolist():
        spots[(0, 0, *inside[n].tolist())] = 1
    voxel = float(labels.grid.spacing.mean())
    spots = gaussian(spots, SPOT_MM / voxel)
    data = gaussian(uptake[labels.data.long()], PET_MM / voxel) + 1.5 * spots / spots.max()
    return Image((data + 0.05 * gaussian(torch.randn(data.shape, generator=draws), 1.0)).clamp(min=0), labels.grid)


def ct_like(labels: Labels, number: int) -> Image:
    """Return densities: a bright shell of bone about the brain, which is flat but for two hundredths, and noise."""
    draws = make_generator(29, number)
    density = 0.3 + 0.02 * torch.rand(int(labels.data.max()) + 1, generator=draws)
    density[0] = 0
    brain = labels.data > 0
    near = gaussian(brain.float(), BONE_MM / float(labels.grid.spacing.mean()))
    bone = (near > BONE[0]) & (near < BONE[1]) & ~brain
    data = gaussian(torch.where(bone, 1.0, density[labels.data.long()]), 0.7)
    return Image((data + 0.01 * torch.randn(data.shape, generator=draws)).clamp(min=0), labels.grid)


CONTRASTS: dict[str, Callable[[Labels, int], Image]] = {
    "two contrasts": contrast,
    "PET-like": pet_like,
    "CT-like": ct_like,
}


def corners_apart(one: Transform, other: Transform, grid: Grid) -> float:
    """Return the mean distance between where two maps bring the corners of a grid, mm."""
    ends = torch.tensor(list(product(*((0.0, n - 1.0) for n in grid.shape))), dtype=torch.float64)
    corners = grid.to_world(ends.T[None])
    return float((one.at(corners) - other.at(corners)).norm(dim=1).mean())
