"""Pose networks, which answer with a linear map of two images, and rivals of the loss that they learn by.

Song, Chao, Xu, Turkbey, Wood, Wang, Yan: Transformed grid distance loss for supervised image registration, WBIR 2022.
The loss (eq. 1) is `KnownTransform` in mm: how far apart the truth and the answer lead the points of the grid, whatever
numbers the network answers with. The paper carries points of the moving image; here maps lead from the fixed one.
Whether the norm is of each point or of all is silent: the mean square (`power=2`), in closed form, is learned from by
default, and the mean distance is `power=1`. No network is named; this one is a small encoder. The loss' rivals compare
numbers of the rotation, about the middle of the fixed grid, and of the shift of that middle.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, Register
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import Convolved, Network, PoseHead, together
from pullback.numerics.rotation import of_vector, to_euler, to_quaternion
from pullback.space import Grid, Image, Transform

WIDTHS = (16, 32, 64, 64)
GROUPS = 8  # of channels, that are normalised together, at most
TINY = 1e-12  # the root of 0 has no slope


class PoseNet(Network):
    """A register of fixed and moving images of one dimension by a rotation about the fixed grid's middle and a shift.

    Both images are seen as channels, by convolutions that halve the size at each stage, and `PoseHead`. Images may have
    any size and different grids: the moving image is first pulled onto the fixed grid by the headers.

    Args:
        ndim: 2 or 3.
        widths: channels of the stages.
        form: what makes rotations, or other linear maps, of numbers, as of `PoseHead`: `of_vector`, `of_euler`,
            `of_four`, `of_six`; `linear_of` for affine maps.
        count: of those numbers; None is an angle in 2-D, a rotation vector or Euler angles in 3-D.
        channels: of one image.
        hidden: channels between the layers of the head.
    """

    def __init__(
        self,
        ndim: int,
        widths: Sequence[int] = WIDTHS,
        form: Callable[[Tensor], Tensor] = of_vector,
        count: int | None = None,
        channels: int = 1,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        steps = pairwise((2 * channels, *widths))
        self.stages = nn.Sequential(*(Convolved(ndim, a, b, group_norm_relu, stride=2) for a, b in steps))
        self.head = PoseHead(ndim, widths[-1], form, count, hidden)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return self.head(self.stages(together(fixed, moving)), fixed, moving)


def group_norm_relu(channels: int) -> nn.Module:
    """Return normalisation of groups of channels, which knows no other example, followed by ReLU."""
    return nn.Sequential(nn.GroupNorm(math.gcd(GROUPS, channels), channels), nn.ReLU(inplace=True))


@dataclass(frozen=True)
class ParameterDistance:
    """The supervision by the numbers of a rigid truth, as networks of poses commonly learn.

    Numbers are those of the rotation and the shift of the middle of the fixed grid in mm, and count alike. How much a
    turn weighs against a shift is the unit's choice, and nobody's else.

    Attributes:
        numbers: `"euler"`, angles about the fixed axes x, y and z one after the other, or `"quaternion"`, of unit
            length with w ≥ 0, of images in 3-D.
        power: 2 for the mean square, 1 for the mean absolute value.
        degrees: that are one unit of an angle: 1, or 180/π for radians.

    Raises:
        InputError: other numbers or powers, or a unit of no size.
    """

    numbers: str = "euler"
    power: int = 2
    degrees: float = 1.0

    def __post_init__(self) -> None:
        if self.numbers not in ("euler", "quaternion") or self.power not in (1, 2) or not self.degrees > 0:
            raise InputError(
                f"ParameterDistance: 'euler' or 'quaternion', a power of 1 or 2 and degrees above 0 expected, got "
                f"{self.numbers!r}, {self.power} and {self.degrees:g}"
            )

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the mean over all numbers as `numbers`.

        Raises:
            InputError: the pair's truth is not known, or a map is not linear.
        """
        if pair.truth is None:
            raise InputError(f"{pair.name or 'a pair'}: its true transform is not known, so nothing can be told of it")
        guess = self.of(register(pair.fixed, pair.moving).transform, pair.fixed.grid)
        off = guess - self.of(pair.truth, pair.fixed.grid).to(guess)
        return {"numbers": off.square().mean() if self.power == 2 else (off.square() + TINY).sqrt().mean()}

    def of(self, transform: Transform, grid: Grid) -> Tensor:
        """Return the numbers of a rigid map, `(B, k)`: of the rotation first.

        Raises:
            InputError: the map is not linear, or quaternions are asked for in 2-D.
        """
        affine = transform.as_affine
        if affine is None or (self.numbers == "quaternion" and grid.ndim == 2):
            raise InputError(
                f"numbers of a pose are those of a linear map, quaternions in 3-D; got {type(transform).__name__} in "
                f"{grid.ndim}-D"
            )
        matrix = affine.matrix.reshape(-1, grid.ndim + 1, grid.ndim + 1).double()
        turn, centre = matrix[:, :-1, :-1], grid.centre.to(matrix)
        shift = turn @ centre + matrix[:, :-1, -1] - centre
        if self.numbers == "quaternion":
            return torch.cat([to_quaternion(turn), shift], 1)
        return torch.cat([torch.rad2deg(to_euler(turn)) / self.degrees, shift], 1)


METHOD = Method(
    about="a network that answers with a rotation and a shift, or an affine map, in one pass: a start for others",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "song2022transformed",
            "Song, Xinrui and Chao, Hanqing and Xu, Sheng and Turkbey, Baris and Wood, Bradford J. and Wang, Ge and "
            "Yan, Pingkun",
            "Transformed Grid Distance Loss for Supervised Image Registration",
            "Biomedical Image Registration (WBIR)",
            2022,
            pages="177--181",
        ),
    ),
    keys=("pose-net-affine",),
)
