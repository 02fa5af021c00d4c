"""Maps of all sections of a stack, from matches of pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from pullback.numerics.ransac import HOMOGRAPHY, fit_matrix, projected
from pullback.numerics.synchronise import Edge, components, loops, misses, synchronised
from pullback.space import Affine, Grid, Homography, Transform

LEAST_OFF = 0.1
"""px, below which matches count as no more precise."""


@dataclass(frozen=True, eq=False)
class SectionMatch:
    """The match of two sections.

    Attributes:
        matches: keypoints of both that are each other's most alike.
        agree: those of them within the threshold of one map.
        matrix: that map, homogeneous `(3, 3)`, in RAS mm from the first section to the second; None where too few
            agree, or the map is none of a section.
        off: root of the mean squared distance of those that agree, px.
    """

    matches: int
    agree: int
    matrix: Tensor | None = None
    off: float = 0.0

    @property
    def weight(self) -> float:
        """The matches that agree by their variance: with more sections in between they scatter more, and tell less."""
        return self.agree / max(self.off, LEAST_OFF) ** 2


@dataclass(frozen=True, eq=False)
class StackSolution:
    """The maps of all sections of a stack.

    Attributes:
        matrices: `(Z, 3, 3)`, from the world of the reference to each section's, RAS mm. Of a section that matches no
            other it lies between those of its neighbours.
        reference: the section that stays where it is.
        matches: of all pairs that were compared.
        used: pairs whose maps the answer is made of.
        unmatched: sections that no chain of matches joins with the reference.
        loops: error in px of each loop of three sections, i → k against i → j → k.
        misses: distance in px between each used map and the answer.
        spacing: mm of a pixel.
    """

    matrices: Tensor
    reference: int
    matches: Mapping[Edge, SectionMatch]
    used: tuple[Edge, ...]
    unmatched: tuple[int, ...]
    loops: Mapping[tuple[int, int, int], float]
    misses: Mapping[Edge, float]
    spacing: float

    @property
    def loop_error(self) -> float | None:
        """The median error of all loops, px; None where there are none."""
        return median(self.loops.values()) if self.loops else None

    def transforms(self, model: str) -> tuple[Transform, ...]:
        """Return the maps as transforms, homographies or linear ones."""
        kind = Homography if model == HOMOGRAPHY else Affine
        return tuple(kind(matrix) for matrix in self.matrices)

    def loop_errors(self, section: int) -> list[float]:
        """Return the errors of all loops through a section, px."""
        return [error for loop, error in self.loops.items() if section in loop]

    def failures(self, names: Sequence[str]) -> list[str]:
        """Return what failed, by the names of the sections: those unmatched, and neighbours that do not match."""
        said = []
        for (i, j), match in self.matches.items():
            if match.matrix is None and j == i + 1:
                agree = f"{match.agree} of {match.matches} matches agree"
                told = agree if match.matches else "no keypoints are alike"
                said.append(f"{names[j]} does not match {names[i]} ({told})")
        if self.unmatched:
            which = ", ".join(names[n] for n in self.unmatched)
            said.append(f"no chain of matches joins {which} with {names[self.reference]}")
        return said


def solved(
    matches: Mapping[Edge, SectionMatch],
    grids: Sequence[Grid],
    model: str,
    threshold: float,
    least: int,
    reference: int | None = None,
) -> StackSolution:
    """Return the maps of all sections by those of pairs.

    Args:
        matches: of pairs i < j.
        grids: of the sections.
        model: one of `MODELS`.
        threshold: px, at which a map of a pair begins to count less.
        least: matches that must agree of sections that are no neighbours: weaker maps would do harm, and are taken
            only where nothing else joins two parts of the stack.
        reference: the section that stays; None takes the middle one of the largest part that matches.
    """
    count = len(grids)
    known = {
        edge: match.matrix
        for edge, match in matches.items()
        if match.matrix is not None and (edge[1] == edge[0] + 1 or match.agree >= least)
    }
    parts = components(known, count)
    weak = {edge: match.matrix for edge, match in matches.items() if match.matrix is not None}
    known |= {(i, j): matrix for (i, j), matrix in weak.items() if parts[i] != parts[j]}
    parts = components(known, count)
    chosen = _middle(parts) if reference is None else reference
    kept = [n for n in range(count) if parts[n] == parts[chosen]]
    place = {n: m for m, n in enumerate(kept)}
    maps = {(place[i], place[j]): matrix for (i, j), matrix in known.items() if i in place}
    unit = float(grids[chosen].spacing.mean())
    corners = _corners(grids[chosen])
    if maps:
        weights = {(place[i], place[j]): matches[i, j].weight for i, j in known if i in place}
        found = synchronised(maps, len(kept), model, corners, place[chosen], threshold * unit, weights)
    else:
        found = torch.eye(3, dtype=torch.float64)[None]
    off = {(kept[i], kept[j]): error / unit for (i, j), error in misses(found, maps, corners).items()} if maps else {}
    return StackSolution(
        matrices=_between(dict(zip(kept, found, strict=True)), count, model, corners),
        reference=chosen,
        matches=matches,
        used=tuple(off),
        unmatched=tuple(n for n in range(count) if n not in place),
        loops={loop: error / unit for loop, error in loops(known, corners).items()},
        misses=off,
        spacing=unit,
    )


def _middle(parts: Sequence[int]) -> int:
    """Return the member of the largest part that is nearest to the middle of all."""
    largest = max(dict.fromkeys(parts), key=parts.count)
    middle = (len(parts) - 1) / 2
    return min((n for n, part in enumerate(parts) if part == largest), key=lambda n: abs(n - middle))


def _corners(grid: Grid) -> Tensor:
    """Return the corners of a section, `(4, 2)` RAS mm."""
    ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in grid.shape]
    return grid.to_world(torch.cartesian_prod(*ends).mT[None])[0].mT


def _between(found: Mapping[int, Tensor], count: int, model: str, corners: Tensor) -> Tensor:
    """Return the maps of all, those that are not known between those of the nearest sections below and above."""
    out = []
    for n in range(count):
        if n in found:
            out.append(found[n])
            continue
        before, after = [m for m in found if m < n], [m for m in found if m > n]
        if not before or not after:
            out.append(found[max(before) if before else min(after)])
            continue
        below, above = max(before), min(after)
        share = (n - below) / (above - below)
        there = (1 - share) * projected(found[below], corners) + share * projected(found[above], corners)
        out.append(fit_matrix(corners, there, model))
    return torch.stack(out)
