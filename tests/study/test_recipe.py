"""Recipes as data: every one runs, travels through YAML, and takes no misspelt key."""

import inspect
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml

from pullback.data import BrainPhantom, Synthesis, Synthetic, Validation
from pullback.energies import LNCC, MSE, Weighted
from pullback.errors import InputError
from pullback.methods.method import find_method, methods
from pullback.methods.pair.cyclical import WithRefinement
from pullback.methods.pair.ddmr import PooledUNet
from pullback.methods.pair.ofg import Guided
from pullback.methods.pair.voxelmorph_plus_plus import VoxelMorphPlusPlus
from pullback.methods.points.evaluation import LandmarkEvaluation
from pullback.metrics import STANDARD, Correlation, Dice
from pullback.networks import Network
from pullback.recipes import find, known, named
from pullback.recipes.datasets import DATASETS
from pullback.recipes.lookup import Key
from pullback.space import Velocity
from pullback.studies import ofg
from pullback.study.arms import TrainedArm
from pullback.study.recipe import Recipe, changed, read_recipe, to_yaml
from pullback.study.resume import check_resumable
from pullback.study.run import build
from pullback.training import Cyclical, Poly, Task, Training

KEYS = sorted(known())
TINY = BrainPhantom(spacing=5.0, train_subjects=2, validation_subjects=2, test_subjects=2)


def test_every_recipe_is_of_a_method_that_learns_and_of_a_data_set_that_is_known():
    for key in KEYS:
        name, method = find_method(key.method)
        assert method.trained, name
        assert find(*key).aligns in method.aligns
        assert key.data in DATASETS or key.data == "comet"  # a folder that was prepared
        assert not {"_", " "} & set("".join(key))


def test_what_is_not_said_of_a_recipe_is_the_first_there_is():
    assert find("ofg") == find("ofg", "voxelmorph", "phantom")
    assert find("ofg", read=True) == find("ofg", on="folder")
    assert find("ofg", on="hippocampus", read=True) == find("ofg", "voxelmorph", "hippocampus")
    assert find("ofg", "transmorph") == find("ofg", "transmorph", "phantom")
    assert find("cyclical", on="lungs") == find("cyclical", "graph-features", "lungs")
    assert find("cyclical", on="slices") == find("cyclical", "voxelmorph", "slices")
    assert find("ddmr") == find("ddmr-uw-nsd", "pooled-unet", "phantom")
    assert find("graph-propagation", read=True) == find("graph-propagation-landmarks", on="lungs")
    assert named("ddmr", on="ixi") == "ddmr-uw-nsd-pooled-unet-ixi"
    assert named("mine/first.yaml") == "first"


def test_variants_are_named_by_their_method():
    variants = {key.method for key in KEYS} - set(methods())
    assert variants == {key for method in methods().values() for key in method.keys}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ogf",), "no method 'ogf'; did you mean 'ofg'"),
        (("ofg", "vitvnet"), "no recipe of --network vitvnet; its networks are .*did you mean 'vit-v-net'"),
        (("ofg", None, "hipocampus"), "no recipe of --on hipocampus; its data are .*did you mean 'hippocampus'"),
        (("cyclical", "graph-features", "ixi"), "graph-features on lungs"),
        (("convex-adam",), "needs no training; `pullback methods convex-adam`"),
        (("self-training",), "learns by no recipe of its own"),
        (("mine.py", "voxelmorph"), "--network: mine.py is a file"),
    ],
)
def test_a_recipe_that_is_not_there_says_what_is(words, says):
    with pytest.raises(InputError, match=says):
        find(*words)


def solid(recipe: Recipe) -> Recipe:
    """For volumes, where it is for slices; narrow, where it is wide; at any points, where corners are too few."""
    if recipe.network.func is PooledUNet:
        recipe = changed(recipe, {"network.widths": "[4, 8]"})
    if recipe.network.func is VoxelMorphPlusPlus:
        recipe = changed(recipe, {"network.points": "{part: pullback.space.keypoints.RandomPoints}"})
    if isinstance(recipe.supervision, partial) and "ndim" in recipe.supervision.keywords:
        recipe = changed(recipe, {"supervision.ndim": "3"})
    if recipe.network.func is WithRefinement:
        return changed(recipe, {"network.network.ndim": "3"})
    return changed(recipe, {"network.ndim": "3"}) if "ndim" in recipe.network.keywords else recipe


