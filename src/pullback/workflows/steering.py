"""Landmarks and labels that steer the registration of two files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pullback.alignment import Pair, Register
from pullback.energies import Energy, LandmarkMSE, SoftDice, Sum
from pullback.errors import InputError, did_you_mean, refuse
from pullback.files import read_points
from pullback.methods.pair.classical import Classical
from pullback.solvers import Constraint, DeformableStage, Refine
from pullback.space import LandmarkFit, Points, Transform, fit_landmarks, without
from pullback.workflows.clouds import Cloud
from pullback.workflows.partners import chosen, partners_of

LABELS_WEIGHT = 1.0
"""Of the soft Dice loss beside a similarity, both of which are 0 at best and 1 at worst."""


@dataclass(frozen=True)
class Steering:
    """The options that say what steers a registration beside the intensities.

    Attributes:
        moving_points: file of the landmarks that match those of the fixed image, by name or in order.
        fit: linear map between the landmarks to start from: rigid, similarity or affine; None starts otherwise.
        points_weight: of the mean squared distance of landmarks in mm², in the deformable stage; None leaves them out.
        check: names of landmarks, or their numbers from 1 where they have no names, that are measured and not used.
        labels: add the soft Dice loss of the labels in the deformable stage.
    """

    moving_points: str | Path | None = None
    fit: str | None = None
    points_weight: float | None = None
    check: Sequence[str] = ()
    labels: bool = False

    def refuse_alone(self, fixed_points: object, labels: Sequence[object]) -> None:
        """Refuse what lacks the files that it needs.

        Raises:
            InputError: landmarks of one side alone, or of none; labels of one side alone.
        """
        if fixed_points is None or self.moving_points is None:
            given = {
                "--moving-points": self.moving_points,
                "--points-weight": self.points_weight,
                "--check-points": self.check or None,
                "--start points": self.fit,
            }
            refuse(given, "needs --fixed-points and --moving-points, matched by name or in order")
        if None in labels:
            refuse({"--use-labels": self.labels or None}, "needs --fixed-labels and --moving-labels")
        if self.points_weight is not None and not 0 <= self.points_weight < float("inf"):
            raise InputError(
                f"--points-weight {self.points_weight:g}: a weight of 0 or more; 0.01 is one to begin with"
            )


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Matched landmarks of a pair.

    Attributes:
        fixed, moving: those that steer, `(1, N, d)` each.
        checks: those that are measured alone, of both sides; None measures the ones that steer.
        fit: the linear map between those that steer, where it is the start.
    """

    fixed: Points
    moving: Points
    checks: tuple[Points, Points] | None = None
    fit: LandmarkFit | None = None

    @property
    def start(self) -> Transform | None:
        """The transform to start from, fixed → moving."""
        return None if self.fit is None else self.fit.affine

    @property
    def agreeing(self) -> tuple[Points, Points]:
        """The landmarks that steer, but for those that do not agree with the rest."""
        return (
            (self.fixed, self.moving) if self.fit is None else (self.fixed[self.fit.kept], self.moving[self.fit.kept])
        )

    def on(self, pair: Pair) -> Pair:
        """Return a pair with the landmarks by which the answer is measured."""
        fixed, moving = self.checks or (self.fixed, self.moving)
        return replace(pair, fixed_points=fixed, moving_points=moving)

    def about(self) -> dict[str, Any]:
        """Return what `run.json` keeps."""
        measured = "held back" if self.checks else "those that steer"
        told: dict[str, Any] = {"steer": self.fixed.data.shape[1], "measured": measured}
        if self.checks:
            told["held back"] = self.checks[0].data.shape[1]
        if self.fit is not None:
            off, names = self.fit.off.tolist(), names_of(self.fixed)
            told["start leaves mm"] = dict(zip(names, (round(each, 3) for each in off), strict=True))
            told["do not agree"] = [name for name, kept in zip(names, self.fit.kept.tolist(), strict=True) if not kept]
        return told


