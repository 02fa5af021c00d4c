"""Files of an atlas: templates, their labels, maps and tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pullback.files import write_image, write_transforms
from pullback.methods.group.mean_shape import sharpness
from pullback.methods.group.template import Template
from pullback.methods.labels.consensus import weighted
from pullback.space import Image, Labels, Transform, pull
from pullback.workflows.outputs import TRANSFORMS
from pullback.workflows.scans import FAR, ScanImages, Scans

TEMPLATES, PEOPLE, ROUNDS = "templates.csv", "people.csv", "rounds.csv"


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


def write_maps(
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


def people_rows(
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


def template_rows(plan: PlannedTemplates, made: Sequence[Template]) -> list[dict[str, object]]:
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


def round_rows(plan: PlannedTemplates, made: Sequence[Template]) -> list[dict[str, object]]:
    return [
        {"template": name, "round": number, **row}
        for name, template in zip(plan.names, made, strict=True)
        for number, row in enumerate(template.rounds, start=1)
    ]


def unit_notes(plan: PlannedTemplates) -> Iterator[str]:
    """Say where ages look as if they had several units."""
    if plan.ages is not None:
        low, high = float(plan.ages.min()), float(plan.ages.max())
        if low > 0 and high / low > FAR:
            yield f"ages are {low:g} to {high:g}: are all in one unit?"
