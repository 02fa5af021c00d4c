"""Flying Chairs: rendered chairs over photographs, both moving, with their true flow (Dosovitskiy et al. 2015)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.case import Singles, Test, Validation
from pullback.errors import InputError
from pullback.numerics.random import drawn_number
from pullback.space import Displacement, Grid, Image

MAGIC = 202021.25  # of a .flo file
SPLIT = "FlyingChairs_train_val.txt"


@dataclass(frozen=True)
class FlyingChairs:
    """A set of pairs `00001_img1.ppm` (fixed) and `00001_img2.ppm` (moving), whose truth is `00001_flow.flo`.

    The pairs that `FlyingChairs_train_val.txt` calls 2 are tested on, as papers do; of those that it calls 1 a share,
    drawn by their names, validates. Intensities are 0 … 1, pixels 1 mm; x runs along the first axis, y along the
    second. The flow has edges, where a chair hides what is behind it.

    Attributes:
        root: the folder with the list and, in it or in `data`, the pairs; or "" until one is given.
        grey: take the mean of the colours, one channel; else there are three.
        validation_split: the share.
        seed: of the draw.

    Raises:
        InputError: no such share.
    """

    root: str = ""
    grey: bool = True
    validation_split: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.validation_split < 1:
            raise InputError(f"FlyingChairs: a validation_split between 0 and 1 expected, got {self.validation_split}")

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Singles:
        return Singles(self._cases["train"], of=self)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._cases["validation"])

    @property
    def test(self) -> Test:
        return Test.singles(self._cases["test"])

    @cached_property
    def _cases(self) -> dict[str, tuple["ChairsCase", ...]]:
        listed, folder = Path(self.root) / SPLIT, Path(self.root) / "data"
        folder = folder if folder.is_dir() else Path(self.root)
        if not listed.is_file():
            raise InputError(f"{listed}: no such file, which says with 1 and 2 what is learned from; put it there")
        found: dict[str, list[ChairsCase]] = {"train": [], "validation": [], "test": []}
        for number, word in enumerate(listed.read_text().split(), start=1):
            case = ChairsCase(f"{number:05d}", str(folder), self.grey)
            drawn = drawn_number(self.seed, case.name) < self.validation_split
            found["test" if word == "2" else "validation" if drawn else "train"].append(case)
        few = [split for split, cases in found.items() if not cases]
        if few:
            raise InputError(f"{listed}: no pair is left for {', '.join(few)}; take another data.validation_split")
        return {split: tuple(cases) for split, cases in found.items()}


@dataclass(frozen=True)
class ChairsCase:
    """A pair by itself."""

    name: str
    folder: str
    grey: bool = True

    def load(self) -> Pair:
        """Read the pair.

        Raises:
            InputError: a file is missing, or not what its name says.
        """
        one, two = (self._picture(n) for n in (1, 2))
        flow = read_flow(Path(self.folder) / f"{self.name}_flow.flo")
        if not one.data.shape == two.data.shape or flow.shape[2:] != one.data.shape[2:]:
            raise InputError(f"{self.folder}/{self.name}: pictures and flow of one size expected; copy them anew")
        return Pair(one, two, truth=Displacement(flow, one.grid), name=self.name)

    def _picture(self, number: int) -> Image:
        from PIL import Image as Picture  # noqa: PLC0415 (slow to import)

        path = Path(self.folder) / f"{self.name}_img{number}.ppm"
        try:
            with Picture.open(path) as picture:
                values = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255  # (y, x, 3)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable picture ({error}); copy it anew") from error
        data = values.permute(2, 1, 0)[None].contiguous()
        shape = tuple(data.shape[2:])
        affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))  # as of other pictures
        return Image(data.mean(1, keepdim=True) if self.grey else data, Grid(shape, affine))


def read_flow(path: str | Path) -> Tensor:
    """Read a .flo file: displacements in pixels, `(1, 2, x, y)` float32, channels x and y.

    Raises:
        InputError: no such file, or one of another kind or size.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    stored = Path(path).read_bytes()
    sizes = np.frombuffer(stored[4:12], "<i4")
    right = len(sizes) == 2 and np.frombuffer(stored[:4], "<f4")[0] == np.float32(MAGIC)
    if not right or len(stored) != 12 + 8 * int(sizes[0]) * int(sizes[1]):
        raise InputError(f"{path}: a .flo file of Middlebury expected: {MAGIC}, width, height, then the flow by rows")
    width, height = (int(n) for n in sizes)
    values = np.frombuffer(stored[12:], "<f4").reshape(height, width, 2)
    return torch.from_numpy(values.transpose(2, 1, 0).copy())[None]
