"""Cyclical self-training of image features: what is learned from, and that it can be gone on with."""

import shutil
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from rich.console import Console
from torch.nn.functional import dropout

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom, FileCase, Train, pair_of
from pullback.energies import LNCC, Diffusion
from pullback.errors import InputError
from pullback.files import write
from pullback.methods.pair.cyclical import AUGMENT, FieldLabels, WithRefinement, accustomed
from pullback.methods.pair.feature_registration import AUTHORS, CONVEX, FeatureRegistration, Refinement
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.metrics import EndPointError
from pullback.numerics.random import make_generator
from pullback.numerics.sample import voxels
from pullback.recipes import find
from pullback.records.csv_records import read_csv
from pullback.solvers import CoupledConvex, Descend, FeatureDescent, InstanceOptimisation
from pullback.space import Affine, Grid, Image
from pullback.studies.cyclical import study
from pullback.study.arms import TrainedArm
from pullback.study.recipe import Recipe
from pullback.study.run import run
from pullback.training import (
    Cyclical,
    IndependentAffines,
    KnownTransform,
    Labelled,
    PairEvaluation,
    RandomAffine,
    Task,
    Training,
    align,
    load_tensors,
    seeded,
)

DATA = BrainPhantom(spacing=6.0, train_subjects=4, validation_subjects=2, test_subjects=2)
QUICK = Refinement(descent=FeatureDescent(solver=Descend(3, 1.0)))
TRAINING = Training(updates=3, batch=2, lr=1e-3, save_every=1)
SELF = partial(Cyclical, FieldLabels(), augment=AUGMENT)


@dataclass(frozen=True)
class Says(PairEvaluation):
    """What it was given, one after the other."""

    means: object = ()

    def rows(self, network, device):
        return iter([{"epe mm": next(self.means)}])


def task(out=None, resume=False, training=TRAINING, evaluation=PairEvaluation(DATA.validation, (EndPointError(),))):
    return Task(made, DATA.train, KnownTransform(), training, evaluation, out, resume, Console(quiet=True))


def made(number: int = 0, refinement: Refinement = QUICK) -> FeatureRegistration:
    with seeded(5, number):
        return FeatureRegistration(3, widths=(8, 16), strides=(2, 2), features=8, refinement=refinement)


class Strided(torch.nn.Module):
    """Features that are the image itself, at every `stride`-th voxel."""

    stride, fine_stride = 2, 1

    def forward(self, values):
        return values[..., :: self.stride, :: self.stride], values


class Knows(torch.nn.Module):
    """A teacher who guesses that nothing moves, and refines that to the answers it was given, in turn."""

    def __init__(self, answers):
        super().__init__()
        self.answers = iter(answers)

    def guess(self, fixed, moving):
        return Alignment(Pair(fixed, moving), Affine.identity(3))

    def refined(self, fixed, moving):
        return Alignment(Pair(fixed, moving), next(self.answers))


def error(register, pair) -> float:
    return EndPointError()(Alignment(pair, align(register, pair).transform))["epe mm"]


@pytest.mark.slow
def test_labels_are_less_regular_than_answers():
    """And as regular, to the bit, where their part of the weight is all of it."""
    pair = next(iter(DATA.validation))

    def roughness(labels: float) -> list[float]:
        register = made(refinement=replace(Refinement(), labels=labels)).eval()
        return [float(Diffusion()(a)) for a in (register.refined(pair.fixed, pair.moving), align(register, pair))]

    label, answer = roughness(0.1)
    assert label > 1.2 * answer
    label, answer = roughness(1.0)
    assert label == answer


