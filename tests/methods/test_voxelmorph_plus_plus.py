"""VoxelMorph++: counts, places of features, losses against double loops, and that matches teach the right way."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom
from pullback.errors import InputError
from pullback.methods.pair.convex_adam import FeatureOptimised, self_similar
from pullback.methods.pair.voxelmorph_plus_plus import Matched, NonLocal, VoxelMorphPlusPlus, Warped
from pullback.metrics import LandmarkError
from pullback.networks import HeatmapHead, PointPrediction, RegressionHead, Repeated, SparseAlignment
from pullback.numerics.cost_volume import pooled
from pullback.numerics.graph import neighbours
from pullback.numerics.random import make_generator
from pullback.numerics.sample import sample
from pullback.numerics.smooth import box_sum, gaussian
from pullback.recipes.voxelmorph_plus_plus import ERROR, recipes
from pullback.space import Affine, Deferred, Grid, Image, Points, RandomPoints, push
from pullback.studies.voxelmorph_plus_plus import HalfExtentError, LandmarkFolder, Optimised, through_matches
from pullback.study.trained import Trained
from pullback.testing import check_augmentation, check_register, check_supervision, problems
from pullback.training import DrawnPoints, OneAffine, Training, seeded
from pullback.training.train import train
from pullback.workflows.choices import learned

SMALL = {"down": (4, 6, 6), "up": (6,), "last": (6, 4), "points": RandomPoints(60)}


def small(ndim: int = 2, head=HeatmapHead, **more) -> VoxelMorphPlusPlus:
    with seeded(0):
        return VoxelMorphPlusPlus(ndim, head=lambda d, c: head(d, c) if head is RegressionHead else head(d, c, 4), **{
            **SMALL, **more
        })  # fmt: skip


def textured(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return box_sum(torch.rand(1, 1, *shape, generator=make_generator(seed)), 3)


def shift(*by: float) -> Affine:
    matrix = torch.eye(len(by) + 1, dtype=torch.float64)
    matrix[:-1, -1] = torch.tensor(by)
    return Affine(matrix)


def shifted(voxels: tuple[int, ...], shape: tuple[int, ...] = (48, 40), seed: int = 0) -> Pair:
    """A pair whose moving image is the fixed one, shifted by whole voxels of 2 mm, with points all over."""
    grid = Grid.centred(shape, 2.0)
    values = textured(shape, seed)
    truth = shift(*(2.0 * n for n in voxels))
    moving = values.roll(voxels, tuple(range(2, 2 + len(shape))))
    points = Points(grid.to_world(_inner(shape, seed)[None]).mT)
    return Pair(
        Image(values, grid), Image(moving, grid), None, None, points, push(points, truth), truth, name="shifted"
    )


def _inner(shape: tuple[int, ...], seed: int, count: int = 40) -> torch.Tensor:
    last = torch.tensor(shape, dtype=torch.float64)[:, None] - 1
    return last * (0.3 + 0.4 * torch.rand(len(shape), count, generator=make_generator(seed), dtype=torch.float64))


def answering(predict) -> nn.Module:
    """A network that answers so at points."""

    class Told(nn.Module):
        def forward(self, fixed, moving):
            return SparseAlignment(Pair(fixed, moving), Affine.identity(fixed.grid.ndim), predict=predict)

    return Told()


# ---- the network


def test_the_papers_numbers():
    network = VoxelMorphPlusPlus(3)
    assert sum(p.numel() for p in network.unet.parameters()) == 901_888
    assert sum(p.numel() for p in network.head.parameters()) == 462_417
    blocks = [*network.unet.encoder.blocks, *network.unet.decoder.blocks, *network.unet.last]
    assert len(blocks) == 11


@pytest.mark.parametrize("shape", [(40, 52), (33, 47), (24, 28, 20)])
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_a_feature_lies_in_the_middle_of_its_block(shape, pool):
    """For a ramp along each axis, means of blocks in place of the U-Net's features are the coordinates of the point."""
    ndim = len(shape)
    grid = Grid.centred(shape, 1.5)
    ramps = Image(grid.voxels(torch.zeros(()))[None], grid)
    network = small(ndim, channels=ndim, pool=pool)
    network.unet = (nn.AvgPool2d if ndim == 2 else nn.AvgPool3d)(2)

    class Features(nn.Module):
        def forward(self, vectors, half):
            return PointPrediction(vectors[:, :ndim].mT)

    network.head = Features()
    where = _inner(shape, 3)[None]
    found = network(ramps, ramps).predict(where).displacement.mT
    torch.testing.assert_close(found.double(), where, rtol=0, atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("head", [HeatmapHead, RegressionHead])
def test_the_dense_map_goes_by_the_points_and_is_made_when_asked_for(ndim, head):
    pair = shifted((2,) * ndim, (40, 36, 28)[:ndim])
    network = small(ndim, head, smoothing=0.0, every=1)
    with torch.no_grad():
        answer = network(*pair.images)
        assert isinstance(answer.transform, Deferred)
        assert "made" not in vars(answer.transform)
        grid = pair.fixed.grid
        where = grid.to_voxels(network.points(pair.fixed).data.mT)
        expected = answer.predict(where).displacement
        field = answer.displacement
    assert "made" in vars(answer.transform)
    assert field.dtype == pair.fixed.data.dtype
    found = sample(field, where).mT
    torch.testing.assert_close(found, expected.to(found), rtol=0, atol=1e-3)


def test_few_points_are_refused_where_the_map_is_asked_for():
    pair = shifted((1, 1))
    answer = small(points=RandomPoints(12))(*pair.images)
    with pytest.raises(InputError, match="12 points in the fixed image, and 20 are needed"):
        _ = answer.displacement


def test_a_backbone_that_does_not_end_at_half_the_size_is_refused():
    with pytest.raises(InputError, match="two blocks less up than down"):
        VoxelMorphPlusPlus(2, down=(4, 4, 4), up=(4, 4), last=(4,))


@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("identity", "batch", ndim=3)], ids=str)
def test_contract(problem):
    with seeded(5):
        ndim, solves = problem.pair.fixed.grid.ndim, problem.name == "identity"
        check_register(VoxelMorphPlusPlus(ndim, **SMALL), problem, solves=solves, rounding=1e-2)


