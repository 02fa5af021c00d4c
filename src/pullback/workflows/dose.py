"""Dose of several days on the plan's anatomy: volume histograms, with bands where transforms have an uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pullback.errors import InputError
from pullback.files import read_grid, read_labels, read_scalar, write_image
from pullback.metrics.dose import (
    DVH,
    Band,
    accumulated,
    band,
    dvh,
    refuse_no_dose,
    sampled_curves,
    structures_of,
    volume_shares,
)
from pullback.numerics.random import make_generator
from pullback.records.csv_records import write_csv
from pullback.records.manifest import manifest, write_json
from pullback.report.page import write_page
from pullback.report.uncertainty_figures import draw_histograms
from pullback.space import Affine, Grid, Image, Labels, around, cropped, pull_in_slabs
from pullback.workflows.day_transform import DayTransform
from pullback.workflows.outputs import RECORD, names_in, refuse_without, transaction

DOSE, CURVES, POINTS, PICTURE, PAGE = "dose.nii.gz", "dvh.csv", "structures.csv", "dvh.svg", "index.html"
ENOUGH = 20  # samples, below which percentiles of 5 and 95 % are the ends of what was drawn
POINTS_OF = (0.02, 0.5, 0.95, 0.98)  # v of the D_v that are tabled
NOTES = (
    "dose.nii.gz is the sum of all days by the registrations as they are, on the grid of the plan, in the unit of the "
    "doses.",
    "A band holds, at each volume, the 5th to 95th percentile of D_v over samples of all days' transforms; days are "
    "drawn independently. It is about D_v of the structure as it is drawn in the plan, and about warping alone.",
    "A band is as good as the deviation behind it: calibrated on landmarks of images like these, or no more than a "
    "drawing.",
)


@dataclass(frozen=True)
class DoseHow:
    """The way doses are accumulated.

    Attributes:
        samples: of all transforms together.
        seed: of the samples.
        margin: that widens bands on both sides, as a share of the greatest dose, when another dose is held against
            them; the paper's second number has 0.001.
        names: of structures, by their labels.

    Raises:
        InputError: fewer than two samples, or a margin below 0.
    """

    samples: int = 200
    seed: int = 0
    margin: float = 0.0
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples < 2 or self.margin < 0:
            raise InputError(
                f"dose: two samples or more and a margin of 0 or more expected, got {self.samples} and {self.margin:g}"
            )


def dose_files(
    plan: str | Path,
    doses: Sequence[str | Path],
    transforms: Sequence[str | Path],
    structures: str | Path,
    out: str | Path,
    how: DoseHow = DoseHow(),
    against: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Accumulate doses on the plan's anatomy, and write their sum and the histograms of structures into `out`.

    These are `dose.nii.gz`, `dvh.csv` with D_v and its band at each v, `structures.csv` with mean doses and D2, D50,
    D95, D98, a page with a figure, and `run.json`. Nothing is written before all has succeeded.

    Args:
        plan: an image whose grid all is accumulated on.
        doses: of each day, where it was given.
        transforms: plan → day, as many: files, folders of samples, or folders of `pullback uncertainty`.
        structures: label map of the plan, on any grid.
        out: the folder.
        how: the way.
        against: further doses on the plan's anatomy, such as other registrations give, that are held against the band.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read or that does not fit the others, what is no dose, or a folder that cannot
            be written.
    """
    grid = read_grid(plan)
    if len(doses) != len(transforms):
        raise InputError(f"--dose and --transform: as many of each expected, got {len(doses)} and {len(transforms)}")
    known = [_read_dose(path, grid.ndim) for path in doses]
    days = [DayTransform(Path(path), grid.ndim) for path in transforms]
    labels = _on(read_labels(structures, ndim=grid.ndim), grid, structures)
    inside = structures_of(labels, how.names)
    refuse_without(("matplotlib",))
    with transaction(
        Path(out), [plan, structures, *doses, *against, *(t for t in transforms if Path(t).is_file())]
    ) as folder:
        total = accumulated(known, [day.mean(grid) for day in days], onto=grid)
        shares = volume_shares()
        curves = {name: dvh(total, each) for name, each in inside.items()}
        count = min((day.count(how.samples) for day in days), default=how.samples)
        bands = _bands(known, days, labels, how, count, shares) if any(day.is_uncertain for day in days) else {}
        others = {Path(path).name: _curves(_read_dose(path, grid.ndim), grid, inside) for path in against}
        margin = how.margin * float(total.data.max())
        held = _held(others, bands, shares, margin)
        rows = _points(curves, bands, shares)
        content: dict[str, Any] = manifest() | {
            "plan": str(plan),
            "doses": [str(path) for path in doses],
            "transforms": [str(path) for path in transforms],
            "structures": rows,
            "samples": count if bands else 0,
            "nominal coverage %": round(100 * next(iter(bands.values())).nominal, 1) if bands else None,
            "in the band %": held,
            "notes": [*_doubts(days, count, how, curves), *NOTES],
            "settings": {"samples": how.samples, "seed": how.seed, "margin": how.margin},
        }
        write_image(total, folder / DOSE, plan)
        write_csv(_table(curves, bands, shares), folder / CURVES)
        write_csv(rows, folder / POINTS)
        _write_page(curves, bands, others, shares, content, folder)
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def _read_dose(path: str | Path, ndim: int) -> Image:
    dose = read_scalar(path, ndim)
    if dose.grid.ndim != ndim:
        raise InputError(f"{path}: is {dose.grid.ndim}-D, and the plan is {ndim}-D")
    refuse_no_dose(dose, str(path))
    return dose


