"""Lung keypoints: what is read, what is refused, and what is never touched."""

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.data.lung import CASES, FOLDS, PUBLISHED, LungKeypoints, lung_fold, read_lung
from pullback.errors import InputError


def parts(**others):
    generator = np.random.default_rng(0)
    usual = {name: 100 * generator.random((20, 3)) for name in ("exhale_keypoints", "inhale_keypoints")}
    usual |= {name: 100 * generator.random((5, 3)) for name in ("landmarks_exhale", "landmarks_inhale")}
    usual |= {"spacing_nominal": np.array([1.75, 1, 1.25]), "spacing_true": np.array([1.6, 1.6, 1.4])}
    usual |= {"shape": np.array([192, 192, 208])}
    return {name: value for name, value in (usual | others).items() if value is not None}


def written(folder, case, breaths=("exp", "insp"), size=(192, 192, 208), **others):
    """A case whose lungs are a box and whose masks have a wrong header, as the real ones."""
    np.savez(folder / f"copd_{case:02d}.npz", **parts(**others))
    (folder / "masks").mkdir(exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[20:60, 30:70, 40:90] = 1
    for breath in breaths:
        nib.save(nib.Nifti1Image(mask, np.diag([9, 9, 9, 1])), folder / f"masks/case_{case:02d}_{breath}_mask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def lungs(shared):
    if not (shared / "data" / "lung_keypoints").is_dir():
        pytest.skip("no real data: `shared/data/lung_keypoints` is missing")
    return shared / "data" / "lung_keypoints"


@pytest.mark.parametrize("cases", [CASES, PUBLISHED])
def test_folds_share_no_patient_and_miss_none(cases):
    tests = [lung_fold(fold, cases)[1] for fold in range(5)]
    assert sorted(case for test in tests for case in test) == list(cases)
    for fold in range(5):
        train, test = lung_fold(fold, cases)
        assert not set(train) & set(test)
        assert sorted((*train, *test)) == list(cases)
    with pytest.raises(InputError, match="one of 0 to 4"):
        lung_fold(5)


@pytest.mark.slow
def test_points_are_in_nominal_mm(tmp_path):
    stored, scans = parts(), read_lung(written(tmp_path, 3), 3)
    fixed, marked = scans.pair.fixed.data, scans.pair.moving_landmarks.data
    np.testing.assert_allclose(fixed[0], stored["exhale_keypoints"] * [1.75, 1, 1.25], rtol=1e-6)
    np.testing.assert_allclose(marked[0], stored["landmarks_inhale"] * [1.75, 1, 1.25])
    assert (fixed.dtype, marked.dtype) == (torch.float32, torch.float64)
    assert scans.shape == (192, 192, 208)


@pytest.mark.slow
def test_splits_are_folds_and_their_pairs_the_cases(tmp_path):
    """Each case is tested on once and validates once; what is drawn and listed is what the reader reads."""
    for fold in range(5):
        data = LungKeypoints(str(written(tmp_path, 3)), fold)
        names = [split.names for split in (data.train, data.validation, data.test)]
        assert sorted(sum(names, ())) == [f"copd_{case:02d}" for case in CASES]
        assert data.test.names == tuple(f"copd_{case:02d}" for case in FOLDS[fold] if case != 1)
        assert data.validation.names == LungKeypoints(str(tmp_path), (fold + 1) % 5).test.names
    one = next(iter(LungKeypoints(str(tmp_path), 0).validation))
    assert one.name == "copd_03"
    assert torch.equal(one.fixed.data, read_lung(tmp_path, 3).pair.fixed.data)
    with pytest.raises(InputError, match="one of 0 to 4"):
        LungKeypoints("x", 5)
    with pytest.raises(InputError, match="no folder given: not a folder"):
        _ = LungKeypoints().train


def published(folder, case, **others):
    """Clouds as their authors published them, beside the landmarks and masks that the keypoints come with."""
    (folder / "lung_keypoints").mkdir(exist_ok=True)
    (folder / "clouds").mkdir(exist_ok=True)
    written(folder / "lung_keypoints", case, exhale_keypoints=None, inhale_keypoints=None)
    generator = np.random.default_rng(case)
    clouds = {"fixed": 100 * generator.random((20, 3)), "moving": 100 * generator.random((40, 3))} | others
    np.savez(folder / "clouds" / f"copd_{case:02d}.npz", **clouds)
    return clouds, LungKeypoints(str(folder / "clouds"), landmarks="../lung_keypoints")


def test_published_clouds_are_read_with_the_landmarks_of_the_keypoints(tmp_path):
    """All ten cases: the first fold tests on cases 1 and 2."""
    clouds, data = published(tmp_path, 1)
    published(tmp_path, 2)
    assert data.test.names == ("copd_01", "copd_02")
    assert len({*data.train.names, *data.validation.names, *data.test.names}) == 10
    first = next(iter(data.test))
    nominal = np.array([1.75, 1, 1.25])
    np.testing.assert_allclose(first.fixed.data[0], clouds["fixed"] * nominal, rtol=1e-6)
    np.testing.assert_allclose(first.moving.data[0], clouds["moving"] * nominal, rtol=1e-6)
    np.testing.assert_allclose(first.fixed_landmarks.data[0], parts()["landmarks_exhale"] * nominal)
    assert [points.data.shape[1] for points in first.surfaces] == [400, 4000]
    with pytest.raises(InputError, match=r"clouds.copd_03\.npz"):
        read_lung(tmp_path / "clouds", 3, "../lung_keypoints")
    published(tmp_path, 4, moving=np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"moving: finite points"):
        read_lung(tmp_path / "clouds", 4, "../lung_keypoints")


def test_the_published_clouds_are_denser_and_begin_where_the_papers_say(shared):
    folder = shared / "data" / "lung_clouds_published"
    if not folder.is_dir():
        pytest.skip("no real data: `shared/data/lung_clouds_published` is missing")
    errors = []
    for case in PUBLISHED:
        pair = read_lung(folder, case, "../lung_keypoints").pair
        assert pair.moving.data.shape[1] > 1.7 * pair.fixed.data.shape[1]
        errors.append(float((pair.fixed_landmarks.data - pair.moving_landmarks.data).norm(dim=2).mean()))
    assert np.mean(errors) == pytest.approx(11.99, abs=0.005)


@pytest.mark.slow
def test_matches_are_never_read(tmp_path, monkeypatch):
    """Neither as an input nor as a label: the reader does not open them, so no file without them reads differently."""
    asked = []
    take = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: asked.append(name) or take(self, name))
    wrong = {"exhale_match_in_inhale": np.full((20, 3), np.nan), "inhale_match_in_exhale": np.full((20, 3), np.nan)}
    with_matches, without = (read_lung(written(tmp_path, n, **more), n).pair for n, more in ((2, wrong), (3, {})))
    assert torch.equal(with_matches.fixed.data, without.fixed.data)
    assert torch.equal(with_matches.moving.data, without.moving.data)
    assert "exhale_keypoints" in asked
    assert not [name for name in asked if "match" in name]


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"exhale_keypoints": None}, "exhale_keypoints is missing"),
        ({"inhale_keypoints": np.zeros((4, 2))}, r"inhale_keypoints: finite points \(N, 3\)"),
        ({"inhale_keypoints": np.full((4, 3), np.nan)}, "inhale_keypoints: finite"),
        ({"landmarks_inhale": np.zeros((4, 3))}, "as many landmarks"),
        ({"spacing_true": np.array([1, 0, 1])}, "spacing_true: three positive"),
        ({"inhale_keypoints": np.array([{}], dtype=object)}, "a case of the lung keypoints"),
    ],
)
def test_wrong_parts_are_named(tmp_path, others, words):
    np.savez(tmp_path / "copd_04.npz", **parts(**others))
    with pytest.raises(InputError, match=words):
        read_lung(tmp_path, 4)


