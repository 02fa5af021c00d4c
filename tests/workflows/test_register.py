"""`pullback register` end to end on an oblique, anisotropic pair, its files read by SimpleITK and ANTs."""

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom
from pullback.energies import LNCC, Diffusion
from pullback.errors import InputError
from pullback.files import read_ants, read_image, read_points, read_transform, write_image
from pullback.methods.pair.classical import Classical
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.recipes import find
from pullback.solvers import DeformableStage, Descend, Levels, LinearStage
from pullback.space import Affine, BSpline, Composite, Displacement, Grid, Image, Labels, Motion, pull
from pullback.study.recipe import to_yaml
from pullback.study.run import build, load_run
from pullback.study.trained import Trained
from pullback.training import save_weights
from pullback.workflows.choices import learned
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.outputs import ExtraOutputs, transaction
from pullback.workflows.register import register_files, round_trip, settings_of, summary


def turned(degrees: float, spacing: tuple[float, float, float], shape: tuple[int, int, int], flip: bool) -> Grid:
    a = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    linear = x @ z @ np.diag(spacing)
    if flip:
        linear[:, 0] *= -1
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = np.array([4.0, -18.0, 6.0]) - linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, torch.from_numpy(affine))


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder with an oblique pair, its labels, and a run whose untrained network moves things by some voxels."""
    root = tmp_path_factory.mktemp("register")
    cohort = BrainPhantom(spacing=5.0, train_subjects=2)
    grids = (turned(12, (4.0, 5.0, 6.5), (36, 34, 26), False), turned(-8, (5.0, 4.5, 5.5), (30, 38, 30), True))
    for name, case, grid in zip(("fixed", "moving"), cohort.train.cases, grids, strict=True):
        subject = case.load()
        write_image(pull(subject.image, Affine.identity(3), onto=grid), root / f"{name}.nii.gz")
        write_image(pull(subject.labels, Affine.identity(3), onto=grid), root / f"{name}_labels.nii.gz")
    recipe = replace(
        find("ofg", "voxelmorph", "phantom"), network=partial(VoxelMorph, ndim=3, encoder=(8, 8), decoder=(8,) * 4)
    )
    network = build(recipe)
    torch.nn.init.normal_(network.head.convolution.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    (root / "run").mkdir()
    (root / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    save_weights(network, root / "run" / "best.safetensors", {})
    pair = [
        ImageFiles([root / f"{name}.nii.gz"], labels=root / f"{name}_labels.nii.gz") for name in ("fixed", "moving")
    ]
    _, register = load_run(root / "run")
    register_files(*pair, register, root / "out")
    return root


def inner(array: np.ndarray, by: int = 3) -> np.ndarray:
    return array[by:-by, by:-by, by:-by]


@pytest.mark.slow
def test_what_is_written(world):
    left = "moved.nii.gz moved_labels.nii.gz fixed_to_moving.h5 moving_to_fixed.h5 run.json report.html"
    assert {p.name for p in (world / "out").iterdir()} == set(left.split())
    content = json.loads((world / "out" / "run.json").read_text())
    assert content["numbers"]["after"].keys() >= {"dice", "ncc", "folding %", "sdlogj"}
    assert content["libraries"]["torch"].startswith("2")
    assert nib.load(world / "out" / "moved_labels.nii.gz").get_data_dtype() == np.uint8


def test_the_field_moves_something(world):
    transform = read_transform(world / "out" / "fixed_to_moving.h5")
    grid = read_image(world / "fixed.nii.gz").grid
    points = grid.to_world(grid.voxels(transform.params[0])[None])
    assert float((transform.at(points) - points).norm(dim=1).mean()) > 1  # mm: no motion would prove nothing


@pytest.fixture(scope="session")
def moved(world) -> np.ndarray:
    return np.asarray(nib.load(world / "out" / "moved.nii.gz").dataobj)


def read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path), sitk.sitkFloat64)


@pytest.fixture(scope="session")
def seen(world) -> np.ndarray:
    """Voxels at least three from the fixed border whose values come from at least one voxel within the moving image.

    At the very border ITK repeats the image for half a voxel where we fade it out.
    """
    moving = read(world / "moving.nii.gz")
    core = np.zeros(moving.GetSize()[::-1])
    core[1:-1, 1:-1, 1:-1] = 1
    image = sitk.GetImageFromArray(core)
    image.CopyInformation(moving)
    transform = sitk.ReadTransform(str(world / "out" / "fixed_to_moving.h5"))
    covered = sitk.Resample(image, read(world / "fixed.nii.gz"), transform, sitk.sitkLinear)
    inside = sitk.GetArrayFromImage(covered).T > 1 - 1e-9
    border = np.zeros_like(inside)
    border[3:-3, 3:-3, 3:-3] = True
    assert (inside & border).sum() > 5000
    return inside & border


def test_simpleitk_gives_our_moved_image(world, moved, seen):
    fixed, moving = read(world / "fixed.nii.gz"), read(world / "moving.nii.gz")
    transform = sitk.ReadTransform(str(world / "out" / "fixed_to_moving.h5"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear)).T
    np.testing.assert_allclose(theirs[seen], moved[seen], atol=2e-5)


def test_ants_gives_our_moved_image(world, moved, seen):
    ants = pytest.importorskip("ants", reason="antspyx is an extra: pip install 'pullback[peers]'")
    fixed, moving = (ants.image_read(str(world / f"{name}.nii.gz")) for name in ("fixed", "moving"))
    theirs = ants.apply_transforms(fixed, moving, [str(world / "out" / "fixed_to_moving.h5")]).numpy()
    np.testing.assert_allclose(theirs[seen], moved[seen], atol=2e-5)


def test_the_inverse_brings_the_fixed_image_onto_the_moving_grid(world):
    """Pulled there and back again, the fixed image is itself, up to two interpolations and what left the view."""
    there = sitk.ReadTransform(str(world / "out" / "fixed_to_moving.h5"))
    back = sitk.ReadTransform(str(world / "out" / "moving_to_fixed.h5"))
    fixed, moving = read(world / "fixed.nii.gz"), read(world / "moving.nii.gz")
    away = sitk.Resample(fixed, moving, back, sitk.sitkLinear)
    home = sitk.Resample(away, fixed, there, sitk.sitkLinear)
    a, b = (inner(sitk.GetArrayFromImage(x).T, 5).ravel() for x in (fixed, home))
    assert np.corrcoef(a, b)[0, 1] > 0.95
    content = json.loads((world / "out" / "run.json").read_text())
    assert content["round trip mm"]["mean"] < 1e-3
    assert 0 < content["round trip as written"]["round trip mm"]["mean"] < 0.5


def test_labels_are_moved_as_labels(world):
    labels = np.asarray(nib.load(world / "out" / "moved_labels.nii.gz").dataobj)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}


@pytest.mark.slow
def test_centres_are_laid_on_each_other_when_asked(world, tmp_path):
    far = read_image(world / "moving.nii.gz")
    affine = far.grid.affine.clone()
    affine[:3, 3] += torch.tensor([300.0, -200.0, 100.0], dtype=torch.float64)
    write_image(Image(far.data, Grid(far.grid.shape, affine)), tmp_path / "far.nii.gz")
    network = load_run(world / "run")[1].network
    files = (ImageFiles([world / "fixed.nii.gz"]), ImageFiles([tmp_path / "far.nii.gz"]))
    lost = register_files(*files, Trained(network), tmp_path / "header")
    found = register_files(*files, Trained(network, centred=True), tmp_path / "centres")
    assert lost["numbers"]["before"]["ncc"] == 0
    assert found["numbers"]["before"]["ncc"] > 0.4
    assert found["round trip voxels"]["95 %"] < 0.01
    refined = register_files(*files, learned(Trained(network), "centres", refine=2), tmp_path / "refined")
    assert refined["numbers"]["after"]["ncc"] > found["numbers"]["after"]["ncc"]
    one, two = (read_image(path.images[0]).grid.centre for path in files)
    for folder, shift in {"header": 0 * one, "centres": two - one, "refined": two - one}.items():
        affine, field = read_transform(tmp_path / folder / "fixed_to_moving.h5").parts
        assert isinstance(field, Displacement)
        torch.testing.assert_close(affine.matrix[:3, 3], shift)


def test_the_moved_image_lies_on_the_fixed_grid(world):
    fixed, moved = nib.load(world / "fixed.nii.gz"), nib.load(world / "out" / "moved.nii.gz")
    np.testing.assert_allclose(fixed.affine, moved.affine, atol=1e-5)
    assert fixed.shape == moved.shape


def stored_otherwise(image: Image) -> Image:
    """The same world, stored with its first axis reversed and the other two exchanged."""
    data = image.data.flip(2).transpose(3, 4)
    change = torch.eye(4, dtype=torch.float64)
    change[0, 0], change[0, 3] = -1, image.grid.shape[0] - 1
    order = torch.eye(4, dtype=torch.float64)[[0, 2, 1, 3]]
    shape = tuple(image.grid.shape[axis] for axis in (0, 2, 1))
    return Image(data.contiguous(), Grid(shape, image.grid.affine @ change @ order))


def test_a_trained_network_does_not_see_how_the_array_is_stored(world):
    register = load_run(world / "run")[1]
    fixed, moving = (read_image(world / f"{name}.nii.gz") for name in ("fixed", "moving"))
    one = register(fixed, moving).transform
    two = register(stored_otherwise(fixed), stored_otherwise(moving)).transform
    points = fixed.grid.to_world(torch.tensor([[[12.0, 20.0], [15.0, 17.0], [11.0, 14.0]]])).mT
    assert float((one(points) - points).norm(dim=-1).min()) > 0.5
    torch.testing.assert_close(one(points), two(points), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_a_trained_network_works_in_the_voxel_size_of_its_training(world):
    """Images of half the voxel size are aligned as their coarse versions are, not twice as little."""
    network = load_run(world / "run")[1].network
    coarse = [case.load().image for case in BrainPhantom(spacing=8.0, train_subjects=2).train.cases]
    grid = coarse[0].grid.at_spacing((4.0, 4.0, 4.0))
    fine = [pull(image, Affine.identity(3), onto=grid) for image in coarse]
    register = Trained(network, spacing=(8.0, 8.0, 8.0))
    one, two = (register(*images).transform.displacement(coarse[0].grid) for images in (coarse, fine))
    inner = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    assert float((one - two)[inner].norm(dim=1).mean()) < 0.35 * float(one[inner].norm(dim=1).mean())


def test_a_trained_network_does_not_see_what_a_mask_hides(world):
    register = load_run(world / "run")[1]
    fixed, moving = (read_image(world / f"{name}.nii.gz") for name in ("fixed", "moving"))
    hidden = torch.zeros_like(fixed.data, dtype=torch.bool)
    hidden[(..., *[slice(8, 12)] * 3)] = True
    answers = {}
    for level in (0.0, 9.0):
        lesioned = replace(fixed, data=torch.where(hidden, level, fixed.data))
        for name, mask in (("masked", ~hidden), ("seen", None)):
            answers[name, level] = register(replace(lesioned, mask=mask), moving).transform.field
    assert torch.equal(answers["masked", 0.0], answers["masked", 9.0])
    assert not torch.equal(answers["seen", 0.0], answers["seen", 9.0])


def test_a_folder_is_not_taken_for_a_network(tmp_path):
    with pytest.raises(TypeError, match=r"is no network; `pb.load_run\(folder\)`"):
        Trained(str(tmp_path))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_network_is_refined_step_by_step(world, tmp_path):
    """What follows the network makes the moved image more like the fixed one, and keeps its answer's form."""
    network = load_run(world / "run")[1]
    pair = [ImageFiles([world / f"{name}.nii.gz"]) for name in ("fixed", "moving")]
    plain = register_files(*pair, network, tmp_path / "plain")
    refined = register_files(*pair, learned(network, refine=8), tmp_path / "refined")
    assert refined["numbers"]["after"]["ncc"] > plain["numbers"]["after"]["ncc"] + 0.01
    assert refined["settings"]["then"][0]["deformable"]["steps"] == [8]
    assert plain["settings"]["network"] == "VoxelMorph"


