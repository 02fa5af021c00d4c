"""Decomposition with attention: its parts, what attention on fields cannot tell, and the way that is written."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image as Picture
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import Breathing
from pullback.energies import LNCC, MSE, Diffusion
from pullback.errors import InputError
from pullback.files import read_grid, write, write_transform
from pullback.methods.pair.decomposed import METHOD, AlongTheWay, Decomposed, PhasedAlignment, met
from pullback.metrics import BetweenError
from pullback.networks import AcrossPhases
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.recipes import find
from pullback.report.way import write_way
from pullback.space import Affine, Displacement, Grid, Image, Labels, Series, Velocity, pull
from pullback.studies import decomposed
from pullback.studies.decomposed import Cyclic
from pullback.study.arms import TrainedArm
from pullback.study.trained import Trained
from pullback.testing import check_register, check_supervision, problems
from pullback.training import Training, Unsupervised, seeded
from pullback.training.train import train
from pullback.workflows.apply import apply_files, read_in_order
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.register import register_files

SHAPES = {2: (33, 29), 3: (17, 13, 17)}
"""A node of the attention's lattice at every fourth voxel, the last one included."""
LATTICES = {2: (9, 8), 3: (5, 4, 5)}
dimensions = pytest.mark.parametrize("ndim", [2, 3])
SMALL = {"encoder": (4, 8), "decoder": (8, 8, 8, 4), "width": 12}
made = partial(Decomposed, **SMALL)


class Told(nn.Module):
    """A head that answers with a field it was told, whatever it sees."""

    def __init__(self, field, transform=Displacement):
        super().__init__()
        self.field, self.transform = nn.Parameter(field), transform

    def forward(self, features, fixed, moving):
        return Alignment(Pair(fixed, moving), self.transform(self.field, fixed.grid))


def told(field, **options):
    """A network whose Φ is `field`, with attention that bends it much."""
    with seeded(2):
        network = made(field.shape[1], **options)
    network.head = Told(field, options.get("transform", Displacement))
    if network.across is not None:
        nn.init.normal_(network.across.leave.weight, std=1.0, generator=make_generator(4))
    return network.eval()


def pair(ndim, seed=0, frames=0):
    grid = Grid.centred(SHAPES[ndim], 2.0)
    images = smooth_noise((2 + frames, 1, *grid.shape), 1.5, make_generator(seed), torch.zeros(()))
    fixed, moving, *between = (Image(data[None], grid) for data in images)
    times = torch.arange(1, frames + 1).double() / (frames + 1)
    return Pair(fixed, moving, between=Series(tuple(between), grid, times, "") if frames else None)


def noisy(ndim, size=3.0, sigma=2.0):
    return size * smooth_noise((1, ndim, *SHAPES[ndim]), sigma, make_generator(9), torch.zeros(()))


def phases(answer):
    return [*answer.on_the_way, answer.transform]


@dimensions
@pytest.mark.parametrize("transform", [Displacement, Velocity])
def test_without_attention_phases_are_even_parts(ndim, transform):
    """Where the layer answers 0, vₜ = (t/n) Φ exactly; and so without the layer."""
    field, images = noisy(ndim), pair(ndim)
    resting = told(field, transform=transform)
    nn.init.zeros_(resting.across.leave.weight)
    for network in (resting, told(field, transform=transform, heads=0)):
        answer = network(images.fixed, images.moving)
        assert [*answer.transforms] == ["phase_1", "phase_2", "phase_3", "phase_4"]
        for t, phase in enumerate(phases(answer), 1):
            assert isinstance(phase, transform)
            assert torch.equal(phase.field, (t / 5) * field)
        assert torch.equal(answer.whole.field, field)


@dimensions
def test_one_step_learns_as_plain_networks_do(ndim):
    """With n = 1, and on a pair without images between, the losses are those of `Unsupervised`."""
    images, energy = pair(ndim), LNCC(5) + 0.7 * Diffusion()
    for network, known in (
        (told(noisy(ndim), heads=0, phases=1), pair(ndim, frames=3)),
        (told(noisy(ndim), heads=0), images),
    ):
        plain = Unsupervised(energy)(network, known, 0.0)
        ends = known if network.phases > 1 else replace(known, between=None)
        found = AlongTheWay(energy)(network, ends, 0.0)
        assert found.keys() == plain.keys() == {"lncc", "diffusion"}
        for name, value in plain.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


