"""The contract of supervisions."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from pullback.example import Example, Supervision
from pullback.testing.contract import Untouched, check_finite, require
from pullback.training import seeded

SEED = 7


def check_supervision(supervision: Supervision, network: Callable[[], nn.Module], example: Example) -> None:
    """Hold a supervision against its contract, on one example, at the start of a training, within it and at its end.

    Losses are finite scalars with names; their sum has a gradient that is finite and reaches the network; the same
    weights, generator and example give the same losses; example and weights stay as they are; and whatever it
    remembers from update to update is in its `state_dict`, so that a training can be resumed.

    Args:
        supervision: what is checked; it is left as it was.
        network: makes a network for it, by random weights.
        example: that it learns from.

    Raises:
        BrokenContract: a promise was not kept.
    """
    where = f"{type(supervision).__name__} on {type(example).__name__} {example.name}".strip()
    fresh, used = deepcopy(supervision), deepcopy(supervision)
    for progress in (0.0, 0.5, 1.0):
        _check_losses(used, network, example, progress, f"{where} at progress {progress:g}")
    if isinstance(used, nn.Module) and isinstance(fresh, nn.Module):
        fresh.load_state_dict(used.state_dict())
    one, other = (_losses(each, _made(network), example, 0.5) for each in (used, fresh))
    _require_same(one, other, where, "the losses of one whose state was kept and restored")


def _check_losses(
    supervision: Supervision, network: Callable[[], nn.Module], example: Any, at: float, where: str
) -> None:
    learner = _made(network)
    weights = dict(learner.named_parameters())
    untouched = Untouched(example, list(weights.values()))
    terms = _losses(supervision, learner, example, at)
    require(len(terms) > 0, where, "losses", "none")
    for name, value in terms.items():
        scalar = isinstance(name, str) and value.ndim == 0
        require(scalar, where, "scalars with names", f"{name!r} of shape {tuple(value.shape)}")
        check_finite(value, where, f"losses ({name})")
    total = torch.stack([value for name, value in terms.items() if "/" not in name]).sum()
    require(total.requires_grad, where, "losses with a gradient", "a constant")
    total.backward()
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    for name, gradient in gradients.items():
        check_finite(gradient, where, f"gradients ({name})")
    reached = any(bool(gradient.any()) for gradient in gradients.values())
    require(reached, where, "a gradient that reaches the network", "none but zeros")
    untouched.check(where)
    _require_same(terms, _losses(supervision, _made(network), example, at), where, "the same losses for one generator")


def _made(network: Callable[[], nn.Module]) -> nn.Module:
    with seeded(SEED):
        return network()


def _losses(supervision: Any, network: nn.Module, example: Any, progress: float) -> dict[str, Tensor]:
    with seeded(SEED, 1):
        return dict(supervision(network, example, progress))


def _require_same(one: dict[str, Tensor], other: dict[str, Tensor], where: str, promised: str) -> None:
    values = [{name: float(value.detach()) for name, value in terms.items()} for terms in (one, other)]
    require(values[0] == values[1], where, promised, f"{values[0]} and then {values[1]}")