# ---- classical registers


QUICK = Classical(
    initialise=None,
    linear=(("rigid", LinearStage(Motion.rigid, levels=Levels(coarsest=12, most=4000), solver=Descend(12, 0.5))),),
    deformable=DeformableStage(
        LNCC(5) + 0.5 * Diffusion(), levels=Levels(coarsest=12, finest=2), steps=(8,), solver=Descend(step_size=0.2)
    ),
)
SHAPES = {2: (44, 40), 3: (26, 24, 22)}


def blobs(grid: Grid, ndim: int, through=None, seed: int = 0) -> torch.Tensor:
    """A sum of Gaussian blobs of the world, seen through a map of points; 0 … about 2."""
    rng = np.random.default_rng(seed)
    middles, widths = rng.uniform(-11, 11, (9, ndim)), rng.uniform(2.5, 4.5, 9)
    at = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])
    at = at if through is None else through(at)
    value = torch.zeros(1, 1, *grid.shape, dtype=torch.float64)
    for middle, width in zip(middles, widths, strict=True):
        off = at - torch.from_numpy(middle).view(1, -1, *[1] * ndim)
        value += (-off.square().sum(1, keepdim=True) / (2 * width**2)).exp()
    return value.float()


@pytest.fixture(scope="session", params=[2, 3])
def scene(request, tmp_path_factory, oblique) -> Path:
    """Two images on oblique grids of their own, one the other moved by a rotation, a shift and a wave."""
    ndim = request.param
    root = tmp_path_factory.mktemp(f"scene{ndim}")
    one, two = oblique(SHAPES[ndim], 1, 0.9, 1.2), oblique(SHAPES[ndim], 2, 0.9, 1.2)
    turn = torch.eye(ndim, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[0.995, -0.0998], [0.0998, 0.995]])

    def through(at):
        return torch.einsum("ab,nb...->na...", turn, at) + 1.0 + 0.8 * (at.flip(1) / 5).sin()

    for channel in range(2):
        write_image(Image(blobs(one, ndim, through, channel), one), root / f"fixed{channel}.nii.gz")
        write_image(Image(blobs(two, ndim, None, channel), two), root / f"moving{channel}.nii.gz")
    parts = Labels((blobs(two, ndim) * 2).round().to(torch.int16) * 400, two)
    write_image(parts, root / "moving_labels.nii.gz")
    return root


