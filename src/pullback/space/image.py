"""Images and label maps: values on a grid."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.space.batch import one_batch
from pullback.space.grid import Grid
from pullback.space.short_repr import short_repr


@dataclass(frozen=True, eq=False)
class Image:
    """Intensities on a grid.

    Attributes:
        data: `(B, C, *grid.shape)`, float32 or float64: in less, coordinates of voxels would be rounded.
        grid: where the voxels are; shared by the batch.
        mask: `(B, 1, *grid.shape)` bool, or None for everywhere: energies look only where it is True.

    Raises:
        ValueError: data of another type, or data or mask of another shape than the grid.
    """

    data: Tensor
    grid: Grid
    mask: Tensor | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _check_shape(self, self.data)
        if self.data.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"Image: float32 or float64 expected, got {self.data.dtype}; convert it first")
        if self.mask is not None and self.mask.shape[2:] != self.data.shape[2:]:
            raise ValueError(f"Image: mask {tuple(self.mask.shape)} and data {tuple(self.data.shape)} differ in shape")

    def to(self, device: torch.device) -> Self:
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, data=self.data.to(device), mask=mask)

    @property
    def batch(self) -> int:
        """Number of images in the batch."""
        return one_batch({"data": len(self.data), "mask": 1 if self.mask is None else len(self.mask)})

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The intensities, which a solver may change where the image is a template."""
        return (self.data,)

    def with_params(self, *params: Tensor) -> Self:
        """Return the image with other intensities."""
        return replace(self, data=params[0])

    def nth(self, n: int) -> Self:
        """Return the n-th image of the batch; a batch of one returns itself, whatever n."""
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[n : n + 1]
        data = self.data if len(self.data) == 1 else self.data[n : n + 1]
        return self if self.batch == 1 else replace(self, data=data, mask=mask)

    def stack(self, others: Sequence["Image"]) -> "Image":
        """Return one batch of this image and others on its grid.

        Raises:
            ValueError: an image lies on another grid, or some have a mask and some have none.
        """
        every = (self, *others)
        masks = [one.mask.expand(len(one.data), -1, *self.grid.shape) for one in every if one.mask is not None]
        if any(one.grid != self.grid for one in others) or len(masks) not in (0, len(every)):
            raise ValueError("a batch is of images on one grid, all with a mask or none")
        return Image(torch.cat([one.data for one in every]), self.grid, torch.cat(masks) if masks else None)


@dataclass(frozen=True, eq=False)
class Labels:
    """Integer labels on a grid: 0 is background. `data` is `(B, 1, *grid.shape)` of an integer dtype.

    Raises:
        ValueError: data of another shape than the grid, or not of integers.
    """

    data: Tensor
    grid: Grid

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _check_shape(self, self.data)
        if self.data.is_floating_point():
            raise ValueError(f"Labels: integers expected, got {self.data.dtype}; round and convert them first")

    def to(self, device: torch.device) -> Self:
        return replace(self, data=self.data.to(device))

    @property
    def batch(self) -> int:
        """Number of label maps in the batch."""
        return len(self.data)

    def nth(self, n: int) -> Self:
        """Return the n-th label map of the batch; a batch of one returns itself, whatever n."""
        return self if self.batch == 1 else replace(self, data=self.data[n : n + 1])

    def stack(self, others: Sequence["Labels"]) -> "Labels":
        """Return one batch of this label map and others on its grid.

        Raises:
            ValueError: a label map lies on another grid.
        """
        if any(one.grid != self.grid for one in others):
            raise ValueError("a batch is of label maps on one grid")
        return Labels(torch.cat([self.data, *(one.data for one in others)]), self.grid)


def _check_shape(thing: Image | Labels, data: Tensor) -> None:
    if data.ndim != thing.grid.ndim + 2 or tuple(data.shape[2:]) != thing.grid.shape:
        raise ValueError(
            f"{type(thing).__name__}: data must be (B, C, *{thing.grid.shape}) for its grid, got {tuple(data.shape)}"
        )


Gridded = TypeVar("Gridded", Image, Labels)


