"""Radial slices: closed forms of the hull and the loft, and every order and flip."""

import itertools
import math

import pytest
import torch

from pullback.errors import InputError
from pullback.methods.pose.radial import (
    Radial,
    _about,
    about_slices,
    hull,
    loft,
    signed_distance,
    view_of,
)
from pullback.methods.pose.radial_order import ordered
from pullback.numerics.rotation import of_vector
from pullback.space import Grid, Image, Labels

TILTED = of_vector(torch.tensor([[0.4, -0.3, 0.2]]).double())[0]
POINT = torch.tensor([5.0, -3, 8]).double()


def plane(degrees: float, side: int = 41, edge: float = 1.0, world: bool = False) -> Grid:
    """A slice through the axis: its first axis across, its second along it."""
    turn = torch.eye(3).double() if world else TILTED
    point = torch.zeros(3).double() if world else POINT
    t = math.radians(degrees)
    across = turn @ torch.tensor([math.cos(t), math.sin(t), 0]).double()
    axis = turn[:, 2]
    affine = torch.eye(4).double()
    affine[:3, :3] = torch.stack([across * edge, axis * edge, torch.linalg.cross(across, axis) * 4], 1)
    affine[:3, 3] = point - affine[:3, :2].sum(1) * (side - 1) / 2
    return Grid((side, side, 1), affine)


def cut(grid: Grid, field) -> Image:
    """A field of points `(N, 3)` in the axis' own frame, on a slice."""
    points = (grid.to_world(grid.voxels(torch.zeros(1).double())[None]).flatten(2)[0].T - POINT) @ TILTED
    return Image(field(points).view(1, 1, *grid.shape), grid)


def across_the_axis(side: int, edge: float) -> Grid:
    """A flat grid at right angles to the axis, through its point."""
    affine = torch.eye(4).double()
    affine[:3, :3] = TILTED * edge
    affine[:3, 3] = POINT - affine[:3, :2].sum(1) * (side - 1) / 2
    return Grid((side, side, 1), affine)


GRIDS = [plane(30.0 * k) for k in range(6)]
RADIAL = Radial.of(GRIDS)


def circle(radius: float, x: float = 0.0, y: float = 0.0):
    return lambda p: (p[:, :2] - torch.tensor([x, y]).double()).norm(dim=1) - radius


def square(p):
    return p[:, :2].abs().amax(1) - 9.0


def area(field: Image) -> float:
    return float((field.data <= 0).sum() * field.grid.spacing[0] * field.grid.spacing[1])


def test_the_axis_is_the_line_that_all_planes_share():
    away = RADIAL.point - POINT
    assert float(torch.linalg.cross(away, TILTED[:, 2]).norm()) < 1e-9
    assert float(RADIAL.axis @ TILTED[:, 2]) == pytest.approx(1)
    assert torch.allclose(RADIAL.angles, torch.arange(6).double() * math.pi / 6, atol=1e-9)


def test_the_hull_of_a_circle_is_a_regular_polygon():
    wanted = across_the_axis(140, 0.25)  # no centre on an edge
    for count, whole in ((6, 12 / math.pi * math.tan(math.pi / 12)), (3, 6 / math.pi * math.tan(math.pi / 6))):
        grids = [plane(180 / count * k) for k in range(count)]
        found = hull(Radial.of(grids), [cut(grid, circle(12)) for grid in grids], wanted)
        assert area(found) / (math.pi * 12**2) == pytest.approx(whole, rel=2e-3)


def test_the_hull_loses_the_corners_of_a_square():
    """Strips at 30° and 60° cut them: 0.9346 of its area is left, by the shoelace formula."""
    grids = [plane(30.0 * k, 81, 0.5) for k in range(6)]
    half = {0: 9.0, 30: 9 / math.cos(math.pi / 6), 60: 9 / math.cos(math.pi / 6), 90: 9.0}
    corners = [
        point
        for a, b in itertools.pairwise((0, 30, 60, 90))
        for point in [
            torch.linalg.solve(
                torch.tensor([[math.cos(math.radians(x)), math.sin(math.radians(x))] for x in (a, b)]),
                torch.tensor([half[a], half[b]]),
            )
        ]
    ]
    x, y = zip(*[(9.0, 0.0), *(point.tolist() for point in corners), (0.0, 9.0)], strict=True)
    quarter = 0.5 * abs(sum(x[n] * y[n + 1] - x[n + 1] * y[n] for n in range(len(x) - 1)))
    assert quarter / 81 == pytest.approx(0.9346, abs=1e-4)
    found = hull(Radial.of(grids), [cut(grid, square) for grid in grids], across_the_axis(140, 0.2))
    assert area(found) / 18**2 == pytest.approx(quarter / 81, rel=5e-3)


