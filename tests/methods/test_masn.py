"""Multi-magnification networks: what their views show, what their numbers mean, and what each of them learns from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.data import Restaining
from pullback.energies import Bending
from pullback.errors import InputError
from pullback.files import read_transform
from pullback.files.images.colour import STAINS
from pullback.methods.pair.magnified import answered, middle
from pullback.methods.pair.masn import MASN, METHOD, NARROW, WIDE, OfPatches
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.recipes import find
from pullback.recipes.masn import RIGID, VARIANTS
from pullback.space import Affine, Displacement, Grid, Image, pull
from pullback.studies.masn import BANDS, in_bands, study
from pullback.study.arms import Trial
from pullback.study.recipe import from_yaml, to_yaml
from pullback.testing import check_register, check_supervision, problems
from pullback.training import RandomPatches, seeded

SIZE, WIDTHS = 16, (4, 8)
OBLIQUE = torch.tensor([[0.0, -1.6, 5.0], [1.6, 0.0, -3.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def net(affine: tuple[int, ...] = WIDE, field: tuple[int, ...] = NARROW, widths=WIDTHS, **words) -> MASN:
    with seeded(4):
        return MASN(2, widths, SIZE, affine, field, **words)


def speaking(network: MASN) -> MASN:
    """The same network, whose answers are some voxels long."""
    with seeded(5):
        nn.init.normal_(network.affine.last.weight, std=0.02)
        nn.init.normal_(network.field.head.convolution.weight, std=0.5)
    return network


def textured(*shape: int, seed: int = 0, grid: Grid | None = None, batch: int = 1) -> Image:
    noise = torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(seed))
    return Image(gaussian(noise, 1.0), grid or Grid(shape, OBLIQUE))


@pytest.mark.parametrize("problem", problems(ndim=2), ids=str)
def test_contract(problem):
    with seeded(4):
        check_register(MASN(2, WIDTHS, SIZE).eval(), problem, solves=problem.name == "identity", rounding=0.01)


@pytest.mark.parametrize("passes", [1, 3])
def test_untrained_it_moves_nothing_or_hardly_anything(passes):
    """The affine networks exactly nothing, however often; the field network less than a hundredth of a voxel."""
    fixed, moving = textured(41, 30), textured(41, 30, seed=1)
    network = net(passes=passes).eval()
    with torch.no_grad():
        still = network._tiled(network.affine, passes)(fixed, moving).transform
        found = network(fixed, moving).transform
    assert not still.displacement(fixed.grid).any()
    assert 0 < float(found.displacement(fixed.grid).abs().max()) < 0.01


# ---- numbers


@pytest.mark.parametrize("shape", [(10, 40), (33, 21)])
def test_tiles_that_agree_on_a_shift_make_it(shape):
    """Also of an image that is smaller than a patch."""
    network = net().eval()
    network.affine.last.bias.data = torch.tensor([0.0, 0.0, 0.25, 0.0, 0.0, -0.125])
    fixed, moving = textured(*shape), textured(*shape, seed=1)
    with torch.no_grad():
        found = network(fixed, moving).transform.displacement(fixed.grid)
    wanted = torch.tensor([0.25 * SIZE / 2, -0.125 * SIZE / 2]).view(1, 2, 1, 1).expand_as(found)
    torch.testing.assert_close(found.float(), wanted, atol=0.01, rtol=0)


def patches(count: int = 3, edge: int = 2 * SIZE) -> Pair:
    grid = Grid((edge, edge), OBLIQUE)
    fixed, moving = (textured(edge, edge, seed=n, grid=grid, batch=count) for n in (0, 1))
    mask = torch.rand(count, 1, edge, edge, generator=torch.Generator().manual_seed(2)) > 0.3
    return Pair(replace(fixed, mask=mask), moving, name="patches")


def test_the_field_comes_before_the_affine_map():
    """What the second network sees is what the first moved: pull(pull(m, A), N) = pull(m, A @ N)."""
    network, pair = speaking(net()).train(), patches(1)
    smooth = replace(pair.moving, data=gaussian(pair.moving.data, 4.0))
    answer = network(pair.fixed, smooth)
    core = answered(pair.fixed, SIZE)
    once = pull(smooth, answer.transform, onto=core).data
    twice = pull(pull(smooth, answer.local, onto=pair.fixed), answer.field, onto=core).data
    away = pull(pull(smooth, answer.field, onto=pair.fixed), answer.local, onto=core).data
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    near, far = (float((once - other)[inside].detach().abs().mean()) for other in (twice, away))
    assert near < 0.2 * far


def test_evaluation_composes_what_training_composes():
    """On an image of one patch, seen with its surroundings as tiles see it."""
    network = speaking(net(NARROW, NARROW)).eval()
    pair = patches(1)
    core = answered(replace(pair.fixed, mask=None), SIZE)
    with torch.no_grad():
        local = network.affine(core, answered(pair.moving, SIZE)).transform
        field = network.field(core, pull(pair.moving, local, onto=core)).transform
        seen = network(core, pair.moving).transform
        first = network._tiled(network.affine, 1)(core, pair.moving).transform
    torch.testing.assert_close(first.displacement(core.grid), local.displacement(core.grid).float(), atol=1e-4, rtol=0)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))  # whence no field leads beyond the patch
    torch.testing.assert_close(
        seen.displacement(core.grid)[inside], (local @ field).displacement(core.grid).float()[inside], atol=1e-3, rtol=0
    )


# ---- what it learns from


def test_supervision():
    check_supervision(OfPatches(), lambda: speaking(net()), patches())


def gradients(network: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("term", ["affine", "field", "regularity"])
def test_each_network_learns_from_its_own_loss(term):
    network = speaking(net()).train()
    OfPatches()(network, patches(), 0.0)[term].backward()
    assert (gradients(network.affine) > 0) == (term == "affine")
    assert (gradients(network.field) > 0) == (term != "affine")


def test_the_loss_is_the_correlation_over_the_foreground_of_the_middle():
    """By numpy, of each patch of an untrained network, whose affine map is the identity."""
    pair = patches()
    found = float(OfPatches()(net().train(), pair, 0.0)["affine"].detach())
    each = []
    for n in range(3):
        inside = middle(pair.fixed.mask, SIZE)[n, 0].numpy()
        one, two = (middle(image.data, SIZE)[n, 0].numpy()[inside] for image in pair.images)
        each.append(1 - np.corrcoef(one, two)[0, 1])
    assert found == pytest.approx(np.mean(each), abs=1e-5)


def test_smoothing_takes_what_interpolation_gains():
    """Two images alike but for noise of their own: half a voxel's shift of one gains, and through a Gaussian less."""
    grid = Grid.centred((2 * SIZE, 2 * SIZE))
    common = textured(*grid.shape, grid=grid, batch=4).data
    rough = [torch.rand(4, 1, *grid.shape, generator=torch.Generator().manual_seed(n)) for n in (7, 8)]
    pair = Pair(*(Image(common + 0.3 * noise, grid) for noise in rough))
    still, half = torch.zeros(6), torch.tensor([0.0, 0.0, 0.5 / (SIZE / 2), 0.0, 0.0, 0.0])
    gains = []
    for sigma in (0.0, 1.0):
        losses = []
        for rows in (still, half):
            network = net().train()
            network.affine.last.bias.data = rows
            losses.append(float(OfPatches(smoothing=sigma)(network, pair, 0.0)["affine"].detach()))
        gains.append(losses[0] - losses[1])
    assert gains[0] > gains[1] + 0.01
    smooth = Pair(*(replace(image, data=gaussian(image.data, 1.0)) for image in pair.images))
    direct = float(OfPatches()(network, smooth, 0.0)["affine"].detach())
    assert direct == pytest.approx(losses[1], abs=0.02)  # the networks see other images


