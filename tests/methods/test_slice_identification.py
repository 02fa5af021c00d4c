"""Slice identification: ranks by their definition, embeddings, views, and plates that are learned by heart."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from pullback.data import Validation
from pullback.data.slice_views import RandomViews, SliceAugmentation
from pullback.data.slices import LabelledSlices, Plates, SliceDraws
from pullback.errors import InputError
from pullback.methods.pose.embedding_losses import SoftContrast
from pullback.methods.pose.slice_identification import (
    MetricLearning,
    Ranking,
    SliceEmbedding,
    SliceEvaluation,
    WithViews,
    equalised,
    numbers_of,
    place_of,
    ranked,
)
from pullback.numerics.smooth import smooth_noise
from pullback.recipes import find
from pullback.space import Grid, Image
from pullback.testing import check_augmentation, check_supervision
from pullback.training import Training, seeded
from pullback.training.train import train

SIZE, COUNT = 24, 20
SMALL = partial(SliceEmbedding, size=SIZE, widths=(8, 12, 16), blocks=(1, 1, 1), first=8, length=16, dropout=0.1)
HERE = torch.device("cpu")


def made(count=COUNT, size=SIZE, seed=0):
    """Plates of smooth noise within a disc."""
    at = torch.linspace(-1, 1, size)
    disc = (at[:, None] ** 2 + at[None] ** 2 < 0.9).float()
    noise = smooth_noise((count, 1, size, size), 2.0, torch.Generator().manual_seed(seed), torch.zeros(()))
    return Plates(Image((0.5 + 0.25 * noise).clamp(0, 1) * disc, Grid.centred((size, size))), torch.arange(count) + 10)


PLATES = made()
LIGHT = RandomViews(0.9, 4.0, 0.0, 0.0, 0.02, 0.005, 0.1, False, 0.1, 0.0, 0.02, 0.0)


@dataclass(frozen=True)
class Stored:
    """An atlas in memory."""

    def load(self):
        return PLATES


@dataclass(frozen=True)
class ViewCase:
    """A plate, or a view of it."""

    plate: int
    views: RandomViews | None = None

    @property
    def name(self):
        return f"plate {self.plate}"

    def image(self):
        return PLATES.some(torch.tensor([self.plate]))

    def load(self):
        image = self.image()
        if self.views is not None:
            image = self.views(image, torch.Generator().manual_seed(self.plate))
        return LabelledSlices(image, torch.tensor([self.plate]), torch.tensor([False]), PLATES, self.name)


CASES = [ViewCase(number) for number in PLATES.numbers.tolist()]
DRAWS = SliceDraws(CASES, None, Stored(), (), 0, 16)


@pytest.fixture(scope="module")
def learned():
    """An embedding of the plates, after 160 updates."""
    with seeded(0):
        network = SMALL()
    augment = SliceAugmentation(plates=LIGHT)
    return train(network, DRAWS, MetricLearning(SoftContrast(spread=0.0)), Training(160, lr=3e-3, augment=augment))


def means(network, split):
    rows = [*SliceEvaluation(split).rows(network, HERE)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0] if name not in ("example", "seconds")}


# ---- ranks


def test_ranks_begin_at_zero_and_are_those_of_scikit_learn():
    far = torch.rand(50, COUNT, generator=torch.Generator().manual_seed(0))
    truth = torch.randint(COUNT, (50,), generator=torch.Generator().manual_seed(1))
    rows = [numbers_of(one, PLATES, int(n) + 10) for one, n in zip(far, truth, strict=True)]
    for k in (1, 3, 5, 10):
        ours = sum(row[f"top {k}"] for row in rows) / len(rows)
        assert ours == pytest.approx(top_k_accuracy_score(truth, -far, k=k, labels=range(COUNT)))
    assert numbers_of(far[0], PLATES, int(far[0].argmin()) + 10) == {
        "rank": 0.0,
        "top 1": 1.0,
        "top 3": 1.0,
        "top 5": 1.0,
        "top 10": 1.0,
        "plates off": 0.0,
    }


def test_chance_is_half_of_what_is_left():
    """Of 132 plates the mean rank by chance is 65.5; its error of 10⁴ draws is 0.38."""
    far = torch.rand(10_000, 132, generator=torch.Generator().manual_seed(0))
    assert float(place_of(far, 17).double().mean()) == pytest.approx(65.5, abs=1.2)


def test_a_plate_that_is_not_there():
    with pytest.raises(InputError, match="plate 99 is not in the atlas, which has 10 to 29"):
        numbers_of(torch.rand(COUNT), PLATES, 99)


# ---- the network


def check_embedding(network):
    """Embeddings have length 1, each by itself, of any brightness, and are those of a network made alike."""
    images = PLATES.image
    with torch.no_grad():
        found = network.eval()(images)
        assert torch.allclose(found.norm(dim=1), torch.ones(COUNT), atol=1e-5)
        assert torch.allclose(network(images.nth(3)), found[3:4], atol=1e-5)
        again = network.made()
        again.load_state_dict(network.state_dict())
        assert torch.equal(again.eval()(images), found)
    with pytest.raises(InputError, match="square slices of one channel"):
        network(Image(torch.zeros(1, 2, SIZE, SIZE), images.grid))


def test_embedding():
    with seeded(0):
        check_embedding(SliceEmbedding(size=SIZE, widths=(8, 12), blocks=(1, 1), first=8, length=16))


def test_equalised_intensities_have_local_mean_zero_and_do_not_see_brightness():
    """Far above the floor of the deviation; the window's mean, counted within the image alone, is taken off."""
    noise = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)) * 100
    one, other = equalised(noise, 24), equalised(3 * noise + 500, 24)
    assert torch.allclose(one, other, atol=2e-3)
    window = noise[0, 0, :4, :4]  # about the first voxel, of a window of 7
    expected = (noise[0, 0, 0, 0] - window.mean()) / (window.std(unbiased=False) + 0.05)
    assert float(one[0, 0, 0, 0]) == pytest.approx(float(expected), abs=1e-3)


