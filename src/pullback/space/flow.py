"""Flows of velocities that change in time, and geodesics, which are determined by their initial velocity."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.epdiff import shoot, transported
from pullback.numerics.integrate import Scheme, compose, euler, exponential, midpoint
from pullback.numerics.kernel import Kernel
from pullback.numerics.recompute import checkpointed
from pullback.numerics.sine import sine_weights
from pullback.space.fields import Dense, Velocity
from pullback.space.grid import Grid
from pullback.space.short_repr import short_repr
from pullback.space.transform import Transform


@dataclass(frozen=True, eq=False)
class Flow(Dense):
    """The flow φ = exp(v₁) ∘ exp(v₂) ∘ … ∘ exp(v_N): velocities one after another, each for its piece of the time.

    A new piece joins on the right: so it moves the image that the earlier pieces have already moved. Points are moved
    by the last piece first, and the displacement is composed in this order: only velocities are interpolated, never the
    displacement so far.

    Attributes:
        field: the pieces in front, `(N·B, d, *grid.shape)`: all of the first piece, then all of the second. Each is a
            velocity times its share of the time, so that v/N in all of N pieces is `Velocity(v)`.
        grid: their grid.
        pieces: N.
        squarings: of scaling and squaring, for each piece.
        scheme: of the small flow that is squared: `euler`, as in `Velocity`, or `midpoint`, which without squarings is
            as good as euler with five.
        frugal: compute each piece again for the gradient, which keeps less in memory.

    Raises:
        InputError: no piece, squarings below 0, or a batch that is no multiple of the pieces.
    """

    field: Tensor
    grid: Grid
    pieces: int = 8
    squarings: int = 2
    scheme: Scheme = euler
    frugal: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        self._check()
        if self.pieces < 1 or self.squarings < 0 or len(self.field) % self.pieces:
            raise InputError(
                f"Flow: one piece or more, 0 squarings or more and a field of all pieces' batches expected, got "
                f"{self.pieces}, {self.squarings} and {len(self.field)} fields"
            )

    @property
    def batch(self) -> int:
        return len(self.field) // self.pieces

    def nth(self, n: int) -> "Flow":
        return self if self.batch == 1 else replace(self, field=self._each[:, n])

    def stack(self, others: Sequence[Transform]) -> Transform:
        """Return one batch of this flow and others; those of fewer pieces get pieces without motion.

        Raises:
            ValueError: what is no flow of as many squarings and of one scheme on the same grid.
        """
        alike = [one for one in others if isinstance(one, Flow) and one._integrated == self._integrated]
        if len(alike) < len(others) or any(one.grid != self.grid for one in alike):
            raise ValueError("a batch is of flows on one grid, of as many squarings and of one scheme")
        pieces = max(one.pieces for one in (self, *alike))
        every = torch.cat([one._padded(pieces) for one in (self, *alike)], 1)  # (N, B, d, …)
        return replace(self, field=every.flatten(0, 1), pieces=pieces)

    @property
    def _integrated(self) -> tuple[int, Scheme]:
        return self.squarings, self.scheme

    def _padded(self, pieces: int) -> Tensor:
        """Return the pieces and as many without motion as are missing, `(pieces, B, d, *grid.shape)`."""
        still = self.field.new_zeros(pieces - self.pieces, *self._each.shape[1:])
        return torch.cat([self._each, still])

    @property
    def _each(self) -> Tensor:
        """The pieces, `(N, B, d, *grid.shape)`."""
        return self.field.unflatten(0, (self.pieces, -1))

    @property
    def is_flow(self) -> bool:
        return True

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        return self.pieces * self._each, self.grid

    @cached_property
    def own_displacement(self) -> Tensor:
        *others, last = self._each
        total = exponential(last, self.squarings, self.scheme)
        for piece in reversed(others):
            total = checkpointed(self._moved_on, piece, total) if self.frugal else self._moved_on(piece, total)
        return total

    def _moved_on(self, piece: Tensor, inner: Tensor) -> Tensor:
        return compose(exponential(piece, self.squarings, self.scheme), inner)

    def with_params(self, *params: Tensor) -> "Flow":
        return replace(self, field=params[0])

    def inverse(self) -> "Flow":
        """Return exp(−v_N) ∘ … ∘ exp(−v₁)."""
        return replace(self, field=-self._each.flip(0).flatten(0, 1))  # (N·B, d, …)


@dataclass(frozen=True, eq=False)
class Geodesic(Dense):
    """The end of a geodesic with a given initial velocity: geodesic shooting, as in LDDMM.

    Its length is measured by a kernel, ⟨v, K⁻¹ v⟩, which is conserved along it. To first order φ(x) is x + v₀(x), as of
    a `Velocity` or a `Displacement` of the same field. Beg et al. 2005 and Miller et al. 2006 follow the points of the
    moving image: their initial velocity is −v₀, and this map is their φ₁⁻¹. So v₀ lives where the moving image is.

    Attributes:
        field: v₀, `(B, d, *grid.shape)` in voxels.
        grid: its grid.
        kernel: K; one with lengths in voxels is another kernel on another grid.
        steps: number of steps in time.
        scheme: `midpoint`, or `euler`, which halves the cost and needs many more steps.
        frugal: compute each step again for the gradient: memory for one step, and a few fields for each.

    Raises:
        InputError: fewer steps than one.
    """

    field: Tensor
    grid: Grid
    kernel: Kernel
    steps: int = 10
    scheme: Scheme = midpoint
    frugal: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        self._check()
        if self.steps < 1:
            raise InputError(f"Geodesic: one step or more expected, got {self.steps}")

    @staticmethod
    def weights(where: Tensor, n: int) -> Tensor:
        """Return the matrix of interpolation by sines: linear interpolation has kinks, whose momentum has no bound."""
        return sine_weights(where, n)

    @property
    def is_flow(self) -> bool:
        return True

    def motion_on(self, grid: Grid) -> tuple[Tensor, Grid]:
        """Return the first velocity alone: all later ones have the same length."""
        return self.field[None], self.grid

    @cached_property
    def _shot(self) -> tuple[Tensor, Tensor]:
        spacing = self.grid.spacing.tolist()
        return shoot(-self.field, self.kernel, spacing, self.steps, self.scheme, self.frugal)

    @cached_property
    def flow(self) -> Flow:
        """The geodesic as a flow, with one piece for each step."""
        pieces = -self._shot[0].flatten(0, 1) / self.steps  # (steps·B, d, …)
        return Flow(pieces, self.grid, self.steps, squarings=0, scheme=self.scheme, frugal=self.frugal)

    @property
    def own_displacement(self) -> Tensor:
        return self.flow.own_displacement

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The momentum K⁻¹ v₀, scaled so that a smooth momentum of one moves points by one voxel.

        A step on the velocity itself may be as rough as an image's edges, and its geodesic is long; a step on the
        momentum gives a velocity as smooth as the kernel.
        """
        return (self.kernel.sharpen(self.field, self.grid.spacing.tolist()) * self._per_momentum,)

    def with_params(self, *params: Tensor) -> "Geodesic":
        spacing = self.grid.spacing.tolist()
        return replace(self, field=self.kernel.smooth(params[0] / self._per_momentum, spacing))

    @property
    def _per_momentum(self) -> Tensor:
        """Scale of the momentum, in voxels, for each axis: `(d, 1, …)`."""
        shape, spacing = self.grid.shape, self.grid.spacing.tolist()
        gain = self.kernel.gain(shape, spacing)
        per_axis = [gain / edge**2 for edge in self.kernel.edges(shape, spacing)]
        return self.field.new_tensor(per_axis).view(-1, *[1] * len(shape))

    def inverse(self) -> "Geodesic":
        """Return the geodesic back, shot from the end; `flow.inverse()` retraces the same steps more exactly."""
        _, displacement = self._shot
        return replace(self, field=transported(-self.field, displacement, self.kernel, self.grid.spacing.tolist()))


