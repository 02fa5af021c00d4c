"""Data sets made of others: what is said of files is said of the innermost, wherever its folder is named."""

from io import StringIO

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from pullback.data import Folds, GrowingBrains, PairFolder, Prealigned, Tori, innermost, layers, with_innermost
from pullback.errors import InputError
from pullback.methods.pair.classical import Classical
from pullback.workflows.survey import surveyed

NOTHING = Classical(initialise=None, linear=(), deformable=None)
FOLDER = PairFolder("inner", "*_T1w.nii.gz", "*_dseg.nii.gz")


def test_layers_are_taken_off_and_laid_on_again():
    data = Prealigned(Folds(GrowingBrains(FOLDER, root="outer")), NOTHING)
    assert [type(each) for each in layers(data)] == [Prealigned, Folds, GrowingBrains, PairFolder]
    assert innermost(data).root == "outer"
    other = PairFolder("outer", without=("sub-00",))
    again = with_innermost(data, other)
    assert innermost(again) == other
    assert again.data.data.root == "outer"
    assert with_innermost(data, innermost(data)) == data, "folders stay where they are named"
    assert [*layers(FOLDER)] == [FOLDER]
    assert with_innermost(Tori(), FOLDER) == FOLDER


def test_bad_files_are_told_before_anything_is_aligned_or_made(tmp_path):
    """Or left out, in whatever the data set is made into."""
    for n in range(14):
        data = np.random.default_rng(n).random((16, 16), np.float32)
        for kind, part in (("T1w", data), ("dseg", (data > 0.5).astype(np.uint8))):
            nib.save(nib.Nifti1Image(part, np.eye(4)), tmp_path / f"sub-{n:02d}_{kind}.nii.gz")
    path = tmp_path / "sub-05_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    quiet = Console(file=StringIO())
    for made in (Prealigned(FOLDER, NOTHING, root=str(tmp_path)), GrowingBrains(FOLDER, root=str(tmp_path))):
        with pytest.raises(InputError, match=r"sub-05_T1w\.nii\.gz"):
            surveyed(made, quiet)
        left = surveyed(made, quiet, skip_bad=True)
        assert innermost(left).without == ("sub-05",)
        assert left.root == str(tmp_path)
        names = [name for split in (left.train, left.validation, left.test) for name in split.names]
        assert len(names) == 13
