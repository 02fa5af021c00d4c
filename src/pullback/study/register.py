"""Two files, aligned by a trained network, and everything a person wants of it in one folder."""

import time
from pathlib import Path
from typing import Any

import torch

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.files.itk import write_transform
from pullback.files.manifest import manifest, peak_memory_mb, write_json
from pullback.files.nifti import read_image, read_labels, refuse_sheared, write_image
from pullback.metrics import STANDARD, foreground, numbers_of
from pullback.space import Affine, Displacement, Grid
from pullback.study.report import write_report
from pullback.study.trained import Trained

NOTES = (
    "moved.nii.gz is the moving image on the fixed grid.",
    "fixed_to_moving.nii.gz takes points of the fixed image to the moving image. Images travel the other way: "
    "antsApplyTransforms and SimpleITK bring images of the moving space onto the fixed grid by this file.",
    "moving_to_fixed.nii.gz is its inverse: it takes points of the moving image to the fixed image, and brings images "
    "of the fixed space onto the moving grid.",
)


def register_files(
    fixed: str | Path,
    moving: str | Path,
    register: Trained,
    out: str | Path,
    fixed_labels: str | Path | None = None,
    moving_labels: str | Path | None = None,
    device: torch.device = torch.device("cpu"),
) -> dict[str, Any]:
    """Align two files and write into `out`: `moved.nii.gz`, the field and its inverse in ITK's form,
    `moved_labels.nii.gz` where labels are given, `run.json` and `report.html`.

    Returns:
        what `run.json` holds.
    """
    pair = _read(fixed, moving, fixed_labels, moving_labels).to(device)
    refuse_sheared(pair.fixed.grid, fixed)
    start = time.perf_counter()
    transform = register(pair.fixed, pair.moving).transform
    seconds = time.perf_counter() - start
    begin = register.begin(pair.fixed, pair.moving)
    after = Alignment(pair, transform)
    inverse = _inverse(transform, begin, pair.moving.grid)
    numbers = {name: numbers_of(a, STANDARD) for name, a in (("before", Alignment(pair, begin)), ("after", after))}
    content: dict[str, Any] = manifest() | {
        "fixed": str(fixed),
        "moving": str(moving),
        "initial": "centres" if register.centred else "header",
        "direction": list(NOTES),
        "numbers": numbers,
        "round trip mm": round_trip(after, inverse),
        "seconds": {"align": round(seconds, 3)},
        "device": str(device),
        "peak memory MB": round(peak_memory_mb(device), 1),
    }
    _write(after, inverse, Path(out))
    title = f"{Path(moving).name} aligned to {Path(fixed).name}"
    write_report(after, Path(out) / "report.html", title, numbers, NOTES, begin=begin)
    write_json(content, Path(out) / "run.json")
    return content


def round_trip(there: Alignment, back: Displacement) -> dict[str, float]:
    """How far from home the fixed foreground lands after there and back, in mm: mean, 95 %, maximum.

    Points that leave the grid of `back` are not counted: nothing is known of the way from there.
    """
    fixed = there.pair.fixed
    where = fixed.grid.to_world(fixed.grid.voxels(fixed.data)[None])
    away = there.transform.at(where)
    at = back.grid.to_voxels(away).flatten(2)[0]
    last = torch.tensor(back.grid.shape, device=at.device).view(-1, 1) - 1
    known = foreground(there).flatten() & ((at >= 0) & (at <= last)).all(0)
    errors = (back.at(away) - where).norm(dim=1).flatten()[known].cpu().sort().values
    if not len(errors):
        return {}
    picks = {"mean": errors.mean(), "95 %": errors[int(0.95 * (len(errors) - 1))], "max": errors[-1]}
    return {name: round(float(value), 4) for name, value in picks.items()}


def _inverse(transform: Displacement, begin: Affine, moving: Grid) -> Displacement:
    """Moving → fixed as one field on the moving grid."""
    found = Displacement((begin.inverse() @ transform).displacement(transform.grid), transform.grid)
    return Displacement((found.inverse() @ begin.inverse()).displacement(moving).float(), moving)


def _read(
    fixed: str | Path, moving: str | Path, fixed_labels: str | Path | None, moving_labels: str | Path | None
) -> Pair:
    one, two = read_image(fixed), read_image(moving)
    if one.grid.ndim != two.grid.ndim:
        raise InputError(f"{fixed} is {one.grid.ndim}-D and {moving} is {two.grid.ndim}-D; both must be alike")
    return Pair(
        one,
        two,
        fixed_labels=None if fixed_labels is None else read_labels(fixed_labels, on=one.grid),
        moving_labels=None if moving_labels is None else read_labels(moving_labels, on=two.grid),
        name=f"{fixed} ← {moving}",
    )


def _write(after: Alignment, inverse: Displacement, out: Path) -> None:
    write_image(after.moved, out / "moved.nii.gz")
    write_transform(after.transform, out / "fixed_to_moving.nii.gz")
    write_transform(inverse, out / "moving_to_fixed.nii.gz")
    if after.moved_labels is not None:
        write_image(after.moved_labels, out / "moved_labels.nii.gz")
    else:  # of an earlier run into the same folder
        (out / "moved_labels.nii.gz").unlink(missing_ok=True)
