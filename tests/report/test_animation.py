"""Animations: what a reader of another house sees is what was written, picture by picture."""

import numpy as np
import pytest
from PIL import Image as Picture

from pullback.errors import InputError
from pullback.report.animation import write_animation


def played(path):
    """The pictures of a file, each for as many ms as it is seen, and how often they repeat (0 is without end)."""
    with Picture.open(path) as file:
        frames = []
        for n in range(file.n_frames):
            file.seek(n)
            frames.append((np.asarray(file.convert("RGB")), file.info["duration"]))
        return frames, file.info["loop"]


@pytest.mark.parametrize("colours", [(), (3,)])
@pytest.mark.parametrize("suffix", ["png", "apng"])
def test_every_picture_is_seen_for_its_time(colours, suffix, tmp_path):
    """A square that moves, and leaves nothing behind."""
    frames = [np.zeros((9, 14, *colours), dtype=np.uint8) for _ in range(5)]
    for n, frame in enumerate(frames):
        frame[2 : 4 + n, n : n + 3] = 40 * n + 50
    write_animation(frames, tmp_path / f"a.{suffix}", milliseconds=70)
    found, loop = played(tmp_path / f"a.{suffix}")
    assert loop == 0
    assert [time for _, time in found] == [70] * 5
    for frame, (seen, _) in zip(frames, found, strict=True):
        np.testing.assert_array_equal(seen, frame if colours else np.repeat(frame[..., None], 3, 2))
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{suffix}"]


def test_floats_run_from_black_to_white_and_are_cut_off_there(tmp_path):
    write_animation([np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]])], tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as file:
        assert np.asarray(file.convert("L")).tolist() == [[0, 0, 128, 255, 255]]


def test_stored_order_of_the_pixels_does_not_matter(tmp_path):
    frame = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_animation([frame[:, ::-1], np.asfortranarray(frame)], tmp_path / "a.png")
    (one, _), (two, _) = played(tmp_path / "a.png")[0]
    np.testing.assert_array_equal(one[..., 0], frame[:, ::-1])
    np.testing.assert_array_equal(two[..., 0], frame)


@pytest.mark.parametrize(
    ("frames", "name", "time", "said"),
    [
        ([], "a.png", 100, "one shape"),
        ([np.zeros((3, 4)), np.zeros((4, 3))], "a.png", 100, "one shape"),
        ([np.zeros((3, 4, 2))], "a.png", 100, r"\(rows, columns, 3\)"),
        ([np.zeros((3, 4))], "a.gif", 100, ".apng"),
        ([np.zeros((3, 4))], "a.png", 0, "1 ms"),
    ],
)
def test_refusals(frames, name, time, said, tmp_path):
    with pytest.raises(InputError, match=said):
        write_animation(frames, tmp_path / name, time)
    assert not list(tmp_path.iterdir())
