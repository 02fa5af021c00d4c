"""A stack written as one file is read by other tools with the same numbers and sizes."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.files.images.stack import read_stack
from pullback.files.images.stack_file import StackShape, stack_ending, write_stack
from pullback.space import Grid

tifffile = pytest.importorskip("tifffile")
GRID = Grid((7, 5), torch.diag(torch.tensor([-4e-6, -4e-6, 1.0], dtype=torch.float64)))


def pages(dtype: str, *more: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [(1000 * generator.random((5, 7, *more))).astype(dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("more", [(), (3,)], ids=["grey", "colour"])
def test_tifffile_reads_it(tmp_path, dtype, more):
    known = pages(dtype, *more)
    path = tmp_path / "s.ome.tif"
    write_stack(path, iter(known), StackShape(3, GRID, np.dtype(dtype), bool(more), thickness=3e-5))
    with tifffile.TiffFile(path) as file:
        assert np.array_equal(file.asarray(), np.stack(known))
        (pixels,) = [each for each in file.ome_metadata.split("<") if each.startswith("Pixels ")]
    for said in ('PhysicalSizeX="0.004"', 'PhysicalSizeY="0.004"', 'PhysicalSizeZ="0.03"', 'SizeZ="3"'):
        assert said in pixels


def test_we_read_it_again(tmp_path):
    known = pages("uint16")
    write_stack(tmp_path / "s.ome.tif", known, StackShape(3, GRID, np.dtype("uint16")))
    again = read_stack(tmp_path / "s.ome.tif")
    assert len(again) == 3
    assert again.spacing == pytest.approx(4e-6)
    assert all(np.array_equal(image.data[0, 0].mT.numpy(), page) for image, page in zip(again, known, strict=True))


def test_nibabel_reads_a_volume(tmp_path):
    known = pages("uint8")
    write_stack(tmp_path / "s.nii.gz", known, StackShape(3, GRID, np.dtype("uint8"), thickness=2e-5))
    volume = nib.load(tmp_path / "s.nii.gz")
    assert np.array_equal(np.asarray(volume.dataobj), np.stack(known).transpose(2, 1, 0))
    assert np.allclose(np.diag(volume.affine)[:3], [-4e-6, -4e-6, 2e-5])


def test_refusals(tmp_path):
    shape = StackShape(3, GRID, np.dtype("uint8"))
    with pytest.raises(InputError, match=r"\.ome\.tif, \.tif or \.nii\.gz"):
        stack_ending("aligned.png")
    with pytest.raises(InputError, match="in colour"):
        write_stack(tmp_path / "s.nii", pages("uint8", 3), replace(shape, coloured=True))
    with pytest.raises(ValueError, match="3 sections expected, got 2"):
        write_stack(tmp_path / "s.nii", pages("uint8")[:2], shape)
    with pytest.raises(ValueError, match="uint8 expected"):
        write_stack(tmp_path / "s.nii", pages("uint16"), shape)
    assert not list(tmp_path.iterdir())
