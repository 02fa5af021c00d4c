"""Slides seen through transforms, in parts, and the commands that take them as they take other images."""

import contextlib
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback import cli
from pullback.errors import InputError
from pullback.files import read_grid, read_image, read_transform
from pullback.files.images import write_slide as writing
from pullback.files.images.colour import grey
from pullback.files.images.look import Look
from pullback.files.images.slide import Slide, coarser
from pullback.files.images.tiff import TiffLevel
from pullback.files.images.write_slide import Canvas, write_slide
from pullback.methods.pair.classical import STAINED, Classical
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Displacement, Grid, Image, pull
from pullback.workflows import slides
from pullback.workflows.apply import apply_files
from pullback.workflows.choices import PRESETS, classical
from pullback.workflows.doctor import examine
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.match import match_files
from pullback.workflows.register import register_files, summary
from pullback.workflows.slides import write_moved
from pullback.workflows.stained import are_stained, for_stains

pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")
pytest.importorskip("zarr")

SIZE = 0.5e-3
BIRL = (
    ("rat-kidney_/scale-5pc", ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin"), 4.8),
    ("lesions_/scale-5pc", ("Izd2-29-041-w35_HE", "Izd2-29-041-w35_proSPC"), 6.6),
)
CPU = torch.device("cpu")
TURN = torch.tensor([[0.97, -0.2], [0.2, 0.97]]).double()


def grid_of(shape, size=SIZE):
    return Grid(shape, torch.diag(torch.tensor([-size, -size, 1])).double())


def section(shape, size=SIZE, seed=0, coarse=9.0):
    """Tissue with texture on glass, `(1, 3, x, y)` in 0 … 1."""
    noise = smooth_noise((1, 3, *shape), coarse, torch.Generator().manual_seed(seed), torch.empty(0))
    x, y = (torch.linspace(-1, 1, n) for n in shape)
    tissue = torch.sigmoid(20 * (0.55 - (x[:, None] ** 2 + 1.6 * y**2)))
    return Image(1 - tissue * (0.5 + 0.15 * noise).clamp(0, 1), grid_of(shape, size))


def saved(image, path, lossless=True):
    """Write an image as a slide whose levels are means over blocks, as scanners write them."""

    def draw(part):
        factor = round(float(part.spacing[0] / image.grid.spacing[0]))
        shape = [n // factor * factor for n in image.grid.shape]
        blocks = image.data[0, :, : shape[0], : shape[1]].unflatten(2, (-1, factor)).unflatten(1, (-1, factor))
        values, whole = blocks.mean((2, 4)), coarser(image.grid, factor)
        left, top = (whole.to_voxels(part.to_world(torch.zeros(1, 2, 1).double()))[0, :, 0] + 0.5).long().tolist()
        values = values[:, left : left + part.shape[0], top : top + part.shape[1]]
        return (values * 255).round().permute(2, 1, 0).byte().numpy()

    write_slide(draw, Canvas(image.grid, np.dtype(np.uint8), True, True, lossless), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides")
    saved(section((700, 600)), path / "moving.ome.tif")
    saved(section((640, 520), seed=1), path / "fixed.ome.tif")
    return path


def bent(grid):
    """An affine map and a smooth field, as a registration finds them."""
    rough = Grid.between_ends(grid, (9, 8))
    field = 0.4 * smooth_noise((1, 2, 9, 8), 1.0, torch.Generator().manual_seed(2), torch.empty(0))
    turn = torch.tensor([[0.95, 0.2], [-0.2, 0.97]]).double()
    return Affine.about(turn, grid.centre, grid.centre + torch.tensor([6e-3, -4e-3]).double()) @ Displacement(
        field, rough
    )


def shifted(x, y):
    """Return the map by x and y mm in RAS."""
    return Affine.about(torch.eye(2).double(), torch.zeros(2).double(), torch.tensor([x, y]).double())


# ---- parts


@pytest.mark.parametrize("limits", [{}, {"BLOCK": 512}, {"DECODED": 2**17}])
def test_a_slide_moved_in_parts_is_the_slide_moved_whole(limits, folder, tmp_path, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setattr(writing if name == "BLOCK" else slides, name, value)
    onto = grid_of((640, 520))
    transform, slide = bent(onto), Slide.open(folder / "moving.ome.tif")
    seen = write_moved(folder / "moving.ome.tif", transform, tmp_path / "a.ome.tif", onto, True, lossless=True)
    assert seen > 0
    written = Slide.open(tmp_path / "a.ome.tif")
    expected = pull(slide.image(), transform, onto, outside=1)
    assert float((written.image().data - expected.data).abs().max()) < 0.6 / 255 + 1e-3
    assert written.levels[0] == onto
    level = written.region(1, (slice(0, 320), slice(0, 260)))
    coarse = pull(slide.region(1, (slice(0, 350), slice(0, 300))), transform, written.levels[1], outside=1)
    inner = (slice(None), slice(None), slice(9, -9), slice(9, -9))
    assert float((level.data - coarse.data)[inner].abs().mean()) < 1 / 255


def test_no_more_than_a_part_is_read_at_a_time(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "BLOCK", 256)
    monkeypatch.setattr(writing, "TILE", 128)
    read, sizes = TiffLevel.read, []

    def counted(level, top, left, height, width):
        sizes.append(height * width)
        return read(level, top, left, height, width)

    monkeypatch.setattr(TiffLevel, "read", counted)
    onto = grid_of((640, 520))
    write_moved(folder / "moving.ome.tif", bent(onto), tmp_path / "a.ome.tif", onto, True)
    largest = max(size for size in sizes[1:])  # the first are of the border, by which glass is told
    assert len(sizes) > 8
    assert largest <= (256 * 1.5 + 2 * slides.MARGIN) ** 2


def test_glass_is_around_and_jpeg_keeps_it(folder, tmp_path):
    onto = grid_of((640, 520))
    far = shifted(5.0, 0)
    applied = apply_files(folder / "moving.ome.tif", far, tmp_path / "a.ome.tif", folder / "fixed.ome.tif")
    assert "nothing of" in applied.doubt
    assert float(Slide.open(tmp_path / "a.ome.tif").image().data.min()) == 1
    near = apply_files(folder / "moving.ome.tif", bent(onto), tmp_path / "b.ome.tif", folder / "fixed.ome.tif")
    assert not near.doubt


def test_pictures_go_to_pictures_and_numbers_stay(tmp_path):
    values = np.random.default_rng(0).integers(0, 60000, (40, 50), dtype=np.uint16)
    Picture.fromarray(values).save(tmp_path / "a.png")
    shift = shifted(-3.0, 2.0)
    apply_files(tmp_path / "a.png", shift, tmp_path / "b.png", tmp_path / "a.png", labels=True)
    moved = np.asarray(Picture.open(tmp_path / "b.png"))
    np.testing.assert_array_equal(moved[2:, :-3], values[:-2, 3:])
    assert (moved[:2] == 0).all()


def test_spacing_is_that_of_the_moved_slide(folder, tmp_path):
    still = Affine.identity(2)
    apply_files(folder / "moving.ome.tif", still, tmp_path / "a.ome.tif", folder / "fixed.ome.tif", spacing=2 * SIZE)
    slide = Slide.open(tmp_path / "a.ome.tif")
    assert slide.levels[0] == Slide.open(folder / "fixed.ome.tif").levels[1]


def test_what_apply_refuses(folder, tmp_path):
    still, moving, fixed = Affine.identity(2), folder / "moving.ome.tif", folder / "fixed.ome.tif"
    for out, more, says in (
        ("a.nii.gz", {}, "voxels are colours.*grey"),
        ("a.ome.tif", {"outside": 3.0}, "glass is around"),
        ("a.ome.tif", {"source": fixed}, "--from"),
        ("a.tif", {}, r"written as \.nii"),
    ):
        with pytest.raises(InputError, match=says):
            apply_files(moving, still, tmp_path / out, fixed, **more)
    with pytest.raises(InputError, match="3 dimensions"):
        apply_files(moving, Affine.identity(3), tmp_path / "a.ome.tif", fixed)
    assert not list(tmp_path.iterdir())


def test_annotations_travel_in_pixels_of_their_slides(folder, tmp_path):
    saved(section((300, 260), size=2 * SIZE), tmp_path / "other.ome.tif")
    place = [[10.5, 20.5], [100.5, 200.5], [10.5, 20.5]]
    content = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [place]}, "properties": {"name": "T"}}
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    shift = shifted(-8 * SIZE, 4 * SIZE)
    with pytest.raises(InputError, match="--from SLIDE"):
        apply_files(tmp_path / "a.geojson", shift, tmp_path / "b.geojson")
    fixed, other = folder / "fixed.ome.tif", tmp_path / "other.ome.tif"
    apply_files(tmp_path / "a.geojson", shift, tmp_path / "b.geojson", other, source=fixed)
    moved = json.loads((tmp_path / "b.geojson").read_text())
    expected = [[(x - 0.5 + 8) / 2 + 0.5, (y - 0.5 - 4) / 2 + 0.5] for x, y in place]
    np.testing.assert_allclose(moved["geometry"]["coordinates"][0], expected)
    assert moved["properties"] == {"name": "T"}


@pytest.mark.parametrize(("scale", "says"), [(3.0, "4 times as large"), (0.11, "8 times coarser"), (1.0, "")])
def test_pixels_of_another_level_are_told(scale, says, folder, tmp_path):
    where = scale * np.array([[20, 30], [600, 40], [300, 500], [620, 510]])
    rows = "".join(f"{x},{y}\n" for x, y in where.tolist())
    (tmp_path / "a.csv").write_text(f"x,y\n{rows}")
    fixed = folder / "fixed.ome.tif"
    if scale > 1:
        with pytest.raises(InputError, match=says):
            apply_files(tmp_path / "a.csv", shifted(0, 0), tmp_path / "b.csv", fixed, space="px", source=fixed)
    else:
        applied = apply_files(tmp_path / "a.csv", shifted(0, 0), tmp_path / "b.csv", fixed, space="px", source=fixed)
        assert says in applied.doubt
        assert bool(says) == bool(applied.doubt)


def test_landmarks_in_annotations_are_matched_in_mm(folder, tmp_path):
    """Of two slides with pixels of several sizes; the map between them is the one in mm."""
    saved(section((300, 260), size=2 * SIZE), tmp_path / "other.ome.tif")
    slides = (folder / "fixed.ome.tif", tmp_path / "other.ome.tif")
    where = np.random.default_rng(0).uniform(40, 400, (8, 2))
    turn = np.array([[0.9, -0.2], [0.25, 1.05]])
    for name, places in (("fixed", where), ("moving", ((where - 0.5) @ turn.T + 12) / 2 + 0.5)):
        points = [
            {"type": "Feature", "geometry": {"type": "Point", "coordinates": [*place]}, "properties": {"name": f"L{n}"}}
            for n, place in enumerate(places.tolist())
        ]
        (tmp_path / f"{name}.geojson").write_text(json.dumps(points))
    files = [tmp_path / f"{name}.geojson" for name in ("fixed", "moving")]
    content = match_files(*files, tmp_path / "out", matched=True, slides=slides)
    assert content["pairs"] == 8
    affine = read_transform(tmp_path / "out" / "fixed_to_moving.h5")
    here = torch.tensor(-(where - 0.5) * SIZE)[None]
    there = torch.tensor(-((where - 0.5) @ turn.T + 12) * SIZE)[None]
    assert float((affine(here) - there).abs().max()) < 1e-3 * SIZE
    sent, target = (
        np.array([each["geometry"]["coordinates"] for each in json.loads(path.read_text())])
        for path in (tmp_path / "out" / "fixed_in_moving.geojson", files[1])
    )
    np.testing.assert_allclose(sent, target, atol=1e-2)
    with pytest.raises(InputError, match="--fixed-slide"):
        match_files(*files, tmp_path / "none", matched=True)


# ---- register and doctor


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """Two coloured pictures, one of them turned and in another stain, and where the one went."""
    folder = tmp_path_factory.mktemp("turned")
    image = section((96, 80), size=1.0, coarse=6.0)
    motion = Affine.about(TURN, image.grid.centre, image.grid.centre + torch.tensor([5.0, -4]))
    stained = 1 - (1 - image.data) * torch.tensor([0.4, 1.0, 0.8]).view(1, 3, 1, 1)
    other = pull(Image(stained, image.grid), motion, image.grid, outside=1)
    for name, each in (("fixed.png", image), ("moving.png", other)):
        values = (each.data[0].permute(2, 1, 0) * 255).round().clamp(0, 255).byte().numpy()
        Picture.fromarray(values).save(folder / name)
    (folder / "points.csv").write_text("name,x,y\na,40,30\nb,60,50\nc,50,40\n")
    return folder, motion


STILL = Classical(initialise=None, linear=(), deformable=None)
"""Answers with its start."""


def test_what_register_writes_of_pictures_in_colour(turned, tmp_path):
    folder, motion = turned
    files = [ImageFiles([folder / f"{name}.png"]) for name in ("fixed", "moving")]
    back = motion.inverse()
    content = register_files(*files, STILL, tmp_path, points=folder / "points.csv", space="px", start=back)
    assert {"moved.png", "moved.nii.gz", "fixed_points_in_moving.csv"} <= {*content["files"]}
    assert sum("in colour, of which 1 − luminance" in said for said in content["slides"]) == 2
    assert content["slides"][0] in summary(content, tmp_path)
    assert "affine answer stays" not in summary(content, tmp_path)
    assert "affine answer stays" in summary(content | {"found": {"held-out gain": -0.1}}, tmp_path)
    expected = pull(
        Slide.open(folder / "moving.png").image(), back, Slide.open(folder / "fixed.png").levels[0], outside=1
    )
    moved = Slide.open(tmp_path / "moved.png").image()
    assert float((moved.data - expected.data).abs().max()) < 0.6 / 255
    assert float(moved.data[:, :, 0, 0].min()) > 0.99
    seen = read_image(tmp_path / "moved.nii.gz")
    assert float((seen.data - grey(expected).data).abs().max()) < 1e-5
    pushed = np.loadtxt(tmp_path / "fixed_points_in_moving.csv", delimiter=",", skiprows=1, usecols=(1, 2))
    where = -back(-torch.tensor([[[40.0, 30], [60, 50], [50, 40]]]).double())[0]
    np.testing.assert_allclose(pushed, where)


def test_the_level_is_chosen_and_a_slide_is_moved_as_a_slide(folder, tmp_path):
    files = [ImageFiles([folder / f"{name}.ome.tif"], look=Look(8 * SIZE)) for name in ("fixed", "moving")]
    content = register_files(*files, STILL, tmp_path, start=shifted(0, 0.01))
    assert {"moved.ome.tif", "moved.nii.gz"} <= {*content["files"]}
    assert "80 × 65 pixels of 4 µm (level 1 of 2, means of 4 × 4 pixels)" in content["slides"][0]
    moved = Slide.open(tmp_path / "moved.ome.tif")
    assert moved.levels[0] == Slide.open(folder / "fixed.ome.tif").image(spacing=8 * SIZE).grid
    assert read_grid(tmp_path / "moved.nii.gz") == moved.levels[0]


@pytest.mark.nightly
def test_what_the_page_says_is_typed(folder, tmp_path, monkeypatch, capsys):
    """On small slides; the rigid stage alone, for time."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "slides.md").read_text()
    lines = [
        line for line in re.findall(r"^pullback .*", page, re.MULTILINE) if ".csv" not in line and "match" not in line
    ]
    monkeypatch.chdir(tmp_path)
    for name, given in (("HE", "fixed"), ("IHC", "moving")):
        shutil.copy(folder / f"{given}.ome.tif", tmp_path / f"{name}.ome.tif")
    content = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [300, 200]}, "properties": {}}
    (tmp_path / "annotations.geojson").write_text(json.dumps(content))
    for line in lines:
        words = shlex.split(re.sub(r"\b(HE|IHC)\.(svs|mrxs)", r"\1.ome.tif", line))[1:]
        if words[0] == "register" and ("--stain" in words or "--start" in words):
            continue
        monkeypatch.setattr(
            sys, "argv", ["pullback", *words, *(["--transform", "rigid"] if words[0] == "register" else [])]
        )
        with contextlib.suppress(SystemExit):
            cli.main()
        assert "Traceback" not in capsys.readouterr().err
    assert Slide.open(tmp_path / "moved.ome.tif").levels[0] == Slide.open(tmp_path / "HE.ome.tif").levels[0]
    assert (tmp_path / "out" / "moved.ome.tif").is_file()
    assert json.loads((tmp_path / "on_IHC.geojson").read_text())["geometry"]["type"] == "Point"


@pytest.mark.nightly
@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_two_stains_are_aligned(turned, preset, tmp_path):
    folder, motion = turned
    files = [ImageFiles([folder / f"{name}.png"]) for name in ("fixed", "moving")]
    content = register_files(*files, classical(preset), tmp_path)
    assert "held-out gain" in content["found"]
    grid = read_grid(folder / "fixed.png")
    where = grid.to_world(grid.voxels(torch.empty(0, dtype=torch.float64))[None]).flatten(2).mT[:, ::31]
    home = motion(read_transform(tmp_path / "fixed_to_moving.h5")(where))
    assert float((home - where).norm(dim=2).median()) < 1


@pytest.mark.nightly
@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize(("name", "ends", "best"), BIRL)
def test_sections_of_several_stains_are_aligned_better_than_by_any_affine_map(
    name, ends, best, preset, shared, tmp_path
):
    """Two pairs with landmarks of experts, either of which may be the fixed one."""
    root = shared / "data" / "birl_histology" / "data-images" / name
    for one, two in (ends, ends[::-1]):
        here, there = (
            -torch.tensor(np.loadtxt(root / f"{end}.csv", delimiter=",", skiprows=1, usecols=(1, 2)))
            for end in (one, two)
        )
        count = min(len(here), len(there))
        here, there = here[:count], there[:count]
        known = torch.cat([here, torch.ones_like(here[:, :1])], 1)
        affine = (known @ torch.linalg.lstsq(known, there).solution - there).norm(dim=1).mean()
        files = [ImageFiles([root / f"{end}.jpg"]) for end in (one, two)]
        register_files(*files, classical(preset), tmp_path / one)
        found = read_transform(tmp_path / one / "fixed_to_moving.h5")(here[None])[0]
        error = float((found - there).norm(dim=1).mean())
        assert error <= float(affine)
        assert float(affine) == pytest.approx(best, abs=0.35)


def test_only_a_presets_own_stage_gives_way_to_that_for_stains(turned, tmp_path):
    folder, _ = turned
    assert are_stained(*(ImageFiles([folder / f"{name}.png"]) for name in ("fixed", "moving")))
    Picture.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "black.png")
    assert not are_stained(ImageFiles([folder / "fixed.png"]), ImageFiles([tmp_path / "black.png"]))
    for name in PRESETS:
        assert for_stains(classical(name)).deformable == STAINED
        for kept in (
            classical(name, smoothness=2.0),
            classical(name, energy="mi"),
            classical(name, transform="affine"),
        ):
            assert for_stains(kept) == kept


def test_doctor_knows_slides(folder, tmp_path):
    said = [finding.what for finding in examine(folder / "fixed.ome.tif", folder / "moving.ome.tif")]
    assert any("640 × 520 pixels of 0.5 µm (level 0 of 2)" in what and "1 − luminance" in what for what in said)
    assert not any("field of view of only" in what or "unusual" in what for what in said)
    Picture.fromarray(np.full((30, 40, 3), 255, np.uint8)).save(tmp_path / "glass.png")
    said = [finding.what for finding in examine(tmp_path / "glass.png")]
    assert any("1 mm is taken" in what for what in said)
    assert any("constant" in what for what in said)
    grid = grid_of((640, 520))
    write_slide(
        lambda part: np.full((part.shape[1], part.shape[0], 3), 200, np.uint8),
        Canvas(grid, np.dtype(np.uint8), True, False),
        tmp_path / "unknown.ome.tif",
    )
    assert any("does not say how large a pixel is" in f.what for f in examine(tmp_path / "unknown.ome.tif"))
