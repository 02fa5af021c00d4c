"""Heads at points: lattices of displacements, their means, and that points do not know of each other."""

import pytest
import torch

from pullback.networks import HeatmapHead, RegressionHead

HALF = {2: torch.tensor([48.0, 52.0]), 3: torch.tensor([48.0, 48.0, 52.0])}


def counted(module) -> int:
    return sum(p.numel() for p in module.parameters())


def told(head: HeatmapHead, logits: torch.Tensor) -> HeatmapHead:
    """The head, with the values of its heatmaps `(N, J)` given."""
    head._heatmap = lambda seen: logits.view(len(seen), 1, *[head.nodes] * head.ndim)
    return head


def test_the_papers_head_has_462417_weights():
    assert counted(HeatmapHead(3)) == 462_417


@pytest.mark.parametrize(("ndim", "channels", "width"), [(2, 5, 3), (3, 64, 16), (3, 32, 8)])
def test_counts_in_closed_form(ndim, channels, width):
    """A kernel of 7 and six of 3, all with bias; norms have no weights."""
    pairs = [(width, 2 * width), *[(2 * width, 2 * width)] * 3, (2 * width, width), (width, 1)]
    expected = channels * width * 7**ndim + width + sum(a * b * 3**ndim + b for a, b in pairs)
    assert counted(HeatmapHead(ndim, channels, width)) == expected
    assert counted(RegressionHead(ndim, channels)) == 2 * channels * (channels + 1) + ndim * (channels + 1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_lattice_is_of_middles_of_cells_symmetric_about_0(ndim):
    lattice = HeatmapHead(ndim, 2, 2).lattice(HALF[ndim].double())
    assert lattice.shape == (11**ndim, ndim)
    torch.testing.assert_close(lattice, -lattice.flip(0), rtol=0, atol=1e-12)
    assert not lattice[len(lattice) // 2].any()
    for axis, half in enumerate(HALF[ndim].tolist()):
        nodes = lattice[:, axis].unique()
        spread = nodes[nodes.diff(prepend=nodes[:1] - 1) > 1e-9]
        torch.testing.assert_close(spread.diff(), torch.full((10,), 2 * 0.3 / 11 * half).double(), rtol=0, atol=1e-6)
        assert float(spread.max()) == pytest.approx(0.3 * 10 / 11 * half, abs=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_flat_heatmap_answers_0_and_a_sharp_one_its_node(ndim):
    half, nodes = HALF[ndim], 11**ndim
    head = HeatmapHead(ndim, 2, 2)
    lattice = head.lattice(half)
    vectors = torch.zeros(1, 2, 5)
    flat = told(head, torch.full((5, nodes), 3.0))(vectors, half)
    assert flat.displacement.abs().max() < 1e-4
    index = torch.tensor([0, 7, nodes // 2, 3, nodes - 1])
    logits = torch.zeros(5, nodes)
    logits[torch.arange(5), index] = 200.0
    sharp = told(head, logits)(vectors, half)
    torch.testing.assert_close(sharp.displacement[0], lattice[index])
    assert sharp.likelihood.shape == (1, 5, nodes)
    torch.testing.assert_close(sharp.likelihood.sum(-1), torch.ones(1, 5))


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_mean_of_a_bump_is_its_middle_whatever_is_added(ndim):
    """A Gaussian of one spacing, within the lattice, is answered to a fiftieth of a spacing."""
    half = HALF[ndim].double()
    head = HeatmapHead(ndim, 2, 2)
    lattice, step = head.lattice(half), 2 * 0.3 / 11 * half
    middle = torch.tensor([[0.3, -1.2, 0.9], [1.8, 0.4, -0.7], [0.0, 0.0, 0.0]]).double()[:, :ndim] * step
    logits = -(((lattice - middle[:, None]) / step) ** 2).sum(-1) / 2  # (3, J)
    vectors = torch.zeros(1, 2, 3).double()
    found = told(head, logits)(vectors, half).displacement[0]
    assert float(((found - middle) / step).abs().max()) < 0.02
    more = told(head, logits + torch.tensor([[5.0], [-40.0], [1.0]]).double())(vectors, half).displacement[0]
    torch.testing.assert_close(more, found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_point_does_not_know_which_others_are_asked(ndim):
    """Normalisation runs over the lattice of one point."""
    torch.manual_seed(0)
    head = HeatmapHead(ndim, 6, 4)
    for weight in head.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    vectors = torch.randn(2, 6, 9)
    together = head(vectors, HALF[ndim]).displacement
    assert together.std() > 0.1
    for n in range(2):
        alone = head(vectors[n : n + 1, :, 3:5], HALF[ndim]).displacement
        torch.testing.assert_close(alone[0], together[n, 3:5], rtol=0, atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_untrained_head_answers_with_little_motion_and_learns(ndim):
    torch.manual_seed(0)
    vectors = torch.randn(1, 6, 30)
    for head in (HeatmapHead(ndim, 6, 4), RegressionHead(ndim, 6)):
        found = head(vectors, HALF[ndim]).displacement
        assert found.shape == (1, 30, ndim)
        assert found.abs().max() < 2.5, type(head)  # voxels of some hundred
        found.square().sum().backward()
        assert all(p.grad is not None for p in head.parameters())


def test_regression_is_in_half_the_extent():
    head = RegressionHead(3, 4)
    vectors = torch.randn(1, 4, 12)
    one, two = head(vectors, HALF[3]).displacement, head(vectors, 2 * HALF[3]).displacement
    torch.testing.assert_close(two, 2 * one)
    assert head(vectors, HALF[3]).likelihood is None
