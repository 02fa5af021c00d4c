"""Plain supervisions. That of a published method is in the method's module."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register, Registered
from pullback.energies import LNCC, Diffusion, Energy
from pullback.energies.similarity import masked_mean
from pullback.errors import InputError
from pullback.space import Affine, Dense, Grid, Labels, Transform, mean_square_distance, pull, push

TINY = 1e-12  # voxels², or mm²: the root of 0 has no slope


@dataclass(frozen=True)
class Unsupervised:
    """The supervision by an energy of the guess, by default VoxelMorph's (Balakrishnan et al. 2019, eq. 4)."""

    energy: Energy = LNCC(9) + 1.0 * Diffusion()

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        return self.energy.terms(Alignment(pair, register(pair.fixed, pair.moving).transform))


@dataclass(frozen=True, eq=False)
class LevelledAlignment(Alignment):
    """An alignment with what a network knew of it on the way, from coarse to fine.

    Attributes:
        levels: maps from the fixed to the moving world, each on a grid of its own; `transform` comes after the last.
    """

    levels: tuple[Dense, ...] = ()


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
        levels: whether the levels of a `LevelledAlignment` count as well, each at the voxels of its own grid and, by
            `"voxel"`, in these; all weigh alike.

    Raises:
        InputError: other than these, or levels at points.
    """

    power: int = 1
    unit: str = "voxel"
    at: str = "grid"
    levels: bool = False

    def __post_init__(self) -> None:
        if self.power not in (1, 2) or self.unit not in ("voxel", "mm") or self.at not in ("grid", "points"):
            raise InputError(
                f"KnownTransform: a power of 1 or 2, in 'voxel' or 'mm', at 'grid' or 'points' expected, got "
                f"{self.power}, {self.unit!r} and {self.at!r}"
            )
        if self.levels and self.at == "points":
            raise InputError("KnownTransform: levels are told at the voxels of their grids; leave at='grid'")

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the mean distance of both answers as `tre`, or their mean square as `square`.

        With levels it is the sum of all, and each stands by its number, from coarse to fine, as `tre/level 1`.

        Raises:
            InputError: the pair does not know its truth, has no points where these are asked for, or no levels.
        """
        if self.at == "points":
            return self._named(self._of_points(register, pair))
        if pair.truth is None:
            raise InputError(f"{pair.name or 'a pair'}: its true transform is not known, so nothing can be told of it")
        answer = register(pair.fixed, pair.moving)
        whole = self._over(pair.fixed.grid, answer.transform, pair.truth, pair.fixed.mask)
        if not self.levels:
            return self._named(whole)
        parts = list(self._of_levels(answer, pair, pair.truth))
        (name, total), *_ = self._named(torch.stack([whole, *parts]).sum()).items()
        return {name: total, **{f"{name}/level {n}": part for n, part in enumerate(parts, start=1)}}

    def _of_levels(self, answer: Registered, pair: Pair, truth: Transform) -> Iterator[Tensor]:
        """Yield what is told of each level, where the fixed image is seen."""
        if not isinstance(answer, LevelledAlignment):
            raise InputError(
                f"levels: the network answers with {type(answer).__name__}, which has none; leave them out"
            )
        fixed = pair.fixed
        seen = torch.ones_like(fixed.data[:, :1], dtype=torch.uint8) if fixed.mask is None else fixed.mask.byte()
        for level in answer.levels:
            within = pull(Labels(seen, fixed.grid), Affine.identity(fixed.grid.ndim), onto=level.grid).data.bool()
            yield self._over(level.grid, level, truth, within)

    def _over(self, grid: Grid, guess: Transform, truth: Transform, mask: Tensor | None) -> Tensor:
        linear = guess.as_affine, truth.as_affine
        if self.power == 2 and mask is None and linear[0] is not None and linear[1] is not None:
            return mean_square_distance(linear[0], linear[1], grid, self.unit == "voxel").mean()
        with torch.no_grad():
            known = truth.displacement(grid)
        field = guess.displacement(grid)
        off = field - known.to(field)
        return masked_mean(self._size(off if self.unit == "voxel" else grid.to_mm(off)), mask)

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