def test_supervision():
    check_supervision(MetricLearning(), SMALL, DRAWS.draw(torch.Generator().manual_seed(0)))


def test_augmentation():
    check_augmentation(SliceAugmentation(), DRAWS.draw(torch.Generator().manual_seed(0)))


# ---- learning


def test_plates_are_learned_by_heart(learned):
    found = means(learned, Validation.singles(CASES))
    assert found["rank"] == 0
    assert found["plates off"] == 0
    seen = means(learned, Validation.singles([replace(case, views=LIGHT) for case in CASES]))
    assert seen["top 1"] >= 0.9, seen


def check_identifier(identifier):
    """One slice or several give the same distances; a slice that is a plate finds it first."""
    with torch.no_grad():
        described = identifier.described(PLATES.image)
        far = identifier.distances(PLATES.image.nth(4), described)
        assert far.shape == (1, COUNT)
        assert int(far.argmin()) == 4
        both = replace(PLATES.image, data=PLATES.image.data[4:6])
        assert torch.allclose(identifier.distances(both, described).argmin(1), torch.tensor([4, 5]))


def test_views_agree_on_what_was_learned(learned):
    check_identifier(WithViews(learned, LIGHT, 6))
    found: Ranking = ranked(WithViews(learned, LIGHT, 6), PLATES.image.nth(7), PLATES, learned.described(PLATES.image))
    assert int(found.numbers[0]) == 17
    assert bool((found.distances.diff() >= 0).all())
    assert float(found.votes.sum()) == pytest.approx(1)
    assert sorted(found.numbers.tolist()) == PLATES.numbers.tolist()
    assert found.sure() > 0.8
    noise = Image(torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), PLATES.image.grid)
    strange = ranked(WithViews(learned, LIGHT, 6), noise, PLATES, learned.described(PLATES.image))
    assert float(strange.distances[0]) > float(found.distances[0])


def check_evaluation(evaluation):
    assert evaluation.aligns == "slice"
    assert evaluation.score({"rank": 3.0}) > evaluation.score({"rank": 4.0})
    assert len(evaluation) == len(evaluation.names) == COUNT


def test_evaluation():
    check_evaluation(SliceEvaluation(Validation.singles(CASES)))


def test_recipes_choose_by_ranks():
    for data in ("mouse-sections", "folder", "held-out", "tilted"):
        recipe = find("slice-identification", on=data)
        assert recipe.aligns == "slice"
        assert recipe.evaluation is not None
        assert isinstance(recipe.network(), SliceEmbedding)
