"""What large cohorts and many labels cost: seconds and peak memory, a process for each line.

    python benchmarks/cohort.py

`survey` looks at all files of 1,000 images; `list` finds 20,000 slices and splits them, `draw` draws 1,000 training
pairs of them by name, `evaluate` measures their test pairs unmoved; `soft dice` is one value with its gradient, of 10
and of 100 labels at 160×192×224. Set OMP_NUM_THREADS to measure one core.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

import pullback as pb
from pullback.data.survey import survey
from pullback.numerics.random import make_generator
from pullback.study.evaluate import unmoved

SLICE, VOLUME = (32, 36), (160, 192, 224)


def files(folder: Path, count: int) -> None:
    """Write that many slices, each with labels of its own."""
    chance = np.random.default_rng(0)
    for number in range(count):
        image = chance.random(SLICE, np.float32)
        for name, values in (("T1w", image), ("dseg", (image > 0.5).astype(np.uint8))):
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"sub-{number:05d}_{name}.nii")


def cohort(folder: Path) -> pb.PairFolder:
    return pb.PairFolder(str(folder), images="*_T1w.nii", labels="*_dseg.nii")


def soft_dice(labels: int) -> None:
    grid = pb.Grid.centred(VOLUME)
    x = torch.linspace(0, labels - 1e-3, VOLUME[0]).floor().long()
    values = pb.Labels(x.view(1, 1, -1, 1, 1).expand(1, 1, *VOLUME).contiguous() + 1, grid)
    image = pb.Image(torch.zeros(1, 1, *VOLUME), grid)
    field = torch.full((1, 3, *VOLUME), 0.3, requires_grad=True)
    pair = pb.Pair(image, image, values, values)
    pb.SoftDice()(pb.Alignment(pair, pb.Displacement(field, grid))).backward()


WORK: dict[str, Callable[[Path], object]] = {
    "survey": lambda folder: survey(cohort(folder)),
    "list": lambda folder: cohort(folder).train,
    "draw": lambda folder: cohort(folder).train.several(1000, make_generator(0)),
    "evaluate": lambda folder: pb.evaluate({"unmoved": unmoved}, cohort(folder).test),
    "soft dice, 10 labels": lambda folder: soft_dice(10),
    "soft dice, 100 labels": lambda folder: soft_dice(100),
}


def measured(name: str, folder: Path) -> str:
    """Do one piece of work in a process of its own and say what it took."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", name, "--folder", str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=WORK, help="one piece of work, in this process")
    parser.add_argument("--folder", type=Path, help="of its files")
    given = parser.parse_args()
    if given.only:
        begin = time.perf_counter()
        WORK[given.only](given.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{given.only}: {time.perf_counter() - begin:.1f} s, {peak:.2f} GB in all")
        return
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        files(Path(few), 1000)
        files(Path(many), 20_000)
        for name in WORK:
            print(measured(name, Path(few if name == "survey" else many)), flush=True)


if __name__ == "__main__":
    main()
