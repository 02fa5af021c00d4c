"""Supervision of a network of patches: by an energy of both ways, and by a contrast between the patches' places.

Of PC-SwinMorph (Liu et al. 2022) with NT-Xent, as in Liu, Aviles-Rivero, Schönlieb 2020; see `pc_swinmorph`.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.alignment import BACK, Alignment, Pair, Register
from pullback.energies import LNCC, Diffusion, Energy
from pullback.errors import InputError

TEMPERATURE = 0.5
WEIGHT = 0.01


@dataclass(frozen=True, eq=False)
class PatchAlignment(Alignment):
    """An alignment with what is known of the patches; its further transform `back` is the way back.

    Attributes:
        projections: of the features of each patch, `(2, patches, channels)`, of length 1: of the fixed and of the
            moving image.
        varied: whether the patch is of more than one intensity in both images, `(patches,)` bool.
    """

    projections: Tensor = field(default_factory=lambda: torch.zeros(2, 0, 1))
    varied: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))


def contrast(projections: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return NT-Xent of two views of n things, a scalar: how surely each view is told to be of its partner's thing.

    It is the mean over all 2n views of −log softmax of the scaled products with all others, at the partner (Chen et al.
    2020, eq. 1).

    Args:
        projections: `(2, n, C)`, of length 1.
        temperature: by which products are divided.

    Raises:
        InputError: one thing alone, which differs from nothing.
    """
    if projections.shape[1] < 2:
        raise InputError(f"contrast: two patches or more to tell apart expected, got {projections.shape[1]}")
    views = projections.flatten(0, 1)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    scores = (views @ views.mT / temperature).masked_fill(itself, -math.inf)
    partners = torch.arange(len(views), device=views.device).roll(projections.shape[1])
    return F.cross_entropy(scores, partners)


@dataclass(frozen=True)
class PatchContrastive:
    """The supervision by an energy of both ways, and by a contrast between patches.

    Each term of the energy is its mean over both ways. A patch of the moving image is to resemble that of the fixed
    image at the same place more than all others of both images. Patches of one intensity, such as of background, are
    left out of the contrast, and counted.

    Attributes:
        energy: of one way.
        weight: of the contrast; 0 asks for none.
        temperature: as of `contrast`.
    """

    energy: Energy = LNCC(9) + 1.0 * Diffusion()
    weight: float = WEIGHT
    temperature: float = TEMPERATURE

    def __call__(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the terms of the energy, and the contrast.

        Raises:
            TypeError: an answer without patches, as that of any other network.
            InputError: a contrast of one patch, of one pair.
        """
        answer = register(*pair.images)
        if not isinstance(answer, PatchAlignment):
            raise TypeError(
                f"PatchContrastive: a network that answers by patches expected, as PCSwinMorph, got {answer!r}"
            )
        terms = both_ways(self.energy, pair, answer)
        if self.weight == 0:
            return terms
        if len(answer.varied) < 2:
            raise InputError(
                "PatchContrastive: one patch of one pair has no other to differ from; take more patches or pairs at "
                "once, or weight=0"
            )
        left = (~answer.varied).sum()
        known = answer.projections[:, answer.varied]
        differs = contrast(known, self.temperature) if known.shape[1] > 1 else answer.projections.sum() * 0
        return terms | {"contrast": self.weight * differs, "contrast/left out": left.to(differs)}


def both_ways(energy: Energy, pair: Pair, answer: Alignment) -> dict[str, Tensor]:
    """Return the terms of an energy, means over an answer and its way `back`."""
    turned = Pair(pair.moving, pair.fixed, pair.moving_labels, pair.fixed_labels)
    ways = (Alignment(pair, answer.transform), Alignment(turned, answer.transforms[BACK]))
    there, back = (energy.terms(way) for way in ways)
    return {name: (value + back[name]) / 2 for name, value in there.items()}
