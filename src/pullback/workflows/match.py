"""Registration of two clouds, of files of points or found in images, with the transform for other tools."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pullback.errors import InputError, refuse
from pullback.example import PointAlignment, PointPair, PointRegister, seen_points
from pullback.files import is_points, read_labels, write_points, write_transform
from pullback.files.images.slide import pixel_of
from pullback.methods.points.graph_propagation import GraphPropagation, gap_of
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.graph import nearest
from pullback.numerics.singular import is_singular
from pullback.records.csv_records import write_csv
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.space import SURFACE, Affine, Composite, Displacement, Grid, Points, ThinPlate, Transform, outline, push
from pullback.study.recipe import as_data
from pullback.workflows.cloud_outputs import DRAWN_WITH, draw_clouds, known_of_points
from pullback.workflows.clouds import Cloud, read_cloud
from pullback.workflows.outputs import PUSHED, RECORD, about_points, of_earlier_runs, refuse_without, transaction
from pullback.workflows.partners import Partners, chosen, partners_of

MARGIN = 0.15  # of the clouds' extent, beyond which only the affine part of the map is written
MAY_TEAR = 0.05  # of the space about the points: more, and the map is not believed
LARGEST = 30.0  # change of volume, either way, that tissue may go through
KNOWN = "known.csv"
FINE = 0.4  # voxels of the written field in gaps between points
MOST = 2_000_000  # voxels of it
OF = {"keypoints": "keypoints", "outline": "outlines of labels"}
NOTES = (
    "fixed_in_moving is the fixed cloud where the moving one lies, moving_in_fixed the other way round.",
    "fixed_to_moving.h5 takes points of the fixed world to the moving world, and brings images of the moving world "
    "onto grids of the fixed one; moving_to_fixed.h5 is its inverse. Far from all points only an affine map is left.",
)


def match_files(
    fixed: str | Path,
    moving: str | Path,
    out: str | Path,
    register: PointRegister = GraphPropagation(),
    network: nn.Module | None = None,
    matched: bool = False,
    smoothing: float = 0.0,
    masks: Sequence[str | Path | None] = (None, None),
    points: str | Path | None = None,
    space: str | None = None,
    about: Mapping[str, Any] | None = None,
    by_label: bool = False,
    slides: Sequence[str | Path | None] = (None, None),
) -> dict[str, Any]:
    """Register two clouds and write the results into `out`.

    These are `fixed_to_moving.h5`, `moving_to_fixed.h5`, each cloud in the world of the other, the clouds as found in
    images, `clouds.png`, `run.json`, more points of the fixed world where they are given, and `known.csv`, if the
    register knows something of each fixed point.

    Args:
        fixed, moving: tables or surfaces of points, images or label maps, as `read_cloud` tells them apart.
        register: of points that are not matched.
        network: gives the features; None leaves that to the register.
        matched: landmarks: points of one name belong together, those without a partner are left out; where a file has
            no names, points of one row. Else partners are not known.
        smoothing: of matched points, as in `ThinPlate.between`.
        masks: of the fixed and of the moving organ, whose surfaces then take part, and in which keypoints of images
            lie; of both or of neither. Of two label maps the surfaces always take part.
        points: more points of the fixed world, pushed to the moving one.
        space: of all points, where their files do not say.
        about: more to keep in `run.json`, such as the run of the network.
        slides: the fixed and the moving one, in whose pixels points are.
        by_label: take label maps as the outlines of each label, with its number, as `Method.by_label` says.

    Returns:
        The content of `run.json`; under `quality` whether the map can be believed.

    Raises:
        InputError: a file that cannot be read or does not fit the others, or a folder that cannot be written.
    """
    _check((fixed, moving, points), matched, smoothing, masks, space)
    here, there = (
        read_cloud(path, space, mask, by_label, slide)
        for path, mask, slide in zip((fixed, moving), masks, slides, strict=True)
    )
    table = None if points is None else replace(read_cloud(points, space, slide=slides[0]), kind="points")
    for other in (there, table):
        if other is not None:
            _alike(here, other)
    partners = partners_of(here, there) if matched else None
    outlined = here.kind == there.kind == "outline" and masks[0] is None and not by_label
    organs = (fixed, moving) if outlined else masks
    surfaces = None if organs[0] is None or organs[1] is None else _surfaces(organs)
    given = [path for path in (fixed, moving, points, *masks) if path is not None]
    refuse_without(DRAWN_WITH)
    with transaction(Path(out), given, _planned(here, there, table)) as folder:
        cpu, clock = torch.device("cpu"), time.perf_counter()
        forget_peak_memory(cpu)
        pair = PointPair(here.points, there.points, *(surfaces or ()))
        if partners is not None:
            found = seen_points(pair, ThinPlate.between(*chosen(here.points, there.points, partners), smoothing))
        else:
            found = seen_points(pair, register(pair, network))
        seconds = time.perf_counter() - clock
        transform = gridded(found.transform, found.pair.fixed, _grid(found.pair.fixed, surfaces))
        _write(here, there, table, found, transform, folder, slides)
        volumes = _volumes(transform)
        content: dict[str, Any] = manifest() | {
            "fixed": str(fixed),
            "moving": str(moving),
            "clouds": [here.kind, there.kind],
            "points": [here.points.data.shape[1], there.points.data.shape[1]],
            "matched": matched,
            **({"settings": as_data(register)} if partners is None else partners.told(here, there)),
            "surfaces": [str(path) for path in organs if path is not None],
            "direction": list(NOTES) + about_points(None if table is None else table.thing, points),
            "numbers": _numbers(found, partners, transform, volumes),
            "found": {} if found.stats is None else dict(found.stats.numbers),
            "remarks": list(found.remarks),
            "quality": _judged(volumes, found.doubts),
            "seconds": round(seconds, 3),
            "peak memory MB": round(peak_memory_mb(cpu), 1),
            **(about or {}),
            "files": [*sorted(path.name for path in folder.iterdir()), RECORD],
        }
        content["earlier"] = of_earlier_runs(Path(out), content["files"], content["fixed"], content["moving"])
        write_json(content, folder / RECORD)
    return content


def _planned(here: Cloud, there: Cloud, table: Cloud | None) -> list[str]:
    """Return the names of the files that are written."""
    made = [
        cloud.named(f"{side}_{cloud.kind}") for side, cloud in (("fixed", here), ("moving", there)) if cloud.is_made
    ]
    sent = [here.named("fixed_in_moving"), there.named("moving_in_fixed")]
    more = [] if table is None else [table.named(PUSHED)]
    return ["fixed_to_moving.h5", "moving_to_fixed.h5", *made, *sent, *more, "clouds.png", RECORD]


def _write(
    here: Cloud,
    there: Cloud,
    table: Cloud | None,
    answer: PointAlignment,
    transform: Composite,
    folder: Path,
    slides: Sequence[str | Path | None],
) -> None:
    """Write transforms, clouds, their picture, and what is known of points."""
    found, inverse = answer.transform, transform.inverse()
    write_transform(transform, folder / "fixed_to_moving.h5")
    write_transform(inverse, folder / "moving_to_fixed.h5")
    moved = push(here.points, found)
    made = {"fixed": here, "moving": there}
    sent = {f"{side}_{cloud.kind}": (cloud, cloud.points) for side, cloud in made.items() if cloud.is_made}
    sent |= {"fixed_in_moving": (here, moved), "moving_in_fixed": (there, push(there.points, inverse))}
    if table is not None:
        sent[PUSHED] = (table, push(table.points, found))
    one, two = (None if slide is None else pixel_of(slide) for slide in slides)
    for name, (cloud, where) in sent.items():
        write_points(cloud.moved(where, one if name == "moving_in_fixed" else two), folder / cloud.named(name))
    draw_clouds(here.points, moved, there.points, folder / "clouds.png")
    if answer.columns:
        write_csv(known_of_points(answer), folder / KNOWN)


def gridded(transform: Transform, points: Points, grid: Grid) -> Composite:
    """Return a transform as other tools hold it, A ∘ ψ: A the affine nearest to it at points, ψ a displacement.

    ψ lies on `grid`; beyond it there is none.

    Raises:
        InputError: A has no inverse.
    """
    here = points.data[0].double()
    known = torch.cat([here, torch.ones_like(here[:, :1])], 1)
    rows = torch.linalg.lstsq(known, transform(here)).solution.mT
    affine = Affine.identity(here.shape[1]).with_params(rows)
    if is_singular(rows[:, :-1]):
        raise InputError("the points are brought into one place, and there is no way back; do they belong together?")
    rest = affine.inverse() @ transform
    return Composite(affine, Displacement(rest.displacement(grid), grid))


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `match_files` for a person."""
    before, after = content["numbers"]["before"], content["numbers"]["after"]
    lines = [f"{content['points'][0]} fixed and {content['points'][1]} moving points, {content['seconds']:.1f} seconds"]
    found = [
        f"{side} {OF[kind]}" for side, kind in zip(("fixed", "moving"), content["clouds"], strict=True) if kind in OF
    ]
    lines += [f"points are {' and '.join(found)}"] if found else []
    if content["matched"]:
        left = content["left out"]
        without = f"; without a partner: {left[0]} fixed, {left[1]} moving" if any(left) else ""
        lines.append(f"{content['pairs']} pairs, matched by {content['matched by']}{without}")
    lines += [f"{name}: {round(before[name], 12):.4g} → {round(after[name], 12):.4g}" for name in before]
    lines += [f"{name}: {round(value, 12):.4g}" for name, value in after.items() if name not in before]
    lines += [f"{name}: {value:.4g}" for name, value in content["found"].items()]
    lines += content["remarks"]
    judged = content["quality"]
    lines += ["quality: sound"] if judged["passed"] else ["quality: looks FAILED (exit code 3)"]
    lines += [f"  {reason}" for reason in judged["reasons"]]
    lines += [f"{out}: {said}" for said in content["earlier"]]
    lines.append("points go fixed → moving by fixed_to_moving.h5, images moving → fixed by the same file")
    return "\n".join([*lines, f"Look at {Path(out) / 'clouds.png'}"])


