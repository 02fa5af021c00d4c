"""Conditional atlases: the running mean in closed form, equal scans, shifts to both sides, and rounds that go on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import Singles, Subject, Validation
from pullback.energies import MSE
from pullback.errors import InputError
from pullback.files import read_image
from pullback.methods.group.atlas import AtlasEvaluation, AtlasRounds, GroupwiseSupervision, halved
from pullback.methods.group.conditional import ConditionalAtlas, TemplateGenerator, age_of
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.recipes import find
from pullback.space import Grid, Image, Velocity
from pullback.study.run import build
from pullback.training import Task, Training, load_tensors, seeded

SHAPE = (16, 20)
GRID = Grid.centred(SHAPE, 1.0)
LIGHT = partial(VoxelMorph, encoder=(4, 8), decoder=(8, 8, 4, 4), transform=partial(Velocity, squarings=4))
NETWORK = partial(ConditionalAtlas, ndim=2, shape=SHAPE, register=LIGHT)


def blob(shift: float, height: float = 1.0) -> Image:
    """A smooth blob, so many voxels off the middle along the first axis."""
    x, y = GRID.to_world(GRID.voxels(torch.zeros((), dtype=torch.float64))[None])[0]
    return Image((height * torch.exp(-((x - shift) ** 2 + y**2) / 12))[None, None].float(), GRID)


@dataclass(frozen=True)
class Scan:
    """A case that is in memory."""

    image: Image
    number: int
    about: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"scan-{self.number}"

    def load(self) -> Subject:
        return Subject(self.image, about=dict(self.about), name=self.name)


class Shifting(nn.Module):
    """A register that learns one shift of each age, and what the atlas asks it is that of the scan at hand."""

    def __init__(self, ndim: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        x = GRID.to_world(GRID.voxels(fixed.data.double())[None])[:, :1]
        middle = [(x * image.data).sum() / image.data.sum() for image in (fixed, moving)]
        way = torch.zeros(1, 2, *SHAPE)
        way[:, 0] = 1.0
        return Alignment(Pair(fixed, moving), Velocity(self.scale * (middle[1] - middle[0]).float() * way, GRID, 4))


def trained(cases: list[Scan], group: float, start: str, updates: int = 60, rounds: int = 3) -> ConditionalAtlas:
    """Return the atlas of scans by a network that only shifts."""
    supervision = GroupwiseSupervision(SHAPE, energy=MSE(), group=group, magnitude=0.0, diffusion=0.0, window=4)
    training = Training(updates=updates, lr=0.1)
    with seeded(0):
        make = partial(ConditionalAtlas, 2, SHAPE, register=Shifting)
        task = Task(lambda _: make(), Singles(cases), supervision, training)
        return AtlasRounds(rounds=rounds, start=start, change=0.0)(task)


def middle_of(image: Image) -> float:
    x = GRID.to_world(GRID.voxels(torch.zeros((), dtype=torch.float64))[None])[:, :1]
    return float((x * image.data).sum() / image.data.sum())


# ---- the running mean


def test_the_running_mean_of_fewer_than_the_window_is_their_mean():
    supervision = GroupwiseSupervision(SHAPE, window=10)
    fields = [torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(n)) for n in range(5)]
    for each in fields:
        found = supervision.running(each, 0)
    torch.testing.assert_close(found, halved(torch.cat(fields)).mean(0))


def test_beyond_the_window_the_running_mean_forgets_at_its_rate():
    supervision = GroupwiseSupervision(SHAPE, window=4)
    for _ in range(4):
        supervision.running(torch.ones(1, 2, *SHAPE), 0)
    for _ in range(7):
        found = supervision.running(torch.zeros(1, 2, *SHAPE), 0)
    torch.testing.assert_close(found, torch.full_like(found, 0.75**7))


def test_the_past_has_no_gradient_and_the_present_its_share():
    supervision = GroupwiseSupervision(SHAPE, window=4)
    first = torch.randn(1, 2, *SHAPE, requires_grad=True)
    for _ in range(5):
        supervision.running(first, 0)
    last = torch.ones(1, 2, *SHAPE, requires_grad=True)
    supervision.running(last, 0).sum().backward()
    assert first.grad is None
    torch.testing.assert_close(last.grad, torch.full_like(last, 0.25 / 4))  # a quarter, of a mean over four voxels


def test_ages_do_not_mix():
    supervision = GroupwiseSupervision(SHAPE, (1.0, 2.0))
    with seeded(1):
        network = NETWORK(ages=(1.0, 2.0))
    AtlasRounds().begun(network, [Scan(blob(0), n, {"age": 1.0 + n}) for n in range(2)])
    supervision(network, Scan(blob(1), 0, {"age": 2.2}).load(), 0.0)
    assert supervision.count.tolist() == [0, 1]
    assert not supervision.mean[0].any()


# ---- the whole


def test_equal_scans_are_their_own_template_and_cost_nothing():
    with seeded(1):
        network = NETWORK()
    nn.init.zeros_(network.register.head.convolution.weight)
    cases = [Scan(blob(0), n) for n in range(3)]
    rounds = AtlasRounds()
    rounds.begun(network, cases)
    torch.testing.assert_close(network.templates, blob(0).data)
    torch.testing.assert_close(rounds.made(network, cases), blob(0).data)
    terms = GroupwiseSupervision(SHAPE, energy=MSE())(network, cases[0].load(), 0.0)
    assert all(float(value.detach()) == pytest.approx(0, abs=1e-9) for value in terms.values())


def test_of_scans_shifted_to_both_sides_the_template_ends_between_them():
    cases = [Scan(blob(shift), n) for n, shift in enumerate((2.0, -2.0, 2.0, -2.0))]
    assert abs(middle_of(trained(cases, 1.0, "median").template(0.0))) < 0.1


def test_without_the_constraint_the_template_stays_at_the_scan_it_began_with():
    cases = [Scan(blob(shift), n) for n, shift in enumerate((2.0, -2.0, 2.0, -2.0))]
    free, held = (middle_of(trained(cases, group, "first").template(0.0)) for group in (0.0, 10.0))
    assert free > 1.0
    assert held < 0.6 * free


def test_a_mean_that_is_left_can_be_taken_away():
    """The template that began at one of the scans ends in the middle after a single round."""
    cases = [Scan(blob(shift), n) for n, shift in enumerate((2.0, -2.0))]
    network = trained(cases, 0.0, "first", updates=60, rounds=1)
    network.templates.copy_(blob(2.0).data)
    moved = Image(AtlasRounds(centred=True).made(network, cases), GRID)
    assert abs(middle_of(moved)) < 0.25
    assert middle_of(Image(AtlasRounds().made(network, cases), GRID)) > 1.0


def test_similarity_is_measured_on_the_scan_through_the_inverse():
    """The transform leads from the template to the scan: a blob 2 voxels on is met by a shift of 2."""
    network = ConditionalAtlas(2, SHAPE, register=Shifting)
    AtlasRounds().begun(network, [Scan(blob(0), 0)])
    losses = {}
    for scale in (-1.0, 0.0, 1.0):
        network.register.scale.data.fill_(scale)
        terms = GroupwiseSupervision(SHAPE, energy=MSE())(network, Scan(blob(2.0), 1).load(), 0.0)
        losses[scale] = float(terms["mse"].detach())
    assert losses[1.0] < 0.1 * losses[0.0] < 0.1 * losses[-1.0]


def test_the_terms_are_those_of_equation_1():
    """Where the flow contracts, the inverse stretches: group is of the one, magnitude and roughness of the other."""
    where = GRID.voxels(torch.zeros(()))[None]
    field = 0.25 * (torch.tensor([7.5, 9.5]).view(1, 2, 1, 1) - where)

    def flowing(scan: Image, age: float) -> Alignment:
        return Alignment(Pair(blob(0), scan), Velocity(field, GRID))

    supervision = GroupwiseSupervision(SHAPE, energy=MSE(), group=2.0, magnitude=3.0, diffusion=5.0)
    terms = supervision(flowing, Scan(blob(0), 0).load(), 0.0)
    there, back = Velocity(field, GRID).own_displacement, Velocity(-field, GRID).own_displacement
    assert float(back.square().mean()) > 1.3 * float(there.square().mean())
    torch.testing.assert_close(terms["group"], 2 * halved(there).square().mean())
    torch.testing.assert_close(terms["magnitude"], 3 * back.square().mean())
    rough = sum(back.diff(dim=axis).square().mean() for axis in (2, 3)) / 2
    torch.testing.assert_close(terms["diffusion"], 5 * rough)


def test_first_templates_are_of_the_scans_of_their_age():
    cases = [Scan(blob(0, height), n, {"age": age}) for n, (age, height) in enumerate([(1, 1.0)] * 5 + [(2, 0.5)] * 5)]
    cases[0] = Scan(blob(0, 9.0), 0, {"age": 1})  # does not move the median
    network = NETWORK(ages=(1.0, 2.0))
    AtlasRounds().begun(network, cases)
    torch.testing.assert_close(network.templates, torch.cat([blob(0, 1.0).data, blob(0, 0.5).data]))
    AtlasRounds(start="mean").begun(network, cases)
    torch.testing.assert_close(network.templates[:1], blob(0, 2.6).data)


def test_a_person_is_on_one_side():
    data = find("atlas", on="growth").data
    names = [set(split.names) for split in (data.train, data.validation, data.test)]
    assert all(names)
    assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    assert len(data.train.cases) == 3 * len(names[0])  # all visits of each


def test_a_generator_begins_as_the_mean_and_has_a_gradient_by_age():
    with seeded(2):
        network = NETWORK(ages=(1.0, 3.0), generated=True)
    cases = [Scan(blob(0, 1.0), 0, {"age": 1.0}), Scan(blob(0, 0.5), 1, {"age": 3.0})]
    AtlasRounds().begun(network, cases)
    torch.testing.assert_close(network.template(2.0).data, 0.75 * blob(0).data, atol=1e-4, rtol=0)
    supervision = GroupwiseSupervision(SHAPE, (1.0, 3.0), energy=MSE())
    sum(value for name, value in supervision(network, cases[0].load(), 0.0).items() if "/" not in name).backward()
    assert network.generator.last.weight.grad.abs().max() > 0


def test_a_generator_learns_what_changes_with_age():
    with seeded(2):
        generator = TemplateGenerator(2, SHAPE, shrink=2)
    optimiser = torch.optim.Adam(generator.parameters(), 3e-3)
    for _ in range(150):
        loss = sum((generator(torch.tensor([[s]])) - s * blob(0).data).square().mean() for s in (0.0, 1.0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    half = generator(torch.tensor([[0.5]])).detach()
    assert (half - 0.5 * blob(0).data).abs().mean() < 0.05


def test_what_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    cases = [Scan(blob(n - 1.0), n) for n in range(3)]

    def ran(folder, rounds, resume=False):
        with seeded(0):
            supervision = GroupwiseSupervision(SHAPE, energy=MSE())
            training = Training(updates=2 * rounds, lr=1e-2)
            evaluation = AtlasEvaluation(Validation.singles(cases[:1]), MSE())
            task = Task(
                lambda _: NETWORK(), Singles(cases), supervision, training, evaluation, tmp_path / folder, resume
            )
            return AtlasRounds(rounds=rounds, change=0.0)(task)

    whole = ran("whole", 2)
    ran("stopped", 1)
    again = ran("stopped", 2, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    states = [load_tensors(tmp_path / name / "round-2" / "last.safetensors")[0] for name in ("whole", "stopped")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    written = read_image(tmp_path / "whole" / "atlas" / "template_age_0.nii.gz")
    torch.testing.assert_close(written.data, whole.template(0.0).data)


def test_evaluation_measures_the_mean_of_the_scans_of_an_age():
    network = ConditionalAtlas(2, SHAPE, register=Shifting)
    AtlasRounds().begun(network, [Scan(blob(0), 0)])
    network.register.scale.data.fill_(1.0)
    scans = Validation.singles([Scan(blob(shift), n) for n, shift in enumerate((2.0, -2.0, 3.0))])
    rows = list(AtlasEvaluation(scans).rows(network, torch.device("cpu")))
    assert float(rows[0]["group voxels²"]) == pytest.approx(0.5, abs=0.05)  # a mean of one voxel along one of two axes
    assert float(rows[2]["motion mm"]) == pytest.approx(middle_of(blob(3.0)), abs=1e-3)


# ---- bad input, and the recipes


def test_bad_input():
    with pytest.raises(InputError, match="in order"):
        ConditionalAtlas(2, SHAPE, ages=(2.0, 1.0))
    with pytest.raises(InputError, match=r"network\.shape"):
        AtlasRounds().begun(NETWORK(shape=(8, 8)), [Scan(blob(0), 0)])
    with pytest.raises(InputError, match="median"):
        AtlasRounds(start="mode")
    with pytest.raises(InputError, match="templates' grid"):
        NETWORK()(blob(0), 0.0)
    assert age_of(blob(0)) == 0.0


@pytest.mark.parametrize("network", ["voxelmorph", "template-generator"])
def test_the_parts_of_recipes_fit_each_other(network):
    recipe = find("atlas", network, "growth")
    made = build(recipe)
    scan = Image(torch.rand(1, 1, *made.shape), recipe.data.lattice.grid)
    AtlasRounds().begun(made, [Scan(scan, 0, {"age": 3.1})])
    terms = recipe.supervision()(made, Scan(scan, 0, {"age": 3.1}).load(), 0.0)
    assert terms["lncc"].requires_grad
    assert made.made.keywords["generated"] == (network == "template-generator")


@pytest.mark.nightly
@pytest.mark.parametrize("data", ["phantom", "growth"])
def test_recipes_fit_their_data(data):
    recipe = find("atlas", on=data)
    scan = recipe.data.train.cases[0].load()
    assert build(recipe).shape == scan.image.grid.shape
    assert age_of(scan) == (2.0 if data == "growth" else 0.0)
