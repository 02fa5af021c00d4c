"""Choices on the command line: presets, energies, kinds of fields and starts by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from torch import Tensor

from pullback.energies import MI, MIND, MSE, NCC, NGF, NMI, SSIM, Energy, Sum
from pullback.energies.energy import parts
from pullback.energies.regularity import is_regularity, stiffened
from pullback.errors import InputError, did_you_mean, refuse
from pullback.methods.pair.classical import ACCURATE, BALANCED, ENERGY, FAST, Classical, stiff
from pullback.methods.pair.convex_adam import FeatureOptimised
from pullback.methods.pose.initialise import Initialise
from pullback.solvers import Chain, DeformableStage, Descend, LinearStage, Tiled, chain
from pullback.space import BSpline, Dense, Displacement, Grid, Motion, Velocity
from pullback.study.trained import Trained


@dataclass(frozen=True)
class FieldKind:
    """A kind of field: the weight of its regularity, by that of a velocity, and its voxels in voxels of the level."""

    field: Callable[[Tensor, Grid], Dense]
    stiffness: float = 1.0
    ratio: int = 1


PRESETS: Mapping[str, Classical] = MappingProxyType({"fast": FAST, "balanced": BALANCED, "accurate": ACCURATE})


def _stiff(similarity: Energy, weight: float) -> Energy:
    """Return an energy with the regularity of `fast`, `weight` times."""
    return stiff(similarity, 0.4 * weight, 0.3 * weight)


ENERGIES: Mapping[str, Energy] = MappingProxyType(
    {
        "lncc": ENERGY,
        "mse": _stiff(MSE(), 0.05),
        "ncc": _stiff(NCC(), 1.0),
        "mi": _stiff(MI(in_view=True), 2.0),
        "nmi": _stiff(NMI(in_view=True), 1.0),
        "ngf": _stiff(NGF(), 1.0),
        "mind": _stiff(MIND(), 0.2),
        "ssim": _stiff(SSIM(), 1.0),
    }
)
"""Of the deformable stage: a similarity, and the regularity that suits a velocity."""
LINEAR = ("translation", "rigid", "similarity", "affine")
"""Where to stop: the last linear stage."""
KINDS: Mapping[str, FieldKind] = MappingProxyType(
    {
        "velocity": FieldKind(Velocity),
        "displacement": FieldKind(Displacement, stiffness=2.0),
        "bspline": FieldKind(BSpline, stiffness=2.0, ratio=4),
    }
)
GUESSES = ("header", "centres", "masses", "moments")
STARTS = ("auto", *GUESSES, "global")
TURNING = ("moments", "global")
"""Starts that are turned."""
FITTED: Mapping[str, str] = MappingProxyType(
    {"points": "rigid", "points-similarity": "similarity", "points-affine": "affine"}
)
"""Starts by the linear map between matched landmarks."""
T = TypeVar("T")


def classical(
    preset: str = "balanced",
    transform: str = "velocity",
    energy: str | None = None,
    smoothness: float = 1.0,
    start: str = "auto",
    seed: int = 0,
    aligned: bool = False,
) -> Classical:
    """Return the classical register of these choices.

    Args:
        preset: one of `PRESETS`.
        transform: the last stage: one of `LINEAR` or of `KINDS`.
        energy: one of `ENERGIES`, of the deformable stage, or of the linear ones where there are no others; None takes
            the preset's.
        smoothness: multiplies the weight of the regularity.
        start: one of `STARTS`.
        seed: of the random rotations that the initialisation tries.
        aligned: the headers align the images but for a deformation, so the deformable stage runs alone.

    Raises:
        InputError: a name that is not known, or a negative smoothness.
    """
    register = named(preset, PRESETS, "--preset")
    named(transform, {**dict.fromkeys(LINEAR), **KINDS}, "--transform")
    if register.initialise is not None:
        register = replace(register, initialise=_started(register.initialise, start, seed))
    if aligned:
        refuse({f"--transform {transform}": transform if transform in LINEAR else None}, "not together with --aligned")
        refuse({f"--start {start}": None if start == "auto" else start}, "not together with --aligned")
        register = replace(register, initialise=None, linear=())
    chosen = energy and named(energy, ENERGIES, "--energy")
    if transform in LINEAR:
        refuse({f"--smoothness {smoothness:g}": None if smoothness == 1 else smoothness}, f"a {transform} map has none")
        linear = _linear(register, transform)
        if chosen:
            linear = tuple((name, replace(posed, energy=_similarity(chosen))) for name, posed in linear)
        initialise = register.initialise
        if transform == "translation" and initialise is not None:
            refuse({f"--start {start}": start if start in TURNING else None}, "turns, and a translation does not")
            guesses = tuple((name, guess) for name, guess in initialise.guesses if name not in TURNING)
            initialise = replace(initialise, guesses=guesses, search=None, motion=Motion.translation)
        return replace(register, initialise=initialise, linear=linear, deformable=None)
    deformable = register.deformable
    assert isinstance(deformable, DeformableStage)
    if chosen:
        deformable = replace(deformable, energy=chosen, coarse=None)
    return replace(register, deformable=_of_kind(deformable, KINDS[transform], smoothness))


def _linear(register: Classical, last: str) -> tuple[tuple[str, LinearStage], ...]:
    """Return the linear stages up to the last one: a translation alone, or rigid before a similarity or affine map."""
    (_, rigid), (_, affine) = register.linear
    if last == "translation":
        return ((last, replace(rigid, motion=Motion.translation)),)
    more = {"rigid": None, "similarity": replace(affine, motion=Motion.similarity), "affine": affine}[last]
    return (("rigid", rigid), *([] if more is None else [(last, more)]))


def learned(
    network: Trained,
    start: str = "auto",
    refine: int | None = None,
    energy: str | None = None,
    smoothness: float = 1.0,
) -> Trained | Chain:
    """Return a network as a register, with `refine` followed by so many steps of instance optimisation.

    Args:
        network: the register.
        start: `"header"`, `"centres"`, or `"auto"`: as in its training, pre-aligned if it was so then.
        refine: steps of descent at full resolution, with a displacement.
        energy: of that descent, one of `ENERGIES`; None is LNCC, and `"mind"` descends on features, `FeatureOptimised`.
        smoothness: multiplies the weight of the regularity.

    Raises:
        InputError: a name that is not known, no steps, or a negative smoothness.
    """
    centred = {"auto": network.centred, "header": False, "centres": True}
    before = network.before if start == "auto" else None
    network = replace(network, centred=named(start, centred, "--network with --start"), before=before)
    if refine is None:
        return network
    if refine < 1:
        raise InputError(f"--refine {refine}: a number of steps, at least 1; leave it out for the network alone")
    chosen = named(energy or "lncc", ENERGIES, "--energy")
    if energy == "mind":
        return chain(network, _on_features(refine, smoothness))
    descent = DeformableStage(chosen, steps=(refine,), solver=Descend(step_size=0.1))
    deformable = _of_kind(descent, KINDS["displacement"], smoothness)
    return chain(network, Classical(initialise=None, linear=(), deformable=deformable))


def tiled(network: Trained, tiles: str) -> Trained:
    """Return a network that sees images in overlapping tiles of these edges: `128`, or `128,160,128` along R, A, S.

    Raises:
        InputError: other than whole numbers from 16 on, one or one for each axis.
    """
    sizes = whole_numbers(tiles, "--tiles")
    if not isinstance(sizes, int) and network.ndim not in (None, len(sizes)):
        raise InputError(f"--tiles {tiles}: one number, or {network.ndim} for images of the network's dimensions")
    try:
        _ = Tiled(network.network, sizes)
    except InputError as error:
        raise InputError(f"--tiles {tiles}: {error}") from error
    return replace(network, tiles=sizes)


def _on_features(steps: int, smoothness: float) -> FeatureOptimised:
    _refuse_smoothness(smoothness)
    known = FeatureOptimised()
    descent = replace(known.descent, regularity=smoothness * known.descent.regularity)
    return replace(known, descent=replace(descent, solver=replace(descent.solver, steps=steps)))


def whole_numbers(text: str, option: str) -> int | tuple[int, ...]:
    """Parse `128`, or `160,192,224`.

    Raises:
        InputError: something else.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: whole numbers are expected: 128, or 160,192,224") from error
    return numbers[0] if len(numbers) == 1 else numbers


