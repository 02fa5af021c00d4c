"""A dataset of images in a folder."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs, pairs_within, subject_of, with_atlas
from pullback.data.pattern import SUBJECT, CardValues, Pattern, by_number, read_people, said, some
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError
from pullback.numerics.random import drawn_number

NO_IMAGES = re.compile(r"[_.](dseg|probseg|seg|mask|labels?)\.\w+(\.gz)?$", re.I)  # endings of BIDS and of others
LEAST = 2  # subjects of a split: fewer make no pair


@dataclass(frozen=True)
class PairFolder:
    """A folder of images of several subjects, any two of which make a pair; or with `within`, any two of one subject.

    By shares, each subject draws a number in [0, 1) that depends on `seed` and its name alone. It is a test subject
    below `test_split`, a validation subject below `test_split + validation_split`, and else for training; where that
    leaves fewer than two for test, or then for validation, those who drew least are taken. So subjects that are added
    later change nothing for the others, except that in a small folder one may push another from test to validation or
    from validation to training: never towards test, and never from test to training at once.

    Validation has 20 pairs and test 100, or all there are; where it has more images, one of each. Each image is fixed
    as often as any other, up to one, and moving too; within subjects, as far as each has others of its subject.

    The images of one subject are always in one split. `Subject.about` holds what BIDS' `participants.tsv` in the folder
    says of the subject, and the values of named wild cards.

    Attributes:
        root: the folder, or "" until one is given.
        images, labels, masks: patterns under `root`, such as `*_T1w.nii.gz` or `sub-*/anat/sub-*_T1w.nii.gz`: every `*`
            stands for the subject's name. Where a subject has several images, wild cards have names, as in
            `sub-{subject}/ses-{visit}/anat/*_T1w.nii.gz`, and a `*` stands for anything. Labels and masks belong to the
            image with the same values of wild cards. An image may have no labels.
        validation_split, test_split: names of subjects, or about what share of them (0 … 1, at least two). Where those
            of validation are named, those of test must be too.
        shape: as in `Learn2Reg`.
        seed: of the draw.
        atlas: name of the subject that is in every pair, and in no split; None pairs subjects.
        atlas_moves: whether it is the moving image of all pairs, else the fixed one.
        synthetic: makes validation and test pairs from their subjects; None takes pairs of stored images.
        within: pairs are of one subject, each image with each other one of it, both ways, for training too; a subject
            with one image is in no split. Visits and the like are ordered by their numbers.
    """

    root: str = ""
    images: str = "*.nii.gz"
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

    @cached_property
    def cases(self) -> tuple[FileCase, ...]:
        """All images, ordered by the subject's name, then by the values of other wild cards.

        Raises:
            InputError: fewer images than three splits need, or none at all; or labels are among them.
        """
        pattern = self._pattern
        images = pattern.files(self._folder)
        self._check_endings(images)
        labels = self._others("labels", self.labels, images)
        masks = self._others("masks", self.masks, images)
        if len(images) < LEAST:
            raise InputError(
                f"{self.root}: {len(images)} images match {self.images!r}; at least {LEAST} are needed: {self._remedy}"
            )
        place, people = pattern.cards.index(SUBJECT), read_people(self._folder / "participants.tsv")
        subjects = [values[place] for values in images]

        def order(values: CardValues) -> tuple[str, list[list[str | int]]]:
            return values[place], [by_number(value) for value in values]

        def case(values: CardValues) -> FileCase:
            whose, known = values[place], dict(zip(pattern.cards, values, strict=True))
            del known[SUBJECT]
            about = (*known.items(), *people.get(whose.removeprefix("sub-"), ()))
            alone = subjects.count(whose) == 1
            name = whose if alone else said((whose, *known.values()))
            files = images[values], labels.get(values), masks.get(values)
            return FileCase(name, *files, shape=self.shape, subject="" if alone else whose, about=about)

        return tuple(case(values) for values in sorted(images, key=order))

    @property
    def _pattern(self) -> Pattern:
        pattern = Pattern(self.images)
        if self.within and pattern.cards == (SUBJECT,):
            raise InputError(
                f"{self.images!r}: pairs within a subject need a name for the subject and for what tells its images "
                f'apart: --set "data.images=sub-{{subject}}/ses-{{visit}}/anat/*_T1w.nii.gz"'
            )
        return pattern

    @property
    def _folder(self) -> Path:
        if not self.root or not Path(self.root).is_dir():
            raise InputError(
                f"{self.root or 'no folder given'}: not a folder; say where the images are with --data DIR"
            )
        return Path(self.root)

    def _check_endings(self, images: Mapping[CardValues, Path]) -> None:
        """Refuse a pattern of images that also matches labels or masks."""
        other = {name: path for name, path in images.items() if NO_IMAGES.search(path.name)}
        if 0 < len(other) < len(images):
            image = next(path for name, path in sorted(images.items()) if name not in other).name
            narrow = f'narrow it: --set "data.images=*_{image.split("_")[-1]}"'
            raise InputError(
                f"{min(other.values())}: by its name labels or a mask, but the pattern of the images, {self.images!r}, "
                f"takes it, as it takes {image}: {narrow if '_' in image else 'put one kind into a folder of its own'}"
            )

    def _others(self, kind: str, pattern: str | None, images: dict[CardValues, Path]) -> dict[CardValues, Path]:
        """Find the labels or masks of images, none of which may be an image too."""
        if not pattern:
            return {}
        found = Pattern(pattern).files(self._folder, self._pattern.cards)
        both = sorted(set(found.values()) & set(images.values()))
        if both:
            raise InputError(
                f"{both[0]} matches the pattern of the images, {self.images!r}, and that of the {kind}, {pattern!r}; "
                f'narrow the one of the images: --set "data.images=*_T1w.nii.gz"'
            )
        if images and not found.keys() & images.keys():
            raise InputError(
                f"{self.root}: no {kind} match {pattern!r} for any of the {len(images)} images, whose names are "
                f'{some(map(said, images))}; check --set "data.{kind}={pattern}"'
            )
        return found

    @property
    def _remedy(self) -> str:
        plain = self.images.removesuffix(".gz")
        if plain != self.images and Pattern(plain).files(self._folder):
            return f'there are some that are not compressed: --set "data.images={plain}"'
        return 'check --data DIR, and the pattern: --set "data.images=*_T1w.nii.gz"'

    @cached_property
    def _subjects(self) -> dict[str, tuple[FileCase, ...]]:
        """Subjects that may be in splits, with their images."""
        if self.within and self.atlas is not None:
            raise InputError("data.atlas: is in a pair with every subject; leave it out, or data.within")
        found: dict[str, tuple[FileCase, ...]] = {}
        for case in self.cases:
            if case.name != self.atlas:
                found[subject_of(case)] = (*found.get(subject_of(case), ()), case)
        lonely = [name for name, cases in found.items() if self.within and len(cases) < LEAST]
        if len(lonely) == len(found):
            raise InputError(
                f"{self.root}: each of the {len(found)} subjects has one image that matches {self.images!r}, so there "
                f"are no pairs within one; check the pattern, or leave data.within out"
            )
        if lonely:
            text = f"{self.root}: {len(lonely)} subjects have one image and are in no pair: {some(lonely)}"
            warnings.warn(text, UserWarning, stacklevel=2)
        return {name: cases for name, cases in found.items() if name not in lonely}

    @cached_property
    def _groups(self) -> dict[str, tuple[FileCase, ...]]:
        named, least = self._subjects, 1 if self.within else LEAST
        self._check_splits(set(named))
        chosen = {
            name for split in (self.test_split, self.validation_split) if isinstance(split, tuple) for name in split
        }
        drawn = sorted((drawn_number(self.seed, name), name) for name in named.keys() - chosen)
        names: dict[str, Sequence[str]] = {}
        below = 0.0
        for kind, split in (("test", self.test_split), ("validation", self.validation_split)):
            if isinstance(split, tuple):
                names[kind] = split
                continue
            below += split
            count = max(least, sum(number < below for number, _ in drawn))
            names[kind] = [name for _, name in drawn[:count]]
            drawn = drawn[count:]
        names["train"] = sorted(name for _, name in drawn)
        if min(map(len, names.values())) < least:
            sizes = {kind: len(group) for kind, group in names.items()}
            raise InputError(
                f"{self.root}: {len(named)} subjects make splits of {sizes}; each needs at least {least}: add some, "
                f"take smaller shares or another seed, or name the subjects of validation and test"
            )
        return {kind: tuple(case for name in group for case in named[name]) for kind, group in names.items()}

    def _check_splits(self, known: set[str]) -> None:
        """Refuse names that are unknown or given twice, and shares that leave nothing to train on."""
        test, validation = self.test_split, self.validation_split
        if isinstance(validation, tuple) and not isinstance(test, tuple):
            raise InputError("validation_split names subjects, so test_split must name its own, not be a share")
        names = [name for split in (test, validation) if isinstance(split, tuple) for name in split]
        for name in names:
            if name not in known:
                raise InputError(f"{self.root}: no subject {name!r} for the splits; found {some(known)}")
            if names.count(name) > 1:
                raise InputError(f"{self.root}: subject {name!r} is named twice in the splits; name it in one of them")
        shares = [split for split in (test, validation) if not isinstance(split, tuple)]
        if any(share < 0 for share in shares) or sum(shares) >= 1:
            raise InputError(f"shares for test and validation of {shares}: none below 0 and less than 1 together")

    @property
    def centred(self) -> bool:
        return self.shape is not None

    @property
    def train(self) -> Train:
        cases = self._groups["train"]
        return Train(cases, self._atlas, self.atlas_moves, pairs_within(self._alike(cases)) if self.within else ())

    @property
    def validation(self) -> Validation:
        if self.synthetic is not None:
            return self.synthetic.listed(Validation, self._groups["validation"])
        return Validation(self._pairs("validation", 20), self._atlas)

    @property
    def test(self) -> Test:
        if self.synthetic is not None:
            return self.synthetic.listed(Test, self._groups["test"])
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
        cases, atlas = self._groups[split], self._atlas
        if self.within:
            return pairs_within(self._alike(cases), max(limit, len(cases)))
        if atlas is None:
            return ordered_pairs(cases, max(limit, len(cases)))
        return [with_atlas(case, atlas, self.atlas_moves) for case in cases]

    def _alike(self, cases: Iterable[FileCase]) -> list[tuple[FileCase, ...]]:
        """Return the images of each subject."""
        return [self._subjects[name] for name in dict.fromkeys(map(subject_of, cases))]
