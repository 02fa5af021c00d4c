"""Rounds of self-training, and pairs seen through affine maps, by their laws."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom
from pullback.numerics.random import make_generator
from pullback.space import Affine, Displacement, Grid, Image, pull
from pullback.training import Cyclical, KnownTransform, RandomAffine, Task, Training, easy_first, seen_through


class Numbered(nn.Module):
    """A network that is one number, which learning raises by 1."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(number)))

    def forward(self) -> Tensor:
        return self.weight


class Numbers:
    """Examples without content, labelled with the number of who labels them."""

    name, images = "nothing", ()

    def to(self, device):
        return self

    def several(self, count, generator):
        return [None] * count

    def load(self, item):
        return self

    def untrained(self, network, examples, seed):
        return network

    def label(self, network, example, how, generator):
        return network.weight.detach().clone(), 0.0

    def told(self, example, label):
        told = Numbers()
        told.label_of = float(label)
        return told


def test_labels_come_from_the_round_before_and_learning_begins_with_other_weights():
    heard = []

    def supervision(network, example, progress):
        heard.append((float(network().detach()), example.label_of))
        return {"loss": -network()}

    training = Training(updates=3, lr=1.0, optimiser=torch.optim.SGD)
    task = Task(lambda n: Numbered(10 * n), Numbers(), supervision, training, console=Console(quiet=True))
    after = [float(network.weight.detach()) for _, network in Cyclical(Numbers(), rounds=3, pairs=2).after_each(task)]
    assert after == [0, 11, 12, 13]
    assert heard == [(10, 0), (11, 11), (12, 12)], "who learns, and who labelled"


def test_easy_pairs_are_drawn_more_often():
    weights = easy_first([3.0, 0.5, 9.0])
    assert float(weights.sum()) == pytest.approx(1)
    assert weights[1] > weights[0] > weights[2]
    ratio = float(weights[1] / weights[2])
    assert ratio == pytest.approx(float(torch.tensor(5.0).sigmoid() / torch.tensor(-5.0).sigmoid()), rel=1e-5)
    assert float(weights[0]) == pytest.approx(0.5 * float(weights[1] + weights[2]), rel=1e-6)


def test_affine_maps_keep_their_limits_and_come_from_their_generator():
    grid = Grid.centred((30, 40, 20), 2.0)
    still = RandomAffine(0, 0, 0, 0)(grid, make_generator(0))
    torch.testing.assert_close(still.matrix, torch.eye(4, dtype=torch.float64))
    maps = [RandomAffine(10, 0.1, 0.0, 0.05)(grid, make_generator(0, n)) for n in range(200)]
    stretched = torch.stack([torch.linalg.svdvals(m.matrix[:3, :3]) for m in maps]).log()
    assert 0.08 < float(stretched.abs().max()) <= 0.1 + 1e-9
    moved = torch.stack([m(grid.centre[None])[0] - grid.centre for m in maps]).abs().amax(0)
    limit = 0.05 * torch.tensor([60.0, 80.0, 40.0], dtype=torch.float64)
    assert (moved <= limit).all()
    assert (moved > 0.8 * limit).all()
    assert torch.equal(RandomAffine()(grid, make_generator(3)).matrix, RandomAffine()(grid, make_generator(3)).matrix)


@pytest.mark.slow
def test_the_truth_follows_what_the_images_went_through():
    """Pulled through the truth that came along, the new moving image is the new fixed one's partner as before."""
    pair = next(iter(BrainPhantom(spacing=6.0, test_subjects=2).test))
    generator = make_generator(1)
    fixed, moving = (RandomAffine(8, 0.08, 0.05, 0.05)(pair.fixed.grid, generator) for _ in range(2))
    seen = seen_through(pair, fixed, moving)
    grid = pair.fixed.grid
    points = grid.to_world(grid.voxels(pair.fixed.data)[None, :, 5:-5, 5:-5, 5:-5].double())
    expected = moving.inverse().at(pair.truth.at(fixed.at(points)))
    torch.testing.assert_close(seen.truth.at(points), expected, rtol=0, atol=1e-6)
    once = pull(pair.moving, pair.truth @ fixed, onto=pair.fixed).data
    twice = pull(seen.moving, seen.truth, onto=pair.fixed).data
    both = (once > 0.05) & (twice > 0.05)
    assert float((once - twice)[both].abs().mean()) < 0.02, "apart from being resampled twice"
    assert seen.fixed_labels is None


def test_what_is_told_is_the_mean_distance():
    grid = Grid.centred((6, 7))
    image = Image(torch.rand(1, 1, 6, 7), grid)
    truth, guess = torch.zeros(1, 2, 6, 7), torch.zeros(1, 2, 6, 7)
    truth[:, 0], guess[:, 1] = 3.0, 4.0
    pair = Pair(image, image, truth=Displacement(truth, grid))

    def register(fixed, moving):
        return Alignment(pair, Displacement(guess, grid))

    assert float(KnownTransform()(register, pair, 0.0)["tre"]) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="not known"):
        KnownTransform()(register, replace(pair, truth=None), 0.0)
    still = Affine.identity(2)
    assert float(KnownTransform()(lambda *_: Alignment(pair, still), replace(pair, truth=still), 0.0)["tre"]) < 1e-5


def test_what_is_told_of_a_batch_is_its_mean_within_one_mask_or_many():
    grid, field = Grid.centred((6, 7)), torch.randn(2, 2, 6, 7, generator=make_generator(0))
    masks = torch.rand(2, 1, 6, 7, generator=make_generator(1)) > 0.5
    masks[1] = masks[0].flip(0)  # as many voxels

    def told(which, mask):
        image = Image(torch.zeros(len(field[which]), 1, 6, 7), grid, mask)
        pair = Pair(image, image, truth=Displacement(torch.zeros_like(field[which]), grid))
        return float(KnownTransform()(lambda *_: Alignment(pair, Displacement(field[which], grid)), pair, 0.0)["tre"])

    both = slice(0, 2)
    for first, second, mask in ((masks[:1], masks[1:], masks), (masks[:1], masks[:1], masks[:1])):
        assert told(both, mask) == pytest.approx((told(slice(0, 1), first) + told(slice(1, 2), second)) / 2)
    assert told(both, torch.zeros_like(masks)) == 0
