"""Gradient descent on everything that has parameters."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.optim import SGD, Adam

from pullback.errors import InputError
from pullback.solvers.fused_adam import FusedAdam
from pullback.space import Parametric
from pullback.stats import Stats

Moved = TypeVar("Moved", bound=Parametric)

FULL = 160 * 192 * 224  # voxels of a brain at 1 mm, of which On-the-Fly Guidance is reported
PATIENCE = 3  # windows that a descent may take to gain anything at all


class Optimiser(Protocol):
    """An optimiser that moves parameters by their `grad`: `FusedAdam`, or one of `torch.optim`."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any:
        """Move every parameter once."""
        ...


def adam(parameters: Iterable[Tensor], lr: float) -> Adam:
    """Return torch's Adam in one pass over the parameters, which saves a tenth of a step on a large network."""
    return Adam(parameters, lr=lr, fused=True)


@dataclass(frozen=True)
class Converged:
    """A stop rule: the least value of a descent has fallen too little of late.

    Steps with momentum overshoot and come back, so a value that rises tells nothing unless the window is longer than
    such a swing; that of Adam with its usual constants takes 10 to 20 steps.

    Attributes:
        window: number of last values.
        share: share of all that the descent has gained so far, by which the least value must fall within the window to
            go on.
    """

    window: int = 10
    share: float = 0.02

    def __call__(self, values: Sequence[float]) -> bool:
        if len(values) <= self.window:
            return False
        least = min(values)
        if least == values[0]:  # the first steps may climb before they fall
            return len(values) > PATIENCE * self.window
        return min(values[: -self.window]) - least <= self.share * (values[0] - least)


@dataclass(frozen=True)
class Stalled:
    """A stop rule: the last value is as good as that of `window` values before.

    Attributes:
        window: number of values.
        share: of the first value, by which the last ones have to differ to go on.
    """

    window: int = 5
    share: float = 1e-3

    def __call__(self, values: Sequence[float]) -> bool:
        if len(values) <= self.window:
            return False
        return abs(values[-1] - values[-1 - self.window]) <= self.share * values[0]


@dataclass(frozen=True)
class Descend:
    """A gradient solver: at most `steps` steps of an optimiser on the parameters of a transform, or of anything else.

    Attributes:
        steps: the greatest number of steps.
        step_size: in the units of the parameters; for fields, voxels. The defaults are OFG's (Xin et al. 2024, 3.4).
        last: size of the last step, as a share of the first's; the size falls linearly from step to step.
        optimiser: `optimiser(parameters, lr=step_size)` makes it; Adam moves each component of a field by about
            `step_size` per step, but for those whose derivative is not well above its ε of 1e-8; see `FieldAdam`.
        until: looks at the values so far and says whether to stop; None takes all steps.
        rest: share of the way to the last step. Where the slopes at the start promise a minimum nearer than that, and
            the value rose, they are rounding, and the answer is the start. 0 never asks, nor does a descent `until`.

    Raises:
        InputError: fewer than 0 steps, or a size below 0.
    """

    steps: int = 10
    step_size: float = 0.1
    last: float = 1.0
    optimiser: Callable[..., Optimiser] = FusedAdam
    until: Callable[[Sequence[float]], bool] | None = None
    rest: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 <= self.step_size < math.inf:
            raise InputError(f"Descend: 0 steps or more, of a size of 0 or more; got {self.steps} of {self.step_size}")

    def __call__(self, objective: Callable[[Moved], Tensor], start: Moved) -> tuple[Moved, Stats]:
        """Return the answer after the last step, or with `until` the best that was seen, and the descent's statistics.

        `start` stays as it is, and no gradient connects the answer with it. With `until`, the descent also stops where
        the value is no longer finite. Without, and with `rest`, the answer is the start where that is at the minimum
        already, but for rounding: Adam makes steps of full size of any slope.
        """
        params = [p.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for p in start.params]
        optimiser = self.optimiser(params, lr=self.step_size)
        rates = [group["lr"] for group in optimiser.param_groups]  # the optimiser's own, where its groups differ
        values: list[float] = []
        energies: list[Tensor] = []  # read in the end, so that no step waits for the device
        best: Sequence[Tensor] = params
        slopes: Sequence[Tensor] = ()
        steps, stopped = self.steps, "steps"
        with torch.enable_grad():
            for step in range(self.steps):
                value = objective(start.with_params(*params))
                energies.append(value.detach())
                if self.until is not None:
                    values.append(float(value.detach()))
                    if not math.isfinite(values[-1]):
                        steps, stopped = step, "not finite"
                        break
                    if values[-1] <= min(values):
                        best = [p.detach().clone() for p in params]
                    if self.until(values):
                        steps, stopped = step, "converged"
                        break
                here = [g.contiguous() for g in torch.autograd.grad(value, params)]  # fused Adam knows no strides
                slopes = slopes or here
                for param, grad in zip(params, here, strict=True):
                    param.grad = grad
                share = 1 - (1 - self.last) * step / max(self.steps - 1, 1)
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                optimiser.step()
        if self.until is None and self.rest and slopes:
            best = _unless_at_rest(start.params, best, slopes, energies[-1] - energies[0], self.rest)
        told = torch.stack(energies) if energies else torch.zeros(0)
        return start.with_params(*(p.detach() for p in best)), Stats(energies=told, steps=steps, stopped=stopped)


