"""People: whose an image is, by its name, by a table, and by its bytes, so that no split parts those of one person."""

import csv
import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.errors import InputError
from pullback.files.suffixes import BRAINS, FORMATS, NIFTI, ends
from pullback.records.csv_records import as_number

ENTITY = re.compile(r"(?:^|[/_])([A-Za-z]+)-([^/_]+)")
MODALITY = re.compile(r"(?<=_\d{4})_\d{4}$")
PERSON = re.compile(r"\{person\}|\*")
WHO = ("person", "person_id", "patient", "patient_id")
"""Columns of a table that say whose an image is."""
IMAGES = ("participant_id", "image", "name", "subject")
"""Columns of a table that name the images."""
NUMBERED = re.compile(r"(?<=.)[_-]+[A-Za-z]*[_-]?\d+$")
ENDINGS = (*NIFTI, *FORMATS, *BRAINS)
PROBE = 4096  # bytes at the beginning, the middle and the end, by which files of one size are told apart first

About = tuple[tuple[str, float | str], ...]


def entities_of(name: str) -> dict[str, str]:
    """Return the entities of BIDS in a path, by key: `{"sub": "01", "ses": "2"}`."""
    plain = next((name[: -len(ending)] for ending in ENDINGS if ends(name, ending)), name)
    return dict(ENTITY.findall(plain))


def person_in(name: str) -> str:
    """Return whose an image is as far as its name alone says: X of `sub-X_…`, and TASK_0001 of `TASK_0001_0000`."""
    return entities_of(name).get("sub") or MODALITY.sub("", name.removeprefix("sub-"))


@dataclass(frozen=True)
class People:
    """The persons of a folder of images.

    By themselves, images of one `sub-…` of BIDS are of one person, and those called TASK_0001_0000, TASK_0001_0001, …;
    all others are each of its own.

    Attributes:
        root: the folder.
        told: who else it is: a pattern of the images' names, `{person}_scan*`, or a table in the folder (`.tsv`,
            `.csv`) whose first known column names images or subjects, and another, called `person`, says whose they
            are; "" takes `participants.tsv` where it has such a column.
    """

    root: Path
    told: str = ""

    def of(self, subject: str, path: Path) -> str:
        """Return whose the image at `path` is, whose name in the pattern is `subject`: two of one person agree.

        Raises:
            InputError: the pattern does not match, or the table does not list it.
        """
        by_name = self._by_name(subject, path)
        if PERSON.search(self.told):
            first, *rest = PERSON.split(self.told)
            cards = PERSON.findall(self.told)
            parts = ["(?P<person>.+?)" if card == "{person}" else ".*" for card in cards]
            expression = re.escape(first) + "".join(p + re.escape(text) for p, text in zip(parts, rest, strict=True))
            match = re.fullmatch(expression, subject) if cards.count("{person}") == 1 else None
            if match is None:
                raise InputError(
                    f"{subject}: data.person={self.told!r} does not say whose it is: one {{person}} is expected in it, "
                    f"and a * for all that is not the person, such as {{person}}_*; or name a table"
                )
            return match["person"]
        if not self._table:
            return by_name
        name = path.name.split(".")[0]
        for key in (subject, path.relative_to(self.root).as_posix(), path.name, name, by_name):
            if key.removeprefix("sub-") in self._table:
                return self._table[key.removeprefix("sub-")]
        if self.told:
            raise InputError(f"{self.root / self.told}: does not say whose {subject} is; add a row for it")
        return by_name

    @staticmethod
    def _by_name(subject: str, path: Path) -> str:
        """Return `sub-X` where the subject's name holds it, or is X, perhaps with more entities, and the path does."""
        own, told = entities_of(subject).get("sub"), entities_of(path.as_posix()).get("sub")
        if own is None and told is not None and f"{subject}_".startswith(f"{told}_"):
            own = told
        return MODALITY.sub("", subject) if own is None else f"sub-{own}"

    @cached_property
    def _table(self) -> Mapping[str, str]:
        """Read who is who, by the images' names without `sub-`; {} where nothing says."""
        path = self.root / (self.told or "participants.tsv")
        if not path.is_file():
            if self.told:
                raise InputError(
                    f"{path}: no such table; data.person is a pattern with {{person}}, such as {{person}}_*, or a .tsv "
                    f"or .csv in the folder, with columns image and person"
                )
            return {}
        rows = read_table(path)
        if not rows:
            return {}
        image, who = (next((name for name in names if name in rows[0]), None) for names in (IMAGES, WHO))
        if image is None or who is None:
            if self.told:
                raise InputError(f"{path}: columns image and person are expected, got {', '.join(rows[0])}")
            return {}
        return {row[image].removeprefix("sub-"): row[who] for row in rows if row[who] not in ("", "n/a")}


