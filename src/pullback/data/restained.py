"""Pairs made of one stained section: it is bent by a known smooth field, and stained anew.

Stains are unmixed as Ruifrok and Johnston do (2001); the image is mixed of other amounts of other stains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.birl import coloured_section
from pullback.data.case import LOADED, Subject, Test, Train, Validation, stamp
from pullback.data.normalise import preprocessed
from pullback.data.pattern import some
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError
from pullback.numerics.smooth import smooth_noise
from pullback.space import Displacement, Image, canonical, pull, resampled
from pullback.space.pull import coordinates

SHIFTS = (5.0, 15.0, 30.0)
STAINS = torch.tensor([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
LUMINANCE = torch.tensor([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class Restaining:
    """A generator of pairs of one section, whose channels are the amounts of haematoxylin, eosin and DAB.

    The fixed image is the section bent by a smooth field ψ, as it is stained; the moving image is the section with
    other amounts of its stains, of which the second and third are mixed anew. So ψ is the truth, and nothing is
    inverted. Both are in grey, with noise, 0 … 1. What ψ takes from beyond the section is outside of the fixed mask.

    Attributes:
        shifts: mean lengths of ψ's displacements over the section, mm, of which test pairs have one each by turns; in
            training they are uniform up to the last.
        smoothness: sigma of the Gaussian by which ψ is smooth, mm.
        noise: standard deviation in each pixel.
        each: take the shifts by turns.

    Raises:
        InputError: shifts below 0, no shift, or a field that is not smooth.
    """

    shifts: tuple[float, ...] = SHIFTS
    smoothness: float = 150.0
    noise: float = 0.02

    def __post_init__(self) -> None:
        if not self.shifts or min(self.shifts) < 0 or not self.smoothness > 0 or not self.noise >= 0:
            raise InputError(
                f"Restaining: shifts and noise of 0 or more and a smoothness above 0 expected, got {self.shifts}, "
                f"{self.noise} and {self.smoothness}"
            )

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Return a pair of the fixed section, with its truth; shifted by a draw up to the last of `shifts`."""
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return self.shifted(pair, self.shifts[-1] * share, generator)

    def shifted(self, pair: Pair, shift: float, generator: torch.Generator) -> Pair:
        """Return a pair whose truth has displacements of this mean length, mm."""
        section = pair.fixed
        truth = self.field(section, shift, generator)
        where = coordinates(section.grid, truth, section.grid, section.data)
        last = torch.tensor(section.grid.shape).to(where).view(-1, *[1] * section.grid.ndim) - 1
        seen = ((where >= 0) & (where <= last)).all(1, keepdim=True)
        fixed = self._noisy(pull(section, truth, onto=section), torch.eye(3), generator)
        moving = self._noisy(section, amounts(generator), generator)
        return replace(pair, fixed=replace(fixed, mask=seen), moving=moving, truth=truth)

    def field(self, section: Image, shift: float, generator: torch.Generator) -> Displacement:
        """Draw ψ, on the grid of the section."""
        grid = section.grid
        sigma = (self.smoothness / grid.spacing).tolist()
        mm = smooth_noise((1, grid.ndim, *grid.shape), sigma, generator, section.data)
        mm = mm * (shift / mm.norm(dim=1).mean())
        return Displacement(grid.from_mm(mm), grid)

    def _noisy(self, section: Image, mixing: Tensor, generator: torch.Generator) -> Image:
        shown = mixed(section, mixing)
        noise = torch.randn(shown.data.shape, generator=generator).to(shown.data)
        return preprocessed(replace(shown, data=shown.data + self.noise * noise, mask=None))


def amounts(generator: torch.Generator) -> Tensor:
    """Draw a mixing of stains, `(3, 3)`: from each of the section's, as rows, to those that are shown.

    Haematoxylin stays, half to one and a half times as much; the others are given away to eosin and DAB at random.
    """
    drawn = torch.rand(5, generator=generator, dtype=torch.float64).float()
    mixing = torch.diag(torch.tensor([0.5 + float(drawn[0]), 0, 0]))
    mixing[1, 1:] = drawn[1:3]
    mixing[2, 1:] = drawn[3:5]
    return mixing


