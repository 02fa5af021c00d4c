"""Dose: sums and histograms in closed form, and bands that cover as many further samples as they say."""

import math

import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.metrics.dose import (
    accumulated,
    band,
    dvh,
    refuse_no_dose,
    sampled_curves,
    samples_wanted,
    structures_of,
    volume_shares,
)
from pullback.numerics.smooth import stationary_noise
from pullback.space import Affine, Displacement, Grid, Image, Labels, pull_in_slabs

GRID = Grid.centred((20, 24), (2.0, 1.5))


def random_dose(seed, grid=GRID):
    return Image(2 * torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(seed)), grid)


def bent(seed, size=1.0):
    noise = stationary_noise((1, 2, *GRID.shape), 3.0, 6, torch.Generator().manual_seed(seed), torch.zeros(()))
    return Displacement(size * noise, GRID)


def test_through_the_identity_doses_are_added_bit_for_bit():
    doses = [random_dose(n) for n in range(3)]
    found = accumulated(doses, [Affine.identity(2)] * 3, onto=GRID)
    assert torch.equal(found.data, doses[0].data + doses[1].data + doses[2].data)


def test_accumulation_is_linear_in_the_doses():
    one, two, way = random_dose(0), random_dose(1), bent(2)
    both = accumulated([one, two], [way, way], onto=GRID).data
    together = accumulated([Image(one.data + two.data, GRID)], [way], onto=GRID).data
    torch.testing.assert_close(both, together, rtol=0, atol=1e-5)
    assert (both - one.data - two.data).abs().max() > 0.1


def test_a_uniform_dose_stays_uniform_where_nothing_leaves_it():
    wide = Grid.centred((60, 60), 2.0)
    even = Image(torch.full((1, 1, *wide.shape), 1.8), wide)
    found = accumulated([even, even], [bent(0), bent(1)], onto=GRID)
    torch.testing.assert_close(found.data, torch.full_like(found.data, 3.6), rtol=0, atol=1e-5)


def test_histograms_fall_from_the_greatest_to_the_least_over_an_area_that_is_the_mean():
    dose = random_dose(3)
    inside = torch.rand(1, 1, *GRID.shape, generator=torch.Generator().manual_seed(4)) < 0.3
    known = dvh(dose, inside)
    values = dose.data[inside].double()
    count = len(values)
    middles = (torch.arange(count).double() + 0.5) / count
    curve = known.at_volume(middles)
    assert (curve.diff() <= 0).all()
    assert float(known.at_volume(0.0)) == float(values.max())
    assert float(known.at_volume(1.0)) == float(values.min())
    assert float(curve.mean()) == pytest.approx(float(values.mean()), abs=1e-12)
    assert known.mean == pytest.approx(float(values.mean()), abs=1e-12)
    assert known.volume == pytest.approx(3.0 * count)
    levels = torch.linspace(0, 2, 41).double()
    expected = torch.stack([(values >= level).double().mean() for level in levels])
    torch.testing.assert_close(known.above(levels), expected, rtol=0, atol=1e-12)


def test_of_a_box_it_is_a_step():
    """Half the structure gets 2 Gy, half none: D_v steps at v = 1/2, and V_D from 1/2 to 0 above 2 Gy."""
    data = torch.zeros(1, 1, *GRID.shape)
    data[..., :10, :] = 2.0
    known = dvh(Image(data, GRID), torch.ones(1, 1, *GRID.shape, dtype=torch.bool))
    assert known.at_volume(torch.tensor([0.0, 0.25, 0.5, 0.501, 1.0])).tolist() == [2, 2, 2, 0, 0]
    assert known.above(torch.tensor([0.0, 1.0, 2.0, 2.1])).tolist() == [1, 0.5, 0.5, 0]


def test_numpy_has_the_same_quantiles():
    """As its inverted distribution has them, exactly."""
    dose = random_dose(5)
    known = dvh(dose, torch.ones(1, 1, *GRID.shape, dtype=torch.bool))
    shares = volume_shares(97)
    expected = np.quantile(-dose.data.double().numpy(), shares.numpy(), method="inverted_cdf")
    np.testing.assert_allclose(known.at_volume(shares).numpy(), -expected, rtol=0, atol=0)


