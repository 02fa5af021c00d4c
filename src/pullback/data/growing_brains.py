"""A data set of children who grow, made of the persons of another one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

from pullback.data.case import (
    LOADED,
    Case,
    Dataset,
    PairDataset,
    Subject,
    Test,
    Train,
    Validation,
    pairs_within,
    subject_of,
)
from pullback.data.phantoms.growth import FREESURFER_TISSUES, Child, GrowthLaw


@dataclass(frozen=True)
class VisitCase:
    """A case that is visit `number` of a child, from 0; the child is its subject."""

    child: Child
    number: int

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.number + 1}"

    @property
    def subject(self) -> str:
        return subject_of(self.child.anatomy)

    def load(self) -> Subject:
        return LOADED.get(self, lambda: self.child.load(self.number))


@dataclass(frozen=True)
class GrowingBrains:
    """A data set of children, into whom the persons of another data set are turned, each in the split they are in.

    Pairs are of two visits of one child, the earlier one fixed, so that the determinant of an answer is growth. Labels:
    1 grey matter, 2 white matter, 3 cerebrospinal fluid.

    Attributes:
        data: the other data set, of brains with labels.
        growth: the law by which they grow.
        spacing: of the images, mm; the truth is the same at any.
        tissues: labels of grey matter, white matter and fluid in the other data set.
        seed: of all draws.
        root: the folder of the other data set, where it is read from one; "" leaves it as it is.
    """

    data: Dataset
    growth: GrowthLaw = GrowthLaw()
    spacing: float = 2.0
    tissues: tuple[tuple[int, ...], ...] = FREESURFER_TISSUES
    seed: int = 0
    root: str = ""

    @property
    def centred(self) -> bool:
        return cast(PairDataset, self.data).centred

    @property
    def train(self) -> Train:
        children = self._children(self._placed.train.cases)
        return Train([case for child in children for case in child], pairs=_one_way(children), of=self)

    @property
    def validation(self) -> Validation:
        return Validation(_one_way(self._tested(self._placed.validation)))

    @property
    def test(self) -> Test:
        return Test(_one_way(self._tested(self._placed.test)))

    @cached_property
    def _placed(self) -> Dataset:
        return replace(self.data, root=self.root) if self.root else self.data  # type: ignore[type-var]

    def _tested(self, split: Validation | Test) -> list[list[VisitCase]]:
        return self._children([case for pair in split.pairs for case in pair])

    def _children(self, cases: Sequence[Case]) -> list[list[VisitCase]]:
        """Return the visits of each child; one is made of each subject, of the first of their images."""
        first: dict[str, Case] = {}
        for case in cases:
            first.setdefault(subject_of(case), case)
        children = [
            Child(case, self.growth, self.tissues, self.spacing, self.seed) for _, case in sorted(first.items())
        ]
        return [[VisitCase(child, number) for number in range(len(child.ages))] for child in children]


def _one_way(children: Sequence[Sequence[VisitCase]]) -> list[tuple[VisitCase, VisitCase]]:
    return pairs_within(children, one_way=True)
