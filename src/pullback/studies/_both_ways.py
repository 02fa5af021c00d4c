"""Others that learn both ways: DeepTag, SYMNet and CycleMorph as losses of one network, as a version of each code is.

The network is asked for both orders of a pair, as `PCSwinMorph` answers. DeepTag (Ye et al. 2021) has one velocity,
there and back; its constraint over a sequence has no meaning for a pair. SYMNet (Mok & Chung 2020) has two, to half the
way. CycleMorph (Kim et al. 2021) asks again for the two moved images, which are to come back.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pullback.alignment import BACK, Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy
from pullback.methods.pair.patch_contrast import PatchAlignment, both_ways
from pullback.networks import Network
from pullback.numerics.difference import determinant, jacobian
from pullback.recipes.unsupervised import ENERGY
from pullback.space import Image, pull

HALF, OTHER = "half", "other_half"


class OneVelocity(Network):
    """A register that answers with the velocity of another one, and with its opposite for the way back.

    Args:
        network: makes the other one, whose field is a velocity.
    """

    def __init__(self, network: Callable[[], Any]) -> None:
        super().__init__()
        self.network = network()

    def forward(self, fixed: Image, moving: Image) -> PatchAlignment:
        answer: PatchAlignment = self.network(fixed, moving)
        return replace(answer, transforms={BACK: answer.transform.inverse()})


class TwoHalves(Network):
    """A register whose way leads there by the velocity of another one, and to it by the opposite of its way back's.

    Both velocities lead from the middle: φ = exp(v) ∘ exp(−w). They are the answer's transforms `half`, to the moving
    image, and `other_half`, to the fixed one.

    Args:
        network: makes the other one, whose fields are velocities.
    """

    def __init__(self, network: Callable[[], Any]) -> None:
        super().__init__()
        self.network = network()

    def forward(self, fixed: Image, moving: Image) -> PatchAlignment:
        answer: PatchAlignment = self.network(fixed, moving)
        half, other = answer.transform, answer.transforms[BACK]
        ways = {BACK: other @ half.inverse(), HALF: half, OTHER: other}
        return replace(answer, transform=half @ other.inverse(), transforms=ways)


@dataclass(frozen=True)
class Halfway:
    """SYMNet's supervision: similarity in the middle and at both ends, smooth velocities of one length, and no folds.

    Attributes:
        similarity: of two images.
        smoothness: weight of each velocity's diffusion.
        folds: weight of the mean of −det ∇φ, where that is above 0.
        length: weight of the mean squared difference between the lengths of both halves.
    """

    similarity: Energy = LNCC(9)
    smoothness: float = 2.0
    folds: float = 10.0
    length: float = 0.001

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        answer: Any = register(*pair.images)
        half, other = answer.transforms[HALF], answer.transforms[OTHER]
        middle = Pair(pull(pair.fixed, other, onto=pair.fixed), pair.moving)
        terms = {f"middle {name}": value for name, value in self.similarity.terms(Alignment(middle, half)).items()}
        ends = both_ways(self.similarity, pair, answer)
        grid = pair.fixed.grid
        moves = [one.displacement(grid) for one in (half, other)]
        rough = [value for one in (half, other) for value in Diffusion().terms(Alignment(pair, one)).values()]
        folded = [
            (-determinant(jacobian(one.displacement(grid)))).relu().mean()
            for one in (answer.transform, answer.transforms[BACK])
        ]
        lengths = [move.square().mean() for move in moves]
        return terms | {
            **{name: 2 * value for name, value in ends.items()},
            "diffusion": self.smoothness * torch.stack(rough).sum(),
            "folds": self.folds * torch.stack(folded).sum(),
            "length": self.length * (lengths[0] - lengths[1]).abs(),
        }


@dataclass(frozen=True)
class Cycle:
    """CycleMorph's supervision: an energy of both ways, images that come back, and none that moves onto itself.

    Attributes:
        energy: of one way.
        alpha: weight of the mean difference of an image from itself after there and back.
        identity: weight of the similarity of an image to itself, moved by the answer to both.
        similarity: that one.
    """

    energy: Energy = ENERGY
    alpha: float = 0.1
    identity: float = 0.5
    similarity: Energy = LNCC(9)

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        answer: Any = register(*pair.images)
        moved = pull(pair.moving, answer.transform, onto=pair.fixed)  # as the fixed image
        carried = pull(pair.fixed, answer.transforms[BACK], onto=pair.fixed)  # as the moving one
        again: Any = register(carried, moved)
        home = pull(moved, again.transform, onto=pair.fixed), pull(carried, again.transforms[BACK], onto=pair.fixed)
        off = [(one.data - image.data).abs().mean() for one, image in zip(home, pair.images[::-1], strict=True)]
        still = [
            value
            for image in pair.images
            for value in self.similarity.terms(Alignment(Pair(image, image), register(image, image).transform)).values()
        ]
        return both_ways(self.energy, pair, answer) | {
            "cycle": self.alpha * torch.stack(off).sum(),
            "identity": self.identity * torch.stack(still).sum(),
        }
