"""Pictures and slides, written by tifffile and zarr: what is seen, where, and what is refused."""

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.files import read_image, read_labels
from pullback.files.images.image_file import ImageFile
from pullback.files.images.look import MOST, Look
from pullback.files.images.openslide import open_openslide
from pullback.files.images.slide import LARGEST, Slide

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
pytest.importorskip("imagecodecs")

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (60, 80, 3), dtype=np.uint8)
SEEN = RGB.astype(np.float32) / 255
INKS = RNG.integers(0, 255, (60, 80, 4), dtype=np.uint8)
TABLE = RNG.integers(0, 256, (3, 256)).astype(np.uint16) * 257
SIGMA, SPOT = 24.0, (131.3, 90.8)  # pixels of the finest level, across and down


def seen(path, **how):
    return Slide.open(path).image(**how).data[0].permute(2, 1, 0).numpy()


def ycbcr(rgb):
    y = rgb @ [0.299, 0.587, 0.114]
    return np.stack([y, 128 / 255 + (rgb[..., 2] - y) / 1.772, 128 / 255 + (rgb[..., 0] - y) / 1.402], -1)


ALPHA = INKS[..., 3:] / 255
KINDS = {  # what is written, how, and what is to be seen
    "rgb": (RGB, {"photometric": "rgb"}, SEEN),
    "planes": (np.ascontiguousarray(RGB.transpose(2, 0, 1)), {"photometric": "rgb", "planarconfig": "separate"}, SEEN),
    "16-bit": (RGB.astype(np.uint16) * 257, {"photometric": "rgb"}, SEEN),
    "rgba": (INKS, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, INKS[..., :3] / 255 * ALPHA + 1 - ALPHA),
    "cmyk": (INKS, {"photometric": "separated"}, (1 - INKS[..., :3] / 255) * (1 - ALPHA)),
    "palette": (RGB[..., 0], {"photometric": "palette", "colormap": TABLE}, (TABLE // 257).T[RGB[..., 0]] / 255),
    "ycbcr": (
        np.round(255 * ycbcr(SEEN)).astype(np.uint8),
        {"photometric": "rgb", "extratags": [(530, 3, 2, (1, 1), True)]},
        SEEN,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_colours_of_tiff_are_as_they_look(kind, tmp_path):
    values, how, expected = KINDS[kind]
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    if kind == "ycbcr":  # which tifffile writes with JPEG alone
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            file.pages.first.tags["PhotometricInterpretation"].overwrite(6)
    np.testing.assert_allclose(seen(tmp_path / "a.tif"), expected, atol=0.012 if kind == "ycbcr" else 2e-6)
    slide = Slide.open(tmp_path / "a.tif")
    part = slide.region(0, (slice(11, 31), slice(7, 19)))
    torch.testing.assert_close(part.data, slide.image().data[:, :, 11:31, 7:19])
    assert part.grid.affine[:2, 2].tolist() == [-11, -7]


def test_jpeg_in_tiff_is_decoded_as_colours(tmp_path):
    smooth = (np.mgrid[:64, :64, :3] * [[[[1]]], [[[2]]], [[[30]]]]).sum(0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, photometric="rgb", compression="jpeg", tile=(32, 32))
    assert abs(seen(tmp_path / "a.tif") - smooth / 255).mean() < 3 / 255


@pytest.mark.parametrize("white", [True, False])
def test_bits_are_numbers_and_may_be_a_mask(white, tmp_path):
    values = RGB[..., 0] > 100
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite" if white else "minisblack")
    labels = read_labels(tmp_path / "a.tif")
    np.testing.assert_array_equal(labels.data[0, 0].T, ~values if white else values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colours_of_pictures_are_as_they_look(mode, tmp_path):
    ending = "tif" if mode == "CMYK" else "png"
    made = Picture.fromarray(INKS, "RGBA") if mode == "RGBA" else Picture.fromarray(RGB).convert(mode)
    made.save(tmp_path / f"a.{ending}")
    expected = np.asarray(Picture.alpha_composite(Picture.new("RGBA", made.size, "white"), made.convert("RGBA")))
    np.testing.assert_allclose(seen(tmp_path / f"a.{ending}"), expected[..., :3] / 255, atol=1 / 254)


def test_grey_of_glass_is_dark_and_that_of_black_is_as_it_looks(tmp_path):
    tissue = np.full((40, 50, 3), 255, np.uint8)
    tissue[10:20, 15:30] = (200, 60, 120)
    Picture.fromarray(tissue).save(tmp_path / "bright.png")
    Picture.fromarray(255 - tissue).save(tmp_path / "dark.png")
    bright, dark = (read_image(tmp_path / name) for name in ("bright.png", "dark.png"))
    torch.testing.assert_close(bright.data, dark.data, atol=1e-6, rtol=0)
    assert float(bright.data[0, 0, 0, 0]) == pytest.approx(0, abs=1e-6)
    assert float(bright.data[0, 0, 20, 15]) == pytest.approx(1 - np.dot([0.2126, 0.7152, 0.0722], [200, 60, 120]) / 255)
    torch.testing.assert_close(bright.grid.affine, torch.diag(torch.tensor([-1.0, -1, 1])).double())
    with pytest.raises(InputError, match=r"bright\.png: mask in colour"):
        read_image(tmp_path / "dark.png", mask=tmp_path / "bright.png")


# ---- pyramids


def spot(factor):
    """Means of a Gaussian over blocks of factor × factor pixels, which another Gaussian nearly is; 0 … 1."""
    down, across = (np.arange(n // factor) * factor + (factor - 1) / 2 for n in (200, 260))
    return np.exp(-((across - SPOT[0]) ** 2 + (down[:, None] - SPOT[1]) ** 2) / (2 * SIGMA**2)).astype(np.float32)


def write_pyramid(path, factors=(1, 2, 4, 8), size=0.25, coloured=False, **how):
    with tifffile.TiffWriter(path, ome=True) as file:
        for n, factor in enumerate(factors):
            values = np.round(255 * (1 - spot(factor)))[..., None].repeat(3, 2).astype(np.uint8)
            values = values if coloured else spot(factor)
            meta = {"PhysicalSizeX": size, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": size, "PhysicalSizeYUnit": "µm"}
            file.write(
                values,
                tile=(64, 64),
                photometric="rgb" if coloured else "minisblack",
                subifds=len(factors) - 1 if n == 0 else 0,
                subfiletype=1 if n else 0,
                metadata={**(meta if size else {}), "axes": "YXS" if coloured else "YX"} if n == 0 else None,
                **how,
            )


def write_zarr(path, version, told=True):
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for n, factor in enumerate((1, 2, 4, 8)):
        group.create_array(str(n), data=spot(factor))
        size = 0.25 * factor
        steps = [{"type": "scale", "scale": [size, size]}]
        steps += [{"type": "translation", "translation": [(size - 0.25) / 2 + 7] * 2}] if told else []
        datasets.append({"path": str(n), "coordinateTransformations": steps})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scales = {"multiscales": [{"version": version, "axes": axes, "datasets": datasets}]}
    group.attrs.update(scales if version == "0.4" else {"ome": scales})


def centroid(image):
    weights = image.data[0, 0].double()
    where = image.grid.to_world(image.grid.voxels(weights)[None])[0]
    return (where * weights).sum((1, 2)) / weights.sum()


PYRAMIDS = {
    "ome.tif": write_pyramid,
    "0.4.ome.zarr": lambda path: write_zarr(path, "0.4"),
    "0.5.ome.zarr": lambda path: write_zarr(path, "0.5", told=False),
}


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_spot_is_in_one_place_at_every_level(name, tmp_path):
    """Without the half pixel it would be off by 3.5 pixels of the finest level at the last one."""
    PYRAMIDS[name](tmp_path / f"a.{name}")
    slide = Slide.open(tmp_path / f"a.{name}")
    assert len(slide.levels) == 4
    true = -torch.tensor(SPOT).double() * 0.25e-3
    for level, grid in enumerate(slide.levels):
        whole = slide.region(level, (slice(0, grid.shape[0]), slice(0, grid.shape[1])))
        assert whole.grid == grid
        assert float((centroid(whole) - true).norm()) < 0.05 * float(grid.spacing[0])
        assert grid.spacing.tolist() == pytest.approx([0.25e-3 * 2**level] * 2)
    for factor in (3, 5, 6):  # means over blocks of a level
        image = slide.image(spacing=0.25e-3 * factor)
        assert float((centroid(image) - true).norm()) < 0.05 * float(image.grid.spacing[0])


@pytest.mark.parametrize(("asked", "shape"), [({"spacing": 0.5e-3}, (130, 100)), ({"most": 3250}, (65, 50))])
def test_spacing_or_most_pixels_choose_the_level(asked, shape, tmp_path):
    write_pyramid(tmp_path / "a.ome.tif")
    slide = Slide.open(tmp_path / "a.ome.tif")
    image = slide.image(**asked)
    assert image.grid.shape == shape
    np.testing.assert_array_equal(image.data[0, 0].T, spot(260 // shape[0]))
    looked = read_image(ImageFile(tmp_path / "a.ome.tif", Look(**asked)))
    assert looked.grid == image.grid


def test_a_level_that_is_missing_is_made_of_the_finer_one(tmp_path):
    write_pyramid(tmp_path / "a.ome.tif", (1, 8))
    image = Slide.open(tmp_path / "a.ome.tif").image(spacing=1e-3)
    assert image.grid.shape == (65, 50)
    np.testing.assert_allclose(image.data[0, 0].T, spot(1).reshape(50, 4, 65, 4).mean((1, 3)), atol=1e-6)


@pytest.mark.parametrize("level", [0, 1])
def test_openslide_sees_the_same_pixels(level, tmp_path):
    pytest.importorskip("openslide")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for n in range(2):
            file.write(RGB[:: n + 1, :: n + 1], photometric="rgb", tile=(32, 32), subfiletype=min(n, 1))
    read = open_openslide(tmp_path / "a.tif").levels[level]
    np.testing.assert_array_equal(read.read(3, 5, 20, 30), RGB[:: level + 1, :: level + 1][3:23, 5:35])


# ---- sizes of pixels


SIZES = {  # how the file tells it, and mm of a pixel
    "aperio": ({"description": "Aperio Image |AppMag = 20|MPP = 0.5022", "tile": (32, 32)}, 0.5022e-3),
    "centimetres": ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, 0.25e-3),
    "print": ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("kind", SIZES)
def test_the_size_of_a_pixel_is_as_the_file_says(kind, tmp_path):
    how, size = SIZES[kind]
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", metadata=None, **how)
    slide = Slide.open(tmp_path / "a.tif")
    assert slide.measured == (size is not None)
    assert slide.levels[0].spacing.tolist() == pytest.approx([size or 1.0] * 2)


def test_the_size_of_a_pixel_in_imagej_and_in_other_units(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., 0], imagej=True, resolution=(200, 200), metadata={"unit": "um"})
    assert read_image(tmp_path / "a.tif").grid.spacing.tolist() == pytest.approx([5e-6, 5e-6])
    sizes = {"PhysicalSizeX": 40, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.05, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(tmp_path / "b.ome.tif", RGB, photometric="rgb", metadata={"axes": "YXS", **sizes})
    assert Slide.open(tmp_path / "b.ome.tif").levels[0].spacing.tolist() == pytest.approx([40e-6, 50e-6])


def test_a_label_or_macro_image_is_not_taken_for_the_slide(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for name, scale in (("label image", 3), ("slide", 1), ("macro image", 2)):
            file.write(np.tile(RGB, (scale, scale, 1)), photometric="rgb", metadata={"axes": "YXS", "Name": name})
    np.testing.assert_allclose(seen(tmp_path / "a.ome.tif"), SEEN)


# ---- what is refused


def test_more_than_fits_in_memory_is_refused_before_it_is_read(tmp_path):
    data = np.broadcast_to(np.uint8(0), (20000, 15000))
    tifffile.imwrite(tmp_path / "a.ome.tif", data, tile=(1024, 1024), compression="zlib", metadata={"axes": "YX"})
    slide = Slide.open(tmp_path / "a.ome.tif")
    assert np.prod(slide.levels[0].shape) > LARGEST
    with pytest.raises(InputError, match=r"15,000 × 20,000 pixels would take 1 GB; take a coarser --spacing"):
        slide.image()
    assert slide.choice(spacing=100.0) == (0, 100)
    with pytest.raises(InputError, match="above 0"):
        slide.image(spacing=-1.0)


def test_a_level_whose_folder_is_lost(tmp_path):
    write_zarr(tmp_path / "a.ome.zarr", "0.5")
    shutil.rmtree(tmp_path / "a.ome.zarr" / "2")
    with pytest.raises(InputError, match=r"a\.ome\.zarr.*levels are all there"):
        Slide.open(tmp_path / "a.ome.zarr")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.ome.tif", b"no slide", "no slide that OpenSlide reads|not a readable TIFF"),
        ("a.mrxs", b"\xff\xd8\xff", "the folder a must lie beside it"),
        ("a.svs", b"", "no slide that OpenSlide reads"),
    ],
)
def test_what_is_no_slide(name, content, says, tmp_path):
    pytest.importorskip("openslide")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_image(tmp_path / name)


def test_several_pictures_in_one_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", RNG.random((3, 40, 50), np.float32), metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="3 along C"):
        Slide.open(tmp_path / "a.ome.tif")
    with pytest.raises(InputError, match="no such folder"):
        Slide.open(tmp_path / "none.ome.zarr")


def test_a_cut_slide_is_told(tmp_path):
    write_pyramid(tmp_path / "a.ome.tif", coloured=True, compression="zlib")
    content = (tmp_path / "a.ome.tif").read_bytes()
    (tmp_path / "a.ome.tif").write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match=r"a\.ome\.tif"):
        read_image(tmp_path / "a.ome.tif")


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match=r"pip install 'pullback\[slides\]'"):
        read_image(tmp_path / "a.tif")


def test_a_picture_is_looked_at_by_at_most_so_many_pixels(tmp_path):
    wide = np.broadcast_to(RGB[:1, :1], (2100, 2100, 3))
    Picture.fromarray(np.ascontiguousarray(wide)).save(tmp_path / "a.png")
    shape = Slide.open(tmp_path / "a.png").image(*Look().at(Slide.open(tmp_path / "a.png"))).grid.shape
    assert shape == (1050, 1050)
    assert 2100**2 > MOST >= 1050**2


def test_stains_are_of_colours(tmp_path):
    write_pyramid(tmp_path / "a.ome.tif")
    with pytest.raises(InputError, match="not in colour"):
        read_image(ImageFile(tmp_path / "a.ome.tif", Look(stain="dab")))
    with pytest.raises(InputError, match="trichrome"):
        Look(stain="trichrome")
