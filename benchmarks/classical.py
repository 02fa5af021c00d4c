"""Classical registration side by side: our three presets and the tools people use today.

    python benchmarks/classical.py [--data FOLDER] [--pairs 12] [--skip 0] [--only NAME …] [--threads 2] [-o OUT.csv]
    python benchmarks/classical.py --mni [--only NAME …]
    python benchmarks/classical.py --ct-mr [--only NAME …]

The pairs are the ordered ones of sub-13 … 16 at 2 mm, with 31 structures. The tools take turns on each, so that
whatever else the machine does falls on all. Seconds are of the registration alone, images in memory; ours run until
the displacement of every voxel is known. All answers are measured by `pullback.metrics`; on the first pair a tool's
own hand must move the labels to the same Dice, within 0.005, as its transform does in ours.

With `--mni` a head at 2 mm and a brain at 1 mm go to their MNI template, each on a grid of its own. `ncc` is what the
validation of cfireants (validate/run_validation.py) reports: Pearson's correlation of the template and the moved
image, linear, zero outside, over all voxels of the template. It has 0.9450 and 0.9443 for FireANTs.

The headers place these brains as well as an affine map can by what structures overlap; by intensities alone the linear
stages of every tool lose some of it. "aligned" is the deformable stage alone, from the headers.

With `--ct-mr` an MR of the upper abdomen goes to the CT of another patient: nine organs, labelled by a model. Their
headers do not place them, so all tools get the MR as our rigid stage lays it on the CT's grid.

FireANTs wants another SimpleITK than this project. It runs with ours, from a folder of its own:

    pip install --no-deps --target SITE fireants tqdm
    PYTHONPATH=SITE python benchmarks/classical.py

So does ConvexAdam's package (`convexAdam`, no more than it). `peak MB` is the most memory that the process held.
"""

import argparse
import csv
import itertools
import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peers import Answer, ImageFiles, Tool, convex_adam, elastix, fireants, syn, syn_cc
from rich.console import Console
from rich.table import Table

from pullback.alignment import Alignment, Pair, Register
from pullback.data import normalised
from pullback.files import read_image, read_labels, write as save
from pullback.methods.pair.classical import ACCURATE, BALANCED, FAST
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.metrics import STANDARD, Metric, numbers_of
from pullback.records.atomic import atomic_write
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.space import Affine, Labels, pull
from pullback.training import align
from pullback.workflows.choices import classical

CPU = torch.device("cpu")
SHARED = Path(__file__).parents[2] / "shared" / "data"
SUBJECTS = (13, 14, 15, 16)
SAME = 0.005  # Dice, between a tool's own resampling of labels and ours
COLUMNS = ("dice", "ncc", "folding %", "folding % (all)", "sdlogj", "seconds", "peak MB")
ORGANS = 9  # classes 1 … 9 are the same organs in the models for CT and for MR

Row = dict[str, str | float]


def ours(register: Register) -> Callable[[], Tool]:
    """A register of this package as a tool of the table."""

    def run(files: ImageFiles, folder: Path) -> Answer:
        pair = Pair(read_image(files.fixed), read_image(files.moving))
        start = time.perf_counter()
        transform = align(register, pair).transform
        _ = transform.displacement(pair.fixed.grid)  # a velocity is only now integrated
        return Answer(transform, time.perf_counter() - start)

    return lambda: run


def before() -> Tool:
    """Nothing but the headers."""
    return ours(lambda fixed, moving: Alignment(Pair(fixed, moving), Affine.identity(fixed.grid.ndim)))()


TOOLS: dict[str, Callable[[], Tool]] = {
    "before": before,
    "fast": ours(FAST),
    "balanced": ours(BALANCED),
    "accurate": ours(ACCURATE),
    "fast, aligned": ours(classical("fast", aligned=True)),
    "balanced, aligned": ours(classical("balanced", aligned=True)),
    "ConvexAdam": ours(ConvexAdam()),
    "ConvexAdam, package": convex_adam,
    "SyN": syn,
    "SyNCC": syn_cc,
    "elastix": elastix,
    "FireANTs": fireants,
}


def brains(folder: Path) -> list[ImageFiles]:
    """The ordered pairs, the ones that issue 3 has figures of first."""
    first = [(13, 14), (15, 16), (14, 15)]
    order = first + [p for p in itertools.permutations(SUBJECTS, 2) if p not in first]

    def pair(fixed: int, moving: int) -> ImageFiles:
        files = (folder / f"sub-{n}_{kind}.nii.gz" for kind in ("T1w", "dseg") for n in (fixed, moving))
        return ImageFiles(f"{fixed} ← {moving}", *files)

    return [pair(*numbers) for numbers in order]


def templates(folder: Path) -> list[ImageFiles]:
    small, medium = folder / "validate" / "small", folder / "validate" / "medium"
    return [
        ImageFiles("head, 2 mm", small / "MNI152_T1_2mm.nii.gz", small / "T1_head_2mm.nii.gz"),
        ImageFiles("brain, 1 mm", medium / "MNI152_T1_1mm_brain.nii.gz", medium / "t1_brain.nii.gz"),
    ]


