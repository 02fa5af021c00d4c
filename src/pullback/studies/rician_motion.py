"""The study of Rician motion correction (Simpson et al. 2022): four likelihoods over noise, real frames, other tools.

    pullback study rician-motion noise --data brains=DIR --seed 0 1 2
    pullback study rician-motion terms --data brains=DIR --seed 0
    pullback study rician-motion asl --data asl=DIR --seed 0
    pullback study rician-motion tools --data fmri=DIR --seed 0

`noise` is the paper's synthetic experiment: four frames of a head of five tissues, 4 mm, intensities by the prior of
sodium that vary from voxel to voxel, shifts with a variance of 5 mm² and turns of 0.1 along each axis. The prior of the
motions is the law they are drawn by; the paper does not say which it took. All arms take the same steps, and differ in
the likelihood alone. `terms` has the fourth, with log I₀ by 51 terms as in the paper; these take so long that frames
have voxels of 8 mm there.

`asl` are six real frames of arterial spin labelling, of which nobody says that they moved, made to move, with Rician
noise of a share of the head's mean intensity. The tissues are classes of intensity in a T1 of the same head, laid on
the mean frame by the rigid stage of `fast`.

`tools` is a functional image made to move six times: ours, and ANTs' and SimpleITK's, each in its standard way, in one
run. What is found is told against the first frame, wherever a tool lays the series.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pullback.data.phantoms.noisy_series import SODIUM, NoisySeries
from pullback.errors import InputError
from pullback.files import write_image, write_series
from pullback.files.transforms.ants import read_ants
from pullback.methods.pose.rician_motion import MotionCorrection
from pullback.methods.pose.tissue_model import TissueModel
from pullback.numerics.noise import GaussianNoise, Noise, RiceNoise, RicianMeanNoise
from pullback.solvers.realign import Realign
from pullback.solvers.realigned import Realigned
from pullback.space import Affine, Motion, Series, Transform
from pullback.studies._series import MadeSeries, MovedSeries, errors, noise_over_frames, poses_of, sharpness
from pullback.study.arms import Arm, FunctionArm
from pullback.study.figures import by_number
from pullback.study.peers import RigidSimpleITK
from pullback.study.result import Result
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import Row

# ---- noise


def over_noise(data: MadeSeries, seed: int, noise: Noise | None) -> Iterator[Row]:
    """Measure motion correction by one law at each level of noise; without a law, frames that stay where they are."""
    model = TissueModel(data.maps, *SODIUM)
    for sigma in data.sigmas:
        series, intensities = data.series(sigma, seed)
        row: Row = {"case": f"σ {sigma:g}", "noise": sigma}
        if noise is None:
            yield row | _off([Affine.identity(3)] * len(series), series)
            continue
        begin = time.perf_counter()
        found = MotionCorrection(noise, shift=data.law.shift, turn=data.law.turn)(series, model)
        seconds = time.perf_counter() - begin
        yield (
            row
            | _off(poses_of(found.realigned.motion), series)
            | {
                "intensities": float((found.intensities.float() - intensities).abs().mean()),
                "σ off %": 100 * abs(found.sigma / sigma - 1),
                "seconds a frame": seconds / len(series),
            }
        )


def _off(found: Sequence[Affine], series: Series) -> Row:
    """Return the paper's errors of shifts and turns, and the distance over the frame."""
    centre = series.grid.centre
    shifts, turns = [], []
    for one, other in zip(found, series.truths, strict=True):
        truth = other.as_affine
        assert truth is not None
        shifts.append(float((one(centre[None]) - truth(centre[None])).norm()))
        apart = one.matrix[:3, :3].T @ truth.matrix[:3, :3].to(one.matrix)
        turns.append(float(((apart.trace() - 1) / 2).clamp(-1, 1).acos()))
    mean = torch.tensor([errors(found, series), shifts, turns]).mean(1).tolist()
    return {"error mm": mean[0], "shift mm": mean[1], "turn rad": mean[2]}


# ---- real frames that are made to move

Corrects = Callable[[MovedSeries, Series], Realigned]


