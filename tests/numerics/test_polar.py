"""Polar patches: a rotation shifts them and no more; the correlation is that of its definition."""

import math

import pytest
import torch

from pullback.numerics.polar import mutual, polar_correlation, polar_patches
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise

PLACES = torch.tensor([[40.0, 40.0], [52.5, 31.25]], dtype=torch.float64)


@pytest.fixture(scope="module")
def image():
    return smooth_noise((1, 1, 80, 80), 3.0, make_generator(1), torch.zeros(()))


def test_quarter_turns_shift_by_a_quarter_of_the_angles(image):
    patches = polar_patches(image, PLACES, 24, 8, 32)
    turned = image.transpose(2, 3).flip(2)  # what lies at (x, y) goes to (79 − y, x)
    there = torch.stack([79 - PLACES[:, 1], PLACES[:, 0]], 1)
    assert torch.allclose(polar_patches(turned, there, 24, 8, 32), patches.roll(8, 2), atol=1e-5)
    similarity, angle = polar_correlation(patches, polar_patches(turned, there, 24, 8, 32))
    assert similarity.diagonal() == pytest.approx(1.0, abs=1e-5)
    assert angle.diagonal() == pytest.approx(math.pi / 2)
    assert similarity[0, 1] < 0.7


def test_brightness_and_contrast_change_nothing(image):
    patches = polar_patches(image, PLACES, 24)
    assert torch.allclose(polar_patches(3 * image + 100, PLACES, 24), patches, atol=1e-4)
    assert torch.allclose(patches.flatten(1).norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(patches.mean((1, 2)), torch.zeros(2), atol=1e-6)


def test_flat_surroundings_are_like_nothing():
    image = torch.zeros(1, 1, 80, 80)
    image[..., :20] = 9.0
    patches = polar_patches(image, torch.tensor([[40.0, 60.0]]), 12)
    assert not patches.any()


def test_correlation_is_its_definition():
    generator = make_generator(2)
    one, other = (torch.randn(n, 4, 16, generator=generator) for n in (5, 7))
    similarity, angle = polar_correlation(one, other)
    every = torch.stack([(one[:, None].roll(s, 3) * other[None]).sum((2, 3)) for s in range(16)])
    assert torch.allclose(similarity, every.amax(0), atol=1e-4)
    assert torch.allclose(angle, every.argmax(0) * 2 * math.pi / 16)


def test_mutual_best():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.95, 0.2, 0.2], [0.0, 0.3, 0.3]])
    assert mutual(similarity).tolist() == [[1, 0]]
    assert mutual(similarity.mT).tolist() == [[0, 1]]
    assert mutual(torch.eye(3)).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert not len(mutual(similarity, ratio=0.05))
    assert not len(mutual(torch.zeros(0, 3)))
