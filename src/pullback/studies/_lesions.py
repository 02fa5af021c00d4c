"""Measures of studies of lesions: what is marked of them, before and after growth, and the registration near them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_fill_holes, label
from torch import Tensor

from pullback.alignment import Alignment, Pair, seen
from pullback.data import PaintedPair, Test, normalised
from pullback.data.lesioned import called
from pullback.energies import Energy, SoftDice
from pullback.metrics import HausdorffDistance, Jaccard, SurfaceDistance
from pullback.space import Affine, Grid, Image, Labels, pull, resampled
from pullback.studies._tumours import PATIENTS, Patient
from pullback.training import Row
from pullback.training.measure import evaluating

MAP = "non_correspondence"
NEAR = 5  # voxels about a lesion, in which registration is looked at
FOUND = 0.1  # of a lesion, that is marked where it counts as found
DEVIATIONS = 2.5  # of the intensities within a seed, that growth takes in
LEAK = 4  # times its seed: what has grown more has left the lesion
LIT = 0.02  # of the greatest intensity: within this, holes filled, is the brain
NONE = "none"
"""How pairs without a lesion are called."""


@dataclass(frozen=True)
class Told:
    """A register that is told where the lesion is, by the mask of the fixed image."""

    register: Any

    def __call__(self, fixed: Image, moving: Image) -> Any:
        return self.register(fixed, moving)


@dataclass(frozen=True)
class LesionEvaluation:
    """The evaluation of a register on the pairs of `LesionedPairs`: a row for each healthy pair, with all kinds.

    Numbers of a kind of lesions, such as `22 mm`, end with it, those of the pair without a lesion with `none`:

    - `dice`, `grown`: of what is marked, above ½ and after `grown`, with the lesion; `found` is 1 where more than a
      tenth of the lesion is marked. `marked %` is the share of the brain that is marked.
    - `off mm`: the mean distance between where the transform of the pair with the lesion leads the voxels of the lesion
      and within 5 of it, and where that of the pair without does.
    - `error mm`: the mean distance to the true transform there; of the pair without a lesion, as `error before mm`.
    - `jaccard`: of all labels. `surface mm`, `hd95 mm`: of the labels that lie near the lesion.

    Attributes:
        split: the pairs.
        chooses: the number of which more is better.
    """

    split: Test
    chooses: str = "jaccard none"
    aligns: ClassVar[str] = "pair"

    def __len__(self) -> int:
        return len(list(self._groups()))

    @property
    def names(self) -> tuple[str, ...]:
        return self.split.names

    def score(self, means: dict[str, float]) -> float:
        """Return the number that chooses."""
        return means[self.chooses]

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield a row for each healthy pair."""
        for cases in self._groups():
            pairs = [case.load().to(device) for case in cases]
            with evaluating(network):
                healthy = _answer(network, pairs[0])
                row: Row = {"pair": pairs[0].name, "subject": cases[0].name, **_of_healthy(healthy)}
                for case, pair in zip(cases[1:], pairs[1:], strict=True):
                    assert case.kind is not None
                    numbers = _of_lesion(_answer(network, pair), healthy)
                    row |= {f"{name} {called(case.kind)}": value for name, value in numbers.items()}
                yield row

    def _groups(self) -> Iterator[list[PaintedPair]]:
        """Yield the pairs that differ in the lesion alone, that without it first."""
        cases: list[PaintedPair] = [fixed for fixed, _ in self.split.pairs if isinstance(fixed, PaintedPair)]
        for _, group in groupby(cases, key=lambda case: case.place):
            yield list(group)


def _answer(network: Any, pair: Pair) -> Alignment:
    fixed = pair.fixed
    if isinstance(network, Told) and pair.lesion is not None:
        fixed = replace(fixed, mask=pair.lesion.data == 0)
    return seen(pair, network(fixed, pair.moving))


