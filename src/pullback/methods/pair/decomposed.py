"""A large motion in parts: one field is cut into the phases of a series, and attention over them bends the way.

Zou, Liu, Choi & Qin, "Deformable lung CT registration by decomposing large deformation", WBIR 2022. A network
answers with the field Φ between the two ends of a series, moving I_S at t = 0 and fixed T_n; uₜ = (t/n) Φ is held
against the image Tₜ between (eq. 2), and attention over the n phases makes (v₁ … vₙ) of (u₁ … uₙ). vₙ is the answer.
Each φₜ leads from the grid of Tₜ to I_S, which is resampled once.

Where the paper is silent:

1. Tokens. If they are the fields alone, the layer sees at each node n multiples of one vector: two places with the same
   Φ get the same way, whatever tissue they are. So a token holds features of I_S too, where the phase leads:
   [uₜ(x) / 10, c(x + uₜ(x)), t/n]. `features=0` is the layer on fields alone.
2. The layer: z ← z + MHA(z, z, z) over t for z = W token, and vₜ = uₜ + W' z, on a lattice of a quarter of the size,
   from where W' z is interpolated linearly. W' starts near 0, so training starts as plain decomposition.
3. (t/n) Φ lies on the grid of Tₜ, and Φ on that of T_n: voxels with one number are other tissue. With `Velocity` the
   parts exp((t/n) v) compose exactly: φₛ ∘ φₜ = φₛ₊ₜ.
4. Similarity is a sum over the phases, as eq. 2 has it; regularity is the mean of that of Φ and of vₙ. The backbone is
   VoxelMorph's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.alignment import PHASE, Alignment, Pair, Registered
from pullback.energies import LNCC, Diffusion, Energy, Sum
from pullback.energies.energy import parts
from pullback.energies.regularity import is_regularity
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pair.voxelmorph import ENCODER, VOXELMORPH_2
from pullback.networks import AcrossPhases, FieldHead, Network, UNet, together
from pullback.networks.unet import convolution
from pullback.numerics.recompute import checkpointed
from pullback.numerics.sample import sample, voxels
from pullback.numerics.smooth import antialiased
from pullback.space import Dense, Displacement, Grid, Image, Transform

COARSE = 4  # voxels between nodes of the attention's lattice
UNIT = 10.0  # voxels: lengths in tokens are of order 1


@dataclass(frozen=True, eq=False)
class PhasedAlignment(Alignment):
    """An alignment with the phases on the way from the moving to the fixed image.

    `transforms` hold φₜ for t = 1 … n − 1, from the world of the image at t/n of the way to the moving one, as
    `phase_1` and so on; `transform` is φₙ.

    Attributes:
        whole: Φ, of which the phases are parts before attention bends them.
    """

    whole: Transform | None = None


class Decomposed(Network):
    """A register of the two ends of a series, that knows the way between them.

    It needs the two images alone, and answers with all phases, whatever series it learned from.

    Args:
        ndim: 2 or 3.
        phases: n, from the first after the moving image to the fixed one.
        features: of the moving image in the attention's tokens; 0 for the fields alone.
        width, heads: of the attention, which is left out without heads.
        transform: `Displacement`, of which the phases are shares, as in the paper, or `Velocity`.
        encoder, decoder: as of `VoxelMorph`.
        channels: of one image.

    Raises:
        InputError: no phases, or a width that heads do not divide.
    """

    def __init__(
        self,
        ndim: int,
        phases: int = 5,
        features: int = 16,
        width: int = 24,
        heads: int = 2,
        transform: Callable[[Tensor, Grid], Dense] = Displacement,
        encoder: tuple[int, ...] = ENCODER,
        decoder: tuple[int, ...] = VOXELMORPH_2,
        channels: int = 1,
    ) -> None:
        super().__init__()
        if phases < 1 or features < 0 or heads < 0 or (heads and width % heads):
            raise InputError(
                f"Decomposed: phases from 1, features and heads from 0 and a width that heads divide expected, got "
                f"{phases}, {features}, {heads} and {width}"
            )
        self.phases, self.transform = phases, transform
        self.unet = UNet(ndim, 2 * channels, encoder, decoder)
        self.head = FieldHead(ndim, self.unet.channels_out, transform)
        self.look = convolution(ndim, channels, features, 3, padding=1) if features and heads else None
        self.across = AcrossPhases(ndim, features, width, heads) if heads else None

    def forward(self, fixed: Image, moving: Image) -> PhasedAlignment:
        """Return the way between two images, fixed → moving."""
        seen = together(fixed, moving)
        whole = cast(Dense, self.head(self.unet(seen), fixed, moving).transform)
        with torch.autocast(fixed.data.device.type, enabled=False):  # bfloat16 would round fields
            fields = [(t / self.phases) * whole.field for t in range(1, self.phases + 1)]
            if self.across is not None:
                moved = seen[:, seen.shape[1] // 2 :]
                fields = self._bent(fields, moved, fixed.grid)
            *between, last = (self.transform(field, fixed.grid) for field in fields)
        phases = {f"{PHASE}{t}": phase for t, phase in enumerate(between, 1)}
        return PhasedAlignment(Pair(fixed, moving), last, transforms=phases, whole=whole)

    def _bent(self, fields: list[Tensor], moving: Tensor, grid: Grid) -> list[Tensor]:
        """Return fields `(B, d, …)` after attention over them, for the moving image `(B, C, …)` on the same grid."""
        assert self.across is not None
        tokens = self.tokens([self.transform(field, grid).own_displacement for field in fields], moving)
        batch, _, _, *lattice = tokens.shape
        # (B, n, k, *lattice) to (B · nodes, n, k), and back
        rows = tokens.flatten(3).permute(0, 3, 1, 2).flatten(0, 1)
        off = self.across(rows).unflatten(0, (batch, -1)).permute(2, 0, 3, 1).unflatten(3, lattice)
        return [field + resized(each, grid.shape) for field, each in zip(fields, off, strict=True)]

    def tokens(self, displacements: list[Tensor], moving: Tensor) -> Tensor:
        """Return tokens `(B, n, d + features + 1, *lattice)` for displacements `(B, d, …)` of each phase.

        The lattice has its first and last nodes on the first and last voxels, and about a quarter of these between.
        """
        shape = tuple(moving.shape[2:])
        lattice = tuple(max(2, -(-n // COARSE)) for n in shape)
        ratio = moving.new_tensor([(n - 1) / (m - 1) for n, m in zip(shape, lattice, strict=True)])
        ratio = ratio.view(-1, *[1] * len(lattice))  # voxels from node to node
        here = ratio * voxels(lattice, moving)
        if self.look is not None:
            features = F.leaky_relu(self.look(resized(antialiased(moving, ratio.flatten().tolist()), lattice)), 0.2)
        tokens = []
        for t, displacement in enumerate(displacements, 1):
            u = resized(displacement, lattice)
            known = [u / UNIT, torch.full_like(u[:, :1], t / len(displacements))]
            if self.look is not None:
                known.insert(1, sample(features, (here + u) / ratio, padding="border"))
            tokens.append(torch.cat(known, 1))
        return torch.stack(tokens, 1)


def resized(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return values `(B, C, *spatial)` interpolated linearly on a lattice of `shape` with the same corners."""
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return F.interpolate(values, size=tuple(shape), mode=mode, align_corners=True)


