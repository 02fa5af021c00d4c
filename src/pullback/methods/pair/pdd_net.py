"""PDD-Net: displacements of a lattice by costs that are smoothed twice; and distilled from a teacher, for video.

Heinrich, MICCAI 2019: Closing the gap between deep and conventional image registration using probabilistic dense
displacement networks. In 2-D, and learned beside labels from where a large network carries them: Nicke et al., WBIR
2022, which names the new frame moving and the frame with labels fixed, and is silent on what is decided here:

- the new frame is fixed and the frame with labels moves, so that labels are pulled, once;
- a lattice of every 8th voxel, whole steps of 8 voxels, 5 of them at most along each axis, some of what its public
code has in 2-D;
- costs are squared differences as in the code of 2019, not products; the moving features go on by their border;
- of the six numbers α of that code, two are added to all costs alike, which neither a minimum, a mean nor a softmax
sees. They have neither effect nor gradient, and are left out: 23,424 weights in 2-D in place of 23,426;
- the soft target is used in both phases of training.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, Register, seen
from pullback.data.frames import FramePairs
from pullback.energies import Energy, LabelMSE
from pullback.energies.labels import with_background
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import Network, batch_norm_relu, convolution, convolve, together
from pullback.numerics.cost_volume import lattice_costs, lower_envelope, offsets, twice_averaged, unpooled
from pullback.numerics.sample import sample, voxels
from pullback.space import Displacement, Image, pull
from pullback.stats import Stats
from pullback.training import Task
from pullback.training.teacher import answer_of

STEP = 8  # voxels of the image from one point of the lattice to the next, and of a displacement's step
FIRST = 4  # channels of the first convolution
WIDTHS = (64, 32)
SPREAD = 0.05  # of the initial offsets, as a share of half the image's extent


class Obelisk(nn.Module):
    """Differences of features at pairs of places about each voxel, whose offsets are learned (Heinrich et al. 2019).

    Args:
        ndim: 2 or 3.
        pairs: of places.
    """

    def __init__(self, ndim: int, pairs: int) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.empty(2, pairs, ndim))  # shares of half the extent
        nn.init.normal_(self.offsets, std=SPREAD)

    def forward(self, values: Tensor) -> Tensor:
        """Return `(B, C · pairs, *spatial)` of `(B, C, *spatial)`, whose border values go on."""
        shape = tuple(values.shape[2:])
        half = values.new_tensor([(n - 1) / 2 for n in shape])
        away = (self.offsets * half).flatten(0, 1).mT[None].unflatten(2, (-1, *[1] * len(shape)))  # (1, d, 2·pairs, …)
        there = sample(values, voxels(shape, values)[None, :, None] + away, padding="border")
        one, other = there.chunk(2, 2)  # (B, C, pairs, *spatial) each
        return (one - other).flatten(1, 2)


class MeanField(nn.Module):
    """Two rounds of min-convolution over displacements and averages over the lattice, with four weights.

    Args:
        half_width: of the lattice of displacements.

    Attributes:
        weights: α₀ of the costs, α₂ and α₃ of the costs and of the first round in the second, and α₅, the inverse
            temperature of the softmax. They may become negative: the authors' own α₃ did.
    """

    def __init__(self, half_width: int) -> None:
        super().__init__()
        self.half_width = half_width
        self.weights = nn.Parameter(torch.ones(4))

    def forward(self, costs: Tensor) -> Tensor:
        """Return the probabilities of displacements, `(B, K, *spatial)`, of their costs in the lattice's order."""
        of_costs, again, first, cold = self.weights
        costs = of_costs * costs
        once = self._smoothed(costs)
        twice = self._smoothed(again * costs + first * once)
        return (-cold * twice).softmax(1)

    def _smoothed(self, costs: Tensor) -> Tensor:
        return twice_averaged(lower_envelope(costs, self.half_width))


