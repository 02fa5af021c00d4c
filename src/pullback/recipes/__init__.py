"""Experiments as data: each module here defines `recipes`, by name."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pullback.errors import InputError, did_you_mean
from pullback.study.recipe import Recipe, read_recipe


def names() -> list[str]:
    """The recipes that come with the package."""
    return list(_known())


def find(name: str, trusted: Sequence[str] = ()) -> Recipe:
    """A recipe by its name in the package, or from a file: `.py` that defines `recipe` (it is run), or `.yaml`, whose
    parts are this package's or of packages that are `trusted`, as `read_recipe` has it.

    Raises:
        InputError: no such recipe or file, or a file that does not hold one.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return read_recipe(path, trusted)
    if path.suffix == ".py":
        return _from_python(path)
    if name not in _known():
        raise InputError(f"no recipe {name!r}{did_you_mean(name, names())}; `pullback recipes` lists them")
    return _known()[name]


@cache
def _known() -> dict[str, Recipe]:
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    listed = [importlib.import_module(f"{__name__}.{module}").recipes for module in modules]
    return {name: recipe for recipes in listed for name, recipe in recipes.items()}


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
