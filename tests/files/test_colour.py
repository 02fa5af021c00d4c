"""Grey, density and stains, by their definitions and as scikit-image has them."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from pullback.errors import InputError
from pullback.files.images.colour import LUMINANCE, STAINS, density, grey, stain
from pullback.space import Affine, Grid, Image, pull


def picture(values):
    return Image(torch.tensor(values, dtype=torch.float64).view(1, 3, 2, 2), Grid.centred((2, 2)))


def test_grey_is_what_luminance_lacks_of_white():
    image = picture(np.random.default_rng(0).random(12))
    seen = sum(share * channel for share, channel in zip(LUMINANCE, image.data[0], strict=True))
    torch.testing.assert_close(grey(image).data[0, 0], 1 - seen)
    assert sum(LUMINANCE) == pytest.approx(1)  # so glass is 0 and black 1


def test_colours_commute_with_motion():
    """Grey of what was moved with white around is the moved grey with 0 around: both are linear."""
    image = Image(torch.rand(1, 3, 12, 15, generator=torch.Generator().manual_seed(0)), Grid.centred((12, 15)))
    motion = Affine.about(torch.tensor([[0.9, 0.3], [-0.2, 1.1]]), torch.zeros(2), torch.tensor([2.2, -1.7]))
    one = grey(pull(image, motion, image.grid, outside=1))
    two = pull(grey(image), motion, image.grid, outside=0)
    torch.testing.assert_close(one.data, two.data, atol=1e-6, rtol=0)
    beyond = pull(image, Affine.about(torch.eye(2), torch.zeros(2), torch.tensor([100.0, 0])), image.grid, outside=1)
    assert (beyond.data == 1).all()


@given(st.lists(st.floats(0, 0.4), min_size=3, max_size=3))
def test_stains_that_are_mixed_come_apart(amounts):
    """Beer and Lambert: densities add up."""
    mixed = sum(amount * np.array(STAINS[name]) for amount, name in zip(amounts, STAINS, strict=True))
    image = Image(torch.tensor(10**-mixed).view(1, 3, 1, 1).expand(1, 3, 2, 2), Grid.centred((2, 2)))
    torch.testing.assert_close(density(image).data[0, :, 0, 0], torch.tensor(mixed))
    for amount, name in zip(amounts, STAINS, strict=True):
        assert stain(image, name).data.flatten().tolist() == pytest.approx([amount] * 4, abs=1e-9)


def test_stains_are_those_of_scikit_image():
    theirs = pytest.importorskip("skimage.color").rgb2hed
    values = np.random.default_rng(0).uniform(0.05, 1, (7, 9, 3))
    image = Image(torch.from_numpy(values.transpose(2, 1, 0)[None].copy()), Grid.centred((9, 7)))
    expected = theirs(values) * 6  # they measure densities by the logarithm to the base of a millionth
    for n, name in enumerate(STAINS):
        np.testing.assert_allclose(stain(image, name).data[0, 0].T, expected[..., n], atol=1e-9)


def test_what_is_no_colour_or_no_stain_is_refused():
    image = picture(np.full(12, 0.5))
    with pytest.raises(InputError, match=r"trichrome.*haematoxylin"):
        stain(image, "trichrome")
    with pytest.raises(InputError, match="got 1 channels"):
        grey(Image(image.data[:, :1], image.grid))
    assert density(Image(image.data * 0, image.grid)).data.isfinite().all()
