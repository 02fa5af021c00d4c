"""Output files of a registration: all of them are written, or none."""

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.files import PointTable, Surface, write_image, write_points, write_transform
from pullback.files.suffixes import ends
from pullback.files.transforms.ants import KIND as ANTS, write_ants
from pullback.report.way import write_way
from pullback.space import Image, Transform, push

RECORD = "run.json"
PUSHED = "fixed_points_in_moving"
MAPS, TRANSFORMS = "maps", "transforms"  # folders of what a register knows beside the transform
WAY = "way.png"


@dataclass(frozen=True)
class ExtraOutputs:
    """The optional outputs of a registration.

    Attributes:
        jacobian: det ∇φ on the fixed grid, as `jacobian.nii.gz`.
        ants: ANTs' pieces, by what their names begin with.
    """

    jacobian: bool = False
    ants: str | None = None


@contextmanager
def transaction(out: Path, given: Sequence[str | Path] = (), names: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a folder whose files are moved to `out` when all went well; else `out` stays as it was.

    A file that is in `out` already is replaced by one of the same name; all others stay, whoever wrote them.

    Args:
        out: the folder of the results.
        given: the files that the work reads: none of them may be lost.
        names: of the files that the work will write, as far as they are known before it.

    Raises:
        InputError: nothing can be written there, or a file that is read would be replaced.
    """
    _refuse_taken(out, names, given)
    new = [path for path in (out, *out.parents) if not path.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=".pullback.", dir=out))
    except OSError as error:
        raise InputError(f"{out}: cannot write there: {error.strerror or error}; name another folder by -o") from error
    try:
        yield folder
        made = names_in(folder)
        _refuse_taken(out, made, given)
        for name in made:
            (out / name).parent.mkdir(exist_ok=True)
            os.replace(folder / name, out / name)
    except InputError as error:  # of a file in the folder that goes
        raise InputError(str(error).replace(str(folder), str(out))) from error
    except OSError as error:
        raise InputError(f"{out}: writing failed ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: it is wanted
            for path in new:
                path.rmdir()


def _refuse_taken(out: Path, names: Sequence[str], given: Sequence[str | Path]) -> None:
    """Refuse names in `out` that are too long, those of folders, and those of files that are read."""
    refuse_overwrite([out / name for name in names], given)
    for name in names:
        try:
            taken = (out / name).is_dir()
        except OSError as error:
            raise InputError(f"{out / name}: cannot write there: {error.strerror or error}") from error
        if taken:
            raise InputError(f"{out / name}: is a folder, and a file of this name is to be written; name another by -o")


def refuse_overwrite(written: Iterable[str | Path], given: Iterable[str | Path]) -> None:
    """Refuse to write over files that are read, also through links.

    Raises:
        InputError: one of the files `written` is one of those `given`.
    """
    lost = sorted({Path(path).resolve() for path in written} & {Path(path).resolve() for path in given})
    if lost:
        raise InputError(f"{lost[0]}: is read here, and would be replaced; write to another place")


def refuse_without(libraries: Iterable[str]) -> None:
    """Refuse to begin work whose last step needs libraries that are not there.

    Raises:
        InputError: one cannot be imported.
    """
    for library in libraries:
        try:
            import_module(library)
        except ImportError as error:
            name = library.partition(".")[0]
            raise InputError(
                f"{name}: is needed to write the results, and is not there ({error}); install it"
            ) from error


def of_earlier_runs(out: Path, names: Collection[str], fixed: object, moving: object) -> list[str]:
    """Say what becomes of the files that an earlier run recorded in `out`, where a person may care.

    Args:
        out: the folder of the results, before these are moved there.
        names: of the files of this run.
        fixed, moving: the inputs, as they are recorded.
    """
    try:
        record = json.loads((out / RECORD).read_text())
        files = [name for name in record["files"] if isinstance(name, str) and (out / name).is_file()]
        same = (record["fixed"], record["moving"]) == (fixed, moving)
    except (OSError, ValueError, KeyError, TypeError):
        return []
    replaced, left = [name for name in files if name in names], [name for name in files if name not in names]
    if same and left:
        return [f"of an earlier run of the same images, and left as they were: {', '.join(left)}"]
    if not same and replaced:
        said = f"{', '.join(replaced)} are of these images, and no longer of {_told(record['moving'])}"
        return [f"{said} onto {_told(record['fixed'])}; a folder for each pair keeps both"]
    return []


def _told(recorded: object) -> str:
    return ", ".join(map(str, recorded)) if isinstance(recorded, list) else str(recorded)


def planned(pair: Pair, points: str | Path | None, wanted: ExtraOutputs) -> list[str]:
    """Return the names of the files that a registration of `pair` writes; without those that only the answer knows."""
    moved = [f"moved_channel_{n + 1}.nii.gz" for n in range(1, pair.moving.data.shape[1])]
    names = ["moved.nii.gz", *moved, "fixed_to_moving.h5", "moving_to_fixed.h5", "report.html", RECORD]
    names += ["moved_labels.nii.gz"] if pair.moving_labels is not None else []
    names += [pushed_name(PUSHED, points)] if points is not None else []
    names += ["jacobian.nii.gz"] if wanted.jacobian else []
    return names + ([] if wanted.ants is None else [str(path) for path in ANTS.writes(wanted.ants)])


def names_in(folder: Path) -> list[str]:
    """Return the files in a folder and below it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_all(
    after: Alignment,
    inverse: Transform,
    folder: Path,
    like: str | Path | None,
    table: PointTable | Surface | None,
    points: str | Path | None,
    wanted: ExtraOutputs,
    pixel: tuple[float, float] | None = None,
) -> list[str]:
    """Write all outputs but the report and the record, on the grid of the fixed image; return their names.

    Points of a slide are written in pixels of the moving one, of which each is `pixel` mm.
    """
    fixed = after.pair.fixed.grid
    for channel in range(after.moved.data.shape[1]):
        name = "moved.nii.gz" if channel == 0 else f"moved_channel_{channel + 1}.nii.gz"
        write_image(Image(after.moved.data[:, channel : channel + 1], fixed), folder / name, like)
    write_transform(after.transform, folder / "fixed_to_moving.h5", on=fixed)
    write_transform(inverse, folder / "moving_to_fixed.h5")
    if after.moved_labels is not None:
        write_image(after.moved_labels, folder / "moved_labels.nii.gz", like)
    if table is not None:
        pushed = table.moved(push(table.points, after.transform))
        if pixel is not None and isinstance(pushed, PointTable):
            pushed = pushed.told_in(pixel)
        write_points(pushed, folder / pushed_name(PUSHED, points))
    if wanted.jacobian:
        write_image(Image(after.jacobian, fixed), folder / "jacobian.nii.gz", like)
    if wanted.ants is not None:
        write_ants(after.transform, folder / wanted.ants, fixed)
    for place, known in ((MAPS, after.maps), (TRANSFORMS, after.transforms)):
        if known:
            (folder / place).mkdir()
    for name, image in after.maps.items():
        write_image(image, folder / MAPS / f"{name}.nii.gz", like)
    for name, transform in after.transforms.items():
        write_transform(transform, folder / TRANSFORMS / f"{name}.h5", on=fixed)
    if after.on_the_way:
        write_way(after, folder / WAY)
    return names_in(folder)


def pushed_name(stem: str, points: str | Path | None) -> str:
    """Return the file name of pushed points, with the ending of the file that they come from."""
    long = (".surf.gii", ".mrk.json")
    return stem + next((ending for ending in long if ends(str(points), ending)), Path(str(points)).suffix)


def about_known(after: Alignment) -> list[str]:
    """Describe the maps and further transforms that are written."""
    maps = [f"{MAPS}/{name}.nii.gz: {name.replace('_', ' ')}, on the fixed grid." for name in after.maps]
    more = [f"{TRANSFORMS}/{name}.h5: {name.replace('_', ' ')}, from the fixed image on." for name in after.transforms]
    way = [f"{WAY}: the moving image through these phases, beside the fixed one, as an animation."]
    return maps + more + (way if after.on_the_way else [])


def about_points(table: PointTable | Surface | None, points: str | Path | None) -> list[str]:
    if table is None:
        return []
    name = pushed_name(PUSHED, points)
    return [f"{name}: the fixed points where they lie in the moving image, in the space of their file."]
