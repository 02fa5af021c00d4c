"""How patches learn: NT-Xent by closed forms and by a loop, and an energy of both ways."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from pullback.alignment import BACK, Alignment, Pair
from pullback.energies import MSE, Diffusion
from pullback.errors import InputError
from pullback.methods.pair.patch_contrast import PatchContrastive, contrast
from pullback.methods.pair.pc_swinmorph import PCSwinMorph
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.space import Grid, Image
from pullback.testing import check_supervision, problems
from pullback.training import seeded

SMALL = partial(PCSwinMorph, 2, window=(4, 4), widths=(4, 8, 8), embed=12, projected=16)


def made(**options):
    """A network in evaluation mode, whose last layers answer with some motion."""
    with seeded(3):
        network = SMALL(**options)
        torch.nn.init.normal_(network.field.weight, std=30.0)
    return network.eval().requires_grad_(False)


def images(shape):
    like, generator = torch.empty(0), make_generator(0)
    return [
        Image(0.5 + 0.1 * smooth_noise((1, 1, *shape), 1.5, generator, like), Grid.centred(shape)) for _ in range(2)
    ]


def unit(*shape, seed=0):
    values = torch.randn(*shape, generator=make_generator(seed), dtype=torch.float64)
    return F.normalize(values, dim=-1)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_contrast_of_what_is_alike_and_of_what_is_orthogonal(n):
    """Alike: log(2n − 1), all views as sure. Partners alike and all else orthogonal: the closed form."""
    alike = unit(1, 1, 9).expand(2, n, 9)
    assert float(contrast(alike)) == pytest.approx(math.log(2 * n - 1), abs=1e-9)
    apart_ = torch.eye(n, dtype=torch.float64).expand(2, n, n)
    for tau in (0.1, 0.5):
        sure = math.exp(1 / tau) / (math.exp(1 / tau) + 2 * n - 2)
        assert float(contrast(apart_, tau)) == pytest.approx(-math.log(sure), abs=1e-9)


def test_contrast_is_what_a_loop_says():
    views, tau = unit(2, 5, 7), 0.5
    every = [(side, n) for side in (0, 1) for n in range(5)]
    total = 0.0
    for side, n in every:
        others = [at for at in every if at != (side, n)]
        scores = {at: math.exp(float(views[side, n] @ views[at]) / tau) for at in others}
        total -= math.log(scores[1 - side, n] / sum(scores.values()))
    assert float(contrast(views, tau)) == pytest.approx(total / 10, abs=1e-9)


def test_contrast_does_not_see_the_order_of_places_and_falls_as_partners_meet():
    views = unit(2, 6, 8)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert float(contrast(views[:, order])) == pytest.approx(float(contrast(views)), abs=1e-12)
    nearer = F.normalize(views + 0.5 * views.flip(0), dim=-1)
    assert contrast(nearer) < contrast(views)
    elsewhere = torch.stack([views[0], views[0].roll(1, 0)])  # partners lie at other places
    assert contrast(torch.stack([views[0], views[0]])) < contrast(elsewhere)


def test_gradient_of_the_contrast():
    views = unit(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(contrast, (views,))


def test_a_patch_of_background_is_left_out_of_the_contrast_and_counted():
    shape = (64, 64)
    network, (fixed, moving) = made(), images(shape)
    fixed.data[..., :32, :32] = 0.25
    answer = network(fixed, moving)
    assert answer.varied.tolist() == [False, True, True, True]
    terms = PatchContrastive()(network, Pair(fixed, moving), 0.0)
    assert terms["contrast/left out"] == 1
    assert float(terms["contrast"]) == pytest.approx(0.01 * float(contrast(answer.projections[:, 1:])), rel=1e-5)
    blank = replace(fixed, data=torch.full_like(fixed.data, 0.5))
    terms = PatchContrastive()(network, Pair(blank, moving), 0.0)
    assert (terms["contrast"], terms["contrast/left out"]) == (0, 4)


def test_supervision_is_the_mean_of_both_ways():
    network, (fixed, moving) = made(), images((48, 64))
    energy = MSE() + 0.5 * Diffusion()
    terms = PatchContrastive(energy, weight=0.3)(network, Pair(fixed, moving), 0.0)
    answer = network(fixed, moving)
    there = energy.terms(Alignment(Pair(fixed, moving), answer.transform))
    back = energy.terms(Alignment(Pair(moving, fixed), answer.transforms[BACK]))
    assert {*terms} == {*there, "contrast", "contrast/left out"}
    for name in there:
        assert float(terms[name]) == pytest.approx(float(there[name] + back[name]) / 2, rel=1e-5)
    assert float(terms["contrast"]) == pytest.approx(0.3 * float(contrast(answer.projections)), rel=1e-5)
    assert "contrast" not in PatchContrastive(energy, weight=0)(network, Pair(fixed, moving), 0.0)


def test_supervision_keeps_its_contract():
    (problem,) = problems("smooth", ndim=2)
    check_supervision(PatchContrastive(), SMALL, problem.pair)


def test_other_answers_and_contrasts_of_one_are_refused():
    pair = Pair(*images((32, 32)))
    with pytest.raises(TypeError, match="answers by patches"):
        PatchContrastive()(VoxelMorph(2, (4, 8), (8, 8, 8, 4)), pair, 0.0)
    alone = made(tiles=(1, 1))
    with pytest.raises(InputError, match="one patch of one pair"):
        PatchContrastive()(alone, pair, 0.0)
    assert PatchContrastive(weight=0)(alone, pair, 0.0)
    with pytest.raises(InputError, match="two patches or more"):
        contrast(unit(2, 1, 4))
