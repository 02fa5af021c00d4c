"""Methods of three kinds, as a user would bring them: files of under 40 lines, trained, killed and resumed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pullback import cli
from pullback.errors import InputError
from pullback.files import write_image
from pullback.space import Grid, Labels
from pullback.study.run import load_run
from pullback.training import load_tensors

KILLED = """
import os, signal, sys, pullback.cli, pullback.training.train
loop = sys.modules["pullback.training.train"]
original, left = loop.update, {left}
def update(*args):
    global left
    left -= 1
    return os.kill(os.getpid(), signal.SIGKILL) if left < 0 else original(*args)
loop.update = update
pullback.cli.main()
"""


@pytest.fixture
def pullback(monkeypatch, tmp_path):
    """A command, from the folder of the test, whose files it may import; `kill`ed in the update after so many."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("adversary", "slices"):  # of another test
        monkeypatch.delitem(sys.modules, name, raising=False)

    def call(*words, kill=None):
        if kill is None:
            monkeypatch.setattr(sys, "argv", ["pullback", *map(str, words)])
            return cli.app(standalone_mode=False)
        code = f"import sys; sys.path.insert(0, '.')\n{KILLED.format(left=kill)}"
        process = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, check=False)
        assert process.returncode == -signal.SIGKILL, process.stderr.decode()
        return None

    return call


def assert_same(one: Path, other: Path) -> None:
    """Two runs left the same weights, to the bit, and what else is needed to go on."""
    for path in sorted(one.rglob("*.safetensors")):
        (a, about), (b, too) = load_tensors(path), load_tensors(other / path.relative_to(one))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), path
        assert {k: v for k, v in about.items() if "seconds" not in k} == {
            k: v for k, v in too.items() if "seconds" not in k
        }


ADVERSARY = '''
import torch
from dataclasses import replace
from torch import nn
from torch.nn.functional import softplus
from functools import partial
from pullback import Diffusion, MSE, Player
from pullback.recipes import find

class Adversarial(nn.Module):
    """The energy, and that a discriminator takes the moved image for a fixed one: LDDMM-GAN's eq. 6 and 7."""
    def __init__(self):
        super().__init__()
        layers = nn.Conv3d(2, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 1)
        self.discriminator = nn.Sequential(*layers)
    def taken(self, pair, other):
        return self.discriminator(torch.cat([pair.fixed.data, other], 1)).mean()
    def forward(self, network, pair, progress):
        found = network(pair.fixed, pair.moving)
        return {**(MSE() + Diffusion()).terms(found), "fool": 1e-3 * softplus(-self.taken(pair, found.moved.data))}

def discern(supervision, network, pair, progress):
    mixed = 0.8 * pair.fixed.data + 0.2 * pair.moving.data
    moved = network(pair.fixed, pair.moving).moved.data
    return {"real": softplus(-supervision.taken(pair, mixed)), "moved": softplus(supervision.taken(pair, moved))}

base = find("voxelmorph", "voxelmorph", "phantom")
judge = Player("discriminator", ("supervision.discriminator.",), discern, lr=1e-3, every=2)
recipe = replace(base, about="an adversary", supervision=partial(Adversarial), training=replace(base.training,
    updates=10, save_every=3, validate_every=5, log_every=1, deterministic=True, players=(judge,)))
'''


def test_what_a_user_writes_is_short():
    for text in (ADVERSARY, SLICES):
        assert len([line for line in text.splitlines() if line.strip()]) < 40


SMALL = ("data.spacing=12", "data.train_subjects=3", "data.validation_subjects=2", "data.test_subjects=2")
SMALL += ("network.encoder=[4, 4]", "network.decoder=[4, 4, 4, 4]")


@pytest.mark.slow
def test_a_discriminator_beside_voxelmorph(pullback, tmp_path):
    (tmp_path / "adversary.py").write_text(ADVERSARY)
    sets = [word for setting in SMALL for word in ("--set", setting)]
    pullback("train", "adversary.py", "-o", "whole", *sets)
    pullback("train", "adversary.py", "-o", "killed", *sets, kill=7)
    pullback("train", "adversary.py", "-o", "killed", "--resume", "--trust", "adversary")
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert (tmp_path / "whole" / "training.csv").read_text() == (tmp_path / "killed" / "training.csv").read_text()
    tensors, _ = load_tensors(tmp_path / "whole" / "last.safetensors")
    players = {name.split(".")[1] for name in tensors if name.startswith("optimiser.")}
    assert players == {"network", "discriminator"}
    assert "discriminator/moved" in (tmp_path / "whole" / "training.csv").read_text()


def lungs(folder: Path) -> Path:
    """As `lung_keypoints`, of few points, of which the breath is a stretch."""
    grid, inside = Grid((32, 32, 32), torch.eye(4, dtype=torch.float64)), torch.zeros(1, 1, 32, 32, 32).long()
    inside[..., 1:31, 1:31, 1:31] = 1
    sizes = {"spacing_nominal": np.full(3, 3.0), "spacing_true": np.full(3, 3.0), "shape": np.full(3, 32)}
    (folder / "masks").mkdir(parents=True)
    for case in range(2, 11):
        generator, breath = np.random.default_rng(case), np.array([1.1, 1.05, 0.95])
        here, marked = (2 + 25 * generator.random((n, 3)) for n in (60, 12))
        clouds = {"exhale_keypoints": here, "inhale_keypoints": generator.permutation(here)[:55] * breath}
        landmarks = {"landmarks_exhale": marked, "landmarks_inhale": marked * breath}
        np.savez(folder / f"copd_{case:02d}.npz", **clouds, **landmarks, **sizes)
        for which in ("exp", "insp"):
            write_image(Labels(inside, grid), folder / "masks" / f"case_{case:02d}_{which}_mask.nii.gz")
    return folder


