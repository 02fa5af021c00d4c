"""The length of the path of a transform that is made of velocities."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pullback.alignment import Alignment
from pullback.metrics.metric import foreground, of_one
from pullback.numerics.kernel import Kernel
from pullback.numerics.sample import sample
from pullback.space import Transform


@dataclass(frozen=True)
class Length:
    """The length of the path from the identity to a transform that is made of velocities.

    It is Σ ‖vᵢ‖ over the pieces of φ = exp(v₁) ∘ … ∘ exp(v_N). "length mm" takes for ‖v‖ the root mean square over the
    fixed foreground, in mm; "length (smooth)", which wants a kernel, takes ⟨v, K⁻¹ v⟩^½ in the kernel's unit, a mean
    over the voxels of the field, so that the square of a single piece is twice its energy `Kinetic`. A geodesic is as
    long as its first velocity. Linear parts, such as a start, have no length. The answer is empty where another part
    deforms, such as a `Displacement`, or where there is no foreground.

    It bounds from above how far two images lie apart, and is no metric of diffeomorphisms: another path between the
    same two may be shorter, and the exponential of a velocity is in general no shortest path.

    Attributes:
        kernel: K of the second number; None leaves it out.
    """

    kernel: Kernel | None = None
    name: ClassVar[str] = "length mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        mm = piece_lengths(alignment)
        if not mm:
            return {}
        smooth = {"length (smooth)": sum(piece_lengths(alignment, self.kernel))} if self.kernel else {}
        return {self.name: sum(mm), **smooth}


def piece_lengths(alignment: Alignment, kernel: Kernel | None = None) -> list[float]:
    """Return the length of each piece of one pair's transform, the outermost first, as `Length` adds them up.

    There is none where `Length` answers with nothing.
    """
    fixed = alignment.pair.fixed
    inside = foreground(alignment)[0, 0].nonzero().double()  # (N, d)
    if not len(inside):
        return []
    at = fixed.grid.to_world(inside.T[None])
    found: list[float] = []
    for part in reversed(alignment.transform.to(fixed.data.device).parts):
        if part.as_affine is not None:
            at = part.at(at)
        elif part.is_flow:
            found = [*_each(part, at, kernel), *found]
        else:
            return []
    return found


def _each(part: Transform, at: Tensor, kernel: Kernel | None) -> list[float]:
    """Return the length of each velocity of a flow, at world points `(1, d, N)` or by a kernel's norm."""
    velocities, grid = part.motion_on(part.grids[0])  # (T, 1, d, *spatial) per unit of time
    pieces = [velocity / len(velocities) for velocity in velocities]
    if kernel is not None:
        spacing = grid.spacing.tolist()
        squares = [float((v * kernel.sharpen(v, spacing)).sum(1).mean()) for v in pieces]
        return [max(square, 0.0) ** 0.5 for square in squares]
    where = grid.to_voxels(at)
    return [float(grid.to_mm(sample(v, where.to(v))).square().sum(1).mean().sqrt()) for v in pieces]
