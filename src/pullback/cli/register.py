"""The command that aligns two images."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import (
    HOW,
    Device,
    Json,
    Method,
    Network,
    Output,
    Preset,
    Refine,
    Setting,
    Space,
    Spacing,
    Stain,
    Start,
    Tiles,
    Trust,
    say,
    settings_of,
    terminal,
    working,
)

CLASSICAL = "How to align: the classical method"
KNOWN = "What else is known of the images"
WRITTEN = "What else is written"

Fixed = Annotated[
    list[Path], typer.Option("-f", "--fixed", metavar="FILE", help="Image that stays. Repeat for its channels.")
]
Moving = Annotated[
    list[Path], typer.Option("-m", "--moving", metavar="FILE", help="Image to bring onto it. Repeat likewise.")
]
Aligned = Annotated[
    bool, typer.Option("--aligned", help="Leave out rigid and affine stages: only shapes differ.", rich_help_panel=HOW)
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Seed of random rotations; default 0.", rich_help_panel=HOW)
]
Transform = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="translation, rigid, similarity, affine, velocity, displacement or bspline; default velocity.",
        rich_help_panel=CLASSICAL,
    ),
]
EnergyName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="lncc, mse, ncc, mi, nmi, ngf, mind or ssim; default lncc.", rich_help_panel=CLASSICAL
    ),
]
Smoothness = Annotated[
    float | None, typer.Option(metavar="FACTOR", help="Factor of the regularity; default 1.", rich_help_panel=CLASSICAL)
]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Mask: where it is not 0, images are compared.", rich_help_panel=KNOWN),
]
Exclude = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Mask of what to leave out, such as lesions.", rich_help_panel=KNOWN),
]
FixedLabels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Label map to measure overlap by.", rich_help_panel=KNOWN)
]
MovingLabels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Label map to carry along.", rich_help_panel=KNOWN)
]
FixedPoints = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Points (.csv, .vtk, …) to push to the moving image.", rich_help_panel=KNOWN),
]
MovingPoints = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Their matches, by name or in order: the start is their rigid map, as by --start points, "
        "points-similarity or points-affine.",
        rich_help_panel=KNOWN,
    ),
]
PointsWeight = Annotated[
    float | None,
    typer.Option(
        metavar="WEIGHT",
        help="Weight of their mean squared distance in mm² in the last stage, such as 0.01; default 0.",
        rich_help_panel=KNOWN,
    ),
]
CheckPoints = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help="Points that are measured and not used: names, or numbers from 1 without names; default none.",
        rich_help_panel=KNOWN,
    ),
]
UseLabels = Annotated[
    bool, typer.Option("--use-labels", help="Steer the last stage by the labels, too.", rich_help_panel=KNOWN)
]
Jacobian = Annotated[
    bool, typer.Option("--jacobian", help="Write the Jacobian determinant: jacobian.nii.gz.", rich_help_panel=WRITTEN)
]
Prefix = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Write files as ANTs does, with this prefix; default none.", rich_help_panel=WRITTEN
    ),
]


def register(
    fixed: Fixed,
    moving: Moving,
    out: Output,
    preset: Preset = None,
    method: Method = None,
    setting: Setting = None,
    network: Network = None,
    refine: Refine = None,
    tiles: Tiles = None,
    start: Start = "auto",
    aligned: Aligned = False,
    seed: Seed = None,
    transform: Transform = None,
    energy: EnergyName = None,
    smoothness: Smoothness = None,
    fixed_mask: Mask = None,
    moving_mask: Mask = None,
    fixed_exclude: Exclude = None,
    moving_exclude: Exclude = None,
    fixed_labels: FixedLabels = None,
    moving_labels: MovingLabels = None,
    use_labels: UseLabels = False,
    fixed_points: FixedPoints = None,
    moving_points: MovingPoints = None,
    points_weight: PointsWeight = None,
    check_points: CheckPoints = None,
    space: Space = None,
    spacing: Spacing = None,
    stain: Stain = None,
    jacobian: Jacobian = False,
    ants_prefix: Prefix = None,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Align two images: the moved image, transforms both ways, a report.

    Exit code 3: it is done, but looks failed.
    """
    from pullback.errors import refuse
    from pullback.files.images.colour import GREY
    from pullback.files.images.look import Look
    from pullback.numerics.device import device_of
    from pullback.workflows.choices import FITTED
    from pullback.workflows.how import How, register_of
    from pullback.workflows.inputs import ImageFiles
    from pullback.workflows.outputs import ExtraOutputs
    from pullback.workflows.register import register_files, summary
    from pullback.workflows.steering import Steering

    if fixed_points is None:
        refuse({"--space": space}, "is of --fixed-points, and there are none")
    if moving_labels is None:
        refuse({"--fixed-labels": fixed_labels}, "are measured against --moving-labels, and there are none")
    how = How(
        method,
        preset,
        network,
        refine,
        settings_of(setting),
        start,
        transform,
        energy,
        smoothness,
        aligned,
        seed,
        tiles,
    )
    matched = fixed_points is not None and moving_points is not None
    by_points = "points" if matched and start == "auto" and not aligned and network is None else start
    check = tuple(name.strip() for name in (check_points or "").split(",") if name.strip())
    steering = Steering(moving_points, FITTED.get(by_points), points_weight, check, use_labels)
    where = device_of(device)
    chosen = register_of(how, where, trust or ())
    look = Look(spacing, stain=stain or GREY)
    said = {"method": method, "network": network and str(network), "start": start, "seed": seed or 0}
    with working(terminal(True), "aligning"):
        content = register_files(
            ImageFiles(fixed, fixed_mask, fixed_exclude, fixed_labels, look),
            ImageFiles(moving, moving_mask, moving_exclude, moving_labels, look),
            chosen,
            out,
            fixed_points,
            space,
            how.file,
            ExtraOutputs(jacobian, ants_prefix),
            where,
            said,
            steering,
        )
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)
