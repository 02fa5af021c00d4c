"""Trained networks beside classical registration, on the test pairs of the first run.

    python benchmarks/learned.py RUN… --data FOLDER [--pairs 12] [--tools SyN balanced] [-o OUT.csv]

All start from the images as the networks see them (normalised, on one grid), which other tools read from files; seconds
are of the registration alone. Of many test pairs, `--pairs` are taken evenly. The metrics are those of the first run's
recipe.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from pullback.records.csv_records import write_csv
from pullback.studies.classical import PRESETS, TOOLS
from pullback.study.arms import RegisterArm, Trial, Unit
from pullback.study.compare import table
from pullback.study.evaluate import left_out
from pullback.study.run import load_network

ARMS = {**PRESETS, **TOOLS}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--data", type=Path)
    options.add_argument("--pairs", type=int, default=12)
    options.add_argument("--tools", nargs="*", choices=ARMS, default=["before", "SyN", "fast", "balanced"])
    options.add_argument("-o", "--out", type=Path)
    given = options.parse_args()
    console = Console(width=110)
    loaded = {str(run): load_network(run) for run in given.runs}
    recipe = next(recipe for recipe, _ in loaded.values())
    data = recipe.data if given.data is None else replace(recipe.data, root=str(given.data))
    few = SimpleNamespace(test=data.test.some(given.pairs))
    arms = {name: ARMS[name] for name in given.tools} | {name: RegisterArm(run) for name, (_, run) in loaded.items()}
    results = {}
    for name, arm in arms.items():
        with left_out(f"no row of {name}", console):
            unit = Unit(arm, Trial(Path(), "test", few, recipe.evaluates), Path())
            results[name] = [*arm.rows(unit, console)]
    if given.out is not None:
        write_csv([{"register": name, **row} for name, rows in results.items() for row in rows], given.out)
    console.print(table(results, console, title=f"{len(few.test)} test pairs"))


if __name__ == "__main__":
    main()
