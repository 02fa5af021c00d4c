"""Pairs of frames within videos, for learning to carry labels along."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from pullback.data.case import Case, person_of
from pullback.errors import InputError
from pullback.numerics.random import drawn_number

T = TypeVar("T", bound=Case)


@dataclass(frozen=True)
class FramePairs:
    """The choice of pairs of frames, fixed ← moving, each of one video.

    Nicke et al. 2022, "Experimental Setup", has both kinds. There the moving frame is fixed, and the other way round.
    A frame that is drawn is so by `seed` and the video's name alone.

    Attributes:
        apart: each frame is fixed once, and the one so many before it moves; None takes one reference of each video.
        every: with a reference: each so many-th frame after it is fixed.
        first: the reference is one of this share of the video, its first.
        seed: of the references.

    Raises:
        InputError: steps below 1, or a share that is none.
    """

    apart: int | None = None
    every: int = 4
    first: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.every, self.apart or 1) < 1 or self.apart == 0 or not 0 < self.first <= 1:
            raise InputError(
                f"frames: steps of 1 or more and a share above 0 and up to 1 expected, got apart={self.apart}, "
                f"every={self.every} and first={self.first}"
            )

    @property
    def straight(self) -> Self:
        """The pairs of the same references and all frames after them, by which labels are carried at test."""
        return replace(self, apart=None, every=1)

    def of(self, cases: Iterable[T]) -> list[tuple[T, T]]:
        """Return the pairs of the videos of these frames, which are in order of time; a video is a person."""
        videos: dict[str, list[T]] = {}
        for case in cases:
            videos.setdefault(person_of(case), []).append(case)
        return [pair for name, frames in videos.items() for pair in self._within(name, frames)]

    def reference(self, name: str, count: int) -> int:
        """Return the number of the reference among the frames of a video."""
        return int(drawn_number(self.seed, name) * max(1, int(self.first * count)))

    def _within(self, name: str, frames: Sequence[T]) -> list[tuple[T, T]]:
        if self.apart is not None:
            return [*zip(frames[self.apart :], frames, strict=False)]
        at = self.reference(name, len(frames))
        return [(frame, frames[at]) for frame in frames[at + self.every :: self.every]]
