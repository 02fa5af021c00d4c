"""Uncertainty of a registration of two files: a deviation in mm around any answer, and samples of where it may lie."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pullback.alignment import Alignment, Pair, Register
from pullback.errors import InputError, refuse
from pullback.files import read_points, read_transform
from pullback.methods.pair.ensemble import spread_of
from pullback.methods.pair.posterior import Posterior, reach_of
from pullback.methods.pair.uncertainty import WithPosterior
from pullback.metrics.calibration import Bin, binned, calibration, deviation_in, errors_of, temperature
from pullback.numerics.random import make_generator
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.report.page import write_page
from pullback.report.uncertainty_figures import draw_bins, draw_deviation
from pullback.solvers import Refine, timed
from pullback.space import Transform
from pullback.workflows.clouds import Cloud
from pullback.workflows.inputs import ImageFiles, read_pair
from pullback.workflows.outputs import RECORD, names_in, refuse_without, transaction
from pullback.workflows.posterior_folder import POSTERIOR, write_posterior
from pullback.workflows.register import settings_of
from pullback.workflows.steering import Steering, read_landmarks

PAGE = "index.html"
FEW = 20  # landmarks, by which a temperature is known to a sixth or so
NOTES = (
    "maps/deviation.nii.gz is the root mean square length of the error that is to be expected, in mm; deviation_r, _a "
    "and _s are its parts along the axes of the fixed image nearest R, A and S.",
    "A deviation says little before it is scaled by landmarks of images like these: --fixed-points and --moving-points "
    "with --calibrate, or --temperature with the factor that other pairs told.",
    "A registration that failed is in another minimum of its energy, and no likelihood around it knows that.",
)


@dataclass(frozen=True)
class UncertaintyHow:
    """The way an uncertainty is found.

    Attributes:
        posterior: the descent and its energy; its `register` is not looked at.
        members: registers beside the one that is judged, whose spread is taken in place of a descent.
        factor: of all deviations.
        calibrate: multiply them by the factor that the landmarks tell, too.
        samples: number of them that is written.
        seed: of these.

    Raises:
        InputError: a factor that is not above 0, or fewer than 0 samples.
    """

    posterior: WithPosterior = WithPosterior()
    members: Sequence[Register | Refine] = ()
    factor: float = 1.0
    calibrate: bool = False
    samples: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.factor <= 0 or self.samples < 0:
            raise InputError(
                f"uncertainty: a temperature above 0 and 0 samples or more expected, got {self.factor:g} and "
                f"{self.samples}"
            )


def uncertainty_files(
    fixed: ImageFiles,
    moving: ImageFiles,
    register: Register | Refine | None,
    out: str | Path,
    how: UncertaintyHow = UncertaintyHow(),
    transform: str | Path | None = None,
    points: tuple[str | Path, str | Path] | None = None,
    space: str | None = None,
    device: torch.device = torch.device("cpu"),
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Find how far a registration of two files may be from the truth, and write it into `out`.

    These are `maps/deviation.nii.gz` and its parts in mm, `fixed_to_moving.h5`, `samples/sample_001.h5`, …, a page with
    figures, and `run.json`. Nothing is written before all has succeeded.

    Args:
        fixed, moving: the images.
        register: whose answer is judged; None where a `transform` is given.
        out: the folder.
        how: the way.
        transform: the file of an answer that somebody has found, fixed → moving.
        points: landmarks of both images, matched by name or in order, by which the deviation is measured.
        space: of the points, as in `read_points`.
        device: where to compute.
        about: more to keep in `run.json`.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read, that does not fit the others, no landmarks to calibrate by, or a folder
            that cannot be written.
    """
    if points is None:
        refuse({"--calibrate": how.calibrate or None}, "needs --fixed-points and --moving-points")
    fixed, moving = fixed.opened(), moving.opened()
    pair = read_pair(fixed, moving).to(device)
    given = [*fixed.paths, *moving.paths, *(points or ()), *([] if transform is None else [transform])]
    known = None if transform is None else _same_world(read_transform(transform), pair, transform).to(device)
    pair = pair if points is None else _marked(pair, points, space)
    refuse_without(("matplotlib",))
    with transaction(Path(out), given) as folder:
        forget_peak_memory(device)
        answer = _answer(pair, register, known)
        judged, by, smooth = _judged(answer, pair, how)
        measured, factor = _measured(judged, how)
        posterior = Posterior.of(judged, smooth).scaled(factor)
        draws = make_generator(how.seed)
        write_posterior(posterior, answer.transform, folder, how.samples, draws, str(fixed.images[0]))
        content: dict[str, Any] = manifest() | {
            "fixed": [str(path) for path in fixed.images],
            "moving": [str(path) for path in moving.images],
            "transform": transform and str(transform),
            POSTERIOR: {"by": by, "smooth": smooth, "temperature": factor},
            "deviation mm": _spread(posterior, pair),
            "landmarks": measured,
            "notes": [*_doubts(posterior, pair, measured, by), *NOTES],
            "seconds": {stage.name: round(stage.seconds, 3) for stage in answer.stats.stages} if answer.stats else {},
            "peak memory MB": round(peak_memory_mb(device), 1),
            "settings": {
                "register": register and settings_of(register),
                "posterior": settings_of(how.posterior.energy),
            },
            **(about or {}),
        }
        _draw(posterior, judged, factor, folder, content)
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def _same_world(transform: Transform, pair: Pair, path: str | Path) -> Transform:
    if transform.ndim != pair.fixed.grid.ndim:
        raise InputError(f"{path}: moves points in {transform.ndim}-D, and the images are {pair.fixed.grid.ndim}-D")
    return transform