@pytest.mark.slow
def test_surfaces_are_the_masks_outermost_voxels_in_nominal_mm(tmp_path):
    scans = read_lung(written(tmp_path, 3), 3)
    surfaces = [points.data[0] for points in scans.pair.surfaces]
    assert [*map(len, surfaces)] == [400, 4000]
    for surface in surfaces:
        voxels = surface.double() / scans.nominal
        outermost = (voxels - torch.tensor([20.0, 30, 40])).minimum(torch.tensor([59.0, 69, 89]) - voxels).amin(1)
        torch.testing.assert_close(outermost, torch.zeros_like(outermost), atol=1e-4, rtol=0)
        assert len(surface.unique(dim=0)) == len(surface)
    assert torch.equal(read_lung(tmp_path, 3).pair.surfaces[1].data[0], surfaces[1])


def test_wrong_masks_are_named(tmp_path):
    with pytest.raises(InputError, match=r"case_03_insp_mask\.nii\.gz: no such file"):
        read_lung(written(tmp_path, 3, ["exp"]), 3)
    with pytest.raises(InputError, match=r"case_04_exp_mask.*\(192, 192, 208\) voxels expected.*got \(90, 90, 90\)"):
        read_lung(written(tmp_path, 4, size=(90, 90, 90)), 4)
    with pytest.raises(InputError, match="at least 400 voxels of surface expected, got 0"):
        read_lung(written(tmp_path, 5, size=(10, 10, 10), shape=np.array([10, 10, 10])), 5)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"copd_05\.npz"):
        read_lung(tmp_path, 5)
    (tmp_path / "copd_06.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"copd_06\.npz"):
        read_lung(tmp_path, 6)


def test_the_landmarks_begin_where_the_papers_say(lungs):
    errors = []
    for case in CASES:
        pair = read_lung(lungs, case).pair
        errors.append(float((pair.fixed_landmarks.data - pair.moving_landmarks.data).norm(dim=2).mean()))
    published = [11.16, 6.49, 15.05, 13.45, 11.55, 8.27, 15.06, 11.44, 14.40]
    assert errors == pytest.approx(published, abs=0.006)


def test_the_case_without_an_exhale_cloud_is_refused(lungs):
    with pytest.raises(InputError, match="exhale_keypoints is missing; of cases 02 to 10"):
        read_lung(lungs, 1)
