"""The commands that look at images before they are aligned, and at runs after they were trained."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Data, Device, Json, OfData, Trust, of_data, say, terminal
from pullback.cli.train import with_data


def doctor(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="Image that stays.")],
    moving: Annotated[
        Path | None, typer.Argument(metavar="MOVING", help="Image to bring onto it; default none: FIXED alone.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what will go wrong in a registration of two files, and how to mend it.

    Exit code 1: they cannot be aligned as they are.
    """
    from pullback.files import Severity
    from pullback.workflows.doctor import examine, layout, verdict

    found = examine(fixed, moving)
    listed = [{"severity": f.severity.value, "what": f.what, "remedy": f.remedy} for f in found]
    if not as_json:
        terminal(as_json).print(layout(found))
    say(as_json, {"findings": listed, "verdict": verdict(found)}, verdict(found))
    if any(f.severity is Severity.ERROR for f in found):
        raise typer.Exit(1)


def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of trained runs.")],
    data: Data = None,
    setting: OfData = None,
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for pairs.csv and summary.csv.")
    ] = Path("evaluation"),
    runs_only: Annotated[bool, typer.Option("--runs-only", help="Leave out the row of ConvexAdam.")] = False,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure trained runs on the test split of the first one's data.

    The table holds means ± deviations, paired differences, seconds and memory.
    Beside runs on pairs of images stand the unmoved images and ConvexAdam, which
    needs no training.
    """
    from pullback.errors import InputError
    from pullback.records.lock import locked
    from pullback.study.compare import summary, table, write_tables
    from pullback.study.evaluate import evaluate, left_out
    from pullback.study.run import learned_from, load_network
    from pullback.training import device_of
    from pullback.workflows.baselines import BEFORE, SOLVERS

    loaded = {str(run): load_network(run, trust or ()) for run in runs}
    kinds = {name: recipe.aligns for name, (recipe, _) in loaded.items()}
    if len(set(kinds.values())) > 1:
        raise InputError(f"runs that align the same are measured together; these align {kinds}")
    first = with_data(next(iter(loaded.values()))[0], data, of_data(setting))
    console = terminal(as_json)
    where = device_of(device)
    networks = {name: network.to(where) for name, (_, network) in loaded.items()}
    pairs = first.aligns == "pair"
    for name in (*BEFORE, *SOLVERS):
        if name in networks:
            raise InputError(f"{name}: is the name of a row that stands beside runs; rename the folder of this run")
    for run in runs:
        _warn_of_leakage(console, run, learned_from(run) & set(first.data.test.names))
    reference = str(runs[0]) if len(runs) > 1 else None
    with locked(out):
        results = evaluate({**(BEFORE if pairs else {}), **networks}, first.data.test, first.evaluates, where, console)
        for name, solver in SOLVERS.items() if pairs and not runs_only else ():
            with left_out(f"no row of {name}", console):
                results |= evaluate({name: solver}, first.data.test, first.evaluates, where, console)
        write_tables(results, reference, out)
    console.print(table(results, console, reference, f"{len(first.data.test)} test examples"))
    say(as_json, {"output": str(out), "table": summary(results, reference)}, f"Written: {out}")


def _warn_of_leakage(console, run: Path, shared: set[str]) -> None:
    if shared:
        few = ", ".join(sorted(shared)[:5]) + (", …" if len(shared) > 5 else "")
        console.print(
            f"[bold red]Careful:[/bold red] {run} learned from {len(shared)} subjects of this test split ({few})"
        )
