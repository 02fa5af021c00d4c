"""Organs as clouds: what the method adds to the drift, what it refuses, and the commands that run it."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from pullback.errors import InputError
from pullback.example import PointPair
from pullback.files import read_transform, write
from pullback.methods.points.coherent_drift import CoherentDrift
from pullback.methods.points.mo_bcpd import METHOD, MOBCPD
from pullback.space import Affine, Grid, Image, Labels, Points
from pullback.testing import check_register, point_problems


@pytest.mark.parametrize("problem", point_problems(), ids=str)
def test_contract(problem):
    check_register(MOBCPD(), problem, solves=problem.name in METHOD.solves)


def two_organs(count: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two ellipsoids side by side, where each goes when they slide past each other and bend, and their labels."""
    chance = torch.Generator().manual_seed(seed)
    ball = torch.randn(2, count, 3, generator=chance, dtype=torch.float64)
    ball = ball / ball.norm(dim=2, keepdim=True) * torch.tensor([40.0, 20, 20])
    side = torch.tensor([-1.0, 1]).double().view(2, 1, 1)
    fixed = ball + side * torch.tensor([45.0, 0, 0])
    moved = fixed + side * torch.tensor([0, 15.0, 0]) + torch.tensor([0, 0, 6.0]) * (ball[..., :1] / 25).sin()
    return fixed.reshape(-1, 3), moved.reshape(-1, 3), torch.tensor([1, 2]).repeat_interleave(count)


def swapped(points: torch.Tensor, labels: torch.Tensor, share: float = 0.1) -> torch.Tensor:
    """The labels with those at the far end of each organ taken for the other."""
    wrong = labels.clone()
    for label, sign in ((1, 1), (2, -1)):
        own = (labels == label).nonzero()[:, 0]
        wrong[own[(sign * points[own, 0]).argsort()[: round(share * len(own))]]] = 3 - label
    return wrong


def cloud(points: torch.Tensor, labels: torch.Tensor | None = None) -> Points:
    return Points(points[None], {} if labels is None else {"label": labels[None]})


def missed(found, fixed: torch.Tensor, moved: torch.Tensor) -> float:
    """Root mean square distance in mm from where points belong."""
    return float((found.transform(fixed) - moved).square().sum(1).mean().sqrt())


def test_organs_that_slide_are_followed_by_themselves():
    """With a motion of all organs as one, sliding is smoothed away; without labels it is worse still."""
    fixed, moved, labels = two_organs()
    pair = PointPair(cloud(fixed, labels), cloud(moved.flip(0), labels.flip(0)))
    apart, together, unknown = (
        missed(arm(pair), fixed, moved) for arm in (MOBCPD(), MOBCPD(coherence=1.0), MOBCPD(known=False))
    )
    assert apart < 0.5
    assert 4 * apart < together
    assert 4 * apart < unknown


@pytest.mark.parametrize("coherence", [0.0, 0.5])
def test_wrong_labels_of_the_moving_cloud_are_healed_by_their_confusion(coherence):
    """10 % of labels, as in the paper's figure 1: without U the answer is more than twice as far off as with."""
    fixed, moved, labels = two_organs()
    wrong = swapped(moved, labels)
    assert int((wrong != labels).sum()) == 10
    right, bad = (PointPair(cloud(fixed, labels), cloud(moved, known)) for known in (labels, wrong))
    plain = MOBCPD(coherence=coherence)
    best = missed(plain(right), fixed, moved)
    healed = replace(plain, confusion=0.1)(bad)
    assert missed(healed, fixed, moved) < 1.2 * best
    assert missed(plain(bad), fixed, moved) > 2 * best
    assert healed.columns["label of partners"].shape == (100,)


def test_wrong_labels_of_the_fixed_cloud_take_a_second_pass():
    """They also say how a point moves, where the confusion does not reach; those of the moving cloud take none."""
    errors = []
    for seed in range(5):
        fixed, moved, labels = two_organs(60, seed)
        pair = PointPair(cloud(fixed, swapped(fixed, labels)), cloud(moved, labels))
        once = MOBCPD(coherence=0.5, confusion=0.1, passes=1)
        errors.append([missed(register(pair), fixed, moved) for register in (once, replace(once, passes=2))])
    first, second = torch.tensor(errors).mean(0).tolist()
    assert second < 0.8 * first
    other = PointPair(cloud(fixed, labels), cloud(moved, swapped(moved, labels)))
    plain, again = once(other), replace(once, passes=2)(other)
    assert torch.equal(plain.transform(fixed), again.transform(fixed))
    assert "12 fixed points have partners of another label" in again.remarks


