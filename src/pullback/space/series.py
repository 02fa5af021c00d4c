"""Series: frames of one place, with their times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, overload

import torch
from torch import Tensor

from pullback.space.grid import Grid
from pullback.space.image import Image
from pullback.space.pull import pull
from pullback.space.short_repr import short_repr
from pullback.space.transform import Transform


@dataclass(frozen=True, eq=False)
class Series:
    """Frames on one grid, in their order: a film, a breath, the volumes of a functional or diffusion scan.

    Attributes:
        frames: T images `(1, C, *grid.shape)`. Those of a file are read when they are asked for, one at a time.
        grid: where the voxels of each are.
        times: `(T,)` float64, in `unit`.
        unit: of the times: s, ms, us, or for other axes than time Hz, ppm, rad/s; empty where nobody says.
        truths: where known, the true transform of each frame, from its world to the one that all are told against.

    Raises:
        ValueError: no frames, or not as many times, or another number of truths than of frames or none.
    """

    frames: Sequence[Image]
    grid: Grid
    times: Tensor
    unit: str = "s"
    truths: tuple[Transform, ...] = ()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if len(self.frames) == 0 or tuple(self.times.shape) != (len(self.frames),):
            raise ValueError(
                f"Series: one time for each of 1 frame or more expected, got {tuple(self.times.shape)} for "
                f"{len(self.frames)} frames"
            )
        if len(self.truths) not in (0, len(self.frames)):
            raise ValueError(f"Series: a truth for each of {len(self.frames)} frames or none, got {len(self.truths)}")

    @classmethod
    def of(cls, image: Image, times: Tensor, unit: str = "s") -> Self:
        """Return a series whose frames are the images `(T, C, …)` of a batch."""
        count, mask = len(image.data), image.mask
        masks = [None] * count if mask is None else mask.expand(count, *mask.shape[1:]).split(1)
        frames = [replace(image, data=data, mask=seen) for data, seen in zip(image.data.split(1), masks, strict=True)]
        return cls(tuple(frames), image.grid, times, unit)

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Image]:
        return iter(self.frames)

    @property
    def image(self) -> Image:
        """All frames as one batch, `(T, C, …)`."""
        frames = tuple(self.frames)
        masks = [frame.mask for frame in frames if frame.mask is not None]
        return Image(torch.cat([frame.data for frame in frames]), self.grid, torch.cat(masks) if masks else None)

    def pulled(self, transforms: Sequence[Transform], mode: str = "linear") -> Self:
        """Return the series whose frames are seen through a transform each, by `mode`, when they are asked for.

        Raises:
            ValueError: not a transform for each frame.
        """
        if len(transforms) != len(self.frames):
            raise ValueError(f"a transform for each of {len(self)} frames expected, got {len(transforms)}")
        return replace(self, frames=PulledFrames(self.frames, tuple(transforms), mode), truths=())

    def to(self, device: torch.device) -> Self:
        """Return the series with all frames read and on `device`."""
        frames = tuple(frame.to(device) for frame in self.frames)
        return replace(self, frames=frames, truths=tuple(truth.to(device) for truth in self.truths))


@dataclass(frozen=True, eq=False)
class PulledFrames(Sequence[Image]):
    """Frames that are pulled through a transform each, on their own grid, when asked for, one at a time.

    Attributes:
        frames: as they were.
        transforms: as many, to the world of each frame.
        mode: of interpolation.
    """

    frames: Sequence[Image]
    transforms: Sequence[Transform]
    mode: str = "linear"

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> "PulledFrames": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return PulledFrames(self.frames[index], self.transforms[index], self.mode)
        frame = self.frames[index]
        return pull(frame, self.transforms[index], frame, self.mode)
