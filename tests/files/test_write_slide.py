"""Slides written: what tifffile, zarr and we read of them, and where it lies."""

import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.files.images import write_slide as module
from pullback.files.images.slide import Slide
from pullback.files.images.write_slide import Canvas, write_slide
from pullback.space import Grid

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
pytest.importorskip("imagecodecs")

SIZE = 0.4567e-3
GRID = Grid((1100, 700), torch.diag(torch.tensor([-SIZE, -SIZE, 1], dtype=torch.float64)))
SPOT, SIGMA = (400.0, 300.0), 60.0


def drawn(part):
    """A Gaussian spot as it is, at whatever resolution."""
    where = -part.to_world(part.voxels(torch.empty(0, dtype=torch.float64))[None])[0].numpy() / SIZE
    return np.exp(-((where[0] - SPOT[0]) ** 2 + (where[1] - SPOT[1]) ** 2) / (2 * SIGMA**2)).T


def whole(part):
    return drawn(part).astype(np.float32)


def coloured(part):
    return np.round(255 * (1 - drawn(part)[..., None] * [0.3, 0.9, 0.5])).astype(np.uint8)


@pytest.mark.parametrize("block", [512, 1024])
def test_what_is_written_is_read_by_tifffile_by_zarr_and_here(block, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    write_slide(coloured, Canvas(GRID, np.dtype(np.uint8), True, True, lossless=True), tmp_path / "a.ome.tif")
    expected = coloured(GRID)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        (series,) = file.series
        np.testing.assert_array_equal(series.levels[0].asarray(), expected)
        assert [level.shape[:2] for level in series.levels] == [(700, 1100), (350, 550), (175, 275)]
        opened = zarr.open(series.levels[0].aszarr(multiscales=False), mode="r")
        np.testing.assert_array_equal(opened[100:200, 500:530], expected[100:200, 500:530])
        assert f'PhysicalSizeX="{SIZE * 1000}"' in file.ome_metadata
    slide = Slide.open(tmp_path / "a.ome.tif")
    assert slide.measured
    assert slide.levels[0] == GRID
    for level in range(3):
        grid = slide.levels[level]
        part = slide.region(level, (slice(31, 97), slice(11, 150)))
        np.testing.assert_allclose(part.data[0].permute(2, 1, 0) * 255, coloured(grid)[11:150, 31:97], atol=1e-4)
        torch.testing.assert_close(part.grid.affine[:2, 2], (grid.affine @ torch.tensor([31.0, 11, 1]).double())[:2])
    assert slide.levels[0].spacing.tolist() == pytest.approx([SIZE] * 2, rel=1e-6)


def test_a_spot_is_in_one_place_at_every_level_that_is_written(tmp_path):
    write_slide(whole, Canvas(GRID, np.dtype(np.float32), False, True), tmp_path / "a.ome.tif")
    slide = Slide.open(tmp_path / "a.ome.tif")
    for level, grid in enumerate(slide.levels):
        image = slide.region(level, (slice(0, grid.shape[0]), slice(0, grid.shape[1])))
        weights = image.data[0, 0].double()
        where = grid.to_world(grid.voxels(weights)[None])[0]
        found = (where * weights).sum((1, 2)) / weights.sum()
        assert float((found + torch.tensor(SPOT) * SIZE).norm()) < 0.05 * float(grid.spacing[0])


def test_jpeg_loses_little(tmp_path):
    write_slide(coloured, Canvas(GRID, np.dtype(np.uint8), True, False), tmp_path / "a.ome.tif")
    slide = Slide.open(tmp_path / "a.ome.tif")
    assert not slide.measured
    read = slide.image().data[0].permute(2, 1, 0).numpy() * 255
    assert np.abs(read - coloured(GRID)).mean() < 3
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        np.testing.assert_allclose(file.asarray(), read, atol=0.51)


def test_a_picture_is_written_whole(tmp_path):
    write_slide(coloured, Canvas(GRID, np.dtype(np.uint8), True, False), tmp_path / "a.png")
    np.testing.assert_allclose(
        Slide.open(tmp_path / "a.png").image().data[0].permute(2, 1, 0) * 255, coloured(GRID), atol=1e-4
    )


def test_what_is_not_written(tmp_path):
    canvas = Canvas(GRID, np.dtype(np.float32), False, True)
    for name, says in (("a.tif", r"slides as \.ome\.tif"), ("a.png", "bytes or 16 bits")):
        with pytest.raises(InputError, match=says):
            write_slide(whole, canvas, tmp_path / name)
    huge = Canvas(Grid((90_000, 90_000), GRID.affine), np.dtype(np.uint8), True, True)
    with pytest.raises(InputError, match="too many for a picture"):
        write_slide(coloured, huge, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
