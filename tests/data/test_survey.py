"""The survey before the work: every kind of fault is found, by the file's name, all of them at once."""

import json
import re
import time

import nibabel as nib
import numpy as np
import pytest

import pullback as pb
from pullback.data import Learn2Reg, PairFolder
from pullback.data.survey import overlap, survey
from pullback.errors import InputError
from pullback.files import Severity
from pullback.space import Grid
from pullback.study.evaluate import unmoved

SHAPE = (20, 18)


def put(path, data, spacing=1.0, at=(0.0, 0.0)):
    affine = np.diag([spacing, spacing, 1.0, 1.0])
    affine[:2, 3] = at
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def image(seed, shape=SHAPE):
    return np.random.default_rng(seed).random(shape, np.float32)


def cohort(root, count=14):
    for n in range(count):
        put(root / f"sub-{n:02d}_T1w.nii.gz", image(n))
        put(root / f"sub-{n:02d}_dseg.nii.gz", (image(n) > 0.5).astype(np.uint8))
    return PairFolder(str(root), "*_T1w.nii.gz", "*_dseg.nii.gz")


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def spoil(root):
    """Nine faults, each in a file of its own; by the subject, what is said of it."""
    t1w = {n: root / f"sub-{n:02d}_T1w.nii.gz" for n in range(14)}
    cut(t1w[0])
    t1w[1].unlink()
    t1w[1].symlink_to("../.git/annex/objects/none.nii.gz")
    t1w[2].write_bytes(b"")
    put(t1w[3], image(3, (20, 18, 6)))
    put(root / "sub-04_dseg.nii.gz", np.ones((20, 19), np.uint8))
    nan = image(5)
    nan[3, 4] = np.nan
    put(t1w[5], nan)
    put(t1w[6], image(6), at=(500.0, 0.0))
    put(t1w[7], np.full(SHAPE, 3, np.float32))
    put(root / "sub-08_dseg.nii.gz", image(8))
    return {f"sub-{n:02d}" for n in range(9)}


def test_a_sound_cohort_has_no_fault(tmp_path):
    seen = survey(cohort(tmp_path))
    assert (seen.faults, seen.cases, seen.people, seen.about) == ((), 14, 14, "20×18 voxels of 1×1 mm")


def test_nine_faults_are_told_at_once_by_name(tmp_path):
    data = cohort(tmp_path)
    bad = spoil(tmp_path)
    seen = survey(PairFolder(data.root, data.images, data.labels))
    assert {*seen.bad} == bad
    said = "\n".join(finding.what for finding in seen.findings)
    for n in range(9):
        assert f"sub-{n:02d}_" in said
    for words in ("links to nowhere", "empty files", "other dimensions", "on another grid", "overlap with no other"):
        assert words in said
    assert re.search(r"sub-05_T1w.nii.gz: 1 voxels are NaN", said)
    assert re.search(r"sub-07_T1w.nii.gz: every voxel is 3", said)
    assert re.search(r"sub-08_dseg.nii.gz: labels: whole numbers", said)
    assert all(finding.remedy for finding in seen.findings)


def test_warnings_and_notes_stop_nothing(tmp_path):
    data = cohort(tmp_path, 10)
    (tmp_path / "sub-00_dseg.nii.gz").unlink()
    for kind, whole in (("T1w", image(1)), ("dseg", np.ones(SHAPE, np.uint8))):
        put(tmp_path / f"sub-01_{kind}.nii.gz", whole, spacing=4.0, at=(-28, -26))
        put(tmp_path / f"sub-02_{kind}.nii.gz", whole + (kind == "T1w"), at=(12, 0))
    (tmp_path / "sub-04_T1w.nii.gz").write_bytes((tmp_path / "sub-03_T1w.nii.gz").read_bytes())
    (tmp_path / "._sub-05_T1w.nii.gz").write_bytes(b"\0\5\26\7")
    with pytest.warns(UserWarning, match="copies"):
        seen = survey(PairFolder(data.root, data.images, data.labels))
    assert seen.bad == {}
    told = {finding.what.split(":")[0][2:]: finding.severity for finding in seen.findings}
    assert [*told.values()] == [Severity.WARNING] * 5 + [Severity.NOTE], told
    (tmp_path / "sub-04_T1w.nii.gz").unlink()
    assert {*survey(PairFolder(data.root, data.images, data.labels), learns_labels=True).bad} == {"sub-00"}


def test_a_cohort_of_several_voxel_sizes_is_told_once(tmp_path):
    data = cohort(tmp_path, 10)
    for number in (0, 3):
        for kind, whole in (("T1w", image(number)), ("dseg", np.ones(SHAPE, np.uint8))):
            put(tmp_path / f"sub-{number:02d}_{kind}.nii.gz", whole, spacing=1.2)
    (finding,) = survey(PairFolder(data.root, data.images, data.labels)).findings
    assert (finding.severity, finding.what.splitlines()[1].strip()) == (
        Severity.WARNING,
        "8 of 1×1 mm, 2 of 1.2×1.2 mm",
    )


def test_shares_of_fields_of_view():
    """Closed forms: boxes that are shifted, or one within the other."""
    one = Grid.centred((36, 36))
    for shift in (0.0, 9.0, 18.0, 36.0, 40.0):
        affine = one.affine.clone()
        affine[0, 2] += shift
        assert overlap(one, Grid(one.shape, affine)) == pytest.approx(max(1 - shift / 36, 0), abs=0.06)
    assert overlap(Grid.centred((90, 90), 2.0), one) == 1
    assert overlap(Grid.centred((8, 8, 8)), Grid.centred((80, 80, 80))) == 1


def test_what_a_list_names_and_is_not_there(tmp_path):
    for n in range(12):
        put(tmp_path / f"imagesTr/B_{n:04d}_0000.nii.gz", image(n))
    files = [f"imagesTr/B_{n:04d}_0000.nii.gz" for n in range(12)]
    layout = {"training": [{"image": f} for f in files], "registration_val": [{"fixed": files[0], "moving": files[1]}]}
    (tmp_path / "B_dataset.json").write_text(json.dumps(layout))
    (tmp_path / files[4]).unlink()
    (tmp_path / files[7]).unlink()
    data = Learn2Reg(str(tmp_path), held_out=2)
    assert {*survey(data).bad} == {"B_0004_0000", "B_0007_0000"}
    left = Learn2Reg(str(tmp_path), held_out=2, without=("B_0004_0000", "B_0007_0000"))
    assert {*left.train.names} == {*data.train.names} - {"B_0004_0000", "B_0007_0000"}
    assert survey(left).bad == {}


def test_what_can_be_read_is_evaluated_and_the_rest_is_named(tmp_path):
    data = cohort(tmp_path, 40)
    pairs = data.test.pairs
    bad = pairs[-1][0].name
    cut(tmp_path / f"{bad}_T1w.nii.gz")
    with pytest.warns(UserWarning, match=bad):
        rows = pb.evaluate({"mine": unmoved}, data.test)["mine"]
    assert [row["pair"] for row in rows] == [f"{a.name} ← {b.name}" for a, b in pairs if bad not in (a.name, b.name)]
    for path in tmp_path.glob("*_T1w.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no test example can be read"):
        pb.evaluate({"mine": unmoved}, PairFolder(data.root, data.images).test)


@pytest.mark.nightly
def test_a_thousand_files_are_looked_at_in_seconds(tmp_path):
    data, start = cohort(tmp_path, 500), time.perf_counter()
    assert survey(data).faults == ()
    assert time.perf_counter() - start < 60
