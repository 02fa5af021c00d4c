"""Dose: accumulated through transforms, its volume histograms, and bands that samples of transforms draw about them.

Smolders, Lomax, Weber, Albertini: Deformable image registration uncertainty quantification using deep learning for dose
accumulation in adaptive proton therapy, WBIR 2022, section 3.2. A sampled dose is no Gaussian where transforms are, so
its samples are kept, and a band is of their percentiles of D_v at each v, not of percentiles of each voxel.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.space import Grid, Image, Labels, Transform, pull_in_slabs

LEVELS = (5.0, 95.0)
"""Percentiles of the paper's bands."""


@dataclass(frozen=True, eq=False)
class DVH:
    """A cumulative dose–volume histogram of one structure, by its own doses and without bins.

    Attributes:
        doses: of its voxels, `(N,)` float64 from the greatest to the least.
        voxel: the volume of each, mm³.
    """

    doses: Tensor
    voxel: float

    def at_volume(self, shares: Tensor | float) -> Tensor:
        """Return D_v, the dose that the hottest share v of the structure, 0 … 1, gets at least."""
        count = len(self.doses)
        index = torch.ceil(torch.as_tensor(shares, dtype=torch.float64) * count - 1e-9).long() - 1
        return self.doses[index.clamp(0, count - 1)]

    def above(self, doses: Tensor | float) -> Tensor:
        """Return V_D, the share of the structure that gets a dose D or more."""
        wanted = torch.as_tensor(doses, dtype=torch.float64)
        below = torch.searchsorted(self.doses.flip(0).contiguous(), wanted.contiguous())
        return 1 - below.double() / len(self.doses)

    @property
    def mean(self) -> float:
        """The mean dose: the area under the histogram."""
        return float(self.doses.mean())

    @property
    def volume(self) -> float:
        """The volume of the structure, mm³."""
        return self.voxel * len(self.doses)


@dataclass(frozen=True, eq=False)
class Band:
    """A band about a histogram: percentiles over samples of D_v, at each v.

    Attributes:
        shares: v, `(n,)` of 0 … 1.
        low, high: the percentiles, `(n,)`.
        samples: how many there were.
        levels: of both percentiles, %.
    """

    shares: Tensor
    low: Tensor
    high: Tensor
    samples: int
    levels: tuple[float, float] = LEVELS

    @property
    def nominal(self) -> float:
        """The share of further samples that fall between both percentiles, if samples are all that is uncertain.

        A percentile is interpolated between the sorted samples; below the h-th of S lie h / (S + 1) of all.
        """
        low, high = (level / 100 * (self.samples - 1) + 1 for level in self.levels)
        return (high - low) / (self.samples + 1)

    def holds(self, curve: Tensor, margin: float = 0.0) -> float:
        """Return the share of volumes at which a curve `(n,)` of doses lies in the band, or within a `margin` of it."""
        return float(((curve >= self.low - margin) & (curve <= self.high + margin)).double().mean())


def accumulated(doses: Iterable[Image], transforms: Iterable[Transform], onto: Grid | Image) -> Image:
    """Return the sum of doses, each pulled through its transform: D(x) = Σₖ Dₖ(φₖ(x)), in the unit of the doses.

    Args:
        doses: of each day, on its own grid; beyond it there is none.
        transforms: from the reference to each day's image, as many.
        onto: the reference.

    Raises:
        InputError: no doses, another number of transforms, or a dose below 0 or not finite.
    """
    grid = onto if isinstance(onto, Grid) else onto.grid
    total: Tensor | None = None
    try:
        for dose, transform in zip(doses, transforms, strict=True):
            refuse_no_dose(dose, "a dose")
            moved = pull_in_slabs(dose, transform, onto=grid, outside=0.0).data
            total = moved if total is None else total + moved
    except ValueError as error:
        if isinstance(error, InputError) or "zip" not in str(error):
            raise
        raise InputError(f"accumulated: a transform for each dose expected ({error})") from error
    if total is None:
        raise InputError("accumulated: one dose or more expected, got none")
    return Image(total, grid)


