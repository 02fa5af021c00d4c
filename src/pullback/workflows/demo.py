"""The demo: training, evaluation and a report from end to end, on the built-in cohort."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import nn

from pullback.alignment import Alignment, Register
from pullback.errors import Interrupted
from pullback.metrics import Metric, numbers_of
from pullback.report.pictures import picture
from pullback.report.registration import write_report
from pullback.solvers import InstanceOptimisation
from pullback.space import Affine
from pullback.study.compare import columns, summary, table, write_tables
from pullback.study.evaluate import evaluate, left_out
from pullback.study.recipe import Recipe
from pullback.study.run import run
from pullback.training import align
from pullback.workflows.baselines import BEFORE, SOLVERS


def demo(
    unsupervised: Recipe, guided: Recipe, solved: InstanceOptimisation, out: Path, console: Console
) -> dict[str, list[dict[str, float | str]]]:
    """Train both recipes, and measure them on the test pairs beside doing nothing, solvers and the truth.

    The tables, a report and a picture of the first pair are written into `out`.

    Returns:
        The rows of the table, by register.

    Raises:
        Interrupted: it was asked to stop, and continues from there when called again.
    """
    networks: dict[str, nn.Module] = {}
    for name, recipe in (("unsupervised", unsupervised), ("guided", guided)):
        console.print(f"[bold]{name}[/bold]: {recipe.about}, {recipe.training.updates} updates")
        try:
            networks[name] = run(recipe, out / name, resume=True, console=console)
        except Interrupted as error:
            raise Interrupted(f"{str(error).split(';')[0]}; the same command goes on from there") from None
    test = guided.data.test
    registers: dict[str, Register] = {**BEFORE, **networks, "50 steps of Descend": solved}
    results = evaluate(registers, test, guided.evaluates, console=console)
    for name, solver in SOLVERS.items():
        with left_out(f"no row of {name}", console):
            results |= evaluate({name: solver}, test, guided.evaluates, console=console)
    results["true transform"] = _truth(test, guided.metrics)
    write_tables(results, "unsupervised", out)
    console.print(table(results, console, "unsupervised", f"{len(test)} unseen pairs"))
    pair = next(iter(test))
    alignment = align(networks["guided"], pair)
    write_report(
        alignment,
        out / "report.html",
        f"pullback demo: {pair.name}",
        {
            "before": numbers_of(Alignment(pair, Affine.identity(3)), guided.metrics),
            "guided": numbers_of(alignment, guided.metrics),
        },
        table=_formatted(results),
    )
    picture(alignment, out / "report.png")
    return results


def _truth(test, metrics: Sequence[Metric]) -> list[dict[str, float | str]]:
    return [{"pair": pair.name, **numbers_of(Alignment(pair, pair.truth), metrics)} for pair in test]


def _formatted(results) -> list[dict[str, str]]:
    means = {(r["register"], r["measure"]): r["mean"] for r in summary(results)}
    return [
        {"": name, **{c: f"{round(means[name, c], 9):.3g}" if (name, c) in means else "·" for c in columns(results)}}
        for name in results
    ]
