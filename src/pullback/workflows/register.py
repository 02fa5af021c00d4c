"""Registration of two files by any register, with all results in one folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from inspect import isfunction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.errors import InputError
from pullback.files import PointTable, Surface, read_points, read_transform
from pullback.files.images.nifti import refuse_wide
from pullback.files.transforms.itk import affine_and_field
from pullback.metrics import STANDARD, LandmarkError, foreground, numbers_of
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.report.registration import write_report
from pullback.solvers import Chain, Refine, timed
from pullback.solvers.held_out import GAIN
from pullback.space import Affine, Transform
from pullback.stats import Stage, Stats
from pullback.study.recipe import as_data
from pullback.study.trained import Trained
from pullback.workflows.clouds import Cloud
from pullback.workflows.inputs import ImageFiles, headers, read_pair, told_of_slides
from pullback.workflows.outputs import (
    RECORD,
    ExtraOutputs,
    about_known,
    about_points,
    of_earlier_runs,
    planned,
    refuse_without,
    transaction,
    write_all,
)
from pullback.workflows.pixels import doubt_of_pixels, in_pixels
from pullback.workflows.quality import Verdict, verdict
from pullback.workflows.slides import moved_names, pixel_in, write_colours
from pullback.workflows.stained import are_stained, for_stains
from pullback.workflows.steering import Steering, read_landmarks, steered, told_of

MEASURED = (*STANDARD, LandmarkError())
DRAWN_WITH = ("PIL.Image", "contourpy")  # imported late, when all is done, by the report
ON_GRID = 1e-6  # voxels: what rounding may take a point beyond a grid
NOTES = (
    "moved.nii.gz is the moving image on the fixed grid.",
    "fixed_to_moving.h5 takes points of the fixed image to the moving image. Images travel the other way: "
    "antsApplyTransforms and SimpleITK bring images of the moving space onto the fixed grid by this file.",
    "moving_to_fixed.h5 is its inverse: it takes points of the moving image to the fixed image, and brings images "
    "of the fixed space onto the moving grid.",
)


def register_files(
    fixed: ImageFiles,
    moving: ImageFiles,
    register: Register | Refine,
    out: str | Path,
    points: str | Path | None = None,
    space: str | None = None,
    start: Transform | str | Path | None = None,
    wanted: ExtraOutputs = ExtraOutputs(),
    device: torch.device = torch.device("cpu"),
    about: Mapping[str, Any] | None = None,
    steering: Steering = Steering(),
) -> dict[str, Any]:
    """Align two files and write the results into `out`.

    These are `moved.nii.gz`, `fixed_to_moving.h5`, `moving_to_fixed.h5`, `run.json`, `report.html`; moved labels and
    pushed points where they are given; the moving images that are in colour, in colour;
    and the outputs of `wanted`. Nothing is written before all has succeeded. A file of the same name is replaced; all
    others in the folder stay. Of two sections in colour the deformable stage is `STAINED`, unless another was chosen.

    Args:
        fixed: the image that stays.
        moving: the image that is brought onto it.
        register: any; a classical one also takes a start.
        out: the folder.
        points: in the fixed world, pushed to the moving one, in the format of their file.
        space: of those points, as in `read_points`, where the file does not say.
        start: fixed → moving, to continue from: a transform, or the file of one.
        wanted: optional outputs.
        device: where to compute.
        about: more to keep in `run.json`, such as the seed.
        steering: landmarks and labels that steer it. The start between landmarks takes the place of `start`.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read, that does not fit the others, or a folder that cannot be written.
    """
    fixed, moving = fixed.opened(), moving.opened()
    pair = read_pair(fixed, moving).to(device)
    slides = told_of_slides(fixed, moving)
    table = None if points is None else read_points(points, space, pair.fixed.grid.ndim, pixel_in(points, space, fixed))
    if points is not None and table is not None and in_pixels(points, space):
        slides += filter(None, [doubt_of_pixels(table.points, points, str(fixed.images[0]))])
    steering.refuse_alone(points, (pair.fixed_labels, pair.moving_labels))
    given = [*fixed.paths, *moving.paths, *(path for path in (points, steering.moving_points) if path is not None)]
    if isinstance(start, str | Path):
        given.append(start)
        start = read_transform(start)
    cloud = None if table is None or points is None else Cloud(table, points, "points")
    pixel = pixel_in(points or steering.moving_points, space, moving)
    landmarks = read_landmarks(steering, cloud, space, pair, pixel)
    register = for_stains(register) if are_stained(fixed, moving) else register
    steerable = steered(register, steering, landmarks, pair)
    if landmarks is not None:
        start, pair = landmarks.start or start, landmarks.on(pair)
    start = start and start.to(device)
    _check(pair, table, start, wanted)
    refuse_without(DRAWN_WITH)
    found = headers(fixed, moving)
    fixed, moving = fixed.closed(), moving.closed()
    colours = moved_names(fixed, moving)
    with transaction(Path(out), given, [*planned(pair, points, wanted), *colours]) as folder:
        forget_peak_memory(device)
        before, after = _aligned(pair, steerable, start)
        stats, inverse, judged = after.stats or Stats(), _inverse(after), verdict(before, after)
        write_colours(colours, after, folder, fixed)
        like = None if fixed.slides else str(fixed.images[0])
        names = write_all(after, inverse, folder, like, table, points, wanted, pixel)
        numbers = {side: numbers_of(a, MEASURED) for side, a in (("before", before), ("after", after))}
        content: dict[str, Any] = manifest() | {
            "fixed": [str(path) for path in fixed.images],
            "moving": [str(path) for path in moving.images],
            "direction": list(NOTES),
            "begun": _begun(stats),
            "numbers": numbers,
            "found": dict(stats.numbers),
            "quality": _quality(judged),
            "seconds": {stage.name: round(stage.seconds, 3) for stage in stats.stages},
            "descents": {stage.name: {"steps": stage.steps, "stopped": stage.stopped} for stage in descents(stats)},
            "device": str(device),
            "peak memory MB": round(peak_memory_mb(device), 1),
            "settings": settings_of(register),
            "headers": found,
            "slides": slides,
            "files": [*names, "report.html", RECORD],
        }
        content |= {
            **round_trip(after, after.inverse),
            "round trip as written": round_trip(after, inverse),
            **({} if landmarks is None else {"landmarks": landmarks.about()}),
            **(about or {}),
        }
        content["earlier"] = of_earlier_runs(Path(out), content["files"], content["fixed"], content["moving"])
        content["steered"] = told_of(landmarks, numbers)
        about_colours = [f"{name} is {path}, in colour on the fixed grid." for name, path in colours.items()]
        notes = [
            *slides,
            *content["steered"],
            *NOTES,
            *about_colours,
            *about_known(after),
            *about_points(table, points),
        ]
        named = " aligned to ".join(Path(str(files.images[0])).name for files in (moving, fixed))
        _report(before, after, judged, folder / "report.html", named, numbers, notes)
        write_json(content, folder / RECORD)
    return content


def round_trip(there: Alignment, back: Transform) -> dict[str, dict[str, float]]:
    """Return how far from home the fixed foreground lands after there and back, in mm and in fixed voxels.

    Points that leave the grid of a field on the way are not counted: the way back from there is not known.
    """
    grid = there.pair.fixed.grid
    voxels = foreground(there)[0, 0].nonzero().T.double().cpu()[None]
    where = grid.to_world(voxels)
    away, known = there.transform.followed(where, ON_GRID)
    home, still = back.followed(away, ON_GRID)
    off = {"round trip mm": home - where, "round trip voxels": grid.to_voxels(home) - voxels}
    units = {"round trip mm": float(grid.spacing.min()), "round trip voxels": 1.0}
    return {name: _spread(vectors[0, :, (known & still)[0]], units[name]) for name, vectors in off.items()}


def _spread(errors: Tensor, unit: float) -> dict[str, float]:
    """Return the mean, 95 % and maximum of the lengths of vectors `(d, N)`, to about a ten-thousandth of `unit`.

    It is empty where there are none.
    """
    lengths = errors.norm(dim=0).sort().values
    if not len(lengths):
        return {}
    picks = {"mean": lengths.mean(), "95 %": lengths[int(0.95 * (len(lengths) - 1))], "max": lengths[-1]}
    return {name: round(float(value), 4 - math.floor(math.log10(unit))) for name, value in picks.items()}


def descents(stats: Stats) -> list[Stage]:
    """Return the stages that took steps of descent."""
    return [stage for stage in stats.stages if stage.stopped]


def settings_of(register: object) -> Any:
    """Return a register as data: all its parts and numbers.

    For a network it is its class and how images are presented to it; for a class that is no dataclass, its name.
    """
    if isinstance(register, Chain):
        return {"first": settings_of(register.first), "then": [settings_of(refine) for refine in register.then]}
    if isinstance(register, Trained):
        seen = {"spacing": register.spacing, "centred": register.centred, "ndim": register.ndim}
        seen |= {} if register.tiles is None else {"tiles": register.tiles}
        before = {} if register.before is None else {"before": settings_of(register.before)}
        return {"network": type(register.network).__qualname__, **seen, **before}
    if is_dataclass(register) or isfunction(register):
        return as_data(register)
    return {"register": f"{type(register).__module__}.{type(register).__qualname__}"}


def _check(
    pair: Pair,
    table: PointTable | Surface | None,
    start: Transform | None,
    wanted: ExtraOutputs,
) -> None:
    """Refuse what would fail only after the work."""
    ndim = pair.fixed.grid.ndim
    for what, has in (
        ("points", None if table is None else table.points.data.shape[-1]),
        ("start", None if start is None else start.ndim),
    ):
        if has not in (None, ndim):
            raise InputError(f"{pair.name}: the images are {ndim}-D and the {what} {has}-D; both must be alike")
    if pair.moving_labels is not None:
        refuse_wide(pair.moving_labels, "--moving-labels")
    if wanted.ants is not None and Path(wanted.ants).name != wanted.ants:
        raise InputError(f"--ants-prefix {wanted.ants}: what names begin with, no folder; the pieces go where all goes")


# ---- the work


@torch.no_grad()
def _aligned(pair: Pair, register: Register | Refine, start: Transform | None) -> tuple[Alignment, Alignment]:
    """Return the alignment before, by the headers or the given start, and the one found."""
    after = timed(pair, register, start)
    given = after.stats.start if after.stats is not None and not after.stats.origin else None
    return Alignment(pair, given or Affine.identity(pair.fixed.grid.ndim)), after


def _inverse(after: Alignment) -> Transform:
    """Return the inverse, moving → fixed, as it is written: that of a field on its own grid."""
    affine, field = affine_and_field(after.transform, after.pair.fixed.grid)
    return affine.inverse() if field is None else (affine @ field).inverse()


# ---- out


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `register_files` for a person."""
    before, after, judged = content["numbers"]["before"], content["numbers"]["after"], content["quality"]
    begun, trip = content["begun"], content["round trip voxels"]
    lines = [f"start: {begun['origin']}, a lead of {begun['confidence']:.2f} over its rivals"] if begun else []
    lines.append("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in content["seconds"].items()))
    told = [(name, round(before[name], 12), round(value, 12)) for name, value in after.items() if "/" not in name]
    lines += [f"{name}: {was:.4g} → {now:.4g}" for name, was, now in told]
    if trip:
        millimetres, written = content["round trip mm"], content["round trip as written"]["round trip voxels"]
        lines.append(
            f"there and back: off by {millimetres['95 %']:.3g} mm, {trip['95 %']:.3g} voxels, at 95 % of the foreground"
        )
        if written.get("95 %", 0.0) > trip["95 %"]:
            lines[-1] += f"; {written['95 %']:.3g} voxels by moving_to_fixed.h5, whose field is linear between voxels"
    lines += [*content["slides"], *content["steered"]]
    if content["found"].get(GAIN, 1.0) <= 0:
        lines.append("the deformable stage made no tiles more alike that it did not see: the affine answer stays")
    serious = [finding for finding in content["headers"] if finding["severity"] != "note"]
    lines += [f"{finding['severity']}: {finding['what']}" for finding in serious]
    lines.append(
        f"quality: {judged['score']:.2f} of 1, {'sound' if judged['passed'] else 'looks FAILED (exit code 3)'}"
    )
    lines += [f"  {reason}" for reason in judged["reasons"]]
    lines += [f"{out}: {said}" for said in content["earlier"]]
    lines.append("points go fixed → moving by fixed_to_moving.h5, images moving → fixed by the same file")
    return "\n".join([*lines, f"Look at {Path(out) / 'report.html'}"])


def _begun(stats: Stats) -> dict[str, Any] | None:
    """Return the start of a chain that sought it itself, else None."""
    return {"origin": stats.origin, "confidence": round(stats.confidence or 0.0, 2)} if stats.origin else None


def _quality(judged: Verdict) -> dict[str, Any]:
    return {
        "score": judged.score,
        "passed": judged.passed,
        "reasons": list(judged.reasons),
        "numbers": dict(judged.numbers),
    }


def _report(
    before: Alignment,
    after: Alignment,
    judged: Verdict,
    path: Path,
    title: str,
    numbers: dict[str, dict[str, float]],
    notes: Sequence[str],
) -> None:
    said = "The result looks sound" if judged.passed else f"The result looks failed: {'; '.join(judged.reasons)}"
    write_report(
        after,
        path,
        title,
        numbers,
        [f"{said} (score {judged.score:.2f} of 1; below 0.5 is failed).", *notes],
        _stages(after.stats or Stats()),
        before.transform,
    )


def _stages(stats: Stats) -> list[dict[str, str]]:
    """Return a row for each stage, with steps where any stage descended."""
    rows = [{"stage": stage.name, "seconds": f"{stage.seconds:.1f}"} for stage in stats.stages]
    if not descents(stats):
        return rows
    blank = {"steps": "–", "stopped": "–"}
    ends = [{"steps": str(one.steps), "stopped": one.stopped} if one.stopped else blank for one in stats.stages]
    return [row | end for row, end in zip(rows, ends, strict=True)]
