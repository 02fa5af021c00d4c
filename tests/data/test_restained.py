"""Sections that are bent and stained anew: the truth is what it says, and stains add up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.alignment import Pair
from pullback.data import RestainedSections, Restaining
from pullback.data.restained import StainsCase, mixed, mixing
from pullback.energies import ncc
from pullback.errors import InputError
from pullback.files.images.colour import STAINS
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.space import Grid, Image, pull

GRID = Grid((50, 44), torch.diag(torch.tensor([-3.0, 3.0, 1.0], dtype=torch.float64)))


def section(seed: int = 0) -> Image:
    noise = torch.rand(1, 3, *GRID.shape, generator=torch.Generator().manual_seed(seed))
    return Image(0.1 + 4 * (gaussian(noise, 2.0) - 0.45).clamp(min=0), GRID)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n, name in enumerate("abc"):
        colours = mixed_colours(section(n))
        Picture.fromarray((255 * colours).round().astype(np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def mixed_colours(amounts: Image) -> np.ndarray:
    """Colours `(y, x, 3)` of the stains, by Beer and Lambert."""
    return 10 ** -np.einsum("sxy,sc->yxc", amounts.data[0].numpy(), np.array([*STAINS.values()]))


@pytest.mark.parametrize("shift", [5.0, 15.0])
def test_the_truth_leads_from_the_fixed_image_to_the_moving_one(shift):
    """Without noise and with the stains that it has, the moved image is the fixed one where both show the section."""
    making = Restaining(noise=0.0)
    pair = making.shifted(Pair(section(), section()), make_generator(3), shift)
    mm = GRID.to_mm(pair.truth.displacement(GRID))
    assert float(mm.norm(dim=1).mean()) == pytest.approx(shift, rel=1e-5)
    moved = pull(pair.moving, pair.truth, onto=GRID)
    away = float(ncc(pair.fixed.data, pair.moving.data, pair.fixed.mask))
    there = float(ncc(pair.fixed.data, moved.data, pair.fixed.mask))
    assert there > max(0.85, away + 0.05)
    assert 0 < float(pair.fixed.mask.float().mean()) < 1


def test_fields_are_as_smooth_as_they_say():
    """A Gaussian of sigma s makes noise of variance 1 with slopes of 1 / (√2 s) along each axis."""
    making, slopes = Restaining(smoothness=24.0), []
    for seed in range(20):
        field = making.field(section(), 10.0, make_generator(seed)).field
        slopes.append(float(field.diff(dim=2).std() / field.std()))
    assert np.mean(slopes) == pytest.approx(3.0 / (2**0.5 * 24), rel=0.15)


def test_stains_that_are_given_to_themselves_are_the_section():
    """In grey, by the luminance of its colours."""
    colours = mixed_colours(section())
    grey = 1 - colours @ np.array([0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(mixed(section(), torch.eye(3)).data[0, 0].numpy().T, grey, atol=1e-6)


def test_haematoxylin_stays_and_the_others_are_given_away():
    for seed in range(10):
        given = mixing(make_generator(seed))
        assert 0.5 <= float(given[0, 0]) <= 1.5
        assert not given[0, 1:].any()
        assert not given[1:, 0].any()
        assert bool((given[1:, 1:] >= 0).all())


def test_a_picture_is_unmixed_into_what_it_was_mixed_of(folder):
    found = StainsCase("a", str(folder / "a.png")).load().image
    wanted = section().data.flip(2, 3)  # stored along R and A
    assert float((found.data - wanted).abs().max()) < 0.05  # of 8 bits


def test_splits_by_name_and_pairs_that_stay(folder):
    data = RestainedSections(str(folder), "*.png", Restaining((2.0, 6.0)), 3.0, 2, ("c",))
    assert data.train.names == ("a", "b")
    assert [pair.name for pair in data.test] == ["c 1, 2 mm", "c 2, 6 mm", "c 3, 2 mm", "c 4, 6 mm"]
    assert data.validation.names == ("a", "b")
    assert len(data.validation) == 4
    one, other = ([*data.test][1] for _ in range(2))
    assert torch.equal(one.moving.data, other.moving.data)
    lengths = [float(pair.fixed.grid.to_mm(pair.truth.field).norm(dim=1).mean()) for pair in data.test]
    assert lengths == pytest.approx([2, 6, 2, 6], rel=1e-4)
    held = RestainedSections(str(folder), "*.png", test_split=("c",), validation_split=("b",))
    assert [split.names for split in (held.train, held.validation, held.test)] == [("a",), ("b",), ("c",)]


def test_training_pairs_are_drawn_up_to_the_greatest_shift():
    making, lengths = Restaining((4.0, 12.0)), []
    for seed in range(30):
        pair = making(Pair(section(), section()), make_generator(seed))
        lengths.append(float(GRID.to_mm(pair.truth.field).norm(dim=1).mean()))
    assert max(lengths) < 12
    assert min(lengths) < 2
    assert np.mean(lengths) == pytest.approx(6, abs=1.5)


def test_what_is_missing_is_said(folder):
    with pytest.raises(InputError, match=r"no folder given: not a folder.*--data DIR"):
        _ = RestainedSections().train
    with pytest.raises(InputError, match=r"no picture matches '\*\*/\*.jpg'"):
        _ = RestainedSections(str(folder)).train
    with pytest.raises(InputError, match="no section 'd' for the splits; found a, b, c"):
        _ = RestainedSections(str(folder), "*.png", test_split=("d",)).test
    with pytest.raises(InputError, match="no section is left to learn from"):
        _ = RestainedSections(str(folder), "*.png", test_split=("a", "b", "c")).train
    with pytest.raises(InputError, match="shifts and noise of 0 or more"):
        Restaining(shifts=())
