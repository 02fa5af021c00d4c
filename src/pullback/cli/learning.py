"""The commands that train networks, and measure them."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.said import Device, Json, Trust, say, terminal

Data = Annotated[Path | None, typer.Option(help="Folder of the images, in place of the recipe's.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a number of the recipe. Repeat.")]


def demo(
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    setting: Set = None,
    as_json: Json = False,
) -> None:
    """Train two networks on the built-in cohort, unsupervised and guided, and compare them. Minutes, no data needed."""
    from pullback.energies import LNCC, Diffusion
    from pullback.recipes import find
    from pullback.solvers import Descend, InstanceOptimisation
    from pullback.study.compare import summary
    from pullback.study.recipe import changed
    from pullback.workflows.demo import demo

    unsupervised, guided = (
        changed(find(f"{how}_voxelmorph_phantom"), _settings(setting)) for how in ("unsupervised", "ofg")
    )
    solved = InstanceOptimisation(LNCC(9) + 1.0 * Diffusion(), Descend(steps=50))
    results = demo(unsupervised, guided, solved, out, terminal(as_json))
    say(as_json, {"output": str(out), "table": summary(results, "unsupervised")}, f"Look at {out / 'report.html'}")


def prepare(
    data: Annotated[Path, typer.Option(help="Folder of the images; BIDS or any other.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder to write, of Learn2Reg's layout.")],
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="data.B=C", help="As in train: data.images, .labels, .masks, .seed, .test_split … Repeat."
        ),
    ] = None,
    merge: Annotated[Path | None, typer.Option(help="CSV: label,merged[,name], what becomes of labels.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Labels not in that CSV become background.")] = False,
    crop: Annotated[str | None, typer.Option(help="labels | mask: cut out the box of them.")] = None,
    margin: Annotated[float, typer.Option(help="Wider than that box by so many mm.")] = 0.0,
    spacing: Annotated[float | None, typer.Option(help="Edge of voxels, mm; with --shape the least.")] = None,
    shape: Annotated[str | None, typer.Option(metavar="N[,N,N]", help="Voxels along all axes, or each.")] = None,
    stretch: Annotated[bool, typer.Option("--stretch", help="Fill the shape, by a factor for each axis.")] = False,
    normalise: Annotated[bool, typer.Option("--normalise", help="Intensities from 0 to 1, by percentiles.")] = False,
    task: Annotated[str, typer.Option(help="What the files' names begin with.")] = "prepared",
    as_json: Json = False,
) -> None:
    """Make scans ready to train on: turned to R, A, S, labels merged, cropped, isotropic, of one shape.

    In this order, interpolated once: images by cubic splines, smoothed where
    voxels grow, labels by nearest voxels. Headers stay true. Stopped, it goes
    on where it was when called again.
    """
    from dataclasses import replace

    from pullback.data import PairFolder
    from pullback.errors import refuse
    from pullback.files import read_merge
    from pullback.study.recipe import changed
    from pullback.workflows.choices import whole_numbers
    from pullback.workflows.preparation import Preparation
    from pullback.workflows.prepare import prepare, summary

    if merge is None:
        refuse({"--drop": drop or None}, "there is no --merge whose labels could be left")
    preparation = replace(
        changed(Preparation(PairFolder(str(data))), _settings(_of_data(setting))),
        merge=None if merge is None else read_merge(merge, drop),
        crop=crop,
        margin=margin,
        spacing=spacing,
        shape=None if shape is None else whole_numbers(shape, "--shape"),
        stretch=stretch,
        normalise=normalise,
        task=task,
    )
    content = prepare(preparation, out, terminal(as_json))
    say(as_json, content, summary(content, out))


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (`pullback recipes`), or a .py or .yaml file.")],
    data: Data = None,
    setting: Set = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the run; default runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, by its own recipe.")] = False,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Train a network by a recipe."""
    from pullback.errors import InputError
    from pullback.recipes import find
    from pullback.study.recipe import read_recipe
    from pullback.study.resume import the_same
    from pullback.study.run import has_progress, run

    out = out or Path("runs") / Path(recipe).stem
    known = find(recipe, trust or ())
    if resume:
        if not has_progress(out) and not (out / "recipe.yaml").is_file():
            raise InputError(f"{out}: there is no run to go on with; name its folder with -o, or leave --resume out")
        known = the_same(known, read_recipe(out / "recipe.yaml", trust or ()), out)
    run(_resolved(known, data, setting), out, resume, terminal(as_json))
    say(as_json, {"run": str(out)}, f"Trained: {out}. Next: pullback evaluate {out} --data DIR")


