"""On-the-Fly Guidance: a network learns from its own guess, improved by a few steps of descent.

Xin, Chen, Ji, Han, Xie: On-the-Fly Guidance Training for Medical Image Registration, 2024, arXiv:2308.15216.
"""

from dataclasses import dataclass

from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy
from pullback.solvers import Descend
from pullback.space import Dense


@dataclass(frozen=True)
class Guided:
    """The loss is the mean squared difference of the guess to a label that the guess itself becomes (eq. 2 to 4).

    The label starts from the detached guess and is a constant for the network. Compared is the `field` that the network
    predicts: a displacement, or the velocity where it predicts one, in voxels.

    Attributes:
        energy: what the label descends. The paper sums both terms of eq. 4 over voxels; here, as in the code of
            VoxelMorph that the paper builds on, each is a mean, so that the weight does not depend on the image's size.
        regularity: the paper's "weight decay of 0.02 … to reduce overfitting for small datasets, as suggested in
            VoxelMorph". VoxelMorph suggests no decay of the network's weights; it tunes the weight of the smoothness of
            the field, and finds 0.02 best. So it is read as 0.02 × `Diffusion` of the guess.
        solver: ten steps of Adam at 0.1 voxel.
    """

    energy: Energy = LNCC(9) + 1.0 * Diffusion()
    regularity: Energy = 0.02 * Diffusion()
    solver: Descend = Descend(steps=10, step_size=0.1)

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        guess = register(pair.fixed, pair.moving).transform
        if not isinstance(guess, Dense):
            raise TypeError(f"Guided compares fields; the register answered with {type(guess).__name__}")
        label = self.solver(self.energy.on(pair), start=guess)
        difference = (guess.field - label.field).square().mean()
        return {"guide": difference, **self.regularity.terms(Alignment(pair, guess))}
