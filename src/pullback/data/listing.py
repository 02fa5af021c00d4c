"""Listing of a folder's images by patterns: cases with their labels, masks and channels, and whose they are."""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.data.case import FileCase, subject_of
from pullback.data.pattern import APART, SCAN, SUBJECT, CardValues, Pattern, about_scan, by_number, said, some
from pullback.data.people import About, People, called, copies, entities_of, person_in, read_people
from pullback.errors import InputError

NO_IMAGES = re.compile(r"[_.](dseg|probseg|seg|mask|labels?)\.\w+(\.gz)?$", re.I)  # endings of BIDS and of others
LABEL = "label"  # the wild card of files of one box each
LEAST = 2  # subjects of a split: fewer make no pair
MOVING = "moving"  # what the moving image of a case of two is called, behind a slash


@dataclass(frozen=True)
class Listing:
    """The images in a folder, as the attributes of `PairFolder` of the same names say."""

    root: str
    images: tuple[str, ...]
    labels: str | None = None
    masks: str | None = None
    moving: str | None = None
    moving_labels: str | None = None
    person: str | None = None
    shape: tuple[int, ...] | None = None
    within: bool = False
    boxes: str | None = None

    @cached_property
    def cases(self) -> tuple[FileCase, ...]:
        """All images, ordered by the subject's name, then by the values of other wild cards.

        Raises:
            InputError: fewer images than three splits need, or none at all; or labels are among them.
        """
        pattern, channels = self._pattern, [Pattern(text) for text in self.images[1:]]
        images = pattern.files(self._folder)
        self._check_endings(images)
        labels, masks = (
            self._others(kind, text, images) for kind, text in (("labels", self.labels), ("masks", self.masks))
        )
        boxes = self._boxes(images)
        further = [self._others("images", channel.text, images) for channel in channels]
        if len(images) < LEAST:
            if self.within and not pattern.named:
                raise self._unnamed
            raise InputError(
                f"{self.root}: {len(images)} images match {self.images[0]!r}; at least {LEAST} are needed: "
                f"{self._remedy}"
            )
        place, people = pattern.cards.index(SUBJECT), read_people(self._folder / "participants.tsv")
        persons, often = self._persons(images, place), Counter(values[place] for values in images)

        def order(values: CardValues) -> tuple[str, list[list[str | int]]]:
            return values[place], [by_number(value) for value in values]

        def case(values: CardValues) -> FileCase:
            whose, known = values[place], dict(zip(pattern.cards, values, strict=True))
            del known[SUBJECT]
            name, person = whose if often[whose] == 1 else said((whose, *known.values())), persons[values]
            listed = people.get(whose.removeprefix("sub-"), people.get(person_in(person), ()))
            files = images[values], labels.get(values), masks.get(values)
            about, more = (*_about(whose, known), *listed), tuple(f[values] for f in further if values in f)
            subject = "" if person == name else person
            known_boxes = boxes.get(values, ())
            return FileCase(
                name, *files, shape=self.shape, subject=subject, about=about, channels=more, boxes=known_boxes
            )

        return tuple(case(values) for values in sorted(images, key=order))

    def _persons(self, images: Mapping[CardValues, Path], place: int) -> dict[CardValues, str]:
        """Return what the person of each image is called; the same bytes under two names are of one."""
        people = People(self._folder, self.person or "")
        whose = {values: people.of(values[place], path) for values, path in images.items()}
        first = _united(copies(images.values()), {path: whose[values] for values, path in images.items()}, self.root)
        whose = {values: first.get(person, person) for values, person in whose.items()}
        subjects: dict[str, list[str]] = {}
        for values, person in whose.items():
            subjects.setdefault(person, []).append(values[place])
        names = {person: called(person, known) for person, known in subjects.items()}
        return {values: names[person] for values, person in whose.items()}

    @property
    def _pattern(self) -> Pattern:
        if not self.images:
            raise InputError('data.images: no pattern; give one, --set "data.images=*_T1w.nii.gz"')
        pattern = Pattern(self.images[0])
        if self.within and pattern.cards == (SUBJECT,):
            raise self._unnamed
        return pattern

    @property
    def _unnamed(self) -> InputError:
        return InputError(
            f"{self.images[0]!r}: pairs within a subject need a name for the subject and for what tells its images "
            f'apart: --set "data.images=sub-{{subject}}/ses-{{visit}}/anat/*_T1w.nii.gz"'
        )

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
            narrow = narrow if "_" in image else "put one kind into a folder of its own"
            raise InputError(
                f"{min(other.values())}: by its name labels or a mask, but the pattern of the images, "
                f"{self.images[0]!r}, takes it, as it takes {image}: {narrow}"
            )

    def _others(self, kind: str, pattern: str | None, images: Mapping[CardValues, Path]) -> dict[CardValues, Path]:
        """Find the labels, masks or boxes of images, or other images, none of which may be an image too."""
        if not pattern:
            return {}
        found = Pattern(pattern).files(self._folder, self._pattern.cards)
        both = sorted(set(found.values()) & set(images.values()))
        if both:
            raise InputError(
                f"{both[0]} matches the pattern of the images, {self.images[0]!r}, and that of the {kind}, "
                f'{pattern!r}; narrow the one of the images: --set "data.images=*_T1w.nii.gz"'
            )
        found |= _by_entities(found, images)
        if images and not found.keys() & images.keys():
            raise InputError(
                f"{self.root}: no {kind} match {pattern!r} for any of the {len(images)} images, whose names are "
                f'{some(map(said, images))}; check --set "data.{kind}={pattern}"'
            )
        return found

    def _boxes(self, images: Mapping[CardValues, Path]) -> dict[CardValues, tuple[Path, ...]]:
        """Find the files of boxes of images: one of each, or with the wild card {label} one of each box."""
        if self.boxes is None or LABEL not in Pattern(self.boxes).cards:
            return {values: (path,) for values, path in self._others("boxes", self.boxes, images).items()}
        found: dict[CardValues, tuple[Path, ...]] = {}
        for values, path in sorted(Pattern(self.boxes).files(self._folder, (*self._pattern.cards, LABEL)).items()):
            found[values[:-1]] = (*found.get(values[:-1], ()), path)
        if not found.keys() & images.keys():
            raise InputError(f'{self.root}: no boxes match {self.boxes!r}; check --set "data.boxes={self.boxes}"')
        return found

    @property
    def _remedy(self) -> str:
        plain = self.images[0].removesuffix(".gz")
        if plain != self.images[0] and Pattern(plain).files(self._folder):
            return f'there are some that are not compressed: --set "data.images={plain}"'
        if self.images[0].count("*") > 1:
            return "every * stands for the same name; {subject} and other names in braces stand for what differs"
        return 'check --data DIR, and the pattern: --set "data.images=*_T1w.nii.gz"'

    @cached_property
    def moved(self) -> dict[str, FileCase]:
        """The moving images of `moving`, by the name of the fixed one.

        Raises:
            InputError: labels of moving images without a pattern for these; or as of `cases`.
        """
        if self.moving is None:
            if self.moving_labels is not None:
                raise InputError("data.moving_labels: there are no moving images; name them by data.moving")
            return {}
        images = self._pattern.files(self._folder)
        found = self._others("moving", self.moving, images)
        labels = self._others("moving_labels", self.moving_labels, images)
        values = {path: known for known, path in images.items()}

        def partner(case: FileCase) -> FileCase | None:
            known = values[case.image]
            if known not in found:
                return None
            more = (labels.get(known), None, self.shape, subject_of(case), case.about)
            return FileCase(f"{case.name}/{MOVING}", found[known], *more)

        partners = {case.name: partner(case) for case in self.cases}
        alone = [name for name, one in partners.items() if one is None]
        if alone:
            text = f"{self.root}: {len(alone)} images have no moving one and are in no pair: {some(alone)}"
            warnings.warn(text, UserWarning, stacklevel=2)
        return {name: one for name, one in partners.items() if one is not None}


