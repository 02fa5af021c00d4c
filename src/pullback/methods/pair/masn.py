"""Local affine and field networks for large images, which see two magnifications of each patch.

Multi-magnification networks for deformable image registration on histopathology images, WBIR 2022 (`METHOD`). An affine
network answers with one map for each patch, a field network with a displacement. Each sees the patch, and beside it
twice the width at half the magnification. Over the whole image the answers of overlapping patches are means, by weights
that add up to 1 (`solvers.Tiled`). The paper is silent on, and here it is decided:

- the order of the maps: it prints I_S(φ_N ∘ φ_A); what it computes, the affine network first, is I_S(φ_A(φ_N(x)));
- channels, depth and groups: 32, 64, 128, 256, in groups of four;
- cells of the average pooling before the affine map: 3 along each axis; of one mean over the patch no turn can be read;
- what of the wide view is joined: the features of its decoder at each size but the coarsest;
- the affine map's numbers: about the middle of the patch, in half its edge, less the identity;
- what is repeated in MASN(3): the affine network, and then the field network once;
- where the loss looks: at the patch that is answered for. What moves into it comes from the wide view for all networks,
  also for those that see the patch alone;
- when which network learns: both in each update; no gradient passes from the second to the first.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import NCC, Bending, Energy
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.magnified import LocalAffine, LocalField, answered
from pullback.networks import Network
from pullback.numerics.smooth import gaussian
from pullback.solvers import Tiled
from pullback.space import Affine, Displacement, Image, part_of, pull

WIDTHS = (32, 64, 128, 256)
NARROW, WIDE = (1,), (1, 2)
"""Views of a patch: itself; itself, and twice its width at half the magnification."""


@dataclass(frozen=True, eq=False)
class LocalAlignment(Alignment):
    """An alignment of patches with what it is made of, for the supervision.

    Attributes:
        local: the answer of the affine network.
        field: that of the field network, before it.
    """

    local: Affine | None = None
    field: Displacement | None = None


class MASN(Network):
    """A register of large images by patches: local affine maps, and then a displacement.

    In training images are single patches, `base` voxels along each axis, and the answer is of their middle. In
    evaluation they may have any size and different grids: the moving image is first pulled onto the fixed grid by the
    headers, patches overlap, and answers are blended. With the defaults it is the paper's MASN; SASN has `affine`
    views `(1,)`, SAMN beside that `field` views `(1, 2)`, MAMN these alone, and MASN(3) three `passes`.

    Args:
        ndim: 2 or 3.
        widths: channels of each size, fine to coarse.
        size: edge of the patches that are answered for, voxels; divisible by the halvings of the widths, twice over.
        affine, field: views of the two networks, `NARROW` or `WIDE`; `(1, 1)` has the weights of two and sees one.
        stride: how far apart patches are at most; None is half their size.
        passes: how often the affine network looks at all patches, each time at the image as moved so far.
        field_passes: the same of the field network, after it.
        channels: of one image.

    Raises:
        InputError: views that do not begin with 1, a size that cannot be halved as often, or no pass.
    """

    def __init__(
        self,
        ndim: int = 2,
        widths: tuple[int, ...] = WIDTHS,
        size: int = 224,
        affine: tuple[int, ...] = WIDE,
        field: tuple[int, ...] = NARROW,
        stride: int | None = None,
        passes: int = 1,
        field_passes: int = 1,
        channels: int = 1,
    ) -> None:
        super().__init__()
        even = 2 ** (len(widths) - 1) * 2
        if any(not views or views[0] != 1 or min(views) < 1 for views in (affine, field)) or size % even or size < even:
            raise InputError(
                f"MASN: views that begin with 1, and patches whose size {even} divides, for {len(widths)} sizes, "
                f"expected; got views {affine} and {field}, and {size}"
            )
        if min(passes, field_passes) < 1:
            raise InputError(f"MASN: one pass or more of each network expected, got {passes} and {field_passes}")
        self.size, self.stride, self.passes, self.field_passes = size, stride, passes, field_passes
        self.affine = LocalAffine(ndim, channels, widths, affine, size)
        self.field = LocalField(ndim, channels, widths, field, size)

    @property
    def base(self) -> int:
        """The edge of the patches that it learns from: twice the size, or what its widest view shows."""
        return self.size * max(2, *self.affine.features.views, *self.field.features.views)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return self._of_patch(fixed, moving) if self.training else self._of_tiles(fixed, moving)

    def _of_patch(self, fixed: Image, moving: Image) -> LocalAlignment:
        """Return the answer of both networks to one patch, the second to the moving image as the first moved it.

        Raises:
            InputError: images of another size.
        """
        if {*fixed.grid.shape} != {self.base}:
            raise InputError(
                f"MASN learns from patches of {self.base} voxels along each axis, got {fixed.grid.shape}: "
                f"training.augment=RandomPatches({self.base}, {self.size})"
            )
        local = self.affine(fixed, moving).transform
        still = Affine(local.matrix.detach())
        with torch.no_grad(), torch.autocast(fixed.data.device.type, enabled=False):
            seen = pull(moving, still, onto=fixed)
        field = self.field(fixed, seen).transform
        return LocalAlignment(Pair(fixed, moving), still @ field, local=local, field=field)

    def _of_tiles(self, fixed: Image, moving: Image) -> Alignment:
        short = [max(self.size - n, 0) for n in fixed.grid.shape]
        box = tuple(slice(-(s // 2), n + s - s // 2) for s, n in zip(short, fixed.grid.shape, strict=True))
        whole = part_of(fixed, box)
        local = self._tiled(self.affine, self.passes)(whole, moving).transform
        known = Displacement(local.displacement(whole.grid).to(whole.data), whole.grid)
        local = known.continued([self.size // 2] * fixed.grid.ndim)  # where the field leads beyond the image
        found = self._tiled(self.field, self.field_passes)(whole, moving, start=local)
        return Alignment(Pair(fixed, moving), found.transform)

    def _tiled(self, network: LocalAffine | LocalField, passes: int) -> Tiled:
        margin = self.size * (max(network.features.views) - 1) // 2
        return Tiled(network, self.size, self.stride, margin, passes)


@dataclass(frozen=True)
class OfPatches:
    """The supervision of `MASN`: similarity after each of its networks, and the regularity of the second (eq. 2).

    Attributes:
        similarity: over the foreground of the middle of the patch; by default one less the correlation (eq. 3).
        regularity: of the field. The text calls it curvature and eq. 4 prints squared slopes; the framework that the
            paper extends has half the mean squares of the Laplacian's ninth part by 9 neighbours, a third of it. 60
            times that is 26.7 times `Bending` in 2-D, where all second derivatives have the squares of the Laplacian.
        smoothing: sigma in voxels of a Gaussian, through which both images are compared. Interpolation softens, softer
            images correlate better by themselves, and without it a network learns to shift by half a voxel first.
    """

    similarity: Energy = NCC(squared=False)
    regularity: Energy = 26.7 * Bending()
    smoothing: float = 0.0

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the losses `affine`, `field` and `regularity`.

        Raises:
            InputError: the network answers with something else.
        """
        answer = register(pair.fixed, pair.moving)
        if not isinstance(answer, LocalAlignment) or answer.local is None or answer.field is None:
            raise InputError(f"OfPatches: the answer of MASN in training expected, got {type(answer).__name__}")
        soft, moving = (replace(image, data=gaussian(image.data, self.smoothing)) for image in pair.images)
        seen = Pair(answered(soft, answer.field.grid.shape[0]), moving)
        return {
            "affine": self.similarity(Alignment(seen, answer.local)),
            "field": self.similarity(Alignment(seen, answer.transform)),
            "regularity": self.regularity(Alignment(seen, answer.field)),
        }


METHOD = Method(
    about="local affine maps and a field, patch by patch, by networks that see two magnifications; for large slides",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "cetin2022multimagnification",
            "Cetin, Oezdemir and Shu, Yiping and Flinner, Nadine and Ziegler, Paul and Wild, Peter and Koeppl, Heinz",
            "Multi-magnification networks for deformable image registration on histopathology images",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
        Paper(
            "wodzinski2021deephistreg",
            "Wodzinski, Marek and Müller, Henning",
            "DeepHistReg: Unsupervised Deep Learning Registration Framework for Differently Stained Histology Samples",
            "Computer Methods and Programs in Biomedicine",
            2021,
            "10.1016/j.cmpb.2020.105799",
            "article",
            "198",
            "105799",
        ),
    ),
    keys=("sasn", "samn", "mamn"),
)
