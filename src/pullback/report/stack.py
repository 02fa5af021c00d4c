"""The page of an aligned stack: cuts through it before and after, and how its sections match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pullback.records.atomic import atomic_write
from pullback.report.page import write_page
from pullback.report.pictures import grey, png

LONGEST, TALLEST = 900, 320  # px of a picture of a cut
GAP = 6  # px between two pictures
PICTURE = "stack.png"


@dataclass(frozen=True, eq=False)
class SectionView:
    """A section as it lies in the common plane.

    Attributes:
        across, down: its middle row and column there, NaN beyond it.
        small: `(x, y)`, in few pixels.
        inside: `(x, y)` bool, where that is of the section.
    """

    across: np.ndarray
    down: np.ndarray
    small: np.ndarray
    inside: np.ndarray

    def correlation(self, other: "SectionView") -> float:
        """Return the correlation with another section where both are; NaN where that is nowhere, or nothing varies."""
        both = self.inside & other.inside
        if both.sum() < 2:
            return float("nan")
        a, b = self.small[both].astype(float), other.small[both].astype(float)
        a, b = a - a.mean(), b - b.mean()
        size = float(np.sqrt((a * a).sum() * (b * b).sum()))
        return float((a * b).sum() / size) if size > 0 else float("nan")


class Solution(Protocol):
    """The maps, as far as the page tells of them."""

    @property
    def loop_error(self) -> float | None:
        """The median error of loops, px."""
        ...

    def failures(self, names: Sequence[str]) -> list[str]:
        """Return what failed, by the names of the sections."""
        ...


@dataclass(frozen=True, eq=False)
class StackPage:
    """The content of the page.

    Attributes:
        names: of the sections.
        found: their maps.
        rows: of the table of sections.
        views: of each section, before and after.
        neighbours: means over neighbours, before and after, by name.
        step: px from one section to the next.
    """

    names: Sequence[str]
    found: Solution
    rows: Sequence[Mapping[str, object]]
    views: Sequence[tuple[SectionView, SectionView]]
    neighbours: Mapping[str, tuple[float, float]]
    step: float


def write_stack_page(page: StackPage, path: Path) -> None:
    """Write the page, and beside it `stack.png`, a cut before above the same cut after."""
    window = _window([after.small[after.inside] for _, after in page.views])
    cuts = []
    for name, line in (("x and z", "across"), ("y and z", "down")):
        pictures = [_cut([getattr(both[when], line) for both in page.views], page.step, window) for when in (0, 1)]
        cuts.append({"name": name, "before": png(pictures[0]), "after": png(pictures[1])})
        if line == "across":
            _write_picture(pictures, path.with_name(PICTURE))
    facts = [f"{len(page.names)} sections"]
    if page.found.loop_error is not None:
        facts.append(f"loop error {page.found.loop_error:.2f} px (median over all triples of sections)")
    facts += [f"{name} of neighbours: {a:.2f} before, {b:.2f} after" for name, (a, b) in page.neighbours.items()]
    failures = page.found.failures(page.names)
    write_page(path, "stack", title="An aligned stack", facts=facts, failures=failures, cuts=cuts, rows=page.rows)


def _window(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the intensities that are shown as black and white."""
    every = np.concatenate([each.ravel() for each in values])
    if not every.size:
        return 0.0, 1.0
    low, high = (float(each) for each in np.percentile(every, (0.5, 99.5)))
    return low, max(high, low + 1e-12)


def _cut(lines: Sequence[np.ndarray], step: float, window: tuple[float, float]) -> np.ndarray:
    """Return a cut through the stack, `(rows, columns)` uint8, a section a row, as thick as sections lie apart.

    Of a long cut every so many-th pixel is shown; few thin sections are drawn thicker, all alike.
    """
    every = np.stack(lines)
    skip = max(1, -(-every.shape[1] // LONGEST))
    seen = grey(np.nan_to_num((every[:, ::skip] - window[0]) / (window[1] - window[0])))
    thick = max(1, round(step / skip), min(8, TALLEST // len(lines)))
    return seen.repeat(thick, 0)


def _write_picture(pictures: Sequence[np.ndarray], path: Path) -> None:
    from PIL import Image as Picture  # noqa: PLC0415 (slow to import; comes with matplotlib)

    gap = np.full((GAP, pictures[0].shape[1]), 255, np.uint8)
    with atomic_write(path) as temporary:
        Picture.fromarray(np.concatenate([pictures[0], gap, pictures[1]])).save(temporary, "PNG", optimize=True)