def still(data: MovedSeries, series: Series) -> Realigned:
    """Return the frames where they are."""
    motion = Motion.rigid(Affine.identity(3), series.grid)
    return Realigned(series, motion.with_params(torch.zeros(len(series), 6, dtype=torch.float64)))


def to_mean(data: MovedSeries, series: Series) -> Realigned:
    """Realign by correlation with the mean."""
    return Realign()(series)


def to_tissues(data: MovedSeries, series: Series, asleep: bool, noise: Noise = RiceNoise()) -> Realigned:
    """Correct by the tissues of the T1; their intensities are not expected, for the prior is of sodium."""
    return MotionCorrection(noise, asleep=asleep)(series, TissueModel(data.tissues)).realigned


def in_place(data: MovedSeries, series: Series) -> Realigned:
    """Return the truth."""
    motion = Motion.rigid(Affine.identity(3), series.grid)
    known = [truth.as_affine for truth in series.truths]
    start = Affine(torch.stack([one.matrix for one in known if one is not None]))
    return Realigned(series, Motion.rigid(start, series.grid) if len(known) > 1 else motion)


def moved_frames(data: MovedSeries, seed: int, correct: Corrects) -> Iterator[Row]:
    """Measure what a way to correct makes of frames that were moved, at each level of noise."""
    level = float(data.mean.data[data.head].mean())
    for share in data.sigmas:
        series = data.series(share, seed)
        begin = time.perf_counter()
        found = correct(data, series)
        seconds = time.perf_counter() - begin
        corrected = found.corrected("nearest")
        yield {
            "case": f"noise {share:g}",
            "share": share,
            "error mm": torch.tensor(errors(poses_of(found.motion), series, against_first=True)).mean().item(),
            "σ over frames": noise_over_frames(corrected, data.head, share * level),
            "sharpness": sharpness(found.mean("nearest"), data.head),
            "seconds a frame": seconds / len(series),
        }


# ---- other tools

Lays = Callable[[Series, Path], list[Transform]]


def by_ours(series: Series, folder: Path) -> list[Transform]:
    """Realign by `pullback realign`, without its files."""
    return list(poses_of(Realign()(series).motion))


def by_ants(series: Series, folder: Path) -> list[Transform]:
    """Realign by ANTsPy's motion correction, as it is by default: rigid, onto the mean of the frames.

    Raises:
        InputError: antspyx is not installed.
    """
    try:
        ants = import_module("ants")
    except ImportError as error:
        raise InputError("ANTs needs antspyx: pip install 'pullback[peers]'") from error
    image = ants.image_read(str(folder / "series.nii.gz"))
    found = ants.motion_correction(image, outprefix=f"{folder}/moco")["motion_parameters"]
    return [read_ants(files).inverse() for files in found]


def by_simpleitk(series: Series, folder: Path) -> list[Transform]:
    """Register each frame to the mean of all by SimpleITK, rigidly."""
    write_image(still(MovedSeries(), series).mean("linear"), folder / "mean.nii.gz")
    found = []
    for n, frame in enumerate(series):
        write_image(frame, folder / f"{n}.nii.gz")
        found.append(
            RigidSimpleITK(levels=3)(folder / "mean.nii.gz", folder / f"{n}.nii.gz", folder).transform.inverse()
        )
    return found


def beside(data: MovedSeries, seed: int, lay: Lays) -> Iterator[Row]:
    """Measure one tool on a series, which is written to a file first."""
    for share in data.sigmas:
        series = data.series(share, seed)
        with TemporaryDirectory() as folder:
            write_series(series, Path(folder) / "series.nii.gz")
            begin = time.perf_counter()
            found = lay(series, Path(folder))
            seconds = time.perf_counter() - begin
        off = torch.tensor(errors(found, series, against_first=True))
        yield {
            "case": f"noise {share:g}",
            "share": share,
            "error mm": off.mean().item(),
            "worst mm": off.max().item(),
            "seconds a frame": seconds / len(series),
        }


def each_row(result: Result) -> list[Row]:
    """Return the arms' rows with their names."""
    return [{"arm": arm, **row} for arm, rows in result.rows.items() for row in rows]


