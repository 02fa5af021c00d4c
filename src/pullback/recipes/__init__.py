"""Experiments as data: each module here that is of a method defines `recipes`, by method, network and data."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

from pullback.errors import InputError, refuse
from pullback.recipes.lookup import Key, resolve
from pullback.study.recipe import Recipe, read_recipe

FILES = (".yaml", ".yml", ".py")


def find(
    method: str,
    network: str | None = None,
    on: str | None = None,
    trusted: Sequence[str] = (),
    read: bool = False,
) -> Recipe:
    """Return a recipe: `find("ofg", network="transmorph", on="hippocampus")`.

    Args:
        method: name of a method or of a variant; or a file: `.py` that defines `recipe` (it is run), or `.yaml`, whose
            parts are this package's or of packages that are `trusted`, as `read_recipe` has it.
        network: name of the network that is trained; None takes the method's first.
        on: name of the data set; None takes the first, the built-in phantom where the method knows it.
        trusted: packages of your own.
        read: a folder of images will be given: the data set is `folder`, where `on` names no other.

    Raises:
        InputError: no such method, recipe or file, or a file that does not hold one.
    """
    if is_file(method):
        refuse({"--network": network, "--on": on}, f"{method} is a file, which says its network and data itself")
        path = Path(method)
        return _from_python(path) if path.suffix == ".py" else read_recipe(path, trusted)
    return known()[resolve(known(), method, network, on, read)]


def is_file(method: str) -> bool:
    """Return whether a recipe is named by its file."""
    return Path(method).suffix in FILES


def named(method: str, network: str | None = None, on: str | None = None, read: bool = False) -> str:
    """Return what a run of a recipe is called: `ofg-transmorph-hippocampus`; of a file, its stem.

    Raises:
        InputError: as of `find`.
    """
    return Path(method).stem if is_file(method) else "-".join(resolve(known(), method, network, on, read))


@cache
def known() -> Mapping[Key, Recipe]:
    """Return all recipes that come with the package."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    listed = [vars(importlib.import_module(f"{__name__}.{module}")).get("recipes", {}) for module in modules]
    return MappingProxyType({key: recipe for recipes in listed for key, recipe in recipes.items()})


def _from_python(path: Path) -> Recipe:
    if not path.is_file():
        raise InputError(f"{path}: no such recipe file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    recipe = vars(module).get("recipe")
    if not isinstance(recipe, Recipe):
        raise InputError(f"{path}: must define `recipe = Recipe(…)`, found {type(recipe).__name__}")
    return recipe
