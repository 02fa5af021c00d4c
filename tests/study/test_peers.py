"""Other people's registrations as arms: what they found is what is measured."""

from dataclasses import dataclass, replace
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from pullback.alignment import Alignment
from pullback.data import BrainPhantom
from pullback.errors import InputError
from pullback.files import read_image, read_labels, write
from pullback.metrics import Dice
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import nearby
from pullback.space import Affine, pull
from pullback.studies._moved_blocks import corners_apart
from pullback.study import peers
from pullback.study.peers import Answer, ANTs, Greedy, Peer, PeerArm, RigidSimpleITK
from pullback.study.plan import run_study
from pullback.study.table import Experiment

DATA = BrainPhantom(spacing=6.0, train_subjects=2, validation_subjects=2, test_subjects=2)
PAIR = next(iter(DATA.test))


def missing(name):
    raise ImportError(name)


def written(pair, folder):
    paths = [folder / f"{side}.nii.gz" for side in ("fixed", "moving")]
    for image, path in zip((pair.fixed, pair.moving), paths, strict=True):
        write(image, path)
    return paths


def test_what_ants_found_moves_images_and_labels_as_ants_does(monkeypatch, tmp_path):
    """How well it aligns is its own affair: Dice of 0.70 to 0.75 from run to run, by the chance of its threads."""
    ants = pytest.importorskip("ants")
    write(PAIR.moving_labels, tmp_path / "labels.nii.gz")
    theirs = {}

    class Spied:
        def __getattr__(self, name):
            return getattr(ants, name)

        def registration(self, fixed, moving, *args, **kwargs):
            found = ants.registration(fixed, moving, *args, **kwargs)
            theirs["image"] = ants.apply_transforms(fixed, moving, found["fwdtransforms"]).numpy()
            return found

    monkeypatch.setattr(peers, "import_module", lambda name: Spied())
    found = ANTs()(*written(PAIR, tmp_path), tmp_path)
    ours = Alignment(PAIR, found.transform)
    off = np.abs(ours.moved.data[0, 0].numpy() - theirs["image"])
    assert off.mean() < 1e-4 * theirs["image"].max()
    labels, still = found.pulled(tmp_path / "labels.nii.gz"), PAIR.moving_labels.data[0, 0].numpy()
    differ, moved = ((x != labels).mean() for x in (ours.moved_labels.data[0, 0].numpy(), still))
    assert differ < 1e-3 < 0.05 < moved


def test_what_greedy_found_moves_labels_as_greedy_does(tmp_path):
    pytest.importorskip("picsl_greedy")
    write(PAIR.moving_labels, tmp_path / "labels.nii.gz")
    found = Greedy(affine="20x5x0", field="20x5x0")(*written(PAIR, tmp_path), tmp_path)
    ours = Alignment(PAIR, found.transform)
    assert float((ours.moved.data - PAIR.fixed.data).abs().mean()) < 0.8 * float(
        (PAIR.moving.data - PAIR.fixed.data).abs().mean()
    )
    labels, still = found.pulled(tmp_path / "labels.nii.gz"), PAIR.moving_labels.data[0, 0].numpy()
    differ, moved = ((x != labels).mean() for x in (ours.moved_labels.data[0, 0].numpy(), still))
    assert differ < 1e-3 < 0.05 < moved


