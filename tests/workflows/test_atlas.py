"""Atlases of a folder of scans: what is written, by age too; going on after a stop; and what is refused."""

import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import PairFolder
from pullback.data.single_scans import SingleScans
from pullback.errors import InputError, Interrupted
from pullback.files import read_image, read_labels, read_transforms, write_image
from pullback.methods.group.atlas import AtlasEvaluation, AtlasRounds, GroupwiseSupervision
from pullback.methods.group.conditional import ConditionalAtlas
from pullback.methods.group.template import TemplateBuilder
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.records.csv_records import read_csv
from pullback.records.ledger import LEDGER
from pullback.space import Affine, Displacement, Grid, Image, Labels, Transform, Velocity, pull
from pullback.study.recipe import Recipe
from pullback.study.run import run
from pullback.training import Training, seeded
from pullback.workflows.atlas import ByAge, atlas_files, planned
from pullback.workflows.atlas_film import frames_between, planes
from pullback.workflows.atlas_making import ByBuilder, ByNetwork
from pullback.workflows.scans import read_scans

GRID = Grid.centred((24, 20), 1.5)
AGES = (10.0, 12.0, 20.0, 22.0, 30.0, 34.0)


def name(n: int) -> str:
    return f"sub-{n:02d}"


def radius(n: int) -> float:
    """Of the disc of a person, who grows with age; mm."""
    return 5 + 0.15 * AGES[n]


def disc(n: int) -> torch.Tensor:
    where = GRID.to_world(GRID.voxels(torch.zeros((), dtype=torch.float64))[None])
    return torch.sigmoid(radius(n) - where.square().sum(1, keepdim=True).sqrt()).float()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    for n in range(len(AGES)):
        write_image(Image(disc(n), GRID), root / f"{name(n)}_T1w.nii.gz")
        write_image(Labels((disc(n) > 0.5).to(torch.uint8), GRID), root / f"{name(n)}_dseg.nii.gz")
    rows = "\n".join(f"{name(n)},{age:g}" for n, age in enumerate(AGES))
    (root / "people.csv").write_text(f"subject,age\n{rows}\n")
    return root


SETTINGS = {"data.images": "*_T1w.nii.gz", "data.labels": "*_dseg.nii.gz"}


def size(image: Image) -> float:
    """Radius of a disc by its area above a half, in mm."""
    return float(((image.data > 0.5).sum() * 2.25 / torch.pi).sqrt())


@dataclass(frozen=True)
class Swelling:
    """A register of discs about the origin: a field that scales one to the other."""

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        scale = size(moving) / size(fixed)
        still = torch.eye(2, dtype=torch.float64)
        grown = Affine.about(scale * still, torch.zeros(2).double())
        return Alignment(Pair(fixed, moving), Displacement(grown.displacement(fixed.grid).float(), fixed.grid))


BUILDER = TemplateBuilder(None, Swelling(), rounds=2, change=0.0)


def test_the_template_of_all(folder, tmp_path):
    content = atlas_files(read_scans(folder, SETTINGS), ByBuilder(BUILDER), tmp_path / "out")
    template = read_image(tmp_path / "out" / "template.nii.gz")
    mean = sum(radius(n) for n in range(len(AGES))) / len(AGES)
    assert size(template) == pytest.approx(mean, abs=0.35)  # a quarter of a voxel
    labels = read_labels(tmp_path / "out" / "template_labels.nii.gz")
    assert abs(int(labels.data.sum()) - int((template.data > 0.5).sum())) < 8
    known = read_transforms(tmp_path / "out" / "transforms")
    assert [*known] == [name(n) for n in range(len(AGES))]
    mean_of_maps = sum(known[key].displacement(GRID) for key in known) / len(known)
    assert mean_of_maps[..., 4:-4, 4:-4].abs().max() < 0.02
    moved = pull(Image(disc(5), GRID), known[name(5)], onto=template)
    assert size(moved) == pytest.approx(size(template), abs=0.3)
    people = read_csv(tmp_path / "out" / "people.csv")
    assert min(float(row["correlation"]) for row in people) > 0.97
    assert content["quality"] == {"passed": True, "lost": []}
    assert json.loads((tmp_path / "out" / "run.json").read_text())["templates"] == ["template"]


