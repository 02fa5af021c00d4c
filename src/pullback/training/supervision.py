"""Plain supervisions. That of a published method is in the method's module."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy
from pullback.energies.similarity import masked_mean

TINY = 1e-12  # voxels²: the root of 0 has no slope


@dataclass(frozen=True)
class Unsupervised:
    """The supervision by an energy of the guess, by default VoxelMorph's (Balakrishnan et al. 2019, eq. 4)."""

    energy: Energy = LNCC(9) + 1.0 * Diffusion()

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        return self.energy.terms(Alignment(pair, register(pair.fixed, pair.moving).transform))


@dataclass(frozen=True)
class KnownTransform:
    """The supervision by a pair's known truth: the mean distance between where it and the guess lead points.

    It is in voxels of the fixed grid, over voxels within the fixed image's mask, where it has one; 0 where that is
    empty.
    """

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the mean distance of both answers over the points of the fixed grid, as `tre`.

        Raises:
            ValueError: the pair does not know its truth.
        """
        if pair.truth is None:
            raise ValueError(f"{pair.name or 'a pair'}: its true transform is not known, so nothing can be told of it")
        grid = pair.fixed.grid
        with torch.no_grad():
            truth = pair.truth.displacement(grid)
        guess = register(pair.fixed, pair.moving).transform.displacement(grid)
        off = (guess - truth.to(guess)).square().sum(1, keepdim=True).clamp(min=TINY).sqrt()
        return {"tre": masked_mean(off, pair.fixed.mask)}
