"""The pooled U-Net, and what of a network learns on when it is transferred."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from rich.console import Console

from pullback.alignment import Alignment, Pair
from pullback.data import BrainPhantom, Train
from pullback.energies import NCC, Diffusion, Energy, SoftDice
from pullback.errors import InputError
from pullback.methods.pair.ddmr import GeneralisedDice, PatchSSIM, PooledUNet, SoftmaxWeighted, Transferred
from pullback.methods.pair.self_training import SelfTraining
from pullback.recipes import find
from pullback.space import Affine, Displacement, Grid, Image, Labels
from pullback.studies.ddmr import study
from pullback.study.arms import TrainedArm
from pullback.study.recipe import Recipe
from pullback.study.run import Run, build, learned_from, load_run, run
from pullback.testing import check_energy
from pullback.training import Training, UncertaintyWeighted, Unsupervised, load_weights

SOURCE = BrainPhantom(spacing=12.0, train_subjects=3, validation_subjects=2, test_subjects=2)
OTHER = replace(SOURCE, seed=1)
QUIET = Console(quiet=True)


def recipe(data=SOURCE, procedure=None, updates=4, lr=1e-3):
    training = Training(updates=updates, lr=lr, validate_every=2, save_every=1)
    known = Recipe("a test", data, partial(PooledUNet, ndim=3, widths=(4, 8)), Unsupervised(), training)
    return known if procedure is None else replace(known, procedure=procedure)


@pytest.mark.parametrize("shape", [(17, 12), (9, 11, 6)])
def test_images_of_any_size_get_a_field_of_theirs(shape):
    grid = Grid.centred(shape)
    images = [Image(torch.rand(1, 1, *shape), grid) for _ in range(2)]
    field = PooledUNet(len(shape), widths=(4, 8, 16))(*images).transform.field
    assert field.shape == (1, len(shape), *shape)
    assert 0 < float(field.detach().abs().max()) < 0.1, "untrained it hardly moves anything"


@pytest.mark.parametrize("shape", [(64, 48), (64, 48, 32)])
def test_the_deepest_block_sees_as_much_as_the_first(shape):
    """And no less comes back up: an untrained network neither fades nor bursts."""
    torch.manual_seed(0)
    network, seen = PooledUNet(len(shape), widths=(16,) * 5), []
    for block in (*network.encoder, *network.decoder):
        block.register_forward_hook(lambda _, given, out: seen.append(float(out.detach().square().mean().sqrt())))
    grid = Grid.centred(shape)
    network(*(Image(torch.randn(1, 1, *shape), grid) for _ in range(2)))
    assert len(seen) == 10
    assert all(0.5 < each < 4 for each in seen), seen


@pytest.mark.parametrize("wrong", [{"widths": ()}, {"widths": (4, 0)}, {"widths": (4,), "head": (0,)}])
def test_a_network_of_nothing_is_refused(wrong):
    with pytest.raises(InputError, match="one block or more"):
        PooledUNet(3, **wrong)


def test_the_network_of_the_paper_has_as_many_weights_as_its_blocks_say():
    """27 weights and a bias for each pair of channels that a block joins."""
    blocks = [(2, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    blocks += [(1024, 1024), (2048, 512), (1024, 256), (512, 128), (256, 64), (128, 32), (64, 16), (16, 16), (16, 3)]
    expected = sum(27 * a * b + b for a, b in blocks)
    assert sum(p.numel() for p in PooledUNet(3).parameters()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [(), ("encoder.",)])
def test_weights_come_along_and_learn_on(tmp_path, frozen):
    run(recipe(), tmp_path / "source", console=QUIET)
    before = load_run(tmp_path / "source")[1].network.state_dict()
    moved = recipe(OTHER, Transferred(str(tmp_path / "source"), frozen))
    still = run(replace(moved, training=replace(moved.training, lr=1e-30)), tmp_path / "still", console=QUIET)
    assert all(torch.equal(before[k], v) for k, v in still.state_dict().items())
    after = run(moved, tmp_path / "moved", console=QUIET).state_dict()
    assert not torch.equal(before["encoder.0.convolution.weight"], after["encoder.0.convolution.weight"])
    assert not torch.equal(before["head.convolution.weight"], after["head.convolution.weight"])


class Seen(list):
    """The seeds of the pairs that are drawn, until there are so many."""

    stop_at = None


@pytest.fixture
def seen(monkeypatch) -> Seen:
    seeds, draw = Seen(), Train.draw

    def counted(self, generator):
        if len(seeds) == seeds.stop_at:
            raise RuntimeError("broken off")
        seeds.append(generator.initial_seed())
        return draw(self, generator)

    monkeypatch.setattr(Train, "draw", counted)
    return seeds


def test_in_two_steps_the_encoder_rests_in_the_first_and_both_draw_pairs_of_their_own(tmp_path, seen):
    run(recipe(), tmp_path / "source", console=QUIET)
    moved = recipe(OTHER, Transferred(str(tmp_path / "source"), ("encoder.",)))
    seen.clear()
    run(moved, tmp_path / "whole", console=QUIET)
    assert len(seen) == len(set(seen)) == 4
    before = load_run(tmp_path / "source")[1].network.state_dict()
    first = build(moved)
    load_weights(first, tmp_path / "whole" / "first" / "best.safetensors")
    halfway = first.state_dict()
    assert all(torch.equal(halfway[k], before[k]) for k in halfway if k.startswith("encoder."))
    assert not torch.equal(halfway["head.convolution.weight"], before["head.convolution.weight"])


@pytest.mark.parametrize("done", [1, 2, 3])
def test_in_two_steps_it_is_guarded_and_gone_on_with_wherever_it_was_broken_off(tmp_path, seen, done):
    """In the first half, between the halves, and in the second: what was drawn from is not drawn again."""
    run(recipe(), tmp_path / "source", console=QUIET)
    moved = recipe(OTHER, Transferred(str(tmp_path / "source"), ("encoder.",)))
    whole = run(moved, tmp_path / "whole", console=QUIET).state_dict()
    drawn = seen[-4:]
    seen.stop_at = len(seen) + done
    with pytest.raises(RuntimeError, match="broken off"):
        run(moved, tmp_path / "parts", console=QUIET)
    seen.stop_at = None
    with pytest.raises(InputError, match="there is a run already"):
        run(moved, tmp_path / "parts", console=QUIET)
    seen.clear()
    again = run(moved, tmp_path / "parts", resume=True, console=QUIET).state_dict()
    assert seen == drawn[done:]
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_who_a_source_learned_from_is_known_of_all_that_go_on_from_it(tmp_path):
    """One after the other; a teacher's pupil too."""
    few = replace(OTHER, train_subjects=2)
    run(recipe(updates=1), tmp_path / "a", console=QUIET)
    run(recipe(few, Transferred(str(tmp_path / "a")), updates=1), tmp_path / "b", console=QUIET)
    run(recipe(few, Transferred(str(tmp_path / "b")), updates=1), tmp_path / "c", console=QUIET)
    taught = replace(recipe(few, updates=1), supervision=SelfTraining(Run(str(tmp_path / "a"))))
    run(taught, tmp_path / "pupil", console=QUIET)
    run(recipe(few, updates=1), tmp_path / "alone", console=QUIET)
    whole = {*SOURCE.train.names, *SOURCE.validation.names}
    known = {name: learned_from(tmp_path / name) for name in ("a", "b", "c", "pupil", "alone")}
    assert known == {"a": whole, "b": whole, "c": whole, "pupil": whole, "alone": whole - {"phantom-04"}}
    assert few.test.names[0] == "phantom-04"


