"""Losses of metric learning: their definitions, word by word, and what they do not see."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import normalize

from pullback.errors import InputError
from pullback.methods.pose.embedding_losses import Contrastive, Hard, Margin, SemiHard, SoftContrast, distances


def drawn(numbers, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(len(numbers), size, generator=generator, dtype=torch.float64), dim=1), torch.tensor(
        numbers
    )


BATCHES = [[0, 0, 1, 1, 2, 2, 3, 9], [4, 4, 4, 7], [1, 1, 1, 1], [1, 2, 3], [0, 0, 5, 5, 5, 6]]


def semi_hard(embeddings, numbers, margin):
    """The definition, triplet by triplet."""
    far, count, losses = (embeddings[:, None] - embeddings[None]).norm(dim=-1), len(numbers), []
    for a, p in itertools.permutations(range(count), 2):
        negatives = [n for n in range(count) if numbers[n] != numbers[a]]
        if numbers[a] != numbers[p] or not negatives:
            continue
        farther = [n for n in negatives if far[a, n] > far[a, p]]
        n = min(farther, key=lambda n: far[a, n]) if farther else max(negatives, key=lambda n: far[a, n])
        m = margin.size * (min(1.0, abs(int(numbers[a] - numbers[n])) / margin.reach) if margin.reach else 1.0)
        losses.append(max(0.0, float(far[a, p] - far[a, n]) + m))
    return sum(losses) / len(losses) if losses else 0.0


def hard(embeddings, numbers, margin):
    far, losses = (embeddings[:, None] - embeddings[None]).norm(dim=-1), []
    for a in range(len(numbers)):
        positives = [float(far[a, p]) for p in range(len(numbers)) if p != a and numbers[p] == numbers[a]]
        negatives = [float(far[a, n]) for n in range(len(numbers)) if numbers[n] != numbers[a]]
        if positives and negatives:
            losses.append(max(0.0, max(positives) - min(negatives) + margin.size))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_triplets_as_defined(batch, seed):
    embeddings, numbers = drawn(batch, seed=seed)
    for margin in (Margin(), Margin(0.3), Margin(1.0, 4.0)):
        assert float(SemiHard(margin)(embeddings, numbers)) == pytest.approx(
            semi_hard(embeddings, numbers, margin), abs=1e-6
        )
    assert float(Hard(Margin(0.5))(embeddings, numbers)) == pytest.approx(
        hard(embeddings, numbers, Margin(0.5)), abs=1e-6
    )


def test_no_farther_negative_takes_the_farthest_there_is():
    """The positive is opposite; of two negatives the farther one counts, not the nearest."""
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    numbers = torch.tensor([0, 0, 1, 2])
    anchor = 2.0 - math.sqrt(2) + 1  # to the second; of the other anchor the positive is as far, its farthest at 1.897
    other = 2.0 - math.sqrt(3.6) + 1
    assert float(SemiHard()(embeddings, numbers)) == pytest.approx((anchor + other) / 2, abs=1e-6)


@pytest.mark.parametrize(("far", "loss"), [(0.0, 1 / 2), (0.5, 1 / 8), (1.0, 0.0), (2.0, 0.0)])
def test_contrastive_closed_forms(far, loss):
    """Of two others ½ (m − d)², m = 1, below m and 0 above; of two of one number ½ d²."""
    angle = 2 * math.asin(far / 2)
    pair = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    assert float(Contrastive()(pair, torch.tensor([0, 1]))) == pytest.approx(loss, abs=1e-5)
    assert float(Contrastive()(pair, torch.tensor([3, 3]))) == pytest.approx(far**2 / 2, abs=1e-5)


def test_soft_contrast_is_the_entropy_where_similarities_are_the_wanted_ones():
    """Cross-entropy is at least the entropy of what is wanted; without spread it is −log of the softmax of the twin."""
    embeddings, numbers = drawn([0, 0, 1, 1])
    scores = embeddings @ embeddings.mT / 0.2
    scores.fill_diagonal_(-torch.inf)
    logs = scores.log_softmax(1)
    expected = -(logs[0, 1] + logs[1, 0] + logs[2, 3] + logs[3, 2]) / 4
    assert float(SoftContrast(0.2, 0.0)(embeddings, numbers)) == pytest.approx(float(expected), abs=1e-9)
    wanted = torch.exp(-((numbers[:, None] - numbers[None]) ** 2) / 2.0).double()
    wanted.fill_diagonal_(0)
    wanted = wanted / wanted.sum(1, keepdim=True)
    entropy = -(wanted * wanted.clamp(min=1e-30).log()).sum(1).mean()
    assert float(SoftContrast(0.2, 1.0)(embeddings, numbers)) >= float(entropy)


def check_loss(loss, plateau=None):
    """Promises of all: blind to the order of a batch, to turns of the space, to numbers read backwards; finite."""
    embeddings, numbers = drawn([0, 0, 10, 10, 30], size=4)
    value = float(loss(embeddings, numbers))
    order = torch.tensor([3, 0, 2, 1, 4])
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    for other, called in (
        (embeddings[order], numbers[order]),
        (embeddings @ turn, numbers),
        (embeddings, 30 - numbers),
    ):
        assert float(loss(other, called)) == pytest.approx(value, abs=1e-6)
    assert torch.autograd.gradcheck(
        lambda x: loss(normalize(x, dim=1), numbers), drawn(numbers.tolist())[0].requires_grad_()
    )
    equal = torch.zeros(4, 5, dtype=torch.float64)
    equal[:, 0] = 1
    equal.requires_grad_()
    for called in ([0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3]):
        (slope,) = torch.autograd.grad(loss(equal, torch.tensor(called)), equal)
        assert torch.isfinite(slope).all()
    sorted_ = torch.eye(5, dtype=torch.float64)[[0, 0, 1, 1]]
    worst = torch.eye(5, dtype=torch.float64)[[0, 1, 0, 1]]
    assert float(loss(sorted_, torch.tensor([0, 0, 30, 30]))) < float(loss(worst, torch.tensor([0, 0, 30, 30])))


def test_promises():
    check_loss(SemiHard())
    check_loss(Hard())
    check_loss(Contrastive())
    check_loss(SoftContrast(0.2, 4.0))
    check_margin(Margin(1.0, 10.0))


def check_margin(margin):
    found = margin.between(torch.tensor([0, 5, 30]))
    assert found.tolist() == [[0.0, 0.5, 1.0], [0.5, 0.0, 1.0], [1.0, 1.0, 0.0]]


def test_a_perfect_order_costs_nothing_without_margin():
    embeddings = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 1, 2, 2]]
    numbers = torch.tensor([0, 0, 1, 1, 2, 2])
    assert float(SemiHard(Margin(0.0))(embeddings, numbers)) == 0
    assert float(SemiHard()(embeddings, numbers)) == 0, "√2 apart, and the margin is 1"


def test_distances_are_not_squared():
    one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(distances(one, other), torch.tensor([[math.sqrt(2), 2.0]], dtype=torch.float64))


def test_margins_and_temperatures_without_sense():
    with pytest.raises(InputError, match="a size in"):
        Margin(2.0)
    with pytest.raises(InputError, match="above 0"):
        SoftContrast(0.0)
