"""The study of MITO measures the truth as such, and OpenCV's pipeline in the same pixels as ours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.data.phantoms.em_stack import EMStack
from pullback.methods.group.mito import Mito
from pullback.space import Affine
from pullback.studies.mito import (
    PAPER,
    SectionFolder,
    _by_opencv,
    _by_ours,
    _bytes,
    _made,
    _pair_error,
    aligned,
    errors,
    neighbours_dice,
    real,
)

DATA = EMStack(sections=3, shape=(300, 260), pad=60, mitochondria=30.0, step=2.0)
HOW = replace(PAPER, model="rigid", radius=32.0, area=20, reference=1)


def test_the_truth_has_no_error_and_the_dice_of_the_ceiling():
    known = [truth @ DATA.truths[1].inverse() for truth in DATA.truths]
    assert max(errors(DATA, known, 1)) < 1e-9
    moved = [Affine.about(torch.eye(2).double(), torch.zeros(2).double(), torch.tensor([3.0, 4.0]).double())] * 3
    shifted = [one @ other for one, other in zip(moved, known, strict=True)]
    assert errors(DATA, shifted, 1) == pytest.approx([5.0] * 3)
    (row,) = aligned(DATA, 0, HOW)
    assert row["of ceiling"] == pytest.approx(row["dice"] / neighbours_dice(_made(DATA)[1], known, DATA.grid))
    assert row["of ceiling"] > 0.85
    assert row["error px"] < 2
    assert row["failed"] == 0


def test_opencv_and_we_find_maps_of_the_same_pixels():
    pytest.importorskip("cv2")
    sections, areas = ([each[0, 0].numpy() for each in one] for one in _bytes(DATA))
    ours = _by_ours(DATA, sections, areas, HOW)
    theirs = _by_opencv(sections, areas, "orb")
    assert max(_pair_error(DATA, z, each) for z, each in enumerate(ours)) < 3
    assert min(_pair_error(DATA, z, each) for z, each in enumerate(theirs)) < 8


def test_sections_of_a_folder(tmp_path):
    for z in range(2):
        grey = 255 - replace(DATA, turned=False, pad=0, shift=4.0).section(z).data[0, 0].mT.byte().numpy()
        Picture.fromarray(np.ascontiguousarray(grey)).save(tmp_path / f"{z}.png")
    (row,) = real(SectionFolder(str(tmp_path)), 0, Mito(radius=32.0, least=4))
    assert row["matched"] == 100
    assert row["correlation"] > row["correlation before"] + 0.1
