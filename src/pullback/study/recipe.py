"""Recipes: one experiment as data, changed by `a.b=c`, written to YAML and read back."""

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from pullback.data import Dataset, Test, Validation
from pullback.errors import InputError, did_you_mean
from pullback.example import Supervision
from pullback.metrics import STANDARD, Metric
from pullback.study.renamed import renamed
from pullback.training import Evaluation, Once, PairEvaluation, Procedure, Training

ANY = (Any, inspect.Parameter.empty)
TRUSTED = ("pullback.", "torch.optim.")
Plan = TypeVar("Plan")


@dataclass(frozen=True)
class Recipe:
    """All the parts and numbers of one experiment.

    Attributes:
        about: one line: what it trains, on what, and which figure of which paper it stands beside.
        data: three splits.
        network: makes the untrained network: `partial(VoxelMorph, ndim=3)`.
        supervision: how it learns; one that has weights of its own is made like the network, by a partial.
        training: the numbers of the loop.
        metrics: of pairs of images: what is reported of them; the first that answers chooses the checkpoint.
        procedure: how the network comes about: `Once`, one training; others train in rounds, or several networks.
        evaluation: of other examples: makes what measures a network on a split, an `Evaluation`.

    Raises:
        InputError: no metrics, nor another evaluation.
    """

    about: str
    data: Dataset
    network: partial[Any]
    supervision: Supervision | partial[Any]
    training: Training = Training()
    metrics: tuple[Metric, ...] = STANDARD
    procedure: Procedure = Once()
    evaluation: partial[Any] | None = None

    def __post_init__(self) -> None:
        if not self.metrics and self.evaluation is None:
            raise InputError("metrics: at least one, by which the checkpoint is chosen")

    def evaluates(self, split: Validation | Test) -> Evaluation:
        """Return the evaluation of networks on a split of the data."""
        return PairEvaluation(split, self.metrics) if self.evaluation is None else self.evaluation(split)

    @property
    def aligns(self) -> str:
        """The kind of example that it aligns, as in `Evaluation`: `"pair"`, `"points"`, …"""
        if self.evaluation is None:
            return PairEvaluation.aligns
        kind: Any = self.evaluation.func
        return self.evaluation.keywords.get("aligns", kind.aligns)


def changed(recipe: Plan, settings: Mapping[str, str]) -> Plan:
    """Return a recipe, or other dataclasses, with dotted keys set: `{"training.lr": "1e-3"}`.

    Values are YAML, or plain text where text is wanted; tuples are entered by index; a part is exchanged by the form it
    has in a recipe file, `{"supervision.energy": "{part: pullback.energies.similarity.MSE}"}`.
    """
    for key, text in settings.items():
        recipe = _set(recipe, key.split("."), text, key)
    return recipe


def _set(part: Any, path: list[str], text: str, key: str) -> Any:
    known = _members(part)
    if path[0] not in known:
        raise InputError(
            f"--set {key}: {path[0]!r} is not there{did_you_mean(path[0], known)}; "
            f"there is {', '.join(known) or 'nothing'}"
        )
    old, hint = known[path[0]]
    new = _set(old, path[1:], text, key) if path[1:] else _value(text, hint, key)
    if isinstance(part, tuple):
        return tuple(new if str(i) == path[0] else item for i, item in enumerate(part))
    if isinstance(part, partial):
        return partial(part.func, *part.args, **{**part.keywords, path[0]: new})
    return dataclasses.replace(part, **{path[0]: new})


def _members(part: Any) -> dict[str, tuple[Any, Any]]:
    """Return the members of a part that can be set: value and annotation, by name."""
    if isinstance(part, tuple):
        return {str(i): (item, type(item)) for i, item in enumerate(part)}
    if isinstance(part, partial):
        parameters = inspect.signature(part.func).parameters.values()
        return {p.name: (part.keywords.get(p.name, p.default), p.annotation) for p in parameters}
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        hints = get_type_hints(type(part))
        return {f.name: (getattr(part, f.name), hints[f.name]) for f in dataclasses.fields(part)}
    return {}


def _value(text: str, hint: Any, key: str) -> Any:
    """Return `text` as a value of the annotation `hint`."""
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        read = text
    try:
        read = _decode(read)
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        raise InputError(f"--set {key}={text}: {error}") from error
    for candidate in (read, text):
        with contextlib.suppress(TypeError, ValueError):
            return _as(candidate, hint)
    quote = '; quote words that look like numbers: ["0001", "0002"]' if isinstance(read, tuple) else ""
    raise InputError(f"--set {key}={text}: {_wanted(hint)} expected{quote}")


