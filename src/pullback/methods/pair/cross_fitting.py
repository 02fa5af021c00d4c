"""Cross-fitting: what the mixer of `feature_fusion` learns from is segmented by networks that have not seen it.

Siebert & Heinrich 2022 train one segmenter on all training images, and the mixer on the same. A network knows what it
learned from better than other images, so a mixer that learns there trusts it too much; the paper is silent on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from rich.console import Console
from torch import Tensor, nn

from pullback.data import Case, Singles, Subject, Train, dealt, ordered_pairs
from pullback.data.case import person_of, subject_of, with_atlas
from pullback.errors import InputError
from pullback.methods.pair.feature_fusion import FeatureFusion
from pullback.networks import Segmenter
from pullback.numerics.cost_volume import pooled
from pullback.records.csv_records import write_csv
from pullback.records.manifest import write_json
from pullback.space import Labels
from pullback.training import Row, Segmenting, Task, Training, device_of, evaluating, seeded, segmentation_dice


@dataclass(frozen=True)
class SegmentThenFuse:
    """The procedure of training segmenters first, and then the mixer of a `FeatureFusion`, on training people alone.

    Section 3, but for the folds: each is segmented by a network that learned from the others. The segmenter of all
    training people stays in the network, for images of others. The task's folder gets a folder for each of them, and
    `segmenters.csv`, their Dice on people they did not learn from.

    Attributes:
        folds: of people; 1 is the paper's way, where the one segmenter also segments what it learned from.
        share: updates of each segmenter, as a share of those of the mixer.
        lr: learning rate of the segmenters.
    """

    folds: int = 2
    share: float = 1.0
    lr: float = 2e-3
    learns_labels: ClassVar[bool] = True

    def __call__(self, task: Task) -> nn.Module:
        """Return the network with its segmenter and mixer trained.

        Raises:
            InputError: not a `FeatureFusion` or no pairs to learn from, no labels, or fewer people than folds.
        """
        network = task.make(0)
        if not isinstance(network, FeatureFusion) or not isinstance(task.examples, Train):
            raise InputError("SegmentThenFuse: a FeatureFusion that learns from pairs is expected")
        cases = _every_case(task.examples)
        labels = network.segmenter.labels
        _check_labels(cases, labels, task.console)
        parts = self._parts(cases)
        whole = self._segmenter(task, network, "segmenter", cases, 0)
        network.segmenter.load_state_dict(whole.state_dict())
        known: dict[Case, _WithMemberships] = {}
        rows: list[Row] = []
        for part, (learned, others) in parts.items():
            segmenter = self._segmenter(task, network, part, learned, 1 + len(rows)) if learned else whole
            for case in others:
                known[case], row = _seen_by(segmenter, case, network)
                rows.append({"segmenter": part, **row})
        if task.out is not None and self.folds > 1:
            write_csv(rows, task.out / "segmenters.csv")
        return replace(task, examples=_with(task.examples, known)).trained(network)

    def _parts(self, cases: Sequence[Case]) -> dict[str, tuple[list[Case], list[Case]]]:
        """Return by the segmenter's name the cases that it learns from, and those that it segments."""
        if self.folds == 1:
            return {"segmenter": ([], [*cases])}
        people = dict.fromkeys(person_of(case) for case in cases)
        if not 1 < self.folds <= len(people):
            raise InputError(
                f"SegmentThenFuse: folds: 1 to {len(people)} expected, as many as people, got {self.folds}"
            )
        found = {}
        for number, fold in enumerate(dealt(people, self.folds)):
            mine = [person_of(case) in fold for case in cases]
            learned, others = ([c for c, own in zip(cases, mine, strict=True) if own is kind] for kind in (False, True))
            found[f"segmenter-{number}"] = (learned, others)
        return found

    def _segmenter(
        self, task: Task, network: FeatureFusion, name: str, cases: Sequence[Case], number: int
    ) -> Segmenter:
        numbers, labels = task.training, network.segmenter.labels
        updates = max(1, round(self.share * numbers.updates))
        training = Training(updates, lr=self.lr, seed=numbers.seed, precision=numbers.precision)
        with seeded(numbers.seed, 5, number):
            segmenter = network.segmenter.made()
        part = replace(task.part(name, training), examples=Singles(cases), supervision=Segmenting(labels))
        replace(part, evaluation=None).trained(segmenter)
        if part.out is not None:
            write_json({"train": sorted(map(subject_of, cases))}, part.out / "splits.json")
        return segmenter