def sides(scene: Path, **moving) -> tuple[ImageFiles, ImageFiles]:
    return ImageFiles([scene / "fixed0.nii.gz"]), ImageFiles([scene / "moving0.nii.gz"], **moving)


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.slow
def test_itk_makes_our_moved_image_of_a_classical_answer(scene, tmp_path):
    content = register_files(*sides(scene), QUICK, tmp_path)
    assert content["numbers"]["after"]["ncc"] > content["numbers"]["before"]["ncc"] + 0.05
    fixed, moving = read(scene / "fixed0.nii.gz"), read(scene / "moving0.nii.gz")
    transform = sitk.ReadTransform(str(tmp_path / "fixed_to_moving.h5"))
    theirs, ours = (
        sitk.GetArrayFromImage(image)
        for image in (sitk.Resample(moving, fixed, transform, sitk.sitkLinear), read(tmp_path / "moved.nii.gz"))
    )
    core = (slice(8, -8),) * theirs.ndim
    np.testing.assert_allclose(theirs[core], ours[core], atol=2e-4)


@pytest.mark.slow
def test_all_that_may_be_given_and_wanted(scene, tmp_path):
    ndim = len(nib.load(scene / "fixed0.nii.gz").shape)
    points = tmp_path / "points.csv"
    points.write_text({2: "name,L,P\na,1.5,-2\nb,0,4\n", 3: "name,L,P,S\na,1.5,-2,3\nb,0,4,-1\n"}[ndim])
    fixed = ImageFiles([scene / f"fixed{n}.nii.gz" for n in (0, 1)])
    moving = ImageFiles([scene / f"moving{n}.nii.gz" for n in (0, 1)], labels=scene / "moving_labels.nii.gz")
    out = tmp_path / "out"
    content = register_files(fixed, moving, QUICK, out, points, wanted=ExtraOutputs(jacobian=True, ants="sub_"))
    names = "moved.nii.gz moved_channel_2.nii.gz moved_labels.nii.gz fixed_points_in_moving.csv jacobian.nii.gz "
    names += "fixed_to_moving.h5 moving_to_fixed.h5 run.json report.html sub_0GenericAffine.mat sub_1Warp.nii.gz "
    names += "sub_1InverseWarp.nii.gz sub_Composite.h5"
    assert {path.name for path in out.iterdir()} == set(names.split()) == set(content["files"])
    labels = voxels(out / "moved_labels.nii.gz")
    assert labels.dtype.kind in "iu"
    assert set(np.unique(labels)) <= set(np.unique(voxels(scene / "moving_labels.nii.gz")))
    assert labels.max() > 0
    itk = sitk.ReadTransform(str(out / "fixed_to_moving.h5"))  # LPS, as the table is
    for before, after in zip(rows(points), rows(out / "fixed_points_in_moving.csv"), strict=True):
        assert after[0] == before[0]
        np.testing.assert_allclose(itk.TransformPoint([*map(float, before[1:])]), [*map(float, after[1:])], atol=1e-4)
    pieces = read_ants([out / "sub_1Warp.nii.gz", out / "sub_0GenericAffine.mat"])
    where = read_points(points).points.data
    torch.testing.assert_close(pieces(where), read_transform(out / "fixed_to_moving.h5")(where), atol=1e-4, rtol=0)
    jacobian = voxels(out / "jacobian.nii.gz")
    assert 0.2 < jacobian[(slice(6, -6),) * ndim].mean() < 2
    plain = register_files(*sides(scene), QUICK, out)
    assert set(plain["files"]) < {path.name for path in out.iterdir()}  # what the first run made beside stays
    assert len(plain["files"]) == 5


