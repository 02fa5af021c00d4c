"""Align medical images in 2D and 3D, and teach networks to, without labels.

The front door is `__init__.pyi`: each name there is loaded when first used, so that importing the package costs
nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
