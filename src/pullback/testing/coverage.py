"""Coverage of a package's classes by contracts."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType

from pullback.testing.contract import require


def public_classes(package: ModuleType) -> list[type]:
    """Return the classes that a package and the modules below it define under names without an underscore."""
    modules = [package]
    modules += [
        importlib.import_module(m.name) for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    members = [(module, *each) for module in modules for each in vars(module).items()]
    return [
        member
        for module, name, member in members
        if inspect.isclass(member) and member.__module__ == module.__name__ and not name.startswith("_")
    ]


def check_coverage(package: ModuleType, checked: Iterable[type], excused: Mapping[type, str]) -> None:
    """Hold the public classes of a package against those that were checked, and those with a reason why not.

    Args:
        package: such as `pullback.methods`, or a package of your own.
        checked: classes that a check of `pullback.testing` has seen.
        excused: the reason in words, for every other class.

    Raises:
        BrokenContract: a class is neither, or both, or is not there, or its excuse is empty.
    """
    where, known, seen = package.__name__, set(public_classes(package)), set(checked)
    for promised, wrong in {
        "a check, or an excuse with a reason, for each public class": known - seen - set(excused),
        "no excuse for what is checked": seen & set(excused),
        "checks and excuses of classes of this package": (seen | set(excused)) - known,
        "a reason in words for each excuse": {kind for kind, reason in excused.items() if len(reason.split()) < 2},
    }.items():
        names = ", ".join(sorted(kind.__name__ for kind in wrong))
        require(not wrong, where, promised, f"none of it for {names}")
