"""Other tools move points and images by our files as we do, and we by theirs.

On grids that are oblique, anisotropic (4 mm slices) or flipped, in two and three dimensions, fixed and moving unlike.
Images are compared one voxel and more within both borders, where all tools agree what a border is. Figures are in mm
and in intensities of waves between -1 and 1.
"""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.files import read_ants, read_transform, write_ants, write_image, write_transform
from pullback.space import Affine, Displacement, Grid, Image, Velocity, pull

DIMENSIONS = pytest.mark.parametrize("ndim", [2, 3])
ORIENTATIONS = pytest.mark.parametrize("orientation", ["oblique", "anisotropic", "flipped"])
KINDS = pytest.mark.parametrize("kind", ["affine", "displacement", "velocity", "composite"])
FLAT = "nitransforms 25.1 reads no transforms of two dimensions: its ITK readers take three for granted"
MM, VALUE = 2e-4, 2e-3


@pytest.fixture
def ants():
    return pytest.importorskip("ants", reason="comparisons with ANTs need antspyx")


@pytest.fixture
def nitransforms():
    return pytest.importorskip("nitransforms", reason="comparisons with nitransforms need it")


def flipped(shape, sign, size):
    d = len(shape)
    linear = torch.diag(torch.tensor([sign * size, -size, 1.2 * size], dtype=torch.float64)[:d])
    return Grid(shape, torch.block_diag(linear, torch.ones(1, 1))).about_origin(shape)


@pytest.fixture
def scene(oblique, smooth_field, waves):
    """A fixed grid, a moving image on another, and a transform that keeps most of the view."""

    def make(ndim, orientation, kind):
        one, two = (18, 20, 16)[:ndim], (21, 17, 19)[:ndim]
        if orientation == "flipped":
            grids = flipped(one, -1, 1.3), flipped(two, 1, 1.4)
        else:
            high = 4.0 if orientation == "anisotropic" else 1.6
            grids = oblique(one, 5, 1.0, high), oblique(two, 8, 1.0, high)
        warp = smooth_field(grids[0].shape, 2, amplitude=1.5, shortest=12).float()
        matrix = torch.eye(ndim + 1, dtype=torch.float64)
        matrix[0, 1], matrix[1, 0], matrix[1, 1] = 0.12, -0.1, 1.07
        matrix[:-1, -1] = torch.tensor([1.0, -0.5, 0.7])[:ndim]
        affine, dense = Affine(matrix), Displacement(warp, grids[0])
        transform = {
            "affine": affine,
            "displacement": dense,
            "velocity": Velocity(warp, grids[0]),
            "composite": affine @ dense,
        }[kind]
        value = waves(ndim, 3, 25)(grids[1].to_world(grids[1].voxels(torch.zeros(1).double())[None]))
        return grids[0], Image(value.float(), grids[1]), transform

    return make


def lps(points):
    """RAS to LPS and back, `(N, d)`."""
    return points * np.array([-1.0, -1.0, 1.0][: points.shape[1]])


def inside(grid, offset=0.3, margin=2):
    """Points of the world between the voxels of `grid`, `(N, d)`; few of them."""
    where = grid.voxels(torch.zeros(1, dtype=torch.float64)) + offset
    where = where[(slice(None), *(slice(margin, n - margin, 3) for n in grid.shape))].flatten(1)
    return grid.to_world(where[None])[0].T


def common(fixed, moving, transform):
    """Voxels of `fixed` one voxel and more within both borders."""
    where = fixed.voxels(torch.zeros(1, dtype=torch.float64))[None]
    there = moving.to_voxels(transform.at(fixed.to_world(where)))
    within = [
        (at >= 1) & (at <= torch.tensor(g.shape).view(1, -1, *[1] * g.ndim) - 2)
        for at, g in ((where, fixed), (there, moving))
    ]
    both = (within[0] & within[1]).all(1)[0].numpy()
    assert both.mean() > 0.1
    return both


def alike(theirs, moving, transform, fixed, tolerance=VALUE):
    ours, both = pull(moving, transform, onto=fixed).data[0, 0].numpy(), common(fixed, moving.grid, transform)
    np.testing.assert_allclose(theirs[both], ours[both], rtol=0, atol=tolerance)
    still = pull(moving, Affine.identity(fixed.ndim), onto=fixed).data[0, 0].numpy()
    assert np.abs(still - ours)[both].max() > 20 * tolerance  # the transform is seen at all


def names(transform):
    """Every file that holds the transform."""
    if isinstance(transform, Affine):
        return ["t.h5", "t.tfm", "t.txt", "t.mat"]
    return ["t.h5", "t.nii.gz"] if isinstance(transform, Displacement | Velocity) else ["t.h5"]


# SimpleITK


