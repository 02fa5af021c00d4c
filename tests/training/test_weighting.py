"""Weights that learn: their sums, where they come to rest, and that they are logged and gone on with."""

import csv
from dataclasses import replace
from functools import partial

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom
from pullback.energies import MI, MSE, NCC, SSIM, Bending, Diffusion, Energy
from pullback.errors import InputError
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.space import Displacement
from pullback.study.recipe import Recipe, from_yaml, to_yaml
from pullback.study.run import run
from pullback.training import Training, UncertaintyWeighted

COHORT = BrainPhantom(spacing=12.0, train_subjects=3, validation_subjects=2, test_subjects=2)


class Constant(Energy):
    """A loss that nothing changes."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def terms(self, alignment):
        return {self.name: torch.tensor(self.value)}


def still(fixed, moving):
    return Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data))


def weights(terms, names):
    return [float(terms[f"weight/{name}"]) for name in names]


def test_weights_begin_equal_and_each_kind_adds_up_to_its_share():
    pair = next(iter(COHORT.validation))
    weighing = UncertaintyWeighted((NCC(), SSIM(), MSE()), (Diffusion(), Bending()), regularity=0.02)
    terms = weighing(still, pair, 0.0)
    assert weights(terms, ("ncc", "ssim", "mse")) == pytest.approx([1 / 3] * 3)
    assert weights(terms, ("diffusion", "bending")) == pytest.approx([0.01] * 2)
    plain = NCC().terms(Alignment(pair, still(pair.fixed, pair.moving).transform))["ncc"]
    assert float(terms["ncc"].detach()) == pytest.approx(float(plain) / 3)
    with torch.no_grad():
        for uncertainty in weighing.uncertainty:
            uncertainty.copy_(torch.linspace(-3, 2, len(uncertainty)))
    terms = weighing(still, pair, 0.0)
    assert sum(weights(terms, ("ncc", "ssim", "mse"))) == pytest.approx(1)
    assert sum(weights(terms, ("diffusion", "bending"))) == pytest.approx(0.02)


@pytest.mark.slow
def test_weights_come_to_rest_at_one_over_the_loss_as_kendalls_do():
    """By plain descent on losses that nothing changes, each kind by itself; a single regulariser keeps its weight."""
    losses = [Constant(f"c{n}", value) for n, value in enumerate((0.1, 0.9, 0.5))]
    several, single = ([Constant(f"r{n}", value) for n, value in enumerate(values)] for values in ((0.3, 0.1), (0.3,)))
    pair = next(iter(COHORT.validation))
    for regularisers in (several, single):
        weighing = UncertaintyWeighted(losses, regularisers, 0.5)
        optimiser = torch.optim.SGD(weighing.parameters(), 1.0)
        for _ in range(1000):
            optimiser.zero_grad()
            terms = weighing(still, pair, 0.0)
            torch.stack([value for name, value in terms.items() if "/" not in name]).sum().backward()
            optimiser.step()
        assert weights(terms, ("c0", "c1", "c2")) == pytest.approx([0.763, 0.085, 0.153], abs=1e-3)
        found = [w / 0.5 for w in weights(terms, [each.name for each in regularisers])]
        assert found == pytest.approx([0.25, 0.75] if len(found) == 2 else [1.0], abs=1e-3)


def test_a_run_logs_the_weights_and_resumes_to_the_same_bits(tmp_path):
    supervision = partial(UncertaintyWeighted, losses=(NCC(), SSIM()))
    network = partial(VoxelMorph, ndim=3, encoder=(4, 4), decoder=(4, 4, 4, 4))
    training = Training(updates=6, lr=1e-2, log_every=1, validate_every=6, save_every=3)
    recipe = Recipe("a test", COHORT, network, supervision, training)
    assert to_yaml(from_yaml(to_yaml(recipe), "this")) == to_yaml(recipe)
    run(recipe, tmp_path / "whole")
    run(replace(recipe, training=replace(training, updates=3)), tmp_path / "parts")
    run(recipe, tmp_path / "parts", resume=True)
    rows = [list(csv.DictReader((tmp_path / name / "training.csv").open())) for name in ("whole", "parts")]
    assert rows[0] == rows[1]
    assert float(rows[0][0]["weight/ncc"]) == 0.5 != float(rows[0][-1]["weight/ncc"])
    for row in rows[0]:
        assert float(row["weight/ncc"]) + float(row["weight/ssim"]) == pytest.approx(1, abs=1e-5)
        summed = sum(float(row[name]) for name in ("ncc", "ssim", "diffusion", "balance"))
        assert float(row["loss"]) == pytest.approx(summed, rel=1e-4), "weights are told, not summed"


def test_a_loss_below_0_is_refused():
    """Its weight would grow and grow: there is no 1 / L to rest at."""
    pair = next(iter(COHORT.validation))
    with pytest.raises(InputError, match=r"mi is -.*such as NCC"):
        UncertaintyWeighted((NCC(), MI()))(still, pair, 0.0)
    same = replace(pair, moving=pair.fixed)
    UncertaintyWeighted((NCC(), SSIM(), MSE()))(still, same, 0.0)


def test_nothing_to_weigh_is_refused():
    with pytest.raises(InputError, match="at least one loss"):
        UncertaintyWeighted(())


def test_two_losses_of_one_name_both_count():
    """The second has a number; each has a weight of its own."""
    pair = next(iter(COHORT.validation))
    terms = UncertaintyWeighted((Constant("a", 2.0), Constant("a", 4.0)), ())(still, pair, 0.0)
    assert weights(terms, ("a", "a 2")) == [0.5, 0.5]
    assert [terms[name].item() for name in ("a", "a 2")] == [1.0, 2.0]