def rows(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()[1:]]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(scene, tmp_path):
    for name in ("one", "two"):
        register_files(*sides(scene), QUICK, tmp_path / name)
        time.sleep(1.1)  # for a file of HDF5 may hold the second of its writing
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("moved.nii.gz", "fixed_to_moving.h5", "moving_to_fixed.h5"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.slow
def test_a_lesion_that_is_left_out_has_no_influence(scene, tmp_path):
    """Whatever the intensities there, the transform is the same to the bit; and it is another one with the lesion."""
    image = read_image(scene / "moving0.nii.gz")
    lesion = torch.zeros(image.data.shape, dtype=torch.bool)
    lesion[(..., *[slice(9, 15)] * image.grid.ndim)] = True
    write_image(Labels(lesion.to(torch.uint8), image.grid), tmp_path / "lesion.nii.gz")
    fields = {}
    for name, level in (("dark", 0.0), ("bright", 9.0)):
        path = tmp_path / f"{name}.nii.gz"
        write_image(replace(image, data=torch.where(lesion, level, image.data)), path)
        for side, exclude in (("in", None), ("out", tmp_path / "lesion.nii.gz")):
            pair = (ImageFiles([scene / "fixed0.nii.gz"]), ImageFiles([path], exclude=exclude))
            register_files(*pair, QUICK, tmp_path / name / side)
            fields[name, side] = (tmp_path / name / side / "fixed_to_moving.h5").read_bytes()
    assert fields["dark", "out"] == fields["bright", "out"]
    assert fields["dark", "in"] != fields["bright", "in"]


def test_a_mask_and_a_lesion_that_cover_all_are_refused(scene, tmp_path):
    grid = read_image(scene / "moving0.nii.gz").grid
    half = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    half[:, :, :10] = 1
    write_image(Labels(half, grid), tmp_path / "half.nii.gz")
    pair = sides(scene, mask=tmp_path / "half.nii.gz", exclude=tmp_path / "half.nii.gz")
    with pytest.raises(InputError, match=r"half\.nii\.gz: leaves nothing"):
        register_files(*pair, QUICK, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_start_is_gone_on_with_and_rigid_stays_rigid(scene, tmp_path):
    rigid = replace(QUICK, deformable=None)
    register_files(*sides(scene), rigid, tmp_path / "rigid")
    found = read_transform(tmp_path / "rigid" / "fixed_to_moving.h5")
    linear = found.matrix[:-1, :-1]
    torch.testing.assert_close(linear @ linear.T, torch.eye(len(linear), dtype=torch.float64), atol=1e-6, rtol=0)
    still = replace(QUICK, linear=(), deformable=None)
    register_files(*sides(scene), still, tmp_path / "still", start=found)
    again = read_transform(tmp_path / "still" / "fixed_to_moving.h5")
    torch.testing.assert_close(again.matrix, found.matrix)
    grid = read_image(scene / "fixed0.nii.gz").grid
    field = Displacement.identity(grid, torch.zeros(1))
    with pytest.raises(InputError, match="this start has a field"):
        register_files(*sides(scene), rigid, tmp_path / "no", start=field)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ratio"), [(Displacement, 1), (BSpline, 3)])
def test_every_kind_of_field_comes_home(scene, tmp_path, kind, ratio):
    deformable = replace(QUICK.deformable, kind=kind, draft=None, ratio=ratio)
    content = register_files(*sides(scene), replace(QUICK, deformable=deformable), tmp_path)
    assert content["round trip voxels"]["95 %"] < 0.01
    assert 0 < content["round trip as written"]["round trip voxels"]["95 %"] < 0.5
    assert content["settings"]["deformable"]["kind"] == {"name": f"pullback.space.fields.{kind.__name__}"}


def test_round_trip_of_known_maps(oblique):
    """A shift by 3 mm in place of home is 3 mm off everywhere; the inverse of a composite is none."""
    grid = oblique((14, 13, 12), 3)
    image = Image(torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0)), grid)
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, 3] = 3
    there = Alignment(Pair(image, image), Affine(shift))
    trip = round_trip(there, Affine.identity(3))
    assert trip["round trip mm"] == {"mean": 3.0, "95 %": 3.0, "max": 3.0}
    expected = float(torch.linalg.solve(grid.affine[:3, :3], shift[:3, 3]).norm())
    assert trip["round trip voxels"]["mean"] == pytest.approx(expected, abs=1e-4)
    both = Composite(Affine(shift), Displacement.identity(grid, image.data))
    assert round_trip(Alignment(Pair(image, image), both), both.inverse())["round trip mm"]["max"] < 1e-4


