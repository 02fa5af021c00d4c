"""The networks of a conditional atlas: templates of ages, stored or generated, and the registration to them.

Dalca et al. 2019 (learning conditional deformable templates), sections 3.2 and 3.3.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.example import Example
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.networks import Network
from pullback.networks.unet import convolution
from pullback.space import Grid, Image, Velocity

FAINT = 1e-7  # deviation of the last weights of the generator, so that it begins as the mean image
REGISTER = partial(VoxelMorph, transform=Velocity, halves=1)


class TemplateGenerator(nn.Module):
    """A decoder from an age to what is added to the mean image.

    A dense layer with ELU gives a few maps, three convolutions of kernel 3 mix them, and one more makes the image.

    Args:
        ndim: 2 or 3.
        shape: of the image.
        channels: of the image.
        maps: how many.
        shrink: by which factor the maps are smaller than the image, along each axis; linearly enlarged.
    """

    def __init__(self, ndim: int, shape: tuple[int, ...], channels: int = 1, maps: int = 4, shrink: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.small = tuple(-(-n // shrink) for n in shape)
        self.dense = nn.Linear(1, maps * math.prod(self.small))
        self.mixing = nn.Sequential(*(convolution(ndim, maps, maps, 3, padding=1) for _ in range(3)))
        self.last = convolution(ndim, maps, channels, 3, padding=1)
        nn.init.normal_(self.last.weight, std=FAINT)
        assert self.last.bias is not None
        nn.init.normal_(self.last.bias, std=FAINT)

    def forward(self, share: Tensor) -> Tensor:
        """Return what is added at an age, `(1, channels, *shape)`, for its share of the way from 0 to 1, `(1, 1)`."""
        maps = F.elu(self.dense(share)).view(1, -1, *self.small)
        made: Tensor = self.last(self.mixing(maps))
        if self.small == self.shape:
            return made
        return F.interpolate(made, self.shape, mode="bilinear" if len(self.shape) == 2 else "trilinear")


class ConditionalAtlas(Network):
    """Templates of several ages, and a network that registers a scan to the one of its age.

    The templates are stored and made anew in rounds; or, with a generator, they are the mean image and what it adds at
    an age, and learn with the registration. All scans lie on the grid of the templates.

    Args:
        ndim: 2 or 3.
        shape: of the templates.
        ages: of the stored templates, in order; of a generator the first and the last are 0 and 1 to it.
        channels: of the images.
        register: makes the network that registers the template, fixed, and a scan.
        generated: whether templates are generated.
        shrink: as of `TemplateGenerator`.

    Raises:
        InputError: no ages, or not in order.
    """

    grid_affine: Tensor
    known_ages: Tensor
    templates: Tensor

    def __init__(
        self,
        ndim: int,
        shape: tuple[int, ...],
        ages: tuple[float, ...] = (0.0,),
        channels: int = 1,
        register: Callable[..., nn.Module] = REGISTER,
        generated: bool = False,
        shrink: int = 1,
    ) -> None:
        super().__init__()
        if not ages or list(ages) != sorted(set(ages)):
            raise InputError(f"ConditionalAtlas: one age or more in order expected, got {ages}")
        self.shape = tuple(shape)
        self.register = register(ndim=ndim, channels=channels)
        self.generator = TemplateGenerator(ndim, self.shape, channels, shrink=shrink) if generated else None
        count = 1 if generated else len(ages)
        self.register_buffer("grid_affine", torch.eye(ndim + 1, dtype=torch.float64))
        self.register_buffer("known_ages", torch.tensor(ages, dtype=torch.float64))
        self.register_buffer("templates", torch.zeros(count, channels, *self.shape))

    @property
    def grid(self) -> Grid:
        """The grid of the templates."""
        return Grid(self.shape, self.grid_affine.cpu())

    def nearest(self, age: float) -> int:
        """Return the number of the known age that is nearest."""
        return int((self.known_ages - age).abs().argmin())

    def template(self, age: float) -> Image:
        """Return the template of an age: the nearest one, or the generated one."""
        if self.generator is None:
            n = self.nearest(age)
            return Image(self.templates[n : n + 1], self.grid)
        low, high = float(self.known_ages[0]), float(self.known_ages[-1])
        share = (age - low) / (high - low) if high > low else 0.0
        return Image(self.templates + self.generator(self.templates.new_tensor([[share]])).float(), self.grid)

    def forward(self, scan: Image, age: float) -> Alignment:
        """Return the alignment of the template of an age, fixed, and a scan, moving.

        Raises:
            InputError: the scan lies on another grid.
        """
        if scan.grid != self.grid:
            raise InputError(
                f"ConditionalAtlas: scans on the templates' grid, {self.grid}, expected, got {scan.grid}; resample "
                f"them (data.lattice), and set network.shape"
            )
        template = self.template(age)
        answer: Any = self.register(template, scan)
        return Alignment(Pair(template, scan), answer.transform)


def age_of(example: Example) -> float:
    """Return the age that is known of a scan; 0 where none is."""
    about = getattr(example, "about", {})
    return float(about.get("age", 0.0))
