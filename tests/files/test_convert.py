"""Every family of files: what is written is read back as the same map, and other tools see the same map in it."""

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.files import (
    TransformKind,
    read_ants,
    read_any,
    read_channels,
    read_transform,
    write,
    write_any,
    write_image,
    write_transform,
)
from pullback.files.transforms.fsl import read_fsl, write_fsl
from pullback.files.transforms.learn2reg import read_learn2reg, write_learn2reg
from pullback.space import (
    Affine,
    BSpline,
    Displacement,
    Grid,
    Image,
    Motion,
    Points,
    ThinPlate,
    Transform,
    Velocity,
    pull,
)

DIMENSIONS = pytest.mark.parametrize("ndim", [2, 3])


def affine(ndim, seed=0, size=0.08):
    rng = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += size * rng.normal(size=(ndim, ndim))
    matrix[:-1, -1] = rng.uniform(-2, 2, ndim)
    return Affine(torch.from_numpy(matrix))


@pytest.fixture
def scene(oblique, smooth_field):
    """Grids of another shape, spacing, orientation and handedness, and a map between them."""

    def make(ndim, kind="composite"):
        fixed, moving = oblique((12, 14, 13)[:ndim], 1), oblique((15, 11, 16)[:ndim], 2)
        warp = Displacement(smooth_field(fixed.shape, 3, amplitude=1.5), fixed)
        kinds = {"affine": affine(ndim), "displacement": warp, "composite": affine(ndim) @ warp}
        kinds["velocity"] = Velocity(warp.field, fixed)
        return fixed, moving, kinds[kind]

    return make


def inner(grid, margin=2):
    """The voxels of a grid that keep off its border, `(1, d, N)` in voxels and in the world."""
    where = grid.voxels(torch.zeros(1, dtype=torch.float64))
    where = where[(slice(None), *(slice(margin, n - margin) for n in grid.shape))].flatten(1)[None]
    return where, grid.to_world(where)


def same(one, two, grid, mm=1e-4):
    """On voxels and between them: a field is linear there, also when an affine follows it."""
    where, _ = inner(grid)
    for offset in (0, 0.3, 0.5):
        world = grid.to_world(where + offset)
        torch.testing.assert_close(one.at(world), two.at(world), rtol=0, atol=mm)


FILES = {
    "t.h5": TransformKind.ITK,
    "t.tfm": TransformKind.ITK,
    "t.txt": TransformKind.ITK,
    "t.nii.gz": TransformKind.ITK,
    "t.x5": TransformKind.X5,
    "disp_0001_0002.nii.gz": TransformKind.LEARN2REG,
    "disp_0001_0002.npz": TransformKind.LEARN2REG,
}
NAMED = {"prefix_": TransformKind.ANTS, "fsl.nii.gz": TransformKind.FSL}


@DIMENSIONS
@pytest.mark.parametrize("kind", ["affine", "displacement", "velocity", "composite"])
@pytest.mark.parametrize("name", [*FILES, *NAMED])
def test_every_kind_of_transform_comes_back_from_every_kind_of_file(tmp_path, scene, name, kind, ndim):
    if name.endswith("x5"):
        pytest.importorskip("nitransforms")
        if ndim == 2:
            pytest.skip("X5 of nitransforms 25.1 holds three dimensions only; the refusal is tested below")
    fixed, moving, transform = scene(ndim, kind)
    written = write_any(transform, tmp_path / name, NAMED.get(name), fixed, moving)
    assert all(path.is_file() for path in written)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in written)
    again = read_any(tmp_path / name, NAMED.get(name), fixed, moving)
    same(again, transform, fixed)


@DIMENSIONS
@pytest.mark.parametrize("kind", [TransformKind.FSL, TransformKind.LEARN2REG])
def test_grids_of_one_shape_may_still_lie_elsewhere(tmp_path, scene, oblique, kind, ndim):
    fixed, _, transform = scene(ndim)
    moving = oblique(fixed.shape, 5)
    write_any(transform, tmp_path / "t.nii.gz", kind, fixed, moving)
    same(read_any(tmp_path / "t.nii.gz", kind, fixed, moving), transform, fixed)


