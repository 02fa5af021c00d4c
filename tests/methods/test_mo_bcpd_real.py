"""MO-BCPD on real organs: the sign of each step, and what images gain from it."""

from dataclasses import replace

import pytest

from pullback.studies._organs import CTandMR
from pullback.studies.mo_bcpd import LOBES, STARTS, TOTAL, WAYS, onto_each_other, started


def means(data, names, number="landmarks mm"):
    found = {}
    for name in names:
        rows = list(onto_each_other(data, 0, WAYS[name]))
        found[name] = sum(row[number] for row in rows) / len(rows)
        print(
            name,
            {key: round(sum(r[key] for r in rows) / len(rows), 3) for key in rows[0] if key not in ("case", "subject")},
        )
    return found


@pytest.mark.nightly
def test_each_step_helps_organs_of_two_people(shared):
    """As in the paper's table 1: a similarity, BCPD, one coherence, organ coherence."""
    data = replace(TOTAL, root=str(shared / "data/totalsegmentator_ct_mr/tests/reference_files"))
    found = means(data, WAYS)
    order = ("before", "similarity", "BCPD, Λ 10", "one coherence", "half", "organ coherence")
    assert sorted(order, key=found.__getitem__, reverse=True) == list(order)
    assert found["organ coherence"] < 0.65 * found["similarity"]


@pytest.mark.nightly
def test_lobes_want_a_stiffer_motion(shared):
    """Where organs breathe together, a stiff motion of all as one is nearer than a free one of each."""
    data = replace(LOBES, root=str(shared / "data/lung_proton_mri_lobes"), names=LOBES.names[:3], points=80)
    found = means(data, ("before", "similarity", "BCPD, λ 0.1", "one coherence", "organ coherence", "and Λ √10"))
    assert found["BCPD, λ 0.1"] < found["organ coherence"] < found["similarity"] < found["before"]


@pytest.mark.nightly
def test_images_gain_from_organs(shared):
    """Of CT and MR of two people: organs alone, and ConvexAdam from them, overlap more than from a rigid start."""
    data = CTandMR(str(shared / "data/totalsegmentator_ct_mr/tests/reference_files"))
    found = {}
    for name in ("organs", "ConvexAdam from organs", "ConvexAdam from rigid"):
        row = next(started(data, 0, *STARTS[name]))
        print(name, row, flush=True)
        found[name] = row["dice"]
    assert found["organs"] > found["ConvexAdam from rigid"]
    assert found["ConvexAdam from organs"] > found["ConvexAdam from rigid"]
