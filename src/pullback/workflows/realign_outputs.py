"""Accounts of a realignment: its table of motion, what became of the frames, its page, and a summary."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pullback.methods.pose.rician_motion import Corrected
from pullback.metrics.motion import framewise_displacement, motion_numbers
from pullback.report.traces import write_traces
from pullback.solvers.realigned import Realigned
from pullback.space import Image

CORRECTED, MEAN, MOTION, PAGE = "corrected.nii.gz", "mean.nii.gz", "motion.csv", "motion.html"
BEFORE, AFTER = "before", "after"
BRIGHT = 0.5
"""Share of the mean intensity, above which a voxel counts."""


class Tally:
    """Sums over the frames of a series before and after, which pass by one at a time."""

    def __init__(self, like: Image) -> None:
        self.like, self.count = like, 0
        zeros = torch.zeros_like(like.data, dtype=torch.float64)
        self.totals = {when: zeros.clone() for when in (BEFORE, AFTER)}
        self.squares = {when: zeros.clone() for when in (BEFORE, AFTER)}

    def add(self, before: Image, after: Image) -> None:
        """Count a frame."""
        self.count += 1
        for when, frame in ((BEFORE, before), (AFTER, after)):
            values = frame.data.double()
            self.totals[when] += values
            self.squares[when] += values.square()

    def mean(self, when: str) -> Image:
        """Return the mean of the frames so far."""
        return replace(self.like, data=(self.totals[when] / self.count).to(self.like.data))

    def deviation(self, when: str) -> float:
        """Return the root of the mean variance over frames, in units of their mean, where that was bright before."""
        bright = self.totals[BEFORE] > BRIGHT * self.totals[BEFORE].mean()
        mean = self.totals[when] / self.count
        variance = (self.squares[when] / self.count - mean.square()).clamp(min=0)
        return round(float(variance[bright].mean().sqrt() / mean[bright].mean().abs()), 6)


def rows_of(found: Realigned, known: Corrected | None) -> list[dict[str, object]]:
    """Return the table of motion, a row for each frame; what the first has not is empty."""
    matrix, centre = found.motion.matrix, found.motion.centre
    columns = motion_numbers(matrix, centre) | {"framewise_displacement": framewise_displacement(matrix, centre)}
    if known is not None:
        columns["log_likelihood"] = -known.surprise
    rows: list[dict[str, object]] = []
    for n in range(len(matrix)):
        row: dict[str, object] = {name: round(float(values[n]), 6) for name, values in columns.items()}
        rows.append({name: "" if value != value else value for name, value in row.items()})  # noqa: PLR0124 (NaN)
    return rows


def motion_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean framewise displacement, the largest, and the largest shift and turn."""
    steps = [row["framewise_displacement"] for row in rows[1:]]
    shifts = [sum(row[name] ** 2 for name in row if name.startswith("trans_")) ** 0.5 for row in rows]
    turns = [sum(row[name] ** 2 for name in row if name.startswith("rot_")) ** 0.5 for row in rows]
    return {
        "mean framewise displacement mm": round(float(np.mean(steps)), 4),
        "largest framewise displacement mm": round(max(steps), 4),
        "largest shift mm": round(max(shifts), 4),
        "largest turn °": round(float(np.degrees(max(turns))), 4),
    }


def model_of(known: Corrected | None) -> dict[str, Any]:
    """Return what is known by a model of tissues; nothing without one."""
    if known is None:
        return {}
    return {
        "intensities": [round(value, 6) for value in known.intensities.tolist()],
        "sigma": round(known.sigma, 6),
        "careful": list(known.doubts),
    }


def write_motion_page(
    path: Path, given: str | Path, content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], tally: Tally
) -> None:
    """Write the page with the traces of a realignment."""
    numbers = {name: np.array([np.nan if row[name] == "" else row[name] for row in rows]) for name in rows[0]}
    told = {
        **content["motion"],
        **{f"deviation over frames, {k}": v for k, v in content["deviation over frames"].items()},
    }
    if "sigma" in content:
        told["σ of the noise"] = content["sigma"]
    table = [{"": name, "value": f"{value:.4g}"} for name, value in told.items()]
    means = {when: tally.mean(when) for when in (BEFORE, AFTER)}
    write_traces(path, f"{Path(given).name}: {content['frames']} frames", numbers, means, table, content["direction"])


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `realign_files` for a person."""
    motion, spread = content["motion"], content["deviation over frames"]
    lines = [f"careful: {doubt}" for doubt in content.get("careful", ())]
    lines.append(f"{content['frames']} frames in {content['seconds']['all']:.3g} s")
    lines.append(
        f"framewise displacement: mean {motion['mean framewise displacement mm']:.3g} mm, largest "
        f"{motion['largest framewise displacement mm']:.3g} mm"
    )
    lines.append(f"largest shift {motion['largest shift mm']:.3g} mm, largest turn {motion['largest turn °']:.3g}°")
    lines.append(f"deviation over frames: {spread['before']:.4g} → {spread['after']:.4g} of the mean intensity")
    if "sigma" in content:
        intensities = ", ".join(f"{value:.4g}" for value in content["intensities"])
        lines.append(f"σ of the noise {content['sigma']:.4g}; intensities of the tissues {intensities}")
    if not content["quality"]["passed"]:
        lines.append("quality: looks FAILED (exit code 3): the frames agree less than before")
    return "\n".join([*lines, f"Look at {Path(out) / PAGE}"])
