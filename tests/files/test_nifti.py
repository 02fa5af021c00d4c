"""NIfTI round trips, and what other tools make of what we write."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.files.nifti import read_field, read_image, read_labels, write_field, write_image
from pullback.space import Displacement, Grid, Image, Labels, Velocity, pull

SHAPES = [(9, 7), (6, 8, 7)]
PAIRS = [((24, 21), (20, 23)), ((15, 13, 14), (13, 16, 12))]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# images and labels


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_images_come_back(tmp_path, oblique, shape, seed, ending):
    image = Image(noise(1, 1, *shape, seed=seed), oblique(shape, seed))
    path = tmp_path / f"image{ending}"
    write_image(image, path)
    again = read_image(path)
    assert torch.equal(again.data, image.data)
    torch.testing.assert_close(again.grid.affine, image.grid.affine, rtol=0, atol=1e-5)  # NIfTI keeps float32
    assert again.grid == image.grid
    assert again.mask is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_itk_sees_each_voxel_where_we_see_it(tmp_path, oblique, from_sitk, shape, seed):
    image = Image(noise(1, 1, *shape, seed=seed), oblique(shape, seed))
    write_image(image, tmp_path / "image.nii.gz")
    theirs = sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    assert theirs.GetSize() == shape
    np.testing.assert_array_equal(from_sitk(theirs), image.data[0, 0].numpy())
    for index in ([0] * len(shape), [n - 1 for n in shape], [2, 5, 3][: len(shape)]):
        ras = (image.grid.affine @ torch.tensor([*index, 1.0], dtype=torch.float64))[:-1].numpy()
        lps = ras * np.array([-1, -1, 1])[: len(shape)]
        np.testing.assert_allclose(theirs.TransformIndexToPhysicalPoint(index), lps, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_we_see_each_voxel_where_itk_wrote_it(tmp_path, oblique, to_sitk, shape, seed):
    grid, data = oblique(shape, seed), noise(*shape, seed=seed)
    sitk.WriteImage(to_sitk(data.numpy(), grid.affine.numpy()), str(tmp_path / "image.nii.gz"))
    ours = read_image(tmp_path / "image.nii.gz")
    assert ours.grid == grid
    assert torch.equal(ours.data[0, 0], data)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([0, 1, 255], np.uint8),
        ([0, 1, 256], np.uint16),
        ([0, 1, 70000], np.uint32),
        ([-1, 0, 100], np.int16),
        ([-1, 0, 255], np.int16),
        ([-1, 0, 40000], np.int32),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_come_back_from_few_bytes(tmp_path, oblique, shape, values, stored):
    data = torch.tensor(values)[torch.arange(int(np.prod(shape))) % 3].view(1, 1, *shape)
    labels, path = Labels(data, oblique(shape, 1)), tmp_path / "labels.nii.gz"
    write_image(labels, path)
    assert nib.load(path).get_data_dtype() == stored
    again = read_labels(path, on=labels.grid)
    assert torch.equal(again.data, data)
    assert again.data.dtype == torch.int64


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_any_stored_type_and_its_scaling_is_read(tmp_path, dtype):
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    image = nib.Nifti1Image(values.astype(dtype), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "image.nii")
    raw = nib.load(tmp_path / "image.nii")
    np.testing.assert_allclose(read_image(tmp_path / "image.nii").data[0, 0].numpy(), raw.get_fdata(), rtol=1e-6)


@pytest.mark.parametrize("extra", [(1,), (1, 1)])
def test_axes_of_length_one_at_the_end_are_dropped(tmp_path, extra):
    data = np.arange(4 * 5.0).reshape(4, 5, *extra)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 3, 1, 1])), tmp_path / "flat.nii")
    image = read_image(tmp_path / "flat.nii")
    assert image.grid == Grid((4, 5), torch.diag(torch.tensor([2.0, 3, 1], dtype=torch.float64)))


def test_a_mask_comes_with_its_image(tmp_path, oblique):
    grid, data = oblique((6, 8, 7), 1), noise(1, 1, 6, 8, 7)
    write_image(Image(data, grid), tmp_path / "image.nii.gz")
    write_image(Labels((data > 0).int() * 3, grid), tmp_path / "mask.nii.gz")
    image = read_image(tmp_path / "image.nii.gz", mask=tmp_path / "mask.nii.gz")
    assert torch.equal(image.mask, data > 0)
    assert image.mask.dtype == torch.bool


def test_writing_overwrites_and_makes_folders(tmp_path):
    grid, path = Grid.centred((4, 5)), tmp_path / "new" / "folder" / "image.nii.gz"
    for seed in (1, 2):
        write_image(Image(noise(1, 1, 4, 5, seed=seed), grid), path)
    assert torch.equal(read_image(path).data, noise(1, 1, 4, 5, seed=2))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# displacement fields


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_fields_come_back(tmp_path, oblique, smooth_field, shape, seed):
    transform = Displacement(smooth_field(shape, seed, amplitude=2.0, fade=False).float(), oblique(shape, seed))
    write_field(transform, tmp_path / "field.nii.gz")
    again = read_field(tmp_path / "field.nii.gz")
    assert again.grid == transform.grid
    torch.testing.assert_close(again.field, transform.field, rtol=0, atol=1e-5)


def test_the_stored_form_is_that_of_itk(tmp_path):
    """One voxel along i on a grid whose first axis runs to the left: −2 mm in RAS, +2 mm in LPS."""
    grid = Grid((4, 5, 6), torch.diag(torch.tensor([-2.0, 3, 4, 1], dtype=torch.float64)))
    field = torch.zeros(1, 3, 4, 5, 6)
    field[:, 0], field[:, 1], field[:, 2] = 1, 1, 1
    write_field(Displacement(field, grid), tmp_path / "field.nii.gz")
    stored = nib.load(tmp_path / "field.nii.gz")
    assert stored.shape == (4, 5, 6, 1, 3)
    assert stored.header["intent_code"] == 1007
    assert stored.get_data_dtype() == np.float32
    np.testing.assert_allclose(stored.get_fdata()[0, 0, 0, 0], [2, -3, 4])
    np.testing.assert_allclose(stored.affine, grid.affine.numpy())


def test_two_dimensional_fields_have_two_components(tmp_path):
    transform = Displacement(torch.ones(1, 2, 4, 5), Grid.centred((4, 5), 2.0))
    write_field(transform, tmp_path / "field.nii.gz")
    stored = nib.load(tmp_path / "field.nii.gz")
    assert stored.shape == (4, 5, 1, 1, 2)
    np.testing.assert_allclose(stored.get_fdata()[0, 0, 0, 0], [-2, -2])


def test_a_field_in_ras_is_converted(tmp_path, oblique, smooth_field):
    grid = oblique((6, 7, 8), 1)
    field = smooth_field(grid.shape, 1, amplitude=2.0, fade=False)
    ras = torch.einsum("ab,b...->...a", grid.affine[:3, :3], field[0]).numpy().astype(np.float32)
    image = nib.Nifti1Image(ras[:, :, :, None], grid.affine.numpy())
    image.header.set_intent(1006)
    nib.save(image, tmp_path / "field.nii.gz")
    again = read_field(tmp_path / "field.nii.gz")
    torch.testing.assert_close(again.field.double(), field, rtol=0, atol=1e-5)


def looks_inside(transform, fixed, moving, margin=1.0):
    where = fixed.to_world(fixed.voxels(torch.zeros((), dtype=torch.float64))[None])
    at = moving.to_voxels(transform(where.flatten(2).mT).mT).view(fixed.ndim, *fixed.shape)
    upper = torch.tensor(moving.shape).view(-1, *[1] * fixed.ndim) - 1
    return ((at > margin) & (at < upper - margin)).all(0).numpy()


def pair(oblique, smooth_field, shapes, seed):
    fixed, moving = oblique(shapes[0], seed), oblique(shapes[1], seed + 10)
    field = smooth_field(fixed.shape, seed, amplitude=2.0, fade=False).float()
    image = Image(noise(1, 1, *moving.shape, seed=seed), moving)
    return fixed, image, Displacement(field, fixed)


@pytest.mark.parametrize("shapes", PAIRS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_itk_resamples_through_our_field_as_we_pull(tmp_path, oblique, smooth_field, to_sitk, from_sitk, shapes, seed):
    fixed, image, transform = pair(oblique, smooth_field, shapes, seed)
    write_field(transform, tmp_path / "field.nii.gz")
    write_image(image, tmp_path / "moving.nii.gz")
    theirs = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "moving.nii.gz")),
        to_sitk(np.zeros(fixed.shape), fixed.affine.numpy()),
        sitk.DisplacementFieldTransform(
            sitk.Cast(sitk.ReadImage(str(tmp_path / "field.nii.gz")), sitk.sitkVectorFloat64)
        ),
        sitk.sitkLinear,
        0.0,
        sitk.sitkFloat64,
    )
    inside = looks_inside(transform, fixed, image.grid)
    assert inside.sum() > 100
    ours = pull(image, transform, onto=fixed).data[0, 0].numpy()
    np.testing.assert_allclose(ours[inside], from_sitk(theirs)[inside], atol=2e-4)  # float32 field, float32 header


@pytest.mark.parametrize("shapes", PAIRS)
@pytest.mark.parametrize("seed", [1, 2])
def test_ants_resamples_through_our_field_as_we_pull(tmp_path, oblique, smooth_field, shapes, seed):
    ants = pytest.importorskip("ants", reason="antspyx is not installed")
    fixed, image, transform = pair(oblique, smooth_field, shapes, seed)
    write_field(transform, tmp_path / "field.nii.gz")
    write_image(image, tmp_path / "moving.nii.gz")
    write_image(Image(torch.zeros(1, 1, *fixed.shape), fixed), tmp_path / "fixed.nii.gz")
    theirs = ants.apply_transforms(
        fixed=ants.image_read(str(tmp_path / "fixed.nii.gz"), pixeltype="float"),
        moving=ants.image_read(str(tmp_path / "moving.nii.gz"), pixeltype="float"),
        transformlist=[str(tmp_path / "field.nii.gz")],
        interpolator="linear",
    ).numpy()
    inside = looks_inside(transform, fixed, image.grid)
    assert inside.sum() > 100
    ours = pull(image, transform, onto=fixed).data[0, 0].numpy()
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=5e-4)  # ANTs computes in float32


@pytest.mark.parametrize("shapes", PAIRS)
def test_a_field_that_itk_wrote_moves_points_as_itk_does(tmp_path, oblique, smooth_field, to_sitk, shapes):
    grid, d = oblique(shapes[0], 4), len(shapes[0])
    lps = np.array([-1.0, -1, 1])[:d]
    vectors = smooth_field(grid.shape, 4, amplitude=2.0, fade=False)[0].movedim(0, -1).numpy().astype(np.float32)
    itk = to_sitk(vectors, grid.affine.numpy())
    sitk.WriteImage(itk, str(tmp_path / "field.nii.gz"))
    theirs = sitk.DisplacementFieldTransform(sitk.Cast(itk, sitk.sitkVectorFloat64))
    ours = read_field(tmp_path / "field.nii.gz")
    at = np.random.default_rng(0).uniform(1, np.array(grid.shape) - 2, (20, d))
    points = grid.to_world(torch.from_numpy(at.T)[None])[0].mT
    expected = np.array([lps * theirs.TransformPoint((lps * p).tolist()) for p in points.numpy()])
    np.testing.assert_allclose(ours(points).numpy(), expected, atol=1e-4)


def test_velocities_are_not_fields(tmp_path):
    """The type says what is written: a velocity is integrated first, by whoever wants its displacement."""
    velocity = Velocity(torch.ones(1, 2, 4, 5), Grid.centred((4, 5)))
    write_field(Displacement(velocity.own_displacement, velocity.grid), tmp_path / "field.nii.gz")
    torch.testing.assert_close(read_field(tmp_path / "field.nii.gz").field, torch.ones(1, 2, 4, 5))
