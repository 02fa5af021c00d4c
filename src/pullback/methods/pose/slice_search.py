"""Plates of an atlas compared with a slice by registration, without training; and where a slice lies on its plate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, seen
from pullback.data.slices import in_square
from pullback.energies import LNCC
from pullback.methods.pair.classical import FAST
from pullback.methods.pose.slice_identification import equalised
from pullback.numerics.fourier import Shifts, correlation, spectrum
from pullback.numerics.sample import sample
from pullback.numerics.smooth import gaussian
from pullback.solvers import Converged, Descend, Levels, LinearStage, Refine
from pullback.space import Affine, Grid, Image, Motion, pull

LAID = replace(
    FAST,
    initialise=None,
    linear=(
        (
            "affine",
            LinearStage(Motion.affine, LNCC(9, noise=0.1), Levels(most=30_000), Descend(60, 0.3, until=Converged())),
        ),
    ),
)
"""Lays a slice on its plate, from where a search found it: mutual information, of another preset, leads partial slices
away from there."""

SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
SEEN = 0.02  # of intensities 0 … 1, smoothed: from here on there is tissue
LEAST = 0.5  # of the pixels of a slice's tissue that must lie on the plate's square


@dataclass(frozen=True, eq=False)
class Found:
    """The best place of a slice on each of several plates, in pixels of the square.

    Attributes:
        correlation: `(P,)`, of equalised intensities over the slice's tissue.
        scale, degrees: `(P,)`, of the slice's pixels in those of the plate, and of its turn.
        shift: `(P, 2)`, from the middle of the square, where the slice's middle lies on the plate.
    """

    correlation: Tensor
    scale: Tensor
    degrees: Tensor
    shift: Tensor

    def affine(self, n: int) -> Affine:
        """Return the map of the centred square's points from slice to the n-th plate, in pixels."""
        turn = _turn(float(self.degrees[n])) * float(self.scale[n])
        return Affine.about(turn, torch.zeros(2, dtype=torch.float64), self.shift[n].double())


