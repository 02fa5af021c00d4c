"""Status of work that can be stopped: what is done, running, failed and open in a folder."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from pullback.errors import InputError
from pullback.records.ledger import DONE, LEDGER, RUNNING, STOPPED, other_versions, read_ledger
from pullback.records.lock import is_locked
from pullback.workflows.outputs import RECORD

ENDED = {"finished": DONE, "interrupted": STOPPED}
"""How `run.json` calls what a ledger calls otherwise."""


@dataclass(frozen=True)
class Line:
    """A piece of work.

    Attributes:
        folder: in which it lies, below the one that was asked for; "" for that one.
        name: of the work, in words.
        status: done, running, stopped, failed or open.
        seconds: that it took; None where it is not known.
        when: it began or ended, UTC.
        error: why it failed.
    """

    folder: str
    name: str
    status: str
    seconds: float | None = None
    when: str = ""
    error: str = ""


def status(folder: Path) -> list[Line]:
    """Return the work of a folder: a preparation, a run, a study, or whatever holds some of these.

    Raises:
        InputError: no such folder, none of these, or a record that is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    places = sorted({path.parent for name in (LEDGER, RECORD) for path in folder.rglob(name)})
    lines = [line for place in places for line in _lines(place, _below(place, folder))]
    if not lines:
        raise InputError(f"{folder}: no work is recorded there; name the folder of a preparation, a run or a study")
    return lines


def layout(lines: Sequence[Line], full: bool) -> Table:
    """Return the table of all that is not done, or of all."""
    table = Table("work", "status", "seconds", "when", "why", box=None, header_style="bold", pad_edge=False)
    for line in lines:
        if full or line.status != DONE:
            name = f"{line.folder}: {line.name}" if line.folder else line.name
            spent = "" if line.seconds is None else f"{line.seconds:.1f}"
            table.add_row(escape(name), line.status, spent, line.when.replace("+00:00", ""), escape(line.error))
    return table


def summary(folder: Path, lines: Sequence[Line]) -> str:
    """Summarise the work: how much of it is in which state, and what later versions of the package should know."""
    counts = Counter(line.status for line in lines)
    said = f"{folder}: {', '.join(f'{count} {status}' for status, count in counts.most_common())}"
    others = other_versions(entry for path in folder.rglob(LEDGER) for entry in read_ledger(path.parent).values())
    return said + (f"; some by pullback {', '.join(others)}" if others else "")


def _below(place: Path, folder: Path) -> str:
    return "" if place == folder else place.relative_to(folder).as_posix()


def _lines(place: Path, below: str) -> Iterator[Line]:
    """Yield the work that a folder's own records tell."""
    entries, at_work = read_ledger(place), is_locked(place)
    for name, entry in entries.items():
        how = STOPPED if entry.status == RUNNING and not at_work else entry.status
        yield Line(below, name, how, entry.seconds, entry.when, entry.error)
    if (place / RECORD).is_file():
        told = _record(place / RECORD)
        how = ENDED.get(str(told.get("status", "finished")), str(told.get("status")))
        how = STOPPED if how == RUNNING and not at_work else how
        spent = told.get("seconds of this process", told.get("seconds"))
        seconds = float(spent) if isinstance(spent, int | float) else None
        yield Line(below, "the whole", how, seconds, str(told.get("when", "")))
        missing = int(told.get("subjects", 0)) - len(entries)
        if missing > 0:
            yield Line(below, f"{missing} subjects", "open")


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not the record of a work ({error})") from error
