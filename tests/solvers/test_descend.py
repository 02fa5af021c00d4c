"""The one gradient solver against a loop written by hand, and what it leaves alone."""

import math

import pytest
import torch
from torch.optim import SGD

from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, MSE, Diffusion
from pullback.errors import InputError
from pullback.solvers import Converged, Descend, FieldAdam, adam, summed_sgd
from pullback.space import Affine, Displacement, Grid, Image, Velocity, pull

SHAPES = [(12, 11), (9, 8, 10)]


def pair_of(waves, shape, shortest=11.0):
    """A picture and the same, shifted by 1.5 mm."""
    grid, value = Grid.centred(shape), waves(len(shape), 1, shortest, count=8)
    where = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])
    return Pair(Image(value(where), grid), Image(value(where - 1.5), grid))


def adam_by_hand(objective, start, steps, rate):
    """Kingma & Ba 2015, algorithm 1, with their constants."""
    x, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t in range(1, steps + 1):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(objective(x), x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return x.detach()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [Displacement, Velocity])
def test_as_adam_by_hand(waves, shape, kind):
    pair, energy = pair_of(waves, shape), MSE() + 0.02 * Diffusion()
    start = 0.1 * torch.randn(1, len(shape), *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = pair.fixed.grid
    ours, _ = Descend(steps=7, step_size=0.05)(energy.on(pair), kind(start, grid))
    expected = adam_by_hand(lambda field: energy(Alignment(pair, kind(field, grid))), start, 7, 0.05)
    assert isinstance(ours, kind)
    torch.testing.assert_close(ours.field, expected, rtol=1e-9, atol=1e-12)


def test_another_optimiser_is_another_optimiser(waves):
    pair = pair_of(waves, (12, 11))
    start = Displacement(torch.zeros(1, 2, 12, 11, dtype=torch.float64), pair.fixed.grid)
    ours, _ = Descend(steps=1, step_size=3.0, optimiser=SGD)(MSE().on(pair), start)
    field = start.field.clone().requires_grad_()
    (slope,) = torch.autograd.grad(MSE()(Alignment(pair, Displacement(field, pair.fixed.grid))), field)
    torch.testing.assert_close(ours.field, -3.0 * slope)


@pytest.mark.parametrize("last", [1.0, 0.1])
def test_summed_gradient_descent_by_hand(waves, last):
    """The optimiser's own rates are kept: here so many times the step as there are components."""
    pair, energy = pair_of(waves, SHAPES[0]), MSE() + 0.02 * Diffusion()
    grid, steps, rate = pair.fixed.grid, 3, 0.1
    x = start = 0.1 * torch.randn(1, 2, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step in range(steps):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(energy(Alignment(pair, Displacement(x, grid))), x)
        x = x - rate * x.numel() * (1 - (1 - last) * step / (steps - 1)) * slope
    found, _ = Descend(steps, rate, last, summed_sgd)(energy.on(pair), Displacement(start, grid))
    torch.testing.assert_close(found.field, x.detach())
    assert (found.field - start).abs().max() > 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_the_start_stays_and_the_answer_is_free(waves, shape):
    pair = pair_of(waves, shape)
    network = torch.full((1, len(shape), *shape), 0.1, dtype=torch.float64, requires_grad=True)
    guess = 2 * network  # connected to its history, as the answer of a network
    before = guess.detach().clone()
    start = Displacement(guess, pair.fixed.grid)
    answer, _ = Descend(steps=3)((LNCC(5) + Diffusion()).on(pair), start)
    assert torch.equal(guess, before)
    assert start.field is guess
    assert guess.requires_grad
    assert network.grad is None
    assert not answer.field.requires_grad
    assert answer.field.grad_fn is None
    assert not torch.equal(answer.field, before)
    assert answer.field.data_ptr() != guess.data_ptr()


def test_no_steps_is_the_start():
    start = Displacement(torch.rand(1, 2, 4, 5), Grid.centred((4, 5)))
    answer, _ = Descend(steps=0)(lambda transform: transform.field.sum(), start)
    assert torch.equal(answer.field, start.field)
    assert not answer.field.requires_grad


def test_it_descends_where_gradients_are_off_and_leaves_them_off(waves):
    """As in validation, and within a training step that must not look in."""
    pair = pair_of(waves, (12, 11))
    start = Displacement(torch.zeros(1, 2, 12, 11, dtype=torch.float64), pair.fixed.grid)
    solver = Descend(steps=5)
    with torch.no_grad():
        quiet, _ = solver(MSE().on(pair), start)
        assert not torch.is_grad_enabled()
    assert torch.equal(quiet.field, solver(MSE().on(pair), start)[0].field)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["affine", "displacement", "velocity"])
def test_a_shift_is_found(waves, kind):
    """Fixed(x) = moving(x + 1.5), looked at away from the border; to the solver all transforms are the same."""
    pair = pair_of(waves, (24, 22), shortest=20.0)  # so smooth that there is one way down
    grid, data = pair.fixed.grid, pair.fixed.data
    mask = torch.zeros_like(data, dtype=torch.bool)
    mask[:, :, 4:-4, 4:-4] = True
    pair = Pair(Image(data, grid, mask), pair.moving)
    field = torch.zeros(1, 2, 24, 22, dtype=torch.float64)
    start, step, steps = {
        "affine": (Affine.identity(2), 0.01, 600),  # short steps: turns move the corners by 12 mm per unit
        "displacement": (Displacement(field, grid), 0.1, 200),
        "velocity": (Velocity(field, grid), 0.1, 200),
    }[kind]
    energy = MSE() + 0.1 * Diffusion()
    found, _ = Descend(steps, step)(energy.on(pair), start)
    core = (slice(None), slice(None), slice(5, -5), slice(5, -5))
    assert (found.displacement(grid)[core] - 1.5).abs().mean() < 0.2
    assert energy.on(pair)(found) < 0.05 * energy.on(pair)(start)


def test_a_descended_affine_is_an_affine_still(waves):
    """Images and points go the same way: the last row of its matrix is no parameter."""
    pair = pair_of(waves, (24, 22))
    grid = pair.fixed.grid
    found, _ = Descend(steps=20, step_size=0.02)(MSE().on(pair), Affine.identity(2))
    assert torch.equal(found.matrix[2], torch.tensor([0, 0, 1], dtype=torch.float64))
    assert not torch.equal(found.matrix, Affine.identity(2).matrix)
    same = Displacement(found.displacement(grid), grid)
    torch.testing.assert_close(pull(pair.moving, found, grid).data, pull(pair.moving, same, grid).data)


def test_every_parameter_of_a_composite_is_descended(waves):
    pair = pair_of(waves, (12, 11))
    start = Affine.identity(2) @ Displacement(torch.zeros(1, 2, 12, 11, dtype=torch.float64), pair.fixed.grid)
    answer, _ = Descend(steps=2)(MSE().on(pair), start)
    assert not torch.equal(answer.outer.matrix, start.outer.matrix)
    assert answer.inner.field.any()


def stops(values, settled):
    """After how many values it says so; None never."""
    return next((n for n in range(1, len(values) + 1) if settled(values[:n])), None)


def test_a_steady_fall_settles_where_a_window_is_its_share_of_the_whole():
    """10 of 500 steps are 2 %."""
    steady = [-0.5 * n for n in range(600)]
    assert stops(steady, Converged(10, 0.02)) == 501
    assert stops(steady, Converged(10, 0.0)) is None


def test_an_exponential_fall_settles_when_solved():
    """e^(−n/T) (e^(w/T) − 1) = s (1 − e^(−n/T)): n = T log(1 + (e^(w/T) − 1) / s)."""
    window, share, time = 10, 0.02, 25.0
    last = math.ceil(time * math.log(1 + (math.exp(window / time) - 1) / share))
    assert stops([math.exp(-n / time) for n in range(400)], Converged(window, share)) == last + 1


@pytest.mark.parametrize("values", [[1.0] * 50, [float(n) for n in range(50)]])
def test_what_does_not_fall_settles_after_three_windows(values):
    """The first steps may climb before they fall; what never falls ends."""
    assert stops(values, Converged(10, 0.02)) == 31
    assert stops(values, Converged(5, 0.02)) == 16


def test_a_swing_shorter_than_the_window_is_waited_for():
    """Momentum carries a descent beyond the valley and back: it is not at rest while it turns round."""
    values = [math.exp(-n / 30) * (1 + math.sin(2 * math.pi * n / 24) ** 2) for n in range(400)]
    assert stops(values, Converged(4, 0.002)) < 20
    assert stops(values, Converged(20, 0.002)) > 150


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, -3.0)])
def test_neither_unit_nor_origin_of_the_values_matters(scale, shift):
    values = [math.exp(-n / 20) for n in range(300)]
    assert stops([scale * v + shift for v in values], Converged()) == stops(values, Converged())


