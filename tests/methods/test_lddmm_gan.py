"""LDDMM-GAN: whose weights which loss moves, closed forms of both losses, twins, and contracts.

Kernels, geodesics, their conservation, inverses and gradients are held in tests/numerics/test_kernel.py and
test_epdiff.py and in tests/space/test_flow.py.
"""

import math
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import Tori
from pullback.energies import MSE, Diffusion, Kinetic
from pullback.errors import InputError
from pullback.methods.pair.lddmm_gan import (
    Adversarial,
    Coarser,
    Discriminator,
    TwoStream,
    adversary,
    discriminating,
)
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.integrate import euler
from pullback.numerics.kernel import Sobolev
from pullback.numerics.random import make_generator
from pullback.recipes import find
from pullback.recipes.lddmm_gan import ENERGY, KERNEL
from pullback.space import Displacement, Geodesic, Grid, Image, Velocity
from pullback.studies.lddmm_gan import cosine
from pullback.testing import check_register, check_supervision, problems
from pullback.training import Training, load_tensors, seeded
from pullback.training.train import train

FEW = {"full": (4, 6, 8), "half": (3, 5)}
GEODESIC = partial(Geodesic, kernel=KERNEL, steps=2, scheme=euler)


def small(ndim=2, transform=Velocity, channels=1):
    with seeded(5):
        return TwoStream(ndim, **FEW, transform=transform, channels=channels)


def adversarial(ndim=2, **numbers):
    with seeded(3):
        return Adversarial(ndim, numbers.pop("energy", ENERGY), **numbers)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=make_generator(seed))


def pair_of_noise(shape=(24, 20), channels=1, batch=1):
    grid = Grid.centred(shape)
    return Pair(*(Image(noise(batch, channels, *shape, seed=n), grid) for n in range(2)))


# ---- the network


@pytest.mark.parametrize(
    "problem", [*problems(ndim=2), *(pytest.param(p, marks=pytest.mark.slow) for p in problems(ndim=3))], ids=str
)
def test_two_streams_are_a_register(problem):
    """Untrained, it knows nothing but to stay."""
    ndim, known = problem.pair.fixed.grid.ndim, problem.name == "identity"
    with seeded(5):
        check_register(TwoStream(ndim, **FEW, transform=GEODESIC), problem, solves=known, rounding=1e-3)


def test_widths_are_those_that_were_decided():
    """Weights, counted by hand: convolutions of 3², transposed ones of 4², and biases."""
    fine = 9 * (2 * 16 + 16 * 32 + 32 * 64 + 64 * 64) + 16 + 32 + 64 + 64
    coarse = 9 * (2 * 16 + 16 * 32 + 32 * 64) + 16 + 32 + 64
    grow = 16 * (128 * 64 + 64 * 32 + 32 * 16) + 64 + 32 + 16
    join = 9 * ((64 + 64 + 32) * 64 + (32 + 32 + 16) * 32 + (16 + 16) * 16) + 64 + 32 + 16
    head = 9 * 16 * 2 + 2
    assert sum(p.numel() for p in TwoStream(2).parameters()) == fine + coarse + grow + join + head


def test_both_streams_and_all_their_skips_are_seen():
    network = small()
    network(*pair_of_noise().images).transform.field.square().sum().backward()
    assert all(bool(weight.grad.any()) for weight in network.parameters())


@pytest.mark.parametrize(("shape", "factor"), [((21, 17), 2.0), ((13, 15, 11), 2.0), ((16, 19), 3.0)])
def test_a_coarser_field_is_the_same_motion(shape, factor):
    """Of a field that is linear, exactly but near the border, where voxels of the one lie on those of the other."""
    grid = Grid.centred(shape, [1.0, 1.4, 0.8][: len(shape)])
    slopes = torch.randn(len(shape), len(shape), dtype=torch.float64, generator=make_generator(2))
    where = grid.voxels(slopes) - (torch.tensor(shape).view(-1, *[1] * len(shape)) - 1) / 2
    field = torch.einsum("ab,b...->a...", 0.05 * slopes, where)[None]
    coarse = Coarser(Displacement, factor)(field, grid)
    assert coarse.grid.shape == tuple(max(round((n - 1) / factor) + 1, 3) for n in shape)
    inner = (..., *[slice(math.ceil(2 * factor), -math.ceil(2 * factor)) for _ in shape])
    torch.testing.assert_close(coarse.displacement(grid)[inner], field[inner], rtol=0, atol=1e-9)
    again = Coarser(Displacement, 1)(field, grid)
    torch.testing.assert_close(again.field, field, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="Coarser"):
        Coarser(Displacement, 0.5)


