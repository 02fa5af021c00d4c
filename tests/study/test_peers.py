"""Other people's registrations as registers: what they found is what is measured."""

import pytest
import torch

from pullback.alignment import Alignment
from pullback.data import Cohort
from pullback.errors import InputError
from pullback.metrics import Dice
from pullback.space import Affine, pull
from pullback.study import peers
from pullback.study.peers import ANTs

PAIR = next(iter(Cohort(spacing=6.0, train_subjects=2, validation_subjects=2, test_subjects=2).test))


def test_syn_aligns_and_moves_images_as_ants_does(monkeypatch):
    ants = pytest.importorskip("ants")
    kept = {}

    class Spied:
        def __getattr__(self, name):
            return getattr(ants, name)

        def registration(self, fixed, moving, *args, **kwargs):
            found = ants.registration(fixed, moving, *args, **kwargs)
            kept["moved"] = ants.apply_transforms(fixed, moving, found["fwdtransforms"]).numpy()
            return found

    monkeypatch.setattr(peers, "import_module", lambda name: Spied())
    found = ANTs()(PAIR.fixed, PAIR.moving)
    moved = pull(PAIR.moving, found.transform, onto=PAIR.fixed).data[0, 0]
    off = (moved - torch.from_numpy(kept["moved"])).abs()
    assert float(off.mean()) < 1e-3 * float(moved.max())
    before, after = (Dice()(Alignment(PAIR, t))["dice"] for t in (Affine.identity(3), found.transform))
    assert after > before + 0.05


def test_where_it_is_not_installed_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(peers, "import_module", missing)
    with pytest.raises(InputError, match=r"SyNCC needs antspyx: pip install 'pullback\[peers\]'"):
        ANTs("SyNCC")(PAIR.fixed, PAIR.moving)
