"""Patches of pairs, drawn at random, of which networks learn that see parts of images."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.errors import InputError
from pullback.solvers.initialise import otsu
from pullback.space import Affine, Image, part_of, pull

TRIES = 20
"""Draws of a place, until enough of its middle is foreground."""


@dataclass(frozen=True)
class RandomPatches:
    """Augmentation by patches of both images at random places of the fixed one, whose middles show foreground.

    The foreground, what is brighter than Otsu's threshold of the whole fixed image, is the patches' mask; where no
    place has enough of it, the best of 20 is taken. The moving image is pulled onto each patch by the headers; beyond
    its ends an image goes on with 0. One patch stays where it is in the world, with a known truth and points. Several
    are a batch, all moved to where the first one is, and nothing else of the pair is kept.

    Attributes:
        size: edge of a patch, voxels.
        answered: edge of its middle, which lies within the image where that is large enough.
        count: of patches.
        inside: least share of foreground in the middle.

    Raises:
        InputError: a middle that is empty or larger than the patch, no patch, or a share that is none.
    """

    size: int
    answered: int
    count: int = 1
    inside: float = 0.2

    def __post_init__(self) -> None:
        even = 0 < self.answered <= self.size and (self.size - self.answered) % 2 == 0
        if not even or self.count < 1 or not 0 <= self.inside < 1:
            raise InputError(
                f"RandomPatches: one patch or more with an even margin around a middle of one voxel or more, and a "
                f"share below 1 expected, got {self.count} of {self.size}, {self.answered} answered, and {self.inside}"
            )

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        fixed = pair.fixed
        tissue = fixed.data[:, :1] > otsu(fixed.data[:, :1].flatten())
        if fixed.mask is not None:
            tissue = tissue & fixed.mask
        whole = replace(fixed, mask=tissue)
        places = [self._place(tissue, generator) for _ in range(self.count)]
        first, *others = [self._cut(whole, pair.moving, place) for place in places]
        one = replace(pair, fixed=first[0], moving=first[1], fixed_labels=None, moving_labels=None, lesion=None)
        if not others:
            return one
        fixed_ones, moving_ones = (
            first[side].stack([replace(patch[side], grid=first[side].grid) for patch in others]) for side in (0, 1)
        )
        return Pair(fixed_ones, moving_ones, name=pair.name)

    def _place(self, tissue: Tensor, generator: torch.Generator) -> list[int]:
        """Draw the first voxel of a middle."""
        shape = tissue.shape[2:]
        best, most = [0] * len(shape), -1.0
        for _ in range(TRIES):
            drawn = torch.rand(len(shape), generator=generator, dtype=torch.float64).tolist()
            place = [round(at * (n - self.answered)) for at, n in zip(drawn, shape, strict=True)]
            box = tuple(slice(max(a, 0), a + self.answered) for a in place)
            share = float(tissue[(slice(None), slice(None), *box)].sum()) / self.answered ** len(shape)
            if share > most:
                best, most = place, share
            if most >= self.inside:
                break
        return best

    def _cut(self, fixed: Image, moving: Image, place: list[int]) -> tuple[Image, Image]:
        """Return the patch of both images whose middle begins at a voxel."""
        margin = (self.size - self.answered) // 2
        box = tuple(slice(a - margin, a - margin + self.size) for a in place)
        patch = part_of(fixed, box)
        if moving.grid == fixed.grid:
            return patch, part_of(moving, box)
        return patch, pull(moving, Affine.identity(fixed.grid.ndim), onto=patch)
