"""What every transform promises; a class of `pullback.space` that no check has seen fails."""

from dataclasses import dataclass

import pytest
import torch

from pullback.numerics.integrate import midpoint
from pullback.numerics.kernel import Sobolev
from pullback.space import (
    Affine,
    BSpline,
    Composite,
    Deferred,
    Dense,
    Displacement,
    Flow,
    FreeForm,
    Geodesic,
    Grid,
    Homography,
    Inverse,
    Linear,
    Motion,
    Points,
    ThinPlate,
    Transform,
    Velocity,
)
from pullback.testing import BrokenContract, check_transform

KERNEL = Sobolev(9.0, 3, unit="mm")
FIELDS = {"inverse": 0.1, "files": (".h5", ".nii.gz")}
"""In mm: an inverse field holds at voxels, and is linear between them."""


def smooth(grid: Grid, largest: float, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Velocities that the kernel makes of noise, at most so many voxels, and none at the border."""
    chance = torch.Generator().manual_seed(seed)
    field = torch.randn(batch, grid.ndim, *grid.shape, generator=chance, dtype=torch.float64)
    field = KERNEL.smooth(field, grid.spacing.tolist())
    for axis, n in enumerate(grid.shape):
        fade = torch.linspace(0, torch.pi, n, dtype=torch.float64).sin()
        field = field * fade.view(-1, *[1] * (grid.ndim - 1 - axis))
    return largest * field / field.abs().max()


def affine(ndim: int, batch: int = 1) -> torch.Tensor:
    chance = torch.Generator().manual_seed(3)
    matrix = torch.eye(ndim + 1, dtype=torch.float64).repeat(batch, 1, 1)
    matrix[:, :-1] += 0.05 * torch.randn(batch, ndim, ndim + 1, generator=chance, dtype=torch.float64)
    return matrix if batch > 1 else matrix[0]


def motion(grid: Grid, batch: int) -> Motion:
    start = Motion.affine(Affine(affine(grid.ndim)), grid)
    chance = torch.Generator().manual_seed(4)
    few = torch.randn(batch, len(start.coefficients), generator=chance, dtype=torch.float64)
    return start.with_params(few if batch > 1 else few[0])


def plate(grid: Grid) -> ThinPlate:
    """Between landmarks that lie about a lattice."""
    last = torch.tensor(grid.shape, dtype=torch.float64) - 1
    chance = torch.Generator().manual_seed(5)
    lattice = torch.cartesian_prod(*[torch.linspace(-0.1, 1.1, 4, dtype=torch.float64)] * grid.ndim)
    here = grid.to_world((lattice * last).mT[None]).mT
    off = torch.randn(here.shape, generator=chance, dtype=torch.float64)
    return ThinPlate.between(Points(here), Points(here + 0.3 * off))


def tilted(grid: Grid, batch: int) -> torch.Tensor:
    """Matrices of homographies whose planes of infinity lie far from the grid."""
    matrix = affine(grid.ndim, batch).clone()
    matrix[..., -1, :-1] = torch.linspace(1e-3, 2e-3, grid.ndim, dtype=torch.float64)
    return matrix


def kinds(grid: Grid) -> dict[str, tuple[Transform, dict]]:
    """Each kind, of one pair and of two, and what it says of its inverse and of files."""
    exact = {"inverse": 1e-6}
    made = {"ThinPlate": (plate(grid), {"inverse": 0.3})}  # its inverse is a spline, exact at the landmarks
    for batch in (1, 2):
        linear, field = Affine(affine(grid.ndim, batch)), Displacement(smooth(grid, 1.2, batch), grid)
        pieces = smooth(grid, 0.4, 3 * batch)
        made |= {
            f"Affine {batch}": (linear, exact | {"files": (".txt", ".mat")}),
            f"Homography {batch}": (Homography(tilted(grid, batch)), exact),
            f"Motion {batch}": (motion(grid, batch), exact | {"files": (".txt",)}),
            f"Displacement {batch}": (field, FIELDS),
            f"Velocity {batch}": (Velocity(smooth(grid, 1.2, batch), grid), FIELDS),
            f"BSpline {batch}": (BSpline(smooth(grid, 1.2, batch), grid), FIELDS | {"files": ()}),
            f"FreeForm {batch}": (FreeForm(smooth(grid, 1.2, batch), grid), FIELDS | {"files": ()}),
            f"Flow {batch}": (Flow(pieces, grid, 3, 2), FIELDS),
            f"Flow, midpoint {batch}": (Flow(pieces, grid, 3, 0, midpoint), FIELDS),
            f"Geodesic {batch}": (Geodesic(smooth(grid, 1.2, batch), grid, KERNEL, 6), FIELDS | {"inverse": 0.4}),
            f"Composite {batch}": (Composite(linear, field), FIELDS | {"files": (".h5",)}),
            f"Deferred {batch}": (Deferred(lambda made=field: made, grid.ndim, batch), FIELDS | {"files": ()}),
            f"Inverse {batch}": (Inverse(field), {"inverse": 2e-3, "learns": False, "alone": 1e-3}),
        }
    return made


@pytest.mark.parametrize("shape", [(18, 16), pytest.param((14, 12, 13), marks=pytest.mark.slow)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("name", kinds(Grid.centred((6, 6))))
def test_transform(name, shape, oblique):
    grid = oblique(shape, seed=1)
    transform, options = kinds(grid)[name]
    last = torch.tensor(shape)
    inner = Grid(tuple((last - 6).tolist()), grid.padded((-3,) * len(shape)).affine)  # none is led beyond its fields
    check_transform(transform, inner, **options)


def descendants(kind: type) -> set[type]:
    return {each for child in kind.__subclasses__() for each in (child, *descendants(child))}


def test_every_transform_is_visited():
    ours = {kind for kind in descendants(Transform) if kind.__module__.startswith("pullback.space")}
    assert ours - {type(transform) for transform, _ in kinds(Grid.centred((8, 7))).values()} == {Dense, Linear}


@dataclass(frozen=True, eq=False)
class Mistaken(Displacement):
    """A displacement with one of several mistakes."""

    mistake: str = ""

    def inverse(self):
        return Displacement(self.field if self.mistake == "an inverse" else -self.field, self.grid)

    def nth(self, n):
        return self if self.mistake == "of one pair" else super().nth(n)

    def displacement(self, grid):
        found = super().displacement(grid)
        return -found if self.mistake == "a displacement on" else found

    def with_params(self, *params):
        return super().with_params(*(p.detach() if self.mistake == "gradient" else 1.01 * p for p in params))

    def __matmul__(self, inner):
        return Composite(inner, self) if self.mistake == "composed" else super().__matmul__(inner)


@pytest.mark.parametrize(
    "mistake", ["an inverse", "of one pair", "a displacement on", "its own parameters", "composed"]
)
def test_a_mistake_is_found(mistake):
    grid = Grid.centred((18, 16))
    wrong = Mistaken(smooth(grid, 1.2, 2), grid, mistake)
    with pytest.raises(BrokenContract, match=mistake):
        check_transform(wrong, Grid.centred((12, 10)), inverse=0.5)
