"""The IXI dataset as TransMorph's authors prepared it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pullback.data.case import LOADED, Subject, Test, Train, Validation
from pullback.data.normalise import normalised
from pullback.errors import InputError
from pullback.files.images.pickled import read_arrays
from pullback.space import Grid, Image, Labels

FOLDERS = ("Train", "Val", "Test")


@dataclass(frozen=True)
class PickledCase:
    """An image and its labels, two arrays of one shape in a pickle; their grid is not stored: 1 mm, centred."""

    name: str
    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def load(self) -> Subject:
        """Return the subject from memory, or from its file; intensities are normalised.

        Raises:
            InputError: other than an image and labels of one shape, or numbers that are neither.
        """
        return LOADED.get(self, self._read)

    def _read(self) -> Subject:
        arrays = read_arrays(self.path)
        shapes = [array.shape for array in arrays]
        if len(arrays) != 2 or shapes[0] != shapes[1] or len(shapes[0]) not in (2, 3):
            raise InputError(f"{self.path}: an image and its labels of one shape expected, got arrays of {shapes}")
        image, labels = arrays
        if not np.isfinite(image).all() or not np.array_equal(labels, np.rint(labels)):
            raise InputError(
                f"{self.path}: an image and its labels expected, in this order: finite numbers, then whole ones"
            )
        grid = Grid.centred(image.shape)
        seen = Image(torch.from_numpy(image.astype(np.float32))[None, None], grid)
        known = Labels(torch.from_numpy(labels.astype(np.int16))[None, None], grid)
        return Subject(normalised(seen), known, name=self.name)


@dataclass(frozen=True)
class PreparedIXI:
    """A folder of the IXI images that move in pairs with one atlas: `Train`, `Val` and `Test`, and `atlas.pkl`.

    Each subject is one `.pkl`; the atlas is the moving image of every pair. Skull-stripped T1 of 160×192×224 voxels of
    1 mm, aligned by affine maps, with FreeSurfer's labels (Chen et al. 2022, TransMorph); 403, 58 and 115 subjects. The
    pickles are read as data (`read_arrays`).

    Attributes:
        root: the folder, or "" until one is given.
    """

    root: str = ""

    @cached_property
    def _cases(self) -> tuple[tuple[PickledCase, ...], ...]:
        if not self.root or not Path(self.root).is_dir():
            raise InputError(f"{self.root or 'no folder given'}: not a folder; say where IXI_data is with --data DIR")
        found = tuple(
            tuple(PickledCase(path.stem, path) for path in sorted((Path(self.root) / folder).glob("[!.]*.pkl")))
            for folder in FOLDERS
        )
        names = [case.name for cases in found for case in cases]
        wrong = [f"{name} is in two of them" for name in sorted(set(names)) if names.count(name) > 1][:1]
        wrong += [f"there is none in {folder}" for folder, cases in zip(FOLDERS, found, strict=True) if not cases]
        wrong += [] if self._atlas.path.is_file() else ["atlas.pkl is missing"]
        if wrong:
            raise InputError(
                f"{self.root}: folders Train, Val and Test of .pkl expected, and atlas.pkl beside them, but "
                + ", ".join(wrong)
            )
        return found

    @cached_property
    def _atlas(self) -> PickledCase:
        return PickledCase("atlas", Path(self.root) / "atlas.pkl")

    @property
    def centred(self) -> bool:
        return True

    @property
    def train(self) -> Train:
        return Train(self._cases[0], self._atlas, of=self)

    @property
    def validation(self) -> Validation:
        return Validation([(case, self._atlas) for case in self._cases[1]], self._atlas)

    @property
    def test(self) -> Test:
        return Test([(case, self._atlas) for case in self._cases[2]], self._atlas)
