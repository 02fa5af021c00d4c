"""Registration uncertainty: a network, or a descent, predicts how far the answer of any register may be from the truth.

Smolders, Lomax, Weber, Albertini: Deformable image registration uncertainty quantification using deep learning for dose
accumulation in adaptive proton therapy, WBIR 2022. A Gaussian stands around the displacement μ of any register; its
deviation is where a variational free energy is least, with μ held fixed (eq. 2 to 4). That energy is a function of the
deviation alone. So one pair needs no network, `WithPosterior` descends it; `PosteriorNetwork` learns to answer at once.

Where the paper is silent, or its code (AndreasSmolders/WBIR2022) says otherwise, it is decided here:

- Noise has unit variance and one correlation up to the border (`stationary_noise`), so the deviation is one.
- The graph Laplacian has degrees D that are smaller at borders, and ρ is that of the kernel as it is cut off.
- Where the mean learns, too (VoxelMorph alone), its energy is that of eq. 2; in the code it is a sixth of it in 3-D.
- λ and σ_I² are of voxels and of images scaled to 0 … 1; the deviation is told in mm.
- The network sees both images as the headers lay them, and μ in voxels; group norms of 8 groups, as the U-Net of its
  code has them (Çiçek et al. 2016, by A. Wolny); the whole image at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.data import preprocessed
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.classical import BALANCED
from pullback.methods.pair.posterior import LogDeviation, Posterior, PosteriorEnergy
from pullback.metrics.calibration import deviation_maps
from pullback.networks import Network, convolution, together
from pullback.networks.encoder_decoder import Decoder, Encoder, max_pooling, nearest_up
from pullback.numerics.random import make_generator
from pullback.solvers import Descend, timed
from pullback.space import Displacement, Image, Transform
from pullback.stats import Stats

WIDTHS = (16, 32, 64, 128)
GROUPS = 8


@dataclass(frozen=True)
class WithPosterior:
    """A register that answers as another does, and says in its maps how far that may be from the truth.

    `Posterior.of` makes samples of the answer. Errors of registration are local minima as often as noise, of which no
    likelihood around the answer knows: see the method's page before a number is believed.

    Attributes:
        register: any; it continues from a start, where one is given.
        energy: of the posterior.
        solver: of its logarithm; it begins at `PosteriorEnergy.guess`.
        seed: of the samples that it compares.
    """

    register: Any = BALANCED.deformable
    energy: PosteriorEnergy = PosteriorEnergy()
    solver: Descend = Descend(steps=100, step_size=0.05, last=0.05)
    seed: int = 0

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, from `start` or as the headers say; each pair of a batch by itself."""
        return one_by_one(self._one, fixed, moving, start)

    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        answer = timed(Pair(fixed, moving), self.register, start)
        found, stats = self.around(answer.pair, answer.transform)
        stats = (answer.stats or Stats()).then(stats)
        return replace(answer, maps={**answer.maps, **found.maps}, stats=stats)

    def around(self, pair: Pair, transform: Transform) -> tuple[Posterior, Stats]:
        """Return the posterior around a transform that anybody found, and the statistics of its descent."""
        seen = Pair(preprocessed(pair.fixed), preprocessed(pair.moving))
        generator = make_generator(self.seed)
        with torch.no_grad():
            mean = transform.displacement(pair.fixed.grid).to(seen.fixed.data)
            begin = self.energy.guess(seen, mean)

        def objective(deviation: LogDeviation) -> Tensor:
            return torch.stack([*self.energy.terms(seen, mean, deviation.values, generator).values()]).sum()

        found, stats = self.solver(objective, LogDeviation(begin))
        posterior = Posterior(Displacement(mean, pair.fixed.grid), found.values.exp(), self.energy.smooth)
        return posterior, stats


