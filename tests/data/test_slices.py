"""Slices and plates: numbers in names, squares, splits, views, and planes of a volume."""

import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.data.held_out_plates import HeldOutPlates
from pullback.data.planes import Planes, plane_of, tilted_plane
from pullback.data.slice_folder import SliceFolder
from pullback.data.slice_views import RandomViews
from pullback.data.slices import LabelledSlices, PlateFiles, Plates, as_square, in_square, numbered
from pullback.errors import InputError
from pullback.space import Grid, Image

STILL = RandomViews(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False, 0.0, 0.0, 0.0, 0.0)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(values.astype(np.uint8)).save(path)


def picture(number, shape=(30, 40)):
    """A bright box within a dark border, with texture of its own."""
    values = np.zeros(shape)
    values[5:25, 8:32] = np.random.default_rng(number).integers(90, 250, (20, 24))
    return values


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve plates, and slices of some."""
    folder = tmp_path_factory.mktemp("slices")
    for number in range(1, 13):
        save(folder / "atlas" / f"plate_{number:03d}.png", picture(number))
    for split, names in {"train": ("3", "3_2", "5"), "val_1": ("4",), "test": ("9", "11")}.items():
        for name in names:
            save(folder / split / f"{name}.png", picture(int(name.split("_")[0])))
    return folder


@pytest.mark.parametrize(
    ("name", "number"),
    [("91.png", 91), ("91_2.png", 91), ("plate_007.tif", 7), ("brain2_s012.nii.gz", 12), ("M3 plate 40b.png", 40)],
)
def test_numbers_in_names(tmp_path, name, number):
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert [(n, path.name) for n, path in numbered(tmp_path)] == [(number, name)]


def test_a_square_holds_the_tissue_whatever_lies_around_it_and_however_it_is_lit():
    """More of a dark border, a bright ground, another size of voxels, a flipped storage: the same square."""
    box = torch.from_numpy(picture(1)[5:25, 8:32]).float()

    def seen(margin, spacing=1.0):
        data = torch.nn.functional.pad(box, (margin,) * 4)
        return as_square(Image(data[None, None], Grid.centred(tuple(data.shape), spacing)), 24).data

    first = seen(6)
    assert first.shape == (1, 1, 24, 24)
    assert float(first[..., 2:-2, :].mean()) > 0.4, "the box fills all but the strips beside its shorter edge"
    assert not first[:, :, 0].any()
    assert not first[:, :, -1].any()
    assert torch.allclose(seen(6, spacing=0.01), first, atol=1e-4)
    assert torch.allclose(seen(12), first, atol=1e-4)
    bright = as_square(Image(255 - torch.nn.functional.pad(box, (6,) * 4)[None, None], Grid.centred((32, 36))), 24)
    assert torch.allclose(bright.data, first, atol=1e-4)
    flipped = torch.nn.functional.pad(box, (6,) * 4)[None, None].flip(2)
    stored = Image(flipped, Grid((32, 36), torch.diag(torch.tensor([-1.0, 1, 1])).double()))
    assert torch.allclose(as_square(stored, 24).data, first, atol=1e-4)


def test_a_square_knows_where_it_lies():
    """The middle of the tissue is the middle of the square, in the world."""
    data = torch.zeros(1, 1, 40, 30)
    data[..., 10:30, 5:15] = torch.rand(20, 10, generator=torch.Generator().manual_seed(0)) + 0.5
    grid = Grid((40, 30), torch.tensor([[0.1, 0, 5.0], [0, 0.1, -2.0], [0, 0, 1]]).double())
    found = in_square(Image(data, grid), 16)
    assert torch.allclose(
        found.grid.centre, grid.to_world(torch.tensor([[[19.5], [9.5]]]).double())[0, :, 0], atol=0.06
    )
    assert found.grid.spacing.tolist() == pytest.approx([20 * 0.1 / 16] * 2, rel=0.12)


def test_splits_of_folders(root):
    data = SliceFolder(str(root), pixels=24, at_once=3, alone=2)
    assert data.train.names == ("train/3", "train/3_2", "train/5")
    assert (data.validation.names, data.test.names) == (("val_1/4",), ("test/11", "test/9"))
    (example,) = data.validation
    assert (example.plates.tolist(), example.is_plate.tolist()) == ([4], [False])
    assert torch.equal(example.image.data, example.atlas.some(torch.tensor([4])).data), "the file is the same"
    drawn: LabelledSlices = data.train.draw(torch.Generator().manual_seed(0))
    assert drawn.image.data.shape == (10, 1, 24, 24)
    slices, plates, alone = drawn.plates[:3], drawn.plates[3:6], drawn.plates[6:]
    assert slices.tolist() == plates.tolist()
    assert sorted(slices.tolist()) == [3, 3, 5]
    assert alone[:2].tolist() == alone[2:].tolist()
    assert not {*alone.tolist()} & {*slices.tolist()}
    assert drawn.is_plate.tolist() == [False] * 3 + [True] * 7


def test_what_is_held_out_is_not_learned_from(root):
    data = HeldOutPlates(RandomViews(), str(root), pixels=24, every=4, views=3, at_once=3, alone=3)
    split = {
        name: {case.plate for pair in known.pairs for case in pair}
        for name, known in (("validation", data.validation), ("test", data.test))
    }
    assert split == {"validation": {4, 12}, "test": {8}}
    seen = set()
    for seed in range(20):
        seen |= {*data.train.draw(torch.Generator().manual_seed(seed)).plates.tolist()}
    assert seen == {1, 2, 3, 5, 6, 7, 9, 10, 11}
    views, again = [*data.test], [*data.test]
    assert [one.name for one in views] == [f"plate 8, view {n}" for n in (1, 2, 3)]
    assert all(torch.equal(one.image.data, other.image.data) for one, other in zip(views, again, strict=True))
    assert not torch.equal(views[0].image.data, views[1].image.data)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"1.png": 1}, "two or more expected"),
        ({"1.png": 1, "plate_1.png": 2, "2.png": 3}, "are all plate 1; one file of each number"),
    ],
)
def test_folders_that_are_no_atlas(tmp_path, files, says):
    for name, seed in files.items():
        save(tmp_path / name, picture(seed))
    with pytest.raises(InputError, match=says):
        PlateFiles(str(tmp_path)).load()


def test_what_is_not_there(root, tmp_path):
    with pytest.raises(InputError, match="no such folder of plates"):
        PlateFiles(str(tmp_path / "none")).load()
    with pytest.raises(InputError, match="no slice is called"):
        _ = SliceFolder(str(root), slices="missing/*").train
    with pytest.raises(InputError, match="no folder given"):
        _ = SliceFolder().atlas
    with pytest.raises(InputError, match="no plate 77: there are 1 to 12"):
        PlateFiles(str(root / "atlas")).load().some(torch.tensor([77]))
    with pytest.raises(InputError, match="two or more"):
        Plates(Image(torch.zeros(2, 1, 4, 4), Grid.centred((4, 4))), torch.tensor([3, 3]))
    with pytest.raises(InputError, match="tilts of a volume's planes"):
        HeldOutPlates(RandomViews(), degrees=3.0)


# ---- views


def drawn(count=400, size=24):
    values = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))
    return Image(0.2 + 0.8 * values, Grid.centred((size, size)))


def test_a_view_without_change_is_the_slice():
    image = drawn(3)
    assert torch.allclose(STILL(image, torch.Generator().manual_seed(0)).data, image.data, atol=1e-5)


def test_windows_show_as_much_as_they_say():
    """A window of edges a, b shows the share min(a, b) / max(a, b) of its square, whose longer edge it fills."""
    image = Image(torch.ones(400, 1, 24, 24), Grid.centred((24, 24)))
    seen = replace(STILL, window=0.5)(image, torch.Generator().manual_seed(0)).data
    shares = seen.flatten(1).mean(1)
    assert float(shares.min()) > 0.45
    edges = 0.5 + 0.5 * torch.rand(200_000, 2, generator=torch.Generator().manual_seed(1))
    expected = float((edges.amin(1) / edges.amax(1)).mean())
    assert float(shares.mean()) == pytest.approx(expected, abs=0.03)
    assert bool((seen.amax((2, 3)) > 0.9).all())


def test_missing_parts_are_missing():
    """Of every other slice a share that is uniform up to the largest: an eighth of all at 0.5."""
    image = Image(torch.ones(400, 1, 24, 24), Grid.centred((24, 24)))
    lost = 1 - replace(STILL, missing=0.5)(image, torch.Generator().manual_seed(0)).data.flatten(1).mean(1)
    assert float(lost.max()) <= 0.52
    assert float((lost < 0.005).float().mean()) == pytest.approx(0.5, abs=0.08)
    assert float(lost.mean()) == pytest.approx(0.125, abs=0.02)


def test_windows_without_sense():
    with pytest.raises(InputError, match="a window in"):
        RandomViews(window=0.0)


# ---- planes of a volume


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A ramp along A, in a ball, with voxels of other sizes along each axis; above 0 within."""
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (20, 24, 18)], indexing="ij"))
    values = np.where((at**2).sum(0) < 0.8, 10 + 5 * at[1] + at[0], 0).astype(np.float32)
    path = tmp_path_factory.mktemp("volume") / "brain.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([0.2, 0.1, 0.2, 1.0])), path)
    return path


