"""The commands. Heavy imports wait inside them, so that `--help` answers at once."""

import json
import sys
import warnings
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
    from pullback.files import read_merge
    from pullback.study.choices import refuse, whole_numbers
    from pullback.study.preparation import Preparation
    from pullback.study.prepare import prepare, summary
    from pullback.study.recipe import changed

    if merge is None:
        refuse({"--drop": drop or None}, "there is no --merge whose labels could be left")
    settings = _settings(setting)
    refuse({f"--set {key}": key for key in settings if not key.startswith("data.")}, "only data.… is set so")
    preparation = replace(
        changed(Preparation(PairFolder(str(data))), settings),
        merge=None if merge is None else read_merge(merge, drop),
        crop=crop,
        margin=margin,
        spacing=spacing,
        shape=None if shape is None else whole_numbers(shape, "--shape"),
        stretch=stretch,
        normalise=normalise,
        task=task,
    )
    content = prepare(preparation, out, _console(as_json))
    _say(as_json, content, summary(content, out))


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
    from pullback.study.run import begun, run

    out = out or Path("runs") / Path(recipe).stem
    started = resume and begun(out)
    known = read_recipe(out / "recipe.yaml", trust or ()) if started else find(recipe)
    run(_resolved(known, data, setting), out, resume, _console(as_json))
    _say(as_json, {"run": str(out)}, f"Trained: {out}. Next: pullback evaluate {out} --data DIR")