def _marked(pair: Pair, points: tuple[str | Path, str | Path], space: str | None) -> Pair:
    """Return the pair with the landmarks of both files."""
    fixed, moving = points
    table = read_points(fixed, space, pair.fixed.grid.ndim)
    landmarks = read_landmarks(Steering(moving), Cloud(table, fixed, "points"), space, pair)
    assert landmarks is not None
    return landmarks.on(pair)


@torch.no_grad()
def _answer(pair: Pair, register: Register | Refine | None, known: Transform | None) -> Alignment:
    if known is not None:
        return Alignment(pair, known)
    if register is None:
        raise InputError("uncertainty: a register or a transform is expected")
    return timed(pair, register)


@torch.no_grad()
def _judged(answer: Alignment, pair: Pair, how: UncertaintyHow) -> tuple[Alignment, str, float]:
    """Return the answer with its deviation, how that was found, and sigma of its samples' noise."""
    smooth = how.posterior.energy.smooth
    if how.members:
        others = [timed(pair, register) for register in how.members]
        return spread_of([answer, *others]), f"the spread of {1 + len(others)} registers", smooth
    if deviation_in(answer.maps, pair.fixed.grid) is not None:
        return answer, "the network", smooth
    found, _ = how.posterior.around(pair, answer.transform)
    return replace(answer, maps={**answer.maps, **found.maps}), "descent", smooth


def _measured(judged: Alignment, how: UncertaintyHow) -> tuple[dict[str, Any] | None, float]:
    """Return what landmarks say of the deviation, before and after the factor; and that factor."""
    known = errors_of(judged) if judged.pair.fixed_points is not None else None
    if known is None:
        return None, how.factor
    errors, said = known
    told = temperature(errors, how.factor * said)
    factor = how.factor * told if how.calibrate else how.factor
    return {
        "count": len(errors),
        "target registration error mm": float(errors.norm(dim=1).mean()),
        "temperature they tell": told,
        "before": calibration(errors, how.factor * said),
        **({"after": calibration(errors, factor * said)} if how.calibrate else {}),
    }, factor


