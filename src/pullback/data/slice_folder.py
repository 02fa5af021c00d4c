"""A dataset of slices in folders, one for each split, and the plates of their atlas."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.data.case import Test, Validation
from pullback.data.slices import PlateFiles, SliceCase, SliceDraws, numbered
from pullback.errors import InputError


@dataclass(frozen=True)
class SliceFolder:
    """Slices in folders, one for each split, and the plates of their atlas; names of files begin with a plate's number.

    Attributes:
        root: the folder of all, or "" until one is given.
        plates, slices, validation_slices, test_slices: patterns under it.
        pixels: along each edge of what is learned from.
        at_once, alone: as of `SliceDraws`.
    """

    root: str = ""
    plates: str = "atlas/*"
    slices: str = "train/*"
    validation_slices: str = "val_1/*"
    test_slices: str = "test/*"
    pixels: int = 80
    at_once: int = 12
    alone: int = 4

    @property
    def train(self) -> SliceDraws:
        return SliceDraws(self._cases(self.slices), self, self.atlas, (), self.at_once, self.alone)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._cases(self.validation_slices))

    @property
    def test(self) -> Test:
        return Test.singles(self._cases(self.test_slices))

    @cached_property
    def atlas(self) -> PlateFiles:
        """The plates.

        Raises:
            InputError: no folder was given.
        """
        if not self.root:
            raise InputError("no folder given; say where plates and slices are with --data DIR")
        return PlateFiles(self.root, self.plates, self.pixels)

    def _cases(self, pattern: str) -> tuple[SliceCase, ...]:
        atlas = self.atlas
        cases = tuple(
            SliceCase(path, number, atlas, self.pixels, path.parent.name)
            for number, path in numbered(Path(self.root), pattern)
        )
        if not cases:
            raise InputError(
                f"{self.root}: no slice is called {pattern!r}, with a plate's number in its name, such as 91.png; say "
                f"how they are called with --set data.slices=…, data.validation_slices, data.test_slices"
            )
        return cases
