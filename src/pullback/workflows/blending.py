"""Label maps that are about to be interpolated as images."""

import math
from pathlib import Path

import torch

from pullback.space import Image, Labels, Series

FEW = 64  # whole numbers: an image with no more of them is likely one of labels
ALIKE = 0.5  # share of voxels that equal their neighbour: noise leaves far fewer in an image
GREY = 2**24  # beyond which float32 holds not every whole number


def blended(given: str | Path, thing: Image | Labels | Series, mode: str) -> str:
    """Say what is wrong with interpolation, where an image holds whole numbers as labels do; else return "".

    These are few; or most voxels off the commonest number, the background, equal their neighbours; or they name more
    things than an image has grey levels. Of a large image a million voxels are looked at.
    """
    if mode == "nearest" or isinstance(thing, Labels):
        return ""
    frames, count = (thing, len(thing)) if isinstance(thing, Series) else ((thing,), 1)
    every = 1 + count * math.prod(thing.grid.shape) // 1_000_000
    some = [frame.data.flatten() for frame in frames]
    seen, beside = (torch.cat([flat[first : len(flat) - 1 + first][::every] for flat in some]) for first in (0, 1))
    few, times = seen.unique(return_counts=True)
    if len(few) == 1 or bool((few != few.round()).any()):
        return ""
    lit = seen != few[times.argmax()]
    if len(few) <= FEW:
        why = f"holds {len(few)} different whole numbers"
    elif float((seen == beside)[lit].double().mean()) > ALIKE:
        why = f"holds whole numbers ({len(few)} different ones), most of which equal their neighbours"
    elif float(few.max()) > GREY:
        why = f"holds whole numbers up to {float(few.max()):.0f}"
    else:
        return ""
    remedy = "-n nearest" if isinstance(thing, Series) else "--labels"
    return f"{given} {why}, as labels do, and -n {mode} blends them; if they are labels, say {remedy}"
