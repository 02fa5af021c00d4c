"""Answers of realignment: a series, and where each of its frames lies."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from pullback.space import Affine, Image, Motion, Series, pull
from pullback.stats import Stats

SEEN = 1e-3
"""Frames that must have measured a voxel, which is 0 where fewer have."""
FramesShown = Callable[[Sequence[int], str], Iterable[int]]
"""A way to show progress over numbers of frames, which are passed on one by one; it is told what is done."""


def unshown(frames: Sequence[int], what: str) -> Iterable[int]:
    """Return numbers of frames as they are."""
    return frames


@dataclass(frozen=True, eq=False)
class Realigned:
    """A series and the motions of its frames.

    Attributes:
        series: the frames as they were.
        motion: T rigid maps, from each frame's world to the one that all share; turns are about its centre.
        stats: how they were found.
    """

    series: Series
    motion: Motion
    stats: Stats = field(default_factory=Stats)

    @property
    def transforms(self) -> Affine:
        """The T maps from the shared world to each frame's, through which frames are pulled: fixed → moving."""
        return Affine(torch.linalg.inv(self.motion.matrix))

    def corrected(self, mode: str = "cubic") -> Series:
        """Return the series whose frames are where the shared world has them, each resampled once, when asked for."""
        every = self.transforms
        return self.series.pulled([every.nth(n) for n in range(len(self.series))], mode)

    def mean(
        self, mode: str = "cubic", shown: FramesShown = unshown, what: str = "mean", standardised: bool = False
    ) -> Image:
        """Return the mean of the corrected frames, at each voxel of those that were measured there.

        Args:
            mode: of interpolation.
            shown: tells progress, under the name `what`.
            what: is told.
            standardised: whether each frame is first brought to mean 0 and deviation 1, so that all weigh alike.
        """
        first, every = self.series.frames[0], self.transforms
        total = torch.zeros(1, 2, *first.grid.shape, dtype=torch.float64, device=first.data.device)
        for n in shown(range(len(self.series)), what):
            frame = self.series.frames[n]
            data = frame.data
            if standardised:
                data = (data - data.mean()) / data.std().clamp(min=torch.finfo(data.dtype).tiny)
            seen = replace(frame, data=torch.cat([data, torch.ones_like(data)], 1))
            total += pull(seen, every.nth(n), onto=first.grid, mode=mode, outside=0.0).data
        return Image((total[:, :1] / total[:, 1:].clamp(min=SEEN)).to(first.data), first.grid)
