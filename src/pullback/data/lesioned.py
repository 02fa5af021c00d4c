"""Pairs with lesions that are painted into one of their images: to learn from, and to be measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch

from pullback.alignment import Pair, stacked
from pullback.data.case import (
    Case,
    PairDataset,
    PairMaker,
    Subject,
    Test,
    Train,
    Validation,
    itself,
    pair_of,
    subject_of,
)
from pullback.data.phantoms.lesions import Lesions
from pullback.errors import InputError
from pullback.space import Affine, Labels, pull, resampled

Tested = TypeVar("Tested", Validation, Test)

MOST = 2**31 - 1  # of the numbers of lesions that are drawn
STROKES = (
    Lesions((20.0, 24.0), new=0.0, rough=0.3, intensity=(0.05, 0.15), rim=1.4),
    Lesions((14.5, 17.5), new=0.0, rough=0.3, intensity=(0.05, 0.15), rim=1.4, seed=1),
    Lesions((9.0, 11.0), new=0.0, rough=0.3, intensity=(0.05, 0.15), rim=1.4, seed=2),
    Lesions((5.0, 7.0), new=0.0, rough=0.3, intensity=(0.05, 0.15), rim=1.4, seed=3),
)
"""Four kinds of dark lesions that are painted over tissue, two large and two small, as NCR-Net is tested on."""


def called(lesions: Lesions) -> str:
    """Return the name of a kind of lesions: their mean radius."""
    return f"{sum(lesions.radii) / 2:g} mm"


def painted(pair: Pair, lesions: Lesions, number: int) -> Pair:
    """Return the pair with the lesion of this number in its fixed image; the truth and labels follow its push.

    Labels stay whole: they say what is there, whether or not it is seen.

    Raises:
        InputError: as of `Lesions`.
    """
    made = lesions(Subject(pair.fixed), number)
    shown = replace(pair, fixed=made.subject.image, lesion=made.lesion)
    if not lesions.new:
        return shown
    labels = pair.fixed_labels and pull(pair.fixed_labels, made.push, onto=pair.fixed)
    return replace(shown, fixed_labels=labels, truth=pair.truth and pair.truth @ made.push)


@dataclass(frozen=True)
class PaintedLesion:
    """An augmentation by a lesion in one image of each pair, by chance the fixed or the moving one.

    Where the lesion is is not told: pairs are learned from without.

    Attributes:
        kinds: of lesions, of which one is drawn.
        healthy: the share of pairs that are left as they are.

    Raises:
        InputError: no kinds, or no such share.
    """

    kinds: tuple[Lesions, ...] = STROKES
    healthy: float = 0.0

    def __post_init__(self) -> None:
        if not self.kinds or not 0 <= self.healthy <= 1:
            raise InputError(
                f"PaintedLesion: one kind of lesions or more and a share of healthy pairs of 0 to 1 expected, got "
                f"{len(self.kinds)} and {self.healthy:g}"
            )

    @torch.no_grad()
    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Return the pair, or batch of pairs, with a lesion in each."""
        return stacked([self._one(pair.nth(n), generator) for n in range(pair.batch)])

    def _one(self, pair: Pair, generator: torch.Generator) -> Pair:
        left, side = torch.rand(2, generator=generator).tolist()
        kind, number = (int(torch.randint(most, (), generator=generator)) for most in (len(self.kinds), MOST))
        if left < self.healthy:
            return pair
        if side < 0.5:
            return replace(painted(pair, self.kinds[kind], number), lesion=None)
        made = self.kinds[kind](Subject(pair.moving), number)
        shown = replace(pair, moving=made.subject.image)
        if not self.kinds[kind].new:
            return shown
        labels = pair.moving_labels and pull(pair.moving_labels, made.push, onto=pair.moving)
        return replace(shown, moving_labels=labels, truth=pair.truth and made.push.inverse() @ pair.truth)


