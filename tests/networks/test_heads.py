"""Heads: bounded fields, poses about the middle of the grid, embeddings of length 1."""

import pytest
import torch

from pullback.networks import EmbeddingHead, FieldHead, PoseHead
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_euler, of_six, of_vector
from pullback.space import Displacement, Grid, Image
from pullback.training import seeded


def image(ndim: int, batch: int = 2) -> Image:
    grid = Grid.centred((9, 12, 7)[:ndim], 2.0)
    return Image(torch.rand(batch, 1, *grid.shape, generator=make_generator(0)), grid)


def features(ndim: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, *(9, 12, 7)[:ndim], generator=make_generator(1))


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_bounded_field_stays_within_its_share_of_the_grid(ndim):
    seen = image(ndim)
    with seeded(0):
        head = FieldHead(ndim, 4, Displacement, bound=0.5)
    assert float(head(features(ndim), seen, seen).transform.field.detach().abs().max()) < 0.05, "untrained"
    with torch.no_grad():
        head.convolution.weight.mul_(1e10)
    far = head(features(ndim), seen, seen).transform.field.abs().amax((0, *range(2, 2 + ndim)))
    expected = 0.5 * (torch.tensor(seen.grid.shape) - 1) / 2
    torch.testing.assert_close(far, expected, rtol=1e-3, atol=0)
    with torch.no_grad():
        head.convolution.weight.zero_()
        head.convolution.bias.fill_(1e-4)
    torch.testing.assert_close(
        head(features(ndim), seen, seen).transform.field[0].amax((*range(1, 1 + ndim),)),
        1e-4 * expected,
        rtol=1e-3,
        atol=0,
    )


@pytest.mark.parametrize("form", [of_vector, of_euler, of_six], ids=lambda form: form.__name__)
def test_a_pose_turns_about_the_middle(form):
    seen = image(3)
    with seeded(0):
        head = PoseHead(3, 4, form, 6 if form is of_six else 3)
    answer = head(features(3), seen, seen)
    assert answer.transform.as_affine is not None
    assert float(answer.transform.displacement(seen.grid).detach().abs().max()) < 0.01, "untrained"
    with torch.no_grad():
        head.last.bias.fill_(0.7)
    centre = seen.grid.centre[None, None].expand(2, 1, 3)
    moved = head(features(3), seen, seen).transform(centre)
    torch.testing.assert_close(moved - centre, torch.full_like(centre, 7.0), atol=0.01, rtol=0)


def test_a_pose_of_the_plane_is_of_ten_degrees_a_unit():
    seen = image(2, 1)
    head = PoseHead(2, 4)
    with torch.no_grad():
        head.last.weight.zero_()
        head.last.bias.copy_(torch.tensor([9.0, 0, 0]))
    turned = head(features(2, 1), seen, seen).transform.matrix[0, :2, :2]
    torch.testing.assert_close(turned, torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_embeddings_have_length_one_and_know_where_things_are(ndim):
    with seeded(0):
        head = EmbeddingHead(ndim, 4, 16).eval()
    seen = features(ndim)
    found = head(seen)
    assert found.shape == (2, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert not torch.allclose(found, head(seen.flip(2)), atol=1e-3)
    assert head(torch.nn.functional.interpolate(seen, scale_factor=2.0)).shape == (2, 16)
