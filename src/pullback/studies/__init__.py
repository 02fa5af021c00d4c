"""The evaluations of papers as data: each module here defines `study`, but for those that begin with `_`."""

import importlib
import pkgutil

from pullback.errors import InputError, did_you_mean
from pullback.study.table import Study


def names() -> list[str]:
    """Return the names of the studies that come with the package."""
    return sorted(
        module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )


def find(name: str) -> Study:
    """Return a study by its name.

    Raises:
        InputError: no such study.
    """
    if name not in names():
        raise InputError(f"no study {name!r}{did_you_mean(name, names())}; there is {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").study
