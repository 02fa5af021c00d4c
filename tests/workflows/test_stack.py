"""pullback stack: what it writes leads where the truth does, it goes on where it stopped, and names what fails."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.data.phantoms.em_stack import EMStack
from pullback.files.images.stack import read_stack
from pullback.files.transforms.folder import read_transforms
from pullback.records.ledger import read_ledger
from pullback.workflows.stack_sections import missing_numbers

tifffile = pytest.importorskip("tifffile")
STACK = EMStack(sections=4, shape=(170, 150), pad=30, mitochondria=18.0, step=2.0)
SET = ["--set", "radius=28", "--set", "area=20", "--set", "least=5"]


def save(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Picture.fromarray(values).save(path)


def written(folder: Path, stack: EMStack = STACK) -> tuple[Path, Path]:
    """Write sections s8 … s11, which sorted as text come in another order, and their masks, 0 and 255."""
    for z in range(stack.sections):
        save(stack.section(z).data[0, 0].mT.byte().numpy(), folder / "sections" / f"s{z + 8}.png")
        save(255 * stack.mask(z).data[0, 0].mT.byte().numpy(), folder / "masks" / f"m{z + 8}.png")
    return folder / "sections", folder / "masks"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[Path, Path]:
    return written(tmp_path_factory.mktemp("stack"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_stack_by_masks(inputs, tmp_path, pullback):
    sections, masks = inputs
    out = tmp_path / "aligned.ome.tif"
    words = ["stack", sections, "--masks", masks, "-o", out, *SET, "--spacing", "4e-6", "--thickness", "3e-5"]
    code, said, err = pullback(*words, "--json")
    assert code == 0, err
    content, folder = json.loads(said), tmp_path / "aligned"
    assert content["reference"] == "s9.png"
    assert content["neighbours"]["Dice"][1] > max(0.75, content["neighbours"]["Dice"][0] + 0.3)
    assert content["neighbours"]["correlation"][1] > 0.6
    assert content["loop error px"] < 3

    # maps, in pixels: column first, then row, from the written plane to each section
    stored = rows(folder / "transforms.csv")
    matrices = [np.array([float(row[f"m{a}{b}"]) for a in range(3) for b in range(3)]).reshape(3, 3) for row in stored]
    at = np.array([[60.0, 60, 1], [170, 60, 1], [60, 150, 1], [170, 150, 1]]).T
    there = [matrix @ np.linalg.inv(matrices[1]) @ at for matrix in matrices]
    for z, found in enumerate(there):
        truth = (STACK.truths[z] @ STACK.truths[1].inverse()).as_affine.in_voxels(STACK.grid, STACK.grid).numpy()
        assert np.abs(found - truth @ at).max() < 3

    # the plane holds all of all sections, and no more
    n, m = STACK.grid.shape
    ends = np.array([[0.0, 0, 1], [n - 1, 0, 1], [0, m - 1, 1], [n - 1, m - 1, 1]]).T
    reached = np.concatenate([(np.linalg.inv(matrix) @ ends)[:2] for matrix in matrices], 1)
    assert np.all(reached.min(1) >= -0.01)
    assert np.all(reached.min(1) < 1)
    assert np.all(reached.max(1) <= np.array(content["plane"]) - 1 + 0.01)
    assert np.all(reached.max(1) > np.array(content["plane"]) - 2.01)

    # the files of transforms are of the same maps, in mm of the sections
    images, known = read_stack(sections, 4e-6), read_transforms(folder / "transforms")
    assert list(known) == ["s8", "s9", "s10", "s11"]
    with tifffile.TiffFile(out) as file:
        volume = file.asarray()
        assert 'PhysicalSizeX="0.004"' in file.ome_metadata
    assert volume.shape == (4, *content["plane"][::-1])
    first = torch.tensor(matrices[1][:2, 2] * -4e-6)  # the plane's first pixel lies here in the reference's world
    pixel = torch.tensor([[100.0, 120.0]], dtype=torch.float64)
    world = images[3].grid.to_voxels(known["s11"](first - 4e-6 * pixel).mT[None])[0, :, 0].numpy()
    assert np.allclose(world, (matrices[3] @ [100, 120, 1])[:2], atol=1e-6)

    # one resampling: the reference is the file itself, pixel by pixel
    left, top = (-matrices[1][:2, 2]).round().astype(int)
    raw = np.asarray(Picture.open(sections / "s9.png"))
    assert np.array_equal(volume[1, top : top + raw.shape[0], left : left + raw.shape[1]], raw)
    moved_masks = tifffile.imread(folder / "masks.ome.tif")
    assert moved_masks.shape == volume.shape
    assert set(np.unique(moved_masks)) == {0, 255}

    table = rows(folder / "sections.csv")
    assert [row["section"] for row in table] == ["s8.png", "s9.png", "s10.png", "s11.png"]
    assert len(rows(folder / "matches.csv")) == 6
    page = (folder / "index.html").read_text()
    assert page.count("data:image/png") == 4
    assert (folder / "stack.png").is_file()

    # nothing is sought again; with another model only matches are
    entries = read_ledger(folder)
    assert len(entries) == 4 + 6
    assert pullback(*words)[0] == 0
    assert {name: entry.when for name, entry in read_ledger(folder).items()} == {n: e.when for n, e in entries.items()}
    assert (folder / "ledger.jsonl").read_text().count("\n") == 2 * len(entries)


def test_a_multi_page_tiff_of_16_bits_and_no_masks(inputs, tmp_path, pullback):
    pages = np.stack([np.asarray(Picture.open(inputs[0] / f"s{n}.png")).astype(np.uint16) * 250 for n in (8, 9, 9, 10)])
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    out = tmp_path / "out" / "volume.nii.gz"
    code, said, err = pullback("stack", tmp_path / "pages.tif", "-o", out, "--reach", 2, *SET)
    assert code == 0, err
    assert "4 sections, 5 of 5 pairs match" in said
    stored = rows(tmp_path / "out" / "volume" / "transforms.csv")
    same = [[float(row[f"m{a}{b}"]) for a in range(2) for b in range(3)] for row in stored[1:3]]
    assert np.allclose(*same, atol=0.05)
    volume = np.asarray(nib.load(out).dataobj)  # (X, Y, Z)
    assert volume.dtype.kind in "iu"
    assert volume.max() > 50_000
    assert np.abs(volume[..., 1].astype(int) - volume[..., 2]).mean() < 250


@pytest.mark.filterwarnings("default")
def test_what_fails_is_named(inputs, tmp_path, pullback):
    upright = replace(STACK, turned=False, pad=0)
    sections, _ = written(tmp_path, upright)
    save(replace(upright, seed=7).section(2).data[0, 0].mT.byte().numpy(), sections / "s10.png")
    out = tmp_path / "a.tif"
    words = ["stack", sections, "-o", out, *SET]
    code, said, _ = pullback(*words)
    assert code == 3
    assert "s10.png does not match s9.png (" in said
    assert "no chain of matches joins s10.png with s9.png" in said
    assert "is not written" in said
    assert not out.exists()
    assert "s10.png does not match" in (tmp_path / "a" / "index.html").read_text()
    code, said, err = pullback(*words, "--skip-bad")
    assert code == 0
    assert "careful: s10.png does not match s9.png" in err
    assert "is written" in said
    assert tifffile.imread(out).shape[0] == 4
    assert [row["placed"] for row in rows(tmp_path / "a" / "sections.csv")] == [
        *["by matches"] * 2,
        "between its neighbours",
        "by matches",
    ]


def test_coloured_sections_stay_in_colour(inputs, tmp_path, pullback):
    for n in (8, 9):
        grey = np.asarray(Picture.open(inputs[0] / f"s{n}.png"))
        save(np.stack([grey, grey // 2, 255 - grey], -1), tmp_path / "colour" / f"{n}.png")
    out = tmp_path / "c.ome.tif"
    code, _, err = pullback("stack", tmp_path / "colour", "-o", out, "--set", "reference=1", *SET)
    assert code == 0, err
    volume = tifffile.imread(out)
    assert volume.shape[0] == 2
    assert volume.shape[-1] == 3
    shift = (
        float(rows(tmp_path / "c" / "transforms.csv")[1]["m02"]),
        float(rows(tmp_path / "c" / "transforms.csv")[1]["m12"]),
    )
    left, top = (-round(each) for each in shift)
    raw = np.asarray(Picture.open(tmp_path / "colour" / "9.png"))
    assert np.array_equal(volume[1, top : top + raw.shape[0], left : left + raw.shape[1]], raw)


def test_smooth_masks_are_cut_at_half_and_gaps_are_told(inputs, tmp_path, pullback):
    sections, masks = inputs
    for n in (8, 9, 11):
        values = np.asarray(Picture.open(masks / f"m{n}.png")).astype(float)
        soft = (values + np.roll(values, 1, 0) + np.roll(values, 1, 1)) / 3
        save(np.repeat(soft.round().astype(np.uint8)[..., None], 3, 2), tmp_path / "masks" / f"{n}.png")
        save(np.asarray(Picture.open(sections / f"s{n}.png")), tmp_path / "sections" / f"{n}.png")
    words = ["stack", tmp_path / "sections", "--masks", tmp_path / "masks", "-o", tmp_path / "a.tif", *SET, "--json"]
    code, said, err = pullback(*words)
    assert code in (0, 3), err
    notes = " ".join(json.loads(said)["notes"])
    assert "8.png: values between 0 and 255, as of smooth edges, were cut at half" in notes
    assert "no section has number 10;" in notes
    assert "nothing says how large a pixel is" in notes


def test_numbers_that_lack():
    assert missing_numbers(["a1.png", "a2.png", "a4.png"]) == [3]
    assert missing_numbers(["a10.png", "a20.png", "a30.png"]) == []
    assert missing_numbers(["a.png", "b.png"]) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{sections}", "-o", "{out}/a.png"], "name a file that ends so"),
        (["{sections}", "--reach", "0"], "--reach 0"),
        (["{sections}", "--thickness", "-1"], "--thickness -1"),
        (["{sections}", "--set", "model=elastic"], "model: one of rigid"),
        (["{sections}", "--masks", "{one}"], "1 masks of 4 sections.*numbers without a mask: 10, 11, 9"),
        (["{one}"], "1 section; a stack has two or more"),
        (["{out}/none"], "a folder of sections, or a TIFF"),
    ],
)
def test_bad_input(inputs, tmp_path, pullback, words, said):
    save(np.asarray(Picture.open(inputs[0] / "s8.png")), tmp_path / "one" / "s8.png")
    known = {"sections": inputs[0], "one": tmp_path / "one", "out": tmp_path / "out"}
    words = [word.format(**known) for word in words]
    words = words if "-o" in words else [*words, "-o", str(tmp_path / "out" / "a.tif")]
    code, _, err = pullback("stack", *words)
    assert code == 1
    assert re.search(said, err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")
def test_an_empty_mask_is_named(inputs, tmp_path, pullback):
    sections, masks = written(tmp_path)
    save(np.zeros_like(np.asarray(Picture.open(masks / "m10.png"))), masks / "m10.png")
    code, _, err = pullback("stack", sections, "--masks", masks, "-o", tmp_path / "a.tif", *SET)
    assert code == 1
    assert "s10.png: 0 components in its mask; a rigid map needs 2" in err
    code, _, err = pullback("stack", sections, "--masks", masks, "-o", tmp_path / "a.tif", *SET, "--skip-bad")
    assert code == 0
    assert "careful: no chain of matches joins s10.png" in err
    assert rows(tmp_path / "a" / "sections.csv")[2]["placed"] == "between its neighbours"


@pytest.mark.nightly
def test_real_sections(shared, tmp_path, pullback):
    folder = shared / "data" / "itkelastix_sem_2d" / "examples" / "data" / "lung_sem"
    code, said, err = pullback("stack", folder, "-o", tmp_path / "lung.ome.tif", "--json")
    assert code == 0, err
    content = json.loads(said)
    assert content["matched"] == content["pairs"] == 30
    assert content["loop error px"] < 0.6
    before, after = content["neighbours"]["correlation"]
    assert before < 0.2
    assert after > 0.85
