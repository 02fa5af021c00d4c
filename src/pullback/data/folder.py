"""A dataset of images in a folder."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs, pairs_within, subject_of, with_atlas
from pullback.data.frames import FramePairs
from pullback.data.listing import LEAST, Listing
from pullback.data.pattern import some
from pullback.data.people import person_in
from pullback.data.splits import check_splits, draw_splits, known_as, some_of, too_few
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError


@dataclass(frozen=True)
class PairFolder:
    """A folder of images of several subjects, any two of whom make a pair; or with `within`, any two of one subject.

    A subject is a person. Images whose names, or folders, have one `sub-…` of BIDS are of one, whatever sessions and
    runs they are of, and so are files that are the same byte by byte; `person` says so of all others.

    By shares, each subject draws a number in [0, 1) that depends on `seed` and its name alone. It is a test subject
    below `test_split`, a validation subject below `test_split + validation_split`, and else for training; where that
    leaves fewer than two for test, or then for validation, those who drew least are taken. So subjects that are added
    later change nothing for the others, except that in a small folder one may push another from test to validation or
    from validation to training: never towards test, and never from test to training at once.

    Validation has 20 pairs and test 100, or all there are; where it has more images, one of each. Each image is fixed
    as often as any other, up to one, and moving too; within subjects, as far as each has others of its subject.

    The images of one subject are always in one split, and those of two make the pairs unless `within`, `moving` or an
    atlas says otherwise. `Subject.about` holds what BIDS' `participants.tsv` in the folder says of the subject, the
    values of named wild cards, and sessions and the like.

    Attributes:
        root: the folder, or "" until one is given.
        images, labels, masks: patterns under `root`, such as `*_T1w.nii.gz` or `sub-*/anat/sub-*_T1w.nii.gz`, as in
            `Pattern`. Where a subject has several images, those of BIDS are told apart by themselves, others by named
            wild cards, as in `{subject}/{visit}/*_T1w.nii.gz`. Labels and masks belong to the image with the same
            values of wild cards. An image may have no labels. Several patterns of images are channels of one.
        validation_split, test_split: names of subjects, or about what share of them (0 … 1, at least two). Where those
            of validation are named, those of test must be too. A `test_split` of 1 tests on everyone.
        shape: as in `Learn2Reg`.
        seed: of the draw.
        atlas: name of the subject that is in every pair, and in no split; None pairs subjects.
        atlas_moves: whether it is the moving image of all pairs, else the fixed one.
        synthetic: makes validation and test pairs from their subjects; None takes pairs of stored images.
        within: pairs are of one subject, each image with each other one of it, both ways, for training too; a subject
            with one image is in no split. Visits and the like are ordered by their numbers.
        one_way: with `within`, the earlier of two visits is fixed and the later one moves, by the order of the numbers,
            and not the other way round: what a transform's determinant says then is growth.
        pairing: with `within`, of frames of a video: the pairs for training in place of all; test pairs are of each
            video's reference and every frame after it, and validation has some of such pairs.
        person: whose an image is, where its name does not say so by itself: a pattern of the subjects' names,
            `{person}_scan*`, or a table in the folder, as in `People`.
        moving, moving_labels: patterns of moving images, as those of the fixed ones, `images`, are: the pairs are of
            images with the same values of wild cards, and no others.
        boxes: pattern of the files of bounding boxes of labels, tables or regions of interest of 3D Slicer, as
            `files.read_boxes` reads them; with a wild card `{label}` there is one for each box.
        learned: the share of the subjects for training who are learned from, drawn by their names as splits are, a
            smaller one as a part of a larger; None for all.
        without: names of cases that are left out once the splits are drawn, as if they were not there; nobody else
            moves.
    """

    root: str = ""
    images: str | tuple[str, ...] = "*.nii.gz"
    labels: str | None = None
    masks: str | None = None
    validation_split: tuple[str, ...] | float = 0.15
    test_split: tuple[str, ...] | float = 0.15
    shape: tuple[int, ...] | None = None
    seed: int = 0
    atlas: str | None = None
    atlas_moves: bool = True
    synthetic: Synthetic | None = None
    within: bool = False
    pairing: FramePairs | None = None
    person: str | None = None
    moving: str | None = None
    moving_labels: str | None = None
    without: tuple[str, ...] = ()
    boxes: str | None = None
    learned: float | None = None
    one_way: bool = False

    @cached_property
    def listing(self) -> Listing:
        """The images in the folder, before they are split."""
        patterns = (self.images,) if isinstance(self.images, str) else self.images
        more = (self.labels, self.masks, self.moving, self.moving_labels, self.person, self.shape, self.within)
        return Listing(self.root, patterns, *more, boxes=self.boxes)

    @property
    def cases(self) -> tuple[FileCase, ...]:
        """All images, ordered by the subject's name, then by the values of other wild cards.

        Raises:
            InputError: fewer images than three splits need, or none at all; or labels are among them.
        """
        return self.listing.cases

    @cached_property
    def _subjects(self) -> dict[str, tuple[FileCase, ...]]:
        """Subjects that may be in splits, with their images."""
        if (self.within or self.moving) and self.atlas is not None:
            raise InputError(
                "data.atlas: is in a pair with every subject; leave it out, or data.within and data.moving"
            )
        if self.pairing is not None and not self.within:
            raise InputError("data.pairing: is of images of one subject; set data.within=true")
        if self.one_way and (not self.within or self.pairing is not None):
            raise InputError("data.one_way: is of any two visits of one subject; set data.within=true, and no pairing")
        if self.within and self.moving:
            raise InputError("data.within and data.moving: both say which pairs there are; leave one of them out")
        listed: dict[str, list[FileCase]] = {}
        for case in self.cases:
            if case.name != self.atlas and (self.moving is None or case.name in self.listing.moved):
                listed.setdefault(subject_of(case), []).append(case)
        found = {name: tuple(cases) for name, cases in listed.items()}
        lonely = [name for name, cases in found.items() if self.within and len(cases) < LEAST]
        if len(lonely) == len(found) and self.within:
            raise InputError(
                f"{self.root}: each of the {len(found)} subjects has one image that matches "
                f"{self.listing.images[0]!r}, so there are no pairs within one; check the pattern and data.person, or "
                f"leave data.within out"
            )
        if lonely:
            text = f"{self.root}: {len(lonely)} subjects have one image and are in no pair: {some(lonely)}"
            warnings.warn(text, UserWarning, stacklevel=2)
        return {name: cases for name, cases in found.items() if name not in set(lonely)}

    @cached_property
    def _groups(self) -> dict[str, tuple[FileCase, ...]]:
        named = self._subjects
        test, validation = (
            known_as(split, self._aliases, self.root) for split in (self.test_split, self.validation_split)
        )
        check_splits(test, validation, self.root)
        names = draw_splits(named, test, validation, self.seed, self._least)
        names["train"] = some_of(names["train"], self.learned, self.seed, self._least)
        left = {*self.without}
        return {
            kind: tuple(case for name in group for case in named[name] if case.name not in left)
            for kind, group in names.items()
        }

    @property
    def _aliases(self) -> dict[str, str]:
        """Names of subjects where splits are named: a person of one image is also called as that is."""
        found: dict[str, str] = {}
        for name, cases in self._subjects.items():
            if len(cases) == 1:
                found |= dict.fromkeys((cases[0].name, cases[0].image.name.split(".")[0]), name)
            found[f"sub-{person_in(name)}"] = name
        return found | {name: name for name in self._subjects}

    @property
    def _least(self) -> int:
        return 1 if self.within or self.moving else LEAST

    def _split(self, kind: str) -> tuple[FileCase, ...]:
        """Return the cases of a split, of enough subjects."""
        cases = self._groups[kind]
        if len({*map(subject_of, cases)}) < self._least:
            who = {name: {*map(subject_of, group)} for name, group in self._groups.items()}
            raise too_few({name: sorted(group) for name, group in who.items()}, self._least, self.root)
        return cases

    @property
    def centred(self) -> bool:
        return self.shape is not None

    @property
    def train(self) -> Train:
        cases = self._split("train")
        if self.moving:
            return Train(cases, pairs=self._listed(cases), of=self)
        if self.pairing is not None:
            return Train(cases, pairs=self.pairing.of(cases), of=self)
        within = pairs_within(self._alike(cases), one_way=self.one_way) if self.within else ()
        return Train(cases, self._atlas, self.atlas_moves, within, of=self)

    @property
    def validation(self) -> Validation:
        if self.synthetic is not None:
            return self.synthetic.listed(Validation, self._split("validation"))
        if self.pairing is not None:
            return Validation(self.pairing.straight.of(self._split("validation"))).some(20)
        return Validation(self._pairs("validation", 20), self._atlas)

    @property
    def test(self) -> Test:
        if self.synthetic is not None:
            return self.synthetic.listed(Test, self._split("test"))
        if self.pairing is not None:
            return Test(self.pairing.straight.of(self._split("test")))
        return Test(self._pairs("test", 100), self._atlas)

    @property
    def _atlas(self) -> FileCase | None:
        if self.atlas is None:
            return None
        for case in self.cases:
            if case.name == self.atlas:
                return case
        raise InputError(f"{self.root}: no atlas {self.atlas!r}; found {some(case.name for case in self.cases)}")

    def _pairs(self, split: str, limit: int) -> list[tuple[FileCase, FileCase]]:
        """Return about `limit` pairs, but at least one in which each image is fixed."""
        cases, atlas = self._split(split), self._atlas
        if self.moving:
            return self._listed(cases)
        if self.within:
            return pairs_within(self._alike(cases), max(limit, len(cases)), self.one_way)
        if atlas is None:
            return ordered_pairs(cases, max(limit, len(cases)))
        return [with_atlas(case, atlas, self.atlas_moves) for case in cases]

    def _listed(self, cases: Iterable[FileCase]) -> list[tuple[FileCase, FileCase]]:
        """Return the images with their moving ones."""
        return [
            (case, self.listing.moved[case.name])
            for case in cases
            if self.listing.moved[case.name].name not in self.without
        ]

    def _alike(self, cases: Sequence[FileCase]) -> list[list[FileCase]]:
        """Return the images of each subject."""
        found: dict[str, list[FileCase]] = {}
        for case in cases:
            found.setdefault(subject_of(case), []).append(case)
        return list(found.values())
