"""What `pullback apply` takes on a large reference: peak memory and seconds, by kind of transform and interpolation.

    python benchmarks/apply_memory.py --shape 512 512 600

Each line is a process of its own; images are int16, not compressed. The grid of `field` is 64³, that of `whole` the
reference's own. Set OMP_NUM_THREADS to measure one core.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

METER = (
    "import resource, subprocess, sys\n"
    "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "print(done.returncode, used.ru_maxrss, used.ru_utime + used.ru_stime)"
)
KINDS = {
    "affine": ["-t", "affine.tfm"],
    "affine, cubic": ["-t", "affine.tfm", "-n", "cubic"],
    "affine, labels": ["-t", "affine.tfm", "--labels"],
    "field": ["-t", "field.h5"],
    "inverse of a field": ["-t", "[field.h5,1]"],
    "inverse of a field, cubic": ["-t", "[field.h5,1]", "-n", "cubic"],
    "inverse of a field, labels": ["-t", "[field.h5,1]", "--labels"],
    "whole": ["-t", "whole.nii"],
    "inverse of whole": ["-t", "[whole.nii,1]"],
}
CONTROL = 64


def made(folder: Path, shape: tuple[int, ...], whole: bool) -> None:
    """Write an image, an affine and fields into a folder."""
    rng = np.random.default_rng(0)
    values = (rng.random(shape) * 1000).astype(np.int16)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "image.nii")
    affine = sitk.Euler3DTransform()
    affine.SetRotation(0.1, 0.05, 0.2)
    affine.SetTranslation([3, 4, 5])
    sitk.WriteTransform(affine, str(folder / "affine.tfm"))
    waves = [np.sin(np.linspace(0, 6, CONTROL)) for _ in range(3)]
    motion = np.stack([5 * waves[0][:, None, None] * waves[1][:, None] * np.ones(CONTROL)] * 3, -1)
    field = sitk.GetImageFromArray(motion, isVector=True)
    field.SetSpacing([n / CONTROL for n in shape])
    field.SetDirection(np.diag([-1.0, -1, 1]).ravel())
    if whole:
        grid = sitk.Image(list(shape), sitk.sitkUInt8)
        grid.SetDirection(field.GetDirection())
        large = sitk.Resample(field, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat32)
        sitk.WriteImage(large, str(folder / "whole.nii"))
    sitk.WriteTransform(sitk.DisplacementFieldTransform(field), str(folder / "field.h5"))


def main() -> None:
    """Print a line for each kind: GB at most, bytes a voxel, seconds of all cores and of the clock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 300])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    asked = parser.parse_args()
    count = int(np.prod(asked.shape))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made(folder, tuple(asked.shape), any("whole" in kind for kind in asked.kinds))
        for kind in asked.kinds:
            command = [
                sys.executable,
                "-m",
                "pullback.cli",
                "apply",
                "-i",
                "image.nii",
                "-r",
                "image.nii",
                "-o",
                "o.nii",
            ]
            clock = time.perf_counter()
            metered = [sys.executable, "-c", METER, *command, *KINDS[kind]]
            done = subprocess.run(metered, cwd=folder, capture_output=True, text=True, check=True, env=os.environ)
            code, peak, busy = map(float, done.stdout.split())
            seconds, size = time.perf_counter() - clock, peak * 1024
            said = f"{size / 1e9:.2f} GB, {size / count:.0f} bytes a voxel, {busy:.0f} s of processors, {seconds:.0f} s"
            print(f"{kind}: {said}" if code == 0 else f"{kind}: FAILED\n{done.stderr}", flush=True)


if __name__ == "__main__":
    main()
