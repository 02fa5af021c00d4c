"""CrossNGF: a global search for the rigid motion between two images of any contrast.

Öfverstedt, Lindblad, Sladoje: Cross-Sim-NGF: FFT-based global rigid multimodal alignment of image volumes using
normalized gradient fields, WBIR 2022.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, one_by_one
from pullback.data import normalised
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.numerics.fourier import Shifts, correlation, product, spectrum
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import angles_between, nearby, uniform
from pullback.numerics.sample import sample
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Box, Grid, Image, Transform, isotropic
from pullback.space.grid import transform_channels
from pullback.stats import Stats

EPS = 1e-5  # of eq. 1, for intensities in 0 … 1 per voxel
AT_ONCE = 2**17  # padded voxels in one batch of rotations: what stays in the cache
SMALLEST = 64  # voxels along the longest edge: the blur is meant for images of such sizes
APART = 30.0  # degrees between rotations that are no neighbours


def separable_parts(image: Tensor, mask: Tensor, squared: bool = True) -> Tensor:
    """Return the parts that eq. 6 correlates, `(B, K, *spatial)`, K = 6 in 3-D and 3 in 2-D, and the mask as one more.

    They are the squares of the components of the normalised gradient field (eq. 1) and their products in pairs, these
    times √2, so that the sum over the parts of two images is the squared dot product of eq. 2. 0 outside the mask.

    Args:
        image: `(B, 1, *spatial)`, intensities about 0 … 1, isotropic voxels.
        mask: `(B, 1, *spatial)` bool.
        squared: without, the parts are the components themselves, K = d, and the sum is the dot product of eq. 3.
    """
    slopes = [_slope(image, axis) for axis in range(2, image.ndim)]
    inside = mask.to(image)
    weight = inside / sum((s * s for s in slopes), start=torch.full_like(image, EPS**2))
    if not squared:
        return torch.cat([*(s * weight.sqrt() for s in slopes), inside], 1)
    squares = [s * s * weight for s in slopes]
    weight = weight * math.sqrt(2)
    return torch.cat([*squares, *(a * b * weight for a, b in combinations(slopes, 2)), inside], 1)


def _slope(image: Tensor, axis: int) -> Tensor:
    """Return central differences along one axis; at the border half the one-sided ones."""
    n = image.shape[axis]
    ends = [image.narrow(axis, 0, 1), image, image.narrow(axis, n - 1, 1)]
    padded = torch.cat(ends, axis)
    return (padded.narrow(axis, 2, n) - padded.narrow(axis, 0, n)).mul_(0.5)


@dataclass(frozen=True, eq=False)
class Reference:
    """The fixed side of the similarity map, computed once for all rotations of the moving image.

    Attributes:
        shifts: the shifts that can overlap enough.
        mirrored: conjugate spectra of the fixed image's parts, its mask the last of them.
        least: voxels that both masks must share.
        squared: whether the cosine is squared.
    """

    shifts: Shifts
    mirrored: Tensor
    least: float
    squared: bool = True

    @classmethod
    def of(
        cls,
        image: Tensor,
        mask: Tensor,
        moving: Sequence[int],
        moving_count: int,
        overlap: float,
        squared: bool = True,
    ) -> "Reference":
        """Return the reference of a fixed image and its mask, `(1, 1, *spatial)`.

        The moving arrays have shape `moving`, their masks `moving_count` voxels. The least overlap is the share
        `overlap` of the smaller mask's voxels. N(χ) is at most the overlap along one axis times the shorter edges along
        the others, which bounds the shifts worth representing: with two equal boxes and γ = 0.5 the padding is half an
        edge instead of a whole one, and the FFTs in 3-D are 2.4 times smaller.
        """
        least = max(overlap * min(int(mask.sum()), moving_count), 1.0)
        shorter = [min(n, m) for n, m in zip(image.shape[2:], moving, strict=True)]
        narrow = tuple(min(max(math.ceil(least * n / math.prod(shorter)), 1), n) for n in shorter)
        shifts = Shifts(tuple(image.shape[2:]), tuple(moving), narrow)
        parts = separable_parts(image, mask, squared)[0]
        return cls(shifts, spectrum(parts, shifts).conj().resolve_conj(), least, squared)

    def similarities(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return CSNGF (eq. 5), `(B, *shifts.shape)`, for `(B, 1, *spatial)`; −∞ where the overlap is too small."""
        spectra = spectrum(separable_parts(image, mask, self.squared), self.shifts)
        sums = product(self.mirrored[:-1], spectra[:, :-1])
        counts = product(self.mirrored[-1:], spectra[:, -1:])
        values, overlap = correlation(torch.stack([sums, counts]), self.shifts)
        overlap = overlap.round_()
        return torch.where(overlap >= self.least, values / overlap.clamp(min=1), -math.inf)