def test_any_network_may_end_in_a_geodesic():
    """The energy's gradient reaches the first layer of VoxelMorph, and the answer holds its initial velocity."""
    with seeded(1):
        network = VoxelMorph(2, (4, 4), (4, 4, 4, 4), transform=Coarser(GEODESIC))
    pair = pair_of_noise((16, 18))
    answer = network(*pair.images)
    assert isinstance(answer.transform, Geodesic)
    assert answer.transform.grid.shape == (9, 9)
    ENERGY(Alignment(pair, answer.transform)).backward()
    assert bool(network.unet.down[0].weight.grad.any())


# ---- the discriminator and the losses


@pytest.mark.parametrize("shape", [(64, 64), (5, 33), (9, 8, 17)])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_discriminator_takes_images_of_any_size(shape, channels):
    with seeded(0):
        network = Discriminator(len(shape), channels)
    fixed, other = noise(1, channels, *shape), noise(3, channels, *shape, seed=1)
    logits = network(fixed, other)
    assert logits.shape == (3,)
    assert network.blocks[0].convolution.in_channels == 2 * channels
    torch.testing.assert_close(logits[1:2], network(fixed, other[1:2]), rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=rf"set supervision.ndim={len(shape)} and supervision.channels={channels + 1}"):
        network(noise(1, channels + 1, *shape), noise(1, channels + 1, *shape))


def gradients(module):
    return {name: weight.grad for name, weight in module.named_parameters()}


def test_each_loss_reaches_its_own_weights_alone():
    """Whoever calls them, with all weights free; exactly: None or 0."""
    network, supervision, pair = small(), adversarial(), pair_of_noise()
    sum(supervision(network, pair, 0.0).values()).backward()
    assert all(grad is None for grad in gradients(supervision).values())
    assert all(bool(grad.any()) for grad in gradients(network).values())
    network.zero_grad(set_to_none=True)
    terms = discriminating(supervision, network, pair, 0.0)
    sum(value for name, value in terms.items() if "/" not in name).backward()
    assert all(grad is None for grad in gradients(network).values())
    assert all(bool(grad.any()) for grad in gradients(supervision).values())


class Sure(nn.Module):
    """A discriminator with one logit for all, or with another for what is not the fixed image."""

    def __init__(self, logit, other=None):
        super().__init__()
        self.logit, self.other, self.seen = logit, logit if other is None else other, []

    def forward(self, fixed, other):
        self.seen.append((fixed, other))
        mean = other.flatten(1).mean(1)
        return (self.logit if len(self.seen) == 1 else self.other) + 0 * mean


def test_closed_forms():
    """At p = 1/2 the discriminator's loss is 2 log 2; a perfect one makes the network's as long as its logit."""
    pair, network = pair_of_noise(), small()
    supervision = adversarial(energy=MSE() + 0.5 * Diffusion(), weight=100.0)
    supervision.discriminator = Sure(0.0)
    terms = discriminating(supervision, network, pair, 0.0)
    assert float(terms["mixed"] + terms["moved"]) == pytest.approx(2 * math.log(2), rel=1e-6)
    assert float(terms["p/mixed"]) == float(terms["p/moved"]) == 0.5
    supervision.discriminator = Sure(-1e4)
    losses = supervision(network, pair, 0.0)
    assert losses["adversarial"].item() == pytest.approx(1e4)
    alignment = network(*pair.images)
    plain = (MSE() + 0.5 * Diffusion()).terms(alignment)
    assert {name: losses[name].item() for name in plain} == pytest.approx({n: 100 * v.item() for n, v in plain.items()})
    supervision.discriminator = Sure(1e4, -1e4)
    perfect = discriminating(supervision, network, pair, 0.0)
    assert float(perfect["mixed"] + perfect["moved"]) == 0
    assert all(torch.isfinite(value) for value in (*losses.values(), *perfect.values()))


