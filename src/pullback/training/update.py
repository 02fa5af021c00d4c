"""An update: the turns of the players, on their examples."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pullback.example import Example, Supervision
from pullback.training.measure import mean_of
from pullback.training.player import Losses, Player

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Step(nn.Module):
    """The network and the supervision as one forward pass, which Fabric wraps, on one device or on many.

    The example comes in a closure because Fabric takes apart the dataclasses it finds among the arguments. Reduced
    precision, where asked for, is the network's alone.
    """

    def __init__(
        self,
        network: nn.Module,
        supervision: Supervision,
        autocast: Callable[[], AbstractContextManager],
        device: torch.device,
    ) -> None:
        super().__init__()
        self.network = network
        self.supervision = supervision
        self.autocast = autocast
        self.device = device

    def forward(self, example: Callable[[], Example], progress: float, losses: Losses | None) -> dict[str, Tensor]:
        def network(*seen: Any, **more: Any) -> Any:
            with self.autocast():
                return self.network(*seen, **more)

        known = example()
        with torch.autocast(self.device.type, enabled=False):
            if losses is None:
                return self.supervision(network, known, progress)
            return losses(self.supervision, network, known, progress)


@dataclass(frozen=True, eq=False)
class Hand:
    """A player at work: those of its weights that learn, and the optimiser of all of them."""

    player: Player
    weights: Sequence[nn.Parameter]
    optimiser: Optimizer

    def pace(self, progress: float, factor: float | None) -> None:
        """Set the learning rate for this progress; `factor` is that of a plateau, None where there is none."""
        if self.player.schedule is None and factor is None:
            return
        scheduled = 1.0 if self.player.schedule is None else self.player.schedule(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * scheduled * (1.0 if factor is None else factor)

    def step(self) -> None:
        """Step along the gradient, scaled to be no longer than the player's `clip`."""
        if self.player.clip is not None:
            shorten(self.weights, self.player.clip)
        self.optimiser.step()


def update(
    fabric: "Fabric",
    step: nn.Module,
    hands: Sequence[Hand],
    examples: Iterable[Example],
    count: int,
    number: int,
    progress: float,
    factor: float | None,
) -> dict[str, float]:
    """Make one step of all players whose turn it is; return the loss and the terms, means over the examples.

    Args:
        hands: the network's first.
        examples: `count` of them.
        number: of the update, from 0.
        factor: as in `Hand.pace`.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    due = [hand for hand in hands if number % hand.player.every == 0]
    for hand in due:
        hand.pace(progress, factor)
    own = [hand for hand in due if hand.player.losses is not None]
    known = list(examples) if own else examples  # one after the other, where they are needed once
    values = _turn(fabric, step, [hand for hand in due if hand.player.losses is None], known, count, progress)
    for hand in own:
        terms = _turn(fabric, step, [hand], known, count, progress)
        values |= {f"{hand.player.name}/{name}": value for name, value in terms.items() if name != "loss"}
    return values


def _turn(
    fabric: "Fabric", step: nn.Module, hands: Sequence[Hand], examples: Iterable[Example], count: int, progress: float
) -> dict[str, float]:
    """Make one step of players that learn from the same losses."""
    first = hands[0].player
    rows: list[dict[str, float | str]] = []
    with alone(step, {weight for hand in hands for weight in hand.weights}):
        for hand in hands:
            hand.optimiser.zero_grad()
        for example in examples:
            terms = step(lambda example=example: example, progress, first.losses)
            loss = torch.stack([value for name, value in terms.items() if "/" not in name]).sum() / count
            values = {"loss": count * loss.item(), **{name: value.item() for name, value in terms.items()}}
            if not math.isfinite(values["loss"]):
                whose = "training.lr" if first.losses is None else f"the lr of player {first.name}"
                raise FloatingPointError(
                    f"the loss is no longer finite on {example.name or 'an example'}: {values}; lower {whose}, now "
                    f"{first.lr}"
                )
            fabric.backward(loss)
            rows.append({**values})
        for hand in hands:
            hand.step()
    return mean_of(rows)


@contextmanager
def alone(learning: nn.Module, weights: set[nn.Parameter]) -> Iterator[None]:
    """Let only these weights have gradients, within a `with`."""
    before = {weight: weight.requires_grad for weight in learning.parameters()}
    for weight in before:
        weight.requires_grad_(weight in weights)
    try:
        yield
    finally:
        for weight, wanted in before.items():
            weight.requires_grad_(wanted)


def shorten(weights: Iterable[nn.Parameter], longest: float) -> None:
    """Scale the gradients of all weights so that together, as one vector, they are no longer than `longest`.

    Sparse gradients are scaled too, which torch's own function does not take.
    """
    gradients = []
    for weight in weights:
        if weight.grad is not None:
            weight.grad = weight.grad.coalesce() if weight.grad.is_sparse else weight.grad
            gradients.append(weight.grad.values() if weight.grad.is_sparse else weight.grad)
    if gradients:
        length = torch.stack([gradient.norm() for gradient in gradients]).norm()
        factor = (longest / length.clamp(min=torch.finfo(length.dtype).tiny)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factor)
