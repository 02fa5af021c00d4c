"""Images in random poses: phantoms of brains, and MR of prostates with their transrectal ultrasound (DeepReg's sample).

The files claim voxels of 0.4 mm, in which a gland would hold a millilitre; DeepReg's authors resample both images to
0.8 mm (Hu et al. 2018), which is taken here. Where these images lie is not known: their middles are laid on each other.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import torch

from pullback.alignment import Pair
from pullback.data import BrainPhantom, Singles, Subject, Synthetic, Test, Train, Validation, normalised
from pullback.data.case import LOADED, Case
from pullback.energies import MSE
from pullback.errors import InputError
from pullback.numerics.random import drawn_number, make_generator
from pullback.numerics.smooth import gaussian
from pullback.solvers import LinearStage
from pullback.solvers.initialise import masses
from pullback.space import Affine, Grid, Image, Labels, pull, resample
from pullback.training import Perturbed, RandomPose

VOXEL = 0.8  # mm
MR, ULTRASOUND = "moving", "fixed"  # what the folders of both call them
TEST, VALIDATION = 4, 2  # people
BLUR = 2.0  # voxels, of masks that are laid on each other


def names_in(root: str) -> tuple[str, ...]:
    """Return the names of the people.

    Raises:
        InputError: there are too few.
    """
    found = tuple(sorted(path.name.split(".")[0] for path in (Path(root) / "moving_images").glob("*.nii.gz")))
    if len(found) < TEST + VALIDATION + 2:
        raise InputError(f"{root or 'no folder given'}: moving_images/, fixed_images/ and labels of both are expected")
    return found


@dataclass(frozen=True)
class ProstateCase:
    """A case that is one image of a prostate with its gland as label 1, its middle at the world's origin.

    Attributes:
        root: the folder.
        name: of the person.
        spacing: mm.
        side: `MR` or `ULTRASOUND`.
    """

    root: str
    name: str
    spacing: float
    side: str = MR

    def load(self) -> Subject:
        """Return the image, of intensities 0 … 1, and the gland."""
        return LOADED.get(self, self._read)

    def _read(self) -> Subject:
        data, gland = (self._stored(kind) for kind in ("images", "labels"))
        stored = Image(torch.from_numpy(data)[None, None], Grid.centred(data.shape, VOXEL))
        inside = Labels(torch.from_numpy(gland > 0.5).to(torch.uint8)[None, None], stored.grid)
        grid = Grid.centred(tuple(round(n * VOXEL / self.spacing) for n in data.shape), self.spacing)
        image = normalised(resample(stored, grid))
        return Subject(image, pull(inside, Affine.identity(3), onto=image), name=self.name)

    def _stored(self, kind: str) -> np.ndarray:
        """Return the image, or the first of the labels, which is the gland, float32."""
        path = Path(self.root) / f"{self.side}_{kind}" / f"{self.name}.nii.gz"
        stored = np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        return stored[..., 0] if stored.ndim == 4 else stored


@dataclass(frozen=True)
class ProstatePair:
    """A case that is the MR of a prostate, fixed, and its ultrasound, laid on it by their glands: a truth that is made.

    Glands are smoothed and brought onto each other by the rigid map of the least mean square, from centre to centre.
    """

    root: str
    name: str
    spacing: float

    def load(self) -> Pair:
        """Return the pair, whose truth is the identity: what was found is in the ultrasound's grid."""
        return LOADED.get(self, self._read)

    def _read(self) -> Pair:
        one, other = (ProstateCase(self.root, self.name, self.spacing, side).load() for side in (MR, ULTRASOUND))
        assert one.labels is not None
        assert other.labels is not None
        here, there = (Image(gaussian(each.data.float(), BLUR), each.grid) for each in (one.labels, other.labels))
        found = LinearStage(energy=MSE())(here, there, masses(here, there)).transform.as_affine
        assert found is not None
        grid = Grid(other.image.grid.shape, found.inverse().matrix @ other.image.grid.affine)
        return Pair(
            one.image,
            replace(other.image, grid=grid),
            one.labels,
            Labels(other.labels.data, grid),
            truth=Affine.identity(3),
            name=self.name,
        )


@dataclass(frozen=True)
class Posing:
    """A maker of pairs in random poses, always the same ones, of cases that are pairs; as `Synthetic` is of images.

    Attributes:
        perturbed: what brings a pair into its pose.
        poses: of each case.
    """

    perturbed: Perturbed
    poses: int

    def __call__(self, case: Case, number: int) -> Pair:
        """Return the pair at `number` in the list of a split."""
        number %= self.poses
        draws = make_generator(28, round(drawn_number(0, case.name) * 2**48), number)
        return replace(self.perturbed(case.load(), draws), name=f"{case.name} in pose {number + 1}")


@dataclass(frozen=True)
class Prostates:
    """Prostates of 20 people in random poses: 14 are learned from, 2 choose the checkpoint, the last 4 are tested.

    Attributes:
        root: the folder, or "" until one is given.
        kind: `"mr"`, an MR and itself, or `"mr-us"`, an MR and its ultrasound.
        spacing: to which images are resampled, mm.
        perturbed: what brings moving images into their poses, for validation and test too.
        poses: of each person for test; for validation a third of them.
    """

    root: str = ""
    kind: str = "mr"
    spacing: float = 1.6
    perturbed: Perturbed = Perturbed(RandomPose(25.0), surface=400)
    poses: int = 15
    centred: ClassVar[bool] = True

    @cached_property
    def _people(self) -> tuple[str, ...]:
        return names_in(self.root)

    def _cases(self, first: int, last: int | None) -> list[Any]:
        kind = ProstateCase if self.kind == "mr" else ProstatePair
        return [kind(self.root, name, self.spacing) for name in self._people[first:last]]

    @property
    def train(self) -> Train | Singles:
        """The people to learn from, to be brought into poses."""
        cases = self._cases(0, -TEST - VALIDATION)
        return Train(cases, of=self) if self.kind == "mr" else Singles(cases, of=self)

    @property
    def validation(self) -> Validation:
        """The people that choose the checkpoint, each in the same poses."""
        return self._posed(Validation, self._cases(-TEST - VALIDATION, -TEST), max(self.poses // 3, 1))

    @property
    def test(self) -> Test:
        """The people that are tested, each in the same poses."""
        return self._posed(Test, self._cases(-TEST, None), self.poses)

    def _posed(self, split: type[Any], cases: list[Any], poses: int) -> Any:
        if self.kind == "mr":
            return Synthetic(self.perturbed, poses).listed(split, cases)
        return split.singles([case for case in cases for _ in range(poses)], Posing(self.perturbed, poses))


@dataclass(frozen=True)
class PosedBrains:
    """Phantoms of brains and themselves in random poses.

    Attributes:
        phantom: the brains.
        perturbed: what brings them into their poses, for validation and test too.
        poses: of each subject for validation and test.
    """

    phantom: BrainPhantom = BrainPhantom(8.0, train_subjects=24, validation_subjects=4, test_subjects=16)
    perturbed: Perturbed = Perturbed(RandomPose(40.0), surface=400)
    poses: int = 3
    centred: ClassVar[bool] = False

    @cached_property
    def _made(self) -> BrainPhantom:
        return replace(self.phantom, synthetic=Synthetic(self.perturbed, self.poses))

    @property
    def train(self) -> Train:
        """The brains to learn from, to be brought into poses."""
        return self._made.train

    @property
    def validation(self) -> Validation:
        """The brains that choose the checkpoint, each in the same poses."""
        return self._made.validation

    @property
    def test(self) -> Test:
        """The brains that are tested, each in the same poses."""
        return self._made.test