def test_the_discriminator_sees_mixed_images_and_moved_ones():
    """0.2 of the moving image and 0.8 of the fixed one as the plausible pair; then what the network made."""
    pair, network = pair_of_noise(), small()
    supervision = adversarial()
    supervision.discriminator = judge = Sure(0.0)
    discriminating(supervision, network, pair, 0.0)
    (fixed, mixed), (again, moved) = judge.seen
    assert fixed is again is pair.fixed.data
    torch.testing.assert_close(mixed, 0.2 * pair.moving.data + 0.8 * pair.fixed.data)
    torch.testing.assert_close(moved, network(*pair.images).moved.data)
    unmixed = adversarial(mix=0.0)
    assert torch.equal(unmixed.plausible(pair), pair.fixed.data)


def test_mixing_is_in_the_world():
    """A moving image on another grid is mixed where its header puts it."""
    pair = pair_of_noise()
    shifted = torch.eye(3, dtype=torch.float64)
    shifted[0, 2] = 2.0
    moving = Image(pair.moving.data, Grid(pair.moving.grid.shape, shifted @ pair.moving.grid.affine))
    mixed = adversarial(mix=0.5).plausible(replace(pair, moving=moving))
    there = 0.5 * (pair.fixed.data[:, :, 4:] + pair.moving.data[:, :, 2:-2])
    torch.testing.assert_close(mixed[:, :, 4:], there, rtol=0, atol=1e-5)


