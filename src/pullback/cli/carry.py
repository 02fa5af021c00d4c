"""The commands that carry images and points along, and transforms to other tools."""

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
    Trust,
    say,
    settings_of,
    terminal,
    working,
)


def apply(
    given: Annotated[
        Path, typer.Option("-i", "--input", metavar="FILE", help="Image, slide, label map, surface or points to move.")
    ],
    transforms: Annotated[
        list[str],
        typer.Option(
            "-t", "--transform", metavar="FILE", help="Transform; [FILE,1] is its inverse; or a folder. Repeatable."
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="File to write; points in the format they came in.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "-r",
            "--reference",
            metavar="FILE",
            help="Image whose grid the result gets; of annotations the slide in whose pixels it is written.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="SLIDE", help="Slide in whose pixels annotations are; default none."),
    ] = None,
    spacing: Annotated[
        float | None,
        typer.Option(metavar="MM", help="Pixels of a moved slide; default those of the finest level of -r."),
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Apply the inverse of all transforms together.")] = False,
    mode: Annotated[
        str | None,
        typer.Option(
            "-n", "--interpolation", metavar="NAME", help="linear, cubic or nearest; default linear, of labels nearest."
        ),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="The image is a label map; -n linear makes its borders smooth, one by one."),
    ] = False,
    outside: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="Value where the image ends; default 0, of a CT its air."),
    ] = None,
    space: Space = None,
    as_json: Json = False,
) -> None:
    """Move an image or points by transforms on disk, resampled once; a 4-D image frame by frame.

    A picture or slide goes to .png or .ome.tif, in colour and in parts.
    -t FOLDER holds several, such as samples: the image is seen through each
    of them, as frames; each frame of a 4-D image through its own.

    Images travel moving → fixed with fixed_to_moving.
    Points travel fixed → moving with the same file.
    For the other way take moving_to_fixed, or --invert.
    Several -t are ordered as in antsApplyTransforms: points of the reference
    go through the first first, as in -t 1Warp.nii.gz -t 0GenericAffine.mat.
    """
    from pullback.errors import refuse
    from pullback.workflows.apply import apply_files, read_in_order
    from pullback.workflows.apply_each import apply_each, folder_in

    if folder_in(transforms) is None:
        transform = read_in_order(transforms, invert)
        applied = apply_files(
            given, transform, out, reference, mode, labels, space, outside, transforms, invert, spacing, source
        )
    else:
        refuse({"--space": space, "--spacing": spacing, "--source": source}, "is not of several transforms at once")
        applied = apply_each(given, transforms, out, reference, mode, labels, outside, invert)
    if applied.doubt:
        typer.echo(f"pullback: careful: {applied.doubt}", err=True)
    content = {"output": str(out), "what": applied.what, "doubt": applied.doubt}
    say(as_json, content, f"Written: {applied.what}")


