"""Transforms of every tool by the format it documents, by the tool where it runs here, and never for another's."""

import contextlib
import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files import TransformKind, read_any, read_transform, write_any
from pullback.space import Affine, Displacement, FreeForm

PLACE = torch.tensor([[1.0, 2, 3], [-4, 3, 1], [0, -3, 2.5]], dtype=torch.float64)


def turned(ndim=3, seed=3, size=0.15):
    """An affine that commutes with no flip."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += size * rng.normal(size=(ndim, ndim))
    matrix[:-1, -1] = rng.uniform(-3, 3, ndim)
    return Affine(torch.from_numpy(matrix))


@pytest.fixture
def scene(oblique, smooth_field):
    """A fixed and a moving grid, and a map between them that deforms."""
    fixed, moving = oblique((14, 16, 12), 1, 1.0), oblique((15, 11, 16), 2, 1.0)
    return fixed, moving, turned() @ Displacement(smooth_field(fixed.shape, 3, amplitude=1.5), fixed)


def places_of(transform, grid):
    """Where each voxel of a grid goes, `(*shape, d)`."""
    where = grid.to_world(grid.voxels(torch.zeros(1, dtype=torch.float64))[None])
    return transform.at(where)[0].movedim(0, -1).numpy(), where[0].movedim(0, -1).numpy()


def vectors(path, values, grid, name="", parameter=0, description="", intent=1007):
    image = nib.Nifti1Image(values[:, :, :, None].astype(np.float32), grid.affine.numpy())
    image.header.set_intent(intent, name=name)
    image.header["intent_p1"], image.header["descrip"] = parameter, description
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def inner(grid):
    where = grid.voxels(torch.zeros(1, dtype=torch.float64))[None]
    return grid.to_world(where[:, :, 3:-3:2, 3:-3:2, 3:-3:2].flatten(2))


def same(found, truth, grid, mm=2e-4):
    torch.testing.assert_close(found.at(inner(grid)), truth.at(inner(grid)), rtol=0, atol=mm)


# SPM and NiftyReg: NIfTI vectors like ITK's, of another meaning


@pytest.mark.parametrize(
    ("name", "description", "intent"),
    [("", "Deformation", 0), ("", "Deformation (templ. to. ind.)", 0), ("Mapping", "Deformation field", 1007)],
)
def test_spm_stores_the_places_of_voxels(tmp_path, scene, name, description, intent):
    fixed, _, truth = scene
    path = vectors(tmp_path / "y_sub.nii", places_of(truth, fixed)[0], fixed, name, 0, description, intent)
    same(read_transform(path), truth, fixed)


@pytest.mark.parametrize("parameter", [0, 1])
def test_niftyreg_stores_places_or_displacements_in_ras(tmp_path, scene, parameter):
    fixed, _, truth = scene
    there, here = places_of(truth, fixed)
    path = vectors(tmp_path / "t.nii.gz", there - here if parameter else there, fixed, "NREG_TRANS", parameter)
    same(read_transform(path), truth, fixed)


@pytest.mark.parametrize(("parameter", "degree"), [(2, 3), (6, 1)])
def test_control_points_of_niftyreg_are_places(tmp_path, scene, parameter, degree):
    """Splines reproduce affine maps, to which each control point goes; other coefficients are ITK's splines of them."""
    fixed, *_ = scene
    knots = fixed.at_spacing(tuple(3 * fixed.spacing)).padded((2, 2, 2))
    there, here = places_of(turned(), knots)
    path = vectors(tmp_path / "cpp.nii.gz", there, knots, "NREG_TRANS", parameter)
    same(read_transform(path), turned(), fixed)
    wild = there + np.random.default_rng(0).normal(size=there.shape)
    found = read_transform(vectors(tmp_path / "wild.nii.gz", wild, knots, "NREG_TRANS", parameter))
    truth = FreeForm(knots.from_mm(torch.from_numpy(wild - here).movedim(-1, 0)[None]), knots, degree)
    same(found, truth, fixed)


@pytest.mark.parametrize("parameter", [3, 4, 5])
def test_velocities_of_niftyreg_are_refused(tmp_path, scene, parameter):
    fixed, _, truth = scene
    path = vectors(tmp_path / "v.nii.gz", places_of(truth, fixed)[0], fixed, "NREG_TRANS", parameter)
    with pytest.raises(InputError, match=r"v\.nii\.gz: a velocity.*reg_transform"):
        read_transform(path)


@pytest.mark.parametrize("description", ["Velocity (1 2 3)", "Flow Field"])
def test_velocities_of_spm_are_refused(tmp_path, scene, description):
    fixed, _, truth = scene
    path = vectors(tmp_path / "u_rc1.nii", places_of(truth, fixed)[0], fixed, "", 0, description, 0)
    with pytest.raises(InputError, match="Deformations"):
        read_transform(path)


