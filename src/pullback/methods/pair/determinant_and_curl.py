"""Maps of a box onto itself that are made of two controls, by which determinant and curl are prescribed.

Chen and Liao, arXiv:1507.03715; Zhou, Gruber, Liao, arXiv:1712.03443; Zhou and Liao, arXiv:2105.09302.

A map φ = id + u solves Δu = F(f, g) = ∇f − ∇×g in the box between the outermost voxel centres of a grid, with u = 0 on
its border. As Δu = ∇(∇·u) − ∇×(∇×u), f and g are the determinant and the curl of φ to first order, up to a harmonic
function: they mimic them. To reach given ones, the controls are optimised.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import matmul

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.difference import curl, curl_of, determinant, divergence, gradient, jacobian, least_determinant
from pullback.numerics.integrate import compose
from pullback.numerics.sine import by_mode, eigenvalues
from pullback.space import Displacement, Grid, Transform

LEAST = 4
"""Voxels along an axis, two of them within the border."""
CONVERGED = 1e-6
"""Share of the objective at the start by which it has to fall in a step, or the descent is over."""
EXACT = 1e-4  # of the mean determinant
AT_REST = 1e-3  # voxels that a border which stays may move


def poisson(force: Tensor, edges: Sequence[float]) -> Tensor:
    """Return u with Δu = F and u = 0 on the border, `(B, C, *spatial)` both; by length in the unit of the edges."""
    return by_mode(force, -1 / eigenvalues(force.shape[2:], edges))


def controlled(f: Tensor, g: Tensor, edges: Sequence[float]) -> Tensor:
    """Return the displacement u of Δu = ∇f − ∇×g, u = 0 on the border, `(B, d, *spatial)` in voxels.

    Only ∇f and ∇×g enter: what is constant in f or g moves nothing.

    Args:
        f: what mimics the determinant, `(B, 1, *spatial)`.
        g: what mimics the curl, `(B, 1, *spatial)` in 2-D and `(B, 3, *spatial)` in 3-D, about the grid's axes.
        edges: of a voxel along the axes, in any unit.
    """
    return in_voxels(poisson(gradient(f, edges) - curl_of(g, edges), edges), edges)


def in_voxels(field: Tensor, edges: Sequence[float]) -> Tensor:
    """Convert displacements `(B, d, *spatial)` from the unit of the edges to voxels."""
    return field / _column(field, edges)


def curl_about_axes(displacement: Tensor, edges: Sequence[float]) -> Tensor:
    """Return the curl of x + u(x) about the grid's axes, for u `(B, d, *spatial)` in voxels."""
    return curl(displacement * _column(displacement, edges), edges)


def _column(field: Tensor, edges: Sequence[float]) -> Tensor:
    return field.new_tensor(edges).view(-1, *[1] * len(edges))


# ---- what can be


@dataclass(frozen=True, eq=False)
class Prescription:
    """A determinant and a curl that a map of a grid's box onto itself may have.

    Attributes:
        grid: between whose outermost voxel centres the box lies.
        determinant: `(1, 1, *grid.shape)` float64, with a mean of 1 over the box.
        curl: of the displacement about the grid's axes, `(1, 1, …)` in 2-D and `(1, 3, …)` in 3-D, float64, with a
            mean of 0; None leaves it free.
        factor: by which the determinant was multiplied.
        turn: the greatest component of the mean that was taken off the curl.
        divergence: share of the curl's norm that is a gradient, which no map can have.
    """

    grid: Grid
    determinant: Tensor
    curl: Tensor | None = None
    factor: float = 1.0
    turn: float = 0.0
    divergence: float = 0.0


