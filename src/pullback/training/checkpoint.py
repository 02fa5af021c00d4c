"""Weights and states of training, stored as safetensors, so that nothing is unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pullback.errors import InputError
from pullback.records.atomic import atomic_write
from pullback.training.player import NETWORK


def save_weights(network: nn.Module, path: Path, about: dict[str, object]) -> None:
    """Write the parameters and buffers of `network`, with `about` as JSON in the file's header.

    Raises:
        FloatingPointError: weights that are not finite.
    """
    refuse_ruined(network)
    save_tensors({name: tensor.detach() for name, tensor in network.state_dict().items()}, path, about)


def load_weights(network: nn.Module, path: Path) -> dict[str, object]:
    """Put the weights of a file into `network`, and return what was saved about them.

    Raises:
        InputError: weights of another network, or that are not finite.
    """
    tensors, about = load_tensors(path)
    ruined = _not_finite(tensors)
    if ruined:
        raise InputError(f"{path}: {ruined} is not finite; the training diverged, take another run's weights")
    _into(network, tensors, path)
    return about


def refuse_ruined(learning: nn.Module) -> None:
    """Refuse weights that are not finite.

    Raises:
        FloatingPointError: there are some.
    """
    ruined = _not_finite(learning.state_dict())
    if ruined:
        raise FloatingPointError(f"the weights are no longer finite, {ruined} among them; lower training.lr")


def _not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor that is not finite, or none."""
    return next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), "")


def save_state(learning: nn.Module, optimisers: Mapping[str, Optimizer], path: Path, about: dict[str, object]) -> None:
    """Write everything that the next update depends on into one file, so that a kill leaves the old state or the new.

    Args:
        learning: all modules that learn: the network, and the supervision where that has weights of its own.
        optimisers: by player. Their tensors become `optimiser.<player>.<index>.<key>`; their plain numbers stand in the
            header.

    Raises:
        FloatingPointError: weights that are not finite; the last state stays.
    """
    refuse_ruined(learning)
    tensors = {name: tensor.detach() for name, tensor in learning.state_dict().items()}
    numbers: dict[str, Any] = {}
    for player, optimiser in optimisers.items():
        for index, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                kept: dict[str, Any] = tensors if isinstance(value, Tensor) else numbers
                kept[f"optimiser.{player}.{index}.{key}"] = value
    save_tensors(tensors, path, {**about, **({"numbers": numbers} if numbers else {})})


def load_state(learning: nn.Module, optimisers: Mapping[str, Optimizer], path: Path) -> dict[str, Any]:
    """Put back what `save_state` wrote, and return what was saved about it.

    Raises:
        InputError: it is of other weights, or of other players.
    """
    tensors, about = load_tensors(path)
    known = tensors | about.pop("numbers", {})
    _into(learning, {k: v for k, v in tensors.items() if not k.startswith("optimiser.")}, path)
    states: dict[str, dict[int, dict[str, Any]]] = {player: {} for player in optimisers}
    for name, value in known.items():
        if name.startswith("optimiser."):
            first, rest = name.removeprefix("optimiser.").split(".", 1)
            player, place = (NETWORK, f"{first}.{rest}") if first.isdigit() else (first, rest)  # of one player only
            if player not in states:
                raise InputError(f"{path}: has a player {player}; there is {', '.join(states)}: go on with its recipe")
            index, key = place.split(".", 1)
            states[player].setdefault(int(index), {})[key] = value
    for player, optimiser in optimisers.items():
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": states[player], "param_groups": groups})
    return about


def _into(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != found:
        name = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))[0]
        raise InputError(
            f"{path}: the weights are of another network: {name} is {found.get(name, 'missing')} in the file and "
            f"{expected.get(name, 'missing')} in {type(network).__name__}; use the recipe that the weights came from"
        )
    network.load_state_dict(tensors)


def save_tensors(tensors: dict[str, Tensor], path: Path, about: dict[str, object]) -> None:
    """Write tensors by name, with `about` as JSON in the file's header, atomically."""
    with atomic_write(path) as temporary, _complaining(path):
        save_file({k: t.contiguous().cpu() for k, t in tensors.items()}, temporary, {"pullback": json.dumps(about)})


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:  # how a full disk looks from here
        raise InputError(f"{path}: writing failed ({error}); nothing was left there") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        InputError: no such file, or one that is no safetensors file.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; is the run finished, or the folder another one?")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("pullback", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (not a dict)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a safetensors file, or cut short ({error})") from error
