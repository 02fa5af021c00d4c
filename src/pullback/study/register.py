"""Two files, aligned by a trained network, and everything a person wants of it in one folder."""

import time
from pathlib import Path
from typing import Any

import torch

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.errors import InputError
from pullback.files.itk import write_transform
from pullback.files.manifest import manifest, peak_memory_mb, write_json
from pullback.files.nifti import read_image, read_labels, write_image
from pullback.metrics import Correlation, Dice, Folding, Metric, SDLogJ, numbers_of
from pullback.space import Affine, Displacement, Grid, Image, Transform, pull
from pullback.study.report import write_report
from pullback.study.run import load_run
from pullback.training import align

MEASURES: tuple[Metric, ...] = (Dice(), Correlation(), Folding(), SDLogJ())

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
    network: str | Path,
    out: str | Path,
    fixed_labels: str | Path | None = None,
    moving_labels: str | Path | None = None,
    initial: str | None = None,
) -> dict[str, Any]:
    """Align two images by the network of a run folder; write `moved.nii.gz`, the field and its inverse (ITK form),
    `moved_labels.nii.gz` where labels are given, `run.json` and `report.html` into `out`.

    Args:
        initial: `"header"` trusts the images' positions, `"centres"` lays the middle of one on the other's; None does
            what the network was trained with.

    Returns:
        what `run.json` holds.
    """
    recipe, net = load_run(network)
    pair = _read(fixed, moving, fixed_labels, moving_labels)
    ndim = pair.fixed.grid.ndim
    if recipe.network.keywords.get("ndim", ndim) != ndim:
        raise InputError(f"{network}: trained on {recipe.network.keywords['ndim']}-D images; {fixed} is {ndim}-D")
    if initial not in (None, "header", "centres"):
        raise InputError(f'initial: "header" or "centres", not {initial!r}')
    centred = initial == "centres" or (initial is None and recipe.data.centred)
    start = time.perf_counter()
    begin = centres_aligned(pair.fixed.grid, pair.moving.grid) if centred else Affine.identity(ndim)
    transform = through(net, pair, begin)
    seconds = time.perf_counter() - start
    before, after = Alignment(pair, begin), Alignment(pair, transform)
    inverse = _inverse(transform, begin, pair.moving.grid)
    numbers = {"before": numbers_of(before, MEASURES), "after": numbers_of(after, MEASURES)}
    out = Path(out)
    write_image(pull(read_image(moving), transform, onto=pair.fixed), out / "moved.nii.gz")
    write_transform(transform, out / "fixed_to_moving.nii.gz")
    write_transform(inverse, out / "moving_to_fixed.nii.gz")
    if after.moved_labels is not None:
        write_image(after.moved_labels, out / "moved_labels.nii.gz")
    content: dict[str, Any] = manifest() | {
        "fixed": str(fixed),
        "moving": str(moving),
        "network": str(network),
        "initial": "centres" if centred else "header",
        "direction": list(NOTES),
        "numbers": numbers,
        "round trip mm": round_trip(transform, inverse, pair.fixed),
        "seconds": {"align": round(seconds, 3)},
        "peak memory MB": round(peak_memory_mb(pair.fixed.data.device), 1),
    }
    title = f"{Path(moving).name} aligned to {Path(fixed).name}"
    write_report(after, out / "report.html", title, numbers, NOTES)
    write_json(content, out / "run.json")
    return content


def through(network, pair: Pair, begin: Affine) -> Displacement:
    """Fixed → moving as one field on the fixed grid: first what the network finds, then `begin`."""
    seen = pull(pair.moving, begin, onto=pair.fixed)
    found = align(network, Pair(pair.fixed, seen)).transform
    grid = pair.fixed.grid
    return Displacement((begin @ found).displacement(grid), grid)


def centres_aligned(fixed: Grid, moving: Grid) -> Affine:
    """The translation that takes the middle of the fixed grid to the middle of the moving grid."""
    matrix = torch.eye(fixed.ndim + 1, dtype=torch.float64)
    matrix[:-1, -1] = moving.centre - fixed.centre
    return Affine(matrix)


def round_trip(there: Transform, back: Transform, fixed: Image) -> dict[str, float]:
    """How far from home the fixed foreground lands after there and back, in mm: mean, 95 %, maximum.

    Points that leave the moving grid are not counted: nothing is known of the way back from there.
    """
    where = fixed.grid.to_world(fixed.grid.voxels(fixed.data)[None])
    inside = (fixed.data > fixed.data.min()).any(1).flatten()
    away = there.at(where)
    off = (back.at(away) - where).norm(dim=1).flatten()
    if isinstance(back, Displacement):
        at = back.grid.to_voxels(away).flatten(2)[0]
        last = torch.tensor(back.grid.shape).view(-1, 1) - 1
        inside = inside & ((at >= 0) & (at <= last)).all(0)
    errors = off[inside].double().sort().values
    if not len(errors):
        return {}
    picks = {"mean": errors.mean(), "95 %": errors[int(0.95 * (len(errors) - 1))], "max": errors[-1]}
    return {name: round(float(value), 4) for name, value in picks.items()}


def _inverse(transform: Displacement, begin: Affine, moving: Grid) -> Displacement:
    """Moving → fixed as one field on the moving grid."""
    found = Displacement((begin.inverse() @ transform).displacement(transform.grid), transform.grid)
    return Displacement((found.inverse() @ begin.inverse()).displacement(moving).float(), moving)


def _read(fixed, moving, fixed_labels, moving_labels) -> Pair:
    one, two = read_image(fixed), read_image(moving)
    if one.grid.ndim != two.grid.ndim:
        raise InputError(f"{fixed} is {one.grid.ndim}-D and {moving} is {two.grid.ndim}-D; both must be alike")
    return Pair(
        normalised(one),
        normalised(two),
        fixed_labels=None if fixed_labels is None else read_labels(fixed_labels, on=one.grid),
        moving_labels=None if moving_labels is None else read_labels(moving_labels, on=two.grid),
        name=f"{fixed} ← {moving}",
    )