def possible(determinant: Tensor, grid: Grid, curl: Tensor | None = None) -> Prescription:
    """Return the prescription nearest to a wanted determinant and curl.

    A map of a box onto itself keeps its volume and turns it by nothing on average. Means are over the box: voxels on a
    face count half.

    Args:
        determinant: det ∇φ, above 0, `(1, 1, *grid.shape)`.
        grid: on which they lie.
        curl: ∇×φ in the world, about right-handed axes: `(1, 1, *grid.shape)` in 2-D, in 3-D its R, A, S components,
            `(1, 3, *grid.shape)`. None leaves it free.

    Raises:
        InputError: too few voxels, other shapes, values that are not finite, or a determinant that is not above 0.
    """
    if min(grid.shape) < LEAST:
        raise InputError(f"{LEAST} voxels or more along each axis expected, got {_times(grid.shape)}")
    channels = 1 if grid.ndim == 2 else 3
    for what, values, count in (("determinant", determinant, 1), ("curl", curl, channels)):
        if values is not None and tuple(values.shape) != (1, count, *grid.shape):
            raise InputError(
                f"the {what} of a {grid.ndim}-D map has {count} channel{'s' * (count > 1)} on the grid "
                f"{_times(grid.shape)}; got {values.shape[1]} on {_times(values.shape[2:])}"
            )
        if values is not None and not bool(values.isfinite().all()):
            raise InputError(f"the {what} has values that are not finite")
    folded = determinant <= 0
    if bool(folded.any()):
        raise InputError(
            f"the determinant is {float(determinant.min()):.4g} at least, and not above 0 in {int(folded.sum())} of "
            f"{folded.numel()} voxels: no map without folds has it; 1 keeps the volume, 0.8 shrinks it by a fifth"
        )
    volume = determinant.double()
    factor = 1 / float(_mean(volume))
    if curl is None:
        return Prescription(grid, factor * volume, None, factor)
    turned = _about_axes(curl.double(), grid)
    off = _mean(turned)
    turned = turned - off
    return Prescription(grid, factor * volume, turned, factor, float(off.abs().max()), _gradient_share(turned, grid))


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _mean(values: Tensor) -> Tensor:
    """Return the mean over the box, `(B, C, 1, …)`, by the trapezoidal rule."""
    for axis in range(2, values.ndim):
        weights = torch.ones(values.shape[axis], dtype=values.dtype)
        weights[[0, -1]] = 0.5
        shape = [-1 if a == axis else 1 for a in range(values.ndim)]
        values = (values * (weights / weights.sum()).view(shape)).sum(axis, keepdim=True)
    return values


def _about_axes(curl: Tensor, grid: Grid) -> Tensor:
    """Turn a curl from the world to the grid's axes, where its sign changes if those are left-handed."""
    turn = grid.affine[:-1, :-1] / grid.spacing
    hand = torch.linalg.det(turn).sign()
    return hand * curl if grid.ndim == 2 else hand * torch.einsum("wa,bw...->ba...", turn, curl)


def _gradient_share(curl: Tensor, grid: Grid) -> float:
    """Return the norm of the part of a field that is ∇q, q = 0 on the border, as a share of its own."""
    edges = grid.spacing.tolist()
    if grid.ndim == 2 or not bool(curl.any()):
        return 0.0
    return float(gradient(poisson(divergence(curl, edges), edges), edges).norm() / curl.norm())


# ---- maps


def prescribed(determinant: Tensor, grid: Grid, curl: Tensor | None = None, evaluations: int = 300) -> Displacement:
    """Return a map of the grid's box onto itself with the given determinant and curl, as nearly as may be.

    It minimises ½ ∫ (det ∇φ − f₀)² + |∇×φ − g₀|² over the controls by L-BFGS. A determinant alone can be reached; with
    a curl, only those of one map can, for the border leaves no freedom. Warns where the determinant is normalised, and
    of a curl that no map has.

    Args:
        determinant, grid, curl: as of `possible`.
        evaluations: of the objective and its gradient, at most.

    Raises:
        InputError: as `possible`, or the map that was found folds.
    """
    wanted = possible(determinant, grid, curl)
    for doubt in doubts(wanted):
        warnings.warn(doubt, UserWarning, stacklevel=2)
    return reached(wanted, evaluations)


def doubts(wanted: Prescription) -> list[str]:
    """Describe what was changed to make a map possible, and what no map can have."""
    found = {
        f"the determinant has a mean of {1 / wanted.factor:.6g} over the box, which no map onto itself has: it was "
        f"multiplied by {wanted.factor:.6g}": abs(wanted.factor - 1) > EXACT,
        f"the curl has a mean of up to {wanted.turn:.4g}, which was taken off": wanted.turn > EXACT,
        f"{100 * wanted.divergence:.2g} % of the curl (of its norm) is the gradient of something, which no curl is": (
            wanted.divergence > 0.01
        ),
    }
    return [text for text, so in found.items() if so]


