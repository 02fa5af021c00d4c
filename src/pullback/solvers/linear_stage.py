"""Rigid and affine registration by gradient descent, coarse to fine."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import MI, Energy
from pullback.errors import InputError
from pullback.solvers.descend import Converged, Descend
from pullback.solvers.levels import Levels
from pullback.space import Affine, Grid, Image, Motion, Transform
from pullback.stats import Stats


@dataclass(frozen=True)
class LinearStage:
    """A register that descends `energy` by linear motions near a start.

    Attributes:
        motion: `Motion.rigid` or `Motion.affine`.
        energy: by default mutual information, which suits any modalities (Mattes et al. 2003).
        levels: of resolution.
        solver: its step is in voxels of each level; a generator of `motion` moves the edge of the image by that much.
    """

    motion: Callable[[Affine, Grid], Motion] = Motion.rigid
    energy: Energy = MI()
    levels: Levels = Levels(most=200_000)
    solver: Descend = Descend(steps=150, step_size=0.25, until=Converged(20, 0.002))

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself.

        The moving image is masked where its field of view ends.

        Raises:
            InputError: the start is a field, which no linear motion can continue from.
        """
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        found = Affine.identity(fixed.grid.ndim) if start is None else start.as_affine
        if found is None:
            raise InputError(
                f"a linear stage cannot go on from a {type(start).__name__}, which deforms: put it before what deforms"
            )
        pair, stats = Pair(fixed, moving), Stats(start=start)
        for level in self.levels(pair):
            seen = replace(level, moving=within_view(level.moving))
            edge = float(seen.fixed.grid.spacing.min())
            solver = replace(self.solver, step_size=self.solver.step_size * edge)
            motion, descent = solver(self.energy.on(seen), start=self.motion(found, fixed.grid))
            found, stats = Affine(motion.matrix), stats.then(descent)
        return Alignment(pair, found, stats=stats)


def within_view(image: Image) -> Image:
    """Return the image with its own mask, or one of all but its outermost voxels, so that nothing beyond is compared.

    Between its outermost voxels and the dark beyond, an image fades within one voxel: an edge that is not real.
    """
    if image.mask is not None:
        return image
    mask = image.data.new_zeros(1, 1, *image.grid.shape, dtype=torch.bool)
    mask[(..., *(slice(1, -1) if n > 2 else slice(None) for n in image.grid.shape))] = True
    return replace(image, mask=mask)
