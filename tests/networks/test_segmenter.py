"""Segmenters: images of any size, and probabilities of the labels that they know."""

from functools import partial

import pytest
import torch

from pullback.data import Subject
from pullback.errors import InputError
from pullback.networks import SegmentationUNet, Segmenter
from pullback.space import Grid, Image, Labels
from pullback.training import Segmenting, segmentation_dice
from pullback.training.segmenting import one_hot

SMALL = partial(SegmentationUNet, widths=(4, 8, 8))


@pytest.mark.parametrize("shape", [(4, 3), (17, 22), (9, 7, 10)])
def test_memberships_are_probabilities_on_the_image(shape):
    image = Image(torch.randn(2, 1, *shape), Grid.centred(shape))
    found = Segmenter(SMALL, (3, 5), len(shape)).memberships(image)
    assert found.shape == (2, 3, *shape)
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(1), torch.ones(2, *shape))


def test_labels_that_it_does_not_know_are_background_to_it():
    labels = Labels(torch.tensor([[[[0, 3, 4, 5]]]], dtype=torch.uint8), Grid.centred((1, 4)))
    classes = one_hot(labels, (5, 3))[0, :, 0]
    assert classes.int().tolist() == [[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]


def test_sure_and_right_scores_cost_nothing_and_have_a_dice_of_one():
    labels = Labels(torch.randint(0, 3, (1, 1, 8, 9), dtype=torch.uint8), Grid.centred((8, 9)))
    image = Image(torch.zeros(1, 1, 8, 9), labels.grid)
    subject, scores = Subject(image, labels), 50.0 * one_hot(labels, (1, 2)).float()
    for value in Segmenting((1, 2))(lambda _: scores, subject, 0.0).values():
        assert float(value) == pytest.approx(0, abs=1e-6)
    assert segmentation_dice(lambda _: scores, subject, (1, 2, 7)) == {"dice": 1.0, "dice/1": 1.0, "dice/2": 1.0}
    nothing = 50.0 * one_hot(labels, (9, 8)).float()
    assert segmentation_dice(lambda _: nothing, subject, (1, 2))["dice"] == 0


def test_the_losses_of_scores_that_say_nothing():
    """All classes alike: −log p is log 3, and Σ p q is a third of each class."""
    labels = Labels(torch.tensor([0, 0, 0, 1, 1, 2]).view(1, 1, 2, 3), Grid.centred((2, 3)))
    terms = Segmenting((1, 2))(
        lambda _: torch.zeros(1, 3, 2, 3), Subject(Image(torch.zeros(1, 1, 2, 3), labels.grid), labels), 0.0
    )
    assert float(terms["cross-entropy"]) == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-6)
    expected = 1 - sum(2 * (n / 3) / (2 + n) for n in (3, 2, 1)) / 3
    assert float(terms["soft dice"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("labels", [(), (0, 1), (2, 2)])
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(InputError, match=r"different labels of 1 or more"):
        Segmenter(SMALL, labels, 2)
