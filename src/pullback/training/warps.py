"""Pairs made of one image that is warped twice, whose true transform is known in closed form, and of two contrasts.

Young, Balbastre, Dalca, Wells, Iglesias, Fischl: SuperWarp, 2022, section 3.3. Table 1, which gives the ranges and
probabilities of the draws, is a picture that the text lacks: the ranges of the affine maps are chosen so that points at
the rim of a head move by up to a quarter of an image of 256 voxels, the "about ± 64" of section 4.1; those of the
intensities are those of nnU-Net (Isensee et al. 2021), "a standard augmentation pipeline".
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.synthesis import random_spline
from pullback.errors import InputError
from pullback.space import Affine, Grid, Image, Labels, Transform, inverted, pull, push, resample
from pullback.space.pull import coordinates
from pullback.training.augment import RandomAffine

Chance = tuple[float, float, float]
"""The least and the greatest of a uniform draw, and how probable it is that it is made at all."""


@dataclass(frozen=True)
class RandomIntensities:
    """A random change of an image's intensities, whatever their range; each part acts by chance.

    Attributes:
        noise: standard deviation of the noise in each voxel, as a share of the range.
        brightness: factor of the intensities.
        contrast: factor of what they differ from their mean by; the range is kept.
        gamma: power of the intensities within their range; mean and deviation are kept.

    Raises:
        InputError: a range that ends before it begins, or a probability that is none.
    """

    noise: Chance = (0.0, 0.05, 0.1)
    brightness: Chance = (0.75, 1.25, 0.15)
    contrast: Chance = (0.75, 1.25, 0.15)
    gamma: Chance = (0.7, 1.5, 0.3)

    def __post_init__(self) -> None:
        for name in ("noise", "brightness", "contrast", "gamma"):
            low, high, chance = getattr(self, name)
            if not 0 <= low <= high or not 0 <= chance <= 1:
                raise InputError(
                    f"RandomIntensities: the least and the greatest {name}, 0 or more, and a probability expected, got "
                    f"{low}, {high}, {chance}"
                )

    def __call__(self, image: Image, generator: torch.Generator) -> Image:
        data = image.data
        low, high = data.amin(), data.amax()
        noise, brightness, contrast, gamma = (
            _drawn(chance, generator) for chance in (self.noise, self.brightness, self.contrast, self.gamma)
        )
        if noise is not None:
            data = data + noise * (high - low) * torch.randn(data.shape, generator=generator).to(data)
        if brightness is not None:
            data = data * brightness
        if contrast is not None:
            mean, least, most = data.mean(), data.amin(), data.amax()
            data = torch.minimum(torch.maximum(mean + contrast * (data - mean), least), most)
        if gamma is not None:
            data = _raised(data, gamma)
        return replace(image, data=data)


@dataclass(frozen=True)
class RandomWarps:
    """A generator of pairs of the fixed image with itself: both are seen through a random map of their own.

    The fixed image becomes f ∘ ψ and the moving one f ∘ A, so that A⁻¹ ∘ ψ leads from one to the other (eq. 2). A is
    affine and ψ an affine map after a small spline, so no inverse is sought. The given moving image is not used. Where
    either image shows what lies beyond f, nothing can be told: the fixed image's mask is where both show f. Labels,
    mask and points follow.

    Attributes:
        affine: the generator of both affine maps.
        elastic: the longest displacement of the spline, mm; 0 leaves it out.
        controls: control points of the spline along each axis.
        intensities: their change, drawn for each image by itself; None leaves them.
        shape: number of voxels to which the image is resampled first, between its outermost voxel centres; None leaves
            it.
        foreground: whether the mask keeps to what lies above f's minimum, as where pairs are measured: in the air
            nothing can be seen.

    Raises:
        InputError: a length below 0, or too few controls or voxels.
    """

    affine: RandomAffine = RandomAffine(12.0, 0.1, 0.05, 0.05)
    elastic: float = 2.0
    controls: int = 8
    intensities: RandomIntensities | None = RandomIntensities()
    shape: tuple[int, ...] | None = None
    foreground: bool = False

    def __post_init__(self) -> None:
        if not self.elastic >= 0 or self.controls < 2 or min(self.shape or (2,)) < 2:
            raise InputError(
                f"RandomWarps: an elastic length of 0 mm or more, two controls and two voxels or more along each axis "
                f"expected, got {self.elastic}, {self.controls} and {self.shape}"
            )

    @property
    def still(self) -> "RandomWarps":
        """Pairs without motion, of which intensities alone change."""
        return replace(self, affine=RandomAffine(0.0, 0.0, 0.0, 0.0), elastic=0.0)

    @torch.no_grad()
    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Return a pair on the grid of the fixed image, or on that of `shape`.

        Raises:
            InputError: images of other dimensions than `shape`.
        """
        image, labels = pair.fixed, pair.fixed_labels
        grid = self._grid(pair)
        if grid is not image.grid:
            image = resample(image, grid)
            labels = labels and pull(labels, Affine.identity(grid.ndim), onto=grid)
        through, moving = self.maps(grid, generator, image.data)
        truth = moving.inverse() @ through
        one, other = pull(image, through, onto=grid), pull(image, moving, onto=grid)
        if self.intensities is not None:
            one, other = self.intensities(one, generator), self.intensities(other, generator)
        seen = _within(through, grid, image.data) & _within(truth, grid, image.data)
        if self.foreground:
            lit = Labels((image.data > image.data.amin()).any(1, keepdim=True).byte(), grid)
            seen = seen & pull(lit, through, onto=grid).data.bool()
        points = pair.fixed_points
        return Pair(
            replace(one, mask=seen if one.mask is None else seen & one.mask),
            other,
            labels and pull(labels, through, onto=grid),
            labels and pull(labels, moving, onto=grid),
            points and push(points, inverted(through)),
            points and push(points, moving.inverse()),
            truth,
            pair.name,
        )

    def maps(self, grid: Grid, generator: torch.Generator, like: Tensor) -> tuple[Transform, Affine]:
        """Draw ψ and A, through which the fixed and the moving image are pulled."""
        fixed, moving = self.affine(grid, generator), self.affine(grid, generator)
        if not self.elastic:
            return fixed, moving
        return fixed @ random_spline(grid, self.elastic, self.controls, generator, like), moving

    def _grid(self, pair: Pair) -> Grid:
        grid = pair.fixed.grid
        if self.shape is None:
            return grid
        if len(self.shape) != grid.ndim:
            raise InputError(
                f"{pair.name or 'a pair'}: the fixed image has shape {grid.shape}, and RandomWarps.shape is "
                f"{self.shape}; give a number of voxels for each of its axes, or leave it out"
            )
        return grid.between_ends(self.shape)


def _drawn(chance: Chance, generator: torch.Generator) -> float | None:
    """Draw a number, or None; the generator is used alike in both cases."""
    low, high, probability = chance
    at, number = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return low + (high - low) * number if at < probability else None


def _raised(data: Tensor, power: float) -> Tensor:
    """Return intensities raised to a power within their range, brought back to their mean and deviation."""
    low, high, mean, deviation = data.amin(), data.amax(), data.mean(), data.std()
    raised = ((data - low) / (high - low).clamp(min=1e-7)) ** power
    return mean + (raised - raised.mean()) * deviation / raised.std().clamp(min=1e-7)


def _within(transform: Transform, grid: Grid, like: Tensor) -> Tensor:
    """Return whether points of a grid are led to points of it, `(1, 1, *grid.shape)` bool."""
    where = coordinates(grid, transform, grid, like)
    last = torch.tensor(grid.shape).to(where).view(-1, *[1] * grid.ndim) - 1
    return ((where >= 0) & (where <= last)).all(1, keepdim=True)
