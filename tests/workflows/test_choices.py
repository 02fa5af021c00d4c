"""Registers by the names of the command line: where a registration stops."""

import pytest
import torch

from pullback.errors import InputError
from pullback.space import Affine, Grid, Image
from pullback.workflows.choices import classical

ANGLE, SCALE, SHIFT = 0.15, 1.12, (4.0, -3.0)


@pytest.fixture(scope="module")
def images(waves) -> tuple[Image, Image, Affine]:
    """A body with texture, and what is seen of it turned, grown and shifted."""
    turn = torch.tensor(ANGLE)
    linear = SCALE * torch.tensor([[turn.cos(), -turn.sin()], [turn.sin(), turn.cos()]], dtype=torch.float64)
    truth = Affine(torch.cat([torch.cat([linear, torch.tensor(SHIFT).double()[:, None]], 1), torch.eye(3)[2:]]))
    value, grid = waves(2, 1, 12.0, count=8), Grid.centred((52, 48), 1.0)

    def seen(at: torch.Tensor) -> torch.Tensor:
        body = torch.sigmoid(1.5 * (15 - (at / torch.tensor([1.0, 0.7]).view(1, 2, 1, 1)).norm(dim=1, keepdim=True)))
        return (body * (value(at) + 1.5)).float()

    here = grid.to_world(grid.voxels(grid.affine)[None])
    return Image(seen(truth.at(here)), grid), Image(seen(here), grid), truth


@pytest.mark.slow
def test_a_translation_turns_and_scales_nothing(images):
    shift = torch.eye(3, dtype=torch.float64)
    shift[:2, 2] = torch.tensor(SHIFT)
    elsewhere = Image(images[1].data, Grid(images[1].grid.shape, shift @ images[1].grid.affine))
    answer = classical("fast", "translation", start="header")(images[1], elsewhere)
    matrix = answer.transform.as_affine.matrix
    torch.testing.assert_close(matrix[:2, :2], torch.eye(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix, shift, rtol=0, atol=0.1)
    assert [stage.name for stage in answer.stats.stages] == ["initialise", "translation"]


@pytest.mark.slow
def test_a_similarity_finds_the_size(images):
    answer = classical("fast", "similarity")(*images[:2])
    matrix = answer.transform.as_affine.matrix
    torch.testing.assert_close(matrix, images[2].matrix, rtol=0, atol=0.02 * 15)
    gram = matrix[:2, :2].T @ matrix[:2, :2]
    assert float(gram[0, 0]) ** 0.5 == pytest.approx(SCALE, abs=0.02)
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(2).double(), rtol=0, atol=1e-9)
    assert [stage.name for stage in answer.stats.stages] == ["initialise", "rigid", "similarity"]


@pytest.mark.parametrize("start", ["moments", "global"])
def test_a_start_that_turns_is_refused_for_a_translation(start):
    with pytest.raises(InputError, match="turns, and a translation does not"):
        classical("fast", "translation", start=start)
