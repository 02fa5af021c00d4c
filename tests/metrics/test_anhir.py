"""The error of the ANHIR challenge, on its definition and in closed form."""

import csv

import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import BIRL, pair_of
from pullback.metrics import LandmarkError, RelativeTRE
from pullback.space import Affine, Grid, Image, Points

GRID = Grid((40, 30), torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)))
IMAGE = Image(torch.zeros(1, 1, *GRID.shape), GRID)


def shift(*by: float) -> Affine:
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, 2] = torch.tensor(by, dtype=torch.float64)
    return Affine(matrix)


def landmarks(count: int = 9) -> Points:
    return Points(-40 * torch.rand(1, count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_landmarks_travel_from_the_moving_image_to_the_fixed_one():
    """Twice as large there: errors of 6 and 8 mm in the moving world are 3 and 4 in the fixed one, over 50 mm."""
    fixed = landmarks()
    scaling = Affine.about(2 * torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    moving = Points(scaling(fixed.data) + torch.tensor([6.0, 8.0]))
    pair = Pair(IMAGE, IMAGE, fixed_points=fixed, moving_points=moving)
    found = RelativeTRE()(Alignment(pair, scaling))
    assert found["rtre"] == found["rtre max"] == pytest.approx(5 / 50)
    assert found["median tre mm"] == pytest.approx(5)
    assert LandmarkError()(Alignment(pair, scaling))["tre mm"] == pytest.approx(10)


def test_the_wrong_way_doubles_a_known_shift():
    fixed = landmarks()
    pair = Pair(IMAGE, IMAGE, fixed_points=fixed, moving_points=Points(fixed.data + torch.tensor([3.0, -4.0])))
    right, wrong = (RelativeTRE()(Alignment(pair, shift(3 * way, -4 * way))) for way in (1, -1))
    assert right["median tre mm"] == pytest.approx(0, abs=1e-9)
    assert wrong["median tre mm"] == pytest.approx(10)
    assert (right["robustness"], wrong["robustness"]) == (1.0, 0.0)


def test_a_pair_without_landmarks_has_no_number():
    for points in ({}, {"fixed_points": landmarks()}, {"fixed_points": landmarks(0), "moving_points": landmarks(0)}):
        assert RelativeTRE()(Alignment(Pair(IMAGE, IMAGE, **points), Affine.identity(2))) == {}


def table(path) -> np.ndarray:
    with open(path) as file:
        return np.array([[float(row["X"]), float(row["Y"])] for row in csv.DictReader(file)])


@pytest.mark.filterwarnings("ignore:.*landmarks; the first")
def test_the_two_real_pairs_before_anything(shared):
    """By numpy on the files: means of 28.0 and 76.4 pixels, medians of 0.0207 and 0.0570 of the target's diagonal."""
    root = shared / "data/birl_histology/data-images"
    for (fixed, moving), mean, median in zip(
        BIRL(str(root), test_split=1.0).pairs, (28.0, 76.4), (0.0207, 0.0570), strict=True
    ):
        here, there = (table(case.landmarks) for case in (fixed, moving))
        count = min(len(here), len(there))
        off = np.linalg.norm(here[:count] - there[:count], axis=1)
        pair = pair_of(fixed, moving)
        still = Alignment(pair, Affine.identity(2))
        assert off.mean() == pytest.approx(mean, abs=0.05)
        assert LandmarkError()(still)["tre mm"] == pytest.approx(off.mean(), abs=1e-3)
        diagonal = np.hypot(*pair.fixed.grid.shape)
        assert RelativeTRE()(still)["rtre"] == pytest.approx(np.median(off) / diagonal, rel=1e-5)
        assert RelativeTRE()(still)["rtre"] == pytest.approx(median, abs=1e-4)
