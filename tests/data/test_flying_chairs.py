"""Flying Chairs as they are distributed, by a stand-in of the same layout: an ellipse over a ground, both moving."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.data import FlyingChairs
from pullback.data.flying_chairs import SPLIT, read_flow
from pullback.errors import InputError
from pullback.space import pull

WIDTH, HEIGHT = 40, 28
GROUND, THING = (2, -1), (-3, 2)  # pixels, x and y, between the pictures


def texture(x, y, seed):
    return 0.5 + 0.2 * np.sin(0.9 * x + seed) + 0.2 * np.cos(0.7 * y - 2 * seed)


def write_pair(folder, name):
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    thing = ((x - 20) / 8) ** 2 + ((y - 14) / 6) ** 2 < 1  # in the first picture
    there = ((x - 20 - THING[0]) / 8) ** 2 + ((y - 14 - THING[1]) / 6) ** 2 < 1
    one = np.where(thing, texture(x, y, 1.0), texture(x, y, 2.0))
    moved = [texture(x - dx, y - dy, seed) for (dx, dy), seed in ((THING, 1.0), (GROUND, 2.0))]
    for number, values in ((1, one), (2, np.where(there, *moved))):
        colours = np.stack([values, 0.5 * values, 0.25 * values], -1)
        Picture.fromarray((255 * colours).round().astype(np.uint8)).save(folder / f"{name}_img{number}.ppm")
    flow = np.where(thing[..., None], np.array(THING, "<f4"), np.array(GROUND, "<f4"))
    (folder / f"{name}_flow.flo").write_bytes(struct.pack("<fii", 202021.25, WIDTH, HEIGHT) + flow.tobytes())
    return thing


@pytest.fixture
def chairs(tmp_path):
    (tmp_path / "data").mkdir()
    words = ["1", "1", "2", "1", "1", "2"]
    for number in range(1, 7):
        write_pair(tmp_path / "data", f"{number:05d}")
    (tmp_path / SPLIT).write_text("\n".join(words))
    return FlyingChairs(str(tmp_path), validation_split=0.4)


def test_the_second_picture_pulled_through_the_flow_is_the_first(chairs):
    """But where what the ellipse hides, or will hide, is seen, and at the border."""
    pair = next(iter(chairs.test))
    assert pair.fixed.grid.shape == (WIDTH, HEIGHT)
    assert pair.truth.field[0, :, 20, 14].tolist() == list(THING)
    assert pair.truth.field[0, :, 1, 1].tolist() == list(GROUND)
    off = (pull(pair.moving, pair.truth, onto=pair.fixed).data - pair.fixed.data).abs()[0, 0]
    assert float(off[17:24, 12:17].max()) < 0.01
    assert float(off[:, :4][4:-4, 2:].max()) < 0.01
    assert float((pair.moving.data - pair.fixed.data).abs().mean()) > 0.05


def test_splits_are_those_of_the_list(chairs):
    assert chairs.test.names == ("00003", "00006")
    learned = {case.name for case in chairs.train.cases} | set(chairs.validation.names)
    assert learned == {"00001", "00002", "00004", "00005"}
    assert len(chairs.validation) + len(chairs.train.cases) == 4


def test_colours_are_averaged_or_kept(chairs):
    grey = next(iter(chairs.test)).fixed.data
    colours = next(iter(FlyingChairs(chairs.root, grey=False, validation_split=0.4).test)).fixed.data
    assert colours.shape[1] == 3
    torch.testing.assert_close(colours.mean(1, keepdim=True), grey)
    assert float(grey.max()) <= 1


def test_what_is_no_flow_is_refused(chairs, tmp_path):
    path = tmp_path / "data" / "00003_flow.flo"
    stored = path.read_bytes()
    for wrong in (stored[:-4], b"PIEH" + stored[4:-8], b"", struct.pack("<f", 1.0) + stored[4:]):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="Middlebury"):
            read_flow(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        next(iter(chairs.test))
    (tmp_path / "data" / "00006_img2.ppm").write_bytes(b"P6")
    with pytest.raises(InputError, match="not a readable picture"):
        list(chairs.test.without(["00003"]))
    with pytest.raises(InputError, match="between 0 and 1"):
        FlyingChairs(validation_split=1.0)
    with pytest.raises(InputError, match="which says with 1 and 2"):
        _ = FlyingChairs(str(tmp_path / "data")).train
