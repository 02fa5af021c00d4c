"""Realignment of a series in files: corrected frames, their mean, and how the head moved."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pullback.data.phantoms.noisy_series import SODIUM
from pullback.errors import InputError, refuse
from pullback.files import is_series, read_channels, read_series, write_image, write_transforms
from pullback.files.images.nifti import refuse_sheared
from pullback.files.images.series import frames_in, read_frames
from pullback.files.images.stream import stream_series
from pullback.methods.pose.rician_motion import Corrected, MotionCorrection
from pullback.methods.pose.tissue_model import TissueModel
from pullback.numerics.noise import GaussianNoise, Noise, RiceNoise, RicianMeanNoise
from pullback.records.csv_records import write_csv
from pullback.records.manifest import forget_peak_memory, manifest, peak_memory_mb, write_json
from pullback.solvers.realign import Realign
from pullback.solvers.realigned import FramesShown, Realigned, unshown
from pullback.space import Image, Series
from pullback.study.recipe import changed
from pullback.workflows.choices import named
from pullback.workflows.outputs import RECORD, TRANSFORMS, names_in, refuse_without, transaction
from pullback.workflows.realign_outputs import (
    AFTER,
    BEFORE,
    CORRECTED,
    MEAN,
    MOTION,
    PAGE,
    Tally,
    model_of,
    motion_of,
    rows_of,
    write_motion_page,
)
from pullback.workflows.register import settings_of

CPU = torch.device("cpu")
NOISES: Mapping[str, Noise] = {
    "rician": RiceNoise(),
    "gaussian": GaussianNoise(),
    "rician-mean": RicianMeanNoise(),
}
MODES = ("nearest", "linear", "cubic")
WORSE = 1.1
"""Deviation over frames after by before, above which the answer looks failed."""
NOTES = (
    "motion.csv tells how each frame is moved onto the common place: x → R (x − c) + c + t about the middle c, shifts "
    "trans_x, trans_y, trans_z in mm along R, A, S, turns rot_x, rot_y, rot_z in radians about them, one after the "
    "other; as SPM and FSL have it. framewise_displacement is that of Power et al. 2012, on a sphere of 50 mm.",
    "transforms/ has for each frame the map from the common place to the frame: pullback apply -i SERIES -r SERIES -t "
    "transforms/ -o OUT makes the corrected frames again.",
)


@dataclass(frozen=True, eq=False)
class Realigning:
    """The way a series is realigned.

    Attributes:
        plain: by its own mean, where there are no tissues.
        modelled: by a model of tissues.
        tissues: files of maps, one each or frames of one.
        mean, deviation: intensities expected of the tissues, or none.
        mode: of interpolation of the corrected frames; None is nearest with tissues, whose noise stays what it is, and
            else cubic.
        at: number of the frame that stays; None lays all in their mean place.
    """

    plain: Realign = Realign()
    modelled: MotionCorrection = MotionCorrection()
    tissues: Sequence[Path] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    mode: str | None = None
    at: int | None = None

    @property
    def chosen(self) -> str:
        """The mode of interpolation."""
        return self.mode or ("nearest" if self.tissues else "cubic")


def realigning(
    tissues: Sequence[Path],
    noise: str,
    asleep: bool,
    sodium: bool,
    settings: Mapping[str, str],
    mode: str | None = None,
    at: int | None = None,
) -> Realigning:
    """Return the way that options ask for.

    Raises:
        InputError: a name or a setting that is not there, or an option of tissues without any.
    """
    law = named(noise, NOISES, "--noise")
    if not tissues:
        idle = {"--noise": None if noise == "rician" else noise, "--asleep": asleep or None, "--sodium": sodium or None}
        refuse(idle, "is of the model of tissues, which --tissues gives")
        return Realigning(changed(Realign(), settings), mode=mode, at=at)
    if at is not None:
        raise InputError(f"--at {at}: with --tissues all frames go where the tissues are; leave it out")
    modelled = changed(replace(MotionCorrection(), noise=law, asleep=asleep), settings)
    count = _maps(tissues).data.shape[1] if sodium else 0
    if count > len(SODIUM[0]):
        raise InputError(f"--sodium: expects up to {len(SODIUM[0])} tissues, got {count} maps")
    mean, deviation = (numbers[:count] for numbers in SODIUM)
    return Realigning(modelled=modelled, tissues=tissues, mean=mean, deviation=deviation, mode=mode)


def realign_files(
    given: str | Path,
    how: Realigning,
    out: str | Path,
    shown: FramesShown = unshown,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Realign the frames of a file, or of a folder, and write the results into `out`.

    These are the corrected frames, each resampled once, with the header of the file (`corrected.nii.gz`), their mean
    (`mean.nii.gz`), a table of the motion (`motion.csv`), a page that draws it (`motion.html`), the transform of each
    frame (`transforms/frame_0000.h5`, …), and `run.json`. Nothing is written before all has succeeded.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read, frames or tissues that cannot be used, no such frame, an unknown mode,
            or a folder that cannot be written.
    """
    named(how.chosen, dict.fromkeys(MODES), "-n")
    series, paths = _opened(given)
    refuse_sheared(series.grid, given)
    if how.at is not None and not 0 <= how.at < len(series):
        raise InputError(f"--at {how.at}: {given} has frames 0 to {len(series) - 1}")
    refuse_without(("jinja2", "matplotlib"))
    read = [*how.tissues, *(paths or [Path(given)])]
    with transaction(Path(out), read, [CORRECTED, MEAN, MOTION, PAGE, RECORD]) as folder:
        forget_peak_memory(CPU)
        begin = time.perf_counter()
        found, known = _found(series, how, given, shown)
        found = about_frame(found, how.at)
        seconds = time.perf_counter() - begin
        tally = _written(found, how.chosen, folder, given, paths, shown)
        write_image(tally.mean(AFTER), folder / MEAN, given if series.grid.ndim == 2 else None)
        rows = rows_of(found, known)
        write_csv(rows, folder / MOTION)
        names = [f"frame_{n:04d}" for n in range(len(series))]
        write_transforms(folder / TRANSFORMS, (found.transforms.nth(n) for n in range(len(series))), names)
        content: dict[str, Any] = manifest() | {
            "series": str(given),
            "tissues": [str(path) for path in how.tissues],
            "frames": len(series),
            "at": how.at,
            "interpolation": how.chosen,
            "direction": list(NOTES),
            "motion": motion_of(rows),
            "deviation over frames": {when: tally.deviation(when) for when in (BEFORE, AFTER)},
            **model_of(known),
            "seconds": {"realigning": round(seconds, 3), "all": round(time.perf_counter() - begin, 3)},
            "peak memory MB": round(peak_memory_mb(CPU), 1),
            "settings": settings_of(how.modelled if how.tissues else how.plain),
            **(about or {}),
        }
        spread = content["deviation over frames"]
        content["quality"] = {"passed": spread[AFTER] <= WORSE * spread[BEFORE]}
        write_motion_page(folder / PAGE, given, content, rows, tally)
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def _opened(given: str | Path) -> tuple[Series, list[Path]]:
    """Return the frames, and their files where each is one."""
    if Path(given).is_dir():
        paths = frames_in(given)
        return read_frames(paths), paths
    if not is_series(given):
        raise InputError(f"{given}: one image; a 4-D one, or a folder of frames, is expected")
    return read_series(given), []


