"""What β and γ mean, the two phases of a training, and β from data."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import Singles, Validation
from pullback.data.case import itself
from pullback.energies import LNCC, MSE, SoftDice
from pullback.errors import InputError
from pullback.methods.pair.ncr_net import MAP, MarkedAlignment, NCRNet
from pullback.methods.pair.non_correspondence import (
    Corresponding,
    InTwoPhases,
    LocalCorrelation,
    least_ratio,
    squared,
    steepness,
    usual_distance,
)
from pullback.metrics import Correlation
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Grid, Image, Labels, Velocity
from pullback.studies._lesions import BrainDice
from pullback.testing import check_supervision, problems
from pullback.training import PairEvaluation, Task, Training, load_weights, seeded


def network(ndim=2, width=2, **options):
    with seeded(3):
        return NCRNet(ndim, width, **options)


def noise(*shape, seed=0, sigma=2.0):
    return smooth_noise(shape, sigma, make_generator(seed), torch.zeros(()))


def disc(shape, radius, at=None):
    """1 within a disc or ball, else 0, `(1, 1, *shape)`."""
    grid = Grid.centred(shape, 1.0)
    where = grid.voxels(torch.zeros(()))[None]
    middle = torch.tensor([(n - 1) / 2 for n in shape] if at is None else at).view(1, -1, *[1] * len(shape))
    return ((where - middle).norm(dim=1, keepdim=True) <= radius).float()


class Given:
    """A distance that is told, whatever the images."""

    def __init__(self, values):
        self.values = values

    def __call__(self, fixed, moved):
        return self.values


def still(shape, mark, spacing=1.0):
    """Two empty images, not moved, with a map."""
    grid = Grid.centred(shape, spacing)
    image = Image(torch.zeros(1, 1, *shape), grid)
    return MarkedAlignment(
        Pair(image, image), Velocity(torch.zeros(1, len(shape), *shape), grid), {MAP: Image(mark, grid)}
    )


def least(distance, beta, gamma, steps=150):
    """The map that is least for distances, by descent from ½ everywhere."""
    logits = torch.zeros_like(distance).requires_grad_()
    supervision = Corresponding(beta, gamma, distance=Given(distance))
    optimiser = torch.optim.Adam([logits], lr=0.4)
    for _ in range(steps):
        terms = supervision.terms(still(tuple(distance.shape[2:]), logits.sigmoid()), 1.0, beta)
        optimiser.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        optimiser.step()
    return logits.detach().sigmoid()


# ---- what β and γ mean


def test_without_a_perimeter_beta_is_the_distance_above_which_a_voxel_is_marked():
    distance = 0.1 * torch.rand(1, 1, 12, 12, generator=make_generator(1))
    distance = torch.where((distance - 0.05).abs() < 0.005, distance + 0.01, distance)
    torch.testing.assert_close(least(distance, 0.05, 0.0), (distance > 0.05).float(), rtol=0, atol=0.02)


@pytest.mark.parametrize(("times", "marked"), [(1.4, True), (0.7, False)])
def test_a_disc_is_marked_from_the_radius_on_that_gamma_is_made_for(times, marked):
    """On a square lattice a disc's perimeter is up to 17 % too long, hence the gap."""
    beta, radius = 0.05, 4.5
    inside = disc((20, 20), times * radius)
    found = least(2 * beta * inside, beta, least_ratio(radius, 2))
    assert bool(found[0, 0, 10, 10] > 0.5) == marked
    assert not (found[inside == 0] > 0.5).any()


def test_a_larger_beta_marks_no_more():
    distance = 0.05 + 0.03 * noise(1, 1, 14, 14)
    one, two = (least(distance, beta, 0.5) > 0.5 for beta in (0.045, 0.06))
    assert one.any()
    assert not (two & ~one).any()


def test_nothing_marked_is_plain_registration_and_all_marked_is_beta():
    grid = Grid.centred((20, 18), 1.0)
    fixed, moving = (Image(noise(1, 1, 20, 18, seed=n), grid) for n in (1, 2))
    motion = Velocity(noise(1, 2, 20, 18, seed=3), grid)
    supervision = Corresponding(0.04, 0.7)

    def terms(value, beta):
        return supervision.terms(
            MarkedAlignment(Pair(fixed, moving), motion, {MAP: Image(torch.full((1, 1, 20, 18), value), grid)}),
            1.0,
            beta,
        )

    plain, none, everything = terms(0.3, None), terms(0.0, 0.04), terms(1.0, 0.04)
    assert none == plain
    mse = MSE()(Alignment(Pair(fixed, moving), motion))
    torch.testing.assert_close(plain["image"], mse)
    assert float(everything["image"]) == 0
    assert float(everything["volume"]) == pytest.approx(0.04)
    assert float(everything["perimeter"]) == pytest.approx(0, abs=1e-6)
    assert everything["diffusion"] == plain["diffusion"] > 0


