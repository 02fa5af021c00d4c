"""The command that finds out where a slice was cut."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import (
    Device,
    Json,
    Method,
    Preset,
    Setting,
    Trust,
    say,
    settings_of,
    terminal,
    working,
)

PLATES = "Plates of an atlas"


def locate(
    slices: Annotated[list[Path], typer.Argument(metavar="SLICE...", help="Images of slices.")],
    within: Annotated[
        Path,
        typer.Option(
            "--in",
            metavar="PLATES|VOLUME",
            help="Folder of an atlas' plates, named by their numbers; a run that learned them; or a 3-D volume.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path("located"),
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Run of slice-identification, which also takes a volume as a stack of planes; default none: slices "
            "are sought on each plate by correlation.",
            rich_help_panel=PLATES,
        ),
    ] = None,
    axis: Annotated[
        int | None,
        typer.Option(
            "--axis",
            metavar="N",
            help="Axis across the planes of a volume with --run: 0, 1 or 2, near R, A, S; default 1, of pictures their "
            "pages.",
            rich_help_panel=PLATES,
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Plates to name.", rich_help_panel=PLATES)] = 5,
    placed: Annotated[
        int,
        typer.Option(
            "--placed", metavar="N", min=0, help="Plates of these to register the slice to.", rich_help_panel=PLATES
        ),
    ] = 1,
    preset: Preset = None,
    method: Method = None,
    setting: Setting = None,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find where slices were cut: which plate of an atlas they show, or where they lie in a volume.

    Of plates the likeliest are named, with how sure that is
    (candidates.csv), and drawn beside the slice (index.html); the slice is
    registered to the first, and its transform is written. Slices may be
    partial, turned or mirrored.

    Exit code 3: it is done, but looks failed.
    """
    from pullback.errors import refuse
    from pullback.training import device_of
    from pullback.workflows.how import How
    from pullback.workflows.locate import VOLUME, kind_of

    console, where = terminal(as_json), device_of(device)
    if kind_of(within, run) == VOLUME:
        from pullback.workflows.locate_in_volume import locate_in_volume, summary

        idle = {"--preset": preset, "--method": method, "--set": setting, "--trust": trust, "--axis": axis}
        refuse(idle, "is of plates, and this is a volume")
        with working(console, "locating"):
            content = locate_in_volume(slices, within, out, where)
    else:
        from pullback.workflows.locate_plate import locate_plates, summary

        how = How(method, preset, settings=settings_of(setting))
        content = locate_plates(slices, within, out, run, how, top, placed, axis, trust or (), where, console)
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)
