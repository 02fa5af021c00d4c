"""Patterns of file names with wild cards: whose an image is, and what else its path says."""

import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pullback.errors import InputError
from pullback.records.csv_records import as_number

SUBJECT = "subject"
CARD = re.compile(r"\{([A-Za-z_]\w*)\}|\*")
CardValues = tuple[str, ...]


@dataclass(frozen=True)
class Pattern:
    """A path within a folder, with wild cards: `sub-{subject}/ses-{visit}/anat/*_T1w.nii.gz`, or `sub-*_T1w.nii.gz`.

    A named wild card has one value, as short as possible, wherever its name stands, and a `*` beside it matches
    anything. Without named ones every `*` stands for the subject's name. None matches a `/`; all other characters of
    the pattern stand for themselves.

    Raises:
        InputError: no wild card for the subject, `**`, or a path that begins at the root.
    """

    text: str

    def __post_init__(self) -> None:
        named = bool(re.search(r"\{[A-Za-z_]\w*\}", self.text))
        if named and SUBJECT not in self.cards:
            raise InputError(f"{self.text!r}: {{{SUBJECT}}} is expected in it, beside {', '.join(self.cards)}")
        if not self.cards or "**" in self.text or self.text.startswith("/"):
            raise InputError(
                f"{self.text!r}: a path within the folder is expected, in which every * stands for the subject's name "
                f"(and there is no **), such as *_T1w.nii.gz or sub-*/anat/sub-*_T1w.nii.gz, or one with named wild "
                f"cards, sub-{{subject}}/ses-{{visit}}/anat/*_T1w.nii.gz"
            )

    @cached_property
    def cards(self) -> tuple[str, ...]:
        """Names of its wild cards, in order: `("subject",)` alone where none has a name."""
        named = tuple(dict.fromkeys(match[1] for match in CARD.finditer(self.text) if match[1]))
        return named or ((SUBJECT,) if "*" in self.text else ())

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
        text = str(PurePosixPath(self.text))
        expression = self._expression(text)
        anything = re.sub(r"\*+", "*", "*".join(glob.escape(part) for part in CARD.split(text)[::2]))
        for path in sorted(root.glob(anything)):
            match = expression.fullmatch(path.relative_to(root).as_posix())
            if not match or not path.is_file():
                continue
            values = tuple(match[card] for card in cards or self.cards)
            if values in found:
                raise InputError(
                    f"{path} and {found[values].name} both match {self.text!r} as {said(values)}: narrow it, or name "
                    f"what tells them apart, such as _run-{{run}}_"
                )
            found[values] = path
        return found

    def _expression(self, text: str) -> re.Pattern[str]:
        """Return the regular expression of the pattern, with a group for each of its wild cards."""
        first, *rest = CARD.split(text)
        parts, seen, names = [re.escape(first)], set(), any(rest[::2])
        for card, literally in zip(rest[::2], rest[1::2], strict=True):
            name = card or (None if names else SUBJECT)
            if name is None:
                parts.append("[^/]*")
            elif name in seen:
                parts.append(f"(?P={name})")
            else:
                parts.append(f"(?P<{name}>[^/]+{'?' if names else ''})")
                seen.add(name)
            parts.append(re.escape(literally))
        return re.compile("".join(parts))


def said(values: CardValues) -> str:
    """Return the values of wild cards as the name of a case."""
    return "/".join(values)


def by_number(text: str) -> list[str | int]:
    """Return a sort key by which numbers within texts count: 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def some(names: Iterable[str]) -> str:
    """Return the first of these names, for a message."""
    first = sorted(names)
    return ", ".join(first[:8]) + (" …" if len(first) > 8 else "")


def read_people(path: Path) -> Mapping[str, tuple[tuple[str, float | str], ...]]:
    """Read what BIDS' `participants.tsv` says of each subject, by the name without `sub-`; {} where there is no file.

    Numbers are numbers, and values of `n/a` are left out.

    Raises:
        InputError: no table with a column `participant_id`.
    """
    if not path.is_file():
        return {}
    try:
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        place = lines[0].index("participant_id")
        rows = {line[place].removeprefix("sub-"): dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    except (OSError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: a table of BIDS, with a column participant_id, its columns parted by tabs, is expected ({error})"
        ) from error
    return {
        name: tuple((k, as_number(v)) for k, v in row.items() if k != "participant_id" and v not in ("", "n/a"))
        for name, row in rows.items()
    }
