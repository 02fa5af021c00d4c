"""Overlap of what an alignment's map marks with a lesion that is known."""

from dataclasses import dataclass
from typing import ClassVar

from pullback.alignment import Alignment
from pullback.metrics.metric import foreground, of_one


@dataclass(frozen=True)
class LesionDice:
    """The overlap 2|A∩B| / (|A|+|B|) of what a map marks, where it is above ½, and the pair's known lesion.

    Beside it stands what the map marks of the foreground, in %, and its mean there, which are told without a known
    lesion, too. Where the alignment has no such map there is no answer.

    Attributes:
        map: its name.
    """

    map: str = "non_correspondence"
    name: ClassVar[str] = "lesion dice"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        if self.map not in alignment.maps:
            return {}
        share, lesion = alignment.maps[self.map].data[:, :1], alignment.pair.lesion
        marked, inside = share > 0.5, foreground(alignment)
        voxels = max(int(inside.sum()), 1)
        numbers = {
            "marked %": 100 * int((marked & inside).sum()) / voxels,
            "mean of map": float(share[inside].mean()) if inside.any() else 0.0,
        }
        if lesion is None or not lesion.data.any():
            return numbers
        true = lesion.data != 0
        return {self.name: 2 * int((marked & true).sum()) / (int(marked.sum()) + int(true.sum())), **numbers}
