"""TM-TVF: a network that answers with velocities one after the other, and looks again after each.

Chen, Frey, Du: Unsupervised learning of diffeomorphic image registration via TransMorph, WBIR 2022, with the authors'
code (TransMorph_TVF), where the paper is silent. A backbone's trunk looks at both images once. Then come N steps, each
with weights of its own: the moving image, at half its size and moved by what was found so far, is seen again beside the
fixed one, and a piece of velocity is added. `TimeVarying` answers with their `Flow`.

What differs from the code, and why:

- It adds vₜ ∘ (id + vₜ) up, and for the way back −vₜ ∘ (id − vₜ) in the same order, which is neither a flow nor its
  inverse. On smooth random pieces that move points by up to 7 voxels its way there and back ends 0.65 voxel from where
  it began, on average, and 0.05 where exponentials of the pieces are composed, as here; 0.2 without squarings, where
  each is a step of Euler's (`tests/methods/test_tm_tvf.py` has these pieces).
- It takes displacements in voxels of the half size for those of full size, so that the images it looks at move twice as
  far as the answer says. Here the flow lies on a grid of half the size, in the world.
- That grid has its last voxel on or beyond the last one of the fixed grid; else the field would fade there.
- Its L of the LDDMM norm is −αΔ + γ once, and what it minimises the fourth power of Lv. Here it is `Kinetic`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.transmorph import TransMorph
from pullback.networks import Backbone, Convolved, FieldHead, Network, Up, instance_norm_leaky, together
from pullback.numerics.integrate import compose, exponential
from pullback.numerics.recompute import checkpointed
from pullback.space import Displacement, Flow, Grid, Image, pull

LAST = 16  # channels before a head


class TimeVarying(Network):
    """A register of fixed and moving images of one dimension by the velocities of a flow, on any backbone.

    Of the backbone it keeps what comes before half the size. With TransMorph that is 46.5 million parameters in 3D, and
    each step has 73,011 more.

    Args:
        ndim: 2 or 3.
        backbone: makes the network whose trunk is taken: `partial(TransMorph, **LARGE)`, `VoxelMorph`, `ViTVNet`.
        pieces: N, of the flow; the paper's 8.
        looks: again, after each piece, at the moving image as it is moved so far; else always as it was.
        shared: one step with the same weights for all pieces.
        squarings: of each piece, as in `Flow`; 0 is Euler's step.
        pinned: set velocities to 0 on the border of their grid, where a norm by `Sobolev` takes them to be 0 without a
            look at them.
        frugal: compute each step again for the gradient: exact, with less memory, for some more time.
        channels: of one image.

    Raises:
        InputError: no piece, or squarings below 0.
    """

    def __init__(
        self,
        ndim: int,
        backbone: Callable[..., Any] = TransMorph,
        pieces: int = 8,
        looks: bool = True,
        shared: bool = False,
        squarings: int = 2,
        pinned: bool = False,
        frugal: bool = False,
        channels: int = 1,
    ) -> None:
        super().__init__()
        if pieces < 1 or squarings < 0:
            raise InputError(
                f"TimeVarying: one piece or more and 0 squarings or more expected, got {pieces} and {squarings}"
            )
        self.pieces, self.looks, self.squarings = pieces, looks, squarings
        self.pinned, self.frugal = pinned, frugal
        whole: Backbone = backbone(ndim=ndim, channels=channels)
        self.trunk = whole.trunk()
        self.steps = nn.ModuleList(
            _Step(ndim, channels, self.trunk.channels_out) for _ in range(1 if shared else pieces)
        )

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        """Align two images, fixed → moving, by a flow on a grid of half the size.

        Raises:
            InputError: the images are too small for the backbone.
        """
        shape = fixed.grid.shape
        if max(shape) <= self.trunk.beyond:
            raise InputError(
                f"TimeVarying: this backbone needs more than {self.trunk.beyond} voxels along one axis, or nothing is "
                f"left to be normalised; got {shape}, of which axis {shape.index(max(shape))} is the longest"
            )
        both, half = together(fixed, moving), half_grid(fixed.grid)
        features = _continued(self.trunk(both), [-(-n // 2) for n in half.shape])
        images = [Image(image, half) for image in halved(both).chunk(2, 1)]
        piece = found = both.new_zeros(len(both), half.ndim, *half.shape)
        pieces = []
        for n in range(self.pieces):
            look = partial(self._looked, self.steps[n % len(self.steps)], features, images)
            found, piece = checkpointed(look, found, piece) if self.frugal else look(found, piece)
            pieces.append(piece)
        return Alignment(Pair(fixed, moving), Flow(torch.cat(pieces), half, self.pieces, self.squarings))

    def _looked(
        self, step: nn.Module, features: Tensor, images: list[Image], found: Tensor, piece: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the displacement so far, with the last piece, and the next piece: `(B, d, *half)` each, in voxels."""
        fixed, moving = images
        if self.looks:
            with torch.autocast(found.device.type, enabled=False):  # bfloat16 would round coordinates
                found = compose(found, exponential(piece, self.squarings))
                moving = pull(moving, Displacement(found, fixed.grid), onto=fixed)
        piece = step(features, fixed, moving)
        return found, without_border(piece) if self.pinned else piece


