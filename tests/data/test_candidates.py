"""Candidates: how they are drawn, and a dataset of targets and the atlases that were brought onto them."""

from dataclasses import dataclass, replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import Singles, Subject, Test, Validation
from pullback.data.candidates import CandidateDraws, Candidates
from pullback.data.multi_atlas import MultiAtlas, SharedError
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Affine, Grid, Image, Labels

SIDE = 16
CALLS: list[tuple[float, float]] = []


@dataclass(frozen=True)
class Block:
    """A labelled image whose block lies at a place of its own."""

    number: int

    @property
    def name(self) -> str:
        return f"block {self.number}"

    def load(self) -> Subject:
        data = torch.zeros(1, 1, SIDE, SIDE)
        data[..., 4 + self.number % 5 : 9 + self.number % 5, 5:10] = 1.0 + self.number
        grid = Grid.centred((SIDE, SIDE))
        return Subject(Image(data, grid), Labels((data > 0).to(torch.uint8), grid), name=self.name)


@dataclass(frozen=True)
class Blocks:
    """A dataset of them, of which training alone is asked for."""

    count: int = 14

    @property
    def train(self) -> Singles:
        return Singles([Block(n) for n in range(self.count)])

    @property
    def validation(self) -> Validation:
        return Validation.singles(())

    @property
    def test(self) -> Test:
        return Test.singles(())


@dataclass(frozen=True)
class Shift:
    """A register that answers with a shift along the first axis, and counts how often it is asked."""

    by: float

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        CALLS.append((float(fixed.data.max()), float(moving.data.max())))
        matrix = torch.eye(3, dtype=torch.float64)
        matrix[0, 2] = self.by
        return Alignment(Pair(fixed, moving), Affine(matrix))


DATA = MultiAtlas(Blocks(), ((0.5, Shift(0.0)), (0.5, Shift(2.0))), targets=8, atlases=6, chosen_by=2, spacing=None)


def test_each_atlas_is_brought_onto_each_target_by_one_of_the_ways_once():
    CALLS.clear()
    found = {case.name: case.load() for case in (*DATA.validation.pairs, *DATA.test.pairs) for case in case[:1]}
    _ = [case.load() for case in DATA.train.cases]
    assert len(CALLS) == len(set(CALLS)) == 8 * 6
    numbers = torch.cat([one.numbers for one in found.values()])
    assert sorted(numbers.tolist()) == list(range(48))
    plain = {n: Block(n).load().labels.data for n in range(8, 14)}
    ways = []
    for one in found.values():
        for n, data in enumerate(one.labels.data):
            assert one.atlases[n] == f"block {8 + n}"
            still, moved = plain[8 + n][0], plain[8 + n][0].roll(-2, 1)
            assert torch.equal(data, still) != torch.equal(data, moved)
            ways.append(torch.equal(data, moved))
    assert 0.25 < sum(ways) / 48 < 0.75


def test_validation_and_test_have_nobody_in_common_and_atlases_are_no_targets():
    chosen, tested = DATA.validation.names, DATA.test.names
    assert chosen == ("block 0", "block 1")
    assert tested == tuple(f"block {n}" for n in range(2, 8))
    assert DATA.train.names == (*chosen, *tested)


def test_an_error_that_most_share_is_the_truth_shifted_the_same_way():
    error = SharedError(targets=0.5, atlases=0.6, voxels=2)
    one, other = (replace(DATA, error=each).train.cases for each in (None, error))
    hit = [error.here(case.name) for case in one]
    assert 1 <= sum(hit) <= 7
    for before, after, here in zip(one, other, hit, strict=True):
        a, b = before.load().labels.data, after.load().labels.data
        assert torch.equal(a[4:], b[4:])
        assert torch.equal(a, b) != here
        if here:
            truth = before.load().truth.data
            shifts = [truth.roll((x, y), (2, 3)) for x in (-2, 2) for y in (-2, 2)]
            assert sum(bool((b[:4] == shifted).all()) for shifted in shifts) == 1


def test_draws_are_of_different_targets_and_each_label_map_is_as_likely():
    counts = torch.zeros(48)
    for n in range(300):
        example = CandidateDraws(DATA.train.cases, at_once=8).draw(make_generator(n))
        assert len(set((example.numbers // 6).tolist())) == 8
        counts[example.numbers] += 1
        image, labels = example.image.data, example.labels.data
        values = image.amax((1, 2, 3)) - 1
        assert torch.equal(values.long(), example.numbers // 6), "labels stand beside their own image"
        assert len(image) == len(labels) == 8
    assert counts.sum() == 2400
    assert counts.min() > 20  # 50 expected, with a deviation of 6.5


def test_several_label_maps_of_each_image():
    example = CandidateDraws(DATA.train.cases, at_once=12, each=4).draw(make_generator(0))
    assert (example.image.batch, example.labels.batch) == (3, 12)
    assert len(set(example.numbers.tolist())) == 12
    owners = (example.numbers // 6).view(3, 4)
    assert (owners == owners[:, :1]).all()
    few = CandidateDraws(DATA.train.cases[:2], at_once=8).draw(make_generator(0))
    assert few.image.batch == 8


def test_a_network_sees_larger_voxels():
    seen = replace(DATA, spacing=2.0).train.cases[0].seen()
    assert seen.image.grid.shape == seen.labels.grid.shape == (9, 9)
    assert torch.allclose(seen.image.grid.spacing, torch.tensor([2.0, 2.0], dtype=torch.float64))
    assert int(seen.truth.data.sum()) == pytest.approx(25 / 4, abs=3)


def test_what_makes_no_candidates_is_refused():
    grid = Grid.centred((4, 4))
    image, labels = Image(torch.zeros(2, 1, 4, 4), grid), Labels(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), grid)
    with pytest.raises(InputError, match="as many label maps of each image"):
        Candidates(image, labels, torch.arange(3))
    with pytest.raises(InputError, match="a number for each"):
        Candidates(image.nth(0), labels, torch.arange(2))
    with pytest.raises(InputError, match="another grid"):
        Candidates(image.nth(0), Labels(labels.data, Grid.centred((4, 4), 2.0)), torch.arange(3))
    for wrong in ({"at_once": 0}, {"at_once": 6, "each": 4}):
        with pytest.raises(InputError, match="a multiple of those of each image"):
            CandidateDraws((), **wrong)
    for wrong, said in (
        ({"chosen_by": 8}, "targets to choose by and others"),
        ({"atlases": 1}, "two atlases or more"),
        ({"ways": ((0.5, Shift(0.0)),)}, "1 in sum"),
    ):
        with pytest.raises(InputError, match=said):
            replace(DATA, **wrong)
    with pytest.raises(InputError, match="8 targets and 6 atlases of 13 people"):
        _ = replace(DATA, data=Blocks(13)).train
