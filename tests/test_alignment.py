"""A pair seen through a transform: its consequences, each against the plain way to it."""

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.space import Affine, Displacement, Grid, Image, Labels, Points, Velocity, pull, push

SHAPES = [(9, 8), (7, 8, 6)]


@pytest.mark.parametrize("shape", SHAPES)
def test_consequences(oblique, smooth_field, shape):
    d, generator = len(shape), torch.Generator().manual_seed(0)
    fixed, moving = oblique(shape, 1), oblique(tuple(n + 2 for n in shape), 2)
    data = torch.rand(1, 1, *moving.shape, dtype=torch.float64, generator=generator)
    pair = Pair(
        Image(torch.zeros(1, 1, *shape), fixed),
        Image(data, moving),
        moving_labels=Labels((5 * data).long(), moving),
        fixed_points=Points(torch.rand(1, 4, d, dtype=torch.float64, generator=generator)),
    )
    transform = Displacement(smooth_field(shape, 1, amplitude=1.0), fixed)
    alignment = Alignment(pair, transform)
    assert torch.equal(alignment.moved.data, pull(pair.moving, transform, fixed).data)
    assert torch.equal(alignment.moved_labels.data, pull(pair.moving_labels, transform, fixed).data)
    assert torch.equal(alignment.pushed.data, push(pair.fixed_points, transform).data)
    assert alignment.moved is alignment.moved  # computed once


@pytest.mark.parametrize("shape", SHAPES)
def test_folding_is_told_where_the_images_lie(shape):
    """Which an affine, made on the CPU, need not: what is beside the networks in every table."""
    image = Image(torch.zeros(1, 1, *shape, device="meta"), Grid.centred(shape))
    assert Alignment(Pair(image, image), Affine.identity(len(shape))).jacobian.device.type == "meta"


def test_what_a_pair_lacks_is_none():
    grid = Grid.centred((5, 6))
    image = Image(torch.zeros(1, 1, 5, 6), grid)
    alignment = Alignment(Pair(image, image), Affine.identity(2))
    assert alignment.moved_labels is None
    assert alignment.pushed is None
    assert alignment.mask is None


def test_pairs_that_cannot_be_are_refused():
    flat, deep = (Image(torch.zeros(1, 1, *s), Grid.centred(s)) for s in SHAPES)
    with pytest.raises(ValueError, match=r"fixed image is 2-D and the moving one 3-D"):
        Pair(flat, deep)
    zeros = torch.zeros(1, 1, 9, 8, dtype=torch.int64)
    other = Labels(zeros, Grid.centred((9, 8), 1.1))
    cut = Labels(zeros[..., 1:], Grid.centred((9, 7)))
    with pytest.raises(ValueError, match=r"moving labels lie on another grid.*affines differ"):
        Pair(flat, flat, moving_labels=other)
    with pytest.raises(ValueError, match=r"fixed labels lie on another grid.*\(9, 7\) against \(9, 8\)"):
        Pair(flat, flat, fixed_labels=cut)
    Pair(flat, flat, Labels(zeros, Grid.centred((9, 8))), Labels(zeros, Grid.centred((9, 8))))
    with pytest.raises(TypeError, match=r"the moving image is 'a.nii.gz', no Image: `pb.read_image\(path\)` reads"):
        Pair(flat, "a.nii.gz")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pair_moves_with_all_it_knows(smooth_field, shape):
    """`meta` stands for an accelerator: tensors there do not mix with those here."""
    grid, d = Grid.centred(shape), len(shape)
    image = Image(torch.rand(1, 1, *shape), grid, torch.ones(1, 1, *shape, dtype=torch.bool))
    labels, points = Labels(torch.zeros(1, 1, *shape, dtype=torch.int64), grid), Points(torch.zeros(1, 3, d))
    velocity = Velocity(smooth_field(shape, 1, amplitude=1.0).float(), grid)
    truth = velocity.inverse() @ (Affine.identity(d) @ Displacement(velocity.field, grid))
    pair = Pair(image, image, labels, labels, points, points, truth)
    away = pair.to(torch.device("meta"))
    tensors = [away.fixed.data, away.moving.mask, away.fixed_labels.data, away.moving_points.data, *away.truth.params]
    assert {t.device.type for t in tensors} == {"meta"}
    off = away.truth.displacement(grid) - torch.zeros(1, d, *shape, device="meta")  # as EndPointError takes it
    assert off.device.type == "meta"
    here = pair.to(torch.device("cpu"))
    assert here.truth is truth, "what is here already keeps what it has computed"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_jacobian_of_an_affine_is_its_determinant_on_any_grid(oblique, shape):
    """Volumes grow by det A wherever and however the voxels lie."""
    d = len(shape)
    matrix = torch.eye(d + 1, dtype=torch.float64)
    matrix[:d, :d] += 0.2 * torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = oblique(shape, 3)
    image = Image(torch.zeros(1, 1, *shape), grid)
    jacobian = Alignment(Pair(image, image), Affine(matrix)).jacobian
    torch.testing.assert_close(jacobian, torch.linalg.det(matrix).expand(1, 1, *shape))


def test_the_mask_is_where_both_may_be_looked_at():
    grid, data = Grid.centred((6, 8)), torch.rand(1, 1, 6, 8)
    left, top = (torch.zeros(1, 1, 6, 8, dtype=torch.bool) for _ in range(2))
    left[..., :5], top[:, :, :3] = True, True
    step = torch.eye(3, dtype=torch.float64)
    step[0, -1] = 1  # what lay one row below appears here
    moved_top = torch.zeros_like(top)
    moved_top[:, :, :2] = True
    for fixed, moving, expected in (
        (left, None, left),
        (None, top, moved_top),
        (left, top, left & moved_top),
    ):
        pair = Pair(Image(data, grid, fixed), Image(data, grid, moving))
        assert torch.equal(Alignment(pair, Affine(step)).mask, expected)


def test_images_of_a_pair_have_as_many_channels():
    grid = Grid.centred((6, 7))
    one, two = (Image(torch.zeros(1, channels, 6, 7), grid) for channels in (1, 2))
    with pytest.raises(ValueError, match="the fixed image has 1 channels, the moving one 2"):
        Pair(one, two)


def test_what_a_notebook_shows_is_short():
    """Numbers of few, and of many their shape."""
    grid = Grid.centred((8, 9, 7), (1.0, 2.0, 1.5))
    image = Image(torch.zeros(1, 1, 8, 9, 7), grid)
    moved = Affine.identity(3) @ Displacement(torch.zeros(1, 3, 8, 9, 7), grid)
    assert repr(image) == "Image(data=1×1×8×9×7, grid=Grid(8×9×7, 1×2×1.5 mm))"
    shown = repr(Alignment(Pair(image, image), moved))
    assert "tensor(" not in shown
    assert "field=1×3×8×9×7" in shown
    assert "[0.0, 0.0, 1.0, 0.0]" in shown
    assert "labels" not in shown
