"""Consensus of label maps: votes by hand, STAPLE by ITK's filter, and laws that hold for all of them."""

from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.methods.labels.consensus import dice_with, majority, performance, simple, staple, weighted
from pullback.space import Grid, Labels

WAYS = {
    "majority": majority,
    "simple": simple,
    "staple": staple,
    "cropped": partial(staple, cropped=True),
    "weighted": lambda labels: weighted(labels, torch.linspace(1, 2, labels.batch)),
}


def maps(*rows) -> Labels:
    """Label maps of few voxels, a row each."""
    data = torch.tensor(rows, dtype=torch.uint8)[:, None, None]
    return Labels(data, Grid.centred((1, data.shape[-1])))


def raters(errors=(0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.45), labels=1, seed=0) -> Labels:
    """A block that is marked by raters, each of whom errs in a share of the voxels."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(18, 21, dtype=torch.uint8)
    truth[4:13, 5:15] = 1
    truth[9:13, 5:15] = labels
    wrong = [torch.rand(truth.shape, generator=generator) < error for error in errors]
    other = torch.randint(0, labels + 1, (len(errors), *truth.shape), generator=generator).to(torch.uint8)
    data = torch.stack([torch.where(w, o, truth) for w, o in zip(wrong, other, strict=True)])
    return Labels(data[:, None], Grid.centred((18, 21)))


# ---- votes


def test_votes_by_hand():
    """Of five equal votes three make a label; two against two and a background is a tie, and so background."""
    found = majority(maps([1, 1, 0, 2, 2], [1, 1, 0, 2, 1], [1, 0, 0, 1, 1], [0, 0, 1, 1, 2], [0, 0, 1, 0, 0]))
    assert found.labels.data.flatten().tolist() == [1, 0, 0, 1, 1]
    assert found.probability.flatten().tolist() == pytest.approx([0.6, 0.6, 0.6, 0.4, 0.4])
    assert found.weights.tolist() == pytest.approx([0.2] * 5)


def test_half_of_the_votes_are_not_enough_whatever_rounding_makes_of_them():
    """0.1 + 0.2 + 0.3 is more than 0.6 for a computer, and as much for us; and so are others."""
    assert 0.1 + 0.2 + 0.3 > 0.6
    for count in range(3, 40):
        tenths = torch.arange(1, count + 1).double() / 10
        weights = torch.cat([tenths, torch.tensor([count * (count + 1) / 20], dtype=torch.double)])
        for one in (0, 1):
            assert not weighted(maps(*[[1 - one]] * count, [one]), weights).labels.data.any()


def test_all_weight_on_one_is_that_one():
    labels, weights = raters(labels=3), torch.zeros(7)
    weights[4] = 3.0
    assert torch.equal(weighted(labels, weights).labels.data, labels.data[4:5])


def test_adding_a_constant_to_all_data_parameters_changes_nothing_and_equal_ones_are_the_majority():
    labels, parameters = raters(labels=2), torch.tensor([3.0, 1.0, -2.0, 0.5, 0.1, 0.0, 2.0]).double()
    one, other = (weighted(labels, (parameters + shift).softmax(0)) for shift in (0.0, 7.0))
    assert torch.equal(one.labels.data, other.labels.data)
    assert torch.allclose(one.weights, other.weights, atol=1e-12)
    alike = weighted(labels, torch.full((7,), -3.0).softmax(0))
    assert torch.equal(alike.labels.data, majority(labels).labels.data)


def test_of_one_label_the_vote_is_its_share_above_a_half():
    labels, weights = raters(), torch.tensor([0.31, 0.04, 0.06, 0.2, 0.1, 0.13, 0.16]).double()
    expected = (weights.view(-1, 1, 1, 1) * labels.data).sum(0, keepdim=True) > 0.5
    assert torch.equal(weighted(labels, weights).labels.data.bool(), expected)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match="a weight of 0 or more for each label map"):
        weighted(maps([0, 1], [1, 1], [0, 0]), torch.tensor(weights))


# ---- STAPLE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("most", [4, 200])
def test_staple_is_what_the_filter_of_itk_says(seed, most):
    """Step by step: where the filter ends by itself, it has made one step more than it counts."""
    marked = raters(seed=seed).data
    itk = sitk.STAPLEImageFilter()
    itk.SetForegroundValue(1)
    itk.SetMaximumIterations(most)
    expected = sitk.GetArrayFromImage(itk.Execute([sitk.GetImageFromArray(one[0].numpy()) for one in marked]))
    steps = itk.GetElapsedIterations() + (most == 200)
    assert 4 <= steps <= 50
    probable, sensitivity, specificity = performance(marked == 1, steps, least=0.0)
    assert np.abs(probable[0, 0].numpy() - expected).max() < 1e-12
    assert sensitivity.numpy() == pytest.approx(itk.GetSensitivity(), abs=1e-12)
    assert specificity.numpy() == pytest.approx(itk.GetSpecificity(), abs=1e-12)
    if most == 200:
        found = staple(Labels(marked, Grid.centred((18, 21)))).labels.data[0, 0] == 1
        assert np.array_equal(found.numpy(), expected > 0.5)


def test_two_that_agree_are_right_and_their_opposite_never():
    probable, sensitivity, specificity = performance(maps([1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]).data == 1)
    assert probable.flatten().tolist() == pytest.approx([1, 1, 0, 0], abs=1e-9)
    assert sensitivity.tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert specificity.tolist() == pytest.approx([1, 1, 0], abs=1e-6)


def test_the_likelihood_of_what_raters_marked_never_falls():
    """The law of expectation maximisation; each call begins anew, with one step more."""
    marked = raters().data == 1
    said, prior, before = marked.flatten(1).double(), float(marked.double().mean()), -np.inf
    for steps in range(1, 12):
        _, p, q = performance(marked, steps)
        yes = prior * torch.where(said > 0, p[:, None], 1 - p[:, None]).prod(0)
        no = (1 - prior) * torch.where(said > 0, 1 - q[:, None], q[:, None]).prod(0)
        likelihood = float((yes + no).log().sum())
        assert likelihood >= before - 1e-9
        before = likelihood


def test_on_a_large_background_staple_marks_more_than_within_the_box_of_what_is_marked():
    """The reason for the box: raters that agree about air are called specific, whatever they do."""
    small = raters((0.25,) * 6)
    large = torch.zeros(6, 1, 200, 200, dtype=torch.uint8)
    large[..., 90:108, 90:111] = small.data
    wide = Labels(large, Grid.centred((200, 200)))
    counts = [int((way(wide).labels.data > 0).sum()) for way in (staple, WAYS["cropped"])]
    assert counts[0] >= counts[1] > 0
    assert counts[1] == int((staple(small).labels.data > 0).sum()), "the block is all there is in the box"


# ---- SIMPLE


def test_simple_weighs_by_the_dice_with_the_consensus():
    """One round by hand; and the poor rater counts less with every round."""
    labels = raters((0.0, 0.05, 0.05, 0.5))
    dice = dice_with(labels, majority(labels).labels)
    assert torch.allclose(simple(labels, rounds=1).weights, (8 * dice).exp() / (8 * dice).exp().sum())
    assert simple(labels).weights.argmin() == 3
    assert torch.equal(simple(labels, rounds=0).labels.data, majority(labels).labels.data)


def test_dice_by_counts():
    """Label 1: 2 · 1 / (2 + 1); label 2: none of one, one of the other; label 3: lacked by both, and not met."""
    found = dice_with(maps([1, 1, 0, 0], [1, 0, 2, 0]), maps([1, 0, 0, 2]))
    assert found.tolist() == pytest.approx([(2 / 3 + 0) / 2, (1 + 0) / 2])


# ---- laws of all


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_all_say_is_the_answer(way):
    one = raters(labels=3).data[:1]
    found = way(Labels(one.expand(5, -1, -1, -1), Grid.centred((18, 21))))
    assert torch.equal(found.labels.data, one)
    assert found.labels.data.dtype == torch.uint8
    assert found.probability.min() > 0.99


@pytest.mark.parametrize("way", [WAYS[name] for name in ("majority", "simple", "staple", "cropped")])
def test_the_order_of_raters_and_the_direction_of_axes_are_no_matter(way):
    labels = raters(labels=2)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    found, turned = way(labels), way(Labels(labels.data[order].flip(2, 3), labels.grid))
    assert torch.equal(turned.labels.data, found.labels.data.flip(2, 3))
    assert torch.allclose(turned.weights, found.weights[order], atol=1e-9)


@pytest.mark.parametrize("way", [WAYS[name] for name in ("majority", "simple", "staple", "cropped")])
def test_raters_that_err_by_chance_are_better_together(way):
    labels = raters((0.3,) * 9, labels=2)
    truth = raters((0.0,), labels=2)
    assert float(dice_with(way(labels).labels, truth)[0]) > float(dice_with(labels, truth).max())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_of_nothing_nothing_is_made(way):
    found = way(maps([0, 0, 0], [0, 0, 0]))
    assert not found.labels.data.any()
    assert torch.isfinite(found.weights).all()
    with pytest.raises(InputError, match="label map"):
        way(Labels(torch.zeros(0, 1, 1, 3, dtype=torch.uint8), Grid.centred((1, 3))))