def convert(
    given: Annotated[str, typer.Argument(metavar="IN", help="Transform file, or the prefix of ANTs' files.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="File to write, or such a prefix.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="KIND", help="Kind of IN, one of those above; default as the file says."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="KIND", help="One of those kinds; default as the name of OUT says."),
    ] = None,
    fixed: Annotated[Path | None, typer.Option(metavar="FILE", help="Fixed image; most kinds need its grid.")] = None,
    moving: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Moving image; FSL and Learn2Reg need its grid, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a transform as another tool reads it. IN may be of any kind:

    itk         .h5 .tfm .txt .mat of ITK, ANTs, Slicer; their fields, and
                greedy's, in .nii.gz .mha .nrrd
    ants        the prefix of ANTs' files
    spm         y_*.nii and iy_*.nii of SPM
    niftyreg    deformations, displacements, control points (read), and
                affines as text
    freesurfer  .lta; .m3z (read)
    elastix     TransformParameters.*.txt, B-splines and chains too
    c3d         affines of c3d, greedy, ITK-SNAP as text
    fsl         FLIRT's .mat, relative warps; with --fixed and --moving
    learn2reg   disp_*.nii.gz, .npz; with --fixed and --moving
    x5          .x5 of nitransforms

    IN is known by its name, header and first bytes; where these do not
    tell, --from does.
    """
    from pullback.errors import InputError
    from pullback.files import meaning, read_any, read_grid, write_any
    from pullback.files.transforms.convert import files_read, files_written
    from pullback.records.atomic import refuse_unwritable
    from pullback.workflows.outputs import refuse_overwrite

    grids = [None if path is None else read_grid(path) for path in (fixed, moving)]
    kind, given_kind = _kind("--to", target), _kind("--from", source)
    what = meaning(out, kind)
    refuse_overwrite(files_written(out, kind), [*files_read(given, given_kind), *filter(None, (fixed, moving))])
    for written in files_written(out, kind):
        refuse_unwritable(written)
    transform = read_any(given, given_kind, *grids)
    for path, grid in zip((fixed, moving), grids, strict=True):
        if grid is not None and grid.ndim != transform.ndim:
            raise InputError(f"{given}: moves points in {transform.ndim}-D, and {path} is {grid.ndim}-D")
    made = write_any(transform, out, kind, *grids)
    names = ", ".join(map(str, made))
    say(as_json, {"output": [*map(str, made)], "what": what}, f"Written: {names}: {what}")


def propagate(
    given: Annotated[
        Path,
        typer.Option("-i", "--input", metavar="VIDEO", help="4-D image, or folder of frames ordered by their numbers."),
    ],
    labels: Annotated[
        Path, typer.Option("-l", "--labels", metavar="FILE", help="Label map of one frame, the reference.")
    ],
    out: Output,
    at: Annotated[int, typer.Option("--at", metavar="FRAME", help="Number of the reference, from 0.")] = 0,
    chained: Annotated[
        bool, typer.Option("--chained", help="Align each frame with its neighbour, not with the reference.")
    ] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Do not align the other way round too, for confidence: half the time.")
    ] = False,
    transforms: Annotated[
        bool, typer.Option("--transforms", help="Write the transform of each frame: transforms/frame_0007.h5.")
    ] = False,
    preset: Preset = None,
    method: Method = None,
    setting: Setting = None,
    network: Network = None,
    refine: Refine = None,
    aligned: Annotated[
        bool,
        typer.Option("--aligned", help="Leave out rigid and affine stages: only shapes differ.", rich_help_panel=HOW),
    ] = False,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Carry the labels of one frame through a sequence, by any way to align.

    OUT gets the labels of every frame (propagated.nii.gz, or a file each in
    labels/ where the frames were files), a table of the frames with
    milliseconds and confidence (frames.csv), and run.json.

    Exit code 3: it is done, but labels look lost in most frames.
    """
    from pullback.numerics.device import device_of
    from pullback.workflows.how import How, register_of
    from pullback.workflows.propagate import Carrying, propagate_files, summary

    where = device_of(device)
    how = How(method, preset, network, refine, settings_of(setting), aligned=aligned)
    carrying = Carrying(register_of(how, where, trust or ()), chained, not unchecked, transforms)
    about = {"method": method, "network": network and str(network)}
    with working(terminal(True), "carrying"):
        content = propagate_files(given, labels, at, carrying, out, where, about)
    say(as_json, content, summary(content, out))
    if not content.get("quality", {"passed": True})["passed"]:
        raise typer.Exit(3)


def segment(
    targets: Annotated[Path, typer.Option("-t", "--targets", metavar="DIR", help="Folder of images to segment.")],
    out: Output,
    atlases: Annotated[
        Path | None, typer.Option("-a", "--atlases", metavar="DIR", help="Folder of labelled images; default none.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("-l", "--labels", metavar="DIR", help="Folder of their labels, called alike; default none."),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of label maps that are on the targets already, TARGET/ATLAS.nii.gz; default none.",
        ),
    ] = None,
    consensus: Annotated[
        str, typer.Option(metavar="NAME", help="Way to one label map: simple, majority, staple or deep-staple.")
    ] = "simple",
    epochs: Annotated[
        int, typer.Option(metavar="COUNT", help="How often deep-staple learns from each label map.")
    ] = 30,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of deep-staple.")] = 0,
    preset: Preset = None,
    method: Method = None,
    setting: Setting = None,
    network: Network = None,
    refine: Refine = None,
    aligned: Annotated[
        bool,
        typer.Option("--aligned", help="Leave out rigid and affine stages: only shapes differ.", rich_help_panel=HOW),
    ] = False,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Segment images by atlases, which are brought onto them by any way to align.

    Each atlas gives a label map of each target; their consensus is written
    to labels/, how far each label map counts to trust.csv. simple weighs
    label maps by their overlap with the consensus, staple by estimated
    sensitivity and specificity. deep-staple learns from all targets which
    registrations failed, also where most err alike; it wants 50 label maps
    or more, and takes minutes. What was registered is kept in OUT and not
    done again.

    Exit code 3: it is done, but label maps contradict each other in most
    targets.
    """
    from pullback.errors import InputError, refuse
    from pullback.numerics.device import device_of
    from pullback.records.lock import locked
    from pullback.workflows.atlases import images_in, labels_of, registered_maps, stored_maps
    from pullback.workflows.choices import named
    from pullback.workflows.how import How, register_of
    from pullback.workflows.segment import WAYS, Learning, refuse_few, segment_files, summary

    named(consensus, dict.fromkeys(WAYS), "--consensus")
    if (candidates is None) == (atlases is None) or (atlases is None) != (labels is None):
        raise InputError("segment: --atlases with their --labels, or --candidates that are on the targets, expected")
    where, images, console = device_of(device), images_in(targets), terminal(as_json)
    about = {"method": method, "network": network and str(network)}
    with locked(out):
        if candidates is not None:
            given = {"--preset": preset, "--method": method, "--set": setting, "--network": network, "--refine": refine}
            refuse(
                given | {"--aligned": aligned or None}, "aligns atlases, and --candidates are on the targets already"
            )
            maps = stored_maps(candidates, images)
        else:
            assert atlases is not None
            assert labels is not None
            how = How(method, preset, network, refine, settings_of(setting), aligned=aligned)
            register, known = register_of(how, where, trust or ()), labels_of(images_in(atlases), labels)
            refuse_few(consensus, len(images) * len(known))
            maps = registered_maps(images, known, register, out, where, console)
        learning = Learning(epochs, seed=seed)
        content = segment_files(images, maps, consensus, out, learning, where, about, console)
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)


def simulate(
    jacobian: Annotated[
        Path,
        typer.Option("-j", "--jacobian", metavar="FILE", help="Image of the wanted determinant det ∇φ, above 0."),
    ],
    out: Output,
    curl: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Image of the wanted curl, on the same grid; in 3D one each for R, A, S. Repeatable; default free.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a transform with a known volume change, such as atrophy or growth.

    The determinant says for each voxel what volume it has afterwards, in its
    own: 0.8 shrinks it by a fifth. The grid's border does not move, so a
    mean other than 1 is normalised, and said. OUT gets the transform
    (fixed_to_moving.h5, for points), its inverse (moving_to_fixed.h5, by
    which `pullback apply` makes the changed image), the determinant that was
    reached (jacobian.nii.gz), and its errors (run.json).
    """
    from pullback.workflows.simulate import simulate_files, summary

    content = simulate_files(jacobian, out, curl or ())
    say(as_json, content, summary(content, out))


def _kind(option: str, name: str | None):
    from pullback.errors import InputError
    from pullback.files import TransformKind

    named = {kind.word: kind for kind in TransformKind}
    if name is not None and name not in named:
        raise InputError(f"{option} {name}: choose one of {', '.join(named)}")
    return None if name is None else named[name]
