"""Labels carried through a sequence: where they arrive, whichever way, and what is refused."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture
from typer.testing import CliRunner

from pullback.alignment import Alignment, Pair
from pullback.cli import app
from pullback.errors import InputError
from pullback.files import read_labels, read_transform
from pullback.files.images.series import read_series
from pullback.methods.pair.pdd_net import PDDNet
from pullback.records.csv_records import read_csv
from pullback.space import Affine, Image
from pullback.study.trained import Trained
from pullback.training import seeded
from pullback.workflows.propagate import Carrying, propagate_files

COUNT, STEP, SIZE = 7, 2, (48, 40)
PLACE = (12, 16)  # of the block in frame 0, 8 × 6 voxels


def block(n: int) -> np.ndarray:
    """The label of frame n: it moves by two voxels a frame along the first axis."""
    out = np.zeros(SIZE, np.uint8)
    out[PLACE[0] + STEP * n : PLACE[0] + STEP * n + 8, PLACE[1] : PLACE[1] + 6] = 3
    return out


@dataclass(frozen=True)
class Follows:
    """A register that finds how far the brightest voxel has moved, and in one direction is off by some voxels."""

    off: float = 0.0

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        places = [(image.data[0, 0] == image.data.max()).nonzero().double().mean(0) for image in (fixed, moving)]
        shift = places[1] - places[0]
        if shift[0] > 0:
            shift = shift + torch.tensor([self.off, 0.0], dtype=torch.float64)
        matrix = torch.eye(3, dtype=torch.float64)
        matrix[:2, 2] = fixed.grid.affine[:2, :2] @ shift
        return Alignment(Pair(fixed, moving), Affine(matrix))


@pytest.fixture
def video(tmp_path) -> Path:
    """Seven frames, 0.5 mm a voxel, a bright block that moves on noise."""
    noise = np.random.default_rng(0).random((*SIZE, 1, COUNT)).astype(np.float32)
    for n in range(COUNT):
        noise[..., 0, n] += 2.0 * (block(n) > 0)
        noise[PLACE[0] + STEP * n + 4, PLACE[1] + 3, 0, n] = 9.0
    image = nib.Nifti1Image(noise, np.diag([0.5, 0.5, 1, 1]))
    image.header["pixdim"][4], image.header["xyzt_units"] = 0.04, 2 | 8
    nib.save(image, tmp_path / "video.nii.gz")
    return tmp_path / "video.nii.gz"


def labels_of(video: Path, n: int) -> Path:
    path = video.parent / f"labels_{n}.nii.gz"
    nib.save(nib.Nifti1Image(block(n)[..., None], np.diag([0.5, 0.5, 1, 1])), path)
    return path


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("at", [0, 3])
def test_labels_arrive_in_every_frame_whichever_the_reference(video, tmp_path, chained, at):
    out = tmp_path / "out"
    content = propagate_files(video, labels_of(video, at), at, Carrying(Follows(), chained, transforms=True), out)
    found = nib.load(out / "propagated.nii.gz")
    assert found.shape == (*SIZE, 1, COUNT)
    assert found.header["pixdim"][4] == pytest.approx(0.04)
    assert np.array_equal(np.asarray(found.dataobj)[:, :, 0], np.stack([block(n) for n in range(COUNT)], -1))
    assert np.allclose(found.affine, nib.load(video).affine)
    rows = read_csv(out / "frames.csv")
    assert [row["frame"] for row in rows] == [*range(COUNT)]
    assert [row.get("confidence", 1.0) for row in rows] == [1.0] * COUNT
    assert rows[5]["time s"] == pytest.approx(0.2)
    assert {row["voxels of 3"] for row in rows} == {48}
    assert "milliseconds" not in rows[at]
    assert content["quality"] == {"passed": True, "lost": []}
    assert json.loads((out / "run.json").read_text())["at"] == at
    with Picture.open(out / "propagated.png") as film:
        assert (film.n_frames, film.size) == (COUNT, (5 * SIZE[0], 5 * SIZE[1]))
        film.seek(3)
        colours = np.asarray(film.convert("RGB")).astype(int)
        outline = (colours.max(2) - colours.min(2) > 30).T
    inside = np.zeros(outline.shape, bool)
    inside[5 * (PLACE[0] + 3 * STEP) : 5 * (PLACE[0] + 3 * STEP + 8), 5 * PLACE[1] : 5 * (PLACE[1] + 6)] = True
    assert outline[inside].sum() == outline.sum() == 2 * (40 + 30) - 4
    # points of the frame go to the reference
    moved = read_transform(out / "transforms" / "frame_0005.h5")(torch.zeros(1, 1, 2, dtype=torch.float64))
    assert moved[0, 0].tolist() == pytest.approx([0.5 * STEP * (at - 5), 0], abs=1e-6)
    assert sum(name.startswith("transforms/") for name in content["files"]) == COUNT - 1


def test_answers_that_contradict_each_other_are_not_trusted(video, tmp_path):
    """Off by 3 voxels in one direction: there and back is 1.5 mm, and no frame can be trusted."""
    content = propagate_files(video, labels_of(video, 0), 0, Carrying(Follows(3.0)), tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "frames.csv")
    assert rows[3]["there and back mm"] == pytest.approx(1.5, abs=1e-3)
    assert rows[3]["confidence"] == 0
    assert content["quality"] == {"passed": False, "lost": [*range(1, COUNT)]}
    unchecked = propagate_files(video, labels_of(video, 0), 0, Carrying(Follows(3.0), checked=False), tmp_path / "two")
    assert "quality" not in unchecked
    assert "confidence" not in read_csv(tmp_path / "two" / "frames.csv")[3]


def test_a_chain_adds_up_what_each_step_is_off(video, tmp_path):
    propagate_files(video, labels_of(video, 0), 0, Carrying(Follows(3.0), chained=True), tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "frames.csv")
    assert [row["there and back mm"] for row in rows[1:4]] == pytest.approx([1.5, 3.0, 4.5], abs=1e-3)


def test_a_folder_of_frames_gets_a_folder_of_labels(video, tmp_path):
    """Ordered by number, not by letter."""
    frames = tmp_path / "frames"
    frames.mkdir()
    values = np.asarray(nib.load(video).dataobj)[:, :, 0]
    for n in range(COUNT):
        Picture.fromarray((25 * values[..., n]).astype(np.uint8).T).save(frames / f"f{n + 8}.png")
    Picture.fromarray(block(0).T).save(tmp_path / "reference.png")
    content = propagate_files(frames, tmp_path / "reference.png", 0, Carrying(Follows()), tmp_path / "out")
    found = read_labels(tmp_path / "out" / "labels" / "f12.nii.gz").data[0, 0].numpy()
    assert np.array_equal(found, block(4))
    assert len([name for name in content["files"] if name.startswith("labels/")]) == COUNT
    Picture.fromarray(np.zeros((4, 5), np.uint8)).save(frames / "f99.png")
    with pytest.raises(InputError, match="one grid"):
        propagate_files(frames, tmp_path / "reference.png", 0, Carrying(Follows()), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_pdd_net_keeps_the_references_features_and_answers_the_same(video, tmp_path):
    with seeded(1):
        network = PDDNet(2, half_width=2).eval()
    calls = []
    network.last.register_forward_hook(lambda *_: calls.append(1))
    register = Trained(network, (0.5, 0.5), ndim=2, channels=1)
    carrying = Carrying(register, checked=False, transforms=True)
    propagate_files(video, labels_of(video, 0), 0, carrying, tmp_path / "out")
    assert len(calls) == COUNT  # once for each frame and the reference
    series = read_series(video)
    plain = register(series.frames[4], series.frames[0]).transform.displacement(series.grid)
    found = read_transform(tmp_path / "out" / "transforms" / "frame_0004.h5").displacement(series.grid)
    torch.testing.assert_close(found.float(), plain, atol=1e-4, rtol=0)


def test_the_command(video, tmp_path):
    """By a method without training: ConvexAdam follows a block that moves by up to 6 of 48 voxels."""
    labels, out = labels_of(video, 1), tmp_path / "out"
    command = ["propagate", "-i", str(video), "-l", str(labels), "--at", "1", "-o", str(out), "--json"]
    how = ["--method", "convex-adam", "--aligned", "--unchecked", "--set", "spacing=3"]
    answer = CliRunner().invoke(app, [*command, *how])
    assert answer.exit_code == 0, answer.output
    content = json.loads(answer.output.strip().splitlines()[-1])
    assert content["frames"] == COUNT
    assert content["milliseconds"] > 0
    found = np.asarray(nib.load(out / "propagated.nii.gz").dataobj)[:, :, 0, 3] == 3
    overlap = 2 * (found & (block(3) > 0)).sum() / (found.sum() + 48)
    still = 2 * ((block(1) > 0) & (block(3) > 0)).sum() / 96
    assert overlap > still + 0.2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"at": 7}, "frames 0 to 6"),
        ({"at": -1}, "frames 0 to 6"),
        ({"video": "labels_0.nii.gz"}, "axis is time"),
        ({"labels": "empty.nii.gz"}, "0 everywhere"),
        ({"labels": "other.nii.gz"}, "another grid"),
        ({"video": "nothing"}, "no frames"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refused(video, tmp_path, what, said):
    labels_of(video, 0)
    (tmp_path / "nothing").mkdir()
    for name, shape in (("empty", (*SIZE, 1)), ("other", (9, 9, 1))):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([0.5, 0.5, 1, 1])), tmp_path / f"{name}.nii.gz")
    given = {"video": "video.nii.gz", "labels": "labels_0.nii.gz", "at": 0} | what
    with pytest.raises(InputError, match=said):
        propagate_files(
            tmp_path / given["video"], tmp_path / given["labels"], given["at"], Carrying(Follows()), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
