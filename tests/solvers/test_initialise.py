"""Cheap starts against closed forms: ellipsoids that lie where they were put, on grids of any kind."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pullback.errors import InputError
from pullback.solvers.initialise import centres, foreground, header, masses, moments, otsu
from pullback.space import Affine, Grid, Image

SHAPES = {2: ((44, 52), (56, 47)), 3: ((34, 40, 37), (42, 35, 39))}
SEMIAXES = (12.0, 8.0, 5.0)  # mm


def rigid(ndim: int, degrees: float, shift: tuple[float, ...], seed: int = 0) -> Affine:
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    axis = np.random.default_rng(seed).normal(size=3)
    turn = np.array([0, 0, 1]) if ndim == 2 else axis / np.linalg.norm(axis)
    matrix[:ndim, :ndim] = torch.from_numpy(
        Rotation.from_rotvec(math.radians(degrees) * turn).as_matrix()[:ndim, :ndim]
    )
    matrix[:ndim, ndim] = torch.tensor(shift[:ndim], dtype=torch.float64)
    return Affine(matrix)


def ellipsoid(grid: Grid, centre: torch.Tensor, placed: Affine) -> Image:
    """Axes along the world's, 1 inside and 0 outside with an edge of about a voxel, carried by `placed`."""
    home = placed.inverse().at(grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None]))[0]
    d = grid.ndim
    scaled = (home - centre.view(d, *[1] * d)) / torch.tensor(SEMIAXES[:d]).view(d, *[1] * d)
    return Image(torch.sigmoid((1 - scaled.norm(dim=0)) * 12)[None, None], grid)


@pytest.fixture(params=[2, 3])
def case(request, oblique):
    """Fixed, moving, the motion between them, and where the fixed ellipsoid's middle is."""
    d = request.param
    middle = torch.tensor([1.5, -2.0, 1.0][:d], dtype=torch.float64)
    truth = rigid(d, 50.0, (3.0, -2.5, 2.0), seed=d)
    one, two = (oblique(shape, seed, 0.9, 1.3) for shape, seed in zip(SHAPES[d], (3, 8), strict=True))
    return ellipsoid(one, middle, Affine.identity(d)), ellipsoid(two, middle, truth), truth, middle


def test_the_header_moves_nothing(case):
    fixed, moving, _, middle = case
    assert torch.equal(header(fixed, moving)(middle[None]), middle[None])


def test_middles_of_grids_meet(case):
    fixed, moving, _, _ = case
    start = centres(fixed, moving)
    torch.testing.assert_close(start(fixed.grid.centre[None])[0], moving.grid.centre)
    assert torch.equal(start.matrix[:-1, :-1], torch.eye(fixed.grid.ndim, dtype=torch.float64))


def test_centres_of_mass_meet(case):
    fixed, moving, truth, middle = case
    start = masses(fixed, moving)
    torch.testing.assert_close(start(middle[None]), truth(middle[None]), atol=0.05, rtol=0)
    assert torch.equal(start.matrix[:-1, :-1], torch.eye(fixed.grid.ndim, dtype=torch.float64))


def test_moments_hold_the_truth(case):
    fixed, moving, truth, middle = case
    starts = moments(fixed, moving)
    errors = [float((s.matrix - truth.matrix)[:-1, :-1].norm()) for s in starts]
    assert min(errors) < 0.02
    best = starts[errors.index(min(errors))]
    torch.testing.assert_close(best(middle[None]), truth(middle[None]), atol=0.05, rtol=0)