class Bowl:
    """Σ kᵢ xᵢ² of a shift, and how often it was asked."""

    def __init__(self, *stiffness):
        self.stiffness, self.seen = torch.tensor(stiffness, dtype=torch.float64), []

    def __call__(self, transform):
        value = (self.stiffness * transform.matrix[:-1, -1] ** 2).sum()
        self.seen.append(float(value.detach()))
        return value


def start_at(*where):
    matrix = torch.eye(len(where) + 1, dtype=torch.float64)
    matrix[:-1, -1] = torch.tensor(where, dtype=torch.float64)
    return Affine(matrix)


def test_with_a_stop_the_answer_is_the_best_that_was_seen():
    bowl = Bowl(1.0, 30.0)
    answer, _ = Descend(steps=60, step_size=0.5, until=Converged(20, 0.01))(bowl, start_at(4.0, -3.0))
    assert len(bowl.seen) < 60
    assert float(Bowl(1.0, 30.0)(answer)) == pytest.approx(min(bowl.seen))
    assert min(bowl.seen) < bowl.seen[-1]


def test_from_the_bottom_it_does_not_stray():
    """Adam's first steps are of full length whatever the slope; the start remains the answer."""
    start = start_at(1e-9, 0.0)
    answer, _ = Descend(steps=60, step_size=0.5, until=Converged())(Bowl(1.0, 2.0), start)
    assert float(Bowl(1.0, 2.0)(answer)) <= float(Bowl(1.0, 2.0)(start))


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("off", [0.0, 1e-8, -1e-5])
def test_without_a_stop_a_start_at_the_bottom_is_the_answer(unit, off):
    """Adam goes by full steps along any slope, rounding too; within a thousandth of the way nothing is to be gained."""
    start = start_at(off, 0.0)
    answer, stats = Descend(rest=1e-3, steps=6, step_size=0.5)(lambda t: unit * Bowl(1.0, 2.0)(t), start)
    assert torch.equal(answer.matrix, start.matrix)
    assert stats.steps == 6


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_without_a_stop_a_step_too_long_for_the_bottom_is_taken_still(unit):
    """A tenth of a step off, the first passes the bottom and ends higher: that is the optimiser's affair."""
    bowl = Bowl(1.0)
    answer, _ = Descend(rest=1e-3, steps=2, step_size=0.5)(lambda t: unit * bowl(t), start_at(0.05))
    assert bowl.seen[1] > bowl.seen[0]
    assert float(answer.matrix[0, 1]) != 0.05


