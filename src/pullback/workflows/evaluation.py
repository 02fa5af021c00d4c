"""Evaluation of transforms on disk, whoever made them: of two files, or of a table of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError, refuse
from pullback.metrics import (
    Correlation,
    Dice,
    Folding,
    HausdorffDistance,
    InverseError,
    LandmarkError,
    Metric,
    SDLogJ,
    numbers_of,
)
from pullback.space import Affine
from pullback.training import Row
from pullback.workflows.apply import read_in_order
from pullback.workflows.clouds import Cloud, read_cloud
from pullback.workflows.inputs import ImageFiles, read_pair
from pullback.workflows.pair_table import read_pair_table
from pullback.workflows.partners import chosen, partners_of

METRICS: tuple[Metric, ...] = (
    Dice(),
    HausdorffDistance(),
    LandmarkError(),
    Correlation(),
    Folding(),
    SDLogJ(),
    InverseError(),
)
UNMOVED, MOVED = "unmoved", "transform"
SEVERAL = ";"  # between the transforms of one cell of a table


@dataclass(frozen=True)
class EvaluatedFiles:
    """The files of one pair whose transform is measured; None is what is not known.

    Attributes:
        fixed, moving: the images.
        transform: files as in `read_in_order`, in the order of `antsApplyTransforms -t`.
        inverse: those of the way back, measured against the way there.
        fixed_labels, moving_labels: of structures; both, or neither.
        fixed_points, moving_points: landmarks, which belong together by name or row; both, or neither.
        fixed_mask: where voxels count for folding, correlation and the inverse.
    """

    fixed: str
    moving: str
    transform: tuple[str, ...]
    inverse: tuple[str, ...] = ()
    fixed_labels: str | None = None
    moving_labels: str | None = None
    fixed_points: str | None = None
    moving_points: str | None = None
    fixed_mask: str | None = None

    def refuse_halves(self) -> None:
        """Refuse labels or points of one image alone.

        Raises:
            InputError: there are some.
        """
        for what in ("labels", "points"):
            one, two = (getattr(self, f"{side}_{what}") for side in ("fixed", "moving"))
            if (one is None) != (two is None):
                raise InputError(f"{one or two}: {what} of one image alone measure nothing; give those of both")


def evaluate_files(given: EvaluatedFiles, space: str | None = None) -> dict[str, Row]:
    """Measure the transform of two files: how they lie as the headers say, and through the transform.

    Args:
        space: of points, as in `read_points`.

    Returns:
        A row of numbers by `UNMOVED` and `MOVED`; which they are depends on the files.

    Raises:
        InputError: a file that cannot be read, or that does not fit the others.
    """
    given.refuse_halves()
    pair = read_pair(
        ImageFiles([given.fixed], mask=given.fixed_mask, labels=given.fixed_labels),
        ImageFiles([given.moving], labels=given.moving_labels),
    )
    transform = read_in_order(given.transform)
    ways = {given.transform: transform} | ({given.inverse: read_in_order(given.inverse)} if given.inverse else {})
    for names, way in ways.items():
        if way.ndim != pair.fixed.grid.ndim:
            raise InputError(f"{names[0]}: moves points in {way.ndim}-D, and {given.fixed} is {pair.fixed.grid.ndim}-D")
    pair = _with_points(pair, given, space)
    back = {InverseError.way: ways[given.inverse]} if given.inverse else {}
    seen = {
        UNMOVED: Alignment(pair, Affine.identity(transform.ndim)),
        MOVED: Alignment(pair, transform, transforms=back),
    }
    called = f"{pair.name} by {', '.join(given.transform)}"
    return {name: {"pair": called, **numbers_of(alignment, METRICS)} for name, alignment in seen.items()}


def _with_points(pair: Pair, given: EvaluatedFiles, space: str | None) -> Pair:
    if given.fixed_points is None or given.moving_points is None:
        refuse({"--space": space}, "is of points, and there are none")
        return pair
    here, there = (read_cloud(path, space) for path in (given.fixed_points, given.moving_points))
    for cloud in (here, there):
        _check_points(cloud, pair.fixed.grid.ndim)
    fixed, moving = chosen(here.points, there.points, partners_of(here, there, least=1))
    return replace(pair, fixed_points=fixed, moving_points=moving)


def _check_points(cloud: Cloud, ndim: int) -> None:
    if cloud.is_made:
        raise InputError(f"{cloud.path}: an image has no landmarks; a table or markups of points expected")
    if cloud.points.data.shape[2] != ndim:
        raise InputError(f"{cloud.path}: points in {cloud.points.data.shape[2]}-D, and the images are {ndim}-D")


def read_evaluated(table: str | Path) -> list[EvaluatedFiles]:
    """Read a CSV whose columns are called as the members of `EvaluatedFiles`, a row for each pair.

    Paths are relative to the table's folder; several transforms are parted by semicolons.

    Raises:
        InputError: no such file or no rows, a column that is not known or missing, an empty cell where a file is
            needed, or files that are missing, all of which are named.
    """
    path, known = Path(table), [each.name for each in fields(EvaluatedFiles)]
    rows = read_pair_table(path, known, ("fixed", "moving", "transform"))
    listed = [_row(row, path.parent) for row in rows]
    for given in listed:
        given.refuse_halves()
    absent = [str(file) for given in listed for file in _files(given) if not Path(file).exists()]
    if absent:
        few = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
        raise InputError(f"{path}: {len(absent)} of its files are missing: {few}; mend the table, or take rows out")
    return listed


def _row(row: Mapping[str, str | None], folder: Path) -> EvaluatedFiles:
    cells = {name: (cell or "").strip() for name, cell in row.items()}
    given: dict[str, Any] = {name: _placed(cell, folder) for name, cell in cells.items() if cell}
    for name in ("transform", "inverse"):
        names = [one.strip() for one in cells.get(name, "").split(SEVERAL)]
        given[name] = tuple(_placed(one, folder) for one in names if one)
    return EvaluatedFiles(**given)


def _placed(name: str, folder: Path) -> str:
    """Return a name relative to the table's folder, also within brackets."""
    return f"[{folder / name[1:]}" if name.startswith("[") else str(folder / name)


def _files(given: EvaluatedFiles) -> list[str]:
    """Return the files of a row that are named by whole paths: not those in brackets."""
    values = [getattr(given, each.name) for each in fields(given)]
    names = [name for value in values for name in (value if isinstance(value, tuple) else (value,)) if name]
    return [name for name in names if not name.startswith("[")]


def evaluate_many(
    listed: Sequence[EvaluatedFiles], console: Console | None = None, space: str | None = None
) -> dict[str, list[Row]]:
    """Measure the transforms of many pairs, as `evaluate_files` does, in order.

    Raises:
        InputError: of the first pair that cannot be measured.
    """
    results: dict[str, list[Row]] = {UNMOVED: [], MOVED: []}
    for given in track(listed, "evaluating", console=console, transient=True):
        for name, row in evaluate_files(given, space).items():
            results[name].append(row)
    return results