class _Step(nn.Module):
    """A step: both images at half the size are looked at, beside the trunk's features, and a piece is the answer.

    Args:
        ndim: 2 or 3.
        channels: of one image.
        features: channels of the trunk's.
    """

    def __init__(self, ndim: int, channels: int, features: int) -> None:
        super().__init__()
        finish = instance_norm_leaky(ndim)
        self.look = Convolved(ndim, 2 * channels, features // 2, finish)
        self.up = Up(ndim, features, features // 2, LAST, finish)
        self.head = FieldHead(ndim, LAST, Displacement)

    def forward(self, features: Tensor, fixed: Image, moved: Image) -> Tensor:
        """Return a piece, `(B, d, *half)`, by features at a quarter and images at half the size."""
        seen = self.look(torch.cat([fixed.data, moved.data], 1))
        answer: Alignment = self.head(self.up(features, seen), fixed, moved)
        return answer.transform.displacement(fixed.grid)


def without_border(field: Tensor) -> Tensor:
    """Return `(B, d, *spatial)` with zeros on its border."""
    inside = torch.zeros_like(field[:1, :1])
    inside[(slice(None), slice(None), *[slice(1, -1)] * (field.ndim - 2))] = 1
    return field * inside


def half_grid(grid: Grid) -> Grid:
    """Return the grid of every second voxel, from the first to the last or one beyond."""
    return grid.at_spacing(tuple((2 * grid.spacing).tolist()))


def halved(values: Tensor) -> Tensor:
    """Return means of 3ᵈ voxels about those of `half_grid`, `(B, C, *half)`, of `(B, C, *spatial)`.

    Beyond the last voxel the values are continued; voxels further out do not count.
    """
    pool = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
    odd = _continued(values, [n + 1 - n % 2 for n in values.shape[2:]])
    return pool(odd, 3, stride=2, padding=1, count_include_pad=False)


def _continued(values: Tensor, shape: list[int]) -> Tensor:
    """Return `(B, C, *shape)`, the values of `(B, C, *spatial)` repeated behind the last one where there are fewer."""
    missing = [pad for n, m in zip(reversed(shape), reversed(values.shape[2:]), strict=True) for pad in (0, n - m)]
    return F.pad(values, missing, mode="replicate") if any(missing) else values


METHOD = Method(
    about="a network that answers with velocities one after the other, looks again after each, and has an inverse",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "chen2022tmtvf",
            "Chen, Junyu and Frey, Eric C. and Du, Yong",
            "Unsupervised Learning of Diffeomorphic Image Registration via TransMorph",
            "Workshop on Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_11",
        ),
    ),
    keys=("tm-tvf-labels", "tm-tvf-lddmm", "tm-tvf-lddmm-labels"),
)
