"""Pose networks keep the promises of a register, learn a pose, and are starts; their rivals' losses know a frame."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import Compressions, Synthetic
from pullback.errors import InputError
from pullback.files import read_transform, write
from pullback.methods.pair.classical import FAST
from pullback.methods.pose.pose_net import ParameterDistance, PoseNet
from pullback.metrics import Dice, EndPointError, LandmarkError
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import linear_of, of_euler, of_four, of_six, of_vector, uniform
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Displacement, Grid, Image, mean_square_distance, pull
from pullback.studies._posed import Prostates
from pullback.studies.pose_net import MEASURES, WITH_ULTRASOUND, by_pose, by_turn
from pullback.study.recipe import Recipe
from pullback.study.run import load_run, run
from pullback.study.trained import Trained
from pullback.testing import check_register, check_supervision, problems
from pullback.training import KnownTransform, Perturbed, RandomPose, Training, align, save_weights, seeded
from pullback.training.train import train
from pullback.workflows.how import How, register_of

FORMS = {
    "vector": (of_vector, 3),
    "euler": (of_euler, 3),
    "four": (of_four, 4),
    "six": (of_six, 6),
    "any": (linear_of, 9),
}
SMALL = partial(PoseNet, widths=(8, 8), hidden=16)


def small(ndim: int = 3, **more) -> PoseNet:
    with seeded(0):
        return SMALL(ndim, **more)


@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("shift", "thin", ndim=3)], ids=str)
def test_contract(problem):
    """Not trained yet, it knows nothing but to stay."""
    with seeded(5):
        register = SMALL(problem.pair.fixed.grid.ndim)
    check_register(register, problem, solves=problem.name == "identity", rounding=1e-3)


def test_every_class_has_its_contract():
    """Named so that the coverage of contracts sees it: of the network by its class."""
    with seeded(5):
        check_register(PoseNet(2, (4,)), problems("identity", ndim=2)[0], solves=True, rounding=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_untrained_it_stays_and_any_numbers_make_a_map(form):
    make, count = FORMS[form]
    network, (problem,) = small(form=make, count=count), problems("shift", ndim=3)
    fixed, moving = problem.pair.images
    answer = network(fixed, moving).transform
    assert float(answer.displacement(fixed.grid).detach().abs().max()) < 0.01
    with torch.no_grad():
        network.head.last.bias.copy_(torch.randn(count + 3, generator=make_generator(1)))
    matrix = network(fixed, moving).transform.as_affine.matrix[0, :3, :3].detach()
    if form == "any":
        assert float(torch.linalg.det(matrix)) > 0
    else:
        torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3).double())
        assert float(torch.linalg.det(matrix)) == pytest.approx(1)


def scene(ndim: int = 2) -> Pair:
    """Noise and itself in a pose, far from the world's origin."""
    affine = Grid.centred((20, 24, 16)[:ndim], 1.5).affine
    affine[:ndim, ndim] += 70
    grid = Grid((20, 24, 16)[:ndim], affine)
    data = gaussian(torch.rand(1, 1, *grid.shape, generator=make_generator(2)), 2.0)
    image = Image((data - data.min()) / (data.max() - data.min()), grid)
    turn = of_vector(math.radians(8) * torch.ones(1, 1 if ndim == 2 else 3, dtype=torch.float64))[0]
    shift = torch.tensor([3.0, -2.0, 1.0][:ndim], dtype=torch.float64)
    truth = Affine.about(turn, grid.centre, grid.centre + shift)
    return Pair(image, pull(image, truth.inverse(), onto=image), truth=truth)


@pytest.mark.parametrize("supervision", [KnownTransform(2, "mm"), ParameterDistance()], ids=lambda s: type(s).__name__)
def test_it_learns_the_pose_of_one_pair(supervision):
    """By either loss, to three tenths of a millimetre."""
    pair, network = scene(), small(2)

    class Same:
        def draw(self, generator):
            return pair

    before = EndPointError()(align(network, pair))["epe mm"]
    train(network, Same(), supervision, Training(updates=200, lr=3e-3))
    after = EndPointError()(align(network, pair))["epe mm"]
    assert before > 3
    assert after < 0.3


