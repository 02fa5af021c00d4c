"""Maps of matched points, many of them wrong: what is known is found again, and other tools agree."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pullback.numerics.fit import fit_linear
from pullback.numerics.random import make_generator
from pullback.numerics.ransac import MODELS, distances, fewest, fit_homography, fit_matrix, projected, ransac

TURN = torch.tensor([[math.cos(2.0), -math.sin(2.0)], [math.sin(2.0), math.cos(2.0)]], dtype=torch.float64)


def known(kind: str) -> torch.Tensor:
    """Return a map of the plane of this kind that no simpler one is."""
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = TURN
    matrix[:2, 2] = torch.tensor([130.0, -45.0])
    if kind != "rigid":
        matrix[:2, :2] *= 1.1
    if kind in ("affine", "homography"):
        matrix[:2, :2] @= torch.tensor([[1.0, 0.2], [0.0, 0.9]], dtype=torch.float64)
    if kind == "homography":
        matrix[2, :2] = torch.tensor([1e-4, -2e-4])
    return matrix


def drawn(kind: str, right: int = 60, wrong: int = 40, sigma: float = 0.0, mirrored: bool = False):
    """Return points of 1000 px, where they go, and the map; the last `wrong` go anywhere, or to mirrored places."""
    generator = make_generator(1)
    points = 1000 * torch.rand(right + wrong, 2, generator=generator, dtype=torch.float64)
    there = projected(known(kind), points)
    there[:right] += sigma * torch.randn(right, 2, generator=generator, dtype=torch.float64)
    there[right:] = 1000 * torch.rand(wrong, 2, generator=generator, dtype=torch.float64)
    if mirrored:
        there[right:] = points[right:] * torch.tensor([1.0, -1.0])
    return points, there


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_exact_recovery(kind, mirrored):
    points, there = drawn(kind, mirrored=mirrored)
    found, agree = ransac(points, there, kind, 1.0, make_generator(0))
    assert agree.tolist() == [True] * 60 + [False] * 40
    corners = torch.tensor([[0.0, 0], [0, 1000], [1000, 0], [1000, 1000]], dtype=torch.float64)
    exact = fit_matrix(points[:60], there[:60], kind)
    assert distances(exact, corners, projected(known(kind), corners)).max() < 1e-9
    assert distances(found, corners, projected(known(kind), corners)).max() < 1e-9


@pytest.mark.parametrize("kind", ["rigid", "similarity"])
def test_a_mirrored_majority_is_no_map_of_this_kind(kind):
    points, there = drawn(kind, 35, 65, mirrored=True)
    _, agree = ransac(points, there, kind, 1.0, make_generator(0))
    assert agree.tolist() == [True] * 35 + [False] * 65


@pytest.mark.parametrize("kind", MODELS)
def test_noise_is_averaged(kind):
    points, there = drawn(kind, sigma=0.5)
    found, _ = ransac(points, there, kind, 2.5, make_generator(0))
    inner = torch.tensor([[300.0, 300], [300, 700], [700, 300], [700, 700]], dtype=torch.float64)
    off = distances(found, inner, projected(known(kind), inner)).square().mean().sqrt()
    assert off < 3 * 0.5 * math.sqrt(fewest(2, kind) / 60)  # σ √(parameters / points), times 3


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_homography_is_that_of_opencv(sigma):
    cv2 = pytest.importorskip("cv2")
    points, there = drawn("homography", 30, 0, sigma)
    theirs = torch.from_numpy(cv2.findHomography(points.numpy(), there.numpy(), method=0)[0])
    ours = fit_homography(points, there)
    assert torch.allclose(ours / ours[2, 2], theirs, rtol=1e-6, atol=1e-6)
    assert torch.linalg.det(ours) == pytest.approx(1.0)


def test_rigid_is_that_of_scipy():
    generator = make_generator(3)
    points = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    turn = torch.from_numpy(Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix())
    there = points @ turn.mT + 0.05 * torch.randn(20, 3, generator=generator, dtype=torch.float64)
    ours = fit_linear(points - points.mean(0), there - there.mean(0), "rigid")
    theirs = Rotation.align_vectors((there - there.mean(0)).numpy(), (points - points.mean(0)).numpy())[0].as_matrix()
    assert np.allclose(ours[:3, :3], theirs, atol=1e-9)


def test_three_dimensions():
    generator = make_generator(4)
    points = 100 * torch.rand(50, 3, generator=generator, dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix())
    there = projected(matrix, points)
    there[30:] = 100 * torch.rand(20, 3, generator=generator, dtype=torch.float64)
    found, agree = ransac(points, there, "rigid", 0.1, make_generator(0))
    assert torch.allclose(found, matrix, atol=1e-9)
    assert agree.tolist() == [True] * 30 + [False] * 20


def test_small_units_change_nothing():
    points, there = drawn("homography")
    nm = 5e-6
    found, agree = ransac(points, there, "homography", 1.0, make_generator(0))
    small, same = ransac(points * nm, there * nm, "homography", nm, make_generator(0))
    assert torch.equal(agree, same)
    assert torch.allclose(projected(small, points * nm) / nm, projected(found, points), atol=1e-6)


def test_beyond_infinity_agrees_with_nothing():
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[2, 0] = -1 / 900  # x = 900 goes to infinity
    points = torch.tensor([[0.0, 0], [100, 0], [200, 0], [950, 0]], dtype=torch.float64)
    assert distances(matrix, points, projected(matrix, points)).tolist()[-1] == math.inf


def test_refusals():
    generator = make_generator(0)
    line = torch.stack([torch.arange(6.0), torch.zeros(6)], 1)
    with pytest.raises(ValueError, match="affine needs 3 points"):
        ransac(line[:2], line[:2], "affine", 1.0, generator)
    with pytest.raises(ValueError, match="not all in one line"):
        ransac(line, line, "affine", 1.0, generator)
    with pytest.raises(ValueError, match="line"):
        fit_homography(line, line)
    with pytest.raises(ValueError, match="one place"):
        fit_homography(torch.ones(5, 2), line[:5])
    with pytest.raises(ValueError, match="of the plane"):
        fewest(3, "homography")
