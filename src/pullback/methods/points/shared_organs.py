"""Organs that two clouds of labelled points share, looked at before they are aligned."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.example import PointPair
from pullback.methods.points.coherent_drift import LabelledClouds

FEW = 10  # points of an organ in a cloud: with fewer it is left out
FAR = 5.0  # spreads, beyond which clouds are laid on each other first
UNITS = 1.0, 1e4  # mm, between which the spread of a body is expected


@dataclass(frozen=True, eq=False)
class SharedOrgans:
    """The points of two clouds that take part: those of organs that both have.

    Attributes:
        pair: the clouds of them.
        values: labels of the organs, sorted.
        organs, labels: `(N,)` and `(M,)`, indices of their organs.
        remarks: what was left out.
    """

    pair: PointPair
    values: tuple[int, ...]
    organs: Tensor
    labels: Tensor
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, pair: PointPair, labels: tuple[int, ...] = (), known: bool = True) -> "SharedOrgans":
        """Return the points of labels that both clouds have, and that have enough points in both.

        Args:
            labels: that take part; none given are those that both clouds have.
            known: whether labels count; without them all points are of one organ.

        Raises:
            InputError: coordinates that are not finite, labels in one cloud alone, or none that both have.
        """
        fixed, moving = pair.fixed.data[0].double(), pair.moving.data[0].double()
        for side, data in (("fixed", fixed), ("moving", moving)):
            if not data.isfinite().all():
                raise InputError(f"the {side} cloud: finite coordinates expected, got others")
        here, there = pair.fixed.label, pair.moving.label
        if (here is None) != (there is None):
            raise InputError("labels of both clouds or of neither expected, got those of one; name a column 'label'")
        if here is None or there is None:
            if labels:
                raise InputError(f"labels {list(labels)}: of points with labels, and these have none: a column 'label'")
            here, there = (torch.zeros(1, len(data), dtype=torch.long, device=data.device) for data in (fixed, moving))
        one, two = here[0], there[0]
        counts = [dict(zip(*map(Tensor.tolist, each.unique(return_counts=True)), strict=True)) for each in (one, two)]
        every = set(labels) or {*counts[0], *counts[1]}
        values = sorted(v for v in every if min(count.get(v, 0) for count in counts) >= FEW)
        left = sorted(every - set(values))
        if not values:
            raise InputError(
                f"no organ has {FEW} points or more in both clouds: labels {sorted(counts[0])[:9]} fixed, "
                f"{sorted(counts[1])[:9]} moving; both must number their organs alike"
            )
        said = f"left out, with fewer than {FEW} points in one of the clouds: {', '.join(map(str, left))}"
        place = torch.tensor(values, device=one.device)
        seen = PointPair(pair.fixed[torch.isin(one, place)], pair.moving[torch.isin(two, place)], name=pair.name)
        organs, kinds = (torch.searchsorted(place, each[torch.isin(each, place)]) for each in (one, two))
        if not known:
            values, organs, kinds = [0], torch.zeros_like(organs), torch.zeros_like(kinds)
        taken = cls(seen, tuple(values), organs, kinds, (said,) if left else ())
        if not taken.far:
            return taken
        return replace(taken, remarks=(*taken.remarks, f"{taken.far}; laid on each other first"))

    @property
    def fixed(self) -> Tensor:
        """The fixed points `(N, d)` in mm, float64."""
        return self.pair.fixed.data[0].double()

    @property
    def moving(self) -> Tensor:
        """The moving points `(M, d)` in mm, float64."""
        return self.pair.moving.data[0].double()

    @property
    def spreads(self) -> tuple[float, float]:
        """The root mean square distance of points to their mean, of the fixed and the moving cloud."""
        one, two = (float(cloud.var(0, correction=0).sum().sqrt()) for cloud in (self.fixed, self.moving))
        return one, two

    @property
    def far(self) -> str:
        """Words on how far apart the clouds are, if their headers cannot belong to one world; else ""."""
        apart, spread = float((self.moving.mean(0) - self.fixed.mean(0)).norm()), max(self.spreads)
        said = f"the clouds are {apart:.0f} mm apart, {apart / spread:.1f} times their spread"
        return said if apart > FAR * spread else ""

    def clouds(self, confusion: Tensor) -> LabelledClouds:
        """Return the points about the mean of the fixed ones.

        Raises:
            InputError: a spread that no body has in mm.
        """
        for side, spread in zip(("fixed", "moving"), self.spreads, strict=True):
            if not UNITS[0] <= spread <= UNITS[1]:
                raise InputError(
                    f"the {side} cloud: its points are {spread:.3g} mm from their middle, and {UNITS[0]:g} to "
                    f"{UNITS[1]:g} are expected; give coordinates in mm, not in voxels or metres"
                )
        fixed, moving = self.fixed - self.fixed.mean(0), self.moving - self.fixed.mean(0)
        box = (moving.amax(0) - moving.amin(0)).clamp(min=1.0).prod()
        shares = torch.bincount(self.labels, minlength=len(self.values)).to(moving) / len(moving)
        return LabelledClouds(fixed, self.organs, moving, self.labels, confusion, shares / box)
