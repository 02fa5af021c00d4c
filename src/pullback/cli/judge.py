"""The commands that look at images before they are aligned, and at runs after they were trained."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Data, Device, Json, OfData, Space, Trust, of_data, say, terminal
from pullback.cli.train import with_data


def doctor(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED|FOLDER", help="Image that stays; or a folder of images.")],
    moving: Annotated[
        Path | None, typer.Argument(metavar="MOVING", help="Image to bring onto it; default none: FIXED alone.")
    ] = None,
    setting: OfData = None,
    as_json: Json = False,
) -> None:
    """Tell what will go wrong in a registration of two files, and how to mend it.

    Of a folder, look at all its images, as `train` does: files that cannot
    be read, grids, labels, places, people, copies, hidden files.

    Exit code 1: they cannot be aligned as they are.
    """
    from pullback.errors import refuse
    from pullback.files import Severity
    from pullback.workflows.doctor import examine, layout, verdict
    from pullback.workflows.survey import examine_folder, is_cohort

    if is_cohort(fixed, setting or ()):
        refuse({str(moving): moving}, "FIXED is a folder")
        found = examine_folder(fixed, of_data(setting), terminal(as_json))
    else:
        refuse({"--set": setting or None}, "says how a folder is read, and this is a file")
        found = examine(fixed, moving)
    listed = [{"severity": f.severity.value, "what": f.what, "remedy": f.remedy} for f in found]
    if not as_json:
        terminal(as_json).print(layout(found))
    say(as_json, {"findings": listed, "verdict": verdict(found)}, verdict(found))
    if any(f.severity is Severity.ERROR for f in found):
        raise typer.Exit(1)


FILES = "Transforms on disk"
FixedLabels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Label map of the fixed image.", rich_help_panel=FILES)
]
MovingLabels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Label map of the moving image.", rich_help_panel=FILES)
]
FixedPoints = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Landmarks of the fixed image.", rich_help_panel=FILES)
]
MovingPoints = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Theirs in the moving image, by name or in order.", rich_help_panel=FILES),
]
FixedMask = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Mask: where voxels count.", rich_help_panel=FILES)
]


def evaluate(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN...]", help="Folders of trained runs; default none.")
    ] = None,
    data: Data = None,
    setting: OfData = None,
    runs_only: Annotated[bool, typer.Option("--runs-only", help="Leave out the row of ConvexAdam.")] = False,
    trust: Trust = None,
    device: Device = "auto",
    fixed: Annotated[
        Path | None, typer.Option("-f", "--fixed", metavar="FILE", help="Image that stays.", rich_help_panel=FILES)
    ] = None,
    moving: Annotated[
        Path | None,
        typer.Option("-m", "--moving", metavar="FILE", help="Image that was brought onto it.", rich_help_panel=FILES),
    ] = None,
    transforms: Annotated[
        list[str] | None,
        typer.Option(
            "-t",
            "--transform",
            metavar="FILE",
            help="Transform fixed → moving of any tool, as `apply` takes it. Repeatable.",
            rich_help_panel=FILES,
        ),
    ] = None,
    inverse: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Transform of the way back. Repeatable.", rich_help_panel=FILES),
    ] = None,
    fixed_labels: FixedLabels = None,
    moving_labels: MovingLabels = None,
    fixed_points: FixedPoints = None,
    moving_points: MovingPoints = None,
    fixed_mask: FixedMask = None,
    space: Space = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="FILE",
            help="CSV of many: columns fixed, moving, transform, and others called as these options.",
            rich_help_panel=FILES,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for pairs.csv and summary.csv.")
    ] = Path("evaluation"),
    as_json: Json = False,
) -> None:
    """Measure trained runs on their test data, or transforms on disk.

    RUN... are measured on the test split of the first one's data. The table
    holds means ± deviations, paired differences, seconds and memory. Beside
    runs on pairs of images stand the unmoved images and ConvexAdam, which
    needs no training.

    -f, -m and -t, or --pairs, measure transforms that any tool made: Dice
    and HD95 of labels, distances of points, folding, and how far the inverse
    is from one, before and after.
    """
    from pullback.errors import InputError, refuse

    of_files = {
        "-f": fixed,
        "-m": moving,
        "-t": transforms or None,
        "--inverse": inverse or None,
        "--fixed-labels": fixed_labels,
        "--moving-labels": moving_labels,
        "--fixed-points": fixed_points,
        "--moving-points": moving_points,
        "--fixed-mask": fixed_mask,
        "--space": space,
    }
    if runs:
        refuse(of_files | {"--pairs": pairs}, "is of transforms on disk, and these are trained runs")
        _evaluate_runs(runs, data, setting, out, runs_only, trust, device, as_json)
        return
    of_runs = {"--data": data, "--set": setting, "--runs-only": runs_only or None, "--trust": trust}
    refuse(of_runs, "is of trained runs, and there are none")
    if pairs is not None:
        refuse({**of_files, "--space": None}, "is a column of --pairs")
    elif fixed is None or moving is None or not transforms:
        raise InputError("give folders of trained runs, or -f, -m and -t, or --pairs with a table of them")
    _evaluate_files(of_files, pairs, space, out, as_json)


def _evaluate_files(given: dict, pairs: Path | None, space: str | None, out: Path, as_json: bool) -> None:
    from pullback.records.lock import locked
    from pullback.study.compare import summary, table, write_tables
    from pullback.workflows.evaluation import EvaluatedFiles, evaluate_many, read_evaluated

    if pairs is None:
        sides = ("fixed_labels", "moving_labels", "fixed_points", "moving_points", "fixed_mask")
        more = {name: given[f"--{name.replace('_', '-')}"] for name in sides}
        listed = [
            EvaluatedFiles(
                str(given["-f"]),
                str(given["-m"]),
                tuple(given["-t"]),
                tuple(given["--inverse"] or ()),
                **{name: str(path) for name, path in more.items() if path is not None},
            )
        ]
    else:
        listed = read_evaluated(pairs)
    console = terminal(as_json)
    with locked(out):
        _tell_replaced(console, out)
        results = evaluate_many(listed, console, space)
        write_tables(results, None, out)
    console.print(table(results, console, None, f"{len(listed)} pairs" if pairs else listed[0].fixed))
    say(as_json, {"output": str(out), "table": summary(results)}, f"Written: {out}")


def _evaluate_runs(
    runs: list[Path],
    data: Path | None,
    setting: list[str] | None,
    out: Path,
    runs_only: bool,
    trust: list[str] | None,
    device: str,
    as_json: bool,
) -> None:
    from pullback.errors import InputError
    from pullback.numerics.device import device_of
    from pullback.records.lock import locked
    from pullback.study.compare import summary, table, write_tables
    from pullback.study.evaluate import by_people, evaluate, left_out
    from pullback.study.run import as_evaluated, leaked, load_network
    from pullback.workflows.baselines import BEFORE, SOLVERS
    from pullback.workflows.survey import usable_test

    loaded = {str(run): load_network(run, trust or ()) for run in runs}
    kinds = {name: recipe.aligns for name, (recipe, _) in loaded.items()}
    if len(set(kinds.values())) > 1:
        raise InputError(f"runs that align the same are measured together; these align {kinds}")
    first = with_data(next(iter(loaded.values()))[0], data, of_data(setting))
    console = terminal(as_json)
    where = device_of(device)
    networks = {name: as_evaluated(name, *both, where) for name, both in loaded.items()}
    pairs = first.aligns == "pair"
    for name in (*BEFORE, *SOLVERS):
        if name in networks:
            raise InputError(f"{name}: is the name of a row that stands beside runs; rename the folder of this run")
    reference = str(runs[0]) if len(runs) > 1 else None
    with locked(out):
        test, missing = usable_test(first.data, console)
        for run in runs:
            _warn_of_leakage(console, run, leaked(run, test.names))
        _tell_replaced(console, out)
        results = evaluate({**(BEFORE if pairs else {}), **networks}, test, first.evaluates, where, console)
        for name, solver in SOLVERS.items() if pairs and not runs_only else ():
            with left_out(f"no row of {name}", console):
                results |= evaluate({name: solver}, test, first.evaluates, where, console)
        write_tables(results, reference, out)
    console.print(table(results, console, reference, f"{len(test)} test examples"))
    for kind, rows in by_people(results).items():
        count = max(map(len, rows.values()))
        console.print(table(rows, console, reference, f"{count} of them are pairs of {kind}"))
    told = {"missing": missing} if missing else {}
    say(as_json, {"output": str(out), "table": summary(results, reference)} | told, f"Written: {out}")


def _tell_replaced(console, out: Path) -> None:
    if (out / "pairs.csv").is_file():
        console.print(f"{out}: replacing the evaluation that is there; -o names another folder", highlight=False)


def _warn_of_leakage(console, run: Path, shared: set[str]) -> None:
    if shared:
        few = ", ".join(sorted(shared)[:5]) + (", …" if len(shared) > 5 else "")
        console.print(
            f"[bold red]Careful:[/bold red] {run} learned from {len(shared)} subjects of this test split ({few})"
        )
