"""One process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pullback.errors import InputError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it no other process gets in here; the system lets go however this one ends.

    The folder is made where there is none, and goes again if nothing was left in it.

    Raises:
        InputError: another one is at work in the folder, or it cannot be written to.
    """
    new, lock = [path for path in (folder, *folder.parents) if not path.exists()], folder / ".lock"
    while not _there(file := _locked(lock), lock):  # who was here went after it was opened, and took it with him
        file.close()
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: it is wanted
                for path in new:
                    path.rmdir()


def _locked(lock: Path) -> TextIO:
    """The file, opened and locked.

    Raises:
        InputError: another one holds it, or it cannot be written.
    """
    folder = lock.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write there: {error.strerror or error}; name another folder by -o"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InputError(
            f"{folder}: another process is at work there; wait for it, stop it, or name another folder"
        ) from error
    return file


def _there(file: TextIO, path: Path) -> bool:
    """Whether an open file is the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