@DIMENSIONS
@ORIENTATIONS
@KINDS
def test_simpleitk_moves_points_and_images_where_we_do(tmp_path, scene, to_sitk, from_sitk, ndim, orientation, kind):
    fixed, moving, transform = scene(ndim, orientation, kind)
    points = inside(fixed)
    reference = to_sitk(np.zeros(fixed.shape, np.float32), fixed.affine.numpy())
    image = to_sitk(moving.data[0, 0].numpy(), moving.grid.affine.numpy())
    for name in names(transform):
        write_transform(transform, tmp_path / name)
        if name.endswith(".nii.gz"):
            field = sitk.ReadImage(str(tmp_path / name), sitk.sitkVectorFloat64)
            theirs = sitk.DisplacementFieldTransform(field)
        else:
            theirs = sitk.ReadTransform(str(tmp_path / name))
        moved = np.array([theirs.TransformPoint(p) for p in lps(points.numpy()).tolist()])
        np.testing.assert_allclose(lps(moved), transform(points), atol=MM)
        warped = sitk.Resample(image, reference, theirs, sitk.sitkLinear, 0.0)
        alike(from_sitk(warped), moving, transform, fixed)


# ANTs


def ants_points(ants, points, files, **options):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(lps(points.numpy()), columns=list("xyz")[: points.shape[1]])
    moved = ants.apply_transforms_to_points(points.shape[1], table, list(map(str, files)), **options)
    return lps(moved.to_numpy())


def ants_image(ants, image, path):
    write_image(image, path)
    return ants.image_read(str(path))


@DIMENSIONS
@ORIENTATIONS
@KINDS
def test_ants_moves_points_and_images_where_we_do(tmp_path, scene, ants, ndim, orientation, kind):
    fixed, moving, transform = scene(ndim, orientation, kind)
    points = inside(fixed)
    reference = ants_image(ants, Image(torch.rand(1, 1, *fixed.shape), fixed), tmp_path / "fixed.nii.gz")
    image = ants_image(ants, moving, tmp_path / "moving.nii.gz")
    for name in names(transform):
        write_transform(transform, tmp_path / name)
        np.testing.assert_allclose(ants_points(ants, points, [tmp_path / name]), transform(points), atol=MM)
        warped = ants.apply_transforms(reference, image, [str(tmp_path / name)])
        alike(warped.numpy(), moving, transform, fixed)


@DIMENSIONS
@ORIENTATIONS
@KINDS
def test_ants_takes_our_pieces_forward_and_back(tmp_path, scene, ants, ndim, orientation, kind):
    fixed, moving, transform = scene(ndim, orientation, kind)
    pieces = {p.name: p for p in write_ants(transform, tmp_path / "sub-1_", fixed)}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(pieces)
    affine, composite = pieces["sub-1_0GenericAffine.mat"], pieces["sub-1_Composite.h5"]
    warps = [pieces[f"sub-1_{name}.nii.gz"] for name in ("1Warp", "1InverseWarp")] if kind != "affine" else []
    assert len(pieces) == 2 + len(warps)
    points = inside(fixed)
    forward, back = [*warps[:1], affine], [affine, *warps[1:]]
    for files in (forward, [composite]):
        np.testing.assert_allclose(ants_points(ants, points, files), transform(points), atol=MM)
        np.testing.assert_allclose(
            read_ants(files)(points), transform(points), atol=MM, err_msg="the same list, read by us"
        )
    invert = [True, False][: len(back)]
    returned = ants_points(ants, transform(points), back, whichtoinvert=invert)
    np.testing.assert_allclose(read_ants(back, invert)(transform(points)), returned, atol=MM)
    away = np.linalg.norm(returned - points.numpy(), axis=1) / fixed.spacing.min().item()
    assert np.percentile(away, 95) < 0.1
    reference = ants_image(ants, Image(torch.rand(1, 1, *fixed.shape), fixed), tmp_path / "fixed.nii.gz")
    image = ants_image(ants, moving, tmp_path / "moving.nii.gz")
    alike(ants.apply_transforms(reference, image, list(map(str, forward))).numpy(), moving, transform, fixed)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory, oblique):
    """Two blobs, an ellipsoid turned and swollen into another, on unlike oblique grids, and ANTs' view of them."""
    ants = pytest.importorskip("ants", reason="comparisons with ANTs need antspyx")

    def blob(grid, centre, width):
        where = grid.to_world(grid.voxels(torch.zeros(1, dtype=torch.float64))[None])
        centre, width = (torch.tensor(x[: grid.ndim]).view(1, -1, *[1] * grid.ndim) for x in (centre, width))
        return Image(torch.exp(-(((where - centre) / width) ** 2).sum(1, keepdim=True)).float(), grid)

    def make(ndim):
        folder = tmp_path_factory.mktemp("blobs")
        fixed, moving = oblique((28, 26, 24)[:ndim], 1, 1.0, 1.4), oblique((25, 28, 27)[:ndim], 4, 1.0, 1.4)
        images = {"fixed": blob(fixed, (0.0, 0.0, 0.0), (7.0, 9.0, 8.0))}
        images["moving"] = blob(moving, (1.5, -1.0, 1.0), (9.0, 7.0, 7.0))
        return images, {name: ants_image(ants, image, folder / f"{name}.nii.gz") for name, image in images.items()}

    return make


