"""The built-in cohort: it knows its truth, comes from its seed, and has nothing outside the brain."""

import pytest
import torch

from pullback.alignment import Alignment
from pullback.data import BrainPhantom, pair_of
from pullback.metrics import Dice, EndPointError, Folding, foreground
from pullback.space import Affine


def test_the_cohort_knows_its_truth():
    data = BrainPhantom(spacing=6.0, train_subjects=2, validation_subjects=2, test_subjects=2)
    splits = [set(s.names) for s in (data.train, data.validation, data.test)]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 6
    for pair in data.test:
        before, after = Alignment(pair, Affine.identity(3)), Alignment(pair, pair.truth)
        assert EndPointError()(after) == {"epe mm": 0.0}
        assert EndPointError()(before)["epe mm"] > 2
        assert Dice()(after)["dice"] > Dice()(before)["dice"] + 0.1
        assert Folding()(after)["folding %"] == 0
        back = pair.truth.inverse() @ pair.truth
        inner = Alignment(pair, back).transform.displacement(pair.fixed.grid)[..., 4:-4, 4:-4, 4:-4]
        assert float(inner.norm(dim=1).mean()) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [4.0, 6.0])
def test_the_cohorts_foreground_is_the_brain(spacing):
    """What metrics count is within a voxel of what has labels: no noise around the head."""
    for case in BrainPhantom(spacing=spacing, train_subjects=3).train.cases:
        pair = pair_of(case, case)
        seen = foreground(Alignment(pair, Affine.identity(3)))
        brain = pair.fixed_labels.data > 0
        assert int((seen & ~grown(brain)).sum()) < 1e-3 * int(brain.sum())
        assert int((~seen & brain & ~grown(~brain)).sum()) < 1e-3 * int(brain.sum())


def grown(inside):
    """By one voxel on all sides."""
    return torch.nn.functional.max_pool3d(inside.float(), 3, 1, 1) > 0


@pytest.mark.slow
def test_the_cohort_is_drawn_from_its_seed():
    small = {"spacing": 10.0, "train_subjects": 2}
    a, b, c = (BrainPhantom(**small, seed=seed).train.cases[0].load().image.data for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
