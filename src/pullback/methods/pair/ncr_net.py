"""NCR-Net: one network aligns two images, and marks what of the fixed one has no counterpart in the moving one.

Andresen, Kepp, Ehrhardt, von der Burchard, Roider, Handels: Deep learning-based simultaneous registration and
unsupervised non-correspondence segmentation of medical images with pathologies, IJCARS 17:699, 2022; abstract at WBIR
2022. A U-Net with one encoder and two decoders: one answers with a velocity, the other with a map S from 0 to 1 on the
fixed grid. S switches the image distance D off, and pays for its volume and its perimeter (eq. 2), so that no lesion is
ever outlined:

    mean (1 − S) D + α R(v) + β (mean S + γ mean |∇S|) + λ L

Without the perimeter S is 1 where D > β, so β is the residual above which a voxel counts as without a counterpart. A
region of area A, perimeter P and mean excess E of D over β is marked where A E > β γ P: a disc whose radius is above
2 β γ / E, a ball above 3 β γ / E (by Chan, Esedoḡlu & Nikolova 2006 the relaxed problem solves the binary one).

The abstract leaves most open. Parts and widths are those of the group's next network (ANCR-Net, public code), without
its difference image and dropout; where it is silent too, this was decided:

1. Terms are means over voxels, not sums, so that weights do not depend on the size of the image. γ is in voxels of the
   full grid at all three levels of resolution, whose losses weigh 0.7, 0.2 and 0.1.
2. D is the squared difference of intensities 0 … 1 per voxel; `LocalCorrelation` is another. A global correlation, as
   in that code, has no value per voxel, and gives β no meaning.
3. The two phases are a schedule: before `begin` S is not looked at, and no gradient reaches its decoder.
4. β is measured after the first phase (`InTwoPhases`), and γ follows from the smallest lesion of interest.
5. Convolutions are padded by zeros, as everywhere here. L, of labels of both images, is of the full size alone.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, Register, seen
from pullback.energies import Diffusion, Energy
from pullback.energies.lncc import EPS
from pullback.energies.similarity import masked_mean
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import Decoder, Encoder, Network, batch_norm_relu, convolution, linear_up, max_pooling, together
from pullback.networks.up import Convolved, Finish
from pullback.numerics.smooth import box_sum
from pullback.records.manifest import write_json
from pullback.space import Affine, Grid, Image, Velocity, pull
from pullback.training import PairEvaluation, Task, align, device_of

MAP = "non_correspondence"
LEVELS = (0.7, 0.2, 0.1)  # weights of the losses, fine to coarse
LEAST = 17  # voxels: of fewer, four halvings leave nothing to normalise
LOW = 0.25  # of β, where it begins to rise
SLOPE = 1e-3  # below it |∇S| is smooth
OFF = 4.0  # times: a β further from what is usual is warned of
TOLD = 2_000_000  # residuals of all pairs, of which a quantile is taken


# ---- the network


@dataclass(frozen=True, eq=False)
class MarkedAlignment(Alignment):
    """An alignment with a map of what has no counterpart, and the same of the images at lower resolution.

    Attributes:
        coarser: at a half and a quarter of the resolution, each with a map of its own.
    """

    coarser: tuple[Alignment, ...] = ()


class NCRNet(Network):
    """A register of images of one dimension that also marks where the fixed one shows what the moving one lacks.

    The answer's map `non_correspondence` is S, 0 … 1. Images may have any size.

    Args:
        ndim: 2 or 3.
        width: n: channels are n to 16 n. In 2-D there are 1,022,833 weights with 8, and 575,907 with 6.
        channels: of one image.
        finish: what follows each convolution; with batches of one pair `instance_norm_relu` is the same in training
            and after it.
        start: of the map's logits, so that training begins with little marked.
    """

    def __init__(
        self,
        ndim: int,
        width: int = 8,
        channels: int = 1,
        finish: Callable[[int], Finish] = batch_norm_relu,
        start: float = -2.0,
    ) -> None:
        super().__init__()
        n = width
        self.ndim, block, down = ndim, _Blocks(finish, width), (n, 3 * n, 4 * n, 8 * n, 16 * n)
        self.encoder = Encoder(ndim, 2 * channels, down, block, max_pooling)
        self.moving = Decoder(ndim, down, (8 * n, 6 * n, 4 * n), block, linear_up)
        self.marking = Decoder(ndim, down, (8 * n, 6 * n, 4 * n, 2 * n), block, linear_up)
        self.velocities = nn.ModuleList(_velocity_head(ndim, k * n) for k in (4, 6, 8))
        self.maps = nn.ModuleList(_map_head(ndim, k * n, start) for k in (2, 4, 6))
        self.up = linear_up(ndim, ndim, ndim)

    def forward(self, fixed: Image, moving: Image) -> MarkedAlignment:
        features = self.encoder(together(fixed, moving))
        motions, marks = self.moving(features), self.marking(features)[: len(LEVELS)]
        with torch.autocast(fixed.data.device.type, enabled=False):  # bfloat16 would round the field to 1/64 voxel
            pairs = _levels(fixed, moving)
            first, *coarser = (
                self._level(level, head(motion.float()), torch.sigmoid(mark_head(mark.float())))
                for level, head, motion, mark_head, mark in zip(
                    pairs, self.velocities, motions, self.maps, marks, strict=True
                )
            )
        return MarkedAlignment(first.pair, first.transform, first.maps, coarser=tuple(coarser))

    def _level(self, pair: Pair, velocity: Tensor, mark: Tensor) -> Alignment:
        """Return the answer at a level, by a velocity in its voxels on a lattice of half its size."""
        grid = pair.fixed.grid
        return Alignment(pair, Velocity(self.up(velocity, grid.shape), grid), {MAP: Image(mark, grid)})


@dataclass(frozen=True)
class _Blocks:
    """Blocks of two 3ᵈ convolutions, with as many channels between them as that network has.

    Attributes:
        finish: as of `NCRNet`.
        width: n.
    """

    finish: Callable[[int], Finish]
    width: int

    def __call__(self, ndim: int, before: int, after: int) -> nn.Sequential:
        up = {24: 12, 12: 8, 9: 6, 5: 4}  # of decoders, by channels before; an encoder's have those after
        between = up.get(before // self.width, after // self.width) * self.width if before > after else after
        ways = ((before, between), (between, after))
        return nn.Sequential(*(Convolved(ndim, one, two, self.finish(ndim)) for one, two in ways))


def _head(ndim: int, channels: int, after: int) -> tuple[nn.Sequential, nn.Conv2d | nn.Conv3d]:
    """Return two convolutions of one voxel, to `after` channels, and the last of them."""
    last = convolution(ndim, channels // 2, after, 1)
    return nn.Sequential(convolution(ndim, channels, channels // 2, 1), nn.ReLU(inplace=True), last), last


def _velocity_head(ndim: int, channels: int) -> nn.Sequential:
    """Return a head that starts near 0, so that an untrained network hardly moves."""
    head, last = _head(ndim, channels, ndim)
    nn.init.normal_(last.weight, std=1e-5)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return head


def _map_head(ndim: int, channels: int, start: float) -> nn.Sequential:
    head, last = _head(ndim, channels, 1)
    assert last.bias is not None
    nn.init.constant_(last.bias, start)
    return head


def _levels(fixed: Image, moving: Image) -> list[Pair]:
    """Return the images at full size, and both on the fixed grid at a half and a quarter, as means over voxels."""
    pairs, there = [Pair(fixed, moving)], moving
    if moving.grid != fixed.grid:
        there = pull(moving, Affine.identity(fixed.grid.ndim), onto=fixed)
    for _ in LEVELS[1:]:
        fixed, there = _halved(fixed), _halved(there)
        pairs.append(Pair(fixed, there))
    return pairs


def _halved(image: Image) -> Image:
    """Return the means of 2ᵈ voxels, of fewer at the end; masked where one of them is."""
    d, pool = image.grid.ndim, F.avg_pool2d if image.grid.ndim == 2 else F.avg_pool3d
    step = torch.eye(d + 1, dtype=torch.float64)
    step[:-1] *= 2
    step[:-1, -1] = 0.5
    data = pool(image.data, 2, ceil_mode=True)
    mask = None if image.mask is None else pool(image.mask.to(data), 2, ceil_mode=True) == 1
    return Image(data, Grid(tuple(data.shape[2:]), image.grid.affine @ step.to(image.grid.affine)), mask)


# ---- the supervision


def squared(fixed: Tensor, moved: Tensor) -> Tensor:
    """Return squared differences `(B, 1, *spatial)`, a mean over the channels of `(B, C, *spatial)`."""
    return (fixed - moved).square().mean(1, keepdim=True)


@dataclass(frozen=True)
class LocalCorrelation:
    """The squared correlation in a window about each voxel, taken off 1, as a distance per voxel of any contrast.

    Attributes:
        window: odd edge length, in voxels.
    """

    window: int = 9

    def __call__(self, fixed: Tensor, moved: Tensor) -> Tensor:
        """Return distances `(B, 1, *spatial)`, 0 … 1, a mean over the channels of `(B, C, *spatial)`."""
        n = box_sum(torch.ones_like(fixed[:1, :1]), self.window)
        centre = (
            fixed.mean(tuple(range(2, fixed.ndim)), keepdim=True),
            moved.mean(tuple(range(2, moved.ndim)), keepdim=True),
        )
        i, j = fixed - centre[0], moved - centre[1]
        i_sum, j_sum = box_sum(i, self.window), box_sum(j, self.window)
        cross = box_sum(i * j, self.window) - i_sum * j_sum / n
        v, w = (box_sum(x * x, self.window) - s * s / n for x, s in ((i, i_sum), (j, j_sum)))
        return (1 - cross.square() / (v.clamp(min=0) * w.clamp(min=0) + EPS)).clamp(0, 1).mean(1, keepdim=True)


@dataclass(frozen=True)
class Corresponding:
    """The supervision by eq. 2, and until `begin` by eq. 1, in which S has no part.

    Attributes:
        beta: β, the distance above which a voxel counts as without a counterpart; `InTwoPhases` measures it.
        gamma: γ, in voxels: of a perimeter against an area.
        regularity: α, of the roughness of the velocity.
        distance: D, from the fixed and the moved image `(B, C, *spatial)` to `(B, 1, *spatial)`.
        begin: the share of the training after which S is looked at.
        rise: the share of what is left during which β grows, from a quarter of it: S appears late, or never, where a
            lesion's residual is hardly above β from the start.
        guide: λ L, an energy such as `SoftDice()` of masks of both images given as labels; None leaves it out.

    Raises:
        InputError: β of 0 or less, γ or α below 0, or a begin or rise that is no share.
    """

    beta: float = 0.05
    gamma: float = 0.5
    regularity: float = 0.05
    distance: Callable[[Tensor, Tensor], Tensor] = squared
    begin: float = 0.4
    rise: float = 0.5
    guide: Energy | None = None

    def __post_init__(self) -> None:
        shares = 0 <= self.begin <= 1 and 0 <= self.rise <= 1
        if not (self.beta > 0 and self.gamma >= 0 and self.regularity >= 0 and shares):
            raise InputError(
                f"Corresponding: beta above 0, gamma and regularity of 0 or more, begin and rise as shares from 0 to 1 "
                f"expected, got {self.beta:g}, {self.gamma:g}, {self.regularity:g}, {self.begin:g} and {self.rise:g}"
            )

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the losses by name: `image`, `diffusion`, `volume`, `perimeter`, and those of the guide.

        Raises:
            TypeError: an answer without a map, as that of any other network.
            InputError: images of fewer than 17 voxels along an axis; or as of the guide.
        """
        if min(pair.fixed.grid.shape) < LEAST:
            raise InputError(
                f"{pair.name or 'a pair'}: images of {LEAST} voxels or more along each axis expected to learn from, "
                f"got {pair.fixed.grid.shape}"
            )
        answer = register(pair.fixed, pair.moving)
        if not isinstance(answer, MarkedAlignment):
            raise TypeError(f"Corresponding: a network that answers with a map expected, as NCRNet, got {answer!r}")
        whole = seen(pair, answer)
        finest = float(pair.fixed.grid.spacing.min())
        losses: dict[str, Tensor] = {}
        beta = self.weight(progress)
        for share, level in zip(LEVELS, (whole, *answer.coarser), strict=True):
            for name, value in self.terms(level, finest, beta).items():
                losses[name] = losses[name] + share * value if name in losses else share * value
        return losses | ({} if self.guide is None else self.guide.terms(whole))

    def weight(self, progress: float) -> float | None:
        """Return β at some progress of the training; None where S is not looked at."""
        if progress < self.begin or self.begin == 1:
            return None
        risen = (progress - self.begin) / (1 - self.begin)
        return self.beta if risen >= self.rise else self.beta * (LOW + (1 - LOW) * risen / self.rise)

    def terms(self, level: Alignment, finest: float, beta: float | None) -> dict[str, Tensor]:
        """Return the terms of one level.

        Args:
            level: an alignment with its map.
            finest: the least edge of a voxel of the full grid, mm, in units of which a perimeter is.
            beta: β; None does not look at S.
        """
        distance, mark = self.distance(level.pair.fixed.data, level.moved.data), level.maps[MAP].data
        smooth = (self.regularity * Diffusion()).terms(level)
        if beta is None:
            nothing = distance.new_zeros(())
            return {"image": masked_mean(distance, level.mask), **smooth, "volume": nothing, "perimeter": nothing}
        edges = (level.pair.fixed.grid.spacing / finest).tolist()
        return {
            "image": masked_mean((1 - mark) * distance, level.mask),
            **smooth,
            "volume": beta * mark.mean(),
            "perimeter": beta * self.gamma * steepness(mark, edges).mean(),
        }


