"""A file is opened once, however many look at it."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from pullback.errors import InputError
from pullback.files import audit, audit_pair, read_grid, read_image
from pullback.files.images.image_file import ImageFile


def test_voxels_are_decompressed_once(tmp_path, monkeypatch):
    path, opened = tmp_path / "a.nii.gz", []
    values = np.random.default_rng(0).random((9, 8, 10), np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    decompress = gzip.decompress
    monkeypatch.setattr(gzip, "decompress", lambda stored: opened.append(1) or decompress(stored))
    file = ImageFile(path)
    image = read_image(file)
    np.testing.assert_array_equal(image.data[0, 0], values)
    image.data.zero_()
    np.testing.assert_array_equal(read_image(file).data[0, 0], values, "what is kept is nobody's to change")
    assert audit(file) == audit(path)
    assert audit_pair(file, file) == audit_pair(path, path)
    assert read_grid(file) == read_grid(path)
    assert len(opened) == 2, "once for the file that is open, once for the path"


def test_errors_name_the_path(tmp_path):
    path = tmp_path / "a.nii.gz"
    with pytest.raises(InputError, match=r"a\.nii\.gz: no such file"):
        read_image(ImageFile(path))
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 10), np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match=r"a\.nii\.gz: every voxel is 0"):
        read_image(ImageFile(path))
