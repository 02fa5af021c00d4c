"""Atomic writing: to a temporary name in the same folder, then renamed."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pullback.errors import InputError

TEMPORARY = re.compile(r"\..{1,40}\.[0-9a-f]{16}(\.\w+){0,2}", re.DOTALL)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write to a temporary name next to `path`, which becomes `path` when all went well, and else is removed.

    The umask decides who may read the file, whatever the permissions with which its writer makes files.

    Raises:
        InputError: the folder cannot be made or written to, or writing fails; what was at `path` is still there.
    """
    path = Path(path)
    known = 2 if path.suffix.lower() == ".gz" else 1  # of what each writer knows a file by
    suffix = "".join(path.suffixes[-known:]).lower()
    name = path.name[:40].encode("ascii", "replace").decode().replace("?", "_")  # some libraries know no others
    temporary = path.parent / f".{name}.{secrets.token_hex(8)}{suffix.encode('ascii', 'ignore').decode()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)  # less the umask
        mode = os.fstat(handle).st_mode & 0o777
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot write there: {error.strerror or error}") from error
    try:
        yield temporary
        temporary.chmod(mode)  # some writers, safetensors for one, put a file of their own in its place
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: writing failed ({error.strerror or error}); nothing was left there") from error
    finally:
        temporary.unlink(missing_ok=True)


def refuse_unwritable(path: str | Path) -> None:
    """Refuse a place where `atomic_write` would fail, before the work whose result goes there; nothing is made.

    Raises:
        InputError: it is a folder, or the folder that it is to lie in cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f"{path}: cannot write there: {folder} is a file; name another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot write there: {folder} does not allow it; name another place")


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files that a process killed within `atomic_write` left in a folder."""
    return [path for path in folder.glob(".*") if TEMPORARY.fullmatch(path.name) and path.is_file()]