def test_every_network_knows_how_it_was_made():
    """So that `pb.train` leaves a run of any."""
    assert [key for key in KEYS if not issubclass(find(*key).network.func, Network)] == []


def distinct() -> list:
    """The recipes for pairs of images, but of those that differ in their images and numbers alone one.

    By day one for each method and network.
    """
    seen = {}
    for key in KEYS:
        if find(*key).aligns != "pair" or key.network in ("pwc", "pdd", "masn"):  # slices, videos, patches
            continue
        recipe = replace(solid(find(*key)), about="", data=TINY, training=Training())
        seen.setdefault(to_yaml(replace(recipe, metrics=STANDARD)), key)
    by_day: dict[tuple[str, str], Key] = {}
    for key in sorted(seen.values(), key=lambda key: key.data != "phantom"):
        by_day.setdefault((key.method, key.network), key)
    return [
        pytest.param(key, id="-".join(key), marks=pytest.mark.slow if key in by_day.values() else pytest.mark.nightly)
        for key in seen.values()
    ]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("ofg-voxelmorph-folder",), "ofg-voxelmorph-folder"),
        (("ofg_voxelmorph_folder",), "ofg-voxelmorph-folder"),
        (("unsupervised_voxelmorph_folder",), "voxelmorph-voxelmorph-folder"),
        (("unsupervised",), "voxelmorph-voxelmorph-phantom"),
        (("unsupervised", "transmorph", "brains"), "transmorph-transmorph-brains"),
    ],
)
def test_a_recipe_is_also_called_in_one_word_and_training_without_labels_by_its_network(given, found):
    assert named(*given) == found


def test_a_network_that_does_not_learn_alone_is_told_of_those_that_do():
    with pytest.raises(InputError, match=r"unsupervised.*--network transmorf.*did you mean.*transmorph"):
        named("unsupervised", "transmorf")


@pytest.mark.parametrize("key", [key for key in KEYS if key.network == "pooled-unet"], ids="-".join)
def test_labels_choose_the_weights_only_of_what_they_guide(key):
    recipe = find(*key)
    assert isinstance(recipe.metrics[0], Dice if "SoftDice" in to_yaml(recipe) else Correlation)
    assert set(recipe.metrics) == set(find("ddmr-sg-nd", "pooled-unet", "ixi").metrics)


