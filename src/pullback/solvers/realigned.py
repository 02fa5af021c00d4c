"""Answers of realignment: a series, and where each of its frames lies."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from pullback.space import Affine, Image, Motion, Series
from pullback.stats import Stats

Shown = Callable[[Sequence[int], str], Iterable[int]]
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

    def mean(self, mode: str = "cubic", shown: Shown = unshown, what: str = "mean") -> Image:
        """Return the mean of the corrected frames; `shown` tells progress, under the name `what`."""
        corrected = self.corrected(mode)
        total = torch.zeros_like(corrected.frames[0].data, dtype=torch.float64)
        for n in shown(range(len(corrected)), what):
            total += corrected.frames[n].data
        return Image((total / len(corrected)).to(corrected.frames[0].data), corrected.grid)