def test_a_small_place_that_differs_is_seen_among_much_that_does_not(waves):
    """Ten voxels in a thousand; elsewhere only rounding pulls, and every step there is for the worse."""
    pair = pair_of(waves, (40, 36))
    data = pair.fixed.data.clone()
    data[:, :, 20:22, 10:15] += 0.3
    pair = Pair(Image(data.float(), pair.fixed.grid), Image(pair.fixed.data.float(), pair.fixed.grid))
    answer, _ = Descend(steps=4)(MSE().on(pair), Displacement.identity(pair.fixed.grid, pair.fixed.data))
    assert answer.field[:, :, 18:24, 8:17].abs().max() > 0.05


def test_no_step_is_taken_after_the_stop():
    bowl = Bowl(1.0, 1.0)
    Descend(steps=100, until=lambda values: len(values) == 7)(bowl, start_at(4.0, -3.0))
    assert len(bowl.seen) == 7


@pytest.mark.parametrize("given", [{"steps": -1}, {"step_size": -0.1}, {"step_size": float("nan")}])
def test_steps_that_cannot_be_taken(given):
    with pytest.raises(InputError, match="Descend: 0 steps or more, of a size of 0 or more"):
        Descend(**given)


@pytest.mark.parametrize("shape", [(8, 9), (20, 15), (5, 6, 7)])
@pytest.mark.parametrize(
    ("optimiser", "eps"), [(FieldAdam(), 1e-8 * 160 * 192 * 224), (FieldAdam(0.7), 0.7), (FieldAdam(0.0), 0.0)]
)
def test_a_step_on_a_field_is_as_long_on_images_of_any_size(shape, optimiser, eps):
    """Where the energy, a mean over voxels, has a slope of s at a voxel: 0.1 s / (s + ε), ε of 1e-8 at 160×192×224."""
    slopes, size = torch.tensor([1e-3, 0.07, 10.0], dtype=torch.float64), math.prod(shape)
    per_voxel = slopes[torch.arange(size) % 3].view(shape)
    start = Displacement(torch.zeros(1, len(shape), *shape, dtype=torch.float64), Grid.centred(shape))
    found, _ = Descend(1, 0.1, optimiser=optimiser)(lambda u: (per_voxel * u.field.sum((0, 1))).mean(), start)
    expected = -0.1 * per_voxel / (per_voxel + eps)
    torch.testing.assert_close(found.field, expected.expand_as(found.field))


@pytest.mark.parametrize("optimiser", [adam, FieldAdam()])
def test_the_order_of_energies_makes_no_difference(waves, optimiser):
    """Nor does how autograd lays out the gradient of the first, which torch's fused Adam would not see."""
    pair = pair_of(waves, SHAPES[1])
    start = Displacement(torch.zeros(1, 3, *SHAPES[1], dtype=torch.float64), pair.fixed.grid)
    one, two = (
        Descend(3, 0.1, optimiser=optimiser)(energy.on(pair), start)[0].field
        for energy in (LNCC(5) + 0.5 * Diffusion(), 0.5 * Diffusion() + LNCC(5))
    )
    torch.testing.assert_close(one, two)
    found, _ = Descend(3, 0.1, optimiser=optimiser)(LNCC(5).on(pair), start)
    assert float(LNCC(5)(Alignment(pair, found))) < float(LNCC(5)(Alignment(pair, start)))


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_an_epsilon_that_cannot_be(eps):
    with pytest.raises(InputError, match="FieldAdam: an eps of 0 or more"):
        FieldAdam(eps)
