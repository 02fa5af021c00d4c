"""Modified Bessel functions as the Rice distribution has them, exact for arguments of any size."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def log_i0(z: Tensor) -> Tensor:
    """Return log I₀(z), even in z, without overflow: log(e^−|z| I₀(z)) + |z|.

    Its derivative is I₁/I₀, which is 0 at 0; that of torch's own `i0e` there is not.
    """
    return _LogI0.apply(z)


def i1_over_i0(z: Tensor) -> Tensor:
    """Return r = I₁(z) / I₀(z), odd in z, from 0 at 0 to 1; its derivative is 1 − r / z − r²."""
    return _Ratio.apply(z)


def log_i0_series(z: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the first terms of I₀(z) = Σ (z/2)²ᵏ / k!², k = 0 … terms, and its derivative.

    It stands for log I₀ in Simpson et al. 2022 (eq. 5), and is that for z up to about 1.6 times `terms`: beyond, it
    grows as 2 `terms` log z, not as z.
    """
    k = torch.arange(terms + 1, dtype=z.dtype, device=z.device).view(-1, *[1] * z.ndim)
    least = torch.finfo(z.dtype).tiny
    parts = 2 * k * (z / 2).clamp(min=least).log() - 2 * torch.lgamma(k + 1)
    return parts.logsumexp(0), (2 * k * parts.softmax(0)).sum(0) / z.clamp(min=least)


class _LogI0(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return torch.special.i0e(z).log() + z.abs()

    @staticmethod
    def backward(ctx, upstream):
        (z,) = ctx.saved_tensors
        return upstream * i1_over_i0(z)


class _Ratio(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ratio = torch.special.i1e(z) / torch.special.i0e(z)
        ctx.save_for_backward(z, ratio)
        return ratio

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        z, ratio = ctx.saved_tensors
        by_z = torch.where(z == 0, 0.5, ratio / z.where(z != 0, 1))
        return upstream * (1 - by_z - ratio.square())
