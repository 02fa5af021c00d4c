"""Weighted metamorphosis: a deformation moves what is there, and intensity is added only where new tissue may be.

François, Maillard, Oury, Pallud, Bloch, Gori, Glaunès: Weighted Metamorphosis for registration of images with different
topologies, WBIR 2022. Metamorphosis (Trouvé & Younes 2005) is the same with new tissue anywhere, LDDMM (Beg et al.
2005) without any. Masks, momenta and masses are explained in `image_shooting` and `growing_mask`.

Where the paper is silent or its code differs, this was decided:

1. Sums of squares, of ‖v‖² and of M p² are means over voxels alike, so one weight fits all sizes; ‖v‖² includes the
   (ρ/μ)² that its equation 9 and its code leave out, without which what is minimised is no energy of the path.
2. The penalty is the mean over the path of what its equation 9 weighs at the beginning, which is the same only where
   the mask does not change; `along=False` is equation 9.
3. Adam, coarse to fine, with a step in voxels, in place of Adadelta with a rate for each problem.
"""

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.data.normalise import filled, window
from pullback.energies import MSE, Energy
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.growing_mask import Growth, warn_of_border
from pullback.methods.pair.image_shooting import Shooting, Shot
from pullback.numerics.kernel import Gaussian
from pullback.solvers import Converged, Descend, Levels
from pullback.space import Affine, Image, Transform, pull
from pullback.stats import Stats

LARGEST = 1 / 3  # of the image, that may be new
LIT = 0.04  # of the range of intensities: darker is air