@pytest.mark.parametrize(
    "supervision",
    [ParameterDistance(numbers, power) for numbers in ("euler", "quaternion") for power in (1, 2)],
    ids=lambda s: f"{s.numbers}-{s.power}",
)
def test_contract_of_losses(supervision):
    check_supervision(supervision, small, scene(3))


def test_its_class_keeps_the_contract():
    check_supervision(ParameterDistance(degrees=180 / math.pi), partial(SMALL, 2), scene(2))


def turned(degrees: float, shift=(0.0, 0.0, 0.0), grid=None) -> Affine:
    grid = grid or scene(3).fixed.grid
    vector = torch.tensor([[math.radians(degrees), 0, 0]], dtype=torch.float64)
    return Affine.about(of_vector(vector)[0], grid.centre, grid.centre + torch.tensor(shift, dtype=torch.float64))


def test_numbers_are_degrees_and_millimetres_about_the_middle():
    grid = Grid((5, 6, 7), torch.tensor([[2.0, 0, 0, 90], [0, 1, 0, -40], [0, 0, 3, 7], [0, 0, 0, 1]]).double())
    pose = turned(30.0, (1.0, 2.0, 3.0), grid)
    expected = torch.tensor([[30.0, 0, 0, 1, 2, 3]], dtype=torch.float64)
    torch.testing.assert_close(ParameterDistance().of(pose, grid), expected, rtol=0, atol=1e-9)
    expected[0, 0] = math.pi / 6
    found = ParameterDistance(degrees=180 / math.pi).of(pose, grid)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    half = math.pi / 12
    expected = torch.tensor([[math.cos(half), math.sin(half), 0, 0, 1, 2, 3]], dtype=torch.float64)
    torch.testing.assert_close(ParameterDistance("quaternion").of(pose, grid), expected, rtol=0, atol=1e-9)
    pair = replace(scene(3), truth=Affine.identity(3))

    def told(power):
        answer = turned(3.0, (0.0, -4.0, 0.0))
        loss = ParameterDistance("euler", power)(lambda f, m: Alignment(Pair(f, m), answer), pair, 0.0)
        return float(loss["numbers"])

    assert told(2) == pytest.approx((9 + 16) / 6)
    assert told(1) == pytest.approx((3 + 4) / 6, rel=1e-4)


def test_the_grid_distance_knows_no_frame_and_numbers_do():
    """Two poses followed by one rigid map, and the same in a world that is turned: only the grid distance stays."""
    grid = scene(3).fixed.grid
    one, other = turned(50.0, (5.0, 0.0, 0.0)), turned(-20.0, (0.0, 4.0, 0.0)) @ turned_about_y(40.0)
    after = Affine.about(uniform(3, 1, make_generator(3))[0], grid.centre)
    apart = {
        "grid": lambda a, b: mean_square_distance(a, b, grid).sqrt(),
        "euler": lambda a, b: (ParameterDistance().of(a, grid) - ParameterDistance().of(b, grid)).norm(),
    }
    torch.testing.assert_close(apart["grid"](after @ one, after @ other), apart["grid"](one, other))
    assert float(apart["euler"](after @ one, after @ other) / apart["euler"](one, other) - 1) != pytest.approx(
        0, abs=0.1
    )


def turned_about_y(degrees: float) -> Affine:
    vector = torch.tensor([[0, math.radians(degrees), 0]], dtype=torch.float64)
    return Affine.about(of_vector(vector)[0], scene(3).fixed.grid.centre)


def test_what_has_no_numbers_is_refused():
    pair = scene(2)
    field = Displacement(torch.zeros(1, 2, *pair.fixed.grid.shape), pair.fixed.grid)
    for wrong in ({"numbers": "matrix"}, {"power": 3}, {"degrees": 0.0}):
        with pytest.raises(InputError, match="ParameterDistance"):
            ParameterDistance(**wrong)
    for loss, transform in ((ParameterDistance(), field), (ParameterDistance("quaternion"), Affine.identity(2))):
        with pytest.raises(InputError, match="numbers of a pose"):
            loss.of(transform, pair.fixed.grid)
    with pytest.raises(InputError, match="not known"):
        ParameterDistance()(small(2), replace(pair, truth=None), 0.0)