@pytest.fixture(scope="module", params=["Affine", "SyN", "SyN, composite"])
def how(request):
    return request.param


@pytest.fixture(scope="module", params=[2, 3])
def registered(request, tmp_path_factory, blobs, how):
    """ANTs' own registration: the images, its warped ones, and for either direction its files and what is inverted."""
    ants = pytest.importorskip("ants", reason="comparisons with ANTs need antspyx")
    images, read = blobs(request.param)
    kind, _, composite = how.partition(", ")
    result = ants.registration(
        **read,
        type_of_transform=kind,
        outprefix=f"{tmp_path_factory.mktemp('ants')}/",
        reg_iterations=(20, 10),
        aff_metric="meansquares",  # mutual information of so few voxels, by chance and threads, may end anywhere
        aff_random_sampling_rate=1.0,
        write_composite_transform=bool(composite),
    )
    lists = [result[key] for key in ("fwdtransforms", "invtransforms")]
    forward, back = ([x] if isinstance(x, str) else x for x in lists)
    return images, result, (forward, [False] * len(forward)), (back, [not composite, False][: len(back)])


@pytest.mark.slow
def test_we_warp_by_ants_own_output_as_ants_does(registered):
    images, result, forward, back = registered
    fixed, moving = images["fixed"], images["moving"]
    alike(result["warpedmovout"].numpy(), moving, read_ants(*forward), fixed.grid, tolerance=1e-3)
    alike(result["warpedfixout"].numpy(), fixed, read_ants(*back), moving.grid, tolerance=1e-3)


def test_we_move_points_by_ants_own_output_as_ants_does(registered, ants):
    images, _, *both_ways = registered
    points = inside(images["fixed"].grid, margin=5)
    for files, invert in both_ways:
        theirs = ants_points(ants, points, files, whichtoinvert=invert)
        np.testing.assert_allclose(read_ants(files, invert)(points), theirs, atol=MM)
        assert np.linalg.norm(theirs - points.numpy(), axis=1).max() > 1


# nitransforms


def in_nitransforms(nitransforms, path, transform):
    if path.suffix == ".h5":
        return nitransforms.manip.load(path, fmt="itk")
    linear = isinstance(transform, Affine)
    return (nitransforms.linear if linear else nitransforms.nonlinear).load(path, fmt="itk")


@DIMENSIONS
@ORIENTATIONS
@KINDS
def test_nitransforms_moves_points_and_images_where_we_do(tmp_path, scene, nitransforms, ndim, orientation, kind):
    """Points on voxels: between them it takes fields by cubic splines, where ITK, ANTs and we take them linearly."""
    if ndim == 2:
        pytest.skip(FLAT)
    resampling = pytest.importorskip("nitransforms.resampling")
    fixed, moving, transform = scene(ndim, orientation, kind)
    points = inside(fixed, offset=0)
    reference = nib.Nifti1Image(np.zeros(fixed.shape, np.float32), fixed.affine.numpy())
    write_image(moving, tmp_path / "moving.nii.gz")
    for name in names(transform):
        write_transform(transform, tmp_path / name)
        theirs = in_nitransforms(nitransforms, tmp_path / name, transform)
        theirs.reference = reference
        np.testing.assert_allclose(theirs.map(points.numpy()), transform(points), atol=MM)
        warped = resampling.apply(theirs, tmp_path / "moving.nii.gz", reference=reference, order=1)
        alike(np.asarray(warped.dataobj), moving, transform, fixed)


# what we write of a chain, and read


@DIMENSIONS
@ORIENTATIONS
def test_a_chain_of_many_is_written_and_read(tmp_path, scene, ndim, orientation):
    fixed, _, transform = scene(ndim, orientation, "composite")
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[0, 0], matrix[0, 1] = 0.9, -0.2  # does not commute with the other affine
    chain = (transform @ transform.outer) @ (Affine(matrix) @ transform)
    write_transform(chain, tmp_path / "chain.h5")
    points = inside(fixed, margin=4)
    itk = sitk.ReadTransform(str(tmp_path / "chain.h5"))
    moved = np.array([itk.TransformPoint(p) for p in lps(points.numpy()).tolist()])
    np.testing.assert_allclose(lps(moved), chain(points), atol=MM)
    np.testing.assert_allclose(read_transform(tmp_path / "chain.h5")(points), chain(points), atol=MM)
