"""Identical images: how far each register moves them, in voxels of the fixed image.

    python benchmarks/identity.py [--data FOLDER] [--only REGISTER …] [--kinds KIND …] [--threads 1] [-o OUT.csv]

The kinds are a brain at 4 mm and a hippocampus (left out where the folder of real data is missing), and phantoms: a
body of faint texture, whose standard deviation is a twentieth of its level, noise alone, a body without texture, and
a section of the first in 2-D. Each cell is the greatest displacement of any voxel and, in brackets, the mean.
"""

import argparse
import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from pullback.alignment import Register
from pullback.data import normalised
from pullback.energies import LNCC, Diffusion
from pullback.files import read_image
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.feature_registration import FeatureRegistration
from pullback.methods.pose.cross_ngf import SMALL
from pullback.methods.pose.initialise import Initialise
from pullback.numerics.smooth import gaussian
from pullback.records.atomic import atomic_write
from pullback.solvers import DeformableStage, Descend, InstanceOptimisation, LinearStage
from pullback.space import Grid, Image, Motion, resampled
from pullback.training import seeded
from pullback.workflows.choices import ENERGIES, KINDS, PRESETS, classical

SHARED = Path(__file__).parents[2] / "shared" / "data"
SHAPE = (28, 32, 26)


def body(shape: tuple[int, ...], texture: float, seed: int = 0) -> Image:
    """A bent ellipsoid of level 0.6, and in it a smooth texture of this standard deviation."""
    x, *others = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = torch.stack([x + 0.5 * others[0].square() + 0.3 * others[-1] - 0.1, *others]).norm(dim=0)[None, None]
    waves = gaussian(torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed)), 1.2)
    return Image(torch.sigmoid(8 * (1 - radius / 0.72)) * (0.6 + texture * waves / waves.std()), Grid.centred(shape))


def noise(shape: tuple[int, ...]) -> Image:
    return Image(torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1)), Grid.centred(shape))


def images(folder: Path) -> dict[str, Callable[[], Image]]:
    phantoms: dict[str, Callable[[], Image]] = {
        "faint texture": partial(body, SHAPE, 0.03),
        "noise": partial(noise, SHAPE),
        "constant": partial(body, SHAPE, 0.0),
        "2-D": partial(body, (44, 40), 0.03),
    }
    brain, hippocampi = folder / "brains" / "2mm" / "sub-13_T1w.nii.gz", folder / "hippocampus" / "imagesTr"
    real: dict[str, Callable[[], Image]] = {}
    if brain.is_file():
        real["brain"] = lambda: resampled(read_image(brain), (4.0, 4.0, 4.0))
    if hippocampi.is_dir():
        real["hippocampus"] = lambda: normalised(read_image(min(hippocampi.iterdir())))
    return real | phantoms


def registers() -> dict[str, Callable[[int], Register]]:
    """By name, for images of so many dimensions."""
    lncc = LNCC(9) + 1.0 * Diffusion()
    found: dict[str, Callable[[int], Register]] = {name: lambda _, p=preset: p for name, preset in PRESETS.items()}
    for name in PRESETS:
        found[f"{name}, aligned"] = lambda _, n=name: classical(n, aligned=True)
    for name in ENERGIES:
        found[f"fast, aligned, {name}"] = lambda _, n=name: classical("fast", energy=n, aligned=True)
    for kind in KINDS:
        found[f"fast, aligned, {kind}"] = lambda _, k=kind: classical("fast", k, aligned=True)
    return found | {
        "Initialise": lambda _: Initialise(),
        "CrossNGF": lambda _: SMALL,
        "Posed, rigid": lambda _: LinearStage(Motion.rigid),
        "Posed, affine": lambda _: LinearStage(Motion.affine),
        "DeformableStage": lambda _: DeformableStage(),
        "InstanceOptimisation": lambda _: InstanceOptimisation(lncc, Descend()),
        "ConvexAdam": lambda _: ConvexAdam(),
        "FeatureRegistration": untrained,
    }


def untrained(ndim: int) -> Register:
    with seeded(0):
        return FeatureRegistration(ndim).eval()


def motion(register: Register, image: Image) -> tuple[float, float]:
    """Greatest and mean displacement, voxels."""
    with torch.no_grad():
        found = register(image, image).transform.displacement(image.grid).norm(dim=1)
    return float(found.max()), float(found.mean())


def write(rows: list[dict[str, str | float]], path: Path) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("register", "kind", "greatest", "mean"))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=SHARED, help="real data; default: ../shared/data")
    options.add_argument("--only", nargs="+", choices=registers(), metavar="REGISTER")
    options.add_argument("--kinds", nargs="+")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("-o", "--output", type=Path, help="the numbers, as CSV")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    kinds = {name: make() for name, make in images(given.data).items() if not given.kinds or name in given.kinds}
    table = Table("", *kinds, title="identical images: greatest (mean) motion, voxels")
    rows: list[dict[str, str | float]] = []
    for name, make in registers().items():
        if given.only and name not in given.only:
            continue
        cells = []
        for kind, image in kinds.items():
            greatest, mean = motion(make(image.grid.ndim), image)
            rows.append({"register": name, "kind": kind, "greatest": greatest, "mean": mean})
            cells.append(f"{greatest:.2g} ({mean:.1g})")
            print(name, kind, cells[-1], flush=True)
            if given.output:
                write(rows, given.output)
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
