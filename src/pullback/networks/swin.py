"""The Swin transformer in 2D and 3D (Liu et al. 2021), for images of any size.

MONAI has one (1.5). Where a window does not fit, its tokens look at those that were filled in; and where a window
shrinks, it takes the relative positions of the first tokens of the whole one, which lie elsewhere. Both happen at the
sizes of our images, so attention is written here; ViT-V-Net's comes from torch.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.networks.convolve import convolve
from pullback.networks.unet import convolution

FAR = -100.0  # added to the score of a token that is not to be looked at, before the softmax


class Swin(nn.Module):
    """A Swin transformer without its classifier: patches, then stages of attention within windows.

    Between stages neighbours merge to half the size. Windows that do not fit are filled up with tokens that no other
    attends to; where an image has fewer tokens than a window, the window shrinks to it. So any size is accepted, and
    the padding has no effect.

    Args:
        ndim: 2 or 3.
        channels: of the input.
        patch: side of a patch in voxels.
        embed: channels of the first stage; each following one has twice as many.
        depths: blocks of each stage; every second one shifts its windows by half of them, but not along an axis that
            one window covers, as in Liu et al.; TransMorph's authors shift there too, and keep the halves apart.
        heads: of attention, by stage.
        window: sides in tokens.
        drop_path: of the last block; each leaves a pair's residual out that often, from 0 in the first block on.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        patch: int,
        embed: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: Sequence[int],
        drop_path: float,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embed = convolution(ndim, channels, embed, patch, stride=patch)
        self.embed_norm = nn.LayerNorm(embed)
        rates = iter(torch.linspace(0, drop_path, sum(depths)).tolist())
        widths = [embed * 2**n for n in range(len(depths))]
        still, half = (0,) * ndim, tuple(n // 2 for n in window)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(SwinBlock(width, number, window, half if n % 2 else still, next(rates)) for n in range(depth))
            )
            for width, depth, number in zip(widths, depths, heads, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.merges = nn.ModuleList(PatchMerging(ndim, width) for width in widths[:-1])

    def forward(self, values: Tensor) -> list[Tensor]:
        """Return the features of each stage, `(B, embed 2ⁿ, *⌈spatial / patch / 2ⁿ⌉)`, of `(B, channels, *spatial)`."""
        tokens = self.embed_norm(convolve(self.embed, _filled(values, self.patch, 2)).movedim(1, -1))
        features = []
        for n, (blocks, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            tokens = blocks(tokens)
            features.append(norm(tokens).movedim(-1, 1))
            if n < len(self.merges):
                tokens = self.merges[n](tokens)
        return features


class SwinBlock(nn.Module):
    """A block of attention within windows and an MLP of four times the width, with normalisation and residuals.

    Args:
        width: channels.
        heads: of attention.
        window: sides in tokens.
        shift: of the windows, in tokens.
        drop_path: how often the residual of a pair is left out in training.
    """

    def __init__(self, width: int, heads: int, window: Sequence[int], shift: Sequence[int], drop_path: float) -> None:
        super().__init__()
        self.heads, self.window, self.shift, self.drop_path = heads, tuple(window), tuple(shift), drop_path
        self.norm = nn.LayerNorm(width)
        self.look = nn.Linear(width, 3 * width, bias=False)
        self.position = nn.Parameter(torch.empty(heads, *(2 * n - 1 for n in window)))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.gather = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens `(B, *spatial, width)` for tokens of the same shape."""
        tokens = tokens + self._sometimes(self._attended(self.norm(tokens)))
        return tokens + self._sometimes(self.mlp(tokens))

    def _sometimes(self, residual: Tensor) -> Tensor:
        if not (self.training and self.drop_path):
            return residual
        return residual * F.dropout(residual.new_ones(len(residual), *[1] * (residual.ndim - 1)), self.drop_path)

    def _attended(self, tokens: Tensor) -> Tensor:
        shape = tokens.shape[1:-1]
        window = tuple(min(n, w) for n, w in zip(shape, self.window, strict=True))
        shift = tuple(0 if n <= w else s for n, w, s in zip(shape, window, self.shift, strict=True))
        axes = tuple(range(1, len(shape) + 1))
        filled = torch.roll(_filled(tokens, window, 1), tuple(-s for s in shift), axes)
        parts = _windows(filled, window)  # (B, windows, tokens, width)
        # three of (B, windows, heads, tokens, width / heads)
        query, key, value = self.look(parts).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        scores = self._nearness(window)
        apart = _apart(shape, filled.shape[1:-1], window, shift, tokens.device)
        if apart is not None:
            scores = scores + apart.to(scores)
        looked = F.scaled_dot_product_attention(query, key, value, scores.to(query.dtype))
        out = self.gather(looked.transpose(2, 3).flatten(3))  # (B, windows, tokens, width)
        out = torch.roll(_joined(out, filled.shape[1:-1], window), shift, axes)
        return out[(slice(None), *(slice(n) for n in shape))]

    def _nearness(self, window: tuple[int, ...]) -> Tensor:
        """Return the bias of each pair of tokens in a window by their relative position: `(heads, tokens, tokens)`."""
        ranges = (torch.arange(n, device=self.position.device) for n in window)
        where = torch.stack(torch.meshgrid(*ranges, indexing="ij")).flatten(1)  # (d, tokens)
        apart = [at[:, None] - at[None, :] + w - 1 for at, w in zip(where, self.window, strict=True)]
        return self.position[(slice(None), *apart)]


class PatchMerging(nn.Module):
    """A layer that merges neighbours, two along each axis, into one token of twice the channels."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2**ndim * width)
        self.reduce = nn.Linear(2**ndim * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Merge tokens `(B, *n, width)` to `(B, *⌈n / 2⌉, 2 width)`."""
        tokens = _filled(tokens, 2, 1)
        ndim = tokens.ndim - 2
        corners = itertools.product((0, 1), repeat=ndim)
        near = [tokens[(slice(None), *(slice(start, None, 2) for start in corner))] for corner in corners]
        return self.reduce(self.norm(torch.cat(near, -1)))


def _filled(values: Tensor, multiple: int | Sequence[int], first: int) -> Tensor:
    """Pad values with zeros at the end of each spatial axis, from axis `first` on, to multiples of `multiple`."""
    ndim = values.ndim - 2
    sides = [multiple] * ndim if isinstance(multiple, int) else list(multiple)
    missing = [-n % side for n, side in zip(values.shape[first : first + ndim], sides, strict=True)]
    if not any(missing):
        return values
    pad = [0, 0] if first == 1 else []
    for n in reversed(missing):
        pad += [0, n]
    return F.pad(values, pad)


def _windows(tokens: Tensor, window: Sequence[int]) -> Tensor:
    """Split tokens `(B, *spatial, C)` into windows, `(B, windows, tokens of one, C)`."""
    ndim = len(window)
    for axis, side in enumerate(window):
        tokens = tokens.unflatten(1 + 2 * axis, (-1, side))  # in the end (B, n₁, w₁, n₂, w₂, …, C)
    counts, inside = range(1, 2 * ndim, 2), range(2, 2 * ndim + 1, 2)
    # (B, n₁, n₂, …, w₁, w₂, …, C), then (B, n₁ n₂ …, w₁ w₂ …, C)
    return tokens.permute(0, *counts, *inside, 2 * ndim + 1).flatten(1 + ndim, 2 * ndim).flatten(1, ndim)


def _joined(parts: Tensor, shape: Sequence[int], window: Sequence[int]) -> Tensor:
    """Join the windows of `_windows` to tokens `(B, *shape, C)`."""
    ndim = len(window)
    counts = [n // side for n, side in zip(shape, window, strict=True)]
    parts = parts.unflatten(1, counts).unflatten(1 + ndim, tuple(window))  # (B, n₁, n₂, …, w₁, w₂, …, C)
    order = [axis for n in range(ndim) for axis in (1 + n, 1 + ndim + n)]
    # (B, n₁, w₁, n₂, w₂, …, C), then (B, n₁ w₁, n₂ w₂, …, C)
    return parts.permute(0, *order, 2 * ndim + 1).reshape(len(parts), *shape, parts.shape[-1])


def _apart(
    shape: Sequence[int], filled: Sequence[int], window: Sequence[int], shift: Sequence[int], device: torch.device
) -> Tensor | None:
    """Return the mask of attention, `(windows, 1, tokens, tokens)`, or None where there is nothing to mask.

    It is `FAR` between tokens of a window that were not neighbours before the shift, or of which one was filled in.
    """
    if tuple(shape) == tuple(filled) and not any(shift):
        return None
    region = torch.zeros(1, *filled, 1, device=device)
    for axis, (n, whole, s) in enumerate(zip(shape, filled, shift, strict=True), start=1):
        where = torch.arange(whole, device=device)
        beyond = (where >= n).roll(-s)
        wrapped = where >= whole - s if s else torch.zeros_like(where, dtype=torch.bool)
        region = 3 * region + (beyond * 2 + wrapped * ~beyond).view(-1, *[1] * (len(filled) - axis + 1))
    parts = _windows(region, window)[0, ..., 0]
    return FAR * (parts[:, None, :] != parts[:, :, None]).unsqueeze(1)
