"""Distances of matched points: by formulas, in millimetres, and by what gradients must say."""

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE, Diffusion, LandmarkMSE
from pullback.errors import InputError
from pullback.metrics import LandmarkError
from pullback.numerics.random import make_generator
from pullback.space import Affine, Displacement, Image, Points, Velocity

SHAPES = {2: (9, 8), 3: (8, 7, 9)}
dimensions = pytest.mark.parametrize("ndim", [2, 3])


def pair(grid, count=20, off=0.0, batch=1, dtype=torch.float64):
    """Points within a grid, and the same `off` mm away."""
    image = Image(torch.zeros(batch, 1, *grid.shape, dtype=dtype), grid)
    inner = torch.rand(batch, grid.ndim, count, generator=make_generator(0), dtype=torch.float64)
    points = grid.to_world(inner * (torch.tensor(grid.shape).double() - 1)[:, None]).mT
    return Pair(image, image, fixed_points=Points(points), moving_points=Points(points + off))


@dimensions
def test_a_known_shift_in_millimetres(oblique, ndim):
    """Points that lie (1, −2, …) mm off are 1 + 4 + … mm² off, whatever the voxels; at the truth 0."""
    grid = oblique(SHAPES[ndim], 3)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)[:ndim]
    known = pair(grid, off=shift)
    still = LandmarkMSE().terms(Alignment(known, Affine.identity(ndim)))
    assert list(still) == ["landmark mse"]
    assert float(still["landmark mse"]) == pytest.approx(float(shift.square().sum()), rel=1e-12)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, -1] = shift
    assert float(LandmarkMSE()(Alignment(known, Affine(matrix)))) < 1e-20


@dimensions
def test_its_root_is_no_less_than_the_landmark_error(oblique, ndim):
    """Means of squares are no less than squares of means; equal where all points are as far off."""
    grid = oblique(SHAPES[ndim], 1)
    noise = torch.randn(1, 20, ndim, generator=make_generator(1), dtype=torch.float64)
    for off, same in ((noise, False), (noise / noise.norm(dim=-1, keepdim=True), True)):
        seen = Alignment(pair(grid, off=off), Affine.identity(ndim))
        root, mean = float(LandmarkMSE()(seen)) ** 0.5, LandmarkError()(seen)["tre mm"]
        assert (root == pytest.approx(mean)) if same else root > mean


@dimensions
@pytest.mark.parametrize("kind", [Displacement, Velocity])
def test_the_slope_is_that_of_the_values(oblique, ndim, kind):
    grid = oblique(SHAPES[ndim], 2)
    known = pair(grid, count=6, off=0.7)

    def value(field):
        return LandmarkMSE()(Alignment(known, kind(field, grid)))

    start = 0.3 * torch.randn(1, ndim, *grid.shape, generator=make_generator(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(value, start.requires_grad_(), fast_mode=True)


@dimensions
def test_a_batch_is_the_mean_of_its_pairs(oblique, ndim):
    grid = oblique(SHAPES[ndim], 4)
    known = pair(grid, off=torch.rand(3, 20, ndim, generator=make_generator(3), dtype=torch.float64), batch=3)
    each = [float(LandmarkMSE()(Alignment(known.nth(n), Affine.identity(ndim)))) for n in range(3)]
    assert float(LandmarkMSE()(Alignment(known, Affine.identity(ndim)))) == pytest.approx(sum(each) / 3)


def test_it_adds_to_energies_of_single_precision_and_is_ready(oblique):
    known = pair(oblique(SHAPES[3], 1), off=1.0, dtype=torch.float32)
    energy = MSE() + 0.01 * LandmarkMSE() + Diffusion()
    field = torch.zeros(1, 3, *SHAPES[3], requires_grad=True)
    value = energy(Alignment(known, Displacement(field, known.fixed.grid)))
    assert value.dtype == torch.float32
    value.backward()
    assert field.grad is not None
    assert float(value.detach()) == pytest.approx(0.03, rel=1e-5)
    ready = energy.on(known)(Displacement(field, known.fixed.grid))
    assert float(ready.detach()) == pytest.approx(0.03, rel=1e-5)


def test_points_without_a_match_are_refused(oblique):
    grid = oblique(SHAPES[2], 1)
    known = pair(grid)
    bare = Pair(known.fixed, known.moving, fixed_points=known.fixed_points, name="one")
    with pytest.raises(InputError, match="one: LandmarkMSE needs matched points"):
        LandmarkMSE()(Alignment(bare, Affine.identity(2)))
    less = Pair(known.fixed, known.moving, fixed_points=known.fixed_points, moving_points=known.moving_points[:5])
    with pytest.raises(InputError, match="20 fixed and 5 moving"):
        LandmarkMSE()(Alignment(less, Affine.identity(2)))