def centred(image: Gridded, shape: tuple[int, ...]) -> Gridded:
    """Cut or zero-pad an image about its middle to `shape` voxels, and lay its middle at the world's origin.

    Orientation and spacing stay. Meant for crops whose headers do not say how they lie to each other.

    Raises:
        InputError: a shape of other dimensions than the image, or of fewer than two voxels along an axis.
    """
    if len(shape) != image.grid.ndim or min(shape) < 2:
        raise InputError(f"shape: {image.grid.ndim} axes of 2 voxels or more expected, got {list(shape)}")
    grid = image.grid.about_origin(shape)
    return _stored_anew(image, grid, lambda data: _resized(data, shape))


def stored_axes(grid: Grid) -> tuple[int, ...]:
    """Return, for each of R, A, S (2-D: R, A), the grid's own axis that is nearest to it, each of them once."""
    cosines = (grid.affine[:-1, :-1] / grid.spacing).tolist()  # of each world axis, by stored axis
    return max(
        itertools.permutations(range(grid.ndim)),
        key=lambda order: sum(abs(cosines[world][axis]) for world, axis in enumerate(order)),
    )


def canonical(image: Gridded) -> Gridded:
    """Store an image along axes as close to R, A, S (2-D: R, A) as permuting and flipping its own can bring them.

    Nothing is resampled and nothing moves in the world: only the order in which voxels are stored changes, so that
    images of different scanners and converters look alike to a network.
    """
    grid = image.grid
    stored: tuple[int, ...] = stored_axes(grid)
    flipped = [world for world, axis in enumerate(stored) if grid.affine[world, axis] < 0]
    shape = tuple(grid.shape[axis] for axis in stored)
    affine = grid.affine[:, [*stored, -1]]
    for world in flipped:
        affine[:, -1] += affine[:, world] * (shape[world] - 1)
        affine[:, world] *= -1

    def turned(data: Tensor) -> Tensor:
        return data.permute(0, 1, *(2 + axis for axis in stored)).flip([2 + world for world in flipped]).contiguous()

    return _stored_anew(image, Grid(shape, affine), turned)


def around(where: Tensor, grid: Grid, margin: float = 0.0) -> tuple[slice, ...]:
    """Return the smallest box of voxels that holds all voxels where `where`, `(B, 1, *grid.shape)` bool, is True.

    It is at least `margin` mm wider on each side, as far as the grid reaches.

    Raises:
        InputError: it is True nowhere.
    """
    found = where[:, 0].any(0).nonzero().cpu()
    if not len(found):
        raise InputError("there is nothing to crop around: it is empty")
    wider = torch.ceil(margin / grid.spacing - 1e-6).long()
    low, high = (found.amin(0) - wider).clamp(min=0), found.amax(0) + wider + 1
    return tuple(slice(a, min(b, n)) for a, b, n in zip(low.tolist(), high.tolist(), grid.shape, strict=True))


def cropped(image: Gridded, part: tuple[slice, ...]) -> Gridded:
    """Crop an image to `part`, a slice per axis; its voxels stay where they are in the world."""
    affine = image.grid.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ torch.tensor([float(along.start) for along in part], dtype=torch.float64)
    grid = Grid(tuple(along.stop - along.start for along in part), affine)
    return _stored_anew(image, grid, lambda data: data[(slice(None), slice(None), *part)].contiguous())


def _stored_anew(image: Gridded, grid: Grid, change: Callable[[Tensor], Tensor]) -> Gridded:
    """Return the image on `grid`, with its data and mask changed by `change`."""
    if isinstance(image, Labels):
        return replace(image, data=change(image.data), grid=grid)
    mask = None if image.mask is None else change(image.mask)
    return replace(image, data=change(image.data), grid=grid, mask=mask)


def _resized(data: Tensor, shape: tuple[int, ...]) -> Tensor:
    out = data.new_zeros(*data.shape[:2], *shape)
    source, target = [slice(None), slice(None)], [slice(None), slice(None)]
    for n, m in zip(data.shape[2:], shape, strict=True):
        keep = min(n, m)
        source.append(slice((n - keep) // 2, (n - keep) // 2 + keep))
        target.append(slice((m - keep) // 2, (m - keep) // 2 + keep))
    out[tuple(target)] = data[tuple(source)]
    return out
