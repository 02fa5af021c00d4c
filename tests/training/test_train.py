"""The loop: what it leaves, that it can be killed at any moment, and that it refuses nonsense."""

import csv
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pullback.data import Cohort
from pullback.errors import InputError
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.metrics import Dice, Folding
from pullback.study.recipe import Recipe, to_yaml
from pullback.study.run import load_run, run
from pullback.training import Training, Unsupervised, draw, load_weights, save_weights, seeded, train

SMALL = partial(VoxelMorph, ndim=3, encoder=(4, 4), decoder=(4, 4, 4, 4))
COHORT = Cohort(spacing=12.0, train_subjects=3, validation_subjects=2, test_subjects=2, motion=((24.0, 3.0),))


def recipe(updates: int = 12, **kwargs) -> Recipe:
    numbers = {"lr": 1e-3, "log_every": 2, "validate_every": 6, "save_every": 3} | kwargs
    return Recipe("a test", COHORT, SMALL, Unsupervised(), Training(updates=updates, **numbers), (Dice(), Folding()))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_what_it_promises(tmp_path):
    network = run(recipe(), tmp_path / "run")
    left = {p.name for p in (tmp_path / "run").iterdir()}
    promised = "recipe.yaml run.json training.csv validation.csv tensorboard best.safetensors last.safetensors"
    assert left == set(promised.split())
    with (tmp_path / "run" / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows] == [2, 4, 6, 8, 10, 12]
    loaded, again = load_run(tmp_path / "run")
    assert to_yaml(loaded) == to_yaml(recipe())
    assert_same(network.state_dict(), again.state_dict())


def test_the_same_seed_gives_the_same_weights(tmp_path):
    for name in ("a", "b"):
        run(recipe(updates=4), tmp_path / name)
    run(recipe(updates=4, seed=1), tmp_path / "c")
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert not torch.equal(a["network.head.weight"], c["network.head.weight"])


KILLED = """
import os, signal, sys
from pullback.space import Image
from pullback.training import train as module
sys.path.insert(0, {tests!r})
from test_train import recipe
from pullback.study.run import run
import pullback.training.train as loop
count = 0
def update(*args, original=loop._update):
    global count
    count += 1
    if count == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
loop._update = update
run(recipe(deterministic=True), {out!r})
"""


def test_killed_and_resumed_is_bitwise_the_same(tmp_path):
    """SIGKILL in the eighth update, between two checkpoints; the resumed run ends as the uninterrupted one."""
    run(recipe(deterministic=True), tmp_path / "whole")
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "killed"))
    code = code.replace("from pullback.training import train as module\n", "").replace(
        "from pullback.space import Image\n", ""
    )
    code = code.replace(
        "import pullback.training.train as loop", "import sys; loop = sys.modules['pullback.training.train']"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    run(recipe(deterministic=True), tmp_path / "killed", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    for name in ("best.safetensors",):
        assert_same(load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name))
    for name in ("training.csv",):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "killed" / name).read_text()


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_train import recipe
from pullback.study.run import run
run(recipe(updates=100000, save_every=100000, validate_every=100000), {str(tmp_path / "run")!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "training.csv"
    deadline = time.monotonic() + 60
    while not (log.is_file() and len(log.read_text().splitlines()) > 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "Interrupted: stopped after update" in error
    assert "--resume" in error
    assert (tmp_path / "run" / "last.safetensors").is_file()
    assert '"interrupted"' in (tmp_path / "run" / "run.json").read_text()


def test_a_finished_folder_is_not_overwritten(tmp_path):
    run(recipe(updates=2), tmp_path)
    with pytest.raises(InputError, match="--resume"):
        run(recipe(updates=2), tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        run(recipe(updates=3), tmp_path, resume=True)


def test_a_checkpoint_of_another_network(tmp_path):
    with seeded(0):
        save_weights(SMALL(), tmp_path / "w.safetensors", {})
    with pytest.raises(InputError, match=r"w\.safetensors.*another network.*VoxelMorph"):
        load_weights(VoxelMorph(ndim=3), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_weights(SMALL(), tmp_path / "w.safetensors")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    network = SMALL()
    path = tmp_path / "w.safetensors"
    save_weights(network, path, {"update": 1})
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pullback.training.checkpoint.save_file", full)
    with pytest.raises(InputError, match="No space left"):
        save_weights(network, path, {"update": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_loss_that_is_not_finite_stops_the_training():
    def broken(register, pair, progress):
        terms = Unsupervised()(register, pair, progress)
        return {name: value * float("nan") for name, value in terms.items()}

    with pytest.raises(FloatingPointError, match=r"training\.lr"):
        train(SMALL(), COHORT.train, broken, Training(updates=2))


def test_pairs_depend_on_seed_and_index_alone():
    names = [draw(COHORT.train, 0, index).name for index in range(12)]
    assert names == [draw(COHORT.train, 0, index).name for index in range(12)]
    assert names != [draw(COHORT.train, 1, index).name for index in range(12)]
    assert all(name.split(" ← ")[0] != name.split(" ← ")[1] for name in names)
    assert len(set(names)) > 3


def test_progress_runs_from_zero_to_one_and_schedules_the_rate():
    seen = []

    def watching(register, pair, progress):
        seen.append(progress)
        return Unsupervised()(register, pair, progress)

    rates = []
    train(SMALL(), COHORT.train, watching, Training(updates=4, schedule=lambda p: rates.append(p) or 1 - p))
    assert seen == rates == [0.0, 0.25, 0.5, 0.75]


def test_the_network_is_never_pickled(tmp_path):
    run(recipe(updates=2), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".ckpt")]
