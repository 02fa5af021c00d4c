"""The contract of an energy."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.energies import Energy
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Dense, Displacement, Grid, Image, Velocity
from pullback.testing.contract import Untouched, check_finite, require

SHAPES = {2: (14, 12), 3: (9, 10, 8)}
INTENSITIES = {"gain": (1.7, 0.0), "offset": (1.0, 0.4), "inversion": (-1.0, 0.0)}
"""Changes of the moving image's intensities, a · I + b, that an energy may say it does not see."""


def check_energy(energy: Energy, ndim: int, *, least: bool = True, blind: Sequence[str] = ()) -> None:
    """Hold an energy of images, or of fields, against its contract.

    It is finite and so is its gradient, also of images that are constant, empty or the same; its derivative is the one
    of its values; what is known beforehand of a pair (`ready`) changes nothing; batches and channels are averaged; what
    masks hide has no influence; affine maps can be descended too; inputs stay as they are. Identical images are a
    minimum, however faint they are and wherever their masks lie.

    Args:
        energy: what is checked, with all its parameters.
        ndim: 2 or 3.
        least: whether identical images are a minimum wherever masks lie. LNCC without a floor of noise is not, and NGF,
            MI and NMI gain by a moving mask that hides what is flat or unlike.
        blind: of `INTENSITIES`, changes that it does not see.

    Raises:
        BrokenContract: a promise was not kept.
    """
    where = f"{energy!r} in {ndim}-D"
    _check_finite_everywhere(energy, ndim, where)
    for masks in ((False, False), (True, False), (True, True)):
        _check_ready(energy, ndim, masks, where)
    for masked in (False, True):
        for batches in ((3, 3), (1, 3), (3, 1)):
            _check_batches(energy, ndim, masked, batches, where)
        if least:
            check_minimum(energy, ndim, masked, where)
    _check_hidden(energy, ndim, where)
    _check_derivative(energy, ndim, where)
    _check_affine(energy, ndim, where)
    for change in blind:
        _check_blind(energy, ndim, change, where)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers, float32."""
    return torch.randn(*shape, generator=make_generator(seed))


def _check_finite_everywhere(energy: Energy, ndim: int, where: str) -> None:
    shape = SHAPES[ndim]
    grid = Grid.centred(shape)
    textured, empty = noise(1, 1, *shape), torch.zeros(1, 1, *shape)
    half = torch.where(torch.arange(shape[-1]) < 4, 0, textured)
    for fixed, moving in ((textured, textured), (half, half), (half, noise(1, 1, *shape, seed=1)), (empty, empty)):
        pair = Pair(Image(fixed, grid), Image(moving, grid))
        untouched = Untouched(pair)
        for start in (torch.zeros(1, ndim, *shape), noise(1, ndim, *shape, seed=2)):
            for kind in (Displacement, Velocity):
                terms, slope = _slope(energy, pair, kind, start)
                require(len(terms) > 0, where, "terms", "none")
                for name, term in terms.items():
                    scalar = term.shape == () and term.dtype == torch.float32
                    require(scalar, where, "scalars of the images' type", f"{name} {term.dtype} {tuple(term.shape)}")
                    check_finite(term, where, f"terms ({name})")
                check_finite(slope, where, "gradients")
                again, _ = _slope(energy, pair, kind, start)
                same = all(torch.equal(a, b) for a, b in zip(terms.values(), again.values(), strict=True))
                require(same, where, "the same value each time", "another")
        untouched.check(where)


def _slope(energy: Energy, pair: Pair, kind: type[Dense], start: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    field = start.clone().requires_grad_()
    terms = energy.terms(Alignment(pair, kind(field, pair.fixed.grid)))  # type: ignore[call-arg]
    (slope,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), field)
    return terms, slope


def _check_ready(energy: Energy, ndim: int, masks: tuple[bool, bool], where: str) -> None:
    shape = SHAPES[ndim]
    grid, data, inside = Grid.centred(shape), noise(2, 1, *shape), noise(2, 1, *shape, seed=3) > -0.5
    fixed, moving = (Image(data[n : n + 1], grid, inside[n : n + 1] if masks[n] else None) for n in range(2))
    pair = Pair(fixed, moving)
    values, slopes = [], []
    for objective in ((0.5 * energy + 0.5 * energy).on(pair), lambda transform: energy(Alignment(pair, transform))):
        field = noise(1, ndim, *shape, seed=2).requires_grad_()
        values.append(objective(Displacement(field, grid)))
        slopes.append(torch.autograd.grad(values[-1], field)[0])
    for what, (one, other) in {"value": values, "gradient": slopes}.items():
        same = torch.allclose(one, other, rtol=1.3e-6, atol=1e-5)
        require(same, where, f"the same {what} of an energy made ready for a pair", f"{one.norm()}, not {other.norm()}")


def _check_batches(energy: Energy, ndim: int, masked: bool, batches: tuple[int, int], where: str) -> None:
    """Check that channels of unlike scale and offset do not see each other's range; masks have equal sizes."""
    shape = SHAPES[ndim]
    grid, size = Grid.centred(shape), [1] * ndim
    scale = torch.tensor([1.0, 7.0, 0.3], dtype=torch.float64).view(1, 3, *size)
    fixed, moving = (noise(b, 3, *shape, seed=s).double() * scale - scale for s, b in enumerate(batches))
    field = 0.3 * noise(3, ndim, *shape, seed=4).double()
    seen = noise(1, 1, *shape, seed=5) > -1.5
    mask = torch.cat([seen, seen.flip(2), seen.flip(3)]) if masked else None

    def value(b: slice, c: slice) -> float:
        f, m = (each[b if len(each) > 1 else slice(None), c] for each in (fixed, moving))
        pair = Pair(Image(f, grid, mask if mask is None else mask[b]), Image(m, grid))
        return float(energy(Alignment(pair, Displacement(field[b], grid))))

    alone = [value(slice(b, b + 1), slice(c, c + 1)) for b in range(3) for c in range(3)]
    mean, whole = sum(alone) / 9, value(slice(None), slice(None))
    same = abs(whole - mean) <= 1e-9 * abs(mean) + 1e-12
    require(same, where, f"the mean over batch {batches} and channels, {mean:.6g}", f"{whole:.6g}")