def test_two_warps_compose():
    pair = shifted((2, 1))
    network = small()
    found = Repeated(network)(*pair.images)
    first = network(*pair.images).transform
    moved = Alignment(pair, first).moved
    second = network(pair.fixed, moved).transform
    points = pair.fixed_points.data
    torch.testing.assert_close(found.transform(points), first(second(points)), rtol=0, atol=1e-4)


# ---- what teaches it


@pytest.mark.parametrize("supervision", [Matched(), NonLocal(), Warped()], ids=lambda s: type(s).__name__)
def test_supervisions(supervision):
    pair = shifted((2, 1))
    if isinstance(supervision, Matched):
        check_supervision(Matched(), small, pair)
    elif isinstance(supervision, NonLocal):
        check_supervision(NonLocal(), small, pair)
    else:
        check_supervision(Warped(), lambda: small(head=RegressionHead), pair)


def test_matches_are_compared_in_half_the_extent():
    pair = shifted((3, -2))
    off = torch.tensor([1.0, 2.0])
    right = torch.tensor([3.0, -2.0])
    network = answering(lambda where: PointPrediction((right + off).expand(1, where.shape[2], 2)))
    half = torch.tensor(pair.fixed.grid.shape) / 2
    expected = ((off / half) ** 2).mean()
    torch.testing.assert_close(Matched()(network, pair, 0.0)["points"], expected)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_nonlocal_loss_against_a_double_loop(ndim):
    pair = shifted((2, -1, 3)[:ndim], (24, 20, 16)[:ndim])
    features = pooled(self_similar(pair.fixed), 4).double(), pooled(self_similar(pair.moving), 4).double()
    lattice = 6 * torch.rand(5, ndim, generator=make_generator(1), dtype=torch.float64) - 3
    count = pair.fixed_points.data.shape[1]
    likelihood = torch.rand(1, count, 5, generator=make_generator(2), dtype=torch.float64).softmax(-1)
    network = answering(lambda where: PointPrediction(likelihood @ lattice, likelihood, lattice))

    def known(image):
        return self_similar(image).double()

    found = NonLocal(known)(network, pair, 0.0)["nonlocal"]
    where, total = pair.fixed.grid.to_voxels(pair.fixed_points.data.mT), 0.0
    for k in range(count):
        place = where[:, :, k : k + 1]
        mean = torch.zeros_like(sample(features[0], place))
        for j in range(5):
            there = (place + lattice[j].view(1, -1, 1) - 1.5) / 4
            mean += likelihood[0, k, j] * sample(features[1], there, padding="border")
        total += float((mean - sample(features[0], (place - 1.5) / 4, padding="border")).square().mean()) / count
    assert float(found) == pytest.approx(total, abs=1e-6)


