"""ViT-V-Net: convolutions down, a vision transformer at the bottom, a V-Net's decoder up.

Chen, He, Frey, Li, Du: ViT-V-Net: Vision Transformer for Unsupervised Volumetric Medical Image Registration, 2021.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import (
    Convolved,
    FieldHead,
    Network,
    Trunk,
    Up,
    batch_norm_relu,
    channels_last,
    convolution,
    convolve,
    padded,
    together,
)
from pullback.space import Dense, Displacement, Grid, Image

PATCH = 8
STRIDE = 4 * PATCH


class ViTVNet(Network):
    """A register of fixed and moving images of one dimension by a vision transformer at the bottom of a V-Net.

    The defaults are the authors' (31.5 million parameters in 3D): two halvings, patches of 8 of what is left, 12
    blocks of attention. They learn one position per patch of 160×192×224 voxels; here those are interpolated to the
    patches of an image of any size, which is padded to multiples of 32.

    Args:
        ndim: 2 or 3.
        encoder: channels at full, half and a quarter of the size.
        hidden: channels of the tokens.
        blocks, heads, mlp: of the transformer: its depth, its heads of attention, its channels between.
        dropout: rate within the MLPs and after the positions; attention has none.
        positions: patches along each axis of the positions that are learned; None is 5, 6, 7 in 3D and 6, 7 in 2D.
        bottom: channels after the transformer.
        decoder: channels on the way up, at a sixteenth of the size, an eighth, …, and at full size.
        transform: `Displacement`, or `Velocity` for a diffeomorphism; the head's answer is its `field`.
        channels: of one image.
    """

    def __init__(
        self,
        ndim: int,
        encoder: Sequence[int] = (16, 32, 32),
        hidden: int = 252,
        blocks: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        dropout: float = 0.1,
        positions: Sequence[int] | None = None,
        bottom: int = 512,
        decoder: Sequence[int] = (96, 48, 32, 32, 16),
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.decoder = tuple(decoder)
        self.mode = "bilinear" if ndim == 2 else "trilinear"
        self.pool = F.max_pool2d if ndim == 2 else F.max_pool3d
        widths = [2 * channels, *encoder]
        self.down = nn.ModuleList(
            nn.Sequential(Convolved(ndim, a, b, _rectified, bias=True), Convolved(ndim, b, b, _rectified, bias=True))
            for a, b in zip(widths, encoder, strict=False)
        )
        self.embed = convolution(ndim, encoder[-1], hidden, PATCH, stride=PATCH)
        self.positions = nn.Parameter(torch.zeros(1, hidden, *(positions or ((6, 7) if ndim == 2 else (5, 6, 7)))))
        self.dropout = nn.Dropout(dropout)
        self.transformer = nn.Sequential(
            *(_block(hidden, heads, mlp, dropout) for _ in range(blocks)), nn.LayerNorm(hidden, eps=1e-6)
        )
        self.bottom = Convolved(ndim, hidden, bottom, batch_norm_relu(ndim))
        skips = [encoder[-1], encoder[-1], *reversed(encoder)]
        before = [bottom, *decoder]
        self.up = nn.ModuleList(
            Up(ndim, b, s, a, batch_norm_relu(ndim)) for b, s, a in zip(before, skips, decoder, strict=False)
        )
        self.head = FieldHead(ndim, decoder[-1], transform)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        """Align two images, fixed → moving.

        Raises:
            InputError: in training, where the images make a single patch, which cannot be normalised.
        """
        if self.training and max(fixed.grid.shape) <= STRIDE:
            raise InputError(f"ViTVNet learns from more than {STRIDE} voxels along some axis, got {fixed.grid.shape}")
        return self.head(padded(self._features, together(fixed, moving), STRIDE), fixed, moving)

    def trunk(self) -> Trunk:
        """Return the encoder with its transformer, and the stages up to a quarter of the size."""
        return Trunk(_Encoder(self), self.up[:3], self.decoder[2], STRIDE, beyond=STRIDE)

    def _features(self, values: Tensor) -> Tensor:
        values, *skips = reversed(_encoded(self, values))
        for up, skip in zip(self.up, skips, strict=True):
            values = up(values, skip)
        return values


class _Encoder(nn.Module):
    """The encoder of a `ViTVNet`, of its modules: what comes before its stages up."""

    def __init__(self, network: ViTVNet) -> None:
        super().__init__()
        self.mode, self.pool = network.mode, network.pool
        self.down, self.embed, self.positions = network.down, network.embed, network.positions
        self.dropout, self.transformer, self.bottom = network.dropout, network.transformer, network.bottom

    def forward(self, values: Tensor) -> list[Tensor]:
        """Return features at full, half, …, and 1/32 of the size, of `(B, 2 channels, *spatial)`, multiples of 32."""
        return _encoded(self, values)


def _encoded(network: ViTVNet | _Encoder, values: Tensor) -> list[Tensor]:
    features: list[Tensor] = []
    values = channels_last(values)
    for stage in network.down:
        values = stage(values if not features else network.pool(values, 2))
        features.append(values)
    features += [network.pool(values, 2), network.pool(values, 4)]
    return [*features, network.bottom(_attended(network, convolve(network.embed, values)))]


def _attended(network: ViTVNet | _Encoder, patches: Tensor) -> Tensor:
    positions = F.interpolate(network.positions, patches.shape[2:], mode=network.mode, align_corners=False)
    tokens = network.dropout((patches + positions).flatten(2).mT)  # (B, tokens, hidden)
    return network.transformer(tokens).mT.unflatten(-1, patches.shape[2:])  # (B, hidden, …)


def _block(hidden: int, heads: int, mlp: int, dropout: float) -> nn.Module:
    """Return a block of attention without dropout of attention weights, its weights drawn as the authors' code does.

    Queries, keys, values and what gathers them are linear layers each for itself, by torch's default; the MLP's weights
    are Xavier's, its biases normal with a deviation of 1e-6.
    """
    block = nn.TransformerEncoderLayer(
        hidden, heads, mlp, dropout, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    block.self_attn.dropout = 0.0
    block.dropout1 = nn.Identity()  # type: ignore[assignment]
    for values in block.self_attn.parameters():
        nn.init.uniform_(values, -(hidden**-0.5), hidden**-0.5)
    for layer in (block.linear1, block.linear2):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(layer.bias, std=1e-6)
    return block


def _rectified(channels: int) -> nn.Module:
    return nn.ReLU(inplace=True)


METHOD = Method(
    about="convolutions down, a vision transformer at the bottom, and a V-Net's decoder up to a field",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "chen2021vitvnet",
            "Chen, Junyu and He, Yufan and Frey, Eric C. and Li, Ye and Du, Yong",
            "ViT-V-Net: Vision Transformer for Unsupervised Volumetric Medical Image Registration",
            "arXiv:2104.06468",
            2021,
            "10.48550/arXiv.2104.06468",
            "misc",
        ),
    ),
)