class PDDNet(Network):
    """A register by features of each image alone and probabilities of discrete displacements.

    Features of an image are those at every 8th voxel, the first among them. They do not depend on the other image, so
    those of a frame that many are aligned with are computed once (`features`, `between`, `Propagator`). In evaluation
    `stats.numbers` has the share of the probability that lies on the longest displacements along some axis: much of it
    means motion beyond what the network can say.

    Args:
        ndim: 2 or 3.
        half_width: longest displacement along each axis, in steps of 8 voxels.
        pairs: of the Obelisk layer.
        features: channels that are compared.
        channels: of one image.
        memory: bytes that all copies of the costs may take.
    """

    def __init__(
        self,
        ndim: int = 2,
        half_width: int = 5,
        pairs: int = 16,
        features: int = 16,
        channels: int = 1,
        memory: int = 2**31,
    ) -> None:
        super().__init__()
        finish = batch_norm_relu(ndim)
        pooling = nn.AvgPool2d if ndim == 2 else nn.AvgPool3d
        self.pool = pooling(3, 2, 1, count_include_pad=False)
        self.first = convolution(ndim, channels, FIRST, 5, stride=2, padding=2, bias=False)
        self.first_finish = finish(FIRST)
        self.obelisk = Obelisk(ndim, pairs)
        self.mix = convolution(ndim, FIRST * pairs, WIDTHS[0], 1, bias=False)
        self.mix_finish = finish(WIDTHS[0])
        self.around = convolution(ndim, *WIDTHS, 3, stride=2, padding=1, bias=False)
        self.around_finish = finish(WIDTHS[1])
        self.last = convolution(ndim, WIDTHS[1], features, 1)
        self.mean_field = MeanField(half_width)
        self.memory = memory

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        one, two = together(fixed, moving).chunk(2, 1)
        if self.training:  # batch normalisation sees both images at once
            here, there = self.features(torch.cat([one, two])).chunk(2)
        else:
            here, there = self.features(one), self.features(two)
        return self.between(here, there, Pair(fixed, moving))

    def features(self, values: Tensor) -> Tensor:
        """Return features at every 8th voxel, `(B, features, *⌈spatial / 8⌉)`, of `(B, channels, *spatial)`."""
        values = self.first_finish(convolve(self.first, self.pool(values)))
        values = self.mix_finish(convolve(self.mix, self.obelisk(values)))
        values = self.around_finish(convolve(self.around, values))
        with torch.autocast(values.device.type, enabled=False):  # costs are compared to their last bit
            return self.last(values.float())

    def between(self, fixed: Tensor, moving: Tensor, pair: Pair) -> Alignment:
        """Return the alignment of a pair of which `features` are known, those of both on the fixed grid.

        Raises:
            InputError: the costs would take more memory than is allowed.
        """
        half_width = self.mean_field.half_width
        where = offsets(half_width, pair.fixed.grid.ndim, fixed, nearest_first=False)
        needed = 6 * len(where) * fixed[:, 0].numel() * fixed.element_size()
        if needed > self.memory:
            raise InputError(
                f"PDDNet: {len(where)} displacements of {tuple(fixed.shape[2:])} points cost {needed / 1e9:.2g} GB, "
                f"more than the {self.memory / 1e9:.2g} GB allowed: smaller images, half_width or a larger `memory`"
            )
        with torch.autocast(fixed.device.type, enabled=False):
            likely = self.mean_field(lattice_costs(fixed, moving, half_width))
            steps = torch.einsum("bk...,kd->bd...", likely, where)
            found = Displacement(unpooled(steps, STEP, pair.fixed.grid.shape, strided=True), pair.fixed.grid)
        if self.training:
            return Alignment(pair, found)
        edge = likely[:, where.abs().amax(1) == half_width].sum(1).mean()
        return Alignment(pair, found, stats=Stats(numbers={"at the reach": float(edge)}))


class Propagator(nn.Module):
    """A register of frames and one reference, whose features are computed once: `Propagator(net, reference)(frame)`.

    It answers as the network does in evaluation, frame fixed and reference moving, to the last bit. Where a register of
    two images is wanted, it is one: the moving image that is named then is not looked at.

    Args:
        network: is put in evaluation.
        reference: on the grid of all frames.
    """

    def __init__(self, network: PDDNet, reference: Image) -> None:
        super().__init__()
        self.network, self.reference = network.eval(), reference
        with torch.no_grad():
            self.known = network.features(reference.data.float())

    @torch.no_grad()
    def forward(self, frame: Image, reference: Image | None = None) -> Alignment:
        """Return the alignment, frame → reference.

        Raises:
            InputError: a frame on another grid.
        """
        if frame.grid != self.reference.grid:
            raise InputError(f"a frame on {frame.grid}, and the reference on {self.reference.grid}; both must agree")
        pair = Pair(frame, self.reference if reference is None else reference)
        return self.network.between(self.network.features(frame.data.float()), self.known, pair)


