"""Folders of transforms applied: frame n is what `apply_files` gives with file n."""

import pytest
import torch

from pullback.errors import InputError
from pullback.files import read_image, read_series, write, write_transforms
from pullback.space import Affine, Displacement, Grid, Image, Series
from pullback.workflows.apply import apply_files, read_in_order
from pullback.workflows.apply_each import apply_each, folder_in

GRID = Grid.centred((9, 8, 7), 2.0)


@pytest.fixture
def folder(tmp_path):
    draws = torch.Generator().manual_seed(0)
    write(Image(torch.rand(1, 1, *GRID.shape, generator=draws), GRID), tmp_path / "image.nii.gz")
    fields = [Displacement(0.6 * torch.randn(1, 3, *GRID.shape, generator=draws), GRID) for _ in range(3)]
    write_transforms(tmp_path / "samples", fields, ["sample_9", "sample_10", "sample_11"])
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, -1] = 1.5
    write(Affine(matrix), tmp_path / "shift.tfm")
    return tmp_path


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_an_image_is_seen_through_each(folder, mode):
    names = [str(folder / "samples"), str(folder / "shift.tfm")]
    assert (folder_in(names), folder_in(names[1:])) == (0, None)
    image = folder / "image.nii.gz"
    apply_each(image, names, folder / "out.nii.gz", image, mode)
    frames = read_series(folder / "out.nii.gz")
    assert len(frames) == 3
    for frame, number in zip(frames, (9, 10, 11), strict=True):
        chain = read_in_order([str(folder / "samples" / f"sample_{number}.h5"), names[1]])
        apply_files(image, chain, folder / "one.nii.gz", image, mode)
        assert torch.equal(frame.data, read_image(folder / "one.nii.gz").data)


def test_each_frame_goes_through_its_own(folder):
    draws = torch.Generator().manual_seed(1)
    image = Image(torch.rand(3, 1, *GRID.shape, generator=draws), GRID)
    write(Series.of(image, torch.tensor([0.0, 2.5, 5.0]).double()), folder / "film.nii.gz")
    apply_each(folder / "film.nii.gz", [str(folder / "samples")], folder / "out.nii.gz", folder / "image.nii.gz")
    frames = read_series(folder / "out.nii.gz")
    torch.testing.assert_close(frames.times, torch.tensor([0.0, 2.5, 5.0]).double())
    write(image.nth(1), folder / "second.nii.gz")
    chain = read_in_order([str(folder / "samples" / "sample_10.h5")])
    apply_files(folder / "second.nii.gz", chain, folder / "one.nii.gz", folder / "image.nii.gz")
    assert torch.equal(frames.frames[1].data, read_image(folder / "one.nii.gz").data)


def test_what_does_not_fit_is_refused(folder):
    image, names = folder / "image.nii.gz", [str(folder / "samples")]
    write(Series.of(Image(torch.rand(2, 1, *GRID.shape), GRID), torch.arange(2).double()), folder / "film.nii.gz")
    with pytest.raises(InputError, match="2 frames, and 3 transforms"):
        apply_each(folder / "film.nii.gz", names, folder / "out.nii.gz", image)
    with pytest.raises(InputError, match="one folder"):
        apply_each(image, names * 2, folder / "out.nii.gz", image)
    with pytest.raises(InputError, match="-r"):
        apply_each(image, names, folder / "out.nii.gz")
    (folder / "points.csv").write_text("x,y,z\n0,0,0\n")
    with pytest.raises(InputError, match="one transform"):
        apply_each(folder / "points.csv", names, folder / "out.csv")
