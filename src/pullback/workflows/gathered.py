"""People to be told apart by type: their label maps, connections and what a table says of them, read from a folder."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from pullback.data import FileCase, Learn2Reg, PairFolder
from pullback.data.pattern import Pattern, said, some
from pullback.data.people import IMAGES, person_in, read_table
from pullback.errors import InputError, refuse
from pullback.files import read_labels
from pullback.files.points.vertices import is_vertex_labels, read_connections, read_vertex_labels
from pullback.methods.group.onto_template import laid_on_centroids, on_one_grid
from pullback.records.csv_records import as_number
from pullback.space import Image, Labels
from pullback.study.recipe import changed

ShownCases = Callable[[Iterable[FileCase]], Iterable[FileCase]]
UNKNOWN = ("", "n/a", "NA", "nan")


@dataclass(frozen=True)
class Asked:
    """The inputs of a search for types.

    Attributes:
        data: the folder.
        settings: of the data set, by `data.…`, as `PairFolder` takes them.
        labels: pattern of label maps, of volumes or vertices, where images are not needed; None takes the data set's.
        connections: pattern of tables of connections.
        people: a table of people, whose first known column names them.
        mask: where to look: a volume, or labels of vertices; not 0.
        rows: regions whose connections count; none for all.
        background: voxels count where nobody has a label, too.
        centred: the centroids of all labels are laid on each other.
    """

    data: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    connections: str | None = None
    people: Path | None = None
    mask: Path | None = None
    rows: Sequence[str] = ()
    background: bool = False
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Gathered:
    """People with their partitions.

    Attributes:
        names: of the people.
        labels: of one shape.
        maps: the same where they lie on grids; none of vertices.
        stored: label maps as they were read, before they were centred; none of vertices.
        images: where the data set has them.
        matrices, regions: connections and the names of their rows; none without.
        about: what tables say of each.
        within: where to look, or None.
        notes: what a person should know.
    """

    names: Sequence[str]
    labels: Sequence[Tensor]
    maps: Sequence[Labels] = ()
    stored: Sequence[Labels] = ()
    images: Sequence[Image] = ()
    matrices: Sequence[Tensor] = ()
    regions: Sequence[Sequence[str]] = ()
    about: Sequence[Mapping[str, float | str]] = ()
    within: Tensor | None = None
    notes: Sequence[str] = ()


def gather(asked: Asked, shown: ShownCases = iter) -> Gathered:
    """Read everybody.

    Raises:
        InputError: fewer than three people with labels, maps on several grids, or files that cannot be read.
    """
    if asked.rows:
        refuse({"--rows": None if asked.connections else asked.rows}, "is of --connections, and there are none")
    found = _of_pattern(asked) if asked.labels else _of_data(asked, shown)
    if len(found.names) < 3:
        raise InputError(f"{asked.data}: {len(found.names)} people with labels; three or more are needed")
    found = _on_one_grid(found, asked)
    if asked.connections:
        found = _connected(found, asked)
    if asked.people is not None:
        found = _told(found, asked.people)
    return found


def _of_pattern(asked: Asked) -> Gathered:
    """Read label maps by their names alone."""
    refuse({f"--set {key}": key for key in asked.settings}, "is of images, and --labels names label maps alone")
    paths = Pattern(asked.labels or "").files(asked.data)
    names = [said(values) for values in paths]
    vertices = [is_vertex_labels(path) for path in paths.values()]
    if any(vertices) and not all(vertices):
        raise InputError(f"{asked.labels!r} matches volumes and vertices; narrow it to one of them")
    if vertices and all(vertices):
        return Gathered(names, [read_vertex_labels(path)[0] for path in paths.values()], about=[{} for _ in names])
    maps = [read_labels(path) for path in paths.values()]
    return Gathered(names, [], maps, maps, about=[{} for _ in names])


def _of_data(asked: Asked, shown: ShownCases) -> Gathered:
    """Read the images of a data set that have labels."""
    listed = [path for path in asked.data.glob("*_dataset.json") if not path.name.startswith(".")]
    root = str(asked.data)
    kind: PairFolder | Learn2Reg = Learn2Reg(root) if listed and not asked.settings else PairFolder(root)
    data = changed(kind, {key.removeprefix("data."): value for key, value in asked.settings.items()})
    cases = [case for case in data.cases if case.labels is not None]
    if not cases:
        raise InputError(
            f'{root}: no image has labels; say where they are: --set "data.labels=*_dseg.nii.gz", or --labels'
        )
    without = [case.name for case in data.cases if case.labels is None]
    notes = [f"left out, without labels: {some(without)}"] if without else []
    subjects = [case.load() for case in shown(cases)]
    maps = [each.labels for each in subjects if each.labels is not None]
    about = [each.about for each in subjects]
    images = [each.image for each in subjects]
    return Gathered([case.name for case in cases], [], maps, maps, images, about=about, notes=notes)


def _on_one_grid(found: Gathered, asked: Asked) -> Gathered:
    """Return people whose label maps lie on one grid, without those who have none, with the mask."""
    flat = [each.data for each in found.maps] if found.maps else found.labels
    empty = [n for n, each in enumerate(flat) if not each.any()]
    if empty:
        found = _without(found, empty, "no label above 0")
    if asked.centred and not found.maps:
        raise InputError("--centred: is of images; vertices of one sphere lie on each other")
    if asked.centred:
        found = replace(found, maps=laid_on_centroids(found.maps))
    elif found.maps and not on_one_grid(found.maps):
        grids = sorted({str(each.grid.shape) for each in found.maps})
        raise InputError(
            f"{asked.data}: label maps lie on {len(grids)} grids or more, such as {some(grids)}; lay their centroids "
            f"on each other by --centred, or bring them onto one grid by `pullback prepare`"
        )
    if found.maps:
        found = replace(found, labels=[each.data[0, 0] for each in found.maps])
    if asked.mask is None:
        return found
    if found.maps:
        return replace(found, within=read_labels(asked.mask, on=found.maps[0].grid, what="mask").data[0, 0] > 0)
    return replace(found, within=read_vertex_labels(asked.mask)[0] > 0)


def _connected(found: Gathered, asked: Asked) -> Gathered:
    """Return people with their connections, without those who have none."""
    paths = {said(values): path for values, path in Pattern(asked.connections or "").files(asked.data).items()}
    missing = [n for n, name in enumerate(found.names) if name not in paths]
    if len(missing) == len(found.names):
        raise InputError(f"{asked.connections!r} matches connections of {some(paths)}, and labels {some(found.names)}")
    found = _without(found, missing, "no connections")
    tables = [read_connections(paths[name]) for name in found.names]
    return replace(found, matrices=[table for table, _ in tables], regions=[names for _, names in tables])


def _told(found: Gathered, path: Path) -> Gathered:
    """Return people with what a table says of them."""
    own = told_of(found.names, path)
    strangers = [name for name, row in zip(found.names, own, strict=True) if not row]
    notes = [*found.notes, *([f"not in {path.name}: {some(strangers)}"] if strangers else [])]
    about = [{**before, **row} for before, row in zip(found.about, own, strict=True)]
    return replace(found, about=about, notes=notes)


def told_of(names: Sequence[str], path: Path) -> list[Mapping[str, float | str]]:
    """Return what a table says of each image, by its name or its person's; {} where it has no such row.

    Raises:
        InputError: the table cannot be read, has no column of names, or names nobody of them.
    """
    rows = read_table(path)
    column = next((name for name in IMAGES if rows and name in rows[0]), None)
    if column is None:
        raise InputError(f"{path}: a table with a column {', '.join(IMAGES)} expected, one line for each person")
    listed: dict[str, Mapping[str, float | str]] = {
        row[column].removeprefix("sub-"): {
            key: as_number(value) for key, value in row.items() if key != column and value not in UNKNOWN
        }
        for row in rows
    }
    keys = [(name.removeprefix("sub-"), person_in(name)) for name in names]
    own = [next((listed[key] for key in both if key in listed), {}) for both in keys]
    if not any(own):
        raise InputError(f"{path}: names {some(listed)}, and none of {some(names)}")
    return own


def _without(found: Gathered, who: Sequence[int], why: str) -> Gathered:
    """Return the people but some, who are named."""
    if not who:
        return found
    kept = [n for n in range(len(found.names)) if n not in set(who)]

    def some_of(values: Sequence) -> list:
        return [values[n] for n in kept] if values else []

    return replace(
        found,
        names=some_of(found.names),
        labels=some_of(found.labels),
        maps=some_of(found.maps),
        stored=some_of(found.stored),
        images=some_of(found.images),
        about=some_of(found.about),
        notes=[*found.notes, f"left out, {why}: {some([found.names[n] for n in who])}"],
    )