def _on(labels: Labels, grid: Grid, path: str | Path) -> Labels:
    """Return labels on the plan's grid.

    Raises:
        InputError: other dimensions, or nothing of them lies there.
    """
    if labels.grid.ndim != grid.ndim:
        raise InputError(f"{path}: is {labels.grid.ndim}-D, and the plan is {grid.ndim}-D")
    laid = labels if labels.grid == grid else pull_in_slabs(labels, Affine.identity(grid.ndim), onto=grid)
    if not bool(laid.data.any()):
        raise InputError(f"{path}: none of its labels lies within the plan")
    return laid


def _bands(
    doses: Sequence[Image], days: Sequence[DayTransform], labels: Labels, how: DoseHow, count: int, shares: Tensor
) -> dict[str, Band]:
    """Return the band of each structure; only the box that holds all of them is pulled."""
    box = cropped(labels, around(labels.data > 0, labels.grid))
    inside = structures_of(box, how.names)
    drawn = [day.draws(count, make_generator(how.seed, n)) for n, day in enumerate(days)]
    maps = (accumulated(doses, each, onto=box.grid) for each in zip(*drawn, strict=True))
    curves = sampled_curves(maps, inside, shares)
    return {name: band(each, shares) for name, each in curves.items()}


def _curves(dose: Image, grid: Grid, inside: Mapping[str, Tensor]) -> dict[str, DVH]:
    laid = dose if dose.grid == grid else pull_in_slabs(dose, Affine.identity(grid.ndim), onto=grid, outside=0.0)
    return {name: dvh(laid, each) for name, each in inside.items()}


def _held(
    others: Mapping[str, Mapping[str, DVH]], bands: Mapping[str, Band], shares: Tensor, margin: float
) -> dict[str, dict[str, float]]:
    """Return the share of volumes, in %, at which each other dose lies in the band, by structure."""
    return {
        other: {name: 100 * each.holds(known[name].at_volume(shares), margin) for name, each in bands.items()}
        for other, known in others.items()
        if bands
    }


def _points(curves: Mapping[str, DVH], bands: Mapping[str, Band], shares: Tensor) -> list[dict[str, object]]:
    """Return a row of each structure: volume, mean dose, and D_v with its band."""
    rows: list[dict[str, object]] = []
    for name, known in curves.items():
        row: dict[str, object] = {"structure": name, "volume cm³": known.volume / 1000, "mean": known.mean}
        for share in POINTS_OF:
            label = f"D{100 * share:g}"
            row[label] = float(known.at_volume(share))
            if name in bands:
                at = round(share * (len(shares) - 1))
                row[f"{label} low"], row[f"{label} high"] = float(bands[name].low[at]), float(bands[name].high[at])
        rows.append(row)
    return rows


