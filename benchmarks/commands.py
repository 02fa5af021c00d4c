"""Whole commands beside each other, as users wait for them: start, files, alignment, transforms and report.

    python benchmarks/commands.py [--data ../shared/data/brains/2mm] [--pairs 6] [--threads 2] [--only NAME …]

Every pair goes through every command in turn, each a process of its own: `pullback register` with two presets,
greedy (affine, then NCC 2x2x2 with 100x100x50 steps), ANTs' SyN by ANTsPy's defaults, and elastix by its default maps.
A tool writes its moved image and its transform. The table has the mean seconds by the clock and of the processor, and
Dice of the labels that each tool's transform moves, by our hand for all.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from pullback.alignment import Alignment, Pair
from pullback.files import read_image, read_labels, read_transform
from pullback.files.transforms.ras_matrix import read_matrix
from pullback.metrics import Dice
from pullback.space import Affine, Transform

PEOPLE = ("sub-13", "sub-14", "sub-15", "sub-16")
GREEDY = """
import sys
import numpy as np, SimpleITK as sitk
from picsl_greedy import Greedy3D
fixed, moving, out, threads = sys.argv[1:]
tool, common = Greedy3D(), f"-V 0 -threads {threads} -i {fixed} {moving} -m NCC 2x2x2"
tool.execute(f"{common} -a -ia-image-centers -n 100x50x10 -o {out}/affine.mat")
tool.execute(f"{common} -it {out}/affine.mat -n 100x100x50 -o {out}/field.nii.gz")
tool.execute(f"-V 0 -rf {fixed} -rm {moving} {out}/moved.nii.gz -r {out}/field.nii.gz {out}/affine.mat")
"""
ANTS = """
import sys
import ants
fixed, moving, out, threads = sys.argv[1:]
images = [ants.image_read(path) for path in (fixed, moving)]
found = ants.registration(*images, "SyN", outprefix=f"{out}/")
ants.image_write(found["warpedmovout"], f"{out}/moved.nii.gz")
"""
ELASTIX = """
import sys
import itk
fixed, moving, out, threads = sys.argv[1:]
images = [itk.imread(path, itk.F) for path in (fixed, moving)]
maps = itk.ParameterObject.New()
for kind in ("rigid", "affine", "bspline"):
    maps.AddParameterMap(maps.GetDefaultParameterMap(kind))
moved, found = itk.elastix_registration_method(*images, parameter_object=maps)
itk.imwrite(moved, f"{out}/moved.nii.gz")
field = itk.transformix_deformation_field(images[1], found, output_directory=out)
itk.imwrite(field, f"{out}/field.nii.gz")
"""


def ours(preset: str, fixed: Path, moving: Path, out: str) -> list[str]:
    """Return the command line of a preset."""
    script = "from pullback.cli import main; main()"
    files = ["-f", str(fixed), "-m", str(moving), "--preset", preset, "-o", out]
    return [sys.executable, "-c", script, "register", *files]


def theirs(script: str, threads: int, fixed: Path, moving: Path, out: str) -> list[str]:
    """Return the command line of a tool."""
    return [sys.executable, "-c", script, str(fixed), str(moving), out, str(threads)]


def found_in(name: str, out: Path) -> Transform:
    """Return the transform that a command left, fixed → moving."""
    if name in ("fast", "balanced", "accurate"):
        return read_transform(out / "fixed_to_moving.h5")
    if name == "SyN":
        return read_transform(out / "0GenericAffine.mat") @ read_transform(out / "1Warp.nii.gz")
    field = read_transform(out / "field.nii.gz")
    return read_matrix(out / "affine.mat") @ field if name == "greedy" else field


def timed(command: list[str], threads: int) -> dict[str, float]:
    """Run a command to its end, and return its seconds by the clock and of the processor.

    Raises:
        RuntimeError: it failed.
    """
    limits = {"OMP_NUM_THREADS": str(threads), "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):  # 3: it looks failed, and is written
        raise RuntimeError(f"{' '.join(command[:3])}: {done.stderr[-2000:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "processor seconds": spent}


def main() -> None:
    """Print a row for each pair and command, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/brains/2mm"))
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=["fast", "balanced", "greedy", "SyN", "elastix"])
    asked = parser.parse_args()
    pairs = [(a, b) for a in PEOPLE for b in PEOPLE if a != b][: asked.pairs]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ("before", *asked.only)}
    for a, b in pairs:
        fixed, moving = (asked.data / f"{who}_T1w.nii.gz" for who in (a, b))
        labels = [read_labels(asked.data / f"{who}_dseg.nii.gz") for who in (a, b)]
        pair = Pair(read_image(fixed), read_image(moving), *labels)
        for name, of_pair in rows.items():
            with TemporaryDirectory() as out:
                row, transform = {}, Affine.identity(3)
                if name != "before":
                    scripts = {"greedy": GREEDY, "SyN": ANTS, "elastix": ELASTIX}
                    command = (
                        theirs(scripts[name], asked.threads, fixed, moving, out)
                        if name in scripts
                        else ours(name, fixed, moving, out)
                    )
                    row, transform = timed(command, asked.threads), found_in(name, Path(out))
                row |= {"dice": Dice()(Alignment(pair, transform))["dice"]}
            of_pair.append(row)
            print(f"{a} ← {b} {name:9s}", {key: round(value, 3) for key, value in row.items()}, flush=True)
    for name, of_pair in rows.items():
        means = {key: round(fmean(row[key] for row in of_pair), 3) for key in of_pair[0]}
        print(f"mean over {len(of_pair)} {name:9s}", means)


if __name__ == "__main__":
    main()
