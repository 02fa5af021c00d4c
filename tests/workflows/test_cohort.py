"""`pullback cohort`: every pair once, what failed again, and the most doubtful on top."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from pullback.cli import app
from pullback.errors import InputError
from pullback.files import read_image, write_image
from pullback.records.ledger import read_ledger
from pullback.records.workers import Worker
from pullback.space import Grid, Image
from pullback.workflows.cohort import Aligner, FilePair, cohort_files, pairs_of, pairs_onto, summary, suspicion
from pullback.workflows.how import How, register_of
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.register import register_files


@dataclass
class Here:
    """An engine of this process, which counts what is done."""

    done: Counter = field(default_factory=Counter)

    def worker(self, make):
        do, done = make(), self.done

        class Inline(Worker):
            def __call__(self, task):
                done[task.name] += 1
                return do(task)

            def close(self) -> None:
                pass

        return Inline()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, waves_of):
    """Three blurred pictures, each shifted from the last by a pixel."""
    root = tmp_path_factory.mktemp("cohort")
    for n, image in enumerate(waves_of(3)):
        write_image(image, root / f"p{n}_T1w.nii.gz")
    return root


@pytest.fixture(scope="module")
def waves_of():
    def made(count: int) -> list[Image]:
        grid = Grid.centred((26, 22), 2.0)
        where = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])[0]

        def ball(shift: float) -> torch.Tensor:
            off = where - torch.tensor([2.0 * shift, 1.0], dtype=torch.float64)[:, None, None]
            size = torch.tensor([8.0, 11.0], dtype=torch.float64)[:, None, None]
            return (-(off / size).square().sum(0)).exp() * (1 + 0.3 * (where[0] / 4).sin())

        return [Image(ball(n)[None, None].float(), grid) for n in range(count)]

    return made


def table(folder: Path, rows: list[str]) -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def quick(out: Path) -> Aligner:
    return Aligner(How(preset="fast", transform="rigid", start="header"), out)


def test_every_pair_is_done_once_and_as_alone(folder, tmp_path):
    pairs = pairs_of(table(folder, ["fixed,moving,fixed_mask", *(f"p0_T1w.nii.gz,p{n}_T1w.nii.gz," for n in (1, 2))]))
    assert [pair.name for pair in pairs] == ["p1_T1w_to_p0_T1w", "p2_T1w_to_p0_T1w"]
    engine = Here()
    content = cohort_files(pairs, quick(tmp_path / "out"), engine, 2)
    assert content["counts"] == {"aligned": 2}
    cohort_files(pairs, quick(tmp_path / "out"), engine, 1)
    assert set(engine.done.values()) == {1}
    files = [ImageFiles([path]) for path in (pairs[1].fixed, pairs[1].moving)]
    alone = register_files(*files, register_of(quick(tmp_path).how), tmp_path / "alone")
    moved = [read_image(path / "moved.nii.gz").data for path in (tmp_path / "alone", tmp_path / "out" / pairs[1].name)]
    assert torch.equal(*moved)
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [pair.name for pair in pairs]
    assert float(rows[1]["ncc"]) == pytest.approx(alone["numbers"]["after"]["ncc"])
    assert json.loads((tmp_path / "out" / "run.json").read_text())["pairs"] == 2
    assert "Look at" in summary(content, tmp_path / "out")


def test_what_failed_is_told_and_tried_again_and_another_way_is_another_work(folder, tmp_path):
    good = FilePair("good", str(folder / "p0_T1w.nii.gz"), str(folder / "p1_T1w.nii.gz"))
    bad = replace(good, name="bad", moving=str(tmp_path / "late.nii.gz"))
    out, engine = tmp_path / "out", Here()
    content = cohort_files([good, bad], quick(out), engine, 1)
    assert content["counts"] == {"aligned": 1, "failed": 1}
    page = (out / "report.html").read_text()
    assert page.index("bad") < page.index("good")
    assert "late.nii.gz" in page
    assert not (out / "bad").exists()
    write_image(read_image(folder / "p2_T1w.nii.gz"), tmp_path / "late.nii.gz")
    assert cohort_files([good, bad], quick(out), engine, 1)["counts"] == {"aligned": 2}
    assert engine.done == {"good": 1, "bad": 1}
    other = replace(quick(out), how=How(preset="fast", transform="translation", start="header"))
    cohort_files([good], other, engine, 1)
    assert engine.done["good"] == 2
    assert read_ledger(out)["good"].status == "done"


def test_the_most_doubtful_stand_on_top():
    rows = [
        {"name": "fine", "status": "aligned", "score": 0.9},
        {"name": "lost", "status": "failed"},
        {"name": "doubtful", "status": "looks failed", "score": 0.3},
        {"name": "worse", "status": "looks failed", "score": 0.1},
        {"name": "fair", "status": "aligned", "score": 0.6},
    ]
    assert [row["name"] for row in sorted(rows, key=suspicion)] == ["lost", "worse", "doubtful", "fair", "fine"]


def test_a_folder_onto_a_template(folder):
    pairs = pairs_onto(folder / "p0_T1w.nii.gz", folder, "**/*_T1w.nii.gz")
    assert [pair.name for pair in pairs] == ["p1_T1w", "p2_T1w"]
    assert {pair.fixed for pair in pairs} == {str(folder / "p0_T1w.nii.gz")}
    with pytest.raises(InputError, match=r"no file is called .*T2w"):
        pairs_onto(folder / "p0_T1w.nii.gz", folder, "*T2w*")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no rows"),
        (["fixed,moving"], "no rows"),
        (["fixed,movin", "a.nii,b.nii"], "column 'movin' is not known.*did you mean 'moving'"),
        (["fixed", "a.nii"], "line 2: no moving"),
        (["fixed,moving", "a.nii,"], "line 2: no moving; every pair needs it"),
        (["fixed,moving", "a.nii,b.nii", "a.nii,b.nii"], "two pairs are called b_to_a"),
        (["name,fixed,moving", "../x,a.nii,b.nii"], "called '../x'"),
    ],
)
def test_a_table_that_is_none_says_why(tmp_path, rows, says):
    with pytest.raises(InputError, match=says):
        pairs_of(table(tmp_path, rows))


@pytest.mark.nightly
def test_workers_and_drivers_that_are_killed_lose_nothing(folder, tmp_path):
    """Twelve pairs in two processes; workers are killed at random, and the driver once; all ends as undisturbed."""
    names = [f"{a}{b}" for a in range(3) for b in range(3) if a != b]
    rows = ["name,fixed,moving", *(f"{n}_{r},p{n[0]}_T1w.nii.gz,p{n[1]}_T1w.nii.gz" for n in names for r in (0, 1))]
    listed = table(folder, rows)
    command = [sys.executable, "-c", "from pullback.cli import main; main()", "cohort", str(listed)]
    command += ["--preset", "fast", "--transform", "rigid", "--start", "header", "-j", "2", "-o"]
    calm, out = tmp_path / "calm", tmp_path / "out"
    assert subprocess.run([*command, str(calm)], check=False).returncode == 0
    chance = random.Random(0)
    for kill_driver in (True, False):
        driver = subprocess.Popen([*command, str(out)], start_new_session=True)
        for _ in range(3):
            time.sleep(chance.uniform(4, 8))
            children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
            if driver.poll() is None and children.is_file():
                for child in children.read_text().split()[-1:]:
                    os.kill(int(child), signal.SIGKILL)
        if kill_driver:
            driver.kill()
        driver.wait()
    assert subprocess.run([*command, str(out)], check=False).returncode == 0
    for pair in pairs_of(listed):
        for name in ("moved.nii.gz", "fixed_to_moving.h5"):
            assert (out / pair.name / name).is_file()
        images = [read_image(root / pair.name / "moved.nii.gz").data for root in (calm, out)]
        assert torch.equal(*images)
    assert not list(out.glob("*/.pullback.*"))
    entries = read_ledger(out)
    assert len(entries) == len(rows) - 1
    assert {entry.status for entry in entries.values()} == {"done"}


def test_the_command_uses_processes(folder, tmp_path, capsys):
    listed = table(folder, ["fixed,moving", "p0_T1w.nii.gz,p1_T1w.nii.gz"])
    command = [
        "cohort",
        str(listed),
        "-o",
        str(tmp_path / "o"),
        "--preset",
        "fast",
        "--transform",
        "rigid",
        "--start",
        "header",
        "-j",
        "1",
    ]
    app(command, standalone_mode=False)
    assert "1 pairs: 1 aligned" in capsys.readouterr().out
    assert (tmp_path / "o" / "p1_T1w_to_p0_T1w" / "report.html").is_file()
