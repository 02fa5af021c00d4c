"""Loss weighting by learned uncertainty."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import Diffusion, Energy
from pullback.errors import InputError

ROUNDED = -1e-4  # how far below 0 rounding takes a loss of equal images


class UncertaintyWeighted(nn.Module):
    """The supervision by a weighted sum of energies of the guess, whose weights are learned.

    1. Kendall et al. 2018: a loss Lᵢ with log variance sᵢ counts as exp(−sᵢ) Lᵢ + sᵢ; at the minimum its weight is 1 /
       Lᵢ.
    2. Pérez de Frutos et al. 2023 (DDMR), eq. 1, let the weights ωᵢ of the losses add up to 1, and those of the
       regularisers, λⱼ, too. So here ω = softmax(−s).
    3. The sum is Σ ωᵢ Lᵢ − c Σ log ωᵢ, with c the mean of the ωᵢ Lᵢ, a constant to the gradient. At the minimum all
       ωᵢ Lᵢ are equal, so ω ∝ 1 / Lᵢ: Kendall's weights, scaled to add up to 1.
    4. Without c they would hardly leave 1 / N, for −Σ log ω outweighs losses below 1.

    The paper starts from equal weights, but from 0.005 for its one regulariser. With λ adding up to 1 a single one
    would be 1. Here the regularisers share `regularity` by a softmax of their own, so that a single one keeps all of
    it.

    The weights are logged beside the losses, as `weight/…`; the second loss of one name has a number.

    Args:
        losses: at least one, each of one term that is never below 0: InputError where it is, as with `MI`.
        regularisers: any number, as the losses.
        regularity: the sum of the weights of the regularisers.
    """

    def __init__(
        self, losses: Sequence[Energy], regularisers: Sequence[Energy] = (Diffusion(),), regularity: float = 5e-3
    ) -> None:
        super().__init__()
        if not losses or regularity < 0:
            raise InputError(
                f"UncertaintyWeighted: at least one loss and a regularity of 0 or more expected, got {len(losses)} and "
                f"{regularity}"
            )
        self.groups = ((tuple(losses), 1.0), (tuple(regularisers), float(regularity)))
        self.uncertainty = nn.ParameterList(torch.zeros(len(energies)) for energies, _ in self.groups)

    def forward(self, register: Register, pair: Pair, progress: float) -> dict[str, Tensor]:
        """Return the weighted terms of the guess, their balance −c Σ log ω, and the weights to be logged.

        Raises:
            InputError: a loss is below 0.
        """
        alignment = Alignment(pair, register(pair.fixed, pair.moving).transform)
        found: dict[str, Tensor] = {}
        seen: Counter[str] = Counter()
        balance = torch.zeros((), device=pair.fixed.data.device)
        for (energies, whole), uncertainty in zip(self.groups, self.uncertainty, strict=True):
            shares = (-uncertainty).log_softmax(0)
            weighted = torch.zeros_like(balance)
            for energy, share in zip(energies, shares, strict=True):
                for name, value in energy.terms(alignment).items():
                    if value.detach() < ROUNDED:
                        raise InputError(
                            f"UncertaintyWeighted: {name} is {float(value.detach()):.3g}; a loss that can be below 0 "
                            f"has no such weight; use one that is 0 where images agree, such as NCC"
                        )
                    seen[name] += 1
                    label = name if seen[name] == 1 else f"{name} {seen[name]}"
                    found[label] = whole * share.exp() * value
                    weighted = weighted + found[label].detach()
                    found[f"weight/{label}"] = whole * share.detach().exp()
            balance = balance - weighted * shares.mean() if energies else balance
        return {**found, "balance": balance}
