"""`pullback locate` on plates: what is written and refused; a slice that is partial and mirrored finds its plate."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter

from pullback import recipes
from pullback.errors import InputError
from pullback.files import read_transform, write_image
from pullback.space import Grid, Image
from pullback.study.recipe import changed
from pullback.study.run import load_run, run
from pullback.workflows.locate import PLATES, VOLUME, kind_of

SIZE, COUNT = 64, 8


def plate(number):
    """Smooth noise within an ellipse."""
    noise = gaussian_filter(np.random.default_rng(number).standard_normal((SIZE, SIZE)), 4)
    y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1) * 2 - 1
    return np.where((x / 0.9) ** 2 + (y / 0.75) ** 2 < 1, np.clip(130 + 900 * noise, 40, 255), 0).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Plates; and a slice of the sixth, a third of which is cut away, upside down."""
    folder = tmp_path_factory.mktemp("mouse")
    for name in ("plates", "train", "validation", "test"):
        (folder / name).mkdir()
    for number in range(1, COUNT + 1):
        Picture.fromarray(plate(number)).save(folder / "plates" / f"{number}.png")
    for name in ("train", "validation", "test"):
        Picture.fromarray(plate(3)).save(folder / name / "3.png")
    Picture.fromarray(np.ascontiguousarray(plate(6)[::-1, :42])).save(folder / "partial.png")
    return folder


@pytest.fixture(scope="module")
def learned(root, tmp_path_factory):
    """A run of a few updates."""
    small = {"network.size": "32", "network.widths": "[8, 8]", "network.blocks": "[1, 1]", "network.first": "8"}
    short = {"training.updates": "3", "training.validate_every": "3", "data.at_once": "1", "data.alone": "3"}
    recipe = changed(recipes.find("slice-identification", on="folder"), {**small, **short, "data.root": str(root)})
    folder = tmp_path_factory.mktemp("runs") / "slices"
    run(recipe, folder)
    return folder


def rows(folder):
    with (folder / "candidates.csv").open() as file:
        return [*csv.DictReader(file)]


def test_a_partial_slice_upside_down_finds_its_plate_without_training(pullback, root, tmp_path):
    quick = ("--turned", "--set", "deformable=null", "--top", 3)
    words = ("locate", root / "partial.png", "--in", root / "plates", "-o", tmp_path / "out", *quick)
    code, out, err = pullback(*words, "--json")
    assert code == 0, err
    content = json.loads(out)
    found = content["slices"]["partial"]
    assert found["plates"][0] == 6
    assert found["mirrored"], "upside down is mirrored and turned by half a circle"
    assert found["turned degrees"] in (0, 180)
    for name in content["files"]:
        assert (tmp_path / "out" / name).is_file(), name
    table = rows(tmp_path / "out")
    assert [row["candidate"] for row in table] == ["1", "2", "3"]
    assert table[0]["plate"] == "6"
    assert float(table[0]["similarity"]) > 0.8
    points = torch.tensor([[[-5.0, -20.0], [-30.0, -40.0]]]).double()
    there = torch.tensor([[[-5.0, -43.0], [-30.0, -23.0]]]).double()  # row 63 − r of the plate's file
    transform = read_transform(tmp_path / "out" / table[0]["transform"])
    assert (transform(points) - there).norm(dim=2).max() < 1.5
    back = read_transform(tmp_path / "out" / "partial" / "plate_006_to_slice.h5")
    assert (back(transform(points)) - points).norm(dim=2).max() < 0.5
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png") == 1 + 3 + 1
    assert "plate 6: distance" in page


def test_a_run_names_its_plates_and_is_told_apart(pullback, root, learned, tmp_path):
    """It learned nothing, so it may be unsure of its answer; but a plate is nearest to itself."""
    words = ("locate", root / "plates" / "5.png", "-o", tmp_path / "out", "--placed", 0, "--json")
    code, out, err = pullback(*words, "--in", learned)
    assert code in (0, 3), err
    content = json.loads(out)
    assert (content["by"], len(content["slices"]["5"]["plates"])) == ("embedding", 5)
    assert {row["similarity"] for row in rows(tmp_path / "out")} == {""}
    again = json.loads(pullback(*words, "--in", root / "plates", "--run", learned)[1])
    assert again["slices"] == content["slices"]
    with pytest.raises(InputError, match="aligns slice, not pair; `pullback locate --run` takes it"):
        load_run(learned, aligns="pair")


def test_planes_of_a_volume_are_plates_to_a_run(pullback, root, learned, tmp_path):
    volume = np.stack([plate(number) for number in range(1, COUNT + 1)], 2).astype(np.float32)
    path = tmp_path / "brain.nii.gz"
    write_image(Image(torch.from_numpy(volume)[None, None], Grid.centred(volume.shape)), path)
    still = ("--set", "linear=[]", "--set", "deformable=null")
    words = ("--in", path, "--run", learned, "-o", tmp_path / "out", *still)
    code, out, _ = pullback("locate", root / "partial.png", *words, "--axis", 2, "--json")
    assert code in (0, 3)
    found = json.loads(out)["slices"]["partial"]
    assert set(found["plates"]) <= set(range(COUNT))
    assert (tmp_path / "out" / "partial" / f"slice_to_plate_{found['plates'][0]:03d}.h5").is_file()


def test_where_slices_are_sought(root, learned, tmp_path):
    assert kind_of(root / "plates") == kind_of(learned) == kind_of(root / "partial.png", learned) == PLATES
    assert kind_of(root / "partial.png") == VOLUME
    with pytest.raises(InputError, match="no such file or folder"):
        kind_of(tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("partial.png", "--in", "train"), "1 plates called"),
        (("partial.png", "partial.png", "--in", "plates"), "several slices are called so"),
        (("partial.png", "--in", "plates", "--method", "cross-ngf"), "goes on from no start"),
        (("partial.png", "--in", "plates", "--axis", "1"), "is of a volume, and this is a folder"),
        (("none.png", "--in", "plates"), "no such file"),
    ],
)
def test_what_is_refused(pullback, root, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(root)
    code, _, err = pullback("locate", *words, "-o", tmp_path / "out")
    assert code == 1
    assert says in err
    assert not (tmp_path / "out").exists()
