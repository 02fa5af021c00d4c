"""Other people's registrations as registers: what they found is what is measured."""

import numpy as np
import pytest

from pullback.alignment import Alignment
from pullback.data import BrainPhantom
from pullback.errors import InputError
from pullback.files import write
from pullback.study import peers
from pullback.study.peers import ANTs

PAIR = next(iter(BrainPhantom(spacing=6.0, train_subjects=2, validation_subjects=2, test_subjects=2).test))


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
            files, labels = found["fwdtransforms"], ants.image_read(str(tmp_path / "labels.nii.gz"))
            theirs["image"] = ants.apply_transforms(fixed, moving, files).numpy()
            theirs["labels"] = ants.apply_transforms(fixed, labels, files, interpolator="nearestNeighbor").numpy()
            return found

    monkeypatch.setattr(peers, "import_module", lambda name: Spied())
    found = ANTs()(PAIR.fixed, PAIR.moving)
    ours = Alignment(PAIR, found.transform)
    off = np.abs(ours.moved.data[0, 0].numpy() - theirs["image"])
    assert off.mean() < 1e-4 * theirs["image"].max()
    still = PAIR.moving_labels.data[0, 0].numpy()
    differ, moved = ((x != theirs["labels"]).mean() for x in (ours.moved_labels.data[0, 0].numpy(), still))
    assert differ < 1e-3 < 0.05 < moved


def test_where_it_is_not_installed_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(peers, "import_module", missing)
    with pytest.raises(InputError, match=r"SyNCC needs antspyx: pip install 'pullback\[peers\]'"):
        ANTs("SyNCC")(PAIR.fixed, PAIR.moving)
