"""One experiment as data: changed by `a.b=c`, written to YAML and read back."""

import contextlib
import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from torch import nn
from torch.optim import Optimizer

from pullback.alignment import Supervision
from pullback.data import Dataset
from pullback.errors import InputError
from pullback.metrics import Correlation, Dice, Folding, Metric, SDLogJ
from pullback.training import Training

TRUSTED = ("pullback.", "torch.optim.")


@dataclass(frozen=True)
class Recipe:
    """All the parts and numbers of one experiment.

    Attributes:
        about: one line: what it trains, on what, and which figure of which paper it stands beside.
        data: three splits.
        network: makes the untrained network, a register: `partial(VoxelMorph, ndim=3)`.
        supervision: how it learns.
        training: the numbers of the loop.
        metrics: what validation and evaluation report; the first that answers chooses the checkpoint.
    """

    about: str
    data: Dataset
    network: partial[Any]
    supervision: Supervision
    training: Training = Training()
    metrics: tuple[Metric, ...] = (Dice(), Correlation(), Folding(), SDLogJ())


def changed(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """The recipe with dotted keys set: `{"training.lr": "1e-3"}`. Values are YAML; tuples are entered by index."""
    for key, text in settings.items():
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}={text}: the value is not YAML ({error})") from error
        recipe = _set(recipe, key.split("."), value, key)
    return recipe


def _set(part: Any, path: list[str], value: Any, key: str) -> Any:
    known = _members(part)
    if path[0] not in known:
        raise InputError(
            f"--set {key}: {path[0]!r} is not there{did_you_mean(path[0], known)}; there is {', '.join(known)}"
        )
    old = known[path[0]]
    new = _set(old, path[1:], value, key) if path[1:] else _fitted(old, value, key)
    if isinstance(part, tuple):
        return tuple(new if str(i) == path[0] else item for i, item in enumerate(part))
    if isinstance(part, partial):
        return partial(part.func, *part.args, **{**part.keywords, path[0]: new})
    return dataclasses.replace(part, **{path[0]: new})


def _members(part: Any) -> dict[str, Any]:
    if isinstance(part, tuple):
        return {str(i): item for i, item in enumerate(part)}
    if isinstance(part, partial):
        parameters = inspect.signature(part.func).parameters.values()
        return {p.name: part.keywords.get(p.name, p.default) for p in parameters}
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    return {}


def _fitted(old: Any, value: Any, key: str) -> Any:
    """`value` in the type of what stands there."""
    if isinstance(old, float) and isinstance(value, str):  # YAML reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, list | dict):
        try:
            value = _decode(value)
        except (TypeError, ValueError, AttributeError, ImportError) as error:
            raise InputError(f"--set {key}={value}: {error}") from error
    if isinstance(old, bool) != isinstance(value, bool) and isinstance(old, bool | int | float):
        raise InputError(f"--set {key}={value}: expected something like {old!r}")
    if isinstance(old, float) and isinstance(value, int):
        return float(value)
    if isinstance(old, int | float | str) and not isinstance(value, type(old)):
        raise InputError(f"--set {key}={value}: expected something like {old!r} ({type(old).__name__})")
    if _members(old) and isinstance(value, bool | int | float | str):
        raise InputError(f"--set {key}={value}: this is a part, not a number; it has {', '.join(_members(old))}")
    return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the known word nearest to `word`, if any is near."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as text that `read_recipe` understands. Only here are classes named by their path."""
    return yaml.safe_dump(_encode(recipe), sort_keys=False, allow_unicode=True, width=120)


def read_recipe(path: Path, trusted: tuple[str, ...] = TRUSTED) -> Recipe:
    """The recipe of a `.yaml` file. Only classes under `trusted` are looked up: a stranger's file runs nothing."""
    try:
        recipe = _decode(yaml.safe_load(path.read_text()), trusted)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; a run folder holds the recipe.yaml it was trained by") from error
    except (yaml.YAMLError, TypeError, AttributeError, ImportError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a recipe: {error}") from error
    if not isinstance(recipe, Recipe):
        raise InputError(f"{path}: not a recipe, but a {type(recipe).__name__}")
    return recipe


def _encode(thing: Any) -> Any:
    if isinstance(thing, partial):
        return {"partial": _path_of(thing.func), **{k: _encode(v) for k, v in thing.keywords.items()}}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        members = {f.name: _encode(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"part": _path_of(type(thing)), **members}
    if isinstance(thing, tuple):
        return [_encode(item) for item in thing]
    if callable(thing):
        return {"name": _path_of(thing)}
    return thing


def _decode(tree: Any, trusted: tuple[str, ...] = TRUSTED) -> Any:
    if isinstance(tree, list):
        return tuple(_decode(item, trusted) for item in tree)
    if not isinstance(tree, dict):
        return tree
    (kind, path), *rest = tree.items()
    members = {k: _decode(v, trusted) for k, v in rest}
    named = _named(path, trusted)
    if kind == "name" and not members:
        return named
    if kind == "partial" and isinstance(named, type) and issubclass(named, nn.Module | Optimizer):
        return partial(named, **members)
    if kind == "part" and isinstance(named, type) and dataclasses.is_dataclass(named):
        return named(**members)
    raise TypeError(f"{kind}: {path} cannot stand here")


def _path_of(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _named(path: str, trusted: tuple[str, ...]) -> Any:
    if not str(path).startswith(trusted):
        raise TypeError(f"{path} is not one of this package's parts; read it in Python with trusted=({path!r},)")
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)