@torch.no_grad()
def test_an_untrained_network_may_keep_the_statistics_it_was_made_with():
    """Torch's, 0 and 1: its first labels are those of the network as it is, and not those of one that is accustomed."""
    as_made, pair = made().eval(), next(iter(DATA.validation))
    plain = FieldLabels(accustom=False).untrained(made(), DATA.train, 0)
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()
    how = SELF(rounds=1, pairs=1, augment=None)
    labels = [FieldLabels().label(each.eval(), pair, how, make_generator(0))[0] for each in (plain, as_made)]
    assert torch.equal(*labels)
    used = FieldLabels().untrained(made(), DATA.train, 0)
    assert not torch.equal(FieldLabels().label(used.eval(), pair, how, make_generator(0))[0], labels[0])


@pytest.mark.parametrize("data", ["phantom", "hippocampus", "brains", "abdomen"])
def test_each_row_of_the_authors_code_is_another_thing(data):
    """Labels a fourth and a tenth as stiff; as many pairs as a round draws; and all of it at once."""
    arms = study.tables["protocol"].experiments[f"{data}/feature-registration"].arms
    whole = find("cyclical", "feature-registration", data)
    assert arms["cyclical"].recipe == whole
    made = {name: arm.recipe.network() for name, arm in arms.items() if isinstance(arm, TrainedArm)}
    stiff = {name: each.refinement.of_labels.descent.regularity for name, each in made.items()}
    for name, part in (("labels ÷ 4", 4), ("labels ÷ 10", 10), ("all of them", 10), ("box means", 1)):
        assert stiff[name] == pytest.approx(stiff["cyclical"] / part)
    training = whole.training
    twins = study.tables["metrics"].experiments[f"{data}/feature-registration"].arms
    for recipe in (arms["all of them"].recipe, *(t["as many pairs as its twins"].recipe for t in (arms, twins))):
        assert recipe.procedure.pairs * recipe.procedure.rounds == training.updates * training.batch
    assert (made["box means"].convex.means, made["box means"].refinement.descent.means) == (4, 3)
    assert made["all of them"].convex == replace(AUTHORS, means=4)
    assert not arms["statistics 0 and 1"].recipe.procedure.labelling.accustom
    assert made["statistics 0 and 1"].convex == made["cyclical"].convex == CONVEX


def test_refinement_is_for_evaluation_and_each_part_of_it_tells():
    pair = next(iter(DATA.validation))
    network = made()
    answers = {}
    for name, how in {
        "all": QUICK,
        "one way": replace(QUICK, both_ways=False),
        "one warp": replace(QUICK, warps=1),
        "no descent": replace(QUICK, descent=None),
    }.items():
        network.refinement = how
        answers[name] = align(network.eval(), pair).transform.field
    assert all(not torch.equal(answers["all"], other) for name, other in answers.items() if name != "all")
    with torch.no_grad():
        guess = network.guess(pair.fixed, pair.moving).transform.field
        assert not torch.equal(guess, answers["all"])
        plain = Refinement(both_ways=False, warps=1, descent=None)
        network.refinement = plain
        torch.testing.assert_close(network(pair.fixed, pair.moving).transform.field, guess)


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_shift_of_whole_strides_is_found(both_ways):
    moving = Image(10 * torch.randn(1, 1, 40, 36, generator=make_generator(0)), Grid.centred((40, 36)))
    fixed = replace(moving, data=moving.data.roll((-2, 4), (2, 3)))
    register = FeatureRegistration(2, convex=CoupledConvex(2, blur=0), refinement=Refinement(both_ways, descent=None))
    register.network = Strided()
    found = register.eval()(fixed, moving).transform.field[..., 12:-12, 12:-12]
    torch.testing.assert_close(found, torch.tensor([2.0, -4.0]).view(1, 2, 1, 1).expand_as(found))


