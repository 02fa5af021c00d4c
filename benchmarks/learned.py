"""Trained networks beside classical registration, on the test pairs of the first run.

    python benchmarks/learned.py RUN… --data FOLDER [--pairs 12] [--tools SyN balanced] [-o OUT.csv]

Each pair is written as the networks see it (normalised, on one grid), so that all tools start from the same images;
seconds are of the registration alone. Of many test pairs, `--pairs` are taken evenly. The metrics are those of the
first run's recipe.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from classical import TOOLS, installed, measured
from peers import ImageFiles
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pullback.alignment import Pair
from pullback.files import write
from pullback.records.csv_records import write_csv
from pullback.study.run import load_run
from pullback.training import measure


def written(pair: Pair, folder: Path) -> ImageFiles:
    parts = {"fixed": pair.fixed, "moving": pair.moving}
    parts |= {"fixed_labels": pair.fixed_labels, "moving_labels": pair.moving_labels}
    paths = {name: folder / f"{name}.nii.gz" for name, part in parts.items() if part is not None}
    for name, path in paths.items():
        write(parts[name], path)
    return ImageFiles(pair.name, **paths)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--data", type=Path)
    options.add_argument("--pairs", type=int, default=12)
    options.add_argument("--tools", nargs="*", choices=TOOLS, default=["before", "SyN", "fast", "balanced"])
    options.add_argument("-o", "--out", type=Path)
    given = options.parse_args()
    console = Console(width=110)
    loaded = {str(run): load_run(run) for run in given.runs}
    recipe = next(recipe for recipe, _ in loaded.values())
    data = recipe.data if given.data is None else replace(recipe.data, root=str(given.data))
    few, metrics = data.test.some(given.pairs), recipe.metrics
    rows = []
    for pair in track(few, "pairs", len(few), console=console, transient=True):
        with TemporaryDirectory() as folder:
            files = written(pair, Path(folder))
            for name, tool in installed(given.tools, console).items():
                rows.append({"register": name, "pair": pair.name, **measured(tool, files, pair, metrics)[0]})
        for name, (_, trained) in loaded.items():
            (row,) = measure(trained.network, [pair], metrics, torch.device("cpu"))
            rows.append({"register": name, **row})
    if given.out is not None:
        write_csv(rows, given.out)
    columns = [
        c for c in dict.fromkeys(c for row in rows for c in row) if c not in ("register", "pair") and "/" not in c
    ]
    table = Table("", *columns, title=f"{len(few)} test pairs, {torch.get_num_threads()} threads")
    for name in dict.fromkeys(row["register"] for row in rows):
        values = [[row[c] for row in rows if row["register"] == name and c in row] for c in columns]
        table.add_row(name, *(f"{statistics.mean(each):.3g}" if each else "" for each in values))
    console.print(table)


if __name__ == "__main__":
    main()
