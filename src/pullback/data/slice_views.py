"""Random views of slices: windows, tilts, stretches, missing parts and other intensities."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.data.slices import LabelledSlices
from pullback.errors import InputError
from pullback.numerics.sample import sample
from pullback.numerics.smooth import smooth_noise
from pullback.space import Image

BANDS = 12  # tiles of a microscope along an edge, of which each is of its own brightness


@dataclass(frozen=True)
class RandomViews:
    """A random change of each slice of a batch, as if it had been cut, mounted and seen by another microscope.

    The parts that are drawn, in this order: a window of the slice, beyond which nothing is seen and which fills the
    square afterwards; a turn, a shear and a stretch; a smooth deformation; a part that is missing; brightness, of all
    and of the microscope's tiles; noise, and grains that are dark.

    Attributes:
        window: the least edge of the window, as a share of the square's, drawn for each edge apart.
        degrees: largest turn.
        shear: largest tangent of a shear.
        stretch: the largest logarithm of each edge's scale.
        shift: largest, as a share of the square.
        elastic: deviation of the deformation, as a share of the square.
        missing: the largest share of the square that is missing; drawn for every other slice, on average.
        mirrored: whether left and right are exchanged by the toss of a coin.
        gamma: the largest logarithm of the power of the intensities.
        tiles: deviation of the logarithm of tiles' brightness.
        noise: the largest deviation of what is added.
        pepper: the largest share of pixels that are dark.

    Raises:
        InputError: a window that is no share above 0, or a number below 0.
    """

    window: float = 0.55
    degrees: float = 10.0
    shear: float = 0.05
    stretch: float = 0.1
    shift: float = 0.03
    elastic: float = 0.01
    missing: float = 0.25
    mirrored: bool = True
    gamma: float = 0.5
    tiles: float = 0.15
    noise: float = 0.1
    pepper: float = 0.03

    def __post_init__(self) -> None:
        amounts = {name: getattr(self, name) for name in vars(self) if name not in ("window", "mirrored")}
        if not 0 < self.window <= 1 or min(amounts.values()) < 0:
            raise InputError(f"RandomViews: a window in (0, 1] and numbers of 0 or more expected, got {vars(self)}")

    @torch.no_grad()
    def __call__(self, image: Image, generator: torch.Generator) -> Image:
        """Return a view of each image of a batch `(B, 1, S, S)`."""
        data = image.data
        where = self._places(data, generator)
        seen = sample(data, where) * self._kept(data, generator)
        return replace(image, data=self._lit(seen, generator))

    def _places(self, data: Tensor, generator: torch.Generator) -> Tensor:
        """Return where each pixel of the view is taken from, `(B, 2, S, S)` voxels; −2 beyond the window."""
        count, size = len(data), data.shape[-1]

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(count, *shape, generator=generator) - 1

        edges = self.window + (1 - self.window) * (uniform(2) + 1) / 2
        centre = (1 - edges) / 2 * uniform(2)  # as shares of the square, from its middle
        turn, sheared = math.radians(self.degrees) * uniform(), self.shear * uniform()
        turned = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
        linear = turned @ (
            torch.eye(2) + torch.stack([0 * sheared, sheared, 0 * sheared, 0 * sheared], 1).view(-1, 2, 2)
        )
        linear = linear * (self.stretch * uniform(2)).exp()[:, None]
        if self.mirrored:
            linear = linear * torch.stack([torch.sign(uniform()), torch.ones(count)], 1)[:, None]
        at = (torch.arange(size) - (size - 1) / 2) / size
        square = torch.stack(torch.meshgrid(at, at, indexing="ij")).flatten(1)  # (2, S²)
        inside = square[None] * edges.amax(1)[:, None, None]
        beyond = (inside.abs() > edges[:, :, None] / 2).any(1, keepdim=True)
        places = linear @ inside + (centre + self.shift * uniform(2))[:, :, None]
        if self.elastic:
            bend = smooth_noise((count, 2, size, size), size / 10, generator, data).cpu().flatten(2)
            places = places + self.elastic * bend
        voxels = places * size + (size - 1) / 2
        return voxels.masked_fill(beyond, -2.0).view(count, 2, size, size).to(data)

    def _kept(self, data: Tensor, generator: torch.Generator) -> Tensor:
        """Return 1 where tissue is kept and 0 where it is missing, `(B, 1, S, S)`."""
        if not self.missing:
            return torch.ones_like(data[:1])
        count, size = len(data), data.shape[-1]
        shares = self.missing * torch.rand(count, generator=generator)
        shares = shares * (torch.rand(count, generator=generator) < 0.5)
        bulk = smooth_noise((count, 1, size, size), size / 8, generator, data)
        least = torch.stack([one.flatten().quantile(float(share)) for one, share in zip(bulk, shares, strict=True)])
        return (bulk >= least.view(-1, 1, 1, 1)).to(data)

    def _lit(self, seen: Tensor, generator: torch.Generator) -> Tensor:
        """Return other intensities within 0 … 1; what is dark stays dark but for noise."""
        count, size = len(seen), seen.shape[-1]
        power = (self.gamma * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)).exp()
        bands = (self.tiles * torch.randn(count, 1, BANDS, 1, generator=generator)).exp()
        tiles = bands.repeat_interleave(-(-size // BANDS), 2)[:, :, :size]
        level = self.noise * torch.rand(count, 1, 1, 1, generator=generator)
        noise = level * torch.randn(seen.shape, generator=generator)
        dark = torch.rand(seen.shape, generator=generator) < self.pepper * torch.rand(
            count, 1, 1, 1, generator=generator
        )
        lit = seen.clamp(min=0) ** power.to(seen) * tiles.to(seen)
        lit = (lit * (1 + 3 * noise.to(seen))).masked_fill(dark.to(seen.device), 0.0)
        return lit.clamp(0, 1)


@dataclass(frozen=True)
class SliceAugmentation:
    """Augmentation of a batch: views of its plates, and slighter ones of its slices, which are cut already.

    Attributes:
        plates, slices: of either.
    """

    plates: RandomViews = RandomViews()
    slices: RandomViews = RandomViews(window=0.8, missing=0.15, gamma=0.3, noise=0.05)

    def __call__(self, example: LabelledSlices, generator: torch.Generator) -> LabelledSlices:
        image, data = example.image, example.image.data.clone()
        for which, views in ((example.is_plate, self.plates), (~example.is_plate, self.slices)):
            if bool(which.any()):
                data[which] = views(replace(image, data=data[which]), generator).data
        return replace(example, image=replace(image, data=data))