def test_the_loft_of_a_body_of_revolution_is_that_body():
    """Its field is exact anywhere, so neither a circle nor a cone between heights is anything else."""
    points = about_slices(RADIAL, GRIDS, 3.0)
    cone = lambda p: p[:, :2].norm(dim=1) + 0.5 * p[:, 2] - 8  # noqa: E731 (linear in r and u: sampled exactly)
    found = loft(RADIAL, [cut(grid, cone) for grid in GRIDS], points)
    inside = view_of(RADIAL, GRIDS, points)
    assert inside.sum() > 300
    assert float((found.data - cut(points, cone).data)[inside].abs().max()) < 1e-9


def test_the_loft_goes_through_its_half_planes():
    sections = [cut(grid, circle(8, 4, 2)) for grid in GRIDS]
    for n, grid in enumerate(GRIDS):
        assert float((loft(RADIAL, sections, grid).data - sections[n].data).abs().max()) < 1e-9


def test_off_the_axis_the_loft_holds_what_the_hull_loses():
    wanted, off = across_the_axis(141, 0.25), circle(10, 6, 0)
    sections = [cut(grid, off) for grid in GRIDS]
    truth = area(cut(wanted, off))
    assert area(hull(RADIAL, sections, wanted)) / truth == pytest.approx(0.82, abs=0.02)
    assert area(loft(RADIAL, sections, wanted)) / truth == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("m", "whole"), [(1, 0.9983), (2, 0.9743)])
def test_between_half_planes_the_cubic_loses_what_its_formula_says(m, whole):
    starts = torch.arange(12).double() * math.pi / 6
    factor = 9 / 8 * math.cos(math.radians(15 * m)) - 1 / 8 * math.cos(math.radians(45 * m))
    middles = starts + math.pi / 12
    values = (m * starts).cos()[:, None].expand(12, 12)
    assert torch.allclose(_about(values, starts, middles), factor * (m * middles).cos(), atol=1e-9)
    assert factor == pytest.approx(whole, abs=1e-4)


def test_uneven_angles_still_go_through_their_half_planes():
    grids = [plane(angle) for angle in (0, 20, 65, 100, 150)]
    radial, sections = Radial.of(grids), [cut(grid, circle(8, 4, 2)) for grid in grids]
    assert float((loft(radial, sections, grids[2]).data - sections[2].data).abs().max()) < 1e-9
    turned = circle(8)
    found = loft(radial, [cut(grid, turned) for grid in grids], across_the_axis(21, 1.0))
    assert torch.allclose(found.data, cut(found.grid, turned).data, atol=0.1)  # linear between pixels


def test_the_distance_of_a_disc_is_its_own_to_half_a_pixel():
    grid = plane(0, 61, 0.5)
    inside = cut(grid, lambda p: torch.hypot(p[:, 0], p[:, 2]) - 9)
    found = signed_distance(Labels((inside.data <= 0).to(torch.uint8), grid))
    assert float((found.data - inside.data).abs().max()) < 0.5
    with pytest.raises(InputError, match="mark the bone"):
        signed_distance(Labels(torch.zeros_like(found.data, dtype=torch.uint8), grid))


# ---- orders


def bumpy(p):
    """A body without symmetry."""
    about, r = torch.atan2(p[:, 1], p[:, 0]), p[:, :2].norm(dim=1)
    return r - 9 - 3 * (about + 0.4).cos() - 2 * (2 * about + 1).cos() - p[:, 2] * (0.1 + 0.2 * (about - 1).cos())


def shuffled(images, order, across, along):
    """What is stored where: plane n shows the slice `order[n]`, flipped."""
    stored = []
    for n, m in enumerate(order):
        flips = [2] * across[n] + [3] * along[n]
        stored.append(Image(images[m].data.flip(flips), images[n].grid))
    return stored


