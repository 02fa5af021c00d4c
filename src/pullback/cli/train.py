"""The commands that make scans ready to learn from, and train networks on them."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Change, Data, Json, OfData, SkipBad, Trust, of_data, say, settings_of, terminal


def prepare(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the images, BIDS or any other.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write, in Learn2Reg's layout.")],
    setting: OfData = None,
    merge: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Table label,merged[,name] by which labels are renamed; default none."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Labels not in that table become background.")] = False,
    crop: Annotated[
        str | None, typer.Option(metavar="labels|mask", help="Crop to the box of these; default no crop.")
    ] = None,
    margin: Annotated[float, typer.Option(metavar="MM", help="Margin of that box, in mm.")] = 0.0,
    spacing: Annotated[
        float | None, typer.Option(metavar="MM", help="Voxel size, in mm; with --shape the least; default as it is.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="N[,N,N]", help="Voxels along all axes, or each; default as many as needed.")
    ] = None,
    stretch: Annotated[bool, typer.Option("--stretch", help="Fill the shape, with a factor for each axis.")] = False,
    normalise: Annotated[bool, typer.Option("--normalise", help="Scale intensities to 0 … 1, by percentiles.")] = False,
    task: Annotated[str, typer.Option(metavar="NAME", help="Beginning of the files' names.")] = "prepared",
    workers: Annotated[int, typer.Option("-j", "--jobs", metavar="N", min=1, help="Subjects at work at once.")] = 1,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Prepare scans for training: axes R, A, S, labels merged, cropped, isotropic, one shape.

    These happen in this order. Images are interpolated once, by cubic splines,
    and smoothed where voxels grow; labels by nearest voxels. Headers stay true.
    Stopped, it goes on where it was when it is called again.
    """
    from dataclasses import replace

    from pullback.data import PairFolder
    from pullback.errors import refuse
    from pullback.files import read_merge
    from pullback.study.recipe import changed
    from pullback.workflows.choices import whole_numbers
    from pullback.workflows.preparation import Preparation
    from pullback.workflows.prepare import prepare, summary
    from pullback.workflows.survey import surveyed

    if merge is None:
        refuse({"--drop": drop or None}, "there is no --merge whose labels could be left")
    preparation = replace(
        changed(Preparation(PairFolder(str(data))), of_data(setting)),
        merge=None if merge is None else read_merge(merge, drop),
        crop=crop,
        margin=margin,
        spacing=spacing,
        shape=None if shape is None else whole_numbers(shape, "--shape"),
        stretch=stretch,
        normalise=normalise,
        task=task,
    )
    console = terminal(as_json)
    preparation = replace(preparation, data=surveyed(preparation.data, console, skip_bad))
    content = prepare(preparation, out, console, workers)
    say(as_json, content, summary(content, out))


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="METHOD|FILE", help="Method, as `pullback methods` lists them, or a .py or .yaml file."),
    ],
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Network to train; default the method's first.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Data set; default folder if --data is given, else phantom, or the method's first."
        ),
    ] = None,
    data: Data = None,
    setting: Change = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder of the run; default runs/METHOD-NETWORK-DATA."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, by its own recipe.")] = False,
    skip_bad: SkipBad = False,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Train a network by the recipe of a method, or of a file.

    `pullback methods METHOD` shows its networks and the data it has recipes for.
    """
    from dataclasses import replace

    from pullback.errors import InputError
    from pullback.recipes import find, named
    from pullback.study.recipe import read_recipe
    from pullback.study.resume import the_same
    from pullback.study.run import has_progress, run
    from pullback.workflows.survey import learns_labels, surveyed

    known = find(recipe, network, on, trust or (), read=data is not None)
    out = out or Path("runs") / named(recipe, network, on, read=data is not None)
    if resume:
        if not has_progress(out) and not (out / "recipe.yaml").is_file():
            raise InputError(f"{out}: there is no run to go on with; name its folder with -o, or leave --resume out")
        known = the_same(known, read_recipe(out / "recipe.yaml", trust or ()), out)
    chosen, console = with_data(known, data, settings_of(setting)), terminal(as_json)
    chosen = replace(chosen, data=surveyed(chosen.data, console, skip_bad, learns_labels(chosen)))
    run(chosen, out, resume, console)
    say(as_json, {"run": str(out)}, f"Trained: {out}. Next: pullback evaluate {out} --data DIR")


def with_data(recipe, data: Path | None, settings: dict[str, str]):
    """Return the recipe with its settings, on a folder of images."""
    from dataclasses import replace

    from pullback.errors import InputError
    from pullback.study.arms import is_stored
    from pullback.study.recipe import changed

    recipe = changed(recipe, settings)
    if data is None:
        return recipe
    if not is_stored(recipe.data):
        raise InputError(
            f"--data {data}: a {type(recipe.data).__name__} is made, not read; this recipe takes no folder; "
            f"`--on folder` does"
        )
    return replace(recipe, data=replace(recipe.data, root=str(data)))
