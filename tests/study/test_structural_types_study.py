"""The study of structural types: stages of registration that are gone on with, and populations."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from pullback.data.phantoms.partitions import Partitions
from pullback.errors import InputError
from pullback.methods.group.onto_template import OntoTemplate
from pullback.methods.group.structural_types import Types
from pullback.methods.pair.classical import FAST
from pullback.solvers import Descend
from pullback.studies.structural_types import RULES, LabelledPeople, StageArm, asked
from pullback.study.arms import Trial

QUIET = Console(quiet=True)
FEW = replace(FAST.linear[1][1], solver=Descend(2))
"""An affine stage of two steps, and no other."""
ONTO = OntoTemplate(
    replace(FAST, initialise=None, linear=(("affine", FEW),), deformable=None),
    replace(FAST, initialise=None, linear=(), deformable=replace(FAST.deformable, steps=(1, 1, 1))),
)


@pytest.fixture
def people(tmp_path) -> LabelledPeople:
    """Twenty-two people of two regions, each shifted by some voxels."""
    rng = np.random.default_rng(0)
    for n in range(22):
        i, j = rng.integers(3, 8, 2)
        labels = np.zeros((20, 20), np.uint8)
        labels[i : i + 8, j : j + 4], labels[i : i + 8, j + 4 : j + 9] = 1, 2
        for values, kind in ((labels, "dseg"), (labels + rng.random((20, 20)).astype(np.float32), "T1w")):
            nib.save(nib.Nifti1Image(values[..., None], np.eye(4)), tmp_path / f"sub-{n:02d}_{kind}.nii.gz")
    return LabelledPeople(str(tmp_path))


def test_stages_follow_each_other_and_maps_are_not_made_again(people, tmp_path):
    trial = Trial(tmp_path / "study", "people", people)
    arms = {
        stage: StageArm(stage, ONTO, Types(most=2, starts=1, samples=1))
        for stage in ("before", "affine", "deformable", "by type")
    }
    rows = {}
    for stage, arm in arms.items():
        unit = arm.unit(trial)
        before = [each.arm.stage for each in unit.in_order()][:-1]
        assert before == (["affine"] if stage in ("deformable", "by type") else [])
        (rows[stage],) = unit.arm.rows(unit, QUIET)
    assert rows["before"]["removed"] == 0
    assert rows["before"]["people"] == 22
    assert rows["affine"]["variance within"] == pytest.approx(rows["affine"]["variance"])  # one type
    assert rows["by type"]["variance within"] == pytest.approx(rows["deformable"]["variance within"])
    unit = arms["affine"].unit(trial)
    broken = replace(unit.arm, onto=replace(ONTO, linear=must_not_be_asked))
    (again,) = broken.rows(unit, QUIET)
    assert again == rows["affine"]


def must_not_be_asked(fixed, moving):
    """A register whose answer is known already."""
    raise AssertionError


def test_people_are_spread_evenly_and_few_are_refused(people):
    assert [each.name for each in replace(people, count=3).subjects] == ["sub-00", "sub-07", "sub-14"]
    for path in sorted(Path(people.root).glob("*_dseg.nii.gz"))[2:]:
        path.unlink()
    with pytest.raises(InputError, match="2 images with labels"):
        _ = people.subjects


def test_rules_look_at_one_answer():
    """Of one type the criterion is right, and the silhouette cannot be."""
    data = Partitions(20, 1, side=12)
    rows = {name: list(asked(data, 0, rule, 1)) for name, rule in RULES.items()}
    assert rows["BIC alone"][0]["right"] == float(rows["BIC alone"][0]["types"] == 1)
    assert rows["silhouette alone"][0]["right"] == 0
    assert rows["all"][0]["explained 1"] == rows["silhouette alone"][0]["explained 1"]
