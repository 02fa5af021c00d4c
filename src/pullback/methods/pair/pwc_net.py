"""PWC-Net: optical flow from coarse to fine, by warped features and the correlations of small displacements.

Sun, Yang, Liu, Kautz: PWC-Net: CNNs for optical flow using pyramid, warping, and cost volume, CVPR 2018. Of its two
forms the one with dense connections and a context network, as in its public weights: 9,374,274 parameters for images
of three channels. The paper does not say how images are brought to multiples of 64 voxels; here their border goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.networks import Network, together
from pullback.numerics.cost_volume import correlation, offsets, unpooled
from pullback.numerics.sample import sample, voxels
from pullback.space import Displacement, Image

WIDTHS = (16, 32, 64, 96, 128, 196)
DENSE = (128, 128, 96, 64, 32)
CONTEXT = (128, 128, 128, 96, 64, 32)
DILATIONS = (1, 2, 4, 8, 16, 1)
SLOPE = 0.1  # of the leaky ReLUs
REACH = 4  # voxels of a level, along each axis
FINEST = 2  # level of the answer, whose voxels are a quarter of the size
TINY = 1e-8  # the root of 0 has no slope
STILL = 1e-3  # of the initial weights that make flow: an untrained network answers with nearly none
UNIT = 20.0  # voxels of the image that a flow of 1 stands for, on each level


@dataclass(frozen=True, eq=False)
class FlowAlignment(Alignment):
    """An alignment with the flow of each level.

    Attributes:
        flows: `(B, 2, *spatial)` from coarse to fine, in units of 20 voxels of the image: those of level l belong to
            every 2^l-th voxel, the first among them.
    """

    flows: tuple[Tensor, ...] = ()


class PWCNet(Network):
    """A register of images of one dimension by flow on a pyramid of learned features.

    On each level, the features of the moving image are warped by the flow so far, their correlations with those of the
    fixed image at displacements of up to 4 voxels are taken, and a decoder makes the flow out of these. Flow is in
    units of 20 voxels of the image, displacement fixed → moving, along the axes of the house. Images may have any size.

    Args:
        ndim: 2; there is no other.
        widths: channels of the levels, each of half the size of the one before; one of half these is a quarter as slow.
        dense: channels of a decoder's convolutions, each of which sees all before it.
        context: channels of the dilated convolutions by which the finest flow is refined.
        channels: of one image.
        normalised: compare features of each channel less their mean, in units of their deviation, as Jonschkowski et
            al. 2020 do, and not as the paper: from correlations of raw features few updates learn nothing.

    Raises:
        InputError: other dimensions, or fewer than three levels.
    """

    def __init__(
        self,
        ndim: int = 2,
        widths: tuple[int, ...] = WIDTHS,
        dense: tuple[int, ...] = DENSE,
        context: tuple[int, ...] = CONTEXT,
        channels: int = 1,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.normalised = normalised
        if ndim != 2 or len(widths) <= FINEST or len(context) > len(DILATIONS):
            raise InputError(
                f"PWCNet: 2-D images, {FINEST + 1} levels or more and {len(DILATIONS)} dilated convolutions at most "
                f"expected, got {ndim}-D, widths {widths} and context {context}"
            )
        self.extractor = nn.ModuleList(
            nn.Sequential(_leaky(a, b, stride=2), _leaky(b, b), _leaky(b, b)) for a, b in pairwise((channels, *widths))
        )
        self.decoders = nn.ModuleList()  # from coarse to fine
        seen = (2 * REACH + 1) ** 2
        before = 0
        for width in (0, *reversed(widths[FINEST - 1 : -1])):
            decoder = FlowDecoder(seen + width + (4 if before else 0), dense, before)
            self.decoders.append(decoder)
            before = decoder.channels_out
        dilated = [_leaky(a, b, dilation=d) for (a, b), d in zip(pairwise((before, *context)), DILATIONS, strict=False)]
        self.context = nn.Sequential(*dilated, nn.Conv2d(context[-1], 2, 3, padding=1))
        self.stride = 2 ** len(widths)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                nn.init.zeros_(layer.bias)
        for module in (*self.decoders, self.context):
            flow = module.last if isinstance(module, FlowDecoder) else cast(nn.Sequential, module)[-1]
            nn.init.normal_(cast(nn.Conv2d, flow).weight, std=STILL)

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        one, two = together(fixed, moving).chunk(2, 1)
        flows = self.flows(*(self.pyramid(image) for image in (one, two)))
        with torch.autocast(one.device.type, enabled=False):  # bfloat16 would round the field
            quarter = 2**FINEST
            field = unpooled(flows[-1].float() * (UNIT / quarter), quarter, fixed.grid.shape, strided=True)
        return FlowAlignment(Pair(fixed, moving), Displacement(field, fixed.grid), flows=tuple(flows))

    def pyramid(self, values: Tensor) -> list[Tensor]:
        """Return the features of `(B, channels, *spatial)`, a list from fine to coarse."""
        missing = [pad for n in reversed(values.shape[2:]) for pad in (0, -n % self.stride)]
        values, levels = F.pad(values, missing, mode="replicate"), []
        for stage in self.extractor:
            values = stage(values)
            levels.append(values)
        return levels

    def flows(self, fixed: Sequence[Tensor], moving: Sequence[Tensor]) -> list[Tensor]:
        """Return the flow between two pyramids by level, `(B, 2, *spatial)` each, from coarse to a quarter of the size.

        They are in units of 20 voxels of the image. The last is refined.
        """
        flow = features = None
        found: list[Tensor] = []
        for step, module in enumerate(self.decoders):
            decoder = cast(FlowDecoder, module)
            level = len(fixed) - step
            here, there = fixed[level - 1], moving[level - 1]
            if flow is None or features is None:
                inputs = [self._correlated(here, there)]
            else:
                flow, features = decoder.upsampled(flow, features)
                inputs = [self._correlated(here, warped(there, flow, level)), here, flow, features]
            flow, features = decoder(torch.cat(inputs, 1))
            found.append(flow)
        return [*found[:-1], found[-1] + self.context(features)]

    def _correlated(self, fixed: Tensor, moving: Tensor) -> Tensor:
        if self.normalised:
            fixed, moving = (standardised(features) for features in (fixed, moving))
        return F.leaky_relu(correlation(fixed, moving, offsets(REACH, 2, fixed, nearest_first=False)), SLOPE)


def standardised(features: Tensor) -> Tensor:
    """Return features `(B, C, *spatial)` less the mean of each channel, in units of its deviation."""
    axes = tuple(range(2, features.ndim))
    off = features - features.mean(axes, keepdim=True)
    return off / (off.square().mean(axes, keepdim=True) + TINY).sqrt()


class FlowDecoder(nn.Module):
    """A decoder of one level: five convolutions, each of which sees all before it, and one that makes the flow.

    Args:
        channels: of what it sees.
        dense: of its convolutions.
        before: channels of the features of the level below, which it brings to its size with that level's flow; 0
            where there is none.
    """

    def __init__(self, channels: int, dense: Sequence[int], before: int) -> None:
        super().__init__()
        self.up_flow = nn.ConvTranspose2d(2, 2, 4, 2, 1) if before else None
        self.up_features = nn.ConvTranspose2d(before, 2, 4, 2, 1) if before else None
        self.layers = nn.ModuleList()
        for width in dense:
            self.layers.append(_leaky(channels, width))
            channels += width
        self.channels_out = channels
        self.last = nn.Conv2d(channels, 2, 3, padding=1)

    def upsampled(self, flow: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flow and two features at this level's size, from those of the level below."""
        assert self.up_flow is not None
        assert self.up_features is not None
        return self.up_flow(flow), self.up_features(features)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flow, `(B, 2, *spatial)`, and the features that it was made of."""
        for layer in self.layers:
            values = torch.cat([layer(values), values], 1)
        return self.last(values), values


@dataclass(frozen=True)
class FlowDistance:
    """The supervision by a pair's known truth on each level: the weighted distances of its flow, the paper's loss.

    Attributes:
        weights: of the mean distance of each level, from coarse to fine; the last ones where there are fewer levels.
            The paper's 0.32, 0.08, 0.02, 0.01 and 0.005 are of sums, of four times as many terms at each level.
    """

    weights: tuple[float, ...] = (0.32, 0.32, 0.32, 0.64, 1.28)

    def __call__(
        self, register: Callable[[Image, Image], FlowAlignment], pair: Pair, progress: float
    ) -> dict[str, Tensor]:
        """Return the sum as `flow`, in units of 20 voxels, and the distance of each level as `flow/` and its number.

        Raises:
            ValueError: the pair does not know its truth.
        """
        if pair.truth is None:
            raise ValueError(f"{pair.name or 'a pair'}: its true transform is not known, so nothing can be told of it")
        with torch.no_grad():
            truth = pair.truth.displacement(pair.fixed.grid).to(pair.fixed.data) / UNIT
        flows = register(pair.fixed, pair.moving).flows
        losses: dict[str, Tensor] = {"flow": truth.new_zeros(())}
        for step, (flow, weight) in enumerate(zip(flows, self.weights[-len(flows) :], strict=True)):
            level = FINEST + len(flows) - 1 - step
            there = truth[..., :: 2**level, :: 2**level]
            off = flow[..., : there.shape[2], : there.shape[3]] - there
            losses[f"flow/{level}"] = (off.square().sum(1) + TINY).sqrt().mean()
            losses["flow"] = losses["flow"] + weight * losses[f"flow/{level}"]
        return losses


def warped(features: Tensor, flow: Tensor, level: int) -> Tensor:
    """Return features of a level at where its flow leads, `(B, C, *spatial)`; 0 beyond their border.

    A flow of 1 is 20 / 2^level voxels of the level.
    """
    with torch.autocast(flow.device.type, enabled=False):
        where = voxels(tuple(features.shape[2:]), flow.float()) + flow.float() * (UNIT / 2**level)
        return sample(features.float(), where)


def _leaky(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(before, after, 3, stride, dilation, dilation)
    return nn.Sequential(layer, nn.LeakyReLU(SLOPE))


METHOD = Method(
    about="optical flow from coarse to fine by warped features and their correlations, in 2-D",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "sun2018pwcnet",
            "Sun, Deqing and Yang, Xiaodong and Liu, Ming-Yu and Kautz, Jan",
            "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume",
            "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
            2018,
            "10.1109/CVPR.2018.00931",
            pages="8934--8943",
        ),
    ),
)
