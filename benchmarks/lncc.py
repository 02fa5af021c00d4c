"""LNCC, forward and backward: ours against the common form by dense convolutions with a cube of ones.

    python benchmarks/lncc.py [--json]

Both see the same images, 80×96×112 as a brain at 2 mm, window 9, on all cores. Times are interleaved, so that whatever
else the machine does falls on both. Memory is measured for each in a process of its own, and before anything else: a
process inherits the high-water mark of the one that started it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pullback.energies import lncc
from pullback.numerics.smooth import gaussian

SHAPE = (80, 96, 112)
WINDOW = 9
ROUNDS = 5


def dense(fixed: Tensor, moved: Tensor, window: int) -> Tensor:
    """As VoxelMorph formulates it: five sums by a dense window³ convolution, zeros beyond the border."""
    ones, n = fixed.new_ones(1, 1, window, window, window), window**3
    i, j, ii, jj, ij = (
        F.conv3d(t, ones, padding=window // 2) for t in (fixed, moved, fixed**2, moved**2, fixed * moved)
    )
    i_mean, j_mean = i / n, j / n
    cross = ij - j_mean * i - i_mean * j + i_mean * j_mean * n
    i_variance = ii - 2 * i_mean * i + i_mean**2 * n
    j_variance = jj - 2 * j_mean * j + j_mean**2 * n
    return (cross**2 / (i_variance * j_variance + 1e-5)).mean()


FORMS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {"ours": lncc, "dense": dense}


def images() -> tuple[Tensor, Tensor]:
    """Two related smooth pictures in 0 … 1, in a margin of zeros so wide that both forms agree."""
    generator = torch.Generator().manual_seed(0)
    core = tuple(n - 2 * (WINDOW - 1) for n in SHAPE)
    one, two = (gaussian(torch.randn(1, 1, *core, generator=generator), 1.5) for _ in range(2))
    pictures = (one, 0.7 * one + 0.3 * two)
    fixed, moved = (F.pad((t - t.min()) / (t.max() - t.min()), [WINDOW - 1] * 6) for t in pictures)
    return fixed, moved.requires_grad_()


def step(form: Callable[[Tensor, Tensor, int], Tensor], fixed: Tensor, moved: Tensor) -> tuple[float, float]:
    """The value, and the seconds that it and its gradient took."""
    moved.grad = None
    start = time.perf_counter()
    value = form(fixed, moved, WINDOW)
    value.backward()
    return value.item(), time.perf_counter() - start


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def memory(name: str) -> float:
    """In this process, which has done nothing else: what one step needs beyond imports and inputs, in MB.

    The inputs are plain noise: making the pictures of `images` would leave a high-water mark of its own.
    """
    fixed, moved = torch.rand(1, 1, *SHAPE), torch.rand(1, 1, *SHAPE, requires_grad=True)
    before = peak_mb()
    step(FORMS[name], fixed, moved)
    return peak_mb() - before


def memory_of_its_own(name: str) -> float:
    command = [sys.executable, __file__, "--memory", name]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def measure() -> dict[str, dict[str, float]]:
    peaks = {name: statistics.median(memory_of_its_own(name) for _ in range(3)) for name in FORMS}
    fixed, moved = images()
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    values = {}
    for round_ in range(ROUNDS + 1):
        for name, form in FORMS.items():
            values[name], seconds = step(form, fixed, moved)
            if round_ > 0:  # the first warms up
                times[name].append(seconds)
    return {
        name: {"seconds": statistics.median(times[name]), "peak_mb": peaks[name], "value": values[name]}
        for name in FORMS
    }


def show(results: dict[str, dict[str, float]]) -> None:
    ours, other = results["ours"], results["dense"]
    title = f"LNCC {WINDOW}³, {'×'.join(map(str, SHAPE))}, forward and backward, {torch.get_num_threads()} threads"
    table = Table("", "time", "peak memory", "value", title=title)
    for name, label in (("ours", "ours"), ("dense", "dense convolution")):
        r = results[name]
        table.add_row(label, f"{r['seconds'] * 1e3:.0f} ms", f"{r['peak_mb']:.0f} MB", f"{r['value']:.6f}")
    table.add_row(
        "dense ÷ ours",
        f"{other['seconds'] / ours['seconds']:.1f}×",
        f"{other['peak_mb'] / ours['peak_mb']:.1f}×",
        f"difference {abs(other['value'] - ours['value']):.1e}",
    )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line for scripts")
    parser.add_argument("--memory", choices=FORMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(memory(arguments.memory))
        return
    results = measure()
    if arguments.json:
        print(json.dumps(results))
    else:
        show(results)


if __name__ == "__main__":
    main()
