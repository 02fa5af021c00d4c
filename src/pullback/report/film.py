"""Pictures of a sequence with the outlines of its labels, frame by frame."""

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np

from pullback.report.figures import COLOURS
from pullback.report.pictures import grey
from pullback.space import Series

LARGE = 256  # pixels along the longer side, up to which small frames are magnified
MOST = 200  # pictures; of longer sequences every so many-th frame is shown


def pictures(series: Series, labels: np.ndarray) -> list[np.ndarray]:
    """Return pictures `(rows, columns, 3)` uint8 of the frames, of volumes the middle slice along the third axis.

    Rows run along the second axis, as a beam or a page does. One window of intensities serves all frames: that of the
    reference would hide what brightens later.

    Args:
        series: the frames.
        labels: of each, `(*series.grid.shape, T)` of integers; each value has a colour of its own.
    """
    chosen = range(0, len(series), -(-len(series) // MOST))
    colours = dict(zip([int(value) for value in np.unique(labels) if value], cycle(COLOURS), strict=False))
    shown = [_middle(series.frames[n].data[0, 0].cpu().numpy()) for n in chosen]
    low, high = np.percentile(np.stack(shown), (0.5, 99.5))
    return [
        _outlined(grey((values - low) / max(high - low, 1e-12)), _middle(labels[..., n]), colours)
        for values, n in zip(shown, chosen, strict=True)
    ]


def _middle(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 2 else values[..., values.shape[2] // 2]


def _outlined(image: np.ndarray, labels: np.ndarray, colours: dict[int, str]) -> np.ndarray:
    """Return an image in grey, magnified, with a line one pixel wide along the border of each label."""
    times = max(1, LARGE // max(image.shape))
    large = image.repeat(times, 0).repeat(times, 1)
    marked = labels.repeat(times, 0).repeat(times, 1)
    inner = np.ones_like(marked, bool)
    for near in _neighbours(marked):
        inner &= near == marked
    picture = np.repeat(large[..., None], 3, 2)
    for value, colour in colours.items():
        picture[(marked == value) & ~inner] = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
    return picture.swapaxes(0, 1)


def _neighbours(values: np.ndarray) -> Iterator[np.ndarray]:
    padded = np.pad(values, 1, mode="edge")
    steps: Sequence[tuple[int, int]] = ((0, 1), (2, 1), (1, 0), (1, 2))
    for a, b in steps:
        yield padded[a : a + values.shape[0], b : b + values.shape[1]]
