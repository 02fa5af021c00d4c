"""Image pyramids, coarse to fine."""

from collections.abc import Iterator
from dataclasses import dataclass

from pullback.alignment import Pair
from pullback.space import Grid, Image, resampled


@dataclass(frozen=True)
class Levels:
    """Voxel sizes from coarse to fine, each half the one before, for images of any size.

    An axis whose voxels are larger than a level asks for is left as it is, so that thick slices join in late.

    Attributes:
        finest: of the last level, in multiples of the fixed image's smallest voxel edge; 1 is its full resolution.
        coarsest: voxels along the longest axis that the first level keeps at least.
        most: voxels of the fixed image that the last level may have; a coarser level ends the pyramid where it has
            more.
    """

    finest: int = 1
    coarsest: int = 24
    most: int | None = None

    def of(self, grid: Grid) -> list[tuple[float, ...]]:
        """Return voxel edges in mm along the axes of `grid`, coarse to fine."""
        own = grid.spacing.tolist()
        factors = [self.finest]
        while self._voxels(grid, factors[-1])[0] // 2 >= self.coarsest:
            factors.append(2 * factors[-1])
        kept = [f for f in factors if self.most is None or self._voxels(grid, f)[1] <= self.most] or factors[-1:]
        return [tuple(max(edge, min(own) * factor) for edge in own) for factor in reversed(kept)]

    def _voxels(self, grid: Grid, factor: int) -> tuple[float, float]:
        """Return the numbers of voxels along the longest axis, and in all."""
        own = grid.spacing.tolist()
        edges = [n * edge / max(edge, min(own) * factor) for n, edge in zip(grid.shape, own, strict=True)]
        total = 1.0
        for edge in edges:
            total *= edge
        return max(edges), total

    def __call__(self, pair: Pair) -> Iterator[Pair]:
        """Yield the pair's images at each level; the moving one has voxels as large, along its own axes."""
        for spacing in self.of(pair.fixed.grid):
            yield Pair(resampled(pair.fixed, spacing), _at_most(pair.moving, min(spacing)))


def _at_most(image: Image, edge: float) -> Image:
    return resampled(image, [max(own, edge) for own in image.grid.spacing.tolist()])