@pytest.mark.parametrize("how", ["turned", "shifted", "in another order", "by other labels"])
def test_the_world_does_not_matter(how):
    """The answer turns with both clouds, and does not depend on how points and organs are numbered."""
    fixed, moved, labels = two_organs(20)
    moved = moved[5:]
    register = MOBCPD((), True, 0.3, (20.0, 30.0), (8.0, 12.0), 0.05, tolerance=1e-10)
    there = register(PointPair(cloud(fixed, labels), cloud(moved, labels[5:]))).transform
    world, order, number = Affine.identity(3), torch.arange(40), {1: 1, 2: 2}
    if how == "turned":
        turn = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]).double()
        world = Affine.about(turn, torch.tensor([3.0, 4, 5]).double())
    elif how == "shifted":
        world = Affine.about(torch.eye(3).double(), torch.zeros(3).double(), torch.tensor([90.0, -400, 7]).double())
    elif how == "in another order":
        order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    else:
        number, register = {1: 9, 2: 4}, replace(register, bandwidth=(30.0, 20.0), magnitude=(12.0, 8.0))
    named = torch.tensor([number[label] for label in labels.tolist()])
    here = register(PointPair(cloud(world(fixed)[order], named[order]), cloud(world(moved), named[5:]))).transform
    torch.testing.assert_close(here(world(fixed)), world(there(fixed)), rtol=0, atol=1e-6)


def test_what_has_no_partner_is_uncertain():
    """A third of an organ is missing from the moving cloud: there the posterior is wider, and few partners are."""
    fixed, moved, labels = two_organs()
    seen = moved[:, 0] < 55
    register = MOBCPD(bandwidth=10.0, drift=CoherentDrift("rigid", outliers=0.1))
    found = register(PointPair(cloud(fixed, labels), cloud(moved[seen], labels[seen])))
    far, near = fixed[:, 0] > 65, fixed[:, 0] < 45
    assert float(found.columns["deviation mm"][far].mean()) > 1.5 * float(found.columns["deviation mm"][near].mean())
    assert float(found.columns["partners"][far].mean()) < 0.5 * float(found.columns["partners"][near].mean())


def test_clouds_of_other_worlds_are_laid_on_each_other_first():
    fixed, moved, labels = two_organs()
    found = MOBCPD()(PointPair(cloud(fixed, labels), cloud(moved + 900, labels)))
    assert missed(found, fixed, moved + 900) < 0.5
    assert "times their spread; laid on each other first" in " ".join(found.remarks)


def test_organs_of_one_cloud_alone_are_left_out():
    fixed, moved, labels = two_organs()
    extra = torch.cat([labels, torch.full((12,), 7)])
    pair = PointPair(cloud(torch.cat([fixed, 500 + fixed[:12]]), extra), cloud(moved, labels))
    found = MOBCPD()(pair)
    assert found.pair.fixed.data.shape[1] == 100
    assert any("left out" in remark and remark.endswith(": 7") for remark in found.remarks)
    alone = MOBCPD(labels=(1,))(pair)
    assert alone.pair.fixed.label.unique().tolist() == [1]


def test_left_for_right_is_doubted():
    fixed, moved, labels = two_organs()
    pair = PointPair(cloud(fixed, labels), cloud(moved, 3 - labels))
    found = MOBCPD(confusion=0.4, passes=1)(pair)
    assert any("labels 1 and 2 look exchanged" in doubt for doubt in found.doubts)
    assert MOBCPD()(PointPair(cloud(fixed, labels), cloud(moved, labels))).doubts == ()


@pytest.mark.parametrize(
    ("change", "register", "says"),
    [
        (lambda a, b, n: (cloud(a / 1000, n), cloud(b, n)), MOBCPD(), "fixed cloud.*coordinates in mm"),
        (lambda a, b, n: (cloud(a, n), cloud(b)), MOBCPD(), "labels of both clouds or of neither"),
        (lambda a, b, n: (cloud(a, n), cloud(b, n + 5)), MOBCPD(), "no organ has 10 points"),
        (lambda a, b, n: (cloud(a), cloud(b)), MOBCPD(labels=(1,)), "these have none"),
        (lambda a, b, n: (cloud(a * torch.nan, n), cloud(b, n)), MOBCPD(), "finite coordinates"),
        (lambda a, b, n: (cloud(a, n), cloud(b, n)), MOBCPD(bandwidth=(1.0, 2.0, 3.0)), "bandwidth: one number, or 2"),
        (lambda a, b, n: (cloud(a, n), cloud(b, n)), MOBCPD(coherence=1.5), "coherence: 0 to 1"),
        (lambda a, b, n: (cloud(a, n), cloud(b, n)), MOBCPD(coherence=((1.0,),)), "coherence: one number, or 2 rows"),
        (lambda a, b, n: (cloud(a, n), cloud(b, n)), MOBCPD(confusion=((1.0, 1.0), (0.0, 1.0))), "1 in sum"),
        (
            lambda a, b, n: (cloud(a, n), cloud(b + 900, n)),
            MOBCPD(drift=CoherentDrift("none")),
            "times their spread; pose=none",
        ),
    ],
)
def test_what_cannot_be_is_refused(change, register, says):
    fixed, moved, labels = two_organs(20)
    with pytest.raises(InputError, match=says):
        register(PointPair(*change(fixed, moved, labels)))


