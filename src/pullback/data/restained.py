"""Pairs made of one stained section: it is bent by a known smooth field, and stained anew.

Stains are unmixed by their colours (Ruifrok and Johnston, Quantification of histochemical staining by color
deconvolution, 2001), and mixed of other amounts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.case import LOADED, Case, Subject, Test, Train, Validation, stamp
from pullback.data.normalise import preprocessed
from pullback.data.pattern import some
from pullback.data.synthesis import Listed, Synthetic
from pullback.errors import InputError
from pullback.files.images.colour import LUMINANCE, STAINS, stain
from pullback.files.images.slide import Slide
from pullback.numerics.smooth import smooth_noise
from pullback.space import Displacement, Image, canonical, pull, resampled
from pullback.space.pull import coordinates

SHIFTS = (5.0, 15.0, 30.0)
"""Pixels of the pictures of BIRL: up to 13 % of a patch of 224."""
MANY = 10**6  # numbers of pairs of one section, of which each has its own draws


@dataclass(frozen=True)
class Restaining:
    """A generator of pairs of one section, whose channels are the amounts of haematoxylin, eosin and DAB.

    The fixed image is the section as it is stained, bent by a smooth field ψ; the moving image is the section with
    other amounts of its stains (`mixing`). So ψ is the truth, and nothing is inverted. Both are in grey, with noise,
    intensities 0 … 1. Where ψ leads beyond the section, the fixed image's mask is False.

    Attributes:
        shifts: mean lengths of ψ's displacements over the section, mm; drawn uniformly up to the greatest of them.
        smoothness: sigma of the Gaussian by which ψ is smooth, mm.
        noise: its standard deviation in each pixel.

    Raises:
        InputError: shifts or noise below 0, no shift, or a field that is not smooth.
    """

    shifts: tuple[float, ...] = SHIFTS
    smoothness: float = 150.0
    noise: float = 0.005

    def __post_init__(self) -> None:
        if not self.shifts or not min(*self.shifts, self.noise) >= 0 or not self.smoothness > 0:
            raise InputError(
                f"Restaining: shifts and noise of 0 or more and a smoothness above 0 expected, got {self.shifts}, "
                f"{self.noise} and {self.smoothness}"
            )

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Return a pair of the fixed section, shifted by a draw; the given moving image is not used."""
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return self.shifted(pair, generator, max(self.shifts) * share)

    def shifted(self, pair: Pair, generator: torch.Generator, shift: float) -> Pair:
        """Return a pair of the fixed section, whose truth has displacements of this mean length, mm."""
        section = pair.fixed
        truth = self.field(section, shift, generator)
        where = coordinates(section.grid, truth, section.grid, section.data)
        last = torch.tensor(section.grid.shape).to(where).view(-1, *[1] * section.grid.ndim) - 1
        seen = ((where >= 0) & (where <= last)).all(1, keepdim=True)
        fixed = self._noisy(pull(section, truth, onto=section), torch.eye(len(STAINS)), generator)
        moving = self._noisy(section, mixing(generator), generator)
        return Pair(replace(fixed, mask=seen), moving, truth=truth, name=pair.name)

    def field(self, section: Image, shift: float, generator: torch.Generator) -> Displacement:
        """Draw ψ on the grid of a section, with displacements of this mean length, mm."""
        grid = section.grid
        sigma = (self.smoothness / grid.spacing).tolist()
        mm = smooth_noise((1, grid.ndim, *grid.shape), sigma, generator, section.data)
        return Displacement(grid.from_mm(mm * (shift / mm.norm(dim=1).mean())), grid)

    def _noisy(self, section: Image, amounts: Tensor, generator: torch.Generator) -> Image:
        shown = mixed(section, amounts)
        noise = torch.randn(shown.data.shape, generator=generator).to(shown.data)
        return preprocessed(replace(shown, data=shown.data + self.noise * noise))


def mixing(generator: torch.Generator) -> Tensor:
    """Draw how stains are given to others, `(3, 3)`, from each of the section's, as rows.

    Haematoxylin stays, half to one and a half times as much. Eosin and DAB are each given to both of them, 0 to 1 times
    as much.
    """
    drawn = torch.rand(5, generator=generator, dtype=torch.float64).float()
    given = torch.zeros(3, 3)
    given[0, 0] = 0.5 + drawn[0]
    given[1:, 1:] = drawn[1:].view(2, 2)
    return given


