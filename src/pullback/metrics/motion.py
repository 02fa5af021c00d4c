"""Motion of a head from frame to frame, in the numbers of functional imaging."""

import torch
from torch import Tensor

from pullback.numerics.rotation import to_euler

RADIUS = 50.0
"""Of the sphere on which turns count as mm, in mm (Power et al. 2012)."""


def motion_numbers(matrix: Tensor, centre: Tensor) -> dict[str, Tensor]:
    """Return shifts in mm and turns in radians of rigid maps `(T, d+1, d+1)`, by name, `(T,)` each.

    The map is x → R (x − c) + c + t: `trans_x`, `trans_y`, `trans_z` are t, with the centre c `(d,)` in the middle of
    what moves; R turns about the fixed axes x, y and z, one after the other, by `rot_x`, `rot_y` and `rot_z`. In 2-D
    there is one turn, `rot_z`.
    """
    turn, shift = matrix[:, :-1, :-1].double(), matrix[:, :-1, -1].double()
    middle = centre.to(shift)
    shift = shift + turn @ middle - middle
    angles = to_euler(turn)
    turned = "xyz" if angles.shape[1] > 1 else "z"
    numbers = {f"trans_{axis}": shift[:, n] for n, axis in enumerate("xyz"[: shift.shape[1]])}
    return numbers | {f"rot_{axis}": angles[:, n] for n, axis in enumerate(turned)}


def framewise_displacement(matrix: Tensor, centre: Tensor, radius: float = RADIUS) -> Tensor:
    """Return how far each frame is from the one before, in mm, `(T,)`; the first has none, NaN (Power et al. 2012).

    It is the sum of the absolute differences of the `motion_numbers`, turns as arcs of a sphere.
    """
    numbers = motion_numbers(matrix, centre)
    parts = [values * (radius if name.startswith("rot") else 1) for name, values in numbers.items()]
    steps = torch.stack(parts).diff(dim=1).abs().sum(0)
    return torch.cat([steps.new_full((1,), torch.nan), steps])
