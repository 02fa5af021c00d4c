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
    ones alone; tissue is continuous, so a field that is right for some tiles is right for those between them too. If
    one of the two makes tiles no more alike that it did not see, texture was followed, and the start stays.

    Attributes:
        stage: what deforms.
        similarity: by which tiles are alike.
        tiles: along the longest axis.
        gap: share of a tile's edge, on each side, that is neither seen nor judged, so that what lies on the border of
            two tiles counts for neither.
    """

    stage: DeformableStage = DeformableStage()
    similarity: Energy = LNCC(17, noise=0.1)
    tiles: int = 8
    gap: float = 0.2

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving; each pair of a batch by itself.

        The stats' numbers have what tiles gained that were not seen, `"held-out gain"`, of the half that gained less;
        at 0 or below, the start stays.
        """
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        begin = start or Affine.identity(fixed.grid.ndim)
        black, inner = (each.to(fixed.data.device) for each in board(fixed.grid, self.tiles, self.gap))
        pairs = ((black, inner & ~black), (~black, inner & black))
        gain = min(self._gain(fixed, moving, begin, seen, judged) for seen, judged in pairs)
        told = Stats(numbers={GAIN: gain})
        if not gain > 0:
            return Alignment(Pair(fixed, moving), begin, stats=Stats(start=start).then(told))
        found = self.stage(fixed, moving, start)
        return replace(found, stats=(found.stats or Stats(start=start)).then(told))

    def _gain(self, fixed: Image, moving: Image, begin: Transform, seen: Tensor, judged: Tensor) -> float:
        """Return by how much a field that was found where `seen` makes what is `judged` more alike than the start."""
        every = torch.ones_like(seen) if fixed.mask is None else fixed.mask
        if not (every & seen).any() or not (every & judged).any():
            return 0.0
        found = self.stage(replace(fixed, mask=every & seen), moving, begin).transform
        *_, level = self.stage.levels(Pair(replace(fixed, mask=every & judged), moving))
        with torch.no_grad():
            was, now = (float(self.similarity(Alignment(level, each))) for each in (begin, found))
        return was - now


def board(grid: Grid, tiles: int, gap: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return every other tile of a grid, and the inside of each tile, both `(1, 1, *grid.shape)` bool.

    There are `tiles` along its longest axis; their insides end `gap` of an edge before they do.
    """
    edge = max(1, -(-max(grid.shape) // tiles))
    margin = int(gap * edge)
    number, inside = torch.zeros(grid.shape, dtype=torch.long), torch.ones(grid.shape, dtype=torch.bool)
    for axis, count in enumerate(grid.shape):
        at, view = torch.arange(count), [-1 if n == axis else 1 for n in range(grid.ndim)]
        number = number + (at // edge).view(view)
        inside = inside & ((at % edge >= margin) & (at % edge < edge - margin)).view(view)
    return (number % 2 == 0)[None, None], inside[None, None]
