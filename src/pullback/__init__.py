"""Align medical images in 2D and 3D, and teach networks to, without labels.

The front door is `__init__.pyi`: each name there is loaded when first used, so that importing the package costs
nothing.
"""

from importlib.metadata import version
from typing import Any

import lazy_loader

_loaded, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return version(__name__) if name == "__version__" else _loaded(name)