def test_numbers_of_another_kind_than_the_header_says_are_refused(tmp_path, scene):
    fixed, _, truth = scene
    there, here = places_of(truth.inner, fixed)
    for name, says in (("Mapping", "itk"), ("NREG_TRANS", "displacements")):
        path = vectors(tmp_path / "y_.nii", there - here, fixed, name)
        with pytest.raises(InputError, match=says):
            read_transform(path)
    unnamed = vectors(tmp_path / "unnamed.nii", there, fixed)
    with pytest.raises(InputError, match="--from spm"):
        read_transform(unnamed)
    same(read_any(unnamed, TransformKind.SPM), truth.inner, fixed)
    with pytest.raises(InputError, match=r"'Mystery'.*--from"):
        read_transform(vectors(tmp_path / "mystery.nii", there - here, fixed, "Mystery"))


# FreeSurfer


def described(grid, valid=1):
    """The lines of a volume, by the definition of c_ras: the world of the voxel at half the shape."""
    affine, size = grid.affine.numpy(), grid.spacing.numpy()
    columns = affine[:3, :3] / size
    centre = affine[:3, :3] @ (np.array(grid.shape) / 2) + affine[:3, 3]
    rows = {"volume": grid.shape, "voxelsize": size, "xras": columns[:, 0], "yras": columns[:, 1]}
    rows |= {"zras": columns[:, 2], "cras": centre}
    told = [f"{key:<6} = {' '.join(f'{x:.12g}' for x in row)}" for key, row in rows.items()]
    return "\n".join([f"valid = {valid}  # volume info", "filename = a b.mgz", *told])


def surface_coordinates(grid):
    """Voxels to tkRAS: x to the left, y down, z forwards, about the middle of the volume."""
    size, shape = grid.spacing.numpy(), np.array(grid.shape)
    linear = np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]) * size
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = linear, -linear @ (shape / 2)
    return out


def lta(path, kind, matrix, moving, fixed, valid=1):
    rows = "\n".join(" ".join(f"{x:.15e}" for x in row) for row in matrix)
    text = (
        f"# made\ntype      = {kind} # KIND\nnxforms   = 1\nmean      = 0.0 0.0 0.0\nsigma     = 1.0\n1 4 4\n{rows}\n"
    )
    text += f"src volume info\n{described(moving, valid)}\ndst volume info\n{described(fixed, valid)}\nsubject bert\n"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", [0, 1, 14])
def test_lta_files_take_the_moving_world_to_the_fixed(tmp_path, scene, kind):
    fixed, moving, _ = scene
    forward = np.linalg.inv(turned().matrix.numpy())  # moving → fixed
    between = np.linalg.inv(fixed.affine.numpy()) @ forward @ moving.affine.numpy()
    back = surface_coordinates(moving) @ np.linalg.inv(between) @ np.linalg.inv(surface_coordinates(fixed))
    matrix = {0: between, 1: forward, 14: back}[kind]
    found = read_transform(lta(tmp_path / "t.lta", kind, matrix, moving, fixed))
    torch.testing.assert_close(found.matrix, turned().matrix, rtol=0, atol=1e-6)
    bare = lta(tmp_path / "bare.lta", kind, matrix, moving, fixed, valid=0)
    torch.testing.assert_close(read_any(bare, None, fixed, moving).matrix, turned().matrix, rtol=0, atol=1e-6)
    if kind != 1:
        with pytest.raises(InputError, match="--fixed"):
            read_transform(bare)


def test_nitransforms_reads_our_lta(tmp_path, scene):
    linear = pytest.importorskip("nitransforms.linear", reason="needs nitransforms")
    fixed, moving, _ = scene
    write_any(turned(), tmp_path / "t.lta", None, fixed, moving)
    theirs = linear.load(tmp_path / "t.lta", fmt="fs")
    np.testing.assert_allclose(theirs.map(PLACE.numpy()), turned()(PLACE).numpy(), atol=1e-4)


def test_other_types_of_lta_are_refused(tmp_path, scene):
    fixed, moving, _ = scene
    with pytest.raises(InputError, match=r"type 21.*lta_convert"):
        read_transform(lta(tmp_path / "t.lta", 21, np.eye(4), moving, fixed))


