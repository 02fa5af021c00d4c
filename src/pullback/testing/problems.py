"""Pairs of images whose alignment is known.

All show one scene: a bent body with structures of its own, a formula of world points. The moving image samples it as it
is, the fixed image where the truth leads its voxels: fixed(x) = scene(φ(x)). So both are exact, whatever φ is, and
nothing was resampled.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import Pair, seen
from pullback.errors import InputError, did_you_mean
from pullback.numerics.random import make_generator
from pullback.space import Affine, Displacement, Grid, Image, Transform
from pullback.testing.contract import require
from pullback.training import evaluating

EDGE = 1.5
"""Length of a voxel's edge in mm, where voxels are cubes."""
SHAPES = {2: (46, 42), 3: (26, 28, 24)}
REACH = {2: 30.0, 3: 18.0}
"""Half the extent of the scene, in mm."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Two images whose alignment is known.

    Attributes:
        name: one of `PROBLEMS`.
        pair: the images; its `truth` leads from fixed to moving.
        body: where the distance to the truth is measured, `(B, 1, *spatial)` bool on the fixed grid.
        within: mean distance in mm, at most, of an answer that solves the problem.
        because: the reason of that tolerance.
    """

    name: str
    pair: Pair
    body: Tensor
    within: float
    because: str

    def __str__(self) -> str:
        return f"{self.name} {self.pair.fixed.grid.ndim}-D"

    @property
    def batch(self) -> int:
        """Number of pairs."""
        return self.pair.batch

    def nth(self, n: int) -> "Problem":
        """Return the n-th pair as a problem of its own."""
        return replace(self, pair=self.pair.nth(n), body=self.body[n : n + 1])

    def double(self) -> "Problem":
        """Return the same problem in float64."""
        fixed, moving = (replace(image, data=image.data.double()) for image in self.pair.images)
        return replace(self, pair=replace(self.pair, fixed=fixed, moving=moving))

    def ask(self, register: Callable[[Image, Image], Any]) -> Transform:
        """Return the transform with which a register answers, as it is used: networks do not train.

        Raises:
            BrokenContract: the moved image is not the moving one pulled through the transform onto the fixed grid.
        """
        with evaluating(register):
            answer = register(self.pair.fixed, self.pair.moving)
            transform = answer.transform
            require(isinstance(transform, Transform), self, "an answer with a `transform`", type(transform).__name__)
            moved, plain = seen(self.pair, answer).moved, seen(self.pair, _Bare(transform)).moved
        same = moved.grid == plain.grid and torch.equal(moved.data.nan_to_num(), plain.data.nan_to_num())
        require(same, self, "`moved` as the moving image pulled through `transform`", "another image")
        return transform

    def displacement(self, transform: Transform) -> Tensor:
        """Return how far voxels of the fixed grid are moved, `(B, d, *spatial)` in mm, float64."""
        grid = self.pair.fixed.grid
        return grid.to_mm(transform.displacement(grid).detach().double())

    def apart(self, one: Transform, other: Transform) -> Tensor:
        """Return the distances in mm between where two transforms lead the voxels of the body, `(N,)`."""
        off = self.displacement(one) - self.displacement(other)
        return off.norm(dim=1, keepdim=True).expand_as(self.body)[self.body]

    def distance(self, transform: Transform) -> float:
        """Return the mean distance in mm between where a transform and the truth lead the voxels of the body."""
        assert self.pair.truth is not None
        return float(self.apart(transform, self.pair.truth).mean())


@dataclass(frozen=True)
class _Bare:
    """An answer of a transform alone."""

    transform: Transform