def mixed(section: Image, amounts: Tensor) -> Image:
    """Return a section of stains `(B, 3, …)`, given to others by `amounts` `(3, 3)`, in grey: 1 − luminance."""
    colours = torch.tensor([*STAINS.values()])
    density = torch.einsum("bs...,sc->bc...", section.data, (amounts @ colours).to(section.data))
    grey = 1 - torch.einsum("bc...,c->b...", 10**-density, torch.tensor(LUMINANCE).to(section.data))
    return replace(section, data=grey[:, None], mask=None)


@dataclass(frozen=True)
class RestainedSections:
    """A dataset of pairs that `Restaining` makes of single sections in colour.

    A training pair is a section with itself, in stains; the recipe's augmentation makes another of it each time.
    Validation and test pairs are always the same, `per_shift` of each section and shift. Where no sections are named
    for validation, it has further pairs of those that are learned from, for sections are few.

    Attributes:
        root: the folder, or "" until one is given.
        images: pattern of the pictures or slides in it.
        making: the generator.
        spacing: mm, of the pixels that are seen; None takes the file's, 1 mm of a picture.
        per_shift: pairs of each test section and shift; validation has one.
        test_split, validation_split: names of sections, those of their files without the ending.
        seed: of the draws of validation and test.
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
        cases = self._learned
        return Train(cases, pairs=[(case, case) for case in cases], of=self)

    @property
    def validation(self) -> Validation:
        return self._made(Validation, self._named(self.validation_split) or self._learned, 1)

    @property
    def test(self) -> Test:
        return self._made(Test, self._named(self.test_split), self.per_shift)

    def _made(self, kind: type[Listed], cases: Sequence["StainsCase"], count: int) -> Listed:
        pairs = [(case, case) for case in cases for _ in range(count * len(self.making.shifts))]
        return kind(pairs, make=ByTurns(self.making, self.seed))

    @property
    def _learned(self) -> list["StainsCase"]:
        held = (*self.test_split, *self.validation_split)
        found = self._named([name for name in self._known if name not in held])
        if not found:
            raise InputError(f"{self.root}: no section is left to learn from; found {some(self._known)}")
        return found

    def _named(self, names: Sequence[str]) -> list["StainsCase"]:
        known = self._known
        for name in names:
            if name not in known:
                raise InputError(f"{self.root}: no section {name!r} for the splits; found {some(known)}")
        return [StainsCase(name, str(known[name]), self.spacing) for name in names]

    @property
    def _known(self) -> dict[str, Path]:
        """The pictures by name."""
        if not self.root or not Path(self.root).is_dir():
            raise InputError(f"{self.root or 'no folder given'}: not a folder; say where sections are with --data DIR")
        found = {path.stem: path for path in sorted(Path(self.root).glob(self.images))}
        if not found:
            raise InputError(f"{self.root}: no picture matches {self.images!r}; set data.images")
        return found


@dataclass(frozen=True)
class ByTurns:
    """A maker of the pairs of a list, always the same, which have one after the other of a generator's shifts."""

    making: Restaining
    seed: int = 0

    def __call__(self, case: Case, number: int) -> Pair:
        shift = self.making.shifts[number % len(self.making.shifts)]
        made = Synthetic(partial(self.making.shifted, shift=shift), MANY, self.seed)(case, number)
        return replace(made, name=f"{case.name} {number + 1}, {shift:g} mm")


@dataclass(frozen=True)
class StainsCase:
    """A case that is a section in colour, whose channels are the amounts of three stains."""

    name: str
    image: str
    spacing: float | None = None

    def load(self) -> Subject:
        """Return the section; one that was loaded before is kept until its file changes."""
        return LOADED.get((self, stamp(Path(self.image))), self._read)

    def _read(self) -> Subject:
        image = canonical(Slide.open(self.image).image(self.spacing))
        if self.spacing is not None:
            image = resampled(image, (self.spacing,) * image.grid.ndim)
        amounts = torch.cat([stain(image, name).data for name in STAINS], 1)
        return Subject(replace(image, data=amounts), name=self.name)
