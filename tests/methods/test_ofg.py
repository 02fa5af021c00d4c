"""On-the-Fly Guidance against the paper, written out by hand."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, Diffusion, Energy
from pullback.errors import InputError
from pullback.methods.pair.ofg import EveryKth, Guided, GuidedByFittedNetworks, GuidedByNetworks, Mixture, Portion
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.solvers import Descend
from pullback.space import Affine, Displacement, Grid, Image, Velocity, pull
from pullback.studies.ofg import study
from pullback.training import Poly, Unsupervised, seeded

SHAPES = {2: (20, 24), 3: (12, 14, 16)}


def make_pair(ndim: int, dtype: torch.dtype = torch.float32) -> Pair:
    generator = torch.Generator().manual_seed(3)
    grid = Grid.centred(SHAPES[ndim])
    images = [gaussian(torch.rand(1, 1, *grid.shape, generator=generator, dtype=dtype), 1.5) for _ in range(2)]
    return Pair(*(Image((data - data.min()) / (data.max() - data.min()), grid) for data in images))


class Constant(nn.Module):
    """A register whose answer is its parameter."""

    def __init__(self, field: torch.Tensor, kind: type = Displacement) -> None:
        super().__init__()
        self.field, self.kind = nn.Parameter(field), kind

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return Alignment(Pair(fixed, moving), self.kind(self.field, fixed.grid))


def dense_lncc(fixed: torch.Tensor, moved: torch.Tensor, window: int) -> torch.Tensor:
    """The window sums by one dense convolution, windows cut off at the border."""
    conv = F.conv2d if fixed.ndim == 4 else F.conv3d
    kernel = torch.ones(1, 1, *[window] * (fixed.ndim - 2), dtype=fixed.dtype)

    def total(x):
        return conv(x, kernel, padding=window // 2)

    n = total(torch.ones_like(fixed))
    f, m = total(fixed), total(moved)
    cross = total(fixed * moved) - f * m / n
    var_f, var_m = total(fixed**2) - f**2 / n, total(moved**2) - m**2 / n
    return 1 - (cross**2 / (var_f * var_m + 1e-5)).mean()


def by_hand(pair: Pair, guess: torch.Tensor, steps: int, lr: float) -> torch.Tensor:
    """The label: Adam on LNCC + the mean squared gradient, nothing borrowed from the package.

    Both are means; the ε of 1e-8 is that of the authors' images, whose voxels are so many times as many.
    """
    shape = guess.shape[2:]
    identity = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=guess.dtype) for n in shape], indexing="ij"))[None]
    field = guess.detach().clone().requires_grad_()
    adam = torch.optim.Adam([field], lr=lr, eps=1e-8 * (160 * 192 * 224 / math.prod(shape)))
    for _ in range(steps):
        where = identity + field
        unit = torch.stack([2 * where[:, a] / (shape[a] - 1) - 1 for a in reversed(range(len(shape)))], -1)
        moved = F.grid_sample(pair.moving.data, unit, align_corners=True)
        rough = sum(field.diff(dim=2 + a).square().mean() for a in range(len(shape))) / len(shape)
        loss = dense_lncc(pair.fixed.data, moved, 9) + rough
        adam.zero_grad()
        loss.backward()
        adam.step()
    return field.detach()


@pytest.mark.parametrize("ndim", [2, 3])
def test_loss_and_gradient_are_the_papers(ndim):
    pair = make_pair(ndim, torch.float64)
    generator = torch.Generator().manual_seed(5)
    guess = torch.randn(1, ndim, *SHAPES[ndim], generator=generator, dtype=torch.float64)
    network = Constant(gaussian(guess, 1.0))
    terms = Guided()(network, pair, 0.0)
    sum(terms.values()).backward()

    label = by_hand(pair, network.field, steps=10, lr=0.1)
    field = network.field.detach().clone().requires_grad_()
    rough = sum(field.diff(dim=2 + a).square().mean() for a in range(ndim)) / ndim
    loss = (field - label).square().mean() + 0.02 * rough
    loss.backward()

    assert set(terms) == {"guide", "diffusion"}
    assert float(sum(terms.values())) == pytest.approx(float(loss), rel=1e-6)
    torch.testing.assert_close(network.field.grad, field.grad, rtol=1e-5, atol=1e-12)


def test_no_gradient_leaks_through_the_label():
    """With the label a constant, d/du mean((u − label)²) is 2 (u − label) / N: any leak would add to it."""
    pair = make_pair(3)
    network = Constant(torch.zeros(1, 3, *SHAPES[3]))
    guided = Guided(regularity=0.0 * Diffusion())
    sum(guided(network, pair, 0.0).values()).backward()
    label = guided.solver(guided.energy.on(pair), start=Displacement(network.field.detach(), pair.fixed.grid))[0].field
    assert not label.requires_grad
    torch.testing.assert_close(network.field.grad, 2 * (network.field.detach() - label) / label.numel())


def test_the_label_is_better_than_the_guess():
    pair = make_pair(3)
    energy = LNCC(9) + 1.0 * Diffusion()
    guess = Displacement(torch.zeros(1, 3, *SHAPES[3]), pair.fixed.grid)
    label = Guided().solver(energy.on(pair), start=guess)[0]
    assert energy(Alignment(pair, label)) < energy(Alignment(pair, guess))


def test_a_velocity_is_compared_as_a_velocity():
    pair = make_pair(2)
    network = Constant(torch.zeros(1, 2, *SHAPES[2]), kind=Velocity)
    guided = Guided(regularity=0.0 * Diffusion())
    label = guided.solver(guided.energy.on(pair), start=Velocity(torch.zeros(1, 2, *SHAPES[2]), pair.fixed.grid))[0]
    assert isinstance(label, Velocity)
    terms = guided(network, pair, 0.0)
    assert float(terms["guide"]) == pytest.approx(float(label.field.square().mean()), rel=1e-6)


def test_an_affine_register_cannot_be_guided():
    pair = make_pair(2)
    with pytest.raises(TypeError, match="Affine"):
        Guided()(lambda fixed, moving: Alignment(pair, Affine.identity(2)), pair, 0.0)


@pytest.mark.parametrize(
    "supervision", [Guided(solver=Descend(3, 0.1)), Unsupervised()], ids=["guided", "unsupervised"]
)
def test_a_network_learns_one_pair(supervision):
    pair = make_pair(2)
    with seeded(0):
        network = VoxelMorph(ndim=2)
    energy = LNCC(9) + 1.0 * Diffusion()
    before = float(energy(Alignment(pair, network(pair.fixed, pair.moving).transform)))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(60):
        loss = sum(supervision(network, pair, 0.0).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = float(energy(Alignment(pair, network(pair.fixed, pair.moving).transform)))
    assert after < before - 0.05


# ---- what section 4.3 compares


def test_the_blend_adds_the_energy_of_the_guess():
    pair = make_pair(2)
    guess = torch.randn(1, 2, *SHAPES[2], generator=torch.Generator().manual_seed(1))
    network = Constant(gaussian(guess, 1.5))
    whole, blend = Guided()(network, pair, 0.0), Guided(weight=0.25, regularity=0.75 * LNCC(9))(network, pair, 0.0)
    assert set(blend) == {"guide", "lncc"}
    assert float(blend["guide"]) == pytest.approx(0.25 * float(whole["guide"]), rel=1e-6)
    alignment = Alignment(pair, network(pair.fixed, pair.moving).transform)
    assert float(blend["lncc"]) == pytest.approx(0.75 * float(LNCC(9)(alignment)), rel=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_downsampled_label_is_a_field_of_half_the_size(ndim):
    """Whatever the descent did, the label is linear between every second voxel; and it is better than the guess."""
    pair = make_pair(ndim)
    network = Constant(torch.zeros(1, ndim, *SHAPES[ndim]))
    guided = Guided(coarser=2, regularity=0.0 * Diffusion())
    sum(guided(network, pair, 0.0).values()).backward()
    label = -network.field.grad * network.field.numel() / 2  # from d/du mean((u - label)^2) at u = 0
    inside = label[(slice(None), slice(None), *[slice(2, -2)] * ndim)]
    for axis in range(2, 2 + ndim):
        bends = inside.diff(n=2, dim=axis).abs().amax([a for a in range(inside.ndim) if a != axis])
        assert float(torch.minimum(bends[0::2].max(), bends[1::2].max())) < 1e-5 < float(bends.max())
    energy = guided.energy.on(pair)
    still = Displacement(torch.zeros_like(label), pair.fixed.grid)
    assert energy(still.with_params(label)) < energy(still)


@pytest.mark.parametrize("shape", [(24, 24, 24), (24, 25, 26), (24, 25)])
def test_a_downsampled_label_of_no_steps_is_the_guess_to_the_border(shape):
    """Constant, so that nothing is lost between the voxels."""
    images = [Image(torch.rand(1, 1, *shape, generator=make_generator(n)), Grid.centred(shape)) for n in range(2)]
    network = Constant(torch.full((1, len(shape), *shape), 3.0))
    terms = Guided(coarser=2, solver=Descend(1, 1e-9))(network, Pair(*images), 0.0)
    assert float(terms["guide"]) < 1e-10


def test_the_step_decays_with_progress():
    """Of one step of Adam each component's length is the step's size, whatever the gradient's."""
    pair = make_pair(2)
    network = Constant(torch.zeros(1, 2, *SHAPES[2]))
    guided = Guided(LNCC(9), 0.0 * Diffusion(), Descend(1, 0.4), decay=Poly(0.5))
    root = [float(guided(network, pair, progress)["guide"]) ** 0.5 for progress in (0.0, 0.75)]
    assert root[1] / root[0] == pytest.approx(0.5, rel=1e-4)


