"""Children who grow: how much, as the law says; and the truth between their visits, there and back."""

from dataclasses import dataclass, replace
from itertools import combinations

import pytest
import torch

from pullback.alignment import Alignment
from pullback.data import GrowingBrains, GrowthLaw, Subject, Test, Train, Validation, pair_of, subject_of
from pullback.data.phantoms.growth import GREY, WHITE, Child, with_divergence
from pullback.errors import InputError
from pullback.numerics.difference import curl, divergence
from pullback.space import Grid, Image, Labels

OWN = ((GREY,), (WHITE,), (3,))
STILL = GrowthLaw(degrees=0.0, translation=0.0, bias=0.0, noise=0.0)


@dataclass(frozen=True)
class Head:
    """A person with fluid in the middle, white matter about it, and grey matter without, in voxels of 1 mm."""

    number: int = 0
    labelled: bool = True

    @property
    def name(self) -> str:
        return f"head-{self.number}"

    def load(self) -> Subject:
        shape = (128, 116)
        grid = Grid.centred(shape, 1.0)
        x, y = grid.to_world(grid.voxels(grid.affine)[None])[0]
        away = (x**2 / 1.2 + y**2 + 60 * torch.sin(x / 7) * torch.cos(y / (6 + self.number))).sqrt()
        data = torch.zeros(1, 1, *shape, dtype=torch.long)
        for value, radius in ((GREY, 38), (WHITE, 28), (3, 9)):
            data[0, 0][away < radius] = value
        shown = torch.tensor([0.0, 0.5, 1.0, 0.2])[data]
        return Subject(Image(shown, grid), Labels(data, grid) if self.labelled else None, name=self.name)


@dataclass(frozen=True)
class Heads:
    """A data set of such persons: six to learn from, two each to choose and to test by."""

    labelled: bool = True

    @property
    def centred(self) -> bool:
        return False

    def _some(self, first: int, count: int) -> list[Head]:
        return [Head(number, self.labelled) for number in range(first, first + count)]

    @property
    def train(self) -> Train:
        return Train(self._some(0, 6), of=self)

    @property
    def validation(self) -> Validation:
        return Validation([tuple(self._some(6, 2))])

    @property
    def test(self) -> Test:
        return Test([tuple(self._some(8, 2))])


def growing(law: GrowthLaw = GrowthLaw(), **words) -> GrowingBrains:
    return GrowingBrains(Heads(), law, **({"spacing": 1.0, "tissues": OWN} | words))


def of_child(case) -> Child:
    return case.child


LAWS = {"posed": GrowthLaw(), "plain": replace(STILL, change=(14.0, 0.0))}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_brain_grows_as_the_cube_of_its_lengths_and_white_matter_more(law):
    """In 2-D as their square: det over the brain to 1 %, and counted voxels to 2 %, where no rows are counted."""
    found = []
    for fixed, moving in growing(law).test.pairs:
        pair, child = pair_of(fixed, moving), of_child(fixed)
        years = child.ages[moving.number] - child.ages[fixed.number]
        factor = (1 + child.rate) ** (2 * years)
        det = Alignment(pair, pair.truth).jacobian
        brain = pair.fixed_labels.data > 0
        assert float(det[brain].mean()) == pytest.approx(factor, rel=0.01)
        if law.degrees:
            counts = [int((labels.data > 0).sum()) for labels in (pair.fixed_labels, pair.moving_labels)]
            assert counts[1] / counts[0] == pytest.approx(factor, rel=0.02)
        white, grey = (float(det[pair.fixed_labels.data == value].mean()) for value in (WHITE, GREY))
        found.append((white - grey) / (factor * law.white * years))
    if law.change[1] == 0:  # what white matter gains on grey, as a share: less than all, for their edge is soft
        assert all(0.3 < gain < 1.0 for gain in found)


def test_truths_there_and_back_are_inverse():
    for fixed, moving in growing().test.pairs[:3]:
        there, back = pair_of(fixed, moving).truth, pair_of(moving, fixed).truth
        labels = fixed.load().labels
        points = labels.grid.to_world((labels.data[0, 0] > 0).nonzero().T.double()[None]).mT
        assert float((back(there(points)) - points).norm(dim=-1).max()) < 1e-3 * 4  # voxels of the velocities' lattice


