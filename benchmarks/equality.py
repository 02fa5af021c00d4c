"""What must not change while the house is rebuilt: the demo's table, weights, the presets' answers, ConvexAdam, match.

    OMP_NUM_THREADS=1 python benchmarks/equality.py --data ../shared/data -o BEFORE
    OMP_NUM_THREADS=1 python benchmarks/equality.py --data ../shared/data -o AFTER --against BEFORE

Each row is made once and kept as arrays in the folder; the second call says of each whether it is the same to the bit,
or by how much it differs. The package is the one that Python finds: `PYTHONPATH=OTHER/src` measures another checkout.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from safetensors.numpy import load_file

import pullback as pb
from pullback.methods.pair.convex_adam import ConvexAdam

Arrays = Mapping[str, np.ndarray]
RECIPES = {"ofg_voxelmorph_phantom": "ofg", "cyclical_correlated_phantom": "cyclical", "uwnsd_unet_phantom": "ddmr"}
"""Records of before call them so."""
UPDATES = 50
PRESETS = ("fast", "balanced", "accurate")


def command(*words: object) -> None:
    """A command of the package, in a process of its own; 3 is a result that looks failed, which is a result."""
    called = [sys.executable, "-m", "pullback.cli", *map(str, words)]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr}")


def demo(folder: Path) -> Arrays:
    """The numbers of the demo's pairs but for seconds and memory, row by row."""
    command("demo", "-o", folder)
    with (folder / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    left = ("register", "pair", "subject", "of", "seconds", "peak MB")
    columns = [name for name in rows[0] if name not in left]
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}


def weights(method: str, folder: Path) -> Arrays:
    """The weights after a few updates."""
    command("train", method, "--set", f"training.updates={UPDATES}", "-o", folder)
    return load_file(folder / "best.safetensors")


def registered(preset: str, fixed: Path, moving: Path, folder: Path) -> Arrays:
    """The moved image, and where both transforms lead points of the fixed grid."""
    command("register", "--preset", preset, "-f", fixed, "-m", moving, "-o", folder)
    where = pb.read_image(fixed).grid
    world = where.to_world(where.voxels(pb.read_image(fixed).data)[None, :, ::3, ::3, ::3]).double()
    there = {
        name: pb.read_transform(folder / f"{name}.h5").at(world) for name in ("fixed_to_moving", "moving_to_fixed")
    }
    moved = np.asarray(nib.load(folder / "moved.nii.gz").dataobj)
    return {"moved": moved, **{name: points.numpy() for name, points in there.items()}}


def convex_adam(fixed: Path, moving: Path, folder: Path) -> Arrays:
    """The displacement."""
    one, two = (pb.read_image(path) for path in (fixed, moving))
    return {"displacement": ConvexAdam()(one, two).transform.displacement(one.grid).numpy()}


def matched(case: Path, folder: Path) -> Arrays:
    """Both clouds where the other lies."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(case) as stored:
        for side, name in (("fixed", "exhale_keypoints"), ("moving", "inhale_keypoints")):
            points = stored[name] * stored["spacing_nominal"]
            np.savetxt(folder / f"{side}.csv", points, "%.6f", ",", header="R,A,S", comments="")
    command("match", "-f", folder / "fixed.csv", "-m", folder / "moving.csv", "-o", folder / "out")
    names = ("fixed_in_moving", "moving_in_fixed")
    return {name: np.loadtxt(folder / "out" / f"{name}.csv", delimiter=",", skiprows=1) for name in names}


def rows(data: Path) -> dict[str, Callable[[Path], Arrays]]:
    """What is made, by name."""
    brains = [data / "brains" / "2mm" / f"sub-{n}_T1w.nii.gz" for n in (13, 14)]
    hippocampi = sorted((data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:2]
    made: dict[str, Callable[[Path], Arrays]] = {"demo": demo}
    made |= {name: partial(weights, method) for name, method in RECIPES.items()}
    for preset in PRESETS:
        made[f"{preset} brains"] = partial(registered, preset, *brains)
        made[f"{preset} hippocampus"] = partial(registered, preset, *hippocampi)
    made["ConvexAdam hippocampus"] = partial(convex_adam, *hippocampi)
    made["match lung"] = partial(matched, data / "lung_keypoints" / "copd_02.npz")
    return made


def difference(before: Arrays, after: Arrays) -> str:
    """In words."""
    if before.keys() != after.keys():
        return f"other arrays: {sorted(before.keys() ^ after.keys())}"
    unlike = {k: v for k, v in before.items() if v.tobytes() != after[k].tobytes()}
    if not unlike:
        return "the same to the bit"
    largest = {k: float(np.nanmax(np.abs(v.astype(float) - after[k]))) for k, v in unlike.items()}
    name = max(largest, key=largest.__getitem__)
    return f"{len(unlike)} of {len(before)} arrays differ, most {name}, by {largest[name]:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="folder of an earlier call")
    parser.add_argument("--rows", nargs="*", help="some of the rows, by name")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, make in rows(given.data).items():
        if given.rows and name not in given.rows:
            continue
        kept = given.out / f"{name.replace(' ', '-')}.npz"
        if not kept.is_file():
            np.savez_compressed(kept, **make(given.out / name.replace(" ", "-")))
        said = "kept"
        if given.against is not None:
            with np.load(given.against / kept.name) as before, np.load(kept) as after:
                said = difference(dict(before), dict(after))
        print(f"{name}: {said}", flush=True)


if __name__ == "__main__":
    main()
