"""The command that aligns many pairs."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import (
    Device,
    Json,
    Method,
    Network,
    Output,
    Preset,
    Refine,
    Setting,
    Start,
    Tiles,
    Trust,
    say,
    settings_of,
    terminal,
)
from pullback.cli.register import Aligned, EnergyName, Jacobian, Seed, Smoothness, Transform

WORKERS = "Computing"


def cohort(
    pairs: Annotated[
        Path,
        typer.Argument(metavar="PAIRS.csv|DIR", help="Table with columns fixed, moving, …; or a folder, with --to."),
    ],
    out: Output,
    template: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Image onto which all of the folder are brought.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Images of the folder; default **/*_T1w.nii.gz.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "-j",
            "--jobs",
            metavar="N",
            help="Pairs at once; default one for every four cores, on an accelerator one.",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local, or ray: over a cluster.", rich_help_panel=WORKERS)
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Ray's cluster, such as auto or ray://head:10001; default a new one of this machine.",
            rich_help_panel=WORKERS,
        ),
    ] = None,
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
    jacobian: Jacobian = False,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Align many pairs of files, each once, over all cores or over a cluster.

    OUT gets a folder for each pair, as of register, results.csv of all, and
    report.html with the most doubtful on top. What was stopped or killed goes
    on by the same command.

    A table may have further columns: name, fixed_mask, moving_mask,
    fixed_exclude, moving_exclude, fixed_labels, moving_labels, fixed_points.

    Exit code 3: it is done, but some pairs failed or look failed.
    """
    from pullback.errors import InputError, refuse
    from pullback.numerics.device import device_of
    from pullback.records.workers import Engine, Local, Ray
    from pullback.workflows.choices import named
    from pullback.workflows.cohort import Aligner, cohort_files, cores, pairs_of, pairs_onto, summary
    from pullback.workflows.how import How, register_of
    from pullback.workflows.outputs import ExtraOutputs

    named(engine, dict.fromkeys(("local", "ray")), "--engine")
    if engine == "local":
        refuse({"--address": address}, "is of --engine ray")
    if pairs.is_dir():
        if template is None:
            raise InputError(f"{pairs}: a folder; say by --to which image all are brought onto, or give a table")
        chosen = pairs_onto(template, pairs, images or "**/*_T1w.nii.gz")
    else:
        refuse({"--to": template, "--images": images}, "is of a folder of images, and this is a table")
        chosen = pairs_of(pairs)
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
    where = device_of(device)
    register_of(how, where, trust or ())  # or it fails here, once, and not with each pair
    at_once = jobs if jobs is not None else max(1, cores() // 4) if where.type == "cpu" else 1
    if at_once < 1:
        raise InputError(f"-j {at_once}: one pair at once, or more")
    threads = max(1, cores() // at_once)
    accelerators = 0.0 if where.type == "cpu" else 1.0
    engines: dict[str, Engine] = {"local": Local(), "ray": Ray(address, threads, accelerators)}
    aligner = Aligner(how, out, ExtraOutputs(jacobian), str(where), tuple(trust or ()), threads)
    content = cohort_files(chosen, aligner, engines[engine], min(at_once, len(chosen)), terminal(as_json))
    say(as_json, content, summary(content, out))
    if set(content["counts"]) != {"aligned"}:
        raise typer.Exit(3)
