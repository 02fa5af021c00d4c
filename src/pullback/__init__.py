"""Align medical images in 2D and 3D, and teach networks to, without labels.

The front door is `__init__.pyi`: each name there is loaded when first used, so that importing the package costs
nothing. The classes of published methods are found by their names in the methods' modules, `pb.VoxelMorph`, and are
listed nowhere.
"""

from importlib.metadata import version
from typing import Any

import lazy_loader

_loaded, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(__name__)
    try:
        return _loaded(name)
    except AttributeError:
        if not name[:1].isupper():
            raise
    from pullback.methods.method import class_called  # noqa: PLC0415 (loads all methods)

    return class_called(name)
