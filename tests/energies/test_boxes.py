"""Boxes as an energy: by scipy's boxes, by laws of symmetry, and by what gradients must say."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage

from pullback.alignment import Alignment, Pair, stacked
from pullback.energies import BoxMSE, LabelMSE
from pullback.errors import InputError
from pullback.numerics.boxes import extents, indicators, with_error
from pullback.numerics.random import make_generator
from pullback.space import Affine, Boxes, Displacement, Grid, Image, Labels

SHAPES = {2: (17, 15), 3: (13, 12, 14)}
dimensions = pytest.mark.parametrize("ndim", [2, 3])


def random_labels(ndim, seed, many=6):
    """Some voxels of a few labels, of which some may be absent."""
    draw = make_generator(seed)
    data = torch.randint(1, many + 1, (1, 1, *SHAPES[ndim]), generator=draw)
    return data * (torch.rand(data.shape, generator=draw) < 0.01 * (1 + seed % 3))


def block(shape, low, high, value=3):
    data = torch.zeros(1, 1, *shape, dtype=torch.int32)
    data[(..., *(slice(a, b) for a, b in zip(low, high, strict=True)))] = value
    return data


def pair_of(fixed, moving, grid=None, moving_grid=None, **known):
    grid = grid or Grid.centred(tuple(fixed.shape[2:]))
    moving_grid = moving_grid or grid
    images = [Image(torch.zeros(1, 1, *g.shape, dtype=torch.float64), g) for g in (grid, moving_grid)]
    return Pair(*images, Labels(fixed, grid), Labels(moving, moving_grid), **known)


def shifted(pair, *by):
    grid = pair.fixed.grid
    field = torch.zeros(1, grid.ndim, *grid.shape, dtype=torch.float64)
    for axis, length in enumerate(by):
        field[:, axis] = length
    return Alignment(pair, Displacement(field, grid))


# ---- tight boxes


@dimensions
@pytest.mark.parametrize("seed", range(25))
def test_boxes_are_those_of_scipy(ndim, seed):
    labels = random_labels(ndim, seed)
    faces = extents(labels, torch.arange(1, 8))[0]
    images = indicators(faces[None], SHAPES[ndim])[0]
    found = ndimage.find_objects(labels[0, 0].numpy(), 7)
    for value, slices in enumerate(found):
        expected = np.zeros(SHAPES[ndim])
        if slices is None:
            assert faces[value].isnan().all()
        else:
            expected[slices] = 1
            assert faces[value].tolist() == [[along.start - 0.5, along.stop - 0.5] for along in slices]
        np.testing.assert_array_equal(images[value], expected)


@dimensions
def test_a_box_holds_its_label_and_is_it_where_that_is_a_box(ndim):
    labels = random_labels(ndim, 5)
    boxes = indicators(extents(labels, torch.arange(1, 7)), SHAPES[ndim])
    member = labels == torch.arange(1, 7).view(1, -1, *[1] * ndim)
    assert (boxes >= member).all()
    assert (boxes > member.double()).any()
    fixed = block(SHAPES[ndim], (2,) * ndim, (6,) * ndim) + block(SHAPES[ndim], (8,) * ndim, (11,) * ndim, 7)
    moving = block(SHAPES[ndim], (3,) * ndim, (8,) * ndim) + block(SHAPES[ndim], (9,) * ndim, (10,) * ndim, 7)
    seen = shifted(pair_of(fixed, moving), 0.37, -0.2)
    assert float(BoxMSE()(seen)) == float(LabelMSE()(seen)) > 0
    assert float(BoxMSE(soft=True)(seen)) == float(LabelMSE()(seen))


@dimensions
def test_how_axes_are_stored_is_not_seen(ndim):
    """Flipped and permuted axes of the moving image, of other voxels than the fixed one's: the world is the same."""
    grid, labels = Grid.centred(SHAPES[ndim], (1.0, 2.0, 1.5)[:ndim]), random_labels(ndim, 2)
    fixed = random_labels(ndim, 5)
    known = float(BoxMSE()(Alignment(pair_of(fixed, labels, grid), Affine.identity(ndim))))
    affine, data = grid.affine.clone(), labels.flip(2).transpose(2, 3)
    affine[:, -1] += affine[:, 0] * (grid.shape[0] - 1)
    affine[:, 0] *= -1
    affine = affine[:, [1, 0, *range(2, ndim + 1)]]
    turned = Grid(tuple(data.shape[2:]), affine)
    found = float(BoxMSE()(Alignment(pair_of(fixed, data, grid, turned), Affine.identity(ndim))))
    assert found == pytest.approx(known, abs=1e-9)
    assert known > 1e-3


