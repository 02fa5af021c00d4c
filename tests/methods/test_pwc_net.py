"""PWC-Net: its size, its units, and where its warps and correlations look."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pullback.alignment import Pair
from pullback.errors import InputError
from pullback.methods.pair import pwc_net
from pullback.methods.pair.pwc_net import UNIT, FlowAlignment, FlowDistance, PWCNet, warped
from pullback.numerics.cost_volume import correlation, offsets
from pullback.numerics.smooth import gaussian
from pullback.recipes import find
from pullback.space import Displacement, Grid, Image
from pullback.study.recipe import changed
from pullback.study.run import build
from pullback.testing import check_register, check_supervision, problems
from pullback.training import Task, Training, seeded
from pullback.training.train import train

MIDDLE = {"widths": (8, 12, 16), "dense": (16, 8), "context": (8, 8), "normalised": True}
SMALL = {"widths": (4, 6, 8), "dense": (8, 6), "context": (6, 4)}


def net(**sizes) -> PWCNet:
    with seeded(2):
        return PWCNet(2, **(SMALL | sizes))


def test_its_weights_are_counted():
    """Those of the public code, of images of three channels."""
    assert sum(p.numel() for p in PWCNet(2, channels=3).parameters()) == 9_374_274


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_the_warp_of_a_level_is_in_its_voxels(level):
    """A flow f is 20 f voxels of the image, so 20 f / 2^level of the level's: whole ones copy features."""
    features = torch.rand(1, 3, 12, 14, dtype=torch.float64)
    flow = torch.zeros(1, 2, 12, 14)
    flow[:, 0], flow[:, 1] = 2 * 2**level / UNIT, -1 * 2**level / UNIT
    found = warped(features, flow, level)
    torch.testing.assert_close(found[..., :-2, 1:], features[..., 2:, :-1].float(), atol=1e-4, rtol=0)
    assert not found[..., -2:, :].any()


def test_a_flow_of_the_finest_level_is_twenty_voxels_of_the_image():
    """All weights 0 but the bias of the last convolutions: the answer is that bias, everywhere."""
    network = net()
    for weight in network.parameters():
        weight.data.zero_()
    network.decoders[-1].last.bias.data = torch.tensor([0.3, -0.2])
    network.context[-1].bias.data = torch.tensor([0.05, 0.0])
    image = Image(torch.rand(1, 1, 37, 50), Grid.centred((37, 50)))
    field = network(image, image).transform.field
    assert field.shape == (1, 2, 37, 50)
    torch.testing.assert_close(field[:, 0], torch.full_like(field[:, 0], 0.35 * UNIT))
    torch.testing.assert_close(field[:, 1], torch.full_like(field[:, 1], -0.2 * UNIT))


def test_a_shift_said_by_the_correlation_of_each_level_is_that_many_of_its_voxels(monkeypatch):
    """Scale law. With decoders that read off the best displacement, shift s of level l is s · 2^l voxels at full size.

    Only one level speaks at a time; the others find no motion, and hand on what they were told.
    """
    at = offsets(4, 2, torch.zeros(()), nearest_first=False)

    class Reads(torch.nn.Module):
        """The shift that the correlation says, in the network's unit, added to the flow from below."""

        def __init__(self, level: int) -> None:
            super().__init__()
            self.level = level

        def upsampled(self, flow, _):
            return F.interpolate(flow, scale_factor=2), torch.zeros(1, 1, *(2 * n for n in flow.shape[2:]))

        def forward(self, values):
            shift = at[values[:, :81].argmax(1)].movedim(-1, 1) * 2**self.level / UNIT
            before = values[:, -3:-1] if values.shape[1] > 81 else 0
            return shift + before, values[:, :1]

    class Silent(torch.nn.Module):
        def forward(self, _):
            return 0.0

    grid = Grid.centred((128, 128))
    image = Image(torch.rand(1, 1, 128, 128), grid)
    for speaks in (2, 3, 4):
        network = net(widths=(4, 6, 8, 8))
        network.decoders = torch.nn.ModuleList(Reads(level) for level in (4, 3, 2))
        network.context = Silent()
        calls = iter((4, 3, 2))

        def says(fixed, moving, displacements, speaks=speaks, calls=calls):
            told = torch.tensor([1.0, -2.0] if next(calls) == speaks else [0.0, 0.0])
            best = (displacements - told).square().sum(1) == 0
            return best.float().view(1, -1, 1, 1).expand(1, -1, *fixed.shape[2:])

        monkeypatch.setattr(pwc_net, "correlation", says)
        field = network(image, image).transform.field[..., 40:-40, 40:-40]
        torch.testing.assert_close(field[:, 0], torch.full_like(field[:, 0], 2.0**speaks))
        torch.testing.assert_close(field[:, 1], torch.full_like(field[:, 1], -2 * 2.0**speaks))