def test_bands_cover_what_they_say():
    """Further samples of the same transforms lie in the band at as many volumes as `nominal` says.

    The dose is a ramp, so that histograms differ all along; 20 bands of 20 samples, 12 further ones each, ± 0.03.
    """
    samples = 20
    along = torch.linspace(0, 1, GRID.shape[0])[:, None].expand(GRID.shape)
    dose = Image(along[None, None].contiguous(), GRID)
    inside = torch.zeros(1, 1, *GRID.shape, dtype=torch.bool)
    inside[..., 6:14, 6:18] = True
    shares = volume_shares(40)
    maps = (pull_in_slabs(dose, bent(n, 1.5), onto=GRID) for n in range(20 * (samples + 12)))
    curves = sampled_curves(maps, {"box": inside}, shares)["box"].reshape(20, samples + 12, -1)
    held = []
    for known in curves:
        drawn = band(known[:samples], shares)
        held += [drawn.holds(curve) for curve in known[samples:]]
    assert np.mean(held) == pytest.approx(drawn.nominal, abs=0.03)


def test_bands_know_what_they_cover_by_name():
    """Known to the paper's brief: 81 % by 20 samples, 89 % by 200, and 200 is what 0.891 asks for."""
    curves = torch.zeros(20, 5).double()
    assert band(curves, volume_shares(4)).nominal == pytest.approx(0.9 * 19 / 21)
    assert band(curves.repeat(10, 1), volume_shares(4)).nominal == pytest.approx(0.9 * 199 / 201)
    assert samples_wanted(0.9 * 199 / 201) == 200
    with pytest.raises(InputError, match="never"):
        samples_wanted(0.9)


def test_a_margin_widens_the_band_on_both_sides():
    shares = volume_shares(1)
    drawn = band(torch.tensor([[1.0, 1.0], [2.0, 2.0]]).double(), shares, (0, 100))
    curve = torch.tensor([0.95, 2.05]).double()
    assert (drawn.holds(curve), drawn.holds(curve, 0.1)) == (0.0, 1.0)
    assert drawn.holds(torch.tensor([0.95, 3.0]).double(), 0.1) == 0.5


def test_what_is_no_dose_is_refused():
    dose = random_dose(0)
    with pytest.raises(InputError, match="no dose is below 0"):
        refuse_no_dose(Image(dose.data - 1, GRID), "d.nii.gz")
    with pytest.raises(InputError, match="not finite"):
        refuse_no_dose(Image(dose.data / 0, GRID), "d.nii.gz")
    with pytest.raises(InputError, match="a transform for each"):
        accumulated([dose, dose], [Affine.identity(2)], onto=GRID)
    with pytest.raises(InputError, match="none"):
        accumulated([], [], onto=GRID)
    with pytest.raises(InputError, match="empty"):
        dvh(dose, torch.zeros(1, 1, *GRID.shape, dtype=torch.bool))
    with pytest.raises(InputError, match="two samples"):
        band(torch.zeros(1, 3), volume_shares(2))
    with pytest.raises(InputError, match="one dose"):
        sampled_curves([], {"a": torch.ones(1, 1, *GRID.shape, dtype=torch.bool)}, volume_shares(2))


def test_structures_go_by_name_or_number():
    data = torch.zeros(1, 1, *GRID.shape, dtype=torch.int16)
    data[..., 3, 3], data[..., 4, :2] = 5, 2
    known = structures_of(Labels(data, GRID), {5: "cord"})
    assert {name: int(inside.sum()) for name, inside in known.items()} == {"2": 2, "cord": 1}
    with pytest.raises(InputError, match="labels 7"):
        structures_of(Labels(data, GRID), {7: "heart"})
    with pytest.raises(InputError, match="no label"):
        structures_of(Labels(data * 0, GRID))
    assert math.isclose(dvh(Image(torch.ones(1, 1, *GRID.shape), GRID), known["2"]).volume, 6.0)
