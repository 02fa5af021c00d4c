"""Linear maps between matched points: least squares by other means, and wrong points among right ones."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pullback.numerics.fit import FITS, distances, fit_linear, fit_most
from pullback.numerics.random import make_generator


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return 40 * torch.randn(n, d, generator=make_generator(seed), dtype=torch.float64)


def a_map(d: int, kind: str) -> torch.Tensor:
    turn = Rotation.from_rotvec([0.4, -1.1, 2.0]).as_matrix() if d == 3 else Rotation.from_rotvec([0, 0, 2]).as_matrix()
    matrix = torch.eye(d + 1, dtype=torch.float64)
    matrix[:d, :d] = torch.from_numpy(turn[:d, :d].copy()) * (1.0 if kind == "rigid" else 1.3)
    if kind == "affine":
        matrix[0, 1] += 0.4
    matrix[:d, d] = torch.tensor([3.0, -50.0, 12.0])[:d]
    return matrix


def sent(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return points @ matrix[:-1, :-1].mT + matrix[:-1, -1]


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("kind", FITS)
def test_a_map_is_found_by_the_fewest_points_that_tell_it(d, kind):
    points = cloud(d + 1 if kind == "affine" else d, d)
    matrix = a_map(d, kind)
    torch.testing.assert_close(fit_linear(points, sent(matrix, points), kind), matrix, rtol=0, atol=1e-9)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("kind", FITS)
def test_no_small_change_of_the_map_is_better(d, kind):
    """The sum of squares is least: its slope by every parameter of the kind is 0, and it curves up."""
    points = cloud(20, d)
    there = sent(a_map(d, kind), points) + cloud(20, d, 1) / 5
    matrix = fit_linear(points, there, kind)
    turns = [torch.zeros(d, d, dtype=torch.float64) for _ in range(d * (d - 1) // 2)]
    for turn, (a, b) in zip(turns, [(0, 1), (0, 2), (1, 2)], strict=False):
        turn[a, b], turn[b, a] = 1, -1
    stretches = {
        "rigid": [],
        "similarity": [torch.eye(d).double()],
        "affine": list(torch.eye(d * d).double().view(-1, d, d)),
    }
    middle = sent(matrix, points).mean(0)

    def squares(step: torch.Tensor, size: float) -> float:
        moved = sent(matrix, points) - middle
        return float((moved @ torch.linalg.matrix_exp(size * step).mT + middle - there).square().sum())

    for step in [*turns, *stretches[kind]]:
        least = squares(step, 0.0)
        assert abs(squares(step, 1e-4) - squares(step, -1e-4)) < 1e-6 * least
        assert squares(step, 0.01) > least
        assert squares(step, -0.01) > least


def test_a_rigid_map_is_that_of_scipy_and_never_a_reflection():
    points = cloud(12, 3)
    there = points * torch.tensor([1.0, 1.0, -1.0]) + cloud(12, 3, 2) / 8  # a mirror image fits best of all
    matrix = fit_linear(points, there, "rigid")
    known, _ = Rotation.align_vectors((there - there.mean(0)).numpy(), (points - points.mean(0)).numpy())
    np.testing.assert_allclose(matrix[:3, :3], known.as_matrix(), atol=1e-9)
    assert float(torch.linalg.det(matrix[:3, :3])) == pytest.approx(1)


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("seed", range(5))
def test_wrong_points_are_found_and_have_no_say(kind, seed):
    """Up to two in five of them, by 15 mm and more, among others that are off by some tenths."""
    points, generator = cloud(20, 3, seed), make_generator(seed, 7)
    there = sent(a_map(3, kind), points) + 0.3 * cloud(20, 3, seed + 50) / 40
    wrong = torch.randperm(20, generator=generator)[:8]
    there[wrong] += 15 * torch.nn.functional.normalize(cloud(8, 3, seed + 90), dim=1) * (1 + torch.rand(8, 1))
    matrix, kept = fit_most(points, there, kind, 1.0, generator)
    assert not kept[wrong].any()
    assert int(kept.sum()) == 12
    torch.testing.assert_close(matrix, fit_linear(points[kept], there[kept], kind))
    assert float(distances(matrix, points, there)[kept].max()) < 1.5


def test_few_points_are_all_believed():
    points = cloud(4, 3)
    there = points.clone()
    there[0] += 30
    assert fit_most(points, there, "rigid", 1.0, make_generator(0))[1].all()


@pytest.mark.parametrize(("kind", "n", "least"), [("rigid", 2, 3), ("similarity", 2, 3), ("affine", 3, 4)])
def test_too_few_points_are_refused_by_number(kind, n, least):
    with pytest.raises(ValueError, match=f"{kind} map of 3 dimensions needs {least} points"):
        fit_linear(cloud(n, 3), cloud(n, 3, 1), kind)


def test_points_on_a_line_tell_no_turn_about_it():
    line = torch.arange(9.0)[:, None] * torch.tensor([1.0, 2.0, -1.0])
    with pytest.raises(ValueError, match="not all in one line"):
        fit_linear(line, line, "rigid")
    with pytest.raises(ValueError, match="not all in one plane"):
        fit_linear(cloud(9, 3) * torch.tensor([1.0, 1.0, 0.0]), cloud(9, 3), "affine")