def test_looks_compose_as_images_are_moved():
    """A stretch, then a shift, whose order matters: the answer is stretch ∘ shift."""
    image = Image(torch.zeros(1, 1, 40, 36), Grid.centred((40, 36)))
    x = voxels(image.grid.shape, image.data)[None]
    stretch, shift = 0.1 * (x - 18), torch.tensor([2.0, -4.0]).view(1, 2, 1, 1).expand_as(x)
    register, looks = (
        FeatureRegistration(2, refinement=Refinement(both_ways=False, descent=None)),
        iter([stretch, shift]),
    )
    register.network = Strided()
    register.convex = lambda *_: next(looks)[..., ::2, ::2] / 2
    found = register.eval()(image, image).transform.field
    inside = (..., slice(6, -6), slice(6, -6))
    torch.testing.assert_close(found[inside], (shift + 0.1 * (x + shift - 18))[inside])


def test_gradients_reach_the_features_that_decide():
    pair = next(iter(DATA.test))
    network = made().train()
    sum(KnownTransform()(network, pair, 0.0).values()).backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert "network.coarse.weight" in learned
    assert all(f"network.stages.{n}.0.convolution.weight" in learned for n in (0, 1))
    assert "network.fine.weight" not in learned


def test_random_features_tell_voxels_apart_once_they_have_seen_images():
    pair = next(iter(DATA.validation))

    def spread(network):
        features, _ = network.eval().network(torch.cat([pair.fixed.data, pair.moving.data]))
        return float(features.std((0, 2, 3, 4)).mean())

    with torch.no_grad():
        fresh, seen = spread(made()), spread(accustomed(made(), DATA.train, 0))
    assert fresh < 0.05 < 0.2 < seen < 1


def test_statistics_are_those_of_the_seed_whatever_was_drawn_before():
    def seen(before, seed):
        network = made()
        network.network.register_forward_pre_hook(lambda part, given: dropout(given[0], 0.5, part.training))
        with torch.random.fork_rng():
            torch.manual_seed(before)
            accustomed(network, DATA.train, seed)
            after = torch.rand(())
            torch.manual_seed(before)
            assert after == torch.rand(()), "nothing is drawn from without"
        return torch.cat([v.flatten() for k, v in network.state_dict().items() if "running" in k])

    assert torch.equal(seen(0, 0), seen(1, 0))
    assert not torch.equal(seen(0, 0), seen(0, 1))


def test_labels_of_seen_images_are_carried_back_to_the_stored_ones():
    """A teacher that answers with the truth of what it sees labels the stored pair with its own truth, and where what
    it sees ends with about that."""
    pairs, augment = DATA.train.several(3, make_generator(5)), IndependentAffines(RandomAffine(5, 0.05, 0.02, 0.03))
    known = [pair_of(*cases) for cases in pairs]
    maps = [augment.maps(pair, make_generator(5, 2, n)) for n, pair in enumerate(known)]
    teacher = Knows(two.inverse() @ pair.truth @ one for pair, (one, two) in zip(known, maps, strict=True))
    labelled = SELF(augment=augment).labelled(teacher, DATA.train, pairs, (5, 2), None, Console(quiet=True))
    for pair, (fixed, _), label in zip(known, maps, labelled.labels, strict=True):
        grid = pair.fixed.grid
        off = (label.float() - pair.truth.displacement(grid)[0]).abs().amax(0)
        there = grid.to_voxels(fixed.inverse().at(grid.to_world(grid.voxels(off)[None])))[0]
        last = torch.tensor(grid.shape).view(3, 1, 1, 1) - 1
        within = ((there >= 0) & (there <= last)).all(0)
        assert 0.5 < float(within.float().mean()) < 0.99
        assert float(off[within].mean()) < 0.05, "half precision, and linear interpolation of steep fields"
        assert float(off[~within].mean()) < 0.4, "a field that ends there is off by 0.8 to 1.0"
    assert float(labelled.weights.sum()) == pytest.approx(1)


def test_the_more_a_label_was_refined_the_less_its_pair_is_drawn():
    stretches = [Affine.about((1 + 0.01 * n) * torch.eye(3), torch.zeros(3)) for n in range(4)]
    pairs = DATA.train.several(4, make_generator(0))
    labelled = SELF(augment=None).labelled(Knows(stretches), DATA.train, pairs, (0,), None, Console(quiet=True))
    assert (labelled.weights.diff() < 0).all()


