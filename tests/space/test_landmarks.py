"""The map between the landmarks that agree."""

import pytest
import torch

from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Points, fit_landmarks, without


def named(names: str, seed: int = 0) -> Points:
    data = 30 * torch.randn(1, len(names), 3, generator=make_generator(seed), dtype=torch.float64)
    return Points(data, {"name": tuple(names)})


def test_the_wrong_landmark_is_told_by_its_distance():
    fixed = named("abcdefg")
    off = torch.zeros(1, 7, 3, dtype=torch.float64)
    off[0, 2, 1] = 25
    found = fit_landmarks(fixed, Points(fixed.data + off + 4, fixed.columns))
    assert found.kept.tolist() == [name != "c" for name in "abcdefg"]
    assert float(found.off[2]) == pytest.approx(25)
    assert float(found.off[found.kept].max()) < 1e-9


def test_too_few_landmarks_are_counted():
    with pytest.raises(InputError, match=r"an affine map of 3 dimensions needs 4 points at least.* there are 3"):
        fit_landmarks(named("abc"), named("abc"), "affine")


def test_points_without_some():
    assert without(named("abcd"), [1, 3]).name == ("a", "c")