@DIMENSIONS
def test_flirt_matrices_come_back(tmp_path, scene, ndim):
    fixed, moving, transform = scene(ndim, "affine")
    write_any(transform, tmp_path / "flirt.mat", TransformKind.FSL, fixed, moving)
    same(read_any(tmp_path / "flirt.mat", TransformKind.FSL, fixed, moving), transform, fixed, 1e-8)


@pytest.mark.parametrize("name", ["t.mat", "t", "t.dat"])
def test_names_of_no_kind_alone_are_asked_about(tmp_path, scene, name):
    fixed, moving, transform = scene(3, "affine")
    every = ", ".join(kind.word for kind in TransformKind)
    with pytest.raises(InputError, match=f"--to: {every}"):
        write_any(transform, tmp_path / name, None, fixed, moving)
    with pytest.raises(InputError, match="no such file"):
        read_any(tmp_path / name)


def test_a_field_of_four_dimensions_is_asked_about_where_no_intent_names_it(tmp_path, scene):
    fixed, moving, transform = scene(3)
    write_any(transform, tmp_path / "warp.nii.gz", TransformKind.FSL, fixed, moving)
    same(read_any(tmp_path / "warp.nii.gz", None, fixed, moving), transform, fixed)
    image = nib.load(tmp_path / "warp.nii.gz")
    image.header["intent_code"] = 0  # as convertwarp leaves it
    nib.save(image, tmp_path / "unnamed.nii.gz")
    with pytest.raises(InputError, match=r"learn2reg or fsl.*--from"):
        read_any(tmp_path / "unnamed.nii.gz", None, fixed, moving)


@pytest.mark.parametrize("kind", [TransformKind.FSL, TransformKind.LEARN2REG, TransformKind.ANTS])
def test_grids_that_are_missing_are_named(tmp_path, scene, kind):
    fixed, _, transform = scene(3)
    with pytest.raises(InputError, match="--fixed"):
        write_any(transform, tmp_path / "t.nii.gz", kind, None if kind is TransformKind.ANTS else fixed)
    assert not list(tmp_path.iterdir())
    if kind is not TransformKind.ANTS:
        with pytest.raises(InputError, match="3-D, the moving 2-D"):
            write_any(transform, tmp_path / "t.nii.gz", kind, fixed, Grid.centred((5, 6)))


@DIMENSIONS
@pytest.mark.parametrize("name", ["t.nii.gz", "t.h5"])
def test_any_transform_is_sampled_where_a_grid_is_named(tmp_path, scene, name, ndim):
    """All of it for NIfTI, all but the affine at its end for ITK, which keeps that as it is."""
    fixed, _, composite = scene(ndim)
    transform = composite @ composite.inner
    if name.endswith("gz"):
        with pytest.raises(InputError, match="name the grid"):
            write_transform(transform, tmp_path / name)
    write_transform(transform, tmp_path / name, on=fixed)
    again = read_transform(tmp_path / name)
    field = again if name.endswith("gz") else again.inner
    assert isinstance(field, Displacement)
    assert field.grid == fixed
    _, world = inner(fixed)
    torch.testing.assert_close(again.at(world), transform.at(world), rtol=0, atol=1e-4)
    if name.endswith("h5"):
        torch.testing.assert_close(again.outer.matrix, composite.outer.matrix)


@DIMENSIONS
@pytest.mark.parametrize("name", [name for name in [*FILES, *NAMED] if name != "t.x5"])
def test_splines_are_sampled_on_the_voxels_of_the_fixed_image(tmp_path, scene, smooth_field, name, ndim):
    """No file holds their coefficients: between the voxels, of which each is right, it is linear."""
    fixed, moving, _ = scene(ndim)
    knots = fixed.at_spacing(tuple(3 * fixed.spacing))
    spline = affine(ndim) @ BSpline(smooth_field(knots.shape, 1, amplitude=1.0), knots)
    write_any(spline, tmp_path / name, NAMED.get(name), fixed, moving)
    _, world = inner(fixed, 1)
    again = read_any(tmp_path / name, NAMED.get(name), fixed, moving)
    torch.testing.assert_close(again.at(world), spline.at(world), rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="name the grid"):
        write_transform(spline, tmp_path / ("t.nii.gz" if name.endswith("gz") else "t.h5"))