def _spread(posterior: Posterior, pair: Pair) -> dict[str, float]:
    """Return percentiles of the deviation over the foreground."""
    total = posterior.maps["deviation"].data
    inside = pair.fixed.mask if pair.fixed.mask is not None else (pair.fixed.data > pair.fixed.data.min())[:, :1]
    values = total[inside] if bool(inside.any()) else total.flatten()
    picks = torch.quantile(values.double(), torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    return dict(zip(("5 %", "median", "95 %"), (round(float(pick), 4) for pick in picks), strict=True))


def _doubts(posterior: Posterior, pair: Pair, measured: Mapping[str, Any] | None, by: str) -> list[str]:
    """Say why the deviation should not be believed as it is."""
    shape, reach = pair.fixed.grid.shape, reach_of(posterior.smooth)
    doubts = []
    if min(shape) <= reach:
        doubts.append(
            f"errors are alike over {reach} voxels, and the image has {min(shape)} along one axis: a sample is nearly "
            f"one shift; a smaller --set posterior.energy.smooth makes it local"
        )
    if measured is None and by == "descent":
        doubts.append("nothing has calibrated this deviation: its order means something, its size does not")
    if measured is not None and measured["count"] < FEW:
        doubts.append(f"{measured['count']} landmarks: the temperature they tell is rough; {FEW} or more are wanted")
    if measured is not None and not 0.5 < measured["temperature they tell"] < 2:
        doubts.append(f"errors are {measured['temperature they tell']:.2g} times as large as the deviation says")
    return doubts


def _draw(posterior: Posterior, judged: Alignment, factor: float, folder: Path, content: Mapping[str, Any]) -> None:
    """Write the page with its figures."""
    draw_deviation(judged.pair.fixed, posterior.maps["deviation"], folder / "deviation.png")
    figures = [{"source": "deviation.png", "caption": "The deviation in mm over the fixed image."}]
    known = errors_of(judged) if content["landmarks"] is not None else None
    tables = [{"title": "Deviation over the foreground, mm", "rows": [_shown(content["deviation mm"])]}]
    if known is not None:
        bins: list[Bin] = binned(known[0], factor * known[1])
        draw_bins(bins, folder / "landmarks.svg")
        caption = "Errors of landmarks by their deviation; on the line they are as large as was said."
        figures.append({"source": "landmarks.svg", "caption": caption})
        marks = content["landmarks"]
        rows = [{"": when, **_shown(marks[when])} for when in ("before", "after") if when in marks]
        tables.append({"title": "What landmarks say", "rows": rows})
    names = " and ".join(Path(content[side][0]).name for side in ("fixed", "moving"))
    write_page(
        folder / PAGE,
        "measured",
        title=f"Uncertainty of {names}",
        notes=content["notes"],
        figures=figures,
        tables=tables,
    )


def _shown(numbers: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.3g}" for name, value in numbers.items()}


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `uncertainty_files` for a person."""
    spread, marks = content["deviation mm"], content["landmarks"]
    lines = [
        f"deviation by {content[POSTERIOR]['by']}: median {spread['median']:.3g} mm, {spread['5 %']:.3g} … "
        f"{spread['95 %']:.3g} mm in 90 % of the foreground"
    ]
    if marks is not None:
        error, factor = marks["target registration error mm"], marks["temperature they tell"]
        lines.append(
            f"{marks['count']} landmarks: error {error:.3g} mm, {factor:.3g} times the deviation (temperature)"
        )
        for when in (each for each in ("before", "after") if each in marks):
            known = marks[when]
            lines.append(
                f"  {when}: log density {known['log density']:.3g}, 90 % intervals cover "
                f"{known['coverage 90 %']:.0f} %, rank correlation {known.get('rank correlation', math.nan):.2f}"
            )
    lines += [f"careful: {doubt}" for doubt in content["notes"][: -len(NOTES)]]
    return "\n".join([*lines, f"Look at {Path(out) / PAGE}"])
