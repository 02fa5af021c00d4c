"""Frames of one place: one at a time or all at once, and on disk as other tools read them."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback.errors import InputError
from pullback.files import is_series, read_grid, read_series, write
from pullback.files.images.series import StoredFrames
from pullback.numerics.random import make_generator
from pullback.space import Grid, Image, Series

SHAPES = {2: (6, 7), 3: (6, 7, 5)}
CPU = torch.device("cpu")


def film(grid, count=4, mask=False):
    data = torch.rand(count, 1, *grid.shape, generator=make_generator(0))
    seen = torch.rand(count, 1, *grid.shape, generator=make_generator(1)) > 0.5 if mask else None
    return Image(data, grid, seen)


@pytest.mark.parametrize("ndim", [2, 3])
def test_frames_and_the_whole_are_one(oblique, ndim):
    image = film(oblique(SHAPES[ndim], 1), mask=True)
    series = Series.of(image, torch.arange(4).double() / 3)
    assert len(series) == len([*series]) == 4
    for known in (series, series.to(CPU)):
        assert torch.equal(known.image.data, image.data)
        assert torch.equal(known.image.mask, image.mask)
    assert all(torch.equal(frame.data[0], image.data[n]) for n, frame in enumerate(series))
    assert all(torch.equal(frame.mask[0], image.mask[n]) for n, frame in enumerate(series))


def test_a_time_for_each_frame():
    image = film(Grid.centred((6, 7)))
    with pytest.raises(ValueError, match=r"got \(3,\) for 4 frames"):
        Series.of(image, torch.arange(3.0))
    with pytest.raises(ValueError, match="1 frame or more"):
        Series((), image.grid, torch.zeros(0))


@pytest.mark.parametrize(
    ("unit", "named"), [("s", "sec"), ("ms", "msec"), ("us", "usec"), ("Hz", "hz"), ("", "unknown")]
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_written_and_read(tmp_path, oblique, unit, named, ending):
    grid, times = oblique(SHAPES[3], 1), 0.5 + 2.2 * torch.arange(4).double()
    path = tmp_path / f"film{ending}"
    write(Series.of(film(grid), times, unit), path)
    assert is_series(path)
    read = read_series(path)
    assert torch.equal(read.image.data, film(grid).data)
    assert read.grid == read_grid(path) == grid
    assert read.unit == unit
    torch.testing.assert_close(read.times, times, rtol=1e-6, atol=0)  # float32 in the header
    header = nib.load(path).header
    assert header["pixdim"][4] == np.float32(2.2)
    assert header.get_xyzt_units() == ("mm", named)
    write(read, tmp_path / "again.nii.gz")
    assert nib.load(tmp_path / "again.nii.gz").header["pixdim"][4] == np.float32(2.2)


def test_itk_reads_the_same_frames(tmp_path, to_sitk, from_sitk):
    grid = Grid.centred(SHAPES[3], (1.0, 2.0, 1.5))
    write(Series.of(film(grid), torch.arange(4.0)), tmp_path / "film.nii.gz")
    stored = sitk.ReadImage(str(tmp_path / "film.nii.gz"))
    np.testing.assert_array_equal(from_sitk(stored), film(grid).data[:, 0].movedim(0, -1).numpy())
    assert stored.GetSpacing() == pytest.approx((1, 2, 1.5, 1))


def test_frames_of_a_slice(tmp_path):
    """Of heart or eye, say: `(X, Y, 1, T)`; one that is not in the plane of x and y lies as its reference."""
    data = np.random.default_rng(0).random((6, 7, 1, 4), np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 3, 8, 1])), tmp_path / "cine.nii.gz")
    series = read_series(tmp_path / "cine.nii.gz")
    assert series.grid.shape == read_grid(tmp_path / "cine.nii.gz").shape == (6, 7)
    np.testing.assert_array_equal(series.image.data[:, 0].movedim(0, -1), data[:, :, 0])
    write(series, tmp_path / "again.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "again.nii.gz").get_fdata(), data)
    turned = data.transpose(0, 2, 1, 3)
    affine = np.diag([2.0, 8, 3, 1])
    nib.save(nib.Nifti1Image(turned, affine), tmp_path / "coronal.nii.gz")
    write(read_series(tmp_path / "coronal.nii.gz"), tmp_path / "out.nii.gz", like=tmp_path / "coronal.nii.gz")
    stored = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(stored.get_fdata(), turned)
    np.testing.assert_allclose(stored.affine, affine)


def test_a_file_is_read_frame_by_frame(tmp_path, monkeypatch):
    """Voxels of a file that is not compressed stay there until their frame is asked for."""
    grid = Grid.centred(SHAPES[3])
    write(Series.of(film(grid), torch.arange(4.0)), tmp_path / "film.nii")
    series = read_series(tmp_path / "film.nii")
    assert isinstance(series.frames, StoredFrames)
    assert isinstance(series.frames.data, np.memmap)
    assert torch.equal(series.frames[2].data[0], film(grid).data[2])
    assert torch.equal(Series(series.frames[1:3], grid, series.times[1:3]).image.data, film(grid).data[1:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": torch.tensor([0.0, 1, 2, 4])}, "evenly spaced"),
        ({"unit": "h"}, "times in 'h'; NIfTI knows s, ms"),
        ({"channels": 2}, "one file for each"),
    ],
)
def test_what_nifti_does_not_hold_is_refused(tmp_path, change, message):
    image = film(Grid.centred(SHAPES[3]))
    image = Image(image.data.repeat(1, change.pop("channels", 1), 1, 1, 1), image.grid)
    with pytest.raises(InputError, match=message):
        write(Series.of(image, **({"times": torch.arange(4.0)} | change)), tmp_path / "film.nii")
    assert not (tmp_path / "film.nii").exists()


def test_one_image_is_no_series(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((6, 7, 5), np.float32), np.eye(4)), tmp_path / "one.nii")
    assert not is_series(tmp_path / "one.nii")
    with pytest.raises(InputError, match="4-D in all"):
        read_series(tmp_path / "one.nii")
