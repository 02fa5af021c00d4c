"""Two files, aligned by any register, and everything a person wants of it in one folder."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.errors import InputError
from pullback.files import PointTable, Surface, read_points, read_transform
from pullback.files.itk import affine_and_field, chain, dimensions
from pullback.files.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.methods.pair.classical import Classical, Solved, Stage
from pullback.methods.pose.initialise import Begun
from pullback.metrics import STANDARD, foreground, numbers_of
from pullback.solvers import Chain, Refine
from pullback.space import Affine, Dense, Displacement, Grid, Linear, Transform, inverted
from pullback.study.recipe import as_data
from pullback.study.trained import Trained
from pullback.workflows.inputs import Files, headers, read_pair
from pullback.workflows.outputs import RECORD, Wanted, about_points, whole, write_all
from pullback.workflows.quality import Verdict, verdict
from pullback.workflows.report import write_report

NOTES = (
    "moved.nii.gz is the moving image on the fixed grid.",
    "fixed_to_moving.h5 takes points of the fixed image to the moving image. Images travel the other way: "
    "antsApplyTransforms and SimpleITK bring images of the moving space onto the fixed grid by this file.",
    "moving_to_fixed.h5 is its inverse: it takes points of the moving image to the fixed image, and brings images "
    "of the fixed space onto the moving grid.",
)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a register found, and how.

    Attributes:
        before: the pair as the headers, or a start, lay it.
        after: the pair as it was found.
        inverse: moving → fixed.
        stages: what was done.
        begun: where the chain began, where it sought that itself.
    """

    before: Alignment
    after: Alignment
    inverse: Transform
    stages: tuple[Stage, ...]
    begun: Begun | None

    @cached_property
    def verdict(self) -> Verdict:
        return verdict(self.before, self.after)