def read_landmarks(
    steering: Steering,
    fixed: Cloud | None,
    space: str | None,
    pair: Pair,
    pixel: tuple[float, float] | None = None,
) -> Landmarks | None:
    """Read the moving landmarks, match them, hold back those for checks, and fit the start; None where there are none.

    Args:
        steering: the options.
        fixed: the fixed landmarks.
        space: as in `read_points`.
        pixel: of the moving ones, as in `read_points`.
        pair: the images; a landmark may be as far off as a voxel of the fixed one in any case.

    Raises:
        InputError: a file that cannot be read, landmarks that do not match, a check that is none of them, or too few
            that are left.
    """
    if fixed is None or steering.moving_points is None:
        return None
    read = read_points(steering.moving_points, space, pair.fixed.grid.ndim, pixel)
    other = Cloud(read, steering.moving_points, "points")
    one, two = chosen(fixed.points, other.points, partners_of(fixed, other, least=1))
    held = [_number(name, one) for name in steering.check]
    checks = (one[held], two[held]) if held else None
    one, two = without(one, held), without(two, held)
    if not one.data.shape[1]:
        raise InputError("--check-points holds back all landmarks; leave some to steer by")
    try:
        fit = steering.fit and fit_landmarks(one, two, steering.fit, float(pair.fixed.grid.spacing.max()))
    except InputError as error:
        raise InputError(f"{fixed.path}, {other.path}: {error}") from error
    return Landmarks(one, two, checks, fit or None)


def steered(
    register: Register | Refine, steering: Steering, landmarks: Landmarks | None, pair: Pair
) -> Register | Refine:
    """Return a register whose stages also follow the landmarks, and the deformable one the labels, of this pair.

    Raises:
        InputError: it is not the classical method, or labels are to steer a deformable stage that is not there.
    """
    points: list[Energy] = []
    known = pair
    if steering.points_weight and landmarks is not None:
        fixed, moving = landmarks.agreeing
        known = replace(known, fixed_points=fixed, moving_points=moving)
        points = [steering.points_weight * LandmarkMSE()]
    labels: list[Energy] = [LABELS_WEIGHT * SoftDice()] if steering.labels else []
    if not points and not labels:
        return register
    stage = register.deformable if isinstance(register, Classical) else None
    if not isinstance(register, Classical) or not (isinstance(stage, DeformableStage) or (stage is None and points)):
        options = {"--points-weight": steering.points_weight, "--use-labels": steering.labels}
        given = " and ".join(option for option, value in options.items() if value)
        raise InputError(f"{given}: steers the stages of the classical method, labels its deformable one; not here")
    known = known.to(pair.fixed.data.device)
    if points:
        by_points = Constraint(Sum(tuple(points)), known)
        linear = tuple((name, replace(each, constraint=by_points)) for name, each in register.linear)
        register = replace(register, linear=linear)
    if isinstance(stage, DeformableStage):
        stage = replace(stage, constraint=Constraint(Sum((*points, *labels)), known))
    return replace(register, deformable=stage)


def told_of(landmarks: Landmarks | None, numbers: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say what became of the landmarks, in sentences."""
    if landmarks is None:
        return []
    lines = []
    if landmarks.fit is not None:
        names, off, kept = names_of(landmarks.fixed), landmarks.fit.off.tolist(), landmarks.fit.kept.tolist()
        lines += [
            f"landmark {name} is {mm:.1f} mm off where the others agree, and was left out: is it in its place?"
            for name, mm, agrees in zip(names, off, kept, strict=True)
            if not agrees
        ]
    before, after = (numbers[side].get("tre mm", float("nan")) for side in ("before", "after"))
    which = "that were held back" if landmarks.checks else "that steered, so this tells no accuracy"
    return [*lines, f"landmarks {which}: {before:.2f} → {after:.2f} mm from their matches"]


def names_of(points: Points) -> Sequence[str]:
    """Return the names of points, or their numbers from 1."""
    return points.name or [str(n + 1) for n in range(points.data.shape[1])]


def _number(name: str, points: Points) -> int:
    known = list(names_of(points))
    if name not in known:
        raise InputError(f"--check-points {name}: there is no such landmark{did_you_mean(name, known)}")
    return known.index(name)
