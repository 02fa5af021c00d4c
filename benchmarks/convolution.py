"""One small volume through a 3³ convolution, forward and backward: the layer as it is against `convolve`.

python benchmarks/convolution.py
"""

import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from pullback.networks import convolve

CASES = ((32, 32, (24, 24, 24)), (64, 32, (12, 12, 12)), (64, 32, (6, 6, 6)), (32, 32, (16, 24, 16)))
ROUNDS = 15


def seconds(run, values: torch.Tensor) -> float:
    start = time.perf_counter()
    run(values).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    table = Table("channels, size", "layer, ms", "convolve, ms", "ratio", title=f"{torch.get_num_threads()} threads")
    for inside, outside, shape in CASES:
        layer = nn.Conv3d(inside, outside, 3, padding=1)
        values = torch.rand(1, inside, *shape, requires_grad=True)
        rounds = [(seconds(layer, values), seconds(lambda v, f=layer: convolve(f, v), values)) for _ in range(ROUNDS)][
            3:
        ]
        plain, ours = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        table.add_row(f"{inside} → {outside}, {shape}", f"{plain:.1f}", f"{ours:.1f}", f"{ratio:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
