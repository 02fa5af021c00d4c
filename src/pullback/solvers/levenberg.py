"""Damped scoring: Levenberg's steps for few parameters of which slope and curvature are known, a batch at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.stats import Stats

Curved = tuple[Tensor, Tensor, Tensor]
"""A value `(B,)`, its slope `(B, K)`, and a curvature `(B, K, K)` that is positive, such as the expected one."""


@dataclass(frozen=True)
class Levenberg:
    """A solver of B small problems at once (Levenberg 1944, with the scaling of Marquardt 1963).

    The step solves (H + λ diag H) δ = −g. Where the value falls it is taken and λ is a tenth, else λ is ten times as
    large: no problem's value ever rises, and none sees the others.

    Attributes:
        steps: the greatest number of steps.
        damping: λ at the start.
        until: the length of a step, in units of the parameters, below which a problem has converged.

    Raises:
        InputError: fewer than 0 steps, or a damping that is not above 0.
    """

    steps: int = 12
    damping: float = 1e-3
    until: float = 0.005

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.damping > 0:
            raise InputError(
                f"Levenberg: 0 steps or more and a damping above 0 expected, got {self.steps} and {self.damping}"
            )

    @torch.no_grad()
    def __call__(self, objective: Callable[[Tensor], Curved], start: Tensor) -> tuple[Tensor, Stats]:
        """Return the parameters `(B, K)` of the least values that were seen, and the sum of these by step."""
        here, damping = start, torch.full((len(start),), self.damping, dtype=start.dtype, device=start.device)
        value, slope, curvature = objective(here)
        values, stopped, steps = [value.double().sum()], "steps", 0
        moving = torch.ones_like(value, dtype=torch.bool)
        for _ in range(self.steps):
            diagonal = curvature.diagonal(dim1=1, dim2=2)
            ridge = torch.diag_embed(damping[:, None] * diagonal + torch.finfo(diagonal.dtype).tiny)
            step = torch.linalg.lstsq(curvature + ridge, -slope[..., None]).solution[..., 0]
            trial = objective(here + step)
            steps += 1
            better = moving & (trial[0] <= value)
            here = torch.where(better[:, None], here + step, here)
            value = torch.where(better, trial[0], value)
            slope = torch.where(better[:, None], trial[1], slope)
            curvature = torch.where(better[:, None, None], trial[2], curvature)
            damping = torch.where(better, damping / 10, damping * 10)
            values.append(value.double().sum())
            moving = moving & (step.norm(dim=1) > self.until)
            if not moving.any():
                stopped = "converged"
                break
        return here, Stats(energies=torch.stack(values), steps=steps, stopped=stopped)