def test_templates_by_age_grow_as_people_do(folder, tmp_path):
    scans = read_scans(folder, SETTINGS, folder / "people.csv")
    content = atlas_files(scans, ByBuilder(BUILDER), tmp_path / "out", ByAge(at=(11.0, 21.0, 32.0), bandwidth=3.0))
    assert content["templates"] == ["template_age_11", "template_age_21", "template_age_32"]
    for age, own in ((11, (0, 1)), (21, (2, 3)), (32, (4, 5))):
        template = read_image(tmp_path / "out" / f"template_age_{age}.nii.gz")
        assert size(template) == pytest.approx(sum(map(radius, own)) / 2, abs=0.35)
    rows = read_csv(tmp_path / "out" / "templates.csv")
    assert [float(row["mean age of its scans"]) for row in rows] == pytest.approx([11, 21, 32], abs=0.5)
    people = read_csv(tmp_path / "out" / "people.csv")
    assert [row["template"] for row in people] == [f"template_age_{age}" for age in (11, 11, 21, 21, 32, 32)]
    assert (tmp_path / "out" / "growth.png").read_bytes().count(b"fcTL") > 10  # pictures of an animated PNG


def test_a_stopped_atlas_goes_on_and_is_the_same(folder, tmp_path):
    scans, left = read_scans(folder, SETTINGS), [9]

    class Stopping(Swelling):
        def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
            left[0] -= 1
            if left[0] == -1:
                raise Interrupted("stopped")
            return super().__call__(fixed, moving, start)

    stopping = replace(BUILDER, deformable=Stopping())
    with pytest.raises(Interrupted):
        atlas_files(scans, ByBuilder(stopping), tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "template.nii.gz").exists()
    atlas_files(scans, ByBuilder(stopping), tmp_path / "stopped")
    assert left[0] == 9 - 2 * len(AGES) - 1  # the one that was broken off is done again, and no other
    atlas_files(scans, ByBuilder(BUILDER), tmp_path / "whole")
    one, two = (read_image(tmp_path / where / "template.nii.gz").data for where in ("stopped", "whole"))
    assert torch.equal(one, two)
    done = left[0]
    atlas_files(scans, ByBuilder(stopping), tmp_path / "stopped")
    assert left[0] == done  # finished: nothing is done again
    assert (tmp_path / "stopped" / "work" / LEDGER).is_file()


def test_another_scan_begins_it_anew(folder, tmp_path):
    root = tmp_path / "scans"
    shutil.copytree(folder, root)
    counted = []

    class Counting(Swelling):
        def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
            counted.append(1)
            return super().__call__(fixed, moving, start)

    builder = replace(BUILDER, deformable=Counting(), rounds=1)
    atlas_files(read_scans(root, SETTINGS), ByBuilder(builder), tmp_path / "out")
    write_image(Image(0.9 * disc(5), GRID), root / "sub-00_T1w.nii.gz")
    atlas_files(read_scans(root, SETTINGS), ByBuilder(builder), tmp_path / "out")
    assert len(counted) == 2 * len(AGES)


def test_the_command(folder, tmp_path, pullback):
    words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    by_age = ("--ages", folder / "people.csv", "--templates", 2, "--bandwidth", 8)
    quick = ("--aligned", "--method", "log-demons", "--set", "rounds=1")
    code, told, err = pullback("atlas", "--data", folder, "-o", tmp_path, *words, *by_age, *quick, "--json")
    assert code == 0, err
    content = json.loads(told)
    assert content["templates"] == ["template_age_16", "template_age_28"]
    assert content["method"] == "log-demons"
    young, old = (size(read_image(tmp_path / f"{each}.nii.gz")) for each in content["templates"])
    assert old > young + 0.5