def m3z(path, places, before, kind, image, atlas, step=1):
    shape = places.shape[:3]
    nodes = np.zeros(shape, [("before", ">f4", 3), ("place", ">f4", 3), ("atlas", ">i4", 3)])
    nodes["place"], nodes["before"] = places, before
    blocks = struct.pack(">f4if", 1.0, *shape, step, 20.0) + nodes.tobytes() + struct.pack(">i", 10)
    for grid in (image, atlas):
        affine, size = grid.affine.numpy(), grid.spacing.numpy()
        centre = affine[:3, :3] @ (np.array(grid.shape) / 2) + affine[:3, 3]
        blocks += struct.pack(">4i15f", 1, *grid.shape, *size, *(affine[:3, :3] / size).T.ravel(), *centre)
        blocks += b"name".ljust(512, b"\0")
    blocks += struct.pack(">ii", 11, kind) + struct.pack(">i", 12) + bytes(4 * places[..., 0].size)
    path.write_bytes(gzip.compress(blocks))
    return path


@pytest.mark.parametrize("kind", [1, 2])
def test_nodes_of_an_m3z_have_places_in_the_image(tmp_path, scene, kind):
    fixed, moving, truth = scene
    there, here = places_of(truth, fixed)
    inverse = np.linalg.inv(moving.affine.numpy())
    places = there if kind == 1 else there @ inverse[:3, :3].T + inverse[:3, 3]
    places[0, 0, 0] = 0  # of an invalid node
    before = here.copy()
    before[0, 0, 0] = 0
    path = m3z(tmp_path / "t.m3z", places, before, kind, moving, fixed)
    found = read_transform(path)
    same(found, truth, fixed)
    field = found.own_displacement[0]
    nearest = (field[:, 1, 0, 0], field[:, 0, 1, 0], field[:, 0, 0, 1])
    assert any(torch.equal(field[:, 0, 0, 0], shift) for shift in nearest)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:4000]))
    with pytest.raises(InputError, match=r"t\.m3z"):
        read_transform(path)


# c3d, greedy, ITK-SNAP


@pytest.mark.parametrize("ndim", [2, 3])
def test_rows_of_numbers_are_asked_about_and_then_ras(tmp_path, ndim):
    truth = turned(ndim)
    path = tmp_path / "affine.txt"
    np.savetxt(path, truth.matrix.numpy())
    with pytest.raises(InputError, match=r"c3d.*--from"):
        read_transform(path)
    torch.testing.assert_close(read_any(path, TransformKind.C3D).matrix, truth.matrix)


# fields of ITK in its own formats


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nhdr"])
def test_fields_in_itks_formats_are_what_itk_takes_them_for(tmp_path, scene, ending):
    fixed, _, truth = scene
    write_any(truth, tmp_path / f"f{ending}", None, fixed)
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / f"f{ending}"), sitk.sitkVectorFloat64))
    points = inner(fixed)[0].T.numpy()
    theirs = np.array([field.TransformPoint(p) for p in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    np.testing.assert_allclose(theirs, truth(torch.from_numpy(points)), atol=2e-4)
    same(read_transform(tmp_path / f"f{ending}"), truth, fixed)


def test_fields_of_another_space_or_of_colours_are_refused(tmp_path, scene):
    fixed, _, truth = scene
    write_any(truth, tmp_path / "f.nrrd", None, fixed)
    content = (tmp_path / "f.nrrd").read_bytes()
    lps = b"space: left-posterior-superior\n"
    for name, said in (("ras", b"space: RAS\n"), ("turned", lps + b"measurement frame: (0,1,0) (1,0,0) (0,0,1)\n")):
        (tmp_path / f"{name}.nrrd").write_bytes(content.replace(lps, said))
        with pytest.raises(InputError, match=rf"{name}\.nrrd.*Slicer"):
            read_transform(tmp_path / f"{name}.nrrd")
    plain = lps + b"measurement frame: (1,0,0) (0,1,0) (0,0,1)\n"
    (tmp_path / "plain.nrrd").write_bytes(content.replace(lps, plain))
    same(read_transform(tmp_path / "plain.nrrd"), truth, fixed)
    colours = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "colours.mha"))
    with pytest.raises(InputError, match="displacement field"):
        read_transform(tmp_path / "colours.mha")


