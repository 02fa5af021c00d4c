"""One gradient solver for everything that has parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.optim import Adam, Optimizer

from pullback.alignment import Objective
from pullback.space import Transform

Some = TypeVar("Some", bound=Transform)


@dataclass(frozen=True)
class Descend:
    """`steps` steps of an optimiser on the parameters of a transform.

    Attributes:
        steps: how many.
        step_size: in the units of the parameters; for fields, voxels. The defaults are OFG's (Xin et al. 2024, 3.4).
        optimiser: `optimiser(parameters, lr=step_size)` makes it; Adam moves each component of a field by about
            `step_size` per step, whatever the scale of the objective.
    """

    steps: int = 10
    step_size: float = 0.1
    optimiser: Callable[..., Optimizer] = Adam

    def __call__(self, objective: Objective, start: Some) -> Some:
        """The transform after the last step. `start` stays as it is, and nothing connects the answer to its history."""
        params = [p.detach().clone().requires_grad_() for p in start.params]
        optimiser = self.optimiser(params, lr=self.step_size)
        with torch.enable_grad():
            for _ in range(self.steps):
                value = objective(start.with_params(*params))
                for param, grad in zip(params, torch.autograd.grad(value, params), strict=True):
                    param.grad = grad
                optimiser.step()
        return start.with_params(*(p.detach() for p in params))