def joined(each: Sequence[Transform]) -> Flow:
    """Return velocities and flows on one grid as one flow, the outermost first, with the most squarings of any.

    Composites of them are taken apart, and linear parts that move nothing left out.

    Raises:
        InputError: none at all, another kind of transform, or grids, batches or schemes that differ.
    """
    flows = [_as_flow(part) for one in each for part in one.parts if not _moves_nothing(part)]
    alike = {(one.batch, one.scheme) for one in flows}
    if len(alike) != 1 or any(one.grid != flows[0].grid for one in flows):
        raise InputError(
            f"joined: flows on one grid, of one batch and one scheme, are expected, got "
            f"{', '.join(f'{one.batch} on {one.grid}' for one in flows) or 'none'}"
        )
    pieces, squarings = sum(one.pieces for one in flows), max(one.squarings for one in flows)
    return replace(flows[0], field=torch.cat([one.field for one in flows]), pieces=pieces, squarings=squarings)


def _as_flow(transform: Transform) -> Flow:
    if isinstance(transform, Flow):
        return transform
    if isinstance(transform, Velocity):
        return Flow(transform.field, transform.grid, 1, transform.squarings)
    raise InputError(f"a Velocity or a Flow expected, got a {type(transform).__name__}: its motion is not in pieces")


def _moves_nothing(transform: Transform) -> bool:
    linear = transform.as_affine
    return linear is not None and torch.equal(linear.matrix, torch.eye(linear.ndim + 1).to(linear.matrix))