def scene(ndim: int, seed: int = 0) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function of world points `(B, d, …)` in mm: the intensities, 0 … 1, and how much of them is body.

    The body is a bent ellipsoid that no rotation maps to itself; its structures are waves of 6 voxels and more.
    """
    chance = make_generator(seed)
    directions = torch.nn.functional.normalize(torch.randn(6, ndim, generator=chance, dtype=torch.float64), dim=1)
    lengths = EDGE * (6 + 6 * torch.rand(6, generator=chance, dtype=torch.float64))
    phases = 2 * math.pi * torch.rand(6, generator=chance, dtype=torch.float64)

    def value(where: Tensor) -> tuple[Tensor, Tensor]:
        x, *others = (where / REACH[ndim]).split(1, dim=1)
        bent = torch.cat([x + 0.5 * others[0].square() + 0.3 * others[-1] - 0.1, *others], 1)
        radii = torch.tensor([0.75, 0.6, 0.7][:ndim]).to(where).view(1, -1, *[1] * (where.ndim - 2))
        body = torch.sigmoid(12 * (1 - (bent / radii).norm(dim=1, keepdim=True)))
        angle = torch.einsum("kd,bd...->bk...", 2 * math.pi * directions / lengths[:, None], where)
        waves = (angle + phases.view(1, -1, *[1] * (where.ndim - 2))).cos().mean(1, keepdim=True)
        return body * (0.6 + 0.5 * waves), body

    return value


def shifted(ndim: int, size: float = 1.0) -> Affine:
    """Return a translation by some 2.5 voxels, along no axis."""
    still = torch.eye(ndim, dtype=torch.float64)
    return Affine.about(still, still[0] * 0, size * torch.tensor([3.0, -2.1, 1.2], dtype=torch.float64)[:ndim])


def turned(ndim: int, degrees: float) -> Affine:
    """Return a rotation about the middle of the scene; in 3-D about an oblique axis."""
    if ndim == 2:
        skew = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    else:
        x, y, z = torch.nn.functional.normalize(torch.tensor([0.4, 0.5, 1.0], dtype=torch.float64), dim=0).tolist()
        skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    turn = torch.linalg.matrix_exp(math.radians(degrees) * skew)
    return Affine.about(turn, torch.zeros(ndim, dtype=torch.float64))


def waved(grid: Grid, size: float = 3.0) -> Displacement:
    """Return a smooth field of at most `size` mm along each axis, half a wave along each, without motion at the border.

    Its slopes stay below a half, so that it has an inverse.
    """
    where = grid.voxels(torch.zeros((), dtype=torch.float64))
    last = torch.tensor(grid.shape, dtype=torch.float64).view(-1, *[1] * grid.ndim) - 1
    bump = (math.pi * where / last).sin().prod(0)
    tilt = 1 - 0.5 * where / last
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[: grid.ndim].view(-1, *[1] * grid.ndim)
    return Displacement(grid.from_mm((size * signs * bump * tilt)[None]), grid)


def sampled(grid: Grid, value: Callable[[Tensor], tuple[Tensor, Tensor]], through: Transform | None = None) -> Image:
    """Return the scene on a grid, seen through a transform, `(1, 1, *spatial)` float32; its mask is the body."""
    data, body = value(_world(grid, through))
    return Image(data.float(), grid, body > 0.5)


def _world(grid: Grid, through: Transform | None) -> Tensor:
    where = grid.voxels(torch.zeros((), dtype=torch.float64))[None]
    return grid.to_world(where if through is None else where + through.displacement(grid))


def _problem(
    name: str, fixed: Grid, moving: Grid, truth: Transform, within: float, because: str, seed: int = 0
) -> Problem:
    value = scene(fixed.ndim, seed)
    one, two = sampled(fixed, value, truth), sampled(moving, value)
    assert one.mask is not None
    pair = Pair(replace(one, mask=None), replace(two, mask=None), truth=truth, name=f"{name} {fixed.ndim}-D")
    return Problem(name, pair, one.mask, within, because)


def _cubes(ndim: int) -> Grid:
    return Grid.centred(SHAPES[ndim], EDGE)


HALF = 0.5 * EDGE


def identity(ndim: int) -> Problem:
    """Return two images that are the same."""
    why = "half a voxel: mutual information prefers slightly steeper edges, and searches have steps of a voxel or so"
    return _problem("identity", _cubes(ndim), _cubes(ndim), Affine.identity(ndim), HALF, why)


def shift(ndim: int) -> Problem:
    """Return a translation by 2.5 voxels."""
    why = "half a voxel, a fifth of the shift: a field is held back by its regularity where the body is even"
    return _problem("shift", _cubes(ndim), _cubes(ndim), shifted(ndim), HALF, why)


def rotation(ndim: int) -> Problem:
    """Return a rotation by 12° in 2-D and by 18° in 3-D, which moves the body's edge by some 3 voxels."""
    why = "half a voxel, which is some 3° or 4°: what a search of rotations leaves before it is refined"
    return _problem("rotation", _cubes(ndim), _cubes(ndim), turned(ndim, 6.0 * ndim), HALF, why)


def smooth(ndim: int) -> Problem:
    """Return a smooth field that moves the middle by 2 voxels along each axis, and the border not at all."""
    grid = _cubes(ndim)
    why = "half a voxel, a quarter of the motion: regularity holds a field back"
    return _problem("smooth", grid, grid, waved(grid), HALF, why)