def steepness(values: Tensor, edges: Sequence[float]) -> Tensor:
    """Return |∇S| of `(B, 1, *spatial)` by forward differences, the last of which along an axis is 0.

    `edges` are a voxel's along each axis; the sum over voxels is a perimeter, or a surface, in units of their faces.
    """
    squares = torch.zeros_like(values)
    for axis, edge in enumerate(edges, start=2):
        last = [0, 0] * (values.ndim - 1 - axis) + [0, 1]
        squares = squares + F.pad(values.diff(dim=axis) / edge, last).square()
    return (squares + SLOPE**2).sqrt() - SLOPE


# ---- β and γ from data


def usual_distance(
    register: Register,
    pairs: Sequence[Pair],
    distance: Callable[[Tensor, Tensor], Tensor] = squared,
    quantile: float = 0.95,
) -> float:
    """Return a quantile of the distances that a register leaves in the foreground of pairs, without known lesions.

    The foreground is where the fixed or the moved image, within their masks, is above its least intensity.

    Raises:
        InputError: no pairs, none with a foreground, or no such quantile.
    """
    if not pairs or not 0 < quantile < 1:
        raise InputError(f"a quantile between 0 and 1 and one pair or more expected, got {quantile:g}, {len(pairs)}")
    found, each = [], TOLD // len(pairs)
    for pair in pairs:
        alignment = align(register, pair.to(device_of()))
        fixed, moved = alignment.pair.fixed.data, alignment.moved.data
        lit = ((fixed > fixed.amin()) | (moved > moved.amin())).any(1, keepdim=True)
        for mask in (alignment.mask, None if alignment.pair.lesion is None else alignment.pair.lesion.data == 0):
            lit = lit if mask is None else lit & mask
        values = distance(fixed, moved)[lit]
        found.append(values[:: max(1, -(-len(values) // each))].double().cpu())
    every = torch.cat(found).sort().values
    if not len(every):
        raise InputError("no pair has a foreground, so no distance is usual: are the images constant?")
    return float(every[int(quantile * (len(every) - 1))])


def least_ratio(radius: float, ndim: int, excess: float = 1.0) -> float:
    """Return γ with which discs or balls of this radius, in voxels, are just marked, where D − β is `excess` β."""
    return radius * excess / ndim


@dataclass(frozen=True)
class InTwoPhases:
    """The procedure of two trainings: by eq. 1 until `begin` of the supervision, then by eq. 2 with a β from data.

    β is a quantile of the distances that the first leaves in the foreground of the validation pairs; γ follows from the
    smallest lesion of interest. Both are written to `chosen.json`. What the first learned is kept as `first`.

    Attributes:
        quantile: of the distances; None keeps the supervision's β and γ, and warns where β is far from usual.
        radius: of the smallest lesion of interest, in voxels, whose D is 2 β; None keeps γ.

    Raises:
        InputError: no such quantile, or a radius of 0 or less.
    """

    quantile: float | None = 0.95
    radius: float | None = None

    def __post_init__(self) -> None:
        if not 0 < (0.95 if self.quantile is None else self.quantile) < 1 or (self.radius or 1) <= 0:
            raise InputError(
                f"InTwoPhases: a quantile between 0 and 1 and a radius above 0 expected, got {self.quantile} and "
                f"{self.radius}"
            )

    def __call__(self, task: Task) -> nn.Module:
        """Train a network twice, with as many updates in all as the task has.

        Raises:
            TypeError: another supervision than `Corresponding`.
            InputError: a supervision without a first phase, or pairs without an evaluation.
        """
        taught, numbers = task.supervision, task.training
        if not isinstance(taught, Corresponding):
            raise TypeError(f"InTwoPhases: the supervision Corresponding expected, got {taught!r}")
        updates = round(taught.begin * numbers.updates)
        if not 0 < updates < numbers.updates or not isinstance(task.evaluation, PairEvaluation):
            raise InputError(
                f"InTwoPhases: updates before and after supervision.begin and validation pairs to measure β on "
                f"expected, got {updates} of {numbers.updates} before; with begin=0 take a β, and the procedure Once"
            )
        first = replace(task.part("first", replace(numbers, updates=updates)), supervision=replace(taught, begin=1.0))
        network = first.trained(task.make(0)).to(device_of())
        chosen = self._chosen(taught, network, list(task.evaluation.pairs))
        if task.out is not None:
            write_json({"beta": chosen.beta, "gamma": chosen.gamma}, task.out / "chosen.json")
        if task.console is not None:
            task.console.print(f"beta {chosen.beta:.3g}, gamma {chosen.gamma:.3g} voxels", highlight=False)
        rest = replace(numbers, updates=numbers.updates - updates)
        return replace(task, training=rest, supervision=replace(chosen, begin=0.0)).trained(network.cpu())

    def _chosen(self, taught: Corresponding, network: nn.Module, pairs: Sequence[Pair]) -> Corresponding:
        usual = usual_distance(network, pairs, taught.distance, self.quantile or 0.95)
        if self.quantile is None:
            if not usual / OFF <= taught.beta <= usual * OFF:
                warnings.warn(
                    f"supervision.beta={taught.beta:g} is far from the distances of healthy pairs, of which 95 % are "
                    f"below {usual:.2g}: try beta={usual:.2g}",
                    UserWarning,
                    stacklevel=2,
                )
            return taught
        if usual <= 0:
            raise InputError("the validation images lie on each other without a residual: there is no β to be measured")
        gamma = taught.gamma if self.radius is None else least_ratio(self.radius, pairs[0].fixed.grid.ndim)
        return replace(taught, beta=usual, gamma=gamma)


METHOD = Method(
    about="a network that aligns, and marks what has no counterpart: lesions that nobody has outlined",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "andresen2022deep",
            "Andresen, Julia and Kepp, Timo and Ehrhardt, Jan and von der Burchard, Claus and Roider, Johann and "
            "Handels, Heinz",
            "Deep learning-based simultaneous registration and unsupervised non-correspondence segmentation of medical "
            "images with pathologies",
            "International Journal of Computer Assisted Radiology and Surgery",
            2022,
            "10.1007/s11548-022-02577-4",
            "article",
            "17",
            "699--710",
        ),
    ),
    keys=("ncr-net-within",),
)
