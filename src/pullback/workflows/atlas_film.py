"""The way from one template to the next, as pictures."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pullback.alignment import Pair, Register
from pullback.numerics.integrate import invert
from pullback.report.pictures import grey
from pullback.solvers import Refine, timed
from pullback.space import Affine, Displacement, Image, pull

BETWEEN = 4  # pictures from one template to the next
LARGE = 160  # pixels along the longer side of a plane, up to which small images are magnified


def planes(image: Image) -> np.ndarray:
    """Return the middle planes of an image on a canonical grid beside each other, `(rows, columns)` uint8.

    Up is up: of a 3-D image the planes of R and S, of A and S, and of R and A.
    """
    data = image.data[0, 0].detach().cpu().numpy()
    middle = [n // 2 for n in data.shape]
    cuts = [data] if data.ndim == 2 else [data[:, middle[1]], data[middle[0]], data[:, :, middle[2]]]
    rows = max(cut.shape[1] for cut in cuts)
    upright = [np.pad(cut.T[::-1], ((rows - cut.shape[1], 0), (0, 0))) for cut in cuts]
    times = max(1, LARGE // max(data.shape))
    return grey(np.concatenate(upright, 1).clip(0, 1)).repeat(times, 0).repeat(times, 1)


@torch.no_grad()
def frames_between(templates: Sequence[Image], register: Register | Refine | None) -> list[np.ndarray]:
    """Return pictures of templates in their order, and of the way from each to the next, there and back.

    On the way shapes go in straight lines, and intensities from the one to the other's; without a register they only
    fade.
    """
    frames = [planes(templates[0])]
    for one, other in itertools.pairwise(templates):
        frames += [planes(image) for image in _way(one, other, register)]
    return [*frames, *frames[-2:0:-1]]


def _way(one: Image, other: Image, register: Register | Refine | None) -> Iterator[Image]:
    """Yield images on the way from one to another, and that at its end."""
    grid, still = one.grid, Affine.identity(one.grid.ndim)
    field = torch.zeros(1, grid.ndim, *grid.shape)
    if register is not None:
        field = timed(Pair(one, other), register, still).transform.displacement(grid).to(one.data)
    there = pull(other, Displacement(field, grid), onto=grid)
    for n in range(1, BETWEEN + 1):
        share = n / BETWEEN
        back = Displacement(invert(share * field), grid)
        mixed = Image((1 - share) * one.data + share * there.data, grid)
        yield pull(mixed, back, onto=grid)