@pytest.mark.parametrize(("slope", "loss"), [(0.3, 0.0), (-0.3, 2.0)])
def test_the_loss_does_not_see_gain_and_offset_but_sees_the_sign(slope, loss):
    pair = patches()
    alike = replace(pair, moving=replace(pair.fixed, data=slope * pair.fixed.data + 0.5, mask=None))
    assert float(OfPatches()(net().train(), alike, 0.0)["affine"].detach()) == pytest.approx(loss, abs=1e-4)


def test_the_regularity_is_sixty_times_the_curvature_of_the_framework():
    """Half the mean squares of the stencil of 9 neighbours over 9, of each component, as DeepHistReg has it: 5 % of a
    wave of 24 voxels, which is what the two stencils differ by."""
    grid = Grid.centred((97, 97))
    where = grid.voxels(torch.zeros(()))
    wave = 2 * np.pi / 24
    field = torch.stack([torch.sin(wave * where[0]) + torch.cos(wave * where[1]), torch.sin(wave * where[1])])[None]
    stencil = torch.ones(1, 1, 3, 3) / 9
    stencil[0, 0, 1, 1] -= 1
    laplacian = torch.nn.functional.conv2d(field.transpose(0, 1), stencil)
    theirs = 60 * 0.5 * float(laplacian.square().mean((1, 2, 3)).sum())
    image = Image(torch.zeros(1, 1, 97, 97), grid)
    ours = OfPatches().regularity(Alignment(Pair(image, image), Displacement(field, grid)))
    assert float(ours) == pytest.approx(theirs, rel=0.05)
    assert OfPatches().regularity == 26.7 * Bending()