def test_the_energy_is_the_papers():
    """½ a² (1 + αk²)⁴ / 4 for one sine mode of amplitude a sides, in 2-D, with the eigenvalues of the stencil."""
    n, a = 64, 0.03
    grid = Grid.centred((n, n))
    c = torch.arange(n, dtype=torch.float64) / (n - 1)
    field = torch.zeros(1, 2, n, n, dtype=torch.float64)
    field[0, 0] = a * n * torch.sin(2 * math.pi * c)[:, None] * torch.sin(math.pi * c)[None]
    image = Image(torch.zeros(1, 1, n, n, dtype=torch.float64), grid)
    ours = float(Kinetic(KERNEL)(Alignment(Pair(image, image), Velocity(field, grid))))
    k2 = sum((2 * n * math.sin(math.pi * m / (n - 1) / 2)) ** 2 for m in (2, 1))
    inside = ((n - 1) / n) ** 2  # sums of squared sines over n voxels, of which the ends are 0
    assert ours == pytest.approx(0.5 * a**2 * (1 + 0.0025 * k2) ** 4 / 4 * inside, rel=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("transform", [Velocity, Coarser(GEODESIC)], ids=["velocity", "geodesic"])
def test_supervision(ndim, transform):
    (problem,) = problems("smooth", ndim=ndim)
    with seeded(3):
        check_supervision(Adversarial(ndim, ENERGY), partial(small, ndim, transform), problem.pair)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TwoStream(2, (16,), ()), "TwoStream: two stages"),
        (lambda: TwoStream(2, (16, 32), (16, 16)), "one fewer at half size"),
        (lambda: Discriminator(2, widths=()), "Discriminator: one block"),
        (lambda: Adversarial(2, MSE(), mix=1.0), "a mix from 0"),
        (lambda: Adversarial(2, MSE(), weight=-1.0), "a weight of 0"),
        (lambda: Sobolev(-1.0, 4), "alpha of 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


# ---- the study and training


def test_cosines_in_v():
    kernel, spacing = Sobolev(0.01, 2, unit="side"), [1.0, 1.0]
    v, w = (kernel.smooth(torch.randn(2, 2, 12, 14, generator=make_generator(n)), spacing) for n in range(2))
    assert cosine(v, 3 * v, kernel, spacing).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert cosine(v, -v, kernel, spacing).tolist() == pytest.approx([-1, -1], abs=1e-5)
    both = cosine(v, w, kernel, spacing)
    assert bool((both.abs() < 0.5).all())
    dense = [float((a * kernel.sharpen(b, spacing)).sum()) for a, b in ((v[:1], w[:1]), (v[:1], v[:1]), (w[:1], w[:1]))]
    assert float(both[0]) == pytest.approx(dense[0] / math.sqrt(dense[1] * dense[2]), rel=1e-4)


def learned(out=None, updates=6, resume=False, save=2):
    data = Tori(side=16, train_subjects=6, validation_subjects=2, test_subjects=2, at_once=2)
    network, supervision = small(), adversarial()
    training = Training(
        updates=updates, lr=1e-3, log_every=1, save_every=save, deterministic=True, players=(adversary(1e-3),)
    )
    train(network, data.train, supervision, training, out=out, resume=resume)
    return {**network.state_dict(), **{f"d.{k}": v for k, v in supervision.state_dict().items()}}


def test_a_run_that_was_stopped_is_the_same_to_the_bit(tmp_path, monkeypatch):
    """Both networks, and both optimisers."""
    whole = learned(tmp_path / "whole")
    module = sys.modules["pullback.training.train"]  # whose name is that of the function, too
    original, left = module.update, [3]

    def stopping(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        learned(tmp_path / "stopped")
    monkeypatch.setattr(module, "update", original)
    resumed = learned(tmp_path / "stopped", resume=True)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    one, other = (load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("whole", "stopped"))
    assert {name.split(".")[1] for name in one if name.startswith("optimiser.")} == {"network", "discriminator"}
    assert all(torch.equal(one[name], other[name]) for name in one)
    text = (tmp_path / "whole" / "training.csv").read_text()
    assert "discriminator/p/mixed" in text
    assert text == (tmp_path / "stopped" / "training.csv").read_text()


def test_both_learn_each_at_its_own_rate():
    """After one step of Adam every weight with a gradient has moved by its player's rate."""
    data = Tori(side=16, train_subjects=4, validation_subjects=2, test_subjects=2)
    network, supervision = small(), adversarial()
    before = {**network.state_dict(), **supervision.state_dict()}
    before = {name: value.clone() for name, value in before.items()}
    train(network, data.train, supervision, Training(updates=1, lr=1e-3, players=(adversary(2e-5),)))
    for module, rate in ((network, 1e-3), (supervision, 2e-5)):
        far = torch.stack([(value - before[name]).abs().max() for name, value in module.state_dict().items()])
        assert float(far.max()) == pytest.approx(rate, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["svf-gan", pytest.param("epdiff-gan", marks=pytest.mark.nightly)])
def test_networks_learn_to_register_tori(method):
    """The energy of unseen pairs falls by a third within seconds; nothing folds."""
    recipe = find(method, "two-stream", "tori")
    data = Tori(side=32, train_subjects=64, validation_subjects=2, test_subjects=16, at_once=4)
    with seeded(0):
        network, supervision = recipe.network(), recipe.supervision()
    pairs = list(data.test)
    still = np.mean([float(MSE()(Alignment(p, Displacement.identity(p.fixed.grid, p.fixed.data)))) for p in pairs])
    train(network, data.train, supervision, Training(updates=150, lr=1e-3, players=(adversary(1e-5),)))
    with torch.no_grad():
        found = [replace(network(*p.images), pair=p) for p in pairs]
        assert np.mean([float(ENERGY(each)) for each in found]) < 0.67 * still
        assert min(float(each.jacobian.min()) for each in found) > 0


# ---- recipes


def test_the_numbers_of_the_paper_ship():
    for method in ("svf-gan", "epdiff-gan"):
        for data in ("tori", "folder"):
            recipe = find(method, "two-stream", data)
            made = recipe.supervision()
            (player,) = recipe.training.players
            assert (recipe.training.lr, player.lr) == (5e-5, 1e-6)
            assert made.mix == 0.2
            assert made.energy == 1000.0 * ENERGY
    assert (KERNEL.alpha, KERNEL.power, KERNEL.gamma, KERNEL.unit) == (0.0025, 4, 1.0, "side")
    tori = find("svf-gan")
    assert (tori.training.updates, tori.data.at_once, len(tori.data.train.cases)) == (40_000, 64, 2560)
    grid = Grid.centred((9, 8))
    made = [
        find(m, on="tori").network.keywords["transform"](torch.zeros(1, 2, 9, 8), grid)
        for m in ("svf-gan", "epdiff-gan")
    ]
    assert (made[0].squarings, made[1].steps, made[1].scheme) == (8, 10, euler)
