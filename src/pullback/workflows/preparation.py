"""Preparation of a scan before networks learn from it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pullback.data import PairFolder, Subject, normalised
from pullback.errors import InputError
from pullback.files import Merge
from pullback.space import Affine, Image, Labels, around, canonical, cropped, fitted, pull, resliced

LARGEST = 4.0  # GB of an image in single precision, 1000 voxels along each of three axes


@dataclass(frozen=True)
class Preparation:
    """The steps that prepare a scan, in this order. Each may be left out; voxels are interpolated once, at their end.

    1. The axes are stored in the order and direction nearest to R, A, S.
    2. Labels are merged.
    3. Image, labels and mask are cropped to the box of the labels, or of the mask.
    4. Voxels of one edge length on orthonormal axes; 5. on a grid of a given shape: images by cubic B-splines, within
       their range and smoothed where voxels grow, labels and masks by nearest voxels. Voxels added around the image
       have its least value.
    6. Intensities run from 0 to 1, as in `normalised`.

    DDMR (Pérez de Frutos et al. 2023, Preprocessing) crops around the liver, resamples to 1 mm and resizes to 128³, in
    two interpolations; it does not say whether by one factor or by three. One factor keeps proportions, so it is the
    default; three (`stretch`) waste no voxel.

    Attributes:
        data: the subjects and their splits.
        merge: which labels become which.
        crop: around `"labels"`, merged, or `"mask"`; None crops nothing.
        margin: about the box, mm, as far as the image reaches.
        spacing: of the voxels, mm; None leaves them, or lets the shape decide. With a shape it is the least: voxels are
            larger where the image would not fit otherwise.
        shape: in voxels, one number for all axes or one for each. The whole image, as cropped, lies within.
        stretch: fill the shape, by another voxel size along each axis. Where voxels are then finer than `spacing`, the
            image is smoothed to it.
        normalise: whether intensities are normalised.
        task: name of the data set, with which its files begin.

    Raises:
        InputError: steps that contradict each other, or numbers out of their range.
    """

    data: PairFolder
    merge: Merge | None = None
    crop: str | None = None
    margin: float = 0.0
    spacing: float | None = None
    shape: tuple[int, ...] | int | None = None
    stretch: bool = False
    normalise: bool = False
    task: str = "prepared"

    def __post_init__(self) -> None:
        sizes = (self.shape,) if isinstance(self.shape, int) else self.shape or ()
        wrong = {
            f"crop around {self.crop!r}: choose labels or mask": self.crop not in (None, "labels", "mask"),
            "crop around labels: name them, as in --set data.labels=*_dseg.nii.gz": self._lacks("labels"),
            "crop around a mask: name the masks, as in --set data.masks=*_mask.nii.gz": self._lacks("mask"),
            "merge: there are no labels; name them, as in --set data.labels=*_dseg.nii.gz": self.merge is not None
            and not self.data.labels,
            f"a margin of {self.margin:g} mm: 0 or more is expected": not 0 <= self.margin < math.inf,
            "a margin without a crop: say around what, labels or mask": self.margin > 0 and self.crop is None,
            f"a spacing of {self.spacing} mm: more than 0 is expected": self.spacing is not None
            and not 0 < self.spacing < math.inf,
            f"a shape of {self.shape}: at least two voxels along each axis": self.shape is not None
            and min(sizes, default=0) < 2,
            "stretch without a shape: say which is to be filled": self.stretch and self.shape is None,
            f"task {self.task!r}: letters, digits, - and _ are expected": not re.fullmatch(r"[\w-]+", self.task),
            "data.shape: files are cut or padded by the preparation's own shape": self.data.shape is not None,
            "data.images: one pattern is expected; prepare each channel by itself": not isinstance(
                self.data.images, str
            ),
            "data.moving: the Learn2Reg layout has one folder; prepare both by one pattern, {side}/{subject}.nii.gz": (
                self.data.moving is not None
            ),
            "data.atlas: the Learn2Reg layout knows none; prepare the subjects without": self.data.atlas is not None,
        }
        for what, is_so in wrong.items():
            if is_so:
                raise InputError(what)

    def _lacks(self, kind: str) -> bool:
        return self.crop == kind and not (self.data.labels if kind == "labels" else self.data.masks)

    def __call__(self, subject: Subject) -> Subject:
        """Return a prepared subject; the given one stays as it is.

        Raises:
            InputError: nothing to crop around, nothing of it left, a shape of other axes, or too many voxels.
        """
        image, labels = canonical(subject.image), subject.labels and canonical(subject.labels)
        if labels is not None and self.merge is not None:
            labels = self.merge(labels)
        if self.crop is not None:
            part = around(_wanted(image, labels, self.crop), image.grid, self.margin)
            image, labels = cropped(image, part), labels and cropped(labels, part)
        if self.spacing is not None or self.shape is not None:
            sizes = self._sizes(image.grid.ndim)
            extent = image.grid.spacing * torch.tensor(image.grid.shape)
            _refuse_large(sizes or (extent / (self.spacing or 0.0)).tolist())
            grid = fitted(image, self.spacing, sizes, self.stretch)
            image = resliced(image, grid, self.spacing or 0.0)
            labels = labels and pull(labels, Affine.identity(grid.ndim), onto=grid)
        _refuse_nothing(image)
        if self.normalise:
            image = normalised(image)
        return replace(subject, image=image, labels=labels)

    def _sizes(self, ndim: int) -> tuple[int, ...] | None:
        sizes = (self.shape,) * ndim if isinstance(self.shape, int) else self.shape
        if sizes is not None and len(sizes) != ndim:
            raise InputError(f"it is {ndim}-D and the shape {sizes} is not; give {ndim} numbers, or one for all axes")
        return sizes


def _wanted(image: Image, labels: Labels | None, crop: str) -> torch.Tensor:
    """Return the voxels that the crop goes around, `(B, 1, *shape)` bool."""
    if crop == "labels" and labels is not None:
        return labels.data != 0
    if crop == "mask" and image.mask is not None:
        return image.mask
    raise InputError(f"there is nothing to crop around: it has no {crop}; add them, or take it out of the folder")


def _refuse_large(sizes: Sequence[float]) -> None:
    """Refuse a grid of about these numbers of voxels along the axes, if it is too large."""
    size = 4 * math.prod(sizes) / 1e9
    if size > LARGEST:
        raise InputError(
            f"it would take {size:.3g} GB, and {LARGEST:g} at most are prepared: take a larger --spacing, a smaller "
            f"--shape, or --crop it"
        )


def _refuse_nothing(image: Image) -> None:
    shape = image.grid.shape
    if min(shape) < 2:
        raise InputError(f"shape {shape} is left; at least two voxels along each axis: crop less, or take finer voxels")
    if image.data.min() == image.data.max():
        raise InputError(f"of what is left every voxel is {float(image.data.min()):g}; crop less, or something else")
    if image.mask is not None and not image.mask.any():
        raise InputError("its mask falls between the new voxels; take finer ones")