def _check_hidden(energy: Energy, ndim: int, where: str) -> None:
    """Check that hidden voxels do not count, in float64: rounding at the identity would let a trace of them in."""
    shape = SHAPES[ndim]
    grid = Grid.centred(shape)
    fixed, moving = (noise(1, 1, *shape, seed=seed).double() for seed in range(2))
    mask, other = (torch.zeros(1, 1, *shape, dtype=torch.bool) for _ in range(2))
    mask[:, :, 2:7, 3:8] = True
    other[:, :, 1:8, 2:] = True
    wild = 50 * noise(1, 1, *shape, seed=2).double()
    away, beside = (torch.where(seen, 0, wild) for seen in (mask, other))
    values, slopes = [], []
    for f, m in ((fixed, moving), (fixed + away, moving), (fixed, moving + beside)):
        field = torch.zeros(1, ndim, *shape, dtype=torch.float64, requires_grad=True)
        # half a voxel of the moving image is looked at from the mask's edge: its own mask keeps that out of the sum
        pair = Pair(Image(f, grid, mask), Image(m, grid, other))
        value = energy(Alignment(pair, Displacement(field, grid)))
        (slope,) = torch.autograd.grad(value, field)
        values.append(value.detach())
        beyond = float(slope[~mask.expand_as(slope)].abs().max())
        require(beyond == 0, where, "no slope where the masks hide the images", f"one of {beyond:.3g}")
        slopes.append(slope[:, :, 3:6, 4:7])  # at the mask's edge the slope of the moving image reaches one voxel out
    for value, slope in zip(values[1:], slopes[1:], strict=True):
        same = torch.allclose(value, values[0], rtol=1e-9, atol=1e-12)
        require(same, where, f"a value that hidden voxels do not change, {float(values[0]):.6g}", f"{float(value):.6g}")
        same = torch.allclose(slope, slopes[0], rtol=1e-7, atol=1e-11)
        require(
            same, where, "a gradient that hidden voxels do not change", f"{float((slope - slopes[0]).norm()):.3g} more"
        )


def _check_derivative(energy: Energy, ndim: int, where: str) -> None:
    """Check the derivative against differences of values, on smooth images and away from voxels' bends."""
    shape = (7, 6) if ndim == 2 else (6, 5, 6)
    grid = Grid.centred(shape)
    fixed, moving = (Image(gaussian(noise(1, 1, *shape, seed=s).double(), 0.8), grid) for s in range(2))
    field = 0.4 + 0.1 * noise(1, ndim, *shape, seed=2).clamp(-2, 2).double()

    def value(field: Tensor) -> Tensor:
        return energy(Alignment(Pair(fixed, moving), Displacement(field, grid)))

    leaf = field.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    for seed in range(3, 6):
        along, step = noise(1, ndim, *shape, seed=seed).double(), 1e-6
        there, back = (float(value(field + sign * step * along)) for sign in (1, -1))
        expected, found = (there - back) / (2 * step), float((slope * along).sum())
        same = abs(expected - found) <= 1e-6 + 1e-4 * abs(expected)
        require(same, where, f"the derivative of its values, {expected:.6g}", f"{found:.6g}")