def halves(images):
    """The half-planes of slices, in the order of their angles."""
    planes = torch.cat([image.data[0, :, :, :, 0] for image in images])
    return torch.cat([planes, planes.flip(1)])


def one_body(images):
    """The half-planes of a body after any turn about the axis, half turn across it, or reflection: each a row."""
    both = halves(images)
    turned = [both.roll(n, 0) for n in range(len(both))] + [both.flip(0).roll(n, 0) for n in range(len(both))]
    return torch.stack([each.flip(dims) for each in turned for dims in ((), (2,))])


def same_body(found, bodies) -> bool:
    return float((halves(found) - bodies).abs().amax((1, 2, 3)).min()) < 1e-6


SOME, ALL = ((0, 0, 0), (0, 1, 0), (1, 0, 1)), tuple(itertools.product((0, 1), repeat=3))


@pytest.mark.parametrize("along_the_axis", [SOME, pytest.param(ALL, marks=pytest.mark.nightly)], ids=["some", "all"])
def test_every_order_and_flip_of_three_slices_is_put_right(along_the_axis):
    grids = [plane(60.0 * k, 17, 1.5) for k in range(3)]
    radial, truth = Radial.of(grids), [cut(grid, bumpy) for grid in grids]
    bodies = one_body(truth)
    for order in itertools.permutations(range(3)):
        for across, along in itertools.product(ALL, along_the_axis):
            stored = shuffled(truth, order, across, along)
            found = ordered(stored, radial)
            assert found.alike == 2
            assert same_body(found.order.of(stored, radial), bodies), (order, across, along)
            if along == across:
                assert same_body(found.order.mirrored().of(stored, radial), bodies)


@pytest.mark.parametrize("seed", range(4))
def test_six_slices_in_any_order_are_put_right(seed):
    grids = [plane(30.0 * k, 25) for k in range(6)]
    radial, truth = Radial.of(grids), [cut(grid, bumpy) for grid in grids]
    draws = torch.Generator().manual_seed(seed)
    across, along = (torch.randint(2, (6,), generator=draws).tolist() for _ in range(2))
    stored = shuffled(truth, torch.randperm(6, generator=draws).tolist(), across, along)
    found = ordered(stored, radial)
    assert found.alike == 2
    assert found.next > 1.05
    assert same_body(found.order.of(stored, radial), one_body(truth))


def test_planes_in_any_order_with_any_directions_are_put_right():
    """Headers may list the planes anyhow, and let r grow to either side."""
    angles = (0, 330, 60, 270, 120, 30)  # of 0, 150, 60, 90, 120, 30 in half a turn
    grids = [plane(angle, 25) for angle in angles]
    radial, truth = Radial.of(grids), [cut(grid, bumpy) for grid in grids]
    found = ordered(truth, radial)
    for placed in (found.order.of(truth, radial), found.order.mirrored().of(truth, radial)):
        if all(torch.allclose(one.data, two.data, atol=1e-6) for one, two in zip(placed, truth, strict=True)):
            return
    pytest.fail("neither sense of rotation is that of the body")


def test_of_a_body_of_revolution_all_orders_are_alike():
    found = ordered([cut(grid, lambda p: p[:, :2].norm(dim=1) + 0.3 * p[:, 2]) for grid in GRIDS], RADIAL)
    assert found.alike >= 120 * 32


def test_what_shares_no_axis_is_refused():
    moved = plane(90.0).affine.clone()
    moved[:3, 3] += 4 * moved[:3, 2] / moved[:3, 2].norm()
    with pytest.raises(InputError, match="by up to"):
        Radial.of([plane(0.0), plane(45.0), Grid((41, 41, 1), moved), plane(135.0)])
    with pytest.raises(InputError, match="parallel"):
        Radial.of([plane(0.0), plane(1.0)])
    with pytest.raises(InputError, match="two or more"):
        Radial.of([plane(0.0)])
    with pytest.raises(InputError, match="3 to 7"):
        ordered([cut(grid, bumpy) for grid in GRIDS[:2]], Radial.of(GRIDS[:2]))