def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of trained runs.")],
    data: Data = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.B=C", help="As in train: data.images, .labels, .test_split … Repeat."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for pairs.csv, summary.csv.")] = Path(
        "evaluation"
    ),
    runs_only: Annotated[bool, typer.Option("--runs-only", help="Without ConvexAdam beside them.")] = False,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure runs on the test split of the first one's data: mean ± sd, paired differences, seconds, memory.

    Beside those on pairs of images stand the unmoved ones and ConvexAdam, which
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
    first = _resolved(next(iter(loaded.values()))[0], data, _of_data(setting))
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


def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="classical | cross-ngf | cyclical | ddmr | ofg.")],
    tables: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE...]", help="table1, or table1/brains, or table1/brains/voxelmorph."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Where images are; without, the built-in cohort. Repeat."),
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeat; default 0, 1 and 2.")] = None,
    setting: Set = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Folder; default studies/STUDY.")] = None,
    as_json: Json = False,
) -> None:
    """Run a paper's evaluation: its tables and figures. Stopped, it goes on where it was when called again."""
    from pullback.studies import find
    from pullback.study.page import write_study
    from pullback.study.plan import chosen, run_study

    roots = {key: Path(root) for key, root in _settings(data, "--data").items()}
    known, folder, console = find(name), out or Path("studies") / name, terminal(as_json)
    wanted = chosen(known, tables or (), roots)
    results = run_study(wanted, roots, folder, seeds or (0, 1, 2), _settings(setting), console)
    shown = write_study(known, results, folder, console)
    say(as_json, {"output": str(folder), "tables": shown}, f"Look at {folder / 'index.html'}")


def recipes(as_json: Json = False) -> None:
    """List the recipes that come with the package."""
    from pullback.recipes import find, names

    about = {name: find(name).about for name in names()}
    say(as_json, about, "\n".join(f"{name}\n    {text}" for name, text in about.items()))


def _warn_of_leakage(console, run: Path, shared: set[str]) -> None:
    if shared:
        few = ", ".join(sorted(shared)[:5]) + (", …" if len(shared) > 5 else "")
        console.print(
            f"[bold red]Careful:[/bold red] {run} learned from {len(shared)} subjects of this test split ({few})"
        )


def _settings(setting: list[str] | None, option: str = "--set") -> dict[str, str]:
    from pullback.errors import InputError

    pairs = [item.partition("=") for item in setting or []]
    for key, equals, value in pairs:
        if not equals or not value:
            raise InputError(f"{option} {key}{equals}{value}: expected {'a.b=c' if option == '--set' else 'NAME=DIR'}")
    return {key: value for key, _, value in pairs}


def _of_data(setting: list[str] | None) -> list[str] | None:
    from pullback.errors import refuse

    idle = [key for key in _settings(setting) if not key.startswith("data.")]
    refuse({f"--set {key}": key for key in idle}, "only data.… is set so")
    return setting


def _resolved(recipe, data: Path | None, setting: list[str] | None):
    from dataclasses import replace

    from pullback.errors import InputError
    from pullback.study.recipe import changed

    recipe = changed(recipe, _settings(setting))
    if data is None:
        return recipe
    if "root" not in recipe.data.__dataclass_fields__:
        raise InputError(
            f"--data {data}: a {type(recipe.data).__name__} is made, not read; this recipe takes no folder"
        )
    return replace(recipe, data=replace(recipe.data, root=str(data)))
