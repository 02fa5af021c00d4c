"""What every energy promises: those that are exported, and those that presets, names and recipes put together."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import pytest
import torch

import pullback.energies
from pullback.energies import (
    LNCC,
    MI,
    MIND,
    MSE,
    NCC,
    NGF,
    NMI,
    SSIM,
    Bending,
    Diffusion,
    Energy,
    Kinetic,
    Rician,
    Sum,
    Weighted,
)
from pullback.energies.energy import parts
from pullback.methods.pair.classical import ACCURATE, BALANCED, FAST
from pullback.numerics.kernel import Sobolev
from pullback.recipes import known
from pullback.testing import BrokenContract, check_energy
from pullback.testing.energy import check_minimum
from pullback.workflows.choices import ENERGIES as NAMED

GUIDED = {
    "BoxMSE",
    "LabelMSE",
    "LandmarkMSE",
    "OnChannels",
    "SoftDice",
    "SoftHausdorff",
}  # by labels, points or some channels: they have tests of their own
BLIND = {
    NCC: ("gain", "offset", "inversion"),
    NGF: ("gain", "offset", "inversion"),
    MI: ("gain", "offset"),
    NMI: ("gain", "offset"),
}
"""Intensities that are not seen. LNCC and SSIM have constants that see the gain; their own tests say how much."""


def unseen(energy: Energy) -> tuple[str, ...]:
    """The changes of intensities that an energy does not see: correlation with its sign sees the inversion."""
    blind = BLIND.get(type(energy), ())
    return blind if not isinstance(energy, NCC) or energy.squared else tuple(set(blind) - {"inversion"})


PLAIN = [
    LNCC(9, 1e-4),
    MI(),
    MIND(),
    MSE(),
    NCC(),
    NGF(),
    NMI(),
    Rician(0.5),
    SSIM(),
    Bending(),
    Diffusion(),
    Kinetic(Sobolev(1, 2)),
]
COMBINED = [MSE() + 0.1 * Diffusion(), 0.5 * LNCC(5, 0.1)]


def energies_of(thing: Any) -> Iterator[Energy]:
    """All energies that a recipe, or a part of one, is made of."""
    if isinstance(thing, Energy):
        yield thing
    elif isinstance(thing, partial):
        for value in (*thing.args, *thing.keywords.values()):
            yield from energies_of(value)
    elif isinstance(thing, tuple | list):
        for value in thing:
            yield from energies_of(value)
    elif is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            yield from energies_of(getattr(thing, field.name))


def kinds(energy: Energy) -> set[type]:
    """Of all its parts."""
    if isinstance(energy, Weighted):
        return kinds(energy.energy)
    return {kind for part in energy.parts for kind in kinds(part)} if isinstance(energy, Sum) else {type(energy)}


def similarity(energy: Energy) -> str:
    """The energy without its weights: what differs in them alone is one."""
    names = sorted(repr(part.energy if isinstance(part, Weighted) else part) for part in parts(energy))
    return " + ".join(names)


PRESETS = [preset.deformable for preset in (FAST, BALANCED, ACCURATE)]
USED = [*(stage.energy for stage in PRESETS), *(stage.coarse for stage in PRESETS), *NAMED.values()]
USED += [energy for recipe in known().values() for energy in energies_of(recipe)]
GIVEN = {similarity(energy): energy for energy in (*USED, *PLAIN, *COMBINED)}
ENERGIES = {name: energy for name, energy in GIVEN.items() if not {kind.__name__ for kind in kinds(energy)} & GUIDED}


def lawful(energy: Energy) -> bool:
    """Return whether identical images are its minimum.

    LNCC without noise has a floor in ε alone (see test_lncc.py); noise raises what Rician compares with the signal.
    """
    return not any(part in repr(energy) for part in ("noise=0.0,", "noise=0.0)", "Rician("))


def hides(energy: Energy) -> bool:
    """Return whether it gains by a moving mask that hides what is flat or unlike."""
    return bool(kinds(energy) & {MI, NMI, NGF})


def test_every_energy_is_visited():
    """Those that are exported, and with them those of all presets, names and recipes."""
    exported = {getattr(pullback.energies, name) for name in pullback.energies.__all__}
    exported = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, Energy)} - {Energy}
    visited = {kind for energy in ENERGIES.values() for kind in kinds(energy)} | {Sum, Weighted}
    assert {kind.__name__ for kind in exported - visited} == GUIDED
    assert any(kinds(energy) & {LNCC} for energy in energies_of(tuple(known().values()))), "recipes are looked into"


@pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES)
@pytest.mark.parametrize("ndim", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_energy(energy, ndim):
    check_energy(energy, ndim, least=lawful(energy) and not hides(energy), blind=unseen(energy))


PARAMETERS = [
    *(LNCC(window, noise) for window in (3, 9, 21) for noise in (1e-4, 0.03, 0.1, 0.5)),
    *(kind(bins) for kind in (MI, NMI) for bins in (4, 16, 32, 100)),
    *(NGF(epsilon) for epsilon in (0.01, 0.3, 3.0)),
    *(MIND(*p) for p in [(1, 2, True), (0, 1, False), (2, 3, True)]),
    *(SSIM(*p) for p in [(7, None), (3, None), (11, 1.5)]),
    0.5 * LNCC(5, 0.1) + 0.3 * MSE() + 0.1 * Diffusion(),
]


@pytest.mark.parametrize("energy", PARAMETERS, ids=repr)
@pytest.mark.parametrize("ndim", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("masked", [False, True])
def test_identical_images_are_a_minimum_for_all_parameters(energy, ndim, masked):
    if not (masked and hides(energy)):
        check_minimum(energy, ndim, masked, repr(energy))


@dataclass(frozen=True)
class Wrong(Energy):
    """MSE with a mistake: what it makes of the alignment and its value."""

    mistake: Any

    def terms(self, alignment):
        return {"wrong": self.mistake(alignment, MSE()(alignment))}


def detached_half(alignment, value):
    return value / 2 + value.detach() / 2


MISTAKES = {
    "finite": lambda a, value: value / a.pair.fixed.data.std(),
    "the derivative of its values": detached_half,
    "the mean over batch": lambda a, value: value * a.moved.data.shape[0],
    "hidden voxels do not change": lambda a, value: value + 1e-3 * a.pair.fixed.data.mean(),
    "no slope at identical images": lambda a, value: value + 1e-3 * a.moved.data.mean(),
    "identical images as a minimum": lambda a, value: value - 2 * value,
    "does not see the gain": lambda a, value: value,
    "the images' type": lambda a, value: value.double(),
    "inputs that stay": lambda a, value: (Diffusion()(a), a.pair.fixed.data.add_(1))[0],
    "the same value each time": lambda a, value: value + torch.rand((), generator=DRAWN),
}
DRAWN = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("promise", MISTAKES)
def test_a_mistake_is_found(promise):
    with pytest.raises(BrokenContract, match=promise):
        check_energy(Wrong(MISTAKES[promise]), 2, blind=("gain",))