@dataclass(frozen=True)
class Metamorphosis:
    """A register by a geodesic of images: it deforms the moving image, and adds intensity where new tissue may be.

    That is where the mask of the fixed image is False: what other registers leave out (`--fixed-exclude`) is what this
    one may add. The images are compared there, too. Without a mask it may add anywhere. `transform` and `moved` are of
    the deformation alone; the answer's maps are `appearance`, which was added, and `final`, the sum of `moved` and it,
    both in intensities of the moving image. With an addition of 0 there are none.

    Attributes:
        kernel: K, of the velocity; σ is 6 mm for LDDMM and metamorphosis of brains, 12 for the weighted one (the
            paper's code).
        addition: ν = μ²/ρ, how readily intensity is added, in mm² by squared intensity from 0 to 1; 0 is LDDMM. The
            paper's code has 0.05 for brains with a mask, where its size hardly matters, and 0.03 without, where more
            is painted and less moved the larger it is.
        penalty: λ, of the energy of the path against the similarity.
        steps: in time. The paper's code has 20 in 2-D and 15 in 3-D.
        growing: how the mask grows along the path; None keeps it the same.
        masked: with an addition of 0, leave out of the similarity what the fixed mask hides: masking of the cost
            function (Brett et al. 2001).
        along: as of `Shot`.
        scaled: scale intensities so that both images' percentiles, within their masks, come to lie at 0 and 1; else
            they are compared as they are.
        similarity: of the image at the end of the path with the fixed one.
        solver: on each level; its `step_size` is how far its first step moves the fastest voxel, in voxels.
        levels: of resolution.

    Raises:
        InputError: fewer steps than one, an addition or penalty below 0, or both masked and with an addition.
    """

    kernel: Gaussian = Gaussian(6.0)
    addition: float = 0.001
    penalty: float = 4e-5
    steps: int = 15
    growing: Growth | None = Growth()
    masked: bool = False
    along: bool = True
    scaled: bool = True
    similarity: Energy = MSE()
    solver: Descend = Descend(80, 0.5, last=0.1, until=Converged(25, 0.005))
    levels: Levels = Levels(most=500_000)

    def __post_init__(self) -> None:
        if self.masked and self.addition:
            raise InputError("masked leaves out what is hidden, so nothing is added there: take an addition of 0")
        _ = self._shooting

    @property
    def _shooting(self) -> Shooting:
        numbers = (self.kernel, self.addition, self.steps, self.along, self.similarity, self.penalty)
        return Shooting(*numbers, self.solver, self.levels)

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself.

        The stats tell the `similarity` at the end, the means over the path of both parts of its energy, `kinetic` and
        `added`, the `length` of the deformation, and how many `voxels per step` the fastest voxel moves. The length is
        the mean of ⟨v, K⁻¹v⟩^½ over time, a mean over voxels: a distance of images where the addition is 0.

        Raises:
            InputError: a kernel narrower than a voxel, an image that is constant where it is seen, a mask that hides
                more than a third of the image or lies off the moving image, or a
                step in time that moves by more than the image is long.
        """
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        shot, stats = self.shoot(fixed, moving, start)
        pair = Pair(fixed, moving)
        with torch.no_grad():
            plain = Alignment(pair, shot.flow if start is None else start @ shot.flow, stats=stats)
            bottom, top = self._window(moving)
            appearance = Image(shot.appearance * (top - bottom), fixed.grid)
            final = Image(plain.moved.data + appearance.data, fixed.grid)
        return replace(plain, maps={"appearance": appearance, "final": final} if self.addition else {})

    def shoot(self, fixed: Image, moving: Image, start: Transform | None = None) -> tuple[Shot, Stats]:
        """Return the path of one image onto the grid of one other, in intensities as they are compared, and its stats.

        Raises:
            InputError: as of a call.
        """
        seen = filled(moving)
        if start is not None or moving.grid != fixed.grid:
            seen = pull(seen, start or Affine.identity(fixed.grid.ndim), onto=fixed)
        one, two = (
            replace(image, data=(image.data - bottom) / (top - bottom))
            for image, (bottom, top) in ((fixed, self._window(fixed)), (seen, self._window(moving)))
        )
        weight = self._weight(one, two)
        shot, stats = self._shooting(filled(one) if self.masked else replace(one, mask=None), two, weight)
        return shot, replace(stats, numbers=self._numbers(shot, one))

    def _window(self, image: Image) -> tuple[Tensor, Tensor]:
        """Return the intensities that become 0 and 1."""
        return window(image) if self.scaled else (image.data.new_zeros(1), image.data.new_ones(1))

    def _weight(self, fixed: Image, moving: Image) -> Tensor:
        """Return where intensity may be added, from 0 to 1, for all steps or for each of them."""
        if fixed.mask is None or not self.addition:
            return torch.ones_like(fixed.data[:, :1])
        region = (~fixed.mask).to(fixed.data)
        if not region.any():
            warnings.warn("the mask hides nothing: no intensity is added, as by LDDMM", UserWarning, stacklevel=2)
            return region
        _refuse_far(region, moving)
        warn_of_border(region)
        return region if self.growing is None else self.growing(region, fixed.grid, self.steps)

    @torch.no_grad()
    def _numbers(self, shot: Shot, fixed: Image) -> dict[str, float]:
        seen = Pair(fixed if self.masked else replace(fixed, mask=None), shot.final)
        kinetic, added = shot.norms.double()
        return {
            "similarity": float(self.similarity(Alignment(seen, Affine.identity(fixed.grid.ndim)))),
            "kinetic": float(kinetic.mean()),
            "added": float(added.mean()),
            "length": float((2 * kinetic.clamp(min=0)).sqrt().mean()),
            "voxels per step": float(shot.flow.field.norm(dim=1).max()),
        }


def _refuse_far(region: Tensor, moving: Image) -> None:
    """Refuse a region where new tissue may be, `(1, 1, *spatial)`, that cannot be one: too large, or far from tissue.

    Raises:
        InputError: it is larger than a third of the image, or less than half of it lies in the box of the moving image.
    """
    share = float(region.mean())
    if share > LARGEST:
        raise InputError(
            f"the fixed mask hides {share:.0%} of the image, and new tissue may be where it hides: this is a mask of "
            "what to see, such as a brain, not of what is new; exclude the lesion alone"
        )
    lit = (moving.data > LIT).any(1)[0].nonzero()
    if not len(lit):
        return
    low, high = lit.amin(0), lit.amax(0)
    new = region[0, 0].nonzero()
    within = ((new >= low) & (new <= high)).all(1).float().mean()
    if within < 0.5:
        raise InputError(
            f"only {float(within):.0%} of where new tissue may be lies within the moving image: align the two first, "
            "by rigid and affine stages (leave --aligned away)"
        )


PAPER = Paper(
    "francois2022weighted",
    "François, Anton and Maillard, Matthis and Oury, Catherine and Pallud, Johan and Bloch, Isabelle and Gori, Pietro "
    "and Glaunès, Joan",
    "Weighted Metamorphosis for Registration of Images with Different Topologies",
    "Biomedical Image Registration (WBIR)",
    2022,
    "10.1007/978-3-031-11203-4_2",
    pages="8--17",
)

METHOD = Method(
    about="an image without a lesion onto one with it: deformed, and new tissue added only there; no training",
    aligns=("pair",),
    papers=(
        PAPER,
        Paper(
            "trouve2005metamorphoses",
            "Trouvé, Alain and Younes, Laurent",
            "Metamorphoses Through Lie Group Action",
            "Foundations of Computational Mathematics",
            2005,
            "10.1007/s10208-004-0128-z",
            "article",
            "5",
            "173--198",
        ),
    ),
    register=Metamorphosis(),
    solves=("identity",),
    as_given=True,
)
