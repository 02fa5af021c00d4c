"""One volume through a 3³ convolution, forward and backward: the layer as it is, and `convolve` in both layouts.

python benchmarks/convolution.py
"""

import statistics
import time
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from pullback.networks import channels_last, convolve

CASES = ((32, 16, (80, 96, 112)), (16, 3, (80, 96, 112)), (32, 32, (24, 24, 24)), (64, 32, (12, 12, 12)))
ROUNDS = 9


def milliseconds(run, values: torch.Tensor) -> float:
    start = time.perf_counter()
    run(values).sum().backward()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    columns = ("channels, size", "layer, ms", "convolve, ms", "channels last, ms", "ratio", "ratio")
    table = Table(*columns, title=f"{torch.get_num_threads()} threads")
    for inside, outside, shape in CASES:
        layer = nn.Conv3d(inside, outside, 3, padding=1)
        plain = torch.rand(1, inside, *shape, requires_grad=True)
        last = channels_last(plain.detach()).requires_grad_()
        ways = ((layer, plain), (partial(convolve, layer), plain), (partial(convolve, layer), last))
        rounds = [[milliseconds(*way) for way in ways] for _ in range(ROUNDS)][2:]
        times = [statistics.median(column) for column in zip(*rounds, strict=True)]
        ratios = [statistics.median(one[0] / one[k] for one in rounds) for k in (1, 2)]
        table.add_row(f"{inside} → {outside}, {shape}", *(f"{number:.1f}" for number in (*times, *ratios)))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
