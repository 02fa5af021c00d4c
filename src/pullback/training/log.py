"""Logs of a training: rows for tables and curves for TensorBoard."""

import contextlib
import csv
import time
from collections.abc import Sequence
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from pullback.errors import InputError
from pullback.records.atomic import atomic_write


class Log:
    """The logs of one run: `training.csv`, `validation.csv` and TensorBoard events.

    Rows past `start` are dropped first.
    """

    def __init__(self, out: Path, start: int) -> None:
        self.out = out
        for path in (out / "training.csv", out / "validation.csv"):
            rows = [row for row in _read(path) if row["update"].isdigit() and int(row["update"]) <= start]
            if path.is_file():
                _write(path, rows)
        (out / "tensorboard").mkdir(parents=True, exist_ok=True)
        self.events = EventsWriter(str(out / "tensorboard" / "events"))
        if start:  # tells TensorBoard to forget what came later
            session = SessionLog(status=SessionLog.START)
            self.events.write_event(Event(wall_time=time.time(), step=start + 1, session_log=session))

    def row(self, name: str, update: int, values: dict[str, float]) -> None:
        """Write one line of `<name>.csv` and a point on each curve.

        A number seen for the first time opens a new column.

        Raises:
            InputError: the row cannot be written, as on a full disk.
        """
        path = self.out / f"{name}.csv"
        row = {"update": str(update), **{key: f"{value:.6g}" for key, value in values.items()}}
        known = _header(path)
        try:
            if known is None or not row.keys() <= set(known):
                _write(path, [*_read(path), row])
            else:
                with path.open("a", newline="") as file:
                    csv.DictWriter(file, known, restval="").writerow(row)
            for key, value in values.items():
                event = Event(wall_time=time.time(), step=update, summary=scalar(f"{name}/{key}", value))
                self.events.write_event(event)
            self.events.flush()
        except OSError as error:
            raise InputError(f"{self.out}: writing the log failed ({error.strerror or error})") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every row was flushed, or its failure told
            self.events.close()


def _header(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        return next(csv.reader(file), None)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row.values()]  # without a last line that was cut short


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    names = list(dict.fromkeys(key for row in rows for key in row)) or ["update"]
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
