"""Attention over the phases of a series."""

from torch import Tensor, nn

NEAR_ZERO = 1e-5  # deviation of the last layer's weights to begin with


class AcrossPhases(nn.Module):
    """A layer of attention over the phases of a series, each node by itself, that answers with corrections of vectors.

    Args:
        ndim: 2 or 3: components of the vectors.
        features: of the image, in a token.
        width: of a token within.
        heads: of the attention.
    """

    def __init__(self, ndim: int, features: int, width: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(ndim + features + 1, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.leave = nn.Linear(width, ndim)
        nn.init.normal_(self.leave.weight, std=NEAR_ZERO)
        nn.init.zeros_(self.leave.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return corrections `(nodes, n, d)` in voxels for tokens `(nodes, n, d + features + 1)`."""
        z = self.enter(tokens)
        z = z + self.attention(z, z, z, need_weights=False)[0]
        return self.leave(z)