def abdomens(folder: Path, out: Path) -> list[ImageFiles]:
    """MR to CT, rigidly aligned and on one grid, written into `out`."""
    references = folder / "tests" / "reference_files"
    names = {"fixed": ("example_ct_sm", "example_seg"), "moving": ("example_mr_sm", "example_seg_mr")}
    images = {side: normalised(read_image(references / f"{image}.nii.gz")) for side, (image, _) in names.items()}
    labels = {side: read_labels(references / f"{seg}.nii.gz", on=images[side].grid) for side, (_, seg) in names.items()}
    start = classical(transform="rigid")(images["fixed"], images["moving"]).transform
    paths = {side: (out / f"{side}.nii.gz", out / f"{side}_labels.nii.gz") for side in names}
    for side, (image, seg) in paths.items():
        few = replace(labels[side], data=labels[side].data * (labels[side].data <= ORGANS))
        through = start if side == "moving" else Affine.identity(3)
        save(pull(images[side], through, onto=images["fixed"]), image)
        save(pull(few, through, onto=images["fixed"]), seg)
    return [ImageFiles("CT ← MR", paths["fixed"][0], paths["moving"][0], paths["fixed"][1], paths["moving"][1])]


def installed(names: list[str], console: Console) -> dict[str, Tool]:
    tools = {}
    for name in names:
        try:
            tools[name] = TOOLS[name]()
        except ImportError as error:
            console.print(f"{name} is left out: {error}")
    return tools


def loaded(files: ImageFiles) -> Pair:
    labels = (path and read_labels(path) for path in (files.fixed_labels, files.moving_labels))
    return Pair(read_image(files.fixed), read_image(files.moving), *labels)


def measured(
    tool: Tool, files: ImageFiles, pair: Pair, metrics: Sequence[Metric] = STANDARD
) -> tuple[dict[str, float], float | None]:
    """The numbers of an answer, and the Dice by the tool's own hand where it has one and there are labels."""
    with TemporaryDirectory() as folder:
        forget_peak_memory(CPU)
        answer = tool(files, Path(folder))
        costs = {"seconds": answer.seconds, "peak MB": peak_memory_mb(CPU)}
        numbers = numbers_of(Alignment(pair, answer.transform), metrics) | costs
        if answer.pulled is None or files.moving_labels is None or pair.fixed_labels is None:
            return numbers, None
        moved = torch.from_numpy(answer.pulled(files.moving_labels).copy())[None, None]
    grid = pair.fixed_labels.grid
    in_place = Pair(pair.fixed, pair.fixed, pair.fixed_labels, Labels(moved.to(torch.int32), grid))
    own = numbers_of(Alignment(in_place, Affine.identity(grid.ndim)), STANDARD)
    return numbers, own["dice"]


def check(name: str, numbers: dict[str, float], own: float, console: Console) -> None:
    verdict = "the same" if abs(numbers["dice"] - own) <= SAME else "NOT THE SAME: its figures cannot be trusted"
    console.print(f"{name}: Dice {numbers['dice']:.4f} by its transform, {own:.4f} by its own hand: {verdict}")


def write(rows: list[Row], path: Path) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("pair", "tool", *COLUMNS), restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def show(rows: list[Row], groups: dict[str, list[Row]], title: str, console: Console) -> None:
    """Mean ± standard deviation of each group."""
    columns = [c for c in COLUMNS if any(c in row for row in rows)]
    table = Table("", "pairs", *columns, title=title)
    for name, group in groups.items():
        cells = []
        for column in columns:
            values = [float(row[column]) for row in group]
            spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4g}{spread}")
        table.add_row(name, str(len(group)), *cells)
    console.print(table)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="folder of the pairs; default: the one in ../shared/data")
    options.add_argument("--pairs", type=int, default=12, help="how many of them")
    options.add_argument("--skip", type=int, default=0, help="how many to leave out first")
    options.add_argument("--only", nargs="+", choices=TOOLS, help="tools; default: all, with --mni before and balanced")
    options.add_argument("--threads", type=int, default=2, help="of each tool")
    options.add_argument("--mni", action="store_true", help="to the MNI templates instead")
    options.add_argument("--ct-mr", action="store_true", help="MR to CT of the abdomen instead")
    options.add_argument("-o", "--output", type=Path, help="the numbers of each pair, as CSV")
    given = options.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(given.threads)
    torch.set_num_threads(given.threads)
    logging.disable(logging.WARNING)  # FireANTs tells of its every step
    console = Console()
    if given.mni:
        pairs, names = templates(given.data or SHARED / "brain_to_mni"), ["before", "balanced"]
    elif given.ct_mr:
        prepared = TemporaryDirectory()
        pairs = abdomens(given.data or SHARED / "totalsegmentator_ct_mr", Path(prepared.name))
        names = ["before", "balanced", "ConvexAdam", "ConvexAdam, package"]
    else:
        pairs, names = brains(given.data or SHARED / "brains" / "2mm"), list(TOOLS)
    tools = installed(given.only or names, console)
    rows: list[Row] = []
    for number, files in enumerate(pairs[given.skip :][: given.pairs]):
        pair = loaded(files)
        for name, tool in tools.items():
            numbers, own = measured(tool, files, pair)
            rows.append({"pair": files.name, "tool": name, **numbers})
            said = ", ".join(f"{c} {numbers[c]:.4g}" for c in COLUMNS if c in numbers)
            console.print(f"{files.name}, {name}: {said}")
            if number == 0 and own is not None:
                check(name, numbers, own, console)
            if given.output:
                write(rows, given.output)
    threads = f"{given.threads} threads"
    if given.mni:
        show(rows, {f"{r['pair']}, {r['tool']}": [r] for r in rows}, f"to MNI, {threads}", console)
    else:
        groups = {name: [row for row in rows if row["tool"] == name] for name in tools}
        show(rows, groups, f"{'CT ← MR' if given.ct_mr else 'brains'}, {threads}", console)


if __name__ == "__main__":
    main()
