"""What the study of NCR-Net measures: growth that stops, registration near a lesion, and ways that disagree."""

from dataclasses import replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import LesionedPairs, PairFolder
from pullback.data.phantoms.lesions import Lesions
from pullback.files import write
from pullback.methods.pair.ncr_net import MAP, NCRNet
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.space import Affine, Displacement, Grid, Image, Labels
from pullback.studies._dirac import BothWays, ByDisagreement, Disagreement
from pullback.studies._lesions import ByDistance, LesionEvaluation, Told, brain, grown, widened
from pullback.testing import check_supervision, problems

SHAPE = (40, 44)


def disc(radius, at=(19.5, 21.5)):
    where = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in SHAPE), indexing="ij"))
    return ((where - torch.tensor(at).view(2, 1, 1)).norm(dim=0) <= radius)[None, None]


def head(*dark):
    """A bright disc with dark ones within."""
    data = 0.7 * disc(18.0).float()
    for region in dark:
        data = torch.where(region, 0.1, data)
    return Image(data, Grid.centred(SHAPE, 2.0))


def test_a_seed_grows_to_the_whole_lesion():
    lesion = disc(6.0)
    assert torch.equal(grown(disc(4.0), head(lesion)), lesion)


def test_growth_that_leaks_leaves_the_seed():
    """A bridge to a dark region of more than four times the size."""
    bridge = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    bridge[0, 0, 20, 7:25] = True
    seed, ventricle = disc(2.0, (20.0, 25.0)), disc(7.0, (20.0, 13.0))
    assert torch.equal(grown(seed, head(seed, bridge, ventricle)), seed)


def test_parts_grow_by_themselves_and_stay_in_the_brain():
    one, two = disc(4.0, (12.0, 20.0)), disc(4.0, (28.0, 20.0))
    image = head(one)
    image = replace(image, data=torch.where(two, 0.4, image.data))
    assert torch.equal(grown(disc(2.0, (12.0, 20.0)) | disc(2.0, (28.0, 20.0)), image), one | two)
    assert torch.equal(brain(image), disc(18.0))
    assert not grown(torch.zeros_like(one), image).any()


class Perfect:
    """A register that knows the lesion by its intensity, and is led astray by it by some voxels everywhere."""

    def __init__(self, astray=0.0):
        self.astray = astray

    def __call__(self, fixed, moving):
        dark = (fixed.data - 0.05).abs() < 1e-3  # what texture has of it are single voxels, if any
        field = torch.zeros(1, 2, *fixed.grid.shape)
        field[:, 0] = self.astray * float(dark.sum() > 20)
        return Alignment(Pair(fixed, moving), Displacement(field, fixed.grid), {MAP: Image(dark.float(), fixed.grid)})


def data(tmp_path):
    for n in range(6):
        texture = 0.02 * smooth_noise((1, 1, *SHAPE), 2.0, make_generator(n), torch.zeros(()))
        image = head()
        image = replace(image, data=(image.data + texture * (image.data > 0)).float())
        write(image, tmp_path / f"s{n}.nii.gz")
        write(Labels((1 + (image.data > 0.7).long()) * (image.data > 0), image.grid), tmp_path / f"l{n}.nii.gz")
    folder = PairFolder(
        images="s{subject}.nii.gz", labels="l{subject}.nii.gz", validation_split=("0", "1"), test_split=("2", "3")
    )
    kinds = (Lesions((10.0, 10.0), new=0.0, intensity=(0.05, 0.05), rim=0.02),)
    return LesionedPairs(folder, kinds, root=str(tmp_path))


def test_a_row_has_all_kinds_of_a_healthy_pair(tmp_path):
    evaluation = LesionEvaluation(data(tmp_path).test)
    assert len(evaluation) == 2
    one, two = (list(evaluation.rows(Perfect(n), torch.device("cpu"))) for n in (0.0, 1.5))
    assert [row["pair"] for row in one] == ["2 ← 3", "3 ← 2"]
    for row in one:
        assert row["dice 10 mm"] > 0.9
        assert row["grown 10 mm"] > 0.8
        assert row["found 10 mm"] == 1
        assert row["off mm 10 mm"] == 0
        assert row["marked % none"] < 0.5
        assert 0 < row["jaccard none"] <= 1
    assert all(row["off mm 10 mm"] == pytest.approx(3.0) for row in two)  # 1.5 voxels of 2 mm
    assert all(row["surface mm 10 mm"] > other["surface mm 10 mm"] for row, other in zip(two, one, strict=True))
    assert evaluation.score({"jaccard none": 0.4}) == 0.4


def test_who_is_told_sees_the_lesion_as_a_mask(tmp_path):
    seen = []

    def register(fixed, moving):
        seen.append(fixed.mask)
        return Alignment(Pair(fixed, moving), Affine.identity(2))

    list(LesionEvaluation(data(tmp_path).test).rows(Told(register), torch.device("cpu")))
    assert [int((~mask).sum()) > 0 for mask in seen] == [False, True] * 2


def test_a_region_is_widened_by_voxels():
    point = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    point[0, 0, 4, 4] = True
    assert int(widened(point, 2).sum()) == 25


class OneWay:
    """A register that shifts by a bump one way, and by its inverse or by nothing the other way."""

    def __init__(self, consistent):
        self.consistent, self.first = consistent, True

    def __call__(self, fixed, moving):
        bump = torch.zeros(1, 2, *SHAPE)
        bump[:, 1] = 4 * torch.exp(-((disc_distance() / 5) ** 2))
        there = Displacement(bump, fixed.grid)
        back = there.inverse() if self.consistent else Displacement(0 * bump, fixed.grid)
        answer, self.first = (there if self.first else back), not self.first
        return Alignment(Pair(fixed, moving), answer)


def disc_distance():
    where = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in SHAPE), indexing="ij"))
    return (where - 20.0).norm(dim=0)


def test_ways_that_disagree_are_marked_where_they_do():
    image = head()
    agreed = ByDisagreement(OneWay(True))(image, image).maps[MAP].data
    apart = ByDisagreement(OneWay(False))(image, image).maps[MAP].data > 0
    assert not agreed.any()
    assert apart[0, 0, 20, 20]
    assert not apart[0, 0][disc_distance() > 12].any()


def test_both_ways_learn():
    (problem,) = problems("smooth", ndim=2)
    check_supervision(BothWays(), lambda: NCRNet(2, 2), problem.pair)
    off = Disagreement().distance(Affine.identity(2), Affine.identity(2), Alignment(problem.pair, Affine.identity(2)))
    assert float(off.max()) < 1e-5


def test_distances_above_beta_are_marked():
    image = head(disc(5.0))
    found = ByDistance(lambda fixed, moving: Alignment(Pair(fixed, moving), Affine.identity(2)), 0.1)(image, head())
    assert torch.equal(found.maps[MAP].data > 0, disc(5.0))
