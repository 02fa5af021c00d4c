"""What is told of how an answer was found."""

import math
from functools import partial

import pytest
import torch

from pullback.alignment import Alignment, Pair, seen
from pullback.energies import MSE, Diffusion
from pullback.solvers import Chain, Converged, DeformableStage, Descend, InstanceOptimisation, Levels
from pullback.space import Affine, Displacement, Grid, Image
from pullback.stats import Stage, Stats


def pair_of(seed: int = 0) -> Pair:
    grid, generator = Grid.centred((14, 13)), torch.Generator().manual_seed(seed)
    return Pair(*(Image(torch.rand(1, 1, 14, 13, generator=generator), grid) for _ in range(2)))


def still(pair: Pair) -> Displacement:
    return Displacement.identity(pair.fixed.grid, pair.fixed.data)


def test_a_descent_tells_each_value_before_its_step():
    pair, energy = pair_of(), MSE() + Diffusion()
    found, stats = Descend(5, 0.1)(energy.on(pair), still(pair))
    assert (stats.steps, stats.stopped, len(stats.energies), stats.failed) == (5, "steps", 5, False)
    assert float(stats.energies[0]) == float(energy(Alignment(pair, still(pair))))
    _, four = Descend(4, 0.1)(energy.on(pair), still(pair))
    assert torch.equal(four.energies, stats.energies[:4])
    assert not stats.energies.requires_grad
    assert not found.field.requires_grad


def test_a_descent_that_comes_to_rest_says_so():
    pair = pair_of()
    _, stats = Descend(500, 0.05, until=Converged(5, 0.5))((MSE() + Diffusion()).on(pair), still(pair))
    assert stats.stopped == "converged"
    assert stats.steps == len(stats.energies) - 1 < 499


@pytest.mark.parametrize("until", [None, Converged()])
def test_a_failed_descent_is_told_from_a_good_one(until):
    """With a rule that looks at values it stops where one is not finite, at the best before; without, it is seen."""

    def broken(transform: Displacement) -> torch.Tensor:
        far = transform.field.abs().max() > 0.25
        return transform.field.sum() * (math.nan if far else 1.0)

    found, stats = Descend(10, 0.1, until=until)(broken, still(pair_of()))
    assert stats.failed
    if until is not None:
        assert stats.stopped == "not finite"
        assert found.field.isfinite().all()
        assert stats.steps == 3


def test_stages_of_a_chain_add_up_and_maps_are_handed_on():
    """Also those of a plain class that knows no stats, by its name."""
    pair = pair_of()
    known = Image(torch.ones(1, 1, 14, 13), pair.fixed.grid)

    class Plain:
        def __call__(self, fixed, moving):
            return Alignment(Pair(fixed, moving), still(pair), {"appearance": known}, {"phase": Affine.identity(2)})

    refine = InstanceOptimisation(MSE() + Diffusion(), Descend(3, 0.1))
    answer = Chain(Plain(), (refine, DeformableStage(MSE() + Diffusion(), levels=Levels(coarsest=8), steps=(2,))))(
        pair.fixed, pair.moving
    )
    assert [stage.name for stage in answer.stats.stages] == ["Plain", "InstanceOptimisation", "DeformableStage"]
    assert [stage.steps for stage in answer.stats.stages][:2] == [0, 3]
    assert answer.stats.steps == sum(stage.steps for stage in answer.stats.stages)
    assert len(answer.stats.energies) >= 5
    assert answer.maps == {"appearance": known}
    assert answer.transforms.keys() == {"phase"}


def test_of_a_start_that_is_gone_on_with_the_first_is_kept():
    first = Stats(Affine.identity(2), "masses", 9.5, numbers={"a": 1.0})
    later = Stats(energies=torch.ones(3), steps=3, stopped="steps", numbers={"b": 2.0}).as_stage("rigid", 0.5)
    whole = first.then(later)
    assert (whole.start, whole.origin, whole.confidence) == (first.start, "masses", 9.5)
    assert whole.stages == (Stage("rigid", 0.5, 3, "steps"),)
    assert whole.numbers == {"a": 1.0, "b": 2.0}
    assert whole.then(None) is whole


def test_of_a_batch_the_least_sure_and_the_worst_are_told():
    fine, lost = (
        Stats(Affine.identity(2), "header", 20.0, stopped="steps"),
        Stats(None, "search", 3.0, stopped="not finite"),
    )
    whole = Stats.of_all([lost, fine])
    assert (whole.confidence, whole.stopped, whole.failed) == (3.0, "not finite", True)
    assert whole.origin == "search, header"
    assert whole.start is None
    assert Stats.of_all([fine, fine]).start.batch == 2


def test_the_whole_pair_is_seen_through_any_answer():
    pair = pair_of()

    class Other:
        transform = Affine.identity(2)

    assert seen(pair, Other()).transform is Other.transform
    given = Alignment(pair_of(1), Affine.identity(2), {"final": pair.fixed}, stats=Stats(steps=2))
    mine = seen(pair, given)
    assert (mine.pair, mine.maps, mine.stats) == (pair, given.maps, given.stats)


@pytest.mark.parametrize("name", ["Non Correspondence", "Deviation", "../up", "a-b", ""])
def test_names_of_maps_are_names_of_files(name):
    pair = pair_of()
    for known in (partial(Alignment, maps={name: pair.fixed}), partial(Alignment, transforms={name: still(pair)})):
        with pytest.raises(ValueError, match="snake case"):
            known(pair, still(pair))
    with pytest.raises(ValueError, match="lies on"):
        Alignment(pair, still(pair), {"far": Image(torch.zeros(1, 1, 4, 4), Grid.centred((4, 4)))})
