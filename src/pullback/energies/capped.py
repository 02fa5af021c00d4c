"""Energies by a likeness of both images, capped at that of the fixed image to itself."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies.energy import Energy
from pullback.space import Image

ROUNDING = 1000  # units of the last place: what resampling at the identity takes from a likeness, ten times


class Capped(Energy):
    """An energy that falls as a likeness of both images grows, up to that of the fixed image to itself.

    No image tells more of the fixed one than it tells itself. An estimate may gain beyond, by windows or floors that
    reward contrast; there the energy is flat. So identical images are a minimum, for all parameters and any masks.
    Images that differ lie far below the cap, where nothing changes, unless a few outliers determine the range of the
    fixed image, so that it tells next to nothing: cut them off (`data.normalised`).

    The fixed image is compared to itself as the moved one is, where the mask of the moving image comes to lie. Where
    both have masks, the cap is no more than the likeness over all of the fixed mask, so that hiding differences is no
    gain.
    """

    @abstractmethod
    def likeness(self, fixed: Image, moved: Tensor, moving: Image, mask: Tensor | None) -> Tensor:
        """Return the likeness of each pair and channel, `(B, C)`.

        Args:
            fixed: `(B, C, *spatial)`, which receives no gradient.
            moved: intensities on the fixed grid, which do.
            moving: whose intensities these are, and its mask: what they are measured by.
            mask: the voxels that are compared, `(B, 1, *spatial)`; None is all.
        """

    @abstractmethod
    def by(self, likeness: Tensor) -> dict[str, Tensor]:
        """Return the terms for the mean likeness, `()`."""

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return self.compared(alignment, self.most(alignment.pair))

    def ready(self, pair: Pair) -> Energy:
        return _Ready(self, self.most(pair))

    def most(self, pair: Pair) -> Tensor:
        """Return the likeness of the fixed image to itself that no transform changes, `(B, C)`; infinite if unknown."""
        fixed, moving = pair.images
        if moving.mask is not None and fixed.mask is None:
            return fixed.data.new_tensor(torch.inf)
        return self._alone(fixed, None if moving.mask is None else fixed.mask)

    def compared(self, alignment: Alignment, most: Tensor) -> dict[str, Tensor]:
        """Return the terms, where the likeness of the fixed image to itself is known."""
        pair, moved = alignment.pair, alignment.moved
        if pair.moving.mask is not None:
            most = torch.minimum(most, self._alone(pair.fixed, moved.mask))
        found = self.likeness(pair.fixed, moved.data, pair.moving, alignment.mask)
        most = rounded(most.to(moved.data.dtype)).to(found.dtype)
        return self.by(torch.where(found < most, found, most).mean().to(moved.data.dtype))  # no slope from there on

    @torch.no_grad()
    def _alone(self, fixed: Image, view: Tensor | None) -> Tensor:
        """Return the likeness of the fixed image to itself, seen through this mask as if it were the moving one's."""
        masks = [each for each in (fixed.mask, view) if each is not None]
        mask = torch.stack(torch.broadcast_tensors(*masks)).all(0) if masks else None
        return self.likeness(fixed, fixed.data, replace(fixed, mask=mask), mask)


@dataclass(frozen=True, eq=False)
class _Ready(Energy):
    """A `Capped` energy of pairs whose fixed images have the likeness `most` to themselves."""

    energy: Capped
    most: Tensor

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        return self.energy.compared(alignment, self.most)


def rounded(most: Tensor) -> Tensor:
    """Return the likeness from which on images count as the same: `most`, less the rounding of its type."""
    return (1 - ROUNDING * torch.finfo(most.dtype).eps) * most
