"""Points of two files that belong together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pullback.errors import InputError
from pullback.space import Points
from pullback.workflows.clouds import Cloud


@dataclass(frozen=True)
class Partners:
    """The indices of fixed and moving points that belong together, and whether their `names` say so, or their rows."""

    fixed: tuple[int, ...]
    moving: tuple[int, ...]
    names: bool

    def told(self, here: Cloud, there: Cloud) -> dict[str, Any]:
        """Return the entries of `run.json` about them."""
        left = [thing.points.data.shape[1] - len(self.fixed) for thing in (here, there)]
        return {"matched by": "name" if self.names else "row", "pairs": len(self.fixed), "left out": left}


def partners_of(here: Cloud, there: Cloud, least: int | None = None) -> Partners:
    """Match points by names, where both files have some, else by rows.

    Rows count too where both files name several points alike, as ANTs' tables do, whose labels are of structures.

    Args:
        least: pairs that are needed; None is one more than dimensions, as a map between points needs.

    Raises:
        InputError: as many rows as in the other file are expected, a name is given twice, or too few are in both.
    """
    one, two = here.points.name, there.points.name
    doubled = [[name for name, times in Counter(names).items() if name and times > 1] for names in (one, two)]
    if not one or not two or all(doubled):
        rows, others = (cloud.points.data.shape[1] for cloud in (here, there))
        if rows != others:
            raise InputError(
                f"{here.path}: {rows} points, but {there.path}: {others}; points without names of their own are "
                f"matched row by row, and as many in both; name them in both, in a column 'label'"
            )
        return Partners(tuple(range(rows)), tuple(range(rows)), False)
    for path, names in ((here.path, doubled[0]), (there.path, doubled[1])):
        if names:
            raise InputError(
                f"{path}: {_few(names)} is the name of more than one point; --matched points of one name belong "
                f"together: name each once, or leave the names out to match row by row"
            )
    where = {name: n for n, name in enumerate(two) if name}
    pairs = [(n, where[name]) for n, name in enumerate(one) if name in where]
    needed = here.points.data.shape[2] + 1 if least is None else least
    if len(pairs) < needed:
        raise InputError(
            f"{here.path}, {there.path}: {len(pairs)} names are in both ({_few(one)} against {_few(two)}), and "
            f"{needed} are needed; name the points alike, or leave the names out to match row by row"
        )
    return Partners(tuple(n for n, _ in pairs), tuple(n for _, n in pairs), True)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def chosen(fixed: Points, moving: Points, partners: Partners) -> tuple[Points, Points]:
    """Return the points of both clouds that have partners, partners in one row."""
    return fixed[partners.fixed], moving[partners.moving]