def test_itks_own_splines_are_read_and_ours_are_itks(tmp_path, scene):
    fixed, *_ = scene
    knots = fixed.at_spacing(tuple(3 * fixed.spacing)).padded((1, 1, 1))
    truth = FreeForm(torch.randn(1, 3, *knots.shape, dtype=torch.float64), knots, 3)
    write_any(turned() @ truth, tmp_path / "t.h5")
    theirs = sitk.ReadTransform(str(tmp_path / "t.h5"))
    points = inner(fixed)[0].T.numpy()
    moved = np.array([theirs.TransformPoint(p) for p in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    np.testing.assert_allclose(moved, (turned() @ truth)(torch.from_numpy(points)), atol=1e-5)
    same(read_transform(tmp_path / "t.h5"), turned() @ truth, fixed)


# each for itself


WRITTEN = {
    "t.h5": TransformKind.ITK,
    "t.nii.gz": TransformKind.ITK,
    "t.mha": TransformKind.ITK,
    "y_t.nii": TransformKind.SPM,
    "n.nii.gz": TransformKind.NIFTYREG,
    "TransformParameters.0.txt": TransformKind.ELASTIX,
    "w.nii.gz": TransformKind.FSL,
    "disp_1_2.nii.gz": TransformKind.LEARN2REG,
    "t.npz": TransformKind.LEARN2REG,
    "t.x5": TransformKind.X5,
    "prefix_": TransformKind.ANTS,
}
LINEAR = {
    "a.h5": TransformKind.ITK,
    "a.tfm": TransformKind.ITK,
    "0GenericAffine.mat": TransformKind.ITK,
    "a.lta": TransformKind.FREESURFER,
    "TransformParameters.a.txt": TransformKind.ELASTIX,
    "c3d.txt": TransformKind.C3D,
    "n.txt": TransformKind.NIFTYREG,
    "flirt.mat": TransformKind.FSL,
    "a.x5": TransformKind.X5,
}
ALIKE = {TransformKind.FSL, TransformKind.C3D, TransformKind.NIFTYREG}  # affines as rows of numbers: nothing tells
GRIDDED = {TransformKind.FSL, TransformKind.LEARN2REG}  # fields without a name: nothing tells


@pytest.mark.parametrize("name", [*WRITTEN, *LINEAR])
def test_no_reader_takes_a_file_for_what_it_is_not(tmp_path, scene, name):
    if name.endswith("x5"):
        pytest.importorskip("nitransforms")
    fixed, moving, truth = scene
    own = (WRITTEN | LINEAR)[name]
    truth = turned() if name in LINEAR else truth
    write_any(truth, tmp_path / name, own, fixed, moving)
    same(read_any(tmp_path / name, own, fixed, moving), truth, fixed, 1e-3)
    for kind in [None, *TransformKind]:
        told_apart = kind is None or not {own, kind} <= (ALIKE if name in LINEAR else GRIDDED)
        with contextlib.suppress(InputError):
            found = read_any(tmp_path / name, kind, fixed, moving)
            if told_apart:
                same(found, truth, fixed, 1e-3)


@pytest.mark.parametrize("name", WRITTEN)
def test_splines_of_another_tool_are_written_as_what_a_file_holds(tmp_path, scene, name):
    """Coefficients or the displacement of the fixed image's voxels: there both are right."""
    if name.endswith("x5"):
        pytest.importorskip("nitransforms")
    fixed, moving, _ = scene
    knots = fixed.at_spacing(tuple(3 * fixed.spacing)).padded((1, 1, 1))
    truth = FreeForm(0.3 * torch.randn(1, 3, *knots.shape, dtype=torch.float64), knots, 2)
    write_any(truth, tmp_path / name, WRITTEN[name], fixed, moving)
    same(read_any(tmp_path / name, WRITTEN[name], fixed, moving), truth, fixed, 1e-3)


def test_images_are_no_transforms(tmp_path, scene):
    fixed, *_ = scene
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random(fixed.shape), fixed.affine.numpy()), tmp_path / "t1.nii")
    for kind in [None, *TransformKind]:
        with pytest.raises(InputError, match="t1"):
            read_any(tmp_path / "t1.nii", kind, fixed, fixed)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("talairach.xfm", b"MNI Transform File\n", "lta_convert"),
        ("register.dat", b"bert\n1\n1\n0.15\n", "lta_convert"),
        ("anat_seg8.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64\0\0", "MATLAB"),
        ("notes.txt", b"dear diary\n", "--from"),
        ("empty.h5", b"", "no HDF5"),
    ],
)
def test_strangers_are_named_with_their_remedy(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_transform(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_transform(tmp_path / "absent.lta")


def test_a_grid_that_is_needed_is_asked_for(tmp_path, scene):
    _, _, truth = scene
    for name, kind in {**WRITTEN, "t.lta": TransformKind.FREESURFER, "c.txt": TransformKind.C3D}.items():
        if kind in (TransformKind.ITK, TransformKind.X5) and name.endswith(("h5", "x5")):
            continue  # which hold the affine and the field as they are
        with pytest.raises(InputError, match=r"--fixed|holds a"):
            write_any(truth @ truth, tmp_path / name, kind, None, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [kind for kind in TransformKind if kind is not TransformKind.ANTS])
def test_names_that_another_tool_would_not_read_are_refused(tmp_path, scene, kind):
    if kind is TransformKind.X5:
        pytest.skip("the library takes any name")
    fixed, moving, _ = scene
    with pytest.raises(InputError, match=r"a\.bin"):
        write_any(turned(), tmp_path / "a.bin", kind, fixed, moving)
    assert not list(tmp_path.iterdir())
