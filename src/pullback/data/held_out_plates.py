"""A dataset of plates that are held out: cut, tilted and damaged, to be found among all plates of their atlas."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from pullback.data.case import LOADED, Test, Validation
from pullback.data.planes import Planes, tilted_plane
from pullback.data.slices import Atlas, LabelledSlices, PlateFiles, SliceDraws, as_square
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Image


@dataclass(frozen=True)
class HeldOutPlates:
    """Plates of an atlas that are not learned from, cut, tilted and damaged, to be found among all plates.

    Every `every`-th plate is held out, by turns for validation and for the test; all others are learned from, in pairs
    of a plate with itself. Plates are files, or planes of a volume, which may be cut obliquely; then plates are learned
    from with their oblique planes.

    Attributes:
        cut: `cut(image, generator)` answers with what is left of plates, `(B, 1, S, S)`; the same for the same plate
            and view each time.
        root: the folder of the plates or of the volume, or "" until one is given.
        plates: pattern of the plates under it.
        volume: the volume's file under it; "" where plates are files.
        axis: across its planes, as of `Planes`.
        degrees: largest tilt of a plane about each of its axes; 0 for files.
        every: of so many plates one is held out.
        views: of each plate.
        pixels: along each edge.
        at_once, alone: pairs of an example, of a plate with its oblique plane, and of a plate with itself.
        seed: of the cuts and tilts.

    Raises:
        InputError: fewer than two plates between those that are held out, no view, or tilts of files.
    """

    cut: Callable[[Image, torch.Generator], Image]
    root: str = ""
    plates: str = "atlas/*"
    volume: str = ""
    axis: int | None = None
    degrees: float = 0.0
    every: int = 4
    views: int = 2
    pixels: int = 80
    at_once: int = 12
    alone: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every < 3 or self.views < 1 or self.degrees < 0 or (self.degrees > 0 and not self.volume):
            raise InputError(
                f"HeldOutPlates: one plate of 3 or more, a view or more, and tilts of a volume's planes expected, got "
                f"{self.every}, {self.views} and {self.degrees:g} degrees"
            )

    @property
    def train(self) -> SliceDraws:
        kept = tuple(n for n in self._numbers if n % self.every)
        views = range(1, self.views + 1) if self.degrees else (0,)
        cases = tuple(PlateCase(number, view, self) for number in kept for view in views)
        pairs = (self.at_once, self.alone) if self.degrees else (0, self.at_once + self.alone)
        return SliceDraws(cases, self, self.atlas, kept, *pairs)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._held_out(0))

    @property
    def test(self) -> Test:
        return Test.singles(self._held_out(1))

    @cached_property
    def atlas(self) -> Atlas:
        """The plates.

        Raises:
            InputError: no folder was given.
        """
        if not self.root:
            raise InputError("no folder given; say where the plates are with --data DIR")
        if self.volume:
            return Planes(str(Path(self.root) / self.volume), self.axis, self.pixels)
        return PlateFiles(self.root, self.plates, self.pixels)

    @property
    def _numbers(self) -> list[int]:
        return [int(number) for number in self.atlas.load().numbers.tolist()]

    def _held_out(self, turn: int) -> tuple["PlateCase", ...]:
        held = [number for number in self._numbers if number % self.every == 0][turn::2]
        return tuple(PlateCase(number, view, self) for number in held for view in range(1, self.views + 1))

    def tilted(self, plate: int, view: int) -> Image:
        """Return a plane through the middle of a plate, tilted as this view is.

        Raises:
            InputError: the plates are no planes of a volume.
        """
        atlas = self.atlas
        if not isinstance(atlas, Planes):
            raise InputError("tilted planes are those of a volume; name it with data.volume")
        volume, axis = LOADED.get((atlas, "volume"), atlas.volume)
        angles = 2 * torch.rand(2, generator=make_generator(self.seed, 8, plate, view), dtype=torch.float64) - 1
        first, second = (self.degrees * angles).tolist()
        return as_square(tilted_plane(volume, axis, plate, (first, second)), self.pixels)


@dataclass(frozen=True)
class PlateCase:
    """A view of a plate; the view 0 is the plate as it is."""

    plate: int
    view: int
    of: HeldOutPlates

    @property
    def subject(self) -> str:
        """The plate, whatever the view."""
        return f"plate {self.plate}"

    @property
    def name(self) -> str:
        return self.subject if self.view == 0 else f"{self.subject}, view {self.view}"

    def load(self) -> LabelledSlices:
        """Return the view, cut, with the atlas."""
        number = torch.tensor([self.plate])
        image = self.of.cut(self.image(), make_generator(self.of.seed, 7, self.plate, self.view))
        return LabelledSlices(image, number, torch.tensor([self.view == 0]), self.of.atlas.load(), self.name)

    def image(self) -> Image:
        """Return the view before it is cut, `(1, 1, S, S)`."""
        if self.view and self.of.degrees:
            return LOADED.get((self, "tilted"), lambda: self.of.tilted(self.plate, self.view))
        return self.of.atlas.load().some(torch.tensor([self.plate]))
