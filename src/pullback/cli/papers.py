"""The commands that carry out many runs, and that tell of methods and their papers."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Change, Json, Output, say, settings_of, terminal


def demo(
    out: Output = Path("demo"),
    setting: Change = None,
    as_json: Json = False,
) -> None:
    """Train two networks on built-in phantoms, unsupervised and guided, and compare them.

    It takes minutes and needs no data.
    """
    from pullback.energies import LNCC, Diffusion
    from pullback.recipes import find
    from pullback.solvers import Descend, InstanceOptimisation
    from pullback.study.compare import summary
    from pullback.study.recipe import changed
    from pullback.workflows.demo import demo

    unsupervised, guided = (
        changed(find(method, "voxelmorph", "phantom"), settings_of(setting)) for method in ("voxelmorph", "ofg")
    )
    solved = InstanceOptimisation(LNCC(9) + 1.0 * Diffusion(), Descend(steps=50))
    results = demo(unsupervised, guided, solved, out, terminal(as_json))
    say(as_json, {"output": str(out), "table": summary(results, "unsupervised")}, f"Look at {out / 'report.html'}")


def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study; one that is not known lists all.")],
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="Tables to make, as table1, table1/brains or table1/brains/voxelmorph; default all.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Folder of a data set; default the built-in phantoms alone. Repeatable."),
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", metavar="N", help="Seed of the runs; default 0, 1 and 2. Repeatable.")
    ] = None,
    setting: Change = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder to write; default studies/STUDY.")
    ] = None,
    workers: Annotated[int, typer.Option("-j", "--jobs", metavar="N", min=1, help="Runs at work at once.")] = 1,
    as_json: Json = False,
) -> None:
    """Run a paper's evaluation: its tables and figures.

    Stopped, it goes on where it was when it is called again.
    """
    from pullback.studies import find
    from pullback.study.page import write_study
    from pullback.study.plan import chosen, run_study

    roots = {key: Path(root) for key, root in settings_of(data, "--data", "NAME=DIR").items()}
    known, folder, console = find(name), out or Path("studies") / name, terminal(as_json)
    wanted = chosen(known, tables or (), roots)
    results = run_study(wanted, roots, folder, seeds or (0, 1, 2), settings_of(setting), console, workers)
    shown = write_study(known, results, folder, console)
    say(as_json, {"output": str(folder), "tables": shown}, f"Look at {folder / 'index.html'}")


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Method whose page to show; default a table of all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods there are, or show the page of one."""
    from dataclasses import asdict

    from pullback.workflows.catalogue import layout, overview, page

    if name is None:
        rows = overview()
        if not as_json:
            console = terminal(as_json)
            console.print(layout(rows, console.width))
        say(as_json, [asdict(row) for row in rows], "`pullback methods NAME` shows the page of one")
        return
    shown = page(name)
    if as_json:
        say(as_json, shown.content(), "")
    else:
        terminal(as_json).print(shown.layout())


def cite(
    what: Annotated[str, typer.Argument(metavar="NAME|RUN", help="Method, or folder of a training or a registration.")],
    as_json: Json = False,
) -> None:
    """Print BibTeX of a method's papers, or of all methods whose parts stand in a run."""
    from pullback.workflows.catalogue import cited

    papers = cited(what)
    say(as_json, {paper.key: paper.bibtex() for paper in papers}, "\n\n".join(paper.bibtex() for paper in papers))