def test_a_source_that_is_missing_or_other_is_told(tmp_path):
    with pytest.raises(InputError, match=r"procedure\.source=RUN"):
        run(recipe(OTHER, Transferred()), tmp_path / "a", console=QUIET)
    with pytest.raises(InputError, match="no such file"):
        run(recipe(OTHER, Transferred(str(tmp_path / "nowhere"))), tmp_path / "b", console=QUIET)
    run(recipe(), tmp_path / "source", console=QUIET)
    with pytest.raises(
        InputError,
        match=r"with 'network\.bottom'; they begin with network\.decoder, network\.encoder",
    ):
        run(recipe(OTHER, Transferred(str(tmp_path / "source"), ("bottom",))), tmp_path / "c", console=QUIET)
    wider = replace(recipe(OTHER, Transferred(str(tmp_path / "source"))), network=partial(PooledUNet, ndim=3))
    with pytest.raises(InputError, match="weights are of another network"):
        run(wider, tmp_path / "d", console=QUIET)


class Steady(Energy):
    """A loss that nothing changes."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def terms(self, alignment):
        return {self.name: torch.tensor(self.value)}


def still(fixed, moving):
    return Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data))


def test_softmax_weighting_is_the_authors_sum_and_gives_all_weight_to_the_least_loss():
    """Where losses are balanced (`UncertaintyWeighted`) the greatest does not fall to nothing."""
    pair, values = next(iter(SOURCE.validation)), (0.1, 0.9, 0.5)
    losses, regulariser = [Steady(f"c{n}", value) for n, value in enumerate(values)], Steady("r", 2.0)
    weighing = SoftmaxWeighted(losses, (regulariser,), regularity=0.02)
    terms = weighing(still, pair, 0.0)
    assert sum(float(v.detach()) for k, v in terms.items() if "/" not in k) == pytest.approx(0.5 + 0.04)
    with torch.no_grad():
        weighing.shares.copy_(torch.tensor([0.3, -1.0, 2.0]))
    terms = weighing(still, pair, 0.0)
    shares = torch.tensor([0.3, -1.0, 2.0]).softmax(0)
    for n, value in enumerate(values):
        assert float(terms[f"c{n}"].detach()) == pytest.approx(float(shares[n]) * value)
        assert float(terms[f"weight/c{n}"]) == pytest.approx(float(shares[n]))
    other = UncertaintyWeighted(losses, (regulariser,), 0.02)
    for each in (weighing, other):
        optimiser = torch.optim.Adam(each.parameters(), lr=0.05)
        for _ in range(300):
            optimiser.zero_grad()
            sum(v for k, v in each(still, pair, 0.0).items() if "/" not in k).backward()
            optimiser.step()
    theirs, ours = weighing(still, pair, 0.0), other(still, pair, 0.0)
    assert float(theirs["weight/c0"]) > 0.99
    assert float(theirs["weight/r"]) < 0.02 * 0.1
    assert float(ours["weight/c0"]) == pytest.approx(1 / 0.1 / (1 / 0.1 + 1 / 0.9 + 1 / 0.5), abs=0.02)
    assert float(ours["weight/r"]) == pytest.approx(0.02)
    with pytest.raises(InputError, match="at least one loss"):
        SoftmaxWeighted(())


def boxes(shape, *parts):
    """Labels on an image: (value, first voxel, edge) each."""
    data = torch.zeros(1, 1, *shape, dtype=torch.int32)
    for value, at, edge in parts:
        data[(..., *[slice(at, at + edge)] * len(shape))] = value
    return Labels(data, Grid.centred(shape))


def aligned(fixed, moving):
    image = Image(torch.zeros(1, 1, *fixed.grid.shape), fixed.grid)
    return Alignment(Pair(image, image, fixed, moving), Affine.identity(fixed.grid.ndim))


@pytest.mark.parametrize("ndim", [2, 3])
def test_generalised_dice_is_sudres_sum_with_the_background(ndim):
    shape = (16,) * ndim
    alignment = aligned(boxes(shape, (3, 1, 4), (7, 9, 6)), boxes(shape, (3, 2, 4), (7, 9, 5)))
    labels = [alignment.pair.fixed_labels.data[0, 0], alignment.pair.moving_labels.data[0, 0]]
    above = below = 0.0
    for value in (0, 3, 7):
        p, q = ((each == value).double() for each in labels)
        above += float((p * q).sum() / p.sum() ** 2)
        below += float((p + q).sum() / p.sum() ** 2)
    assert float(GeneralisedDice()(alignment)) == pytest.approx(1 - 2 * above / below, rel=1e-5)
    assert float(GeneralisedDice()(aligned(*[boxes(shape, (3, 1, 4), (7, 9, 6))] * 2))) == pytest.approx(0, abs=1e-6)


def test_the_background_of_generalised_dice_hardly_counts():
    """Of one label it is soft Dice but for the label's share of the image: here under a hundredth."""
    alignment = aligned(boxes((24, 24, 24), (1, 4, 5)), boxes((24, 24, 24), (1, 5, 5)))
    theirs, ours = (float(energy(alignment)) for energy in (GeneralisedDice(), SoftDice()))
    assert 0 < abs(theirs - ours) < 5**3 / 24**3