def test_settings_are_data(scene):
    text = json.dumps(settings_of(Classical()))
    assert "pullback.energies.lncc.LNCC" in text
    assert "pullback.methods.pose.cross_ngf.CrossNGF" in text


@pytest.mark.parametrize("where", ["file/out", "file"])
def test_a_folder_that_cannot_be_written_is_told_before_the_work(scene, tmp_path, where):
    (tmp_path / "file").write_text("")

    def never(fixed, moving):
        raise AssertionError("the work began")

    with pytest.raises(InputError, match="cannot write there"):
        register_files(*sides(scene), never, tmp_path / where)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_read_is_not_replaced(tmp_path):
    """Neither what is known to be written, before any work, nor what has the name of a new file."""
    with transaction(tmp_path) as folder:
        (folder / "moved.nii.gz").write_text("moved")
        (folder / "run.json").write_text('{"files": ["moved.nii.gz", "run.json"]}')
    given, names = [tmp_path / "moved.nii.gz"], ["moved.nii.gz"]
    with pytest.raises(InputError, match="is read here"), transaction(tmp_path, given, names):
        raise AssertionError("the work began")
    (tmp_path / "own.nii.gz").write_text("own")
    with (
        pytest.raises(InputError, match="is read here"),
        transaction(tmp_path, [tmp_path / "own.nii.gz"]) as folder,
    ):
        (folder / "own.nii.gz").write_text("new")
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert (texts["own.nii.gz"], texts["moved.nii.gz"], len(texts)) == ("own", "moved", 3)