def test_pairs_are_drawn_by_weight_with_their_own_label():
    pairs = DATA.train.several(3, make_generator(0))
    shape = pair_of(*pairs[0]).fixed.grid.shape
    labels = [torch.full((3, *shape), float(n)).half() for n in range(3)]
    labelled = Labelled(DATA.train, pairs, labels, torch.tensor([0.2, 0.0, 0.8]), FieldLabels())
    drawn = [labelled.draw(make_generator(0, n)) for n in range(60)]
    values = [int(pair.truth.field.mean()) for pair in drawn]
    assert set(values) == {0, 2}
    assert 0.6 < values.count(2) / 60 < 0.95
    assert all(pair.name == pair_of(*pairs[n]).name for pair, n in zip(drawn, values, strict=True))


@pytest.mark.slow
def test_each_stream_sees_a_pair_otherwise_and_each_round_anew(tmp_path):
    """Affines of the labels' stream differ from round to round: else the network would see its labels' images again."""
    seen = []

    @dataclass(frozen=True)
    class Noted(IndependentAffines):
        def maps(self, pair, generator):
            found = super().maps(pair, generator)
            seen.append(found[0].matrix)
            return found

    SELF(rounds=2, pairs=2, augment=Noted())(task())
    assert len(seen) == 2 * 2 + TRAINING.updates * TRAINING.batch
    assert len({tuple(matrix.flatten().tolist()) for matrix in seen}) == len(seen)


@pytest.mark.slow
def test_the_best_round_is_the_answer(tmp_path):
    """As of any training: the weights are chosen in validation."""
    found = Says(DATA.validation, (EndPointError(),), iter([1.0, 5.0, 2.0, 3.0]))
    answer = SELF(rounds=3, pairs=2)(task(tmp_path, evaluation=found)).state_dict()
    last, _ = load_tensors(tmp_path / "round-2" / "last.safetensors")
    kept, metadata = load_tensors(tmp_path / "best.safetensors")
    assert metadata["round"] == 2
    assert all(torch.equal(answer[k], kept[k]) for k in answer)
    assert any(torch.equal(value, answer["network.coarse.weight"]) for value in last.values())


@pytest.mark.slow
def test_rounds_are_chosen_from_where_the_training_says(tmp_path):
    found = Says(DATA.validation, (EndPointError(),), iter([1.0, 5.0, 2.0, 3.0]))
    SELF(rounds=3, pairs=2)(task(tmp_path, training=replace(TRAINING, choose_from=0.9), evaluation=found))
    assert load_tensors(tmp_path / "best.safetensors")[1]["round"] == 3


@pytest.mark.slow
def test_rounds_are_repeatable_and_gone_on_with(tmp_path):
    procedure = SELF(rounds=2, pairs=3)
    whole = procedure(task(tmp_path / "a")).state_dict()
    again = procedure(task(tmp_path / "b")).state_dict()
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    table = (tmp_path / "a" / "rounds.csv").read_text()
    assert table.count("\n") == 4
    shutil.rmtree(tmp_path / "b" / "round-2")
    rows = table.splitlines(keepends=True)
    for known in (rows[:3], rows):  # as if killed in the second round, and by hand
        (tmp_path / "b" / "rounds.csv").write_text("".join(known))
        resumed = procedure(task(tmp_path / "b", resume=True)).state_dict()
        assert all(torch.equal(whole[k], resumed[k]) for k in whole)


