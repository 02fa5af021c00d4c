"""One meaning of a batch: B pairs at once are each alone, and what is there once serves all; all else is refused."""

from functools import partial

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.energies import MSE, Diffusion
from pullback.errors import InputError
from pullback.files.images.nifti import write_image
from pullback.files.transforms.itk import write_transform
from pullback.methods.pair.classical import Classical
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.cyclical import WithRefinement
from pullback.methods.pair.ddmr import PooledUNet
from pullback.methods.pair.feature_registration import FeatureRegistration
from pullback.methods.pair.ofg import Guided
from pullback.methods.pair.transmorph import TransMorph
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.methods.pose.cross_ngf import CrossNGF
from pullback.methods.pose.initialise import Initialise
from pullback.metrics import (
    CentroidError,
    Correlation,
    Dice,
    EndPointError,
    Folding,
    HausdorffDistance,
    LandmarkError,
    SDLogJ,
    StructuralSimilarity,
    learn2reg,
    numbers_of,
)
from pullback.numerics.smooth import gaussian
from pullback.solvers import (
    Converged,
    DeformableStage,
    Descend,
    FeatureDescent,
    FieldAdam,
    InstanceOptimisation,
    Levels,
    LinearStage,
    chain,
)
from pullback.space import Affine, Displacement, Grid, Image, Labels, Motion, Points, Velocity
from pullback.study.evaluate import unmoved
from pullback.study.trained import Trained
from pullback.training import align, seeded

SMALL = {
    "VoxelMorph": partial(VoxelMorph, encoder=(4, 8), decoder=(8, 8, 8, 4)),
    "ViTVNet": partial(ViTVNet, hidden=24, blocks=1, heads=2, mlp=16),
    "TransMorph": partial(TransMorph, embed=12, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2)),
    "PooledUNet": partial(PooledUNet, widths=(4, 8)),
    "FeatureRegistration": partial(FeatureRegistration, widths=(4, 8, 8)),
}
ENERGY = MSE() + 0.1 * Diffusion()
SOLVERS = {
    "LinearStage": LinearStage(Motion.affine, MSE(), Levels(coarsest=12), Descend(6, 0.2, until=Converged(3))),
    "DeformableStage": DeformableStage(ENERGY, levels=Levels(coarsest=12), steps=(4, 2), solver=Descend(step_size=0.1)),
    "InstanceOptimisation": InstanceOptimisation(ENERGY, Descend(5, 0.2)),
    "Classical": Classical(
        None,
        (("rigid", LinearStage(solver=Descend(4, 0.2))),),
        DeformableStage(ENERGY, steps=(3,), solver=Descend(step_size=0.1)),
    ),
    "ConvexAdam": ConvexAdam(spacing=4, descent=FeatureDescent(solver=Descend(3, 1.0))),
    "CrossNGF": CrossNGF(rotations=(6, 4, 2, 0), voxels=5_000),
    "Initialise": Initialise(search=None, random=4, solver=Descend(3, 0.5)),
    "chain": chain(InstanceOptimisation(ENERGY, Descend(2, 0.2)), DeformableStage(ENERGY, steps=(2,))),
    "unmoved": unmoved,
}


def register(name, ndim):
    if name == "WithRefinement":
        return WithRefinement(partial(register, "VoxelMorph", ndim), InstanceOptimisation(ENERGY, Descend(2, 0.1)))
    if name == "Trained":
        return Trained(register("VoxelMorph", ndim), centred=True)
    if name in SMALL:
        with seeded(5):
            network = SMALL[name](ndim=ndim).eval()
        for parameter in network.parameters():  # no head that hardly moves
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        return network
    return SOLVERS[name]


