"""Metrics in physical units: millimetres, plain log det, true foldings. `learn2reg` has the challenge's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import lazy_loader
import numpy as np
import torch

from pullback.alignment import Alignment
from pullback.energies import SSIM, ncc
from pullback.errors import InputError
from pullback.metrics.metric import farthest, foreground, known_labels, label_values, of_one, with_mean
from pullback.numerics.difference import least_determinant

surfaces = lazy_loader.load("surface_distance")  # it loads half of SciPy, and few ask for surfaces


@dataclass(frozen=True)
class Dice:
    """The overlap 2|A∩B| / (|A|+|B|) of each label that both images have, and its mean; of a lost label it is 0.

    Labels of one image alone, such as of another field of view, are left out, and counted as `labels left out`.

    Attributes:
        labels: those that count, of what the pair has; None takes all above background.
    """

    labels: tuple[int, ...] | None = None
    name: ClassVar[str] = "dice"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, moved = alignment.pair, alignment.moved_labels
        if pair.fixed_labels is None or pair.moving_labels is None or moved is None:
            return {}
        fixed, (known, left) = pair.fixed_labels.data, known_labels(pair)
        each = {}
        for value in known:
            if self.labels is not None and value not in self.labels:
                continue
            a, b = fixed == value, moved.data == value
            each[value] = 2 * int((a & b).sum()) / max(int(a.sum()) + int(b.sum()), 1)
        return with_mean(self.name, each) | ({"labels left out": float(left)} if left else {})


@dataclass(frozen=True)
class Jaccard:
    """The overlap |A∩B| / |A∪B| of each label that both images have, and its mean; of a lost label it is 0.

    Labels of one image alone are left out.
    """

    name: ClassVar[str] = "jaccard"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, moved = alignment.pair, alignment.moved_labels
        if pair.fixed_labels is None or pair.moving_labels is None or moved is None:
            return {}
        each = {}
        for value in known_labels(pair)[0]:
            a, b = pair.fixed_labels.data == value, moved.data == value
            each[value] = int((a & b).sum()) / max(int((a | b).sum()), 1)
        return with_mean(self.name, each)


@dataclass(frozen=True)
class HausdorffDistance:
    """The distance between the surfaces of each label, in mm, and its mean over the labels.

    It is a percentile of the distances from either surface to the other, the greater of both: 95 ("hd95 mm"), or 100
    for the greatest of all, the Hausdorff distance itself ("hd mm"). Surface elements are weighted by their area
    (DeepMind's `surface-distance`). Labels of one image alone are left out; one that both images have and that is lost
    is as far away as can be, the diagonal of the fixed grid.

    Raises:
        InputError: no percentiles, or one beyond 0 … 100.
    """

    percents: tuple[float, ...] = (95.0,)
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.percents or not all(0 < percent <= 100 for percent in self.percents):
            raise InputError(
                f"HausdorffDistance: percentiles above 0 and up to 100 expected, got {self.percents}; 95 is common, "
                "100 is the greatest distance"
            )

    @property
    def name(self) -> str:
        return self._named(self.percents[0])

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair, moved = alignment.pair, alignment.moved_labels
        if pair.fixed_labels is None or pair.moving_labels is None or moved is None:
            return {}
        labels, (known, _) = pair.fixed_labels, known_labels(pair)
        found = hausdorff(labels.data, moved.data, labels.grid.spacing.tolist(), self.percents)
        lost = farthest(labels.grid)
        each = {percent: {k: found[percent].get(k, lost) for k in known} for percent in self.percents}
        return {k: v for percent in self.percents for k, v in with_mean(self._named(percent), each[percent]).items()}

    @staticmethod
    def _named(percent: float) -> str:
        return "hd mm" if percent == 100 else f"hd{percent:g} mm"


def hausdorff(
    fixed: torch.Tensor, moved: torch.Tensor, spacing: list[float], percents: Sequence[float]
) -> dict[float, dict[int, float]]:
    """Return, by percentile, the surface distance of each label in both `(1, 1, *spatial)`, in units of `spacing`."""
    found: dict[float, dict[int, float]] = {percent: {} for percent in percents}
    a, b = fixed[0, 0].cpu().numpy(), moved[0, 0].cpu().numpy()
    for value in label_values(fixed):
        if (b == value).any():
            distances = surfaces.compute_surface_distances(a == value, b == value, spacing)
            for percent in percents:
                found[percent][value] = float(surfaces.compute_robust_hausdorff(distances, percent))
    return found


@dataclass(frozen=True)
class SurfaceDistance:
    """The mean distance in mm from the surface of each label in either image to that in the other, and its mean.

    It is the symmetric one: distances both ways, weighted by the areas of their surface elements, in one mean
    (DeepMind's `surface-distance`). Labels of one image alone are left out; one that both images have and that is lost
    is as far away as can be, the diagonal of the fixed grid.
    """

    name: ClassVar[str] = "surface mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        fixed, moved = alignment.pair.fixed_labels, alignment.moved_labels
        if fixed is None or moved is None:
            return {}
        a, b = (labels.data[0, 0].cpu().numpy() for labels in (fixed, moved))
        each = {}
        for value in known_labels(alignment.pair)[0]:
            each[value] = farthest(fixed.grid)
            if (b == value).any():
                found = surfaces.compute_surface_distances(a == value, b == value, fixed.grid.spacing.tolist())
                off = np.concatenate([found["distances_gt_to_pred"], found["distances_pred_to_gt"]])
                area = np.concatenate([found["surfel_areas_gt"], found["surfel_areas_pred"]])
                each[value] = float((off * area).sum() / area.sum())
        return with_mean(self.name, each)


@dataclass(frozen=True)
class CentroidError:
    """The distance in mm between the centroids of each label in both images, and its mean over the labels.

    Pérez de Frutos et al. 2023 (DDMR) report it as TRE. Labels of one image alone are left out; one that both images
    have and that is lost is as far away as can be, the diagonal of the fixed grid.
    """

    name: ClassVar[str] = "centroid mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        fixed, moved = alignment.pair.fixed_labels, alignment.moved_labels
        if fixed is None or moved is None:
            return {}
        each = {}
        for value in known_labels(alignment.pair)[0]:
            inside = [(labels.data[0, 0] == value).nonzero().double() for labels in (fixed, moved)]
            each[value] = farthest(fixed.grid)
            if len(inside[1]):
                here, there = (fixed.grid.to_world(where.mean(0)[None, :, None]) for where in inside)
                each[value] = float((there - here).norm())
        return with_mean(self.name, each)


@dataclass(frozen=True)
class Folding:
    """The share of voxels, in %, at which the transform folds.

    `folding %` is of the foreground, by central differences: det ∇φ of 0 or less, as papers count. `folding % (all)` is
    of all voxels, and by one-sided differences as well (`least_determinant`): it also sees what folds between
    neighbours, which central differences step over. The paper of On-the-Fly Guidance (Xin et al. 2024) says that it
    counts over the foreground; its code counts over all voxels, of which empty ones hardly fold.
    """

    name: ClassVar[str] = "folding %"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        folded, inside = alignment.jacobian <= 0, foreground(alignment)
        share = 100 * float((folded & inside).sum()) / max(float(inside.sum()), 1)
        anyhow = folded | (least_determinant(alignment.displacement) <= 0)
        return {"folding %": share, "folding % (all)": 100 * float(anyhow.double().mean())}


@dataclass(frozen=True)
class SDLogJ:
    """The standard deviation of log det ∇φ over all voxels that do not fold; nothing where all do."""

    name: ClassVar[str] = "sdlogj"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        logs = alignment.jacobian.double()
        logs = logs[logs > 0].log()
        return {"sdlogj": float(logs.std(correction=0))} if len(logs) else {}


@dataclass(frozen=True)
class EndPointError:
    """The mean distance in mm between where the transform and the true one send the foreground of the fixed grid."""

    name: ClassVar[str] = "epe mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        if alignment.pair.truth is None:
            return {}
        fixed, grid = alignment.pair.fixed.data, alignment.pair.fixed.grid
        found, known = (
            each.displacement(grid).to(fixed.device) for each in (alignment.transform, alignment.pair.truth)
        )
        mm = grid.to_mm((found - known).double()).norm(dim=1, keepdim=True)
        return {"epe mm": float(mm[foreground(alignment)].mean())}


@dataclass(frozen=True)
class LandmarkError:
    """The mean distance in mm between the pushed fixed points and the moving points (TRE)."""

    name: ClassVar[str] = "tre mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        if alignment.pushed is None or alignment.pair.moving_points is None:
            return {}
        off = alignment.pushed.data.double() - alignment.pair.moving_points.data.double()
        return {"tre mm": float(off.norm(dim=-1).mean())}


@dataclass(frozen=True)
class InverseError:
    """The distance in mm between a foreground voxel and where the transform and then its inverse bring it.

    The inverse is the alignment's further transform called `way`. The numbers are the mean, the 95th percentile and the
    greatest; nothing where the alignment has no such transform.
    """

    way: ClassVar[str] = "inverse"
    name: ClassVar[str] = "inverse mm"
    higher_is_better: ClassVar[bool] = False

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        back = alignment.transforms.get(self.way)
        if back is None:
            return {}
        grid = alignment.pair.fixed.grid
        here = grid.to_world(foreground(alignment)[0, 0].nonzero().double().mT[None])
        off = (back(alignment.transform(here.mT)) - here.mT).norm(dim=-1)[0].cpu().numpy()
        numbers = {"": off.mean(), " (95 %)": np.quantile(off, 0.95), " (greatest)": off.max()}
        return {f"{self.name}{which}": float(value) for which, value in numbers.items()}


@dataclass(frozen=True)
class Correlation:
    """The correlation of fixed and moved intensities over the masks."""

    name: ClassVar[str] = "ncc"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        return {"ncc": float(ncc(alignment.pair.fixed.data, alignment.moved.data, alignment.mask).mean())}


@dataclass(frozen=True)
class StructuralSimilarity:
    """The mean structural similarity of fixed and moved intensities over the masks: 1 − the energy `SSIM`.

    Wang et al. 2004, eq. 13. `window` is the odd edge length in voxels.
    """

    window: int = 7
    name: ClassVar[str] = "ssim"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        SSIM(self.window)  # refuses what cannot be a window

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        return {"ssim": 1 - float(SSIM(self.window)(alignment))}
