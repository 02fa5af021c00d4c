"""NIfTI round trips, and what other tools make of what we write."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.alignment import Alignment, Pair
from pullback.files.images.nifti import read_grid, read_image, read_labels, write_image
from pullback.files.transforms.nifti_field import read_field, write_field
from pullback.metrics.physical import Dice, HausdorffDistance
from pullback.space import Affine, Displacement, Grid, Image, Labels, Velocity, pull

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
    ("values", "stored", "held"),
    [
        ([0, 1, 255], np.uint8, torch.uint8),
        ([0, 1, 256], np.uint16, torch.int16),
        ([0, 1, 40000], np.uint16, torch.int32),
        ([0, 1, 70000], np.uint32, torch.int32),
        ([0, 1, 2**32 - 1], np.uint32, torch.int64),
        ([-1, 0, 100], np.int16, torch.int16),
        ([-1, 0, 255], np.int16, torch.int16),
        ([-1, 0, 40000], np.int32, torch.int32),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_come_back_from_few_bytes(tmp_path, oblique, shape, values, stored, held):
    data = torch.tensor(values)[torch.arange(int(np.prod(shape))) % 3].view(1, 1, *shape)
    labels, path = Labels(data, oblique(shape, 1)), tmp_path / "labels.nii.gz"
    write_image(labels, path)
    assert nib.load(path).get_data_dtype() == stored
    again = read_labels(path, on=labels.grid)
    assert torch.equal(again.data.long(), data)
    assert again.data.dtype == held


@pytest.mark.parametrize("largest", [2, 300, 70000, 2**31])
def test_labels_of_any_type_are_pulled_and_measured_alike(tmp_path, oblique, largest):
    grid = oblique((6, 8, 7), 1)
    long = Labels(torch.tensor([0, 1, largest])[torch.arange(6 * 8 * 7) % 3].view(1, 1, 6, 8, 7), grid)
    write_image(long, tmp_path / "labels.nii.gz")
    short = read_labels(tmp_path / "labels.nii.gz", on=grid)
    image, shift = Image(noise(1, 1, *grid.shape), grid), torch.eye(4, dtype=torch.float64)
    shift[0, 3] = 1.3
    seen = [Alignment(Pair(image, image, one, one), Affine(shift)) for one in (long, short)]
    assert seen[1].moved_labels.data.dtype == short.data.dtype
    assert torch.equal(seen[1].moved_labels.data.long(), seen[0].moved_labels.data)
    for metric in (Dice(), HausdorffDistance()):
        assert metric(seen[1]) == metric(seen[0])
    write_image(seen[1].moved_labels, tmp_path / "moved.nii.gz")
    assert torch.equal(read_labels(tmp_path / "moved.nii.gz").data.long(), seen[0].moved_labels.data)


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


def turned(*angles):
    """A rotation about x, then y, then z, in degrees."""
    out = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        out = turn @ out
    return out


SLICES = {
    "axial": np.eye(3),
    "axial, turned": turned(0, 0, 30),
    "coronal": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "coronal, flipped": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "tilted": turned(30, 0, 0),
    "at 45°": turned(45, 0, 0),
    "oblique": turned(25, -35, 50),
}


@pytest.mark.parametrize("extra", [(), (1,)])
@pytest.mark.parametrize("name", SLICES)
def test_slices_of_any_plane_keep_their_spacing(tmp_path, name, extra):
    affine = nib.affines.from_matvec(SLICES[name] @ np.diag([2.0, 3, 5]), [7, -8, 9])
    nib.save(nib.Nifti1Image(np.arange(20.0).reshape(4, 5, *extra), affine), tmp_path / "slice.nii")
    grid = read_image(tmp_path / "slice.nii").grid
    np.testing.assert_allclose(grid.spacing, [2, 3], rtol=1e-6)
    linear = grid.affine[:2, :2]
    assert abs(float(linear[:, 0] @ linear[:, 1])) < 1e-5
    if name.startswith("axial"):
        np.testing.assert_array_equal(
            grid.affine, nib.load(tmp_path / "slice.nii").affine[np.ix_([0, 1, 3], [0, 1, 3])]
        )


@pytest.mark.parametrize(("name", "world"), [("coronal", [0, 2]), ("coronal, flipped", [0, 2]), ("sagittal", [1, 2])])
def test_slices_along_two_world_axes_lie_in_them(tmp_path, name, world):
    affine = nib.affines.from_matvec(SLICES[name] @ np.diag([2.0, 3, 5]), [7, -8, 9])
    nib.save(nib.Nifti1Image(np.arange(20.0).reshape(4, 5), affine), tmp_path / "slice.nii")
    ours = read_image(tmp_path / "slice.nii").grid.affine
    np.testing.assert_allclose(ours, affine[np.ix_([*world, 3], [0, 1, 3])], atol=1e-6)


@pytest.mark.parametrize("name", SLICES)
def test_slices_of_one_plane_lie_to_each_other_as_in_the_world(tmp_path, name):
    one = nib.affines.from_matvec(SLICES[name] @ np.diag([2.0, 3, 5]), [7, -8, 9])
    two = nib.affines.from_matvec(SLICES[name] @ turned(0, 0, 70) @ np.diag([-1.0, 2.4, 5]), (one @ [1, 2, 0, 1])[:3])
    grids = []
    for n, affine in enumerate((one, two)):
        nib.save(nib.Nifti1Image(np.arange(20.0).reshape(4, 5), affine), tmp_path / f"{n}.nii")
        grids.append(read_image(tmp_path / f"{n}.nii").grid.affine)
    between = torch.linalg.solve(grids[0], grids[1])
    np.testing.assert_allclose(between, (np.linalg.inv(one) @ two)[np.ix_([0, 1, 3], [0, 1, 3])], atol=1e-5)


@pytest.mark.parametrize("thin", [0, 1, 2])
@pytest.mark.parametrize("name", SLICES)
def test_a_slice_is_a_slice_whatever_axis_it_is_thin_along(tmp_path, name, thin):
    """As cut out of a volume; and what is written on its grid lies where it lay, stored alike."""
    affine = nib.affines.from_matvec(SLICES[name] @ np.diag([2.0, 3, 5]), [7, -8, 9])
    shape = tuple(np.insert((4, 5), thin, 1))
    values = np.arange(20, dtype=np.float32).reshape(shape)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "slice.nii")
    last = [*(axis for axis in range(3) if axis != thin), thin, 3]
    nib.save(nib.Nifti1Image(values.reshape(4, 5, 1), affine[:, last]), tmp_path / "last.nii")
    image = read_image(tmp_path / "slice.nii")
    assert image.grid == read_image(tmp_path / "last.nii").grid == read_grid(tmp_path / "slice.nii")
    np.testing.assert_array_equal(image.data[0, 0], values.reshape(4, 5))
    write_image(image, tmp_path / "again.nii", like=tmp_path / "slice.nii")
    again = nib.load(tmp_path / "again.nii")
    np.testing.assert_array_equal(again.get_fdata(), values)
    np.testing.assert_allclose(again.affine, nib.load(tmp_path / "slice.nii").affine)


def test_real_slices_along_x_and_y_are_read_as_they_are_stored(shared):
    paths = sorted((shared / "data" / "oasis_trt20_2d" / "images").glob("*.nii.gz"))
    assert paths
    for path in paths:
        expected = nib.load(path).affine[np.ix_([0, 1, 3], [0, 1, 3])]
        np.testing.assert_array_equal(read_image(path).grid.affine, expected)


# where other tools may see something else


def forms(path, qform=None, sform=None, unit="mm", ndim=3, codes=(1, 2), pixdim=(2, 3, 4)):
    image = nib.Nifti1Image(np.random.default_rng(0).random((6, 7, 8)[:ndim]).astype(np.float32), None)
    image.header["pixdim"][1 : ndim + 1] = pixdim[:ndim]
    image.header.set_xyzt_units(unit)
    image.header.set_qform(qform, codes[0] if qform is not None else 0)
    image.header.set_sform(sform, codes[1] if sform is not None else 0)
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)
    return path


def shifted(mm):
    return nib.affines.from_matvec(np.diag([2.0, 3, 4]), [mm, 5, 6])


def apart(path):
    """How far in mm ITK sees the corners of the image from where we read them."""
    ours, theirs = read_image(path).grid, sitk.ReadImage(str(path))
    lps = [-1.0, -1, 1][: ours.ndim]
    corners = np.array([*np.ndindex(*[2] * ours.ndim)]) * (np.array(ours.shape) - 1)
    there = [np.array(theirs.TransformIndexToPhysicalPoint(c.tolist())) * lps for c in corners]
    here = ours.to_world(torch.from_numpy(corners.T[None].astype(float)))[0].mT.numpy()
    return np.abs(here - there).max()


SHEARED = shifted(0) + np.array([[0, 1, 0, 0], *[[0] * 4] * 3])
ELSEWHERE = [
    ({"qform": shifted(0), "sform": shifted(1.1)}, ["by the qform", "0.55 voxels"]),
    ({"qform": shifted(0), "sform": SHEARED, "codes": (1, 1)}, ["by the qform"]),
    ({"qform": shifted(0), "sform": shifted(1), "codes": (1, 1), "pixdim": (1, 1, 1)}, ["pixdim"]),
    ({"sform": shifted(0), "pixdim": (2, 3, 5)}, ["pixdim"]),
    ({}, ["sform code 0, qform code 0", "first voxel"]),
    ({"ndim": 2}, ["first voxel"]),
    ({"sform": shifted(0), "unit": "micron"}, ["micrometres"]),
    ({"qform": shifted(0), "unit": "meter"}, ["metres"]),
]
ALIKE = [
    {"qform": shifted(0)},
    {"sform": shifted(0)},
    {"qform": shifted(0), "sform": shifted(0)},
    {"qform": shifted(0), "sform": shifted(0.9)},
    {"qform": shifted(0), "sform": shifted(7), "codes": (1, 1)},
    {"qform": shifted(0), "sform": shifted(0), "ndim": 2},
    {"qform": shifted(0), "unit": "unknown"},
]


@pytest.mark.parametrize(("kind", "says"), ELSEWHERE)
def test_what_itk_sees_elsewhere_is_said(tmp_path, kind, says):
    path = forms(tmp_path / "image.nii", **kind)
    if kind.get("pixdim") == (1, 1, 1):  # set_qform set it
        content = bytearray(path.read_bytes())
        content[80:92] = np.ones(3, np.float32).tobytes()
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="image.nii") as caught:
        assert apart(path) > 1
    assert len(caught) == 1
    for word in [*says, "here", "ITK", "set_sform"]:
        assert word in str(caught[0].message)


@pytest.mark.parametrize("kind", ALIKE)
@pytest.mark.filterwarnings("error")
def test_what_itk_sees_in_the_same_place_is_read_in_silence(tmp_path, kind):
    assert apart(forms(tmp_path / "image.nii", **kind)) <= 1  # half a voxel


@pytest.mark.parametrize("kind", ["damaged qform", "sheared sform"])
def test_what_itk_cannot_place_is_warned_of(tmp_path, kind):
    path = forms(tmp_path / "image.nii", None if kind == "sheared sform" else shifted(0), SHEARED)
    if kind == "damaged qform":
        content = bytearray(path.read_bytes())
        content[256:260] = np.float32(3).tobytes()  # a quaternion longer than 1
        path.write_bytes(content)
    with pytest.warns(UserWarning, match=kind.split()[0]):
        read_image(path)


@pytest.mark.filterwarnings("error")
def test_real_files_are_read_in_silence(shared):
    root = shared / "data"
    paths = [
        *sorted((root / "hippocampus").rglob("*_0000.nii.gz"))[:4],
        *sorted((root / "brain_to_mni").rglob("*.nii.gz")),
    ]
    assert len(paths) > 4
    for path in paths:
        assert read_image(path).grid.ndim == 3


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