def _arms(function: Any, ways: dict[str, Any], name: str) -> dict[str, Arm]:
    return {arm: FunctionArm(partial(function, **{name: way})) for arm, way in ways.items()}


LAWS: dict[str, Noise | None] = {
    "before": None,
    "Gaussian": GaussianNoise(),
    "Rician": RiceNoise(),
    "Gaussian about the Rician mean": RicianMeanNoise(),
}
TERMS: dict[str, Noise | None] = {"exact": RiceNoise(), "51 terms": RiceNoise(50)}
COARSE = MadeSeries(sigmas=(5.0, 10.0, 20.0, 40.0), law=NoisySeries(frames=4, spacing=8.0))
WAYS: dict[str, Corrects] = {
    "none": still,
    "correlation with the mean": to_mean,
    "tissues, Rician": partial(to_tissues, asleep=False),
    "tissues, Rician, asleep": partial(to_tissues, asleep=True),
    "truth": in_place,
}
ERROR = Column("error", "mm", better="less", digits=2)
SECONDS_EACH = Column("time", "s a frame", better="less", against="ratio", digits=2, key="seconds a frame")
SEEN = (
    ERROR,
    Column("σ over frames", better="less", digits=3),
    Column("sharpness", better="more", digits=4),
    SECONDS_EACH,
)
MADE = (
    ERROR,
    Column("shift", "mm", better="less", digits=2),
    Column("turn", "rad", better="less", digits=4),
    Column("intensities", "mM", better="less", digits=1, key="intensities"),
    Column("σ off", "%", better="less", digits=1, key="σ off %"),
    SECONDS_EACH,
)
OVER_NOISE = Figure(
    partial(by_number, columns=(ERROR, Column("turn", "rad")), number="noise", label="σ, mM"),
    each_row,
    ("arm", "noise"),
)

study = Study(
    about="Motion correction in low SNR MRI using an approximate Rician log-likelihood (Simpson et al. 2022)",
    tables={
        "noise": Table(
            "Motion by three likelihoods, over the noise",
            "Figure 2, curves: the errors of a Gaussian likelihood rise quickly with the noise, those of the Rician "
            "one hardly; σ = 40 is like sodium.",
            {"brains": Experiment(_arms(over_noise, LAWS, "noise"), "Rician", MadeSeries())},
            MADE,
            {"over noise": OVER_NOISE},
        ),
        "terms": Table(
            "Motion, intensities and noise by log I₀ as it is, and by its first 51 terms",
            "3.2: 50 terms are precise enough.",
            {"brains/8 mm": Experiment(_arms(over_noise, TERMS, "noise"), "exact", COARSE)},
            MADE,
            {"over noise": OVER_NOISE},
        ),
        "asl": Table(
            "Real frames made to move, and frames that hardly move",
            "Figures 3 and 5, on sodium of four people: where heads moved, σ over frames falls and edges are steeper "
            "than by mcflirt and without correction; awake, either correction may raise σ.",
            {
                "asl/moving": Experiment(_arms(moved_frames, WAYS, "correct"), "none", MovedSeries()),
                "asl/still": Experiment(
                    _arms(moved_frames, WAYS, "correct"), "none", MovedSeries(shift=0.3, turn=0.004)
                ),
            },
            SEEN,
            {
                "by noise": Figure(
                    partial(by_number, columns=(ERROR, SEEN[1]), number="share", label="noise"),
                    each_row,
                    ("arm", "share"),
                )
            },
        ),
        "tools": Table(
            "A series realigned by ours, ANTs and SimpleITK",
            "None: the paper has mcflirt, which is not at hand here.",
            {
                "fmri": Experiment(
                    _arms(beside, {"ours": by_ours, "ANTs": by_ants, "SimpleITK": by_simpleitk}, "lay"),
                    "ours",
                    MovedSeries(file="fmri_pitch.nii.gz", frames=6, sigmas=(0.1,)),
                )
            },
            (ERROR, Column("worst", "mm", better="less", of="max", digits=2), SECONDS_EACH),
        ),
    },
)
