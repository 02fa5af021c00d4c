"""On-the-Fly Guidance: a network learns from its own guess, improved by a few steps of descent.

Xin, Chen, Ji, Han, Xie: On-the-Fly Guidance Training for Medical Image Registration, 2024, arXiv:2308.15216. `Guided`
is the method; `GuidedByNetworks`, `GuidedByFittedNetworks` and `Mixture` are what its section 4.3 compares it with.
Weights of `strain` are not the paper's: `pullback.methods.pair.strain` says what they are for.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy
from pullback.errors import InputError
from pullback.example import Supervision
from pullback.methods.method import Method, Paper
from pullback.methods.pair.strain import Strain, compared, is_paced
from pullback.networks import Network
from pullback.numerics.random import make_generator
from pullback.solvers import Descend, FieldAdam
from pullback.space import Dense, Displacement, Image, Transform, as_field, pull, resampled
from pullback.training import Unsupervised


@dataclass(frozen=True)
class Guided:
    """The supervision by a label that the guess itself becomes: their mean squared difference (eq. 2 to 4).

    With `strain` it is ‖u − ℓ‖² + γ Σₐ‖∂ₐ(u − ℓ)‖² of guess u and label ℓ. The label starts from the detached guess and
    is a constant for the network. The compared `field` is the one that the network predicts: a displacement, or the
    velocity where it predicts one, in voxels.

    Attributes:
        energy: the energy that the label descends. The paper sums both terms of eq. 4 over voxels; here, as in the code
            of VoxelMorph that the paper builds on, each is a mean, so that the weight does not depend on the image's
            size.
        regularity: energy of the guess itself that is added to the loss. The default is the paper's "weight decay of
            0.02 … to reduce overfitting for small datasets, as suggested in VoxelMorph". VoxelMorph suggests no decay
            of the network's weights; it tunes the weight of the smoothness of the field, and finds 0.02 best. So it is
            read as 0.02 × `Diffusion` of the guess. `β * LNCC(9)` in it is the paper's blend α · guide + β · NCC.
        solver: ten steps of Adam at 0.1 voxel, with the authors' ε at their images' size (see `FieldAdam`): on
            small images with ε = 1e-8 labels are smoother, and networks learn more slowly and less.
        decay: of the step, as a function of progress, such as `Poly()`: the paper calls 0.1 the initial one. None keeps
            it.
        strain: the weight γ of strains, in voxels²: a number, a function of progress such as `Ramp()`, or `Relative()`
            to the label's roughness. The paper has none.
        weight: of the guide, the α of the blend.
        coarser: descend on images and a field of so many times the voxel size: 2 is the paper's downsampled optimiser,
            with about an eighth of the parameters in 3D. The label is that field, interpolated to full size.

    Raises:
        InputError: no step, or steps of size 0; a weight below 0; or a `coarser` below 1.
    """

    energy: Energy = LNCC(9) + 1.0 * Diffusion()
    regularity: Energy = 0.02 * Diffusion()
    solver: Descend = Descend(steps=10, step_size=0.1, optimiser=FieldAdam())
    weight: float = 1.0
    coarser: int = 1
    decay: Callable[[float], float] | None = None
    strain: Strain = 0.0

    def __post_init__(self) -> None:
        if min(self.solver.steps, self.coarser) < 1 or self.solver.step_size == 0 or self.weight < 0:
            raise InputError(
                f"Guided: one step or more of some size, a weight of 0 or more, coarser by 1 or more; got "
                f"{self.solver.steps} of {self.solver.step_size}, {self.weight} and {self.coarser}"
            )

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        guess = field_of(register, pair)
        label = self._label(pair, guess, decayed(self.solver, self.decay, progress))
        guide = compared(guess, label, self.strain, progress, self.weight)
        return {**guide, **self.regularity.terms(Alignment(pair, guess))}

    @property
    def paced(self) -> bool:
        """Whether it changes with progress, and so with how many updates there are in all."""
        return self.decay is not None or is_paced(self.strain)

    def _label(self, pair: Pair, guess: Dense, solver: Descend) -> Dense:
        if self.coarser == 1:
            return solver(self.energy.on(pair), start=guess)[0]
        small = Pair(_coarse(pair.fixed, self.coarser), _coarse(pair.moving, self.coarser))
        with torch.no_grad():
            start = guess.on(small.fixed.grid)
        return solver(self.energy.on(small), start=start)[0].on(guess.grid)


class GuidedByNetworks(Network):
    """The supervision by a label that networks in a row make: the paper's "n cascaded VoxelMorphs".

    Each sees the fixed image and the moving one as moved so far, and answers with the rest of the motion. The paper
    does not say how they learn; here they learn at the same time, by the energy of the label, from which no gradient
    reaches the guided network. So one update is one step of theirs. Where their label has more energy than the guess,
    the guess learns by its own energy: otherwise it would follow untrained networks away. Displacements are compared,
    whatever kind of field is predicted.

    Args:
        network: makes one of them.
        n: how many.
        energy, regularity, strain: as in `Guided`.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        n: int = 2,
        energy: Energy = LNCC(9) + 1.0 * Diffusion(),
        regularity: Energy = 0.02 * Diffusion(),
        strain: Strain = 0.0,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(network() for _ in range(n))
        self.energy = energy
        self.regularity = regularity
        self.strain = strain

    @property
    def paced(self) -> bool:
        """Whether it changes with progress, as in `Guided`."""
        return is_paced(self.strain)

    def forward(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        guess = field_of(register, pair)
        grid = pair.fixed.grid
        label = Displacement(guess.displacement(grid).detach(), grid)
        for network in self.networks:
            step = network(pair.fixed, pull(pair.moving, label, onto=pair.fixed)).transform
            label = Displacement((label @ step).displacement(grid), grid)
        plain, made = (self.energy.terms(Alignment(pair, field)) for field in (guess, label))
        optimiser = {f"optimiser {name}": value for name, value in made.items()}
        if sum(made.values()) >= sum(plain.values()):
            return plain | optimiser
        moved, to = Displacement(guess.displacement(grid), grid), Displacement(label.field.detach(), grid)
        guide = compared(moved, to, self.strain, progress)
        return {**guide, **self.regularity.terms(Alignment(pair, guess)), **optimiser}


class GuidedByFittedNetworks(Network):
    """The supervision by a label of networks in a row that are fitted to each pair: "n cascaded VoxelMorphs" in code.

    In the authors' code the networks start on the image as the guess moves it, and descend the energy of what they
    leave of it, by Adam; for each pair, here, from the same weights. The label is the field of the last one alone,
    without what the guess and the others moved before it.

    Args:
        network: makes one of them.
        n: how many.
        energy, regularity: as in `Guided`; the smoothness in the energy is that of the last field.
        steps: for each pair.
        lr: of their Adam.

    Raises:
        InputError: no network, or no step.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        n: int = 2,
        energy: Energy = LNCC(9) + 1.0 * Diffusion(),
        regularity: Energy = 0.02 * Diffusion(),
        steps: int = 10,
        lr: float = 0.1,
    ) -> None:
        super().__init__()
        if min(n, steps) < 1:
            raise InputError(f"GuidedByFittedNetworks: one network and one step or more, got {n} and {steps}")
        self.networks = nn.ModuleList(network() for _ in range(n))
        self.energy = energy
        self.regularity = regularity
        self.steps = steps
        self.lr = lr

    def forward(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        guess = field_of(register, pair)
        grid = pair.fixed.grid
        own = Displacement(guess.displacement(grid), grid)
        moved = pull(pair.moving, Displacement(own.field.detach(), grid), onto=pair.fixed)
        guide = compared(own, self._label(pair.fixed, moved))
        return {**guide, **self.regularity.terms(Alignment(pair, guess))}

    def _label(self, fixed: Image, moved: Image) -> Displacement:
        networks = deepcopy(self.networks).requires_grad_()
        optimiser = torch.optim.Adam(networks.parameters(), lr=self.lr)
        with torch.enable_grad():
            for _ in range(self.steps):
                optimiser.zero_grad()
                terms = self.energy.terms(_last(networks, fixed, moved))
                sum(terms.values(), start=fixed.data.new_zeros(())).backward()
                optimiser.step()
        with torch.no_grad():
            return Displacement(_last(networks, fixed, moved).transform.displacement(fixed.grid), fixed.grid)


def _last(networks: Iterable[nn.Module], fixed: Image, moved: Image) -> Alignment:
    """Return the answer of the last network, to which the others have moved the image before."""
    first, *others = networks
    answer: Alignment = first(fixed, moved)
    for network in others:
        answer = network(fixed, pull(answer.pair.moving, answer.transform, onto=fixed))
    return answer


@dataclass(frozen=True)
class Mixture:
    """The supervision by `guided` on some updates, by `otherwise` on the rest: the paper's ablations.

    Attributes:
        guided, otherwise: supervisions.
        when: whether an update at this progress, 0 → 1, is guided: `EveryKth` epoch, or a `Portion` of the pairs.

    Raises:
        InputError: a part has weights of its own.
    """

    guided: Supervision
    when: Callable[[float], bool]
    otherwise: Supervision = Unsupervised()
    paced: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for part in (self.guided, self.otherwise):
            if isinstance(part, nn.Module):
                raise InputError(f"Mixture: {type(part).__name__} has weights of its own, which learn by every pair")

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        return (self.guided if self.when(progress) else self.otherwise)(register, pair, progress)


@dataclass(frozen=True)
class EveryKth:
    """The choice of one epoch in `k`, the first included, of `epochs` in all; each should have several updates."""

    k: int
    epochs: int

    def __call__(self, progress: float) -> bool:
        return int(progress * self.epochs + 1e-6) % self.k == 0


@dataclass(frozen=True)
class Portion:
    """A random choice of this probability, the same for a seed and a progress, and so for all pairs of a batch."""

    probability: float
    seed: int = 0

    def __call__(self, progress: float) -> bool:
        generator = make_generator(self.seed, round(progress * 2**31))
        return float(torch.rand((), generator=generator)) < self.probability


def decayed(solver: Descend, decay: Callable[[float], float] | None, progress: float) -> Descend:
    """Return the solver with steps decayed to this progress."""
    return solver if decay is None else replace(solver, step_size=solver.step_size * decay(progress))


def field_of(register: Register, pair: Pair) -> Dense:
    """Return the field that a register answers with, or for a chain of maps their displacement.

    Raises:
        TypeError: as of `field_in`.
    """
    return field_in(register(pair.fixed, pair.moving).transform, pair)


def field_in(answer: Transform, pair: Pair) -> Dense:
    """Return the field of an answer to a pair, or for a chain of maps their displacement on the fixed grid.

    Raises:
        TypeError: the answer has no field.
    """
    if not answer.grids:
        raise TypeError(f"guidance compares fields; the register answered with {type(answer).__name__}")
    return as_field(answer, pair.fixed.grid)


def _coarse(image: Image, factor: int) -> Image:
    return resampled(image, (factor * image.grid.spacing).tolist())


METHOD = Method(
    about="a network learns from its own guess, improved by a few steps of descent",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "xin2024ofg",
            "Xin, Yuelin and Chen, Yicheng and Ji, Shengxiang and Han, Kun and Xie, Xiaohui",
            "On-the-Fly Guidance Training for Medical Image Registration",
            "arXiv:2308.15216",
            2024,
            "10.48550/arXiv.2308.15216",
            "misc",
        ),
    ),
    keys=("ofg-h1",),
)
