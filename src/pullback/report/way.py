"""Animations of a way: the moving image through the phases of an answer, to the fixed image and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pullback.alignment import Alignment
from pullback.report.animation import write_animation
from pullback.report.pictures import cuts
from pullback.space import Affine

MILLISECONDS = 250  # for each phase


def write_way(alignment: Alignment, path: str | Path) -> None:
    """Write the moving image through each phase, there and back, beside the fixed one, as an animated PNG.

    Raises:
        InputError: another ending than `.png` or `.apng`.
    """
    begin = alignment.stats and alignment.stats.start
    transforms = [begin or Affine.identity(alignment.transform.ndim), *alignment.on_the_way, alignment.transform]
    frames = [_beside(replace(alignment, transform=transform)) for transform in transforms]
    write_animation([*frames, *frames[-2:0:-1]], path, MILLISECONDS)


def _beside(seen: Alignment) -> np.ndarray:
    """Return a cut of the fixed image, in 3-D a coronal one, and to its right of the moved one, `(rows, columns)`."""
    every = cuts(seen)
    cut = next((cut for cut in every if cut.plane.name == "Coronal"), every[0])
    return np.clip(np.concatenate([cut.fixed, cut.after], 1), 0, 1)
