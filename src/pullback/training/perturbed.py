"""Pairs in a random pose, with their truth: the moving image is turned and shifted by a known distance."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Pair, stacked
from pullback.data.synthesis import ContrastChange
from pullback.errors import InputError
from pullback.numerics.rotation import of_euler
from pullback.space import Affine, Grid, Image, block_middles, mean_distance, outline, push
from pullback.training.augment import seen_through

TRIES = 50  # draws of a direction until enough of the image stays in view
SOLVED = 1e-4  # of the distance


@dataclass(frozen=True)
class RandomPose:
    """A generator of rigid maps about the middle of a grid, whose mean distance from the identity over it is uniform.

    The angles about each axis in turn and the shifts along each are drawn uniformly within limits; all of them are then
    scaled by one factor until the mean distance is one that was drawn from 0 to `most` (Attention-Reg, the code of the
    authors of the transformed grid distance). So the limits say how turns and shifts stand to each other.

    Attributes:
        most: largest mean distance over the grid, mm.
        degrees: limit of each angle.
        shift: limit along each axis, mm.
        overlap: share of the grid that stays within it; other directions are drawn until it does.

    Raises:
        InputError: a limit below 0, nothing that moves, or a share that is none.
    """

    most: float = 25.0
    degrees: float = 5.0
    shift: float = 6.0
    overlap: float = 0.25

    def __post_init__(self) -> None:
        limits = self.most, self.degrees, self.shift
        if not all(0 <= limit < math.inf for limit in limits) or not (self.degrees or self.shift):
            raise InputError(f"RandomPose: limits of 0 or more, of which one moves, expected, got {limits}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"RandomPose: an overlap from 0 to below 1 expected, got {self.overlap}")

    def __call__(self, grid: Grid, generator: torch.Generator) -> Affine:
        """Draw a map, RAS mm to RAS mm.

        Raises:
            InputError: maps of that distance leave too little of the grid within it.
        """
        points = block_middles(grid)
        wanted = self.most * float(torch.rand((), generator=generator, dtype=torch.float64))
        for _ in range(TRIES):
            found = self._scaled(grid, points, wanted, generator)
            if found is not None and float(grid.holds(found.at(points.mT), 0.5).double().mean()) >= self.overlap:
                return found
        raise InputError(
            f"RandomPose: poses {wanted:.1f} mm off leave less than {self.overlap:.0%} of an image of "
            f"{tuple(round(x) for x in (grid.spacing * torch.tensor(grid.shape)).tolist())} mm in view; lower most or "
            f"overlap"
        )

    def _scaled(self, grid: Grid, points: Tensor, wanted: float, generator: torch.Generator) -> Affine | None:
        d, still = grid.ndim, Affine.identity(grid.ndim)
        turns = 1 if d == 2 else d
        drawn = 2 * torch.rand(turns + d, generator=generator, dtype=torch.float64) - 1
        angles, shift = math.radians(self.degrees) * drawn[:turns], self.shift * drawn[turns:]

        def pose(scale: float) -> Affine:
            return Affine.about(of_euler(scale * angles[None])[0], grid.centre, grid.centre + scale * shift)

        scale = 1.0
        for _ in range(TRIES):  # the distance is nearly proportional to the factor
            found = pose(scale)
            apart = float(mean_distance(found, still, points))
            if abs(apart - wanted) <= SOLVED * wanted:
                return found
            scale *= wanted / apart
        return None


@dataclass(frozen=True)
class Perturbed:
    """An augmentation of pairs by a random pose of the moving image; the truth follows.

    It also makes pairs for `data.Synthetic`. The pose is that of the fixed points: without another motion, the truth is
    the map that was drawn.

    Attributes:
        pose: the generator of the maps.
        alone: the moving image is the fixed one in its pose, so that the truth is known of any image; else the pair's
            own truth is followed by the pose.
        surface: points of the surface of the fixed labels that the pair gets, with where they truly go; 0 for none.
        jitter: how far the fixed image is shifted along each axis, at most, voxels; it is resampled as the moving one
            is, which could else be told by its blur. Only of an image and itself.
        gamma: intensities of the moving image, 0 … 1, are raised to a power between 1/gamma and gamma.
        margin: share of its length up to which either image becomes 0 from either end of each axis, drawn for each. A
            moving image is 0 where it comes from beyond its field of view, whose end would else tell the pose.

    Raises:
        InputError: a negative number, a gamma below 1, or margins that leave nothing.
    """

    pose: RandomPose = RandomPose()
    alone: bool = True
    surface: int = 0
    jitter: float = 0.5
    gamma: float = 1.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if min(self.surface, self.jitter, self.margin) < 0 or self.margin >= 0.5 or not 1 <= self.gamma < math.inf:
            raise InputError(
                f"Perturbed: a surface and a jitter of 0 or more, a gamma of 1 or more and a margin below 0.5 "
                f"expected, got {self.surface}, {self.jitter}, {self.gamma} and {self.margin}"
            )

    @torch.no_grad()
    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Return the pair in a pose that is drawn, without its labels; of a batch each pair in its own.

        Raises:
            InputError: the pair's truth is not known, unless it is of an image alone; or as of `RandomPose`.
        """
        if pair.batch > 1:
            return stacked([self(pair.nth(n), generator) for n in range(pair.batch)])
        grid, d = pair.fixed.grid, pair.fixed.grid.ndim
        pose, seen = self.pose(grid, generator), pair
        offset = torch.eye(d + 1, dtype=torch.float64)
        if self.alone:
            seen = Pair(pair.fixed, pair.fixed, truth=Affine.identity(d), name=pair.name)
            drawn = 2 * torch.rand(d, generator=generator, dtype=torch.float64) - 1
            offset[:-1, -1] = grid.affine[:-1, :-1] @ (self.jitter * drawn)
        elif pair.truth is None:
            raise InputError(f"{pair.name or 'a pair'}: its truth is not known; perturb images alone, or make it known")
        if self.surface and pair.fixed_labels is not None:
            points = outline(pair.fixed_labels, self.surface)
            assert seen.truth is not None
            seen = replace(seen, fixed_points=points, moving_points=push(points, seen.truth))
        seen = seen_through(seen, Affine(offset), Affine(offset @ pose.inverse().matrix))
        power = self.gamma ** (2 * float(torch.rand((), generator=generator, dtype=torch.float64)) - 1)
        data = seen.moving.data if self.gamma == 1 else ContrastChange(power, 0.0)(seen.moving.data)
        seen = replace(seen, moving=replace(seen.moving, data=data))
        if not self.margin:
            return seen
        fixed, moving = (_hidden(image, self.margin, generator) for image in seen.images)
        return replace(seen, fixed=fixed, moving=moving)


def _hidden(image: Image, share: float, generator: torch.Generator) -> Image:
    """Set the image to 0 from either end of each axis, up to a share of its length."""
    data = image.data.clone()
    for axis, n in enumerate(image.grid.shape, start=2):
        first, last = (share * n * torch.rand(2, generator=generator, dtype=torch.float64)).long().tolist()
        data.narrow(axis, 0, first).zero_()
        data.narrow(axis, n - last, last).zero_()
    return replace(image, data=data)
