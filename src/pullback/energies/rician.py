"""Likelihoods of magnitude images, whose noise is not about the signal."""

from dataclasses import dataclass

from torch import Tensor

from pullback.alignment import Alignment
from pullback.energies.energy import Energy
from pullback.energies.similarity import masked_mean
from pullback.errors import InputError
from pullback.numerics.noise import Noise, RiceNoise


@dataclass(frozen=True)
class Rician(Energy):
    """The mean of −log p over the masks, where the moved image is the signal and the fixed one a magnitude with noise.

    It is for a predicted image, without noise, that is brought onto a measured one: a map of tissues, a prediction of
    diffusion. Identical images are no minimum, for noise raises magnitudes above their signal (Gudbjartsson and Patz
    1995).

    Attributes:
        sigma: deviation of the noise in each part of the complex signal, in units of intensity.
        noise: another law.

    Raises:
        InputError: a deviation that is not above 0.
    """

    sigma: float = 1.0
    noise: Noise = RiceNoise()

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InputError(f"Rician: a sigma above 0 expected, got {self.sigma}")

    def terms(self, alignment: Alignment) -> dict[str, Tensor]:
        y, signal = alignment.pair.fixed.data, alignment.moved.data
        surprise = self.noise.surprise(y, signal, y.new_tensor(self.sigma))
        return {"rician": masked_mean(surprise, alignment.mask)}