@DIMENSIONS
@pytest.mark.parametrize("name", ["t.h5", "t.mat", "prefix_", "flirt.mat"])
def test_any_linear_map_is_written_as_an_affine(tmp_path, scene, name, ndim):
    fixed, moving, _ = scene(ndim)
    motion = Motion.affine(affine(ndim), fixed)
    motion = motion.with_params(torch.linspace(-2, 2, len(motion.coefficients), dtype=torch.float64))
    kind = {"t.mat": TransformKind.ITK, "flirt.mat": TransformKind.FSL, "prefix_": TransformKind.ANTS}.get(name)
    write_any(motion, tmp_path / name, kind, fixed, moving)
    again = read_any(tmp_path / name, kind, fixed, moving)
    torch.testing.assert_close(again.matrix, motion.matrix, rtol=0, atol=1e-8)


class Rotated(Transform):
    """A kind that no file knows: a quarter turn in the first two axes."""

    params, batch = (torch.zeros(1, dtype=torch.float64),), 1
    with_params = inverse = nth = ndim = None

    def __init__(self, ndim):
        self.ndim = ndim

    def at(self, where):
        return torch.cat([-where[:, 1:2], where[:, :1], where[:, 2:]], 1)


@DIMENSIONS
@pytest.mark.parametrize("name", ["t.h5", "t.nii.gz", "t.x5"])
def test_what_no_file_knows_is_sampled_on_the_fixed_grid(tmp_path, scene, name, ndim):
    fixed, moving, _ = scene(ndim)
    if name.endswith("x5") and ndim == 2:
        return
    write_any(Rotated(ndim), tmp_path / name, None, fixed, moving)
    same(read_any(tmp_path / name), Rotated(ndim), fixed)


def test_of_pieces_that_cannot_be_written_none_is(tmp_path):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 1] = 0.1
    grid = Grid((4, 5, 6), matrix)
    with pytest.raises(InputError, match=r"1Warp.nii.gz.*sheared"):
        write_any(affine(3) @ Displacement(torch.zeros(1, 3, 4, 5, 6), grid), tmp_path / "p_", TransformKind.ANTS, grid)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("pieces", "invert"), [([], []), (["a.mat"], [True, False])])
def test_pieces_and_marks_that_do_not_fit(pieces, invert):
    with pytest.raises(InputError, match=f"{len(pieces)} pieces and {len(invert)} marks"):
        read_ants(pieces, invert)


def test_a_prefix_without_pieces(tmp_path):
    with pytest.raises(InputError, match=r"p_1Warp.nii.gz nor p_0GenericAffine.mat"):
        read_any(tmp_path / "p_", TransformKind.ANTS)


# FSL


def nitransforms_image(grid):
    return nib.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine.numpy())


@pytest.mark.parametrize("seeds", [(1, 2), (3, 4), (5, 6), (2, 2)])
def test_flirt_matrices_are_those_of_nitransforms(tmp_path, oblique, seeds):
    io = pytest.importorskip("nitransforms.io.fsl")
    fixed, moving = oblique((9, 10, 11), seeds[0]), oblique((12, 8, 10), seeds[1])
    transform = affine(3, seeds[0])
    images = {"reference": nitransforms_image(fixed), "moving": nitransforms_image(moving)}
    write_fsl(transform, tmp_path / "ours.mat", fixed, moving)
    theirs = io.FSLLinearTransform.from_filename(tmp_path / "ours.mat").to_ras(**images)
    np.testing.assert_allclose(theirs, transform.matrix, atol=1e-9)
    (tmp_path / "theirs.mat").write_text(io.FSLLinearTransform.from_ras(transform.matrix.numpy(), **images).to_string())
    same(read_fsl(tmp_path / "theirs.mat", fixed, moving), transform, fixed, 1e-6)  # written with eight decimals


