"""Folders of transforms, one file each: samples of a posterior, frames of a film, people of a cohort."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pullback.errors import InputError
from pullback.files.suffixes import by_numbers, ends
from pullback.files.transforms.convert import read_transform
from pullback.files.transforms.itk import write_transform
from pullback.space import Grid, Transform

ENDING = ".h5"
ENDINGS = (ENDING, ".hdf5", ".tfm", ".mat", ".x5", ".lta", ".m3z", ".nii.gz", ".nii", ".txt")


@dataclass(frozen=True, eq=False)
class StoredTransforms(Mapping[str, Transform]):
    """The transforms of a folder by name, each read when it is asked for, in the order of the numbers in their names.

    Attributes:
        paths: of the files, by name.
    """

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> Transform:
        return read_transform(self.paths[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def write_transforms(
    folder: str | Path, transforms: Iterable[Transform], names: Sequence[str], on: Grid | None = None
) -> tuple[Path, ...]:
    """Write transforms into a folder, which is made, as `NAME.h5` each, and return the files.

    Args:
        transforms: as many as names; written one after the other, so that they need not be held together.
        names: without ending.
        on: the fixed image's grid, where they are sampled that an ITK file does not hold, as in `write_transform`.

    Raises:
        InputError: another number of transforms than of names, names that are alike or no file names, or as of
            `write_transform`.
    """
    if len(set(names)) < len(names) or any(Path(name).name != name or name.startswith(".") for name in names):
        raise InputError(f"{folder}: names of files expected, each once, got {', '.join(names) or 'none'}")
    place, written = Path(folder), []
    place.mkdir(parents=True, exist_ok=True)
    left = iter(names)
    for transform in transforms:
        name = next(left, None)
        if name is None:
            raise InputError(f"{folder}: {len(names)} transforms expected, as many as names; got more")
        written.append(place / f"{name}{ENDING}")
        write_transform(transform, written[-1], on)
    if len(written) < len(names):
        raise InputError(f"{folder}: {len(names)} transforms expected, as many as names; got {len(written)}")
    return tuple(written)


def read_transforms(folder: str | Path) -> StoredTransforms:
    """Return the transforms in a folder, of any tool whose files say where they lie in the world.

    Files are transforms by their endings; hidden ones are left out. Each is read when it is asked for.

    Raises:
        InputError: no such folder, none in it, or two of one name.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{folder}: no such folder; a folder of transforms, one file each, is expected")
    listed = [path for path in place.iterdir() if path.is_file() and path.name[0] != "." and ends(path, ENDINGS)]
    if not listed:
        raise InputError(f"{folder}: no transforms in it; their files end in {', '.join(ENDINGS)}")
    paths: dict[str, Path] = {}
    for path in sorted(listed, key=by_numbers):
        name = next(path.name[: -len(ending)] for ending in ENDINGS if ends(path, ending))
        if name in paths:
            raise InputError(f"{folder}: {paths[name].name} and {path.name} are of one name; keep one of them")
        paths[name] = path
    return StoredTransforms(paths)
