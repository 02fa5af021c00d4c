"""Made lesions: the push is known, and keeps volumes outside of them."""

import math
from dataclasses import replace

import pytest
import torch

from pullback.data import Subject
from pullback.data.phantoms.lesions import Lesions
from pullback.errors import InputError
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image, Labels, pull

SHAPES = {2: (90, 96), 3: (44, 40, 42)}


def head(ndim, oblique=None):
    """A subject of smooth noise within a ball, with the halves of it as labels."""
    shape = SHAPES[ndim]
    grid = oblique(shape, seed=2) if oblique else Grid.centred(shape, 1.0)
    where = grid.to_world(grid.voxels(grid.affine)[None])
    away = where.norm(dim=1, keepdim=True)
    inside = away < 0.42 * min(n * s for n, s in zip(shape, grid.spacing.tolist(), strict=True))
    noise = gaussian(torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1)), 2.0)
    data = inside * (0.5 + 0.4 * noise / noise.abs().max())
    labels = Labels(inside * (1 + (where[:, :1] > 0).long()), grid)
    return Subject(Image(data.float(), grid), labels, Affine.identity(ndim), name="head")


@pytest.mark.parametrize("rough", [0.0, 0.3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_tissue_outside_keeps_its_volume_and_within_shrinks_alike(ndim, rough, oblique):
    """det = 1 outside and 1 − π within, but at the rim, where the push has a kink, and near the centre's one voxel."""
    subject = head(ndim, oblique)
    maker = Lesions((9.0, 9.0), new=0.6, rough=rough)
    made = maker(subject, 3)
    det = determinant(jacobian(made.push.displacement(subject.image.grid)).double())
    lesion = made.lesion.data > 0
    pool = torch.nn.functional.max_pool2d if ndim == 2 else torch.nn.functional.max_pool3d
    wide, narrow = pool(lesion.float(), 7, 1, 3) > 0, pool((~lesion).float(), 5, 1, 2) == 0
    assert float((det[~wide] - 1).abs().max()) < 0.03
    assert float((det[narrow] - 0.4).abs().median()) < 0.03


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_volume_is_that_of_a_disc_or_ball(ndim):
    lesion = Lesions((8.0, 8.0))(head(ndim), 0).lesion.data
    whole = math.pi * 64 if ndim == 2 else 4 / 3 * math.pi * 512
    assert float(lesion.sum()) == pytest.approx(whole, rel=0.03)


def test_what_is_seen_outside_is_what_was_there_through_the_push():
    subject = head(2)
    made = Lesions((8.0, 12.0), seed=4)(subject, 1)
    before = pull(subject.image, made.push, onto=subject.image.grid).data
    far = torch.nn.functional.max_pool2d(made.lesion.data.float(), 11, 1, 5) == 0
    torch.testing.assert_close(made.subject.image.data[far], before[far], rtol=0, atol=1e-5)
    labels = pull(subject.labels, made.push, onto=subject.image.grid).data
    assert torch.equal(made.subject.labels.data, labels * (made.lesion.data == 0))
    points = torch.tensor([[[20.0, 5.0], [-10.0, 14.0]]], dtype=torch.float64)
    torch.testing.assert_close(made.subject.to_template(points), made.push(points))
    assert torch.equal(made.masked.mask, made.lesion.data == 0)
    assert made.subject.image.mask is None


def test_the_lesion_is_as_bright_as_it_says_and_lies_in_tissue():
    subject = head(2)
    for number in range(5):
        made = Lesions(intensity=(0.2, 0.2), seed=7)(subject, number)
        deep = torch.nn.functional.max_pool2d((made.lesion.data == 0).float(), 5, 1, 2) == 0
        low, high = float(subject.image.data.min()), float(subject.image.data.max())
        assert float((made.subject.image.data[deep] - low - 0.2 * (high - low)).abs().max()) < 0.01
        assert bool((subject.labels.data[made.lesion.data > 0] > 0).all())


def test_without_new_tissue_nothing_moves():
    made = Lesions(new=0.0)(head(2), 0)
    assert float(made.push.field.abs().max()) < 1e-5


def test_each_number_is_another_and_always_the_same():
    one, again, other = (Lesions()(head(2), n).subject.image.data for n in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "wrong", [{"radii": (0.0, 3.0)}, {"radii": (5.0, 3.0)}, {"new": 1.0}, {"rough": 1.0}, {"rim": 0.0}]
)
def test_numbers_of_no_lesion_are_refused(wrong):
    with pytest.raises(InputError, match="Lesions: radii above 0"):
        Lesions(**wrong)


def test_what_cannot_have_a_lesion_is_refused():
    subject = head(2)
    empty = replace(subject, labels=replace(subject.labels, data=0 * subject.labels.data))
    with pytest.raises(InputError, match="no tissue"):
        Lesions()(empty, 0)
    batch = replace(subject, image=subject.image.stack([subject.image]))
    with pytest.raises(InputError, match="a batch of 2"):
        Lesions()(batch, 0)
