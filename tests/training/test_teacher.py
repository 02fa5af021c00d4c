"""What a teacher answers: as in evaluation, and out of reach of gradients."""

import torch

from pullback.alignment import Pair
from pullback.methods.pair.ddmr import PooledUNet
from pullback.space import Grid, Image
from pullback.training import answer_of, seeded


def test_a_network_answers_as_in_evaluation_and_learns_nothing():
    with seeded(1):
        teacher = PooledUNet(2, widths=(4, 4))
        images = [Image(torch.rand(1, 1, 16, 16), Grid.centred((16, 16))) for _ in range(2)]
    teacher.train()
    found = answer_of(teacher, Pair(*images))
    assert not teacher.training
    assert not found.displacement(images[0].grid).requires_grad
    assert all(weight.grad is None for weight in teacher.parameters())
    assert torch.equal(found.displacement(images[0].grid), teacher(*images).transform.displacement(images[0].grid))