@pytest.mark.parametrize("x", [-1.0, 1.0])
def test_warps_of_fsl_are_those_of_nitransforms(tmp_path, smooth_field, x):
    """Which knows them along the world's axes and on one grid only: it turns x round and leaves the rest."""
    nitransforms = pytest.importorskip("nitransforms")
    scale = torch.tensor([2 * x, 1.5, 1, 1], dtype=torch.float64)
    grid = Grid((9, 10, 11), torch.diag(scale))
    transform = Displacement(smooth_field(grid.shape, 1, amplitude=1.5), grid)
    write_fsl(transform, tmp_path / "ours.nii.gz", grid, grid)
    theirs = nitransforms.nonlinear.load(tmp_path / "ours.nii.gz", fmt="fsl")
    _, world = inner(grid, 0)
    np.testing.assert_allclose(theirs.map(world[0].T.numpy()), transform.at(world)[0].T, atol=1e-5)
    theirs.to_filename(tmp_path / "theirs.nii.gz", fmt="fsl")
    same(read_fsl(tmp_path / "theirs.nii.gz", grid, grid), transform, grid, 1e-5)


@DIMENSIONS
def test_warps_of_fsl_follow_its_manual_on_any_two_grids(tmp_path, scene, ndim):
    """Coordinates are voxels times their sizes, the first axis counted from its end where the header is right-handed;
    the warp is the difference of the coordinates in the moving and in the fixed image.
    """
    fixed, moving, transform = scene(ndim)
    write_fsl(transform, tmp_path / "warp.nii.gz", fixed, moving)
    warp = nib.load(tmp_path / "warp.nii.gz")
    assert warp.header["intent_code"] == 2006
    assert warp.shape == (*fixed.shape, *[1] * (3 - ndim), 3)

    def millimetres(grid, voxels):
        out = np.array(voxels)
        if np.linalg.det(grid.affine) > 0:
            out[0] = grid.shape[0] - 1 - out[0]
        return out * grid.spacing.numpy()

    for index in np.random.default_rng(0).integers(2, 9, (5, ndim)):
        at = fixed.to_world(torch.from_numpy(index.astype(float)).view(1, ndim, 1))
        there = moving.to_voxels(transform.at(at))[0, :, 0]
        expected = millimetres(moving, there.numpy()) - millimetres(fixed, index.astype(float))
        stored = warp.get_fdata()[(*index, *[0] * (3 - ndim))]
        np.testing.assert_allclose(stored[:ndim], expected, atol=1e-4)
        assert not stored[ndim:].any()


def test_what_is_no_file_of_fsl(tmp_path, scene):
    fixed, moving, transform = scene(3)
    with pytest.raises(InputError, match="holds an affine"):
        write_fsl(transform, tmp_path / "t.mat", fixed, moving)
    with pytest.raises(InputError, match=r"\.mat, its warps"):
        write_fsl(transform, tmp_path / "t.h5", fixed, moving)
    bad = tmp_path / "bad.mat"
    for text, says in [
        ("", "four rows"),
        ("1 2 3", "four rows"),
        ("one two", "four rows"),
        ("0 0 0 0\n" * 3 + "0 0 0 1", "inverted"),
    ]:
        bad.write_text(text)
        with pytest.raises(InputError, match=says):
            read_fsl(bad, fixed, moving)
    with pytest.raises(InputError, match=r"none\.mat"):
        read_fsl(tmp_path / "none.mat", fixed, moving)
    bad.write_text("1 0 0.5 0\n0 1 0 0\n0 0 1 0\n0 0 0 1")
    with pytest.raises(InputError, match="2 dimensions"):
        read_fsl(bad, Grid.centred((5, 6)), Grid.centred((5, 6)))


@pytest.mark.parametrize("fault", ["absolute", "other grid", "coefficients", "vector", "NaN"])
def test_warps_that_would_be_misread_are_refused(tmp_path, fault):
    grid = Grid.centred((9, 10, 11), 2.0)
    data, intent = np.zeros((9, 10, 11, 3), np.float32), 2006
    if fault == "absolute":
        axes = [2.0 * np.arange(n) for n in grid.shape]
        data = np.stack(np.meshgrid(axes[0][::-1], *axes[1:], indexing="ij"), -1).astype(np.float32)
    if fault == "NaN":
        data[3, 4, 5] = np.nan
    intent = {"coefficients": 2016, "vector": 1007}.get(fault, intent)
    image = nib.Nifti1Image(data, grid.affine.numpy())
    image.header.set_intent(intent, allow_unknown=True)
    nib.save(image, tmp_path / "warp.nii.gz")
    says = {"absolute": "--relout", "other grid": "another grid", "NaN": "NaN"}.get(fault, "convertwarp")
    with pytest.raises(InputError, match=rf"warp.nii.gz.*{says}"):
        read_fsl(tmp_path / "warp.nii.gz", Grid.centred((9, 10, 11), 2.5) if fault == "other grid" else grid, grid)


