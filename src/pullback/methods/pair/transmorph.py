"""TransMorph: a Swin transformer looks at both images, a convolutional decoder answers with a field.

Chen, Frey, He, Segars, Li, Du: TransMorph: Transformer for unsupervised medical image registration, Medical Image
Analysis 2022.
"""

import itertools
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import Convolved, FieldHead, Network, Swin, Trunk, Up, instance_norm_leaky, together
from pullback.space import Dense, Displacement, Grid, Image

WINDOW = {2: (7, 7), 3: (5, 6, 7)}
SMALL = {"embed": 48, "heads": (4, 4, 4, 4)}
LARGE = {"embed": 128, "depths": (2, 2, 12, 2), "heads": (4, 4, 8, 16)}


class TransMorph(Network):
    """A register of fixed and moving images of one dimension by a Swin transformer.

    The defaults are the authors' (46.8 million parameters in 3D); `TransMorph(3, **SMALL)` and `**LARGE` are their
    variants. Images of any size but the smallest: see `Swin`. In 2D, where the paper has no windows, they are those of
    Liu et al. 2021.

    Args:
        ndim: 2 or 3.
        embed: channels of the first stage of the transformer.
        depths, heads: blocks, and heads of attention, of its four stages.
        window: its sides in patches of 4 voxels; None is 5, 6, 7 in 3D and 7, 7 in 2D.
        drop_path: rate of stochastic depth in the last block.
        last: channels at full size.
        transform: `Displacement`, or `Velocity` for a diffeomorphism; the head's answer is its `field`.
        channels: of one image.
    """

    def __init__(
        self,
        ndim: int,
        embed: int = 96,
        depths: Sequence[int] = (2, 2, 4, 2),
        heads: Sequence[int] = (4, 4, 8, 8),
        window: Sequence[int] | None = None,
        drop_path: float = 0.3,
        last: int = 16,
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        both, finish = 2 * channels, instance_norm_leaky(ndim)
        self.pool = F.avg_pool2d if ndim == 2 else F.avg_pool3d
        self.swin = Swin(ndim, both, 4, embed, depths, heads, window or WINDOW[ndim], drop_path)
        self.at_half = Convolved(ndim, both, embed // 2, finish)
        self.at_full = Convolved(ndim, both, last, finish)
        widths = [8 * embed, 4 * embed, 2 * embed, embed, embed // 2, last]
        self.up = nn.ModuleList(Up(ndim, before, after, after, finish) for before, after in itertools.pairwise(widths))
        self.head = FieldHead(ndim, last, transform)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        """Align two images, fixed → moving.

        Raises:
            InputError: the images are too small to be normalised at a sixteenth of their size, or pooled.
        """
        if max(fixed.grid.shape) <= 16 or min(fixed.grid.shape) < 3:
            raise InputError(
                f"TransMorph sees images of 3 voxels or more along each axis and more than 16 along one, got "
                f"{fixed.grid.shape}"
            )
        both = together(fixed, moving)
        values, *skips = reversed(self.swin(both))
        skips += [self.at_half(self.pool(both, 3, stride=2, padding=1)), self.at_full(both)]
        for up, skip in zip(self.up, skips, strict=True):
            values = up(values, skip)
        return self.head(values, fixed, moving)

    def trunk(self) -> Trunk:
        """Return the transformer, and the stages up to a quarter of the size."""
        return Trunk(self.swin, self.up[:3], self.swin.embed.out_channels, beyond=16)


METHOD = Method(
    about="a Swin transformer that looks at both images, and a convolutional decoder that answers with a field",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "chen2022transmorph",
            "Chen, Junyu and Frey, Eric C. and He, Yufan and Segars, William P. and Li, Ye and Du, Yong",
            "TransMorph: Transformer for Unsupervised Medical Image Registration",
            "Medical Image Analysis",
            2022,
            "10.1016/j.media.2022.102615",
            "article",
            "82",
            "102615",
        ),
    ),
)
