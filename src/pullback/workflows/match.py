"""Registration of two clouds, of files of points or found in images, with the transform for other tools."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pullback.errors import InputError, refuse
from pullback.example import PointPair
from pullback.files import is_points, read_labels, read_points, write_points, write_transform
from pullback.methods.points.graph_propagation import GraphPropagation, gap_of
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.graph import nearest
from pullback.numerics.singular import is_singular
from pullback.records.atomic import atomic_write
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.report.pictures import ENDS, FIXED, MOVED, PLANES
from pullback.space import SURFACE, Affine, Composite, Displacement, Grid, Points, ThinPlate, outline, push
from pullback.study.recipe import as_data
from pullback.workflows.clouds import Cloud, read_cloud
from pullback.workflows.outputs import PUSHED, RECORD, about_points, of_earlier_runs, refuse_without, transaction
from pullback.workflows.partners import Partners, chosen, partners_of

DRAWN_WITH = ("matplotlib.backends.backend_agg", "matplotlib.figure")  # imported late, when all is done
MARGIN = 0.15  # of the clouds' extent, beyond which only the affine part of the map is written
MAY_TEAR = 0.05  # of the space about the points: more, and the map is not believed
LARGEST = 30.0  # change of volume, either way, that tissue may go through
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
    register: Callable[[PointPair, nn.Module | None], ThinPlate] = GraphPropagation(),
    network: nn.Module | None = None,
    matched: bool = False,
    smoothing: float = 0.0,
    masks: Sequence[str | Path | None] = (None, None),
    points: str | Path | None = None,
    space: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Register two clouds and write the results into `out`.

    These are `fixed_to_moving.h5`, `moving_to_fixed.h5`, each cloud in the world of the other, the clouds as found in
    images, `clouds.png`, `run.json`, and more points of the fixed world where they are given.

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

    Returns:
        The content of `run.json`; under `quality` whether the map can be believed.

    Raises:
        InputError: a file that cannot be read or does not fit the others, or a folder that cannot be written.
    """
    _check((fixed, moving, points), matched, smoothing, masks, space)
    here, there = (read_cloud(path, space, mask) for path, mask in zip((fixed, moving), masks, strict=True))
    table = None if points is None else Cloud(read_points(points, space), points, "points")
    for other in (there, table):
        if other is not None:
            _alike(here, other)
    partners = partners_of(here, there) if matched else None
    organs = (fixed, moving) if here.kind == there.kind == "outline" and masks[0] is None else masks
    surfaces = None if organs[0] is None or organs[1] is None else _surfaces(organs)
    given = [path for path in (fixed, moving, points, *masks) if path is not None]
    refuse_without(DRAWN_WITH)
    with transaction(Path(out), given, _planned(here, there, table)) as folder:
        cpu, clock = torch.device("cpu"), time.perf_counter()
        forget_peak_memory(cpu)
        if partners is not None:
            found = ThinPlate.between(*chosen(here.points, there.points, partners), smoothing)
        else:
            found = register(PointPair(here.points, there.points, *(surfaces or ())), network)
        seconds = time.perf_counter() - clock
        transform = gridded(found, _grid(here.points, surfaces))
        moved = _write(here, there, table, found, transform, folder)
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
            "numbers": _numbers(here.points, moved, there.points, partners, transform, volumes),
            "quality": _judged(volumes),
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
    here: Cloud, there: Cloud, table: Cloud | None, found: ThinPlate, transform: Composite, folder: Path
) -> Points:
    """Write transforms, clouds and their picture, and return the fixed points in the moving world."""
    inverse = transform.inverse()
    write_transform(transform, folder / "fixed_to_moving.h5")
    write_transform(inverse, folder / "moving_to_fixed.h5")
    moved = push(here.points, found)
    made = {"fixed": here, "moving": there}
    sent = {f"{side}_{cloud.kind}": (cloud, cloud.points) for side, cloud in made.items() if cloud.is_made}
    sent |= {"fixed_in_moving": (here, moved), "moving_in_fixed": (there, push(there.points, inverse))}
    if table is not None:
        sent[PUSHED] = (table, push(table.points, found))
    for name, (cloud, where) in sent.items():
        write_points(cloud.thing.moved(where), folder / cloud.named(name))
    _picture(here.points, moved, there.points, folder / "clouds.png")
    return moved


def gridded(transform: ThinPlate, grid: Grid) -> Composite:
    """Return a transform as other tools hold it, A ∘ ψ: A the affine nearest to it at its points, ψ a displacement.

    ψ lies on `grid`; beyond it there is none.

    Raises:
        InputError: A has no inverse.
    """
    here = transform.points
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


def _judged(volumes: Tensor) -> dict[str, Any]:
    torn = float(((volumes < 1 / LARGEST) | (volumes > LARGEST)).double().mean())
    reason = (
        f"{100 * torn:.0f} % of the space about the points folds, or changes its volume more than {LARGEST:g} times; "
        f"{100 * MAY_TEAR:g} % are allowed. Do the clouds belong together, and are both in mm?"
    )
    return {"passed": torn <= MAY_TEAR, "reasons": [] if torn <= MAY_TEAR else [reason]}


def _numbers(
    fixed: Points, moved: Points, moving: Points, partners: Partners | None, written: Composite, volumes: Tensor
) -> dict[str, dict[str, float]]:
    """Return numbers before and after, all distances in mm.

    They are how far apart the clouds are; how much of the written field folds, and its least and largest change of
    volume; and how far the written transform is from the one found.
    """
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
    """Return the mean distance of the points to their partners, or to the nearest moving point, in mm."""
    if partners is not None:
        here, there = chosen(points, moving, partners)
        return {"mm between matched points": float((here.data - there.data).norm(dim=2).mean())}
    return {"mm to the nearest moving point": float(nearest(points.data[0], moving.data[0], 1)[0].mean())}


def _picture(fixed: Points, moved: Points, moving: Points, path: Path) -> None:
    """Draw the fixed cloud over the moving one, before and after, seen along each axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    views = PLANES if fixed.data.shape[2] == 3 else (("", 0, 1),)
    figure = Figure(figsize=(3.4 * len(views), 6.6), dpi=140, facecolor="#14171b", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(views), squeeze=False, sharex="col", sharey="col")
    for row, (cloud, when) in zip(axes, ((fixed, "before"), (moved, "after")), strict=True):
        for axis, (name, right, up) in zip(row, views, strict=True):
            for points, colour, label in ((moving, MOVED, "moving"), (cloud, FIXED, "fixed")):
                where = points.data[0].cpu()
                axis.scatter(where[:, right], where[:, up], s=3, color=colour, linewidths=0, label=label)
            axis.set_aspect("equal")
            axis.set_facecolor("#14171b")
            axis.tick_params(colors="#9aa3ad", labelsize=7)
            for spine in axis.spines.values():
                spine.set_color("#3a4149")
            axis.set_title(f"{name}, {when}" if name else when, color="#d9dde2", size=10)
            if name:
                axis.set_xlabel(" → ".join(ENDS[right]), color="#9aa3ad", size=8)
                axis.set_ylabel(" → ".join(ENDS[up]), color="#9aa3ad", size=8)
    shown, names = axes[0][0].get_legend_handles_labels()
    figure.legend(shown, names, loc="outside lower center", ncols=2, frameon=False, labelcolor="#d9dde2", markerscale=3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())
