"""Transforms of files applied to files: as ITK and ANTs apply them, in their order, and once."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files import read_image, read_labels, read_points, write, write_ants, write_transform
from pullback.space import Affine, Displacement, Grid, Image, Labels
from pullback.workflows.apply import apply_files, read_in_order
from pullback.workflows.outputs import pushed_name

dimensions = pytest.mark.parametrize("ndim", [2, 3])


def affine(ndim):
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, :-1] += 0.08 * torch.randn(ndim, ndim, generator=torch.Generator().manual_seed(ndim)).double()
    matrix[:-1, -1] = torch.tensor([0.7, -1.1, 0.4])[:ndim]
    return Affine(matrix)


@pytest.fixture
def case(tmp_path, oblique, waves, smooth_field):
    """A folder with an image, its labels, another grid, and a transform in ANTs' pieces, for images of `ndim` axes."""

    def make(ndim):
        fixed, moving = oblique((22, 20, 18)[:ndim], seed=3), oblique((19, 23, 21)[:ndim], seed=4)
        values = waves(ndim, seed=1, shortest=9)(moving.to_world(moving.voxels(torch.zeros(1))[None]))
        write(Image(values, moving), tmp_path / "moving.nii.gz")
        write(Labels((values > 0).to(torch.uint8) * 3, moving), tmp_path / "labels.nii.gz")
        write(Image(torch.rand(1, 1, *fixed.shape), fixed), tmp_path / "fixed.nii.gz")
        transform = affine(ndim) @ Displacement(smooth_field(fixed.shape, seed=2, amplitude=1.5).float(), fixed)
        write_ants(transform, tmp_path / "a_", fixed)
        return tmp_path, fixed, moving, transform

    return make


def itk_reads(folder):
    return sitk.ReadImage(str(folder / "fixed.nii.gz")), sitk.ReadTransform(str(folder / "a_Composite.h5"))


def well_inside(folder, fixed, transform, moving):
    """Voxels of the fixed grid that land a voxel or more within the moving grid."""
    at = moving.to_voxels(transform.at(fixed.to_world(fixed.voxels(torch.zeros(1, dtype=torch.float64))[None])))[0]
    last = torch.tensor(moving.shape).view(-1, *[1] * fixed.ndim) - 1
    return ((at >= 1) & (at <= last - 1)).all(0).numpy()