@dimensions
@pytest.mark.parametrize("transform", [Displacement, Velocity])
def test_attention_on_fields_alone_does_not_tell_two_places_apart(ndim, transform):
    """What the paper leaves unsaid: nodes of the lattice with one Φ get one way, whatever and wherever they show.

    With features of the image they do not. Between nodes the correction is interpolated.
    """
    nodes = noisy(ndim)[(..., *[slice(None, None, 4)] * ndim)]
    assert nodes.shape[2:] == LATTICES[ndim]
    one, other = (1,) * ndim, tuple(n - 2 for n in LATTICES[ndim])
    nodes[(0, slice(None), *one)] = nodes[(0, slice(None), *other)]
    field = nn.functional.interpolate(
        nodes, SHAPES[ndim], mode="bilinear" if ndim == 2 else "trilinear", align_corners=True
    )
    if transform is Velocity:  # the same all about, so that what it amounts to is the same
        field = torch.ones_like(field)
    here, there = (tuple(4 * n for n in node) for node in (one, other))
    ways = {}
    for features in (0, 16):
        for seed in (0, 1):
            images = pair(ndim, seed)
            answer = told(field, features=features, transform=transform)(images.fixed, images.moving)
            fields = [phase.field[0].detach() for phase in phases(answer)]
            ways[features, seed] = [torch.stack([f[(slice(None), *at)] for f in fields]) for at in (here, there)]
            assert float((fields[-1] - field[0]).abs().max()) > 0.3  # it bends
    for seed in (0, 1):
        first, second = ways[0, seed]
        torch.testing.assert_close(first, second, rtol=0, atol=2e-6)
        seen, elsewhere = ways[16, seed]
        assert float((seen - elsewhere).abs().max()) > 1e-2
    torch.testing.assert_close(ways[0, 0][0], ways[0, 1][0], rtol=0, atol=2e-6)  # whatever the images
    assert float((ways[16, 0][0] - ways[16, 1][0]).abs().max()) > 1e-2


def test_attention_is_over_phases_and_does_not_know_their_order():
    """Permuted phases get permuted answers; a phase is heard at its own node, and nowhere else."""
    with seeded(0):
        layer = AcrossPhases(2, 3, 12, 2).eval()
    nn.init.normal_(layer.leave.weight, generator=make_generator(0))
    tokens = torch.randn(7, 5, 6, generator=make_generator(1))
    tokens[..., -1] = 0  # t/n
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(layer(tokens[:, order]), layer(tokens)[:, order], rtol=0, atol=1e-5)
    changed = tokens.clone()
    changed[2, 1] += 1.0
    off = (layer(changed) - layer(tokens)).abs().amax(-1)
    assert float(off[2].min().detach()) > 1e-4
    assert float(off[[0, 1, 3, 4, 5, 6]].max().detach()) < 1e-6
    assert layer(tokens).shape == (7, 5, 2)


@dimensions
def test_features_are_those_of_where_a_phase_leads(ndim):
    """A motion by whole nodes shows the features of the node that it leads to; lengths are in tens of voxels."""
    network, images = told(noisy(ndim)), pair(ndim)
    still = torch.zeros(1, ndim, *SHAPES[ndim])
    shift = still.clone()
    shift[:, 0] = 4.0
    with torch.no_grad():
        tokens = network.tokens([still, shift], images.moving.data)
    assert tokens.shape == (1, 2, ndim + 17, *LATTICES[ndim])
    here, led = tokens[0, 0, ndim:-1], tokens[0, 1, ndim:-1]
    torch.testing.assert_close(led[:, :-1], here[:, 1:], rtol=0, atol=1e-5)
    assert float((led - here).abs().mean()) > 1e-2
    assert tokens[0, 1, 0].unique().tolist() == pytest.approx([0.4])
    assert tokens[0, :, -1].flatten(1).unique(dim=1).flatten().tolist() == [0.5, 1.0]