@dataclass(frozen=True)
class AlongTheWay:
    """The supervision by an energy of each phase, against the images between where the pair has some (eq. 2).

    Similarities of all phases add up; regularity is a mean over Φ and φₙ. On a pair without images between it is the
    energy of the last phase alone: plain unsupervised learning. Of a series of a multiple of n phases, every so
    many images are seen.

    Attributes:
        energy: a sum of similarities and weighted regularities.
        frugal: computes each phase again for the gradient, which takes less memory and more time.
    """

    energy: Energy = LNCC(9) + 1.0 * Diffusion()
    frugal: bool = False

    def __call__(
        self, register: Callable[[Image, Image], Registered], pair: Pair, progress: float
    ) -> dict[str, Tensor]:
        """Return the terms of the energy by name.

        Raises:
            TypeError: an answer without a way, as that of any other network.
            InputError: a series of a number of phases that is no multiple of the network's.
        """
        answer = register(pair.fixed, pair.moving)
        if not isinstance(answer, PhasedAlignment) or answer.whole is None:
            raise TypeError(f"AlongTheWay: a network that answers with a way expected, as Decomposed, got {answer!r}")
        alike = Sum(tuple(part for part in parts(self.energy) if not is_regularity(part)))
        smooth = Sum(tuple(part for part in parts(self.energy) if is_regularity(part)))
        total: dict[str, Tensor] = {}
        for image, phase in met(pair, answer):
            for name, value in self._terms(alike, Pair(image, pair.moving), phase).items():
                total[name] = total[name] + value if name in total else value
        for transform in (answer.transform, answer.whole):
            for name, value in smooth.terms(Alignment(pair, transform)).items():
                total[name] = total[name] + value / 2 if name in total else value / 2
        return total

    def _terms(self, energy: Energy, pair: Pair, phase: Transform) -> dict[str, Tensor]:
        if not self.frugal:
            return energy.terms(Alignment(pair, phase))
        names: list[str] = []

        def values(*params: Tensor) -> Tensor:
            terms = energy.terms(Alignment(pair, phase.with_params(*params)))
            names[:] = terms
            return torch.stack([*terms.values()])

        found = checkpointed(values, *phase.params)
        return dict(zip(names, found, strict=True))


def met(pair: Pair, answer: PhasedAlignment) -> list[tuple[Image, Transform]]:
    """Return the images that phases of a way are held against, each with its phase; the fixed image, with φₙ, is last.

    Raises:
        InputError: a series of a number of phases that is no multiple of theirs.
    """
    phases, between = (*answer.on_the_way, answer.transform), pair.between
    if between is None:
        return [(pair.fixed, phases[-1])]
    given, n = len(between) + 1, len(phases)
    if given % n:
        raise InputError(
            f"{pair.name or 'a pair'}: a series of {given} phases is no multiple of the network's {n}: give it "
            f"{n - 1} images between, or {2 * n - 1}, …, or train with network.phases={given}"
        )
    frames = [between.frames[t * given // n - 1] for t in range(1, n)]
    return [*zip(frames, phases[:-1], strict=True), (pair.fixed, phases[-1])]


METHOD = Method(
    about="one field in the phases of a series, with attention over them; knows the way between two images",
    aligns=("pair",),
    trained=True,
    keys=("decomposed-fields", "decomposed-linear", "decomposed-velocity"),
    papers=(
        Paper(
            "zou2022deformable",
            "Zou, Jing and Liu, Jia and Choi, Kup-Sze and Qin, Jing",
            "Deformable Lung CT Registration by Decomposing Large Deformation",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
        Paper(
            "zou2023intrapatient",
            "Zou, Jing and Liu, Jia and Choi, Kup-Sze and Qin, Jing",
            "Intra-Patient Lung CT Registration through Large Deformation Decomposition and Attention-Guided "
            "Refinement",
            "Bioengineering",
            2023,
            "10.3390/bioengineering10050562",
            "article",
            "10",
            "562",
        ),
    ),
)
