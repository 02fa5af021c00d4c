"""The commands that work on two files, and on what aligns them."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.said import Device, Json, Trust, say, terminal, working


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
    from pullback.errors import refuse
    from pullback.solvers import Refine
    from pullback.study.run import load_run
    from pullback.training import device_of
    from pullback.workflows.choices import classical, learned
    from pullback.workflows.inputs import ImageFiles
    from pullback.workflows.outputs import ExtraOutputs
    from pullback.workflows.register import register_files, summary

    where, weight = device_of(device), 1.0 if smoothness is None else smoothness
    if fixed_points is None:
        refuse({"--space": space}, "is of --fixed-points, and there are none")
    if moving_labels is None:
        refuse({"--fixed-labels": fixed_labels}, "are measured against --moving-labels, and there are none")
    if initial is not None:
        refuse({f"--init {init}": None if init == "auto" else init}, "--initial is where to begin")
    if network is None:
        refuse({"--trust": trust}, "is of a network's parts, and there is no --network")
        refuse({"--refine": refine}, "refines a network's answer, and there is no --network")
        chosen: Register | Refine = classical(
            preset or "balanced", transform or "velocity", energy, weight, init, seed, aligned
        )
    else:
        idle = {"--preset": preset, "--transform": transform, "--aligned": aligned or None}
        refuse(idle, "not together with --network")
        if refine is None:
            refuse({"--energy": energy, "--smoothness": smoothness}, "with --network it takes --refine STEPS")
        trained = load_run(network, trust or (), "pair")[1]
        trained.network.to(where)
        chosen = learned(trained, init, refine, energy, weight)
    with working(terminal(True), "aligning"):
        content = register_files(
            ImageFiles(fixed, fixed_mask, fixed_exclude, fixed_labels),
            ImageFiles(moving, moving_mask, moving_exclude, moving_labels),
            chosen,
            out,
            fixed_points,
            space,
            initial,
            ExtraOutputs(jacobian, ants_prefix),
            where,
            {"seed": seed, "network": network and str(network), "initial": str(initial or init)},
        )
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)


def match(
    fixed: Annotated[Path, typer.Option("-f", "--fixed", help="Points: .csv .fcsv .mrk.json; surface; image; labels.")],
    moving: Annotated[Path, typer.Option("-m", "--moving", help="What they are brought onto, the same or another.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    matched: Annotated[bool, typer.Option("--matched", help="Points of one name, else row, belong together.")] = False,
    smoothing: Annotated[float, typer.Option(help="Of matched points, mm; 0 meets each.")] = 0.0,
    fixed_mask: Annotated[Path | None, typer.Option(help="The organ: where to look; its surface takes part.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="The organ: where to look; its surface takes part.")] = None,
    fixed_points: Annotated[Path | None, typer.Option(help="More points to push to moving.")] = None,
    space: Annotated[str | None, typer.Option(help="World of points that name none.")] = None,
    network: Annotated[Path | None, typer.Option(help="Folder of a run trained on points.")] = None,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Align two clouds of points: transforms both ways, both clouds moved, a picture. Exit code 3: looks failed.

    Nobody needs to know which points belong together: keypoints of two scans of
    a lung, say. Of images in 3-D they are found here, and of label maps the
    outline is taken. With --matched the points are landmarks that were set by
    hand and belong together: by their names (label, name, n, id or number)
    where both files have some, or by row.
    """
    from pullback.errors import refuse
    from pullback.workflows.match import match_files, summary

    if network is None:
        refuse({"--trust": trust}, "is of a network's parts, and there is no --network")
    with working(terminal(True), "matching"):
        masks = (fixed_mask, moving_mask)
        content = match_files(fixed, moving, out, matched, smoothing, masks, fixed_points, space, network, trust or ())
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)


def apply(
    given: Annotated[Path, typer.Option("-i", "--input", help="Image, labels, surface, .csv .fcsv .mrk.json.")],
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
    outside: Annotated[float | None, typer.Option(help="Value where the image ends; else 0, or its air.")] = None,
    space: Annotated[str | None, typer.Option(help="World of points that name none, as ras.")] = None,
    as_json: Json = False,
) -> None:
    """Move an image or points by transforms that are on disk, resampled once; a 4-D image frame by frame.

    Images travel moving → fixed with fixed_to_moving.
    Points travel fixed → moving with the same file.
    For the other way take moving_to_fixed, or --invert.
    Several -t are ordered as in antsApplyTransforms: points of the reference
    go through the first first, as in -t 1Warp.nii.gz -t 0GenericAffine.mat.
    """
    from pullback.workflows.apply import apply_files, read_transforms

    transform = read_transforms(transforms, invert)
    applied = apply_files(given, transform, out, reference, mode, labels, space, outside, transforms, invert)
    if applied.doubt:
        typer.echo(f"pullback: careful: {applied.doubt}", err=True)
    content = {"output": str(out), "what": applied.what, "doubt": applied.doubt}
    say(as_json, content, f"Written: {applied.what}")


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
    from pullback.errors import InputError
    from pullback.files import meaning, read_any, read_grid, write_any
    from pullback.files.transforms.convert import files_read, files_written
    from pullback.workflows.outputs import refuse_overwrite

    grids = [None if path is None else read_grid(path) for path in (fixed, moving)]
    kind, given_kind = _kind("--to", target), _kind("--from", source)
    what = meaning(out, kind)
    refuse_overwrite(files_written(out, kind), [*files_read(given, given_kind), *filter(None, (fixed, moving))])
    transform = read_any(given, given_kind, *grids)
    for path, grid in zip((fixed, moving), grids, strict=True):
        if grid is not None and grid.ndim != transform.ndim:
            raise InputError(f"{given}: moves points in {transform.ndim}-D, and {path} is {grid.ndim}-D")
    written = write_any(transform, out, kind, *grids)
    names = ", ".join(map(str, written))
    say(as_json, {"output": [*map(str, written)], "what": what}, f"Written: {names}: {what}")


def doctor(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="Image that stays.")],
    moving: Annotated[Path | None, typer.Argument(metavar="MOVING", help="Image to be brought onto it.")] = None,
    as_json: Json = False,
) -> None:
    """Tell before a registration what will go wrong with it, and how to mend that. Exit code 1: it cannot be run so."""
    from pullback.files import Severity
    from pullback.workflows.doctor import examine, layout, verdict

    found = examine(fixed, moving)
    listed = [{"severity": f.severity.value, "what": f.what, "remedy": f.remedy} for f in found]
    if not as_json:
        terminal(as_json).print(layout(found))
    say(as_json, {"findings": listed, "verdict": verdict(found)}, verdict(found))
    if any(f.severity is Severity.ERROR for f in found):
        raise typer.Exit(1)


def _kind(option: str, name: str | None):
    from pullback.errors import InputError
    from pullback.files import TransformKind

    named = {kind.value: kind for kind in TransformKind}
    if name is not None and name not in named:
        raise InputError(f"{option} {name}: choose one of {', '.join(named)}")
    return None if name is None else named[name]