def test_it_is_0_where_the_heatmap_points_to_the_shift_and_only_there():
    pair = shifted((4, 8), (64, 64))
    lattice = torch.tensor([[-4.0, -8.0], [0.0, 0.0], [4.0, 8.0]])
    losses = []
    for node in range(3):
        likelihood = F.one_hot(torch.full((1, 40), node), 3).float()
        network = answering(lambda where, p=likelihood: PointPrediction(p @ lattice, p, lattice))
        losses.append(float(NonLocal()(network, pair, 0.0)["nonlocal"]))
    assert losses[2] < 1e-9
    assert min(losses[:2]) > 1e-3


def test_both_of_two_likely_displacements_are_judged():
    """Their mean displacement is the right one, and neither of them is: the mean of features is not theirs."""
    pair = shifted((4, 0), (64, 64))
    lattice = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [12.0, 0.0]])
    likelihood = torch.tensor([0.5, 0.0, 0.5]).expand(1, 40, 3)
    network = answering(lambda where: PointPrediction(likelihood @ lattice, likelihood, lattice))
    torch.testing.assert_close((likelihood @ lattice)[0, 0], torch.tensor([4.0, 0.0]))
    assert float(NonLocal()(network, pair, 0.0)["nonlocal"]) > 1e-3


def test_gradients_of_the_nonlocal_loss():
    pair = shifted((2, -1), (24, 20))
    lattice = 6 * torch.rand(4, 2, generator=make_generator(1), dtype=torch.float64) - 3

    def loss(logits):
        network = answering(lambda where: PointPrediction(logits.softmax(-1) @ lattice, logits.softmax(-1), lattice))
        return NonLocal(lambda image: self_similar(image).double())(network, pair, 0.0)["nonlocal"]

    logits = torch.randn(1, 40, 4, generator=make_generator(2), dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(loss, (logits,))


def test_the_warped_loss_against_a_double_loop():
    pair = shifted((2, -1))
    field = torch.randn(1, 40, 2, generator=make_generator(1))
    network = answering(lambda where: PointPrediction(field))
    found = Warped(smoothness=0.5, neighbours=3)(network, pair, 0.0)
    where = pair.fixed.grid.to_voxels(pair.fixed_points.data.mT)[0].mT  # (40, 2)
    fixed, moving = (pooled(self_similar(image), 4) for image in pair.images)
    half, graph = torch.tensor(pair.fixed.grid.shape) / 2, neighbours(where, 3)
    unlike, rough = [], []
    for k in range(40):
        there, here = ((x.float().view(1, 2, 1) - 1.5) / 4 for x in (where[k] + field[0, k], where[k]))
        difference = sample(moving, there, padding="border") - sample(fixed, here, padding="border")
        unlike.append(difference.square().mean())
        rough += [(((field[0, k] - field[0, m]) / half) ** 2).sum() for m in graph[k]]
    torch.testing.assert_close(found["warped"], torch.stack(unlike).mean(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found["graph"], 0.5 * torch.stack(rough).mean(), rtol=1e-4, atol=1e-7)


def test_what_cannot_teach_is_refused():
    pair, network = shifted((1, 1)), small()
    less = replace(pair, moving_points=Points(pair.moving_points.data[:, :-3]))
    away = replace(pair, fixed_points=Points(pair.fixed_points.data + torch.tensor([60.0, 0.0])))
    bare = replace(pair, fixed_points=None)
    for supervision, given, message in (
        (Matched(), bare, "matched points of both"),
        (Matched(), less, r"\[40, 37\]"),
        (Matched(), away, "outside the fixed image"),
        (NonLocal(), bare, "points of the fixed image"),
        (Warped(), bare, "points of the fixed image"),
    ):
        with pytest.raises(InputError, match=message):
            supervision(network, given, 0.0)
    with pytest.raises(TypeError, match="heatmaps"):
        NonLocal()(small(head=RegressionHead), pair, 0.0)

    def plain(fixed, moving):
        return Alignment(Pair(fixed, moving), Affine.identity(2))

    with pytest.raises(TypeError, match="answers at points"):
        Matched()(plain, pair, 0.0)


class Shifted:
    """Examples of one motion and many textures."""

    def draw(self, generator):
        return shifted((4, -3), seed=int(torch.randint(1000, (), generator=generator)))


@pytest.mark.parametrize(("head", "supervision"), [(HeatmapHead, Matched()), (RegressionHead, Matched())])
def test_matches_teach_the_way_from_fixed_to_moving(head, supervision):
    network = small(head=head)
    training = Training(updates=40, lr=3e-3, augment=DrawnPoints(30), log_every=50, validate_every=50)
    train(network, Shifted(), supervision, training)
    pair = shifted((4, -3), seed=5000)
    with torch.no_grad():
        after = LandmarkError()(Alignment(pair, network(*pair.images).transform))["tre mm"]
    assert after < 0.5 * float(torch.tensor([8.0, -6.0]).norm())


# ---- points of pairs


@pytest.mark.parametrize("ndim", [2, 3])
def test_matches_follow_their_images(ndim, oblique):
    """Of a pair seen through maps A and B, the point x lies where A(x) did, and its match where B⁻¹ φ A leads."""
    grid = oblique((20, 18, 16)[:ndim], seed=2)
    truth = shift(*(1.5, -0.5, 1.0)[:ndim])
    points = Points(grid.to_world(_inner(grid.shape, 1)[None]).mT)
    image = Image(gaussian(torch.rand(1, 1, *grid.shape, generator=make_generator(0)), 2.5), grid)
    pair = Pair(image, image, None, None, points, push(points, truth), truth, name="a")
    sides = set()
    for seed in range(6):
        found = OneAffine()(pair, make_generator(seed))
        torch.testing.assert_close(push(found.fixed_points, found.truth).data, found.moving_points.data)
        turned = [not torch.equal(found.fixed_points.data, points.data)]
        sides.add(turned[0])
        values = sample(found.fixed.data.double(), grid.to_voxels(found.fixed_points.data.mT))
        there = sample(pair.fixed.data.double(), grid.to_voxels(points.data.mT))
        assert float((values - there).abs().mean()) < 0.1 * float(there.std())
    assert sides == {True, False}


@pytest.mark.parametrize("augment", [OneAffine(), DrawnPoints(10), DrawnPoints(10, 1.0)], ids=repr)
def test_contract_of_augmentation(augment):
    check_augmentation(augment, shifted((2, 1)))


def test_numbers_of_a_random_affine_are_of_half_the_extent():
    grid = Grid((40, 30, 20), torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64)))
    drawn = [OneAffine(0.1).drawn(grid, make_generator(seed)).matrix for seed in range(400)]
    half = torch.tensor([20.0, 30.0, 30.0], dtype=torch.float64)  # mm
    numbers = torch.stack([(m[:3, :3] - torch.eye(3)) * half / half[:, None] for m in drawn])
    torch.testing.assert_close(numbers.std(0), torch.full((3, 3), 0.1).double(), rtol=0.12, atol=0)
    centre = torch.stack([(Affine(m)(grid.centre[None]) - grid.centre)[0] / half for m in drawn])
    torch.testing.assert_close(centre.std(0), torch.full((3,), 0.1).double(), rtol=0.12, atol=0)