def contrast(ndim: int) -> Problem:
    """Return the shift, with what is bright within the body dark in the moving image; the air is dark in both."""
    known = shift(ndim)
    _, body = scene(ndim)(_world(known.pair.moving.grid, None))
    moving = replace(known.pair.moving, data=(1.2 * body - known.pair.moving.data).float())
    pair = replace(known.pair, moving=moving, name=f"contrast {ndim}-D")
    why = "a voxel, less than half of the shift: the images have edges in common, and no intensities"
    return Problem("contrast", pair, known.body, EDGE, why)


def mask(ndim: int) -> Problem:
    """Return the shift, with a quarter of each image that the masks hide: noise ten times as bright as the body.

    What is hidden lies on one side of the fixed image and on the other of the moving one. Distances are measured where
    the fixed mask shows the body.
    """
    known = shift(ndim)
    images: list[Image] = []
    quarter = SHAPES[ndim][0] // 4
    for image, side in zip(known.pair.images, (slice(quarter), slice(-quarter, None)), strict=True):
        hidden = torch.zeros_like(image.data, dtype=torch.bool)
        hidden[:, :, side] = True
        wild = 10 * torch.rand(image.data.shape, generator=make_generator(3, len(images)))
        images.append(Image(torch.where(hidden, wild, image.data), image.grid, ~hidden))
    pair = replace(known.pair, fixed=images[0], moving=images[1], name=f"mask {ndim}-D")
    assert images[0].mask is not None
    return replace(known, name="mask", pair=pair, body=known.body & images[0].mask)


def anisotropic(ndim: int) -> Problem:
    """Return the shift between grids of thick voxels: along the last axis of the one, along the first of the other."""
    thick = [EDGE] * (ndim - 1) + [2 * EDGE]
    fixed, moving = (
        Grid.centred(tuple(round(n * EDGE / edge) for n, edge in zip(SHAPES[ndim], edges, strict=True)), tuple(edges))
        for edges in (thick, thick[::-1])
    )
    why = "half a thick voxel: finer detail was not sampled"
    return _problem("anisotropic", fixed, moving, shifted(ndim), EDGE, why)


def thin(ndim: int) -> Problem:
    """Return a slab of six voxels along the last axis, shifted along the others."""
    grid = Grid.centred((*SHAPES[ndim][:-1], 6), EDGE)
    matrix = shifted(ndim).matrix.clone()
    matrix[-2, -1] = 0
    why = "half a voxel, as of the shift"
    return _problem("thin", grid, grid, Affine(matrix), HALF, why)


def batch(ndim: int) -> Problem:
    """Return two pairs at once, of other scenes and other shifts: each must come out as it does alone."""
    first, second = (
        _problem("batch", _cubes(ndim), _cubes(ndim), shifted(ndim, size), HALF, "as of the shift", seed)
        for seed, size in ((0, 1.0), (1, -0.7))
    )
    fixed, moving = (one.stack([two]) for one, two in zip(first.pair.images, second.pair.images, strict=True))
    assert first.pair.truth is not None
    assert second.pair.truth is not None
    truth = first.pair.truth.stack([second.pair.truth])
    pair = Pair(fixed, moving, truth=truth, name=f"batch {ndim}-D")
    return replace(first, pair=pair, body=torch.cat([first.body, second.body]))


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    made.__name__: made for made in (identity, shift, rotation, smooth, contrast, mask, anisotropic, thin, batch)
}
"""All problems of images by name; each is made in 2-D or in 3-D."""


def problems(*names: str, ndim: int | tuple[int, ...] = (2, 3)) -> list[Problem]:
    """Return problems by name, or all of them, each in 2-D and in 3-D.

    Args:
        names: of `PROBLEMS`; all where none is given.
        ndim: 2, 3 or both.

    Raises:
        InputError: there is no such problem.
    """
    return chosen(PROBLEMS, names, (ndim,) if isinstance(ndim, int) else ndim)


def chosen(known: dict[str, Callable[..., Any]], names: tuple[str, ...], each: tuple[Any, ...]) -> list[Any]:
    """Return some of the known makers' problems, for each value of their argument.

    Raises:
        InputError: a name that is not known.
    """
    for name in names:
        if name not in known:
            raise InputError(f"no problem {name!r}: there are {', '.join(known)}{did_you_mean(name, known)}")
    return [known[name](value) for name in (names or known) for value in each]