@pytest.mark.slow
def test_a_finished_round_is_not_done_again(tmp_path, monkeypatch):
    procedure = SELF(rounds=2, pairs=3)
    whole = procedure(task(tmp_path)).state_dict()
    assert not list(tmp_path.glob("labels-*"))
    monkeypatch.setattr(PairEvaluation, "rows", None)
    monkeypatch.setattr(FieldLabels, "label", None)
    again = procedure(task(tmp_path, resume=True)).state_dict()
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_what_is_no_number_is_worst_but_better_than_no_network(tmp_path):
    found = Says(DATA.validation, (EndPointError(),), iter([float("nan")] * 3))
    SELF(rounds=2, pairs=2)(task(tmp_path, evaluation=found))
    assert load_tensors(tmp_path / "best.safetensors")[1]["round"] == 1


@pytest.mark.slow
def test_rounds_share_all_updates(tmp_path):
    with pytest.raises(InputError, match="2 updates for 3 rounds"):
        SELF(rounds=3, pairs=2)(task(tmp_path, training=replace(TRAINING, updates=2)))
    SELF(rounds=3, pairs=2)(task(tmp_path, training=replace(TRAINING, updates=5)))
    assert [read_csv(tmp_path / f"round-{n}" / "training.csv")[-1]["update"] for n in (1, 2, 3)] == [2, 2, 1]


@pytest.mark.slow
def test_rounds_bring_networks_nearer_to_the_truth():
    """Than networks that have seen images and learned nothing; so few updates get no farther than where images lie."""
    network = SELF(rounds=2, pairs=8)(task(training=replace(TRAINING, updates=20)))
    pairs = list(DATA.test)
    after = sum(error(network, pair) for pair in pairs)
    for number in (0, 1):
        untrained = accustomed(made(number), DATA.train, 0)
        assert after < sum(error(untrained, pair) for pair in pairs)


def test_a_network_that_predicts_fields_learns_in_rounds_too():
    """Its labels are its own answers after a few steps of descent, which lie nearer to the truth."""
    energy = LNCC(9) + 1.0 * Diffusion()
    pair = next(iter(DATA.test))
    with seeded(0):
        network = WithRefinement(partial(VoxelMorph, ndim=3), InstanceOptimisation(energy, Descend(10, 0.1)))
    with torch.no_grad():
        guess, answer = network.guess(pair.fixed, pair.moving), network.eval()(pair.fixed, pair.moving)
    refined = network.refined(pair.fixed, pair.moving)
    assert torch.equal(guess.transform.field, answer.transform.field)
    assert float(energy(refined)) < float(energy(guess))
    before, after = (EndPointError()(Alignment(pair, a.transform))["epe mm"] for a in (guess, refined))
    assert after < before


def test_pairs_of_different_grids_are_labelled_and_kept(tmp_path):
    for n in range(3):
        shape = (16 + 2 * n, 18, 17 + n)
        generator = torch.Generator().manual_seed(n)
        write(Image(torch.rand(1, 1, *shape, generator=generator), Grid.centred(shape)), tmp_path / f"s{n}.nii.gz")
    cases = tuple(FileCase(f"s{n}", tmp_path / f"s{n}.nii.gz") for n in range(3))
    train, kept = Train(cases), tmp_path / "labels.safetensors"
    pairs = train.several(5, make_generator(0))
    made_now, read_again = (SELF().labelled(made(), train, pairs, (0,), kept, Console(quiet=True)) for _ in range(2))
    assert len({label.shape for label in made_now.labels}) > 1
    assert all(torch.equal(a, b) for a, b in zip(made_now.labels, read_again.labels, strict=True))


@pytest.mark.slow
def test_the_length_of_a_round_may_not_change_on_the_way(tmp_path):
    recipe = Recipe(
        "a test",
        DATA,
        partial(FeatureRegistration, ndim=3, widths=(8, 16), strides=(2, 2), features=8),
        KnownTransform(),
        TRAINING,
    )
    recipe = replace(recipe, procedure=SELF(rounds=1, pairs=2), metrics=(EndPointError(),))
    run(recipe, tmp_path / "run")
    longer = replace(recipe, training=replace(TRAINING, updates=6))
    with pytest.raises(InputError, match="another recipe"):
        run(longer, tmp_path / "run", resume=True)
