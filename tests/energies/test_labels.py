"""Differences of labels: by counting voxels, and by what gradients must say."""

import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import LabelMSE, class_weights
from pullback.errors import InputError
from pullback.space import Affine, Displacement, Grid, Image, Labels

shapes = pytest.mark.parametrize("shape", [(17, 15), (13, 12, 14)], ids=["2D", "3D"])


def block(shape, at, value=3, edge=4):
    data = torch.zeros(1, 1, *shape, dtype=torch.int32)
    data[(..., *(slice(at, at + edge) for _ in shape))] = value
    return data


def seen(fixed, moving, shift=0.0):
    grid = Grid.centred(tuple(fixed.shape[2:]))
    image = Image(torch.zeros(1, 1, *grid.shape, dtype=torch.float64), grid)
    field = torch.zeros(1, grid.ndim, *grid.shape, dtype=torch.float64)
    field[:, 0] = shift
    return Alignment(Pair(image, image, Labels(fixed, grid), Labels(moving, grid)), Displacement(field, grid))


@shapes
@pytest.mark.parametrize("voxels", [0, 1, 2])
def test_by_whole_voxels_it_counts_those_that_differ(shape, voxels):
    """One of two labels lies too far by some voxels: it is wrong in a slab on either side."""
    resting = block(shape, 8, 7, 3)
    fixed = block(shape, 4) + resting
    moving = block(shape, 4).roll(2, 2) + resting.roll(voxels, 2)
    off = 2 * (2 - voxels) * 4 ** (len(shape) - 1)
    expected = off / (2 * fixed.numel())
    assert float(LabelMSE()(seen(fixed, moving, voxels))) == pytest.approx(expected, abs=1e-12)


@shapes
def test_between_voxels_it_is_a_parabola(shape):
    """An edge that lies s of a voxel off is wrong by s on the one side and on the other."""
    fixed = block(shape, 4)
    for s in (0.25, 0.6):
        expected = 2 * s**2 * 4 ** (len(shape) - 1) / fixed.numel()
        assert float(LabelMSE()(seen(fixed, fixed, s))) == pytest.approx(expected, abs=1e-12)


@shapes
def test_its_slope_leads_to_the_label(shape):
    fixed, moving = block(shape, 4), block(shape, 5)
    shift = torch.full((1, len(shape), *[1] * len(shape)), 0.31, dtype=torch.float64).requires_grad_()

    def value(shift):
        view = seen(fixed, moving)
        field = shift.expand(1, -1, *shape)
        return LabelMSE()(Alignment(view.pair, Displacement(field, view.pair.fixed.grid)))

    assert torch.autograd.gradcheck(value, (shift,), eps=1e-7, rtol=1e-4)
    (slope,) = torch.autograd.grad(value(shift), shift)
    assert (slope < 0).all(), "further on lies the block"


def test_without_labels_it_asks_for_them():
    image = Image(torch.zeros(1, 1, 5, 6), Grid.centred((5, 6)))
    with pytest.raises(InputError, match="labels of both images are needed"):
        LabelMSE()(Alignment(Pair(image, image), Affine.identity(2)))
    nothing = Labels(torch.zeros(1, 1, 5, 6, dtype=torch.int32), image.grid)
    with pytest.raises(InputError, match="no label above background"):
        LabelMSE()(Alignment(Pair(image, image, nothing, nothing), Affine.identity(2)))


@shapes
def test_rare_labels_weigh_by_the_root_of_how_rare_they_are(shape):
    """By hand: a large and a small block, and background, weighed as numpy would."""
    fixed = block(shape, 1, 7, 6) + block(shape, 8, 3, 2)
    view = seen(fixed, fixed, 0.4)
    shares = [(fixed == value).numpy() for value in (0, 3, 7)]
    counts = np.array([share.sum() for share in shares], float)
    for rare, background in ((0.5, True), (1.0, True), (0.5, False)):
        kept = slice(None) if background else slice(1, None)
        weights = counts[kept] ** -rare / (counts[kept] ** -rare).mean()
        errors = []
        for share in shares[kept]:
            there = np.roll(share.astype(float), -1, 2)  # no block lies at the end of the grid
            errors.append((0.4 * (there - share)) ** 2)
        expected = np.mean([weight * error.mean() for weight, error in zip(weights, errors, strict=True)])
        found = float(LabelMSE(rare, background)(view))
        assert found == pytest.approx(expected, rel=1e-6), (rare, background)


def test_weights_of_classes_have_a_mean_of_one_over_those_that_are_met():
    counts = torch.tensor([[900.0, 100.0, 0.0, 25.0], [5.0, 5.0, 5.0, 5.0]])
    weights = class_weights(counts, 0.5)
    mean = (1 / 30 + 1 / 10 + 1 / 5) / 3
    assert weights[0].tolist() == pytest.approx([1 / 30 / mean, 1 / 10 / mean, 0, 1 / 5 / mean], rel=1e-6)
    assert torch.equal(weights[1], torch.ones(4))
    assert torch.equal(class_weights(counts, 0.0)[0], torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert not class_weights(torch.zeros(3), 0.5).any()