def test_moments_are_all_the_proper_rotations_that_match_axes(case):
    fixed, moving, truth, _ = case
    starts, d = moments(fixed, moving), fixed.grid.ndim
    assert len(starts) == 2 ** (d - 1)
    turns = [s.matrix[:d, :d] for s in starts]
    for turn in turns:
        torch.testing.assert_close(turn @ turn.T, torch.eye(d, dtype=torch.float64))
        assert float(torch.linalg.det(turn)) == pytest.approx(1)
        axes = (truth.matrix[:d, :d].T @ turn).abs()  # of the ellipsoid, the world's: kept up to sign
        torch.testing.assert_close(axes, torch.eye(d, dtype=torch.float64), atol=0.02, rtol=0)
    apart = [float((a - b).norm()) for i, a in enumerate(turns) for b in turns[:i]]
    assert min(apart) > 1
    traces = [float(turn.trace()) for turn in turns]
    assert traces == sorted(traces, reverse=True), "the smallest rotation comes first"


@pytest.mark.parametrize("background", [-1000.0, 0.0, 255.0])
@pytest.mark.parametrize("factor", [1.0, -3.0, 200.0])
def test_contrast_does_not_matter(case, background, factor):
    fixed, moving, _, _ = case
    other = Image(background + factor * moving.data, moving.grid)
    torch.testing.assert_close(masses(fixed, other).matrix, masses(fixed, moving).matrix, atol=1e-6, rtol=0)


def test_noise_has_no_mass(case):
    fixed, moving, _, middle = case
    noise = 0.05 * torch.randn(moving.data.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = masses(fixed, Image(moving.data + noise, moving.grid))
    torch.testing.assert_close(start(middle[None]), masses(fixed, moving)(middle[None]), atol=0.1, rtol=0)


def test_what_a_mask_leaves_out_has_no_mass(case):
    fixed, moving, _, _ = case
    corner = tuple(slice(1, 7) for _ in moving.grid.shape)
    data, mask = moving.data.clone(), torch.ones_like(moving.data, dtype=torch.bool)
    data[(0, 0, *corner)], mask[(0, 0, *corner)] = 1, False
    disturbed, masked = Image(data, moving.grid), Image(data, moving.grid, mask)
    assert float((masses(fixed, disturbed).matrix - masses(fixed, moving).matrix).norm()) > 0.2
    torch.testing.assert_close(masses(fixed, masked).matrix, masses(fixed, moving).matrix, atol=1e-6, rtol=0)
    for one, two in zip(moments(fixed, masked), moments(fixed, moving), strict=True):
        torch.testing.assert_close(one.matrix, two.matrix, atol=1e-6, rtol=0)


def test_a_few_very_bright_voxels_do_not_decide(case):
    """As a vessel or a clip: one part in a thousand, ten times as bright."""
    moving = case[1]
    data = moving.data.clone()
    lit = (data > 0.99).flatten().nonzero().flatten()[: max(1, int((data > 0.5).sum()) // 1000)]
    data.view(-1)[lit] *= 10
    assert float((foreground(Image(data, moving.grid)) - foreground(moving)).abs().max()) < 0.05


def test_otsu_parts_two_classes():
    generator = torch.Generator().manual_seed(0)
    dark, bright = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (3000, 1000))
    values = torch.cat([dark * 0.1, 2 + bright * 0.1])
    candidates = torch.linspace(-0.3, 2.3, 400, dtype=torch.float64)

    def within(threshold: torch.Tensor) -> float:
        parts = values[values <= threshold], values[values > threshold]
        return sum(len(p) * float(p.var(correction=0)) for p in parts if len(p))

    assert within(torch.tensor(otsu(values))) == pytest.approx(min(within(t) for t in candidates))


def test_a_constant_image_has_no_mass(case):
    fixed, moving, _, _ = case
    with pytest.raises(InputError, match="background"):
        masses(fixed, Image(torch.full_like(moving.data, 7.0), moving.grid))


@pytest.mark.parametrize("start", [header, centres, masses, moments])
def test_one_pair_at_a_time(case, start):
    fixed, moving, _, _ = case
    with pytest.raises(ValueError, match="batch of 2"):
        start(fixed, Image(moving.data.repeat(2, *[1] * (moving.data.ndim - 1)), moving.grid))