def cross_similarity(
    fixed: Tensor,
    moving: Tensor,
    fixed_mask: Tensor,
    moving_mask: Tensor,
    overlap: float = 0.5,
    squared: bool = True,
) -> tuple[Tensor, tuple[int, ...]]:
    """Return the mean squared cosine between the gradients of two images at all whole shifts χ (CSNGF, eq. 5).

    It takes 14 real FFTs and 2 inverse ones in 3-D (6 parts and a mask per image), 8 and 2 in 2-D.

    Args:
        fixed: `(*spatial)`, intensities about 0 … 1.
        moving: `(*spatial)`; its shape may be another.
        fixed_mask: bool, like `fixed`.
        moving_mask: bool, like `moving`.
        overlap: γ, the share of the smaller mask's voxels that both masks must have in common.
        squared: without, it is the mean cosine itself (eq. 3).

    Returns:
        The map, −∞ where the masks overlap less, and the shift of its first entry: fixed voxel x lies on moving voxel
        x + χ.
    """
    count = int(moving_mask.sum())
    reference = Reference.of(fixed[None, None], fixed_mask[None, None], moving.shape, count, overlap, squared)
    return reference.similarities(moving[None, None], moving_mask[None, None])[0], reference.shifts.first


@dataclass(frozen=True, eq=False)
class Level:
    """A resolution of the search: the fixed image's spectra, and a lattice onto which the moving image is rotated.

    The lattice is a cube parallel to the fixed grid, its middle at the middle of the moving image, its edge the longest
    edge of the moving image; parts that a rotation carries beyond it are ignored.
    """

    fixed: Grid
    moving: Image
    lattice: Grid
    reference: Reference

    @classmethod
    def of(cls, fixed: Image, moving: Image, overlap: float, squared: bool = True) -> "Level":
        """Return the level of two images of one isotropic spacing."""
        assert fixed.mask is not None
        assert moving.mask is not None
        shape = (max(moving.grid.shape),) * moving.grid.ndim
        reference = Reference.of(fixed.data, fixed.mask, shape, int(moving.mask.sum()), overlap, squared)
        return cls(fixed.grid, moving, fixed.grid.about_origin(shape), reference)

    def best(self, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest similarity over all shifts, `(N,)`, and its shift, `(N, d)`, for rotations `(N, d, d)`."""
        size = max(1, AT_ONCE // math.prod(self.reference.shifts.padded))
        parts = [self._peaks(self.similarities(some)) for some in rotations.split(size)]
        values, shifts = (torch.cat(column) for column in zip(*parts, strict=True))
        return values, shifts

    def similarities(self, rotations: Tensor) -> Tensor:
        """Return the maps of rotations `(B, d, d)`: `(B, *shifts.shape)`."""
        assert self.moving.mask is not None
        frames = torch.linalg.inv(self.moving.grid.affine) @ self._turn(rotations) @ self.lattice.affine
        where = transform_channels(frames, self.lattice.voxels(self.moving.data)[None])
        turned = sample(self.moving.data, where, padding="border")  # no edge where the field of view ends
        return self.reference.similarities(turned, sample(self.moving.mask, where, "nearest"))

    def transform(self, rotation: Tensor, shift: Tensor) -> Affine:
        """Return the transform, fixed → moving in the world, of a rotation `(d, d)` and a shift in voxels `(d,)`."""
        index = torch.linalg.inv(self.fixed.affine)
        index[:-1, -1] += shift
        return Affine(self._turn(rotation[None])[0] @ self.lattice.affine @ index)

    def refined(self, rotation: Tensor, shift: Tensor) -> Tensor:
        """Return the shift refined to the top of the parabola through the peak and its neighbours, along each axis."""
        values = self.similarities(rotation[None])[0]
        peak = (shift - torch.tensor(self.reference.shifts.first)).long().tolist()
        better = shift.clone()
        for axis, at in enumerate(peak):
            line = values[tuple(slice(None) if a == axis else p for a, p in enumerate(peak))]
            if 0 < at < len(line) - 1:
                before, top, after = line[at - 1 : at + 2].double().tolist()
                bend = 2 * top - before - after
                if 0 < bend < math.inf:
                    better[axis] += 0.5 * (after - before) / bend
        return better

    def _turn(self, rotations: Tensor) -> Tensor:
        """Return maps `(B, d+1, d+1)` from points about the origin to rotated ones about the moving image's middle."""
        d = self.fixed.ndim
        matrix = torch.eye(d + 1, dtype=torch.float64).repeat(len(rotations), 1, 1)
        matrix[:, :d, :d] = rotations
        matrix[:, :d, d] = self.moving.grid.centre
        return matrix

    def _peaks(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        values, flat = maps.flatten(1).max(1)  # (B,) each
        peaks = torch.stack(torch.unravel_index(flat.cpu(), maps.shape[1:]), 1)
        return values.double().cpu(), (peaks + torch.tensor(self.reference.shifts.first)).double()


@dataclass(frozen=True)
class CrossNGF:
    """A register by the rigid motion of the highest mean squared cosine between gradients, over rotations and shifts.

    From level to level the best rotations are kept and their neighbourhood is searched at random; at each rotation the
    best of all whole shifts is taken. Both images are first brought onto isotropic lattices of one spacing; the other
    numbers are in voxels of it. The defaults are the paper's (3.1, 4.2).

    Attributes:
        blur: σ of the Gaussians, one per level.
        downsampling: d; every d-th voxel is kept.
        rotations: a, how many are tried at each level, beside those kept from the level before.
        steps: u, the largest change of a kept rotation about each axis, degrees; one per change of level.
        kept: p, the number of best rotations that are kept; one per change of level.
        overlap: γ, the share of the smaller mask's voxels that must overlap.
        voxels: the most that the finest lattice has; the spacing is chosen so.
        seed: of the random rotations.
        squared: whether the cosine is squared, so that parallel and antiparallel gradients count alike; without, it is
            the paper's rival USNGF (eq. 3), which is meant for two images of one contrast.

    Raises:
        InputError: not as many numbers as levels, or no rotation on the first.
    """

    blur: tuple[float, ...] = (5.0, 3.0, 2.0, 1.5)
    downsampling: tuple[int, ...] = (4, 2, 2, 1)
    rotations: tuple[int, ...] = (5000, 3000, 300, 0)
    steps: tuple[float, ...] = (10.0, 3.0, 0.0)
    kept: tuple[int, ...] = (20, 3, 1)
    overlap: float = 0.5
    voxels: int = 4_000_000
    seed: int = 0
    squared: bool = True

    def __post_init__(self) -> None:
        counts = {len(self.blur), len(self.downsampling), len(self.rotations), len(self.steps) + 1, len(self.kept) + 1}
        if len(counts) > 1 or self.rotations[0] < 1:
            raise InputError(
                "CrossNGF: one blur, downsampling and number of rotations per level (the first at least 1), and one of "
                f"steps and kept per change of level; got {self}"
            )

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        """Return the best rigid motion of all that were tried, fixed → moving; each pair of a batch by itself.

        Among the numbers of its stats are `similarity`, the mean squared cosine between gradients at the finest level,
        0 … 1 (1/d is to be expected between unrelated gradients), and `rival`, the same of the best rotation more than
        30° away that the second level saw, 0 where it saw none: the nearer to `similarity`, the less sure the answer.

        Raises:
            InputError: the images overlap nowhere by the least share.
        """
        return one_by_one(self._one, fixed, moving)

    @torch.no_grad()
    def _one(self, fixed: Image, moving: Image, start: Transform | None) -> Alignment:
        one, two = lattices(fixed, moving, self.voxels)
        trials = uniform(fixed.grid.ndim, self.rotations[0], make_generator(self.seed, 0))
        tried = []
        for k, (blur, factor) in enumerate(zip(self.blur, self.downsampling, strict=True)):
            if k > 0:
                near = nearby(trials, self.rotations[k], self.steps[k - 1], make_generator(self.seed, k))
                trials = torch.cat([trials, near])
            level = Level.of(coarser(one, blur, factor), coarser(two, blur, factor), self.overlap, self.squared)
            values, shifts = level.best(trials)
            tried.append((trials, values))
            order = values.argsort(descending=True, stable=True)[: (*self.kept, 1)[k]]
            trials, values, shifts = trials[order], values[order], shifts[order]
            if values[0] == -math.inf:
                share = f"{self.overlap:.0%} of the smaller mask"
                raise InputError(f"CrossNGF: the images overlap nowhere by {share}; lower the overlap, or widen masks")
        transform = level.transform(trials[0], level.refined(trials[0], shifts[0]))
        numbers = {"similarity": float(values[0]), "rival": _rival(trials[0], *tried[:2][-1], level)}
        return Alignment(Pair(fixed, moving), transform, stats=Stats(numbers=numbers))


def _rival(answer: Tensor, rotations: Tensor, values: Tensor, level: Level) -> float:
    far = angles_between(rotations, answer) > APART
    if not far.any():
        return 0.0
    best = rotations[far][values[far].argmax()]
    return max(float(level.best(best[None])[0]), 0.0)


def lattices(fixed: Image, moving: Image, voxels: int) -> tuple[Image, Image]:
    """Resample both images on isotropic lattices of one spacing: one channel, 0 … 1, with masks.

    The spacing is the coarser of both images' mean voxel edges; up to four times finer where the fixed image would have
    fewer than `SMALLEST` voxels along its longest edge; and coarser until neither the fixed lattice nor the cube about
    the moving one has more than `voxels`.

    Raises:
        ValueError: a batch of more than one.
    """
    for image in (fixed, moving):
        if image.data.shape[0] != 1:
            raise ValueError(f"CrossNGF: one pair at a time, got a batch of {image.data.shape[0]}")
    Pair(fixed, moving)  # refuses images of different dimension
    one, two = (Box.of(image) for image in (fixed, moving))
    d = fixed.grid.ndim
    natural = max(float(torch.linalg.det(i.grid.affine).abs()) ** (1 / d) for i in (fixed, moving))
    finest = max(min(natural, float(one.edges.max()) / SMALLEST), natural / 4)
    least = (max(float(one.edges.prod()), float(two.edges.max()) ** d) / voxels) ** (1 / d)
    grey = (replace(image, data=normalised(image).data.mean(1, keepdim=True)) for image in (fixed, moving))
    first, second = (isotropic(image, max(finest, least)) for image in grey)
    return first, second


def coarser(image: Image, blur: float, factor: int) -> Image:
    """Return blur an image by `blur` voxels, and keep every `factor`-th voxel, centred."""
    grid = image.grid
    first = [(n - 1) % factor // 2 for n in grid.shape]
    kept = (slice(None), slice(None), *(slice(start, None, factor) for start in first))
    data = gaussian(image.data, blur)[kept].contiguous()
    affine = grid.affine.clone()
    affine[:-1, -1] += affine[:-1, :-1] @ torch.tensor(first, dtype=torch.float64)
    affine[:-1, :-1] *= factor
    assert image.mask is not None
    return Image(data, Grid(tuple(data.shape[2:]), affine), image.mask[kept].contiguous())


SMALL = CrossNGF(
    blur=(5.0, 5.0, 3.0, 2.0, 2.0, 1.5),
    downsampling=(4, 4, 2, 2, 2, 1),
    rotations=(3000, 1500, 200, 150, 100, 0),
    steps=(12.0, 5.0, 2.5, 0.8, 0.0),
    kept=(40, 20, 4, 2, 1),
    voxels=1_000_000,
)
"""For small machines: most rotations are tried on the coarsest lattice, in more steps. About 12 s for a brain."""


METHOD = Method(
    about="a global search for the rigid motion between two images of any contrast",
    aligns=("pose",),
    papers=(
        Paper(
            "oefverstedt2022crosssimngf",
            "Öfverstedt, Johan and Lindblad, Joakim and Sladoje, Nataša",
            "Cross-Sim-NGF: FFT-Based Global Rigid Multimodal Alignment of Image Volumes Using Normalized Gradient "
            "Fields",
            "Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    register=CrossNGF(),
)
