"""A geodesic shot and its gradient, with and without computing steps again: seconds and peak memory.

    python benchmarks/flows.py [--json]

80×96×112 voxels as of a brain at 2 mm, ten steps, each by the midpoint and by Euler's scheme, float32. Each way is
measured in a process of its own, one after the other: a process keeps its high-water mark. Memory is what a shot needs
beyond imports and inputs; glibc is told to give freed memory back (`MALLOC_MMAP_THRESHOLD_`), for by default it keeps
much of it, two or three times what is in use where steps are computed again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

from pullback.numerics.integrate import euler, midpoint
from pullback.numerics.kernel import Sobolev
from pullback.numerics.random import make_generator
from pullback.space import Geodesic, Grid

SHAPE, STEPS, LARGEST = (80, 96, 112), 10, 5.0
KERNEL = Sobolev(0.0025, 4, unit="side")
SCHEMES = {"euler": euler, "midpoint": midpoint}
WAYS = {f"{scheme}, {how}": (scheme, how == "again") for scheme in SCHEMES for how in ("kept", "again")}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def measure(way: str) -> dict[str, float]:
    """In this process, which has done nothing else."""
    scheme, frugal = WAYS[way]
    grid = Grid.centred(SHAPE, 2.0)
    velocity = KERNEL.smooth(torch.randn(1, 3, *SHAPE, generator=make_generator(0)), [2.0] * 3)
    field = (LARGEST * velocity / velocity.abs().max()).requires_grad_()
    before, wall, cpu = peak_mb(), time.perf_counter(), time.process_time()
    end = Geodesic(field, grid, KERNEL, STEPS, SCHEMES[scheme], frugal).own_displacement
    forward = time.process_time() - cpu
    end.square().mean().backward()
    return {
        "forward_cpu_s": forward,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": peak_mb() - before,
        "farthest_voxels": float(end.detach().abs().max()),
    }


def apart(way: str) -> dict[str, float]:
    frugal = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, __file__, "--way", way]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=frugal)
    return json.loads(done.stdout)


def show(results: dict[str, dict[str, float]]) -> None:
    size = "×".join(map(str, SHAPE))
    title = f"Geodesic, {size}, {STEPS} steps, forward and gradient, {torch.get_num_threads()} threads"
    table = Table("", "forward", "with gradient", "wall", "peak memory", title=title)
    for way, r in results.items():
        times = (f"{r[key]:.1f} s" for key in ("forward_cpu_s", "cpu_s", "wall_s"))
        table.add_row(way.replace("again", "computed again"), *times, f"{r['peak_mb']:.0f} MB")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line for scripts")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way)))
        return
    results = {way: apart(way) for way in WAYS}
    if arguments.json:
        print(json.dumps(results))
    else:
        show(results)


if __name__ == "__main__":
    main()