def _of_healthy(alignment: Alignment) -> dict[str, float]:
    row = {f"{name} {NONE}": value for name, value in Jaccard()(alignment).items() if "/" not in name}
    if MAP in alignment.maps:
        inside = brain(alignment.pair.fixed)
        marked = (alignment.maps[MAP].data > 0.5) & inside
        row[f"marked % {NONE}"] = 100 * int(marked.sum()) / max(int(inside.sum()), 1)
    return row


def _of_lesion(alignment: Alignment, healthy: Alignment) -> dict[str, float]:
    """Return all numbers of a pair with a lesion, beside the same pair without."""
    pair, grid = alignment.pair, alignment.pair.fixed.grid
    assert pair.lesion is not None
    true = pair.lesion.data > 0
    row: dict[str, float] = {}
    if MAP in alignment.maps:
        marked = alignment.maps[MAP].data > 0.5
        row = {
            "dice": _overlap(marked, true),
            "grown": _overlap(grown(marked, pair.fixed), true),
            "found": float(int((marked & true).sum()) > FOUND * int(true.sum())),
        }
    near = widened(true)
    there, before = (each.displacement for each in (alignment, healthy))
    row["off mm"] = _apart(there, before, near, grid)
    if pair.truth is not None:
        truth = pair.truth.displacement(grid)
        row |= {
            "error mm": _apart(there, truth, near, grid),
            "error before mm": _apart(before, truth, near, grid),
        }
    row |= {name: value for name, value in Jaccard()(alignment).items() if "/" not in name}
    local = seen(_with_labels_near(pair, near), alignment)
    for metric in (SurfaceDistance(), HausdorffDistance()):
        row |= {name: value for name, value in metric(local).items() if "/" not in name}
    return row


def _overlap(one: Tensor, two: Tensor) -> float:
    return 2 * int((one & two).sum()) / max(int(one.sum()) + int(two.sum()), 1)


def _apart(one: Tensor, two: Tensor, where: Tensor, grid: Grid) -> float:
    """Return the mean distance in mm of two displacements in voxels, `(1, d, …)`, over voxels `(1, 1, …)`."""
    return float(grid.to_mm((one - two.to(one)).double()).norm(dim=1, keepdim=True)[where].mean())


def widened(region: Tensor, voxels: int = NEAR) -> Tensor:
    """Return a region `(1, 1, *spatial)` and the voxels up to so many away from it along any axis."""
    pool = F.max_pool2d if region.ndim == 4 else F.max_pool3d
    return pool(region.float(), 2 * voxels + 1, 1, voxels) > 0


def _with_labels_near(pair: Pair, near: Tensor) -> Pair:
    """Return the pair with those labels alone that have a voxel near the lesion in the fixed image."""
    if pair.fixed_labels is None or pair.moving_labels is None:
        return pair
    kept = pair.fixed_labels.data[near].unique()
    one, two = (_only(labels, kept) for labels in (pair.fixed_labels, pair.moving_labels))
    return replace(pair, fixed_labels=one, moving_labels=two)


def _only(labels: Labels, values: Tensor) -> Labels:
    return replace(labels, data=labels.data * torch.isin(labels.data, values))


# ---- growth


def brain(image: Image) -> Tensor:
    """Return the voxels above the background, holes filled, `(1, 1, *spatial)` bool."""
    data = image.data[0].mean(0)
    lit = (data > LIT * data.max()).cpu().numpy()
    return torch.from_numpy(np.ascontiguousarray(binary_fill_holes(lit))).to(image.data.device)[None, None]


