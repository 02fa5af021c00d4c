"""The Adam of descents against torch's."""

import torch
from torch.optim import Adam

from pullback.solvers import FusedAdam


def test_the_same_bits_as_torchs():
    """With groups of other sizes of a step and of ε, and rates that change on the way."""
    draw = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=draw) for shape in ((2, 5), (1, 3, 4, 4), (7,))]
    slopes = [[torch.randn(p.shape, generator=draw) for p in starts] for _ in range(6)]

    def end(kind) -> list[torch.Tensor]:
        params = [p.clone().requires_grad_() for p in starts]
        groups = [{"params": params[:1], "lr": 0.01}, {"params": params[1:], "eps": 1e-2}]
        more = {"fused": True} if kind is Adam else {}
        optimiser = kind(groups, lr=0.1, betas=(0.8, 0.99), **more)
        for step, here in enumerate(slopes):
            for param, slope in zip(params, here, strict=True):
                param.grad = slope
            optimiser.param_groups[0]["lr"] = 0.01 / (1 + step)
            optimiser.step()
        return params

    for ours, theirs, start in zip(end(FusedAdam), end(Adam), starts, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, start)
