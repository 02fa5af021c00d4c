"""A ledger of work that can be stopped: jobs by name, each done once, whoever asks how often."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pullback.errors import InputError, Interrupted

LEDGER = "ledger.jsonl"
DONE, FAILED, RUNNING, STOPPED = "done", "failed", "running", "stopped"
FileDigest = tuple[int, int, str]
"""Size in bytes, time of the last change in ns, and digest of a file."""


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        name: what it is of, in words; one job of a ledger has it.
        about: plain data on which the result depends beside the bytes of the inputs, such as a recipe.
        inputs: files that it reads.
        outputs: paths of the files or folders that it leaves, within the ledger's folder.
    """

    name: str
    about: object = None
    inputs: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobRecord:
    """Record of a job.

    Attributes:
        key: digest of what the job's result depends on. The version of the code is no part of it.
        about: as of the job.
        status: `DONE`, `FAILED`, `RUNNING` or `STOPPED`.
        seconds: that it took.
        result: plain data that it answered with.
        error: why it failed.
        version: of this package.
        when: it was written, UTC.
        seen: of each input, so that its digest need not be computed again.
    """

    key: str
    about: Any
    status: str
    seconds: float = 0.0
    result: Any = None
    error: str = ""
    version: str = ""
    when: str = ""
    seen: Mapping[str, FileDigest] = field(default_factory=dict)


class Ledger:
    """The record of all jobs of a folder, `ledger.jsonl`: one line for each change, the last one of a name counts.

    The folder is the caller's, who keeps other processes out of it (`locked`). A line that a kill cut short is dropped.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read what is there.

        Raises:
            InputError: the record is damaged.
        """
        self.folder = Path(folder)
        self.entries: dict[str, JobRecord] = read_ledger(self.folder)
        self._alone = threading.Lock()  # one line at a time

    def key(self, job: Job) -> tuple[str, dict[str, FileDigest]]:
        """Return the digest of what a job depends on, and what was seen of its inputs.

        The bytes of an input are read where its size or time has changed since they last were.

        Raises:
            InputError: an input cannot be read.
        """
        before = self.entries[job.name].seen if job.name in self.entries else {}
        seen = {str(n): _look(path, before.get(str(n))) for n, path in enumerate(job.inputs)}
        stated = json.dumps([job.about, [digest for _, _, digest in seen.values()]], sort_keys=True, default=str)
        return hashlib.sha256(stated.encode()).hexdigest()[:16], seen

    def known(self, job: Job) -> JobRecord | None:
        """Return the entry of a job that is done, by the same key, and whose outputs are all there."""
        entry = self.entries.get(job.name)
        if entry is None or entry.status != DONE or not all((self.folder / path).exists() for path in job.outputs):
            return None
        return entry if entry.key == self.key(job)[0] else None

    def once(self, job: Job, make: Callable[[Job], Any]) -> Any:
        """Return the result of a job, which is made unless it is known.

        Raises:
            Exception: that of `make`; the job is recorded as failed, or as stopped by a person, and is tried again by
                the next call.
        """
        entry = self.known(job)
        return self._make(job, make) if entry is None else entry.result

    def map(
        self,
        jobs: Sequence[Job],
        make: Callable[[Job], Any],
        workers: int = 1,
        stopping: Callable[[], object] = lambda: False,
    ) -> Iterator[tuple[Job, Any, bool]]:
        """Yield each job in order, its result, and whether it was made now.

        Args:
            jobs: of different names.
            make: answers with plain data.
            workers: how many are at work at once, in threads.
            stopping: whether no further job may begin.

        Raises:
            Interrupted: it was asked to stop; those at work have ended.
            Exception: that of `make`, once those at work have ended.
        """

        def work(job: Job) -> tuple[Any, bool]:
            entry = self.known(job)
            if entry is not None:
                return entry.result, False
            if stopping():
                raise Interrupted("stopped")
            return self._make(job, make), True

        if workers == 1:
            yield from ((job, *work(job)) for job in jobs)
            return
        with ThreadPoolExecutor(workers) as pool:
            waiting = [pool.submit(work, job) for job in jobs]
            try:
                for job, future in zip(jobs, waiting, strict=True):
                    yield job, *future.result()
            finally:
                for future in waiting:
                    future.cancel()

    def _make(self, job: Job, make: Callable[[Job], Any]) -> Any:
        key, seen = self.key(job)
        begin = time.perf_counter()

        def note(status: str, result: Any = None, error: str = "") -> None:
            spent = round(time.perf_counter() - begin, 3)
            when = datetime.now(UTC).isoformat(timespec="seconds")
            self._write(
                job.name, JobRecord(key, job.about, status, spent, result, error, version("pullback"), when, seen)
            )

        note(RUNNING)
        try:
            result = make(job)
        except Exception as error:
            note(STOPPED if isinstance(error, Interrupted) else FAILED, error=str(error))
            raise
        except BaseException:
            note(STOPPED, error="interrupted")
            raise
        note(DONE, result)
        return result

    def _write(self, name: str, entry: JobRecord) -> None:
        """Append one line at once; what a kill left of an earlier one goes."""
        line = json.dumps({"job": name, **vars(entry)}, default=str) + "\n"
        path = self.folder / LEDGER
        with self._alone:
            self.entries[name] = entry
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if path.is_file() and _is_cut_short(path):
                    path.write_bytes(_whole_lines(path.read_bytes()))
                with path.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise InputError(f"{path}: cannot write there: {error.strerror or error}") from error


def read_ledger(folder: Path) -> dict[str, JobRecord]:
    """Read the last entry of each job of a folder; none where there is no ledger.

    Raises:
        InputError: the record is damaged.
    """
    path = folder / LEDGER
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(_whole_lines(path.read_bytes()).splitlines(), 1):
        try:
            members = json.loads(line)
            seen = {name: (int(size), int(when), str(digest)) for name, (size, when, digest) in members["seen"].items()}
            name = str(members.pop("job"))
            found[name] = JobRecord(**{**members, "seen": seen})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: line {number} is no entry of a ledger ({error}); delete that line, and its job is done again"
            ) from error
    return found


def other_versions(entries: Iterable[JobRecord]) -> list[str]:
    """Return versions of this package, other than the installed one, by which done work was made."""
    return sorted({e.version for e in entries if e.status == DONE and e.version != version("pullback")})


def _is_cut_short(path: Path) -> bool:
    """Return whether the last line of a file lacks its end, by its last byte alone, however long the file is."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _whole_lines(stored: bytes) -> bytes:
    return stored[: stored.rfind(b"\n") + 1]


def _look(path: Path, before: FileDigest | None) -> FileDigest:
    try:
        about = path.stat()
        if before is not None and before[:2] == (about.st_size, about.st_mtime_ns):
            return before
        return about.st_size, about.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
