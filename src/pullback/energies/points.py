"""Distances of matched points: energies for guidance by landmarks."""

from dataclasses import dataclass

from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.errors import InputError


@dataclass(frozen=True)
class LandmarkMSE(Energy):
    """The mean squared distance in mm² of the pushed fixed points from the moving ones, of the same number each.

    A mean over points and pairs, a sum over axes: its root is the root mean square of the target registration error.
    """

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        """Return the mean as `landmark mse`, in the dtype of the fixed image.

        Raises:
            InputError: the pair lacks points on either side, or has another number of them on one than on the other.
        """
        pushed, moving, name = alignment.pushed, alignment.pair.moving_points, alignment.pair.name or "a pair"
        if pushed is None or moving is None or not pushed.data.shape[1]:
            raise InputError(
                f"{name}: LandmarkMSE needs matched points of both images, `fixed_points`, `moving_points`"
            )
        if pushed.data.shape[1] != moving.data.shape[1]:
            counts = f"{pushed.data.shape[1]} fixed and {moving.data.shape[1]} moving"
            raise InputError(f"{name}: as many fixed as moving points expected, each with its match, got {counts}")
        off = pushed.data - moving.data.to(pushed.data)
        return {"landmark mse": off.square().sum(-1).mean().to(alignment.pair.fixed.data)}
