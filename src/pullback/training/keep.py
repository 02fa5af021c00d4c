"""Logs and checkpoints that a training leaves on disk, and its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from pullback.training.checkpoint import save_state, save_weights
from pullback.training.schedule import Plateau

if TYPE_CHECKING:
    from pullback.training.log import Log


@dataclass
class State:
    """The state of a training."""

    update: int = 0
    best: float | None = None
    factor: float = 1.0  # of the learning rates
    waited: int = 0  # validations since the best, or since the factor fell


@dataclass
class Keeper:
    """The logs and checkpoints of a run; with `out` None (no folder, or not the first process) there are none."""

    network: nn.Module
    learning: nn.Module
    optimisers: Mapping[str, Optimizer]
    now: State
    updates: int
    plateau: Plateau | None
    choose_from: float
    out: Path | None
    log: "Log | None" = field(init=False)

    def __post_init__(self) -> None:
        self.log = None
        if self.out is not None:
            from pullback.training.log import Log  # noqa: PLC0415 (slow to import, and few need it)

            self.log = Log(self.out, self.now.update)

    def due(self, every: int) -> bool:
        """Return whether a multiple of `every` updates is done, or all of them."""
        return self.now.update % every == 0 or self.now.update == self.updates

    def row(self, name: str, values: dict[str, float]) -> None:
        """Write a row to the log of that name."""
        if self.log is not None:
            self.log.row(name, self.now.update, values)

    def state(self) -> None:
        """Write everything that resuming needs."""
        if self.out is not None:
            save_state(self.learning, self.optimisers, self.out / "last.safetensors", vars(self.now))

    def validated(self, means: dict[str, float], score: Callable[[dict[str, float]], float]) -> None:
        """Keep the best weights from `choose_from` on; before that, only log."""
        self.row("validation", means)
        if self.now.update < self.choose_from * self.updates:
            return
        reached = score(means)
        if self.now.best is None or reached > self.now.best:
            self.now.best, self.now.waited = reached, 0
            if self.out is not None:
                save_weights(self.network, self.out / "best.safetensors", {"update": self.now.update, **means})
            return
        self.now.waited += 1
        if self.plateau is not None and self.now.waited >= self.plateau.patience:
            self.now.factor, self.now.waited = self.now.factor * self.plateau.factor, 0

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()
