"""Rigid and affine alignment, coarse to fine."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import MI, Energy
from pullback.errors import InputError
from pullback.solvers.descend import Descend, Settled
from pullback.solvers.levels import Levels
from pullback.space import Affine, Grid, Image, Linear, Motion


@dataclass(frozen=True)
class Posed:
    """The register that descends `energy` by linear motions near a start.

    Attributes:
        motion: `Motion.rigid` or `Motion.affine`.
        energy: mutual information with the fixed image's bins knows no modality (Mattes et al. 2003).
        levels: of resolution.
        solver: its step is in voxels of each level; a generator of `motion` moves the edge of the image by that much.
    """

    motion: Callable[[Affine, Grid], Motion] = Motion.rigid
    energy: Energy = MI()
    levels: Levels = Levels(most=200_000)
    solver: Descend = Descend(steps=150, step_size=0.25, until=Settled(20, 0.002))

    def __call__(self, fixed: Image, moving: Image, start: Linear | None = None) -> Alignment:
        """Fixed → moving, from `start` or as the headers say. Where the view of the moving image ends, it is masked."""
        return Alignment(Pair(fixed, moving), self.pose(fixed, moving, start))

    def pose(self, fixed: Image, moving: Image, start: Linear | None = None) -> Affine:
        """As the call, the transform alone.

        Raises:
            InputError: the start is a field, which no linear motion can go on from.
        """
        if not isinstance(start, Linear | None):
            raise InputError(
                f"a linear stage cannot go on from a {type(start).__name__}, which deforms: put it before what deforms"
            )
        found = Affine.identity(fixed.grid.ndim) if start is None else Affine(start.matrix)
        for level in self.levels(Pair(fixed, moving)):
            seen = replace(level, moving=within_view(level.moving))
            edge = float(seen.fixed.grid.spacing.min())
            solver = replace(self.solver, step_size=self.solver.step_size * edge)
            found = Affine(solver(self.energy.on(seen), start=self.motion(found, fixed.grid)).matrix)
        return found


def within_view(image: Image) -> Image:
    """The image with a mask: its own, or all of it but its outermost voxels, so that what lies beyond is not compared.

    Between its outermost voxels and the dark beyond an image fades within one voxel: an edge that is none.
    """
    if image.mask is not None:
        return image
    mask = image.data.new_zeros(1, 1, *image.grid.shape, dtype=torch.bool)
    mask[(..., *(slice(1, -1) if n > 2 else slice(None) for n in image.grid.shape))] = True
    return replace(image, mask=mask)