def reached(wanted: Prescription, evaluations: int = 300) -> Displacement:
    """Return the map by `prescribed` of what is possible.

    Raises:
        InputError: the map that was found folds.
    """
    edges, dtype = wanted.grid.spacing.tolist(), torch.float64 if wanted.grid.ndim == 2 else torch.float32
    volume, turn = wanted.determinant.to(dtype), None if wanted.curl is None else wanted.curl.to(dtype)

    def objective(u: Tensor) -> Tensor:
        off = (determinant(jacobian(u)) - volume).square().sum()
        return off if turn is None else off + (curl_about_axes(u, edges) - turn).square().sum()

    field = _fitted(objective, volume, edges, evaluations)
    least = float(least_determinant(field).min())
    if least <= 0:
        raise InputError(
            f"the map that was found folds, its least determinant is {least:.3g}: make the change smaller or smoother"
        )
    return Displacement(field, wanted.grid)


def inverse_by(transform: Transform, grid: Grid, evaluations: int = 300) -> Transform:
    """Return the inverse ψ that the variational principle constructs, without a fixed point.

    It minimises ½ ∫ (det ∇(ψ ∘ φ) − 1)² + |∇×(ψ ∘ φ)|², which is 0 at ψ ∘ φ = id alone (in 2-D; of 3-D that is not
    known). Parts of a composite are inverted one by one: each is milder than the whole.

    Args:
        transform: of which each part that is not linear maps the box of its grid onto itself.
        grid: of parts that have none.
        evaluations: of the objective and its gradient, at most, for each part.

    Raises:
        InputError: a part moves the border of its grid.
    """

    def inverse(part: Transform) -> Transform:
        linear = part.as_affine
        return _inverse_of(part, (*part.grids, grid)[0], evaluations) if linear is None else linear.inverse()

    return reduce(matmul, [inverse(part) for part in reversed(transform.parts)])


def _inverse_of(part: Transform, grid: Grid, evaluations: int) -> Displacement:
    edges, u = grid.spacing.tolist(), part.displacement(grid).detach()
    away = max(float(u.select(axis, side).abs().max()) for axis in range(2, u.ndim) for side in (0, -1))
    if away > AT_REST:
        raise InputError(
            f"inverse_by: the map moves the border of its grid by {away:.3g} voxels; the variational principle "
            f"inverts maps of a box onto itself: take `pullback.space.inverted`"
        )
    like = u.double() if grid.ndim == 2 else u

    def objective(w: Tensor) -> Tensor:
        both = compose(w, like)
        return (determinant(jacobian(both)) - 1).square().sum() + curl_about_axes(both, edges).square().sum()

    return Displacement(_fitted(objective, like[:, :1], edges, evaluations).to(u), grid)


def _fitted(objective: Callable[[Tensor], Tensor], like: Tensor, edges: Sequence[float], evaluations: int) -> Tensor:
    """Return the displacement of the controls that minimise an objective of it, from no motion, by L-BFGS."""
    f = torch.zeros_like(like)
    g = like.new_zeros(len(like), 1 if len(edges) == 2 else 3, *like.shape[2:])
    with torch.enable_grad():
        controls = [f.requires_grad_(), g.requires_grad_()]
        begin = float(objective(controlled(f, g, edges)).detach()) / 2
        solver = torch.optim.LBFGS(
            controls,
            max_iter=evaluations,
            max_eval=evaluations,
            history_size=10,
            tolerance_grad=1e-8,
            tolerance_change=CONVERGED * begin,  # also of a control: about that share of a determinant
            line_search_fn="strong_wolfe",
        )

        def evaluated() -> Tensor:
            value = objective(controlled(f, g, edges)) / 2
            for control, slope in zip(controls, torch.autograd.grad(value, controls), strict=True):
                control.grad = slope.contiguous()  # it knows no strides
            return value.detach()

        solver.step(evaluated)
    return controlled(f.detach(), g.detach(), edges)
