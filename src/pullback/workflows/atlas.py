"""Atlases: the template of a folder of scans, or one for each of several ages, and everybody's map to it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pullback.methods.group.ages import age_weights, template_ages, usual_bandwidth
from pullback.records.csv_records import write_csv
from pullback.records.lock import locked
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.report.animation import write_animation
from pullback.training import asked_to_stop
from pullback.workflows.atlas_film import frames_between
from pullback.workflows.atlas_making import Making, kept
from pullback.workflows.atlas_outputs import (
    PEOPLE,
    ROUNDS,
    TEMPLATES,
    PlannedTemplates,
    people_rows,
    round_rows,
    template_rows,
    unit_notes,
    write_maps,
)
from pullback.workflows.outputs import RECORD, names_in, refuse_without, transaction
from pullback.workflows.register import DRAWN_WITH
from pullback.workflows.scans import ScanImages, Scans

WORK, FILM = "work", "growth.png"
LOST = 0.5
"""Correlation with the template, below which a scan is called lost."""
NOTES = (
    "transforms/NAME.h5 takes points of the template to the scan NAME: `pullback apply -i NAME -t transforms/NAME.h5 "
    "-r template` brings the scan onto the template.",
    "The mean of the maps of all who make a template is the identity: mean rotation, mean place and mean stretch of "
    "the linear maps, and the mean displacement of the fields.",
)


@dataclass(frozen=True)
class ByAge:
    """Ages that templates are made at, by a number that a table says of each scan.

    Attributes:
        column: of the tables.
        at: ages; none for `count` evenly spaced ones.
        count: of templates.
        bandwidth: deviation of the Gaussian weight by age; None for half the distance between templates.
    """

    column: str = "age"
    at: Sequence[float] = ()
    count: int = 5
    bandwidth: float | None = None


def planned(scans: Scans, by: ByAge | None) -> PlannedTemplates:
    """Return the templates to make of scans.

    Raises:
        InputError: ages are not known, or too few scans are near one.
    """
    if by is None:
        count = len(scans.cases)
        return PlannedTemplates(
            ["template"], torch.tensor([torch.nan]), torch.full((1, count), 1 / count, dtype=torch.float64)
        )
    ages = scans.ages(by.column)
    at = list(by.at) or template_ages(ages, by.count)
    width = usual_bandwidth(ages, at) if by.bandwidth is None else by.bandwidth
    weights = torch.stack([age_weights(ages, age, width) for age in at])
    return PlannedTemplates(
        [f"template_{by.column}_{age:g}" for age in at], torch.tensor(at, dtype=torch.float64), weights, ages
    )


def atlas_files(
    scans: Scans,
    making: Making,
    out: str | Path,
    by: ByAge | None = None,
    device: torch.device = torch.device("cpu"),
    about: Mapping[str, Any] | None = None,
    told: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Make the templates of scans, and write the results into `out`.

    These are `template.nii.gz`, or one for each age; their labels, where scans have some; `transforms/`, template →
    each scan; `templates.csv`, `people.csv` and `rounds.csv`; of several ages an animation, `growth.png`; and
    `run.json`. What was done lies in `work/`, by which the same call goes on after it was stopped.

    Args:
        scans: the people.
        making: makes the templates.
        out: the folder.
        by: the ages; None makes one template of everybody.
        device: where it computes.
        about: more that the result depends on, to keep in `run.json`.
        told: is told what is being done.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: as of `planned`, scans that cannot be read, or a folder that cannot be written.
        Interrupted: it was asked to stop; the same call goes on.
    """
    refuse_without(DRAWN_WITH)
    plan, out = planned(scans, by), Path(out)
    images = ScanImages(scans.cases)
    forget_peak_memory(device)
    begin = time.perf_counter()
    with locked(out), asked_to_stop("atlas") as stopping:
        keep = kept(out / WORK, scans, [making.settings, dict(about or {}), plan.weights.tolist()], stopping, told)
        made = making(images, plan, keep)
        maps = {n: made[plan.of(n)].transform(n) for n in range(len(images))}
        seconds = time.perf_counter() - begin
        with transaction(out, scans.files, [TEMPLATES, PEOPLE, ROUNDS, RECORD]) as folder:
            rows = people_rows(scans, plan, made, maps)
            lost = [str(row["subject"]) for row in rows if float(str(row["correlation"])) < LOST]
            write_csv(rows, folder / PEOPLE)
            write_csv(template_rows(plan, made), folder / TEMPLATES)
            write_csv(round_rows(plan, made), folder / ROUNDS)
            write_maps(images, scans, plan, made, maps, folder)
            if len(made) > 1:
                order = plan.at.argsort().tolist()
                told("growth")
                write_animation(frames_between([made[n].image for n in order], making.between), folder / FILM, 120)
            content: dict[str, Any] = manifest() | {
                "data": str(scans.root),
                "scans": len(scans.cases),
                "templates": list(plan.names),
                "notes": [*scans.notes, *unit_notes(plan), *NOTES],
                "quality": {"passed": 2 * len(lost) <= len(rows), "lost": lost},
                "seconds": {"this call": round(seconds, 3)},
                "device": str(device),
                "peak memory MB": round(peak_memory_mb(device), 1),
                "settings": making.settings,
                **(about or {}),
            }
            content["files"] = [*names_in(folder), RECORD]
            write_json(content, folder / RECORD)
    return content


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `atlas_files` for a person."""
    lost = content["quality"]["lost"]
    lines = [f"{content['scans']} scans, {len(content['templates'])} templates: {', '.join(content['templates'])}"]
    lines += [f"note: {note}" for note in content["notes"][: -len(NOTES)]]
    lines.append(f"quality: {'sound' if content['quality']['passed'] else 'looks FAILED (exit code 3)'}")
    lines += [f"  do not look like their template: {', '.join(lost)}"] if lost else []
    return "\n".join([*lines, f"Look at {Path(out) / content['templates'][0]}.nii.gz and {Path(out) / PEOPLE}"])