def test_a_network_with_templates_of_its_own(folder, tmp_path):
    """Templates of ages are the stored ones, and its maps lead to the scans, however they are stored."""
    with seeded(0):
        network = ConditionalAtlas(2, GRID.shape, (11.0, 32.0), register=lambda ndim, channels: Swelling())
    network.grid_affine.copy_(GRID.affine)
    network.templates.copy_(torch.cat([disc(0), disc(5)]))
    scans = read_scans(folder, SETTINGS, folder / "people.csv")
    atlas_files(scans, ByNetwork(network, "runs/atlas"), tmp_path / "out", ByAge(at=(11.0, 32.0), bandwidth=6.0))
    for n, age in ((0, 11), (5, 32)):
        template = read_image(tmp_path / "out" / f"template_age_{age}.nii.gz")
        torch.testing.assert_close(template.data, disc(n))
    known = read_transforms(tmp_path / "out" / "transforms")
    moved = pull(Image(disc(3), GRID), known[name(3)], onto=GRID)
    assert planned(scans, ByAge(at=(11.0, 32.0), bandwidth=6.0)).of(3) == 1
    assert size(moved) == pytest.approx(radius(5), abs=0.4)


def test_bad_input(folder, tmp_path, pullback):
    words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    for more, says in (
        (("--templates", 2), "--column age: is not there"),
        (("--ages", folder / "people.csv", "--column", "aeg"), "did you mean 'age'"),
        (("--ages", folder / "people.csv", "--at", "10,fifteen"), "numbers parted by commas"),
        (("--ages", folder / "people.csv", "--at", "60"), "widen --bandwidth"),
    ):
        code, _, err = pullback("atlas", "--data", folder, "-o", tmp_path / "out", *words, *more)
        assert code == 1
        assert says in err
    assert not (tmp_path / "out").exists()
    table = tmp_path / "few.csv"
    table.write_text("subject,age\n" + "\n".join(f"{name(n)},{AGES[n]}" for n in range(4)))
    scans = read_scans(folder, SETTINGS, table)
    assert scans.notes == ["not in few.csv: sub-04, sub-05"] or "sub-04" in scans.notes[0]
    with pytest.raises(InputError, match="no number for 2 of 6 scans"):
        planned(scans, ByAge())


def test_ages_that_look_as_in_two_units_are_told(folder, tmp_path):
    table = tmp_path / "units.csv"
    table.write_text("subject,age\n" + "\n".join(f"{name(n)},{1 + 50 * (n // 3)}" for n in range(len(AGES))))
    scans = read_scans(folder, SETTINGS, table)
    content = atlas_files(
        scans, ByBuilder(replace(BUILDER, rounds=1)), tmp_path / "out", ByAge(at=(1.0, 51.0), bandwidth=0.0)
    )
    assert any("one unit" in note for note in content["notes"])


def test_pictures_are_upright_and_go_there_and_back():
    data = torch.zeros(1, 1, 8, 6)
    data[..., 1, 5] = 1  # left, up
    picture = planes(Image(data, Grid.centred((8, 6))))
    rows, columns = np.nonzero(picture)
    assert rows.max() < picture.shape[0] / 4
    assert columns.max() < picture.shape[1] / 2
    images = [Image(disc(n), GRID) for n in (0, 5)]
    frames = frames_between(images, Swelling())
    assert len(frames) == 8
    areas = [(frame > 127).sum() for frame in frames[:5]]
    assert areas == sorted(areas)


def test_a_run_of_train_atlas_is_a_network_with_templates(folder, tmp_path, pullback):
    """A recipe that is written, read back, and whose run the command takes."""
    light = partial(VoxelMorph, encoder=(4, 8), decoder=(8, 8, 4, 4), transform=Velocity)
    recipe = Recipe(
        about="discs",
        data=SingleScans(PairFolder(str(folder), "*_T1w.nii.gz", "*_dseg.nii.gz")),
        network=partial(ConditionalAtlas, ndim=2, shape=GRID.shape, register=light),
        supervision=partial(GroupwiseSupervision, shape=GRID.shape),
        training=Training(updates=2),
        metrics=(),
        procedure=AtlasRounds(rounds=2, change=0.0),
        evaluation=partial(AtlasEvaluation),
    )
    network = run(recipe, tmp_path / "run")
    words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    code, _, err = pullback("atlas", "--data", folder, "-o", tmp_path / "out", *words, "--network", tmp_path / "run")
    assert code == 0, err
    template = read_image(tmp_path / "out" / "template.nii.gz")
    torch.testing.assert_close(template.data, network.template(0.0).data)
    code, _, err = pullback(
        "atlas", "--data", folder, "-o", tmp_path / "no", *words, "--network", tmp_path / "run", "--aligned"
    )
    assert code == 1
    assert "not of a network's templates" in err
