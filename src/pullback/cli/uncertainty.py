"""The commands that say how sure a registration is, and what that means for a dose."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import (
    Device,
    Json,
    Method,
    Network,
    Preset,
    Refine,
    Space,
    Start,
    Tiles,
    Trust,
    say,
    settings_of,
    terminal,
    working,
)
from pullback.cli.register import Aligned, Fixed, Mask, Moving

KNOWN = "What else is known"
POSTERIOR = "posterior."


def uncertainty(
    fixed: Fixed,
    moving: Moving,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path("uncertainty"),
    transform: Annotated[
        Path | None,
        typer.Option(
            "-t",
            "--transform",
            metavar="FILE",
            help="Transform fixed → moving of any tool, to be judged; default none: the images are registered first.",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", help="Number of samples to write, as transforms; 0 writes none.")
    ] = 20,
    ensemble: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Presets and methods whose spread is taken in place of a posterior, such as "
            "fast,accurate,convex-adam; default none.",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="FACTOR", help="Factor of all deviations, as landmarks of other pairs told it.")
    ] = 1.0,
    fixed_points: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Landmarks of the fixed image; default none.", rich_help_panel=KNOWN),
    ] = None,
    moving_points: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Theirs in the moving image, by name or in order; default none.", rich_help_panel=KNOWN
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Scale the deviation as the landmarks tell, too.", rich_help_panel=KNOWN),
    ] = False,
    fixed_mask: Mask = None,
    moving_mask: Mask = None,
    space: Space = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the samples.")] = 0,
    preset: Preset = None,
    method: Method = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="Set posterior.energy.noise, .prior, .smooth, .samples, posterior.solver.steps, …; or a number of the "
            "method that registers. Repeatable.",
        ),
    ] = None,
    network: Network = None,
    refine: Refine = None,
    tiles: Tiles = None,
    start: Start = "auto",
    aligned: Aligned = False,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Tell how far a registration may be from the truth: a deviation in mm, and samples of where it may lie.

    The registration is any tool's, by -t, or made here as register makes
    it. OUT gets maps/deviation.nii.gz, samples/, the transform, a page, and
    run.json. apply -t OUT/samples moves an image by each sample.

    A deviation is a drawing until landmarks have scaled it: give some by
    --fixed-points and --moving-points.
    """
    from pullback.errors import InputError, refuse
    from pullback.methods.pair.uncertainty import WithPosterior
    from pullback.numerics.device import device_of
    from pullback.study.recipe import changed
    from pullback.workflows.how import How
    from pullback.workflows.inputs import ImageFiles
    from pullback.workflows.uncertainty import UncertaintyHow, summary, uncertainty_files

    settings = settings_of(setting)
    of_posterior = {key: value for key, value in settings.items() if key.startswith(POSTERIOR)}
    other = {key: value for key, value in settings.items() if key not in of_posterior}
    if transform is not None:
        idle = {
            "--preset": preset,
            "--method": method,
            "--network": network,
            "--refine": refine,
            "--tiles": tiles,
            "--start": None if start == "auto" else start,
            "--aligned": aligned or None,
            "--trust": trust,
            **{f"--set {key}": key for key in other},
        }
        refuse(idle, "is of registration, and -t names its answer")
    if (fixed_points is None) != (moving_points is None):
        raise InputError("--fixed-points and --moving-points: landmarks of both images expected, got those of one")
    posterior = changed(WithPosterior(), {key.removeprefix(POSTERIOR): value for key, value in of_posterior.items()})
    where = device_of(device)
    chosen = How(method, preset, network, refine, other, start, aligned=aligned, tiles=tiles)
    register, members = _registers(chosen, transform is None, ensemble, where, trust or ())
    how = UncertaintyHow(posterior, members, temperature, calibrate, samples, seed)
    points = None if fixed_points is None or moving_points is None else (fixed_points, moving_points)
    with working(terminal(True), "aligning"):
        content = uncertainty_files(
            ImageFiles(fixed, fixed_mask),
            ImageFiles(moving, moving_mask),
            register,
            out,
            how,
            transform,
            points,
            space,
            where,
            {"method": method, "network": network and str(network), "ensemble": ensemble, "seed": seed},
        )
    say(as_json, content, summary(content, out))


def _registers(how, registers: bool, ensemble: str | None, device, trusted):
    """Return the register that is judged, where one is, and those beside it."""
    from dataclasses import replace

    from pullback.workflows.choices import PRESETS
    from pullback.workflows.how import register_of

    names = [name.strip() for name in (ensemble or "").split(",") if name.strip()]
    beside = replace(how, network=None, refine=None, settings={}, tiles=None)
    members = [
        register_of(replace(beside, method=None, preset=name))
        if name in PRESETS
        else register_of(replace(beside, method=name, preset=None))
        for name in names
    ]
    return (register_of(how, device, trusted) if registers else None), tuple(members)


def dose(
    plan: Annotated[Path, typer.Option("--plan", metavar="FILE", help="Image of the plan: all is told on its grid.")],
    doses: Annotated[
        list[Path], typer.Option("--dose", metavar="FILE", help="Dose of a day, in its own anatomy. Repeatable.")
    ],
    transforms: Annotated[
        list[Path],
        typer.Option(
            "-t",
            "--transform",
            metavar="FILE|DIR",
            help="Of each dose, plan → day: a transform; or, for bands, the folder of `pullback uncertainty` or of "
            "samples. Repeatable.",
        ),
    ],
    structures: Annotated[
        Path, typer.Option("--structures", metavar="FILE", help="Label map of the structures in the plan.")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path("dose"),
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="LABEL=NAME", help="Name of a structure; default its label. Repeatable."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Another dose on the plan's anatomy, to be held against the bands; default none. Repeatable.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Samples of all transforms together.")] = 200,
    margin: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of the greatest dose by which bands are widened for --against."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Add doses of several days up on the plan's anatomy, with dose–volume histograms and their bands.

    OUT gets dose.nii.gz, dvh.csv, structures.csv, and a page with the
    figure. Bands are there where a transform is uncertain: they hold the
    5th to 95th percentile of D_v over samples of the transforms.

    Images are NIfTI; export DICOM RT doses and structures first.
    """
    from pullback.errors import InputError
    from pullback.workflows.dose import DoseHow, dose_files, summary

    called = settings_of(names, "--name", "LABEL=NAME")
    wrong = [label for label in called if not label.isdecimal()]
    if wrong:
        raise InputError(f"--name {wrong[0]}={called[wrong[0]]}: a label is a whole number, as in --name 1=target")
    how = DoseHow(samples, seed, margin, {int(label): name for label, name in called.items()})
    with working(terminal(True), "accumulating"):
        content = dose_files(plan, doses, transforms, structures, out, how, against or ())
    say(as_json, content, summary(content, out))