def _as(value: Any, hint: Any) -> Any:
    """Return `value` as the annotation wants it, or raise TypeError."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        for option in inner:
            with contextlib.suppress(TypeError, ValueError):
                return _as(value, option)
    elif get_origin(hint) is tuple and isinstance(value, tuple):
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_as(item, inner[0]) for item in value)
        return tuple(_as(item, option) for item, option in zip(value, inner, strict=True))
    elif hint is float and not isinstance(value, bool | None):
        return float(value)
    elif hint in (bool, int, str, NoneType):
        if type(value) is hint:
            return value
    elif hint in ANY or (get_origin(hint) is not tuple and not isinstance(value, bool | int | float | str | None)):
        return value  # a part: whether it fits shows when it is used
    raise TypeError(f"{_wanted(hint)} expected, got {value!r}")


def _wanted(hint: Any) -> str:
    """Describe an annotation in the words of a recipe file."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_wanted, inner)))
    if get_origin(hint) is tuple:
        return f"a list, each {_wanted(inner[0])}," if inner[1:] == (...,) else f"a list of {len(inner)}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}
    kind = hint.__name__ if isinstance(hint, type) else "a part"
    return plain.get(hint, f"{kind}, as {{part: …}}, {{partial: …}} or {{name: …}},")


def to_yaml(recipe: Recipe) -> str:
    """Return the resolved recipe as text that `read_recipe` understands. Only here are classes named by their path."""
    return yaml.safe_dump(as_data(recipe), sort_keys=False, allow_unicode=True, width=120)


def read_recipe(path: Path, trusted: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a `.yaml` file.

    Only parts of this package and the optimisers of torch are looked up: a stranger's file runs nothing. Name in
    `trusted` packages of your own whose parts it may use as well.

    Raises:
        InputError: the file cannot be read, or is no recipe of parts that may be looked up.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); a run folder holds the recipe.yaml of its training"
        ) from error
    return from_yaml(text, str(path), trusted)


def from_yaml(text: str, name: str, trusted: Sequence[str] = ()) -> Recipe:
    """Read a recipe from text, as `read_recipe` does; `name` is for the error.

    Raises:
        InputError: it is no recipe of parts that may be looked up.
    """
    try:
        recipe = _decode(yaml.safe_load(text), (*TRUSTED, *trusted))
    except (yaml.YAMLError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise InputError(f"{name}: not a recipe: {error}") from error
    if not isinstance(recipe, Recipe):
        raise InputError(f"{name}: not a recipe, but a {type(recipe).__name__}")
    return recipe


def as_data(thing: Any) -> Any:
    """Return a thing as dicts, lists and scalars, with all its numbers, defaults too."""
    if isinstance(thing, partial):
        given = inspect.signature(thing.func).bind_partial(*thing.args, **thing.keywords)
        given.apply_defaults()
        return {"partial": _path_of(thing.func), **{k: as_data(v) for k, v in given.arguments.items()}}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        members = {f.name: as_data(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"part": _path_of(type(thing)), **members}
    if isinstance(thing, Mapping):
        return {name: as_data(item) for name, item in thing.items()}
    if isinstance(thing, tuple):
        return [as_data(item) for item in thing]
    if callable(thing):
        return {"name": _path_of(thing)}
    return thing


def digest_of(*parts: object) -> str:
    """Return eight letters that stand for data, by which the folder of a run is named."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def _decode(tree: Any, trusted: tuple[str, ...] = TRUSTED, where: str = "") -> Any:
    if isinstance(tree, list):
        return tuple(_decode(item, trusted, f"{where}.{n}".lstrip(".")) for n, item in enumerate(tree))
    if not isinstance(tree, dict) or not tree:
        return tree
    (kind, path), *rest = renamed(tree).items()
    named = _named(path, trusted)
    if kind == "name" and not rest:
        return named
    if isinstance(named, type) and (kind == "partial" or (kind == "part" and dataclasses.is_dataclass(named))):
        hints = get_type_hints(named.__init__)  # type: ignore[misc]
        members = {}
        for key, value in rest:
            at = f"{where}.{key}".lstrip(".")
            if key not in inspect.signature(named).parameters:
                raise TypeError(f"{at}: {named.__name__} has no such member{did_you_mean(str(key), hints)}")
            member = _decode(value, trusted, at)
            try:
                members[key] = _as(member, hints.get(key, Any))
            except (TypeError, ValueError) as error:
                raise TypeError(f"{at}: {error}") from error
        return partial(named, **members) if kind == "partial" else named(**members)
    raise TypeError(f"{kind}: {path} cannot stand here")


def _path_of(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _named(path: str, trusted: tuple[str, ...]) -> Any:
    if not str(path).startswith(trusted):
        raise TypeError(f"{path} is not one of this package's parts; if it is yours, trust its package by name")
    module, name = path.rsplit(".", 1)
    if module.rsplit(".", 1)[-1][:1].isupper():  # a method of a class, as Motion.rigid
        module, of = module.rsplit(".", 1)
        named = getattr(getattr(importlib.import_module(module), of), name)
    else:
        named = getattr(importlib.import_module(module), name)
    if _path_of(named) != path:  # what a module of ours imports from elsewhere is not ours
        raise TypeError(f"{path} is not defined there")
    return named
