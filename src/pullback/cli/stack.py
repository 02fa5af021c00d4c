"""The command that aligns the sections of a stack."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Json, SkipBad, say, settings_of, terminal


def stack(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder of sections in the order of their numbers, or a TIFF of pages."),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="Stack to write: .ome.tif, .tif or .nii.gz."),
    ] = Path("aligned.ome.tif"),
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Masks of the sections, in their order: the centres of their blobs are the keypoints; default "
            "keypoints are corners of the images.",
        ),
    ] = None,
    reach: Annotated[
        int, typer.Option(metavar="N", help="How many of the sections that follow each is compared with.")
    ] = 3,
    spacing: Annotated[
        float | None, typer.Option(metavar="MM", help="Edge of a pixel; default as the files say, or 1.")
    ] = None,
    thickness: Annotated[
        float | None, typer.Option(metavar="MM", help="From one section to the next; default the edge of a pixel.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A=B",
            help="Set model=similarity, detector=orb, descriptor=freak, … as `pullback methods mito` lists them. "
            "Repeatable.",
        ),
    ] = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Align the sections of a stack, each resampled once.

    Keypoints of each section are matched with those of the next ones, a map
    is fitted to the matches that agree, and all maps are made consistent.
    Beside FILE, a folder of its name holds index.html to look at, sections.csv
    with the failures by section, matches.csv, transforms/ and transforms.csv,
    the aligned masks, and run.json.

    The same command goes on where it was stopped.

    Exit code 3: sections match no others (the stack is then written with
    --skip-bad alone), or matches contradict each other.
    """
    from rich.progress import track

    from pullback.methods.group.mito import Mito
    from pullback.study.recipe import changed
    from pullback.workflows.stack import StackAsked, stack_files, summary

    how = changed(Mito(), settings_of(setting, form="a=b"))
    console = terminal(True)

    def shown(items, name):
        items = list(items)
        return track(items, name, console=console, transient=True, disable=not console.is_terminal)

    content = stack_files(StackAsked(folder, masks, reach, spacing, thickness, skip_bad), how, out, shown)
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)
