"""Pairs of one image that is warped twice: their truth is exact, and what is known of the image follows it."""

from dataclasses import replace

import pytest
import torch

from pullback.alignment import Pair
from pullback.data import Synthetic
from pullback.data.case import Subject
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.space import Grid, Image, Labels, Points, Transform, pull, push
from pullback.testing import check_augmentation
from pullback.training import RandomAffine, RandomIntensities, RandomWarps

PLAIN = RandomWarps(RandomAffine(12.0, 0.1, 0.05, 0.05), elastic=3.0, controls=5, intensities=None)


def oblique(*shape: int) -> Grid:
    """An oblique grid, flipped along its first axis, of voxels of different lengths."""
    d = len(shape)
    turn = torch.linalg.qr(torch.randn(d, d, generator=make_generator(d), dtype=torch.float64))[0]
    affine = torch.eye(d + 1, dtype=torch.float64)
    affine[:-1, :-1] = turn * torch.tensor([-1.0, 1.5, 0.8][:d])
    affine[:-1, -1] = torch.tensor([30.0, -10.0, 5.0][:d])
    return Grid(shape, affine)


def smooth(grid: Grid, sigma: float = 3.0, **parts) -> Pair:
    noise = torch.rand(1, 1, *grid.shape, generator=make_generator(1), dtype=torch.float64)
    data = gaussian(noise, sigma)
    image = Image(((data - data.min()) / (data.max() - data.min())).float(), grid)
    return replace(Pair(image, image, name="one"), **parts)


@pytest.mark.parametrize("shape", [(48, 40), (22, 20, 18)])
def test_the_moving_image_pulled_through_the_truth_is_the_fixed_one(shape):
    """But for the interpolation of a smooth image, under 1 % of its range, where both show the image."""
    pair = smooth(oblique(*shape))
    for seed in range(3):
        made = PLAIN(pair, make_generator(seed))
        moved = pull(made.moving, made.truth, onto=made.fixed)
        inside = (
            made.fixed.mask
            & pull(replace(made.moving, mask=torch.ones_like(made.fixed.mask)), made.truth, onto=made.fixed).mask
        )
        off = (moved.data - made.fixed.data)[inside].abs()
        assert inside.float().mean() > 0.5
        assert float(off.mean()) < 0.01
        assert float((pair.moving.data - made.fixed.data)[inside].abs().mean()) > 3 * float(off.mean())


def test_the_truth_is_that_of_simpleitk_at_every_point():
    sitk = pytest.importorskip("SimpleITK")
    grid = oblique(24, 30)
    through, moving = PLAIN.maps(grid, make_generator(3), torch.zeros(1, dtype=torch.float64))
    truth = moving.inverse() @ through
    first, spline = through.parts
    field = grid.to_mm(spline.displacement(grid))[0].movedim(0, -1)  # (i, j, 2) mm
    image = sitk.GetImageFromArray(field.transpose(0, 1).contiguous().numpy().astype(float), isVector=True)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(grid.affine[:-1, -1].tolist())
    image.SetDirection((grid.affine[:-1, :-1] / grid.spacing).flatten().tolist())

    def affine(transform: Transform):
        matrix = transform.as_affine.matrix
        return sitk.AffineTransform(matrix[:-1, :-1].flatten().tolist(), matrix[:-1, -1].tolist())

    theirs = sitk.CompositeTransform(2)
    for each in (affine(moving.inverse()), affine(first), sitk.DisplacementFieldTransform(image)):
        theirs.AddTransform(each)  # the last one moves points first
    inner = torch.rand(1, 2, 1000, generator=make_generator(4), dtype=torch.float64) * torch.tensor([[23.0], [29.0]])
    points = grid.to_world(inner)
    expected = torch.tensor([theirs.TransformPoint(point) for point in points[0].T.tolist()], dtype=torch.float64).T
    torch.testing.assert_close(truth.at(points)[0], expected, rtol=0, atol=1e-4)


def test_labels_and_points_follow():
    grid = oblique(40, 44)
    pair = smooth(grid, 6.0)
    labels = Labels((pair.fixed.data > 0.5).to(torch.uint8), grid)
    where = grid.to_world(torch.tensor([[[12.0, 20.0, 30.0], [15.0, 30.0, 22.0]]], dtype=torch.float64)).mT
    made = PLAIN(replace(pair, fixed_labels=labels, fixed_points=Points(where)), make_generator(2))
    inside = made.fixed.mask
    same = pull(made.moving_labels, made.truth, onto=grid).data == made.fixed_labels.data
    assert same[inside].float().mean() > 0.97
    assert (made.fixed_labels.data != labels.data)[inside].float().mean() > 0.05
    torch.testing.assert_close(push(made.fixed_points, made.truth).data, made.moving_points.data, rtol=0, atol=2e-3)


def test_where_either_image_shows_what_is_beyond_nothing_is_told():
    """A constant image is 1 where it is seen, and 0 beyond: where the mask is, both are 1 through the truth."""
    grid = Grid.centred((30, 36), 2.0)
    image = Image(torch.ones(1, 1, 30, 36), grid)
    for seed in range(4):
        made = PLAIN(Pair(image, image), make_generator(seed))
        both = made.fixed.data * pull(made.moving, made.truth, onto=grid).data
        hidden = ~made.fixed.mask
        assert float(made.fixed.data[made.fixed.mask].min()) > 0.99
        assert hidden.any()
        assert float(both[made.fixed.mask].mean()) > 0.99