@pytest.mark.parametrize("key", distinct())
def test_every_recipe_runs_two_steps(key):
    recipe = solid(find(*key))
    training = replace(recipe.training, updates=2, validate_every=2)
    procedure = recipe.procedure
    if isinstance(procedure, Cyclical):
        procedure = replace(procedure, rounds=1, pairs=2)
    made = [build(recipe, number) for number in range(2)]
    network = made[-1] if isinstance(procedure, Cyclical) else made[0]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    supervision = recipe.supervision() if isinstance(recipe.supervision, partial) else recipe.supervision
    procedure(Task(made.__getitem__, TINY.train, supervision, training, recipe.evaluates(TINY.validation)))
    assert any(not torch.equal(before[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("key", [key for key in KEYS if key.method in ("ofg", "ofg-h1")], ids="-".join)
def test_guided_and_unsupervised_differ_in_their_supervision_alone(key):
    guided, plain = find(*key), find("unsupervised", key.network, key.data)
    assert guided.supervision.energy == plain.supervision.energy
    assert to_yaml(replace(guided, supervision=plain.supervision, about=plain.about)) == to_yaml(plain)


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_yaml_round_trip(key, tmp_path):
    recipe = find(*key)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    again = read_recipe(tmp_path / "recipe.yaml")
    assert to_yaml(again) == to_yaml(recipe)
    assert (again.data, again.training) == (recipe.data, recipe.training)
    one, other = (how.keywords if isinstance(how, partial) else how for how in (again.supervision, recipe.supervision))
    assert one == other if other is recipe.supervision else one.items() >= other.items()


def test_recipes_of_before_say_the_same(tmp_path):
    """As they were written when cyclical self-training was of images alone and a training had but one player."""
    for name in ("cyclical", "ofg"):
        now = find(name)
        tree = yaml.safe_load(to_yaml(now))
        del tree["evaluation"]
        for later in ("players", "frozen", "clip", "choose_from"):
            del tree["training"][later]
        if name == "cyclical":
            del tree["procedure"]["labelling"]
            tree["procedure"]["part"] = "pullback.methods.pair.cyclical.Cyclical"
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        assert to_yaml(read_recipe(tmp_path / "recipe.yaml")) == to_yaml(now)


def test_parts_of_before_are_known_by_their_names_of_then(tmp_path):
    now = find("cyclical", "voxelmorph", "phantom")
    text = to_yaml(now)
    for new, old in (
        ("methods.pair.cyclical.WithRefinement", "methods.pair.cyclical.Descending"),
        ("solvers.instance_optimisation.InstanceOptimisation", "solvers.optimised.Optimised"),
        ("training.supervision.KnownTransform", "training.supervision.Told"),
        ("data.phantoms.brain.BrainPhantom", "data.cohort.Cohort"),
    ):
        assert new in text
        text = text.replace(new, old)
    (tmp_path / "recipe.yaml").write_text(text)
    assert to_yaml(read_recipe(tmp_path / "recipe.yaml")) == to_yaml(now)
    guided = find("ofg", "voxelmorph", "phantom")
    (tmp_path / "guided.yaml").write_text(to_yaml(guided).replace("  regularity:", "  beside:"))
    assert to_yaml(read_recipe(tmp_path / "guided.yaml")) == to_yaml(guided)


def test_a_part_that_is_a_function_today_still_loads(tmp_path):
    now = find("graph-propagation-landmarks", on="lungs")
    text = to_yaml(now)
    assert "name: pullback.methods.points.augment.from_landmarks" in text
    before = text.replace(
        "name: pullback.methods.points.augment.from_landmarks", "part: pullback.methods.points.augment.FromLandmarks"
    )
    (tmp_path / "recipe.yaml").write_text(before)
    assert to_yaml(read_recipe(tmp_path / "recipe.yaml")) == text


def test_recipes_of_clouds_know_what_they_align_and_who_chooses():
    for name in ("cyclical", "graph-propagation-field"):
        recipe = find(name, on="lungs")
        assert recipe.aligns == "points"
        assert isinstance(recipe.evaluates(Validation.singles(())), LandmarkEvaluation)
    assert find("ofg", "voxelmorph", "phantom").aligns == "pair"


def test_classes_as_values_survive(tmp_path):
    recipe = find("ofg", "voxelmorph", "phantom")
    recipe = replace(recipe, network=partial(recipe.network.func, ndim=2, transform=Velocity))
    (tmp_path / "r.yaml").write_text(to_yaml(recipe))
    assert read_recipe(tmp_path / "r.yaml").network.keywords.items() >= {"ndim": 2, "transform": Velocity}.items()


def test_a_strangers_file_runs_nothing(tmp_path):
    path = tmp_path / "r.yaml"
    for text in ("part: os.system\ncommand: touch /tmp/owned", "partial: subprocess.run\nargs: [ls]"):
        path.write_text(text)
        with pytest.raises(InputError, match="not one of this package's parts"):
            read_recipe(path)
    path.write_text("partial: pullback.records.atomic.atomic_write\npath: x")
    with pytest.raises(InputError, match="cannot stand here"):
        read_recipe(path)
    path.write_text("part: pullback.study.recipe.Recipe\nabout: x\nnetwork: {partial: subprocess.Popen, args: ls}")
    with pytest.raises(InputError, match="not one of this package's parts"):
        read_recipe(path)
    path.write_text("partial: pullback.training.log.EventsWriter\nfile_prefix: x")
    with pytest.raises(InputError, match="not defined there"):
        read_recipe(path)
    path.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(InputError, match="not a recipe"):
        read_recipe(path)


@pytest.mark.parametrize(
    "name",
    [
        ("ofg", "vit-v-net", "hippocampus"),
        ("cyclical", "feature-registration", "brains"),
        ("ddmr-uw-nsdh", "pooled-unet", "phantom"),
    ],
)
def test_a_recipe_file_has_every_number_also_those_that_are_as_by_default(name):
    """Else a run would be measured as today's code has it, not as it was made."""
    recipe = find(*name)
    written = yaml.safe_load(to_yaml(recipe))["network"]
    assert set(written) - {"partial"} == set(inspect.signature(recipe.network.func).parameters)


def test_a_recipe_on_pairs_that_are_made_survives(tmp_path):
    settings = {
        "training.augment": "{part: pullback.data.synthesis.Synthesis, displacement: 4, shape: [32, 32, 32]}",
        "data.synthetic": "{part: pullback.data.synthesis.Synthetic, per_subject: 2}",
    }
    recipe = changed(find("voxelmorph", "voxelmorph", "folder"), settings)
    assert recipe.training.augment == Synthesis(displacement=4.0, shape=(32, 32, 32))
    assert recipe.data.synthetic == Synthetic(per_subject=2)
    assert changed(recipe, {"training.augment.gamma": "1.5"}).training.augment.gamma == 1.5
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    again = read_recipe(tmp_path / "recipe.yaml")
    assert (again.data, again.training) == (recipe.data, recipe.training)


def test_changes_reach_every_depth():
    recipe = changed(
        find("ofg", "voxelmorph", "hippocampus"),
        {
            "training.lr": "1e-4",
            "training.updates": "7",
            "supervision.solver.steps": "5",
            "supervision.energy.parts.1.weight": "3",
            "network.decoder": "[8, 8, 8, 8, 8, 8]",
            "data.shape": "[16, 16, 16]",
        },
    )
    assert (recipe.training.lr, recipe.training.updates, recipe.supervision.solver.steps) == (1e-4, 7, 5)
    assert recipe.supervision.energy.parts == (LNCC(9), Weighted(3.0, recipe.supervision.energy.parts[1].energy))
    assert recipe.network.keywords["decoder"] == (8,) * 6
    assert recipe.data.shape == (16, 16, 16)


def test_a_part_can_be_exchanged_as_it_stands_in_a_recipe_file():
    settings = {
        "network.transform": "{name: pullback.space.transform.Velocity}",
        "supervision.solver.optimiser": "{name: torch.optim.sgd.SGD}",
        "supervision.energy": "{part: pullback.energies.similarity.MSE}",
    }
    recipe = changed(find("ofg", "voxelmorph", "hippocampus"), settings)
    assert recipe.network.keywords["transform"] is Velocity
    assert recipe.supervision.solver.optimiser is torch.optim.SGD
    assert recipe.supervision.energy == MSE()
    with pytest.raises(InputError, match="not one of this package's parts"):
        changed(recipe, {"supervision.energy": "{part: os.system}"})


def test_text_numbers_tuples_and_nothing_where_the_annotation_allows_them():
    """As the README has it: a pattern that begins with a star, and splits by name, by share or none."""
    settings = {
        "data.images": "*_T1w.nii.gz",
        "data.labels": "null",
        "data.test_split": "[sub-01, sub-02]",
        "data.validation_split": "0.2",
        "data.seed": "3",
    }
    data = changed(find("ofg", "voxelmorph", "folder"), settings).data
    assert (data.images, data.labels, data.seed) == ("*_T1w.nii.gz", None, 3)
    assert (data.test_split, data.validation_split) == (("sub-01", "sub-02"), 0.2)
    assert changed(find("ofg", "voxelmorph", "brains"), {"data.test_split": "0.2"}).data.test_split == 0.2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.lrr", "1", "'lrr' is not there; did you mean 'lr'"),
        ("trainin.lr", "1", "did you mean 'training'"),
        ("training.lr", "fast", "a number expected"),
        ("training.updates", "1.5", "a whole number expected"),
        ("training.deterministic", "3", "true or false expected"),
        ("training.precision", "16", "none of 32-true"),
        ("supervision.energy", "3", "Energy, as .part: ….*expected"),
        ("supervision.energy.parts.5.weight", "3", "'5' is not there"),
        ("training.lr", "[1", "a number expected"),
        ("metrics", "[]", "metrics: at least one"),
        ("training.seed", "-1", "seed: .*from 0, got -1"),
        ("training.seed", "99999999999999999999", "seed: .*from 0, got 9999"),
    ],
)
def test_bad_settings(key, value, message):
    with pytest.raises(InputError, match=message):
        changed(find("ofg", "voxelmorph", "hippocampus"), {key: value})


def test_names_that_look_like_numbers_want_quotes():
    recipe = find("ofg", "voxelmorph", "folder")
    with pytest.raises(InputError, match=r'a list, each text, or a number expected; quote words .*\["0001", "0002"\]'):
        changed(recipe, {"data.test_split": "[0001, 0003]"})
    assert changed(recipe, {"data.test_split": '["0001", "0003"]'}).data.test_split == ("0001", "0003")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  lr: 0.001", "  lr: abc", r"mine.yaml: not a recipe: training.lr: .*'abc'"),
        ("  updates: 1000", '  updates: "2"', r"training.updates: a whole number expected, got '2'"),
        ("  updates: 1000", "  updatez: 2", r"training.updatez: Training has no such member; did you mean 'updates'"),
        ("    steps: 10", '    steps: "10"', r"supervision.solver.steps: a whole number expected"),
        ("  ndim: 3", "  ndim: two", r"network.ndim: a whole number expected, got 'two'"),
        (
            "      window: 9",
            "      window: 9.0",
            r"supervision.energy.parts.0.*window: a whole number expected, got 9.0",
        ),
    ],
)
def test_recipe_files_of_the_wrong_kind(tmp_path, before, after, message):
    text = to_yaml(find("ofg", "voxelmorph", "phantom"))
    assert before in text, text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(InputError, match=message):
        read_recipe(path)


