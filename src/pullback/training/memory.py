"""Memory of a training on the CPU."""

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt, as malloc.h numbers them


@cache
def keep_freed_memory() -> None:
    """Make the C library keep the memory that this process frees from here on; without glibc do nothing.

    Every update takes and frees the same large blocks as the one before. If they were given back in between, they would
    come as fresh pages, which the system must first fill with zeros: a fifth of the time of an update of VoxelMorph.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
