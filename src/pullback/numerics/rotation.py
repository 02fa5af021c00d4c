"""Rotations of the plane and of space, `(N, d, d)`: drawn at random, compared, and as other parameters."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def uniform(ndim: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` rotations uniformly over the whole group: by an angle in 2-D, by a unit quaternion in 3-D."""
    if ndim == 2:
        return planar(2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64))
    quaternion = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return of_quaternion(quaternion)


def nearby(rotations: Tensor, count: int, degrees: float, generator: torch.Generator) -> Tensor:
    """Draw `count` rotations close to the given ones, which are taken in turn.

    Each is rotated further about the axes x, y and z, one after the other, by angles drawn from U(−degrees, degrees);
    in 2-D by one such angle.
    """
    ndim = rotations.shape[-1]
    drawn = 2 * torch.rand(count, 1 if ndim == 2 else 3, generator=generator, dtype=torch.float64) - 1
    angles = torch.deg2rad(degrees * drawn).unbind(1)
    turned = rotations[torch.arange(count) % len(rotations)]
    if ndim == 2:
        return planar(angles[0]) @ turned
    for axis, angle in enumerate(angles):
        turn = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
        plane = torch.tensor([(axis + 1) % 3, (axis + 2) % 3])
        turn[:, plane[:, None], plane] = planar(angle)
        turned = turn @ turned
    return turned


def planar(angle: Tensor) -> Tensor:
    """Return rotations of the plane, from the first axis towards the second, by angles `(N,)` in radians."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)


def angles_between(a: Tensor, b: Tensor) -> Tensor:
    """Return the angles in degrees, 0 … 180, of the rotations that take `a` to `b`; `(…, d, d)` each."""
    ndim = a.shape[-1]
    trace = (a * b).sum((-2, -1))
    cosine = trace / 2 if ndim == 2 else (trace - 1) / 2
    return torch.rad2deg(cosine.clamp(-1, 1).acos())


def of_quaternion(quaternion: Tensor) -> Tensor:
    """Return rotations `(N, 3, 3)` of quaternions `(N, 4)`, w x y z, of any length but 0."""
    w, x, y, z = F.normalize(quaternion, dim=1).unbind(1)
    rows = (
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1),
    )
    return torch.stack(rows, 1)


def of_vector(vector: Tensor) -> Tensor:
    """Return rotations of vectors `(N, 3)`, an axis times an angle in radians, or of angles `(N, 1)` in 2-D."""
    if vector.shape[1] == 1:
        return planar(vector[:, 0])
    x, y, z = vector.unbind(1)
    zero = torch.zeros_like(x)
    rows = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1)
    return torch.linalg.matrix_exp(rows.view(-1, 3, 3))  # (N, 3, 3)


def of_euler(angles: Tensor) -> Tensor:
    """Return rotations about the fixed axes x, y and z, one after the other, by angles `(N, 3)` in radians.

    Angles `(N, 1)` give rotations in 2-D.
    """
    if angles.shape[1] == 1:
        return planar(angles[:, 0])
    (a, b, c), (x, y, z) = (values.unbind(1) for values in (angles.cos(), angles.sin()))
    rows = (
        torch.stack([b * c, x * y * c - a * z, a * y * c + x * z], 1),
        torch.stack([b * z, x * y * z + a * c, a * y * z - x * c], 1),
        torch.stack([-y, x * b, a * b], 1),
    )
    return torch.stack(rows, 1)


def of_six(numbers: Tensor) -> Tensor:
    """Return rotations `(N, 3, 3)` from six numbers `(N, 6)` (Zhou et al. 2019).

    They are the first two columns less those of the identity, which are made orthonormal one after the other.
    """
    first = numbers[:, :3] + numbers.new_tensor([1, 0, 0])
    second = numbers[:, 3:] + numbers.new_tensor([0, 1, 0])
    x = F.normalize(first, dim=1)
    y = F.normalize(second - (x * second).sum(1, keepdim=True) * x, dim=1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], 2)


def of_four(numbers: Tensor) -> Tensor:
    """Return rotations `(N, 3, 3)` from numbers `(N, 4)`: a quaternion of any length, less that of the identity."""
    return of_quaternion(numbers + numbers.new_tensor([1, 0, 0, 0]))


def linear_of(numbers: Tensor) -> Tensor:
    """Return linear maps `(N, d, d)` of positive determinant: exponentials of the matrices of numbers `(N, d²)`."""
    ndim = math.isqrt(numbers.shape[1])
    return torch.linalg.matrix_exp(numbers.view(-1, ndim, ndim))


def to_euler(rotations: Tensor) -> Tensor:
    """Return the angles `(N, 3)` in radians of which `of_euler` makes these rotations; of the plane `(N, 1)`.

    The second is within ±π/2. Where it is either of these the others are not unique, and have no slope.
    """
    if rotations.shape[-1] == 2:
        return torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0])[:, None]
    x = torch.atan2(rotations[:, 2, 1], rotations[:, 2, 2])
    y = torch.atan2(-rotations[:, 2, 0], rotations[:, 2, 1:].norm(dim=1))
    z = torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0])
    return torch.stack([x, y, z], 1)


def to_quaternion(rotations: Tensor) -> Tensor:
    """Return the unit quaternions `(N, 4)`, w x y z with w ≥ 0, of rotations `(N, 3, 3)` (Shepperd 1978).

    Each is made from the largest of its parts, so that it is exact, and has a slope, for any rotation.
    """
    a, b, c = rotations.diagonal(dim1=1, dim2=2).unbind(1)
    pairs = ((2, 1), (0, 2), (1, 0))
    off = [rotations[:, i, j] - rotations[:, j, i] for i, j in pairs]
    sums = [rotations[:, i, j] + rotations[:, j, i] for i, j in pairs]
    one = torch.ones_like(a)
    rows = (
        (one + a + b + c, off[0], off[1], off[2]),
        (off[0], one + a - b - c, sums[2], sums[1]),
        (off[1], sums[2], one - a + b - c, sums[0]),
        (off[2], sums[1], sums[0], one - a - b + c),
    )
    candidates = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (N, 4, 4), each 4 times a part of q times q
    largest = candidates.diagonal(dim1=1, dim2=2).argmax(1)
    quaternion = F.normalize(candidates[torch.arange(len(a), device=a.device), largest], dim=1)
    return torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