def test_correlation_is_greatest_where_the_moving_image_shows_the_same():
    features = torch.nn.functional.normalize(torch.randn(1, 12, 16, 16), dim=1)
    at = offsets(4, 2, features, nearest_first=False)
    best = at[correlation(features, features.roll((3, -2), (2, 3)), at)[0, :, 5:-5, 5:-5].argmax(0)]
    assert torch.equal(best, torch.tensor([3.0, -2.0]).expand_as(best))


@pytest.mark.parametrize("problem", problems(ndim=2), ids=str)
def test_contract(problem):
    with seeded(2):
        check_register(PWCNet(2, **SMALL).eval(), problem, solves=False)


def test_the_recipe_runs_two_steps():
    recipe = find("pwc-net", on="compressions")
    data = replace(recipe.data, side=48, frames=10, train_videos=2, validation_videos=1, test_videos=1)
    training = replace(recipe.training, updates=2, validate_every=2)
    network = build(changed(recipe, {"network.widths": "[4, 6, 8]"}))
    before = copy.deepcopy(network.state_dict())
    recipe.procedure(
        Task(lambda _: network, data.train, recipe.supervision, training, recipe.evaluates(data.validation))
    )
    assert all(not torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Blobs:
    """Smooth noise, shifted by up to 8 voxels along each axis, round and round."""

    def draw(self, generator: torch.Generator) -> Pair:
        noise = gaussian(torch.randn(1, 1, 64, 64, generator=generator), 3.0)
        image = Image(0.5 + 0.2 * noise / noise.std(), Grid.centred((64, 64)))
        shift = torch.randint(-8, 9, (2,), generator=generator)
        field = shift.float().view(1, 2, 1, 1).expand(1, 2, 64, 64).contiguous()
        moving = replace(image, data=image.data.roll(shift.tolist(), (2, 3)))
        return Pair(image, moving, truth=Displacement(field, image.grid), name="blobs")


@pytest.mark.slow
def test_it_learns_what_it_is_told():
    """Nearer to the truth than no motion, on images that it has not seen."""
    network = train(net(**MIDDLE), Blobs(), FlowDistance(), Training(updates=150, lr=2e-3)).eval()
    far = near = 0.0
    for seed in range(8):
        pair = Blobs().draw(torch.Generator().manual_seed(seed))
        truth = pair.truth.displacement(pair.fixed.grid)
        with torch.no_grad():
            found = network(*pair.images).transform.field
        far += float(truth.norm(dim=1).mean())
        near += float((found - truth).norm(dim=1)[..., 12:-12, 12:-12].mean())
    assert near < 0.7 * far, (near / 8, far / 8)


def test_the_distance_of_each_level_is_in_its_own_voxels():
    """A network that knows the truth on every level is told nothing; one that stays is told how far it is off."""

    def says(share: float):
        def register(fixed, moving):
            sizes = (1, 2, 5, 4), (1, 2, 10, 8)  # more than every 8th and 4th of 37 × 29, as of a padded image
            flows = tuple(torch.full(size, share * 3.0 / UNIT) for size in sizes)
            return FlowAlignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data), flows=flows)

        return register

    image = Image(torch.rand(1, 1, 37, 29), Grid.centred((37, 29)))
    pair = Pair(image, image, truth=Displacement(torch.full((1, 2, 37, 29), 3.0), image.grid))
    assert float(FlowDistance()(says(1.0), pair, 0.0)["flow"]) < 1e-3
    losses = FlowDistance()(says(0.0), pair, 0.0)
    assert float(losses["flow/2"]) == pytest.approx(3 * 2**0.5 / UNIT, rel=1e-4)
    assert float(losses["flow"]) == pytest.approx((0.64 + 1.28) * 3 * 2**0.5 / UNIT, rel=1e-4)
    with pytest.raises(ValueError, match="not known"):
        FlowDistance()(says(0.0), replace(pair, truth=None), 0.0)


def test_contract_of_the_supervision():
    check_supervision(FlowDistance(), net, Blobs().draw(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("wrong", [{"ndim": 3}, {"widths": (4, 4)}])
def test_networks_that_are_none(wrong):
    with pytest.raises(InputError, match="PWCNet"):
        PWCNet(**wrong)
