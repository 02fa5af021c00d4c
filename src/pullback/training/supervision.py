"""Plain supervisions. That of a published method is in the method's module."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy
from pullback.energies.similarity import masked_mean
from pullback.errors import InputError
from pullback.space import mean_square_distance, push

TINY = 1e-12  # voxels², or mm²: the root of 0 has no slope


@dataclass(frozen=True)
class Unsupervised:
    """The supervision by an energy of the guess, by default VoxelMorph's (Balakrishnan et al. 2019, eq. 4)."""

    energy: Energy = LNCC(9) + 1.0 * Diffusion()

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        return self.energy.terms(Alignment(pair, register(pair.fixed, pair.moving).transform))


@dataclass(frozen=True)
class KnownTransform:
    """The supervision by a pair's known truth: the mean distance between where it and the guess lead points.

    By default it is in voxels of the fixed grid, over voxels within the fixed image's mask, where it has one; 0 where
    that is empty. In mm it is the transformed grid distance (Song et al. 2022), one unit for turns and shifts.

    Attributes:
        power: of the distances: 1, or 2 for their mean square, which is in closed form where both maps are linear and
            nothing is masked.
        unit: `"voxel"` of the fixed grid, or `"mm"`.
        at: `"grid"`, or `"points"`: the pair's fixed points, against its moving points where it has any, else where
            the truth leads them.

    Raises:
        InputError: other than these.
    """

    power: int = 1
    unit: str = "voxel"
    at: str = "grid"

    def __post_init__(self) -> None:
        if self.power not in (1, 2) or self.unit not in ("voxel", "mm") or self.at not in ("grid", "points"):
            raise InputError(
                f"KnownTransform: a power of 1 or 2, in 'voxel' or 'mm', at 'grid' or 'points' expected, got "
                f"{self.power}, {self.unit!r} and {self.at!r}"
            )

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the mean distance of both answers as `tre`, or their mean square as `square`.

        Raises:
            InputError: the pair does not know its truth, or has no points where these are asked for.
        """
        if self.at == "points":
            return self._named(self._of_points(register, pair))
        if pair.truth is None:
            raise InputError(f"{pair.name or 'a pair'}: its true transform is not known, so nothing can be told of it")
        guess, grid = register(pair.fixed, pair.moving).transform, pair.fixed.grid
        linear = guess.as_affine, pair.truth.as_affine
        if self.power == 2 and pair.fixed.mask is None and linear[0] is not None and linear[1] is not None:
            return self._named(mean_square_distance(linear[0], linear[1], grid, self.unit == "voxel").mean())
        with torch.no_grad():
            truth = pair.truth.displacement(grid)
        field = guess.displacement(grid)
        off = field - truth.to(field)
        return self._named(masked_mean(self._size(off if self.unit == "voxel" else grid.to_mm(off)), pair.fixed.mask))

    def _of_points(self, register: Register, pair: Pair) -> Tensor:
        here, there = pair.fixed_points, pair.moving_points
        if here is None or not here.data.shape[1] or (there is None and pair.truth is None):
            raise InputError(
                f"{pair.name or 'a pair'}: fixed points with their moving ones, or a known truth, are expected; learn "
                f"at 'grid', or give the data points"
            )
        if there is None and pair.truth is not None:
            there = push(here, pair.truth)
        assert there is not None
        guess = register(pair.fixed, pair.moving).transform.at(here.data.mT)
        off = guess - there.data.mT.detach().to(guess)
        return self._size(off if self.unit == "mm" else pair.fixed.grid.from_mm(off)).mean()

    def _size(self, off: Tensor) -> Tensor:
        """Return lengths of vectors `(B, d, …)`, or their squares, `(B, 1, …)`."""
        square = off.square().sum(1, keepdim=True)
        return square if self.power == 2 else square.clamp(min=TINY).sqrt()

    def _named(self, loss: Tensor) -> dict[str, Tensor]:
        return {"tre" if self.power == 1 else "square": loss}
