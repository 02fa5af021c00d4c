"""Motions: what exponentials of matrices promise, and scipy's rotations."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import logm
from scipy.spatial.transform import Rotation

from pullback.numerics.random import make_generator
from pullback.numerics.rotation import uniform
from pullback.space import Affine, Grid, Image, Motion, pull

SHAPES = {2: (14, 9), 3: (12, 7, 10)}
KINDS = [Motion.translation, Motion.rigid, Motion.similarity, Motion.affine]


def coefficients(motion: Motion, size: float, seed: int = 0) -> torch.Tensor:
    return size * torch.randn(len(motion.coefficients), dtype=torch.float64, generator=make_generator(seed))


def some_affine(ndim: int) -> Affine:
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1] += 0.2 * torch.randn(ndim, ndim + 1, dtype=torch.float64, generator=make_generator(9))
    return Affine(matrix)


def turned(ndim: int, seed: int = 1) -> Affine:
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, :-1] = uniform(ndim, 1, make_generator(seed))[0]
    matrix[:-1, -1] = torch.tensor([5.0, -3.0, 8.0][:ndim])
    return Affine(matrix)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("size", [0.1, 3.0, 100.0, 3000.0])
def test_rigid_motions_are_rigid_for_any_coefficients(ndim, size, oblique):
    start = Motion.rigid(turned(ndim), oblique(SHAPES[ndim], 3))
    for seed in range(5):
        matrix = start.with_params(coefficients(start, size, seed)).matrix
        linear, eye = matrix[:-1, :-1], torch.eye(ndim, dtype=torch.float64)
        torch.testing.assert_close(linear.T @ linear, eye, rtol=0, atol=1e-9)
        assert float(torch.linalg.det(linear)) == pytest.approx(1)
        torch.testing.assert_close(matrix[-1], torch.eye(ndim + 1, dtype=torch.float64)[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_similarities_keep_angles_and_translations_all_but_the_place(ndim, oblique):
    start = turned(ndim)
    eye = torch.eye(ndim, dtype=torch.float64)
    similar = Motion.similarity(start, oblique(SHAPES[ndim], 3))
    linear = similar.with_params(coefficients(similar, 3.0, 1)).matrix[:-1, :-1]
    gram = linear.T @ linear
    torch.testing.assert_close(gram, gram[0, 0] * eye, rtol=0, atol=1e-9)
    assert abs(float(gram[0, 0]) - 1) > 1e-3
    shift = Motion.translation(start, oblique(SHAPES[ndim], 3))
    moved = shift.with_params(coefficients(shift, 3.0, 1)).matrix
    torch.testing.assert_close(moved[:-1, :-1], start.matrix[:-1, :-1], rtol=0, atol=1e-12)
    assert float((moved[:-1, -1] - start.matrix[:-1, -1]).norm()) > 0.1


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_without_coefficients_it_is_the_start(ndim, kind, oblique):
    start = some_affine(ndim)
    motion = kind(start, oblique(SHAPES[ndim], 4))
    assert not motion.coefficients.any()
    torch.testing.assert_close(motion.matrix, start.matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_as_many_coefficients_as_degrees_of_freedom(ndim, oblique):
    """d shifts, d(d−1)/2 turns, a scaling, or d² in all; independent, so all motions near the start are in reach."""
    grid = oblique(SHAPES[ndim], 4)
    counts = ({2: 2, 3: 3}, {2: 3, 3: 6}, {2: 4, 3: 7}, {2: 6, 3: 12})
    for kind, count in zip(KINDS, counts, strict=True):
        generators = kind(Affine.identity(ndim), grid).generators
        assert len(generators) == count[ndim]
        assert int(torch.linalg.matrix_rank(generators.flatten(1))) == count[ndim]
        assert not generators[:, -1].any()


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_affine_map_is_reached_by_its_logarithm(ndim, oblique):
    """Coefficients solved for log(start⁻¹ A) about the centre give A: an independent way round the exponential."""
    target, grid = some_affine(ndim), oblique(SHAPES[ndim], 4)
    motion = Motion.affine(Affine.identity(ndim), grid)
    about = torch.eye(ndim + 1, dtype=torch.float64)
    about[:-1, -1] = grid.centre
    wanted = np.real(logm((torch.linalg.inv(about) @ target.matrix @ about).numpy()))
    solved = np.linalg.lstsq(motion.generators.flatten(1).T.numpy(), wanted.ravel(), rcond=None)[0]
    found = motion.with_params(torch.from_numpy(solved))
    torch.testing.assert_close(found.matrix, target.matrix, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_coefficient_moves_the_radius_by_as_many_millimetres(ndim, kind, oblique):
    """The radius: half the root mean square edge of the grid. Of all points there, the one moved furthest."""
    shape, h = SHAPES[ndim], 1e-5
    grid = oblique(shape, 6)
    edges = (torch.tensor(shape, dtype=torch.float64) - 1) * grid.spacing
    radius = float(edges.square().mean().sqrt()) / 2
    motion = kind(Affine.identity(ndim), grid)
    directions = torch.randn(20_000, ndim, dtype=torch.float64, generator=make_generator(1))
    points = grid.centre + radius * directions / directions.norm(dim=1, keepdim=True)
    for k in range(len(motion.coefficients)):
        step = torch.zeros_like(motion.coefficients)
        step[k] = h
        moved = (motion.with_params(step)(points) - points).norm(dim=1)
        assert float(moved.max()) / h == pytest.approx(1, abs=0.01)


def test_three_dimensional_turns_as_scipys(oblique):
    """The generators turn y about x, z about x, z about y: coefficients over the radius are a rotation vector."""
    grid = oblique(SHAPES[3], 2)
    edges = (torch.tensor(SHAPES[3], dtype=torch.float64) - 1) * grid.spacing
    radius = float(edges.square().mean().sqrt()) / 2
    motion = Motion.rigid(Affine.identity(3), grid)
    for seed in range(10):
        vector = np.random.default_rng(seed).normal(size=3)
        vector *= np.random.default_rng(seed).uniform(0, math.pi) / np.linalg.norm(vector)
        given = torch.zeros(6, dtype=torch.float64)
        given[:3] = radius * torch.tensor([vector[2], -vector[1], vector[0]])  # planes xy, xz, yz
        found = motion.with_params(given)
        expected = Rotation.from_rotvec(vector).as_matrix()
        np.testing.assert_allclose(found.matrix[:3, :3].numpy(), expected, atol=1e-9)
        torch.testing.assert_close(found(grid.centre[None])[0], grid.centre)


def test_a_planar_turn_by_hand():
    motion = Motion.rigid(Affine.identity(2), Grid.centred((11, 11), 2.0))  # radius 10
    quarter = motion.with_params(torch.tensor([10 * math.pi / 2, 0, 0], dtype=torch.float64))
    moved = quarter(torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(moved, torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0.0, 2.0])
def test_its_gradient(ndim, kind, size, oblique):
    motion = kind(turned(ndim), oblique(SHAPES[ndim], 3))
    points = torch.randn(4, ndim, dtype=torch.float64, generator=make_generator(5))
    given = coefficients(motion, size).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: motion.with_params(c)(points), (given,))


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_motion_is_a_linear_transform_like_any_other(ndim, oblique):
    grid = oblique(SHAPES[ndim], 3)
    motion = Motion.affine(turned(ndim), grid)
    motion = motion.with_params(coefficients(motion, 1.0))
    same, other = Affine(motion.matrix), some_affine(ndim)
    points = torch.randn(6, ndim, dtype=torch.float64, generator=make_generator(5))
    assert isinstance(motion @ other, Affine)
    torch.testing.assert_close((motion @ other)(points), same(other(points)))
    torch.testing.assert_close(motion.inverse()(motion(points)), points)
    torch.testing.assert_close(motion.displacement(grid), same.displacement(grid))
    image = Image(torch.rand(1, 1, *grid.shape, dtype=torch.float64, generator=make_generator(2)), grid)
    torch.testing.assert_close(pull(image, motion, grid).data, pull(image, same, grid).data)
