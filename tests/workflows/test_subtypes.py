"""Types of a folder of people: what is written, what is told, and what is refused."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data.phantoms.partitions import Partitions
from pullback.errors import InputError
from pullback.methods.group.onto_template import OntoTemplate
from pullback.methods.group.structural_types import Types
from pullback.numerics.mixture import adjusted_rand
from pullback.records.csv_records import read_csv
from pullback.space import Affine
from pullback.workflows.gathered import Asked, gather
from pullback.workflows.subtypes import SubtypesHow, subtypes_files

COUNT = 44
POPULATION = Partitions(COUNT, 2, side=20, seed=2).population()
FAST = ("--set", "types.most=3", "--set", "types.starts=2", "--set", "types.samples=20")


def name(n: int) -> str:
    return f"sub-{n:02d}"


def write(values, path: Path, shift=(0.0, 0.0)) -> None:
    affine = np.eye(4)
    affine[:2, 3] = shift
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values)[..., None], affine), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """People of two types, with images, a table, connections that know no type, and the same labels as vertices."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for n, labels in enumerate(POPULATION.labels.numpy()):
        write(labels.astype(np.uint8), root / f"{name(n)}_dseg.nii.gz")
        write((labels + rng.random(labels.shape)).astype(np.float32), root / f"{name(n)}_T1w.nii.gz")
        matrix = rng.random((3, 3))
        text = "a,b,c\n" + "\n".join(",".join(map(str, row)) for row in matrix)
        (root / f"{name(n)}_conn.csv").write_text(text)
        array = nib.gifti.GiftiDataArray(labels.ravel().astype(np.int32), intent="NIFTI_INTENT_LABEL")
        nib.save(nib.GiftiImage(darrays=[array]), root / f"{name(n)}.label.gii")
    with (root / "people.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "age", "site", "family", "twin"])
        for n in range(COUNT - 2):
            site = "north" if POPULATION.types[n] else "south"
            writer.writerow([name(n), 20 + n, site, f"f{n // 2}", "identical" if n < 20 else ""])
    return root


def found_types(out: Path) -> torch.Tensor:
    return torch.tensor([int(row["type"]) - 1 for row in read_csv(out / "types.csv")])


def test_the_command(folder, pullback, tmp_path):
    """By images' labels, with a table: the site is the type, and that is said."""
    out = tmp_path / "out"
    words = ("--set", "data.images=*_T1w.nii.gz", "--set", "data.labels=*_dseg.nii.gz")
    people = ("--people", folder / "people.csv", "--connections", "*_conn.csv")
    code, told, err = pullback("subtypes", "--data", folder, "-o", out, *words, *people, *FAST, "--json")
    assert code == 0, err
    content = json.loads(told)
    assert content == json.loads((out / "run.json").read_text()) | {"files": content["files"]}
    assert content["types"] == 2
    assert content["p of one type"] < 0.05
    assert {*content["kinds"]} == {"structure", "connection"}
    assert content["template"] in map(name, range(COUNT))
    assert len(content["templates"]) == 2
    tables, maps = ("explained.csv", "kin.csv", "types.csv"), ("variability_1.nii.gz", "variability_2.nii.gz")
    assert content["files"] == [*tables, "types.png", *maps, "run.json"]
    assert adjusted_rand(found_types(out), POPULATION.types) > 0.9
    rows = read_csv(out / "types.csv")
    assert [row["subject"] for row in rows] == [*map(name, range(COUNT))]
    assert {"structure 1", "structure 4", "connection 1", "probability", "regions"} < {*rows[0]}
    whole = content["explained of the whole"]
    assert whole["structure by site"] > 0.1 > whole["connection by site"]
    assert "structure by site" in content["explained by where it was made"]
    assert any("not in people.csv: sub-42, sub-43" in note for note in content["notes"])
    kin = {row["pairs of"]: row["pairs"] for row in read_csv(out / "kin.csv")}
    assert (kin["identical"], kin["siblings"]) == (10, 11)
    map_ = nib.load(out / "variability_1.nii.gz")
    assert map_.shape[:2] == (20, 20)
    assert (out / "types.png").read_bytes()[:4] == b"\x89PNG"


def test_vertices_are_as_voxels_and_text_is_told(folder, pullback, tmp_path):
    words = ("--data", folder, *FAST, "--set", "types.neighbours=20")
    code, told, err = pullback("subtypes", *words, "--labels", "*.label.gii", "-o", tmp_path / "out")
    assert code == 0, err
    assert "2 types of 44 people" in told
    assert "Templates by type: 1: sub-" in told
    assert not (tmp_path / "out" / "variability_1.nii.gz").exists()
    vertices, voxels = (gather(Asked(folder, labels=each)) for each in ("*.label.gii", "*_dseg.nii.gz"))
    assert all(torch.equal(a, b.flatten()) for a, b in zip(vertices.labels, voxels.labels, strict=True))


@dataclass(frozen=True)
class Brightest:
    """A register by the shift of the brightest voxel."""

    def __call__(self, fixed, moving, start=None):
        matrix = torch.eye(3, dtype=torch.float64)
        places = [
            image.grid.to_world((image.data[0, 0] == image.data.max()).nonzero().double().mT[None])[0, :, 0]
            for image in (moving, fixed)
        ]
        matrix[:2, 2] = places[0] - places[1]
        return Alignment(Pair(fixed, moving), Affine(matrix))


@dataclass(frozen=True)
class Stays:
    """A register that goes no further."""

    def __call__(self, fixed, moving, start=None):
        return Alignment(Pair(fixed, moving), start)


@pytest.fixture
def shifted(tmp_path) -> Path:
    """Twenty-four people who are one, on one grid, each shifted by some voxels, a bright voxel in each."""
    block = np.zeros((8, 6), np.uint8)
    block[:4], block[4:] = 1, 2
    rng = np.random.default_rng(1)
    for n in range(24):
        i, j = rng.integers(6, 14, 2)
        labels = np.zeros((28, 28), np.uint8)
        labels[i : i + 8, j : j + 6] = block
        image = labels + rng.random(labels.shape).astype(np.float32)
        image[i + 3, j + 2] = 9
        write(labels, tmp_path / "in" / f"{name(n)}_dseg.nii.gz")
        write(image, tmp_path / "in" / f"{name(n)}_T1w.nii.gz")
    return tmp_path / "in"


def test_registration_removes_what_it_can(shifted, tmp_path):
    settings = {"data.images": "*_T1w.nii.gz", "data.labels": "*_dseg.nii.gz"}
    how = SubtypesHow(Types(most=2, starts=1, samples=1), OntoTemplate(Brightest(), Stays()))
    content = subtypes_files(Asked(shifted, settings), how, tmp_path / "out")
    before, affine, deformable = content["registered"]
    assert (before["removed"], affine["removed"], deformable["removed"]) == (0, 1, 1)
    assert "types" not in affine  # everybody is the same
    assert "everybody" not in content["verdict"]
    assert [row["stage"] for row in read_csv(tmp_path / "out" / "registered.csv")] == ["before", "affine", "deformable"]


def test_crops_on_several_grids(tmp_path):
    for n in range(4):
        labels = np.zeros((12 + n, 11), np.uint8)
        labels[3 + n : 9, 3:7] = 1
        labels[7:9, 3:7] = 2
        write(labels, tmp_path / f"{name(n)}.nii.gz", shift=(9.0 * n, -n))
    write(np.zeros((5, 5), np.uint8), tmp_path / "sub-09.nii.gz")
    asked = Asked(tmp_path, labels="*.nii.gz")
    with pytest.raises(InputError, match="--centred"):
        gather(asked)
    people = gather(Asked(tmp_path, labels="*.nii.gz", centred=True))
    assert list(people.names) == [*map(name, range(4))]
    assert len({tuple(each.shape) for each in people.labels}) == 1
    assert people.notes == ["left out, no label above 0: sub-09"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--labels", "*_dseg.nii.gz", "--registered"), "images are registered"),
        (("--labels", "nothing_*.nii.gz"), "0 people with labels"),
        (("--labels", "*_dseg.nii.gz", "--connections", "*_none.csv"), "matches connections of"),
        (("--labels", "*_dseg.nii.gz", "--rows", "a"), "--rows: is of --connections"),
        (("--labels", "*.label.gii", "--centred"), "vertices of one sphere"),
        (("--set", "data.images=*_T1w.nii.gz"), "no image has labels"),
        (("--labels", "*_dseg.nii.gz", "--method", "convex-adam"), "--registered asks for"),
        (("--labels", "*_dseg.nii.gz", "--set", "types.dim=3"), "did you mean 'dims'"),
        (("--labels", "*_dseg.nii.gz", "--set", "data.shape=[9,9]"), "is of images"),
    ],
)
def test_refused(folder, pullback, tmp_path, words, says):
    code, _, err = pullback("subtypes", "--data", folder, "-o", tmp_path / "out", *words)
    assert code == 1
    assert re.search(says, err), err
    assert not (tmp_path / "out").exists()


def test_a_table_of_strangers(folder, tmp_path):
    (tmp_path / "people.csv").write_text("subject,age\nsomebody,3\n")
    with pytest.raises(InputError, match="none of"):
        gather(Asked(folder, labels="*_dseg.nii.gz", people=tmp_path / "people.csv"))
    (tmp_path / "people.csv").write_text("who,age\nsomebody,3\n")
    with pytest.raises(InputError, match="a column"):
        gather(Asked(folder, labels="*_dseg.nii.gz", people=tmp_path / "people.csv"))
