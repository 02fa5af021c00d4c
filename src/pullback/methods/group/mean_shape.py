"""The mean of many maps from one world to many, and a change of that world after which it is the identity.

Of linear maps the mean has three parts, for none of them is a vector of the others: the mean rotation is the one that
is nearest to all, the mean stretch is that of logarithms (Arsigny et al. 2006), and the mean place is where the centre
goes on average. Were matrices averaged, rotations to both sides would shrink the mean. Of displacements on one grid the
mean is that of points: (id + ū)⁻¹ takes it away, as in ANTs' templates (Avants et al. 2010).
"""

import torch
from torch import Tensor

from pullback.numerics.integrate import compose, invert
from pullback.space import Image

ROUNDS = 20
STILL = 1e-10  # of a mean, in radians, logarithms or mm: the identity but for rounding


def without_mean(maps: Tensor, centre: Tensor, weights: Tensor, pose: bool = True) -> Tensor:
    """Return maps `Aᵢ ∘ M⁻¹` from a world in which the mean of all is the identity.

    Args:
        maps: `(n, d+1, d+1)` float64, from the common world.
        centre: of the common world's images, `(d,)`, about which maps turn and stretch.
        weights: `(n,)`, 1 in sum.
        pose: whether mean rotation and mean place are taken away as well; else the mean stretch alone.
    """
    for _ in range(ROUNDS):
        mean = _mean(maps, centre, weights, pose)
        maps = maps @ torch.linalg.inv(mean)
        if float((mean - torch.eye(len(mean)).to(mean)).abs().max()) < STILL:
            break
    return maps


def _mean(maps: Tensor, centre: Tensor, weights: Tensor, pose: bool) -> Tensor:
    """Return the mean map, which turns and stretches about the centre and then shifts, `(d+1, d+1)`."""
    d = len(centre)
    turns, stretches = polar(maps[:, :d, :d])
    linear = _of_eigenvalues(_weighed(_of_eigenvalues(stretches, torch.log), weights)[None], torch.exp)[0]
    there = centre
    if pose:
        linear = polar(_weighed(turns, weights)[None])[0][0] @ linear
        there = _weighed(maps[:, :d, :d] @ centre + maps[:, :d, -1], weights)
    mean = torch.eye(d + 1).to(maps)
    mean[:d, :d] = linear
    mean[:d, -1] = there - linear @ centre
    return mean


def _weighed(values: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w x of `(n, …)`."""
    return torch.tensordot(weights.to(values), values, 1)


def polar(linear: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations R and symmetric stretches S of matrices `L = R S`, `(n, d, d)` each."""
    left, sizes, right = torch.linalg.svd(linear)
    return left @ right, right.mT @ (sizes[..., None] * right)


def _of_eigenvalues(symmetric: Tensor, function: object) -> Tensor:
    """Return a function of symmetric matrices `(n, d, d)`, such as their logarithm."""
    values, vectors = torch.linalg.eigh(symmetric)
    return vectors @ (function(values)[..., None] * vectors.mT)  # type: ignore[operator]


def towards(mean: Tensor) -> Tensor:
    """Return the displacement of (id + ū)⁻¹, by whose composition maps lose their mean ū `(1, d, *spatial)`."""
    return invert(mean)


def moved_by(field: Tensor, back: Tensor) -> Tensor:
    """Return the displacement of (id + u) ∘ (id + b), `(1, d, *spatial)` in voxels of one grid.

    It is linear in u, so that where b takes the mean of several u away, the mean of these is 0.
    """
    return compose(field, back)


def sharpness(image: Image, inside: Tensor | None = None) -> float:
    """Return the mean length of an image's gradient, per mm, over voxels `inside` `(1, 1, *spatial)` bool.

    Without it these are the voxels above a tenth of the greatest value.
    """
    data = image.data.double()
    axes = range(2, data.ndim)
    edges = image.grid.spacing.tolist()
    slopes = [torch.gradient(data, spacing=edge, dim=axis)[0] for axis, edge in zip(axes, edges, strict=True)]
    length = torch.stack(slopes).square().sum(0).sqrt().mean(1, keepdim=True)
    where = data.mean(1, keepdim=True) > 0.1 * data.max() if inside is None else inside
    return float(length[where].mean()) if bool(where.any()) else 0.0
