"""What the README and the pages of the documentation tell people to type, typed."""

import json
import re
import shlex
import sys
from functools import reduce
from pathlib import Path

import pytest
import torch
import typer

from pullback import cli
from pullback.cli.train import with_data
from pullback.data import BrainPhantom, Learn2Reg, PairFolder
from pullback.files import write, write_series
from pullback.methods.method import find_method
from pullback.numerics.random import make_generator
from pullback.recipes import find, is_file
from pullback.space import Series
from pullback.studies import find as find_study
from pullback.study.plan import chosen
from pullback.workflows.how import How, clouds_of, register_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("src/pullback/pages/*.md"))]
MADE_THERE = {"extending.md"}  # what it adds is known to its own test alone


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page, but for those of files."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of each command line of `pullback` on a page, in blocks and in tables."""
    text = page.read_text()
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"^\|.*?`(pullback \w+ -[^`]*)`", text, re.MULTILINE)
    parts = [part.split("||")[0].strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part, comments=True) for part in parts if part.startswith("pullback ")]


def settings_of(words: dict) -> dict[str, str]:
    return dict(each.split("=", 1) for each in words["setting"] or ())


def look_up(command: str, words: dict) -> None:
    """Names on a command line, and the numbers that it sets, are known."""
    if command == "train" and not is_file(words["recipe"]):
        recipe = find(words["recipe"], words["network"], words["on"], read=words["data"] is not None)
        with_data(recipe, words["data"], settings_of(words))
    elif command in ("register", "match") and words["network"] is None:
        of = register_of if command == "register" else clouds_of
        of(How(method=words["method"], settings=settings_of(words), preset=words.get("preset")))
    elif command == "study":
        given = settings_of({"setting": words["data"]})
        chosen(find_study(words["name"]), words["tables"] or (), {key: Path(root) for key, root in given.items()})
    elif command == "methods" and words["name"] is not None:
        find_method(words["name"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page):
    """Options are there, and so are methods, networks, data, tables and the numbers that are set."""
    known = typer.main.get_command(cli.app)
    for _, command, *words in commands(page):
        context = known.commands[command].make_context(command, words)
        if page.name not in MADE_THERE:
            look_up(command, context.params)


def test_each_command_stands_on_some_page():
    told = {words[1] for page in PAGES for words in commands(page)}
    assert told == set(typer.main.get_command(cli.app).commands)


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A folder of brains as the pages speak of it, and a pair of them."""
    cases = BrainPhantom(spacing=12.0, train_subjects=8).train.cases
    (tmp_path / "scans").mkdir()
    for case in cases:
        subject = case.load()
        write(subject.image, tmp_path / "scans" / f"{case.name}_T1w.nii.gz")
        write(subject.labels, tmp_path / "scans" / f"{case.name}_dseg.nii.gz")
    for name, case in zip(("fixed", "moving"), cases, strict=False):
        write(case.load().image, tmp_path / f"{name}.nii.gz")
        write(case.load().labels, tmp_path / f"{name}_dseg.nii.gz")
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


def clouds(folder: Path) -> None:
    """Two clouds, and landmarks of one."""
    exhale = 60 * torch.rand(80, 3, generator=make_generator(0))
    for name, cloud in (("exhale", exhale), ("inhale", 1.1 * exhale + 3), ("landmarks", exhale[:2])):
        rows = "".join(f"{x},{y},{z}\n" for x, y, z in cloud.tolist())
        (folder / f"{name}.csv").write_text(f"R,A,S\n{rows}")


def first(page: str, command: str, number: int = 0) -> list[str]:
    """The words of one of a page's commands of one name."""
    return [words for words in commands(ROOT / page) if words[1] == command][number]


@pytest.mark.slow
def test_the_commands(scans, monkeypatch):
    """One of each kind; those that made the figures take their hours."""
    learn2reg(scans / "hippocampus")
    clouds(scans)
    few = ("training.updates=2", "data.held_out=2", "network.encoder=[4, 4]", "network.decoder=[4, 4, 4, 4]")
    study = [word.replace("table1", "table1/hippocampus/voxelmorph") for word in first("docs/how-to/study.md", "study")]
    images, train = "docs/how-to/images.md", first("docs/how-to/train.md", "train")
    typed = [
        first("README.md", "register"),
        *(first("docs/how-to/apply.md", "apply", n) for n in range(3)),
        first("docs/how-to/points.md", "match"),
        first("docs/how-to/convert.md", "convert"),
        first("docs/how-to/doctor.md", "doctor"),
        [word.replace("updates=5000", "updates=2") for word in train],
        first("docs/how-to/evaluate.md", "evaluate"),
        next(words for words in commands(ROOT / images) if "--refine" in words),
        first("docs/how-to/prepare.md", "prepare"),
        [*study, "--seed", "0", *(word for setting in few for word in ("--set", setting))],
    ]
    for words in typed:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, words
    assert {p.name for p in (scans / "out").iterdir()} >= {"moved.nii.gz", "fixed_to_moving.h5", "report.html"}
    assert (scans / "landmarks_in_moving.csv").is_file()
    assert (scans / "matched" / "fixed_points_in_moving.csv").is_file()
    assert len(Learn2Reg("prepared").train.names) == len(PairFolder("scans", "*_T1w.nii.gz").train.names)
    assert (scans / "studies" / "ofg" / "index.html").is_file()


def test_the_readme_fits_a_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 40


QUICKER = (("updates=5000", "updates=2"), ("updates=500", "updates=2"), ("spacing=2.0", "spacing=12.0"))


TYPED = ("start", "concepts", *(f"how-to/{page}" for page in ("python", "guidance", "evaluate", "many", "simulate")))


@pytest.mark.slow
@pytest.mark.parametrize("page", TYPED)
def test_the_python(scans, page):
    frames = tuple(case.load().image for case in BrainPhantom(spacing=12.0).train.cases[:3])
    for n, frame in enumerate(frames, 1):
        write(frame, scans / f"section_{n}.nii.gz")
    write_series(Series(frames, frames[0].grid, torch.arange(3.0)), scans / "bold.nii.gz")
    names: dict[str, object] = {}
    for code in blocks(ROOT / "docs" / f"{page}.md", "python"):
        exec(reduce(lambda text, change: text.replace(*change), QUICKER, code), names)


def test_what_pages_name_is_there():
    """Files of the repository, and links and pictures beside a page."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    named = {
        ROOT / path
        for page in pages
        for path in re.findall(r"`((?:src|tests|benchmarks|docs)/[\w./-]+\.\w+)\b", page.read_text())
        if page.name not in MADE_THERE
    }
    linked = {
        page.parent / path for page in pages for path in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    }
    assert named
    assert linked
    assert {str(path) for path in named | linked if not path.exists()} == set()
