"""Animations: pictures one after another, in one file that browsers play."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pullback.errors import InputError
from pullback.records.atomic import atomic_write
from pullback.report.pictures import grey


def write_animation(frames: Sequence[np.ndarray], path: str | Path, milliseconds: int = 100) -> None:
    """Write pictures as an animated PNG that repeats without end; what cannot play one shows the first picture.

    Args:
        frames: all `(rows, columns)` or all `(rows, columns, 3)`, the top left pixel first; uint8, or floats in 0…1.
        path: ends in `.png` or `.apng`.
        milliseconds: that each picture is seen.

    Raises:
        InputError: no picture, pictures of unlike shapes, another ending, or no time.
    """
    from PIL import Image as Picture  # noqa: PLC0415 (slow to import)

    path, shapes = Path(path), {frame.shape for frame in frames}
    shape = next(iter(shapes), ())
    if len(shapes) != 1 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        raise InputError(
            f"{path}: pictures of one shape expected, (rows, columns) or (rows, columns, 3), got {sorted(shapes)}"
        )
    if path.suffix.lower() not in (".png", ".apng") or milliseconds < 1:
        raise InputError(
            f"{path}: an animation is a .png or .apng of 1 ms or more for each picture, got {milliseconds} ms"
        )
    bytes_of = (frame if frame.dtype == np.uint8 else grey(frame) for frame in frames)
    first, *others = (Picture.fromarray(np.ascontiguousarray(pixels)) for pixels in bytes_of)
    with atomic_write(path) as temporary:
        first.save(temporary, "PNG", save_all=True, append_images=others, duration=milliseconds, loop=0)
