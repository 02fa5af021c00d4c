"""PWC-Net: its size, its units, and where its warps and correlations look."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pullback.alignment import Pair
from pullback.data import Compressions, Synthesis, Synthetic
from pullback.errors import InputError
from pullback.methods.pair import pwc_net
from pullback.methods.pair.pwc_net import UNIT, PWCNet, warped
from pullback.numerics.cost_volume import correlation, offsets
from pullback.recipes import find
from pullback.space import Grid, Image
from pullback.study.recipe import changed
from pullback.study.run import build
from pullback.testing import check_register, problems
from pullback.training import KnownTransform, Task, Training, seeded, train

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
    check_register(net().eval(), problem, solves=False)


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


def test_it_learns_what_it_is_told():
    """Of synthetic motion of speckle: nearer to the truth than no motion, after few updates."""
    synthesis = Synthesis(0.4, 4, 0.0, 0.9, 1.0, 0.0)
    data = Compressions(
        side=48, frames=10, train_videos=4, validation_videos=2, test_videos=1, synthetic=Synthetic(synthesis)
    )
    numbers = Training(updates=60, lr=2e-3, augment=synthesis)
    network = train(net(widths=(8, 12, 16), dense=(16, 8), context=(8, 8)), data.train, KnownTransform(), numbers)
    pairs = list(data.validation)

    def off(field: torch.Tensor, pair: Pair) -> float:
        return float((field - pair.truth.displacement(pair.fixed.grid)).norm(dim=1)[..., 8:-8, 8:-8].mean())

    with torch.no_grad():
        found = sum(off(network.eval()(*pair.images).transform.field, pair) for pair in pairs)
    still = sum(off(torch.zeros(1, 2, 48, 48), pair) for pair in pairs)
    assert found < 0.8 * still, (found, still)


@pytest.mark.parametrize("wrong", [{"ndim": 3}, {"widths": (4, 4)}])
def test_networks_that_are_none(wrong):
    with pytest.raises(InputError, match="PWCNet"):
        PWCNet(**wrong)
