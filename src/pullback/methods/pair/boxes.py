"""Bounding boxes instead of outlines: a network of two streams, asked twice, that learns from boxes of organs.

Schumacher et al., "Weak bounding box supervision for image registration networks", WBIR 2022. The
supervision is one energy, `BoxMSE`: `Unsupervised(MIND() + 0.1 * Diffusion() + 2.0 * BoxMSE())`, and any network can
learn by it. The paper's own network is here.

Where the paper is silent:

1. Streams: convolutions to 8 channels, to 16 at half the size, to 16, the same for both images. The U-Net: 32, 48 and
   64 channels at 1/4, 1/8 and 1/16, and back up to full size by 64, 48, 32 and 32; what is joined comes from the
   encoder, and at half the size from the streams; nothing at full size. One 3ᵈ convolution each.
2. Three more convolutions at full size are most of the work: with `head_at=2` they are done at half the size, and their
   features interpolated.
3. The tanh bounds the displacement, to half the image's extent, and not the location, which would start all voxels in
   the middle.
4. The network is asked twice for the final result: one pass is learned, `passes_in_training`.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import (
    Convolutions,
    Convolved,
    Decoder,
    Encoder,
    FieldHead,
    Network,
    Repeated,
    instance_norm_relu,
    linear_up,
    max_pooling,
    together,
)
from pullback.space import Dense, Displacement, Grid, Image

STREAM = (8, 16, 16)
ENCODER = (32, 48, 64)
DECODER = (64, 48, 32, 32)
STRIDE = 16  # of the coarsest features


class TwoStreamUNet(Network):
    """A register that looks at each image by itself, then at both, and again at what it moved.

    Its displacement is below half the extent of the fixed image along each axis.

    Args:
        ndim: 2 or 3.
        passes: how many times it is asked.
        passes_in_training: how many times while it learns; gradients pass through all of them.
        head_at: 1 for the last convolutions at full size, 2 for half the size, which takes a fifth of the time.
        shared: whether both images have the same stream, as images of one modality.
        transform: `Displacement`, or `Velocity` for a diffeomorphism; the head's answer is its `field`.
        channels: of one image.

    Raises:
        InputError: no pass, or a head at another size.
    """

    def __init__(
        self,
        ndim: int,
        passes: int = 2,
        passes_in_training: int = 1,
        head_at: int = 1,
        shared: bool = True,
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.repeated = Repeated(_OnePass(ndim, head_at, shared, transform, channels), passes, passes_in_training)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return self.repeated(fixed, moving)


class _OnePass(nn.Module):
    """The network of one look of `TwoStreamUNet`, as its arguments say."""

    def __init__(
        self, ndim: int, head_at: int, shared: bool, transform: Callable[[Tensor, Grid], Dense], channels: int
    ) -> None:
        super().__init__()
        if head_at not in (1, 2):
            raise InputError(f"TwoStreamUNet: head_at 1 (full size) or 2 (half of it) expected, got {head_at}")
        norm, block = instance_norm_relu(ndim), Convolutions(instance_norm_relu, (3,))
        first, second, third = STREAM

        def stream() -> nn.Sequential:
            return nn.Sequential(
                Convolved(ndim, channels, first, norm),
                Convolved(ndim, first, second, norm, stride=2),
                Convolved(ndim, second, third, norm),
            )

        self.streams = nn.ModuleList(stream() for _ in range(1 if shared else 2))
        self.shrink = max_pooling(ndim, 2 * third)
        self.encoder = Encoder(ndim, 2 * third, ENCODER, block, max_pooling)
        widths = DECODER[: 4 - (head_at - 1)]
        self.decoder = Decoder(ndim, (0, 2 * third, *ENCODER)[head_at - 1 :], widths, block, linear_up)
        self.last = Convolutions(instance_norm_relu, (3, 3, 3))(ndim, widths[-1], DECODER[-1])
        self.head_at, self.ndim = head_at, ndim
        self.head = FieldHead(ndim, DECODER[-1], transform, bound=1.0, kernel=1)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        """Return the alignment of two images, fixed → moving.

        Raises:
            InputError: images so small that the coarsest features are a single cell.
        """
        both = together(fixed, moving)
        shape = both.shape[2:]
        if max(shape) <= STRIDE:
            raise InputError(
                f"TwoStreamUNet: images of more than {STRIDE} voxels along an axis expected, got {[*shape]}"
            )
        seen = self.features(both)
        values = self.decoder([*([both[:, :0]] if self.head_at == 1 else []), seen, *self.encoder(self.shrink(seen))])
        return self.head(self._at_full_size(self.last(values[0]), shape), fixed, moving)

    def features(self, both: Tensor) -> Tensor:
        """Return features of both images `(B, 2C, *spatial)`, each seen by itself: `(B, 32, *⌈spatial / 2⌉)`."""
        images = both.chunk(2, 1)
        streams = [self.streams[0], self.streams[-1]]
        return torch.cat([stream(image) for stream, image in zip(streams, images, strict=True)], 1)

    def _at_full_size(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        if self.head_at == 1:
            return values
        # voxel i of half the size is voxel 2i
        ends = [2 * n - 1 for n in values.shape[2:]]
        mode = "bilinear" if self.ndim == 2 else "trilinear"
        values = F.interpolate(values, ends, mode=mode, align_corners=True)
        missing = [pad for n, end in zip(reversed(shape), reversed(ends), strict=True) for pad in (0, n - end)]
        return F.pad(values, missing, mode="replicate") if any(missing) else values


METHOD = Method(
    about="learns from bounding boxes of organs, or from their labels; two streams, asked twice",
    aligns=("pair",),
    trained=True,
    keys=("boxes-inexact", "boxes-labels", "boxes-labels-half", "boxes-unsupervised"),
    papers=(
        Paper(
            "schumacher2022weak",
            "Schumacher, Mona and Siebert, Hanna and Bade, Ragnar and Genz, Andreas and Heinrich, Mattias",
            "Weak Bounding Box Supervision for Image Registration Networks",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
)
