"""One process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pullback.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows, where two processes may collide
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within it no other process gets in here; the system lets go however this one ends.

    Raises:
        InputError: another one is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    with lock.open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{folder}: another process is training there; wait for it, stop it, or name another folder"
                ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