@dataclass(frozen=True, eq=False)
class _WithMemberships:
    """A case whose image brings the means of memberships over blocks along, and whose labels are those of a segmenter.

    Attributes:
        memberships: `(1, 1 + labels, *spatial // every)`.
    """

    case: Case
    memberships: Tensor
    labels: tuple[int, ...]
    every: int

    @property
    def name(self) -> str:
        return self.case.name

    def load(self) -> Subject:
        subject: Subject = self.case.load()
        image, labels, blocks = subject.image, subject.labels, self.memberships
        for axis, n in enumerate(image.grid.shape, start=2):
            blocks = blocks.index_select(axis, (torch.arange(n) // self.every).clamp(max=blocks.shape[axis] - 1))
        data = torch.cat([image.data, blocks.to(image.data)], 1)
        kept = None if labels is None else _among(labels, self.labels)
        return replace(subject, image=replace(image, data=data), labels=kept)


def _among(labels: Labels, values: tuple[int, ...]) -> Labels:
    """Return the labels without those that are not among `values`."""
    inside = torch.isin(labels.data, torch.tensor(values, dtype=labels.data.dtype))
    return Labels(labels.data * inside, labels.grid)


def _seen_by(segmenter: Segmenter, case: Case, network: FeatureFusion) -> tuple[_WithMemberships, Row]:
    """Return a case with the memberships that a segmenter gives it, and how right they are."""
    device, labels = device_of(), network.segmenter.labels
    segmenter.to(device)
    subject = case.load().to(device)
    with evaluating(segmenter):
        known = pooled(segmenter.memberships(subject.image), network.every).cpu()
        row: Row = {"example": case.name, **segmentation_dice(segmenter, subject, labels)}
    segmenter.cpu()
    return _WithMemberships(case, known, labels, network.every), row


def _every_case(train: Train) -> list[Case]:
    """Return all cases of a training split, those of its pairs and its atlas among them."""
    atlas = () if train.atlas is None else (train.atlas,)
    return [*dict.fromkeys((*train.cases, *(case for pair in train.pairs for case in pair), *atlas))]


def _with(train: Train, known: dict[Case, _WithMemberships]) -> Train:
    """Return the split with other cases, in the pairs that it draws."""
    ways: Sequence[tuple[Case, Case]] = train.pairs
    if not ways and train.atlas is None:
        ways = ordered_pairs(train.cases)
    if not ways and train.atlas is not None:
        ways = [with_atlas(case, train.atlas, train.atlas_moves) for case in train.cases]
    pairs = [(known[fixed], known[moving]) for fixed, moving in ways]
    return replace(train, cases=[*known.values()], atlas=None, pairs=pairs)


def _check_labels(cases: Sequence[Case], labels: tuple[int, ...], console: Console | None) -> None:
    """Refuse images without labels, or without any that are wanted; tell of labels that none has."""
    met: set[int] = set()
    for case in cases:
        subject = case.load()
        if subject.labels is None:
            raise InputError(f"{case.name}: has no labels, and fusing learns from labels: name data that has some")
        met |= {int(value) for value in subject.labels.data.unique()}
    missing = sorted({*labels} - met)
    if len(missing) == len(labels):
        raise InputError(
            f"no training image has any of the labels {', '.join(map(str, labels))}; there are "
            f"{', '.join(map(str, sorted(met - {0}))) or 'none'}: set network.labels"
        )
    if missing and console is not None:
        console.print(f"no training image has the labels {', '.join(map(str, missing))}: nobody learns them")
