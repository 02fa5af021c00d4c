"""TM-TVF: what it looks at is what it answers, there and back, on any backbone, and backbones stay what they were."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import pullback
from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, Diffusion
from pullback.errors import InputError
from pullback.methods.pair.ofg import Guided
from pullback.methods.pair.tm_tvf import METHOD, TimeVarying, half_grid, halved
from pullback.methods.pair.transmorph import LARGE, TransMorph
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.metrics import Dice, InverseError, StructuralSimilarity
from pullback.networks import UNet, together
from pullback.numerics.integrate import compose
from pullback.numerics.random import make_generator
from pullback.numerics.sample import sample, voxels
from pullback.numerics.smooth import gaussian
from pullback.recipes import find
from pullback.recipes.tm_tvf import BETA, LAMBDA, VARIANTS, energy_of
from pullback.solvers import Descend
from pullback.space import Displacement, Flow, Grid, Image, Labels
from pullback.studies import tm_tvf as of_study
from pullback.studies.tm_tvf import Backward, OwnInverse
from pullback.study.recipe import changed
from pullback.study.run import build
from pullback.testing import check_register, check_supervision, problems
from pullback.training import Unsupervised, seeded

BACKBONES = {
    "transmorph": partial(TransMorph, embed=12, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2)),
    "voxelmorph": partial(VoxelMorph, encoder=(4, 8, 8), decoder=(8, 8, 8, 8, 4)),
    "vit-v-net": partial(ViTVNet, encoder=(4, 8, 8), hidden=24, blocks=1, heads=2, mlp=16, bottom=16),
}
SMALL = BACKBONES["voxelmorph"]
every_backbone = pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)


def made(ndim=2, backbone=SMALL, size=0.0, **options):
    """A network whose pieces each move by about `size` voxels of the half grid."""
    with seeded(3):
        network = TimeVarying(ndim, backbone, **options).eval()
        for step in network.steps:
            torch.nn.init.normal_(step.head.convolution.weight, std=0.05 * size)
            torch.nn.init.constant_(step.head.convolution.bias, size)
    return network


def images(shape, batch=1, seed=0, smooth=2.0):
    grid, generator = Grid.centred(shape), make_generator(seed)
    data = [gaussian(torch.rand(batch, 1, *shape, generator=generator), smooth) for _ in range(2)]
    return [Image((each - each.min()) / (each.max() - each.min()), grid) for each in data]


def count(module):
    return sum(p.numel() for p in module.parameters())


def random_pieces(shape, sigma, size, seed=0):
    """Eight smooth pieces, `(8, d, *shape)`, each of up to `size` voxels."""
    noise = gaussian(torch.randn(8, len(shape), *shape, generator=make_generator(seed)), sigma)
    return size * noise / noise.abs().amax(tuple(range(1, noise.ndim)), keepdim=True)


# the network


def test_as_many_parameters_as_the_authors_network():
    """A step has 73,011 in 3D: 2592 to look, 62,208 and 6912 in two convolutions, 1299 in the head."""
    network = TimeVarying(3)
    assert [count(step) for step in network.steps] == 8 * [73_011]
    whole = TransMorph(3)
    left_out = [whole.at_half, whole.at_full, whole.up[3], whole.up[4], whole.head]
    assert count(network) == count(whole) - sum(map(count, left_out)) + 8 * 73_011 == 47_067_192
    assert count(TimeVarying(3, pieces=12)) - count(network) == 4 * 73_011
    assert count(TimeVarying(3, shared=True)) == count(network) - 7 * 73_011
    large = TimeVarying(3, partial(TransMorph, **LARGE))
    assert large.trunk.channels_out == 128


@every_backbone
@pytest.mark.parametrize("shape", [(40, 37), (35, 20, 22)])
def test_without_motion_it_answers_the_identity(backbone, shape):
    transform = made(len(shape), backbone)(*images(shape)).transform
    assert isinstance(transform, Flow)
    assert (transform.pieces, transform.batch) == (8, 1)
    assert not transform.displacement(Grid.centred(shape)).any()


@every_backbone
def test_one_piece_without_a_look_is_trunk_and_head(backbone):
    network, (fixed, moving) = made(2, backbone, 1.0, pieces=1, looks=False, squarings=0), images((38, 41))
    found = network(fixed, moving).transform
    (step,), both = network.steps, together(fixed, moving)
    half = half_grid(fixed.grid)
    small = [Image(image, half) for image in halved(both).chunk(2, 1)]
    expected = step.head(step.up(network.trunk(both), step.look(halved(both))), *small)
    assert torch.equal(found.own_displacement, expected.transform.displacement(half))
    assert found.own_displacement.abs().max() > 0.1


@pytest.mark.parametrize("shape", [(40, 44), (41, 45), (24, 26, 28)])
@pytest.mark.parametrize("frugal", [False, True])
def test_what_it_looks_at_is_what_it_answers(shape, frugal):
    """The last step adds nothing here, so that it sees the moved image as it is in the end, at half the size."""
    network = made(len(shape), size=0.2, frugal=frugal)
    last = network.steps[-1]
    for weight in last.head.parameters():
        torch.nn.init.zeros_(weight)
    seen = []
    last.register_forward_hook(lambda module, given, out: seen.append(given[2].data))
    fixed, moving = images(shape, smooth=4.0)
    answer = network(fixed, moving)
    inside = (..., *[slice(4, -4)] * len(shape))
    wanted, unmoved = (halved(each.data)[inside] for each in (answer.moved, moving))
    assert (seen[0][inside] - wanted).abs().max() < 0.02
    assert (unmoved - wanted).abs().max() > 0.15
    assert answer.transform.displacement(fixed.grid).abs().max() > 2.0


def test_it_looks_again_after_each_piece():
    """Another first piece changes what comes later, but where it does not look."""
    fixed, moving = images((40, 36))
    for looks in (True, False):
        network = made(size=0.3, looks=looks)
        first = network(fixed, moving).transform.field
        torch.nn.init.constant_(network.steps[0].head.convolution.bias, 1.5)
        second = network(fixed, moving).transform.field
        assert (first[0] - second[0]).abs().max() > 0.1
        assert torch.equal(first[1:], second[1:]) is not looks


def test_a_shared_step_makes_other_pieces_of_what_it_sees():
    pieces = made(size=0.3, shared=True)(*images((40, 36))).transform.field
    assert len(pieces) == 8
    assert (pieces[1:] - pieces[:-1]).flatten(1).abs().amax(1).min() > 1e-3
    still = made(size=0.3, shared=True, looks=False)(*images((40, 36))).transform.field
    assert torch.equal(still[1:], still[:-1])


@every_backbone
@pytest.mark.parametrize("shape", [(33, 40), (48, 34), (34, 18, 21)])
def test_any_size_and_the_border_moves_as_the_inside(backbone, shape):
    """A shift by 0.25 voxels of the half grid for each of eight pieces is one by 4 voxels, up to the last."""
    network = made(len(shape), backbone)
    for step in network.steps:
        torch.nn.init.constant_(step.head.convolution.bias, 0.25)
    fixed, moving = images(shape)
    transform = network(fixed, moving).transform
    assert transform.grid == half_grid(fixed.grid)
    assert transform.grid.shape == tuple(n // 2 + 1 for n in shape)
    assert fixed.grid.holds(transform.grid.to_world(transform.grid.voxels(fixed.data).flatten(1)[None]), 1.0).all()
    torch.testing.assert_close(transform.displacement(fixed.grid), torch.full((1, len(shape), *shape), 4.0))


def test_a_batch_is_each_alone():
    network, (fixed, moving) = made(size=0.3), images((40, 37), batch=2)
    both = network(fixed, moving).transform
    assert both.batch == 2
    for n in range(2):
        alone = network(fixed.nth(n), moving.nth(n)).transform
        torch.testing.assert_close(both.nth(n).field, alone.field, rtol=0, atol=1e-5)
        grid = fixed.grid
        torch.testing.assert_close(both.displacement(grid)[n : n + 1], alone.displacement(grid), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 9), (7, 8, 10), (1, 5)])
def test_half_size_is_a_mean_about_every_second_voxel(shape):
    values = torch.rand(2, 3, *shape, generator=make_generator(1))
    ours = halved(values)
    assert ours.shape == (2, 3, *half_grid(Grid.centred(shape)).shape)
    middle = tuple(n // 4 for n in shape)
    around = (..., *[slice(max(2 * m - 1, 0), 2 * m + 2) for m in middle])
    torch.testing.assert_close(ours[(..., *middle)], values[around].flatten(2).mean(2))
    torch.testing.assert_close(halved(torch.ones_like(values)), torch.ones_like(ours))


@every_backbone
@pytest.mark.parametrize("looks", [True, False])
def test_every_weight_learns(backbone, looks):
    network = made(2, backbone, 0.1, looks=looks)
    network(*images((70, 64))).transform.own_displacement.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_computed_again_it_learns_the_same_to_the_bit():
    gradients = []
    for frugal in (False, True):
        network = made(size=0.3, frugal=frugal)
        answer = network(*images((40, 36)))
        (LNCC(9) + Diffusion(displacement=True))(answer).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_pieces_are_float32_also_where_the_network_is_not():
    network, pair = made(size=0.3), images((40, 36))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = network(*pair)
    assert answer.transform.field.dtype == torch.float32
    plain = network(*pair)
    assert (answer.transform.field - plain.transform.field).abs().max() < 0.05


@every_backbone
def test_pinned_it_rests_on_the_border_of_its_grid(backbone):
    fixed, moving = images((37, 41))
    network = made(2, backbone, 0.3)
    free = network(fixed, moving).transform.field
    network.pinned = True
    pinned = network(fixed, moving).transform.field
    border = torch.ones_like(pinned, dtype=torch.bool)
    border[..., 1:-1, 1:-1] = False
    assert free[border].abs().mean() > 0.1
    assert not pinned[border].any()
    assert torch.equal(pinned[0, :, 1:-1, 1:-1], free[0, :, 1:-1, 1:-1])


# there and back


def authors_sum(pieces, sign):
    """What the authors' code integrates: each piece at its own end, in the same order for the way back."""
    total = torch.zeros_like(pieces[:1])
    for piece in pieces.unsqueeze(1):
        total = total + sign * sample(piece, voxels(tuple(piece.shape[2:]), piece) + sign * piece, padding="border")
    return total


