"""Values with gradients of their own are differentiated like any other."""

import torch
from torch import Tensor

from pullback.numerics.autograd import value_with_gradient


def cubes(wanted: tuple[bool, bool], a: Tensor, b: Tensor) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """Σ a² b over the last axis, of `(B, N)` and whatever broadcasts to it: one value for each row."""
    a, b = torch.broadcast_tensors(a, b)
    return (a**2 * b).sum(1), (2 * a * b if wanted[0] else None, a**2 if wanted[1] else None)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 5), (1, 5))
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return a, b


def test_each_value_has_the_gradient_of_its_own_part():
    assert torch.autograd.gradcheck(lambda a, b: value_with_gradient(cubes, a, b), inputs())


def test_a_scalar_has_the_gradient_of_all():
    def total(wanted, a, b):
        value, gradients = cubes(wanted, a, b)
        return value.sum(), gradients

    assert torch.autograd.gradcheck(lambda a, b: value_with_gradient(total, a, b), inputs())


def test_what_wants_no_gradient_is_not_computed():
    asked = []

    def noted(wanted, a, b):
        asked.append(wanted)
        return cubes(wanted, a, b)

    a, b = inputs()
    value_with_gradient(noted, a, b.detach()).sum().backward()
    value_with_gradient(noted, a.detach(), b.detach())
    assert asked == [(True, False), (False, False)]
    assert torch.equal(a.grad, (2 * a * b).detach())