@app.command()
def register(
    fixed: Annotated[list[Path], typer.Option("-f", "--fixed", help="Image that stays. Repeat: channels.")],
    moving: Annotated[list[Path], typer.Option("-m", "--moving", help="Image brought onto it. Repeat.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    preset: Annotated[str | None, typer.Option(help="fast | balanced | accurate; default balanced.")] = None,
    transform: Annotated[
        str | None, typer.Option(help="rigid | affine | velocity | displacement | bspline; default velocity.")
    ] = None,
    energy: Annotated[str | None, typer.Option(help="lncc | mse | ncc | mi | nmi | ngf | mind | ssim.")] = None,
    smoothness: Annotated[float | None, typer.Option(help="Factor of regularity, 1.")] = None,
    init: Annotated[str, typer.Option(help="auto | header | centres | masses | moments | global.")] = "auto",
    initial: Annotated[Path | None, typer.Option(help="Transform to go on from.")] = None,
    network: Annotated[Path | None, typer.Option(help="Folder of a trained run.")] = None,
    refine: Annotated[int | None, typer.Option(help="Steps after the network.")] = None,
    aligned: Annotated[bool, typer.Option("--aligned", help="The deformable stage alone.")] = False,
    fixed_mask: Annotated[Path | None, typer.Option(help="Where to look.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="Where to look.")] = None,
    fixed_exclude: Annotated[Path | None, typer.Option(help="Lesions to leave out.")] = None,
    moving_exclude: Annotated[Path | None, typer.Option(help="Lesions to leave out.")] = None,
    fixed_labels: Annotated[Path | None, typer.Option(help="Structures, to measure by.")] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Structures, carried along.")] = None,
    fixed_points: Annotated[Path | None, typer.Option(help="CSV or VTK, to push to moving.")] = None,
    space: Annotated[str | None, typer.Option(help="World of points that name none.")] = None,
    jacobian: Annotated[bool, typer.Option("--jacobian", help="Write jacobian.nii.gz.")] = False,
    ants_prefix: Annotated[str | None, typer.Option(help="Write ANTs' pieces, so named.")] = None,
    seed: Annotated[int, typer.Option(help="Of random rotations.")] = 0,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Align two images: moved image, transforms both ways, report. Exit code 3: done, but it looks failed."""
    from pullback.alignment import Register
    from pullback.files import read_transform
    from pullback.solvers import Refine
    from pullback.study.choices import classical, learned, refuse
    from pullback.study.inputs import Files
    from pullback.study.outputs import Wanted
    from pullback.study.register import register_files, summary
    from pullback.study.run import load_run
    from pullback.training import device_of

    where, weight = device_of(device), 1.0 if smoothness is None else smoothness
    if network is None:
        refuse({"--refine": refine}, "refines a network's answer, and there is no --network")
        chosen: Register | Refine = classical(
            preset or "balanced", transform or "velocity", energy, weight, init, seed, aligned
        )
    else:
        idle = {"--preset": preset, "--transform": transform, "--initial": initial, "--aligned": aligned or None}
        refuse(idle, "not together with --network")
        if refine is None:
            refuse({"--energy": energy, "--smoothness": smoothness}, "with --network it takes --refine STEPS")
        trained = load_run(network, trust or ())[1]
        trained.network.to(where)
        chosen = learned(trained, init, refine, energy, weight)
    with _working(_console(True), "aligning"):
        content = register_files(
            Files(fixed, fixed_mask, fixed_exclude, fixed_labels),
            Files(moving, moving_mask, moving_exclude, moving_labels),
            chosen,
            out,
            fixed_points,
            space,
            None if initial is None else read_transform(initial),
            Wanted(jacobian, ants_prefix),
            where,
            {"seed": seed, "network": network and str(network), "initial": str(initial or init)},
        )
    _say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)


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
def apply(
    given: Annotated[Path, typer.Option("-i", "--input", help="Image, labels, points (.csv .fcsv) or surface.")],
    transforms: Annotated[
        list[str], typer.Option("-t", "--transform", metavar="FILE", help="Repeat; [FILE,1] is its inverse.")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="File to write; points in the format they came in.")],
    reference: Annotated[
        Path | None, typer.Option("-r", "--reference", help="Image that lends its grid; points need none.")
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Go the other way, by the inverse of all.")] = False,
    mode: Annotated[str, typer.Option("-n", "--interpolation", help="linear | cubic | nearest.")] = "linear",
    labels: Annotated[bool, typer.Option("--labels", help="Labels: nearest, and whole numbers stay.")] = False,
    space: Annotated[
        str | None, typer.Option(help="ras, or the initials of left, posterior, superior: where x, y, z point.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Move an image or points by transforms that are on disk, resampled once.

    Images travel moving → fixed with fixed_to_moving.
    Points travel fixed → moving with the same file.
    For the other way take moving_to_fixed, or --invert.
    Several -t are ordered as in antsApplyTransforms: points of the reference
    go through the first first, as in -t 1Warp.nii.gz -t 0GenericAffine.mat.
    """
    from pullback.study.apply import apply_files, read_transforms

    applied = apply_files(given, read_transforms(transforms, invert), out, reference, mode, labels, space)
    if applied.doubt:
        typer.echo(f"pullback: careful: {applied.doubt}", err=True)
    content = {"output": str(out), "what": applied.what, "doubt": applied.doubt}
    _say(as_json, content, f"Written: {applied.what}")


@app.command()
def convert(
    given: Annotated[str, typer.Argument(metavar="IN", help="Transform file, or the prefix of ANTs' pieces.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="File to write, or such a prefix.")],
    source: Annotated[str | None, typer.Option("--from", metavar="KIND", help="Where the name does not say.")] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="KIND", help="itk | ants | fsl | learn2reg | x5.")
    ] = None,
    fixed: Annotated[Path | None, typer.Option(help="Fixed image: its grid is needed by most kinds.")] = None,
    moving: Annotated[Path | None, typer.Option(help="Moving image: FSL and Learn2Reg need its grid too.")] = None,
    as_json: Json = False,
) -> None:
    """Write a transform as another tool reads it: ITK and ANTs, FSL, Learn2Reg, X5.

    Known by the name: .h5 .tfm .txt, and .nii.gz for a displacement field
    of 5 axes, as ITK's; disp_* and .npz as Learn2Reg's; .x5; to read, the
    prefix of ANTs' pieces. Others want --from or --to.
    """
    from pullback.files import meaning, read_any, read_grid, write_any

    grids = [None if path is None else read_grid(path) for path in (fixed, moving)]
    kind = _kind("--to", target)
    what = meaning(out, kind)
    written = write_any(read_any(given, _kind("--from", source), *grids), out, kind, *grids)
    names = ", ".join(map(str, written))
    _say(as_json, {"output": [*map(str, written)], "what": what}, f"Written: {names}: {what}")


@app.command()
def doctor(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="Image that stays.")],
    moving: Annotated[Path | None, typer.Argument(metavar="MOVING", help="Image to be brought onto it.")] = None,
    as_json: Json = False,
) -> None:
    """Tell before a registration what will go wrong with it, and how to mend that. Exit code 1: it cannot be run so."""
    from pullback.files import Severity
    from pullback.study.doctor import examine, layout, verdict

    found = examine(fixed, moving)
    listed = [{"severity": f.severity.value, "what": f.what, "remedy": f.remedy} for f in found]
    if not as_json:
        _console(as_json).print(layout(found))
    _say(as_json, {"findings": listed, "verdict": verdict(found)}, verdict(found))
    if any(f.severity is Severity.ERROR for f in found):
        raise typer.Exit(1)


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="ofg | cyclical | ddmr.")],
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART...]", help="table1, or table1/brains, or table1/brains/voxelmorph."),
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
    known, folder, console = find(name), out or Path("studies") / name, _console(as_json)
    wanted = chosen(known, parts or (), roots)
    outcomes = run_study(known, wanted, folder, seeds or (0, 1, 2), _settings(setting), console)
    tables = write_study(known, outcomes, folder, console)
    _say(as_json, {"output": str(folder), "tables": tables}, f"Look at {folder / 'index.html'}")


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


def _kind(option: str, name: str | None):
    from pullback.errors import InputError
    from pullback.files import Kind

    named = {kind.value: kind for kind in Kind}
    if name is not None and name not in named:
        raise InputError(f"{option} {name}: choose one of {', '.join(named)}")
    return None if name is None else named[name]


def _settings(setting: list[str] | None, option: str = "--set") -> dict[str, str]:
    from pullback.errors import InputError

    pairs = [item.partition("=") for item in setting or []]
    for key, equals, value in pairs:
        if not equals or not value:
            raise InputError(f"{option} {key}{equals}{value}: expected {'a.b=c' if option == '--set' else 'NAME=DIR'}")
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


def _working(console, what: str):
    """On a terminal: what is being done, and for how long."""
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    progress = Progress(
        SpinnerColumn(),
        "{task.description}",
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    progress.add_task(what, total=None)
    return progress


def _say(as_json: bool, content: object, text: str) -> None:
    typer.echo(json.dumps(content, default=str) if as_json else text)


def main() -> None:
    """The entry point: what a person can mend is one line on stderr and exit code 1; 130 after Ctrl-C."""
    from pullback.errors import InputError, Interrupted

    warnings.showwarning = lambda message, *_, **__: typer.echo(f"pullback: careful: {message}", err=True)
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