def test_points_are_drawn_with_their_matches_and_an_error():
    pair = shifted((2, 1))
    exact = DrawnPoints(10)(pair, make_generator(0))
    assert exact.fixed_points.data.shape == (1, 10, 2)
    torch.testing.assert_close(exact.moving_points.data, push(exact.fixed_points, pair.truth).data)
    far = [DrawnPoints(40, 0.7)(pair, make_generator(seed)) for seed in range(40)]
    off = torch.cat([one.moving_points.data - push(one.fixed_points, pair.truth).data for one in far])
    assert float(off.std()) == pytest.approx(0.7, rel=0.05)
    textures = DrawnPoints(500)(replace(pair, fixed_points=None, moving_points=None), make_generator(0))
    assert textures.fixed_points.data.shape[1] > 5
    torch.testing.assert_close(textures.moving_points.data, push(textures.fixed_points, pair.truth).data)


# ---- recipes and study


def test_the_rows_of_the_papers_table():
    """Heads and supervisions as in table 1, with as many updates, points and matches each."""
    kinds = {key: (type(recipe.supervision), recipe.network.keywords["head"]) for key, recipe in recipes.items()}
    for data in {key.data for key in recipes}:
        of = {key[:2]: kinds[key][0] for key in recipes if key.data == data}
        assert of == {
            ("voxelmorph++", "heatmap"): Matched,
            ("voxelmorph++", "regression"): Matched,
            ("voxelmorph++-mind", "heatmap"): NonLocal,
            ("voxelmorph++-mind", "regression"): Warped,
        }
        assert len({recipe.training for key, recipe in recipes.items() if key.data == data}) == 1
    full = recipes["voxelmorph++", "heatmap", "lungct"]
    assert (full.training.updates, full.training.lr) == (4900, 1e-3)
    assert full.network() is not None
    schedule = full.training.schedule
    assert [schedule(update / 4900) for update in (0, 699, 700, 1400, 4899)] == [1, 1, 0.5, 0.25, 1 / 64]
    assert ERROR == 1.6


