"""What a volume shows in the place of a slice."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import map_coordinates

from pullback.numerics.rotation import of_vector
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Grid, Image, emulated, layers_of, slice_frame, through_axis


def volume() -> Image:
    data = smooth_noise((1, 1, 18, 16, 14), 2.0, torch.Generator().manual_seed(0), torch.zeros(1).double())
    return Image(data, Grid.centred((18, 16, 14), (1.0, 1.2, 1.5)))


def oblique(thickness: float = 3.0, across: int = 2) -> Grid:
    """A slice of 9 × 7 pixels whose thin axis is the one of this number."""
    turn = of_vector(torch.tensor([[0.3, -0.5, 0.2]]).double())[0]
    affine, edges, shape = torch.eye(4).double(), [0.8, 0.9], [9, 7]
    edges.insert(across, thickness)
    shape.insert(across, 1)
    affine[:3, :3] = turn * torch.tensor(edges)
    affine[:3, 3] = torch.tensor([0.4, -0.3, 0.2]) - affine[:3, :3] @ ((torch.tensor(shape).double() - 1) / 2)
    return Grid(tuple(shape), affine)


def test_one_layer_is_scipys_interpolation_at_the_slice():
    image, onto = volume(), oblique()
    pose = Affine.about(of_vector(torch.tensor([[0.1, 0.2, -0.1]]).double())[0], torch.zeros(3).double())
    where = image.grid.to_voxels(pose.at(onto.to_world(onto.voxels(image.data)[None])))[0].numpy()
    by_scipy = map_coordinates(image.data[0, 0].numpy(), where, order=1)
    assert np.abs(emulated(image, pose, onto, 1).data[0, 0].numpy() - by_scipy).max() < 1e-9


def test_one_layer_is_simpleitks_resampling_onto_a_slice():
    image, onto = volume(), oblique()
    flip = torch.diag(torch.tensor([-1.0, -1, 1]).double())

    def into(target, grid: Grid):
        target.SetOrigin((flip @ grid.affine[:3, 3]).tolist())
        target.SetSpacing(grid.spacing.tolist())
        target.SetDirection((flip @ grid.affine[:3, :3] / grid.spacing).flatten().tolist())
        return target

    moving = into(sitk.GetImageFromArray(image.data[0, 0].numpy().T.copy()), image.grid)
    like = into(sitk.Image(list(onto.shape), sitk.sitkFloat64), onto)
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, like, sitk.Transform(), sitk.sitkLinear)).T
    ours = emulated(image, Affine.identity(3), onto, 1).data[0, 0].numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * float(np.ptp(image.data.numpy()))


@pytest.mark.parametrize("across", [0, 1, 2])
@pytest.mark.parametrize("layers", [3, 5])
def test_thickness_leaves_what_is_linear_as_it_is(layers, across):
    grid = Grid.centred((20, 20, 20), 1.0)
    ramp = torch.einsum("d,dxyz->xyz", torch.tensor([0.3, -0.7, 0.5]).double(), grid.voxels(torch.zeros(1).double()))
    image, onto = Image(ramp[None, None], grid), oblique(across=across)
    thin, thick = (emulated(image, Affine.identity(3), onto, n).data for n in (1, layers))
    assert thin.shape == (1, 1, *onto.shape)
    assert torch.allclose(thin, thick, atol=1e-9)


def test_layers_are_weighted_by_a_gaussian_of_the_slices_thickness():
    grid, onto = Grid.centred((5, 5, 41), (1.0, 1.0, 0.5)), Grid.centred((3, 3, 1), (1.0, 1.0, 6.0))
    z = grid.to_world(grid.voxels(torch.zeros(1).double())[None])[:, 2:]
    seen = float(emulated(Image(z.square(), grid), Affine.identity(3), onto, 5).data.mean())
    at = torch.tensor([-0.8, -0.4, 0, 0.4, 0.8]).double() * 6
    sigma = 6 / (2 * math.sqrt(2 * math.log(2)))
    weights = torch.exp(-0.5 * (at / sigma) ** 2)
    assert seen == pytest.approx(float((weights * at**2).sum() / weights.sum()), abs=0.07)  # ¼ voxel² of interpolation
    assert seen == pytest.approx(sigma**2, rel=0.15)


def test_layers_are_odd_and_no_more_than_the_thickness_asks_for():
    grid = Grid.centred((8, 8, 8), 2.0)
    counts = [layers_of(oblique(mm), grid) for mm in (1.0, 2.0, 2.1, 6.0, 6.1, 30.0)]
    assert counts == [1, 1, 3, 3, 5, 5]
    with pytest.raises(ValueError, match="odd"):
        emulated(volume(), Affine.identity(3), oblique(), 2)


def test_where_one_layer_leaves_the_mask_the_slice_does():
    image = volume()
    mask = torch.ones_like(image.data, dtype=torch.bool)
    mask[..., 9:] = False
    seen = emulated(Image(image.data, image.grid, mask), Affine.identity(3), Grid.centred((3, 3, 1), (1, 1, 8.0)), 3)
    assert not seen.mask.any()
    assert emulated(Image(image.data, image.grid, mask), Affine.identity(3), seen, 1).mask.all()


@pytest.mark.parametrize("across", [0, 1, 2])
def test_a_frame_is_orthonormal_and_right_handed_along_the_slice(across):
    onto = oblique(across=across)
    frame = slice_frame(onto)
    assert through_axis(onto) == across
    assert torch.allclose(frame[:3, :3].T @ frame[:3, :3], torch.eye(3).double(), atol=1e-12)
    assert float(torch.linalg.det(frame[:3, :3])) == pytest.approx(1)
    assert float((frame[:3, 2] @ onto.affine[:3, across] / onto.spacing[across]).abs()) == pytest.approx(1)
    assert torch.allclose(frame[:3, 3], onto.centre)


def test_what_is_no_slice_in_space_is_refused():
    for grid in (Grid.centred((4, 4), 1.0), Grid.centred((4, 4, 4), 1.0), Grid.centred((4, 1, 1), 1.0)):
        with pytest.raises(ValueError, match="one voxel thick"):
            through_axis(grid)
