"""How far apart the answers of one and of two threads are, in voxels of the fixed image.

    python benchmarks/threads.py [--images ../shared/data/hippocampus/imagesTr]

The first two images of the folder, as volumes and as slices through their middle, three times as fine. One thread is
measured twice: its answers are the same, bit by bit.
"""

import argparse
from pathlib import Path

import torch

from pullback.files import read_image
from pullback.space import Grid, Image
from pullback.workflows.choices import PRESETS

FINER = 3


def slice_of(image: Image) -> Image:
    """Return the middle slice, each pixel repeated."""
    middle = image.data[..., image.data.shape[3] // 2, :]
    fine = middle.repeat_interleave(FINER, 2).repeat_interleave(FINER, 3)
    return Image(fine.contiguous(), Grid.centred(tuple(fine.shape[2:])))


def main() -> None:
    """Print a line for each pair and preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=Path("../shared/data/hippocampus/imagesTr"))
    volumes = [read_image(path) for path in sorted(parser.parse_args().images.iterdir())[:2]]
    for name, (fixed, moving) in {"3-D": volumes, "2-D": [*map(slice_of, volumes)]}.items():
        for preset in ("fast", "balanced"):
            found = []
            for threads in (1, 2, 1):
                torch.set_num_threads(threads)
                found.append(PRESETS[preset](fixed, moving).transform.displacement(fixed.grid).double())
            apart = (found[0] - found[1]).norm(dim=1).flatten().sort().values
            again = float((found[0] - found[2]).abs().max())
            numbers = {"mean": apart.mean(), "95 %": apart[int(0.95 * len(apart))], "most": apart[-1]}
            told = ", ".join(f"{key} {float(value):.2g}" for key, value in numbers.items())
            print(f"{name}, {preset}: one and two threads {told} voxels apart; one thread twice {again:g}", flush=True)


if __name__ == "__main__":
    main()
