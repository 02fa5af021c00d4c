"""Networks of pairs that look again at what they moved."""

from collections.abc import Callable

from torch import nn

from pullback.alignment import Alignment, Pair, continued
from pullback.errors import InputError
from pullback.space import Affine, Image, Transform, pull


class Repeated(nn.Module):
    """A register that asks one network several times: each time it sees the moving image as moved so far.

    The answers are composed, and what the network sees is the moving image itself, resampled once through all of
    them; gradients pass through all passes. A moving image on another grid is pulled onto the fixed one first. Maps and
    stats are those of the last pass, and further transforms follow what the passes before it found.

    Args:
        network: a register of two images; or, as in recipes, what makes one.
        passes: how many times it is asked.
        in_training: how many times while it learns; None for as many.

    Raises:
        InputError: no pass.
    """

    def __init__(
        self, network: nn.Module | Callable[[], nn.Module], passes: int = 2, in_training: int | None = None
    ) -> None:
        super().__init__()
        if min(passes, passes if in_training is None else in_training) < 1:
            raise InputError(f"Repeated: one pass or more expected, got {passes}, in training {in_training}")
        self.network = network if isinstance(network, nn.Module) else network()
        self.passes = passes
        self.in_training = in_training

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        """Return the alignment by all passes, fixed → moving."""
        answer: Alignment = self.network(fixed, moving)
        found: Transform = answer.transform
        before: Transform = Affine.identity(fixed.grid.ndim)
        passes = self.passes if self.in_training is None or not self.training else self.in_training
        for _ in range(passes - 1):
            before = found
            answer = self.network(fixed, pull(moving, before, onto=fixed))
            found = before @ answer.transform
        return Alignment(Pair(fixed, moving), found, answer.maps, continued(before, answer.transforms), answer.stats)
