"""Types of a population, asked before it is registered to one template; and what registration removes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.files import write_image
from pullback.methods.group.distances import hellinger, structural
from pullback.methods.group.kinship import heritability, kinships
from pullback.methods.group.onto_template import OntoTemplate, Shown
from pullback.methods.group.structural_types import Typed, Types
from pullback.methods.group.type_maps import variability
from pullback.numerics.mixture import adjusted_rand
from pullback.numerics.random import make_generator
from pullback.records.csv_records import write_csv
from pullback.records.manifest import manifest, write_json
from pullback.space import Image
from pullback.study.regression import explanations
from pullback.workflows.gathered import Asked, Gathered, ShownCases, gather
from pullback.workflows.outputs import RECORD, names_in, refuse_without, transaction
from pullback.workflows.registered_types import SAME, registered_stages
from pullback.workflows.types_figure import draw_types, write_types

TYPES, EXPLAINED, KIN, REGISTERED, PICTURE = "types.csv", "explained.csv", "kin.csv", "registered.csv", "types.png"
STRUCTURE, CONNECTION = "structure", "connection"
REGIONS, VOLUME = "regions", "volume mm³"
SITES = ("site", "scanner", "rater", "center", "centre")
FAMILY, TWIN = "family", "twin"
NOTES = (
    "Scores are relative to these people: with others beside them, they move.",
    "The bootstrap asks whether there is more than one type, not how many; tests on the types that the same people "
    "gave overstate.",
)


@dataclass(frozen=True)
class SubtypesHow:
    """The way types are sought.

    Attributes:
        types: the search.
        onto: registers everybody, to see what that removes; None does not.
    """

    types: Types = Types()
    onto: OntoTemplate | None = None


def subtypes_files(
    asked: Asked,
    how: SubtypesHow,
    out: str | Path,
    about: Mapping[str, Any] | None = None,
    shown: ShownCases = iter,
    registering: Shown = iter,
) -> dict[str, Any]:
    """Ask whether people are of one type or of several, and write the answer into `out`.

    These are `types.csv` (type, probability and scores of each), `types.png`, `run.json` with the verdict,
    `explained.csv` where something is known of the people, `kin.csv` where their families are, `registered.csv` of what
    registration removes, and of labels on a grid `variability_1.nii.gz`, … of each type. Nothing is written before all
    has succeeded.

    Args:
        asked: the inputs.
        how: the way types are sought.
        out: the folder.
        about: more to keep in `run.json`.
        shown, registering: show progress.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: as of `gather`, too few people, or a folder that cannot be written.
    """
    refuse_without(("matplotlib",))
    people = gather(asked, shown)
    if how.onto is not None and not people.images:
        raise InputError("--registered: images are registered, and there are label maps alone; leave --labels out")
    distances = _distances(people, asked)
    regions = torch.tensor([_regions(each if people.within is None else each[people.within]) for each in people.labels])
    found = how.types(*distances.values(), regions=regions)
    with transaction(Path(out), [asked.data, *([asked.people] if asked.people else [])]) as folder:
        content: dict[str, Any] = manifest() | {"data": str(asked.data), "people": len(people.names)}
        content |= _verdict(found, people, [*distances], how.types, [*distances.values()], regions)
        write_csv(_rows(found, people, [*distances], regions), folder / TYPES)
        scores = {kind: each.coordinates for kind, each in zip(distances, found.embeddings, strict=True)}
        content |= _explained(found, people, scores, regions, folder)
        relatives = _relatives(scores, people)
        if relatives:
            write_csv(relatives, folder / KIN)
        if how.onto is not None:
            before = distances[STRUCTURE]
            content["registered"] = registered_stages(
                people, how.onto, how.types, found, before, asked.background, registering
            )
            write_csv(content["registered"], folder / REGISTERED)
        maps = [variability(people.labels, found.types, k) for k in range(len(found.sizes))] if people.maps else []
        for k, values in enumerate(maps):
            image = Image(values.float()[None, None], people.maps[0].grid)
            write_image(image, folder / f"variability_{k + 1}.nii.gz")
        write_types(draw_types(found, [*distances], maps), folder / PICTURE)
        content |= {"settings": {"types": vars(how.types)}, **(about or {}), "notes": [*people.notes, *NOTES]}
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def _regions(labels: Tensor) -> int:
    return len(labels[labels > 0].unique())


def _distances(people: Gathered, asked: Asked) -> dict[str, Tensor]:
    found = {STRUCTURE: structural(people.labels, people.within, asked.background)}
    if people.matrices:
        found[CONNECTION] = hellinger(people.matrices, people.regions, asked.rows or None)
    return found


def _verdict(
    found: Typed,
    people: Gathered,
    kinds: Sequence[str],
    types: Types,
    distances: Sequence[Tensor],
    regions: Tensor,
) -> dict[str, Any]:
    """Return what was found, in words and numbers."""
    again = {}
    twice = 2 * max(each.neighbours for each in found.embeddings)
    if found.count is not None and twice < len(people.names):
        other = replace(types, neighbours=twice)(*distances, regions=regions)
        again = {"neighbours": twice, "types": other.count, "rand": round(adjusted_rand(found.types, other.types), 4)}
    one, other_one = torch.nonzero(torch.triu(distances[0] < SAME, 1), as_tuple=True)
    copies = [f"{people.names[i]} = {people.names[j]}" for i, j in zip(one.tolist(), other_one.tolist(), strict=True)]
    return {
        "verdict": found.in_words,
        "types": found.count,
        "by BIC": found.by_bic,
        "by silhouette": found.by_silhouette,
        "p of one type": found.p,
        "sizes": list(found.sizes),
        "template": people.names[found.typical()],
        "templates": [people.names[found.typical(k)] for k in range(len(found.sizes))],
        "BIC": found.bic,
        "silhouette": found.silhouette,
        "kinds": {
            kind: {
                "explained": [round(float(share), 4) for share in each.explained],
                "correlation dimension": dimension and round(dimension, 2),
                "neighbours": each.neighbours,
                "apart at five neighbours": [people.names[n] for n in each.apart],
                "mean distance": round(float(matrix.sum() / (len(matrix) * (len(matrix) - 1))), 4),
            }
            for kind, each, dimension, matrix in zip(kinds, found.embeddings, found.dimension, distances, strict=True)
        },
        "with twice as many neighbours": again,
        "copies": copies,
    }


def _rows(found: Typed, people: Gathered, kinds: Sequence[str], regions: Tensor) -> list[dict[str, object]]:
    """Return a row for each person."""
    rows: list[dict[str, object]] = []
    for n, name in enumerate(people.names):
        k = int(found.types[n])
        row: dict[str, object] = {"subject": name, "type": k + 1, "probability": float(found.membership[n, k])}
        for kind, each in zip(kinds, found.embeddings, strict=True):
            row |= {f"{kind} {d + 1}": float(value) for d, value in enumerate(each.coordinates[n])}
        rows.append(row | {REGIONS: int(regions[n])})
    return rows


def _explained(
    found: Typed, people: Gathered, scores: Mapping[str, Tensor], regions: Tensor, folder: Path
) -> dict[str, Any]:
    """Write what explains the scores, where anything is known that could; return the shares of the whole."""
    shares = {kind: each.explained.tolist() for kind, each in zip(scores, found.embeddings, strict=True)}
    names = list(dict.fromkeys(key for row in people.about for key in row if key not in (FAMILY, TWIN)))
    variables: dict[str, list[float | str | None]] = {REGIONS: [float(count) for count in regions]}
    if people.maps:
        voxel = float(torch.linalg.det(people.maps[0].grid.affine[:-1, :-1]).abs())
        variables[VOLUME] = [voxel * int((each > 0).sum()) for each in people.labels]
    variables |= {name: [row.get(name) for row in people.about] for name in names}
    rows = explanations({kind: np.asarray(values) for kind, values in scores.items()}, shares, variables)
    content: dict[str, Any] = {}
    if rows:
        write_csv(rows, folder / EXPLAINED)
        whole = {
            f"{row['kind']} by {row['variable']}": round(float(str(row["whole"])), 4) for row in rows if "whole" in row
        }
        content["explained of the whole"] = whole
        sites = {name: share for name, share in whole.items() if name.rsplit(" ", 1)[-1].lower() in SITES}
        content |= {"explained by where it was made": sites} if sites else {}
    return content


def _relatives(scores: Mapping[str, Tensor], people: Gathered) -> list[dict[str, object]]:
    """Return a row for each kind, kinship and dimension; none where no families are known."""
    rows: list[dict[str, object]] = []
    if any(FAMILY in row for row in people.about):
        families, twins = ([str(row.get(name, "")) for row in people.about] for name in (FAMILY, TWIN))
        pairs = kinships(families, twins)
        for kind, values in scores.items():
            for name, each in heritability(values, pairs, make_generator(0)).items():
                p = each.p or (None,) * len(each.difference)
                rows += [
                    {"kind": kind, "dimension": d + 1, "pairs of": name, "pairs": each.pairs, "difference": difference}
                    | ({} if p[d] is None else {"p": p[d]})
                    for d, difference in enumerate(each.difference)
                ]
    return rows


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `subtypes_files` for a person."""
    lines = [content["verdict"]]
    if content["types"] is not None and content["types"] > 1:
        named = ", ".join(f"{n + 1}: {name}" for n, name in enumerate(content["templates"]))
        lines.append(f"Templates by type: {named}")
    else:
        lines.append(f"Template: {content['template']}")
    for kind, each in content["kinds"].items():
        shares = " ".join(f"{share:.3f}" for share in each["explained"])
        lines.append(f"{kind}: explained {shares}; mean distance {each['mean distance']:.3f}")
    again = content["with twice as many neighbours"]
    if again:
        lines.append(f"With {again['neighbours']} neighbours: {again['types']} types, Rand {again['rand']:.2f}")
    for name, share in content.get("explained of the whole", {}).items():
        lines.append(f"{name}: {100 * share:.1f} % of the whole variance")
    for name in content.get("explained by where it was made", {}):
        lines.append(f"Careful: {name}, which is no anatomy; a type may be a scanner or a rater")
    for row in content.get("registered", ()):
        whole = f"{100 * row['removed']:.1f} % of the variance removed, " if "removed" in row else ""
        types = f", {row['types']} types" if "types" in row else ""
        lines.append(f"{row['stage']}: {whole}{100 * row['removed within']:.1f} % within types{types}")
    lines += [f"careful: copies: {', '.join(content['copies'])}"] if content["copies"] else []
    lines += [f"note: {note}" for note in content["notes"][: -len(NOTES)]]
    return "\n".join([*lines, f"Look at {Path(out) / PICTURE} and {Path(out) / TYPES}"])
