"""Adam for descents."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class FusedAdam:
    """Adam (Kingma & Ba 2015) by torch's fused kernel, in one pass over memory: `torch.optim.Adam`, bit by bit.

    The first optimiser of `torch.optim` loads torch's compiler, for a second or more, which is long beside the
    alignment of two files.

    Args:
        parameters: what moves, or groups as `torch.optim` has them: `{"params": [...], "lr": …, "eps": …}`.
        lr: about the length of a step.
        betas: how much of the mean gradient and of the mean square remains at each step.
        eps: a gradient at which a step is halved.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        given = list(parameters)
        groups = [one for one in given if isinstance(one, Mapping)] or [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [{"lr": lr, "betas": betas, "eps": eps, **group} for group in groups]
        self._means = [[torch.zeros_like(p) for p in group["params"]] for group in groups]
        self._squares = [[torch.zeros_like(p) for p in group["params"]] for group in groups]
        self._steps = [
            [torch.zeros((), dtype=torch.float32, device=p.device) for p in group["params"]] for group in groups
        ]

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its `grad`."""
        for group, means, squares, steps in zip(
            self.param_groups, self._means, self._squares, self._steps, strict=True
        ):
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                group["params"],
                [p.grad for p in group["params"]],
                means,
                squares,
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=0.0,
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