def test_work_that_fails_leaves_nothing(scene, tmp_path):
    def fails(fixed, moving):
        raise InputError("no")

    out = tmp_path / "a" / "b"
    with pytest.raises(InputError, match="no"):
        register_files(*sides(scene), fails, out)
    assert list(tmp_path.iterdir()) == []
    register_files(*sides(scene), replace(QUICK, deformable=None, linear=()), out)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match="no"):
        register_files(*sides(scene), fails, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept


class Plain:
    """A register that is no dataclass, and knows more than a transform."""

    def __call__(self, fixed, moving):
        known = {"non_correspondence": Image(fixed.data.square(), fixed.grid)}
        more = {"half_way": Displacement(torch.full((1, fixed.grid.ndim, *fixed.grid.shape), 0.5), fixed.grid)}
        return Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data), known, more)


@pytest.mark.slow
def test_a_plain_class_is_a_register_and_what_it_knows_is_written(scene, tmp_path):
    """Maps and further transforms lie in folders of their own, are told of, shown, and go when a later run has none."""
    content = register_files(*sides(scene), Plain(), tmp_path)
    assert content["settings"] == {"register": f"{Plain.__module__}.Plain"}
    assert {"maps/non_correspondence.nii.gz", "transforms/half_way.h5"} <= {*content["files"]}
    assert list(content["seconds"]) == ["Plain"]
    fixed = read_image(scene / "fixed0.nii.gz")
    known = read_image(tmp_path / "maps" / "non_correspondence.nii.gz")
    torch.testing.assert_close(known.data, fixed.data.square())
    half = read_transform(tmp_path / "transforms" / "half_way.h5").displacement(fixed.grid)
    torch.testing.assert_close(half[..., 2:-2], torch.full_like(half, 0.5)[..., 2:-2], rtol=0, atol=1e-4)
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Non correspondence</h2>" in page
    assert "half_way.h5: half way" in page
    (tmp_path / "maps" / "of_mine.txt").write_text("kept")
    register_files(*sides(scene), Classical(None, (), None), tmp_path)
    assert (tmp_path / "transforms" / "half_way.h5").exists()  # what a run does not replace stays
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"of_mine.txt", "non_correspondence.nii.gz"}
    assert "Non correspondence" not in (tmp_path / "report.html").read_text()