def register_files(
    fixed: Files,
    moving: Files,
    register: Register | Refine,
    out: str | Path,
    points: str | Path | None = None,
    space: str | None = None,
    start: Transform | str | Path | None = None,
    wanted: Wanted = Wanted(),
    device: torch.device = torch.device("cpu"),
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Align two files and write into `out`: `moved.nii.gz`, `fixed_to_moving.h5`, `moving_to_fixed.h5`, `run.json`,
    `report.html`; moved labels and pushed points where they are given; and what else is wanted.

    Nothing is written before all has succeeded; what an earlier run left there and this one does not make is removed.

    Args:
        fixed: the image that stays.
        moving: the image that is brought onto it.
        register: any; a classical one also takes a start.
        out: the folder.
        points: in the fixed world, pushed to the moving one; in the format they come in.
        space: of those points, as `read_points` knows it, where the file does not say.
        start: fixed → moving, where to go on from: a transform, or the file of one.
        wanted: what else to write.
        device: where to compute.
        about: more to keep in `run.json`, such as the seed.

    Returns:
        what `run.json` holds.

    Raises:
        InputError: a file that cannot be read, that does not fit the others, or a folder that cannot be written.
    """
    pair = read_pair(fixed, moving).to(device)
    table = None if points is None else read_points(points, space)
    given = [*fixed.paths, *moving.paths, *([] if points is None else [points])]
    if isinstance(start, str | Path):
        given.append(start)
        start = read_transform(start)
    start = start and start.to(device)
    _check(pair, register, table, start, wanted)
    found = headers(fixed, moving)
    with whole(Path(out), given) as folder:
        forget_peak_memory(device)
        answer = _answer(pair, register, start)
        names = write_all(answer.after, answer.inverse, folder, fixed.images[0], table, points, wanted)
        numbers = {side: numbers_of(a, STANDARD) for side, a in (("before", answer.before), ("after", answer.after))}
        content: dict[str, Any] = manifest() | {
            "fixed": [str(path) for path in fixed.images],
            "moving": [str(path) for path in moving.images],
            "direction": list(NOTES),
            "begun": answer.begun and {"origin": answer.begun.origin, "confidence": round(answer.begun.confidence, 2)},
            "numbers": numbers,
            "quality": _quality(answer.verdict),
            "seconds": {stage.name: round(stage.seconds, 3) for stage in answer.stages},
            "device": str(device),
            "peak memory MB": round(peak_memory_mb(device), 1),
            "settings": settings_of(register),
            "headers": found,
            "files": [*names, "report.html", RECORD],
        }
        content |= {
            **round_trip(answer.after, inverted(answer.after.transform)),
            "round trip as written": round_trip(answer.after, answer.inverse),
            **(about or {}),
        }
        _report(answer, folder / "report.html", numbers, [*NOTES, *about_points(table, points)])
        write_json(content, folder / RECORD)
    return content


def round_trip(there: Alignment, back: Transform) -> dict[str, dict[str, float]]:
    """How far from home the fixed foreground lands after there and back: mean, 95 %, maximum; mm, and fixed voxels.

    Points that leave the grid of a field on the way are not counted: nothing is known of the way from there.
    """
    grid = there.pair.fixed.grid
    voxels = foreground(there)[0, 0].nonzero().T.double().cpu()[None]
    where, known = grid.to_world(voxels), torch.ones(voxels.shape[2], dtype=torch.bool)
    home = where
    for part in [*reversed(chain(there.transform)), *reversed(chain(back))]:
        if isinstance(part, Dense):
            last = torch.tensor(part.grid.shape).view(-1, 1) - 1
            at = part.grid.to_voxels(home)[0]
            known &= ((at >= -1e-6) & (at <= last + 1e-6)).all(0)
        home = part.at(home)
    off = {"round trip mm": home - where, "round trip voxels": grid.to_voxels(home) - voxels}
    return {name: _spread(vectors[0, :, known]) for name, vectors in off.items()}


def _spread(errors: Tensor) -> dict[str, float]:
    """Of the lengths of vectors `(d, N)`; empty where there are none."""
    lengths = errors.norm(dim=0).sort().values
    if not len(lengths):
        return {}
    picks = {"mean": lengths.mean(), "95 %": lengths[int(0.95 * (len(lengths) - 1))], "max": lengths[-1]}
    return {name: round(float(value), 4) for name, value in picks.items()}


def settings_of(register: object) -> Any:
    """A register as data: all its parts and numbers; of a network, its class and how it is shown images."""
    if isinstance(register, Chain):
        return {"first": settings_of(register.first), "then": [settings_of(refine) for refine in register.then]}
    if isinstance(register, Trained):
        seen = {"spacing": register.spacing, "centred": register.centred, "ndim": register.ndim}
        return {"network": type(register.network).__qualname__, **seen}
    return as_data(register)


def _check(
    pair: Pair,
    register: Register | Refine,
    table: PointTable | Surface | None,
    start: Transform | None,
    wanted: Wanted,
) -> None:
    """What would fail only after the work."""
    ndim = pair.fixed.grid.ndim
    for what, has in (
        ("points", None if table is None else table.points.data.shape[-1]),
        ("initial transform", None if start is None else dimensions(start)),
    ):
        if has not in (None, ndim):
            raise InputError(f"{pair.name}: the images are {ndim}-D and the {what} {has}-D; both must be alike")
    linear = isinstance(register, Classical) and register.deformable is None
    if linear and start is not None and not isinstance(start, Linear):
        raise InputError("--initial: rigid and affine stages go on from a linear transform, and this one has a field")
    if wanted.ants is not None and Path(wanted.ants).name != wanted.ants:
        raise InputError(f"--ants-prefix {wanted.ants}: what names begin with, no folder; the pieces go where all goes")


# ---- the work


@torch.no_grad()
def _answer(pair: Pair, register: Register | Refine, start: Transform | None) -> Answer:
    clock = time.perf_counter()
    images = (pair.fixed, pair.moving)
    found = register(*images) if start is None else register(*images, start=start)  # type: ignore[call-arg]
    stages = (Stage("align", time.perf_counter() - clock),)
    first = register.first if isinstance(register, Chain) else register
    after = Alignment(pair, found.transform)
    if isinstance(first, Trained):
        begin = first.begin(*images)
        back = _inverse(found.transform, begin, pair.fixed.grid, pair.moving.grid)
        return Answer(Alignment(pair, begin), after, back, stages, None)
    before = Alignment(pair, start or Affine.identity(pair.fixed.grid.ndim))
    affine, field = affine_and_field(found.transform, pair.fixed.grid)  # as it is written
    inverse = affine.inverse() if field is None else (affine @ field).inverse()
    if isinstance(found, Solved):
        return Answer(before, after, inverse, found.stages, found.begun)
    return Answer(before, after, inverse, stages, None)


def _inverse(transform: Transform, begin: Affine, fixed: Grid, moving: Grid) -> Displacement:
    """Moving → fixed as one field on the moving grid."""
    found = Displacement((begin.inverse() @ transform).displacement(fixed), fixed)
    return Displacement((found.inverse() @ begin.inverse()).displacement(moving).float(), moving)


# ---- out


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """What a person reads in the end, from what `register_files` returned."""
    before, after, judged = content["numbers"]["before"], content["numbers"]["after"], content["quality"]
    begun, trip = content["begun"], content["round trip voxels"]
    lines = [f"start: {begun['origin']}, {begun['confidence']:.1f} σ above chance"] if begun else []
    lines.append("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in content["seconds"].items()))
    told = [(name, round(before[name], 9), round(value, 9)) for name, value in after.items() if "/" not in name]
    lines += [f"{name}: {was:.4g} → {now:.4g}" for name, was, now in told]
    if trip:
        millimetres, written = content["round trip mm"], content["round trip as written"]["round trip voxels"]
        lines.append(
            f"there and back: off by {millimetres['95 %']:.3g} mm, {trip['95 %']:.3g} voxels, at 95 % of the foreground"
        )
        if written.get("95 %", 0.0) > trip["95 %"]:
            lines[-1] += f"; {written['95 %']:.3g} voxels by moving_to_fixed.h5, whose field is linear between voxels"
    serious = [finding for finding in content["headers"] if finding["severity"] != "note"]
    lines += [f"{finding['severity']}: {finding['what']}" for finding in serious]
    lines.append(
        f"quality: {judged['score']:.2f} of 1, {'sound' if judged['passed'] else 'looks FAILED (exit code 3)'}"
    )
    lines += [f"  {reason}" for reason in judged["reasons"]]
    lines.append("points go fixed → moving by fixed_to_moving.h5, images moving → fixed by the same file")
    return "\n".join([*lines, f"Look at {Path(out) / 'report.html'}"])


def _quality(judged: Verdict) -> dict[str, Any]:
    return {
        "score": judged.score,
        "passed": judged.passed,
        "reasons": list(judged.reasons),
        "numbers": dict(judged.numbers),
    }


def _report(answer: Answer, path: Path, numbers: dict[str, dict[str, float]], notes: Sequence[str]) -> None:
    fixed, moving = answer.after.pair.name.split(" ← ")
    judged = answer.verdict
    said = "The result looks sound" if judged.passed else f"The result looks failed: {'; '.join(judged.reasons)}"
    stages = [{"stage": stage.name, "seconds": f"{stage.seconds:.1f}"} for stage in answer.stages]
    write_report(
        answer.after,
        path,
        f"{Path(moving).name} aligned to {Path(fixed).name}",
        numbers,
        [f"{said} (score {judged.score:.2f} of 1; below 0.5 is failed).", *notes],
        stages,
        answer.before.transform,
    )