@dimensions
def test_parts_of_a_velocity_compose_and_those_of_a_displacement_do_not(ndim):
    """φₛ ∘ φₜ = φₛ₊ₜ within 1e-2 voxel at 10 voxels of motion; of Φ = A x it is off by (s/n)(t/n) A Φ, exactly."""
    shape = (48, 44) if ndim == 2 else (32, 30, 34)
    grid = Grid.centred(shape)
    image = Image(torch.zeros(1, 1, *shape, dtype=torch.float64), grid)
    smooth = smooth_noise((1, ndim, *shape), 8.0, make_generator(3), torch.zeros((), dtype=torch.float64))
    smooth = smooth / smooth.norm(dim=1).max() * 10
    inner = grid.to_world(
        torch.stack(torch.meshgrid(*[torch.linspace(n / 2 - 3, n / 2 + 3, 4) for n in shape], indexing="ij")).double()[
            None
        ]
    )
    answer = told(smooth, heads=0, transform=Velocity)(image, image)
    ways = phases(answer)
    for s, t in ((1, 1), (2, 3), (1, 4)):
        composed = (ways[s - 1] @ ways[t - 1]).at(inner)
        assert float((composed - ways[s + t - 1].at(inner)).detach().norm(dim=1).max()) < 1e-2
    slope = 0.1 * torch.randn(ndim, ndim, generator=make_generator(5), dtype=torch.float64)
    linear = torch.einsum("ab,b...->a...", slope, grid.to_world(grid.voxels(smooth)[None])[0])[None]
    ways = phases(told(linear, heads=0)(image, image))
    for s, t in ((1, 1), (2, 3), (1, 4)):
        off = (ways[s - 1] @ ways[t - 1]).at(inner) - ways[s + t - 1].at(inner)
        expected = s * t / 25 * torch.einsum("ab,bc,xc...->xa...", slope, slope, inner)
        torch.testing.assert_close(off, expected, rtol=0, atol=1e-9)
        assert float(expected.norm(dim=1).max()) > 5e-4


def uniform(ndim, a=3.0, order=None):
    """I_S a ramp g, Tₜ(x) = g(x + t a / n), seen within a mask that no motion leaves."""
    grid = Grid.centred(SHAPES[ndim])
    where = grid.voxels(torch.zeros(()))
    ramp = 0.1 * where[0] + 0.05 * where[1]
    mask = torch.zeros(1, 1, *grid.shape, dtype=torch.bool)
    mask[(..., *[slice(4, -4)] * ndim)] = True
    frames = [Image((ramp + 0.1 * a * t / 5)[None, None], grid, mask) for t in range(1, 6)]
    *between, fixed = frames
    between = between if order is None else [between[n] for n in order]
    return Pair(fixed, Image(ramp[None, None], grid), between=Series(tuple(between), grid, torch.arange(1, 5) / 5, ""))


def by(ndim, length):
    field = torch.zeros(1, ndim, *SHAPES[ndim])
    field[:, 0] = length
    return told(field, heads=0)


@dimensions
def test_uniform_motion_has_no_loss_at_the_truth_and_a_slope_towards_it(ndim):
    """At Φ = a each phase meets its image; at a/2 the loss is Σ (0.1 (t/n) a/2)² and falls along a."""
    known, learn = uniform(ndim), AlongTheWay(MSE())
    network = by(ndim, 3.0)
    loss = learn(network, known, 0.0)["mse"]
    assert float(loss.detach()) < 1e-10
    (slope,) = torch.autograd.grad(loss, network.head.field)
    assert float(slope.abs().max()) < 1e-6
    network = by(ndim, 1.5)
    loss = learn(network, known, 0.0)["mse"]
    expected = sum((0.1 * t / 5 * 1.5) ** 2 for t in range(1, 6))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    (slope,) = torch.autograd.grad(loss, network.head.field)
    assert float(slope[:, 0].sum()) < -1e-3
    for wrong in ([3, 2, 1, 0], [0, 2, 1, 3]):
        assert float(learn(by(ndim, 3.0), uniform(ndim, order=wrong), 0.0)["mse"].detach()) > 1e-3


def test_similarity_is_a_sum_over_phases_and_regularity_a_mean_of_both_ends():
    known, energy = pair(2, frames=4), LNCC(5) + 0.5 * Diffusion()
    network = told(noisy(2))
    answer, found = network(known.fixed, known.moving), AlongTheWay(energy)(network, known, 0.0)
    images = [*known.between, known.fixed]
    each = [
        LNCC(5)(Alignment(Pair(image, known.moving), phase))
        for image, phase in zip(images, phases(answer), strict=True)
    ]
    torch.testing.assert_close(found["lncc"], torch.stack(each).sum())
    ends = [0.5 * Diffusion()(Alignment(known, transform)) for transform in (answer.transform, answer.whole)]
    torch.testing.assert_close(found["diffusion"], torch.stack(ends).mean())
    assert abs(float(ends[0] - ends[1])) > 1e-3