def test_networks_that_make_labels_learn_along_and_the_guided_one_hears_only_the_label():
    pair = make_pair(3)
    with seeded(0):
        guided, network = GuidedByNetworks(partial(VoxelMorph, ndim=3)), VoxelMorph(ndim=3)
    before = float(guided(network, pair, 0.0)["optimiser lncc"])
    optimiser = torch.optim.Adam(guided.parameters(), lr=2e-3)
    for _ in range(30):
        optimiser.zero_grad()
        sum(guided(network, pair, 0.0).values()).backward()
        optimiser.step()
    terms = guided(network, pair, 0.0)
    assert set(terms) == {"guide", "diffusion", "optimiser lncc", "optimiser diffusion"}
    assert float(terms["optimiser lncc"]) < 0.9 * before
    weights = list(network.parameters())
    with_optimiser = torch.autograd.grad(sum(terms.values()), weights, retain_graph=True)
    without = torch.autograd.grad(terms["guide"] + terms["diffusion"], weights, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(with_optimiser, without, strict=True))
    assert any(gradient.any() for gradient in without)
    from_guide = torch.autograd.grad(terms["guide"], list(guided.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in from_guide)


def test_a_label_worse_than_the_guess_is_not_followed():
    """The guess learns by its own energy, the networks by theirs."""
    pair = make_pair(2)
    with seeded(0):
        guided, network = GuidedByNetworks(partial(VoxelMorph, ndim=2)), VoxelMorph(ndim=2)
    with torch.no_grad():
        for one in guided.networks:
            one.head.convolution.bias.fill_(20.0)
    terms = guided(network, pair, 0.0)
    plain = Unsupervised(guided.energy)(network, pair, 0.0)
    learned = torch.autograd.grad(sum(terms.values()), list(network.parameters()), retain_graph=True)
    expected = torch.autograd.grad(sum(plain.values()), list(network.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(learned, expected, strict=True))
    learns = torch.autograd.grad(sum(terms.values()), list(guided.parameters()), allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in learns)


def test_every_kth_epoch_and_a_portion_of_the_pairs():
    updates = [u / 100 for u in range(100)]
    assert [EveryKth(5, epochs=10)(p) for p in updates] == [(u // 10) % 5 == 0 for u in range(100)]
    drawn = [Portion(0.3)(u / 2000) for u in range(2000)]
    assert 0.27 < sum(drawn) / 2000 < 0.33
    assert drawn == [Portion(0.3)(u / 2000) for u in range(2000)]
    assert drawn != [Portion(0.3, seed=1)(u / 2000) for u in range(2000)]


@pytest.mark.parametrize("more", [0, 1, -20])
def test_one_epoch_in_k_is_guided_whatever_the_number_of_updates(more):
    shares = {}
    for name, experiment in study.tables["intensity"].experiments.items():
        for arm, trained in experiment.arms.items():
            if arm.startswith("every"):
                recipe = trained.recipe
                updates, when = recipe.training.updates + more, recipe.supervision.when
                shares[name, arm] = when.k * sum(when(u / updates) for u in range(updates)) / updates
    assert len(shares) == 3 * 8 * 3
    assert all(abs(share - 1) < 0.05 for share in shares.values()), shares


def test_sometimes_is_one_or_the_other():
    pair = make_pair(2)
    network = Constant(torch.zeros(1, 2, *SHAPES[2]))
    sometimes = Mixture(Guided(), EveryKth(2, epochs=4))
    assert [set(sometimes(network, pair, p)) for p in (0.0, 0.3, 0.6, 0.8)] == [
        {"guide", "diffusion"},
        {"lncc", "diffusion"},
    ] * 2


@pytest.mark.parametrize(
    "change", [{"solver": Descend(0, 0.1)}, {"solver": Descend(10, 0.0)}, {"coarser": 0}, {"weight": -1.0}]
)
def test_a_label_that_teaches_nothing_is_refused(change):
    with pytest.raises(InputError, match="Guided: one step or more of some size, a weight of 0 or more"):
        Guided(**change)


def test_networks_that_make_labels_learn_on_every_pair():
    with pytest.raises(InputError, match="GuidedByNetworks has weights of its own"):
        Mixture(GuidedByNetworks(partial(VoxelMorph, ndim=2)), Portion(0.5))


def test_a_teacher_answers_as_it_would_when_asked():
    """Not as in its own training, by chance."""

    class Hesitant(Constant):
        def forward(self, fixed, moving):
            return Alignment(Pair(fixed, moving), Displacement(F.dropout(self.field, 0.5, self.training), fixed.grid))

    pair, teacher = make_pair(2), Hesitant(torch.ones(1, 2, *SHAPES[2])).train()
    student = Constant(torch.zeros(1, 2, *SHAPES[2]))
    assert SelfTraining(teacher, regularity=0.0 * Diffusion())(student, pair, 0.0)["guide"].item() == 1.0


def test_the_steps_of_optimised_self_training_fall_with_progress():
    pair, teacher = make_pair(2), Constant(torch.zeros(1, 2, *SHAPES[2]))
    falling = SelfTraining(teacher, Descend(10, 0.1), decay=lambda progress: 1 - progress)
    smaller = SelfTraining(teacher, Descend(10, 0.05))
    assert torch.equal(falling(teacher, pair, 0.5)["guide"], smaller(teacher, pair, 0.5)["guide"])
    assert (falling.paced, smaller.paced) == (True, False)


def test_self_training_learns_the_teachers_answer_and_the_optimised_one_a_better_one():
    pair = make_pair(2)
    teacher = Constant(gaussian(torch.randn(1, 2, *SHAPES[2], generator=torch.Generator().manual_seed(1)), 1.5))
    student = Constant(torch.zeros(1, 2, *SHAPES[2]))
    plain = SelfTraining(teacher, regularity=0.0 * Diffusion())
    assert float(plain(student, pair, 0.0)["guide"]) == pytest.approx(float(teacher.field.square().mean()), rel=1e-6)
    refined = replace(plain, solver=Descend(10, 0.1))
    sum(refined(student, pair, 0.0).values()).backward()
    label = Displacement(-student.field.grad * student.field.numel() / 2, pair.fixed.grid)
    energy = refined.energy.on(pair)
    assert energy(label) < energy(Displacement(teacher.field.detach(), pair.fixed.grid))
    assert teacher.field.grad is None


def test_networks_in_a_row_compose_as_images_are_moved():
    """Two that answer with a shift and with a stretch, whose order matters: the label is moving ∘ guess ∘ one ∘ two."""
    pair, shape = make_pair(2), SHAPES[2]
    x = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))[None]
    stretch, shift = (
        0.1 * (x - x.mean((2, 3), keepdim=True)),
        torch.ones_like(x) * torch.tensor([1.5, -1.0]).view(2, 1, 1),
    )
    guided = GuidedByNetworks(partial(VoxelMorph, ndim=2), regularity=0.0 * Diffusion())
    guided.networks = nn.ModuleList([Constant(shift), Constant(stretch)])
    seen = []

    class Longer(Energy):
        def terms(self, alignment):
            seen.append(alignment.transform.field.detach())
            return {"longer": -seen[-1].square().mean()}

    guided.energy = Longer()
    guess = 0.2 * stretch
    terms = guided(Constant(guess), pair, 0.0)
    inside = (..., slice(6, -6), slice(6, -6))
    moved = x + stretch  # two, then one, then the guess
    moved = moved + 1.0 * shift
    moved = moved + 0.02 * (moved - x.mean((2, 3), keepdim=True))
    _, label = seen
    torch.testing.assert_close(label[inside], (moved - x)[inside], rtol=0, atol=1e-4)
    torch.testing.assert_close(terms["guide"].detach(), (guess - label).square().mean())


def test_networks_fitted_to_a_pair_are_the_authors_written_out():
    """Two constant fields after three steps of Adam at 0.1 on the moved image; the second alone is the label."""
    pair, shape = make_pair(2), SHAPES[2]
    x = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))[None]
    guess, energy = 0.05 * (x - x.mean((2, 3), keepdim=True)), LNCC(9) + 1.0 * Diffusion()
    guided = GuidedByFittedNetworks(partial(VoxelMorph, ndim=2), energy=energy, steps=3)
    starts = [0.2 * torch.ones_like(x), -0.1 * torch.ones_like(x)]
    guided.networks = nn.ModuleList(Constant(start.clone()) for start in starts)
    network = Constant(guess)
    terms = guided(network, pair, 0.0)

    grid = pair.fixed.grid
    moved = pull(pair.moving, Displacement(guess, grid), onto=pair.fixed)
    one, two = (start.clone().requires_grad_() for start in starts)
    optimiser = torch.optim.Adam([one, two], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        again = pull(moved, Displacement(one, grid), onto=pair.fixed)
        energy(Alignment(Pair(pair.fixed, again), Displacement(two, grid))).backward()
        optimiser.step()
    assert (one - starts[0]).abs().max() > 0.1
    torch.testing.assert_close(terms["guide"], (guess - two).square().mean())
    smooth = Diffusion()(Alignment(pair, Displacement(guess, grid)))
    torch.testing.assert_close(terms["diffusion"], 0.02 * smooth)
    (slope,) = torch.autograd.grad(terms["guide"], network.parameters())
    torch.testing.assert_close(slope, 2 * (guess - two.detach()) / guess.numel())
    for left, start in zip(guided.parameters(), starts, strict=True):
        assert torch.equal(left, start)
        assert left.grad is None
    with pytest.raises(InputError, match="one step or more"):
        GuidedByFittedNetworks(partial(VoxelMorph, ndim=2), steps=0)


@pytest.mark.parametrize("data", ["ixi", "oasis", "lpba40", "abdomen"])
def test_tables_on_the_papers_images_have_its_own_voxelmorph(data):
    for table in study.tables.values():
        names = [name.split("/")[1] for name in table.experiments if name.startswith(f"{data}/")]
        assert "voxelmorph" not in names
    arms = study.tables["table1"].experiments[f"{data}/voxelmorph-light"].arms
    for name in ("unsupervised", "guided"):
        assert sum(p.numel() for p in arms[name].recipe.network().parameters()) == 274_387


def test_fields_of_different_kinds_are_not_compared():
    pair, ones = make_pair(2), torch.ones(1, 2, *SHAPES[2])
    with pytest.raises(InputError, match=r"not Velocity on .* and Displacement on"):
        SelfTraining(Constant(ones))(Constant(ones, Velocity), pair, 0.0)
