"""Painted lesions: in one image of a pair alone, where they are said to be, and the same each time."""

from dataclasses import replace

import pytest
import torch

from pullback.alignment import Pair, stacked
from pullback.data import BrainPhantom, LesionedPairs, PaintedLesion, PairFolder, Subject
from pullback.data.lesioned import STROKES, called, painted
from pullback.data.phantoms.lesions import Lesions
from pullback.errors import InputError
from pullback.files import write
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Grid, Image, Labels, pull
from pullback.training.augment import seen_through

SMALL = Lesions((7.0, 9.0), new=0.0, intensity=(0.1, 0.1), rim=0.5)
PUSHING = replace(SMALL, new=0.6, seed=1)


def image(seed, shape=(56, 60)):
    grid = Grid.centred(shape, 1.0)
    where = grid.to_world(grid.voxels(grid.affine)[None])
    inside = where.norm(dim=1, keepdim=True) < 24
    data = 0.6 + 0.05 * smooth_noise((1, 1, *shape), 3.0, make_generator(seed), torch.zeros(()))
    return Image((inside * data).float(), grid)


def pair(seed=0):
    fixed, moving = image(seed), image(seed + 1)
    one, two = (Labels((each.data > 0.6).long(), each.grid) for each in (fixed, moving))
    still, centre = torch.eye(2, dtype=torch.float64), fixed.grid.centre
    shift = Affine.about(still, centre, centre + torch.tensor([1.0, -2.0]))
    return Pair(fixed, moving, one, two, truth=shift, name="pair")


def test_it_is_painted_into_the_fixed_image_where_it_is_said_to_be():
    whole = pair()
    made = painted(whole, SMALL, 3)
    assert made.moving is whole.moving
    changed = (made.fixed.data - whole.fixed.data).abs() > 0.05
    lesion = made.lesion.data > 0
    deep = torch.nn.functional.max_pool2d((~lesion).float(), 3, 1, 1) == 0
    wide = torch.nn.functional.max_pool2d(lesion.float(), 3, 1, 1) > 0
    assert changed[deep].all()
    assert not changed[~wide].any()
    assert torch.equal(made.fixed_labels.data, whole.fixed_labels.data)


def test_the_truth_and_labels_follow_the_push():
    whole = pair()
    made = painted(whole, PUSHING, 3)
    lesion = PUSHING(Subject(whole.fixed), 3)
    points = torch.tensor([[[3.0, 14.0], [-12.0, 5.0]]], dtype=torch.float64)
    torch.testing.assert_close(made.truth(points), whole.truth(lesion.push(points)))
    assert not torch.equal(made.fixed_labels.data, whole.fixed_labels.data)


def test_an_augmentation_paints_one_image_of_each_pair_by_chance():
    both = stacked([pair(0), pair(4)])
    augment = PaintedLesion((SMALL,))
    sides = set()
    for seed in range(6):
        made = augment(both, make_generator(seed))
        again = augment(both, make_generator(seed))
        assert torch.equal(made.fixed.data, again.fixed.data)
        assert made.lesion is None
        for n in range(2):
            sizes = [(a.data[n] - b.data[n]).abs().max() for a, b in zip(made.images, both.images, strict=True)]
            differs = [float(size) > 0.3 for size in sizes]
            assert sum(differs) == 1
            sides.add(tuple(differs))
    assert len(sides) == 2
    still = PaintedLesion((SMALL,), healthy=1.0)(both, make_generator(0))
    assert torch.equal(still.fixed.data, both.fixed.data)


def test_the_truth_follows_a_push_in_the_moving_image():
    """What the fixed image shows at x, the moving one shows where the truth leads x, away from the lesion."""
    whole = replace(pair(), moving=pair().fixed, truth=Affine.identity(2))
    augment, seed = PaintedLesion((PUSHING,)), 0
    made = augment(whole, make_generator(seed))
    while torch.equal(made.moving.data, whole.moving.data):
        seed += 1
        made = augment(whole, make_generator(seed))
    back = pull(made.moving, made.truth, onto=whole.fixed).data
    off = (back - whole.fixed.data).abs()
    assert float((off > 0.1).float().mean()) < 0.25  # the lesion, and the rim of the head
    assert float(off.median()) < 0.01


def test_data_has_each_pair_without_and_with_each_kind(tmp_path):
    for n in range(6):
        write(image(n), tmp_path / f"s{n}.nii.gz")
    folder = PairFolder(validation_split=("s0", "s1"), test_split=("s2", "s3"))
    data = LesionedPairs(folder, (SMALL, PUSHING), spacing=2.0, root=str(tmp_path))
    test = list(data.test)
    assert [each.name for each in test] == [
        f"{way}{kind}" for way in ("s2 ← s3", "s3 ← s2") for kind in ("", f", {called(SMALL)}", f", {called(PUSHING)}")
    ]
    assert [bool(each.lesion.data.any()) for each in test] == [False, True, True] * 2
    assert all(each.fixed.grid.spacing.tolist() == [2.0, 2.0] for each in test)
    assert data.test.names == ("s2", "s3")
    assert data.train.names == ("s4", "s5")
    assert data.train.draw(make_generator(0)).fixed.grid == test[0].fixed.grid
    assert [bool(each.lesion.data.any()) for each in data.validation] == [False, True]
    assert len(replace(data, some=1).test) == 3
    for one, two in zip(test, data.test, strict=True):
        assert torch.equal(one.fixed.data, two.fixed.data)


def test_strokes_are_called_by_their_radius():
    assert [called(kind) for kind in STROKES] == ["22 mm", "16 mm", "10 mm", "6 mm"]


def test_a_lesion_is_seen_through_as_its_image():
    made = painted(pair(), SMALL, 1)
    centre = made.fixed.grid.centre
    shift = Affine.about(torch.eye(2, dtype=torch.float64), centre, centre + torch.tensor([3.0, 0.0]))
    seen = seen_through(made, shift, Affine.identity(2))
    assert torch.equal(seen.lesion.data[:, :, :-3], made.lesion.data[:, :, 3:])


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="one kind of lesions or more"):
        PaintedLesion(())
    with pytest.raises(ValueError, match="labels of the lesion lie on another grid"):
        replace(pair(), lesion=Labels(torch.zeros(1, 1, 4, 4).long(), Grid.centred((4, 4), 1.0)))
    with pytest.raises(InputError, match="a BrainPhantom is made, not read"):
        _ = LesionedPairs(BrainPhantom(), root=str(tmp_path)).train