@pytest.mark.parametrize("transform", [Displacement, Velocity])
def test_less_memory_is_the_same_gradient(transform):
    known, slopes = pair(2, frames=4), []
    for frugal in (False, True):
        network = told(noisy(2), transform=transform)
        losses = AlongTheWay(LNCC(5) + Diffusion(), frugal)(network, known, 0.0)
        torch.stack([*losses.values()]).sum().backward()
        slopes.append([p.grad for p in network.parameters() if p.grad is not None])
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_longer_series_is_met_evenly_and_others_are_refused():
    known = pair(2, frames=9)
    answer = told(noisy(2))(known.fixed, known.moving)
    seen = [image for image, _ in met(known, answer)]
    assert [next(n for n, frame in enumerate(known.between) if frame is image) for image in seen[:-1]] == [1, 3, 5, 7]
    assert seen[-1] is known.fixed
    known = pair(2, frames=3)
    with pytest.raises(InputError, match=r"a series of 4 phases.*network's 5.*phases=4"):
        AlongTheWay()(told(noisy(2)), known, 0.0)
    with pytest.raises(TypeError, match="answers with a way"):
        AlongTheWay()(lambda fixed, moving: Alignment(Pair(fixed, moving), Affine.identity(2)), known, 0.0)
    with pytest.raises(InputError, match="a width that heads divide"):
        Decomposed(2, width=25)


@dimensions
def test_the_error_between_is_that_of_known_phases(ndim):
    """0 at the truth; a phase that is off by (1, −2) mm in one of two phases makes half of √5, in the lungs alone."""
    known = pair(ndim, frames=2)
    grid = known.fixed.grid
    truths = tuple(Displacement(noisy(ndim) * n, grid) for n in (0.1, 0.2))
    lungs = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    lungs[(..., *[slice(6, -4)] * ndim)] = 1
    known = replace(known, between=replace(known.between, truths=truths), moving_labels=Labels(lungs, grid))
    shift = torch.zeros(1, ndim, *grid.shape)
    shift[:, 0], shift[:, 1] = 0.5, -1.0  # voxels of 2 mm
    away = pull(known.moving_labels, truths[1], onto=grid).data > 0
    off = replace(truths[1], field=truths[1].field + torch.where(away, shift, 9 * shift))
    for second, expected in ((truths[1], 0.0), (off, math.sqrt(5) / 2)):
        way = PhasedAlignment(known, Affine.identity(ndim), transforms={"phase_1": truths[0], "phase_2": second})
        assert BetweenError()(way) == {"between mm": pytest.approx(expected, abs=1e-5)}
    assert BetweenError()(Alignment(known, Affine.identity(ndim))) == {}
    assert BetweenError()(replace(way, pair=replace(known, between=None))) == {}


@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("identity", "anisotropic", ndim=3)], ids=str)
def test_contract(problem):
    with seeded(5):
        ndim = problem.pair.fixed.grid.ndim
        check_register(Decomposed(ndim, **SMALL), problem, solves=problem.name == "identity", rounding=1e-3)


@pytest.mark.parametrize("between", [0, 4])
def test_contract_of_the_supervision(between):
    check_supervision(AlongTheWay(), partial(made, 2), pair(2, frames=between))


def test_a_cycle_is_nothing_at_rest_and_something_where_the_ways_are_no_inverses():
    """The energy is that of both ways; what comes back through Φ twice is off, and at rest it is not."""
    images, learn = pair(2), Cyclic(LNCC(5) + 0.5 * Diffusion(), 0.1)
    rest, moving = (told(field, heads=0) for field in (torch.zeros(1, 2, *SHAPES[2]), noisy(2)))
    still = learn(rest, images, 0.0)
    assert float(still["cycle"]) < 1e-6
    torch.testing.assert_close(still["lncc"], 2 * LNCC(5)(Alignment(images, Affine.identity(2))))
    assert float(learn(moving, images, 0.0)["cycle"].detach()) > 0.01
    check_supervision(Cyclic(), partial(made, 2), images)