# Learn2Reg


@DIMENSIONS
@pytest.mark.parametrize("name", ["disp_0001_0002.nii.gz", "disp_0001_0002.npz"])
def test_the_evaluation_of_learn2reg_warps_as_we_do(tmp_path, scene, waves, name, ndim):
    """It adds the stored displacement to the indices of the fixed voxels and looks the moving voxels up there."""
    ndimage = pytest.importorskip("scipy.ndimage")
    fixed, moving, transform = scene(ndim)
    image = Image(waves(ndim, 1, 12)(moving.voxels(torch.zeros(1, dtype=torch.float64))[None]), moving)
    write_learn2reg(transform, tmp_path / name, fixed, moving)
    stored = nib.load(tmp_path / name).get_fdata() if name.endswith("gz") else np.load(tmp_path / name)["arr_0"]
    assert stored.shape == (*fixed.shape, ndim)
    at = np.moveaxis(stored, -1, 0) + np.indices(fixed.shape)
    theirs = ndimage.map_coordinates(image.data[0, 0].numpy(), at, order=1, mode="constant")
    ours = pull(image, transform, onto=fixed).data[0, 0].numpy()
    inside = ((at >= 0) & (at <= np.array(moving.shape).reshape(-1, *[1] * ndim) - 1)).all(0)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-5)


def test_one_voxel_is_one_voxel_along_its_axis(tmp_path):
    grid = Grid((5, 6, 7), torch.diag(torch.tensor([-2.0, 3, 4, 1], dtype=torch.float64)))
    field = torch.zeros(1, 3, 5, 6, 7)
    field[:, 0], field[:, 2] = 1, -2
    write_learn2reg(Displacement(field, grid), tmp_path / "disp_1_2.npz", grid, grid)
    np.testing.assert_allclose(np.load(tmp_path / "disp_1_2.npz")["arr_0"][2, 3, 3], [1, 0, -2], atol=1e-6)
    again = read_learn2reg(tmp_path / "disp_1_2.npz", grid, grid)
    assert isinstance(again, Displacement)
    torch.testing.assert_close(again.field, field)


def test_submissions_that_would_be_misread_are_refused(tmp_path, scene):
    fixed, moving, _ = scene(3)
    for name, arrays in {
        "first.npz": {"a": np.zeros((3, *fixed.shape), np.float32)},
        "two.npz": {"a": np.zeros((*fixed.shape, 3)), "b": np.zeros(3)},
        "whole.npz": {"a": np.zeros((*fixed.shape, 3), int)},
        "nan.npz": {"a": np.full((*fixed.shape, 3), np.nan)},
    }.items():
        np.savez(tmp_path / name, **arrays)
    (tmp_path / "text.npz").write_text("no zip")
    for name, says in [
        ("first.npz", r"expected \(12, 14, 13, 3\)"),
        ("two.npz", "2 arrays"),
        ("whole.npz", "floating point"),
        ("nan.npz", "NaN"),
        ("text.npz", "not a readable"),
        ("none.npz", "not a readable"),
    ]:
        with pytest.raises(InputError, match=rf"{name}.*{says}"):
            read_learn2reg(tmp_path / name, fixed, moving)


# X5


def test_x5_in_two_dimensions_has_a_remedy(tmp_path, scene):
    pytest.importorskip("nitransforms")
    fixed, moving, transform = scene(2)
    with pytest.raises(InputError, match=r"t.x5.*\.h5"):
        write_any(transform, tmp_path / "t.x5", None, fixed, moving)
    assert not list(tmp_path.iterdir())


