"""Resuming of runs: whether a run may be continued, and what of it may have changed."""

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import yaml

from pullback.data import Dataset, FileCase, PickledCase, layers
from pullback.data.pattern import some
from pullback.errors import InputError
from pullback.records.fingerprint import fingerprint
from pullback.study.recipe import Recipe, as_data, to_yaml
from pullback.study.renamed import renamed
from pullback.training import Once, load_tensors
from pullback.training.train import check_left

OFTEN = ("log_every", "save_every")  # what may change when a run is gone on with


def noted(path: Path) -> dict[str, Any]:
    """Read the record of a run, a file of JSON; {} where there is none.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); the file is damaged: delete it, or train anew") from error


@runtime_checkable
class Naming(Protocol):
    """A part that says which of its members name other runs."""

    elsewhere: tuple[str, ...]


@runtime_checkable
class Paced(Protocol):
    """A part that says whether it changes with progress."""

    paced: bool


@runtime_checkable
class LearnsLabels(Protocol):
    """A part that says whether it learns from labels, so that images without any are refused before."""

    learns_labels: bool


def parts(thing: Any) -> Iterator[Any]:
    """Yield a thing and all that it is made of, at any depth."""
    yield thing
    if isinstance(thing, partial):
        thing = (*thing.args, *thing.keywords.values())
    elif is_dataclass(thing) and not isinstance(thing, type):
        thing = tuple(getattr(thing, field.name) for field in fields(thing))
    for part in thing if isinstance(thing, tuple) else ():
        yield from parts(part)


def the_same(named: Recipe, begun: Recipe, out: Path) -> Recipe:
    """Return the recipe of a run that is continued, after a look at the one that was asked for.

    Raises:
        InputError: that is another.
    """

    def kinds(recipe: Recipe) -> set[str]:
        named = (recipe.network, recipe.supervision, recipe.procedure)
        return {(part.func if isinstance(part, partial) else type(part)).__name__ for part in named}

    if named.about != begun.about or (not named.about and kinds(named) != kinds(begun)):
        raise InputError(
            f"{out}: is a run of {', '.join(sorted(kinds(begun)))} ({begun.about}), not of the recipe that was named "
            f"({named.about}); go on with `train {out / 'recipe.yaml'} --resume -o {out}`, or name another folder"
        )
    return begun


def check_resumable(recipe: Recipe, splits: dict[str, list[str]], out: Path, resume: bool) -> list[str]:
    """Refuse to continue the folder `out` by another recipe or on other subjects; return whom it goes on without.

    Raises:
        InputError: nobody asked for that, the recipe or the subjects are others, or more was done already.
    """
    if not resume:
        raise InputError(f"{out}: there is a run already; go on with it by --resume, or name another folder with -o")
    training = recipe.training
    paced = any(player.schedule is not None for player in (training.first, *training.players))
    paced = paced or training.choose_from > 0 or any(part.paced for part in parts(recipe) if isinstance(part, Paced))
    whole = paced or not isinstance(recipe.procedure, Once)  # what was done depends on how much there is to do
    counted = training.plateau is not None
    free = (*OFTEN, *(() if whole else ("updates",)), *(() if counted else ("validate_every",)))
    before, now = ((out / "recipe.yaml").read_text(), to_yaml(recipe))
    if _fixed(before, recipe, free) != _fixed(now, recipe, free):
        raise InputError(f"{out}: this run has another recipe; resume it with the settings of its recipe.yaml")
    gone = check_subjects(noted(out / "splits.json"), splits, out)
    if (out / "last.safetensors").is_file():
        check_left(load_tensors(out / "last.safetensors")[1]["update"], recipe.training, out)
    return gone


def check_subjects(before: dict[str, list[str]], now: dict[str, list[str]], out: Path) -> list[str]:
    """Return the subjects that a run began with and that are gone; the others must be in the splits they were in.

    Raises:
        InputError: somebody is new, or in another split.
    """
    new = sorted({name for split, names in now.items() for name in {*names} - {*before.get(split, ())}})
    if new:
        raise InputError(
            f"{out}: the data has other subjects than when this run began (see its splits.json): {some(new)} are new, "
            f"or in another split. Subjects may be taken out; to learn from more, train anew"
        )
    return sorted({name for split, names in before.items() for name in {*names} - {*now.get(split, ())}})


def fingerprints(data: Dataset) -> dict[str, list[str]]:
    """Return the fingerprints of the files of each case of a data set that is read from disk, by the case's name."""
    listed = {case for split in (data.validation, data.test) for pair in split.pairs for case in pair}
    known = (case for case in {*data.train.cases, *listed} if isinstance(case, FileCase | PickledCase))
    return {case.name: [fingerprint(path) for path in case.files if path is not None] for case in known}


def check_files(before: dict[str, list[str]], now: dict[str, list[str]], out: Path) -> None:
    """Refuse to continue a run whose images, labels or masks were written anew; those that are gone are no matter.

    Raises:
        InputError: some were.
    """
    changed = sorted(name for name in {*before} & {*now} if before[name] != now[name])
    if changed:
        raise InputError(
            f"{out}: images, labels or masks of {some(changed)} have changed since this run began; put back what it "
            f"learned from, or train anew into another folder"
        )


def named(part: Any) -> str:
    """Return the path by which a recipe's text names a part; "" for what it does not name."""
    data = as_data(part)
    return str(data.get("part") or data.get("partial") or "") if isinstance(data, dict) else ""


def defaults(part: Any) -> dict[str, Any]:
    """Return the default values of a part's members, as data."""
    parameters = inspect.signature(part.func if isinstance(part, partial) else type(part)).parameters.values()
    return {one.name: as_data(one.default) for one in parameters if one.default is not inspect.Parameter.empty}


def _fixed(text: str, recipe: Recipe, free: Sequence[str]) -> Any:
    """Return what may not change of a recipe's text, whose parts are not looked up.

    That is all but its words, the `free` numbers of training, and the places of images and other runs. Default values
    are left out, for older files lack those that came later.
    """
    idle = {as_data(part)["part"]: part.elsewhere for part in parts(recipe) if isinstance(part, Naming)}
    idle |= {as_data(recipe)["part"]: ("about",), as_data(recipe.training)["part"]: free}
    idle |= {as_data(layer)["part"]: ("root", "without", "out") for layer in layers(recipe.data)}
    usual = {named(part): defaults(part) for part in parts(recipe) if named(part)}

    def kept(tree: Any) -> Any:
        if isinstance(tree, list):
            return [kept(item) for item in tree]
        if not isinstance(tree, dict) or not tree:
            return tree
        tree = renamed(tree)
        part = str(tree.get("part") or tree.get("partial"))
        of, known = idle.get(part, ()), usual.get(part, {})
        members = {k: kept(v) for k, v in tree.items() if k not in of}
        return {k: v for k, v in members.items() if k not in known or v != kept(known[k])}

    return kept(yaml.safe_load(text))