def test_rivals_have_the_same_backbone():
    """All rows of a table begin with as many weights in the U-Net, and learn from the same data."""
    arms = decomposed.study.tables["table1"].experiments["breathing-slices"].arms
    recipes = {name: arm.recipe for name, arm in arms.items() if isinstance(arm, TrainedArm)}
    assert len(recipes) == 10
    networks = {name: recipe.network() for name, recipe in recipes.items()}
    sizes = {
        name: sum(p.numel() for n, p in network.named_parameters() if "unet" in n) for name, network in networks.items()
    }
    assert len({*sizes.values()}) == 1
    assert len({recipe.training for recipe in recipes.values()}) == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What `register` writes of two files by a network with phases."""
    folder = tmp_path_factory.mktemp("way")
    images = pair(3)
    for name, image in (("fixed", images.fixed), ("moving", images.moving)):
        write(image, folder / f"{name}.nii.gz")
    register = Trained(told(noisy(3)))
    files = [ImageFiles((str(folder / f"{name}.nii.gz"),)) for name in ("fixed", "moving")]
    return folder, register_files(*files, register, folder / "out")


def test_the_way_is_written_and_read_by_apply_and_by_itk(run):
    """Each phase on disk moves the moving image as it did: by `apply`, and by SimpleITK, which knows nothing of us."""
    folder, content = run
    names = [f"transforms/phase_{t}.h5" for t in range(1, 5)]
    assert {*names, "way.png"} <= {*content["files"]}
    moving = sitk.ReadImage(str(folder / "moving.nii.gz"))
    fixed = sitk.ReadImage(str(folder / "fixed.nii.gz"))
    for t, name in enumerate(names, 1):
        path = folder / "out" / name
        apply_files(folder / "moving.nii.gz", read_in_order([str(path)]), folder / "m.nii.gz", folder / "fixed.nii.gz")
        ours = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "m.nii.gz")))
        theirs = sitk.Resample(moving, fixed, sitk.ReadTransform(str(path)), sitk.sitkLinear, 0.0)
        phase, grid = read_in_order([str(path)]), read_grid(folder / "fixed.nii.gz")
        where = grid.to_world(grid.voxels(torch.zeros(()).double())[None]).flatten(2)
        inside = grid.holds(phase.at(where), -0.1).view(grid.shape).numpy().T  # ITK gives 0 beyond, we fade
        assert inside.mean() > 0.3
        np.testing.assert_allclose(ours[inside], sitk.GetArrayFromImage(theirs)[inside], atol=2e-3)
        still = sitk.GetArrayFromImage(moving)[inside]
        assert np.abs(ours[inside] - still).mean() > 0.02 * t


def test_the_way_is_shown_out_and_back(run):
    folder, _ = run
    with Picture.open(folder / "out" / "way.png") as film:
        assert film.n_frames == 10  # the moving image, four phases and the answer, and back
        shown = []
        for n in range(film.n_frames):
            film.seek(n)
            shown.append(np.asarray(film.convert("L"), dtype=float))
    half = shown[0].shape[1] // 2
    for n in range(1, 5):
        np.testing.assert_array_equal(shown[n], shown[10 - n])
    assert all(np.array_equal(frame[:, :half], shown[0][:, :half]) for frame in shown)
    assert all(np.abs(shown[n + 1][:, half:] - shown[n][:, half:]).mean() > 1 for n in range(5))


def test_an_answer_without_a_way_is_one_step(tmp_path):
    images = pair(2)
    write_way(Alignment(images, Displacement(noisy(2), images.fixed.grid)), tmp_path / "way.png")
    with Picture.open(tmp_path / "way.png") as film:
        assert film.n_frames == 2


def test_written_phases_are_the_phases(tmp_path):
    images = pair(2)
    answer = told(noisy(2))(images.fixed, images.moving)
    points = torch.rand(1, 20, 2, generator=make_generator(0)) * 20 - 10
    for name, phase in answer.transforms.items():
        write_transform(phase, tmp_path / f"{name}.h5", on=images.fixed.grid)
        again = read_in_order([str(tmp_path / f"{name}.h5")])
        torch.testing.assert_close(again(points.double()).float(), phase(points), atol=1e-4, rtol=0)


def test_recipes_are_of_the_methods_keys():
    for key in ("decomposed", *METHOD.keys):
        recipe = find(key)
        assert recipe.network.func is Decomposed
        assert isinstance(recipe.supervision, AlongTheWay)
        assert recipe.data.phases == Decomposed(ndim=2).phases == 5
    assert find("decomposed-linear").network.keywords["heads"] == 0
    assert find("decomposed-fields").network.keywords["features"] == 0
    assert find("decomposed-velocity").network.keywords["transform"] is Velocity


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_between_help(lung_matches, seed):
    """150 updates on slices: at the end phase no worse than by the ends alone, and better between."""
    data = Breathing(str(lung_matches), (48, 52), 2, phases=5, textures=4, test_split=0.3)
    means = []
    for learn in (Unsupervised(), AlongTheWay()):
        with seeded(seed):
            network = Decomposed(2, heads=0, encoder=(8, 16, 16), decoder=(16, 16, 16, 16, 8, 8))
        train(network, data.train, learn, Training(updates=150, lr=1e-3, seed=seed))
        network.eval()
        errors = []
        for known in data.test:
            answer = replace(network(known.fixed, known.moving), pair=known)
            off = answer.pushed.data - known.moving_points.data
            errors.append([float(off.norm(dim=-1).mean()), BetweenError()(answer)["between mm"]])
        means.append(torch.tensor(errors).mean(0))
    assert (means[1] <= means[0]).all()