def test_nitransforms_reads_our_x5_and_we_read_its(tmp_path, scene):
    nitransforms = pytest.importorskip("nitransforms")
    chain = nitransforms.manip.TransformChain
    fixed, moving, transform = scene(3)
    write_any(transform, tmp_path / "ours.x5", None, fixed, moving)
    _, world = inner(fixed, 0)
    theirs = chain.from_filename(tmp_path / "ours.x5")
    np.testing.assert_allclose(theirs.map(world[0].T.numpy()), transform.at(world)[0].T, atol=1e-4)
    theirs.to_filename(tmp_path / "theirs.x5")
    same(read_any(tmp_path / "theirs.x5"), transform, fixed)
    write_any(affine(3), tmp_path / "affine.x5")
    one = nitransforms.linear.load(tmp_path / "affine.x5", fmt="X5")
    np.testing.assert_allclose(one.matrix, affine(3).matrix)
    one.to_filename(tmp_path / "one.x5", fmt="X5")
    same(read_any(tmp_path / "one.x5"), affine(3), fixed)


def test_a_deformation_in_x5_is_read_as_what_it_says(tmp_path, scene):
    x5 = pytest.importorskip("nitransforms.io.x5")
    fixed, _, transform = scene(3, "displacement")
    _, world = inner(fixed, 0)
    where = transform.at(world)[0].T.reshape(*fixed.shape, 3).numpy()
    domain = x5.X5Domain(True, fixed.shape, fixed.affine.numpy())
    kinds = ("space", "space", "space", "vector")
    node = x5.X5Transform("nonlinear", where, "densefield", "deformations", None, kinds, domain)
    x5.to_filename(tmp_path / "t.x5", [node])
    same(read_any(tmp_path / "t.x5"), transform, fixed)
    x5.to_filename(tmp_path / "two.x5", [node, node])
    with pytest.raises(InputError, match="no chain"):
        read_any(tmp_path / "two.x5")
    node.subtype = "bspline"
    x5.to_filename(tmp_path / "spline.x5", [node])
    with pytest.raises(InputError, match=r"spline.x5.*bspline"):
        read_any(tmp_path / "spline.x5")


def test_what_is_no_x5(tmp_path):
    pytest.importorskip("nitransforms")
    (tmp_path / "t.x5").write_text("no HDF5")
    for name in ("t.x5", "none.x5"):
        with pytest.raises(InputError, match=name):
            read_any(tmp_path / name)


# channels


@DIMENSIONS
def test_channels_are_stacked_in_order(tmp_path, oblique, ndim):
    grid = oblique((6, 7, 8)[:ndim], 1)
    images = [Image(torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(n)), grid) for n in range(3)]
    paths = [tmp_path / f"{n}.nii.gz" for n in range(3)]
    for image, path in zip(images, paths, strict=True):
        write_image(image, path)
    write_image(Image((images[0].data > 0.5).float(), grid), tmp_path / "mask.nii.gz")
    read = read_channels(paths, tmp_path / "mask.nii.gz")
    assert torch.equal(read.data, torch.cat([image.data for image in images], 1))
    assert torch.equal(read.mask, images[0].data > 0.5)
    write_image(Image(images[0].data, oblique(grid.shape, 2)), tmp_path / "odd.nii.gz")
    with pytest.raises(InputError, match=r"odd.nii.gz: lies on another grid than .*0.nii.gz"):
        read_channels([*paths, tmp_path / "odd.nii.gz"])
    with pytest.raises(InputError, match="no files"):
        read_channels([])


def test_maps_between_points_are_written_where_an_image_says(tmp_path, scene):
    fixed, _, _ = scene(3)
    write_image(Image(torch.zeros(1, 1, *fixed.shape), fixed), tmp_path / "fixed.nii.gz")
    here = Points(torch.rand(1, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20)
    found = ThinPlate.between(here, Points(here.data + 1.5))
    with pytest.raises(InputError, match=r"`like` of pb\.write"):
        write(found, tmp_path / "t.h5")
    write(found, tmp_path / "t.h5", like=tmp_path / "fixed.nii.gz")
    _, world = inner(fixed)
    torch.testing.assert_close(read_transform(tmp_path / "t.h5").at(world), found.at(world), rtol=0, atol=1e-4)