def test_the_error_is_100_times_that_of_coordinates_from_minus_1_to_1():
    pair = shifted((3, 4), (48, 40))
    found = HalfExtentError()(Alignment(pair, Affine.identity(2)))["error vx"]
    assert found == pytest.approx(100 * ((3 / 24) ** 2 + (4 / 20) ** 2) ** 0.5)
    assert HalfExtentError()(Alignment(replace(pair, fixed_points=None), Affine.identity(2))) == {}


def test_the_descent_goes_on_from_the_network():
    pair = shifted((4, -3), (64, 56))
    near = answering(lambda where: PointPrediction(torch.zeros(1, where.shape[2], 2)))
    near.forward = lambda fixed, moving: Alignment(Pair(fixed, moving), shift(7.0, -7.0))
    error = LandmarkError()
    before = error(Alignment(pair, shift(7.0, -7.0)))["tre mm"]
    assert error(Alignment(pair, Optimised(near)(*pair.images).transform))["tre mm"] < 0.5 * before


def test_refine_by_mind_is_the_instance_optimisation():
    """As `register --network RUN --refine 7 --energy mind --smoothness 2` has it."""
    found = learned(Trained(small()), refine=7, energy="mind", smoothness=2.0)
    (descent,) = found.then
    known = FeatureOptimised()
    solver = replace(known.descent.solver, steps=7)
    assert descent == replace(known, descent=replace(known.descent, regularity=1.3, solver=solver))
    pair = shifted((2, -1))
    assert found(*pair.images).is_finite
    with pytest.raises(InputError, match="a factor of 0 or more"):
        learned(Trained(small()), refine=7, energy="mind", smoothness=-1.0)


@pytest.mark.real
def test_landmarks_of_lungs_before_and_through_matches(shared):
    """Nominal 11.99 mm before, as published; 1.64 by the matches."""
    folder = shared / "data" / "lung_keypoints"
    if not folder.is_dir():
        pytest.skip("no real data: `shared/data/lung_keypoints` is missing")
    data = LandmarkFolder(str(folder))
    before = [row["nominal mm"] for row in through_matches(data, 0)]
    assert sum(before) / len(before) == pytest.approx(11.99, abs=0.01)
    after = [row["nominal mm"] for row in through_matches(data, 0, 0.0)]
    assert sum(after) / len(after) == pytest.approx(1.64, abs=0.15)


def test_the_phantom_teaches_without_points_of_its_own():
    pair = next(iter(BrainPhantom(12.0, 2, 2, 2).test))
    drawn = DrawnPoints(64)(pair, make_generator(0))
    network = small(3, pool=1)
    assert Matched()(network, drawn, 0.0)["points"].isfinite()