def test_the_truth_lays_tissue_on_tissue():
    pair = pair_of(*growing(replace(STILL, degrees=10.0)).test.pairs[0])
    fixed, moved = pair.fixed_labels.data, Alignment(pair, pair.truth).moved_labels.data
    alike = [
        torch.nn.functional.max_pool2d(sign * fixed.float(), 5, 1, 2) == sign * fixed for sign in (1, -1)
    ]  # nothing else within two voxels: nearest voxels, twice, are off by one at most
    inner = alike[0] & alike[1]
    assert int(inner.sum()) > 0.6 * inner.numel()
    assert torch.equal(moved[inner], fixed[inner])
    assert not torch.equal(pair.moving_labels.data[inner], fixed[inner])


def test_the_truth_is_the_same_at_any_voxel_size():
    fine, coarse = (growing(spacing=spacing).test.pairs[0] for spacing in (1.0, 2.5))
    truths = [pair_of(*cases).truth for cases in (fine, coarse)]
    points = 60 * torch.rand(1, 50, 2, dtype=torch.float64) - 30
    assert torch.equal(*(truth(points) for truth in truths))
    assert coarse[0].load().image.grid.spacing.tolist() == [2.5, 2.5]


def test_pairs_are_of_one_child_the_earlier_visit_fixed():
    """n visits make n (n − 1) / 2 pairs; children are in the splits of the persons they are made of."""
    data = growing()
    for split, whom in ((data.train, range(6)), (data.validation, (6, 7)), (data.test, (8, 9))):
        assert split.names == tuple(f"head-{number}" for number in whom)
        visits = {}
        for fixed, moving in split.pairs:
            assert fixed.child == moving.child
            assert fixed.number < moving.number
            visits.setdefault(subject_of(fixed), set()).update((fixed.number, moving.number))
        counts = {name: len(of) for name, of in visits.items()}
        assert all(3 <= count <= 5 for count in counts.values())
        assert (
            len(set(split.pairs)) == len(split.pairs) == sum(len([*combinations(range(n), 2)]) for n in counts.values())
        )
    ages = [case.load().about["age"] for case in data.train.cases if subject_of(case) == "head-0"]
    assert ages == sorted(ages)
    assert 2 <= ages[0] <= 4


def test_visits_are_made_again_as_they_were_and_differ():
    one, again = (growing().train.pairs[0] for _ in range(2))
    first, second = (cases[0].child.load(0) for cases in (one, again))
    assert torch.equal(first.image.data, second.image.data)
    other = growing(seed=1).train.pairs[0][0].load()
    assert other.image.data.shape != first.image.data.shape or not torch.equal(other.image.data, first.image.data)


@pytest.mark.parametrize("shape", [(32, 24), (16, 12, 20)], ids=str)
def test_a_field_has_the_divergence_that_is_asked_for_and_no_curl(shape):
    """Of waves that fit the grid exactly; with central differences, which are exact to second order."""
    edges = [0.5, 0.4, 0.25][: len(shape)]
    axes = [edge * torch.arange(n, dtype=torch.float64) for n, edge in zip(shape, edges, strict=True)]
    length = [n * edge for n, edge in zip(shape, edges, strict=True)]
    where = torch.meshgrid(*axes, indexing="ij")
    phase = sum(2 * torch.pi * x / span for x, span in zip(where, length, strict=True))
    values = torch.cos(phase)[None, None]
    field = with_divergence(values + 3.0, edges)  # no field that repeats itself has a mean of its divergence
    k = torch.tensor([2 * torch.pi / span for span in length], dtype=torch.float64)
    known = (k / k.square().sum()).view(1, -1, *[1] * len(shape)) * torch.sin(phase)
    torch.testing.assert_close(field, known)
    inner = (..., *[slice(1, -1)] * len(shape))
    off = (divergence(field, edges) - values)[inner]
    assert float(off.abs().max()) < max((2 * torch.pi / n) ** 2 / 6 for n in shape)
    assert float(curl(field, edges)[inner].abs().max()) < max((2 * torch.pi / n) ** 2 / 6 for n in shape)


def test_what_cannot_grow_is_refused():
    with pytest.raises(InputError, match="head-0: labels expected, of the tissues that grow"):
        GrowingBrains(Heads(labelled=False), tissues=OWN).train.pairs[0][0].load()
    with pytest.raises(InputError, match="head-0: no white matter among its labels"):
        GrowingBrains(Heads(), tissues=((1,), (77,), (3,))).train.pairs[0][0].load()
    for words in ({"visits": (1, 3)}, {"visits": (4, 3)}, {"rate": (0.02, 0.01)}):
        with pytest.raises(InputError, match="two visits or more, and limits in order"):
            GrowthLaw(**words)
