"""Boxes in files: tables that name their space, regions of interest of 3D Slicer, and folders of either."""

import json
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.alignment import Alignment
from pullback.data import Learn2Reg, PairFolder
from pullback.data.learn2reg import write_dataset
from pullback.data.splits import some_of
from pullback.energies import BoxMSE
from pullback.errors import InputError
from pullback.files import read_boxes, write_boxes
from pullback.numerics.boxes import extents
from pullback.recipes import find
from pullback.records.csv_records import read_csv
from pullback.space import Affine, Boxes
from pullback.study.recipe import changed
from pullback.study.run import load_run, run

LOW, HIGH = ((-12.0, 3.0, 7.5), (1.0, -9.0, 0.0)), ((-2.5, 9.0, 20.0), (6.0, -4.0, 2.0))
"""Corners of the boxes of labels 6 and 2 in RAS mm."""
TABLES = {
    "ras.csv": "label,r0,r1,a0,a1,s0,s1\n6,-12,-2.5,3,9,7.5,20\n2,1,6,-9,-4,0,2\n",
    "lps.csv": "who, S0,S1,l0,l1,p0,p1,label\nx,7.5,20,2.5,12,-9,-3,6\ny,0,2,-6,-1,4,9,2\n",
    "itk.csv": "label,x0,x1,y0,y1,z0,z1\n\n6,2.5,12,-9,-3,7.5,20\n2,-6,-1,4,9,0,2\n",
}


def region(label=6, orientation=(-1, 0, 0, 0, -1, 0, 0, 0, 1), size=(9.5, 6, 12.5), **more):
    """A region as Slicer saves it: LPS, its axes along R, A, S, of which the label is in its name."""
    return {
        "type": "ROI",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "roiType": "Box",
        "center": [7.25, -6.0, 13.75],
        "orientation": [*map(float, orientation)],
        "size": [*size],
        "name": f"organ {label}",
        "controlPoints": [{"id": "1", "label": "R-1", "position": [7.25, -6.0, 13.75]}],
        **more,
    }


def written(path, *regions):
    path.write_text(json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [*regions]}))
    return path


def assert_known(boxes, values=(2, 6)):
    order = [(6, 2).index(value) for value in values]
    assert boxes.values.tolist() == [*values]
    torch.testing.assert_close(boxes.low, torch.tensor([[LOW[n] for n in order]], dtype=torch.float64))
    torch.testing.assert_close(boxes.high, torch.tensor([[HIGH[n] for n in order]], dtype=torch.float64))


@pytest.mark.parametrize("name", TABLES)
def test_one_set_of_boxes_in_any_table(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name])
    read = read_boxes(tmp_path / name, space="lps" if name == "itk.csv" else None)
    assert_known(read)
    write_boxes(read, tmp_path / "again.csv")
    assert_known(read_boxes(tmp_path / "again.csv"))


def test_boxes_of_slices(tmp_path):
    (tmp_path / "flat.csv").write_text("label,l0,l1,p0,p1\n1,2,4,6,8\n")
    read = read_boxes(tmp_path / "flat.csv")
    assert (read.low.tolist(), read.high.tolist()) == ([[[-4.0, -8.0]]], [[[-2.0, -6.0]]])