def normed_first(widest: bool) -> Callable[[int, int, int], nn.Sequential]:
    """Return what makes a block of two 3ᵈ convolutions, each with a group norm before and ReLU after it.

    Args:
        widest: let the first have the block's channels already, as on the way up; else half as many, if not fewer than
            came in.
    """

    def block(ndim: int, before: int, after: int) -> nn.Sequential:
        middle = after if widest else max(before, after // 2)
        layers: list[nn.Module] = []
        for a, b in ((before, middle), (middle, after)):
            groups = GROUPS if a % GROUPS == 0 else 1
            layers += [nn.GroupNorm(groups, a), convolution(ndim, a, b, 3, padding=1, bias=False), nn.ReLU()]
        return nn.Sequential(*layers)

    return block


@dataclass(frozen=True, eq=False)
class PosteriorAlignment(Alignment):
    """An alignment with what its network predicted, for the supervision.

    Attributes:
        log_deviation: log G, `(B, d, *spatial)`, in voxels of the fixed grid; the maps have it in mm.
    """

    log_deviation: Tensor = torch.zeros(0)


class PosteriorNetwork(Network):
    """A network that predicts the deviation of a register's answer from both images and that answer.

    Without a register it predicts the answer, too: VoxelMorph's probabilistic form, a displacement. Images may have any
    size and different grids: the moving image is first pulled onto the fixed grid by the headers.

    Args:
        ndim: 2 or 3.
        register: whose answers it judges, a dataclass that learns nothing; None predicts them.
        widths: channels at each size, fine to coarse; 1,022,021 parameters in 3-D beside a register.
        channels: of one image.
    """

    def __init__(self, ndim: int, register: Any = None, widths: Sequence[int] = WIDTHS, channels: int = 1) -> None:
        super().__init__()
        self.register = register
        self.ndim = ndim
        seen = 2 * channels + (0 if register is None else ndim)
        self.encoder = Encoder(ndim, seen, widths, normed_first(False), max_pooling)
        self.decoder = Decoder(ndim, widths, tuple(reversed(widths[:-1])), normed_first(True), nearest_up)
        self.head = convolution(ndim, widths[0], ndim if register is not None else 2 * ndim, 1)
        nn.init.normal_(self.head.weight, std=1e-5)  # at first the deviation is one voxel, and nothing moves
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def around(self, register: Any) -> "PosteriorNetwork":
        """Return a network with the same weights that judges another register.

        Raises:
            InputError: it predicts its own answers.
        """
        if self.register is None:
            raise InputError("PosteriorNetwork: it predicts its own answers; train one with a register")
        other = PosteriorNetwork(**{**self.made.keywords, "ndim": self.ndim, "register": register})
        other.load_state_dict(self.state_dict())
        return other.to(self.head.weight.device)

    def forward(self, fixed: Image, moving: Image) -> PosteriorAlignment:
        """Return the register's alignment, or its own, with maps of its deviation in mm."""
        pair, both = Pair(fixed, moving), together(fixed, moving)
        known = None if self.register is None else self._known(pair)
        if known is not None:
            field = known.displacement(fixed.grid).to(both)
            both = torch.cat([both, field.expand(len(both), *field.shape[1:])], 1)
        features = self.decoder(self.encoder(both))[0]
        with torch.autocast(features.device.type, enabled=False):
            predicted = self.head(features.float())
        transform = Displacement(predicted[:, : self.ndim], fixed.grid) if known is None else known
        log_deviation = predicted[:, -self.ndim :] / 2  # of log G²
        maps = deviation_maps(log_deviation.exp(), fixed.grid)
        return PosteriorAlignment(pair, transform, maps, log_deviation=log_deviation)

    @torch.no_grad()
    def _known(self, pair: Pair) -> Transform:
        with torch.autocast(pair.fixed.data.device.type, enabled=False):
            transform: Transform = self.register(pair.fixed, pair.moving).transform
        return transform


@dataclass(frozen=True)
class PosteriorSupervision:
    """The supervision by the free energy of what a `PosteriorNetwork` predicts, without any truth.

    Attributes:
        energy: of the posterior.
        seed: of the samples; those of each update are others.
    """

    energy: PosteriorEnergy = PosteriorEnergy()
    seed: int = 0

    def __call__(self, network: Callable[..., PosteriorAlignment], pair: Pair, progress: float) -> dict[str, Tensor]:
        answer = network(pair.fixed, pair.moving)
        mean = answer.transform.displacement(pair.fixed.grid).to(answer.log_deviation)
        generator = make_generator(self.seed, round(progress * 2**31))
        return self.energy.terms(pair, mean, answer.log_deviation, generator, learned=mean.requires_grad)


METHOD = Method(
    about="how far any register's answer may be from the truth: a deviation in mm, samples, dose bands",
    aligns=("pair",),
    trained=True,
    papers=(
        Paper(
            "smolders2022uncertainty",
            "Smolders, Andreas and Lomax, Tony and Weber, Damien C. and Albertini, Francesca",
            "Deformable Image Registration Uncertainty Quantification Using Deep Learning for Dose Accumulation in "
            "Adaptive Proton Therapy",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_7",
        ),
        Paper(
            "dalca2018unsupervised",
            "Dalca, Adrian V. and Balakrishnan, Guha and Guttag, John and Sabuncu, Mert R.",
            "Unsupervised Learning for Fast Probabilistic Diffeomorphic Registration",
            "Medical Image Computing and Computer Assisted Intervention (MICCAI)",
            2018,
            "10.1007/978-3-030-00928-1_82",
        ),
    ),
    keys=("uncertainty-alone",),
    register=WithPosterior(),
    solves=("identity", "shift"),
    commands=("uncertainty", "dose"),
)
