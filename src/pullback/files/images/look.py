"""Looks at slides: their resolution, and what is taken of their colours."""

from dataclasses import dataclass

import numpy as np
import torch

from pullback.errors import InputError
from pullback.files.images.colour import GREY, LOOKS, grey, stain
from pullback.files.images.slide import Slide
from pullback.space import Grid

MOST = 2**22
"""Pixels of a slide that are looked at where nobody says more: 2,048 × 2,048."""


@dataclass(frozen=True)
class Look:
    """A look at pictures and slides; of other images there is one look alone.

    Attributes:
        spacing: mm of a pixel.
        most: pixels, where `spacing` does not say; None: `MOST` of colours and pyramids, else all.
        stain: `"grey"`, or which of the stains of `stain`.

    Raises:
        InputError: another stain, or a spacing or a number of pixels that is none.
    """

    spacing: float | None = None
    most: int | None = None
    stain: str = GREY

    def __post_init__(self) -> None:
        if self.stain not in LOOKS:
            raise InputError(f"--stain {self.stain}: choose one of {', '.join(LOOKS)}")
        if self.spacing is not None and not self.spacing > 0:
            raise InputError(f"--spacing {self.spacing:g}: a length in mm above 0 is expected")
        if self.most is not None and self.most < 4:
            raise InputError(f"most {self.most}: a number of pixels is expected")

    def at(self, slide: Slide) -> tuple[float | None, int | None]:
        """Return spacing and most pixels for a slide."""
        if self.spacing is not None:
            return self.spacing, None
        return None, self.most or (MOST if slide.coloured or len(slide.levels) > 1 else None)

    def numbers(self, slide: Slide) -> tuple[np.ndarray, Grid]:
        """Read one plain number a pixel, `(x, y)`, and where the pixels are.

        Colours on glass are 1 − luminance or a stain, those on black their luminance; numbers are as they are stored.

        Raises:
            InputError: the file cannot be read, or has no stains because it is not in colour.
        """
        spacing, most = self.at(slide)
        if not slide.coloured:
            if self.stain != GREY:
                raise InputError(f"{slide.path}: is not in colour, and --stain {self.stain} is of colours")
            return slide.plain(spacing, most)
        image = slide.image(spacing, most)
        if self.stain != GREY:
            seen = stain(image, self.stain).data
        else:
            seen = grey(image).data if slide.glass else 1 - grey(image).data
        return torch.clamp(seen, min=0)[0, 0].numpy(), image.grid

    def told(self, slide: Slide) -> str:
        """Say in one sentence what of a slide is looked at."""
        level, factor = slide.choice(*self.at(slide))
        grid = slide.reduced(level, factor)
        size = " × ".join(f"{n:,}" for n in grid.shape)
        unit = f"{float(grid.spacing.mean()) * 1000:.4g} µm" if slide.measured else f"{float(grid.spacing.mean()):g} mm"
        of = f"level {level} of {len(slide.levels)}" if len(slide.levels) > 1 else "its one level"
        block = f", means of {factor} × {factor} pixels" if factor > 1 else ""
        if not slide.coloured:
            seen = "its numbers"
        elif self.stain != GREY:
            seen = f"in colour, of which {self.stain} is taken"
        else:
            seen = f"in colour, of which {'1 − luminance' if slide.glass else 'the luminance'} is taken"
        return f"{slide.path} is looked at by {size} pixels of {unit} ({of}{block}), {seen}"
