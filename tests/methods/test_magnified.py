"""Networks of patches: what their views show, and what their numbers mean."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pullback.methods.pair.magnified import LocalAffine, LocalField, Magnified, middle, viewed
from pullback.methods.pair.masn import NARROW, WIDE
from pullback.numerics.smooth import gaussian
from pullback.space import Grid, Image
from pullback.testing import check_register, problems
from pullback.training import seeded

SIZE, WIDTHS = 16, (4, 8)
OBLIQUE = torch.tensor([[0.0, -1.6, 5.0], [1.6, 0.0, -3.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def local(views: tuple[int, ...] = WIDE) -> LocalAffine:
    with seeded(4):
        return LocalAffine(2, 1, WIDTHS, views, SIZE).eval()


def textured(grid: Grid, seed: int = 0) -> Image:
    noise = torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(seed))
    return Image(gaussian(noise, 1.0), grid)


def test_local_networks_keep_it_alone():
    (problem,) = problems("identity", ndim=2)
    with seeded(4):
        check_register(LocalAffine(2, 1, WIDTHS, NARROW, SIZE).eval(), problem)
        check_register(LocalField(2, 1, WIDTHS, NARROW, SIZE).eval(), problem)


# ---- views


@pytest.mark.parametrize("n", [1, 2, 3])
def test_views_have_one_middle(n):
    """A ramp over the base patch is a ramp n times as steep in each view, with the same value in the middle."""
    ramp = Grid((48, 48), OBLIQUE).voxels(torch.zeros(()))[None]
    view = viewed(ramp, 16, n)
    assert view.shape == (1, 2, 16, 16)
    torch.testing.assert_close(view.mean((2, 3)), ramp.mean((2, 3)))
    torch.testing.assert_close(view.diff(dim=2)[:, 0], torch.full((1, 15, 16), float(n)))


def test_the_wide_view_cut_to_the_patch_and_brought_to_its_size_lies_on_it():
    """To half a pixel of the wide view: nearest upsampling of a ramp."""
    ramp = Grid((64, 64), OBLIQUE).voxels(torch.zeros(()))[None]
    narrow, wide = viewed(ramp, 32, 1), viewed(ramp, 32, 2)
    brought = middle(wide, 16).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float((brought - narrow).abs().max()) == 0.5


@pytest.mark.parametrize("at", [(4, 10), (32, 33), (59, 20)])
def test_what_is_joined_at_a_place_comes_from_around_that_place(at):
    """Through the real crops: the extent of what features of the wide view see has its middle where they stand.

    Without norms, which see everything; pooling and growing by two put the middle off by 2 levels' voxels at most.
    """
    size = 64
    with seeded(0):
        network = Magnified(2, 1, (2, 2), (1, 2)).double()
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.Identity())
    for weight in network.encoders[0].parameters():
        weight.data.zero_()  # the first view says nothing
    nn.init.zeros_(network.decoder.grows[0].layer.weight)
    base = torch.rand(1, 2, 2 * size, 2 * size, dtype=torch.float64, requires_grad=True)
    network(base, size)[0, :, at[0], at[1]].sum().backward()
    seen = base.grad.abs().sum((0, 1)) > 0
    for axis in (0, 1):
        where = seen.any(1 - axis).nonzero()[:, 0]
        first, last = int(where.min()), int(where.max())
        assert 0 < first < last < 2 * size - 1
        assert (first + last) / 2 == pytest.approx(at[axis] + size / 2, abs=4)


@pytest.mark.parametrize(("views", "sees"), [(NARROW, False), ((1, 1), False), (WIDE, True)])
def test_what_lies_beside_the_patch_is_seen_by_the_wide_view_alone(views, sees):
    network = local(views)
    with seeded(5):
        nn.init.normal_(network.last.weight, std=0.02)
    grid = Grid((2 * SIZE, 2 * SIZE), OBLIQUE)
    fixed, moving = (textured(grid, n) for n in (0, 1))
    beside = fixed.data.flip(2).clone()
    beside[..., SIZE // 2 : -SIZE // 2, SIZE // 2 : -SIZE // 2] = middle(fixed.data, SIZE)
    with torch.no_grad():
        one, other = (network(each, moving).transform.matrix for each in (fixed, replace(fixed, data=beside)))
    assert torch.equal(one, other) != sees


def test_two_narrow_views_have_the_weights_of_two():
    """But for the enlargement, whose kernels are 1 and not 2 along each axis."""
    narrow, same, wide = (
        sum(p.numel() for p in local(views).features.parameters()) for views in (NARROW, (1, 1), WIDE)
    )
    assert wide - same == (2**2 - 1) * WIDTHS[0] ** 2
    assert same > 1.9 * narrow


def test_affine_numbers_are_about_the_middle_of_the_patch_in_half_its_edge():
    """With p = (x − c) / h along the axes of the voxels, the last layer's bias is T less the identity: p → T (p, 1)."""
    network = local()
    rows = torch.tensor([[0.1, -0.05, 0.25], [0.02, 0.08, -0.5]])
    network.last.bias.data = rows.flatten()
    grid = Grid((2 * SIZE, 2 * SIZE), OBLIQUE)
    with torch.no_grad():
        found = network(textured(grid), textured(grid, 1)).transform
    places = torch.tensor([[15.5, 15.5], [23.5, 15.5], [7.5, 23.5]], dtype=torch.float64)  # the middle, and beside it
    p = (places - 15.5) / (SIZE / 2)
    there = 15.5 + (p + p @ rows[:, :2].double().mT + rows[:, 2].double()) * SIZE / 2
    torch.testing.assert_close(found(grid.to_world(places.mT[None]).mT), grid.to_world(there.mT[None]).mT)