@dataclass(frozen=True)
class TemplateSearch:
    """An identifier by the best normalised cross-correlation of a slice, as a template, over places on each plate.

    All shifts are compared at once in the Fourier domain, for each of some scales and turns.

    Attributes:
        scales: of the slice on the plate: below 1 it shows less than the whole plate.
        degrees: turns.
        size: pixels along each edge at which they are compared.
    """

    scales: Sequence[float] = SCALES
    degrees: Sequence[float] = (-8.0, 0.0, 8.0)
    size: int = 64

    def described(self, plates: Image) -> tuple[Tensor, Tensor]:
        """Return the spectra of the equalised plates and of their squares, `(P, *half)` each."""
        values = equalised(plates.data, self.size)[:, 0]
        return spectrum(values, self._shifts), spectrum(values * values, self._shifts)

    def distances(self, image: Image, plates: tuple[Tensor, Tensor]) -> Tensor:
        """Return one less the best correlation of each slice and plate, `(B, P)`."""
        return torch.stack([1 - self(image.nth(n), plates).correlation for n in range(image.batch)])

    def __call__(self, image: Image, plates: tuple[Tensor, Tensor]) -> Found:
        """Return the best place of one slice on each plate."""
        best: Found | None = None
        values = equalised(image.data, self.size)
        inside = tissue(torch.nn.functional.interpolate(image.data, (self.size,) * 2, mode="area"))
        for scale in self.scales:
            for degrees in self.degrees:
                best = _better(best, self._placed(values, inside, plates, scale, degrees))
        assert best is not None
        return best

    @property
    def _shifts(self) -> Shifts:
        return Shifts((self.size,) * 2, (self.size,) * 2, (self.size // 3,) * 2)

    def _placed(
        self, values: Tensor, inside: Tensor, plates: tuple[Tensor, Tensor], scale: float, turn: float
    ) -> Found:
        """Return the best shift on each plate at one scale and turn."""
        shifts, back = self._shifts, torch.linalg.inv(_turn(turn) * scale)
        middle = (self.size - 1) / 2
        at = torch.stack(torch.meshgrid(*[torch.arange(self.size, dtype=torch.float64) - middle] * 2, indexing="ij"))
        where = ((back @ at.flatten(1)).view(1, 2, self.size, self.size) + middle).to(values)
        mask = (sample(inside.to(values), where) > 0.5).to(values)[0, 0]
        template, count = sample(values, where)[0, 0] * mask, mask.sum()
        template = (template - template.sum() / count) * mask
        spectra, squares = plates
        drawn, shown = spectrum(template, shifts).conj(), spectrum(mask, shifts).conj()
        total, mean, power = (correlation(s, shifts) for s in (drawn * spectra, shown * spectra, shown * squares))
        variance = (power - mean * mean / count).clamp(min=1e-3 * float(count))
        ones = spectrum(torch.ones_like(mask), shifts)
        enough = correlation(shown * ones, shifts) >= LEAST * count
        found = (total / (variance * template.square().sum()).sqrt()).masked_fill(~enough, -1.0)
        most, index = found.flatten(1).max(1)
        first = torch.tensor(shifts.first)
        shift = torch.stack([index // found.shape[2], index % found.shape[2]], 1) + first
        every = torch.ones_like(most)
        return Found(most, scale * every, turn * every, shift)


def _turn(degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])


def _better(one: Found | None, other: Found) -> Found:
    if one is None:
        return other
    take = other.correlation > one.correlation
    return Found(
        torch.where(take, other.correlation, one.correlation),
        torch.where(take, other.scale, one.scale),
        torch.where(take, other.degrees, one.degrees),
        torch.where(take[:, None], other.shift, one.shift),
    )


def tissue(data: Tensor) -> Tensor:
    """Return where a slice `(B, 1, S, S)`, intensities 0 … 1, shows tissue, bool."""
    return gaussian(data, data.shape[-1] / 64) > SEEN


@dataclass(frozen=True)
class RegisteredSearch:
    """An identifier by the correlation of a slice with each plate once it is registered to it.

    Attributes:
        register: of slice and plate, from a start.
        search: finds the starts; None begins where the squares lie on each other.
        size: pixels along each edge at which they are registered and compared.
    """

    register: Refine
    search: TemplateSearch | None = TemplateSearch()
    size: int = 64

    def described(self, plates: Image) -> tuple[Image, object]:
        """Return the plates at the size, and what the search compares with."""
        return resized(plates, self.size), None if self.search is None else self.search.described(plates)

    def distances(self, image: Image, plates: tuple[Image, tuple[Tensor, Tensor]]) -> Tensor:
        """Return one less the correlation after registration of each slice and plate, `(B, P)`."""
        return torch.stack([self._one(image.nth(n), plates) for n in range(image.batch)])

    def _one(self, image: Image, plates: tuple[Image, tuple[Tensor, Tensor]]) -> Tensor:
        known, described = plates
        fixed = resized(image, self.size)
        starts = None if self.search is None else self.search(image, described)
        edge = self.size / (self.search.size if self.search is not None else self.size)
        found = []
        for n in range(known.batch):
            start = Affine.identity(2) if starts is None else scaled(starts.affine(n), edge)
            plate = known.nth(n)
            answer = self.register(fixed, plate, start).transform
            found.append(1 - similarity(Pair(fixed, pull(plate, answer, onto=fixed))))
        return torch.tensor(found)


def resized(image: Image, size: int) -> Image:
    """Return square images with another number of pixels, each 1 mm."""
    data = image.data
    if data.shape[-1] != size:
        data = torch.nn.functional.interpolate(data, (size, size), mode="bilinear", antialias=True)
    return Image(data, Grid.centred((size, size)))


def scaled(transform: Affine, factor: float) -> Affine:
    """Return an affine map in units of another length, `factor` to each of the old."""
    matrix = transform.matrix.clone()
    matrix[:-1, -1] *= factor
    return Affine(matrix)


def similarity(pair: Pair) -> float:
    """Return the correlation of two equalised squares on one grid over the tissue of the fixed one, −1 … 1."""
    inside, size = tissue(pair.fixed.data), pair.fixed.data.shape[-1]
    a, b = (equalised(one.data, size)[inside].double() for one in pair.images)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp(min=1e-12))


def placed(
    image: Image,
    plate: Image,
    register: Refine = LAID,
    turn: Affine | None = None,
    search: TemplateSearch = TemplateSearch(),
    pixels: int = 128,
) -> tuple[Alignment, Pair]:
    """Return a slice aligned to its plate, both as they lie in the world, and both as squares that show its tissue.

    The search says where on the plate the slice lies, and the register goes on from there. Where slice and plate are
    less alike then, as partial slices of another stain may be, the place that the search found is kept. The squares'
    moving one is the plate as the slice sees it.

    Args:
        image: the slice, 2-D: the fixed image.
        plate: the moving one.
        register: of both, from a start.
        turn: the slice is seen upright through this map of its square's points; None as it is.
        search: of the start.
        pixels: along each edge of the squares that are compared.
    """
    fixed, moving = (in_square(one, pixels) for one in (image, plate))
    upright, shown = (resized(one, pixels) for one in (fixed, moving))
    turn = Affine.identity(2) if turn is None else turn
    looked = pull(upright, turn, onto=upright)
    start = scaled(search(looked, search.described(shown)).affine(0), pixels / search.size) @ turn.inverse()
    into, back = (upright.grid.affine @ torch.linalg.inv(one.grid.affine) for one in (fixed, moving))
    begin, pair = Affine(torch.linalg.inv(back)) @ start @ Affine(into), Pair(image, plate)
    answers = [Alignment(pair, begin), seen(pair, register(image, plate, begin))]
    squares = [Pair(fixed, replace(fixed, data=pull(moving, one.transform, onto=fixed).data)) for one in answers]
    best = max(range(2), key=lambda n: similarity(squares[n]))
    return answers[best], squares[best]


def turning(quarters: int, mirrored: bool) -> Affine:
    """Return the map through which a square is seen turned by quarters of a circle, and then mirrored."""
    matrix = torch.linalg.matrix_power(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64), quarters)
    if mirrored:
        matrix = matrix @ torch.diag(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    return Affine.about(matrix, torch.zeros(2, dtype=torch.float64))
