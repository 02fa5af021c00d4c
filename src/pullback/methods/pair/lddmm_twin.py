"""Model-based twins of networks: LDDMM on one pair by the gradient in the space of velocities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from pullback.alignment import Alignment, Pair
from pullback.energies import Energy
from pullback.numerics.kernel import Kernel
from pullback.solvers import Descend
from pullback.space import Dense, Displacement, Grid, Image

MOMENTUM = 0.9
LONGEST = 0.1  # voxels of a step, which the momentum may make ten times as long


@dataclass(frozen=True)
class Twin:
    """The model-based twin of a network: the same energy and kind of field, descended on each pair from no motion on.

    Section 4 compares SVF-GAN with stationary LDDMM and EPDiff-GAN with Flash, which solve the same variational
    problems. Here both are descended by the gradient in V, K times that by voxels (Beg et al. 2005), with momentum:
    other steps are as rough as an image's edges, whose kinetic energy outweighs all else.

    Attributes:
        energy: E, such as `MSE() + Kinetic(kernel)`.
        kind: of the field, as a network's `transform`.
        kernel: K.
        steps: of the descent.
        step_size: share by which a step shortens a velocity that nothing holds, without the momentum; images of strong
            edges want short ones.
        last: size of the last step as a share of the first's.

    Raises:
        InputError: fewer than 0 steps, or a size below 0.
    """

    energy: Energy
    kind: Callable[[Tensor, Grid], Dense]
    kernel: Kernel
    steps: int = 60
    step_size: float = 0.005
    last: float = 0.1

    def __post_init__(self) -> None:
        _ = Descend(self.steps, self.step_size)

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        """Return fixed → moving by a field of the kind; pairs of a batch are descended side by side."""
        pair = Pair(fixed, moving)
        objective = self.energy.on(pair)
        still = Displacement.identity(fixed.grid, fixed.data.expand(pair.batch, *fixed.data.shape[1:]))
        inner = partial(_GradientInV, kernel=self.kernel, spacing=fixed.grid.spacing.tolist())
        found, stats = Descend(self.steps, self.step_size, self.last, inner)(
            lambda at: objective(self.kind(at.field, at.grid)), still
        )
        return Alignment(pair, self.kind(found.field, found.grid), stats=stats)


class _GradientInV(SGD):
    """Descent of velocities by the gradient in V of a mean over voxels and batch."""

    def __init__(self, fields: Sequence[Tensor], lr: float, kernel: Kernel, spacing: Sequence[float]) -> None:
        super().__init__(fields, lr=lr, momentum=MOMENTUM, nesterov=True)
        self.kernel, self.spacing = kernel, spacing

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make a step along K times the gradient of the sum over voxels, of `LONGEST` voxels at most in each pair."""
        for group in self.param_groups:
            for field in group["params"]:
                way = field[:, 0].numel() * self.kernel.smooth(field.grad, self.spacing)
                length = group["lr"] * way.abs().flatten(1).amax(1)
                share = (LONGEST / length.clamp(min=LONGEST)).view(-1, *[1] * (field.ndim - 1))
                field.grad = share * way
        return super().step(closure)
