"""Cross-validation: the cases of a dataset in folds of people."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar, cast

from pullback.data.case import (
    Case,
    Dataset,
    PairDataset,
    Singles,
    Test,
    Train,
    Validation,
    ordered_pairs,
    person_of,
    subject_of,
    with_atlas,
)
from pullback.data.splits import known_as
from pullback.errors import InputError
from pullback.numerics.random import drawn_number

Kept = TypeVar("Kept", Validation, Test)


def dealt(people: Collection[str], count: int, seed: int = 0) -> tuple[tuple[str, ...], ...]:
    """Return people in `count` folds, none of which has two more than another, by seed and names alone."""
    order = sorted(people, key=lambda name: (drawn_number(seed, name), name))
    return tuple(tuple(order[n::count]) for n in range(count))


@dataclass(frozen=True)
class Folds:
    """A dataset for cross-validation by person: the cases of all three splits of another dataset, in folds.

    One fold is tested on, the next one (after the last, the first) chooses the checkpoint, and all others learn. Over
    the numbers 0 to `count - 1` each person is tested once, and none is in two splits of one number. Pairs are made as
    the dataset makes them: those that it lists, with its atlas, from single cases, or of any two.

    Attributes:
        data: the dataset.
        count: of folds.
        number: of the fold that is tested on, from 0.
        people: of each fold, by the names of people, subjects or cases; without any they are dealt by the seed.
        chosen_by: how many people choose the checkpoint, the first of the next folds; None for all of the next one.
        pairs: the most of a split where any two make a pair; None for all.
        seed: of the dealing.
        root: the folder of the dataset, where it is read from one; "" leaves it as it is.

    Raises:
        InputError: fewer than two folds, or no such fold.
    """

    data: Dataset
    count: int = 5
    number: int = 0
    people: tuple[tuple[str, ...], ...] = ()
    chosen_by: int | None = None
    pairs: int | None = 100
    seed: int = 0
    root: str = ""

    def __post_init__(self) -> None:
        if self.count < 2 or not 0 <= self.number < self.count:
            raise InputError(
                f"Folds: two folds or more expected, and the number of one of them from 0, got {self.count} and "
                f"{self.number}"
            )

    @property
    def centred(self) -> bool:
        return cast(PairDataset, self.data).centred

    @property
    def train(self) -> Train | Singles:
        cases, known = self._of(self._people["train"]), self._placed.train
        if isinstance(known, Singles):
            return replace(known, cases=cases, of=self)
        return replace(known, cases=cases, pairs=self._listed(cases) if known.pairs else (), of=self)

    @property
    def validation(self) -> Validation:
        return self._split(Validation, self._people["validation"])

    @property
    def test(self) -> Test:
        return self._split(Test, self._people["test"])

    @cached_property
    def folds(self) -> tuple[tuple[str, ...], ...]:
        """The people of each fold.

        Raises:
            InputError: fewer people than folds; or folds that are given are not as many, name somebody twice, nobody,
                or not all.
        """
        everyone = {person_of(case) for case in self._cases}
        if not self.people:
            if len(everyone) < self.count:
                raise InputError(f"Folds: {self.count} folds of {len(everyone)} people; there is one for each at least")
            return dealt(everyone, self.count, self.seed)
        called = {name: person_of(case) for case in self._cases for name in (case.name, subject_of(case))}
        called |= {person: person for person in everyone}
        folds = tuple(cast(tuple[str, ...], known_as(fold, called, "Folds")) for fold in self.people)
        often = Counter(name for fold in folds for name in fold)
        twice, missing = sorted(name for name, n in often.items() if n > 1), sorted(everyone - {*often})
        if len(folds) != self.count or not all(folds) or twice or missing:
            sizes = ", ".join(str(len(fold)) for fold in folds)
            raise InputError(
                f"Folds: {self.count} folds in which each of {len(everyone)} people is once expected; got "
                f"{len(folds)} of {sizes}; twice: {', '.join(twice) or 'nobody'}; "
                f"in none: {', '.join(missing) or 'nobody'}"
            )
        return folds

    @cached_property
    def _people(self) -> dict[str, tuple[str, ...]]:
        """The people of each split."""
        test, *others = self.folds[self.number :] + self.folds[: self.number]
        rest = [name for fold in others for name in fold]
        choosing = len(others[0]) if self.chosen_by is None else self.chosen_by
        if not 0 < choosing < len(rest):
            raise InputError(
                f"Folds: {len(rest)} people are not tested, and {choosing} of them choose the checkpoint, so nobody is "
                f"left for the other; set data.chosen_by between 1 and {len(rest) - 1}"
            )
        return {"train": tuple(rest[choosing:]), "validation": tuple(rest[:choosing]), "test": test}

    @cached_property
    def _placed(self) -> Dataset:
        return replace(self.data, root=self.root) if self.root else self.data  # type: ignore[type-var]

    @cached_property
    def _cases(self) -> tuple[Case, ...]:
        """The cases of all splits, without an atlas."""
        data = self._placed
        tested = [case for split in (data.validation, data.test) for pair in split.pairs for case in pair]
        return tuple(case for case in dict.fromkeys((*data.train.cases, *tested)) if case != self._atlas)

    @property
    def _atlas(self) -> Case | None:
        train = self._placed.train
        return train.atlas if isinstance(train, Train) else None

    def _of(self, people: Collection[str]) -> tuple[Case, ...]:
        return tuple(case for case in self._cases if person_of(case) in people)

    def _listed(self, cases: Collection[Case]) -> list[tuple[Case, Case]]:
        """Return the pairs of these cases that the dataset lists."""
        data, known = self._placed, {*cases}
        learned = data.train.pairs if isinstance(data.train, Train) else ()
        every = dict.fromkeys((*learned, *data.validation.pairs, *data.test.pairs))
        return [pair for pair in every if known.issuperset(pair)]

    def _split(self, kind: type[Kept], people: Collection[str]) -> Kept:
        cases, train, known = self._of(people), self._placed.train, self._placed.test
        if known.make is not None:
            each = max(Counter(case for case, _ in known.pairs).values(), default=1)
            pairs = [(case, case) for case in cases for _ in range(each)]
            return kind(pairs, make=known.make, placing=known.placing)
        assert isinstance(train, Train)
        if train.pairs:
            return kind(self._listed(cases), placing=known.placing)
        if train.atlas is not None:
            pairs = [with_atlas(case, train.atlas, train.atlas_moves) for case in cases]
            return kind(pairs, train.atlas, placing=known.placing)
        return kind(_some_pairs(cases, self.pairs), placing=known.placing)


def _some_pairs(cases: Sequence[Case], most: int | None) -> list[tuple[Case, Case]]:
    """Return pairs of any two cases.

    Raises:
        InputError: there is one case, and no pair.
    """
    found = ordered_pairs(cases, most)
    if not found:
        raise InputError(f"Folds: {len(cases)} image makes no pair; take fewer folds, so that each has two or more")
    return found
