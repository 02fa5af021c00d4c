"""What lies on grids: validation, and cutting about the middle."""

import pytest
import torch

from pullback.space import Grid, Image, Labels, Points, centred

GRID = Grid.centred((4, 5, 6))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image(torch.zeros(4, 5, 6), GRID), "data must be"),
        (lambda: Image(torch.zeros(1, 1, 4, 5, 7), GRID), "data must be"),
        (lambda: Image(torch.zeros(1, 1, 4, 5, 6), GRID, torch.ones(1, 1, 4, 5, 5, dtype=torch.bool)), "mask"),
        (lambda: Labels(torch.zeros(1, 1, 4, 5, 6), GRID), "integers expected"),
        (lambda: Labels(torch.zeros(1, 1, 4, 5, dtype=torch.int64), GRID), "data must be"),
        (lambda: Points(torch.zeros(5, 3)), "expected"),
        (lambda: Points(torch.zeros(1, 5, 4)), "expected"),
    ],
)
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_centred_keeps_the_middle_and_lays_it_at_the_origin(oblique):
    grid = oblique((5, 8, 6), seed=1)
    data = torch.arange(5 * 8 * 6.0).view(1, 1, 5, 8, 6) + 1
    mask = data.int() % 2 == 0
    out = centred(Image(data, grid, mask), (7, 4, 6))
    assert out.data.shape == (1, 1, 7, 4, 6)
    assert torch.equal(out.data[:, :, 1:6], data[:, :, :, 2:6])
    assert torch.equal(out.mask[:, :, 1:6], mask[:, :, :, 2:6])
    assert not out.data[:, :, [0, 6]].any()
    assert not out.mask[:, :, [0, 6]].any()
    torch.testing.assert_close(out.grid.centre, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.grid.spacing, grid.spacing)


def test_centred_labels_stay_labels():
    labels = Labels(torch.ones(1, 1, 4, 5, 6, dtype=torch.uint8), GRID)
    out = centred(labels, (2, 7, 6))
    assert isinstance(out, Labels)
    assert out.data.dtype == torch.uint8
    assert int(out.data.sum()) == 2 * 5 * 6


def test_centred_wants_one_number_per_axis():
    with pytest.raises(ValueError, match="3 axes expected"):
        centred(Labels(torch.ones(1, 1, 4, 5, 6, dtype=torch.uint8), GRID), (2, 7))