def _table(curves: Mapping[str, DVH], bands: Mapping[str, Band], shares: Tensor) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, known in curves.items():
        for n, (share, dose) in enumerate(zip(shares.tolist(), known.at_volume(shares).tolist(), strict=True)):
            row: dict[str, object] = {"structure": name, "volume %": round(100 * share, 4), "dose": dose}
            if name in bands:
                row |= {"low": float(bands[name].low[n]), "high": float(bands[name].high[n])}
            rows.append(row)
    return rows


def _doubts(days: Sequence[DayTransform], count: int, how: DoseHow, curves: Mapping[str, DVH]) -> list[str]:
    certain = [str(day.path) for day in days if not day.is_uncertain]
    doubts = []
    if len(certain) == len(days):
        doubts.append("no transform has an uncertainty, so there are no bands: `pullback uncertainty` makes them")
    elif certain:
        doubts.append(f"{', '.join(certain)}: taken as certain; bands are narrower than they should be")
    if count < how.samples and len(certain) < len(days):
        doubts.append(f"{count} samples, fewer than the {how.samples} that were asked for: a folder has no more")
    if count < ENOUGH and len(certain) < len(days):
        doubts.append(f"{count} samples: the ends of a band of 90 % are the least and the greatest of them, or near it")
    empty = [name for name, known in curves.items() if float(known.doses[0]) == 0]
    if empty:
        doubts.append(f"{', '.join(empty)}: gets no dose at all; do dose and structures lie in one place?")
    return doubts


def _write_page(
    curves: Mapping[str, DVH],
    bands: Mapping[str, Band],
    others: Mapping[str, Mapping[str, DVH]],
    shares: Tensor,
    content: Mapping[str, Any],
    folder: Path,
) -> None:
    def sampled(known: Mapping[str, DVH]) -> dict[str, np.ndarray]:
        return {name: each.at_volume(shares).numpy() for name, each in known.items()}

    drawn = {name: bands.get(name) for name in curves}
    compared = {name: sampled(known) for name, known in others.items()}
    draw_histograms(drawn, sampled(curves), shares.numpy(), compared, folder / PICTURE)
    nominal = content["nominal coverage %"]
    said = f"; bands of {content['samples']} samples, nominally {nominal:g} %" if bands else ""
    caption = f"Dose–volume histograms of {len(content['doses'])} doses on the plan{said}."
    rows = [{name: _cell(value) for name, value in row.items()} for row in content["structures"]]
    tables = [{"title": "Structures", "rows": rows}]
    if content["in the band %"]:
        held = [
            {"dose": name, **{k: f"{v:.1f}" for k, v in each.items()}}
            for name, each in content["in the band %"].items()
        ]
        tables.append({"title": "Share of volumes at which another dose lies in the band, %", "rows": held})
    figures = [{"source": PICTURE, "caption": caption}]
    title = f"Dose on {Path(content['plan']).name}"
    write_page(folder / PAGE, "measured", title=title, notes=content["notes"], figures=figures, tables=tables)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `dose_files` for a person."""
    lines = []
    for row in content["structures"]:
        within = f" ({row['D95 low']:.3g} … {row['D95 high']:.3g})" if "D95 low" in row else ""
        lines.append(f"{row['structure']}: mean {row['mean']:.3g}, D95 {row['D95']:.3g}{within}, D2 {row['D2']:.3g}")
    if content["samples"]:
        lines.append(f"bands of {content['samples']} samples, nominally {content['nominal coverage %']:g} %")
    for other, each in content["in the band %"].items():
        lines.append(f"{other} in the band: " + ", ".join(f"{name} {share:.0f} %" for name, share in each.items()))
    lines += [f"careful: {doubt}" for doubt in content["notes"][: -len(NOTES)]]
    return "\n".join([*lines, f"Look at {Path(out) / PAGE}"])
