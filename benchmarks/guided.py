"""What On-the-Fly Guidance costs: seconds and memory per update, guided ÷ unsupervised, side by side.

    python benchmarks/guided.py [--network transmorph] [--shape 80 96 112] [--precision bf16-mixed] [--dense]

Each round makes one update of each kind in turn on the same pair of smooth random images; medians and their ratios are
of the rounds, after two that are not counted. Memory is the most that is held during an update of the second of these:
of the accelerator, or of the process, which from then on keeps what it frees, as in a training. With `--dense`, also by
n = 10 steps on LNCC by dense convolutions, as VoxelMorph's code has it.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, replace

import torch
from lightning_fabric import Fabric
from lncc import dense
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pullback.alignment import Alignment, Pair, Supervision
from pullback.energies import Diffusion, Energy
from pullback.methods.pair.ofg import Guided
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.recipes.unsupervised import NETWORKS
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.space import Grid, Image
from pullback.training import Unsupervised, keep_freed_memory, seeded


@dataclass(frozen=True)
class DenseLNCC(Energy):
    """Window 9, by dense convolutions."""

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return {"lncc": 1 - dense(alignment.pair.fixed.data, alignment.moved.data, 9)}


def make_pair(shape: tuple[int, ...]) -> Pair:
    generator = make_generator(0)
    images = [gaussian(torch.rand(1, 1, *shape, generator=generator), 2.0) for _ in range(2)]
    return Pair(*(Image((i - i.min()) / (i.max() - i.min()), Grid.centred(shape)) for i in images))


def kinds_of(with_dense: bool) -> dict[str, Supervision]:
    kinds: dict[str, Supervision] = {"unsupervised": Unsupervised()}
    kinds |= {f"guided, n = {n}": Guided(solver=replace(Guided().solver, steps=n)) for n in (5, 10)}
    if with_dense:
        kinds["guided, n = 10, dense LNCC"] = Guided(DenseLNCC() + 1.0 * Diffusion())
    return kinds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", choices=NETWORKS, default="voxelmorph")
    options.add_argument("--shape", type=int, nargs=3, default=(80, 96, 112))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--precision", default="32-true")
    options.add_argument("--dense", action="store_true")
    given = options.parse_args()
    fabric = Fabric(accelerator="auto", devices=1, precision=given.precision)
    pair = make_pair(tuple(given.shape)).to(fabric.device)
    name, kind, _ = NETWORKS[given.network]
    with seeded(0):
        network = kind(ndim=3).to(fabric.device)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)

    def register(fixed: Image, moving: Image):
        with fabric.autocast():
            return network(fixed, moving)

    def update(supervision: Supervision) -> None:
        loss = torch.stack(list(supervision(register, pair, 0.0).values())).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        loss.item()

    kinds = kinds_of(given.dense)
    seconds: dict[str, list[float]] = {label: [] for label in kinds}
    memory: dict[str, float] = {}
    for number in range(given.rounds + 2):
        if number == 2:
            keep_freed_memory()
        for label, supervision in kinds.items():
            forget_peak_memory(fabric.device)
            start = time.perf_counter()
            update(supervision)
            seconds[label].append(time.perf_counter() - start)
            if number == 1:
                memory[label] = peak_memory_mb(fabric.device)
    title = f"{name}, {'×'.join(map(str, given.shape))}, {given.precision}, {fabric.device}"
    table = Table("", "seconds per update", "÷ unsupervised", "peak MB", "÷ unsupervised", title=title)
    base = seconds["unsupervised"][2:]
    for label, values in seconds.items():
        ratio = statistics.median(v / b for v, b in zip(values[2:], base, strict=True))
        more = memory[label] / memory["unsupervised"]
        median = statistics.median(values[2:])
        table.add_row(label, f"{median:.3f}", f"{ratio:.2f}", f"{memory[label]:.0f}", f"{more:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
