"""MITO: exact laws of its maps, its promises, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pullback.data.phantoms.em_stack import EMStack
from pullback.errors import InputError
from pullback.group import Group
from pullback.methods.group.mito import Mito
from pullback.methods.group.opencv_features import by_brute_force, by_flann, opencv
from pullback.methods.group.section_features import mask_centres
from pullback.methods.group.stack_solution import SectionMatch, solved
from pullback.numerics.random import make_generator
from pullback.numerics.ransac import fit_matrix, projected
from pullback.space import Affine, Grid, Image, Labels, Transform
from pullback.testing import check_group, group_problems

STACK = EMStack(sections=5, shape=(240, 200), pad=40, mitochondria=25.0, step=2.0)
PAIR = EMStack(sections=2, shape=(420, 360), pad=60, mitochondria=45.0, step=2.0)
QUICK = Mito(radius=32.0, area=20, least=8, reference=0)


@pytest.fixture(scope="module")
def group() -> Group:
    every = range(STACK.sections)
    return Group.chain([STACK.section(z) for z in every], 3, [STACK.mask(z) for z in every])


@pytest.fixture(scope="module")
def pair() -> Group:
    """Two larger sections: FREAK sees far, and describes nothing near a border."""
    return Group.chain([PAIR.section(z) for z in (0, 1)], 1, [PAIR.mask(z) for z in (0, 1)])


def corners(grid: Grid, inner: float = 1.0) -> torch.Tensor:
    ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in grid.shape]
    at = grid.to_world(torch.cartesian_prod(*ends).mT[None])[0].mT
    return grid.centre + inner * (at - grid.centre)


def apart(one: Transform, other: Transform, grid: Grid, inner: float = 1.0) -> float:
    """Distance of two maps at the corners, px."""
    at = corners(grid, inner)
    return float((one(at) - other(at)).norm(dim=-1).max() / grid.spacing.mean())


# ---- promises


@pytest.mark.parametrize("problem", group_problems(ndim=2), ids=str)
def test_contract(problem):
    check_group(Mito(threshold=1.0, radius=10.0), problem)


@pytest.mark.parametrize("model", ["rigid", "similarity", "affine"])
def test_known_turns_are_found(group, model):
    found = replace(QUICK, model=model)(group)
    for z, transform in enumerate(found.transforms):
        truth = STACK.truths[z] @ STACK.truths[0].inverse()
        assert apart(transform, truth, STACK.inner, 0.7) < (2.0 if model == "rigid" else 6.0)
    assert found.stats.numbers["loop error px"] < 2.5


def test_without_masks_corners_do(group):
    bare = Group.chain(group.images[:2])
    for z, transform in enumerate(replace(QUICK, radius=48.0)(bare).transforms):
        assert apart(transform, STACK.truths[z] @ STACK.truths[0].inverse(), STACK.inner, 0.7) < 3


# ---- laws


def test_a_section_moved_in_its_world_moves_its_map(group):
    away = Affine.about(torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64), torch.tensor([3.0, 9.0]).double())
    before = QUICK(group).transforms

    def moved(thing):
        return replace(thing, grid=Grid(thing.grid.shape, away.matrix @ thing.grid.affine))

    images, labels = list(group.images), list(group.labels)
    images[2], labels[2] = moved(images[2]), moved(labels[2])
    after = QUICK(Group(tuple(images), group.edges, tuple(labels))).transforms
    for z, (one, other) in enumerate(zip(before, after, strict=True)):
        expected = away @ one if z == 2 else one
        assert apart(expected, other, STACK.grid) < 1e-6


def test_pixels_turned_by_a_quarter_turn_the_map(group):
    """Exactly: nothing is interpolated, and blocks of 2 × 2, 4 × 4, … pixels stay whole."""
    before = QUICK(group).transforms
    images, labels = list(group.images), list(group.labels)

    def quarter(data):
        return data.transpose(2, 3).flip(2)  # what lies at (i, j) goes to (n − 1 − j, i)

    n = STACK.grid.shape[1]
    grid = Grid((n, STACK.grid.shape[0]), torch.eye(3, dtype=torch.float64))
    images[3] = Image(quarter(images[3].data), grid)
    labels[3] = Labels(quarter(labels[3].data), grid)
    turn = torch.tensor([[0.0, -1, n - 1], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    there = Affine(turn @ torch.linalg.inv(STACK.grid.affine))
    after = QUICK(Group(tuple(images), group.edges, tuple(labels))).transforms
    assert apart(there @ before[3], after[3], STACK.grid) < 0.05
    assert apart(before[2], after[2], STACK.grid) < 0.05


def test_another_reference_is_a_change_of_the_common_world(group):
    chain = Group.chain(group.images, 1, group.labels)
    first, last = QUICK(chain).transforms, replace(QUICK, reference=4)(chain).transforms
    for one, other in zip(first, last, strict=True):
        assert apart(one @ first[4].inverse(), other, STACK.grid) < 1e-9
    assert torch.equal(last[4].as_affine.matrix, torch.eye(3, dtype=torch.float64))


def test_nanometres(group):
    tiny = replace(STACK, pixel=5e-6)

    def small(thing):
        return replace(thing, grid=tiny.grid)

    same = Group(tuple(map(small, group.images)), group.edges, tuple(map(small, group.labels)))
    for one, other in zip(QUICK(group).transforms, QUICK(same).transforms, strict=True):
        scaled = one.as_affine.matrix.clone()
        scaled[:2, 2] *= 5e-6
        assert apart(Affine(scaled), other, tiny.grid) < 1e-6


def test_homographies_drift_more_than_rigid_maps():
    """What more parameters do to noise in a chain: root mean square at the corners of the last of 9 sections."""
    generator, grid = make_generator(5), Grid.centred((400, 400))
    points = 200 * (2 * torch.rand(30, 2, generator=generator, dtype=torch.float64) - 1)
    at, far = corners(grid), {}
    for model in ("rigid", "homography"):
        square = []
        for _ in range(8):
            noise = torch.randn(8, 2, 30, 2, generator=generator, dtype=torch.float64)
            fits = [fit_matrix(points + one, points + other, model) for one, other in noise]
            matches = {(z, z + 1): SectionMatch(30, 30, fit) for z, fit in enumerate(fits)}
            last = Mito(model=model, reference=0).solve(matches, [grid] * 9).matrices[-1]
            square.append((projected(last, at) - at).square().sum(-1).mean())
        far[model] = float(torch.stack(square).mean().sqrt())
    assert far["homography"] > 1.6 * far["rigid"]  # √(8 / 3), and more at corners


# ---- failures


def test_a_section_that_matches_nothing_is_named_and_lies_between(group):
    images, labels = list(group.images), list(group.labels)
    odd = replace(STACK, seed=9)
    images[2], labels[2] = odd.section(2), odd.mask(2)
    with pytest.raises(
        InputError, match=r"section 2 does not match section 1 \(.*agree\).*no chain of matches joins section 2"
    ):
        QUICK(Group(tuple(images), group.edges, tuple(labels)))
    still = torch.eye(3, dtype=torch.float64)
    shifted = still.clone()
    shifted[0, 2] = 8.0
    found = solved(
        {(0, 1): SectionMatch(9, 2), (0, 2): SectionMatch(9, 9, shifted)}, [STACK.grid] * 3, "rigid", 5.0, 5, 0
    )
    assert found.unmatched == (1,)
    assert torch.allclose(found.matrices[1, :2, 2], torch.tensor([4.0, 0.0]).double())


def test_matches_that_scatter_count_less():
    still = torch.eye(3, dtype=torch.float64)
    wrong = still.clone()
    wrong[0, 2] = 4.0
    near = SectionMatch(20, 20, still, 0.5)
    matches = {(0, 1): near, (1, 2): near, (0, 2): SectionMatch(20, 20, wrong, 4.0)}
    found = solved(matches, [STACK.grid] * 3, "rigid", 5.0, 5, 0)
    assert float(found.matrices[2, 0, 2].abs()) < 0.25


def test_maps_that_no_section_makes_are_refused(group):
    one = QUICK.features(group.images[0], group.labels[0])
    half = replace(one, points=0.3 * one.points)
    assert replace(QUICK, model="similarity").match(one, half).matrix is None
    assert replace(QUICK, model="similarity").match(one, one).matrix is not None


def test_few_that_agree_by_chance_are_not_enough(group):
    one = QUICK.features(group.images[0], group.labels[0])
    other = replace(one, points=one.points[torch.randperm(len(one), generator=make_generator(1))])
    assert QUICK.match(one, other).matrix is None
    wide = replace(QUICK, threshold=40.0).match(one, other)  # some agree within so many px
    assert wide.agree >= 4
    assert wide.matrix is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"detector": "sift"}, "detector: one of centres"),
        ({"model": "elastic"}, "model: one of rigid"),
        ({"descriptor": "orb"}, "detector=orb alone"),
        ({"matcher": "flann"}, "is of bits"),
        ({"threshold": 0.0}, "above 0"),
    ],
)
def test_wrong_settings(change, said):
    with pytest.raises(InputError, match=said):
        Mito(**change)


def test_wrong_sections(group):
    image, labels = group.images[0], group.labels[0]
    with pytest.raises(InputError, match=r"07\.png: 0 components in its mask; a rigid map needs 2"):
        QUICK.features(image, replace(labels, data=0 * labels.data), "07.png")
    with pytest.raises(InputError, match="0 keypoints"):
        Mito().features(replace(image, data=0 * image.data))
    with pytest.raises(InputError, match="must be alike"):
        QUICK.features(image, Labels(labels.data[..., 1:, :], Grid.centred((319, 280))))
    with pytest.raises(InputError, match="needs a mask"):
        replace(QUICK, detector="centres").features(image)
    with pytest.raises(InputError, match="one flat section"):
        QUICK.features(Image(torch.zeros(1, 1, 4, 4, 4), Grid.centred((4, 4, 4))))
    one = QUICK.features(image, labels)
    with pytest.raises(InputError, match="one size is expected"):
        QUICK.match(one, replace(one, spacing=2.0))


# ---- OpenCV beside it


def test_brute_force_is_its_definition():
    pytest.importorskip("cv2")
    generator = np.random.default_rng(0)
    one, other = (generator.integers(0, 256, (200, 64), dtype=np.uint8) for _ in range(2))
    other[7] = other[3] = one[5]  # a tie
    apart = np.bitwise_count(one[:, None] ^ other[None]).sum(2, dtype=int)
    there, back = apart.argmin(1), apart.argmin(0)
    expected = [[n, m] for n, m in enumerate(there) if back[m] == n]
    assert by_brute_force(torch.from_numpy(one), torch.from_numpy(other)).tolist() == expected
    assert [5, 3] in expected
    near = by_flann(torch.from_numpy(one), torch.from_numpy(np.concatenate([one[:100], other])), 0.8)
    assert all(n == m for n, m in near.tolist())
    assert len(near) > 90  # hashes miss some


@pytest.mark.parametrize(
    "names",
    [
        ("orb", "orb"),
        ("orb", "freak"),
        ("brisk", "brisk"),
        ("", "freak"),
        ("", "brisk"),
        ("orb", "polar"),
        ("fast", "freak"),
    ],
    ids="+".join,
)
def test_opencv_finds_the_turn_too(pair, names):
    pytest.importorskip("cv2")
    detector, descriptor = names
    how = replace(QUICK, detector=detector, descriptor=descriptor, least=4)
    truth = PAIR.truths[1] @ PAIR.truths[0].inverse()
    assert apart(how(pair).transforms[1], truth, PAIR.inner, 0.7) < 4
    if descriptor != "polar" and detector != "fast":
        assert apart(replace(how, matcher="flann")(pair).transforms[1], truth, PAIR.inner, 0.7) < 4


def test_detectors_keep_to_the_mask(pair):
    pytest.importorskip("cv2")
    how = replace(QUICK, detector="brisk", descriptor="brisk", masked=True, most=0)
    image, labels = pair.images[0], pair.labels[0]
    found = how.features(image, labels)
    at = image.grid.to_voxels(found.points.mT[None])[0].round().long()
    near = torch.nn.functional.max_pool2d((labels.data != 0).float(), 3, 1, 1)[0, 0]  # OpenCV rounds in its own way
    assert bool((near[at[0], at[1]] != 0).all())
    assert len(found) < 0.2 * len(replace(how, masked=False).features(image, labels))


def test_without_opencv_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("pullback.methods.group.opencv_features.import_module", missing)
    with pytest.raises(InputError, match="pip install opencv-contrib"):
        opencv()


def test_the_largest_components_are_kept():
    labels = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    labels[..., 2:5, 2:5], labels[..., 10:20, 10:20], labels[..., 30:36, 30:36] = 1, 1, 1
    found = mask_centres(Labels(labels, Grid.centred((40, 40))), area=10, most=0)
    assert found.tolist() == [[14.5, 14.5], [32.5, 32.5]]
    assert mask_centres(Labels(labels, Grid.centred((40, 40))), 1, 1).tolist() == [[14.5, 14.5]]
