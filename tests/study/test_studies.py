"""The studies that train nothing, or measure in their own way: by closed forms, and on little real data."""

import numpy as np
import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import LungKeypoints
from pullback.errors import InputError
from pullback.files import read_image, write
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image, Labels
from pullback.studies import find, names
from pullback.studies._ct_mr import CTtoMR
from pullback.studies._lungs import SEEN, LungEvaluation, unmoved_clouds
from pullback.studies._moved_blocks import KINDS, Trials, contrast, corners_apart, ct_like, motion, pet_like
from pullback.studies._pairs import FilePairs
from pullback.studies.cross_ngf import by_fft, by_shifts, from_truth, landscape
from pullback.study.arms import TrainedArm
from pullback.study.evaluate import unmoved
from pullback.study.recipe import as_data


@pytest.mark.parametrize("name", names())
def test_every_study_can_be_told_as_data(name):
    """Or its rows could not be kept; and what is compared is there."""
    for table in find(name).tables.values():
        assert table.columns
        for experiment in table.experiments.values():
            assert experiment.compared_with in experiment.arms
            assert as_data(experiment.evaluates)
        headings = [column.heading for column in table.columns]
        assert len(set(headings)) == len(headings)


def test_pairs_of_files_are_as_they_are_stored(tmp_path):
    """Neither turned nor normalised, each on its grid."""
    grids = [Grid((5, 6, 7), torch.diag(torch.tensor([-2.0, 1, 1, 1], dtype=torch.float64))), Grid.centred((6, 5, 4))]
    for name, grid in zip("ab", grids, strict=True):
        data = 1000 * torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
        write(Image(data, grid), tmp_path / f"{name}.nii.gz")
        write(Labels((data > 500).to(torch.uint8), grid), tmp_path / f"{name}_l.nii.gz")
    pairs = FilePairs(str(tmp_path), (("a", "b"), ("b", "a")), labels="{}_l.nii.gz")
    first, second = pairs.test
    assert (first.fixed.grid, first.moving.grid) == (second.moving.grid, second.fixed.grid) == tuple(grids)
    assert torch.equal(first.fixed.data, read_image(tmp_path / "a.nii.gz").data)
    assert torch.equal(first.fixed_labels.data > 0, first.fixed.data > 500)
    assert first.name == "a ← b"
    assert len(FilePairs(str(tmp_path), pairs.pairs, count=1).test) == 1
    with pytest.raises(InputError, match=r"c\.nii\.gz: no such file"):
        _ = FilePairs(str(tmp_path), (("a", "c"),)).test


def test_the_fft_finds_what_the_direct_algorithm_finds():
    (fast,), (slow,) = by_fft(8, 0), by_shifts(8, 0)
    assert fast["shifts"] == slow["shifts"]
    assert fast["difference"] < 1e-6


def test_the_truth_of_a_trial_is_a_success_and_another_motion_none(tmp_path):
    """Corners that are shifted by 3, 4 and 0 mm are 5 mm off, wherever they lie."""
    grid = Grid.centred((12, 14, 10), 16.0)
    noise = torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    write(Image(noise, grid), tmp_path / "s_T1w.nii.gz")
    write(Labels(torch.ones(1, 1, *grid.shape, dtype=torch.uint8), grid), tmp_path / "s_dseg.nii.gz")
    pairs = {kind: next(iter(Trials(str(tmp_path), kind, trials=1).test)) for kind in KINDS}
    pair = pairs[KINDS[0]]

    def known(fixed, moving):
        return Alignment(Pair(fixed, moving), pair.truth)

    def shifted(fixed, moving):
        move = torch.eye(4, dtype=torch.float64)
        move[:2, 3] = torch.tensor([3.0, 4.1])
        return Alignment(Pair(fixed, moving), Affine(move) @ pair.truth)

    assert from_truth(known, pair)["success"] == 1
    missed = from_truth(shifted, pair)
    assert (missed["error mm"], missed["success"]) == (pytest.approx(np.hypot(3, 4.1)), 0)
    assert corners_apart(motion(grid, 0), motion(grid, 1), grid) > 5
    off = pairs[KINDS[1]].moving.data + pair.moving.data
    assert float(off.max() - off.min()) < 1e-4


def head():
    """A ball of two labels, 4 mm a voxel: half of it is another than the other half."""
    grid = Grid.centred((44, 44, 44), 4.0)
    x = grid.to_world(torch.stack(torch.meshgrid(*[torch.arange(44.0).double()] * 3, indexing="ij")).flatten(1)[None])
    x = x.view(3, 44, 44, 44)
    ball = x.square().sum(0) < 60.0**2
    return Labels((ball * (1 + (x[0] > 0)))[None, None].to(torch.uint8), grid)


