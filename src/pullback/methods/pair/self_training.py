"""Self-training: a network learns the answers of one that was trained before; the baseline of On-the-Fly Guidance.

Xin et al. 2024 (arXiv:2308.15216), section 4.2 and figure 3: "Self-training uses pre-trained network deformation fields
as pseudo labels; optimized self-training enhances this with extra optimization steps."
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy
from pullback.methods.method import Method
from pullback.methods.pair.ofg import METHOD as GUIDANCE, decayed, field_in, field_of
from pullback.methods.pair.strain import Strain, compared, is_paced
from pullback.solvers import Descend
from pullback.training.teacher import answer_of


@dataclass(frozen=True)
class SelfTraining:
    """The supervision by a teacher's answer for the same pair: its mean squared difference to the guess.

    The paper does not say where the student starts: here from weights of its own, as in the other rows. Nor where the
    labels are kept: here the teacher answers anew for each pair, which gives the same labels.

    Attributes:
        teacher: a register that does not learn, which predicts the same kind of field.
        solver: improves the teacher's answer first: optimised self-training; None takes it as it is.
        energy: the energy that it descends, as in `Guided`.
        regularity: energy of the guess that is added to the loss, as in `Guided`.
        decay: of the solver's step, as in `Guided`.
        strain: the weight of strains, as in `Guided`.
        elsewhere: attributes that name another run, which may move until this one is resumed.
    """

    teacher: Register
    solver: Descend | None = None
    energy: Energy = LNCC(9) + 1.0 * Diffusion()
    regularity: Energy = 0.02 * Diffusion()
    decay: Callable[[float], float] | None = None
    strain: Strain = 0.0
    elsewhere: ClassVar[tuple[str, ...]] = ("teacher",)

    @property
    def paced(self) -> bool:
        """Whether it changes with progress, as in `Guided`."""
        return is_paced(self.strain) or (self.solver is not None and self.decay is not None)

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        label = field_in(answer_of(self.teacher, pair), pair)
        if self.solver is not None:
            label, _ = decayed(self.solver, self.decay, progress)(self.energy.on(pair), start=label)
        guess = field_of(register, pair)
        return {**compared(guess, label, self.strain, progress), **self.regularity.terms(Alignment(pair, guess))}


METHOD = Method(
    about="a network learns the answers of one that was trained before",
    aligns=("pair",),
    trained=True,
    papers=GUIDANCE.papers,
)