# ---- the work


def _found(
    series: Series, how: Realigning, given: str | Path, shown: FramesShown
) -> tuple[Realigned, Corrected | None]:
    try:
        if not how.tissues:
            return how.plain(series, shown), None
        model = TissueModel(_maps(how.tissues), how.mean, how.deviation)
        if model.maps.grid.ndim != series.grid.ndim:
            raise InputError(f"the tissues are {model.maps.grid.ndim}-D and the frames {series.grid.ndim}-D")
        known = how.modelled(series, model, shown)
    except InputError as error:
        raise InputError(f"{given}: {error}") from error
    return known.realigned, known


def _maps(paths: Sequence[Path]) -> Image:
    """Read tissue maps, one of each file, or all of the one file that has several.

    Raises:
        InputError: a file that cannot be read, label maps, or maps on several grids.
    """
    if len(paths) == 1 and is_series(paths[0]):
        series = read_series(paths[0])
        maps = Image(torch.cat([frame.data for frame in series], 1), series.grid)
    else:
        maps = read_channels(paths)
    if len(paths) == 1 and maps.data.shape[1] == 1 and len(maps.data.unique()) > 2 and maps.data.max() > 1:
        raise InputError(
            f"{paths[0]}: a label map, it seems; give the probability of each tissue as a file of its own, --tissues "
            f"grey.nii.gz --tissues white.nii.gz, or all as frames of one"
        )
    return maps


def about_frame(found: Realigned, at: int | None) -> Realigned:
    """Return the same answer, with one frame where it was."""
    if at is None:
        return found
    matrix = found.motion.matrix
    start = replace(found.motion.start, matrix=torch.linalg.inv(matrix[at]) @ found.motion.start.matrix)
    return replace(found, motion=replace(found.motion, start=start))


def _written(
    found: Realigned, mode: str, folder: Path, given: str | Path, paths: Sequence[Path], shown: FramesShown
) -> Tally:
    """Write the corrected frames, one after the other, and return what was counted on the way."""
    corrected = found.corrected(mode)
    tally = Tally(found.series.frames[0])

    def frames() -> Iterator[Image]:
        for n in shown(range(len(corrected)), "writing"):
            frame = corrected.frames[n]
            tally.add(found.series.frames[n], frame)
            yield frame

    stream_series(frames(), folder / CORRECTED, paths[0] if paths else given, mode == "nearest", len(corrected))
    return tally
