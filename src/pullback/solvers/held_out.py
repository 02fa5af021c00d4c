"""A deformable stage that has to prove itself on tiles that it did not see."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import LNCC, Energy
from pullback.solvers.deformable_stage import DeformableStage
from pullback.space import Affine, Grid, Image, Transform
from pullback.stats import Stats

GAIN = "held-out gain"


@dataclass(frozen=True)
class HeldOut:
    """A deformable stage whose answer is taken only where it generalises, as cross-validation tells.

    The fixed image is a board of tiles, black and white. A field is found by the black ones alone, and by the white
    ones alone; tissue is continuous, so a field that is right for some tiles is right for those beside them too. If
    both together make tiles no more alike that they did not see, texture was followed, and the start stays. Tiles
    border on each other, and what reaches across a border counts: this refuses harm, and does not prove use.

    Attributes:
        stage: what deforms.
        similarity: by which tiles are alike.
        tiles: along the longest axis.
    """

    stage: DeformableStage = DeformableStage()
    similarity: Energy = LNCC(17, noise=0.1)
    tiles: int = 16

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving; each pair of a batch by itself.

        The stats' numbers have what tiles gained that were not seen, `"held-out gain"`; at 0 or below, the start stays.
        """
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        begin = start or Affine.identity(fixed.grid.ndim)
        black = board(fixed.grid, self.tiles).to(fixed.data.device)
        gain = (self._gain(fixed, moving, begin, black) + self._gain(fixed, moving, begin, ~black)) / 2
        told = Stats(numbers={GAIN: gain})
        if not gain > 0:
            return Alignment(Pair(fixed, moving), begin, stats=Stats(start=start).then(told))
        found = self.stage(fixed, moving, start)
        return replace(found, stats=(found.stats or Stats(start=start)).then(told))

    def _gain(self, fixed: Image, moving: Image, begin: Transform, seen: Tensor) -> float:
        """Return by how much a field that was found on `seen` makes the rest more alike than the start does."""
        every = torch.ones_like(seen) if fixed.mask is None else fixed.mask
        if not (every & seen).any() or not (every & ~seen).any():
            return 0.0
        found = self.stage(replace(fixed, mask=every & seen), moving, begin).transform
        *_, level = self.stage.levels(Pair(replace(fixed, mask=every & ~seen), moving))
        with torch.no_grad():
            was, now = (float(self.similarity(Alignment(level, each))) for each in (begin, found))
        return was - now


def board(grid: Grid, tiles: int) -> Tensor:
    """Return every other tile of a grid, `(1, 1, *grid.shape)` bool; there are `tiles` along its longest axis."""
    edge = max(1, -(-max(grid.shape) // tiles))
    number = torch.zeros(grid.shape, dtype=torch.long)
    for axis, count in enumerate(grid.shape):
        number = number + (torch.arange(count) // edge).view([-1 if n == axis else 1 for n in range(grid.ndim)])
    return (number % 2 == 0)[None, None]
