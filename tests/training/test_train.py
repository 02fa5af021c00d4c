"""The loop: what it leaves, that it can be killed at any moment, and that it refuses nonsense."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.optim import SGD

from pullback.alignment import Pair
from pullback.data import BrainPhantom, Synthesis, Synthetic, Validation
from pullback.errors import InputError
from pullback.methods.pair.ofg import EveryKth, Guided, Mixture
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.metrics import Dice, Folding, SDLogJ
from pullback.numerics.random import make_generator
from pullback.recipes import find
from pullback.records.lock import locked
from pullback.space import Displacement, Grid, Image
from pullback.study.recipe import Recipe, to_yaml
from pullback.study.run import EARLIER, Run, build, learned_from, load_run, run
from pullback.training import (
    Cosine,
    KnownTransform,
    PairEvaluation,
    Plateau,
    Player,
    RandomFlips,
    Training,
    Unsupervised,
    draw,
    load_tensors,
    load_weights,
    save_tensors,
    save_weights,
    score,
    seeded,
)
from pullback.training.checkpoint import save_state
from pullback.training.log import Log
from pullback.training.train import train

SMALL = partial(VoxelMorph, ndim=3, encoder=(4, 4), decoder=(4, 4, 4, 4))
COHORT = BrainPhantom(spacing=12.0, train_subjects=3, validation_subjects=2, test_subjects=2, motion=((24.0, 3.0),))


def recipe(updates: int = 12, **kwargs) -> Recipe:
    numbers = {"lr": 1e-3, "log_every": 2, "validate_every": 6, "save_every": 3} | kwargs
    return Recipe("a test", COHORT, SMALL, Unsupervised(), Training(updates=updates, **numbers), (Dice(), Folding()))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(tmp_path):
    network = run(recipe(), tmp_path / "run")
    left = {p.name for p in (tmp_path / "run").iterdir()}
    records = {"recipe.yaml", "run.json", "splits.json", "files.json"}
    assert left == {*records, "training.csv", "validation.csv", "tensorboard", "best.safetensors", "last.safetensors"}
    with (tmp_path / "run" / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows] == [2, 4, 6, 8, 10, 12]
    loaded, again = load_run(tmp_path / "run")
    assert to_yaml(loaded) == to_yaml(recipe())
    assert_same(network.state_dict(), again.network.state_dict())
    assert again.spacing == [12.0, 12.0, 12.0]
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert {split: len(names) for split, names in splits.items()} == {"train": 3, "validation": 2, "test": 2}


def test_the_same_seed_gives_the_same_weights(tmp_path):
    for name in ("a", "b"):
        run(recipe(updates=4), tmp_path / name)
    run(recipe(updates=4, seed=1), tmp_path / "c")
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert not torch.equal(a["network.head.convolution.weight"], c["network.head.convolution.weight"])


KILLED = """
import os, signal, sys
from pullback.space import Image
from pullback.training import train as module
sys.path.insert(0, {tests!r})
from test_train import recipe
from pullback.study.run import run
import pullback.training.train as loop
count = 0
def update(*args, original=loop.update):
    global count
    count += 1
    if count == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
loop.update = update
run(recipe(deterministic=True), {out!r})
"""


@pytest.mark.slow
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


class Counted:
    """Which pairs are drawn is told by their generator's first number."""

    def __init__(self):
        self.drawn = []

    def __call__(self, pair, generator):
        self.drawn.append((pair.name, float(torch.rand((), generator=generator))))
        return pair


def test_every_pair_is_augmented_by_a_generator_of_its_own():
    seen, again, other = Counted(), Counted(), Counted()
    for augment, seed in ((seen, 0), (again, 0), (other, 1)):
        with seeded(seed):
            network = SMALL()
        train(network, COHORT.train, Unsupervised(), Training(updates=3, batch=2, seed=seed, augment=augment))
    assert len({number for _, number in seen.drawn}) == 6
    assert seen.drawn == again.drawn
    assert not {number for _, number in seen.drawn} & {number for _, number in other.drawn}
    assert [name for name, _ in seen.drawn] == [draw(COHORT.train, 0, n).name for n in range(6)]


@pytest.mark.slow
def test_synthetic_pairs_are_the_same_after_a_pause(tmp_path):
    augment = Synthesis(translation=10.0)
    run(recipe(updates=4, augment=augment), tmp_path / "whole")
    run(recipe(updates=2, augment=augment), tmp_path / "paused")
    run(recipe(updates=4, augment=augment), tmp_path / "paused", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "paused"))
    run(recipe(updates=4), tmp_path / "plain")
    assert not torch.equal(*(next(iter(weights(tmp_path / name).values())) for name in ("whole", "plain")))


