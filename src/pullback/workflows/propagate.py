"""Propagation of the labels of one frame to all frames of a sequence, by any register of two images."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.alignment import Register
from pullback.errors import InputError
from pullback.files import read_labels, write_image, write_transform
from pullback.files.images.nifti import refuse_sheared, refuse_wide
from pullback.files.images.series import StoredFrames, frames_in, is_series, read_frames, read_series, write_series
from pullback.methods.pair.pdd_net import PDDNet, Propagator
from pullback.records.csv_records import write_csv
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.report.animation import write_animation
from pullback.report.film import pictures
from pullback.solvers import Refine
from pullback.space import Displacement, Image, Labels, Points, Series, Transform, pull, push
from pullback.study.trained import Trained
from pullback.workflows.outputs import RECORD, TRANSFORMS, names_in, refuse_without, transaction
from pullback.workflows.register import DRAWN_WITH, settings_of

FRAMES, CARRIED, EACH, FILM = "frames.csv", "propagated.nii.gz", "labels", "propagated.png"
NEAR = 2.0
"""Voxels from home, up to which a point that went to a frame and back has come home."""
LOST = 0.5
"""Share of the labelled points that come home, below which a frame is called lost."""
MOST = 4000  # points that are sent there and back
NOTES = (
    "Labels of each frame are those of the reference, pulled once from the nearest voxel by frame → reference.",
    "Confidence is the share of labelled points that, sent from the reference to a frame and back by two answers, come "
    f"home within {NEAR:g} voxels. It tells answers that contradict each other, and not where both are wrong alike.",
)


@dataclass(frozen=True)
class Carrying:
    """The way labels are carried.

    Attributes:
        register: aligns two frames.
        chained: each frame is aligned with its neighbour on the way to the reference, in place of the reference itself.
        checked: whether each frame is also aligned the other way round, for its confidence.
        transforms: whether the transforms are written.
    """

    register: Register | Refine
    chained: bool = False
    checked: bool = True
    transforms: bool = False


def propagate_files(
    video: str | Path,
    labels: str | Path,
    at: int,
    how: Carrying,
    out: str | Path,
    device: torch.device = torch.device("cpu"),
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Carry labels of one frame through a sequence and write the results into `out`.

    These are the labels of every frame (`propagated.nii.gz` of a 4-D image, a file each in `labels` of a folder of
    frames), an animation of them, `propagated.png`, `frames.csv` with milliseconds, confidence and voxels of each label
    by frame, and `run.json`. Nothing is written before all has succeeded.

    Args:
        video: a 4-D image, or a folder of frames, in the order of the numbers in their names.
        labels: of the reference, on its grid.
        at: number of the reference, from 0.
        how: the way they are carried.
        out: the folder.
        device: where to compute.
        about: more to keep in `run.json`.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read, no such frame, no labels, or a folder that cannot be written.
    """
    series, paths = _opened(video)
    if not 0 <= at < len(series):
        raise InputError(f"--at {at}: {video} has frames 0 to {len(series) - 1}")
    refuse_sheared(series.grid, video)
    known = read_labels(labels, on=series.grid)
    if not known.data.any():
        raise InputError(f"{labels}: the labels are 0 everywhere; give those of frame {at}")
    refuse_wide(known, labels)
    refuse_without(DRAWN_WITH)
    with transaction(Path(out), [labels, *(paths or [Path(video)])], [FRAMES, FILM, RECORD]) as folder:
        forget_peak_memory(device)
        begin = time.perf_counter()
        rows, carried = _carried(series, known.to(device), at, how, device, folder)
        seconds = time.perf_counter() - begin
        _write(series, carried, folder, video, paths)
        write_csv(rows, folder / FRAMES)
        write_animation(pictures(series, carried), folder / FILM)
        content: dict[str, Any] = manifest() | {
            "video": str(video),
            "labels": str(labels),
            "at": at,
            "frames": len(series),
            "chained": how.chained,
            "notes": list(NOTES if how.checked else NOTES[:1]),
            **_numbers(rows, how.checked),
            "seconds": {"carrying": round(seconds, 3)},
            "device": str(device),
            "peak memory MB": round(peak_memory_mb(device), 1),
            "settings": settings_of(how.register),
            **(about or {}),
        }
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def _opened(video: str | Path) -> tuple[Series, list[Path]]:
    """Return the frames, and their files where each is one."""
    if Path(video).is_dir():
        paths = frames_in(video)
        return read_frames(paths), paths
    if not is_series(video):
        raise InputError(
            f"{video}: one frame, of which nothing says that an axis is time; give a 4-D image (of 2-D frames with one "
            f"voxel along the third axis), or a folder of frames"
        )
    return read_series(video), []


# ---- the work


@torch.no_grad()
def _carried(
    series: Series, known: Labels, at: int, how: Carrying, device: torch.device, folder: Path
) -> tuple[list[dict[str, object]], np.ndarray]:
    """Return a row for each frame, and the labels of all, `(*shape, T)`."""
    reference = series.frames[at].to(device)
    values = [int(value) for value in known.data.unique() if value]
    carried = np.zeros((*series.grid.shape, len(series)), known.data.cpu().numpy().dtype)
    points = _points(known)
    rows: dict[int, dict[str, object]] = {}
    if how.transforms:
        (folder / TRANSFORMS).mkdir()
    align = how.register if how.chained else _to_reference(how.register, reference)
    for way in (range(at, len(series)), range(at - 1, -1, -1)):
        journey = _Journey(how, align, reference)
        for n in way:
            frame, row = series.frames[n].to(device), _row(series, n)
            there = known
            if n != at:
                forward, milliseconds = journey.to(frame)
                there = pull(known, forward, onto=frame)
                row |= {"milliseconds": round(milliseconds, 3)}
                row |= _home(points, journey.back, forward, series) if how.checked else {}
                if how.transforms:
                    write_transform(forward, folder / TRANSFORMS / f"frame_{n:04d}.h5", on=series.grid)
            carried[..., n] = there.data[0, 0].cpu().numpy()
            rows[n] = row | {f"voxels of {value}": int((there.data == value).sum()) for value in values}
    return [rows[n] for n in range(len(series))], carried


