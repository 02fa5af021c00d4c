"""Sections in a folder or in a TIFF: their order, sizes and pixels."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.files.images.stack import natural, read_stack

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)


def folder(path, names, sizes=((20, 30),)):
    path.mkdir()
    every = [RNG.integers(0, 255, sizes[n % len(sizes)], dtype=np.uint8) for n in range(len(names))]
    for name, values in zip(names, every, strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path / name))
    return every


def test_sections_are_in_natural_order_and_differ_in_size(tmp_path):
    names = ["s1.png", "s2.png", "s10.png", "s100.png"]
    values = folder(tmp_path / "stack", names, ((20, 30), (24, 18)))
    stack = read_stack(tmp_path / "stack", spacing=5e-6)
    assert stack.names == tuple(names)
    assert [section.grid.shape for section in stack] == [(30, 20), (18, 24)] * 2
    for section, expected in zip(stack, values, strict=True):
        np.testing.assert_array_equal(section.data[0, 0].T, expected)
        torch.testing.assert_close(section.grid.affine, torch.diag(torch.tensor([-5e-6, -5e-6, 1])).double())
    np.testing.assert_array_equal(stack.labels(-1).data[0, 0].T, values[-1])
    assert len(stack[1:3]) == 2


def test_digits_are_numbers_wherever_they_are():
    names = ["b2_c10", "b2_c9", "b10_c1", "a", "b02_c11"]
    assert sorted(names, key=natural) == ["a", "b2_c9", "b2_c10", "b02_c11", "b10_c1"]


@pytest.mark.parametrize(("unit", "size"), [({"unit": "nm"}, 5e-6), ({}, None)])
def test_pages_of_a_tiff_are_sections(unit, size, tmp_path):
    values = RNG.integers(0, 60000, (4, 20, 30), dtype=np.uint16)
    how = {"resolution": (1 / 5, 1 / 5)} if unit else {}
    tifffile.imwrite(tmp_path / "stack.tif", values, imagej=True, metadata=unit, **how)
    stack = read_stack(tmp_path / "stack.tif")
    assert len(stack) == 4
    assert stack.measured == (size is not None)
    for section, expected in zip(stack, values, strict=True):
        np.testing.assert_array_equal(section.data[0, 0].T, expected)
        assert section.grid.spacing.tolist() == pytest.approx([size or 1.0] * 2)
    np.testing.assert_array_equal(stack.labels(2).data[0, 0].T, values[2])


def test_colours_of_sections_are_grey_and_whole(tmp_path):
    (tmp_path / "stack").mkdir()
    for n in range(2):
        white = np.full((2100, 2050, 3) if n else (20, 30, 3), 255, np.uint8)
        white[5:9, 7 + n] = 0
        Picture.fromarray(white).save(tmp_path / "stack" / f"{n}.png")
    section = read_stack(tmp_path / "stack")[1]
    assert section.grid.shape == (2050, 2100)
    assert section.data[0, 0, 8, 5:9].tolist() == [1] * 4
    assert float(section.data.sum()) == pytest.approx(4, abs=1e-2)


def test_what_is_no_stack(tmp_path):
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "doubles", ["s1.png", "s01.png"])
    folder(tmp_path / "kinds", ["s1.png", "s2.tif"])
    refused = {"empty": "no sections", "doubles": "one number", "kinds": r"\.png, \.tif", "x.tif": "TIFF"}
    for name, says in refused.items():
        with pytest.raises(InputError, match=says):
            read_stack(tmp_path / name)
    with pytest.raises(InputError, match="above 0"):
        read_stack(tmp_path / "doubles", spacing=0.0)


def test_pixels_of_several_sizes_are_told(tmp_path):
    (tmp_path / "stack").mkdir()
    for n, size in enumerate((0.5, 0.25)):
        sizes = {f"PhysicalSize{axis}": size for axis in "XY"}
        tifffile.imwrite(tmp_path / "stack" / f"{n}.ome.tif", RNG.random((20, 30), np.float32), metadata=sizes)
    with pytest.raises(InputError, match="several sizes"):
        read_stack(tmp_path / "stack")
    assert read_stack(tmp_path / "stack", 0.001)[1].grid.spacing.tolist() == pytest.approx([0.001] * 2)