def test_numbers_as_people_write_them(tmp_path):
    """YAML takes 1e-4, without a point, for text."""
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(find("ofg", "voxelmorph", "phantom")).replace("  lr: 0.001", "  lr: 1e-4", 1))
    assert read_recipe(path).training.lr == 1e-4


def test_files_that_are_not_there():
    with pytest.raises(InputError, match="cannot be read"):
        find("nowhere.yaml")
    with pytest.raises(InputError, match="no such recipe file"):
        find("nowhere.py")


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('from pullback.recipes import find\nrecipe = find("ofg", "voxelmorph", "phantom")\n')
    assert find(str(path)) == find("ofg", "voxelmorph", "phantom")
    for wrong, says in (("x = = 1\n", "mine.py: SyntaxError: .*line 1"), ("import nowhere_at_all\n", "ModuleNotFound")):
        path.write_text(wrong)
        with pytest.raises(InputError, match=says):
            find(str(path))
    path.write_text("x = 1\n")
    with pytest.raises(InputError, match="must define `recipe"):
        find(str(path))


def test_where_the_paper_says_initial_both_rates_fall():
    """In every arm of every table: else one would learn by other steps than the rest."""
    for table in ofg.study.tables.values():
        for name, experiment in table.experiments.items():
            full = name.split("/")[0] in ("ixi", "oasis", "lpba40", "abdomen")
            for recipe in (arm.recipe for arm in experiment.arms.values() if isinstance(arm, TrainedArm)):
                assert (recipe.training.schedule == Poly()) == full
                guided = getattr(recipe.supervision, "guided", recipe.supervision)
                if isinstance(guided, Guided):
                    assert guided.decay == recipe.training.schedule


