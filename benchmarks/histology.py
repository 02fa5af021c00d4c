"""Errors at landmarks of sections in several stains: the best affine map, the affine stage, and `register`.

    python benchmarks/histology.py FOLDER [fast balanced accurate]

FOLDER is `data-images` of BIRL (https://github.com/Borda/BIRL). Each image of a pair is the fixed one once. Errors are
means and medians over the landmarks, in pixels.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullback.files import read_image
from pullback.methods.pair.classical import STAINED
from pullback.space import Affine, Transform
from pullback.workflows.choices import classical

PAIRS = {
    "rat-kidney_/scale-5pc": ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin"),
    "lesions_/scale-5pc": ("Izd2-29-041-w35_HE", "Izd2-29-041-w35_proSPC"),
}


def landmarks(path: Path) -> Tensor:
    """Return points `(N, 2)` in RAS, of pictures with pixels of 1 mm."""
    return -torch.tensor(np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2)))


def told(found: Transform | Tensor, here: Tensor, there: Tensor) -> str:
    """Say the mean and median error."""
    moved = found if isinstance(found, Tensor) else found(here[None])[0].double()
    off = (moved - there).norm(dim=1)
    return f"{float(off.mean()):.2f} ({float(off.median()):.2f})"


def main(root: Path, presets: list[str]) -> None:
    """Print a row for each direction of each pair and each preset."""
    print("| fixed | preset | before | best affine | affine stage | preset's own stage | register | gain | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for folder, pair in PAIRS.items():
        for one, two in (pair, pair[::-1]):
            here, there = (landmarks(root / folder / f"{name}.csv") for name in (one, two))
            count = min(len(here), len(there))
            here, there = here[:count], there[:count]
            known = torch.cat([here, torch.ones_like(here[:, :1])], 1)
            best = known @ torch.linalg.lstsq(known, there).solution
            fixed, moving = (read_image(root / folder / f"{name}.jpg") for name in (one, two))
            for preset in presets:
                whole = classical(preset)
                affine = replace(whole, deformable=None)(fixed, moving).transform
                own = replace(whole, initialise=None, linear=())(fixed, moving, affine).transform
                clock = time.perf_counter()
                found = replace(whole, deformable=STAINED)(fixed, moving)
                seconds = time.perf_counter() - clock
                errors = [told(each, here, there) for each in (Affine.identity(2), best, affine, own, found.transform)]
                gain = found.stats.numbers["held-out gain"] if found.stats else 0.0
                print(f"| {one} | {preset} | {' | '.join(errors)} | {gain:.4f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["fast", "balanced"])
