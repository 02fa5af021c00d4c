"""Pairs of stained sections as a table lists them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from pullback.data import BIRL, pair_of
from pullback.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pairs of three tissues: the source of each has one landmark more, or none at all."""
    noise = np.random.default_rng(0)
    lines = ["status,Target image,Source image,Target landmarks,Source landmarks"]
    for tissue, known in (("kidney_", True), ("lung", True), ("liver", False)):
        place = tmp_path / tissue / "scale-5pc"
        place.mkdir(parents=True)
        for n, stain in enumerate(("HE", "CD8")):
            pixels = noise.integers(0, 255, (30 + n, 40, 3), dtype=np.uint8)
            pixels[:, :, 1] = 255 - 200 * (np.arange(40) > 20)  # glass on the left
            Picture.fromarray(pixels).save(place / f"{stain}.png")
            rows = "".join(f"{k + 1},{5 + 3 * k + n},{8 + k}\n" for k in range(4 + n))
            (place / f"{stain}.csv").write_text(",X,Y\n" + rows)
        points = f"{tissue}/scale-5pc/HE.csv,{tissue}/scale-5pc/CD8.csv" if known else ","
        lines.append(f"training,{tissue}/scale-5pc/HE.png,{tissue}/scale-5pc/CD8.png,{points}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*landmarks; the first")
def test_targets_are_fixed_and_sources_move(folder):
    data = BIRL(str(folder), "pairs.csv")
    assert [(f.name, m.name) for f, m in data.pairs] == [
        (f"{tissue}/HE", f"{tissue}/CD8") for tissue in ("kidney", "lung", "liver")
    ]
    pair = pair_of(*data.pairs[0])
    assert pair.fixed.grid.shape == (40, 30)
    assert pair.moving.grid.shape == (40, 31)
    assert pair.fixed.data.shape[1] == 1


@pytest.mark.filterwarnings("ignore:.*landmarks; the first")
def test_landmarks_lie_where_their_pixels_are(folder):
    """Pixels X to the right and Y down of the file, as grids of pictures have them; also where pixels are larger."""
    for spacing in (None, 2.0):
        pair = pair_of(*BIRL(str(folder), "pairs.csv", spacing).pairs[1])
        pixels = -pair.fixed_points.data[0].numpy()  # RAS of LPS
        np.testing.assert_allclose(pixels, [[5 + 3 * k, 8 + k] for k in range(4)])
        assert pair.fixed.grid.spacing.tolist() == [spacing or 1.0] * 2
        assert bool(pair.fixed.grid.holds(pair.fixed_points.data.mT).all())


def test_lists_of_unequal_length_are_cut_and_it_is_said(folder):
    with pytest.warns(UserWarning, match="4 and 5 landmarks; the first 4"):
        fixed, moving = BIRL(str(folder), "pairs.csv").pairs[0]
    assert [case.load().points.data.shape[1] for case in (fixed, moving)] == [4, 4]


@pytest.mark.filterwarnings("ignore:.*landmarks; the first")
def test_pairs_without_landmarks_have_none(folder):
    pair = pair_of(*BIRL(str(folder), "pairs.csv").pairs[2])
    assert (pair.fixed_points, pair.moving_points) == (None, None)


@pytest.mark.filterwarnings("ignore:.*landmarks; the first")
def test_splits_are_of_tissues(folder):
    data = BIRL(str(folder), "pairs.csv", test_split=("lung",), validation_split=("liver",))
    assert [split.names for split in (data.train, data.validation, data.test)] == [("kidney",), ("liver",), ("lung",)]
    assert len(BIRL(str(folder), "pairs.csv", test_split=1.0).test) == 3
    drawn = [BIRL(str(folder), "pairs.csv", seed=n) for n in range(8)]
    for each in drawn:
        names = [set(split.names) for split in (each.train, each.validation, each.test)]
        assert all(names)
        assert set.union(*names) == {"kidney", "lung", "liver"}
        assert sum(map(len, names)) == 3
    assert len({each.test.names for each in drawn}) > 1


@pytest.mark.filterwarnings("ignore:.*landmarks; the first")
def test_what_is_missing_is_said(folder):
    with pytest.raises(InputError, match=r"nowhere\.csv: no table of pairs.*--data DIR"):
        _ = BIRL(str(folder), "nowhere.csv").pairs
    with pytest.raises(InputError, match=r"no tissue 'heart'.*kidney"):
        _ = BIRL(str(folder), "pairs.csv", test_split=("heart",), validation_split=0.3).test
    table = folder / "pairs.csv"
    table.write_text(table.read_text().replace("lung/scale-5pc/CD8.png", "lung/CD8.png"))
    with pytest.raises(InputError, match=r"lung/CD8\.png: no such file, and the table names it"):
        _ = BIRL(str(folder), "pairs.csv").pairs
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns Target image and Source image"):
        _ = BIRL(str(folder), "pairs.csv").pairs


def test_the_real_table(shared):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pairs = BIRL(str(shared / "data/birl_histology/data-images")).pairs
    assert [(fixed.subject, fixed.count, moving.count) for fixed, moving in pairs] == [
        ("rat-kidney", 69, 69),
        ("lesions", 78, 78),
    ]
    assert ["71 and 69" in str(each.message) for each in said] == [True]
