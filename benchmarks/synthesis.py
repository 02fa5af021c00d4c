"""Synthetic pairs: what the thin-plate spline costs and how near it comes, what an update costs with it, what is drawn.

    python benchmarks/synthesis.py spline
    python benchmarks/synthesis.py update [--updates 3]
    python benchmarks/synthesis.py draws draws.svg [--count 1000]

Seconds are the processor's, on one thread. `spline`: 8×8×8 control points on a cube of 128 voxels of 1 mm and on a
brain of 2 mm, evaluated exactly at more or fewer points to a cell and cubic between them, against the spline itself at
every voxel. `update`: VoxelMorph on such brains, with pairs as they are stored, with synthetic ones, and with synthetic
ones whose truth it is told; each with the most memory that a process of its own held. `draws`: their distributions.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation
from torch import Tensor

from pullback.alignment import Pair
from pullback.data import Synthesis
from pullback.data.synthesis import thin_plate
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.numerics.spline import spline
from pullback.records.manifest import peak_memory_mb
from pullback.report.figures import COLOURS, INK, blank, write_figure
from pullback.space import Grid, Image
from pullback.training import KnownTransform, Unsupervised, seeded
from pullback.training.train import adam

BRAIN = Grid.centred((96, 112, 96), 2.0)
GRIDS = {"128³, 1 mm": Grid.centred((128, 128, 128)), "96×112×96, 2 mm": BRAIN}
FINENESS = (2, 3, 4, 6, 9)
CONTROLS = 8
ARMS = {
    "stored": (None, Unsupervised()),
    "synthetic": (Synthesis(), Unsupervised()),
    "synthetic, told": (Synthesis(), KnownTransform()),
}


def splines() -> None:
    table = Table("", "points per cell", "every, mm", "first, s", "then, s", "mean error, mm", "greatest, mm")
    values = 6 * torch.nn.functional.normalize(torch.randn(CONTROLS**3, 3, generator=make_generator(0)))
    values *= torch.rand(CONTROLS**3, 1, generator=make_generator(1))
    for name, grid in GRIDS.items():
        start = time.process_time()
        exact = exactly(values, grid)
        table.add_row(name, "exact", "", "", f"{time.process_time() - start:.2f}", "", "")
        for fineness in FINENESS:
            seconds = []
            for _ in range(4):
                start = time.process_time()
                field = thin_plate(values, CONTROLS, grid, fineness).displacement(grid)
                seconds.append(time.process_time() - start)
            off = (field * grid.spacing.float().view(3, 1, 1, 1) - exact).norm(dim=1)
            every = (torch.tensor(grid.shape) - 1) * grid.spacing / ((CONTROLS - 1) * fineness)
            row = [f"{every.mean():.1f}", f"{seconds[0]:.2f}", f"{min(seconds):.3f}", f"{off.mean():.3f}"]
            table.add_row("", str(fineness), *row, f"{off.max():.2f}")
    Console().print(table)


def exactly(values: Tensor, grid: Grid) -> Tensor:
    """The spline at every voxel, `(1, 3, *shape)` in mm."""
    at = torch.cartesian_prod(*[torch.arange(CONTROLS, dtype=torch.float32)] * 3)
    along = [torch.linspace(0, CONTROLS - 1, n) for n in grid.shape]
    return spline(at, values)(torch.cartesian_prod(*along)).mT.reshape(1, 3, *grid.shape)


def updates(arm: str, count: int) -> tuple[float, float]:
    """The processor's seconds of an update, the least of some, and the peak memory of this process in MB."""
    torch.set_num_threads(1)
    augment, supervision = ARMS[arm]
    images = (gaussian(torch.rand(1, 1, *BRAIN.shape, generator=make_generator(n)), 2.0) for n in range(2))
    stored = Pair(*(Image(data, BRAIN) for data in images))
    with seeded(0):
        network = VoxelMorph(ndim=3)
    optimiser = adam(network.parameters(), lr=1e-4)
    seconds = []
    for number in range(count + 1):
        start = time.process_time()
        pair = stored if augment is None else augment(stored, make_generator(0, number))
        optimiser.zero_grad()
        torch.stack(list(supervision(network, pair, 0.0).values())).sum().backward()
        optimiser.step()
        seconds.append(time.process_time() - start)
    return min(seconds[1:]), peak_memory_mb(torch.device("cpu"))


