"""A supervision, an augmentation or a group register that breaks a promise is found; so is an unchecked class."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import pullback.testing.contract
from pullback.energies import MSE
from pullback.group import Group, GroupAlignment
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.solvers import Descend
from pullback.space import Affine, Motion
from pullback.testing import (
    BrokenContract,
    check_augmentation,
    check_coverage,
    check_group,
    check_supervision,
    group_problems,
    problems,
)
from pullback.testing.contract import Untouched
from pullback.training import IndependentAffines, Unsupervised

(PROBLEM,) = problems("smooth", ndim=2)
SMALL = partial(VoxelMorph, 2, encoder=(4, 4), decoder=(4, 4, 4, 4))


def learned(change):
    """MSE, changed by a mistake."""
    return lambda network, pair, progress: change(MSE().terms(network(pair.fixed, pair.moving)), pair, progress)


class Remembers(nn.Module):
    """It tells how far the training has come at most, from an attribute or from a buffer."""

    def __init__(self, kept):
        super().__init__()
        self.kept, self.furthest = kept, torch.zeros(())
        self.register_buffer("reached", torch.zeros(()))

    def forward(self, network, pair, progress):
        self.furthest, self.reached = (torch.clamp(each, min=progress) for each in (self.furthest, self.reached))
        (loss,) = MSE().terms(network(pair.fixed, pair.moving)).values()
        return {"mse": loss, "told/furthest": self.reached if self.kept else self.furthest}


DRAWN = torch.Generator().manual_seed(0)
MISTAKES = {
    "a gradient": lambda terms, pair, progress: {name: value.detach() for name, value in terms.items()},
    "finite losses": lambda terms, pair, progress: {name: value / progress for name, value in terms.items()},
    "finite gradients": lambda terms, pair, progress: {name: (0 * value).sqrt() for name, value in terms.items()},
    "none but zeros": lambda terms, pair, progress: {name: progress * value for name, value in terms.items()},
    "scalars": lambda terms, pair, progress: {name: value[None] for name, value in terms.items()},
    "inputs that stay": lambda terms, pair, progress: (terms, pair.fixed.data.add_(1))[0],
    "for one generator": lambda terms, pair, progress: {
        name: value + torch.rand((), generator=DRAWN) for name, value in terms.items()
    },
}


@pytest.mark.parametrize("promise", MISTAKES)
def test_a_mistaken_supervision_is_found(promise):
    check_supervision(learned(lambda terms, pair, progress: terms), SMALL, PROBLEM.pair)
    with pytest.raises(BrokenContract, match=promise):
        check_supervision(learned(MISTAKES[promise]), SMALL, problems("smooth", ndim=2)[0].pair)


def test_what_cannot_be_resumed_is_found():
    for known in (Unsupervised(), Remembers(kept=True)):
        check_supervision(known, SMALL, PROBLEM.pair)
    with pytest.raises(BrokenContract, match="state was kept and restored"):
        check_supervision(Remembers(kept=False), SMALL, PROBLEM.pair)


DRAWS = torch.Generator().manual_seed(0)
AUGMENTS = {
    "another example for another generator": lambda pair, generator: pair,
    "the same example for the same": lambda pair, generator: IndependentAffines()(pair, DRAWS),
    "its generator alone": lambda pair, generator: (IndependentAffines()(pair, generator), torch.rand(1))[0],
    "inputs that stay": lambda pair, generator: (pair, pair.fixed.data.mul_(torch.rand((), generator=generator)))[0],
    "of the same name": lambda pair, generator: replace(IndependentAffines()(pair, generator), name="other"),
}


@pytest.mark.parametrize("promise", AUGMENTS)
def test_a_mistaken_augmentation_is_found(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_augmentation(AUGMENTS[promise], problems("shift", ndim=2)[0].pair)


def straighten(group: Group, steps: int = 60) -> GroupAlignment:
    """Rigid motions of all images, descended at once."""
    motions = tuple(Motion.rigid(Affine.identity(image.grid.ndim), image.grid) for image in group.images)

    def apart(found: GroupAlignment) -> torch.Tensor:
        return torch.stack([MSE()(pair) for pair in found.pairs]).mean()

    found, stats = Descend(steps, 0.15)(apart, GroupAlignment(group, motions))
    return replace(found, stats=stats)


@pytest.mark.slow
@pytest.mark.parametrize("problem", group_problems(ndim=2), ids=str)
def test_a_group_is_straightened(problem):
    check_group(straighten, problem)


GROUPS = {
    "from the truth": partial(straighten, steps=0),
    "images and edges": lambda group: straighten(replace(group, edges=group.edges[:1]), 0),
    "finite": lambda group: GroupAlignment(group, tuple(Affine(torch.full((3, 3), torch.nan)) for _ in group.images)),
    "the same answer each time": lambda group: GroupAlignment(
        group, tuple(Affine(torch.eye(3).double() + 1e-3 * torch.rand((), generator=DRAWS)) for _ in group.images)
    ),
}


@pytest.mark.parametrize("promise", GROUPS)
def test_a_mistaken_group_register_is_found(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_group(GROUPS[promise], group_problems("chain_shifts", ndim=2)[0])


def test_a_class_that_nobody_checks_is_found():
    package, both = pullback.testing, [*vars(pullback.testing).values()]
    kinds = {kind for kind in both if isinstance(kind, type)}
    known = dict.fromkeys(kinds | {Untouched}, "of the tests")
    check_coverage(package, (), known)
    for promised, checked, excused in (
        ("a check, or an excuse", (), {kind: why for kind, why in known.items() if kind is not Untouched}),
        ("no excuse for what is checked", [Untouched], known),
        ("classes of this package", [int], known),
        ("a reason in words", (), known | {Untouched: ""}),
    ):
        with pytest.raises(BrokenContract, match=promised):
            check_coverage(package, checked, excused)
