"""Supervision by what has no counterpart: how NCR-Net learns to align, and to mark (`ncr_net`).

Its map S, 0 to 1, switches the image distance D off, and pays for its volume and its perimeter (eq. 2 of Andresen et
al. 2022), so that no lesion is ever outlined:

    mean (1 − S) D + α R(v) + β (mean S + γ mean |∇S|) + λ L

Without the perimeter S is 1 where D > β, so β is the residual above which a voxel counts as without a counterpart. A
region of area A, perimeter P and mean excess E of D over β is marked where A E > β γ P: a disc whose radius is above
2 β γ / E, a ball above 3 β γ / E (by Chan, Esedoḡlu & Nikolova 2006 the relaxed problem solves the binary one).

Where the abstract and the code of the group's next network are silent or differ, this was decided:

1. Terms are means over voxels, not sums, so that weights do not depend on the size of the image. γ is in voxels of the
   full grid at all three levels of resolution, whose losses weigh 0.7, 0.2 and 0.1.
2. D is the squared difference of intensities 0 … 1 per voxel; `LocalCorrelation` is another. A global correlation, as
   in that code, has no value per voxel, and gives β no meaning.
3. The two phases are a schedule: before `begin` S is not looked at, and no gradient reaches its decoder.
4. β is measured after the first phase (`InTwoPhases`), and γ follows from the smallest lesion of interest. In the
   second phase β rises, or S may never appear.
5. L, of labels of both images, is of the full size alone.
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
from pullback.methods.pair.ncr_net import MAP, MarkedAlignment
from pullback.numerics.smooth import box_sum
from pullback.records.manifest import write_json
from pullback.training import PairEvaluation, Task, align, device_of

SHARES = (0.7, 0.2, 0.1)  # of the losses of levels, fine to coarse
LEAST = 17  # voxels: of fewer, four halvings leave nothing to normalise
LOW = 0.25  # of β, where it begins to rise
SLOPE = 1e-3  # below it |∇S| is smooth
OFF = 4.0  # times: a β further from what is usual is warned of
TOLD = 2_000_000  # residuals of all pairs, of which a quantile is taken


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
        axes = tuple(range(2, fixed.ndim))
        i, j = (image - image.mean(axes, keepdim=True) for image in (fixed, moved))  # small before they are squared
        i_sum, j_sum = box_sum(i, self.window), box_sum(j, self.window)
        c = box_sum(i * j, self.window) - i_sum * j_sum / n
        v, w = ((box_sum(x * x, self.window) - s * s / n).clamp(min=0) for x, s in ((i, i_sum), (j, j_sum)))
        return (1 - c.square() / (v * w + EPS)).clamp(0, 1).mean(1, keepdim=True)


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
        for share, level in zip(SHARES, (whole, *answer.coarser), strict=True):
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