def test_images_of_another_size_are_not_learned_from():
    with pytest.raises(InputError, match=r"patches of 32 voxels.*training\.augment=RandomPatches\(32, 16\)"):
        net().train()(textured(40, 40), textured(40, 40))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"affine": (2, 1)}, "views that begin with 1"),
        ({"field": ()}, "views that begin with 1"),
        ({"size": 18}, "whose size 4 divides"),
        ({"passes": 0}, "one pass or more"),
    ],
)
def test_what_cannot_be_is_refused(words, says):
    with pytest.raises(InputError, match=says):
        MASN(2, **{"widths": WIDTHS, "size": SIZE, **words})


# ---- recipes


@pytest.mark.parametrize("data", ["sections", "stains", "birl"])
def test_variants_differ_in_their_views_alone(data):
    recipes = {variant: find(variant, on=data) for variant in VARIANTS}
    assert {*VARIANTS} == {"masn", *METHOD.keys}
    for variant, recipe in recipes.items():
        views = {name: recipe.network.keywords[name] for name in ("affine", "field")}
        assert views == {name: WIDE if variant[at] == "m" else NARROW for name, at in (("affine", 0), ("field", 2))}
        assert replace(recipe, about="", network=recipes["masn"].network) == replace(recipes["masn"], about="")
        assert from_yaml(to_yaml(recipe), "a recipe").network.keywords["affine"] == views["affine"]
        if data != "sections":
            assert recipe.data.register == RIGID


