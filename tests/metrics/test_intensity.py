"""Mean squares, and shared information against histograms of numpy."""

import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.metrics import SharedInformation, SquaredError
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image

GRID = Grid.centred((60, 50))


def image(seed: int, smooth: float = 2.0) -> Image:
    noise = torch.rand(1, 1, *GRID.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Image(gaussian(noise, smooth), GRID)


def alignment(one: Image, two: Image) -> Alignment:
    return Alignment(Pair(one, two), Affine.identity(2))


@pytest.mark.parametrize("bins", [8, 256])
def test_shared_information_is_that_of_plain_histograms(bins):
    """2 (H₁ + H₂ − H₁₂) / (H₁ + H₂), over the voxels above the fixed image's least."""
    one, two = image(0), image(1)
    two = Image(0.7 * one.data + 0.3 * two.data, GRID)
    a, b = (each.data.flatten().numpy() for each in (one, two))
    a, b = a[a > a.min()], b[one.data.flatten().numpy() > one.data.min().item()]
    counts = np.histogram2d(a, b, bins)[0] / len(a)

    def entropy(shares):
        return -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))

    own = entropy(counts.sum(0)) + entropy(counts.sum(1))
    wanted = 2 * (own - entropy(counts.ravel())) / own
    assert SharedInformation(bins)(alignment(one, two))["shared information"] == pytest.approx(wanted, abs=1e-6)
    assert 0.05 < wanted < 0.9


def test_it_is_one_of_an_image_and_itself_whatever_its_contrast_and_nothing_without_contrast():
    one = image(0)
    for other in (one, Image(3 - 2 * one.data, GRID)):
        assert SharedInformation(64)(alignment(one, other))["shared information"] == pytest.approx(1, abs=0.02)
    flat = Image(torch.ones_like(one.data), GRID)
    assert SharedInformation()(alignment(one, flat))["shared information"] == pytest.approx(0, abs=1e-9)
    assert SharedInformation()(alignment(flat, flat))["shared information"] == 0


def test_mean_squares_are_over_the_mask():
    one, two = image(0), image(1)
    mask = torch.zeros(1, 1, *GRID.shape, dtype=torch.bool)
    mask[..., :20, 10:] = True
    found = SquaredError()(alignment(Image(one.data, GRID, mask), two))["mse"]
    assert found == pytest.approx(float((one.data - two.data)[mask].square().mean()))


def test_bins_are_refused_that_tell_nothing():
    with pytest.raises(InputError, match="2 bins at least"):
        SharedInformation(1)