class _Journey:
    """The way from the reference to one frame after another, and back."""

    def __init__(self, how: Carrying, align: Register, reference: Image) -> None:
        self.how, self.align, self.last = how, align, reference
        self.forward: Transform | None = None
        self.back: Transform | None = None

    def to(self, frame: Image) -> tuple[Transform, float]:
        """Return frame → reference, and the milliseconds that it took; `back` is then reference → frame."""
        begin = time.perf_counter()
        step = _field(self.align(frame, self.last).transform, frame)
        if frame.data.device.type != "cpu":
            torch.accelerator.synchronize()
        milliseconds = 1000 * (time.perf_counter() - begin)
        returned = self.how.register(self.last, frame).transform if self.how.checked else None
        if self.how.chained:
            step = step if self.forward is None else _field(self.forward @ step, frame)
            if returned is not None and self.back is not None:
                returned = _field(returned @ self.back, frame)
            self.last = frame
        self.forward, self.back = step, returned
        return step, milliseconds


def _field(transform: Transform, frame: Image) -> Transform:
    """Return a transform on the frames' grid, evaluated; a linear one stays as it is."""
    if transform.as_affine is not None:
        return transform
    return Displacement(transform.displacement(frame.grid).to(frame.data.dtype), frame.grid)


def _to_reference(register: Register | Refine, reference: Image) -> Register:
    """Return a register of frames and this reference: of a PDD-Net one that keeps the reference's features."""
    if isinstance(register, Trained) and isinstance(register.network, PDDNet):
        return replace(register, network=Propagator(register.network, register.shown(reference)))
    return register


# ---- confidence


def _points(known: Labels) -> Tensor:
    """Return labelled points of the reference in the world, `(1, N, d)` float64, evenly chosen from very many."""
    voxels = known.data[0, 0].nonzero().double().cpu()
    step = -(-len(voxels) // MOST)
    return known.grid.to_world(voxels[::step].mT[None]).mT


def _home(points: Tensor, back: Transform | None, forward: Transform, series: Series) -> dict[str, object]:
    """Return how far from home labelled points of the reference land, sent to the frame and back, in mm."""
    assert back is not None
    home = push(push(Points(points), back), forward).data
    off = (home - points).norm(dim=-1)[0].sort().values
    voxels = (series.grid.to_voxels(home.mT) - series.grid.to_voxels(points.mT)).norm(dim=1)
    return {
        "there and back mm": round(float(off.mean()), 4),
        "there and back mm, 95 %": round(float(off[int(0.95 * (len(off) - 1))]), 4),
        "confidence": round(float((voxels <= NEAR).double().mean()), 4),
    }


def _row(series: Series, n: int) -> dict[str, object]:
    row: dict[str, object] = {"frame": n}
    return row | ({f"time {series.unit}": float(series.times[n])} if series.unit else {})


def _numbers(rows: Iterable[Mapping[str, Any]], checked: bool) -> dict[str, Any]:
    """Return what is told of all frames but the reference."""
    moved = [row for row in rows if "milliseconds" in row]
    found: dict[str, Any] = {"milliseconds": round(median(row["milliseconds"] for row in moved), 3) if moved else None}
    if checked and moved:
        lost = [row["frame"] for row in moved if row["confidence"] < LOST]
        found["confidence"] = round(fmean(row["confidence"] for row in moved), 4)
        found["quality"] = {"passed": 2 * len(lost) <= len(moved), "lost": lost}
    return found


# ---- out


def _write(series: Series, carried: np.ndarray, folder: Path, video: str | Path, paths: Sequence[Path]) -> None:
    """Write the labels as the frames came: one file, or one for each frame."""
    if not paths:
        frames = StoredFrames(carried, series.grid)
        write_series(Series(frames, series.grid, series.times, series.unit), folder / CARRIED, like=video)
        return
    (folder / EACH).mkdir()
    for n, path in enumerate(paths):
        found = Labels(torch.from_numpy(np.ascontiguousarray(carried[..., n]))[None, None], series.grid)
        write_image(found, folder / EACH / f"{path.name.split('.')[0]}.nii.gz", like=path)


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `propagate_files` for a person."""
    what = "neighbour by neighbour" if content["chained"] else "each straight from the reference"
    lines = [f"{content['frames']} frames, labels of frame {content['at']}, {what}"]
    if content["milliseconds"] is not None:
        lines.append(f"milliseconds per frame: {content['milliseconds']:.4g} (median)")
    if "confidence" in content:
        lost = content["quality"]["lost"]
        lines.append(f"confidence: {content['confidence']:.2f} of 1 (mean)")
        lines.append(f"quality: {'sound' if content['quality']['passed'] else 'looks FAILED (exit code 3)'}")
        lines += [f"  labels may be lost in frames {', '.join(map(str, lost))}"] if lost else []
    return "\n".join([*lines, f"Look at {Path(out) / FILM} and {Path(out) / FRAMES}"])