# ---- a start


@pytest.fixture(scope="module")
def poses(tmp_path_factory):
    """A run of a network that answers with one pose, whatever it sees: 9°, and 2 mm along the first axis."""
    folder = tmp_path_factory.mktemp("runs") / "pose"
    perturbed = Perturbed(RandomPose(2.0), surface=50)
    data = Compressions(32, 10, 2, 1, 1, synthetic=Synthetic(perturbed))
    training = Training(updates=2, augment=perturbed)
    recipe = Recipe("poses", data, partial(SMALL, ndim=2), KnownTransform(2, "mm"), training, (EndPointError(),))
    network = run(recipe, folder)
    with torch.no_grad():
        network.head.last.weight.zero_()
        network.head.last.bias.copy_(torch.tensor([0.9, 0.2, 0.0]))
    save_weights(network, folder / "best.safetensors", {"update": 2})
    return folder


def pose_of(grid: Grid) -> Affine:
    turn = of_vector(torch.tensor([[math.radians(9.0)]], dtype=torch.float64))[0]
    return Affine.about(turn, grid.centre, grid.centre + torch.tensor([2.0, 0.0], dtype=torch.float64))


def test_a_trained_pose_stays_linear_on_any_grid(poses):
    """About the middle of the grid that the network sees, which has the training's voxels."""
    trained = load_run(poses)[1]
    assert isinstance(trained, Trained)
    pair = scene(2)
    answer = trained(*pair.images).transform
    seen = trained.shown(pair.fixed).grid
    torch.testing.assert_close(answer.as_affine.matrix.reshape(3, 3), pose_of(seen).matrix, rtol=0, atol=1e-4)


def test_a_run_is_a_start(poses):
    """It takes the place of the initialisation: as its answer, given as a start, to the same stages."""
    pair, how = scene(2), How(start=str(poses), preset="fast", transform="rigid")
    assert (how.run, how.file, how.place) == (poses, None, "auto")
    found = register_of(how)(*pair.images)
    start = load_run(poses)[1](*pair.images).transform
    rigid = replace(FAST, initialise=None, linear=FAST.linear[:1], deformable=None)
    torch.testing.assert_close(found.transform.as_affine.matrix, rigid(*pair.images, start).transform.as_affine.matrix)
    assert [stage.name for stage in found.stats.stages] == ["start", "rigid"]
    assert not torch.allclose(start.as_affine.matrix, found.transform.as_affine.matrix.to(start.as_affine.matrix))


def test_a_run_is_the_start_of_another_run_and_of_no_search(poses):
    pair = scene(2)
    twice = register_of(How(start=str(poses), network=poses))(*pair.images).transform.as_affine.matrix.reshape(3, 3)
    once = load_run(poses)[1](*pair.images).transform.as_affine.matrix.reshape(3, 3)
    torch.testing.assert_close(twice, once @ once)
    with pytest.raises(InputError, match="searches all poses"):
        register_of(How(start=str(poses), method="cross-ngf"))


def test_a_folder_that_is_no_run_is_no_start(tmp_path):
    with pytest.raises(InputError, match=r"recipe\.yaml: cannot be read"):
        register_of(How(start=str(tmp_path)))


