"""Series with known motion: made of tissue maps, or of real frames that are made to move."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pullback.data.phantoms.noisy_series import NoisySeries, noisy, tissue_maps
from pullback.errors import InputError
from pullback.files import read_labels, read_scalar, read_series
from pullback.methods.pair.classical import FAST
from pullback.numerics.noise import fit_rice
from pullback.numerics.random import make_generator
from pullback.space import Affine, Image, Motion, Series, Transform, block_middles, mean_distance, pull, resampled

BRIGHT = 0.3
"""Share of the greatest intensity of a smooth mean, above which a voxel is of the head."""
CLASSES = 4  # of intensity in a T1 that stand for tissues
MAPS_MM = 2.0


@dataclass(frozen=True)
class MadeSeries:
    """Series of one head at several levels of noise, as in the paper's figure 2.

    Attributes:
        root: folder of *_dseg.nii.gz, or "" until one is given.
        subject: whose tissues are seen.
        sigmas: deviations of the noise.
        law: all else.
    """

    root: str = ""
    subject: str = "sub-01"
    sigmas: tuple[float, ...] = (5.0, 10.0, 40.0, 80.0, 160.0)
    law: NoisySeries = NoisySeries(frames=4)

    @cached_property
    def maps(self) -> Image:
        """The maps of the tissues.

        Raises:
            InputError: there are no labels.
        """
        path = Path(self.root) / f"{self.subject}_dseg.nii.gz"
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the folder of brains with --data NAME=DIR")
        return tissue_maps(read_labels(path))

    def series(self, sigma: float, seed: int) -> tuple[Series, Tensor]:
        """Return a series, with its truths, and the intensities of its tissues."""
        return replace(self.law, sigma=sigma, seed=seed).of(self.maps)


@dataclass(frozen=True)
class MovedSeries:
    """Real frames that are made to move, with Rician noise.

    Attributes:
        root: folder of the images, or "" until one is given.
        file: a series, of which each frame is taken; or one image, which is then all frames.
        frames: number of them.
        shift: deviation of shifts, mm.
        turn: of turns, radians.
        sigmas: deviations of the noise that is added, in shares of the head's mean intensity.
        anatomy: a T1 of the same head, of which the tissues are made.
    """

    root: str = ""
    file: str = "pcasl.nii.gz"
    frames: int = 6
    shift: float = 3.0
    turn: float = 0.06
    sigmas: tuple[float, ...] = (0.1, 0.4)
    anatomy: str = "chris_t1.nii.gz"

    @cached_property
    def still(self) -> tuple[Image, ...]:
        """The frames as they were measured.

        Raises:
            InputError: the file is not there.
        """
        path = Path(self.root) / self.file
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the folder in which it is with --data NAME=DIR")
        try:
            return tuple(read_series(path).frames[n] for n in range(self.frames))
        except InputError:
            return (read_scalar(path),) * self.frames

    @cached_property
    def mean(self) -> Image:
        """The mean of the frames before they move."""
        return Image(torch.cat([frame.data for frame in self.still]).mean(0, keepdim=True), self.still[0].grid)

    @cached_property
    def head(self) -> Tensor:
        """The voxels of the head, `(1, 1, *grid.shape)` bool."""
        return self.mean.data > BRIGHT * self.mean.data.quantile(0.98)

    def series(self, share: float, seed: int) -> Series:
        """Return the series with its truths, frame → place of the mean."""
        draws, grid = make_generator(seed, round(1000 * share), 33), self.still[0].grid
        law = NoisySeries(shift=self.shift, turn=self.turn)
        sigma = share * float(self.mean.data[self.head].mean())
        truths = [law.pose(grid, n, draws) for n in range(self.frames)]
        frames = [pull(frame, truth, onto=grid, mode="cubic") for frame, truth in zip(self.still, truths, strict=True)]
        frames = [noisy(replace(frame, data=frame.data.clamp(min=0)), sigma, draws) for frame in frames]
        times = torch.arange(self.frames, dtype=torch.float64)
        return Series(tuple(frames), grid, times, truths=tuple(truths))

    @cached_property
    def tissues(self) -> Image:
        """Maps of classes of intensity in the T1, brought onto the mean rigidly, as the user of a T1 would."""
        anatomy = resampled(read_scalar(Path(self.root) / self.anatomy), (MAPS_MM,) * 3)
        rigid = replace(FAST, linear=FAST.linear[:1], deformable=None)
        found = rigid(self.mean, anatomy).transform.as_affine
        assert found is not None
        back = replace(anatomy.grid, affine=torch.linalg.inv(found.matrix) @ anatomy.grid.affine)
        return Image(_classes(anatomy.data), back)


def _classes(data: Tensor) -> Tensor:
    """Return which of the classes of intensity each voxel is of, as channels; the darkest of k-means is none."""
    values = data.flatten()
    middles = (
        values.quantile(torch.linspace(0.2, 0.98, CLASSES + 1))
        if values.numel() < 2**24
        else values[::7].quantile(torch.linspace(0.2, 0.98, CLASSES + 1))
    )
    for _ in range(20):
        nearest = (values[:, None] - middles).abs().argmin(1)
        middles = torch.stack([values[nearest == k].mean() for k in range(CLASSES + 1)])
    return torch.stack([(nearest == k).float().view(data.shape[1:]) for k in range(1, CLASSES + 1)], 1)


def errors(found: Sequence[Transform], series: Series, against_first: bool = False) -> list[float]:
    """Return by how many mm maps from each frame's world are off the truth, over the frame, in the mean.

    Args:
        found: frame → common place, as the truths.
        against_first: tell all frames against the first, so that it does not matter where the common place is.
    """
    maps, known = (torch.cat([_matrix(each) for each in some]) for some in (found, series.truths))
    if against_first:
        maps, known = (torch.linalg.inv(each[0]) @ each[1:] for each in (maps, known))
    return mean_distance(Affine(maps), Affine(known), block_middles(series.grid)).tolist()


def _matrix(transform: Transform) -> Tensor:
    known = transform.as_affine
    assert known is not None
    return known.matrix.double().reshape(1, *known.matrix.shape[-2:])


def sharpness(mean: Image, inside: Tensor) -> float:
    """Return the mean slope of an image within a mask, in units of its mean intensity a mm."""
    slopes = torch.gradient(mean.data[0, 0], spacing=mean.grid.spacing.tolist())
    steep = torch.stack(slopes).norm(dim=0)
    return float(steep[inside[0, 0]].mean() / mean.data[inside].mean())


def noise_over_frames(frames: Series, inside: Tensor, sigma: float) -> float:
    """Return the mean over a mask of voxelwise Rice σ over the frames, in units of the noise that is in them."""
    values = torch.stack([frame.data[0, 0][inside[0, 0]] for frame in frames])
    return float(fit_rice(values)[1].mean() / sigma)


def poses_of(motion: Motion) -> list[Affine]:
    """Return the motions of a series one by one."""
    return [Affine(matrix) for matrix in motion.matrix]