def _check(
    paths: Sequence[str | Path | None],
    matched: bool,
    smoothing: float,
    masks: Sequence[str | Path | None],
    space: str | None,
) -> None:
    """Refuse options that do not go together; `paths` are the fixed file, the moving one, and that of more points."""
    images = [path for path in paths[:2] if not is_points(path or "")]
    if len(images) == 2 and paths[2] is None:
        refuse({"--space": space}, "is of points, and there are none; an image says where it is")
    if matched and images:
        raise InputError(f"{images[0]}: an image has no landmarks; --matched is for two files of points")
    if matched and any(mask is not None for mask in masks):
        raise InputError("--fixed-mask, --moving-mask: surfaces take part where points are not matched")
    if not smoothing >= 0:
        raise InputError(f"--smoothing {smoothing}: 0 or more expected; 0 meets every point")
    if not matched and smoothing:
        raise InputError("--smoothing: is for --matched points; others are smoothed as far as they lack partners")
    if (masks[0] is None) != (masks[1] is None):
        raise InputError(
            "--fixed-mask and --moving-mask: give both; the surface of one organ is brought to the other's"
        )


def _alike(here: Cloud, there: Cloud) -> None:
    one, two = (cloud.points.data.shape[2] for cloud in (here, there))
    if one != two:
        raise InputError(f"{here.path}: points in {one}-D, but {there.path}: in {two}-D; both must be alike")