def test_what_is_told_of_a_synthetic_pair_is_learned():
    """The distance of points to where the drawn transform leads them; one pair, drawn again and again."""
    (pair,) = Synthetic(Synthesis(displacement=12.0, controls=3)).listed(Validation, [COHORT.train.cases[0]])
    with seeded(0):
        network = SMALL()
    told = KnownTransform()
    before = told(network, pair, 0.0)["tre"].item()
    training = Training(updates=40, lr=1e-2, augment=lambda drawn, generator: pair)
    train(network, COHORT.train, told, training)
    assert told(network, pair, 0.0)["tre"].item() < 0.5 * before


@pytest.mark.slow
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
    deadline = time.monotonic() + 200
    while not (log.is_file() and len(log.read_text().splitlines()) > 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "Interrupted: stopped after update" in error
    assert "--resume" in error
    assert (tmp_path / "run" / "last.safetensors").is_file()
    assert '"interrupted"' in (tmp_path / "run" / "run.json").read_text()


def test_a_finished_folder_is_not_overwritten_but_may_be_gone_on_with(tmp_path):
    run(recipe(updates=2), tmp_path / "run")
    with pytest.raises(InputError, match="--resume"):
        run(recipe(updates=2), tmp_path / "run")
    with pytest.raises(InputError, match="another recipe"):
        run(recipe(updates=2, lr=3e-3), tmp_path / "run", resume=True)
    run(recipe(updates=4), tmp_path / "run", resume=True)
    run(recipe(updates=4), tmp_path / "whole")
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_run_that_has_done_more_is_left_as_it_is(tmp_path):
    run(recipe(updates=4), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(
        InputError, match=rf"{tmp_path}.* has done 4 updates, more than training.updates=3; go on with 4"
    ):
        run(recipe(updates=3), tmp_path, resume=True)
    with pytest.raises(InputError, match="has done 4 updates"):
        train(SMALL(), COHORT.train, Unsupervised(), Training(updates=3), out=tmp_path, resume=True)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    run(recipe(updates=4), tmp_path, resume=True)


def test_a_run_of_before_is_gone_on_with(tmp_path):
    """Its recipe lacks what came later, and its optimiser has no name."""
    run(recipe(updates=4), tmp_path / "whole")
    run(recipe(updates=2), tmp_path / "old")
    tree = yaml.safe_load((tmp_path / "old" / "recipe.yaml").read_text())
    del tree["evaluation"]
    for later in ("players", "frozen", "clip", "choose_from"):
        del tree["training"][later]
    (tmp_path / "old" / "recipe.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    last = tmp_path / "old" / "last.safetensors"
    tensors, about = load_tensors(last)
    save_tensors({k.replace("optimiser.network.", "optimiser."): v for k, v in tensors.items()}, last, about)
    run(recipe(updates=4), tmp_path / "old", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "old"))
    with pytest.raises(InputError, match="another recipe"):
        run(recipe(updates=4, clip=1.0), tmp_path / "old", resume=True)


def test_claims_of_players_are_told_before_a_run_begins(tmp_path):
    with pytest.raises(InputError, match=r"judge: no weight's name begins with 'supervision\.judge'; they begin with"):
        run(recipe(players=(Player("judge", ("supervision.judge",)),)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_depends_on_the_length_may_not_change_with_it(tmp_path):
    run(recipe(updates=2, choose_from=0.5), tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        run(recipe(updates=4, choose_from=0.5), tmp_path, resume=True)


@pytest.mark.parametrize("plateau", [None, Plateau(0.5, 1)])
def test_how_often_is_validated_is_kept_where_a_plateau_counts_it(tmp_path, plateau):
    run(recipe(updates=2, plateau=plateau), tmp_path)
    run(recipe(updates=4, plateau=plateau, log_every=1, save_every=1), tmp_path, resume=True)
    other = recipe(updates=4, plateau=plateau, validate_every=1)
    if plateau is None:
        run(other, tmp_path, resume=True)
    else:
        with pytest.raises(InputError, match="another recipe"):
            run(other, tmp_path, resume=True)


def test_a_run_that_is_named_within_a_part_is_known_too(tmp_path):
    """The teacher of some updates: whom it learned from is kept, and it may move, and nothing else beside it."""
    run(replace(recipe(updates=1), data=replace(COHORT, train_subjects=6)), tmp_path / "first")

    def student(teacher, epochs=1):
        taught = Mixture(SelfTraining(Run(str(teacher))), EveryKth(1, epochs))
        return replace(recipe(updates=1), supervision=taught)

    run(student(tmp_path / "first"), tmp_path / "second")
    earlier = json.loads((tmp_path / "second" / "splits.json").read_text())[EARLIER]
    assert set(earlier) == learned_from(tmp_path / "first") <= learned_from(tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "moved")
    run(student(tmp_path / "moved"), tmp_path / "second", resume=True)
    with pytest.raises(InputError, match="another recipe"):
        run(student(tmp_path / "moved", epochs=2), tmp_path / "second", resume=True)


@pytest.mark.parametrize("mode", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("wanted", [False, True])
def test_what_others_want_of_torch_stays(mode, wanted):
    def now():
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    seen = []

    def watching(register, pair, progress):
        seen.append(now())
        return Unsupervised()(register, pair, progress)

    torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
    try:
        train(SMALL(), COHORT.train, watching, Training(updates=1, deterministic=wanted))
        assert now() == mode
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [(True, True) if wanted and not mode[0] else mode]


@pytest.mark.parametrize("paced", [{"schedule": Cosine()}, {"supervision": Guided(decay=Cosine())}])
def test_what_is_paced_by_its_length_keeps_it(tmp_path, paced):
    """Half of a descent to a small rate is not half of a longer one."""
    training, supervision = recipe(updates=2).training, paced.get("supervision", Unsupervised())
    first = replace(recipe(), training=replace(training, schedule=paced.get("schedule")), supervision=supervision)
    run(first, tmp_path)
    longer = replace(first, training=replace(first.training, updates=4))
    with pytest.raises(InputError, match="another recipe"):
        run(longer, tmp_path, resume=True)
    run(replace(first, training=replace(first.training, log_every=1)), tmp_path, resume=True)


def test_what_was_trained_is_ready_to_answer():
    """Without dropout, and leaving its statistics alone."""
    network = build(recipe())
    made = train(network, COHORT.train, Unsupervised(), Training(updates=1))
    assert not any(part.training for part in made.modules())


def test_a_run_of_other_subjects_is_not_resumed(tmp_path):
    run(recipe(updates=2), tmp_path)
    more = replace(recipe(updates=4), data=replace(COHORT, train_subjects=4))
    (tmp_path / "recipe.yaml").write_text(to_yaml(more))
    with pytest.raises(InputError, match="other subjects"):
        run(more, tmp_path, resume=True)


def test_a_folder_where_a_start_failed_is_free(tmp_path):
    (tmp_path / "recipe.yaml").write_text("left over")
    run(recipe(updates=2), tmp_path)
    assert (tmp_path / "best.safetensors").is_file()


def test_what_could_not_be_read_back_is_not_trained(tmp_path):
    numbers = replace(recipe().training, schedule=lambda progress: 1.0)
    with pytest.raises(InputError, match="this recipe: not a recipe"):
        run(replace(recipe(), training=numbers), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run(
        replace(recipe(updates=2), training=replace(recipe(updates=2).training, schedule=Cosine(0.1))), tmp_path / "run"
    )


def test_a_network_of_another_dimension_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"set network\.ndim=3"):
        run(replace(recipe(), network=partial(VoxelMorph, ndim=2)), tmp_path / "run")


@pytest.mark.parametrize("numbers", [{"updates": -1}, {"log_every": 0}, {"lr": 0.0}, {"precision": "fp16"}])
def test_numbers_that_cannot_be(numbers):
    with pytest.raises(InputError, match=next(iter(numbers))):
        Training(**numbers)


@pytest.mark.parametrize("numbers", [{"factor": 0.0}, {"factor": 1.0}, {"factor": float("nan")}, {"patience": 0}])
def test_plateaus_that_cannot_be(numbers):
    with pytest.raises(InputError, match="plateau: a factor between 0 and 1 and a patience of 1"):
        Plateau(**numbers)


def test_a_checkpoint_of_another_network(tmp_path):
    with seeded(0):
        save_weights(SMALL(), tmp_path / "w.safetensors", {})
    with pytest.raises(InputError, match=r"w\.safetensors.*another network.*VoxelMorph"):
        load_weights(VoxelMorph(ndim=3), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_weights(SMALL(), tmp_path / "w.safetensors")


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
from test_train import recipe
from pullback.study.run import run
from pullback.errors import InputError
from pullback.records.lock import locked
run(recipe(updates=3), {out!r})
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    run(recipe(updates=100000, log_every=1), {out!r}, resume=True)
except InputError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "what"),
    [(9_000, "safetensors"), pytest.param(60_000, "log|training.csv|run:", marks=pytest.mark.nightly)],
)
def test_a_full_disk_ends_a_training_with_a_word(tmp_path, limit, what):
    """A real refusal by the system, of the checkpoint or of the growing logs; the old state stays whole."""
    out = tmp_path / "run"
    code = FULL.format(tests=str(Path(__file__).parent), out=str(out), limit=limit)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 7, process.stderr
    assert re.search(what, process.stdout)
    assert load_file(out / "last.safetensors")
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_a_number_that_appears_late_opens_a_column(tmp_path):
    log = Log(tmp_path, 0)
    log.row("validation", 1, {"dice": 0.5, "hd95 mm": 2.0})
    log.row("validation", 2, {"dice": 0.6})
    log.row("validation", 3, {"dice": 0.7, "hd95 mm": 1.0, "hd95 mm/1": 1.0})
    log.close()
    with (tmp_path / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["hd95 mm"] for row in rows] == ["2", "", "1"]
    assert [row["hd95 mm/1"] for row in rows] == ["", "", "1"]


def test_logs_cut_short_do_not_stop_a_resume(tmp_path):
    (tmp_path / "training.csv").write_text("")
    (tmp_path / "validation.csv").write_text("update,dice\n5,0.5\n10,0.6\n1")
    Log(tmp_path, 5).close()
    assert (tmp_path / "validation.csv").read_text().splitlines() == ["update,dice", "5,0.5"]


def test_a_loss_that_is_not_finite_stops_the_training():
    def broken(register, pair, progress):
        terms = Unsupervised()(register, pair, progress)
        return {name: value * float("nan") for name, value in terms.items()}

    with pytest.raises(FloatingPointError, match=r"training\.lr"):
        train(SMALL(), COHORT.train, broken, Training(updates=2))


def test_weights_that_the_last_update_ruins_are_not_kept(tmp_path):
    with pytest.raises(FloatingPointError, match="finite"):
        run(recipe(updates=1, lr=1e38), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    network = SMALL()
    with torch.no_grad():
        next(network.parameters()).fill_(torch.inf)
    for save in (partial(save_weights, network), partial(save_state, network, {})):
        with pytest.raises(FloatingPointError, match=r"weights are no longer finite.*training\.lr"):
            save(tmp_path / "w.safetensors", {})
    assert not list(tmp_path.iterdir())
    save_tensors({k: v * float("nan") for k, v in network.state_dict().items()}, tmp_path / "w.safetensors", {})
    with pytest.raises(InputError, match=r"w\.safetensors.*not finite"):
        load_weights(network, tmp_path / "w.safetensors")


def test_a_run_that_is_not_finished_says_so(tmp_path):
    run(recipe(updates=2), tmp_path / "run")
    load_run(tmp_path / "run")  # without a word
    told = json.loads((tmp_path / "run" / "run.json").read_text()) | {"status": "interrupted"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(told))
    with pytest.warns(UserWarning, match=r"not finished \(interrupted\).*--resume"):
        load_run(tmp_path / "run")


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
    assert [round(Cosine(0.1)(p), 6) for p in (0, 0.5, 1)] == [1, 0.55, 0.1]


def test_the_rate_falls_where_validation_no_longer_rises_also_after_an_interruption(tmp_path):
    def rates(*stops):
        seen = []

        class Watched(SGD):
            def step(self, closure=None):
                seen.append(self.param_groups[0]["lr"] / 1e-20)
                super().step(closure)

        numbers = {"lr": 1e-20, "validate_every": 1, "save_every": 1, "plateau": Plateau(0.5, 2), "optimiser": Watched}
        for stop in stops:
            out = tmp_path / str(len(stops))
            training = Training(updates=stop, **numbers)
            evaluation = PairEvaluation(COHORT.validation, (Dice(),))
            train(SMALL(), COHORT.train, Unsupervised(), training, evaluation, out, stop != stops[0])
        return seen

    whole = rates(6)
    assert whole == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])
    assert rates(4, 6) == pytest.approx(whole)


def test_the_network_is_never_pickled(tmp_path):
    run(recipe(updates=2), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".ckpt")]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    begins = [
        lambda: run(recipe(updates=2), tmp_path / "run"),
        lambda: train(SMALL(), COHORT.train, Unsupervised(), Training(updates=2), out=tmp_path / "run"),
    ]
    with locked(tmp_path / "run"), ThreadPoolExecutor(1) as beside:
        for begin in begins:
            with pytest.raises(InputError, match="another process is at work there"):
                beside.submit(begin).result()
    run(recipe(updates=2), tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").is_file()


def test_a_batch_is_the_mean_of_its_pairs(tmp_path):
    """By plain gradient descent, one update of two pairs moves the weights by the mean of what either alone does."""
    known = recipe(updates=1)

    def after(batch, pairs):
        network = build(known)
        before = {k: v.detach().clone() for k, v in network.named_parameters()}
        training = replace(known.training, batch=batch, lr=0.1, optimiser=SGD)
        train(network, pairs, known.supervision, training)
        return {k: v.detach() - before[k] for k, v in network.named_parameters()}

    class Only:
        def __init__(self, *numbers):
            self.numbers = iter(numbers)

        def draw(self, generator):
            return draw(known.data.train, 7, next(self.numbers))

    both, first, second = after(2, Only(0, 1)), after(1, Only(0)), after(1, Only(1))
    for name, step in both.items():
        torch.testing.assert_close(step, (first[name] + second[name]) / 2, rtol=1e-3, atol=2e-8)  # weights are float32
    assert max(float(step.abs().max()) for step in both.values()) > 1e-5


def test_another_run_is_not_written_over(tmp_path):
    network = SMALL()
    train(network, COHORT.train, Unsupervised(), Training(updates=1), out=tmp_path)
    before = weights(tmp_path)
    with pytest.raises(InputError, match=r"there is a run already; go on with it \(resume\)"):
        train(network, COHORT.train, Unsupervised(), Training(updates=2), out=tmp_path)
    assert_same(weights(tmp_path), before)


def test_a_schedule_keeps_what_groups_of_parameters_have_of_their_own():
    rates = []

    class Look(SGD):
        def __init__(self, parameters, lr):
            first, *others = parameters
            super().__init__([{"params": [first], "lr": 1e-5}, {"params": others}], lr=lr)

        def step(self, closure=None):
            rates.append([group["lr"] for group in self.param_groups])

    train(SMALL(), COHORT.train, Unsupervised(), Training(updates=2, lr=0.1, optimiser=Look, schedule=Cosine()))
    assert rates == [pytest.approx([1e-5, 0.1]), pytest.approx([0.5e-5, 0.05])]


def test_a_score_that_is_no_number_is_no_best():
    assert score({"dice": float("nan")}, [Dice()]) == -math.inf
    assert score({"sdlogj": float("nan")}, [SDLogJ()]) == -math.inf < score({"sdlogj": 9.0}, [SDLogJ()])


def test_going_on_with_a_run_looks_up_nothing_that_its_recipe_names(tmp_path):
    run(recipe(updates=1), tmp_path / "run")
    (tmp_path / "owned.py").write_text("open('owned', 'w')")
    (tmp_path / "run" / "recipe.yaml").write_text("part: owned.Anything\ndata: {part: owned.Other}\n")
    with pytest.raises(InputError, match="another recipe"):
        run(recipe(updates=1), tmp_path / "run", resume=True)


def test_a_network_says_how_many_channels_it_was_trained_on(tmp_path):
    run(recipe(updates=1), tmp_path / "run")
    _, trained = load_run(tmp_path / "run")
    grid = Grid.centred((8, 8, 8))
    two = Image(torch.rand(1, 2, 8, 8, 8), grid)
    with pytest.raises(InputError, match="trained on images of 1 channels; these have 2"):
        trained(two, two)


@pytest.mark.parametrize("shape", [(7, 6), (5, 6, 4)])
def test_flips_are_of_both_images_alike_and_along_each_axis(oblique, shape):
    """Each of the 2ᵈ ways comes, and is what turning the arrays gives; the truth is turned with them."""
    generator = torch.Generator().manual_seed(0)
    grid = oblique(shape, 1)
    fixed, moving = (Image(torch.rand(1, 1, *shape, generator=generator), grid) for _ in range(2))
    field = Displacement(0.1 * torch.rand(1, len(shape), *shape, generator=generator), grid)
    seen, augment = set(), RandomFlips()
    for n in range(80):
        found = augment(Pair(fixed, moving, truth=field), make_generator(n))
        ways = [
            axes
            for k in range(len(shape) + 1)
            for axes in combinations(range(2, len(shape) + 2), k)
            if torch.allclose(found.fixed.data, fixed.data.flip(axes), atol=1e-4)
        ]
        assert len(ways) == 1
        torch.testing.assert_close(found.moving.data, moving.data.flip(ways[0]), atol=1e-4, rtol=0)
        turned = field.field.flip(ways[0])
        for axis in ways[0]:
            turned[:, axis - 2] *= -1
        torch.testing.assert_close(found.truth.displacement(grid).float(), turned, atol=1e-3, rtol=0)
        seen.add(ways[0])
    assert len(seen) == 2 ** len(shape)
    assert find("ofg", "voxelmorph-light", "ixi").training.augment == augment
