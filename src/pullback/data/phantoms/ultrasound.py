"""Ultrasound videos of a vein that is compressed beside an artery: speckle that moves with tissue, with its truth."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from pullback.data.case import Subject, Test, Train, Validation
from pullback.data.frames import FramePairs
from pullback.data.phantoms.speckle import FINE, envelope
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.numerics.sample import sample
from pullback.space import Affine, Grid, Image, Labels, Transform, Velocity

SPACING = 0.3  # mm
SIDE = 128  # voxels along the sides of the images that the lengths below are given for
DECIBELS = 60.0  # range of the images
TISSUE, WALL, LUMEN = (-14.0, -4.0), 0.0, -40.0  # echo of layers and vessels, dB
LAYERS = 5
WALL_WIDTH = 1.5  # voxels
COLLAPSE = (1.3, 0.15)  # a vein's width and height by those at rest, fully compressed
PULSE = 0.05  # of the artery's radius
DEEPER = 1.5  # how far there is tissue, in depths of the image
VEIN, ARTERY = 1, 2


@dataclass(frozen=True)
class Compressions:
    """Videos of ultrasound across a vein and an artery, as a probe compresses the leg: a test for thrombosis.

    A frame shows material through ψ: tissue shrinks towards the probe, all of it drifts sideways, the vein collapses by
    the exponential of a velocity that fades out at two of its radii, and the artery pulsates. Scatterers are complex
    Gaussian noise times the material's echo, and move with it; the image is the logarithm of the envelope of their sum
    under a Gaussian point spread with a carrier, over 60 dB from 0 to 1. A share of the scatterers that grows with the
    compression is drawn anew for each frame. Labels: 1 the vein, 2 the artery. The first axis lies across the beam, the
    second along it. Between two frames of a video the true transform is known.

    Attributes:
        side: voxels of 0.3 mm along both axes; lengths are as many 128ths of it as they are voxels of 128.
        frames: of each video; the probe rests in the first fifth.
        train_videos, validation_videos, test_videos: number of videos in each split.
        pairing: the pairs for training; test pairs are of each video's reference and every frame after it.
        at_once: pairs of one example for training.
        decorrelation: share of the scatterers that is new at full compression.
        synthetic: as in `PairFolder`: makes validation and test pairs from the first frames of the videos, which are
            also what is learned from.
        seed: of all draws.

    Raises:
        InputError: fewer than 32 voxels or 10 frames, no video for a split, or a share that is none.
    """

    side: int = SIDE
    frames: int = 40
    train_videos: int = 40
    validation_videos: int = 4
    test_videos: int = 10
    pairing: FramePairs = FramePairs()
    at_once: int = 1
    decorrelation: float = 0.1
    synthetic: Synthetic | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        videos = self.train_videos, self.validation_videos, self.test_videos
        if self.side < 32 or self.frames < 10 or min(*videos, self.at_once) < 1 or not 0 <= self.decorrelation <= 1:
            raise InputError(
                f"Compressions: 32 voxels or more, 10 frames or more, a video or more for each split, a pair or more "
                f"for an example and a share from 0 to 1 expected, got {self.side}, {self.frames}, {videos}, "
                f"{self.at_once} and {self.decorrelation}"
            )

    @property
    def centred(self) -> bool:
        return False

    def video(self, number: int) -> tuple["FrameCase", ...]:
        """Return the frames of a video, of those for test, validation and training, in this order."""
        return tuple(
            FrameCase(self.side, self.frames, self.decorrelation, self.seed, number, n) for n in range(self.frames)
        )

    def _cases(self, first: int, count: int) -> list["FrameCase"]:
        videos = [self.video(number) for number in range(first, first + count)]
        return [frame for video in videos for frame in (video if self.synthetic is None else video[:1])]

    @property
    def train(self) -> Train:
        cases = self._cases(self.test_videos + self.validation_videos, self.train_videos)
        return Train(
            cases,
            pairs=[(case, case) for case in cases] if self.synthetic else self.pairing.of(cases),
            at_once=self.at_once,
        )

    @property
    def validation(self) -> Validation:
        cases = self._cases(self.test_videos, self.validation_videos)
        if self.synthetic is not None:
            return self.synthetic.listed(Validation, cases)
        return Validation(self.pairing.straight.of(cases)).some(40)

    @property
    def test(self) -> Test:
        cases = self._cases(0, self.test_videos)
        if self.synthetic is not None:
            return self.synthetic.listed(Test, cases)
        return Test(self.pairing.straight.of(cases))


@dataclass(frozen=True)
class FrameCase:
    """A case that is one frame of a video."""

    side: int
    frames: int
    decorrelation: float
    seed: int
    video: int
    frame: int

    @property
    def name(self) -> str:
        return f"sub-{self.video:04d}/frame-{self.frame:03d}"

    def load(self) -> Subject:
        return _made(self)


@lru_cache(maxsize=2048)
def _made(case: FrameCase) -> Subject:
    film = film_of(case.side, case.seed, case.video)
    pose = film.pose(case.frame / (case.frames - 1))
    fresh = case.decorrelation * film.compression(case.frame / (case.frames - 1))
    data = film.image(pose, fresh, case.frame)
    return Subject(Image(data, film.grid), Labels(film.labels(pose), film.grid), pose, name=case.name)


@lru_cache(maxsize=256)
def film_of(side: int, seed: int, number: int) -> "Film":
    """Return what a video shows."""
    return Film(side, seed, number)


@dataclass(frozen=True)
class Film:
    """The tissue of a video and its motion, drawn by `seed` and `number`. Lengths are voxels of the frames."""

    side: int
    seed: int
    number: int

    @cached_property
    def grid(self) -> Grid:
        """The grid of the frames, voxels of 0.3 mm."""
        return Grid.centred((self.side, self.side), SPACING)

    @cached_property
    def drawn(self) -> dict[str, float]:
        """All that is drawn of the video, by name: each uniformly between its limits."""
        generator = make_generator(self.seed, self.number, 0)
        unit = self.side / SIDE
        limits = {
            "vein x": (44 * unit, 54 * unit),
            "vein y": (52 * unit, 68 * unit),
            "vein width": (10 * unit, 14 * unit),
            "vein height": (8 * unit, 11 * unit),
            "apart": (30 * unit, 36 * unit),
            "artery y": (-8 * unit, 8 * unit),
            "artery radius": (7 * unit, 10 * unit),
            "side": (0.0, 1.0),
            "deepest": (0.7, 1.0),
            "shrinking": (0.05, 0.15),
            "presses": (1.0, 2.0),
            "drift": (-4 * unit, 4 * unit),
            "beats": (6.0, 10.0),
            "phase": (0.0, 2 * math.pi),
        }
        draws = torch.rand(len(limits), generator=generator, dtype=torch.float64).tolist()
        return {name: low + (high - low) * x for x, (name, (low, high)) in zip(draws, limits.items(), strict=True)}

    @cached_property
    def centres(self) -> tuple[Tensor, Tensor]:
        """The middles of vein and artery in material, `(2,)` voxels each."""
        d = self.drawn
        vein, artery = (d["vein x"], d["vein y"]), (d["vein x"] + d["apart"], d["vein y"] + d["artery y"])
        places = [torch.tensor(place, dtype=torch.float64) for place in (vein, artery)]
        if d["side"] < 0.5:
            for place in places:
                place[0] = self.side - 1 - place[0]
        return places[0], places[1]

    def compression(self, time: float) -> float:
        """Return how far the probe is pressed down at a time from 0 to 1: 0 … 1, and 0 in the first fifth."""
        pressing = max(0.0, (time - 0.2) / 0.8)
        return self.drawn["deepest"] * math.sin(math.pi * self.drawn["presses"] * pressing) ** 2

    def pose(self, time: float) -> Transform:
        """Return ψ at a time from 0 to 1: from a point of the frame to the material that it shows, both in mm."""
        d, pressed = self.drawn, self.compression(time)
        top = self.grid.to_world(torch.zeros(1, 2, 1, dtype=torch.float64))[0, :, 0]
        shift = SPACING * torch.tensor(
            [d["drift"] * math.sin(2 * math.pi * time + d["phase"]), 0.0], dtype=torch.float64
        )
        shrunk = torch.diag(torch.tensor([1.0, 1 - d["shrinking"] * pressed], dtype=torch.float64))
        probe = Affine.about(shrunk, top, top + shift)  # material, its vessels deformed, to the frame
        beat = PULSE * math.sin(2 * math.pi * d["beats"] * time)
        vessels = pressed * self._motions[0] + math.log1p(beat) * self._motions[1]
        return Velocity(-vessels, self.grid) @ probe.inverse()

    @cached_property
    def _motions(self) -> tuple[Tensor, Tensor]:
        """Velocities of collapse and of pulsation, `(1, 2, *shape)` in voxels: linear in a vessel, 0 at two radii."""
        d = self.drawn
        rates = torch.tensor(COLLAPSE, dtype=torch.float64).log()
        vein = self._about(self.centres[0], (d["vein width"], d["vein height"]), rates)
        radius = d["artery radius"]
        return vein.float(), self._about(self.centres[1], (radius, radius), torch.ones(2, dtype=torch.float64)).float()

    def _about(self, centre: Tensor, axes: tuple[float, float], rates: Tensor) -> Tensor:
        off = self.grid.voxels(centre) - centre.view(2, 1, 1)
        radius = _radius(off, axes)
        fading = 0.5 + 0.5 * torch.cos(math.pi * (radius - 1).clamp(0, 1))
        return (fading * rates.view(2, 1, 1) * off)[None]

    def labels(self, pose: Transform) -> Tensor:
        """Return the vessels in a frame, `(1, 1, *shape)` uint8."""
        inside = [radius <= 1 for radius in self._radii(_material(pose, self.grid))]
        return (VEIN * inside[0] + ARTERY * inside[1]).to(torch.uint8)[None]

    def _radii(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far material `(1, 2, …)` lies from the middles of vein and artery, in their radii, `(1, …)`."""
        d = self.drawn
        axes = (d["vein width"], d["vein height"]), (d["artery radius"], d["artery radius"])
        shape = (1, 2, *[1] * (at.ndim - 2))
        vein, artery = (
            _radius((at - c.view(shape))[0], axis)[None] for c, axis in zip(self.centres, axes, strict=True)
        )
        return vein, artery

    def echo(self, at: Tensor) -> Tensor:
        """Return how strongly material `(1, 2, …)` scatters, in dB, `(1, …)`."""
        generator = make_generator(self.seed, self.number, 1)
        levels = torch.rand(LAYERS + 1, generator=generator, dtype=torch.float64) * (TISSUE[1] - TISSUE[0]) + TISSUE[0]
        slopes = 0.2 * (torch.rand(LAYERS, generator=generator, dtype=torch.float64) - 0.5)
        total, depth = levels[0].expand_as(at[:, 0]), at[:, 1] / self.side
        for layer in range(LAYERS):
            beyond = depth - (layer + 1) * DEEPER / (LAYERS + 1) - slopes[layer] * (at[:, 0] / self.side - 0.5)
            total = total + (levels[layer + 1] - levels[layer]) * torch.sigmoid(60 * beyond)
        vein, artery = self._radii(at)
        wall = WALL_WIDTH * self.side / SIDE / self.drawn["artery radius"]
        total = torch.where((artery > 1) & (artery <= 1 + wall), WALL, total)
        return torch.where((vein <= 1) | (artery <= 1), LUMEN, total)

    def image(self, pose: Transform, fresh: float, frame: int) -> Tensor:
        """Return the image of a frame, `(1, 1, *shape)` float32 from 0 to 1."""
        at = _material(pose, self.fine)
        amplitude = 10 ** (self.echo(at) / 20)
        seen = amplitude[:, None] * self.scatterers(at, fresh, frame)
        found = 20 * envelope(seen).clamp(min=1e-9).log10()
        return (1 + (found - 6) / DECIBELS).clamp(0, 1).float()

    @cached_property
    def fine(self) -> Grid:
        """The grid on which scatterers are summed."""
        return self.grid.at_spacing(tuple((self.grid.spacing / FINE).tolist()))

    def scatterers(self, at: Tensor, fresh: float, frame: int) -> Tensor:
        """Return the scatterers at material `(1, 2, …)`, real and imaginary parts `(1, 2, …)` of unit variance.

        Args:
            fresh: share of their variance that is drawn for the frame alone.
        """
        shape = (FINE * self.side, int(FINE * DEEPER * self.side))
        drawn = []
        for index in ((2,), (3, frame)) if fresh else ((2,),):
            generator = make_generator(self.seed, self.number, *index)
            drawn.append(torch.randn(1, 2, *shape, generator=generator) / math.sqrt(2))
        mixed = drawn[0] if not fresh else math.sqrt(1 - fresh) * drawn[0] + math.sqrt(fresh) * drawn[1]
        return sample(mixed, FINE * at, "nearest", "border").double()


def _radius(off: Tensor, axes: tuple[float, float]) -> Tensor:
    return torch.stack([along / axis for along, axis in zip(off, axes, strict=True)]).norm(dim=0)


def _material(pose: Transform, grid: Grid) -> Tensor:
    """Return the material that a frame shows at the voxels of a grid, `(1, 2, *shape)` in voxels of the frame."""
    at = grid.voxels(grid.affine)[None] + pose.displacement(grid).double()
    return at * (grid.spacing / SPACING).view(1, -1, *[1] * grid.ndim)