def test_networks_of_one_seed_have_one_affine_network_whatever_the_other_sees():
    """So that SASN and SAMN differ in their field networks alone, also when they have learned: each update is alike."""
    one, other = net(NARROW, NARROW), net(NARROW, WIDE)
    pairs = zip(one.affine.parameters(), other.affine.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def sections(seed: int) -> Tensor:
    """Amounts of three stains, smooth and with texture, `(1, 3, 60, 52)`."""
    noise = torch.rand(1, 3, 60, 52, generator=torch.Generator().manual_seed(seed))
    return 0.2 + 2 * (gaussian(noise, 3.0) - 0.4).clamp(min=0)


def test_it_learns():
    """A few updates on patches of one section lower both losses on others of it."""
    grid = Grid.centred((60, 52), 8.0)
    making, drawn = Restaining((16.0,), 100.0), RandomPatches(2 * SIZE, SIZE, 4)
    section = Image(sections(0), grid)
    network, supervision = net().train(), OfPatches()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    known = torch.Generator().manual_seed(7)
    pair = drawn(making(Pair(section, section), known), known)
    before = {name: float(value.detach()) for name, value in supervision(network, pair, 0.0).items()}
    for _ in range(12):
        optimiser.zero_grad()
        sum(supervision(network, pair, 0.0).values()).backward()
        optimiser.step()
    after = {name: float(value.detach()) for name, value in supervision(network, pair, 1.0).items()}
    assert after["affine"] < before["affine"] - 1e-3
    assert after["field"] < before["field"] - 1e-3


def test_errors_by_the_distance_from_the_edge_are_those_of_the_truth_where_nothing_moves():
    """Bands are squares about the middle: of a truth of |x| mm along one axis the outermost has the most."""
    pair = patches(1)
    grid = pair.fixed.grid
    far = (grid.voxels(torch.zeros(()))[:1] - (2 * SIZE - 1) / 2).abs()
    truth = Displacement(torch.cat([far, torch.zeros_like(far)])[None], grid)
    found = in_bands(net().train(), replace(pair, truth=truth))
    core = (torch.arange(SIZE) - (SIZE - 1) / 2).abs()
    inward = torch.minimum(torch.arange(SIZE), SIZE - 1 - torch.arange(SIZE))
    band = (torch.minimum(inward[:, None], inward) * BANDS / (SIZE / 2)).long()
    wanted = [1.6 * float(core[:, None].expand(SIZE, SIZE)[band == n].mean()) for n in range(BANDS)]
    np.testing.assert_allclose(found["affine"].numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(found["field"].numpy(), wanted, atol=0.02)


def test_arms_of_the_study_that_look_more_often_need_no_run_of_their_own(tmp_path):
    """And the four networks, and the control, are five runs, whatever they are measured on."""
    folder = tmp_path / "x" / "scale-5pc"
    folder.mkdir(parents=True)
    for name in ("a", "b", "Izd2-29-041-w35_proSPC"):
        Picture.new("RGB", (60, 50)).save(folder / f"{name}.jpg")
    roots, needs, kept = {"sections": tmp_path}, {}, set()
    for name, experiment in study.tables["made"].experiments.items():
        data = replace(experiment.data, root=str(tmp_path))
        for arm, how in experiment.arms.items():
            unit = how.unit(Trial(tmp_path, name.split("/")[0], data, experiment.evaluates, roots=roots))
            kept.add(unit.path)
            if unit.needs is not None:
                needs.setdefault(arm, set()).add(unit.needs.folder)
    assert {arm: len(folders) for arm, folders in needs.items()} == dict.fromkeys(needs, 1)
    assert needs["MASN"] == needs["MASN(3)"] == needs["MASN(3), both"]
    assert len({folder for folders in needs.values() for folder in folders}) == 5
    assert len(kept) == sum(len(experiment.arms) for experiment in study.tables["made"].experiments.values())


@pytest.mark.slow
def test_stains_are_learned_and_aligned_by_the_commands(pullback, tmp_path, monkeypatch):
    """Coloured pictures in, a transform and a coloured picture out; the run aligns rigidly before, as it learned."""
    monkeypatch.chdir(tmp_path)
    for block in range(3):
        section = Image(sections(block), Grid.centred((60, 52)))
        for stain, amounts in (("HE", torch.eye(3)), ("CD8", torch.diag(torch.tensor([0.7, 0.3, 1.0])))):
            density = torch.einsum("sxy,sc->yxc", section.data[0], amounts @ torch.tensor([*STAINS.values()]))
            Path(f"blocks/b{block}").mkdir(parents=True, exist_ok=True)
            Picture.fromarray((255 * 10**-density).round().byte().numpy()).save(f"blocks/b{block}/{stain}.png")
    settings = {
        "network.widths": "[2, 2]",
        "network.size": "16",
        "training.updates": "1",
        "training.augment.answered": "16",
        "training.augment.size": "32",
        "training.augment.count": "2",
        "data.register.initialise": "null",
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    code, out, err = pullback("train", "masn", "--on", "stains", "--data", "blocks", "-o", "run", *words)
    assert code == 0, out + err
    files = "-f", "blocks/b0/HE.png", "-m", "blocks/b0/CD8.png"
    code, out, err = pullback("register", *files, "--network", "run", "-o", "out")
    assert code in (0, 3), out + err
    assert json.loads(Path("out/run.json").read_text())["settings"]["before"]
    found = read_transform(Path("out/fixed_to_moving.h5"))
    middle_of = torch.tensor([[-30.0, -26.0]], dtype=torch.float64)
    assert float((found(middle_of) - middle_of).norm()) < 30


@pytest.mark.nightly
@pytest.mark.parametrize("views", [(NARROW, NARROW), (WIDE, WIDE)], ids=["SASN", "MAMN"])
def test_what_lowers_the_loss_is_the_motion(views):
    """One patch learned by heart, from its intensities alone: more than half of the way to the truth is found, by the
    affine map and with the field, for which next to nothing is left of a motion as smooth as this."""
    grid, making = Grid.centred((60, 52), 8.0), Restaining((12.0,), 150.0, 0.0)
    section = Image(sections(3), grid)
    made = making.shifted(Pair(section, section), make_generator(1), 12.0)
    patch = RandomPatches(2 * SIZE, SIZE, inside=0.9)(made, make_generator(2))
    network, supervision = net(*views).train(), OfPatches(smoothing=1.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for number in range(200):
        optimiser.zero_grad()
        sum(supervision(network, patch, number / 200).values()).backward()
        optimiser.step()
    answer = network(*patch.images)
    core = answered(patch.fixed, SIZE)
    away = [
        float((each.displacement(core.grid) - patch.truth.displacement(core.grid)).norm(dim=1).mean().detach())
        for each in (Affine.identity(2), answer.local, answer.transform)
    ]
    assert max(away[1:]) < away[0] / 2