@dataclass(frozen=True)
class Distilled:
    """The supervision by labels, and by where a teacher carries the moving labels.

    Nicke et al. 2022: the hard target is the fixed image's labels; the soft one the moving labels, pulled linearly by
    the teacher's answer. Both are compared with the moving labels pulled by the network's answer.

    Attributes:
        teacher: a register that does not learn.
        soft: weight of the soft target.
        hard: energy of the hard one.
        elsewhere: attributes that name another run, which may move until this one is resumed.
    """

    teacher: Register
    soft: float = 0.5
    hard: Energy = field(default_factory=lambda: LabelMSE(background=True))
    elsewhere: ClassVar[tuple[str, ...]] = ("teacher",)

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the terms of `hard`, and the weighted mean squared difference to the teacher's labels as `soft`.

        Raises:
            InputError: labels that both images have are missing.
        """
        guess = seen(pair, register(pair.fixed, pair.moving))
        losses = self.hard.terms(guess)
        if self.soft:
            told = Alignment(pair, answer_of(self.teacher, pair))
            difference = _carried(guess) - _carried(told)
            losses |= {"soft": self.soft * difference.square().mean()}
        return losses


def _carried(alignment: Alignment) -> Tensor:
    """Return the moving labels as the transform carries them, with background, `(B, 1 + labels, *spatial)`."""
    pair, labels = alignment.pair, alignment.pair.moving_labels
    assert labels is not None
    values = labels.data.unique()
    values = values[values > 0].view(1, -1, *[1] * labels.grid.ndim)
    each = Image((labels.data == values).to(pair.moving.data.dtype), labels.grid)
    return with_background(pull(each, alignment.transform, onto=pair.fixed).data)


@dataclass(frozen=True)
class InPhases:
    """The procedure of two trainings: on pairs of near frames first, and then on the pairs of the data.

    Nicke et al. 2022: 100 epochs of 1,743 pairs at a rate of 0.002 on frames 6 apart, 200 of 3,285 at 0.00025 on one
    reference and each 4th frame after it. What the first learned is kept in the task's folder as `first`.

    Attributes:
        first: the pairs of frames of the first phase.
        rate: its learning rate, by that of the second.
        share: its updates, by those of the second.
    """

    first: FramePairs = FramePairs(apart=6)
    rate: float = 8.0
    share: float = 1743 * 100 / (3285 * 200)

    def __call__(self, task: Task) -> nn.Module:
        """Train a network twice; the numbers of the task are those of the second phase."""
        updates, lr = max(1, round(self.share * task.training.updates)), self.rate * task.training.lr
        begun = task.part("first", replace(task.training, updates=updates, lr=lr))
        near = replace(task.examples, pairs=self.first.of(task.examples.cases))
        return task.trained(replace(begun, examples=near).trained(task.make(0)))


METHOD = Method(
    about="labels carried through video: discrete displacements of a small network, which learns from a large one",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "nicke2022realtime",
            "Nicke, Till and Graf, Laura and Lauri, Mikko and Mischkewitz, Sven and Frintrop, Simone and Heinrich, "
            "Mattias P.",
            "Realtime Optical Flow Estimation on Vein and Artery Ultrasound Sequences Based on Knowledge-Distillation",
            "Workshop on Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_15",
        ),
        Paper(
            "heinrich2019closing",
            "Heinrich, Mattias P.",
            "Closing the Gap between Deep and Conventional Image Registration Using Probabilistic Dense Displacement "
            "Networks",
            "Medical Image Computing and Computer Assisted Intervention (MICCAI)",
            2019,
            "10.1007/978-3-030-32226-7_6",
        ),
    ),
    keys=("pdd-net-labels",),
)