def called(person: str, subjects: Sequence[str]) -> str:
    """Return what the person of these subjects is called: as they are, without what tells images of one apart.

    So `sub-01_ses-1_T1w` and `sub-01_ses-2_T1w` are `sub-01_T1w`, and `sub-01_T1w` alone stays what it is.
    """
    plain = {re.sub(r"(?<=.)_[A-Za-z]+-[^/_]+", "", subject) for subject in subjects}
    (first, *others) = sorted(plain)
    alike = not others and person_in(first) == person_in(person)
    return first if alike else person


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table of a line of names and a line for each row, parted by tabs or, of a `.csv`, by commas.

    Raises:
        InputError: it cannot be read, or a row has other columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, delimiter="," if path.suffix == ".csv" else "\t") if any(line)]
        return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(
            f"{path}: a table of BIDS, with a column participant_id, its columns parted by tabs, is expected ({error})"
        ) from error


def read_people(path: Path) -> Mapping[str, About]:
    """Read what BIDS' `participants.tsv` says of each subject, by the name without `sub-`; {} where there is no file.

    Numbers are numbers, and values of `n/a` are left out.

    Raises:
        InputError: no table with a column `participant_id`.
    """
    if not path.is_file():
        return {}
    rows = read_table(path)
    if not rows or "participant_id" not in rows[0]:
        raise InputError(f"{path}: a table of BIDS, with a column participant_id, its columns parted by tabs, expected")
    return {
        row["participant_id"].removeprefix("sub-"): tuple(
            (k, as_number(v)) for k, v in row.items() if k != "participant_id" and v not in ("", "n/a")
        )
        for row in rows
    }


def copies(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of files that are the same, byte by byte; only files of one size are read. Empty ones are none.

    What cannot be read is no copy, and where most of the files are copies, as made ones for a trial, none is.
    """
    paths = list(paths)
    sized = _grouped(paths, lambda path: path.stat().st_size)
    probed = [group for size, same in sized if size for _, group in _grouped(same, _probe)]
    found = sorted(group for same in probed for _, group in _grouped(same, _digest))
    return [] if 2 * sum(len(group) - 1 for group in found) > len(paths) else found


def _grouped(paths: Iterable[Path], key: Callable[[Path], Hashable]) -> list[tuple[Hashable, list[Path]]]:
    """Return the files that have a key in common with others, by key."""
    found: dict[Hashable, list[Path]] = {}
    for path in paths:
        try:
            found.setdefault(key(path), []).append(path)
        except OSError:
            continue
    return [(known, group) for known, group in found.items() if len(group) > 1]


def _probe(path: Path) -> bytes:
    """Return a digest of some bytes of a file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        parts = []
        for start in sorted({0, max(size // 2 - PROBE // 2, 0), max(size - PROBE, 0)}):
            file.seek(start)
            parts.append(file.read(PROBE))
    return hashlib.sha256(b"".join(parts)).digest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def numbered(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names that look like several scans of one: those that differ in a number at their end alone, by the rest.

    They do where at least three such groups hold most of the names, as in `p01_scan1`, `p01_scan2`, `p02_scan1`, ….
    """
    known = sorted(names)
    found: dict[str, list[str]] = {}
    for name in known:
        rest = NUMBERED.sub("", name)
        if rest != name and re.search(r"\d", rest):
            found.setdefault(rest, []).append(name)
    several = {rest: group for rest, group in found.items() if len(group) > 1}
    return several if len(several) >= 3 and 2 * sum(map(len, several.values())) > len(known) else {}
