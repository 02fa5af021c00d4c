"""The command that aligns two clouds of points."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import (
    Json,
    Method,
    Network,
    Output,
    Setting,
    Space,
    Trust,
    say,
    settings_of,
    terminal,
    working,
)


def match(
    fixed: Annotated[
        Path,
        typer.Option(
            "-f",
            "--fixed",
            metavar="FILE",
            help="Points (.csv, .fcsv, .mrk.json, .geojson), surface, 3-D image or label map.",
        ),
    ],
    moving: Annotated[
        Path, typer.Option("-m", "--moving", metavar="FILE", help="Points to bring it onto: any of these.")
    ],
    out: Output,
    matched: Annotated[
        bool, typer.Option("--matched", help="Landmarks: points of one name, else of one row, belong together.")
    ] = False,
    smoothing: Annotated[
        float, typer.Option(metavar="MM", help="Smoothing of --matched points, in mm; 0 meets each point.")
    ] = 0.0,
    fixed_mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Mask of the organ: keypoints are sought in it, and its surface takes part."),
    ] = None,
    moving_mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same for the moving image; both or neither.")
    ] = None,
    fixed_points: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More points of the fixed world, to push to the moving one.")
    ] = None,
    space: Space = None,
    fixed_slide: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Slide in whose pixels the fixed points are; default none.")
    ] = None,
    moving_slide: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Slide in whose pixels the moving points are; default none.")
    ] = None,
    method: Method = None,
    setting: Setting = None,
    network: Network = None,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Align two clouds of points: transforms both ways, both clouds moved, a picture.

    It need not be known which points belong together. Of two 3-D images the
    keypoints are found, and of two label maps the outlines are taken; with
    --method mo-bcpd those of each organ. With --matched the points are landmarks, which belong together by their names
    (label, name, n, id or number) where both files have some, else by row.

    Exit code 3: it is done, but looks failed.
    """
    from pullback.errors import refuse
    from pullback.workflows.how import How, by_label, clouds_of
    from pullback.workflows.match import match_files, summary

    if matched:
        idle = {"--method": method, "--set": setting, "--network": network}
        refuse(idle, "is for points that are not --matched")
    how = How(method=method, network=network, settings=settings_of(setting))
    register, features = clouds_of(how, trust or ())
    said = {"method": method, "network": network and str(network)}
    with working(terminal(True), "matching"):
        masks = (fixed_mask, moving_mask)
        content = match_files(
            fixed,
            moving,
            out,
            register,
            features,
            matched,
            smoothing,
            masks,
            fixed_points,
            space,
            said,
            by_label(how),
            (fixed_slide, moving_slide),
        )
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)
