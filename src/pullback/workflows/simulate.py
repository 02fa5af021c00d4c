"""Simulation of a transform with a known volume change, and where wanted a known rotation, from images of these."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files import read_scalar, write_image, write_transform
from pullback.files.images.nifti import refuse_sheared
from pullback.methods.pair.determinant_and_curl import Prescription, curl_about_axes, doubts, possible, reached
from pullback.numerics.difference import determinant, jacobian
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.space import Displacement, Image, inverted
from pullback.workflows.outputs import RECORD, names_in, transaction

CPU = torch.device("cpu")
FAR = 0.02
"""Error of the determinant, at 95 % of the voxels, above which the map is not what was asked for."""
NOTES = (
    "fixed_to_moving.h5 takes points of the image as it is to where they lie after the change; what the determinant at "
    "a voxel says is the volume of that voxel after it.",
    "moving_to_fixed.h5 is its inverse. The changed image is the image pulled through it: "
    "pullback apply -i IMAGE -r IMAGE -t moving_to_fixed.h5 -o CHANGED.",
    "jacobian.nii.gz is the determinant that was reached.",
)


def simulate_files(
    jacobian_file: str | Path, out: str | Path, curl: Sequence[str | Path] = (), evaluations: int = 300
) -> dict[str, Any]:
    """Make a transform with a given determinant, and where it is given a curl, and write it into `out`.

    The files are `fixed_to_moving.h5`, `moving_to_fixed.h5`, `jacobian.nii.gz` and `run.json`. Nothing is written
    before all has succeeded; files of an earlier run that this one does not make are removed.

    Args:
        jacobian_file: of det ∇φ, above 0.
        out: the folder.
        curl: files of the components of ∇×φ in the world, on the same grid: one in 2-D, R, A and S in 3-D.
        evaluations: of the objective and its gradient, at most.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read or that does not fit the others, what no map can have, or a folder that
            cannot be written.
    """
    wanted = _wanted(jacobian_file, curl)
    with transaction(Path(out), [jacobian_file, *curl]) as folder:
        forget_peak_memory(CPU)
        begin = time.perf_counter()
        transform = reached(wanted, evaluations)
        seconds = time.perf_counter() - begin
        inverse = Displacement(inverted(transform).displacement(wanted.grid), wanted.grid)
        made = determinant(jacobian(transform.field))
        write_transform(transform, folder / "fixed_to_moving.h5")
        write_transform(inverse, folder / "moving_to_fixed.h5")
        write_image(Image(made.float(), wanted.grid), folder / "jacobian.nii.gz", jacobian_file)
        home = (transform @ inverse).displacement(wanted.grid).norm(dim=1)
        content: dict[str, Any] = manifest() | {
            "jacobian": str(jacobian_file),
            "curl": [str(path) for path in curl],
            "direction": list(NOTES),
            "wanted": _about(wanted),
            "found": {"least determinant": float(made.min()), "greatest determinant": float(made.max())},
            "errors": _errors(wanted, transform, made),
            "round trip voxels": _spread(home),
            "careful": doubts(wanted),
            "seconds": {"descent": round(seconds, 3)},
            "peak memory MB": round(peak_memory_mb(CPU), 1),
            "settings": {"evaluations": evaluations},
            "files": [*names_in(folder), RECORD],
        }
        write_json(content, folder / RECORD)
    return content


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `simulate_files` for a person."""
    wanted, found, trip = content["wanted"], content["found"], content["round trip voxels"]
    lines = [f"careful: {doubt}" for doubt in content["careful"]]
    lines.append(f"determinant wanted: {wanted['least determinant']:.4g} … {wanted['greatest determinant']:.4g}")
    lines.append(f"determinant reached: {found['least determinant']:.4g} … {found['greatest determinant']:.4g}")
    for what, error in content["errors"].items():
        lines.append(f"error of the {what}: mean {error['mean']:.3g}, 95 % {error['95 %']:.3g}, max {error['max']:.3g}")
    if content["errors"]["determinant"]["95 %"] > FAR:
        lines.append(f"careful: not what was asked for: the determinant is off by more than {FAR:g} in many voxels")
    lines.append(f"there and back: off by {trip['95 %']:.3g} voxels at 95 % of all")
    lines.append("points of the image go where they lie after the change by fixed_to_moving.h5;")
    lines.append("the changed image is the image pulled through moving_to_fixed.h5")
    return "\n".join([*lines, f"Look at {Path(out) / 'jacobian.nii.gz'}"])


def _wanted(jacobian_file: str | Path, curl: Sequence[str | Path]) -> Prescription:
    image = read_scalar(jacobian_file)
    grid = image.grid
    refuse_sheared(grid, jacobian_file)
    components = [read_scalar(path, grid.ndim if grid.ndim == 3 else None) for path in curl]
    for path, one in zip(curl, components, strict=True):
        if one.grid != grid:
            raise InputError(f"{path}: lies on {one.grid}, and {jacobian_file} on {grid}; both must be on one grid")
    about = torch.cat([one.data for one in components], 1) if components else None
    try:
        return possible(image.data, grid, about)
    except InputError as error:
        raise InputError(f"{', '.join(map(str, (jacobian_file, *curl)))}: {error}") from error


def _about(wanted: Prescription) -> dict[str, float]:
    """Return what the determinant is to be, and what was changed to make a map possible."""
    return {
        "least determinant": float(wanted.determinant.min()),
        "greatest determinant": float(wanted.determinant.max()),
        "mean as given": 1 / wanted.factor,
        "multiplied by": wanted.factor,
        "mean curl taken off": wanted.turn,
        "share of the curl that is a gradient": wanted.divergence,
    }


def _errors(wanted: Prescription, transform: Displacement, made: Tensor) -> dict[str, dict[str, float]]:
    off = {"determinant": (made - wanted.determinant).abs()}
    if wanted.curl is not None:
        about = curl_about_axes(transform.field, wanted.grid.spacing.tolist())
        off["curl"] = (about - wanted.curl).norm(dim=1)
    return {what: _spread(values) for what, values in off.items()}


def _spread(values: Tensor) -> dict[str, float]:
    """Return the mean, 95 % and maximum over all voxels."""
    ordered = values.flatten().double().sort().values
    picks = {"mean": ordered.mean(), "95 %": ordered[int(0.95 * (len(ordered) - 1))], "max": ordered[-1]}
    return {name: round(float(value), 6) for name, value in picks.items()}
