"""Guess and label compared in H¹: closed forms of strain and of the Rayleigh quotient, and guidance by them."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.energies import Diffusion
from pullback.errors import InputError
from pullback.methods.pair.ofg import Guided, GuidedByNetworks, Mixture, Portion
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.strain import Ramp, Relative, compared, rayleigh_quotient, strains
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.smooth import gaussian
from pullback.recipes import find
from pullback.solvers import Descend
from pullback.space import Displacement, Grid, Image, Velocity
from pullback.study.recipe import changed, from_yaml, to_yaml
from pullback.testing import check_supervision, problems
from pullback.training import seeded

SHAPES = {2: (12, 17), 3: (6, 9, 8)}
SMALL = partial(VoxelMorph, 3, encoder=(4, 8), decoder=(8, 8, 8, 4))
SILENT = 0.0 * Diffusion()


def noise(ndim: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, ndim, *SHAPES[ndim], generator=generator, dtype=torch.float64)


def wave(ndim: int, periods: tuple[float, ...]) -> torch.Tensor:
    """In the first component a product of cosines, with half a voxel before the first and after the last."""
    field = torch.zeros(1, ndim, *SHAPES[ndim], dtype=torch.float64)
    field[:, 0] = 1.0
    for axis, (n, count) in enumerate(zip(SHAPES[ndim], periods, strict=True)):
        along = torch.cos(2 * math.pi * count * (torch.arange(n, dtype=torch.float64) + 0.5) / n)
        field[:, 0] *= along.view(-1, *[1] * (ndim - 1 - axis))
    return field


def quotient(ndim: int, periods: tuple[float, ...]) -> float:
    """Σₐ 4 sin²(kₐ/2), over n − 1 places where displacements have n."""
    waves = zip(SHAPES[ndim], periods, strict=True)
    return sum(4 * math.sin(math.pi * count / n) ** 2 * n / (n - 1) for n, count in waves)


WAVES = [(2, (1.0, 0.0)), (2, (0.5, 2.5)), (3, (0.0, 0.0, 2.0)), (3, (1.0, 0.5, 3.0))]


def on_grid(field: torch.Tensor, kind: type = Displacement, spacing: float | tuple[float, ...] = 1.0):
    return kind(field, Grid.centred(field.shape[2:], spacing))


def still(field: torch.Tensor, kind: type = Displacement):
    return on_grid(torch.zeros_like(field), kind)


class Constant(nn.Module):
    """A register whose answer is its parameter."""

    def __init__(self, field: torch.Tensor, kind: type = Displacement) -> None:
        super().__init__()
        self.field, self.kind = nn.Parameter(field), kind

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return Alignment(Pair(fixed, moving), self.kind(self.field, fixed.grid))


def make_pair(ndim: int, batch: int = 1) -> Pair:
    generator, grid = torch.Generator().manual_seed(3), Grid.centred(SHAPES[ndim])
    data = [torch.rand(batch, 1, *grid.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    images = [gaussian(each, 1.5) for each in data]
    return Pair(*(Image((each - each.min()) / (each.max() - each.min()), grid) for each in images))


# ---- the norm


@pytest.mark.parametrize("kind", [Displacement, Velocity])
@pytest.mark.parametrize("ndim", [2, 3])
def test_without_strain_it_is_the_papers_loss_to_the_bit(ndim, kind):
    guess, label = noise(ndim), noise(ndim, 1)
    terms = compared(on_grid(guess, kind), on_grid(label, kind))
    assert set(terms) == {"guide"}
    assert torch.equal(terms["guide"], (guess - label).square().mean())
    with_strain = compared(on_grid(guess, kind), on_grid(label, kind), 3.0)
    assert torch.equal(terms["guide"], with_strain["guide"])
    assert set(with_strain) == {"guide", "strain", "weight/strain"}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("strain", [3.0, Ramp(1.0, 5.0)])
def test_the_gradient_is_that_of_finite_differences(ndim, strain):
    label = on_grid(noise(ndim, 1)[..., :4])

    def loss(field: torch.Tensor) -> torch.Tensor:
        terms = compared(label.with_params(field), label, strain, progress=0.25)
        return terms["guide"] + terms["strain"]

    field = noise(ndim)[..., :4].requires_grad_()
    assert torch.autograd.gradcheck(loss, (field,))


@pytest.mark.parametrize("strain", [4.0, Relative()])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_shift_has_no_strain(ndim, strain):
    shift = torch.full_like(noise(ndim), 2.5).requires_grad_()
    terms = compared(on_grid(shift), still(shift.detach()), strain)
    assert float(terms["guide"].detach()) == pytest.approx(2.5**2)
    assert float(terms["strain"].detach()) == 0
    (slope,) = torch.autograd.grad(terms["strain"], shift)
    assert not slope.any()


def test_rounding_of_a_shift_is_no_strain():
    """Its noise would else count as much as the shift."""
    shift = torch.full((1, 2, *SHAPES[2]), 2.5)
    shift = shift + 1e-6 * noise(2).float()
    terms = compared(on_grid(shift), still(shift), Relative())
    assert 0 < float(terms["strain"]) < 1e-8


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_strain_of_a_linear_field_is_its_slopes(ndim):
    """Of u = S x it is Σ S² / d: a mean over components, whatever the size of the image."""
    slopes = torch.randn(ndim, ndim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    at = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SHAPES[ndim]), indexing="ij"))
    field = torch.einsum("ab,b...->a...", slopes, at)[None]
    terms = compared(on_grid(field), still(field), 1.5)
    assert float(terms["strain"]) == pytest.approx(1.5 * float(slopes.square().sum()) / ndim)


@pytest.mark.parametrize(("ndim", "periods"), WAVES)
def test_the_rayleigh_quotient_of_a_wave_is_its_frequency_squared(ndim, periods):
    field = 0.7 * wave(ndim, periods)
    assert float(rayleigh_quotient(field)) == pytest.approx(quotient(ndim, periods), rel=1e-12)
    assert float(rayleigh_quotient(-3 * field)) == pytest.approx(quotient(ndim, periods), rel=1e-12)


def test_no_field_has_no_quotient():
    assert float(rayleigh_quotient(torch.zeros(1, 2, 5, 5))) == 0
    terms = compared(still(noise(2)), still(noise(2)), Relative())
    assert float(terms["strain"]) == float(terms["guide"]) == 0
    assert math.isfinite(terms["weight/strain"])


@pytest.mark.parametrize("ndim", [2, 3])
def test_waves_count_by_their_frequency(ndim):
    """The slope is (1 − γΔ)(u − ℓ): a wave along an axis is a multiple of itself."""
    field = wave(ndim, (1.0, *[0.0] * (ndim - 1))).requires_grad_()
    terms = compared(on_grid(field), still(field.detach()), 4.0)
    (slope,) = torch.autograd.grad(terms["guide"] + terms["strain"], field)
    n = SHAPES[ndim][0]
    more = 1 + 4.0 * 4 * math.sin(math.pi / n) ** 2 * n / (n - 1)
    torch.testing.assert_close(slope * field.numel() / 2, more * field.detach())


@pytest.mark.parametrize("ndim", [2, 3])
def test_relative_strain_counts_as_many_times_as_displacements(ndim):
    """Be the label smooth or rough; and its weight is a constant, of which the gradient knows nothing."""
    rough = noise(ndim)
    for field in (rough, gaussian(rough, 1.0), 100 * rough):
        off = field.requires_grad_()
        terms = compared(on_grid(off), still(off.detach()), Relative(1.7), weight=0.5)
        assert terms["strain"].item() == pytest.approx(1.7 * terms["guide"].item(), rel=1e-12)
        gamma = float(terms["weight/strain"])
        assert gamma == pytest.approx(1.7 / float(rayleigh_quotient(off.detach())))
        plain = compared(on_grid(off), still(off.detach()), gamma, weight=0.5)
        (one,), (other,) = (torch.autograd.grad(each["strain"], off) for each in (terms, plain))
        torch.testing.assert_close(one, other)


def test_the_edges_of_voxels_do_not_count():
    """One field in voxels is one number, on whichever grid."""
    field = noise(3)
    for strain in (2.0, Relative()):
        ways = [compared(on_grid(f, spacing=s), still(f, lambda d, g, s=s: on_grid(d, spacing=s)), strain)
                for f, s in ((field, 1.0), (field, (1.0, 1.0, 3.0)))]  # fmt: skip
        assert all(torch.equal(one, other) for one, other in zip(ways[0].values(), ways[1].values(), strict=True))


@pytest.mark.parametrize("edges", [(1.0, 1.0), (1.0, 3.0)])
def test_strain_along_an_axis_has_no_unit_and_shear_has_the_ratio_of_edges(edges):
    """Of the linear motion S x in mm, entry (a, b) is Sₐᵦ hᵦ / hₐ in voxels."""
    slopes = torch.tensor([[0.2, 0.1], [-0.3, 0.4]], dtype=torch.float64)
    grid = Grid.centred(SHAPES[2], edges)
    h = torch.tensor(edges, dtype=torch.float64)
    at = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SHAPES[2]), indexing="ij"))
    in_mm = torch.einsum("ab,bij->aij", slopes, h[:, None, None] * at)
    field = (in_mm / h[:, None, None])[None]
    expected = (slopes * h[None, :] / h[:, None]).square().sum() / 2
    terms = compared(Displacement(field, grid), Displacement(torch.zeros_like(field), grid), 1.0)
    assert float(terms["strain"]) == pytest.approx(float(expected))


@pytest.mark.parametrize("strain", [4.0, Relative()])
@pytest.mark.parametrize("ndim", [2, 3])
def test_only_the_difference_counts(ndim, strain):
    """A label that folds is as good as a flat one: what both share is no strain."""
    off, both = noise(ndim), 50 * noise(ndim, 1)
    moved, alone = compared(on_grid(off + both), on_grid(both), strain), compared(on_grid(off), still(off), strain)
    assert all(value.item() == pytest.approx(alone[name].item(), rel=1e-9) for name, value in moved.items())


@pytest.mark.parametrize("strain", [4.0, Relative()])
def test_a_batch_is_the_mean_of_each_alone(strain):
    """Each by the roughness of its own label."""
    guess = torch.cat([noise(2), gaussian(noise(2, 1), 2.0)])
    label = torch.zeros_like(guess)
    whole = compared(on_grid(guess), on_grid(label), strain)
    each = [compared(on_grid(guess[n : n + 1]), on_grid(label[n : n + 1]), strain) for n in range(2)]
    for name, value in whole.items():
        torch.testing.assert_close(value, (each[0][name] + each[1][name]) / 2)
    assert strains(guess).shape == (2,)


def test_a_ramp_is_a_line_and_depends_on_how_long_there_is():
    assert [Ramp(1.0, 5.0)(p) for p in (0.0, 0.5, 1.0)] == [1.0, 3.0, 5.0]
    guess, label = on_grid(noise(2)), on_grid(noise(2, 1))
    rising = compared(guess, label, Ramp(0.0, 8.0), progress=0.25)
    assert torch.equal(rising["strain"], compared(guess, label, 2.0)["strain"])
    assert [Guided(strain=s).paced for s in (0.0, 2.0, Relative(), Ramp())] == [False, False, False, True]
    teacher = Constant(noise(2))
    assert [SelfTraining(teacher, strain=s).paced for s in (2.0, Ramp())] == [False, True]
    assert GuidedByNetworks(SMALL, strain=Ramp()).paced


@pytest.mark.parametrize("strain", [-1.0, math.inf, Ramp(0.0, -8.0)])
def test_a_weight_below_0_or_without_end_is_refused(strain):
    with pytest.raises(InputError, match="strain: a weight of 0 or more voxels²"):
        compared(on_grid(noise(2)), on_grid(noise(2, 1)), strain, progress=1.0)


def test_a_share_below_0_is_refused():
    with pytest.raises(InputError, match="Relative: a factor of 0 or more"):
        Relative(-1.0)


# ---- guidance by it


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", [Displacement, Velocity])
def test_guidance_compares_with_the_same_label(kind, ndim):
    pair = make_pair(ndim)
    network = Constant(0.1 * noise(ndim), kind)
    guided = Guided(regularity=SILENT, strain=2.0, weight=0.5)
    terms = guided(network, pair, 0.0)
    sum(terms.values()).backward()
    guess = kind(network.field.detach(), pair.fixed.grid)
    label = guided.solver(guided.energy.on(pair), start=guess)[0]
    expected = compared(guess, label, 2.0, weight=0.5)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].detach(), value)
    field = network.field.detach().clone().requires_grad_()
    off = compared(kind(field, pair.fixed.grid), label, 2.0, weight=0.5)
    (slope,) = torch.autograd.grad(off["guide"] + off["strain"], field)
    torch.testing.assert_close(network.field.grad, slope)  # none leaks through the label


def test_guidance_of_a_batch_in_h1_is_the_mean_of_each():
    pair = make_pair(2, batch=2)
    field = torch.cat([noise(2), gaussian(noise(2, 1), 2.0)])
    guided = Guided(regularity=SILENT, strain=Relative())
    whole = guided(Constant(field), pair, 0.0)
    each = [guided(Constant(field[n : n + 1]), pair.nth(n), 0.0) for n in range(2)]
    for name, value in whole.items():
        torch.testing.assert_close(value, (each[0][name] + each[1][name]) / 2, rtol=1e-4, atol=1e-12)


def test_all_that_learn_from_labels_may_hear_of_strains():
    pair = make_pair(2)
    student, teacher = Constant(torch.zeros_like(noise(2))), Constant(0.1 * noise(2))
    taught = SelfTraining(teacher, regularity=SILENT, strain=2.0)(student, pair, 0.0)
    expected = compared(on_grid(student.field), on_grid(teacher.field), 2.0)
    assert all(torch.equal(taught[name], value) for name, value in expected.items())
    sometimes = Mixture(Guided(strain=2.0), Portion(1.0))(student, pair, 0.0)
    assert "strain" in sometimes
    (problem,) = problems("smooth", ndim=3)
    with seeded(0):
        along, network = GuidedByNetworks(SMALL, strain=2.0), SMALL()
    along.energy = -1e-3 * Diffusion()  # rough is better: the label is followed, whatever it is
    terms = along(network, problem.pair, 0.0)
    assert set(terms) >= {"guide", "strain", "weight/strain"}


@pytest.mark.parametrize("strain", [4.0, Relative(), Ramp()], ids=["number", "relative", "ramp"])
def test_contract(strain):
    (problem,) = problems("smooth", ndim=3)
    check_supervision(Guided(solver=Descend(3, 0.1), strain=strain), SMALL, problem.pair)


def test_the_weight_may_be_set_by_key():
    recipe = find("ofg", "voxelmorph", "phantom")
    for text, strain in (("3", 3.0), ("{part: pullback.methods.pair.strain.Relative, factor: 1}", Relative(1.0))):
        made = changed(recipe, {"supervision.strain": text})
        assert made.supervision == replace(recipe.supervision, strain=strain)
        assert from_yaml(to_yaml(made), "test").supervision == made.supervision