@pytest.mark.slow
def test_clouds_learn_in_rounds_and_match_by_what_they_learned(pullback, tmp_path):
    data, quick = lungs(tmp_path / "lungs"), ("training.updates=4", "procedure.rounds=2", "procedure.pairs=3")
    quick += ("training.save_every=1", "training.batch=2", "procedure.labelling.views=1")
    quick += tuple(f"{part}.register.settle=null" for part in ("procedure.labelling", "evaluation"))
    command = ("train", "cyclical", "--on", "lungs", "--data", data, *(w for s in quick for w in ("--set", s)))
    pullback(*command, "-o", "whole")
    pullback(*command, "-o", "killed", kill=3)
    pullback(*command[:4], "-o", "killed", "--resume")
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert (tmp_path / "whole" / "rounds.csv").read_text().startswith("round,tre mm,seconds")
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["aligns"] == "points"
    for name, kind in (("fixed", "exhale"), ("moving", "inhale")):
        points = np.load(data / "copd_02.npz")[f"{kind}_keypoints"] * 3.0
        (tmp_path / f"{name}.csv").write_text("\n".join(["R,A,S", *(",".join(map(str, p)) for p in points)]))
    for more in ((), ("--network", "whole")):
        pullback("match", "-f", "fixed.csv", "-m", "moving.csv", "-o", f"match{len(more)}", "--space", "ras", *more)
    contents = [json.loads((tmp_path / f"match{n}" / "run.json").read_text()) for n in (0, 2)]
    assert [content["network"] for content in contents] == [None, "whole"]
    assert contents[0]["numbers"]["after"] != contents[1]["numbers"]["after"]
    with pytest.raises(InputError, match=r"aligns points, not pair; `pullback match --network` takes it"):
        load_run(tmp_path / "whole", aligns="pair")
    pullback("evaluate", "whole", "-o", "measured")
    assert "tre mm" in (tmp_path / "measured" / "pairs.csv").read_text()


SLICES = """
import torch
from dataclasses import dataclass
from functools import partial
from torch import nn
from pullback import Grid, Image, Recipe, Training
from pullback.data import Singles, Subject, Test, Validation
from pullback.numerics.random import make_generator
from pullback.training import ExampleEvaluation

@dataclass(frozen=True)
class Plate:
    number: int
    seen: int = 0
    name = property(lambda self: f"{self.number}-{self.seen}")
    def load(self):
        flat = torch.rand(1, 1, 16, 16, generator=make_generator(1, self.number))
        noise = torch.rand(2, 1, 16, 16, generator=make_generator(2, self.number, self.seen))
        return Subject(Image(flat + 0.3 * noise, Grid.centred((16, 16))), about={"plate": self.number}, name=self.name)

@dataclass(frozen=True)
class Slices:
    train = property(lambda self: Singles([Plate(n, seen) for n in range(5) for seen in (1, 2)]))
    validation = property(lambda self: Validation.singles([Plate(n, 3) for n in range(5)]))
    test = property(lambda self: Test.singles([Plate(n, 4) for n in range(5)]))

class Embedding(nn.Sequential):
    def __init__(self): super().__init__(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 8))
    def forward(self, image): return nn.functional.normalize(super().forward(image.data), dim=1)

@dataclass(frozen=True)
class Triplet:
    def __call__(self, network, plate, progress):
        (one, other), away = network(plate.image), network(Plate((plate.about["plate"] + 1) % 5).load().image)[0]
        return {"triplet": ((one - other).norm() - (one - away).norm() + 1).clamp(min=0)}

def rank(network, plate):
    atlas = torch.stack([network(Plate(n).load().image)[0] for n in range(5)])
    far = (atlas - network(plate.image)[0]).norm(dim=1)
    return {"rank": float((far < far[plate.about["plate"]]).sum())}

ranks = partial(ExampleEvaluation, measure=rank, chooses="rank", higher_is_better=False, aligns="slice")
training = Training(20, lr=1e-2, save_every=6, validate_every=5)
recipe = Recipe("slices", Slices(), partial(Embedding), Triplet(), training, evaluation=ranks)
"""


@pytest.mark.slow
def test_an_embedding_of_labelled_slices(pullback, tmp_path):
    (tmp_path / "slices.py").write_text(SLICES)
    pullback("train", "slices.py", "-o", "whole")
    pullback("train", "slices.py", "-o", "killed", kill=15)
    pullback("train", "slices.py", "-o", "killed", "--resume", "--trust", "slices")
    assert_same(tmp_path / "whole", tmp_path / "killed")
    about = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert (about["aligns"], about["shape"]) == ("slice", [16, 16])
    recipe, network = load_run("whole", ["slices"])
    means = [row["rank"] for row in recipe.evaluates(recipe.data.test).rows(network, torch.device("cpu"))]
    assert sum(means) == 0, "each unseen slice finds its plate first"
    with pytest.raises(InputError, match="aligns slice, not pair; `pullback locate --run` takes it"):
        load_run("whole", ["slices"], "pair")
    pullback("evaluate", "whole", "-o", "measured", "--trust", "slices")
    assert "rank" in (tmp_path / "measured" / "summary.csv").read_text()
