"""The error of what an answer says of a series' images between its ends."""

from dataclasses import dataclass
from typing import ClassVar

from pullback.alignment import Alignment
from pullback.metrics.metric import of_one
from pullback.space import pull


@dataclass(frozen=True)
class BetweenError:
    """The mean distance in mm between where phases of an answer and the true ones send points.

    It is a mean over the images between, and of each over the places that the truth leads to a moving label; without
    labels, over all.
    """

    name: ClassVar[str] = "between mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, known = alignment.pair, alignment.pair.between
        if known is None or not known.truths or len(alignment.on_the_way) != len(known):
            return {}
        grid, away = pair.fixed.grid, []
        for phase, truth in zip(alignment.on_the_way, known.truths, strict=True):
            found, true = (each.displacement(grid).to(pair.fixed.data.device).double() for each in (phase, truth))
            mm = grid.to_mm(found - true).norm(dim=1, keepdim=True)
            labels = pair.moving_labels and pull(pair.moving_labels, truth, onto=grid)
            away.append(float((mm if labels is None else mm[labels.data > 0]).mean()))
        return {self.name: sum(away) / len(away)}