@dimensions
@pytest.mark.parametrize(("mode", "theirs"), [("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)])
def test_images_come_as_itk_brings_them(case, ndim, mode, theirs):
    folder, fixed, moving, transform = case(ndim)
    out = folder / "out.nii.gz"
    chain = read_in_order([str(folder / "a_Composite.h5")])
    apply_files(folder / "moving.nii.gz", chain, out, folder / "fixed.nii.gz", mode)
    reference, there = itk_reads(folder)
    image = sitk.ReadImage(str(folder / "moving.nii.gz"), sitk.sitkFloat32)
    expected = sitk.GetArrayFromImage(sitk.Resample(image, reference, there, theirs)).T
    inside = well_inside(folder, fixed, transform, moving)
    assert inside.mean() > 0.25
    wrong = np.abs(read_image(out).data[0, 0].numpy() - expected)[inside]
    if mode == "linear":
        assert wrong.max() < 1e-3
    else:  # halfway between two voxels either may be taken
        assert (wrong > 1e-3).mean() < 2e-3
    assert read_image(out).grid == fixed


@dimensions
def test_labels_stay_whole(case, ndim):
    folder, fixed, moving, transform = case(ndim)
    out = folder / "out.nii.gz"
    chain = read_in_order([str(folder / "a_Composite.h5")])
    apply_files(folder / "labels.nii.gz", chain, out, folder / "fixed.nii.gz", labels=True)
    assert nib.load(out).get_data_dtype() == np.uint8
    reference, there = itk_reads(folder)
    image = sitk.ReadImage(str(folder / "labels.nii.gz"))
    expected = sitk.GetArrayFromImage(sitk.Resample(image, reference, there, sitk.sitkNearestNeighbor)).T
    moved = read_labels(out).data[0, 0].numpy()
    assert set(np.unique(moved)) == {0, 3}
    assert (moved != expected)[well_inside(folder, fixed, transform, moving)].mean() < 2e-3


@dimensions
def test_labels_have_the_smooth_borders_of_itk(case, ndim):
    """Its linear interpolation of labels one by one (ANTs' GenericLabel)."""
    folder, fixed, moving, transform = case(ndim)
    out = folder / "out.nii.gz"
    chain = read_in_order([str(folder / "a_Composite.h5")])
    done = apply_files(folder / "labels.nii.gz", chain, out, folder / "fixed.nii.gz", "linear", labels=True)
    assert "each linearly" in done.what
    reference, there = itk_reads(folder)
    image = sitk.ReadImage(str(folder / "labels.nii.gz"))
    resampled = sitk.Resample(image, reference, there, sitk.sitkLabelLinear)
    moved = read_labels(out).data[0, 0].numpy()
    assert set(np.unique(moved)) == {0, 3}
    assert (moved != sitk.GetArrayFromImage(resampled).T)[well_inside(folder, fixed, transform, moving)].mean() < 2e-3


@dimensions
def test_points_go_where_itk_takes_them(case, ndim):
    """In a file of ITK's own coordinates nothing but ITK is asked."""
    folder, *_ = case(ndim)
    letters, points = "LPS"[:ndim], np.random.default_rng(0).uniform(-4, 4, (5, ndim))
    rows = "\n".join(",".join(map(repr, row)) for row in points.tolist())
    (folder / "points.csv").write_text(f"{','.join(letters)}\n{rows}\n")
    apply_files(folder / "points.csv", read_in_order([str(folder / "a_Composite.h5")]), folder / "out.csv")
    moved = np.loadtxt(folder / "out.csv", delimiter=",", skiprows=1)
    _, there = itk_reads(folder)
    np.testing.assert_allclose(moved, [there.TransformPoint(p) for p in points.tolist()], atol=2e-4)
    assert (folder / "out.csv").read_text().startswith(",".join(letters))


@dimensions
def test_the_order_of_ants(case, ndim):
    """-t 1Warp -t 0GenericAffine is the composite, and -t [0GenericAffine,1] -t 1InverseWarp the way back."""
    folder, fixed, _, transform = case(ndim)
    warp, linear = str(folder / "a_1Warp.nii.gz"), str(folder / "a_0GenericAffine.mat")
    points = fixed.centre + torch.from_numpy(np.random.default_rng(0).uniform(-4, 4, (9, ndim)))
    there = read_in_order([warp, linear])(points)
    torch.testing.assert_close(there, transform(points), atol=1e-5, rtol=0)
    assert (read_in_order([linear, warp])(points) - there).abs().max() > 1e-2
    back = read_in_order([f"[{linear},1]", str(folder / "a_1InverseWarp.nii.gz")])
    tenth = 0.1 * float(fixed.spacing.min())  # of a voxel: inverses are fields too, linear between voxels
    torch.testing.assert_close(back(there), points, atol=tenth, rtol=0)
    torch.testing.assert_close(read_in_order([warp, linear], invert=True)(there), points, atol=tenth, rtol=0)
    torch.testing.assert_close(read_in_order([f"[{warp},0]", linear])(points), there)


@pytest.mark.slow
def test_ants_applies_the_same_list_alike(case):
    ants = pytest.importorskip("ants")
    folder, fixed, moving, transform = case(3)
    names = [str(folder / "a_1Warp.nii.gz"), str(folder / "a_0GenericAffine.mat")]
    images = [ants.image_read(str(folder / name)) for name in ("fixed.nii.gz", "moving.nii.gz")]
    expected = ants.apply_transforms(*images, names, interpolator="linear").numpy()
    apply_files(folder / "moving.nii.gz", read_in_order(names), folder / "out.nii.gz", folder / "fixed.nii.gz")
    moved = read_image(folder / "out.nii.gz").data[0, 0].numpy()
    assert np.abs(moved - expected)[well_inside(folder, fixed, transform, moving)].max() < 1e-3


def shifts(folder, *mm):
    names = [str(folder / f"{n}.tfm") for n in range(len(mm))]
    for name, x in zip(names, mm, strict=True):
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[0, 3] = x
        write_transform(Affine(matrix), name)
    return names


def test_several_transforms_blur_once(tmp_path):
    """Half a voxel there and half a voxel back, each resampled, would take the edge off every voxel."""
    image = Image(torch.rand(1, 1, 8, 9, 7, generator=torch.Generator().manual_seed(0)), Grid.centred((8, 9, 7)))
    write(image, tmp_path / "image.nii.gz")
    names = shifts(tmp_path, 0.5, -0.5)
    apply_files(tmp_path / "image.nii.gz", read_in_order(names), tmp_path / "out.nii.gz", tmp_path / "image.nii.gz")
    torch.testing.assert_close(read_image(tmp_path / "out.nii.gz").data, image.data, atol=1e-5, rtol=0)


@pytest.mark.parametrize("labels", [False, True])
def test_nothing_in_view_is_said(tmp_path, labels):
    thing = Labels(torch.ones(1, 1, 8, 9, 7, dtype=torch.uint8), Grid.centred((8, 9, 7)))
    write(thing, tmp_path / "image.nii.gz")
    for mm, empty in ((6, False), (60, True)):
        transform = read_in_order(shifts(tmp_path, mm))
        path = tmp_path / "image.nii.gz"
        applied = apply_files(path, transform, tmp_path / "out.nii.gz", path, labels=labels)
        assert ("0 everywhere" in applied.doubt) is empty


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize(
    ("count", "mode", "doubted"), [(2, "linear", True), (30, "cubic", True), (3, "nearest", False)]
)
def test_labels_that_would_be_blended_are_said(tmp_path, frames, count, mode, doubted):
    """A mask too; not where `--labels` or nearest neighbours keep them whole."""
    rng, shape = np.random.default_rng(0), (8, 9, 7, frames)
    stored = nib.Nifti1Image(rng.integers(0, count, shape).astype(np.uint8).squeeze(), np.eye(4))
    stored.header.set_xyzt_units("mm")
    nib.save(stored, tmp_path / "labels.nii.gz")
    still, path, out = read_in_order(shifts(tmp_path, 0.3)), tmp_path / "labels.nii.gz", tmp_path / "out.nii.gz"
    doubt = apply_files(path, still, out, path, mode).doubt
    assert (f"{count} different whole numbers" in doubt) is doubted
    assert ("--labels" if frames == 1 else "-n nearest") in doubt or not doubted
    if frames == 1:
        assert not apply_files(path, still, out, path, labels=True).doubt


@pytest.mark.parametrize("values", ["many", "fractions"])
def test_an_image_is_no_labels(tmp_path, values):
    rng, shape = np.random.default_rng(0), (8, 9, 7)
    data = rng.integers(0, 200, shape) if values == "many" else rng.integers(0, 4, shape) / 4
    stored = nib.Nifti1Image(data.astype(np.float32), np.eye(4))
    stored.header.set_xyzt_units("mm")
    nib.save(stored, tmp_path / "image.nii.gz")
    path = tmp_path / "image.nii.gz"
    assert not apply_files(path, read_in_order(shifts(tmp_path, 0.3)), tmp_path / "out.nii.gz", path).doubt


@dimensions
@pytest.mark.parametrize("way", ["there", "back", "as written"])
def test_points_beyond_the_field_are_said(case, ndim, way):
    """Not those within half a voxel of it; an affine has none. Back, what counts is where the points come from."""
    folder, fixed, _, transform = case(ndim)
    far = fixed.shape[0] - 0.55, fixed.shape[0] - 0.4, -1.0, 77000.0
    voxels = fixed.to_voxels(fixed.centre.view(1, -1, 1)).expand(1, ndim, 5).clone()
    voxels[0, 0, 1:] = torch.tensor(far)
    points = fixed.to_world(voxels)
    chain, names = transform, [str(folder / name) for name in ("a_1Warp.nii.gz", "a_0GenericAffine.mat")]
    if way != "there":
        points = transform.at(points)
    if way == "as written":
        chain = read_in_order([f"[{names[1]},1]", str(folder / "a_1InverseWarp.nii.gz")])
    elif way == "back":
        chain = read_in_order(names, invert=True)
    rows = "\n".join(",".join(map(repr, row)) for row in points[0].T.tolist())
    (folder / "points.csv").write_text(f"{','.join('RAS'[:ndim])}\n{rows}\n")
    doubt = apply_files(folder / "points.csv", chain, folder / "out.csv").doubt
    assert "3 of 5 points" in doubt
    assert "--space" in doubt
    assert not apply_files(folder / "points.csv", affine(ndim), folder / "out.csv").doubt


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_each_frame_comes_as_it_would_alone(case, mode):
    """And the series keeps its beat: the third of a second between frames, in the header's milliseconds."""
    folder, fixed, moving, _ = case(3)
    frames = torch.rand(4, *moving.shape, generator=torch.Generator().manual_seed(5))
    for n, frame in enumerate(frames):
        write(Image(frame[None, None], moving), folder / f"frame{n}.nii.gz")
    placed = nib.load(folder / "frame0.nii.gz")
    series = nib.Nifti1Image(frames.movedim(0, -1).numpy(), placed.affine)
    series.header["pixdim"][4] = 333
    series.header.set_xyzt_units("mm", "msec")
    nib.save(series, folder / "series.nii.gz")
    chain = read_in_order([str(folder / "a_Composite.h5")])
    done = apply_files(folder / "series.nii.gz", chain, folder / "out.nii.gz", folder / "fixed.nii.gz", mode)
    assert "4 frames of" in done.what
    out = nib.load(folder / "out.nii.gz")
    assert out.shape == (*fixed.shape, 4)
    assert out.header["pixdim"][4] == 333
    assert out.header.get_xyzt_units() == ("mm", "msec")
    for n in range(4):
        apply_files(folder / f"frame{n}.nii.gz", chain, folder / "alone.nii.gz", folder / "fixed.nii.gz", mode)
        alone = nib.load(folder / "alone.nii.gz")
        np.testing.assert_allclose(out.affine, alone.affine)
        np.testing.assert_allclose(out.get_fdata()[..., n], alone.get_fdata(), atol=1e-4)


def test_a_reference_lends_its_grid_alone(tmp_path):
    """Of frames, of colours and of a constant."""
    write(Image(torch.rand(1, 1, 8, 9, 7), Grid.centred((8, 9, 7))), tmp_path / "image.nii.gz")
    colours = np.zeros((5, 6, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for array in (np.zeros((5, 6, 4, 3), np.float32), colours, np.zeros((5, 6, 4), np.float32)):
        stored = nib.Nifti1Image(array, np.eye(4))
        stored.header.set_xyzt_units("mm")
        nib.save(stored, tmp_path / "reference.nii.gz")
        identity = read_in_order(shifts(tmp_path, 0.0))
        apply_files(tmp_path / "image.nii.gz", identity, tmp_path / "out.nii.gz", tmp_path / "reference.nii.gz")
        assert nib.load(tmp_path / "out.nii.gz").shape == (5, 6, 4)


def test_a_slice_comes_where_its_reference_lies(tmp_path):
    """A coronal one, as it is cut out of a volume."""
    coronal = nib.Nifti1Image(np.random.default_rng(0).random((8, 1, 9), np.float32), np.diag([2.0, 4.0, 2.0, 1.0]))
    coronal.header.set_xyzt_units("mm")
    nib.save(coronal, tmp_path / "coronal.nii.gz")
    write_transform(Affine.identity(2), tmp_path / "still.tfm")
    still = read_in_order([str(tmp_path / "still.tfm")])
    apply_files(tmp_path / "coronal.nii.gz", still, tmp_path / "out.nii.gz", tmp_path / "coronal.nii.gz")
    out = nib.load(tmp_path / "out.nii.gz")
    assert out.shape == (8, 1, 9)
    np.testing.assert_allclose(out.affine, coronal.affine)
    np.testing.assert_allclose(out.get_fdata(), coronal.get_fdata(), atol=1e-6)


def test_surfaces_are_pushed(tmp_path):
    vertices = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    arrays = [
        nib.gifti.GiftiDataArray(vertices, "NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(np.array([[0, 1, 2]], np.int32), "NIFTI_INTENT_TRIANGLE"),
    ]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / "mesh.surf.gii")
    transform = read_in_order(shifts(tmp_path, 2.5))
    apply_files(tmp_path / "mesh.surf.gii", transform, tmp_path / "moved.surf.gii")
    moved = read_points(tmp_path / "moved.surf.gii").points.data[0].numpy()
    np.testing.assert_allclose(moved, vertices + np.array([2.5, 0, 0]), atol=1e-6)


@pytest.mark.parametrize("name", ["P.CSV", "p.mrk.json"])
def test_points_are_known_by_any_of_their_endings(tmp_path, name):
    """And what a registration pushes ends as they do."""
    position = {"position": [1.0, 2.0, 3.0]}
    lists = {"markups": [{"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [position]}]}
    (tmp_path / name).write_text("R,A,S\n1,2,3\n" if name == "P.CSV" else json.dumps(lists))
    out = tmp_path / pushed_name("moved", tmp_path / name)
    assert out.name == f"moved{name[1:]}"
    apply_files(tmp_path / name, read_in_order(shifts(tmp_path, 2.5)), out)
    assert read_points(out).points.data.tolist() == [[[3.5, 2, 3]]]


@pytest.mark.parametrize("name", ["[a.h5,2]", "[a.h5", "[]", "[a.h5,1,1]"])
def test_brackets_that_say_nothing(name):
    with pytest.raises(InputError, match="for its inverse"):
        read_in_order([name])


def test_no_transforms_at_all():
    with pytest.raises(InputError, match="0 pieces"):
        read_in_order([])


def saved_slice(path, values, affine):
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
@pytest.mark.parametrize("thin", [0, 1, 2])
def test_a_volume_is_cut_onto_one_oblique_slice(case, thin, mode):
    """As the same slice comes out of the whole volume; frames and labels alike."""
    folder, fixed, _, transform = case(3)
    index = fixed.shape[thin] // 2
    affine = fixed.affine.numpy().copy()
    affine[:3, 3] += index * affine[:3, thin]
    shape = tuple(1 if axis == thin else n for axis, n in enumerate(fixed.shape))
    reference = saved_slice(folder / "slice.nii.gz", np.zeros(shape, np.float32), affine)
    for name, labels in (("moving", False), ("labels", True)):
        if labels and mode == "cubic":
            continue
        outs = [folder / "whole.nii.gz", folder / "cut.nii.gz"]
        for out, onto in zip(outs, (folder / "fixed.nii.gz", reference), strict=True):
            apply_files(folder / f"{name}.nii.gz", transform, out, onto, None if labels else mode, labels)
        whole, cut = map(nib.load, outs)
        truth = np.take(np.asarray(whole.dataobj), [index], axis=thin)
        np.testing.assert_allclose(np.asarray(cut.dataobj), truth, atol=0 if labels else 2e-5)
        np.testing.assert_allclose(cut.affine, affine, atol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_slice_over_time_comes_frame_by_frame(tmp_path, ndim):
    """By a transform of the plane, and by one of the world that moves it within its plane."""
    rng, grid = np.random.default_rng(0), np.diag([2.0, 2, 8, 1])
    frames = rng.random((20, 22, 1, 4), np.float32)
    cine = saved_slice(tmp_path / "cine.nii.gz", frames, grid)
    stored = nib.load(cine)
    stored.header["pixdim"][4] = 0.5
    nib.save(stored, cine)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[0, -1], matrix[1, -1] = -3.0, 1.0
    apply_files(cine, Affine(matrix), tmp_path / "all.nii.gz", cine)
    moved = nib.load(tmp_path / "all.nii.gz")
    assert moved.shape == frames.shape
    assert moved.header["pixdim"][4] == 0.5
    for n in range(4):
        one = saved_slice(tmp_path / "one.nii.gz", frames[..., n], grid)
        apply_files(one, Affine(matrix), tmp_path / "out.nii.gz", one)
        alone = np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj)
        np.testing.assert_allclose(np.asarray(moved.dataobj)[..., n], alone, atol=1e-6)
        assert alone.any()


IDS = np.array([0, 997, 312782546, 614454276, 614454277, 16777217], np.int64)  # of Allen's atlas: beyond 24 bits
NUMBERS = {
    "int32": IDS.astype(np.int32),
    "uint32": np.array([0, 7, 2**32 - 1, 2**32 - 2], np.uint32),
    "uint16": np.array([0, 65535, 65534], np.uint16),
    "int16": np.array([-1000, 0, 32767, -32768], np.int16),
    "uint8": np.array([3, 255], np.uint8),
    "int64": IDS,
    "float64": np.array([1 / 3, 1e9 + 0.125, -2.5e-7]),
    "float32": np.array([1 / 3, -7e8], np.float32),
}


def stored(path, values, affine=None, **header):
    image = nib.Nifti1Image(values, np.eye(4) if affine is None else affine, dtype=values.dtype)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("kind", NUMBERS)
def test_nearest_neighbours_copy_the_files_own_numbers(tmp_path, kind, frames):
    """A voxel further along; where nothing was, 0 or the least at the border."""
    numbers = NUMBERS[kind]
    values = numbers[np.random.default_rng(0).integers(0, len(numbers), (9, 8, 10, frames))].squeeze()
    path, out = stored(tmp_path / "own.nii.gz", values), tmp_path / "out.nii.gz"
    apply_files(path, read_in_order(shifts(tmp_path, 1.0)), out, path, "nearest")
    found = np.asanyarray(nib.load(out).dataobj)
    assert np.array_equal(found[:-1], values[1:])
    assert found[-1].max() <= 0
    assert (found.dtype.kind == "f") is (values.dtype.kind == "f")
    apply_files(path, read_in_order(shifts(tmp_path, 1.0)), out, path, "nearest", outside=-7.5)
    found = np.asanyarray(nib.load(out).dataobj)
    assert np.array_equal(found[:-1], values[1:])
    assert (found[-1] == -7.5).all()


def test_scaled_numbers_are_copied_too(tmp_path):
    image = nib.Nifti1Image(np.arange(9 * 8 * 10, dtype=np.int16).reshape(9, 8, 10), np.eye(4))
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(0.1, 1e6)
    nib.save(image, tmp_path / "scaled.nii.gz")
    path, out = tmp_path / "scaled.nii.gz", tmp_path / "out.nii.gz"
    apply_files(path, read_in_order(shifts(tmp_path, 0.0)), out, path, "nearest")
    assert np.array_equal(nib.load(out).get_fdata(), nib.load(path).get_fdata())


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("kind", ["regions", "ids"])
def test_label_maps_of_many_regions_are_said(tmp_path, mode, kind):
    """200 regions of some voxels each, as of a parcellation; and as many ids as voxels, beyond 24 bits."""
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.permutation(210).reshape(5, 6, 7)[..., None, None], np.ones((1, 1, 1, 3, 3), int))
    regions = blocks.transpose(0, 3, 1, 4, 2).reshape(15, 18, 7).repeat(3, 2) * (kind == "regions")
    ids = rng.integers(2**28, 2**30, (15, 18, 21)) * (kind == "ids")
    path = stored(tmp_path / "labels.nii.gz", (regions + ids).astype(np.int32))
    doubt = apply_files(path, read_in_order(shifts(tmp_path, 0.3)), tmp_path / "out.nii.gz", path, mode).doubt
    assert "--labels" in doubt


@pytest.mark.parametrize("pad", [-1e6, -(2.0**30)])
def test_a_background_far_below_makes_no_labels(tmp_path, pad):
    values = np.random.default_rng(0).integers(0, 900, (15, 18, 21)).astype(np.float32)
    values[:4] = pad
    path = stored(tmp_path / "image.nii.gz", values)
    assert not apply_files(path, read_in_order(shifts(tmp_path, 0.3)), tmp_path / "out.nii.gz", path).doubt


def test_a_scan_of_whole_numbers_is_no_label_map(shared, tmp_path):
    for path in (
        shared / "data" / "brains" / "2mm" / "sub-13_T1w.nii.gz",
        min((shared / "data" / "hippocampus" / "imagesTr").iterdir()),
    ):
        values = np.rint(nib.load(path).get_fdata()).astype(np.int16)
        whole = stored(tmp_path / "whole.nii.gz", values, nib.load(path).affine)
        assert not apply_files(whole, read_in_order(shifts(tmp_path, 0.3)), tmp_path / "out.nii.gz", whole).doubt


@pytest.mark.filterwarnings("ignore:.*sheared:UserWarning")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"out": "o.mha"}, "written as .nii"),
        ({"out": "file/o.nii.gz"}, "is a file"),
        ({"out": "folder"}, "is a folder"),
        ({"given": "wide.nii.gz", "mode": "nearest"}, "32 bits"),
        ({"given": "wide.nii.gz", "labels": True}, "32 bits"),
        ({"given": "wide4.nii.gz", "mode": "nearest"}, "32 bits"),
        ({"reference": "sheared.nii.gz"}, "sheared"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch, change, says):
    def never(*_):
        raise AssertionError("the work began")

    monkeypatch.setattr("pullback.workflows.apply.pull_in_slabs", never)
    values = np.random.default_rng(0).random((9, 8, 10)).astype(np.float32)
    stored(tmp_path / "image.nii.gz", values)
    wide = (values > 0.5) * np.int64(2**40)
    stored(tmp_path / "wide.nii.gz", wide)
    stored(tmp_path / "wide4.nii.gz", np.stack([wide, wide], -1))
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    image = nib.Nifti1Image(values, sheared)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "sheared.nii.gz")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    asked = {"given": "image.nii.gz", "out": "o.nii.gz", "reference": "image.nii.gz"} | change
    paths = {key: tmp_path / asked.pop(key) for key in ("given", "out", "reference")}
    with pytest.raises(InputError, match=says):
        apply_files(transform=read_in_order(shifts(tmp_path, 0.5)), **paths, **asked)


@pytest.mark.parametrize("edge", [4e-6, 1e-4, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_voxels_of_any_size_anywhere(tmp_path, edge, offset):
    """As with voxels of 1 mm at the origin; `offset` is in voxels."""
    values = np.random.default_rng(0).random((9, 8, 10)).astype(np.float32)
    found = {}
    for size, away in ((1.0, 0.0), (edge, offset)):
        affine = np.diag([size, size, size, 1.0])
        affine[:3, 3] = away * size
        path = stored(tmp_path / "image.nii.gz", values, affine)
        apply_files(path, read_in_order(shifts(tmp_path, 1.5 * size)), tmp_path / "out.nii.gz", path)
        found[size] = nib.load(tmp_path / "out.nii.gz").get_fdata()
    np.testing.assert_allclose(found[edge], found[1.0], atol=1e-3 * (1 + offset / 1e3))  # the header is float32