@dimensions
def test_a_shift_that_is_undone_leaves_nothing(ndim):
    fixed = block(SHAPES[ndim], (4,) * ndim, (7,) * ndim)
    pair = pair_of(fixed, fixed.roll(2, 2))
    assert float(BoxMSE()(shifted(pair, 2.0))) == 0
    off = 2 * 2 * 3 ** (ndim - 1) / fixed.numel()
    assert float(BoxMSE()(shifted(pair))) == pytest.approx(off, abs=1e-12)


def test_the_slope_is_that_of_two_faces():
    """On a line of n voxels, boxes k ≥ 1 voxels apart: at a shift by s the derivative is −(4/n)(1 − s)."""
    n = 24
    fixed, moving = block((n, 5), (6, 0), (15, 5)), block((n, 5), (8, 0), (17, 5))
    energy = BoxMSE().on(pair_of(fixed, moving))

    def value(shift):
        field = torch.stack([shift.expand(n, 5), torch.zeros(n, 5, dtype=torch.float64)])[None]
        return energy(Displacement(field, Grid.centred((n, 5))))

    for s in (0.3, 0.8):
        shift = torch.tensor(s, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(value(shift), shift)
        assert float(slope) == pytest.approx(-4 / n * (1 - s), abs=1e-9)
    assert torch.autograd.gradcheck(value, (torch.tensor(0.3, dtype=torch.float64, requires_grad=True),), eps=1e-6)


# ---- an annotator's error


def test_sides_err_evenly_up_to_their_share():
    """On 2,000 boxes: at most 5 % of the side, a mean of 0 within 3σ/√n, and the deviation of an even law."""
    draw = make_generator(3)
    low = torch.randint(0, 40, (1, 2000, 3), generator=draw) - 0.5
    side = torch.randint(4, 60, (1, 2000, 3), generator=draw).double()
    faces = torch.stack([low, low + side], -1)
    off = (with_error(faces, torch.arange(1, 2001), 0.05, 0) - faces) / side[..., None]
    sigma = 0.05 / 3**0.5
    assert float(off.abs().max()) <= 0.05
    for each in off.flatten(2).unbind(2):
        assert abs(float(each.mean())) < 3 * sigma / 2000**0.5
        assert float(each.std()) == pytest.approx(sigma, rel=0.05)
    sides = off.flatten(2)[0].mT  # (6, 2000): each side errs by itself
    assert float((torch.corrcoef(sides) - torch.eye(6)).abs().max()) < 4 / 2000**0.5


def test_rounded_a_short_side_never_moves_and_soft_it_does():
    """5 % of 9 voxels are less than half a voxel; of 60 they are up to 3."""
    values = torch.arange(1, 101)
    for length, moves in ((9, False), (60, True)):
        faces = torch.tensor([10.5, 10.5 + length]).double().expand(1, 100, 2, 2)
        wrong = with_error(faces, values, 0.05, 0)
        hard = indicators(wrong, (90, 90)) != indicators(faces, (90, 90))
        soft = indicators(wrong, (90, 90), soft=True) != indicators(faces, (90, 90))
        assert bool(hard.any()) is moves
        assert soft.flatten(2).any(2).all()
    area = indicators(wrong, (90, 90), soft=True).sum((2, 3))
    torch.testing.assert_close(area, (wrong[..., 1] - wrong[..., 0]).prod(-1))


def test_one_structure_of_one_image_always_errs_alike():
    """As the fixed and as the moving image, in each call, and in another process; and with another seed otherwise."""
    one, two = block((60, 60), (5, 6), (45, 50)), block((60, 60), (9, 3), (50, 40))
    there, back = BoxMSE(0.05).ready(pair_of(one, two)), BoxMSE(0.05).ready(pair_of(two, one))
    assert torch.equal(there.fixed, back.moving.data)
    assert torch.equal(there.moving.data, back.fixed)
    assert torch.equal(there.fixed, BoxMSE(0.05).ready(pair_of(one, one)).fixed)
    assert not torch.equal(there.fixed, BoxMSE(0.05, seed=1).ready(pair_of(one, two)).fixed)
    tight = BoxMSE().ready(pair_of(one, two))
    assert torch.equal(tight.fixed, (one > 0).double())
    assert not torch.equal(there.fixed, tight.fixed)
    code = (
        "import torch; from pullback.numerics.boxes import with_error;"
        "print(with_error(torch.tensor([[[[4.5, 44.5], [5.5, 49.5]]]]).double(), torch.tensor([3]), 0.05, 0).tolist())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    faces = torch.tensor([[[[4.5, 44.5], [5.5, 49.5]]]]).double()
    assert said.strip() == str(with_error(faces, torch.tensor([3]), 0.05, 0).tolist())


# ---- whose boxes


def test_a_label_of_one_side_is_left_out():
    """Compared with nothing it would be shrunk away; the others count as if it were not there."""
    fixed, moving = block((20, 20), (3, 3), (8, 9)), block((20, 20), (5, 4), (9, 9))
    known = float(BoxMSE()(shifted(pair_of(fixed, moving))))
    more = fixed + block((20, 20), (12, 12), (16, 16), 9)
    assert float(BoxMSE()(shifted(pair_of(more, moving)))) == known > 0
    assert float(BoxMSE()(shifted(pair_of(moving, more)))) == float(BoxMSE()(shifted(pair_of(moving, fixed))))


def test_a_batch_is_the_mean_of_its_pairs():
    """Also where one of them lacks a label that the others have."""
    both = block((20, 20), (3, 3), (8, 9)) + block((20, 20), (12, 12), (16, 16), 9)
    one, two = pair_of(both, both.roll(1, 2)), pair_of(block((20, 20), (3, 3), (8, 9)), both.roll(2, 3))
    each = [float(BoxMSE()(shifted(pair))) for pair in (one, two)]
    assert float(BoxMSE()(shifted(stacked([one, two])))) == pytest.approx(sum(each) / 2, abs=1e-12)
    assert each[0] != each[1]


@dimensions
def test_boxes_that_are_given_take_the_place_of_labels(ndim):
    """Those of the labels, in mm on flipped axes of unequal voxels, are the same energy without any labels."""
    turn = [1, 2, 0, 3] if ndim == 3 else [1, 0, 2]
    affine = torch.diag(torch.tensor([*[-1.0, 2.0, 1.5][:ndim], 1.0], dtype=torch.float64))[:, turn]
    affine[:-1, -1] = 7.0
    grid = Grid(SHAPES[ndim], affine)
    pair = pair_of(random_labels(ndim, 2), random_labels(ndim, 5), grid)
    told = Pair(
        pair.fixed,
        pair.moving,
        fixed_boxes=Boxes.of(pair.fixed_labels),
        moving_boxes=Boxes.of(pair.moving_labels),
    )
    seen = shifted(pair, 0.4)
    assert float(BoxMSE()(Alignment(told, seen.transform))) == pytest.approx(float(BoxMSE()(seen)), abs=1e-12)
    assert float(BoxMSE(0.05)(Alignment(told, seen.transform))) == pytest.approx(float(BoxMSE(0.05)(seen)), abs=1e-12)
    values = torch.arange(1, 7)
    torch.testing.assert_close(
        told.fixed_boxes.on(grid, values), extents(pair.fixed_labels.data, values), rtol=0, atol=1e-9, equal_nan=True
    )


def test_boxes_of_a_batch_are_of_its_images():
    some, others = (
        Boxes(torch.tensor(values), torch.zeros(1, len(values), 2), torch.ones(1, len(values), 2))
        for values in ([1, 4], [4, 2])
    )
    both = some.stack([others])
    assert both.values.tolist() == [1, 2, 4]
    assert both.low.isnan()[..., 0].tolist() == [[False, True, False], [True, False, False]]
    assert both.batch == 2
    assert both.nth(1).low.isnan()[0, :, 0].tolist() == [True, False, False]


def test_what_cannot_guide_is_refused():
    image = Image(torch.zeros(1, 1, 20, 20), Grid.centred((20, 20)))
    with pytest.raises(InputError, match="boxes or labels of both images are needed"):
        BoxMSE()(Alignment(Pair(image, image), Affine.identity(2)))
    one, two = block((20, 20), (3, 3), (8, 9)), block((20, 20), (3, 3), (8, 9), 4)
    with pytest.raises(InputError, match="no label has a box in both"):
        BoxMSE()(shifted(pair_of(one, two)))
    for error in (-0.1, 0.5):
        with pytest.raises(InputError, match=r"less than 0\.5"):
            BoxMSE(error)
    turn = torch.eye(3, dtype=torch.float64)
    angle = torch.tensor(3.0).deg2rad()
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    boxes = Boxes(torch.tensor([1]), torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    with pytest.raises(InputError, match=r"1° off.*pullback prepare"):
        boxes.on(Grid((20, 20), turn), boxes.values)
    with pytest.raises(InputError, match="2 axes have no meaning on a 3-D"):
        boxes.on(Grid.centred((4, 4, 4)), boxes.values)
    with pytest.raises(ValueError, match="each label once"):
        Boxes(torch.tensor([1, 1]), torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match="ends where it begins"):
        Boxes(torch.tensor([1]), torch.ones(1, 1, 2), torch.zeros(1, 1, 2))