def refuse_no_dose(dose: Image, name: str) -> None:
    """Refuse an image that is no dose.

    Raises:
        InputError: a value below 0, or not finite.
    """
    if not bool(dose.data.isfinite().all()):
        raise InputError(
            f"{name}: holds values that are not finite; a dose is known in every voxel, 0 where there is none"
        )
    least = float(dose.data.min())
    if least < 0:
        raise InputError(
            f"{name}: the least value is {least:g}, and no dose is below 0; is it an image, or a difference?"
        )


def dvh(dose: Image, inside: Tensor) -> DVH:
    """Return the histogram of the voxels of a dose that are `inside` a structure, `(1, 1, *spatial)` bool.

    Raises:
        InputError: there are none.
    """
    values = dose.data[inside.expand_as(dose.data)].double()
    if not len(values):
        raise InputError("dvh: the structure is empty on the grid of the dose; do both lie in one place?")
    voxel = abs(float(torch.linalg.det(dose.grid.affine[:-1, :-1])))
    return DVH(values.sort(descending=True).values.cpu(), voxel)


def structures_of(labels: Labels, names: Mapping[int, str] | None = None) -> dict[str, Tensor]:
    """Return the voxels of each label above 0 by its name, or by its number where it has none.

    Raises:
        InputError: there is no label, or a name of one that is not there.
    """
    values = [int(value) for value in labels.data.unique().tolist() if value > 0]
    missing = sorted(set(names or {}) - set(values))
    if not values or missing:
        told = f"labels {', '.join(map(str, missing))} are not in it" if missing else "no label is above 0"
        raise InputError(f"structures: {told}; there is {', '.join(map(str, values)) or 'nothing'}")
    return {(names or {}).get(value, str(value)): labels.data == value for value in values}


def volume_shares(steps: int = 1000) -> Tensor:
    """Return the shares of a volume at which histograms are compared, `(steps + 1,)` from 0 to 1."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def sampled_curves(maps: Iterable[Image], structures: Mapping[str, Tensor], shares: Tensor) -> dict[str, Tensor]:
    """Return D_v of each structure in each of many doses, `(S, n)` by name; the doses are not kept.

    Raises:
        InputError: no doses, or an empty structure.
    """
    curves: dict[str, list[Tensor]] = {name: [] for name in structures}
    for dose in maps:
        for name, inside in structures.items():
            curves[name].append(dvh(dose, inside).at_volume(shares))
    if not all(curves.values()):
        raise InputError("sampled_curves: one dose or more expected, got none")
    return {name: torch.stack(each) for name, each in curves.items()}


def band(curves: Tensor, shares: Tensor, levels: Sequence[float] = LEVELS) -> Band:
    """Return the band of sampled curves `(S, n)` of D_v at `shares`, by linear percentiles.

    Raises:
        InputError: fewer than two samples, or levels that are no percentiles in order.
    """
    low, high = levels
    if len(curves) < 2 or not 0 <= low < high <= 100:
        raise InputError(
            f"band: two samples or more and two percentiles in order expected, got {len(curves)} and {low:g}, {high:g}"
        )
    ends = torch.quantile(curves.double(), torch.tensor([low, high], dtype=torch.float64) / 100, dim=0)
    return Band(shares, ends[0], ends[1], len(curves), (low, high))


def samples_wanted(coverage: float, levels: Sequence[float] = LEVELS) -> int:
    """Return how many samples a band needs, whose nominal coverage reaches `coverage`.

    Raises:
        InputError: no number does.
    """
    low, high = (level / 100 for level in levels)
    if coverage >= high - low:
        raise InputError(f"samples_wanted: a band of {100 * (high - low):g} % never reaches {100 * coverage:g} %")
    return math.ceil((coverage + high - low) / (high - low - coverage) - 1e-6)