def test_regions_of_slicer(tmp_path):
    """As Slicer saves them, turned by a right angle, and in RAS; by the name of the region, or of the file."""
    assert_known(read_boxes(written(tmp_path / "a.mrk.json", region())), (6,))
    turned = region(orientation=(0, -1, 0, 1, 0, 0, 0, 0, 1), size=(6, 9.5, 12.5))
    assert_known(read_boxes(written(tmp_path / "b.mrk.json", turned)), (6,))
    ras = region(coordinateSystem="RAS", center=[-7.25, 6.0, 13.75])
    assert_known(read_boxes(written(tmp_path / "c.mrk.json", ras)), (6,))
    assert_known(read_boxes(written(tmp_path / "liver_6.mrk.json", region(name="liver"))), (6,))
    second = {"center": [-3.5, 6.5, 1.0], "size": (5, 5, 2)}
    assert_known(read_boxes(written(tmp_path / "d.mrk.json", region(), region(2, **second))))
    one, two = (tmp_path / f"r_{n}.mrk.json" for n in (6, 2))
    assert_known(read_boxes(written(one, region()), written(two, region(2, **second))))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with label,r0"),
        ("label,R,A,S\n1,2,3,4\n", "begins with label,r0"),
        ("label,r0,r1,a0,a1\n", "got no boxes"),
        ("label,x0,x1,y0,y1\n1,0,1,0,1\n", "of which space"),
        ("label,r0,r1,a0,a1\nliver,0,1,0,1\n", "line 2: a label is a whole number.*'liver'"),
        ("label,r0,r1,a0,a1\n0,0,1,0,1\n", "whole number from 1"),
        ("label,r0,r1,a0,a1\n1,0,1,0,1\n2,3,3,0,1\n", "line 3: finite corners expected, the lower before"),
        ("label,r0,r1,a0,a1\n1,0,nan,0,1\n", "finite corners"),
        ("label,r0,r1,a0,a1\n1,0,1,0\n", "line 2: a number in each column"),
        ("label,r0,r1,a0,a1\n1,0,1,0,1\n1,0,2,0,1\n", "line 3: the label 1 has two boxes"),
    ],
)
def test_tables_that_say_nothing_are_refused(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        read_boxes(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        ([], "alone expected"),
        ([region(), {"type": "Fiducial"}], "alone expected"),
        ([region(orientation=(0.996, -0.087, 0, 0.087, 0.996, 0, 0, 0, 1))], "it is turned: reset"),
        ([region(name="liver")], "which label has the region liver"),
        ([region(name="")], "which label has the region without a name"),
        ([region(), region()], "the label 6 has two boxes"),
        ([region(roiType="Sphere")], "regions that are boxes, in mm"),
        ([region(coordinateUnits="um")], "regions that are boxes, in mm"),
        ([region(size=(1, 0, 1))], "the lower before the higher"),
        ([{"type": "ROI"}], "not Slicer's regions"),
        ([region(center=[1.0])], "not Slicer's regions"),
    ],
)
def test_regions_that_say_nothing_are_refused(tmp_path, regions, says):
    with pytest.raises(InputError, match=says):
        read_boxes(written(tmp_path / "r.mrk.json", *regions))


def test_other_files_and_spaces_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text(TABLES["ras.csv"])
    with pytest.raises(InputError, match="the file says RAS, --space says lps"):
        read_boxes(tmp_path / "t.csv", space="lps")
    with pytest.raises(InputError, match="no such file"):
        read_boxes(tmp_path / "none.csv")
    with pytest.raises(InputError, match="the label 2 has a box in another file too"):
        read_boxes(tmp_path / "t.csv", tmp_path / "t.csv")
    (tmp_path / "bad.mrk.json").write_text("[")
    with pytest.raises(InputError, match="not Slicer's regions"):
        read_boxes(tmp_path / "bad.mrk.json")
    boxes = read_boxes(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"written as \.csv"):
        write_boxes(boxes, tmp_path / "t.txt")


# ---- folders


@pytest.fixture
def folder(tmp_path):
    """Six people with images, labels, and the boxes of these as tables and as regions, on flipped unequal voxels."""
    affine = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -9], [0, 0, 1, 4], [0, 0, 0, 1]])
    draw = np.random.default_rng(0)
    for n in range(6):
        labels = np.zeros((20, 18, 12), np.uint8)
        for value in (1, 3):
            low = draw.integers(1, 6, 3)
            labels[tuple(slice(a, a + 3 + value) for a in low)] = value
        for kind, data in (("ct", draw.random(labels.shape).astype(np.float32)), ("seg", labels)):
            nib.save(nib.Nifti1Image(data, affine), tmp_path / f"p{n}_{kind}.nii.gz")
    cases = PairFolder(str(tmp_path), "{subject}_ct.nii.gz", "{subject}_seg.nii.gz").cases
    for case in cases:
        boxes = Boxes.of(case.load().labels)
        write_boxes(boxes, tmp_path / f"{case.name}_boxes.csv")
        for value, low, high in zip(boxes.values.tolist(), boxes.low[0].numpy(), boxes.high[0].numpy(), strict=True):
            middle, size = (low + high) / 2 * [-1, -1, 1], high - low
            known = region(value, center=middle.tolist(), size=size.tolist(), name="R")
            written(tmp_path / f"{case.name}_{value}.mrk.json", known)
    return tmp_path


@pytest.mark.parametrize("pattern", ["{subject}_boxes.csv", "{subject}_{label}.mrk.json"])
def test_a_folder_of_boxes_teaches_as_its_labels_do(folder, pattern):
    told = PairFolder(str(folder), "{subject}_ct.nii.gz", boxes=pattern)
    labelled = PairFolder(str(folder), "{subject}_ct.nii.gz", "{subject}_seg.nii.gz")
    for one, other in zip(told.test, labelled.test, strict=True):
        assert one.fixed_labels is None
        assert one.fixed_boxes.values.tolist() == [1, 3]
        faces = extents(other.fixed_labels.data, one.fixed_boxes.values)
        torch.testing.assert_close(one.fixed_boxes.on(one.fixed.grid, one.fixed_boxes.values), faces, rtol=0, atol=1e-6)
        values = [float(BoxMSE()(Alignment(pair, Affine.identity(3)))) for pair in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-7)
        assert values[0] > 0
        assert one.to(torch.device("cpu")).moving_boxes.batch == 1


