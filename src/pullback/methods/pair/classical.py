"""The classical chain for any two images: initialise → rigid → affine → deformable, with no training and no tuning.

The stages are old acquaintances (Mattes et al. 2003; Avants et al. 2008; Arsigny et al. 2006; Balakrishnan et al.
2019); how they are put together, and the numbers of the presets, are ours: found on brains of other people than those
that the benchmark measures.
"""

from dataclasses import dataclass, replace
from functools import partial

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.data import preprocessed
from pullback.energies import LNCC, Diffusion, Energy
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pose.initialise import Initialise
from pullback.solvers import Converged, DeformableStage, Descend, HeldOut, Levels, LinearStage, Refine, timed
from pullback.space import Affine, Image, Motion, Transform, Velocity
from pullback.stats import Stats


@dataclass(frozen=True)
class Classical:
    """A register of any two images: initialise → rigid → affine → deformable; each stage may be None or left out.

    Intensities are normalised to 0 … 1, and voxels that the masks hide are filled from around (`preprocessed`), so that
    they have no influence on any stage. Maps and further transforms of the deformable stage are handed on.

    Attributes:
        initialise: finds a rough start; None begins where the headers put the images.
        linear: rigid and affine stages by name, in order.
        deformable: the last stage, a `DeformableStage` or another method; None stops at the linear ones.
        as_given: the deformable stage sees images as they are, for a method that also looks behind masks.
    """

    initialise: Initialise | None = Initialise()
    linear: tuple[tuple[str, LinearStage], ...] = (
        ("rigid", LinearStage(Motion.rigid)),
        ("affine", LinearStage(Motion.affine)),
    )
    deformable: Refine | None = DeformableStage()
    as_given: bool = False

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving; each pair of a batch by itself. The stats hold the start and each stage.

        Args:
            fixed: the image that stays; `(B, C, *spatial)`.
            moving: the image that is brought onto it, of any grid, with the same number of dimensions and channels.
            start: a transform to continue from. A linear one replaces the initialisation; with a field, such as a
                network's answer, only the deformable stage follows, which refines it.

        Raises:
            InputError: the start deforms, and there is no deformable stage to continue from it.
        """
        if start is not None and self.deformable is None and start.as_affine is None:
            raise InputError("rigid and affine stages go on from a linear transform, and this start has a field")
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        pair = Pair(fixed, moving)
        images = Pair(preprocessed(fixed), preprocessed(moving))
        found: Transform = start or Affine.identity(fixed.grid.ndim)
        stats = Stats(start=start)
        if start is None and self.initialise is not None:
            begun = timed(images, self.initialise, name="initialise")
            found, stats = begun.transform, begun.stats or stats
        for name, refine in self.linear if found.as_affine is not None else ():
            after = timed(images, refine, found, name)
            found, stats = after.transform, stats.then(after.stats)
        if self.deformable is None:
            return Alignment(pair, found, stats=stats)
        after = timed(pair if self.as_given else images, self.deformable, found, "deformable")
        return replace(after, pair=pair, stats=stats.then(after.stats))


CONTRAST = LNCC(5, noise=0.1)
"""Contrast below a tenth of the range hardly counts, for where there is only noise correlation pulls at random."""

NEAR_AND_FAR = 0.5 * CONTRAST + 0.5 * LNCC(9, noise=0.05)
"""Narrow windows are exact; wide ones see where to go from farther, as where a ventricle has to shrink to a third."""


def stiff(similarity: Energy, displacement: float, velocity: float) -> Energy:
    """Return an energy with regularity of the displacement and of its velocity.

    The first keeps it smooth, the second free of folds.
    """
    return similarity + displacement * Diffusion(displacement=True) + velocity * Diffusion()


ENERGY = stiff(NEAR_AND_FAR, 0.5, 0.4)

COARSE = LNCC(5, noise=0.03) + 1.5 * Diffusion()
"""Smoothed images have less noise; and what is large should be smooth, for details come later, but free to stretch."""

DEFORMED = DeformableStage(
    ENERGY,
    COARSE,
    draft=partial(Velocity, squarings=3),
    steps=(160, 160, 60),
    solver=Descend(step_size=0.7, last=0.05, until=Converged()),
)
"""Large steps first, which shrink."""

FAST = Classical(
    linear=(
        ("rigid", LinearStage(Motion.rigid, levels=Levels(most=30_000))),
        (
            "affine",
            LinearStage(Motion.affine, levels=Levels(most=120_000), solver=Descend(100, 0.4, until=Converged())),
        ),
    ),
    deformable=replace(
        DEFORMED,
        energy=stiff(CONTRAST, 0.4, 0.3),
        draft=partial(Velocity, squarings=2),
        levels=Levels(most=1_000_000),
        steps=(24, 16, 3),
        solver=Descend(step_size=0.5, until=Converged()),
    ),
)
"""A few steps at full resolution; at half of it, or less, where an image has more than a million voxels."""

BALANCED = Classical(deformable=replace(DEFORMED, levels=Levels(most=2_000_000)))
"""At full resolution; at half of it, or less, where an image has more than two million voxels."""

ACCURATE = Classical(
    deformable=replace(
        DEFORMED,
        energy=stiff(NEAR_AND_FAR, 0.4, 0.35),
        steps=(160, 160, 160),
        solver=replace(DEFORMED.solver, until=Converged(share=0.005)),
    )
)
"""At full resolution whatever the size, until nothing moves there any more, with a field that bends more easily."""

STAINED = HeldOut(
    replace(
        DEFORMED,
        energy=stiff(LNCC(17, noise=0.1), 3.2, 2.4),
        coarse=None,
        levels=Levels(most=100_000),
        steps=(160, 160, 100),
        solver=Descend(step_size=0.3, last=0.05, until=Converged()),
    ),
    LNCC(17, noise=0.1),
)
"""Of sections in several stains, in place of the deformable stage of any preset. Their texture differs: fine detail is
that of other cells and other dyes, and narrow windows follow it. So windows are wide, pixels coarse, the field is eight
times as stiff as that of `FAST`, and it has to make tiles alike that it did not see."""

register = BALANCED
"""What `pb.register(fixed, moving)` calls."""


METHOD = Method(
    about="any two images, with no training and no tuning: initialise, rigid, affine, deformable",
    aligns=("pair",),
    papers=(
        Paper(
            "avants2008symmetric",
            "Avants, Brian B. and Epstein, Charles L. and Grossman, Murray and Gee, James C.",
            "Symmetric Diffeomorphic Image Registration with Cross-Correlation: Evaluating Automated Labeling of "
            "Elderly and Neurodegenerative Brain",
            "Medical Image Analysis",
            2008,
            "10.1016/j.media.2007.06.004",
            "article",
            "12",
            "26--41",
        ),
        Paper(
            "mattes2003petct",
            "Mattes, David and Haynor, David R. and Vesselle, Hubert and Lewellen, Thomas K. and Eubank, William",
            "PET-CT Image Registration in the Chest Using Free-Form Deformations",
            "IEEE Transactions on Medical Imaging",
            2003,
            "10.1109/TMI.2003.809072",
            "article",
            "22",
            "120--128",
        ),
        Paper(
            "arsigny2006logeuclidean",
            "Arsigny, Vincent and Commowick, Olivier and Pennec, Xavier and Ayache, Nicholas",
            "A Log-Euclidean Framework for Statistics on Diffeomorphisms",
            "Medical Image Computing and Computer-Assisted Intervention (MICCAI)",
            2006,
            "10.1007/11866565_113",
            pages="924--931",
        ),
    ),
    register=BALANCED,
    solves=("identity", "shift", "rotation", "smooth", "mask", "anisotropic", "thin", "batch"),
)