def _check_affine(energy: Energy, ndim: int, where: str) -> None:
    shape = SHAPES[ndim]
    turn = torch.linalg.qr(noise(ndim, ndim, seed=4).double())[0]  # an oblique grid, maybe a mirrored one
    affine = torch.eye(ndim + 1, dtype=torch.float64)
    affine[:-1, :-1] = turn * torch.tensor([0.8, 1.3, 1.1], dtype=torch.float64)[:ndim]
    grid = Grid(shape, affine).about_origin(shape)
    fixed, moving = (Image(noise(1, 1, *shape, seed=s), grid) for s in range(2))
    pair = Pair(fixed, moving)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1] += 0.05 * noise(ndim, ndim + 1, seed=2)
    matrix.requires_grad_()
    (slope,) = torch.autograd.grad(energy(Alignment(pair, Affine(matrix))), matrix)
    check_finite(slope, where, "gradients of a matrix")


def _check_blind(energy: Energy, ndim: int, change: str, where: str) -> None:
    gain, offset = INTENSITIES[change]
    pair = _scene_pair(ndim)
    other = replace(pair, moving=replace(pair.moving, data=gain * pair.moving.data + offset))
    field = Displacement(0.3 * noise(1, ndim, *SHAPES[ndim], seed=2).double(), pair.fixed.grid)
    one, two = (float(energy(Alignment(each, field))) for each in (pair, other))
    same = abs(one - two) <= 1e-6 * max(abs(one), 1)
    require(same, where, f"a value that does not see the {change} of intensities, {one:.6g}", f"{two:.6g}")


def _scene_pair(ndim: int) -> Pair:
    """Return a pair with no part beyond the moving image's grid, where 0 would be seen whatever the offset."""
    shape = SHAPES[ndim]
    grid = Grid.centred(shape)
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    inner = (slice(None), slice(None), *[slice(2, -2)] * ndim)
    mask[inner] = True
    fixed, moving = (0.5 + 0.2 * gaussian(noise(1, 1, *shape, seed=s), 1.0).double() for s in range(2))
    return Pair(Image(fixed, grid, mask), Image(moving, grid))


def scenes(ndim: int) -> list[Tensor]:
    """Return images `(1, 1, *spatial)`, float64, however faint.

    Texture; the same so faint that floors count; a body of it in nothing; one without texture; noise beside it.
    """
    shape = SHAPES[ndim]
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)[None, None]
    body = torch.sigmoid(10 * (0.75 - radius))
    waves = gaussian(noise(1, 1, *shape).double(), 1.2)
    waves = waves / waves.std()
    speckle = noise(1, 1, *shape, seed=3).double()
    return [0.5 + 0.2 * waves, 0.5 + 0.01 * waves, body * (0.6 + 0.03 * waves), body, body + 0.02 * speckle]


def check_minimum(energy: Energy, ndim: int, masked: bool, where: str) -> None:
    """Hold identical images, however faint and wherever their masks lie, against motions small and large.

    No motion is better than none, and none pulls at it.

    Raises:
        BrokenContract: one is better, or there is a slope.
    """
    shape = SHAPES[ndim]
    grid = Grid.centred(shape)
    mask = gaussian(noise(1, 1, *shape, seed=9), 1.0) > -0.2 if masked else None
    smooth, rough = gaussian(noise(1, ndim, *shape, seed=1).double(), 2.0), noise(1, ndim, *shape, seed=2).double()
    outwards = 0.1 * (grid.voxels(smooth) - torch.tensor(shape).view(-1, *[1] * ndim) / 2)[None]
    motions = [size * u for u in (smooth / smooth.std(), outwards, -outwards) for size in (0.01, 1.0)] + [0.3 * rough]
    for data in scenes(ndim):
        image = Image(torch.cat([data, data.flip(2)], 1), grid, mask)
        see = partial(Alignment, Pair(image, image))
        field = torch.zeros(1, ndim, *shape, dtype=torch.float64, requires_grad=True)
        still = energy(see(Displacement(field, grid)))
        (slope,) = torch.autograd.grad(still, field)
        steep = float(slope.norm())
        require(steep < 1e-9, where, "no slope at identical images", f"one of {steep:.3g}")
        for motion in motions:
            value = float(energy(see(Displacement(motion, grid))).detach())
            lower = value <= still.item() - 1e-10
            require(not lower, where, f"identical images as a minimum, {still.item():.6g}", f"{value:.6g} for a motion")
