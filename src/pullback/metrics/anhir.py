"""The landmarks' error of the ANHIR challenge.

Borovec et al., ANHIR: Automatic Non-rigid Histological Image Registration Challenge, IEEE TMI 2020, section IV.
"""

from dataclasses import dataclass
from typing import ClassVar

from pullback.alignment import Alignment
from pullback.metrics.metric import farthest, of_one


@dataclass(frozen=True)
class RelativeTRE:
    """The distances between moving landmarks, carried to the fixed image, and the fixed ones, by its diagonal.

    Landmarks travel as the challenge has them, from its source to its target: by the inverse of the transform. `rtre`
    is their median over the pair, beside the `rtre max`, the `median tre mm`, and the `robustness`, the share of
    landmarks that lie nearer than before, as the headers have them.
    """

    name: ClassVar[str] = "rtre"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        here, there = alignment.pair.fixed_points, alignment.pair.moving_points
        if here is None or there is None or not here.data.shape[1]:
            return {}
        fixed, moving = here.data.double(), there.data.double()
        before = (moving - fixed).norm(dim=-1)[0]
        after = (alignment.inverse(moving) - fixed).norm(dim=-1)[0]
        diagonal, median = farthest(alignment.pair.fixed.grid), float(after.quantile(0.5))
        return {
            "rtre": median / diagonal,
            "rtre max": float(after.max()) / diagonal,
            "median tre mm": median,
            "robustness": float((after < before).double().mean()),
        }