def test_simpleitk_brings_back_a_small_rigid_motion_of_another_contrast(tmp_path):
    fixed, turn = PAIR.fixed, nearby(torch.eye(3).double()[None], 1, 8.0, make_generator(0))[0]
    middle = fixed.grid.centre
    truth = Affine.about(turn, middle, middle + torch.tensor([6.0, -4.0, 5.0], dtype=torch.float64))
    other = replace(fixed, data=fixed.data.max() - fixed.data)
    moving = pull(other, truth.inverse(), onto=fixed.grid)
    pair = replace(PAIR, fixed=fixed, moving=moving)
    found = RigidSimpleITK(levels=3, sampled=1.0)(*written(pair, tmp_path), tmp_path).transform
    before, after = (corners_apart(map_, truth, fixed.grid) for map_ in (Affine.identity(3), found))
    assert after < 0.1 * before
    matrix = found.as_affine.matrix[..., :3, :3].reshape(3, 3).double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_syn_climbs_what_it_is_told_to_and_else_its_own(monkeypatch, tmp_path):
    asked = []

    class Fake:
        def image_read(self, path):
            return path

        def registration(self, *images, **settings):
            asked.append({k: v for k, v in settings.items() if k != "outprefix"})
            return {"fwdtransforms": []}

    monkeypatch.setattr(peers, "import_module", lambda name: Fake())
    monkeypatch.setattr(peers, "read_ants", lambda paths: Affine.identity(3))
    for peer in (ANTs(), ANTs("SyNCC"), ANTs(metric="meansquares")):
        peer(*written(PAIR, tmp_path), tmp_path)
    assert asked == [{}, {}, {"syn_metric": "meansquares"}]
    with pytest.raises(InputError, match="SyNCC climbs local cross-correlation"):
        ANTs("SyNCC", "meansquares")


def test_by_mean_squares_syn_finds_another_map_than_by_mutual_information(tmp_path):
    """And, of intensities that compare, one whose squared difference is less than before."""
    pytest.importorskip("ants")
    paths = written(PAIR, tmp_path)
    before = float((PAIR.fixed.data - PAIR.moving.data).square().mean())
    found = [ANTs("SyN", metric)(*paths, tmp_path).transform for metric in ("meansquares", "mattes")]
    moved = [Alignment(PAIR, transform).moved.data for transform in found]
    assert float((moved[0] - PAIR.fixed.data).square().mean()) < 0.8 * before
    assert float((moved[0] - moved[1]).abs().max()) > 0.01


def test_where_it_is_not_installed_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "import_module", missing)
    with pytest.raises(InputError, match=r"SyNCC needs antspyx: pip install 'pullback\[peers\]'"):
        ANTs("SyNCC")(*written(PAIR, tmp_path), tmp_path)


@dataclass(frozen=True)
class Still(Peer):
    """A tool that moves nothing, in a second by its own clock; by its own hand it shifts labels by some voxels."""

    shift: int = 0

    def __call__(self, fixed, moving, folder):
        assert read_image(fixed).grid == PAIR.fixed.grid
        assert folder.is_dir()

        def pulled(labels):
            return np.roll(read_labels(labels).data[0, 0].numpy(), self.shift, 0)

        return Answer(Affine.identity(3), 1.0, pulled)


def test_a_tool_is_measured_by_its_transform_its_own_clock_and_its_own_hand(tmp_path):
    arms = {"honest": PeerArm(Still()), "other": PeerArm(Still(shift=3))}
    experiments = {"table": {"phantom": Experiment(arms, "", DATA, (Dice(),))}}
    (result,) = run_study(experiments, {}, tmp_path, (0, 1), {}, Console(file=StringIO()))["table"]
    expected = [Dice()(Alignment(pair, Affine.identity(3)))["dice"] for pair in DATA.test]
    for arm in arms:
        assert [row["dice"] for row in result.rows[arm]] == pytest.approx(expected)
        assert {row["seconds"] for row in result.rows[arm]} == {1.0}
        assert {row["subject"] for row in result.rows[arm]} == set(DATA.test.names)
    assert [row["own dice"] for row in result.rows["honest"]] == pytest.approx(expected)
    assert all(row["own dice"] < row["dice"] - 0.05 for row in result.rows["other"])


def test_a_tool_that_is_missing_has_no_line(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "import_module", missing)
    console = Console(record=True, file=StringIO(), width=200)
    arms = {"still": PeerArm(Still()), "SyN": PeerArm(ANTs())}
    experiments = {"table": {"phantom": Experiment(arms, "", DATA, (Dice(),))}}
    (result,) = run_study(experiments, {}, tmp_path, (0,), {}, console)["table"]
    assert [*result.rows] == ["still"]
    assert "SyN needs antspyx" in console.export_text()