def test_unmarked_voxels_are_a_mask():
    """With S = 1 off a mask the image term is that of images with this mask, a mean over all voxels."""
    shape = (16, 18)
    grid, mask = Grid.centred(shape, 1.0), disc(shape, 5.0)
    fixed, moving = (Image(noise(1, 1, *shape, seed=n), grid) for n in (1, 2))
    motion = Velocity(noise(1, 2, *shape, seed=3), grid)
    term = Corresponding().terms(MarkedAlignment(Pair(fixed, moving), motion, {MAP: Image(1 - mask, grid)}), 1.0, 0.05)
    masked = MSE()(Alignment(Pair(replace(fixed, mask=mask > 0), moving), motion))
    torch.testing.assert_close(term["image"] * mask.numel() / mask.sum(), masked, rtol=1e-6, atol=1e-6)


def test_the_perimeter_is_a_length_or_a_surface():
    plane = torch.zeros(1, 1, 12, 10)
    plane[:, :, 5:] = 1
    assert float(steepness(plane, (1, 1)).sum()) == pytest.approx(10, abs=10 * 1e-3)
    assert float(steepness(plane.mT, (1, 1)).sum()) == pytest.approx(10, abs=10 * 1e-3)
    assert float(steepness(torch.full((1, 1, 6, 7, 8), 0.4), (1, 1, 1)).sum()) == pytest.approx(0, abs=1e-3)
    board = (torch.arange(12)[:, None] + torch.arange(10)).remainder(2)[None, None].float()
    assert float(steepness(board, (1, 1)).sum()) > 100  # central differences do not see it
    thick = steepness(plane, (2.0, 1.0)).sum(), steepness(plane.mT, (2.0, 1.0)).sum()  # two voxels to a length, or two
    assert float(thick[0]) == pytest.approx(5, abs=0.02)
    assert float(thick[1]) == pytest.approx(10, abs=0.02)


def test_the_local_correlation_is_the_one_of_lncc_away_from_the_border():
    one, two = noise(1, 1, 24, 22, seed=1, sigma=1.0), noise(1, 1, 24, 22, seed=2, sigma=1.0)
    off = LocalCorrelation(5)(one, two)
    grid = Grid.centred((24, 22), 1.0)
    whole = LNCC(5)(Alignment(Pair(Image(one, grid), Image(two, grid)), Affine.identity(2)))
    torch.testing.assert_close(off.mean(), whole, rtol=1e-3, atol=1e-4)
    assert float(LocalCorrelation(5)(one, 3 * one + 2).max()) < 1e-3
    assert off.shape == (1, 1, 24, 22)


# ---- levels and phases


def test_supervision():
    (problem,) = problems("smooth", ndim=3)
    check_supervision(Corresponding(begin=0.4), partial(NCRNet, 3, 1), problem.pair)


def test_levels_of_blocks_cost_the_same():
    """Of images that are constant on blocks of four voxels the image term is one number at all levels."""
    blocks = noise(1, 2, 8, 8, sigma=0.0).repeat_interleave(4, 2).repeat_interleave(4, 3)
    grid = Grid.centred((32, 32), 1.0)
    pair = Pair(*(Image(blocks[:, n : n + 1], grid) for n in (0, 1)))
    losses = Corresponding(begin=1.0)(network(), pair, 0.0)
    assert float(losses["image"].detach()) == pytest.approx(
        float(squared(*(i.data for i in pair.images)).mean()), rel=1e-3
    )


def test_a_perimeter_is_the_same_at_every_level():
    whole = disc((64, 64), 16.0)
    terms = []
    for power in range(3):
        mark = torch.nn.functional.avg_pool2d(whole, 2**power)
        level = still(tuple(mark.shape[2:]), mark, 1.5 * 2**power)
        terms.append(float(Corresponding(gamma=1.0).terms(level, 1.5, 0.05)["perimeter"]))
    assert terms[1] == pytest.approx(terms[0], rel=0.12)
    assert terms[2] == pytest.approx(terms[0], rel=0.12)


def test_the_map_has_no_gradient_before_its_phase():
    image = Image(noise(1, 1, 32, 32), Grid.centred((32, 32), 1.0))
    pair = Pair(image, replace(image, data=image.data.flip(2)))
    for progress, learns in ((0.39, False), (0.4, True)):
        made = network()
        torch.stack([*Corresponding(begin=0.4)(made, pair, progress).values()]).sum().backward()
        reached = [
            w.grad is not None and bool(w.grad.any()) for w in (*made.marking.parameters(), *made.maps.parameters())
        ]
        assert any(reached) == learns
        assert all(w.grad is not None for w in made.moving.parameters())


def test_beta_rises_in_its_phase():
    supervision = Corresponding(0.08, begin=0.4, rise=0.5)
    weights = [supervision.weight(progress) for progress in (0.0, 0.4, 0.55, 0.7, 1.0)]
    assert weights == [None, *(pytest.approx(value) for value in (0.02, 0.05, 0.08, 0.08))]
    assert replace(supervision, rise=0.0).weight(0.4) == 0.08