def test_moved_is_what_apply_makes_of_the_written_transform(scene, tmp_path):
    """Whatever else a register knows, `moved` is the pulled image."""
    register_files(*sides(scene), Plain(), tmp_path)
    there = read_transform(tmp_path / "fixed_to_moving.h5")
    again = pull(read_image(scene / "moving0.nii.gz"), there, onto=read_image(scene / "fixed0.nii.gz"))
    torch.testing.assert_close(again.data, read_image(tmp_path / "moved.nii.gz").data)


def test_another_pair_in_the_folder_keeps_its_files(scene, tmp_path):
    """Two moving images with prefixes of their own, as in loops over subjects for ANTs."""
    start = replace(QUICK, deformable=None, linear=())
    fixed, moving = sides(scene)
    out = tmp_path / "out"
    first = register_files(fixed, moving, start, out, wanted=ExtraOutputs(jacobian=True, ants="sub-01_"))
    assert first["earlier"] == []
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    own = [name for name in kept if name.startswith("sub-01_") or name == "jacobian.nii.gz"]
    assert len(own) > 1
    second = register_files(moving, fixed, start, out, wanted=ExtraOutputs(ants="sub-02_"))
    assert {name: (out / name).read_bytes() for name in own} == {name: kept[name] for name in own}
    assert [path for path in out.iterdir() if path.name.startswith("sub-02_")]
    (said,) = second["earlier"]
    assert "moved.nii.gz" in said
    assert str(fixed.images[0]) in said
    assert "a folder for each pair" in summary(second, out)


def test_what_an_earlier_run_of_the_pair_left_is_said(scene, tmp_path):
    start = replace(QUICK, deformable=None, linear=())
    register_files(*sides(scene), start, tmp_path, wanted=ExtraOutputs(jacobian=True))
    (tmp_path / "notes.txt").write_text("mine")
    again = register_files(*sides(scene), start, tmp_path)
    assert (tmp_path / "jacobian.nii.gz").is_file()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (said,) = again["earlier"]
    assert said.endswith("jacobian.nii.gz")


def test_names_with_arrows_and_names_that_are_no_utf8(scene, tmp_path):
    fixed, moving = sides(scene)
    for named in ("a ← b", os.fsdecode(b"M\xfcller")):
        folder = tmp_path / named
        folder.mkdir()
        copied = shutil.copy(fixed.images[0], folder / "fixed.nii.gz")
        register_files(ImageFiles([copied]), moving, replace(QUICK, deformable=None), folder / "out")
        assert "fixed.nii.gz" in (folder / "out" / "report.html").read_text(encoding="utf-8")
        assert (folder / "out" / "fixed_to_moving.h5").is_file()
        assert json.loads((folder / "out" / "run.json").read_text())["fixed"] == [str(copied)]


@pytest.mark.parametrize("name", ["moved.nii.gz", "report.html", "sub_1Warp.nii.gz"])
def test_a_folder_of_the_name_of_a_file_is_told_before_the_work(scene, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)

    def never(fixed, moving):
        raise AssertionError("the work began")

    with pytest.raises(InputError, match="is a folder"):
        register_files(*sides(scene), never, tmp_path / "out", wanted=ExtraOutputs(ants="sub_"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_a_library_that_is_missing_is_told_before_the_work(scene, tmp_path, monkeypatch):
    def never(fixed, moving):
        raise AssertionError("the work began")

    monkeypatch.setitem(sys.modules, "contourpy", None)
    with pytest.raises(InputError, match="contourpy"):
        register_files(*sides(scene), never, tmp_path / "out")
    assert not (tmp_path / "out").exists()
