"""Broken geodesics: stationary velocities one after another, each found where the one before has left the images.

Thottupattu, Sivaswamy, Krishnan: A method for image registration via broken geodesics (WBIR 2022). One exponential
saturates, for every update is smoothed together with the whole velocity; a new piece begins with a clean one. The
length of the path serves as an approximate distance of two anatomies (eq. 1, 2). Its Algorithm 1 is known by its inputs
and its result alone; decided here: each piece is run from no motion until it has converged, pieces end where they gain
less than 2 % of the difference before any, none is kept that raises it, and ‖v‖ is the root mean square over the
foreground, in mm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.energies import MSE, Energy
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.log_demons import LogDemons, on_fixed_grid
from pullback.metrics import piece_lengths
from pullback.solvers import Refine, Stalled, timed
from pullback.space import Affine, Flow, Image, Transform, joined
from pullback.stats import Stats


@dataclass(frozen=True)
class BrokenGeodesics:
    """A register by a flow φ = exp(v₁) ∘ … ∘ exp(v_N), with pieces that another register finds one by one.

    The moving image is pulled through all pieces so far, from its own voxels, and registered again; the new piece joins
    on the right, so that it moves what the others have moved. The inverse is the flow back. Smooth pieces do not fold,
    and so the whole does not.

    Attributes:
        by: finds a piece: any register of two images on one grid that answers with a `Velocity` or a `Flow`, on the
            same grid each time, such as `LogDemons` or a `DeformableStage`. The contrasts of images may differ where
            the latter descends local correlation; by small steps, for later pieces have little left to do.
        pieces: N, at most.
        until: looks at the values of `energy` so far, the first without motion, and says whether to stop.
        energy: is to fall with each piece; that of the paper.

    Raises:
        InputError: no piece.
    """

    by: Refine = LogDemons()
    pieces: int = 5
    until: Callable[[Sequence[float]], bool] = Stalled(1, 0.02)
    energy: Energy = MSE()

    def __post_init__(self) -> None:
        if self.pieces < 1:
            raise InputError(f"BrokenGeodesics: one piece or more expected, got {self.pieces}")

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself.

        The answer is start ∘ flow. Its stats have a stage for each piece that was tried, and as numbers the length of
        the path ("length mm"), that of each piece ("length mm/1" …) and how many there are ("pieces").

        Raises:
            InputError: `by` answers with what is no flow, or with pieces on other grids.
        """
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        pair, begin = Pair(fixed, moving), start or Affine.identity(fixed.grid.ndim)
        whole: Transform = begin
        found: list[Flow] = []
        values, stats = [self._value(pair, begin)], Stats(start=start)
        for n in range(1, self.pieces + 1):
            seen = Pair(fixed, on_fixed_grid(fixed, moving, whole if found or start else None))
            answer = timed(seen, self.by, name=f"piece {n}")
            stats = stats.then(answer.stats)
            flow = joined([*found, answer.transform])
            values.append(self._value(pair, begin @ flow))
            if not values[-1] < values[-2]:
                break
            found, whole = [flow], begin @ flow
            if self.until(values):
                break
        path = found[0] if found else replace(flow, field=torch.zeros_like(flow.field))
        lengths = piece_lengths(Alignment(pair, path))
        each = {f"length mm/{n}": length for n, length in enumerate(lengths, 1)}
        numbers = {"length mm": sum(lengths), **each, "pieces": float(path.pieces)}
        return Alignment(pair, path if start is None else whole, stats=replace(stats, numbers=numbers))

    @torch.no_grad()
    def _value(self, pair: Pair, transform: Transform) -> float:
        return float(self.energy(Alignment(pair, transform)))


METHOD = Method(
    about="large deformations in pieces by log-demons, with the length of their path; no training",
    aligns=("pair",),
    papers=(
        Paper(
            "thottupattu2022broken",
            "Thottupattu, Alphin J. and Sivaswamy, Jayanthi and Krishnan, Venkateswaran P.",
            "A Method for Image Registration via Broken Geodesics",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    register=BrokenGeodesics(),
    solves=("identity", "shift", "smooth", "anisotropic", "thin", "batch"),
)
