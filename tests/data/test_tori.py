"""Tori: axes as they are said to be drawn, images that their axes make, and pairs at once."""

import math

import pytest
import torch
from scipy.integrate import dblquad
from scipy.stats import norm

from pullback.alignment import Pair, stacked
from pullback.data import Tori
from pullback.data.phantoms.tori import TorusCase
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Image, Labels, Points


def expected(function):
    """The mean of a function of an inner and an outer semi-axis, drawn again where they make no ring."""
    density = lambda b, a: norm.pdf(a, 4, 2) * norm.pdf(b, 12, 4)  # noqa: E731
    edges = (1, 26, lambda a: a + 2, lambda a: 28)
    options = {"epsabs": 1e-7, "epsrel": 1e-7}
    return (
        dblquad(lambda b, a: function(a, b) * density(b, a), *edges, **options)[0]
        / dblquad(density, *edges, **options)[0]
    )


@pytest.mark.slow
def test_axes_have_the_moments_of_what_is_drawn():
    """2560 tori, two pairs of axes each: means, squares and products within 4 standard errors of the integrals."""
    inner, outer = (torch.stack(axes) for axes in zip(*(case.axes for case in Tori().train.cases), strict=True))
    a, b = inner.flatten(), outer.flatten()
    assert len(a) == 5120
    for function in (lambda a, b: a, lambda a, b: b, lambda a, b: a * a, lambda a, b: b * b, lambda a, b: a * b):
        values = function(a, b)
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - expected(function)) < 4 * error
    assert float(a.min()) >= 1
    assert float((b - a).min()) >= 2
    assert float(b.max()) <= 28
    apart = (inner[:, 0] - inner[:, 0].mean()) * (inner[:, 1] - inner[:, 1].mean())
    assert abs(float(apart.mean() / apart.std())) < 4 / math.sqrt(len(apart))  # the four axes know nothing of another


def test_an_image_shows_its_ellipses():
    """By areas: bright voxels sum up to those of the rings, and labels to those of rings and holes."""
    cases = Tori().train.cases[:60]
    rings = [math.pi * float(outer.prod() - inner.prod()) for inner, outer in (case.axes for case in cases)]
    holes = [math.pi * float(case.axes[0].prod()) for case in cases]
    subjects = [case.load() for case in cases]
    for subject, ring, case in zip(subjects, rings, cases, strict=True):
        image = subject.image.data
        assert float(image.sum()) == pytest.approx(ring, rel=0.03)
        assert torch.equal(image, image.flip(2, 3))
        for axis in (0, 1):
            along = image[0, 0].amax(1 - axis).nonzero()[:, 0]
            assert int(along[-1] - along[0]) + 1 == pytest.approx(2 * float(case.axes[1][axis]), abs=2)
    counts = [sum(int((subject.labels.data == label).sum()) for subject in subjects) for label in (1, 2)]
    assert counts == pytest.approx([sum(rings), sum(holes)], rel=0.01)
    small = TorusCase(32, 0, 3)
    assert torch.allclose(2 * small.axes[1], TorusCase(64, 0, 3).axes[1])


def test_splits_share_nobody_and_come_from_the_seed():
    data = Tori(side=16, train_subjects=5, validation_subjects=4, test_subjects=6)
    splits = [set(split.names) for split in (data.train, data.validation, data.test)]
    assert [len(names) for names in splits] == [5, 4, 6]
    assert len(set.union(*splits)) == 15
    assert (len(data.validation), len(data.test)) == (2, 3)
    one, again, other = (Tori(side=16, seed=seed).train.cases[1].load().image.data for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("wrong", [{"side": 8}, {"test_subjects": 1}, {"at_once": 0}])
def test_no_tori_are_refused(wrong):
    with pytest.raises(InputError, match="Tori: 16 voxels or more"):
        Tori(**wrong)


def test_pairs_at_once_are_each_as_alone():
    data = Tori(side=16, at_once=3)
    batch = data.train.draw(make_generator(4))
    generator = make_generator(4)
    alone = [Tori(side=16).train.draw(generator) for _ in range(3)]
    assert batch.batch == 3
    assert batch.name == f"{alone[0].name} and 2 more"
    for n, pair in enumerate(alone):
        one = batch.nth(n)
        assert torch.equal(one.fixed.data, pair.fixed.data)
        assert torch.equal(one.moving.data, pair.moving.data)
        assert torch.equal(one.moving_labels.data, pair.moving_labels.data)


def pair(shape=(4, 5), seed=0, **known):
    grid = Grid.centred(shape)
    images = (Image(torch.rand(1, 1, *shape, generator=make_generator(seed, n)), grid) for n in range(2))
    return Pair(*images, **known)


def test_what_is_stacked():
    grid, truths = Grid.centred((4, 5)), [Affine(torch.eye(3) * n) for n in (1.0, 2.0)]
    labels = Labels(torch.ones(1, 1, 4, 5, dtype=torch.uint8), grid)
    both = stacked([pair(seed=n, fixed_labels=labels, truth=truth) for n, truth in enumerate(truths)])
    assert both.batch == both.fixed_labels.batch == both.truth.batch == 2
    assert both.moving_labels is None
    alone = pair()
    assert stacked([alone]) is alone
    points = Points(torch.zeros(1, 3, 2))
    for wrong, says in (
        ([], "one pair or more"),
        ([pair(), pair(truth=truths[0])], "of which the same is known"),
        ([pair(), pair((5, 5))], "on one grid"),
        ([pair(fixed_points=points)] * 2, "no points"),
    ):
        with pytest.raises(InputError, match=says):
            stacked(wrong)
    other = Labels(labels.data, Grid.centred((4, 5), 2.0))
    with pytest.raises(ValueError, match="label maps on one grid"):
        labels.stack([other])