def test_a_file_may_have_parts_of_a_package_that_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom pullback.data import BrainPhantom\n\n"
        "@dataclass(frozen=True)\nclass Mine(BrainPhantom):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_text(
        to_yaml(find("ofg", "voxelmorph", "phantom")).replace("pullback.data.phantoms.brain.BrainPhantom", "mine.Mine")
    )
    with pytest.raises(InputError, match="trust its package"):
        find(str(path))
    assert type(find(str(path), trusted=["mine"]).data).__name__ == "Mine"


def test_a_run_of_before_lacks_what_came_later(tmp_path):
    """A number that an older file does not name is as by default, in whatever part; another value is another run.

    What has moved is the same under its old name.
    """
    now = find("voxelmorph", "voxelmorph", "folder")
    tree = yaml.safe_load(to_yaml(now).replace("space.fields.", "space.transform."))
    assert tree["network"]["transform"] == {"name": "pullback.space.transform.Displacement"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (tmp_path / "splits.json").write_text("{}")
    check_resumable(now, {}, tmp_path, resume=True)
    for part, later in (("data", "within"), ("network", "transform"), ("training", "clip")):
        del tree[part][later]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    check_resumable(now, {}, tmp_path, resume=True)
    for key, value in (("data.within", "true"), ("training.clip", "1.0"), ("network.channels", "2")):
        with pytest.raises(InputError, match="another recipe"):
            check_resumable(changed(now, {key: value}), {}, tmp_path, resume=True)
