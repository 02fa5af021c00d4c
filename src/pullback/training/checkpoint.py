"""Weights and the state of a training, as safetensors: nothing here unpickles a file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pullback.errors import InputError
from pullback.files.beside import beside


def save_weights(network: nn.Module, path: Path, about: dict[str, object]) -> None:
    """The parameters and buffers of `network`, and `about` as JSON in the file's header."""
    save_tensors({name: tensor.detach() for name, tensor in network.state_dict().items()}, path, about)


def load_weights(network: nn.Module, path: Path) -> dict[str, object]:
    """Put the weights of a file into `network`; returns what was saved about them."""
    tensors, about = load_tensors(path)
    _into(network, tensors, path)
    return about


def save_state(learning: nn.Module, optimiser: Optimizer, path: Path, about: dict[str, object]) -> None:
    """Everything that the next update depends on, in one file, so that a kill leaves the old state or the new.

    `learning` holds all that learns: the network, and the supervision where that has weights of its own.
    """
    tensors = {name: tensor.detach() for name, tensor in learning.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    save_tensors(tensors, path, about)


def load_state(learning: nn.Module, optimiser: Optimizer, path: Path) -> dict[str, Any]:
    """Put back what `save_state` wrote; returns what was saved about it."""
    tensors, about = load_tensors(path)
    _into(learning, {k: v for k, v in tensors.items() if not k.startswith("optimiser.")}, path)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
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
    """Tensors by name, and `about` as JSON in the file's header; beside, then renamed."""
    with beside(path) as temporary, _complaining(path):
        save_file({k: t.contiguous().cpu() for k, t in tensors.items()}, temporary, {"pullback": json.dumps(about)})


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:  # how a full disk looks from here
        raise InputError(f"{path}: writing failed ({error}); nothing was left there") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote.

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