def grown(marked: Tensor, image: Image) -> Tensor:
    """Return what is marked after region growing, `(1, 1, *spatial)` bool.

    Each part grows by itself, within the brain, over connected voxels of intensities within 2.5 deviations of its mean.
    One that becomes more than four times as large has leaked, as dark ones do into ventricles, and stays as it was.

    Args:
        marked: `(1, 1, *spatial)` bool.
        image: in which it grows.
    """
    inside = brain(image)[0, 0].cpu().numpy()
    values = image.data[0].mean(0).double().cpu().numpy()
    parts, count = label(marked[0, 0].cpu().numpy() & inside)
    whole = np.zeros_like(inside)
    for number in range(1, count + 1):
        seed = parts == number
        region = _region(seed, values, inside)
        whole |= seed if region.sum() > LEAK * seed.sum() else region
    return torch.from_numpy(whole).to(marked.device)[None, None]


def _region(seed: np.ndarray, values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the voxels that are connected with a seed, of its intensities, within a mask."""
    mean, width = values[seed].mean(), DEVIATIONS * max(float(values[seed].std()), 1e-6)
    within = np.where(inside, values, mean + 10 * width + 1)
    places = [tuple(int(n) for n in at[::-1]) for at in np.argwhere(seed)]  # SimpleITK counts the last axis first
    found = sitk.ConnectedThreshold(sitk.GetImageFromArray(within), places, mean - width, mean + width)
    return sitk.GetArrayFromImage(found) > 0


# ---- other ways to mark


@dataclass(frozen=True)
class ByDistance:
    """A register that marks where the intensities differ by more than β after another one.

    Attributes:
        register: the other.
        beta: of squared differences.
    """

    register: Any
    beta: float

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        answer: Alignment = self.register(fixed, moving)
        off = (fixed.data - answer.moved.data).square().mean(1, keepdim=True)
        return replace(answer, maps={MAP: Image((off > self.beta).to(off), fixed.grid)})


# ---- masks as labels, and patients


@dataclass(frozen=True)
class BrainDice(Energy):
    """The soft Dice loss of both brains, as they stand out of the background: L of the paper."""

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        pair = alignment.pair
        one, two = (Labels(torch.cat([brain(i.nth(n)) for n in range(i.batch)]).long(), i.grid) for i in pair.images)
        return SoftDice().terms(seen(replace(pair, fixed_labels=one, moving_labels=two), alignment))


@dataclass(frozen=True)
class CoarsePatients:
    """The two slices of BraTS 2021 of `_tumours`, as fixed images, with the template SRI24; a test split alone.

    Both lie in the template's space.

    Attributes:
        root: the folder of the pictures, or "" until one is given.
        spacing: of the voxels, mm.
    """

    root: str = ""
    spacing: float = 2.0

    @property
    def test(self) -> Test:
        """The pairs, with the patients' lesions."""
        return Test.singles([CoarsePatient(Patient(self.root, number), self.spacing) for number in PATIENTS])


@dataclass(frozen=True)
class CoarsePatient:
    """A patient's slice with the template, with voxels of another size."""

    patient: Patient
    spacing: float

    @property
    def name(self) -> str:
        return self.patient.name

    def load(self) -> Pair:
        """Return the pair, intensities 0 … 1, without a mask; its lesion is what the mask hides."""
        pair = self.patient.load()
        assert pair.fixed.mask is not None
        whole = Labels((~pair.fixed.mask).long(), pair.fixed.grid)
        fixed, moving = (normalised(resampled(replace(image, mask=None), (self.spacing,) * 2)) for image in pair.images)
        return Pair(fixed, moving, lesion=pull(whole, Affine.identity(2), onto=fixed.grid), name=pair.name)


def of_patient(network: Any, pair: Pair) -> dict[str, float]:
    """Measure what a network marks of a lesion."""
    alignment = _answer(network, pair)
    assert pair.lesion is not None
    true, marked, inside = pair.lesion.data > 0, alignment.maps[MAP].data > 0.5, brain(pair.fixed)
    outside = inside & ~true
    return {
        "dice": _overlap(marked, true),
        "grown": _overlap(grown(marked, pair.fixed), true),
        "lesion marked %": 100 * int((marked & true).sum()) / int(true.sum()),
        "outside marked %": 100 * int((marked & outside).sum()) / int(outside.sum()),
    }
