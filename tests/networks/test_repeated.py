"""Repeated: passes compose, and what is seen was resampled once."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.networks import Repeated
from pullback.space import Affine, Displacement, Grid, Image, pull


class Told(nn.Module):
    """A register that answers with known transforms in turn, and remembers what it saw."""

    def __init__(self, *transforms):
        super().__init__()
        self.transforms, self.seen = transforms, []

    def forward(self, fixed, moving):
        found = self.transforms[len(self.seen)]
        self.seen.append(moving)
        answer = Alignment(Pair(fixed, moving), found, {"number": replace(fixed, data=fixed.data * 0 + len(self.seen))})
        return replace(answer, transforms={"half": found})


def image(shape=(24, 20)) -> Image:
    return Image(torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)), Grid.centred(shape))


def shift(*by: float) -> Affine:
    matrix = torch.eye(len(by) + 1, dtype=torch.float64)
    matrix[:-1, -1] = torch.tensor(by)
    return Affine(matrix)


def smooth(size: float, seed: int, grid: Grid) -> Displacement:
    values = torch.randn(1, grid.ndim, *[4] * grid.ndim, generator=torch.Generator().manual_seed(seed))
    mode = "bilinear" if grid.ndim == 2 else "trilinear"
    return Displacement(size * nn.functional.interpolate(values, grid.shape, mode=mode), grid)


def test_each_pass_sees_what_was_moved_so_far_resampled_once():
    fixed, moving = image(), image()
    told = [smooth(1.5, seed, fixed.grid) for seed in range(3)]
    network = Told(*told)
    answer = Repeated(network, 3)(fixed, moving)
    assert network.seen[0] is moving
    assert torch.equal(network.seen[1].data, pull(moving, told[0], onto=fixed).data)
    assert torch.equal(network.seen[2].data, pull(moving, told[0] @ told[1], onto=fixed).data)
    twice = pull(network.seen[1], told[1], onto=fixed).data
    assert (network.seen[2].data - twice).abs().max() > 0.01  # which would be blurred
    whole = told[0] @ (told[1] @ told[2])
    points = 20 * torch.rand(1, 50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 10
    torch.testing.assert_close(answer.transform(points), whole(points), rtol=0, atol=1e-9)
    assert answer.pair.moving is moving
    assert answer.maps["number"].data.unique().tolist() == [3]
    torch.testing.assert_close(answer.transforms["half"](points), whole(points), rtol=0, atol=1e-9)


def test_shifts_add_up_and_one_pass_is_the_network_alone():
    fixed = image()
    still = torch.zeros(1, 1, 2, dtype=torch.float64)
    for passes in (1, 2, 4):
        network = Told(*[shift(1.0, -0.5)] * passes)
        found = Repeated(network, passes)(fixed, fixed).transform(still)
        torch.testing.assert_close(found, still + torch.tensor([passes, -0.5 * passes]))


def test_gradients_reach_the_network_through_every_pass():
    fixed = image()
    first, last = (smooth(1.0, seed, fixed.grid).field.requires_grad_() for seed in range(2))
    answer = Repeated(Told(Displacement(first, fixed.grid), Displacement(last, fixed.grid)))(fixed, fixed)
    answer.moved.data.square().sum().backward()
    assert first.grad.abs().max() > 0
    assert last.grad.abs().max() > 0


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_recipe_may_hold_what_makes_the_network(ndim):
    torch.manual_seed(0)
    made = Repeated(lambda: VoxelMorph(ndim, (4, 4), (4, 4, 4, 4)), passes=2)
    fixed, moving = image((12, 10, 8)[:ndim]), image((14, 10, 8)[:ndim])
    field = made(fixed, moving).displacement
    assert field.shape == (1, ndim, *fixed.grid.shape)
    field.sum().backward()
    assert all(p.grad is not None for p in made.parameters())


def test_no_pass_is_refused():
    with pytest.raises(InputError, match="one pass or more"):
        Repeated(Told(), 0)
