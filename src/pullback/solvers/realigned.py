"""Answers of realignment: a series, and where each of its frames lies."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from pullback.space import Affine, Image, Motion, Series
from pullback.stats import Stats


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
        self, mode: str = "cubic", shown: Callable[[Sequence[int]], Iterable[int]] = lambda frames: frames
    ) -> Image:
        """Return the mean of the corrected frames; `shown` is passed their numbers, to tell progress."""
        corrected = self.corrected(mode)
        total = torch.zeros_like(corrected.frames[0].data, dtype=torch.float64)
        for n in shown(range(len(corrected))):
            total += corrected.frames[n].data
        return Image((total / len(corrected)).to(corrected.frames[0].data), corrected.grid)