def _about(whose: str, cards: Mapping[str, str]) -> About:
    """Return what the path of an image says beside its subject: sessions and the like, and named wild cards."""
    scan, named = cards.get(SCAN, ""), {name: value for name, value in cards.items() if name != SCAN}
    own = {key: value for key, value in entities_of(whose).items() if key in APART}
    return tuple((own | about_scan(scan) | named).items())


def _united(same: Sequence[Sequence[Path]], whose: Mapping[Path, str], root: str) -> dict[str, str]:
    """Return for each person of whom there are copies under other names the first of these, and say so."""
    first: dict[str, str] = {}

    def of(person: str) -> str:
        while first.get(person, person) != person:
            person = first[person]
        return person

    told = []
    for group in same:
        persons = sorted({of(whose[path]) for path in group})
        if len(persons) > 1:
            told.append(" = ".join(sorted(path.name for path in group)))
            first |= dict.fromkeys(persons[1:], persons[0])
    if told:
        text = f"{root}: copies of one image under other names, byte by byte, are taken for one person: {some(told)}"
        warnings.warn(text, UserWarning, stacklevel=2)
    return {person: of(person) for person in first}


def _by_entities(found: Mapping[CardValues, Path], images: Mapping[CardValues, Path]) -> dict[CardValues, Path]:
    """Return the files that belong to images by BIDS' entities, where the values of stars are others: folders, say."""

    def key(path: Path) -> tuple[str | None, ...]:
        told = entities_of(path.name)
        return tuple(told.get(entity) for entity in ("sub", *APART))

    by_key: dict[tuple[str | None, ...], list[Path]] = {}
    for path in found.values():
        by_key.setdefault(key(path), []).append(path)
    ways = {values: by_key.get(key(path), []) for values, path in images.items() if values not in found}
    return {values: ways[values][0] for values in ways if len(ways[values]) == 1 and key(images[values])[0]}
