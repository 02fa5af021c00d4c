"""Rigid and affine registration by gradient descent, coarse to fine."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import MI, Energy
from pullback.errors import InputError
from pullback.solvers.constraint import Constraint, constrained
from pullback.solvers.descend import Converged, Descend
from pullback.solvers.levels import Levels
from pullback.space import Affine, Grid, Image, Motion, Transform
from pullback.stats import Stats

THIN = 11
"""Voxels along an axis of which the outermost two are a sixth or more."""


@dataclass(frozen=True)
class LinearStage:
    """A register that descends `energy` by linear motions near a start.

    Attributes:
        motion: `Motion.rigid` or `Motion.affine`.
        energy: by default mutual information, which suits any modalities (Mattes et al. 2003).
        levels: of resolution.
        solver: its step is in voxels of each level; a generator of `motion` moves the edge of the image by that much.
        constraint: of labels and landmarks of the one pair at hand, added to the energy of each level.
    """

    motion: Callable[[Affine, Grid], Motion] = Motion.rigid
    energy: Energy = MI()
    levels: Levels = Levels(most=200_000)
    solver: Descend = Descend(steps=150, step_size=0.25, until=Converged(20, 0.002))
    constraint: Constraint | None = None

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
            objective = constrained(self.energy, seen, Affine.identity(fixed.grid.ndim), self.constraint)
            motion, descent = solver(objective, start=self.motion(found, fixed.grid))
            found, stats = Affine(motion.matrix), stats.then(descent)
        return Alignment(pair, found, stats=stats)


def within_view(image: Image) -> Image:
    """Return the image with its own mask, or one of all that is measured, so that nothing beyond is compared.

    Between its outermost voxels and the dark beyond, an image fades within one voxel: an edge that is not real. Along
    an axis of more than `THIN` voxels the mask leaves out the outermost ones. Along a thinner one, of which they are
    too large a part, they are repeated once beyond the rim instead, and count.
    """
    if image.mask is not None:
        return image
    thin = [1 < n <= THIN for n in image.grid.shape]
    rims = [int(axis) for axis in reversed(thin) for _ in range(2)]  # the last axis first, before and behind
    data = functional.pad(image.data, rims, mode="replicate")
    affine = image.grid.affine.clone()
    affine[:-1, -1] -= affine[:-1, :-1] @ torch.tensor(thin).to(affine)
    mask = torch.zeros_like(data[:1, :1], dtype=torch.bool)
    mask[(..., *(slice(1, -1) if n > 1 else slice(None) for n in image.grid.shape))] = True
    return replace(image, data=data, grid=Grid(tuple(data.shape[2:]), affine), mask=mask)