def images(ndim, fixed, moving):
    """Batches of so many smooth images, on grids of their own."""
    generator = torch.Generator().manual_seed(2)
    grids = Grid.centred((18, 20, 17)[:ndim], 2.0), Grid.centred((19, 18, 18)[:ndim], 2.1)
    sizes = zip((fixed, moving), grids, strict=True)
    return [Image(gaussian(torch.rand(n, 1, *g.shape, generator=generator), 1.5), g) for n, g in sizes]


@pytest.mark.slow
@pytest.mark.parametrize("batches", [(2, 2), (1, 2), (2, 1)], ids=["both", "one fixed", "one moving"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", [*SMALL, *SOLVERS, "WithRefinement", "Trained"])
def test_pairs_at_once_are_each_alone(name, ndim, batches):
    """To rounding, in voxels."""
    method, (fixed, moving) = register(name, ndim), images(ndim, *batches)
    whole = align(method, Pair(fixed, moving))
    assert whole.batch == 2 or name == "unmoved"
    for n, one in enumerate(whole.each()):
        alone = align(method, Pair(fixed.nth(n), moving.nth(n)))
        assert alone.batch == 1
        here, there = (each.transform.displacement(fixed.grid) for each in (one, alone))
        torch.testing.assert_close(here, there, rtol=0, atol=1e-5)
        assert name == "unmoved" or float(there.abs().max()) > 0.01, "or nothing was compared"
    pairs = (Pair(fixed.nth(n), moving.nth(n)) for n in range(2))
    first, second = (align(method, pair).transform.displacement(fixed.grid) for pair in pairs)
    assert name == "unmoved" or float((first - second).abs().max()) > 1e-4, "the pairs have answers of their own"


def test_batches_that_differ_are_refused_with_their_sizes():
    fixed, moving = images(2, 2, 3)
    with pytest.raises(ValueError, match="fixed 2, moving 3"):
        Pair(fixed, moving)
    with pytest.raises(ValueError, match="the pair 2, the transform 3"):
        Alignment(Pair(fixed, moving.nth(0)), Displacement(torch.zeros(3, 2, *fixed.grid.shape), fixed.grid))
    with pytest.raises(ValueError, match="the outer transform 3, the inner transform 2"):
        Affine(torch.eye(3).repeat(3, 1, 1)) @ Displacement(torch.zeros(2, 2, *fixed.grid.shape), fixed.grid)
    with pytest.raises(ValueError, match="the start 3"):
        InstanceOptimisation(ENERGY, Descend(1))(fixed, moving.nth(0), Displacement.identity(fixed.grid, moving.data))


METRICS = [
    *(Dice(), HausdorffDistance(), CentroidError(), Folding(), SDLogJ(), EndPointError(), LandmarkError()),
    *(Correlation(), StructuralSimilarity()),
    *(learn2reg.Dice(), learn2reg.SDLogJ(), learn2reg.HausdorffDistance(), learn2reg.LandmarkError()),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: f"{type(m).__module__.split('.')[-1]} {type(m).__name__}")
def test_a_metric_is_of_one_pair(metric):
    """Of seven transforms for one pair, Dice was 1.746: a batch is refused, and each of it measured."""
    fixed, moving = images(3, 1, 1)
    labels = [Labels((image.data > 0.5).long(), image.grid) for image in (fixed, moving)]
    points = Points(fixed.grid.to_world(torch.tensor([[[8.0, 9, 8], [7, 7, 9]]]).mT).mT.double())
    field = 0.3 * torch.randn(3, 3, *fixed.grid.shape, generator=torch.Generator().manual_seed(4))
    truth = Displacement(field[:1], fixed.grid)
    pair = Pair(fixed, moving, *labels, points, points, truth)
    whole = Alignment(pair, Displacement(field, fixed.grid))
    with pytest.raises(ValueError, match=r"measures one pair, and this is a batch of 3: .* 3 transforms"):
        metric(whole)
    each = [numbers_of(one, [metric]) for one in whole.each()]
    assert each == [metric(Alignment(pair, Displacement(field[n : n + 1], fixed.grid))) for n in range(3)]
    assert each[0].keys() >= {metric.name}
    assert len({one[metric.name] for one in each}) > 1 or "hd95" in metric.name, "whole voxels apart, by their area"


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_batch_of_poses(ndim):
    """Coefficients `(B, K)` are B motions: each as alone, and descended together by what sees them all."""
    grid = Grid.centred((16, 14, 12)[:ndim], 1.5)
    motion = Motion.rigid(Affine.identity(ndim), grid)
    generator = torch.Generator().manual_seed(1)
    few = 0.4 * torch.randn(3, len(motion.coefficients), generator=generator, dtype=torch.float64)
    whole = motion.with_params(few)
    points = torch.randn(5, ndim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert (whole.batch, whole.ndim) == (3, ndim)
    for n in range(3):
        torch.testing.assert_close(whole.nth(n)(points), motion.with_params(few[n])(points), rtol=0, atol=1e-12)
    goals = whole.matrix.detach()
    found, stats = Descend(200, 0.05)(lambda m: (m.matrix - goals).square().sum(), motion.with_params(0 * few))
    torch.testing.assert_close(found.coefficients, few, rtol=0, atol=1e-2)
    assert stats.steps == 200


def test_field_adam_moves_each_of_a_batch_as_alone():
    """Its ε is held against the slopes of one pair, of which a batch's mean has a share each."""
    fixed, moving = images(3, 2, 2)
    pair, solver = Pair(fixed, moving), Descend(8, 0.2, optimiser=FieldAdam())
    found, _ = solver(ENERGY.on(pair), Displacement.identity(fixed.grid, fixed.data))
    for n in range(2):
        alone, _ = solver(ENERGY.on(pair.nth(n)), Displacement.identity(fixed.grid, fixed.data[:1]))
        torch.testing.assert_close(found.field[n : n + 1], alone.field, rtol=0, atol=1e-4)


def test_guidance_of_a_batch_is_the_mean_of_each():
    fixed, moving = images(3, 2, 2)
    network = register("VoxelMorph", 3)
    whole = Guided()(network, Pair(fixed, moving), 0.0)
    each = [Guided()(network, Pair(fixed.nth(n), moving.nth(n)), 0.0) for n in range(2)]
    for name, value in whole.items():
        torch.testing.assert_close(value, (each[0][name] + each[1][name]) / 2, rtol=1e-3, atol=1e-9)


def test_kinds_of_transforms_in_a_batch():
    """Stacked and taken apart again they are the same; kinds that differ make no batch."""
    grid = Grid.centred((8, 7), 1.0)
    fields = [torch.randn(1, 2, 8, 7, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    shifts = [torch.tensor([[1.0, 0, s], [0, 1, -s], [0, 0, 1]]) for s in range(3)]
    for kind in (lambda n: Velocity(fields[n], grid), lambda n: Affine(shifts[n]) @ Displacement(fields[n], grid)):
        first, *others = (kind(n) for n in range(3))
        whole = first.stack(others)
        assert whole.batch == 3
        for n in range(3):
            torch.testing.assert_close(whole.nth(n).displacement(grid), kind(n).displacement(grid))
    for other in (Displacement(fields[0], grid), Velocity(fields[0], Grid.centred((8, 7), 2.0)), Affine.identity(2)):
        with pytest.raises(ValueError, match="of one kind on one grid"):
            Velocity(fields[0], grid).stack([other])


def test_a_file_holds_one(tmp_path):
    fixed, _ = images(3, 2, 2)
    with pytest.raises(InputError, match=r"two.h5: a file holds one, and this is a batch of 2"):
        write_transform(Displacement.identity(fixed.grid, fixed.data), tmp_path / "two.h5")
    with pytest.raises(InputError, match=r"two.nii.gz: a file holds one"):
        write_image(fixed, tmp_path / "two.nii.gz")
    assert not list(tmp_path.iterdir())