@pytest.mark.nightly
def test_from_a_folder_of_images_to_a_start(pullback, tmp_path):
    """The commands as they are typed: images alone are learned from, and the run begins a registration."""
    pair = scene(3)
    for n in range(8):
        noise = torch.rand(1, 1, *pair.fixed.grid.shape, generator=make_generator(20, n))
        write(Image(gaussian(noise, 2.0), pair.fixed.grid), tmp_path / "images" / f"s{n}.nii.gz")
    for name, image in zip(("fixed", "moving"), pair.images, strict=True):
        write(image, tmp_path / f"{name}.nii.gz")
    most = [f"{where}.pose.most=8" for where in ("training.augment", "data.synthetic.synthesis")]
    told = [word for text in (*most, "training.updates=30", "training.validate_every=15") for word in ("--set", text)]
    code, out, err = pullback("train", "pose-net", "--data", tmp_path / "images", "-o", tmp_path / "run", *told)
    assert code == 0, out + err
    words = (
        "register",
        "-f",
        tmp_path / "fixed.nii.gz",
        "-m",
        tmp_path / "moving.nii.gz",
        "--preset",
        "fast",
        "--json",
    )
    rigid = ("--start", tmp_path / "run", "--transform", "rigid", "-o", tmp_path / "out")
    code, out, err = pullback(*words, *rigid)
    assert code in (0, 3), out + err
    told = json.loads(out)
    assert list(told["seconds"]) == ["start", "rigid"]
    assert told["start"] == str(tmp_path / "run")
    assert told["settings"]["first"]["network"] == "PoseNet"
    found = read_transform(tmp_path / "out" / "fixed_to_moving.h5").as_affine
    assert found is not None
    torch.testing.assert_close(found.matrix[:3, :3] @ found.matrix[:3, :3].T, torch.eye(3).double(), rtol=0, atol=1e-5)
    code, out, err = pullback(*words, "--start", tmp_path / "images", "-o", tmp_path / "no")
    assert code != 0
    assert "recipe.yaml: cannot be read" in out + err


# ---- the study


def test_by_figure_2_the_grid_distance_follows_the_error_of_points_and_numbers_do_not():
    """Spread over the axes at 90°, and order of poses: exact, so that no training is asked."""
    rows = {name: {row["angle"]: row for row in by_turn(None, 0, name)} for name in MEASURES}
    spread = {name: each[90]["spread of large turns %"] for name, each in rows.items()}
    assert max(spread["TRE"], spread["TGD"]) < 3
    assert min(spread["L1 Euler"], spread["MSE Euler"]) > 12
    small = {name: each[5]["spread of small turns %"] for name, each in rows.items()}
    assert small["L1 Euler"] > 8 > 2 > small["MSE Euler"], "of small turns only the sum of angles depends on the axis"
    for angle in (5, 90, 180):
        apart = rows["TGD"][angle]["greatest"] / math.sin(math.radians(angle) / 2)
        assert apart == pytest.approx(rows["TGD"][90]["greatest"] / math.sin(math.pi / 4), rel=1e-6)
    rank = {name: next(iter(by_pose(None, 0, name)))["rank"] for name in MEASURES}
    assert rank["TRE"] == pytest.approx(1)
    assert rank["TGD"] > max(rank["MSE Euler"], rank["L1 Euler"]) > 0.8 > 0.5 > rank["MSE Euler, radians"]


def test_prostates_are_posed_by_their_glands(shared):
    """The same each time, nobody in two splits; a truth that is made lays glands on each other better than middles."""
    root = str(shared / "data" / "prostate_mr_us")
    data = Prostates(root, "mr-us", 3.2, WITH_ULTRASOUND.perturbed, poses=1)
    splits = [set(split.names) for split in (data.train, data.validation, data.test)]
    assert [len(split) for split in splits] == [14, 2, 4]
    assert not splits[0] & splits[1] | splits[0] & splits[2] | splits[1] & splits[2]
    first, again = (next(iter(data.test)) for _ in range(2))
    assert torch.equal(first.truth.as_affine.matrix, again.truth.as_affine.matrix)
    assert LandmarkError()(Alignment(first, first.truth))["tre mm"] < 1e-3
    pair = data.train.cases[0].load()
    shift = Affine.about(torch.eye(3).double(), pair.fixed.grid.centre, pair.moving.grid.centre)
    laid, centred = (Dice()(Alignment(pair, by))["dice"] for by in (pair.truth, shift))
    assert laid > 0.7
    assert laid > centred + 0.05
    mr = Prostates(root, spacing=3.2, poses=1)
    assert [pair.name.split(" ")[0] for pair in mr.test] == sorted(splits[2])
    assert mr.train.names == data.train.names