def test_planes_of_a_volume_are_coronal_and_those_that_show_something(volume):
    plates = Planes(str(volume), pixels=16).load()
    assert plates.image.data.shape[1:] == (1, 16, 16)
    assert plates.numbers.tolist() == list(range(2, 22)), "|y| < √0.8 of 24 planes"
    assert Planes(str(volume), axis=0, pixels=16).load().numbers.tolist() == list(range(2, 18))


def test_an_oblique_plane_is_where_it_is_said_to_be(volume):
    """A ramp along A, seen in a plane turned about R, rises along S by the sine of the angle."""
    image, axis = Planes(str(volume)).volume()
    ramp = replace(image, data=image.grid.to_world(image.grid.voxels(image.data)[None])[:, 1:2].float())
    straight = tilted_plane(ramp, axis, 12, (0.0, 0.0))
    assert torch.allclose(straight.data, plane_of(ramp, axis, 12).data, atol=1e-5)
    seen = tilted_plane(ramp, axis, 12, (5.0, 0.0))
    rise = (seen.data[0, 0, 10, 12] - seen.data[0, 0, 10, 6]) / (6 * 0.2)
    assert abs(float(rise)) == pytest.approx(math.sin(math.radians(5)), rel=1e-3)
    assert float(seen.data[0, 0, 9:11, 8:10].mean()) == pytest.approx(float(straight.data[0, 0, 9, 8]), abs=1e-5)
    assert seen.grid.spacing.tolist() == pytest.approx([0.2, 0.2])


def test_tilted_planes_to_be_found(volume):
    data = HeldOutPlates(STILL, str(volume.parent), volume="brain.nii.gz", degrees=8.0, pixels=16, at_once=2, alone=2)
    assert {case.plate for pair in data.test.pairs for case in pair} == {8, 16}
    drawn: LabelledSlices = data.train.draw(torch.Generator().manual_seed(0))
    assert drawn.image.data.shape == (8, 1, 16, 16)
    assert drawn.is_plate.tolist() == [False] * 2 + [True] * 6
    example = next(iter(data.test))
    assert not torch.allclose(example.image.data, example.atlas.some(example.plates).data, atol=1e-3)
