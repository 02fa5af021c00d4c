"""Atlases: the template of a folder of scans, or one for each of several ages, and everybody's map to it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import Register, Registered
from pullback.errors import Interrupted
from pullback.files import write_image, write_transforms
from pullback.methods.group.ages import age_weights, template_ages, usual_bandwidth
from pullback.methods.group.mean_shape import sharpness
from pullback.methods.group.template import TEMPLATE, Keep, Template, TemplateBuilder, Tensors
from pullback.methods.labels.consensus import weighted
from pullback.records.csv_records import write_csv
from pullback.records.ledger import Job, Ledger
from pullback.records.lock import locked
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.report.animation import write_animation
from pullback.solvers import Refine
from pullback.space import Image, Labels, Transform, pull
from pullback.training import asked_to_stop
from pullback.training.checkpoint import load_tensors, save_tensors
from pullback.workflows.atlas_film import frames_between
from pullback.workflows.outputs import RECORD, TRANSFORMS, names_in, refuse_without, transaction
from pullback.workflows.register import DRAWN_WITH, settings_of
from pullback.workflows.scans import FAR, ScanImages, Scans

WORK, TEMPLATES, PEOPLE, ROUNDS, FILM = "work", "templates.csv", "people.csv", "rounds.csv", "growth.png"
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


@dataclass(frozen=True, eq=False)
class PlannedTemplates:
    """The templates to make, by name: the age, and the weight of each scan.

    Attributes:
        names: of the templates, which begin their files.
        at: ages; NaN of a template of everybody.
        weights: `(templates, n)`, each 1 in sum.
        ages: of the scans, or None.
    """

    names: Sequence[str]
    at: Tensor
    weights: Tensor
    ages: Tensor | None = None

    def of(self, n: int) -> int:
        """Return the number of the template whose age is nearest to that of a scan."""
        return 0 if self.ages is None else int((self.at - self.ages[n]).abs().argmin())


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
    builder: TemplateBuilder,
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
        builder: makes a template.
        out: the folder.
        by: the ages; None makes one template of everybody.
        device: where to compute.
        about: more to keep in `run.json`.
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
    settings = {part: settings_of(value) for part, value in vars(builder).items()}
    there = replace(builder, linear=_on(builder.linear, device), deformable=_on(builder.deformable, device))
    forget_peak_memory(device)
    begin = time.perf_counter()
    with locked(out), asked_to_stop("atlas") as stopping:
        keep = kept(out / WORK, scans, [settings, plan.weights.tolist()], stopping, told)
        placed = there.placed(images, keep)
        made = [
            there.template(images, placed, weights, keep, name)
            for name, weights in zip(plan.names, plan.weights, strict=True)
        ]
        maps = {n: made[plan.of(n)].transform(n) for n in range(len(images))}
        seconds = time.perf_counter() - begin
        with transaction(out, scans.files, [TEMPLATES, PEOPLE, ROUNDS, RECORD]) as folder:
            rows = _people(scans, plan, made, maps)
            lost = [str(row["subject"]) for row in rows if float(str(row["correlation"])) < LOST]
            write_csv(rows, folder / PEOPLE)
            write_csv(_templates(plan, made), folder / TEMPLATES)
            write_csv(_rounds(plan, made), folder / ROUNDS)
            _write(images, scans, plan, made, maps, folder)
            if len(made) > 1:
                order = plan.at.argsort().tolist()
                told("growth")
                write_animation(frames_between([made[n].image for n in order], there.deformable), folder / FILM, 120)
            content: dict[str, Any] = manifest() | {
                "data": str(scans.root),
                "scans": len(scans.cases),
                "templates": list(plan.names),
                "notes": [*scans.notes, *_units(plan), *NOTES],
                "quality": {"passed": 2 * len(lost) <= len(rows), "lost": lost},
                "seconds": {"this call": round(seconds, 3)},
                "device": str(device),
                "peak memory MB": round(peak_memory_mb(device), 1),
                "settings": settings,
                **(about or {}),
            }
            content["files"] = [*names_in(folder), RECORD]
            write_json(content, folder / RECORD)
    return content


def _on(register: Register | Refine | None, device: torch.device) -> Register | Refine | None:
    """Return a register that computes on a device and answers on the processor."""
    here = torch.device("cpu")
    if register is None or device == here:
        return register

    def aligned(fixed: Image, moving: Image, start: Transform | None = None) -> Registered:
        found = register(fixed.to(device), moving.to(device), start=start and start.to(device))  # type: ignore[call-arg]
        return replace(found, pair=found.pair.to(here), transform=found.transform.to(here))  # type: ignore[type-var]

    return aligned


def kept(
    folder: Path, scans: Scans, about: object, stopping: Callable[[], object], told: Callable[[str], object]
) -> Keep:
    """Return what keeps the tensors of a piece of work in files, by a ledger; of a template those of its last round.

    All of it depends on all files of the scans, and on `about`.
    """
    ledger = Ledger(folder)
    all_of_them = Job("scans", scans.names, scans.files)
    ledger.once(all_of_them, lambda _: None)
    known = [about, ledger.key(all_of_them)[0]]

    def keep(stage: str, name: str, make: Callable[[], Tensors]) -> Tensors:
        called = scans.names[int(name)] if name.isdigit() else name
        path = Path(stage.replace(" ", "-")) / f"{called.replace('/', '-')}.safetensors"
        job = Job(f"{stage}: {called}", known, (), (path.as_posix(),))

        def work(_: Job) -> None:
            if stopping():
                raise Interrupted("stopped; the same command goes on from there")
            told(job.name)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            save_tensors(make(), folder / path, {})

        ledger.once(job, work)
        if name == TEMPLATE:
            _forget(folder, stage)
        return load_tensors(folder / path)[0]

    return keep


def _forget(folder: Path, stage: str) -> None:
    """Remove what was kept of people for the round before; its template stays."""
    of, _, number = stage.rpartition(" ")
    before = folder / f"{of} {int(number) - 1}".replace(" ", "-")
    for path in before.glob("*.safetensors"):
        if path.stem != TEMPLATE:
            path.unlink(missing_ok=True)


# ---- out


def _write(
    images: ScanImages,
    scans: Scans,
    plan: PlannedTemplates,
    made: Sequence[Template],
    maps: Mapping[int, Transform],
    folder: Path,
) -> None:
    """Write templates, their labels, and transforms."""
    for name, template in zip(plan.names, made, strict=True):
        for channel in range(template.image.data.shape[1]):
            end = "" if channel == 0 else f"_channel_{channel + 1}"
            data = template.image.data[:, channel : channel + 1]
            write_image(Image(data, template.image.grid), folder / f"{name}{end}.nii.gz")
        labels = voted_labels(images.labels, template)
        if labels is not None:
            write_image(labels, folder / f"{name}_labels.nii.gz")
    names = [name.replace("/", "-") for name in scans.names]
    write_transforms(folder / TRANSFORMS, (maps[n] for n in range(len(names))), names, on=made[0].image.grid)


def voted_labels(labels: Callable[[int], Labels | None], template: Template) -> Labels | None:
    """Return the label of most people at each voxel of a template, by their weights; None where nobody has labels."""
    known = [(n, labels(n)) for n in template.who]
    seen = [pull(each, template.transform(n), onto=template.image) for n, each in known if each is not None]
    if not seen:
        return None
    shares = torch.tensor([float(w) for (_, each), w in zip(known, template.weights, strict=True) if each is not None])
    return weighted(Labels(torch.cat([each.data for each in seen]), template.image.grid), shares).labels


def _people(
    scans: Scans, plan: PlannedTemplates, made: Sequence[Template], maps: Mapping[int, Transform]
) -> list[dict[str, object]]:
    """Return a row for each scan: its template, how large it is, how far it moves, and how alike it becomes."""
    images, rows = ScanImages(scans.cases), []
    for n, name in enumerate(scans.names):
        k = plan.of(n)
        template, grid = made[k].image, made[k].image.grid
        inside = template.data.mean(1, keepdim=True) > 0.1
        moved = pull(images[n], maps[n], onto=grid)
        both = torch.stack([moved.data[:, :1][inside], template.data[:, :1][inside]]).double()
        affine = maps[n].parts[0].as_affine
        size = 1.0 if affine is None else float(torch.linalg.det(affine.matrix[..., :-1, :-1]).abs())
        rest = maps[n] if affine is None else affine.inverse() @ maps[n]
        length = grid.to_mm(rest.displacement(grid).double()).norm(dim=1, keepdim=True)[inside]
        row: dict[str, object] = {"subject": name}
        if plan.ages is not None:
            row |= {"age": float(plan.ages[n])}
        weight = float(plan.weights[k, n])
        row |= {"template": plan.names[k], "weight": weight, "volume, as a share of the template's": round(size, 4)}
        rows.append(
            row | {"motion mm": round(float(length.mean()), 4), "correlation": float(torch.corrcoef(both)[0, 1])}
        )
    return rows


def _templates(plan: PlannedTemplates, made: Sequence[Template]) -> list[dict[str, object]]:
    """Return a row for each template."""
    rows = []
    for k, (name, template) in enumerate(zip(plan.names, made, strict=True)):
        row: dict[str, object] = {"template": name}
        if plan.ages is not None:
            mean = float((plan.weights[k] * plan.ages).sum())
            row |= {"age": float(plan.at[k]), "mean age of its scans": mean}
        voxel = float(torch.linalg.det(template.image.grid.affine[:-1, :-1]).abs())
        lit = template.image.data.mean(1) > 0.1
        row |= {
            "scans": len(template.who),
            "as of scans that weigh alike": float(1 / template.weights.square().sum()),
            "sharpness": sharpness(template.image),
            "lit volume mm³": voxel * int(lit.sum()),
        }
        rows.append(row)
    return rows


def _rounds(plan: PlannedTemplates, made: Sequence[Template]) -> list[dict[str, object]]:
    return [
        {"template": name, "round": number, **row}
        for name, template in zip(plan.names, made, strict=True)
        for number, row in enumerate(template.rounds, start=1)
    ]


def _units(plan: PlannedTemplates) -> Iterable[str]:
    """Say where ages look as if they had several units."""
    if plan.ages is not None:
        low, high = float(plan.ages.min()), float(plan.ages.max())
        if low > 0 and high / low > FAR:
            yield f"ages are {low:g} to {high:g}: are all in one unit?"


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `atlas_files` for a person."""
    lost = content["quality"]["lost"]
    lines = [f"{content['scans']} scans, {len(content['templates'])} templates: {', '.join(content['templates'])}"]
    lines += [f"note: {note}" for note in content["notes"][: -len(NOTES)]]
    lines.append(f"quality: {'sound' if content['quality']['passed'] else 'looks FAILED (exit code 3)'}")
    lines += [f"  do not look like their template: {', '.join(lost)}"] if lost else []
    return "\n".join([*lines, f"Look at {Path(out) / content['templates'][0]}.nii.gz and {Path(out) / PEOPLE}"])
