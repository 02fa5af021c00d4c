"""The EM phantom: its truth leads sections onto each other, and its masks lie where it is dark."""

from dataclasses import replace

import pytest
import torch

from pullback.data.phantoms.em_stack import EMStack
from pullback.errors import InputError
from pullback.group import GroupAlignment
from pullback.space import pull

SMALL = EMStack(sections=4, shape=(180, 140), pad=44, mitochondria=12.0)


def dice(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_true_maps_bring_masks_to_what_neighbours_have_in_common():
    group = SMALL.group
    moved = [pull(mask, truth, SMALL.inner).data != 0 for mask, truth in zip(group.labels, SMALL.truths, strict=True)]
    still = [SMALL.upright_mask(z).data != 0 for z in range(4)]
    for a, b in zip(moved, still, strict=True):
        assert dice(a, b) > 0.95  # turned once and back, from the nearest pixel
    ceiling = [dice(still[z], still[z + 1]) for z in range(3)]
    assert [dice(moved[z], moved[z + 1]) for z in range(3)] == pytest.approx(ceiling, abs=0.04)
    assert 0.75 < min(ceiling) < max(ceiling) < 1
    aligned = GroupAlignment(group, SMALL.truths).moved(SMALL.inner)
    upright = replace(SMALL, turned=False)
    apart = [(a.data - upright.section(z).data[..., 44:-44, 44:-44]).abs() for z, a in enumerate(aligned)]
    assert max(float(each[..., 8:-8, 8:-8].mean()) for each in apart) < 12  # grain, smoothed twice


def test_mitochondria_are_dark():
    upright = replace(SMALL, turned=False)
    image, mask = upright.section(1), upright.mask(1).data != 0
    inner = torch.zeros_like(mask)
    inner[..., 44:-44, 44:-44] = True
    assert float(image.data[mask].mean()) < float(image.data[inner & ~mask].mean()) - 30


def test_the_same_each_time_and_another_by_seed():
    assert torch.equal(SMALL.section(2).data, replace(SMALL).section(2).data)
    assert not torch.equal(SMALL.section(2).data, replace(SMALL, seed=1).section(2).data)
    alike = replace(SMALL, pixel=5e-6)
    assert torch.allclose(alike.section(2).data, SMALL.section(2).data, atol=1.0)
    assert float(alike.grid.spacing[0]) == pytest.approx(5e-6)


def test_refusal():
    with pytest.raises(InputError, match="two sections and 32 px"):
        EMStack(sections=1)
