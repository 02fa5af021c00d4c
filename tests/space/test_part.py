"""Parts of images that reach beyond their ends."""

import pytest
import torch

from pullback.space import Affine, Grid, Image, cropped, part_of, pull

GRID = Grid((9, 7), torch.tensor([[0.0, -2.0, 4.0], [1.5, 0.0, -1.0], [0.0, 0.0, 1.0]], dtype=torch.float64))
IMAGE = Image(torch.arange(1.0, 64.0).view(1, 1, 9, 7), GRID, torch.ones(1, 1, 9, 7, dtype=torch.bool))


def test_within_the_image_it_is_the_crop():
    box = (slice(2, 6), slice(1, 7))
    one, other = part_of(IMAGE, box), cropped(IMAGE, box)
    assert torch.equal(one.data, other.data)
    assert one.grid == other.grid


@pytest.mark.parametrize(
    "box", [(slice(-3, 4), slice(5, 12)), (slice(-2, 11), slice(-4, 9)), (slice(7, 13), slice(2, 3))]
)
def test_beyond_the_ends_it_is_what_a_pull_by_the_headers_gives(box):
    part = part_of(IMAGE, box)
    assert part.grid.shape == tuple(along.stop - along.start for along in box)
    first = torch.tensor([float(along.start) for along in box], dtype=torch.float64)
    torch.testing.assert_close(part.grid.affine[:2, 2], GRID.to_world(first[None, :, None])[0, :, 0])
    assert torch.equal(part.data, pull(IMAGE, Affine.identity(2), onto=part.grid).data)
    assert torch.equal(part.mask, part.data > 0)
    assert torch.equal(part_of(part, tuple(slice(0, n) for n in part.grid.shape)).data, part.data)
