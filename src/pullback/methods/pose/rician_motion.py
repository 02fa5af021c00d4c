"""Rician motion correction: the frames of a noisy series onto a model of tissues, by the likelihood of their noise.

Simpson et al.: Motion correction in low SNR MRI using an approximate Rician log-likelihood, WBIR 2022. Tissue maps
times intensities are moved rigidly into each frame and compared there by the Rice distribution; intensities, deviation
of the noise and motions are found together, as the most probable ones a posteriori (eqs. 1 to 3, 6).

Decided here, where the paper is silent or another way is better:

- log I₀ is exact, for the sum of 51 terms (eq. 5) is far off where yŷ/σ² exceeds 80; see `numerics.bessel`.
- Intensities and σ are found by expectation maximisation, whose steps have no rate and never worsen the posterior;
  motions by damped scoring, each frame by itself, in place of Adam's fixed steps.
- A turn is the exponential of a vector, about the middle of the tissues. Each prior is ½ z² beside the sum over voxels;
  eq. 6 as printed adds log p(x) with the wrong sign.
- The point spread of the scanner is a Gaussian, which commutes with rigid motion: the maps are blurred once.
- In the first rounds the model is blurred more, so that large motions are found.
- Intensities have no prior unless one is given: the paper's is of sodium, in mM. Its scale is fitted to the frames.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pose.tissue_intensities import Shared, begun, refined
from pullback.methods.pose.tissue_model import NoisyFrames, TissueModel
from pullback.numerics.noise import Noise, RiceNoise
from pullback.solvers.levenberg import Curved, Levenberg
from pullback.solvers.realigned import FramesShown, Realigned, unshown
from pullback.solvers.seen_rigidly import Places, scored, seen_at, with_slopes
from pullback.space import Affine, Image, Motion, Series
from pullback.stats import Stats

FAR = 3.0
"""Deviations of the prior, beyond which a motion is doubtful."""
VOXELS = 0.6
"""Point spread of a scanner where nobody says, σ in voxels of the frames."""


@dataclass(frozen=True, eq=False)
class Corrected:
    """The answer of motion correction.

    Attributes:
        realigned: the series and its motions, frame → tissues.
        intensities: of the tissues, `(K,)`, in units of the frames.
        sigma: deviation of the noise.
        surprise: −log p of each frame's voxels, `(T,)`.
        history: the negative log posterior after each half of the rounds in which the model is as sharp as it gets.
        doubts: what may be wrong, in words.
    """

    realigned: Realigned
    intensities: Tensor
    sigma: float
    surprise: Tensor
    history: tuple[float, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Posed:
    """The negative log posterior of frames by their motions, with all else known.

    Attributes:
        image: what the model looks like, with its slopes.
        sigma: deviation of the noise.
        noise: its law.
        places: the voxels that are looked at.
        deviations: of the parameters of motions a priori, `(K,)`.
    """

    image: Image
    sigma: Tensor
    noise: Noise
    places: Places
    deviations: Tensor

    @classmethod
    def of(cls, maps: Image, known: Shared, noise: Noise, places: Places, deviations: Tensor) -> "Posed":
        """Return it for tissue maps and their intensities."""
        one = torch.einsum("bk...,k->b...", maps.data, known.intensities.to(maps.data))[:, None]
        return cls(with_slopes(Image(one, maps.grid)), known.sigma.to(maps.data), noise, places, deviations)

    def __call__(self, y: Tensor, motion: Motion) -> Curved:
        """Return value `(B,)`, slope and curvature for frames `y` `(B, N)` and as many motions."""
        seen, _ = seen_at(self.image, motion, self.places)
        surprise, score, information = self.noise.judged(y, seen[:, 0], self.sigma)
        slope, curvature = scored(self.places.rows(motion), self.places.products(seen[:, 1:]), score, information)
        z = motion.coefficients / self.deviations
        value = surprise.double().sum(1) + z.square().sum(1) / 2
        return value, slope + z / self.deviations, curvature + torch.diag(self.deviations**-2)


@dataclass(frozen=True)
class MotionCorrection:
    """Motion correction of magnitude frames by a model of tissues.

    Attributes:
        noise: the law by which frames scatter about the model.
        shift: deviation expected of shifts along each axis, mm.
        turn: of turns about each axis, radians.
        asleep: doubles both, as the paper does for people who sleep.
        spread: σ of the scanner's point spread, mm; 0 stands for 0.6 voxels of the frames.
        blurs: σ by which the model is blurred beside that, in voxels of the frames, round by round; the last stays.
        rounds: of intensities and motions after each other, at most.
        shared: steps for intensities and σ in each round.
        air: voxels without tissue that are looked at, too: they hold σ.
        settled: mm by which motions change in the last round, at the edge of the tissues.
        solver: of the motions in each round; its parameters are in mm at the edge of the tissues.

    Raises:
        InputError: no round, or deviations that are not above 0.
    """

    noise: Noise = RiceNoise()
    shift: float = 1.25
    turn: float = 0.025
    asleep: bool = False
    spread: float = 0.0
    blurs: tuple[float, ...] = (2.0, 2.0, 1.0, 1.0, 0.0)
    rounds: int = 14
    shared: int = 3
    air: int = 5000
    settled: float = 0.02
    solver: Levenberg = Levenberg(4, until=0.01)

    def __post_init__(self) -> None:
        if not (self.shift > 0 and self.turn > 0 and self.rounds > 0 and self.blurs):
            raise InputError(
                f"MotionCorrection: deviations of motions above 0 and one round or more expected, got {self}"
            )

    @torch.no_grad()
    def __call__(self, series: Series, model: TissueModel, shown: FramesShown = unshown) -> Corrected:
        """Find where each frame lies, and the intensities of the tissues.

        Args:
            series: magnitudes, two frames or more, of one channel.
            model: of the head, in the same world.
            shown: tells progress.

        Raises:
            InputError: one frame, negative or zero-filled frames, or tissues that lie elsewhere.
        """
        edge = float(series.grid.spacing.min())
        motion = Motion.rigid(Affine.identity(series.grid.ndim), model.box)
        deviations = self.deviations(motion)
        frames = NoisyFrames.of(series, model, 2 * edge + FAR * float(deviations.max()), self.air)
        places = Places.of(frames.points, motion.centre, frames.values)
        motion = motion.with_params(motion.coefficients.new_zeros(len(series), len(deviations)))
        known: Shared | None = None
        history: list[float] = []
        for n in range(self.rounds):
            blur = self.blurs[min(n, len(self.blurs) - 1)]
            maps = model.blurred(math.hypot(self.spread or VOXELS * edge, blur * edge))
            tissues = seen_at(maps, motion, places)[0]  # (T, K, N)
            if known is None:
                known = begun(frames.values, tissues[0], frames.sigma, model.mean, model.deviation)
            known, surprise = refined(frames.values, tissues, known, self.noise, self.shared)
            posed, before = Posed.of(maps, known, self.noise, places, deviations), motion
            history.append(float(surprise.sum() + known.surprise + _improbable(motion, deviations)))
            motion, values = self._moved(frames.values, posed, motion, shown, f"round {n + 1}")
            history.append(float(values.sum() + known.surprise))
            if n + 1 >= len(self.blurs) and self._settled(before, motion):
                break
        assert known is not None
        stats = Stats(energies=torch.tensor(history, dtype=torch.float64), steps=n + 1)
        z = motion.coefficients / deviations
        return Corrected(
            Realigned(series, motion, stats),
            known.intensities,
            float(known.sigma),
            values - z.square().sum(1) / 2,
            tuple(history[2 * len(self.blurs) - 2 :]),
            self._doubts(z),
        )

    def deviations(self, motion: Motion) -> Tensor:
        """Return what is expected of the parameters of a motion, deviations in mm `(K,)`.

        A unit of a turn moves the edge of the box by a mm: its generator is one over that radius.
        """
        radius = 1 / motion.generators.abs().amax((1, 2)).min()
        turns = motion.generators[:, :-1, :-1].flatten(1).any(1)
        return torch.where(turns, self.turn * radius, self.shift) * (2 if self.asleep else 1)

    def _moved(
        self, values: Tensor, posed: Posed, motion: Motion, shown: FramesShown, what: str
    ) -> tuple[Motion, Tensor]:
        """Move each frame by itself, and return the motions and their negative log posteriors."""
        found, least = motion.coefficients.clone(), []
        for n in shown(range(len(found)), what):
            solved, _ = self.solver(
                lambda c, y=values[n : n + 1]: posed(y, motion.with_params(c)),  # type: ignore[misc]
                found[n : n + 1],
            )
            found[n] = solved[0]
            least.append(posed(values[n : n + 1], motion.with_params(solved))[0])
        return motion.with_params(found), torch.cat(least)

    def _settled(self, before: Motion, after: Motion) -> bool:
        return float((after.coefficients - before.coefficients).norm(dim=1).max()) <= self.settled

    def _doubts(self, z: Tensor) -> tuple[str, ...]:
        """Say which motions the prior holds for improbable."""
        far = [str(n) for n, each in enumerate((z.abs() > FAR).any(1).tolist()) if each]
        if not far:
            return ()
        remedy = "" if self.asleep else "; --asleep expects twice as much"
        listed = ", ".join(far[:12]) + (", …" if far[12:] else "")
        return (f"moved by more than {FAR:g} deviations of what is expected: frames {listed}{remedy}",)


def _improbable(motion: Motion, deviations: Tensor) -> Tensor:
    """Return the negative log prior of all motions."""
    return (motion.coefficients / deviations).square().sum() / 2


METHOD = Method(
    about="motion of the frames of a very noisy series, such as sodium MR, by tissue maps and the Rice distribution",
    aligns=("series",),
    papers=(
        Paper(
            "simpson2022motion",
            "Simpson, Ivor J. A. and Örzsik, Balázs and Harrison, Neil and Asllani, Iris and Cercignani, Mara",
            "Motion Correction in Low SNR MRI Using an Approximate Rician Log-Likelihood",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_16",
        ),
    ),
    commands=("realign -i SERIES --tissues MAPS",),
)
