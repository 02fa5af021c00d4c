"""Breathing chests: textures that move as real lungs did, with their mass preserved, and with what moved them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.case import LOADED, Singles, Test, Validation
from pullback.data.lung_matches import people_in
from pullback.data.phantoms.lung_motion import Matches, in_the_scan, scan_grid
from pullback.data.splits import check_splits, draw_splits, known_as, too_few
from pullback.errors import InputError
from pullback.numerics.difference import determinant
from pullback.numerics.random import drawn_number, make_generator
from pullback.numerics.smooth import smooth_noise
from pullback.space import Displacement, Grid, Image, Labels, Points, Series, Transform, pull, push

TISSUE, MOTTLE = 0.12, (0.15, 14.0)  # intensity of tissue; share and σ in mm by which it varies
VESSELS = ((49.0, 10.5, 1.0), (31.5, 6.3, 0.9), (21.0, 3.9, 0.8), (14.0, 2.8, 0.6))  # σ of the curve, radius (mm); peak
NEAR = 17.5  # mm about a match that are lung
PLANES = (0.3, 0.7)  # share of the matches that lie behind a coronal plane, from the first to the last
STEP = 1e-3  # voxels


@dataclass(frozen=True)
class Breathing:
    """A set of chests at inhale (moving) and exhale (fixed), and in phases between; people are in one split each.

    The motion φ of an example, fixed → moving, is that of a real patient's lungs, the smoothing spline of automatic
    matches (`LungMotion`): 30 of them are public. The moving image shows a texture T, tissue with vessels as smooth
    random tubes, the fixed image T(φ(x)) · det ∇φ(x): mass is preserved, so exhale is the denser one, as in CT. Each
    image has noise of its own. Nothing is interpolated but the texture, by cubic splines; the truth is exact at every
    point, and so are those of the phases, `Pair.between.truths`, each from its own grid to the moving one; of straight
    tissue at each voxel.

    In 2-D images are coronal planes, and the motion is that within the plane. A plane through vessels shows spots.

    Label 1 is lung, within 17.5 mm of a match. Points are drawn in the lungs, and pushed by the truth.

    Attributes:
        root: the folder of the matches, or "" until one is given.
        shape: voxels of images, over the same field of view whatever it is: 336 × 240 × 364 mm, or 336 × 364 mm.
        fine: images are means of this many finer voxels along each axis.
        phases: n, from the first after the moving image to the fixed one; images between are n − 1.
        textures: examples of each person, with other textures, and in 2-D other planes.
        bend: size of the hysteresis, as a share of the motion. Below 0, it is that of the other half of a breath.
        straight: tissue runs straight from moving to fixed, without hysteresis, as in `LungMotion`.
        noise: standard deviation; the brightest vessels are near 1.
        points: of each pair.
        match_error: standard deviation along each axis of the moving points, of examples for training alone, mm.
        masked: the lungs at exhale are the mask of the fixed image.
        validation_split, test_split: names of people, or shares, as in `PairFolder`.
        seed: of everything that is drawn.

    Raises:
        InputError: numbers that cannot be.
    """

    root: str = ""
    shape: tuple[int, ...] = (96, 96, 104)
    fine: int = 1
    phases: int = 1
    textures: int = 4
    bend: float = 0.2
    straight: bool = False
    noise: float = 0.03
    points: int = 300
    match_error: float = 0.0
    masked: bool = False
    validation_split: tuple[str, ...] | float = 0.1
    test_split: tuple[str, ...] | float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 8:
            raise InputError(f"Breathing: a shape of 2 or 3 axes of 8 voxels or more expected, got {self.shape}")
        counts = self.fine, self.phases, self.textures, self.points
        if min(counts) < 1 or min(self.noise, self.match_error) < 0:
            raise InputError(
                f"Breathing: fine, phases, textures and points from 1, and noise and match_error from 0 expected, got "
                f"{', '.join(map(str, counts))}, {self.noise:g} and {self.match_error:g}"
            )

    @property
    def grid(self) -> Grid:
        """The grid of all images."""
        return scan_grid(self.shape)

    @property
    def people(self) -> tuple[str, ...]:
        """Return the names of all people, sorted."""
        return people_in(self.root)

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Singles:
        return Singles(self._cases("train"), of=self)

    @property
    def validation(self) -> Validation:
        return Validation.singles(self._cases("validation"))

    @property
    def test(self) -> Test:
        return Test.singles(self._cases("test"))

    @cached_property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        names = {name: name for name in self.people}
        test, validation = (known_as(split, names, self.root) for split in (self.test_split, self.validation_split))
        check_splits(test, validation, self.root)
        return draw_splits(names, test, validation, self.seed, least=1)

    def _cases(self, split: str) -> tuple["BreathingCase", ...]:
        if not self._groups[split]:
            raise too_few(self._groups, 1, self.root)
        ways = [(person, texture) for person in self._groups[split] for texture in range(self.textures)]
        return tuple(BreathingCase(self, *way, learnt=split == "train") for way in ways)


@dataclass(frozen=True)
class BreathingCase:
    """A case that is one person's chest with one texture: a pair by itself. `learnt` ones have erring points."""

    data: Breathing
    person: str
    texture: int
    learnt: bool = False

    @property
    def name(self) -> str:
        return self.person

    def load(self) -> Pair:
        return LOADED.get(self, lambda: _made(self))


