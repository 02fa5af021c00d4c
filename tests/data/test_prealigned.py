"""Pre-alignment is transparent: the truth follows, nothing is resampled, and each transform is computed once."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import (
    Folds,
    Learn2Reg,
    Prealigned,
    Singles,
    Subject,
    Test,
    Tori,
    Train,
    Validation,
    pair_of,
    prealigned,
)
from pullback.data.memory import Memory
from pullback.errors import InputError
from pullback.files import read_transform
from pullback.methods.pair.classical import Classical
from pullback.methods.pair.residual_unet import ResidualUNet
from pullback.metrics import Dice
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian, smooth_noise
from pullback.space import Affine, Boxes, Displacement, Grid, Image, Labels, Points, placed, pull
from pullback.study.recipe import Recipe, to_yaml
from pullback.study.run import as_evaluated, load_network, load_run, run
from pullback.study.trained import Trained
from pullback.training import Training, Unsupervised, save_weights, seeded
from pullback.workflows.choices import learned

GRID = Grid.centred((40, 36), 1.5)


def motion(degrees: float = 8.0, shift: tuple[float, float] = (5.0, -3.0), scale: float = 1.03) -> Affine:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return Affine.about(scale * turn, GRID.centre, GRID.centre + torch.tensor(shift, dtype=torch.float64))


@dataclass(frozen=True)
class Same:
    """A register that always answers with one map, and counts how often it is asked."""

    map_: tuple[tuple[float, ...], ...]

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        ASKED.append(self)
        return Alignment(Pair(fixed, moving), Affine(torch.tensor(self.map_, dtype=torch.float64)))


ASKED: list[Same] = []
NOTHING = Classical(initialise=None, linear=(), deformable=None)
KNOWN = Same(tuple(map(tuple, motion().matrix.tolist())))


@dataclass(frozen=True)
class Scan:
    """One of two scans of a person, each seen a little otherwise: those of odd numbers through a motion, too."""

    number: int

    @property
    def name(self) -> str:
        return f"sub-{self.number // 2}_p-{self.number}"

    def load(self) -> Subject:
        chance = make_generator(0, self.number)
        still = gaussian(torch.randn(1, 1, *GRID.shape, generator=make_generator(7)), 2.5)
        back = motion().inverse() if self.number % 2 else Affine.identity(2)
        field = 0.7 * smooth_noise((1, 2, *GRID.shape), 6.0, chance, still)
        whole = Displacement(field, GRID) @ back
        seen = pull(Image(still, GRID), whole, onto=GRID)
        data = seen.data - seen.data.min()
        return Subject(
            replace(seen, data=data / data.max()),
            Labels((seen.data > 0).long() + (seen.data > 0.1).long(), GRID),
            whole,
            name=self.name,
            points=Points(torch.rand(1, 5, 2, generator=chance, dtype=torch.float64) * 20 - 10),
        )


@dataclass(frozen=True)
class People:
    """Pairs of scans of a person, of whom the second is moved."""

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Train:
        cases = [Scan(number) for number in range(4)]
        return Train(cases, pairs=[(cases[0], cases[1]), (cases[2], cases[3])], of=self)

    @property
    def validation(self) -> Validation:
        return Validation([(Scan(4), Scan(5))])

    @property
    def test(self) -> Test:
        return Test([(Scan(6), Scan(7)), (Scan(8), Scan(9))])


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """Each test begins in a process of its own, as far as what is kept goes."""
    monkeypatch.setattr(prealigned, "LOADED", Memory(limit=2**20))
    ASKED.clear()


def net() -> ResidualUNet:
    """A network of random weights that answers with motions of some voxels."""
    with seeded(3):
        network = ResidualUNet(2, (4, 8)).eval()
        nn.init.normal_(network.head.convolution.weight, std=3.0)
    return network


def test_the_truth_and_all_else_follow():
    """A ∘ the new truth is the old one, to 1e-4 voxel; labels and points lie in the new world as the image does."""
    data = Prealigned(People(), KNOWN)
    for cases, pair in zip(People().test.pairs, data.test, strict=True):
        old, start = pair_of(*cases), data.start(pair_of(*cases))
        torch.testing.assert_close(start.matrix, motion().matrix)
        off = ((start @ pair.truth).displacement(GRID) - old.truth.displacement(GRID)).abs().max()
        assert float(off) < 1e-4
        assert torch.equal(pair.moving.data, old.moving.data), "the voxels are the same"
        assert pair.moving_labels.grid == pair.moving.grid
        assert (pair.name, pair.fixed) == (old.name, pair.fixed)
        truths = [float(Dice()(Alignment(each, each.truth))["dice"]) for each in (old, pair)]
        assert truths[0] == truths[1] > 0.7


def test_points_of_one_person_come_along():
    fixed, moving = Scan(0), Scan(1)
    pair = replace(pair_of(fixed, moving), fixed_points=fixed.load().points, moving_points=moving.load().points)
    seen = Prealigned(People(), KNOWN).aligned(pair)
    torch.testing.assert_close(motion()(seen.moving_points.data), pair.moving_points.data)


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0)], ids=["own", "other"])
def test_a_network_sees_a_start_as_the_pre_aligned_image(spacing):
    """f(fixed, moving, start A) = A ∘ f(fixed, placed(moving, A)), and the image is pulled once."""
    pair, start = pair_of(Scan(0), Scan(5)), motion(scale=1.0)  # else images are smoothed otherwise, by their voxels
    trained = Trained(net(), spacing)
    there = trained(pair.fixed, pair.moving, start)
    here = trained(pair.fixed, placed(pair.moving, start))
    off = there.transform.displacement(GRID) - (start @ here.transform).displacement(GRID)
    assert float(off.abs().max()) < 1e-5 * max(GRID.shape)
    assert float(here.transform.displacement(GRID).abs().max()) > 0.5, "the network moves something"
    composed = pull(pair.moving, start @ here.transform, onto=GRID)
    torch.testing.assert_close(there.moved.data, composed.data, atol=1e-5, rtol=0)


def test_a_network_aligns_before_by_itself_what_it_was_trained_on():
    """Unless a start is given."""
    pair = pair_of(Scan(0), Scan(5))
    alone, before = Trained(net()), Trained(net(), before=KNOWN)
    one, other = alone(*pair.images, motion()), before(*pair.images)
    assert torch.equal(one.transform.displacement(GRID), other.transform.displacement(GRID))
    still = Affine.identity(2)
    one, other = alone(*pair.images, still), before(*pair.images, still)
    assert torch.equal(one.transform.displacement(GRID), other.transform.displacement(GRID))
    assert len(ASKED) == 1


def test_a_run_knows_its_pre_alignment(tmp_path):
    """`register --network` aligns before as training did, and `--start header` does not."""
    rings = Tori(32, train_subjects=2, validation_subjects=4, test_subjects=2)
    data = Prealigned(rings, NOTHING, str(tmp_path / "kept"))
    network = partial(ResidualUNet, ndim=2, widths=(2, 2))
    recipe = Recipe("", data, network, Unsupervised(), Training(updates=1, validate_every=1), (Dice(),))
    run(recipe, tmp_path / "run")
    trained = load_run(tmp_path / "run", aligns="pair")[1]
    measured = as_evaluated(tmp_path / "run", *load_network(tmp_path / "run"), torch.device("cpu"))
    assert measured.trained.before is None, "test pairs are aligned already"
    assert trained.before == NOTHING
    assert learned(trained).before == NOTHING
    assert learned(trained, "header").before is None
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(kept) == 3, "one pair that was learned from, and two that chose"
    assert all(name.startswith("torus-") and name.endswith(".tfm") for name in kept)


def test_what_use_is_told_lies_in_any_layer(tmp_path):
    """The scale of the innermost data set, and the pre-alignment of one in folds."""
    network = partial(ResidualUNet, ndim=2, widths=(2, 2))
    for data in (Prealigned(Learn2Reg(scale=500.0), NOTHING), Folds(Prealigned(Learn2Reg(scale=500.0), NOTHING))):
        recipe = Recipe("", data, network, Unsupervised())
        (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
        save_weights(network(), tmp_path / "best.safetensors", {"update": 1})
        trained = load_run(tmp_path)[1]
        assert (trained.scale, trained.before) == (500.0, NOTHING)


def test_each_transform_is_computed_once_and_kept(tmp_path, monkeypatch):
    """Also in another process; of another register, or of images that have changed, none is taken."""
    data = Prealigned(People(), KNOWN, str(tmp_path))
    for _ in range(2):
        first = [pair.moving.grid for pair in data.test]
    assert len(ASKED) == 2
    assert len([*tmp_path.glob("*.tfm")]) == 2
    monkeypatch.setattr(prealigned, "LOADED", Memory(limit=2**20))
    again = [pair.moving.grid for pair in replace(data).test]
    assert len(ASKED) == 2
    assert again == first
    kept = read_transform(next(tmp_path.glob("*.tfm")))
    torch.testing.assert_close(kept.as_affine.matrix, motion().matrix)
    other = Same(tuple(map(tuple, motion(4.0).matrix.tolist())))
    assert [pair.moving.grid for pair in replace(data, register=other).test] != first
    assert len(ASKED) == 4
    pair = pair_of(Scan(6), Scan(7))
    data.start(replace(pair, moving=replace(pair.moving, data=pair.moving.data + 0.01)))
    assert len(ASKED) == 5
    assert len([*tmp_path.glob("*.tfm")]) == 5


def test_a_pre_alignment_that_makes_all_worse_is_named_and_left_out(tmp_path):
    """Away from the other image, or to a tenth of its volume; the pair stays as it was, next time too."""
    pair = pair_of(Scan(1), Scan(1))
    for number, wrong in enumerate((motion(0.0, (40.0, 10.0), 1.0), motion(0.0, (0.0, 0.0), 0.4))):
        register = Same(tuple(map(tuple, wrong.matrix.tolist())))
        data = Prealigned(People(), register, str(tmp_path / str(number)))
        with pytest.warns(UserWarning, match="sub-0_p-1 ← sub-0_p-1: the pre-alignment has failed"):
            seen = data.aligned(pair)
        assert seen.moving.grid == pair.moving.grid
        assert seen.truth is not None
        assert data.aligned(pair).moving.grid == pair.moving.grid
        assert len([*(tmp_path / str(number)).glob("*.failed.tfm")]) == 1
    assert len(ASKED) == 2
    sound = Prealigned(People(), Same(tuple(map(tuple, torch.eye(3).tolist()))))
    assert sound.aligned(pair).moving.grid == pair.moving.grid


@pytest.mark.filterwarnings("ignore:sub-")
def test_many_failures_are_refused(tmp_path):
    """More than a fifth of ten or more."""
    away = Same(tuple(map(tuple, motion(0.0, (40.0, 10.0), 1.0).matrix.tolist())))
    for name in [f"sound-{n}" for n in range(8)] + ["wrong-0.failed"]:
        (tmp_path / f"{name}.tfm").touch()
    data = Prealigned(People(), away, str(tmp_path))
    data.aligned(pair_of(Scan(1), Scan(1)))
    with pytest.raises(InputError, match=r"3 of 11 pre-alignments have failed, such as sub-0_p-1.*pullback doctor"):
        data.aligned(pair_of(Scan(2), Scan(2)))


def test_folds_keep_it_and_it_keeps_folds():
    """Cross-validation of a pre-aligned data set, and pre-alignment of one in folds."""
    inner, outer = Folds(Prealigned(People(), KNOWN), 3), Prealigned(Folds(People(), 3), KNOWN)
    for one, other in ((inner.train, outer.train), (inner.validation, outer.validation), (inner.test, outer.test)):
        assert one.names == other.names
    for one, other in zip(inner.test, outer.test, strict=True):
        assert one.name == other.name
        assert one.moving.grid == other.moving.grid != GRID
    assert inner.train.draw(make_generator(0)).moving.grid == outer.train.draw(make_generator(0)).moving.grid != GRID


def test_several_pairs_are_loaded_as_they_are_drawn():
    split = Prealigned(People(), KNOWN).train
    for cases in split.several(2, make_generator(0)):
        assert split.load(cases).moving.grid == placed(cases[1].load().image, motion()).grid


def test_what_cannot_be_aligned_before_is_refused(tmp_path):
    pair = pair_of(Scan(0), Scan(1))

    def bends(fixed, moving):
        return Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data))

    with pytest.raises(InputError, match=r"answer is linear expected.*Classical\(deformable=None\)"):
        Prealigned(People(), bends).aligned(pair)
    with pytest.raises(InputError, match="sub-0_p-0 ← sub-0_p-1: cannot be pre-aligned: boxes lie along the axes"):
        Prealigned(People(), KNOWN).aligned(replace(pair, moving_boxes=Boxes.of(pair.moving_labels)))

    @dataclass(frozen=True)
    class Alone:
        train = Singles([Scan(0)])

    with pytest.raises(InputError, match="a data set of pairs expected"):
        _ = Prealigned(Alone(), KNOWN).train
    with pytest.raises(InputError, match="no folder given"):
        _ = Prealigned(Learn2Reg(), KNOWN).train
    with pytest.raises(InputError, match="nowhere"):
        _ = Prealigned(Learn2Reg(), KNOWN, root=str(tmp_path / "nowhere")).train
