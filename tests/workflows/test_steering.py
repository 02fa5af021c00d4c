"""`pullback register` by landmarks and labels: files to files."""

import csv
import json
from pathlib import Path

import pytest
import torch

from pullback.errors import InputError
from pullback.files import read_transform, write_image
from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Image, Labels, Motion
from pullback.workflows.choices import classical
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.register import register_files
from pullback.workflows.steering import Steering

NAMES = ("apex", "base", "left", "right", "top", "front", "back", "tip")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two boxes in a field of view each, far apart and turned; landmarks of them, one of which is in a wrong place."""
    root = tmp_path_factory.mktemp("steering")
    grid = Grid.centred((20, 18, 16), 2.0)
    turned = Motion.rigid(Affine.identity(3), grid)
    truth = Affine(turned.with_params(torch.tensor([9.0, -6.0, 14.0, 30.0, -22.0, 11.0])).matrix.detach().double())
    other = Grid(grid.shape, truth.matrix @ grid.affine)
    at = grid.to_world(grid.voxels(grid.affine)[None])
    box = ((at / torch.tensor([9.0, 11.0, 7.0]).view(1, 3, 1, 1, 1)).abs().amax(1, keepdim=True) < 1).long()
    for name, place in (("fixed", grid), ("moving", other)):
        write_image(Image((box * (1 + at[:, :1] / 40)).float(), place), root / f"{name}.nii.gz")
        write_image(Labels(box, place), root / f"{name}_labels.nii.gz")
    points = 10 * torch.randn(8, 3, generator=make_generator(3), dtype=torch.float64)
    there = truth(points[None])[0]
    there[4] += torch.tensor([0.0, 20.0, 0.0])
    write(root / "fixed.csv", NAMES, points)
    order = [5, 2, 7, 0, 1, 4, 6, 3]
    write(root / "moving.csv", [NAMES[n] for n in order], there[order])
    torch.save(truth.matrix, root / "truth.pt")
    return root


def write(path: Path, names, points: torch.Tensor) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "R", "A", "S"])
        writer.writerows([name, *point] for name, point in zip(names, points.tolist(), strict=True))


@pytest.fixture
def run(world, pullback):
    """`pullback register` of the two boxes: exit code, and all that is said."""

    def call(out: Path, *more: str) -> tuple[int, str]:
        code, said, refused = pullback(
            "register", "-f", world / "fixed.nii.gz", "-m", world / "moving.nii.gz", "-o", out, *more
        )
        return code, " ".join((said + refused).split())

    return call


def both(world: Path) -> list[str]:
    return ["--fixed-points", str(world / "fixed.csv"), "--moving-points", str(world / "moving.csv")]


def labels(world: Path) -> list[str]:
    return [
        "--fixed-labels",
        str(world / "fixed_labels.nii.gz"),
        "--moving-labels",
        str(world / "moving_labels.nii.gz"),
    ]


@pytest.mark.slow
def test_landmarks_are_the_start_and_the_wrong_one_is_named(world, run, tmp_path):
    """They stand in another order, one of them is 20 mm off, and the headers put the boxes 40 mm apart."""
    _, said = run(tmp_path, *both(world), "--transform", "rigid", "--check-points", "tip, apex")
    assert "landmark top is 20.0 mm off" in said
    content = json.loads((tmp_path / "run.json").read_text())
    told = content["landmarks"]
    assert told["do not agree"] == ["top"]
    assert (told["steer"], told["held back"], told["measured"]) == (6, 2, "held back")
    assert max(mm for name, mm in told["start leaves mm"].items() if name != "top") < 1e-3
    assert "tip" not in told["start leaves mm"]
    found = read_transform(tmp_path / "fixed_to_moving.h5")
    truth = Affine(torch.load(world / "truth.pt"))
    corner = torch.tensor([[[16.0, 14.0, 12.0]]], dtype=torch.float64)
    assert float((found(corner) - truth(corner)).norm()) < 1.0
    assert content["numbers"]["after"]["tre mm"] < 0.6
    assert "held back" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_labels_and_landmarks_steer_the_deformable_stage(world, run, tmp_path):
    code, said = run(
        tmp_path, *both(world), *labels(world), "--use-labels", "--points-weight", "0.1", "--preset", "fast"
    )
    assert code == 0, said
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["numbers"]["after"]["dice"] > 0.97
    assert content["landmarks"]["do not agree"] == ["top"]
    assert content["landmarks"]["measured"] == "those that steer"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--moving-points", "{}/moving.csv"], "needs --fixed-points"),
        (["--fixed-points", "{}/fixed.csv", "--points-weight", "1"], "--moving-points"),
        (["--start", "points"], "needs --fixed-points"),
        (["--use-labels"], "needs --fixed-labels and --moving-labels"),
        (["BOTH", "--check-points", "apx"], "apex"),
        (["BOTH", "--check-points", ",".join(NAMES)], "holds back all landmarks"),
        (["BOTH", "--check-points", ",".join(NAMES[3:]), "--start", "points-affine"], "needs 4 points"),
        (["BOTH", "--points-weight", "-1"], "0 or more"),
        (["BOTH", "--points-weight", "1", "--method", "convex-adam"], "classical method"),
        (["LABELS", "--use-labels", "--transform", "affine"], "classical method"),
    ],
)
def test_what_cannot_steer_is_refused_before_any_work(world, run, tmp_path, options, said):
    files = {"BOTH": both(world), "LABELS": labels(world)}
    given = [part for option in options for part in files.get(option, [option.format(world)])]
    code, out = run(tmp_path / "out", *given)
    assert code == 1
    assert said in out
    assert not (tmp_path / "out").exists()


def test_a_file_of_other_landmarks_is_named(world, tmp_path):
    write(tmp_path / "other.csv", ["one", "two"], torch.zeros(2, 3))
    files = [ImageFiles([world / f"{side}.nii.gz"]) for side in ("fixed", "moving")]
    with pytest.raises(InputError, match=r"other\.csv: 0 names are in both"):
        register_files(
            *files,
            classical("fast"),
            tmp_path / "out",
            world / "fixed.csv",
            steering=Steering(tmp_path / "other.csv", "rigid"),
        )
