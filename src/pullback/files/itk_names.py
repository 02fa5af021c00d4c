"""Names of files for ITK, which knows those of UTF-8 alone and aborts the process at others."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def name_for_itk(path: str | Path) -> Iterator[str]:
    """Yield a name by which ITK reads or writes the file at `path`.

    It is the file's own, unless that is not UTF-8, as on volumes of another age; then one through a link that lasts as
    long as the `with`. Files that lie beside it, such as the voxels of a `.mhd`, are found there too where only the
    folder is so named.
    """
    if _is_utf8(str(path)):
        yield str(path)
        return
    path = Path(path).absolute()
    with TemporaryDirectory(prefix="pullback.") as place:
        if _is_utf8(path.name):
            folder = Path(place) / "folder"
            folder.symlink_to(path.parent, target_is_directory=True)
            yield str(folder / path.name)
        else:
            link = Path(place) / ("file" + "".join(part for part in path.suffixes if _is_utf8(part)))
            link.symlink_to(path)
            yield str(link)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
