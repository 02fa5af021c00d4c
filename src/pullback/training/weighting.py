"""Losses that find their own weights."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, Register
from pullback.energies import Diffusion, Energy
from pullback.errors import InputError

ROUNDED = -1e-4  # how far below 0 rounding takes a loss of equal images


class UncertaintyWeighted(nn.Module):
    """The energies of the guess, in a weighted sum whose weights learn along.

    Kendall et al. 2018: a loss Lᵢ of log variance sᵢ counts exp(−sᵢ) Lᵢ + sᵢ, at rest where its weight is 1 / Lᵢ. Pérez
    de Frutos et al. 2023 (DDMR), eq. 1, ask that the weights ωᵢ of the losses add up to 1, and so do those of the
    regularisers, λⱼ. So here ω is the softmax of −s, and to Σ ωᵢ Lᵢ is added −c Σ log ωᵢ, where c is the mean of the
    ωᵢ Lᵢ, through which no gradient passes. At rest all ωᵢ Lᵢ are the same: weights are those of Kendall, ∝ 1 / Lᵢ,
    brought to add up to 1. Without c they would hardly leave 1 / N, for −Σ log ω outweighs losses below 1.

    The paper begins with equal weights, but for its one regulariser, with 0.005. If λ adds up to 1 one alone is 1 and
    has nothing to learn; both cannot be. Here the regularisers share `regularity` among them by a softmax of their own,
    so that a single one has all of it throughout, and no balance.

    Logged beside the losses are the weights, as `weight/…`; of two losses of one name the second has a number.

    Args:
        losses: at least one, each of one term that is never below 0: InputError where it is, as of `MI`.
        regularisers: any number, as the losses.
        regularity: what the weights of the regularisers add up to.
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
        """The weighted terms of the guess, their balance, and the weights to be logged.

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
