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
VOLUME_PANEL = "A volume"


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
    turned: Annotated[
        bool,
        typer.Option(
            "--turned", help="Slices may be turned by quarters or mirrored: try all eight ways.", rich_help_panel=PLATES
        ),
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            metavar="FILE",
            help="Transform, slices to volume, to begin from; default as the headers say.",
            rich_help_panel=VOLUME_PANEL,
        ),
    ] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="Let each slice move by itself in the end.", rich_help_panel=VOLUME_PANEL)
    ] = False,
    reorder: Annotated[
        bool,
        typer.Option(
            "--reorder",
            help="Slices share an axis, and come in any order and flip.",
            rich_help_panel=VOLUME_PANEL,
        ),
    ] = False,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            help="A bone in each slice, of slices that share an axis: begin by its body; default none. Repeatable.",
            rich_help_panel=VOLUME_PANEL,
        ),
    ] = None,
    volume_mask: Annotated[
        Path | None,
        typer.Option(
            "--volume-mask",
            metavar="FILE",
            help="The same bone in the volume; default none.",
            rich_help_panel=VOLUME_PANEL,
        ),
    ] = None,
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
    partial.

    In a volume of any contrast, slices that lie in one space have one pose:
    it is sought about the start and refined in six degrees of freedom, and
    what the slices leave open is told. OUT gets the transform, the volume in
    the place of each slice, each slice in the space of the volume, and
    index.html with pictures.

    Exit code 3: it is done, but looks failed.
    """
    from pullback.errors import refuse
    from pullback.numerics.device import device_of
    from pullback.workflows.how import How
    from pullback.workflows.locate import VOLUME, kind_of

    console, where = terminal(as_json), device_of(device)
    if kind_of(within, run) == VOLUME:
        from pullback.workflows.locate_in_volume import LocateHow, locate_in_volume, summary

        idle = {"--preset": preset, "--method": method, "--trust": trust, "--axis": axis, "--turned": turned or None}
        refuse(idle, "is of plates, and this is a volume")
        asked = LocateHow(settings_of(setting), start, apart, reorder, mask or (), volume_mask)
        with working(console, "locating"):
            content = locate_in_volume(slices, within, out, where, asked)
    else:
        from pullback.workflows.locate_plate import locate_plates, summary

        of_volume = {"--start": start, "--apart": apart or None, "--reorder": reorder or None, "--mask": mask}
        refuse({**of_volume, "--volume-mask": volume_mask}, "is of a volume, and these are plates")
        how = How(method, preset, settings=settings_of(setting))
        content = locate_plates(slices, within, out, run, how, top, placed, axis, turned, trust or (), where, console)
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)