def compared(count: int) -> None:
    table = Table("pairs", "seconds of an update", "", "peak memory, MB", "")
    first: tuple[float, float] | None = None
    for arm in ARMS:
        command = [sys.executable, __file__, "update", "--updates", str(count), "--arm", arm]
        seconds, peak = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        first = first or (seconds, peak)
        more = [f"{100 * (a / b - 1):+.1f} %" for a, b in zip((seconds, peak), first, strict=True)]
        table.add_row(arm, f"{seconds:.2f}", more[0], f"{peak:.0f}", more[1])
    Console().print(table)


def drawn(synthesis: Synthesis, grid: Grid, count: int) -> dict[str, list[float]]:
    """What `count` draws come to: of the displacement every voxel's length, of the rest one number or three."""
    found: dict[str, list[float]] = {
        name: [] for name in ("displacement, mm", "rotation, °", "translation, mm", "gamma", "brightness")
    }
    longest = []
    for number in range(count):
        generator = make_generator(0, number)
        there = synthesis.transform(grid, generator, torch.zeros(()))
        contrast, motion = synthesis.contrast(generator), there.inner.matrix.double()
        lengths = (there.outer.displacement(grid) * grid.spacing.float().view(3, 1, 1, 1)).norm(dim=1).flatten()
        longest.append(float(lengths.max()))
        found["displacement, mm"] += lengths[::7].tolist()
        found["rotation, °"] += Rotation.from_matrix(motion[:3, :3].numpy()).as_euler("xyz", degrees=True).tolist()
        shift = motion[:3, :3] @ grid.centre + motion[:3, 3] - grid.centre
        found["translation, mm"].append(float(shift.norm()))
        found["gamma"].append(contrast.gamma)
        found["brightness"].append(contrast.brightness)
    print(f"longest displacement of a draw: {min(longest):.2f} to {max(longest):.2f} mm, mean {np.mean(longest):.2f}")
    return found


def figure(path: Path, count: int) -> None:
    """Histograms of the draws on a cube of 128 mm, with the limits."""
    synthesis = Synthesis()
    limits = {
        "displacement, mm": (0.0, synthesis.displacement),
        "rotation, °": (-synthesis.degrees, synthesis.degrees),
        "translation, mm": (0.0, synthesis.translation),
        "gamma": (1 / synthesis.gamma, synthesis.gamma),
        "brightness": (-synthesis.brightness, synthesis.brightness),
    }
    values = drawn(synthesis, Grid.centred((43, 43, 43), 128 / 42), count)
    drawing, axes = blank(len(limits), 11.0, 2.2)
    for axis, (name, ends) in zip(axes, limits.items(), strict=True):
        beyond = (ends[1] - ends[0]) / 10
        axis.hist(values[name], bins=np.linspace(ends[0] - beyond, ends[1] + beyond, 25), color=COLOURS[0])
        for end in ends:
            axis.axvline(end, color=COLOURS[1], linewidth=1.2, linestyle="--")
        low, high = min(values[name]), max(values[name])
        print(f"{name}: {low:.3f} to {high:.3f}, mean {np.mean(values[name]):.3f}; limits {ends[0]:g} to {ends[1]:g}")
        axis.set_xlabel(name, color=INK)
        axis.set_yticks([])
    write_figure(drawing, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("spline", "update", "draws"))
    parser.add_argument("out", nargs="?", type=Path, default=Path("draws.svg"), help="of draws: the figure")
    parser.add_argument("--count", type=int, default=1000, help="of draws: how many")
    parser.add_argument("--updates", type=int, default=3, help="of update: how many are timed, after a first")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.arm:
        print(json.dumps(updates(arguments.arm, arguments.updates)))
    elif arguments.what == "spline":
        splines()
    elif arguments.what == "update":
        compared(arguments.updates)
    else:
        figure(arguments.out, arguments.count)


if __name__ == "__main__":
    main()