def test_a_network_is_trained_from_boxes_without_any_labels(folder):
    """By the recipe for folders, two updates: it learns by the boxes, is kept, and aligns two files' images."""
    said = {"data.images": "{subject}_ct.nii.gz", "data.boxes": "{subject}_{label}.mrk.json", "data.root": str(folder)}
    few = {"training.updates": "2", "training.validate_every": "2", "network.head_at": "2"}
    recipe = changed(find("boxes", read=True), said | few)
    run(recipe, folder / "run")
    (*_, row) = read_csv(folder / "run" / "training.csv")
    assert float(row["box mse"]) > 0
    _, network = load_run(folder / "run")
    pair = next(iter(recipe.data.test))
    assert network(*pair.images).transform.displacement(pair.fixed.grid).isfinite().all()


def test_boxes_that_do_not_fit_are_refused(folder):
    told = PairFolder(str(folder), "{subject}_ct.nii.gz", boxes="{subject}_boxes.csv")
    with pytest.raises(InputError, match=r"boxes in mm and data\.shape"):
        PairFolder(str(folder), "{subject}_ct.nii.gz", boxes="{subject}_boxes.csv", shape=(8, 8, 8)).cases[0].load()
    with pytest.raises(InputError, match="no boxes match"):
        _ = PairFolder(str(folder), "{subject}_ct.nii.gz", boxes="{subject}_{label}.csv.gz").cases
    (folder / "p0_boxes.csv").write_text("label,r0,r1,a0,a1,s0,s1\n1,0,9,0,9,4,9\n7,500,510,0,9,4,9\n")
    with pytest.raises(InputError, match="box of label 7 lies beyond the image"):
        told.cases[0].load()


# ---- a share of the people


def test_a_share_of_the_people_is_part_of_a_larger_one_and_moves_nobody_else(folder):
    for n in range(6, 24):
        for kind in ("ct", "seg"):
            data = nib.load(folder / f"p{n % 6}_{kind}.nii.gz")
            array = np.asarray(data.dataobj).copy()
            array[0, 0, 0] = 0 if kind == "seg" else n
            nib.save(nib.Nifti1Image(array, data.affine), folder / f"p{n}_{kind}.nii.gz")
    every = PairFolder(str(folder), "*_ct.nii.gz", "*_seg.nii.gz")
    shares = {}
    for share in (0.25, 0.5, 1.0):
        some = PairFolder(str(folder), "*_ct.nii.gz", "*_seg.nii.gz", learned=share)
        assert (some.validation.names, some.test.names) == (every.validation.names, every.test.names)
        shares[share] = {*some.train.names}
        assert len(shares[share]) == round(share * len(every.train.names))
    assert shares[0.25] < shares[0.5] < shares[1.0] == {*every.train.names}
    for wrong in (0.0, 1.5, -1.0):
        with pytest.raises(InputError, match=r"data\.learned: a share"):
            _ = PairFolder(str(folder), "*_ct.nii.gz", "*_seg.nii.gz", learned=wrong).train


@pytest.mark.parametrize("seed", range(10))
def test_shares_are_parts_of_each_other_whoever_else_is_there(seed):
    names = [f"p{n:02d}" for n in range(40)]
    parts = [{*some_of(names, share, seed)} for share in (0.1, 0.2, 0.5, 0.8, 1.0)]
    assert [len(part) for part in parts] == [4, 8, 20, 32, 40]
    assert all(one < other for one, other in pairwise(parts))
    assert some_of(names, 0.5, seed) == tuple(name for name in names if name in parts[2])
    assert some_of(names, None, seed) == tuple(names)
    assert parts[2] != {*some_of(names, 0.5, seed + 1)}


def test_a_share_of_the_patients_of_a_challenge(folder):
    names = [f"T_{n:04d}_{m:04d}" for n in range(8) for m in range(2)]
    for n, name in enumerate(names):
        (folder / f"{name}.nii.gz").write_bytes((folder / f"p{n % 6}_ct.nii.gz").read_bytes())
    entries = {name: {"image": f"{name}.nii.gz"} for name in names}
    pairs = {"validation": [(names[0], names[2])], "test": [(names[4], names[6])]}
    write_dataset(folder, "T", entries, pairs, {})
    every, half = Learn2Reg(str(folder)), Learn2Reg(str(folder), learned=0.5)
    assert len(every.train.cases) == 8
    assert len(half.train.cases) == 4
    assert len({case.name[:6] for case in half.train.cases}) == 2, "all images of a patient, or none"
    assert {*half.train.names} < {*every.train.names}
    assert half.test.names == every.test.names