def residual(there, back):
    """The mean distance from home, of points whose way stays within the grid."""
    off = compose(back, there).norm(dim=1)
    return float(off[(slice(None), *[slice(14, -14)] * (there.ndim - 2))].mean())


def test_there_and_back_is_where_one_was():
    """Points that move by up to seven voxels; the paper's Id − u, and sums without composition, end far from home."""
    grid = Grid.centred((96, 92))
    pieces = random_pieces(grid.shape, 8.0, 2.6)
    ways = [Flow(pieces, grid), Flow(pieces, grid, 8, 4), Flow(pieces, grid, 8, 0), Flow(2 * pieces[::2], grid, 4, 0)]
    fine, finer, euler, coarse = (residual(w.own_displacement, w.inverse().own_displacement) for w in ways)
    assert finer < fine / 2 < euler / 4 < coarse / 8
    assert fine < 0.06
    there = ways[0].own_displacement
    assert 6 < there.norm(dim=1).max() < 8
    for back in (-there, Flow(-pieces, grid).own_displacement):
        assert residual(there, back) > 0.5
    assert residual(authors_sum(pieces, 1), authors_sum(pieces, -1)) > 0.5
    half = Flow(pieces / 2, grid)
    assert residual(half.own_displacement, half.inverse().own_displacement) < 0.02


