"""The contract of a transform."""

import tempfile
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from pullback.files import read_transform, write_transform
from pullback.numerics.random import make_generator
from pullback.numerics.sample import sample
from pullback.space import Affine, Grid, Image, Points, Transform, inverted, pull, push
from pullback.testing.contract import Untouched, check_finite, require

EXACT = 1e-6
"""mm, of what is computed in another order."""


def check_transform(
    transform: Transform,
    grid: Grid,
    *,
    inverse: float = 0.1,
    alone: float = EXACT,
    files: Sequence[str] = (),
    learns: bool = True,
) -> None:
    """Hold a transform against its contract.

    Points, displacements on any grid, pulled images and pushed points are of one map; φ @ ψ is φ after ψ, from either
    side; the inverse leads back; parts, parameters and a stack of its batch make it again; gradients reach its
    parameters; it is the same after having been written and read.

    Args:
        transform: what is checked, of one pair or several, in float64.
        grid: where it is looked at, inside all grids of its own.
        inverse: mm, at most, by which `inverse()` may lead past where a point came from; 1e-6 or less where it says
            that its inverse is exact.
        alone: mm, at most, between one of a batch and the same by itself: more than rounding where points are sought
            until all of them are found.
        files: endings under which it can be written, such as ".h5".
        learns: whether gradients reach its parameters.

    Raises:
        BrokenContract: a promise was not kept.
    """
    where = f"{type(transform).__name__} in {transform.ndim}-D, {transform.batch} of them"
    untouched = Untouched(transform)
    points = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None]).flatten(2).mT
    there = transform(points)
    check_finite(there, where, "points")
    fits = there.shape == (transform.batch, *points.shape[1:])
    require(fits, where, f"{transform.batch} × {points.shape[1]} points", tuple(there.shape))
    require(transform.ndim == grid.ndim, where, f"a map in {grid.ndim}-D", f"one in {transform.ndim}-D")
    _check_views(transform, grid, points, there, where)
    _check_composition(transform, grid, points, there, where)
    _check_inverse(transform, points, there, inverse, where)
    _check_batch(transform, points, there, alone, where)
    _check_parameters(transform, points, there, learns, where)
    for ending in files:
        _check_file(transform.nth(0), points, there[:1], ending, where)
    untouched.check(where)


def _near(one: Tensor, other: Tensor, within: float, where: str, promised: str) -> None:
    apart = float((one - other).norm(dim=-1).max())
    require(apart <= within, where, f"{promised}, within {within:g} mm", f"{apart:.3g} mm")


def _points_of(transform: Transform, grid: Grid) -> Tensor:
    """Return the points to which the voxels of a grid are moved by the displacement there, `(B, N, d)` in mm."""
    shift = transform.displacement(grid)
    return grid.to_world(grid.voxels(shift)[None] + shift).flatten(2).mT


def _check_views(transform: Transform, grid: Grid, points: Tensor, there: Tensor, where: str) -> None:
    for shown in (grid, *transform.grids):
        at = shown.to_world(shown.voxels(points)[None]).flatten(2).mT
        promised = f"a displacement on {shown!r} that leads its voxels as points are led"
        _near(_points_of(transform, shown), transform(at), EXACT, where, promised)
    pushed = push(Points(points), transform)
    _near(pushed.data, there, EXACT, where, "pushed points where the map leads them")
    image = Image(torch.rand(1, 1, *grid.shape, generator=make_generator(1), dtype=torch.float64), grid)
    pulled = pull(image, transform, onto=grid).data
    expected = sample(image.data, grid.to_voxels(there.mT).unflatten(2, grid.shape))
    apart = float((pulled - expected).abs().max())
    require(apart <= EXACT, where, "a pulled image with the values of where the map leads", f"{apart:.3g} else")
    linear = transform.as_affine
    if linear is not None:
        _near(linear(points), there, EXACT, where, "`as_affine` as the same map")


def _check_composition(transform: Transform, grid: Grid, points: Tensor, there: Tensor, where: str) -> None:
    turn = torch.eye(grid.ndim, dtype=torch.float64)
    turn[0, 1], turn[1, 0] = -0.05, 0.05
    other = Affine.about(turn, grid.centre, grid.centre + 0.3)
    for whole, expected, said in (
        (other @ transform, other(there), "an affine map after it"),
        (transform @ other, transform(other(points)), "it after an affine map"),
        (transform @ transform, transform(there), "it after itself"),
        (other @ (transform @ other), other(transform(other(points))), "it between affine maps"),
    ):
        _near(whole(points), expected, EXACT, where, f"composed points ({said})")
        _near(_points_of(whole, grid), expected, EXACT, where, f"a composed displacement ({said})")
        parts = reduce(lambda outer, inner: outer @ inner, whole.parts)
        _near(parts(points), expected, EXACT, where, f"`parts` that make it up ({said})")


def _check_inverse(transform: Transform, points: Tensor, there: Tensor, within: float, where: str) -> None:
    within = EXACT if transform.inverse_is_exact and not transform.grids else within
    back = transform.inverse()
    home = points.expand_as(there)
    _near(back(there), home, within, where, "an inverse that leads back")
    sought = max(within / 10, 2e-3) if transform.grids else within  # a field's is sought at each point
    _near(inverted(transform)(there), home, sought, where, "`inverted` that leads back")


def _check_batch(transform: Transform, points: Tensor, there: Tensor, alone: float, where: str) -> None:
    each = [transform.nth(n) for n in range(transform.batch)]
    for n, one in enumerate(each):
        require(one.batch == 1, where, f"`nth({n})` of one pair", f"one of {one.batch}")
        _near(one(points.expand(1, *points.shape[1:])), there[n : n + 1], alone, where, f"`nth({n})` as in the batch")
    if transform.batch > 1:
        whole = each[0].stack(each[1:])
        _near(whole(points), there, alone, where, "the same of a stack of each")


def _check_parameters(transform: Transform, points: Tensor, there: Tensor, learns: bool, where: str) -> None:
    again = transform.with_params(*transform.params)
    same = type(again) is type(transform)
    require(same, where, f"a {type(transform).__name__} of its own parameters", type(again).__name__)
    _near(again(points), there, 1e-4, where, "the same map of its own parameters")
    _near(transform.to(points.device)(points), there, 0.0, where, "the same map on its own device")
    if learns:
        params = [param.detach().clone().requires_grad_() for param in transform.params]
        moved = transform.with_params(*params)(points)
        weights = torch.randn(moved.shape, generator=make_generator(2), dtype=torch.float64).to(moved)
        for slope in torch.autograd.grad((moved * weights).sum(), params):
            check_finite(slope, where, "gradients")
            require(bool(slope.any()), where, "a gradient that reaches each parameter", "zeros")


def _check_file(transform: Transform, points: Tensor, there: Tensor, ending: str, where: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"transform{ending}"
        write_transform(transform, path)
        _near(read_transform(path)(points), there, 1e-4, where, f"the same map after a {ending} file")
