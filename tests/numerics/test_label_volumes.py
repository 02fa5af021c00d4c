"""Sums over labels, against one indicator image for each."""

import pytest
import torch

from pullback.numerics.label_volumes import moved_volumes
from pullback.numerics.sample import sample, voxels


def scene(shape, count, batch=2):
    generator = torch.Generator().manual_seed(len(shape))
    fixed, moving = (torch.randint(0, count + 1, (batch, 1, *shape), generator=generator) for _ in range(2))
    off = 1.7 * torch.randn(batch, len(shape), *shape, dtype=torch.float64, generator=generator)
    return fixed, moving, voxels(shape, off)[None] + off


def one_by_one(fixed, moving, where, count):
    p, q = (torch.cat([(each == k).double() for k in range(1, count + 1)], 1) for each in (fixed, moving))
    q, axes = sample(q, where), tuple(range(2, p.ndim))
    return q.sum(axes), (p * q).sum(axes)


@pytest.mark.parametrize("shape", [(7, 6), (5, 6, 4)])
def test_they_are_those_of_indicator_images_and_so_are_their_gradients(shape):
    fixed, moving, where = scene(shape, 3)
    weights = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    answers, gradients = [], []
    for volumes in (moved_volumes, one_by_one):
        at = where.clone().requires_grad_()
        both = torch.stack(volumes(fixed, moving, at, 3))
        (gradient,) = torch.autograd.grad((weights * both).sum(), at)
        answers.append(both.detach())
        gradients.append(gradient)
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(*gradients)


def test_one_serves_a_batch():
    fixed, moving, where = scene((7, 6), 3)
    torch.testing.assert_close(
        moved_volumes(fixed, moving[:1], where, 3), moved_volumes(fixed, moving[:1].expand(2, -1, -1, -1), where, 3)
    )


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_gradients_are_those_of_differences(shape):
    fixed, moving, where = scene(shape, 2, batch=1)
    at = (where.floor() + 0.2 + 0.6 * (where - where.floor())).requires_grad_()  # off the kinks
    assert torch.autograd.gradcheck(lambda at: moved_volumes(fixed, moving, at, 2), (at,))