def test_pairs_may_be_looked_at_in_the_foreground_alone():
    """A disc: the mask is where the fixed image shows it, whatever becomes of the intensities."""
    grid = Grid.centred((30, 36))
    disc = (grid.to_world(grid.voxels(torch.zeros(()))[None]).norm(dim=1, keepdim=True) < 8).float()
    image = Image(disc, grid)
    how = replace(PLAIN, foreground=True, intensities=RandomIntensities((0.1, 0.1, 1.0)))
    clean, noisy = (each(Pair(image, image), make_generator(3)).fixed for each in (replace(how, intensities=None), how))
    assert torch.equal(noisy.mask, clean.mask)
    assert (clean.data[noisy.mask] > 0.2).all()
    assert noisy.mask[clean.data > 0.8].all()
    assert 0.1 < float(noisy.mask.float().mean()) < 0.35


def test_without_motion_intensities_alone_change():
    pair = smooth(oblique(20, 24))
    made = replace(PLAIN, intensities=RandomIntensities(brightness=(0.5, 0.5, 1.0))).still(pair, make_generator(0))
    assert made.truth.as_affine is not None
    torch.testing.assert_close(made.truth.as_affine.matrix, torch.eye(3, dtype=torch.float64))
    assert made.fixed.mask.float().mean() > 0.95  # voxels on the border may be rounded out
    plain = PLAIN.still(pair, make_generator(0))
    torch.testing.assert_close(plain.fixed.data, pair.fixed.data, atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.moving.data, pair.fixed.data, atol=1e-5, rtol=0)


def test_motion_at_the_rim_of_a_head_is_up_to_a_quarter_of_the_image():
    """Section 4.1: displacements of about ± 64 pixels of 256, for a head of 140 × 180 pixels."""
    grid, angles = Grid.centred((256, 256)), torch.linspace(0, 6.28, 32, dtype=torch.float64)
    rim = torch.stack([70 * angles.cos(), 90 * angles.sin()])[None]
    furthest = []
    for seed in range(200):
        through, moving = replace(RandomWarps(), elastic=0.0).maps(grid, make_generator(seed), rim)
        furthest.append((moving.inverse() @ through).at(rim).sub(rim).norm(dim=1).max())
    lengths = torch.stack(furthest)
    assert 22 < float(lengths.median()) < 34
    assert 45 < float(lengths.quantile(0.99)) < 64


def test_each_change_of_intensities_is_what_it_says():
    image = smooth(oblique(30, 32)).fixed
    off = RandomIntensities(*[(0.0, 1.0, 0.0)] * 4)
    data = image.data

    def changed(**part):
        return replace(off, **part)(image, make_generator(5)).data

    assert torch.equal(changed(), data)
    torch.testing.assert_close(changed(brightness=(0.8, 0.8, 1.0)), 0.8 * data)
    less = changed(contrast=(0.5, 0.5, 1.0))
    torch.testing.assert_close(less, data.mean() + 0.5 * (data - data.mean()))
    more = changed(contrast=(2.0, 2.0, 1.0))
    assert (float(more.min()), float(more.max())) == (float(data.min()), float(data.max()))
    gamma = changed(gamma=(2.0, 2.0, 1.0))
    torch.testing.assert_close((gamma.mean(), gamma.std()), (data.mean(), data.std()))
    order = data.flatten().argsort()
    assert (gamma.flatten()[order].diff() >= -1e-6).all()
    assert float((gamma - data).abs().max()) > 0.05
    noise = changed(noise=(0.1, 0.1, 1.0)) - data
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)


def test_chances_are_kept():
    """A part that acts once in three draws does so, whatever else is drawn."""
    image = Image(torch.linspace(0, 1, 12).view(1, 1, 3, 4), Grid.centred((3, 4)))
    rare = RandomIntensities((0.1, 0.1, 0.0), (2.0, 2.0, 1 / 3), (1.0, 1.0, 0.0), (1.0, 1.0, 0.0))
    acted = [float(rare(image, make_generator(seed)).data.max()) > 1.5 for seed in range(300)]
    assert 70 < sum(acted) < 130


@pytest.mark.parametrize("ndim", [2, 3])
def test_contract(ndim):
    grid = oblique(*(16, 14, 12)[:ndim])
    labels = Labels(torch.ones(1, 1, *grid.shape, dtype=torch.uint8), grid)
    check_augmentation(RandomWarps(shape=(12,) * ndim, controls=3), smooth(grid, 1.0, fixed_labels=labels))


class One:
    """A case of one image."""

    name = "one"

    def load(self) -> Subject:
        return Subject(smooth(Grid.centred((20, 22))).fixed, name="one")


def test_test_pairs_are_made_in_advance_always_the_same():
    made = Synthetic(RandomWarps(controls=3), 2)
    one, again, other = made(One(), 0), made(One(), 2), made(One(), 1)
    assert torch.equal(one.moving.data, again.moving.data)
    assert not torch.equal(one.moving.data, other.moving.data)
    assert one.truth is not None


def test_what_cannot_be_made_is_refused():
    for wrong in ({"elastic": -1.0}, {"controls": 1}, {"shape": (1, 5)}):
        with pytest.raises(InputError, match="RandomWarps"):
            RandomWarps(**wrong)
    for wrong in ({"gamma": (1.5, 0.7, 0.3)}, {"noise": (0.0, 0.1, 1.3)}):
        with pytest.raises(InputError, match="RandomIntensities"):
            RandomIntensities(**wrong)
    with pytest.raises(InputError, match="a number of voxels for each of its axes"):
        RandomWarps(shape=(8, 8, 8))(smooth(Grid.centred((12, 12))), make_generator(0))
