"""MO-BCPD: surfaces of several organs of one body, brought onto those of another.

Joutard et al.: A Multi-Organ Point Cloud Registration Algorithm for Abdominal CT Registration, WBIR 2022. Points of one
organ move together, points of two as much as a matrix says (`organ_kernel`); which points belong together is found with
pose and shape in turns (`coherent_drift`), and labels that are confused are healed on the way.

A wrong label of a fixed point also sits in the prior of how it moves, where the paper's confusion does not reach. So a
second pass begins anew with the labels that the first one judged right, and the one of greater evidence is kept: a
label that differs from its partner's may be wrong on either side.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor, nn

from pullback.errors import InputError, refuse
from pullback.example import PointAlignment, PointPair
from pullback.methods.method import Method, Paper
from pullback.methods.points.coherent_drift import CoherentDrift, DriftState, LabelledClouds
from pullback.methods.points.organ_kernel import OrganField, OrganKernel
from pullback.methods.points.shared_organs import SharedOrgans
from pullback.stats import Stats

VAGUE = 0.1  # of an organ's extent: a σ above it shows that surfaces do not fit
SCALES = 0.5, 2.0  # of one body by another
SURE = 0.9  # of another label, by the posterior, to take it

PerOrgan = float | tuple[float, ...]
PerPair = float | tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class MOBCPD:
    """A register of two clouds with labels, such as outlines of organs, in 2-D or 3-D.

    Numbers of organs are one for all, or a list in the order of the labels that take part. The better segmentation
    belongs on the fixed side: there a wrong label also says how a point moves.

    Attributes:
        labels: that take part; none given are those that both clouds have.
        known: whether labels count; without them it is BCPD (Hirose 2021).
        coherence: S, of the motion of two organs: 0, each moves by itself, up to 1, as one; or a matrix.
        bandwidth: B in mm, how far motion reaches within an organ.
        magnitude: Λ in mm, the deviation of a displacement along an axis; 0 leaves the pose alone.
        confusion: U: the share of wrong labels, spread over all others; or a matrix, the probability of a moving label
            (column) for each fixed one (row).
        passes: 2 begins anew with the fixed labels that were judged right, where they differ, and takes the pass that
            explains more; 1 does not.
        tolerance: share of the variance that the low rank leaves out.
        rank: at most.
        drift: finds partners, pose and displacement in turns.
    """

    labels: tuple[int, ...] = ()
    known: bool = True
    coherence: PerPair = 0.0
    bandwidth: PerOrgan = 30.0
    magnitude: PerOrgan = 10.0
    confusion: PerPair = 0.0
    passes: int = 2
    tolerance: float = 1e-3
    rank: int = 1000
    drift: CoherentDrift = CoherentDrift()

    @torch.no_grad()
    def __call__(self, pair: PointPair, network: nn.Module | None = None) -> PointAlignment:
        """Return the alignment, with the deviation of each fixed point, its number of partners and their label.

        Raises:
            InputError: a network, surfaces beside the clouds, no organ that both have, clouds that are not in mm, or
                numbers that do not fit the organs.
        """
        refuse({"--network": network, "surfaces": pair.surfaces}, "mo-bcpd looks at points and their labels alone")
        taken = SharedOrgans.of(pair, self.labels, self.known)
        count = len(taken.values)
        kernel = OrganKernel(
            _matrix(self.coherence, count, "coherence"),
            _each(self.bandwidth, count, "bandwidth"),
            _each(self.magnitude, count, "magnitude"),
        )
        clouds = taken.clouds(_confusion(self.confusion, count))
        found = self._drifted(clouds, kernel, taken)
        for _ in range(self.passes - 1):
            if torch.equal(found.judged, clouds.organs):
                break
            again = self._drifted(replace(clouds, organs=found.judged), kernel, taken)
            found = max(found, again, key=lambda each: each.evidence(clouds))
        return _answer(taken, found, kernel, len(found.sigmas) < self.drift.turns)

    def _drifted(self, clouds: LabelledClouds, kernel: OrganKernel, taken: SharedOrgans) -> "_Found":
        """Return what the drift finds from the start."""
        factor, pivots = kernel.factor(clouds.fixed, clouds.organs, self.tolerance, self.rank)
        begin = self.drift.begin(clouds, factor)
        if taken.far:
            if self.drift.pose == "none":
                raise InputError(f"{taken.far}; pose=none leaves them there: take rigid or similarity")
            off = clouds.moving.mean(0) - clouds.fixed.mean(0)
            near = self.drift.begin(replace(clouds, moving=clouds.moving - off), factor)
            begin = replace(near, pose=replace(near.pose, shift=off))
        return _Found(clouds, factor, pivots, *self.drift(clouds, factor, begin))


@dataclass(frozen=True, eq=False)
class _Found:
    """The end of a pass: the clouds as it saw them, their covariance, the state, and σ in mm after each turn."""

    clouds: LabelledClouds
    factor: Tensor
    pivots: Tensor
    state: DriftState
    sigmas: list[float]

    @property
    def judged(self) -> Tensor:
        """The organ `(M,)` of each fixed point: another than was told where the posterior is sure of it."""
        assert self.state.met is not None
        share, best = (self.state.met.shares / self.state.met.partners[:, None].clamp(min=1e-20)).max(1)
        return torch.where(share > SURE, best, self.clouds.organs)

    def evidence(self, told: LabelledClouds) -> float:
        """Return the lower bound of the evidence, of the fixed labels too: those that are not as told are confused."""
        organs, before = self.clouds.organs, told.organs
        confused = told.confusion[before, organs].log() - told.confusion[before, before].log()
        return self.state.bound + float(confused.sum())

    @property
    def seen_as(self) -> Tensor:
        """The sum of partners `(L, L)` of each organ (row) by their labels (column)."""
        assert self.state.met is not None
        shares = self.state.met.shares
        return shares.new_zeros(shares.shape[1], shares.shape[1]).index_add(0, self.clouds.organs, shares)


def _each(number: PerOrgan, count: int, name: str) -> Tensor:
    """Return a number of each of `count` organs, float64."""
    if isinstance(number, tuple) and len(number) != count:
        raise InputError(f"{name}: one number, or {count}, of the organs that both have, expected, got {list(number)}")
    return torch.tensor(number, dtype=torch.float64).expand(count)


def _matrix(number: PerPair, count: int, name: str) -> Tensor:
    """Return a matrix of `count` organs, float64: as given, or 1 on the diagonal and a number elsewhere."""
    if isinstance(number, tuple):
        if {len(row) for row in number} | {len(number)} != {count}:
            raise InputError(
                f"{name}: one number, or {count} rows of {count}, expected, got {[list(r) for r in number]}"
            )
        return torch.tensor(number, dtype=torch.float64)
    if not 0 <= number <= 1:
        raise InputError(f"{name}: 0 to 1 expected, got {number:g}")
    return torch.full((count, count), float(number), dtype=torch.float64).fill_diagonal_(1.0)


def _confusion(number: PerPair, count: int) -> Tensor:
    """Return U of `count` organs, whose rows are probabilities."""
    found = _matrix(number, count, "confusion")
    if not isinstance(number, tuple) and count > 1:
        found = found / (count - 1)
        found.fill_diagonal_(1.0 - number)
    if bool((found < 0).any()) or bool(((found.sum(1) - 1).abs() > 1e-6).any()):
        raise InputError(f"confusion: rows of probabilities, 1 in sum, expected, got {found.tolist()}")
    return found


def _answer(taken: SharedOrgans, found: _Found, kernel: OrganKernel, ended: bool) -> PointAlignment:
    state, clouds = found.state, found.clouds
    assert state.met is not None
    field = OrganField.of(kernel, taken.fixed, clouds.organs, found.factor, found.pivots, state.at)
    columns = {"deviation mm": state.pose.scale * state.variance.sqrt(), "partners": state.met.partners}
    remarks = taken.remarks
    if len(taken.values) > 1:
        columns["label of partners"] = torch.tensor(taken.values).to(found.judged)[found.judged]
        wrong = int((found.judged != taken.organs).sum())
        remarks += (f"{wrong} fixed points have partners of another label",) if wrong else ()
    numbers = {
        "sigma mm": state.sigma,
        "scale": state.pose.scale,
        "partners %": 100 * float(state.met.found.mean()),
        "rank": float(len(found.pivots)),
    }
    stats = Stats(steps=len(found.sigmas), stopped="converged" if ended else "steps", numbers=numbers)
    transform = state.pose.about(taken.fixed.mean(0)) @ field
    return PointAlignment(taken.pair, transform, columns, stats, remarks, _doubts(taken, found))


def _doubts(taken: SharedOrgans, found: _Found) -> tuple[str, ...]:
    state, clouds, said = found.state, found.clouds, []
    assert state.met is not None
    extents = [clouds.fixed[clouds.organs == n] for n in clouds.organs.unique().tolist()]
    extent = sum(float((each.amax(0) - each.amin(0)).max()) for each in extents) / len(extents)
    if state.sigma > VAGUE * state.pose.scale * extent:
        said.append(
            f"surfaces lie {state.sigma:.1f} mm apart, of organs {extent:.0f} mm wide; do they belong together?"
        )
    if float(state.met.found.mean()) < 0.5:
        said.append(f"{100 * float(state.met.found.mean()):.0f} % of the moving points have a partner")
    if not SCALES[0] <= state.pose.scale <= SCALES[1]:
        said.append(f"one body is {state.pose.scale:.2f} times as large as the other; are both in mm?")
    seen = found.seen_as
    for one, other in combinations(range(len(seen)), 2):
        if int(seen[one].argmax()) == other and int(seen[other].argmax()) == one:
            said.append(f"labels {taken.values[one]} and {taken.values[other]} look exchanged; left and right?")
    return tuple(said)


METHOD = Method(
    about="surfaces of several organs, each moving by itself or with others, from label maps or labelled points",
    aligns=("points",),
    papers=(
        Paper(
            "joutard2022multiorgan",
            "Joutard, Samuel and Pheiffer, Thomas and Audigier, Chloe and Wohlfahrt, Patrick and Dorent, Reuben and "
            "Piat, Sebastien and Vercauteren, Tom and Modat, Marc and Mansi, Tommaso",
            "A Multi-organ Point Cloud Registration Algorithm for Abdominal CT Registration",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_9",
        ),
        Paper(
            "hirose2021bayesian",
            "Hirose, Osamu",
            "A Bayesian Formulation of Coherent Point DriftState",
            "IEEE Transactions on Pattern Analysis and Machine Intelligence",
            2021,
            "10.1109/TPAMI.2020.2971687",
            "article",
        ),
    ),
    register=MOBCPD(),
    solves=("identity", "shift", "rotation", "smooth", "missing", "noise"),
    by_label=True,
)
