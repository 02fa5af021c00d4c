"""Registration by learned features of both images, and an optimiser that finds the displacement between them.

Bigalke, Hansen, Mok, Heinrich: Unsupervised 3D registration through optimization-guided cyclical self-training, MICCAI
2023, section 2.3.1. It learns in the rounds of `cyclical`, or as any other network does.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.errors import InputError
from pullback.methods.method import Method
from pullback.methods.pair.cyclical import METHOD as CYCLICAL
from pullback.networks import FeatureNet, Network, together
from pullback.numerics.cost_volume import unpooled
from pullback.numerics.integrate import compose
from pullback.numerics.sample import sample, voxels
from pullback.solvers import CoupledConvex, Descend, FeatureDescent, consistent
from pullback.space import Displacement, Image, Transform


@dataclass(frozen=True)
class Refinement:
    """The refinement of labels and of answers at test time, not used while learning (section 2.3.1).

    Attributes:
        both_ways: make the displacement consistent with that of the reverse pair.
        warps: how often the moving image is warped by the displacement so far and compared again.
        descent: on finer features at last; None does without. The paper gives no weight of its regularity. Squared
            differences of a random projection of normalised features are several times those of MIND, and with the 1.25
            of ConvexAdam fields fold; 3.5 was chosen on training pairs (hippocampus, brains) by untrained networks.
        labels: share of that weight by which labels are made. The paper does not mention it; the authors' code
            (github.com/multimodallearning/reg-cyclical-self-train) has a tenth. With labels as regular as answers the
            rounds after the first only lose. Measured against its costs, which are larger, that code's descent is a
            tenth as stiff as this one, and a fourth on `hippocampus`: rows of `study cyclical protocol`.

    Raises:
        InputError: no warp.
    """

    both_ways: bool = True
    warps: int = 2
    descent: FeatureDescent | None = FeatureDescent(3.5, Descend(steps=50, step_size=1.0))
    labels: float = 0.1

    def __post_init__(self) -> None:
        if self.warps < 1:
            raise InputError(f"Refinement: one warp or more, got {self.warps}")

    @property
    def of_labels(self) -> "Refinement":
        """The refinement by which labels are made."""
        if self.descent is None:
            return self
        return replace(self, descent=replace(self.descent, regularity=self.labels * self.descent.regularity))


CONVEX = CoupledConvex(half_width=2, temperature=1.0, blur=0)


class FeatureRegistration(Network):
    """A register by features of each image alone, the costs of discrete displacements, and a differentiable optimiser.

    In training it gives the answer through which gradients pass; in evaluation that answer refined. The paper leaves
    open:

    - how the second 1ᵈ convolution, whose features only the refinement uses, is learned: no loss reaches it, so it
    keeps its initial weights, and distances between its features are those of a random projection; - the scale of the
    costs: a temperature of 1 on the sum over 16 channels lets the features set it (the authors' code: `AUTHORS`).

    Args:
        ndim: 2 or 3.
        widths, strides, features: of the network.
        convex: the optimiser in training; 125 displacements in 3D, of whole steps of 8 voxels with the paper's strides.
        refinement: in evaluation.
        channels: of one image.
    """

    def __init__(
        self,
        ndim: int,
        widths: tuple[int, ...] = (32, 64, 128),
        strides: tuple[int, ...] = (2, 2, 2),
        features: int = 16,
        convex: CoupledConvex = CONVEX,
        refinement: Refinement = Refinement(),
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.network = FeatureNet(ndim, channels, widths, strides, features)
        self.convex = convex
        self.refinement = refinement

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return self.guess(fixed, moving) if self.training else self._refined(fixed, moving, self.refinement)

    def guess(self, fixed: Image, moving: Image) -> Alignment:
        """Return the answer without refinement, whatever the mode."""
        one, two = together(fixed, moving).chunk(2, 1)
        features = self.network(torch.cat([one, two]))[0].chunk(2)
        with torch.autocast(one.device.type, enabled=False):  # bfloat16 would round the field
            found = self._whole(self.convex(*features), one)
        return Alignment(Pair(fixed, moving), Displacement(found, fixed.grid))

    def refined(self, fixed: Image, moving: Image) -> Alignment:
        """Return the answer refined as labels are, whatever the mode; no gradient passes."""
        return self._refined(fixed, moving, self.refinement.of_labels)

    @torch.no_grad()
    def _refined(self, fixed: Image, moving: Image, how: Refinement) -> Alignment:
        def one(fixed: Image, moving: Image, start: Transform | None) -> Alignment:
            first, second = together(fixed, moving).chunk(2, 1)
            return Alignment(Pair(fixed, moving), Displacement(self._found(first, second, how), fixed.grid))

        return one_by_one(one, fixed, moving)

    def _found(self, fixed: Tensor, moving: Tensor, how: Refinement) -> Tensor:
        grid = voxels(tuple(fixed.shape[2:]), fixed)
        found = torch.zeros_like(grid)[None]
        (one, two), (first, second) = (each.chunk(2) for each in self.network(torch.cat([fixed, moving])))
        for number in range(how.warps):
            if number:
                two = self.network(sample(moving, grid + found))[0]
            step = self.convex(one, two)
            if how.both_ways:
                step = consistent(step, self.convex(two, one))[0]
            found = compose(found, self._whole(step, fixed))
        if how.descent is None:
            return found
        stride = self.network.fine_stride
        start = found / stride
        for axis in range(2, found.ndim):
            start = start.index_select(axis, torch.arange(0, found.shape[axis], stride, device=found.device))
        return unpooled(how.descent(first, second, start), stride, fixed.shape[2:], strided=True)

    def _whole(self, field: Tensor, image: Tensor) -> Tensor:
        return unpooled(field, self.network.stride, image.shape[2:], strided=True)


AUTHORS = CoupledConvex(half_width=2, couplings=(0.003 / 5, 0.03 / 5, 0.3 / 5), temperature=1 / 20 / 5, blur=1, power=1)
"""The optimiser of the authors' code: absolute differences of five times the features, averaged over 3ᵈ voxels, a
temperature of a twentieth, and couplings of 0.003, 0.03 and 0.3; here all in units of the features themselves."""

METHOD = Method(
    about="features of both images, between which an optimiser finds the displacement, learned by a metric",
    aligns=("pair",),
    trained=True,
    papers=CYCLICAL.papers,
    keys=("feature-registration-mind", "feature-registration-lncc"),
)
