"""Nothing half-written: write beside, then rename."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pullback.errors import InputError


@contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """A temporary name next to `path` that becomes `path` when all went well, and goes when it did not."""
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot write there: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: writing failed ({error.strerror or error}); nothing was left there") from error
    finally:
        temporary.unlink(missing_ok=True)