def mixed(section: Image, mixing: Tensor) -> Image:
    """Return amounts of three stains `(B, 3, …)`, mixed anew, as they look in grey: 1 − luminance, `(B, 1, …)`."""
    density = torch.einsum("bs…,st,tc->bc…".replace("…", "xy"), section.data, mixing, STAINS)
    return replace(section, data=1 - torch.einsum("bcxy,c->bxy", 10**-density, LUMINANCE)[:, None])


@dataclass(frozen=True)
class RestainedSections:
    """A dataset of pairs that `Restaining` makes of single sections, pictures in colour.

    For training a pair is one section with itself, and the recipe's augmentation makes others of it each time.
    Validation is on further pairs of the sections that are learned from, where none are named for it: sections are
    few, and nothing of them is new to a test that has others.

    Attributes:
        root: the folder, or "" until one is given.
        images: pattern of the pictures in it.
        making: of the pairs.
        spacing: mm, of the pixels that are seen; None takes the file's, 1 mm.
        per_shift: test pairs of each section and shift.
        test_split, validation_split: names of sections, those of their files without ending.
        seed: of all draws of validation and test.
    """

    root: str = ""
    images: str = "**/*.jpg"
    making: Restaining = Restaining()
    spacing: float | None = None
    per_shift: int = 3
    test_split: tuple[str, ...] = ()
    validation_split: tuple[str, ...] = ()
    seed: int = 0

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Train:
        cases = self._named(None)
        return Train(cases, pairs=[(case, case) for case in cases], of=self)

    @property
    def validation(self) -> Validation:
        return self._made(Validation, self._named(self.validation_split) or self._named(None), 1)

    @property
    def test(self) -> Test:
        return self._made(Test, self._named(self.test_split), self.per_shift)

    def _made(self, kind, cases: Sequence["ColouredCase"], count: int):
        makers = len(self.making.shifts)
        return kind([(case, case) for case in cases for _ in range(count * makers)], make=ByTurns(self.making, self.seed))

    def _named(self, names: tuple[str, ...] | None) -> list["ColouredCase"]:
        """Return the sections of these names; of None, those that are neither for validation nor for test."""
        if not self.root or not Path(self.root).is_dir():
            raise InputError(f"{self.root or 'no folder given'}: not a folder; say where sections are with --data DIR")
        known = {path.stem: path for path in sorted(Path(self.root).glob(self.images))}
        held = (*self.test_split, *self.validation_split)
        missing = [name for name in held if name not in known]
        if missing:
            raise InputError(f"{self.root}: no section {missing[0]!r} for the splits; found {some(known)}")
        chosen = [name for name in known if name not in held] if names is None else names
        return [ColouredCase(name, str(known[name]), self.spacing) for name in chosen]


@dataclass(frozen=True)
class ByTurns:
    """A maker of pairs of listed sections, always the same, with one shift of a generator's after the other."""

    making: Restaining
    seed: int = 0

    def __call__(self, case, number: int) -> Pair:
        shift = self.making.shifts[number % len(self.making.shifts)]
        made = Synthetic(lambda pair, generator: self.making.shifted(pair, shift, generator), 10**6, self.seed)
        return replace(made(case, number), name=f"{case.name} {number + 1}, shifted by {shift:g} mm")


@dataclass(frozen=True)
class ColouredCase:
    """A case that is a section in colours, whose channels are the amounts of three stains."""

    name: str
    image: str
    spacing: float | None = None

    def load(self) -> Subject:
        return LOADED.get((self, stamp(Path(self.image))), self._read)

    def _read(self) -> Subject:
        image = canonical(coloured_section(self.image))
        if self.spacing is not None:
            image = resampled(image, (self.spacing,) * image.grid.ndim)
        density = -image.data.clamp(min=1 / 510).log10()
        stains = torch.einsum("bcxy,cs->bsxy", density, torch.linalg.inv(STAINS)).clamp(min=0)
        return Subject(replace(image, data=stains), name=self.name)