def _surfaces(masks: Sequence[str | Path | None]) -> tuple[Points, Points]:
    found = []
    for path, most in zip(masks, SURFACE, strict=True):
        found.append(outline(read_labels(str(path), what="mask"), most))
        if not found[-1].data.numel():
            raise InputError(f"{path}: the mask is empty; it marks the organ that the points are of")
    return found[0], found[1]


def _grid(fixed: Points, surfaces: tuple[Points, Points] | None) -> Grid:
    """Return a grid about the fixed points, their organ and a margin, fine enough for the gaps between points."""
    gap = gap_of(fixed.data[0])
    points = fixed.data[0] if surfaces is None else torch.cat([fixed.data[0], surfaces[0].data[0]])
    low, high = points.amin(0), points.amax(0)
    margin = torch.clamp(MARGIN * (high - low), min=2 * gap)
    low, extent = low - margin, high - low + 2 * margin
    edge = max(FINE * gap, float(extent.prod() / MOST) ** (1 / len(extent)))
    affine = torch.diag(torch.tensor([edge] * len(extent) + [1.0], dtype=torch.float64))
    affine[:-1, -1] = low
    return Grid(tuple(math.ceil(n / edge) + 1 for n in extent.tolist()), affine)


def _volumes(written: Composite) -> Tensor:
    """Return the factor by which each voxel of the written field changes its volume."""
    field = written.inner.displacement(*written.grids)
    return determinant(jacobian(field)) * float(torch.linalg.det(written.outer.params[0][:, :-1]))


def _judged(volumes: Tensor, doubts: Sequence[str]) -> dict[str, Any]:
    torn = float(((volumes < 1 / LARGEST) | (volumes > LARGEST)).double().mean())
    reason = (
        f"{100 * torn:.0f} % of the space about the points folds, or changes its volume more than {LARGEST:g} times; "
        f"{100 * MAY_TEAR:g} % are allowed. Do the clouds belong together, and are both in mm?"
    )
    reasons = [*doubts, *([] if torn <= MAY_TEAR else [reason])]
    return {"passed": not reasons, "reasons": reasons}


def _numbers(
    found: PointAlignment, partners: Partners | None, written: Composite, volumes: Tensor
) -> dict[str, dict[str, float]]:
    """Return numbers before and after, all distances in mm.

    They are how far apart the clouds are; how much of the written field folds, and its least and largest change of
    volume; and how far the written transform is from the one found.
    """
    fixed, moving = found.pair.fixed, found.pair.moving
    moved = push(fixed, found.transform)
    return {
        "before": _apart(fixed, moving, partners),
        "after": _apart(moved, moving, partners)
        | {
            "folding %": 100 * float((volumes <= 0).double().mean()),
            "least volume": float(volumes.min()),
            "most volume": float(volumes.max()),
            "mm off as written": float((push(fixed, written).data - moved.data).norm(dim=2).mean()),
        },
    }


def _apart(points: Points, moving: Points, partners: Partners | None) -> dict[str, float]:
    """Return the mean distance in mm of the points to their partners, or to the nearest moving point, of one label."""
    if partners is not None:
        here, there = chosen(points, moving, partners)
        return {"mm between matched points": float((here.data - there.data).norm(dim=2).mean())}
    if points.label is not None and moving.label is not None:
        own = [(points[points.label[0] == n], moving[moving.label[0] == n]) for n in points.label.unique().tolist()]
        far = [nearest(here.data[0], there.data[0], 1)[0] for here, there in own if there.data.numel()]
        return {"mm to the nearest point of its label": float(torch.cat(far).mean())}
    return {"mm to the nearest moving point": float(nearest(points.data[0], moving.data[0], 1)[0].mean())}