@pytest.mark.parametrize("shape", [(40, 44), (20, 22, 18)])
def test_gentle_pieces_never_fold(shape):
    """A product of maps whose slopes differ from 1 by less than a half has a determinant above 0."""
    pieces = random_pieces(shape, 2.0, 1.0)
    slopes = torch.stack([piece.diff(dim=a).abs().amax() for piece in pieces for a in range(1, pieces.ndim - 1)])
    pieces = 0.49 / len(shape) * pieces / slopes.max()
    grid = Grid.centred(shape)
    image = Image(torch.zeros(1, 1, *shape), grid)
    for squarings in (0, 2):
        least = Alignment(Pair(image, image), Flow(pieces, grid, 8, squarings)).jacobian.min()
        assert 0 < least < 0.8


# trunks


@pytest.mark.parametrize(
    ("name", "shape"),
    [("transmorph", (64, 96)), ("transmorph", (37, 50, 22)), ("vit-v-net", (64, 96)), ("voxelmorph", (64, 96))],
)
def test_a_trunk_makes_what_its_backbone_makes_at_a_quarter(name, shape):
    """To the bit, of the same weights; seen where the next stage begins."""
    with seeded(2):
        whole = BACKBONES[name](ndim=len(shape)).eval()
    fixed, moving = images(shape)
    seen = []
    stages = whole.unet.up if name == "voxelmorph" else whole.up
    following = stages[2] if name == "voxelmorph" else stages[3]
    following.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    whole(fixed, moving)
    trunk = whole.trunk()
    ours = trunk(together(fixed, moving))
    if name == "voxelmorph":  # upsampled, and a skip beside it
        seen[0] = seen[0][:, : trunk.channels_out, ::2, ::2]
    assert ours.shape == (1, trunk.channels_out, *(-(-n // 4) for n in shape))
    assert ours.abs().max() > 1e-3
    assert torch.equal(ours, seen[0])


KEYS = {
    "transmorph": {"swin", "at_half", "at_full", "up", "head"},
    "voxelmorph": {"unet", "head"},
    "vit-v-net": {"down", "embed", "positions", "transformer", "bottom", "up", "head"},
}


@every_backbone
def test_backbones_keep_the_names_of_their_weights(backbone):
    """Those under which weights have been stored; a trunk that is taken out of one changes none of them."""
    (name,) = [name for name, each in BACKBONES.items() if each is backbone]
    whole = backbone(ndim=2)
    before = list(whole.state_dict())
    whole.trunk()
    assert list(whole.state_dict()) == before
    assert {key.partition(".")[0] for key in before} == KEYS[name]
    stages = {key.split(".")[1] for key in before if key.startswith("up.")}
    assert stages == (set() if name == "voxelmorph" else set("01234"))


def test_the_same_seed_gives_the_trunk_of_the_same_backbone():
    """So that arms of a study differ in what comes after it alone."""
    with seeded(4):
        whole = SMALL(ndim=2)
    with seeded(4):
        network = TimeVarying(2, SMALL)
    assert torch.equal(network.trunk.encoder.down[0].weight, whole.unet.down[0].weight)


# how it learns


def labelled(pair):
    """With two labels, of what is bright and what is brighter."""
    marks = [Labels((image.data > 0.3).int() + (image.data > 0.6).int(), image.grid) for image in pair.images]
    return replace(pair, fixed_labels=marks[0], moving_labels=marks[1])


@every_backbone
@pytest.mark.parametrize("variant", VARIANTS)
def test_contract_of_every_way_to_learn(backbone, variant):
    (problem,) = problems("smooth", ndim=2)
    check_supervision(
        Unsupervised(energy_of(variant, 2)), lambda: made(2, backbone, 0.1).train(), labelled(problem.pair)
    )


def test_contract_of_guidance():
    """The label descends the pieces of the flow."""
    (problem,) = problems("smooth", ndim=2)
    guided = Guided(LNCC(9) + Diffusion(displacement=True), solver=Descend(2, 0.02))
    check_supervision(guided, lambda: made(size=0.1), problem.pair)


@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("shift", "thin", ndim=3)], ids=str)
def test_contract(problem):
    with seeded(5):
        check_register(TimeVarying(problem.pair.fixed.grid.ndim, SMALL), problem, solves=problem.name == "identity")


@every_backbone
def test_contract_on_every_backbone(backbone):
    (problem,) = problems("identity", ndim=2)
    with seeded(5):
        network = TimeVarying(2, backbone)
    check_register(network, problem, rounding=1e-3)


def test_a_pair_is_learned():
    """Thirty updates on one pair, whose motion is known."""
    (problem,) = problems("smooth", ndim=2)
    with seeded(0):
        network = TimeVarying(2, SMALL, pieces=4)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        terms = Unsupervised(energy_of("tm-tvf", 2))(network, problem.pair, 0.0)
        losses.append(float(terms["lncc"].detach()))
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("count", [1, 4, 8])
def test_the_lddmm_norm_is_the_papers_whatever_the_number_of_pieces(count):
    """λ/2 ∫ ‖Lv‖² of one sine mode, L its eigenvalue to the power β: a mean over voxels in closed form."""
    shape, modes = (33, 25), (3, 2)
    grid, wave = Grid.centred(shape), torch.ones(1, 1, *shape, dtype=torch.float64)
    eigenvalue = 0.0
    for axis, (n, mode) in enumerate(zip(shape, modes, strict=True)):
        angle = torch.pi * mode / (n - 1)
        along = torch.sin(angle * torch.arange(n, dtype=torch.float64))
        wave = wave * along.view(-1, *[1] * (1 - axis))
        eigenvalue += 2 - 2 * float(torch.cos(torch.tensor(angle, dtype=torch.float64)))
    velocity = 1.7 * torch.cat([wave, torch.zeros_like(wave)], 1)
    image = Image(torch.zeros(1, 1, *shape, dtype=torch.float64), grid)
    view = Alignment(Pair(image, image), Flow((velocity / count).repeat(count, 1, 1, 1), grid, count))
    expected = LAMBDA / 2 * (0.01 + 0.01 * eigenvalue) ** (2 * BETA) * float(velocity.square().sum(1).mean())
    terms = energy_of("tm-tvf-lddmm", 2).terms(view)
    assert set(terms) == {"mse", "kinetic"}
    assert float(terms["kinetic"]) == pytest.approx(expected, rel=1e-10)


def test_recipes_differ_from_plain_ones_in_the_network_and_the_energy_alone():
    for variant in VARIANTS:
        for data in ("hippocampus", "slices", "oasis"):
            plain, ours = find("transmorph", "transmorph", data), find(variant, "transmorph", data)
            assert (ours.data, ours.training, ours.metrics) == (plain.data, plain.training, plain.metrics)
            terms = repr(ours.supervision)
            assert ("Dice" in terms or "LabelMSE" in terms) == variant.endswith("labels")
            assert ("Kinetic" in terms) == ("lddmm" in variant)
    assert find("tm-tvf") == find("tm-tvf", "transmorph", "phantom")
    assert find("tm-tvf", on="oasis").network.keywords["backbone"].keywords == LARGE
    assert set(VARIANTS) == {"tm-tvf", *METHOD.keys}


def test_settings_reach_the_backbone_and_the_supervision():
    """As the page tells people to type."""
    recipe = changed(
        find("tm-tvf", "voxelmorph"),
        {
            "network.pieces": "4",
            "network.backbone": "{partial: pullback.methods.pair.voxelmorph.VoxelMorph, encoder: [4, 8], "
            "decoder: [8, 8, 8, 4]}",
            "supervision": "{part: pullback.methods.pair.ofg.Guided}",
        },
    )
    network = build(recipe)
    assert (network.pieces, network.trunk.channels_out) == (4, 8)
    assert recipe.supervision == Guided()


# the study, and the page


def blocks(shape, at):
    data = torch.zeros(1, 1, *shape, dtype=torch.int32)
    data[(..., *[slice(at, at + 8)] * len(shape))] = 1
    return data


@pytest.mark.parametrize("shape", [(40, 44), (28, 30, 26)])
def test_the_way_back_is_measured_from_the_moving_image(shape):
    """A shift by two voxels brings the fixed block back onto the moving one, by its inverse and by Id − u."""
    grid = Grid.centred(shape, 1.5)
    marks = [Labels(blocks(shape, at), grid) for at in (10, 12)]
    pair = Pair(*(Image(label.data.float(), grid) for label in marks), *marks)
    shift = Flow(torch.full((2, len(shape), *shape), 1.0), grid, 2)
    view = Alignment(pair, shift)
    for metric in (Backward(), Backward(minus=True), Backward(StructuralSimilarity())):
        assert metric(view) == {metric.name: pytest.approx(1)}
    still = Alignment(pair, replace(shift, field=torch.zeros_like(shift.field)))
    assert Backward()(still)["back dice"] == pytest.approx(Dice()(still)["dice"])
    assert Backward()(Alignment(Pair(*pair.images), shift)) == {}
    assert OwnInverse()(view)["inverse mm"] == pytest.approx(0, abs=1e-5)


def test_id_minus_u_is_no_way_back():
    grid = Grid.centred((96, 92), 2.0)
    inside = torch.zeros(1, 1, *grid.shape, dtype=torch.bool)
    inside[..., 14:-14, 14:-14] = True
    image = Image(gaussian(torch.rand(1, 1, *grid.shape, generator=make_generator(0)), 2.0), grid, inside)
    view = Alignment(Pair(image, image), Flow(random_pieces(grid.shape, 8.0, 2.6), grid))
    assert OwnInverse()(view)["inverse mm"] < 0.12  # twice test_there_and_back_is_where_one_was, which is in voxels
    minus = replace(view, transforms={"inverse": Displacement(-view.transform.displacement(grid), grid)})
    assert InverseError()(minus)["inverse mm"] > 1.0
    good, bad = (Backward(StructuralSimilarity(), minus) for minus in (False, True))
    there = Image(view.moved.data, grid)
    turned = Alignment(Pair(there, image), view.transform)
    assert good(turned)[good.name] > bad(turned)[bad.name] + 0.02


def test_costs_are_measured():
    recipe = replace(find("tm-tvf", "voxelmorph"), network=partial(TimeVarying, ndim=3, backbone=SMALL))
    (row,) = of_study.cost(None, 0, recipe, (24, 20, 18))
    assert row["case"] == "24×20×18"
    assert row["parameters m"] == pytest.approx(count(TimeVarying(3, SMALL)) / 1e6)
    assert 0 < row["forward s"] < row["update s"]
    assert 0 < row["forward mb"] <= row["update mb"]


def test_arms_of_the_study_begin_with_the_same_trunk():
    arms = of_study.study.tables["table1"].experiments["slices/voxelmorph"].arms
    plain, ours, norm = (build(arms[name].recipe) for name in ("VM", "VM-TVF", "VM-TVF LDDMM"))
    assert torch.equal(plain.unet.down[1].weight, ours.trunk.encoder.down[1].weight)
    assert torch.equal(norm.trunk.encoder.down[1].weight, ours.trunk.encoder.down[1].weight)
    guided = of_study.study.tables["table2"].experiments["oasis/transmorph"].arms
    assert all("labels" not in name and "Dice" in repr(guided[name].recipe.supervision) for name in ("TM", "TM-TVF"))
    assert guided["TM"].recipe.network.keywords["embed"] == LARGE["embed"]


def test_the_python_of_the_page():
    page = Path(pullback.__file__).parent / "pages" / "tm-tvf.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    fixed, moving = images((20, 18, 22))
    names = {"fixed": fixed, "moving": moving}
    exec(code, names)
    assert isinstance(names["back"], Flow)
    assert names["there"].pieces == 8


# bad input


@pytest.mark.parametrize("wrong", [{"pieces": 0}, {"squarings": -1}])
def test_numbers_that_make_no_flow_are_refused(wrong):
    with pytest.raises(InputError, match="one piece or more and 0 squarings or more expected"):
        TimeVarying(2, SMALL, **wrong)


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("transmorph", (12, 16), r"more than 16 voxels along one axis.*\(12, 16\), of which axis 1"),
        ("vit-v-net", (32, 30), r"more than 32 voxels along one axis.*\(32, 30\), of which axis 0"),
        ("voxelmorph", (1, 1), "more than 1 voxels along one axis"),
    ],
)
def test_images_too_small_are_refused(name, shape, says):
    with pytest.raises(InputError, match=says):
        TimeVarying(2, BACKBONES[name])(*images(shape, smooth=0.1))


def test_a_backbone_that_does_not_get_to_a_quarter_is_refused():
    with pytest.raises(InputError, match="two encoder stages or more"):
        UNet(2, 2, (4,), (4, 4, 4)).trunk()


def test_labels_that_are_not_there_are_asked_for():
    with pytest.raises(InputError, match="labels of both images are needed"):
        energy_of("tm-tvf-labels", 2)(made()(*images((24, 20))))
    assert isinstance(energy_of("tm-tvf", 2), type(LNCC() + Diffusion()))
