"""Videos of speckle: statistics of a closed form, motion that is known, and frames that make pairs."""

import math

import pytest
import torch
from PIL import Image as Picture

from pullback.alignment import Alignment
from pullback.data import Compressions, FramePairs, PairFolder, Synthesis, Synthetic
from pullback.data.case import pair_of
from pullback.data.phantoms.speckle import FINE, envelope
from pullback.data.phantoms.ultrasound import Film
from pullback.errors import InputError
from pullback.metrics import Dice
from pullback.numerics.difference import determinant, jacobian
from pullback.space import Affine, Points, push

SMALL = Compressions(side=64, frames=20, train_videos=3, validation_videos=1, test_videos=2)


@pytest.fixture(scope="module")
def film() -> Film:
    return Film(128, 0, 1)


def homogeneous(film: Film, fresh: float = 0.0, frame: int = 0, moved: float = 0.0) -> torch.Tensor:
    """The envelope of scatterers alone."""
    at = film.fine.voxels(film.fine.affine)[None] / FINE
    at[:, 1] = at[:, 1] * (1 - moved)
    return envelope(film.scatterers(at, fresh, frame))


def correlated(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def test_speckle_is_rayleigh():
    """Mean over deviation of a Rayleigh variable, the root of π / (4 − π) = 1.91, and intensities of mean 1."""
    seen = torch.cat([homogeneous(Film(128, 0, number)).flatten() for number in range(6)])
    assert float(seen.mean() / seen.std()) == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), abs=0.05)
    assert float(seen.square().mean()) == pytest.approx(1, abs=0.05)


def test_speckle_moves_with_tissue_and_is_lost_as_scatterers_are_drawn_anew(film):
    still = homogeneous(film)
    some, more, all_new = (correlated(still, homogeneous(film, fresh, 3)) for fresh in (0.01, 0.3, 1.0))
    assert 0.95 < some < 1
    assert some > more > 0.4
    assert abs(all_new) < 0.1
    assert correlated(still, homogeneous(film, 0.0, 3)) == pytest.approx(1)
    assert correlated(still, homogeneous(film, moved=1e-4)) > 0.99


def test_frames_show_one_material_by_transforms_without_folds(film):
    """What a frame shows at x, the reference shows at truth(x), to a fiftieth of a voxel."""
    d = Compressions(train_videos=1, validation_videos=1, test_videos=1)
    frames = d.video(1)
    for n in (12, 20, 30):
        pair = pair_of(frames[n], frames[2])
        where = film.grid.to_world(film.grid.voxels(film.grid.affine)[None])[:, :, 20:100:7, 20:100:7].flatten(2).mT
        shown, known = (film.pose(k / 39) for k in (n, 2))
        there = push(Points(where), pair.truth)
        off = (push(Points(where), shown).data - push(there, known).data).norm(dim=-1)
        assert float(off.max()) < 0.02 * 0.3
        assert float(determinant(jacobian(shown.displacement(film.grid))).min()) > 0.05
        before, after = (Dice()(Alignment(pair, t))["dice"] for t in (Affine.identity(2), pair.truth))
        assert after > 0.95 > before


def test_the_other_way_round_is_not_the_truth():
    """Labels pulled by what points should be pushed by, as if the reference were fixed, miss."""
    frames = Compressions(train_videos=1, validation_videos=1, test_videos=1).video(1)
    pair = pair_of(frames[20], frames[2])
    wrong = Dice()(Alignment(pair, pair.truth.inverse()))["dice"]
    assert wrong < Dice()(Alignment(pair, pair.truth))["dice"] - 0.3


def test_a_vein_collapses_and_an_artery_does_not():
    frames = [case.load().labels.data for case in Compressions(test_videos=1).video(1)]
    vein, artery = ([int((labels == value).sum()) for labels in frames] for value in (1, 2))
    assert min(vein) < 0.35 * vein[0]
    assert min(artery) > 0.7 * artery[0]
    assert max(vein[:8]) < 1.1 * min(vein[:8])  # the probe rests


def test_pairs_are_of_one_video_and_splits_of_different_ones():
    near = Compressions(side=64, frames=20, train_videos=3, test_videos=2, pairing=FramePairs(apart=6))
    pairs = near.train.pairs
    assert len(pairs) == 3 * 14
    assert all(fixed.frame - moving.frame == 6 and fixed.video == moving.video for fixed, moving in pairs)
    references = {fixed.video: set() for fixed, _ in SMALL.train.pairs}
    for fixed, moving in SMALL.train.pairs:
        references[fixed.video].add(moving.frame)
        assert (fixed.frame - moving.frame) % 4 == 0
        assert fixed.frame > moving.frame
    assert all(len(found) == 1 and max(found) < 4 for found in references.values())
    test = SMALL.test
    assert len(test) == sum(19 - moving.frame for moving in {case for _, case in test.pairs})
    videos = [{case.video for pair in split.pairs for case in pair} for split in (SMALL.train, SMALL.validation, test)]
    assert videos == [{3, 4, 5}, {2}, {0, 1}]
    assert test.names[0].startswith("sub-0000/")


def test_synthetic_pairs_are_of_first_frames_and_the_truth_is_known():
    told = Compressions(
        side=64,
        frames=20,
        train_videos=2,
        validation_videos=1,
        test_videos=1,
        synthetic=Synthetic(Synthesis(displacement=2.0, degrees=2.0, translation=2.0)),
    )
    (pair,) = told.validation
    assert pair.truth is not None
    assert [case.frame for case in told.train.cases] == [0, 0]


def test_a_folder_of_frames(tmp_path):
    """Pictures by video and number: pairs within a video only, and every later frame at test."""
    for video in "abcd":
        for number in range(1, 13):
            path = tmp_path / video / f"{number:05d}.png"
            path.parent.mkdir(exist_ok=True)
            values = (255 * torch.rand(8, 8)).byte().numpy()
            Picture.fromarray(values).save(path)
    splits = {"validation_split": ("c",), "test_split": ("d",)}
    folder = PairFolder(str(tmp_path), "{subject}/{frame}.png", within=True, pairing=FramePairs(apart=6), **splits)
    assert len(folder.train.pairs) == 2 * 6
    assert all(fixed.name.split("/")[0] == moving.name.split("/")[0] for fixed, moving in folder.train.pairs)
    reference = folder.test.pairs[0][1].name
    assert [fixed.name for fixed, _ in folder.test.pairs][-1] == "d/00012"
    assert {moving.name for _, moving in folder.test.pairs} == {reference}
    with pytest.raises(InputError, match=r"data\.within"):
        _ = PairFolder(str(tmp_path), "{subject}/{frame}.png", pairing=FramePairs(), **splits).train


@pytest.mark.parametrize("wrong", [{"apart": 0}, {"every": 0}, {"first": 0.0}])
def test_pairs_that_are_none(wrong):
    with pytest.raises(InputError, match="frames"):
        FramePairs(**wrong)


def test_videos_that_are_none():
    with pytest.raises(InputError, match="32 voxels"):
        Compressions(side=16)
