"""Plain realignment: the frames of a series onto their mean by rigid motions."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.numerics.smooth import gaussian
from pullback.solvers.levenberg import Curved, Levenberg
from pullback.solvers.realigned import FramesShown, Realigned, unshown
from pullback.solvers.seen_rigidly import Places, scored, seen_at, with_slopes
from pullback.space import Affine, Image, Motion, Series
from pullback.stats import Stats

FLAT = 1e-5
"""Slopes per voxel, as a share of the greatest intensity, that are rounding."""


@dataclass(frozen=True)
class Realign:
    """Rigid realignment of a series onto its own mean (as Friston et al. 1995, Jenkinson et al. 2002), pass by pass.

    In each pass the mean of the frames as they lie so far is brought onto every frame, and not the frame onto the mean:
    what is interpolated is smooth and nearly free of noise, and the noise of a frame stays where it is. The correlation
    over the voxels with the steepest slopes is raised by damped Gauss–Newton steps. Frames are read one at a time.

    Attributes:
        smoothing: σ of the Gaussian over the mean, in its smallest voxel edges; one for each pass.
        scaled: whether gain and offset of each frame are free: the correlation, squared. Without, intensities are
            compared as they are, by their mean squared difference.
        most: voxels that are compared.
        solver: whose steps are in mm, at the edge of the image for turns.

    Raises:
        InputError: no pass, or fewer voxels than a motion needs.
    """

    smoothing: tuple[float, ...] = (2.0, 1.0, 0.5)
    scaled: bool = True
    most: int = 30_000
    solver: Levenberg = Levenberg()

    def __post_init__(self) -> None:
        if not self.smoothing or self.most < 100:
            raise InputError(f"Realign: one pass and 100 voxels or more expected, got {self.smoothing} and {self.most}")

    @torch.no_grad()
    def __call__(self, series: Series, shown: FramesShown = unshown) -> Realigned:
        """Find where each frame lies.

        Args:
            series: two frames or more, of one channel.
            shown: tells progress.

        Raises:
            InputError: one frame alone, or frames of one intensity.
        """
        if len(series) < 2:
            raise InputError(f"realign: two frames or more expected, got {len(series)}; one frame has nothing to meet")
        motion = Motion.rigid(Affine.identity(series.grid.ndim), series.grid)
        start = motion.coefficients.new_zeros(len(series), motion.coefficients.shape[-1])
        found, stats = motion.with_params(start), Stats()
        for n, sigma in enumerate(self.smoothing):
            mean = Realigned(series, found).mean("linear", shown, f"mean {n + 1}", self.scaled)
            found, descent = self._onto(series, _smooth(mean, sigma), found, shown, f"pass {n + 1}")
            stats = stats.then(descent)
        return Realigned(series, found, stats)

    def _onto(self, series: Series, mean: Image, motion: Motion, shown: FramesShown, what: str) -> tuple[Motion, Stats]:
        """Bring a mean onto each frame, from where that lies so far."""
        known = with_slopes(mean)
        chosen = _steepest(known, self.most)
        places = Places.of(series.grid.to_world(chosen[None])[0], motion.centre, mean.data)
        coefficients, stats = motion.coefficients.clone(), Stats()
        for n in shown(range(len(series)), what):
            values = series.frames[n].data[0, 0][tuple(chosen.long())][None]  # (1, N)
            solved, descent = self.solver(
                lambda c, values=values: _misfit(known, motion.with_params(c), places, values, self.scaled),  # type: ignore[misc]
                coefficients[n : n + 1],
            )
            coefficients[n] = solved[0]
            stats = stats.then(descent)
        return motion.with_params(coefficients), stats


def _smooth(image: Image, sigma: float) -> Image:
    """Smooth by `sigma` of the smallest voxel edges."""
    widths = sigma * image.grid.spacing.min() / image.grid.spacing
    return replace(image, data=gaussian(image.data, widths.tolist()))


def _steepest(known: Image, most: int) -> Tensor:
    """Return the voxels of the steepest slopes, but for the outermost, `(d, N)` float64.

    Raises:
        InputError: the image is of one intensity.
    """
    steep = known.data[0, 1:].square().sum(0)
    inner = torch.zeros_like(steep)
    inner[tuple(slice(1, -1) if n > 4 else slice(None) for n in steep.shape)] = 1
    steep = (steep * inner).flatten()
    flat = FLAT * float(known.data[:, 0].abs().max() / known.grid.spacing.min())
    count = min(most, int((steep > flat**2).sum()))
    if not count:
        raise InputError(
            "realign: the mean of the frames is of one intensity everywhere, so nothing tells their motion"
        )
    order = steep.topk(count).indices.sort().values
    return torch.stack(torch.unravel_index(order, known.grid.shape)).double()


def _misfit(known: Image, motion: Motion, places: Places, y: Tensor, scaled: bool) -> Curved:
    """Return how unlike frames `y` `(B, N)` and the moved image are, as a share of each frame's variance, and slopes.

    Gain and offset, where they are free, are those that fit best at each motion; by the method of variable projection
    (Golub and Pereyra 1973, as Kaufman has it) the products are freed of what these could do.
    """
    seen, inside = seen_at(known, motion, places)
    weight = inside.to(y)
    total = (weight * (y - _mean(y, weight)).square()).sum(1).clamp(min=torch.finfo(y.dtype).tiny)
    products = places.products(seen[:, 1:])
    signal = seen[:, 0]
    if scaled:
        basis = torch.stack([torch.ones_like(signal), signal - _mean(signal, weight)], 1)  # (B, 2, N)
        weighted = basis * weight[:, None]
        gram = (weighted * basis).sum(2).clamp(min=torch.finfo(y.dtype).tiny)  # orthogonal, as one is centred
        fit = (weighted @ y[..., None])[..., 0] / gram
        left = y - (fit[:, None] @ basis)[:, 0]
        products = fit[:, 1, None, None] * (products - ((products @ weighted.mT) / gram[:, None]) @ basis)
    else:
        left = y - signal
    slope, curvature = scored(places.rows(motion), products, weight * left, weight)
    value = (weight * left.square()).double().sum(1) / 2
    return value / total, slope / total[:, None], curvature / total[:, None, None]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
