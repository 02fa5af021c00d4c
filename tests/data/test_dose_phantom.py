"""A dose whose ends are known: in water, in half of it, and in an anatomy whose motion is known."""

import pytest
import torch

from pullback.data.phantoms.dose import STRUCTURES, ProtonField, TreatedChest, stopping_power, water_depth
from pullback.errors import InputError
from pullback.metrics.dose import accumulated
from pullback.space import Grid, Image, pull

GRID = Grid.centred((200, 40), (0.5, 2.0))


def slab(hu):
    return Image(torch.full((1, 1, *GRID.shape), float(hu)), GRID)


def places(values, level, spacing):
    """Where a sampled curve crosses a level, in mm, by linear interpolation."""
    found = []
    for n, (a, b) in enumerate(zip(values[:-1].tolist(), values[1:].tolist(), strict=True)):
        if (a - level) * (b - level) < 0:
            found.append(spacing * (n + (a - level) / (a - b)))
    return found


def test_stopping_power_is_piecewise_linear():
    power = stopping_power(torch.tensor([-2000.0, -1000.0, -500.0, 0.0, 1500.0, 3000.0]))
    torch.testing.assert_close(power, torch.tensor([0.001, 0.001, 0.5005, 1.0, 1.75, 2.5]))


@pytest.mark.parametrize(("hu", "power"), [(0, 1.0), (-500, 0.5005)])
def test_the_distal_end_lies_at_its_depth_in_water_and_deeper_in_less(hu, power):
    """The half dose lies at 30 mm of water, and 80 to 20 % are 4 mm of water apart, here over the stopping power."""
    field = ProtonField(0, (15.0, 30.0), ((-200.0, 200.0),), dose=1.0, entrance=0.0)
    curve = field(slab(hu)).data[0, 0, :, 20]
    depth = water_depth(slab(hu), 0)[0, 0, :, 20]
    torch.testing.assert_close(depth[0], torch.tensor(0.25 * power))
    start = 0.25  # the middle of the first voxel
    assert start + places(curve, 0.5, 0.5)[-1] == pytest.approx(30 / power, abs=0.02)
    wide = places(curve, 0.2, 0.5)[-1] - places(curve, 0.8, 0.5)[-1]
    assert wide == pytest.approx(4 / power, abs=0.05)


def test_the_side_is_as_soft_as_it_says():
    field = ProtonField(0, (5.0, 90.0), ((-20.0, 14.0),), dose=1.0, entrance=1.0)
    across = Grid.centred((40, 400), (2.0, 0.25))
    curve = field(Image(torch.zeros(1, 1, *across.shape), across)).data[0, 0, 20]
    first, last = places(curve, 0.5, 0.25)
    edge = float(across.affine[1, 2])
    assert (edge + first, edge + last) == (pytest.approx(-20, abs=0.01), pytest.approx(14, abs=0.01))
    assert places(curve, 0.2, 0.25)[-1] - places(curve, 0.8, 0.25)[-1] == pytest.approx(6, abs=0.02)


def test_from_behind_it_is_the_mirror_image():
    ct = slab(0)
    ct.data[:, :, 120:140] = 700
    field = ProtonField(0, (15.0, 30.0), ((-20.0, 20.0),))
    other = ProtonField(0, (15.0, 30.0), ((-20.0, 20.0),), backwards=True)
    torch.testing.assert_close(other(Image(ct.data.flip(2), GRID)).data, field(ct).data.flip(2))


@pytest.mark.parametrize("shape", [(64, 56), (40, 36, 32)], ids=["2D", "3D"])
def test_days_show_the_plan_where_the_truth_leads(shape):
    """Without noise the plan's CT is the day's through the truth, but for two interpolations; and the target is hit."""
    chest = TreatedChest(shape, spacing=4.0, motion=8.0, noise=0.0, texture=0.0)
    plan, day = chest.reference(), chest.day(1)
    assert {int(value) for value in plan.labels.data.unique()} == {0, *STRUCTURES}
    seen = pull(day.ct, day.truth, onto=plan.image, outside=-1000.0)
    off, before = (float((image.data - plan.image.data).abs().mean()) for image in (seen, day.ct))
    assert off < 0.5 * before
    there = chest.field()(plan.image).data[plan.labels.data == 1]
    assert there.min() > 0.9 * 2.0
    found = accumulated([day.dose], [day.truth], onto=plan.image).data
    assert (found - chest.field()(plan.image).data).abs().max() > 0.1
    assert torch.equal(chest.day(1).ct.data, day.ct.data)
    assert not torch.equal(chest.day(2).ct.data, day.ct.data)


def test_boxes_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="ends after"):
        ProtonField(0, (30.0, 15.0), ((-20.0, 20.0),))
    with pytest.raises(InputError, match="empty"):
        ProtonField.covering(slab(0), torch.zeros(1, 1, *GRID.shape, dtype=torch.bool), 5.0, axis=0)
