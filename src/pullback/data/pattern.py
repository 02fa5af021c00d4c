"""Patterns of file names with wild cards: whose an image is, and what else its path says."""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pullback.data.people import entities_of
from pullback.errors import InputError

SUBJECT = "subject"
SCAN = "scan"
"""The wild card that no pattern names: what tells images of a subject apart, by the entities of BIDS or by stars."""
CARD = re.compile(r"\{([A-Za-z_]\w*)\}|\*")
ENTITY_STAR = re.compile(r"(?:^|[/_])([A-Za-z]+)-$")
APART = ("ses", "task", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part")
"""Entities of BIDS that tell images of one subject apart, in its order; `space`, `desc` and others do not."""
CardValues = tuple[str, ...]


@dataclass(frozen=True)
class Pattern:
    """A path within a folder, with wild cards: `sub-{subject}/ses-{visit}/anat/*_T1w.nii.gz`, or `sub-*_T1w.nii.gz`.

    A named wild card has one value, as short as possible, wherever its name stands, and a `*` beside it matches
    anything. Without named ones every `*` stands for the subject's name. Where no file matches so, or where entities of
    BIDS stand before the stars, as in `sub-*/ses-*/anat/*_T1w.nii.gz`, that of `sub-*`, else the first, is the subject,
    each entity has one value, and another `*` matches anything; what the path says beside the subject is its `SCAN`.

    None matches a `/`; all other characters of the pattern stand for themselves. Hidden files and folders, whose names
    begin with a dot, match where the pattern's name begins so. Links to nowhere match.

    Raises:
        InputError: no wild card for the subject, `**`, or a path that begins at the root.
    """

    text: str

    def __post_init__(self) -> None:
        if self.named and SUBJECT not in self.cards:
            raise InputError(f"{self.text!r}: {{{SUBJECT}}} is expected in it, beside {', '.join(self.cards)}")
        if not CARD.search(self.text) or "**" in self.text or self.text.startswith("/"):
            raise InputError(
                f"{self.text!r}: a path within the folder is expected, in which every * stands for the subject's name "
                f"(and there is no **), such as *_T1w.nii.gz or sub-*/anat/sub-*_T1w.nii.gz, or one with named wild "
                f"cards, sub-{{subject}}/ses-{{visit}}/anat/*_T1w.nii.gz"
            )

    @cached_property
    def named(self) -> bool:
        """Whether wild cards have names."""
        return any(match[1] for match in CARD.finditer(self.text))

    @cached_property
    def cards(self) -> tuple[str, ...]:
        """Names of its wild cards, in order: `("subject", "scan")` where none has a name."""
        named = tuple(dict.fromkeys(match[1] for match in CARD.finditer(self.text) if match[1]))
        return named or (SUBJECT, SCAN)

    def files(self, root: Path, cards: tuple[str, ...] | None = None) -> dict[CardValues, Path]:
        """Return the files that match, by the values of the wild cards in the order of `cards`, its own by default.

        Raises:
            InputError: other wild cards than `cards`, or two files for which they stand for the same.
        """
        if {*self.cards} != {*(cards or self.cards)}:
            raise InputError(
                f"{self.text!r}: the wild cards of the images are {', '.join(cards or ())}; the same are expected, "
                f"not {', '.join(self.cards)}"
            )
        found: dict[CardValues, Path] = {}
        for path, known in self._matches(root):
            values = tuple(known[card] for card in cards or self.cards)
            if values in found:
                raise InputError(
                    f"{path} and {found[values].name} both match {self.text!r} as {said(values)}: narrow it, or name "
                    f"what tells them apart, such as _run-{{run}}_"
                )
            found[values] = path
        return found

    def hidden(self, root: Path) -> list[Path]:
        """Return the files that would match, were they not hidden."""
        return [path for path in self._candidates(root) if not self._is_seen(path.relative_to(root))]

    def _candidates(self, root: Path) -> list[Path]:
        """Return what matches where every wild card stands for anything, sorted."""
        anything = re.sub(r"\*+", "*", "*".join(glob.escape(part) for part in CARD.split(self._path)[::2]))
        return sorted(path for path in root.glob(anything) if path.is_symlink() or path.is_file())

    def _is_seen(self, path: Path) -> bool:
        """Return whether no name on the path is hidden, but where the pattern begins with a dot there too."""
        asked = PurePosixPath(self._path).parts
        hidden = [part.startswith(".") and not own.startswith(".") for part, own in zip(path.parts, asked, strict=True)]
        return not any(hidden) and "__MACOSX" not in path.parts

    @cached_property
    def _path(self) -> str:
        return str(PurePosixPath(self.text))

    def _matches(self, root: Path) -> list[tuple[Path, dict[str, str]]]:
        """Return the files that match, with the values of their wild cards, by the first way that finds some."""
        names = [(path, path.relative_to(root)) for path in self._candidates(root)]
        seen = [(path, name.as_posix()) for path, name in names if self._is_seen(name)]
        before = [ENTITY_STAR.search(part) for part in CARD.split(self._path)[:-1:2]]
        keys = {match[1] for match in before if match}
        if not self.named and keys <= {"sub"}:
            expression = self._expression([SUBJECT] * len(before))
            found = [(path, match[SUBJECT]) for path, name in seen if (match := expression.fullmatch(name))]
            if found or len(before) == 1:
                return [(path, {SUBJECT: subject, SCAN: ""}) for path, subject in found]
        if self.named:
            expression = self._expression([match[1] for match in CARD.finditer(self._path)])
            return [(path, match.groupdict()) for path, name in seen if (match := expression.fullmatch(name))]
        first = next((n for n, match in enumerate(before) if match and match[1] == "sub"), 0)
        stars = [match[1] if match else f"star{n}" for n, match in enumerate(before)]
        stars = [SUBJECT if star in ("sub", stars[first]) else star for star in stars]
        expression = self._expression(stars)
        return [(path, _of_stars(match, name)) for path, name in seen if (match := expression.fullmatch(name))]

    def _expression(self, cards: Sequence[str | None]) -> re.Pattern[str]:
        """Return the regular expression of the pattern, with a group for each of its wild cards; None has none."""
        first, *rest = CARD.split(self._path)
        parts, seen, several = [re.escape(first)], set(), len({*cards}) > 1 or self.named
        for name, literally in zip(cards, rest[1::2], strict=True):
            if name is None:
                parts.append("[^/]*")
            elif name in seen:
                parts.append(f"(?P={name})")
            else:
                parts.append(f"(?P<{name}>[^/]+{'?' if several else ''})")
                seen.add(name)
            parts.append(re.escape(literally))
        return re.compile("".join(parts))


def _of_stars(match: re.Match[str], name: str) -> dict[str, str]:
    """Return the subject, and what tells its images apart: entities of BIDS in the path, else what other stars are."""
    known, told = match.groupdict(), entities_of(name)
    if "sub" in told:
        scan = "_".join(f"{key}-{told[key]}" for key in APART if key in told)
    else:
        scan = "_".join(value for card, value in known.items() if card != SUBJECT)
    return {SUBJECT: known[SUBJECT], SCAN: scan}


def about_scan(scan: str) -> dict[str, str]:
    """Return what the `SCAN` of a file says, by entity: `{"ses": "1"}`; {} where it has none."""
    return {SCAN: scan} if scan and not entities_of(scan) else entities_of(scan)


def said(values: CardValues) -> str:
    """Return the values of wild cards as the name of a case."""
    return "/".join(value for value in values if value)


def by_number(text: str) -> list[str | int]:
    """Return a sort key by which numbers within texts count: 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def some(names: Iterable[str]) -> str:
    """Return the first of these names, for a message."""
    first = sorted(names)
    return ", ".join(first[:8]) + (" …" if len(first) > 8 else "")