def _made(case: BreathingCase) -> Pair:
    """Return the pair of a case: images first, then points, of one generator."""
    data, grid = case.data, case.data.grid
    generator = make_generator(data.seed, int(2**31 * drawn_number(0, case.person)), case.texture)
    matches = Matches.of(data.root, case.person)
    low, high = PLANES
    plane = float(matches.exhale[:, 1].quantile(low + (high - low) * (case.texture + 0.5) / data.textures))
    motion = matches.motion(grid.ndim, plane, data.bend, data.straight, data.phases)
    parts = torch.arange(1, data.phases + 1, dtype=torch.float64) / data.phases
    truths = [motion.phase(part) for part in parts.tolist()]
    moving, *between, fixed = _images(data, truths, generator)
    truth, way = truths[-1], truths[:-1]
    if data.straight:  # an inverse is sought at each point, each time it is asked for
        way = [Displacement(each.displacement(grid), grid) for each in way]
    lungs = _lungs(matches, plane, grid)
    fixed_lungs = pull(lungs, truth, onto=grid)
    points = _points(fixed_lungs, data.points, generator)
    matched = push(points, truth)
    if case.learnt:
        off = data.match_error * torch.randn(matched.data.shape, generator=generator, dtype=torch.float64)
        matched = replace(matched, data=matched.data + off)
    if data.masked:
        fixed = replace(fixed, mask=fixed_lungs.data > 0)
    return Pair(
        fixed,
        moving,
        fixed_lungs,
        lungs,
        points,
        matched,
        truth,
        name=f"{case.person} {case.texture}",
        between=Series(tuple(between), grid, parts[:-1], "", tuple(way)) if between else None,
    )


def _images(data: Breathing, truths: Sequence[Transform], generator: torch.Generator) -> list[Image]:
    """Return the moving image, then one through each transform."""
    fine = scan_grid([n * data.fine for n in data.shape])
    reach = [_reach(truth, fine) for truth in truths]
    margins = tuple(max(far) for far in zip(*reach, strict=True))
    texture = _texture(fine.padded(margins), generator)
    inner = tuple(slice(m, m + n) for m, n in zip(margins, fine.shape, strict=True))
    values = [texture.data[(slice(None), slice(None), *inner)]]
    values += [pull(texture, truth, onto=fine, mode="cubic").data * volume(truth, fine) for truth in truths]
    pool = F.avg_pool2d if fine.ndim == 2 else F.avg_pool3d
    means = [pool(each, data.fine) for each in values]
    return [Image(mean + data.noise * torch.randn(mean.shape, generator=generator), data.grid) for mean in means]


def _lungs(matches: Matches, plane: float, grid: Grid) -> Labels:
    """Return where the lungs are at inhale."""
    where = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])[0]
    from scipy.spatial import cKDTree  # noqa: PLC0415 (slow to import, and few need it)

    away, _ = cKDTree(matches.inhale.numpy()).query(
        in_the_scan(where.flatten(1).mT, plane).numpy(), distance_upper_bound=NEAR
    )
    inside = torch.from_numpy(away < math.inf).to(torch.uint8).view(1, 1, *grid.shape)
    if not inside.any():
        raise InputError(f"{matches.person}: no lung is in view; are the matches in voxels of the scan?")
    return Labels(inside, grid)


def _points(lungs: Labels, count: int, generator: torch.Generator) -> Points:
    """Draw points within voxels of the lungs."""
    inside = lungs.data[0, 0].nonzero().double()
    chosen = inside[torch.randint(len(inside), (count,), generator=generator)]
    chosen = chosen + torch.rand(chosen.shape, generator=generator, dtype=torch.float64) - 0.5
    return Points(lungs.grid.to_world(chosen.mT[None]).mT)


def volume(transform: Transform, grid: Grid) -> Tensor:
    """Return det ∇φ at the voxels of a grid, `(B, 1, *grid.shape)`, by differences over a 500th of a voxel."""
    columns = []
    for axis in range(grid.ndim):
        ends = []
        for side in (STEP, -STEP):
            affine = grid.affine.clone()
            affine[:-1, -1] += side * affine[:-1, axis]
            ends.append(transform.displacement(Grid(grid.shape, affine)))
        columns.append((ends[0] - ends[1]) / (2 * STEP))
    slopes = torch.stack(columns, 2)  # (B, d, d, …)
    still = torch.eye(grid.ndim).to(slopes).view(1, grid.ndim, grid.ndim, *[1] * grid.ndim)
    return determinant(slopes + still).to(torch.float32)


def _reach(transform: Transform, grid: Grid) -> list[int]:
    """Return how many voxels beyond a grid its voxels are led along each axis, and two more for the spline."""
    there = grid.voxels(transform.params[0]) + transform.displacement(grid)[0]
    last = there.new_tensor(grid.shape).view(-1, *[1] * grid.ndim) - 1
    return (torch.maximum(-there, there - last).flatten(1).amax(1).clamp(min=0).ceil().long() + 2).tolist()


def _texture(grid: Grid, generator: torch.Generator) -> Image:
    """Return tissue with vessels, `(1, 1, *grid.shape)`.

    g and the two g of each kind of vessel are smooth noise of unit variance. A vessel of radius r runs along the
    curve where both of its own are 0: they fall by about 1/σ per mm beside it, so that it is as bright as
    exp(−(g₁² + g₂²) σ²/r²). A plane of such noise in space is such noise in the plane.
    """
    like, spacing = torch.zeros(()), grid.spacing

    def noise(sigma: float) -> Tensor:
        return smooth_noise((1, 1, *grid.shape), (sigma / spacing).tolist(), generator, like)

    share, width = MOTTLE
    vessels = torch.zeros(1, 1, *grid.shape)
    for sigma, radius, peak in VESSELS:
        off = noise(sigma).square() + noise(sigma).square()
        vessels = torch.maximum(vessels, peak * torch.exp(-off * (sigma / radius) ** 2))
    return Image(TISSUE * (1 + share * noise(width)) + vessels, grid)
