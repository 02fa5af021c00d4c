"""Lesions that are painted into real or made images, and push the tissue about them aside: the push is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.data.case import Subject
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Displacement, Grid, Image, Labels, pull

MODES = 4  # waves of a rough outline
TISSUE = 0.05  # of the range of intensities, above which there is tissue


@dataclass(frozen=True, eq=False)
class Lesioned:
    """A subject with a lesion.

    Attributes:
        subject: its image is seen everywhere, without a mask, and the lesion has label 0.
        lesion: where it is, 1, on the image's grid.
        push: takes points of the subject with the lesion to where they were without it.
    """

    subject: Subject
    lesion: Labels
    push: Displacement

    @property
    def masked(self) -> Image:
        """The image with a mask that is False within the lesion."""
        seen = self.lesion.data == 0
        image = self.subject.image
        return replace(image, mask=seen if image.mask is None else seen & image.mask)


@dataclass(frozen=True)
class Lesions:
    """A maker of subjects with one lesion each: a disc or ball, or rougher, of one intensity, with a soft rim.

    Where the lesion ends at the distance R from its centre, which may differ by direction, tissue that now lies at r
    was at s before, along the same ray. In d dimensions, and with π the share of the lesion that is new, sᵈ = rᵈ − π Rᵈ
    outside and s = (1 − π)^(1/d) r within. So outside of it no tissue gains or loses volume, near or far, and within it
    all shrinks alike, before it is painted over.

    Attributes:
        radii: the least and the greatest radius, mm.
        new: π, from 0, which paints the lesion over tissue, to almost 1, which pushes all tissue aside.
        rough: by which share of the radius the outline goes in and out; 0 is a disc or ball.
        intensity: the least and the greatest, as shares of the image's range.
        rim: width of its soft edge, mm.
        seed: of all that is drawn.

    Raises:
        InputError: radii, shares or a rim that cannot be.
    """

    radii: tuple[float, float] = (8.0, 12.0)
    new: float = 0.75
    rough: float = 0.0
    intensity: tuple[float, float] = (0.3, 0.5)
    rim: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.radii
        if not (0 < low <= high < math.inf and 0 <= self.new < 1 and 0 <= self.rough < 1 and self.rim > 0):
            raise InputError(
                "Lesions: radii above 0, the least first, shares from 0 to less than 1 and a rim above 0 expected, got "
                f"radii {self.radii}, new {self.new:g}, rough {self.rough:g} and a rim of {self.rim:g}"
            )

    @torch.no_grad()
    def __call__(self, subject: Subject, number: int) -> Lesioned:
        """Return the subject with the lesion of this number: where it lies, how large and how bright it is.

        Its centre lies as deep in the tissue, or in the labels where there are some, as its radius, or deepest.

        Raises:
            InputError: a batch of images, or one without tissue.
        """
        image, chance = subject.image, make_generator(self.seed, number)
        if image.batch > 1:
            raise InputError(f"Lesions: one image expected, got a batch of {image.batch}")
        grid, low = image.grid, image.data.amin()
        span = image.data.amax() - low
        tissue = image.data[:, :1] - low > TISSUE * span if subject.labels is None else subject.labels.data > 0
        radius = _between(self.radii, chance)
        rays, away = _polar(grid, _centre(tissue, grid, radius, chance))
        reach = radius * (1 + self.rough * _waves(rays, chance))  # R by direction
        field = _push(rays, away, reach, self.new, grid)
        push = Displacement(field.to(image.data), grid)
        pulled = pull(replace(image, mask=None), push, onto=grid)
        share = torch.sigmoid((reach - away) / self.rim * 4).to(image.data)
        bright = low + span * _between(self.intensity, chance)
        inside = (away <= reach).to(image.data.device)
        data = share * bright + (1 - share) * pulled.data
        labels = subject.labels and pull(subject.labels, push, onto=grid)
        labels = labels and replace(labels, data=labels.data.masked_fill(inside, 0))
        to_template = subject.to_template and subject.to_template @ push
        mask = None if image.mask is None else pull(image, push, onto=grid).mask
        made = replace(subject, image=Image(data, grid, mask), labels=labels, to_template=to_template)
        return Lesioned(made, Labels(inside.long(), grid), push)


def _between(ends: Sequence[float], chance: torch.Generator) -> float:
    low, high = ends
    return low + (high - low) * float(torch.rand((), generator=chance, dtype=torch.float64))


def _centre(tissue: Tensor, grid: Grid, radius: float, chance: torch.Generator) -> Tensor:
    """Return the world point of a voxel that lies `radius` mm deep in the tissue, `(d,)`; the deepest if none does."""
    if not tissue.any():
        raise InputError("Lesions: the image has no tissue that a lesion could lie in")
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415 (slow to import, and few need it)

    depth = torch.from_numpy(distance_transform_edt(tissue[0, 0].cpu().numpy(), sampling=grid.spacing.tolist()))
    deep = (depth >= min(radius, float(depth.max()))).nonzero()
    voxel = deep[int(torch.randint(len(deep), (), generator=chance))]
    return grid.to_world(voxel.double()[None, :, None])[0, :, 0]


def _polar(grid: Grid, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit vectors from a point to all voxels, `(1, d, …)`, and the distances in mm, `(1, 1, …)`."""
    out = grid.to_world(grid.voxels(grid.affine)[None]) - centre.view(1, -1, *[1] * grid.ndim)
    away = out.norm(dim=1, keepdim=True)
    return out / away.clamp(min=1e-9), away


def _waves(rays: Tensor, chance: torch.Generator) -> Tensor:
    """Return a smooth function of direction, `(1, 1, …)`, from −1 to 1 at most."""
    total = torch.zeros_like(rays[:, :1])
    for _ in range(MODES):
        way = torch.randn(rays.shape[1], generator=chance, dtype=torch.float64)
        phase = 2 * math.pi * torch.rand((), generator=chance, dtype=torch.float64)
        total = total + torch.cos(2 * torch.einsum("d,bd...->b...", way, rays)[:, None] + phase)
    return total / MODES


def _push(rays: Tensor, away: Tensor, reach: Tensor, new: float, grid: Grid) -> Tensor:
    """Return the displacement `(1, d, …)`, in voxels, from where tissue lies to where it was."""
    d = grid.ndim
    before = (away**d - new * reach**d).clamp(min=0) ** (1 / d)
    before = torch.where(away > reach, before, (1 - new) ** (1 / d) * away)
    return grid.from_mm(rays * (before - away))
