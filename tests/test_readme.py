"""What the README tells people to type, typed."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from pullback import cli
from pullback.data import BrainPhantom, Learn2Reg, PairFolder
from pullback.files import write
from pullback.numerics.random import make_generator

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A folder of brains as the README speaks of it, and a pair of them."""
    cases = BrainPhantom(spacing=12.0, train_subjects=8).train.cases
    (tmp_path / "scans").mkdir()
    for case in cases:
        subject = case.load()
        write(subject.image, tmp_path / "scans" / f"{case.name}_T1w.nii.gz")
        write(subject.labels, tmp_path / "scans" / f"{case.name}_dseg.nii.gz")
    for name, case in zip(("fixed", "moving"), cases, strict=False):
        write(case.load().image, tmp_path / f"{name}.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def learn2reg(folder: Path) -> None:
    """The same brains in the layout of the challenge."""
    entries = []
    for n, case in enumerate(BrainPhantom(spacing=12.0, train_subjects=8).train.cases):
        subject, name = case.load(), f"T_{n:03d}.nii.gz"
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        for kind, part in (("image", subject.image), ("label", subject.labels)):
            (folder / f"{kind}sTr").mkdir(parents=True, exist_ok=True)
            write(part, folder / entries[-1][kind])
    pairs = [{"fixed": entries[0]["image"], "moving": entries[1]["image"]}]
    (folder / "T_dataset.json").write_text(json.dumps({"training": entries, "registration_val": pairs}))


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("pullback ")]


def test_the_commands(scans, monkeypatch):
    words: dict[str, list[str]] = {}
    for line in commands():  # the first of each kind; the ones that made the figures take their hours
        words.setdefault(" ".join(line[1 : 4 if line[1] == "apply" else 2]), line)
    images, points = "apply -i moving.nii.gz", "apply -i landmarks.csv"
    assert set(words) == {"register", "match", images, points, "train", "study", "evaluate", "prepare"}
    words["train"] = [w.replace("updates=5000", "updates=2") for w in words["train"]]
    learn2reg(scans / "hippocampus")
    few = ("training.updates=2", "data.held_out=2", "network.encoder=[4, 4]", "network.decoder=[4, 4, 4, 4]")
    words["study"] = [w.replace("table1", "table1/hippocampus/voxelmorph") for w in words["study"]]
    words["study"] += ["--seed", "0", *(word for setting in few for word in ("--set", setting))]
    words["refined"] = [*words["register"], "--network", "runs/mine", "--refine", "2"]
    (scans / "landmarks.csv").write_text("R,A,S\n0,0,0\n10,-5,20\n")
    exhale = 60 * torch.rand(80, 3, generator=make_generator(0))
    for name, cloud in (("exhale.csv", exhale), ("inhale.csv", 1.1 * exhale + 3)):
        (scans / name).write_text("R,A,S\n" + "".join(f"{x},{y},{z}\n" for x, y, z in cloud.tolist()))
    for name in ("register", "match", images, points, "train", "study", "evaluate", "refined", "prepare"):
        monkeypatch.setattr(sys, "argv", words[name])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    assert {p.name for p in (scans / "out").iterdir()} >= {"moved.nii.gz", "fixed_to_moving.h5", "report.html"}
    assert (scans / "landmarks_in_moving.csv").is_file()
    assert (scans / "matched" / "fixed_points_in_moving.csv").is_file()
    assert len(Learn2Reg("prepared").train.names) == len(PairFolder("scans", "*_T1w.nii.gz").train.names)
    assert (scans / "studies" / "ofg" / "index.html").is_file()


def test_the_python(scans):
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(code.replace("updates=5000", "updates=2"), names)
    assert (scans / "moved.nii.gz").is_file()
    assert (scans / "fixed_to_moving.h5").is_file()
    assert names["refined"].field.shape == names["learned"].field.shape


def test_the_picture_is_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())
    assert pictures
    assert all((README.parent / picture).is_file() for picture in pictures)


def test_the_files_that_pages_name_are_there():
    root = README.parent
    pages = [*root.glob("*.md"), *root.glob("docs/*.md")]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(r"`((?:src|tests|benchmarks|docs)/[\w./-]+\.\w+)\b", page.read_text())
    }
    assert len(named) > 5
    assert {(page, path) for page, path in named if not (root / path).is_file()} == set()
