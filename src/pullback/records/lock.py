"""Locks, so that one process at a time works in a folder."""

import contextlib
import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pullback.errors import InputError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes; the system releases the lock however this process ends.

    The folder is made where it does not exist, and removed again if nothing was left in it. A thread may lock a folder
    that it has locked already. Where the file system has no locks, as some of clusters, a warning says so.

    Raises:
        InputError: another process is at work in the folder, or it cannot be written to.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder.resolve() / ".lock", is_singleton=True)
    try:
        _acquire(lock, folder)
    except Timeout as error:
        raise InputError(
            f"{folder}: another process is at work there; wait for it, stop it, or name another folder"
        ) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise InputError(
                f"{folder}: cannot write there: {error.strerror or error}; name another folder by -o"
            ) from error
        warnings.warn(f"{folder}: this file system has no locks; see that nobody else works there", stacklevel=3)
    try:
        yield
    finally:
        if lock.lock_counter <= 1:
            with contextlib.suppress(OSError):  # while it is held, so that nobody else's goes
                Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # not empty: it is wanted
            for path in new:
                path.rmdir()


def _acquire(lock: FileLock, folder: Path) -> None:
    """Lock a folder, which is made again where another process removes it in between.

    Raises:
        Timeout: another process holds the lock.
        OSError: the folder or the lock cannot be made.
        NotImplementedError: the file system has no locks.
    """
    held = False
    while not held:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            lock.acquire(timeout=0.2, poll_interval=0.02)
            held = True


def is_locked(folder: Path) -> bool:
    """Return whether another process is at work in a folder."""
    if not (folder / ".lock").is_file():
        return False
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False
