"""What On-the-Fly Guidance costs: seconds per update of VoxelMorph, guided ÷ unsupervised, side by side.

    python benchmarks/guided.py [--shape 80 96 112] [--rounds 5] [--precision bf16-mixed]

Each round makes one update of each kind in turn on the same pair of smooth random images; medians and their ratios are
of the rounds, after one that is not counted.
"""

import argparse
import statistics
import time

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table

from pullback.alignment import Pair
from pullback.methods.pair.ofg import Guided
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.random import generator
from pullback.numerics.smooth import gaussian
from pullback.solvers import Descend
from pullback.space import Grid, Image
from pullback.training import Unsupervised, seeded


def make_pair(shape: tuple[int, ...]) -> Pair:
    chance = generator(0)
    images = [gaussian(torch.rand(1, 1, *shape, generator=chance), 2.0) for _ in range(2)]
    return Pair(*(Image((i - i.min()) / (i.max() - i.min()), Grid.centred(shape)) for i in images))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shape", type=int, nargs=3, default=(80, 96, 112))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--precision", default="32-true")
    given = options.parse_args()
    fabric = Fabric(accelerator="auto", devices=1, precision=given.precision)
    pair = make_pair(tuple(given.shape)).to(fabric.device)
    with seeded(0):
        network = VoxelMorph(ndim=3).to(fabric.device)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)

    def register(fixed: Image, moving: Image):
        with fabric.autocast():
            return network(fixed, moving)

    kinds = {"unsupervised": Unsupervised()} | {f"guided, n = {n}": Guided(solver=Descend(n, 0.1)) for n in (5, 10)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(given.rounds + 1):
        for name, supervision in kinds.items():
            start = time.perf_counter()
            loss = torch.stack(list(supervision(register, pair, 0.0).values())).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            loss.item()
            seconds[name].append(time.perf_counter() - start)
    title = f"{given.shape}, {given.precision}, {fabric.device}"
    table = Table("", "seconds per update", "÷ unsupervised", title=title)
    base = seconds["unsupervised"][1:]
    for name, values in seconds.items():
        ratio = statistics.median(v / b for v, b in zip(values[1:], base, strict=True))
        table.add_row(name, f"{statistics.median(values[1:]):.3f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