def _unless_at_rest(
    start: Sequence[Tensor], end: Sequence[Tensor], slopes: Sequence[Tensor], rise: Tensor, rest: float
) -> Sequence[Tensor]:
    """Return the end of a descent, or its start where the value rose and the slopes there had promised next to nothing.

    1. The promise p is that of the slopes over the whole way.
    2. By the parabola −p t + (p + rise) t² over the share t of the way, the bottom lies at p / 2 (p + rise).
    3. At less than `rest`, the slopes are rounding.

    It has no unit, and does not wait for the device.
    """
    ways = zip(start, end, slopes, strict=True)
    promise = torch.stack([((a.detach() - b.detach()) * slope).sum() for a, b, slope in ways]).sum()
    at_rest = promise < 2 * rest * (promise + rise)
    return [torch.where(at_rest, a, b) for a, b in zip(start, end, strict=True)]


@dataclass(frozen=True)
class FieldAdam:
    """Adam on fields, for `Descend.optimiser`, that acts alike on images of any size.

    Energies are means over voxels, so derivatives of larger images are smaller, and Adam's ε damps those that are not
    well above it: at 160×192×224 voxels, ε = 1e-8 lets three in four components of a field move less than half a step,
    the less the flatter the image is there. Here ε is compared with the derivative of the energy's sum over voxels, so
    that on small images, too, little moves where nothing can be seen. Otherwise it would move there as far as anywhere,
    by the regularity or by the noise. For a batch of pairs the energy is a mean over all their voxels, so all of them
    are counted, and each field moves as it would alone.

    Attributes:
        eps: the slope at a voxel at which its step is halved. The default is 1e-8 at 160×192×224 voxels; larger ones
            let edges count for more, down to plain gradient descent.

    Raises:
        InputError: an ε below 0.
    """

    eps: float = FULL / 1e8

    def __post_init__(self) -> None:
        if not 0 <= self.eps < math.inf:
            raise InputError(f"FieldAdam: an eps of 0 or more, got {self.eps}")

    def __call__(self, parameters: Iterable[Tensor], lr: float) -> FusedAdam:
        return FusedAdam([{"params": [p], "eps": self.eps / p[:, 0].numel()} for p in parameters], lr)


def summed_sgd(parameters: Iterable[Tensor], lr: float) -> SGD:
    """Return gradient descent on sums over voxels, for `Descend.optimiser`, of energies that are means.

    So one `lr` fits images of any size; the number of a field's components stands for that of voxels.
    """
    return SGD([{"params": [p], "lr": lr * p.numel()} for p in parameters])