@pytest.mark.parametrize("shape", [(12, 11), (10, 11, 13)])
@pytest.mark.parametrize("masked", [False, True])
def test_ssim_of_patches_is_wangs_formula_patch_by_patch(shape, masked):
    generator = torch.Generator().manual_seed(0)
    grid = Grid.centred(shape)
    one, two = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(shape, generator=generator) < (0.6 if masked else 2.0)
    mask[tuple(slice(0, 5) for _ in shape)] = not masked
    fixed, moving = Image(one[None, None], grid, mask[None, None] if masked else None), Image(two[None, None], grid)
    values = []
    for corner in torch.cartesian_prod(*[torch.arange(0, n, 5) for n in shape]).tolist():
        where = tuple(slice(n, n + 5) for n in corner)
        x, y = one[where][mask[where]], two[where][mask[where]]
        if not len(x):
            continue
        extent = float(one[mask].max() - one[mask].min())
        c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
        vx, vy, c = x.var(correction=0), y.var(correction=0), ((x - x.mean()) * (y - y.mean())).mean()
        level = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
        values.append(float(level * (2 * c + c2) / (vx + vy + c2)))
    found = PatchSSIM()(Alignment(Pair(fixed, moving), Affine.identity(len(shape))))
    assert float(found) == pytest.approx(1 - sum(values) / len(values), abs=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
def test_patches_make_an_energy(ndim):
    check_energy(PatchSSIM(), ndim)


def test_one_less_the_correlation_sees_an_inversion():
    grid = Grid.centred((9, 8, 7))
    image = Image(torch.rand(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0)), grid)
    for other, plain, squared in ((2 * image.data + 1, 0, 0), (-image.data, 2, 0)):
        alignment = Alignment(Pair(image, replace(image, data=other)), Affine.identity(3))
        assert float(NCC(squared=False)(alignment)) == pytest.approx(plain, abs=1e-5)
        assert float(NCC()(alignment)) == pytest.approx(squared, abs=1e-5)


def test_each_row_of_the_table_of_the_authors_code_differs_in_its_own_thing_alone():
    every = study.tables["code"].experiments["phantom/pooled-unet"].arms
    arms = {name: arm for name, arm in every.items() if isinstance(arm, TrainedArm)}
    ours = find("ddmr-uw-nsd", on="phantom")
    assert arms["UW-NSD"].recipe == ours
    made = {name: arm.recipe.supervision() for name, arm in arms.items()}
    for name, row in arms.items():
        assert replace(row.recipe, supervision=ours.supervision, training=ours.training) == ours
        if name not in ("4³ lattice, ten points move", "all of them"):
            assert row.recipe.training == ours.training
    names = ("softmax weighting, as its authors have it", "all of them")
    assert {name for name, each in made.items() if isinstance(each, SoftmaxWeighted)} == {*names}
    assert made["all of them"].losses == (NCC(squared=False), PatchSSIM(), GeneralisedDice())
    assert made["all of them"].regularisers == (Diffusion(),)
    lattice = arms["all of them"].recipe.training.augment
    assert (lattice.controls, lattice.moving) == (4, 10)