@dataclass(frozen=True)
class Coarse:
    """A case whose image has voxels of `spacing` mm along each axis."""

    case: Case
    spacing: float

    @property
    def name(self) -> str:
        return subject_of(self.case)

    def load(self) -> Subject:
        """Return the subject, without points and boxes."""
        whole: Subject = self.case.load()
        image = resampled(whole.image, (self.spacing,) * whole.image.grid.ndim)
        labels = whole.labels and pull(whole.labels, Affine.identity(image.grid.ndim), onto=image.grid)
        return replace(whole, image=image, labels=labels, points=None, boxes=None)


@dataclass(frozen=True)
class PaintedPair:
    """A case that is a pair: a healthy one of a split, with a lesion in its fixed image, or as it is.

    Attributes:
        fixed, moving, make, place: the healthy pair, as a split lists it.
        kind: of lesions; None paints none.
    """

    fixed: Case
    moving: Case
    place: int
    make: PairMaker | None = None
    kind: Lesions | None = None

    @property
    def name(self) -> str:
        return self.fixed.name

    def load(self) -> Pair:
        """Return the pair, with the true place of the lesion."""
        pair = pair_of(self.fixed, self.moving) if self.make is None else self.make(self.fixed, self.place)
        if self.kind is None:
            return replace(pair, lesion=Labels(torch.zeros_like(pair.fixed.data[:, :1]).long(), pair.fixed.grid))
        return replace(painted(pair, self.kind, self.place), name=f"{pair.name}, {called(self.kind)}")


@dataclass(frozen=True)
class LesionedPairs:
    """Another data set, with lesions in the fixed images that are measured on.

    Pairs to learn from are those of the other data set, healthy: `PaintedLesion` is an augmentation. Of those to be
    tested on each comes without a lesion and with one of each kind, one after the other; of the validation pairs each
    has one of them, in turn.

    Attributes:
        data: the other data set.
        kinds: of lesions.
        spacing: to which images are resampled first, mm; None leaves them.
        some: the most test pairs that are taken, spread evenly; None for all.
        root: the folder of the other data set, where it is read from one; "" leaves it as it is.

    Raises:
        InputError: a folder for data that is made, when a split is asked for.
    """

    data: Any
    kinds: tuple[Lesions, ...] = STROKES
    spacing: float | None = None
    some: int | None = None
    root: str = ""

    @property
    def centred(self) -> bool:
        return bool(self.data.centred)

    @property
    def train(self) -> Train:
        """The pairs to learn from, healthy.

        Raises:
            InputError: the other data set is not of pairs.
        """
        train = self._placed.train
        if not isinstance(train, Train):
            raise InputError(f"LesionedPairs: a data set of pairs expected, got {type(self.data).__name__}")
        atlas, cases = train.atlas and self._coarse(train.atlas), [self._coarse(case) for case in train.cases]
        pairs = [(self._coarse(fixed), self._coarse(moving)) for fixed, moving in train.pairs]
        return replace(train, cases=cases, atlas=atlas, pairs=pairs, of=self)

    @property
    def validation(self) -> Validation:
        turns: list[Lesions | None] = [None, *self.kinds]
        healthy = self._listed(self._placed.validation)
        return self._split(Validation, [replace(case, kind=turns[n % len(turns)]) for n, case in enumerate(healthy)])

    @property
    def test(self) -> Test:
        split = self._placed.test
        healthy = self._listed(split if self.some is None else split.some(self.some))
        return self._split(Test, [replace(case, kind=kind) for case in healthy for kind in (None, *self.kinds)])

    @property
    def _placed(self) -> PairDataset:
        if not self.root:
            return self.data
        if not any(each.name == "root" for each in fields(self.data)):
            raise InputError(f"{self.root}: a {type(self.data).__name__} is made, not read; it takes no folder")
        return replace(self.data, root=self.root)

    def _coarse(self, case: Case) -> Case:
        return case if self.spacing is None else Coarse(case, self.spacing)

    def _listed(self, split: Validation | Test) -> list[PaintedPair]:
        ways = enumerate(split.pairs)
        return [PaintedPair(self._coarse(one), self._coarse(two), n, split.make) for n, (one, two) in ways]

    @staticmethod
    def _split(kind: type[Tested], cases: Sequence[PaintedPair]) -> Tested:
        return kind([(case, case.moving) for case in cases], make=itself)