def test_a_guide_is_added():
    shape = (32, 32)
    grid = Grid.centred(shape, 1.0)
    one, two = (disc(shape, 9.0, at) for at in ((14.0, 15.0), (17.0, 15.0)))
    pair = Pair(*(Image(d + 0.1 * d * noise(1, 1, *shape), grid) for d in (one, two)))
    known = replace(pair, fixed_labels=Labels(one.long(), grid), moving_labels=Labels(two.long(), grid))
    with_labels = Corresponding(guide=SoftDice())(network(), known, 0.0)["soft dice"]
    assert 0 < float(with_labels) < 1
    torch.testing.assert_close(Corresponding(guide=BrainDice())(network(), pair, 0.0)["soft dice"], with_labels)
    with pytest.raises(InputError, match="labels of both images"):
        Corresponding(guide=SoftDice())(network(), pair, 0.0)


# ---- β from data


def test_the_usual_distance_is_a_quantile_over_the_foreground_without_the_lesion():
    shape = (40, 40)
    grid, inside = Grid.centred(shape, 1.0), disc(shape, 15.0)
    fixed = Image(inside * (0.5 + 0.3 * torch.rand(inside.shape, generator=make_generator(2))), grid)
    lesion = disc(shape, 4.0)
    moving = Image(inside * 0.5, grid)
    seen = replace(fixed, data=torch.where(lesion > 0, 9.0, fixed.data))
    pair = Pair(seen, moving, lesion=Labels(lesion.long(), grid))

    def stay(fixed, moving):
        return Alignment(Pair(fixed, moving), Affine.identity(2))

    told = (fixed.data - moving.data).square()[(inside > 0) & (lesion == 0)]
    for share in (0.5, 0.95):
        usual = usual_distance(stay, [pair, pair], squared, share)
        assert usual == pytest.approx(float(told.quantile(share)), rel=0.01)
    with pytest.raises(InputError, match="one pair or more"):
        usual_distance(stay, [])


class Stored:
    """A case that is a pair."""

    name = "a"

    def load(self):
        grid = Grid.centred((32, 32), 1.0)
        return Pair(*(Image(0.5 + 0.2 * noise(1, 1, 32, 32, seed=n), grid) for n in (1, 2)), name="a pair")


def task(out, **options):
    evaluation = PairEvaluation(Validation([(Stored(), Stored())], make=itself), (Correlation(),))
    numbers = Training(updates=10, lr=1e-3, validate_every=5, choose_from=1.0)
    return Task(lambda _: network(), Singles([Stored()]), Corresponding(**options), numbers, evaluation, out)


def test_the_second_phase_has_the_beta_that_is_usual_after_the_first(tmp_path):
    made = InTwoPhases(0.9, radius=3.0)(task(tmp_path, begin=0.4))
    first = network()
    load_weights(first, tmp_path / "first" / "best.safetensors")
    chosen = json.loads((tmp_path / "chosen.json").read_text())
    assert chosen["beta"] == pytest.approx(usual_distance(first, [Stored().load()], squared, 0.9), rel=1e-4)
    assert chosen["gamma"] == 1.5
    rows = [(tmp_path / part / "validation.csv").read_text().splitlines() for part in ("first", ".")]
    assert [lines[-1].split(",")[0] for lines in rows] == ["4", "6"]
    assert not any(torch.equal(a, b) for a, b in zip(first.maps.parameters(), made.maps.parameters(), strict=True))
    torch.testing.assert_close([*first.maps.parameters()], [*network().maps.parameters()], rtol=0, atol=0)


def test_a_beta_far_from_usual_is_told(tmp_path):
    with pytest.warns(UserWarning, match=r"supervision\.beta=0\.0001 is far .* try beta=0\.\d+"):
        InTwoPhases(None)(task(None, beta=1e-4))
    with pytest.raises(InputError, match=r"before and after supervision\.begin"):
        InTwoPhases()(task(None, begin=0.0))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"beta": 0.0}, "beta above 0"),
        ({"gamma": -1.0}, "gamma and regularity of 0 or more"),
        ({"begin": 1.2}, "begin and rise as shares"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        Corresponding(**wrong)


def test_what_cannot_be_learned_from_is_refused():
    image = Image(noise(1, 1, 12, 40), Grid.centred((12, 40), 1.0))
    with pytest.raises(InputError, match="17 voxels or more"):
        Corresponding()(network(), Pair(image, image), 0.0)
    large = Image(noise(1, 1, 40, 40), Grid.centred((40, 40), 1.0))
    with pytest.raises(TypeError, match="as NCRNet"):
        Corresponding()(lambda *images: Alignment(Pair(*images), Affine.identity(2)), Pair(large, large), 0.0)
    with pytest.raises(InputError, match="a quantile between 0 and 1"):
        InTwoPhases(1.5)