def test_surfaces_and_networks_are_not_looked_at():
    fixed, moved, _ = two_organs(20)
    with pytest.raises(InputError, match="labels alone"):
        MOBCPD()(PointPair(cloud(fixed), cloud(moved), cloud(fixed), cloud(moved)))
    with pytest.raises(InputError, match="--network"):
        MOBCPD()(PointPair(cloud(fixed), cloud(moved)), torch.nn.Identity())


# ---- files and commands


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Label maps of two discs in 2-D, of which one goes up and one down, and images of them."""
    folder, grid = tmp_path_factory.mktemp("slices"), Grid.centred((64, 48), 2.0)
    where = grid.to_world(grid.voxels(torch.zeros(1).double())[None])
    for name, off in (("a", 0.0), ("b", 12.0)):
        discs = [
            ((where - torch.tensor([x, sign * off]).view(1, 2, 1, 1)).norm(dim=1, keepdim=True) < 20)
            for x, sign in ((-32.0, 1), (32.0, -1))
        ]
        labels = (discs[0].long() + 2 * discs[1].long()).to(torch.uint8)
        write(Labels(labels, grid), folder / f"organs_{name}.nii.gz")
        write(Image(labels.float() + 0.1, grid), folder / f"image_{name}.nii.gz")
    return folder


def test_match_takes_outlines_of_each_label(pullback, slices, tmp_path):
    """Written files lead organs onto organs; the transform is a start of `register`."""
    one, two = (slices / f"organs_{name}.nii.gz" for name in "ab")
    words = ("match", "-f", one, "-m", two, "--method", "mo-bcpd", "-o", tmp_path / "out", "--json")
    code, out, _ = pullback(*words)
    content = json.loads(out)
    assert code == 0
    assert content["quality"]["passed"]
    assert content["clouds"] == ["outline", "outline"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(content["files"])
    assert content["numbers"]["after"]["mm to the nearest point of its label"] < 1
    assert content["numbers"]["before"]["mm to the nearest point of its label"] > 5
    with (tmp_path / "out" / "known.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "R", "A", "deviation mm", "partners", "label of partners"]
    assert len(rows) == content["points"][0]
    start = read_transform(tmp_path / "out" / "fixed_to_moving.h5")
    back = read_transform(tmp_path / "out" / "moving_to_fixed.h5")
    for x, sign in ((-32.0, 1), (32.0, -1)):
        there = start(torch.tensor([[x, 0.0]]).double())
        assert float((there - torch.tensor([[x, 12.0 * sign]])).norm()) < 1.5
        assert float((back(there) - torch.tensor([[x, 0.0]])).norm()) < 1
    images = ("-f", slices / "image_a.nii.gz", "-m", slices / "image_b.nii.gz")
    start_file = tmp_path / "out" / "fixed_to_moving.h5"
    code, _, _ = pullback("register", *images, "--start", start_file, "--preset", "fast", "-o", tmp_path / "on")
    assert code == 0
    after = read_transform(tmp_path / "on" / "fixed_to_moving.h5")
    assert float((after(torch.tensor([[-32.0, 0]]).double()) - torch.tensor([[-32.0, 12]])).norm()) < 1.5


def test_settings_of_the_command(pullback, slices, tmp_path):
    """Coherence as a number or a matrix; one that no organs have is refused, and nothing is written."""
    one, two = (slices / f"organs_{name}.nii.gz" for name in "ab")
    words = ("match", "-f", one, "-m", two, "--method", "mo-bcpd", "-o", tmp_path / "out")
    code, _, err = pullback(*words, "--set", "coherence=[[1, 2], [2, 1]]")
    assert code != 0
    assert "no organs can move so" in err
    assert not (tmp_path / "out").exists()
    code, _, err = pullback(*words, "--set", "labels=[8]")
    assert code != 0
    assert "no organ has 10 points" in err