def named(name: str, known: Mapping[str, T], option: str) -> T:
    """Return the value of a choice by its name.

    Raises:
        InputError: it stands for nothing.
    """
    if name not in known:
        raise InputError(f"{option} {name}: there is {', '.join(known)}{did_you_mean(name, known)}")
    return known[name]


def _of_kind(register: DeformableStage, kind: FieldKind, smoothness: float) -> DeformableStage:
    _refuse_smoothness(smoothness)
    factor = kind.stiffness * smoothness
    coarse = None if register.coarse is None else stiffened(register.coarse, factor)
    register = replace(register, energy=stiffened(register.energy, factor), coarse=coarse)
    if kind.field is register.kind:
        return register
    solver = replace(register.solver, step_size=register.solver.step_size / kind.ratio)  # as far in voxels of the level
    return replace(register, kind=kind.field, draft=None, ratio=kind.ratio, solver=solver)


def _refuse_smoothness(factor: float) -> None:
    if not 0 <= factor < math.inf:
        raise InputError(f"--smoothness {factor:g}: a factor of 0 or more; 1 is as the preset has it")


def _similarity(energy: Energy) -> Energy:
    """Return the energy without its regularity."""
    return Sum(tuple(part for part in parts(energy) if not is_regularity(part)))


def _started(initialise: Initialise, start: str, seed: int) -> Initialise:
    named(start, dict.fromkeys(STARTS), "--start")
    search = None if initialise.search is None else replace(initialise.search, seed=seed)
    guesses = initialise.guesses
    if start != "auto":
        guesses = tuple((name, guess) for name, guess in guesses if name == start)
        search = search if start == "global" else None
    return replace(initialise, guesses=guesses, search=search, seed=seed)
