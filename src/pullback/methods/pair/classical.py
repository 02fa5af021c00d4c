"""Any two images: initialise → rigid → affine → deformable, with no training and no tuning.

The stages are old acquaintances (Mattes et al. 2003; Avants et al. 2008; Arsigny et al. 2006; Balakrishnan et al.
2019); how they are put together, and the numbers of the presets, are ours: found on brains of other people than those
that the benchmark measures.
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property, partial

from pullback.alignment import Alignment, Pair
from pullback.data import shown
from pullback.energies import LNCC, Diffusion, Energy
from pullback.methods.pose.initialise import Begun, Initialise
from pullback.solvers import Deformed, Descend, Levels, Posed, Settled
from pullback.space import Affine, Image, Linear, Motion, Transform, Velocity, inverted


@dataclass(frozen=True)
class Stage:
    """What one stage did: its name, and the seconds it took."""

    name: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Solved:
    """The answer of a classical registration.

    Attributes:
        pair: the images as they were given.
        transform: fixed → moving, RAS mm.
        stages: what was done, in order.
        begun: where the chain began, and how sure that is; None where a start was given.
    """

    pair: Pair
    transform: Transform
    stages: tuple[Stage, ...] = ()
    begun: Begun | None = None

    @cached_property
    def inverse(self) -> Transform:
        """Moving → fixed."""
        return inverted(self.transform)

    @cached_property
    def moved(self) -> Image:
        """The moving image on the fixed grid."""
        return Alignment(self.pair, self.transform).moved


@dataclass(frozen=True)
class Classical:
    """The register of any two images: initialise → rigid → affine → deformable; each stage may be None or left out.

    Intensities are brought to 0 … 1, and what the masks hide is replaced by what lies around (`shown`), so that it
    has no influence on any stage.

    Attributes:
        initialise: finds a rough start; None begins where the headers put the images.
        linear: rigid and affine stages by name, in order.
        deformable: the last stage; None stops at the linear ones.
    """

    initialise: Initialise | None = Initialise()
    linear: tuple[tuple[str, Posed], ...] = (("rigid", Posed(Motion.rigid)), ("affine", Posed(Motion.affine)))
    deformable: Deformed | None = Deformed()

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Solved:
        """Fixed → moving.

        Args:
            fixed: the image that stays; `(1, C, *spatial)`.
            moving: the image that is brought onto it, of any grid; as many dimensions and channels.
            start: where to go on from. A linear one replaces the initialisation; with a field, such as a network's
                answer, only the deformable stage follows, which refines it.
        """
        pair = Pair(fixed, moving)
        one, two = shown(fixed), shown(moving)
        stages: list[Stage] = []
        clock = time.perf_counter()

        def done(name: str) -> None:
            nonlocal clock
            now = time.perf_counter()
            stages.append(Stage(name, now - clock))
            clock = now

        begun = None
        found: Transform = start or Affine.identity(fixed.grid.ndim)
        if start is None and self.initialise is not None:
            begun = self.initialise(one, two)
            found = begun.transform
            done("initialise")
        if isinstance(found, Linear):
            for name, posed in self.linear:
                found = posed.pose(one, two, found)
                done(name)
        if self.deformable is not None:
            found = self.deformable(one, two, found).transform
            done("deformable")
        return Solved(pair, found, tuple(stages), begun)


CONTRAST = LNCC(5, noise=0.1)
"""Contrast below a tenth of the range hardly counts, for where there is only noise correlation pulls at random."""

NEAR_AND_FAR = 0.5 * CONTRAST + 0.5 * LNCC(9, noise=0.05)
"""Narrow windows are exact; wide ones see where to go from farther, as where a ventricle has to shrink to a third."""


def stiff(similarity: Energy, displacement: float, velocity: float) -> Energy:
    """With regularity: the displacement stays smooth, and its velocity keeps it whole."""
    return similarity + displacement * Diffusion(displacement=True) + velocity * Diffusion()


ENERGY = stiff(NEAR_AND_FAR, 0.5, 0.4)

COARSE = LNCC(5, noise=0.03) + 1.5 * Diffusion()
"""Smoothed images have less noise; and what is large should be smooth, for details come later, but free to stretch."""

DEFORMED = Deformed(
    ENERGY,
    COARSE,
    draft=partial(Velocity, squarings=3),
    steps=(160, 160, 60),
    solver=Descend(step_size=0.7, last=0.05, until=Settled()),
)
"""Large steps first, which shrink."""

FAST = Classical(
    linear=(
        ("rigid", Posed(Motion.rigid, levels=Levels(most=30_000))),
        ("affine", Posed(Motion.affine, levels=Levels(most=120_000), solver=Descend(100, 0.4, until=Settled()))),
    ),
    deformable=replace(
        DEFORMED,
        energy=stiff(CONTRAST, 0.4, 0.3),
        draft=partial(Velocity, squarings=2),
        levels=Levels(most=1_000_000),
        steps=(24, 16, 3),
        solver=Descend(step_size=0.5, until=Settled()),
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
        solver=replace(DEFORMED.solver, until=Settled(share=0.005)),
    )
)
"""At full resolution whatever the size, until nothing moves there any more, with a field that bends more easily."""

register = BALANCED
"""What `pb.register(fixed, moving)` calls."""