def test_pet_like_blocks_have_hot_spots_and_no_sharp_edge():
    """Twelve times as steep as noise at most, where the other contrast has an edge of one voxel."""
    labels = head()
    sharp, smooth = (make(labels, 0).data[0, 0] for make in (contrast, pet_like))
    steepest = [float((image.diff(dim=0).abs() / image.max()).max()) for image in (sharp, smooth)]
    assert steepest[1] < 0.7 * steepest[0]
    deep = (labels.data[0, 0] > 0) & (smooth > smooth.max() / 2)
    assert 0 < deep.sum() < 0.2 * (labels.data > 0).sum(), "spots, not a label"
    assert not torch.equal(smooth, pet_like(labels, 1).data[0, 0])


def test_ct_like_blocks_are_flat_within_a_shell_of_bone():
    labels = head()
    data, brain = ct_like(labels, 0).data[0, 0], labels.data[0, 0] > 0
    grid = labels.grid
    x = grid.to_world(torch.stack(torch.meshgrid(*[torch.arange(44.0).double()] * 3, indexing="ij")).flatten(1)[None])
    distance = x.view(3, 44, 44, 44).square().sum(0).sqrt()
    assert data[distance < 48].std() < 0.03
    assert (distance[data > 0.6] > 56).all()
    assert (distance[data > 0.6] < 76).all()
    assert (data > 0.6).sum() > 0.1 * brain.sum()
    assert data[distance > 80].max() < 0.1


def test_the_similarity_has_its_top_where_images_lie_on_each_other_unless_they_are_displaced(tmp_path):
    labels = head()
    noise = torch.rand(2, 1, 1, *labels.grid.shape, generator=torch.Generator().manual_seed(0))
    write(labels, tmp_path / "s_dseg.nii.gz")
    write(Image(gaussian(noise[0], 5.0) * (labels.data > 0), labels.grid), tmp_path / "s_T1w.nii.gz")
    data = Trials(str(tmp_path), KINDS[1], trials=1)
    still, displaced = ([*landscape(data, 0, away)] for away in (False, True))
    best, other = (max(rows, key=lambda row: row["similarity"]) for rows in (still, displaced))
    assert best["angle"] == 0
    assert best["similarity"] > 1.2 * other["similarity"]
    assert len({row["case"] for row in still}) == len(still) == 61


def test_ct_and_mr_are_learned_from_both_ways_and_measured_one_way(tmp_path):
    """Back, the images and their labels are exchanged; labels of other organs are not there."""
    labels = head()
    noise = torch.rand(2, 1, 1, *labels.grid.shape, generator=torch.Generator().manual_seed(0))
    for n, name in enumerate(("ct", "mr")):
        write(Image(noise[n] + labels.data, labels.grid), tmp_path / f"example_{name}_sm.nii.gz")
    write(labels, tmp_path / "example_seg.nii.gz")
    write(Labels(labels.data * 20, labels.grid), tmp_path / "example_seg_mr.nii.gz")
    data = CTtoMR(str(tmp_path), rigid=unmoved)
    there, back = (case.load() for case in data.train.cases)
    assert torch.equal(there.fixed.data, back.moving.data)
    assert torch.equal(there.moving.data, back.fixed.data)
    assert there.fixed_labels.data.max() == back.moving_labels.data.max() == 2
    assert there.moving_labels.data.max() == 0
    assert [pair.name for pair in data.test] == ["CT ← MR"]
    for arm in find("cyclical").tables["ct-mr"].experiments["ct-mr"].arms.values():
        if isinstance(arm, TrainedArm):
            assert arm.recipe.training.choose_from == 1


def test_landmarks_of_lungs_are_measured_in_nominal_and_in_true_millimetres(shared):
    """Unmoved, by numpy from the files; SDlogJ is 0 where nothing moves; cases that were looked at stand apart."""
    folder = shared / "data" / "lung_keypoints"
    rows = [*LungEvaluation(LungKeypoints(str(folder), fold=1).test).rows(unmoved_clouds, torch.device("cpu"))]
    assert [row["pair"] for row in rows] == ["copd_03", "copd_04"]
    for row in rows:
        stored = np.load(folder / f"{row['pair']}.npz")
        off = stored["landmarks_exhale"].astype(float) - stored["landmarks_inhale"]
        for key, spacing in (("tre mm", "spacing_nominal"), ("true mm", "spacing_true")):
            assert row[key] == pytest.approx(np.linalg.norm(off * stored[spacing], axis=1).mean(), rel=1e-6)
        assert row["sdlogj"] == pytest.approx(0, abs=1e-12)
        assert ("untouched mm" in row) == (row["pair"] not in SEEN)
        assert "unsettled mm" not in row
