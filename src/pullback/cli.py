"""The commands. Heavy imports wait inside them, so that `--help` answers at once."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Align medical images in 2D and 3D, and teach networks to, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the images, in place of the recipe's.")]
Trust = Annotated[list[str] | None, typer.Option(metavar="PACKAGE", help="Your own package whose parts a run uses.")]
Device = Annotated[str, typer.Option(help="auto | cpu | …, as torch names it.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a number of the recipe. Repeat.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    setting: Set = None,
    as_json: Json = False,
) -> None:
    """Train two networks on the built-in cohort, unsupervised and guided, and compare them. Minutes, no data needed."""
    from pullback.energies import LNCC, Diffusion
    from pullback.recipes import find
    from pullback.solvers import Descend, Optimised
    from pullback.study.compare import summary
    from pullback.study.demo import demo
    from pullback.study.recipe import changed

    unsupervised, guided = (
        changed(find(f"{how}_voxelmorph_phantom"), _settings(setting)) for how in ("unsupervised", "ofg")
    )
    solved = Optimised(LNCC(9) + 1.0 * Diffusion(), Descend(steps=50))
    results = demo(unsupervised, guided, solved, out, _console(as_json))
    _say(as_json, {"output": str(out), "table": summary(results, "unsupervised")}, f"Look at {out / 'report.html'}")


@app.command()
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
    from pullback.recipes import find
    from pullback.study.recipe import read_recipe
    from pullback.study.run import run

    out = out or Path("runs") / Path(recipe).stem
    started = resume and (out / "last.safetensors").is_file()
    known = read_recipe(out / "recipe.yaml", trust or ()) if started else find(recipe)
    run(_resolved(known, data, setting), out, resume, _console(as_json))
    _say(as_json, {"run": str(out)}, f"Trained: {out}. Next: pullback evaluate {out} --data DIR")


@app.command()
def register(
    fixed: Annotated[Path, typer.Option("-f", "--fixed", help="Image that stays.")],
    moving: Annotated[Path, typer.Option("-m", "--moving", help="Image that is brought onto it.")],
    network: Annotated[Path, typer.Option(help="Folder of a trained run.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    fixed_labels: Annotated[Path | None, typer.Option(help="Labels of the fixed image, to measure by.")] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Labels of the moving image, carried along.")] = None,
    initial: Annotated[
        str | None, typer.Option(help="header | centres: where the images start; default as in training.")
    ] = None,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Align two images by a trained network: moved image, fields both ways, report."""
    from dataclasses import replace

    from pullback.errors import InputError
    from pullback.study.register import register_files
    from pullback.study.run import load_run
    from pullback.training import device_of

    _, trained = load_run(network, trust or ())
    if initial not in (None, "header", "centres"):
        raise InputError(f'--initial {initial}: "header" or "centres"')
    if initial is not None:
        trained = replace(trained, centred=initial == "centres")
    where = device_of(device)
    trained.network.to(where)
    content = register_files(fixed, moving, trained, out, fixed_labels, moving_labels, where)
    before, after = content["numbers"]["before"], content["numbers"]["after"]
    lines = [f"{name}: {before[name]:.4g} → {value:.4g}" for name, value in after.items() if "/" not in name]
    _say(as_json, content, "\n".join([*lines, f"Look at {out / 'report.html'}"]))


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of trained runs.")],
    data: Data = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for pairs.csv, summary.csv.")] = Path(
        "evaluation"
    ),
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure runs on the test pairs of the first one's data: mean ± sd, paired differences, seconds, memory."""
    from pullback.alignment import Register
    from pullback.study.compare import summary, table, write_tables
    from pullback.study.evaluate import evaluate, unmoved
    from pullback.study.run import learned_from, load_run
    from pullback.training import device_of

    loaded = {str(run): load_run(run, trust or ()) for run in runs}
    first = _resolved(next(iter(loaded.values()))[0], data, None)
    console = _console(as_json)
    where = device_of(device)
    networks = {name: trained.network.to(where) for name, (_, trained) in loaded.items()}
    registers: dict[str, Register] = {"before": unmoved, **networks}
    for run in runs:
        _warn_of_leakage(console, run, learned_from(run) & set(first.data.test.names))
    results = evaluate(registers, first.data.test, first.metrics, where, console)
    reference = str(runs[0]) if len(runs) > 1 else None
    write_tables(results, reference, out)
    console.print(table(results, reference, f"{len(first.data.test)} test pairs"))
    _say(as_json, {"output": str(out), "table": summary(results, reference)}, f"Written: {out}")


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the recipes that come with the package."""
    from pullback.recipes import find, names

    about = {name: find(name).about for name in names()}
    _say(as_json, about, "\n".join(f"{name}\n    {text}" for name, text in about.items()))


def _warn_of_leakage(console, run: Path, shared: set[str]) -> None:
    if shared:
        few = ", ".join(sorted(shared)[:5]) + (", …" if len(shared) > 5 else "")
        console.print(
            f"[bold red]Careful:[/bold red] {run} learned from {len(shared)} subjects of this test split ({few})"
        )


def _settings(setting: list[str] | None) -> dict[str, str]:
    from pullback.errors import InputError

    pairs = [item.partition("=") for item in setting or []]
    for key, equals, value in pairs:
        if not equals or not value:
            raise InputError(f"--set {key}{equals}{value}: expected a.b=c")
    return {key: value for key, _, value in pairs}


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


def _console(as_json: bool):
    from rich.console import Console

    console = Console(stderr=as_json)
    return console if console.is_terminal else Console(stderr=as_json, width=120)


def _say(as_json: bool, content: object, text: str) -> None:
    typer.echo(json.dumps(content, default=str) if as_json else text)


def main() -> None:
    """The entry point: what a person can mend is one line on stderr and exit code 1; 130 after Ctrl-C."""
    from pullback.errors import InputError, Interrupted

    try:
        app()
        return
    except (InputError, FloatingPointError) as error:
        code, text = 1, str(error)
    except Interrupted as error:
        code, text = 130, str(error)
    except KeyboardInterrupt:
        code, text = 130, "interrupted"
    typer.echo(json.dumps({"error": text}) if "--json" in sys.argv else f"pullback: {text}", err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
