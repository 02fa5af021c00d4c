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
class RandomPatch:
    """Augmentation by a patch of both images at a random place of the fixed one, whose middle shows foreground.

    The foreground, what is brighter than Otsu's threshold of the whole fixed image, is the patch's mask; where no place
    has enough of it, the best of 20 is taken. The moving image is pulled onto the patch by the headers. Voxels stay
    where they are in the world, so a known truth and points stay right; beyond its ends an image goes on with 0. Labels
    and the lesion are dropped.

    Attributes:
        size: edge of the patch, voxels.
        answered: edge of its middle, of which the middle voxel lies in the image.
        inside: least share of foreground there.

    Raises:
        InputError: a middle that is empty or larger than the patch, or a share that is none.
    """

    size: int
    answered: int
    inside: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.answered <= self.size or (self.size - self.answered) % 2 or not 0 <= self.inside < 1:
            raise InputError(
                f"RandomPatch: an even margin around a middle of one voxel or more, and a share below 1 expected, got "
                f"patches of {self.size}, {self.answered} of it answered, and {self.inside}"
            )

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        fixed = pair.fixed
        tissue = fixed.data[:, :1] > otsu(fixed.data[:, :1].flatten())
        if fixed.mask is not None:
            tissue = tissue & fixed.mask
        masked = replace(fixed, mask=tissue)
        place = self._place(tissue, generator)
        patch = self._cut(masked, place, self.size)
        moving = pull(pair.moving, Affine.identity(fixed.grid.ndim), onto=patch)
        return replace(pair, fixed=patch, moving=moving, fixed_labels=None, moving_labels=None, lesion=None)

    def _place(self, tissue: Tensor, generator: torch.Generator) -> list[int]:
        """Draw the first voxel of a middle, which lies within the image where that is large enough."""
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

    def _cut(self, image: Image, place: list[int], size: int) -> Image:
        margin = (size - self.answered) // 2
        return part_of(image, tuple(slice(a - margin, a - margin + size) for a in place))
