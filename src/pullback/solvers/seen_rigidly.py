"""Views of one image at chosen points through many linear motions, and what its slopes say of the motions."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pullback.numerics.sample import coverage, sample
from pullback.space import Image, Motion
from pullback.space.grid import transform_channels


@dataclass(frozen=True, eq=False)
class Places:
    """Points about a centre: near it their coordinates are exact in single precision, wherever it lies in the world.

    Attributes:
        about: `(d, N)` mm from the centre.
        centre: `(d,)` float64.
    """

    about: Tensor
    centre: Tensor

    @classmethod
    def of(cls, points: Tensor, centre: Tensor, like: Tensor) -> Self:
        """Return world points `(d, N)` float64, in the dtype and on the device of `like`."""
        return cls((points - centre[:, None]).to(like), centre)

    def in_voxels(self, image: Image, motion: Motion) -> Tensor:
        """Return the voxels of an image to which a motion takes the points, `(B, d, N)`."""
        matrix = torch.linalg.inv(image.grid.affine).to(motion.matrix.device) @ motion.matrix.double() @ self._back
        return transform_channels(matrix.reshape(-1, *matrix.shape[-2:]), self.about[None])

    def rows(self, motion: Motion) -> Tensor:
        """Return the derivatives of where points go by a motion's parameters, as rows for `products`.

        A point x about the centre c goes to M (x + c): the rows are those of ∂(M C) / ∂p above the last,
        `(B, K, d (d + 1))`.
        """
        slopes = motion.slopes.double() @ self._back
        rows = slopes[..., :-1, :].flatten(-2)
        return rows.to(self.about).reshape(-1, *rows.shape[-2:])

    def products(self, slopes: Tensor) -> Tensor:
        """Return the products of slopes `(B, d, N)` and homogeneous coordinates, `(B, d (d + 1), N)`."""
        coordinates = torch.cat([self.about, torch.ones_like(self.about[:1])])
        return (slopes[:, :, None] * coordinates).flatten(1, 2)

    @property
    def _back(self) -> Tensor:
        """The shift of the origin to the centre, as a matrix."""
        back = torch.eye(len(self.centre) + 1, dtype=torch.float64)
        back[:-1, -1] = self.centre
        return back.to(self.about.device)


def with_slopes(image: Image) -> Image:
    """Return an image of one channel with its derivatives along the world's axes, per mm, as d channels more."""
    by_voxel = torch.cat(torch.gradient(image.data, dim=tuple(range(2, image.data.ndim))), 1)  # (1, d, …)
    turn = torch.linalg.inv(image.grid.affine[:-1, :-1]).T.to(by_voxel)
    slopes = torch.einsum("ij,bj...->bi...", turn, by_voxel)
    return replace(image, data=torch.cat([image.data, slopes], 1))


def seen_at(image: Image, motion: Motion, places: Places) -> tuple[Tensor, Tensor]:
    """Return the channels of one image where a motion takes points, `(B, C, N)`, and whether it reaches there.

    Beyond the image they are 0; the second is `(B, N)` bool.
    """
    where = places.in_voxels(image, motion)  # (B, d, N)
    batch, _, count = where.shape
    flat = where.transpose(0, 1).flatten(1)[None]  # one image serves all: (1, d, B N)
    seen = sample(image.data, flat).reshape(-1, batch, count).transpose(0, 1)
    return seen, (coverage(where, image.grid.shape) == 1)[:, 0]


def scored(rows: Tensor, products: Tensor, score: Tensor, information: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope of −log p by a motion's parameters, `(B, K)`, and the expected curvature, `(B, K, K)`.

    Args:
        rows: `(B, K, q)`, as of `Places.rows`.
        products: `(B, q, N)`, as of `Places.products`.
        score: ∂ log p / ∂ŷ at each point, `(B, N)`.
        information: its expected square, `(B, N)`.
    """
    slope = (products @ score[..., None]).double()
    curvature = ((products * information[:, None]) @ products.mT).double()
    rows = rows.double()
    return -(rows @ slope)[..., 0], rows @ curvature @ rows.mT
