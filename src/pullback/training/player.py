"""Players: weights with an optimiser, and possibly losses, of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from pullback.errors import InputError
from pullback.solvers import adam

NETWORK = "network"  # the player that has all weights that nobody else owns
FROZEN = "training.frozen"

Losses = Callable[[Any, Callable[..., Any], Any, float], dict[str, Tensor]]
"""`(supervision, network, example, progress) -> terms`: what a player with a turn of its own makes small."""


@dataclass(frozen=True)
class Player:
    """Weights that learn by an optimiser of their own.

    Without `losses` they learn from the supervision's, as the network does: weights of single examples, or slow layers.
    With losses the player has a turn of its own, after the network's and on the same examples, such as a discriminator;
    in any other turn its weights are fixed, and in its own all others are. A recipe can name a function of a module.

    Attributes:
        name: an identifier, other than `network`; its losses are logged as `name/term`.
        owns: prefixes of the names of its weights: `("supervision.discriminator.",)`, `("network.head.",)`.
        losses: named, with the sum to be minimised, as in `Supervision`; None learns from the common losses.
        lr, optimiser: `optimiser(weights, lr=lr)` makes its optimiser.
        schedule: as in `Training`; None for a constant rate.
        every: it learns in the first update, and then once in so many.
        clip: as in `Training`.

    Raises:
        InputError: no such name, or a number that is not above 0.
    """

    name: str
    owns: tuple[str, ...]
    losses: Losses | None = None
    lr: float = 1e-4
    optimiser: Callable[..., Optimizer] = adam
    schedule: Callable[[float], float] | None = None
    every: int = 1
    clip: float | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(f"player {self.name!r}: a name of letters expected, as it stands in files")
        if not self.lr > 0 or self.every < 1 or (self.clip is not None and not self.clip > 0):
            raise InputError(
                f"player {self.name}: lr and clip above 0 (or no clip), and every 1 or more expected, got {self.lr}, "
                f"{self.clip} and {self.every}"
            )


def shares(learning: nn.Module, players: Sequence[Player], frozen: Sequence[str]) -> dict[str, list[nn.Parameter]]:
    """Return the weights of each player by its name, the network's first, which include the frozen ones.

    Args:
        learning: all modules that learn, with weights called `network.…` and `supervision.…`.
        frozen: prefixes of the names of weights that do not learn.

    Raises:
        InputError: two players of one name, a prefix that no weight has, a weight that two own or that is frozen
            and owned, or nothing that is left to the network.
    """
    names = [NETWORK, *(player.name for player in players)]
    if len(set(names)) < len(names):
        raise InputError(f"players: a name for each expected, {NETWORK!r} being taken, got {', '.join(names[1:])}")
    named = dict(learning.named_parameters())
    owners = _owners([*named], {FROZEN: frozen, **{player.name: player.owns for player in players}})
    mine: dict[str, list[nn.Parameter]] = {name: [] for name in names}
    for name, weight in named.items():
        owner = owners.get(name, NETWORK)
        mine[NETWORK if owner == FROZEN else owner].append(weight)
    if all(name in owners for name in named):
        raise InputError(f"no weight is left to training.optimiser; {', '.join(sorted({*owners.values()}))} have all")
    return mine


def _owners(names: Sequence[str], claims: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the owner of each weight that is claimed by a prefix of its name."""
    owners: dict[str, str] = {}
    known = ", ".join(sorted({".".join(name.split(".")[:2]) for name in names}))
    for who, beginnings in claims.items():
        if who != FROZEN and not beginnings:
            raise InputError(f"player {who} owns nothing: say how the names of its weights begin, of {known}")
        for beginning in beginnings:
            found = [name for name in names if beginning and name.startswith(beginning)]
            if not found:
                raise InputError(f"{who}: no weight's name begins with {beginning!r}; they begin with {known}")
            for name in found:
                if owners.setdefault(name, who) != who:
                    raise InputError(f"{name}: is claimed by {owners[name]} and by {who}; leave it to one of them")
    return owners
