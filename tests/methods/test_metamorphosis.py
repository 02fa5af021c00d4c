"""Metamorphosis: laws of the path of images, of its mask, and of what it finds."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from pullback.errors import InputError
from pullback.files import read_image, read_transform, write_image
from pullback.methods.pair.growing_mask import Growth, balls
from pullback.methods.pair.image_shooting import Shot
from pullback.methods.pair.lddmm import METHOD as LDDMM
from pullback.methods.pair.metamorphosis import METHOD, Metamorphosis
from pullback.numerics.kernel import Gaussian
from pullback.numerics.smooth import gaussian
from pullback.solvers import Descend, Levels
from pullback.space import Affine, Geodesic, Grid, Image, Labels, pull
from pullback.testing import check_register, problems
from pullback.workflows.how import How, register_of
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.register import register_files

SHAPES = {2: (48, 44), 3: (20, 22, 24)}
SIGMA = 4.0


def smooth(shape, sigma=3.0, seed=0, channels=1, dtype=torch.float64):
    values = torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    values = gaussian(values, sigma)
    return values / values.abs().max()


def bump(grid, radius, at=None):
    """A smooth hill of height 1, in the middle or `at` world mm."""
    centre = grid.centre if at is None else torch.tensor(at, dtype=torch.float64)
    away = grid.to_world(grid.voxels(grid.affine)[None]) - centre.view(1, -1, *[1] * grid.ndim)
    return torch.exp(-0.5 * away.square().sum(1, keepdim=True) / radius**2)


def shot(ndim=2, addition=0.0, weight=None, steps=20, motion=1.0, channels=1, sigma=5.0, momentum=None, grid=None):
    """A shot that moves the fastest voxel by some `motion` voxels; away from the border all is flat."""
    grid = grid or Grid.centred(SHAPES[ndim], 1.0)
    still = bump(grid, 6.0 if ndim == 2 else 4.0)
    image = Image(still * (1 + smooth(grid.shape, sigma, 1, channels)), grid)
    momentum = (still * smooth(grid.shape, sigma, 2, channels)) if momentum is None else momentum
    weight = torch.ones(1, 1, *grid.shape, dtype=torch.float64) if weight is None else weight
    one = Shot(momentum, image, weight, addition, Gaussian(SIGMA), steps)
    _, start = one.momenta(*one.beginning)
    speed = one.kernel.smooth(start, grid.spacing.tolist()).norm(dim=1).max()
    return one.with_params(momentum * motion / speed)


def masses(one):
    """p at each time of a shot, `(steps + 1, 1, C, …)`."""
    found, (u, added) = [], one.beginning
    for n in range(one.steps + 1):
        found.append(one.momenta(u, added)[0])
        if n < one.steps:
            u, added, *_ = one.step(n, u, added)
    return torch.stack(found)


# ---- the path


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_addition_nothing_is_added_whatever_the_mask(ndim):
    weight = (smooth(SHAPES[ndim], seed=5) > 0).double()
    plain, masked = (shot(ndim, weight=w, steps=6) for w in (None, weight))
    assert torch.equal(plain.final.data, masked.final.data)
    assert not masked.appearance.any()
    assert torch.equal(plain.flow.field, masked.flow.field)


def test_what_is_added_lies_within_the_mask_where_nothing_moves():
    """A flat image has no slopes, so no velocity: the appearance is ν M p₀ until the image is no longer flat."""
    grid = Grid.centred((30, 32), 1.0)
    momentum, weight = smooth(grid.shape, seed=3), (smooth(grid.shape, seed=4) > 0).double()
    flat = Image(torch.ones(1, 1, *grid.shape, dtype=torch.float64), grid)
    one = Shot(momentum, flat, weight, 0.3, Gaussian(3.0), steps=1)
    torch.testing.assert_close(one.appearance, 0.3 * weight * momentum, rtol=0, atol=1e-9)
    assert not one.flow.field.any()


def waves(ndim, edge, addition, steps=20):
    """A shot of formulas of world points, on voxels of `edge` mm; the fastest point moves by 1 mm."""
    half, width, sigma = (24.0, 7.0, 5.0) if ndim == 2 else (22.0, 7.0, 5.0)
    grid = Grid.centred((round(2 * half / edge) + 1,) * ndim, edge)
    where = grid.to_world(grid.voxels(grid.affine)[None])
    ways = torch.tensor([0.3, 0.2, -0.25] if ndim == 2 else [0.2, 0.12, -0.15], dtype=torch.float64)[:ndim].view(
        1, -1, *[1] * ndim
    )
    phase = (where * ways).sum(1, keepdim=True)
    hill, whole = bump(grid, width), torch.ones(1, 1, *grid.shape, dtype=torch.float64)
    image, momentum = Image(hill * (1 + 0.5 * phase.cos()), grid), hill * (phase + 0.5).sin()
    one = Shot(momentum, image, whole, addition, Gaussian(sigma), steps)
    speed = one.kernel.smooth(one.momenta(*one.beginning)[1], grid.spacing.tolist()).norm(dim=1).max() * edge
    return one.with_params(momentum / speed)


def drift(values):
    return float((values / values[0] - 1).abs().max())


@pytest.mark.parametrize(("ndim", "edge"), [(2, 1.0), pytest.param(3, 1.5, marks=pytest.mark.slow)])
def test_a_flow_alone_keeps_its_norm(ndim, edge):
    """But for the grid, whose error falls as the square of the voxel's edge: to a quarter, with those of half the edge.

    Steps in time have next to no part in it.
    """
    coarse, fine = (drift(waves(ndim, size, 0.0).norms[0]) for size in (edge, edge / 2))
    assert 0.2 < fine / coarse < 0.32
    assert fine < (0.02 if ndim == 2 else 0.06)
    assert drift(waves(ndim, edge, 0.0, 40).norms[0]) == pytest.approx(coarse, rel=0.05)


def test_a_constant_mask_keeps_the_sum_of_both_norms_and_neither_alone():
    coarse, fine = (waves(2, edge, 0.2, 40).norms for edge in (1.0, 0.5))
    assert drift(fine.sum(0)) < 0.01
    assert drift(fine.sum(0)) < 0.32 * drift(coarse.sum(0))
    assert drift(fine[0]) > 0.5


def test_a_growing_mask_feeds_the_sum_by_what_it_uncovers():
    """dH/dt = ½ν⟨p, ∂M/∂t p⟩; the mask grows linearly over the whole image."""
    steps = 80
    rise = torch.linspace(0, 1, steps, dtype=torch.float64).view(-1, 1, 1, 1)
    grid = Grid.centred(SHAPES[2], 1.0)
    weight = rise * bump(grid, 9.0)
    one = shot(addition=0.05, steps=steps, weight=weight)
    total = one.norms.sum(0)
    p = masses(one)[:steps]
    middle = (p[1:] + p[:-1]) / 2
    fed = 0.05 / 2 * (middle.square() * (weight[1:] - weight[:-1])[:, None]).mean((1, 2, 3, 4))
    assert float(total[-1] / total[0]) > 1.5
    assert float(fed.sum() / (total[-1] - total[0])) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("addition", [0.0, 0.05])
@pytest.mark.parametrize("ndim", [2, 3])
def test_mass_is_kept(ndim, addition):
    grid = Grid.centred(SHAPES[ndim], 1.0)
    one = shot(ndim, addition, motion=1.5, momentum=bump(grid, 5.0 if ndim == 2 else 3.5))
    total = masses(one).flatten(1).sum(1)
    assert float((total / total[0] - 1).abs().max()) < 0.01


def test_intensities_have_no_unit():
    """Intensities times a, momenta by a and the addition times a²: one map, and so the pairs (μ, ρ) and (cμ, c²ρ)."""
    one, a = shot(addition=0.02, steps=8), 37.0
    image = replace(one.image, data=a * one.image.data)
    other = replace(one, image=image, momentum=one.momentum / a, addition=0.02 * a * a)
    torch.testing.assert_close(other.flow.field, one.flow.field, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other.final.data, a * one.final.data, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.norms, one.norms, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("mu", "rho"), [(0.2, 4.0), (0.6, 36.0)])
def test_both_numbers_of_the_paper_enter_by_one(mu, rho):
    """Equation 4 as printed, by its PDE of z and small steps in time, against a shot with ν = μ²/ρ and p = ρ z / μ."""
    grid, steps = Grid.centred(SHAPES[2], 1.0), 40
    weight = bump(grid, 8.0)
    one = shot(addition=mu * mu / rho, weight=weight, steps=steps, motion=0.7)
    image, z = one.image.data, one.momentum * mu / rho

    def grad(f):
        return torch.stack(torch.gradient(f[0, 0], dim=(0, 1)))[None]

    for _ in range(steps):
        v = -(rho / mu) * one.kernel.smooth(z * grad(image), [1.0, 1.0])
        flux = sum(torch.gradient((z * v[:, a : a + 1])[0, 0], dim=a)[0] for a in range(2))
        image, z = (
            image + (-(grad(image) * v).sum(1, keepdim=True) + mu * weight * z) / steps,
            z - flux / steps,
        )
    change = (one.final.data - one.image.data).abs().max()
    assert float((image - one.final.data).abs().max()) < 0.06 * float(change)


def test_scalar_momenta_shoot_as_vector_momenta_do():
    """The geodesic of velocities from the same beginning, by momenta that are transported as vectors."""
    one = shot(motion=0.7)
    _, momentum = one.momenta(*one.beginning)
    velocity = one.kernel.smooth(momentum, [1.0, 1.0])
    other = Geodesic(-velocity, one.grid, one.kernel, steps=20)
    apart = (other.displacement(one.grid) - one.flow.displacement(one.grid)).norm(dim=1)
    assert float(apart.max()) < 0.02


@pytest.mark.parametrize("turn", ["flipped", "permuted"])
def test_the_order_of_the_stored_voxels_changes_nothing_in_the_world(turn, oblique):
    """Of a shot on an oblique grid with voxels of unlike edges: a scene of formulas, however its voxels are stored."""
    grid = oblique((46, 40), seed=3)
    n = grid.shape[0] - 1
    change = [[-1.0, 0, n], [0, 1, 0], [0, 0, 1]] if turn == "flipped" else [[0, 1.0, 0], [1, 0, 0], [0, 0, 1]]

    def turned(values):
        return values.flip(2) if turn == "flipped" else values.mT

    one = shot(addition=0.05, steps=8, grid=grid)
    shape = grid.shape if turn == "flipped" else grid.shape[::-1]
    stored = Grid(shape, grid.affine @ torch.tensor(change, dtype=torch.float64))
    other = replace(
        one,
        momentum=turned(one.momentum),
        image=Image(turned(one.image.data), stored),
        weight=turned(one.weight),
    )
    points = torch.tensor([[[5.0, 8.0], [-7.0, 6.0], [0.0, -11.0], [12.0, 3.0]]], dtype=torch.float64)
    assert float((one.flow(points) - points).norm(dim=-1).max()) > 0.1
    torch.testing.assert_close(other.flow(points), one.flow(points), rtol=0, atol=1e-9)
    torch.testing.assert_close(other.final.data, turned(one.final.data), rtol=0, atol=1e-9)


def test_the_flow_is_the_path():
    """One interpolates velocities, the other the displacement; pieces in another order lead elsewhere."""
    one = waves(2, 0.5, 0.0)
    one = one.with_params(6 * one.momentum)
    u, added = one.beginning
    for n in range(one.steps):
        u, added, *_ = one.step(n, u, added)
    turned = replace(one.flow, field=one.flow.field.flip(0))
    right, wrong = (float((flow.displacement(one.grid) - u).norm(dim=1).max()) for flow in (one.flow, turned))
    assert right < 0.2 * wrong
    *_, (last, new) = one.path()
    assert torch.equal(last.data + new, one.final.data)
    home = (one.flow.inverse() @ one.flow).displacement(one.grid)
    assert float(home.norm(dim=1).max()) < 0.2 * float(u.norm(dim=1).max())


def test_what_a_step_adds_moves_with_the_image():
    """Of one step: ν M p₀, pulled through its flow."""
    grid = Grid.centred(SHAPES[2], 1.0)
    one = shot(addition=0.05, steps=1, weight=bump(grid, 8.0), motion=2.0)
    new = Image(0.05 * one.weight * one.momentum, grid)
    moved = pull(new, one.flow, onto=grid, outside=0.0).data
    torch.testing.assert_close(one.appearance, moved, rtol=0, atol=1e-9)
    assert float((moved - new.data).abs().max()) > 0.1 * float(new.data.abs().max())


def test_channels_share_one_velocity():
    """A channel that carries no momentum is moved along; two that carry half each move as one does."""
    one = shot(steps=6)
    twice = replace(one.image, data=torch.cat([one.image.data, one.image.data], 1))
    half = replace(one, image=twice, momentum=torch.cat([one.momentum, one.momentum], 1) / 2)
    torch.testing.assert_close(half.flow.field, one.flow.field, rtol=1e-9, atol=1e-12)
    rider = replace(half, momentum=torch.cat([one.momentum, 0 * one.momentum], 1))
    torch.testing.assert_close(rider.final.data[:, 1], one.final.data[:, 0], rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_differences_and_the_same_computed_again(monkeypatch):
    one = shot(addition=0.05, steps=4)
    goal = smooth(one.grid.shape, seed=9)

    def objective(momentum):
        each = one.with_params(momentum)
        return (each.final.data - goal).square().mean() + 0.1 * (each.kinetic + each.added)

    def slope():
        momentum = one.momentum.clone().requires_grad_()
        return torch.autograd.grad(objective(momentum), momentum)[0]

    found = slope()
    way = smooth(one.grid.shape, seed=11)
    step = 1e-5
    measured = (objective(one.momentum + step * way) - objective(one.momentum - step * way)) / (2 * step)
    assert float((found * way).sum()) == pytest.approx(float(measured), rel=1e-5)
    monkeypatch.setattr("pullback.methods.pair.image_shooting.KEPT", 0)
    assert torch.equal(slope(), found)


# ---- masks that grow


@pytest.mark.parametrize("ndim", [2, 3])
def test_balls_hold_their_share_of_each_part(ndim, oblique):
    grid = oblique((40, 44) if ndim == 2 else (22, 24, 20), seed=4)
    ends = [3.0 if ndim == 3 else 7.0, 2.5 if ndim == 3 else 5.0]
    centre, span = grid.centre, grid.affine[:-1, 0] * 8 * (1 if ndim == 3 else 1.5)
    places = [(centre + span).tolist(), (centre - span).tolist()]
    parts = [bump(grid, 1.0, at) > math.exp(-0.5 * radius**2) for at, radius in zip(places, ends, strict=True)]
    region = (parts[0] | parts[1]).double()
    found = balls(region, grid, 0.2)
    for part in parts:
        assert float(found[part].mean()) == pytest.approx(0.2, abs=1.5 / int(part.sum()) + 0.01)
    assert not found[region == 0].any()


def test_the_ball_of_a_bent_region_lies_within_it():
    """The middle of a ring's box is its hole."""
    grid = Grid.centred((41, 41), 1.0)
    away = grid.to_world(grid.voxels(grid.affine)[None]).norm(dim=1, keepdim=True)
    ring = ((away > 10) & (away < 16)).double()
    ball = balls(ring, grid, 0.05)
    assert ball.any()
    assert not ball[ring == 0].any()


def test_the_mask_grows_from_the_ball_to_the_region():
    grid = Grid.centred((40, 44), 1.0)
    region = (bump(grid, 1.0, (2.0, -1.0)) > math.exp(-0.5 * 9**2)).float()
    masks = Growth(0.1)(region, grid, 6)
    assert masks.shape == (6, 1, 40, 44)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    sizes = masks.sum((1, 2, 3))
    assert (sizes.diff() > 0).all()
    first, last = masks[0] > 0.5, masks[-1] > 0.5
    inside = region[0] > 0.5
    assert float((last & inside).sum() / (last | inside).sum()) > 0.9
    assert float((first & ~inside).sum()) == 0


# ---- what is found

QUICK = Metamorphosis(
    Gaussian(4.0), 0.05, steps=6, growing=None, solver=Descend(60, 0.5, last=0.1), levels=Levels(coarsest=24)
)


def pushed(size=44, radius=6.0, dtype=torch.float32):
    """A disc with four spots about it; the fixed one has a lesion that pushed them outwards.

    In the plane r² = s² + ¾ R² keeps areas: it is where tissue at radius s comes to lie.
    """
    grid = Grid.centred((size, size), 1.0)
    where = grid.to_world(grid.voxels(grid.affine)[None])

    def scene(at):
        values = torch.sigmoid(1.5 * (15 - at.norm(dim=1, keepdim=True)))
        for x, y in ((8.0, 0.0), (-8.0, 0.0), (0.0, 8.0), (0.0, -8.0)):
            spot = at - torch.tensor([x, y], dtype=at.dtype).view(1, 2, 1, 1)
            values = values - 0.6 * torch.sigmoid(1.5 * (3 - spot.norm(dim=1, keepdim=True)))
        return values

    r = where.norm(dim=1, keepdim=True).clamp(min=1e-6)
    s = torch.where(r > radius, (r.square() - 0.75 * radius**2).clamp(min=0).sqrt(), r / 2)
    lesion = r <= radius
    after = torch.where(lesion, 0.5, scene(where * s / r))
    return Image(after.to(dtype), grid, ~lesion), Image(scene(where).to(dtype), grid)


def halves(image, other, where=None):
    """½ Σ of the squared difference."""
    squares = (image.data - other.data).square() / 2
    return float((squares if where is None else squares * where).sum())


@pytest.fixture(scope="module")
def found():
    fixed, moving = pushed()
    plain = replace(fixed, mask=None)
    one = replace(QUICK, scaled=False)
    return {
        "LDDMM": replace(one, addition=0.0)(fixed, moving),
        "masked": replace(one, addition=0.0, masked=True)(fixed, moving),
        "metamorphosis": one(plain, moving),
        "weighted": one(fixed, moving),
        "growing": replace(one, growing=Growth(solver=Descend(20, 0.5, last=0.1)))(fixed, moving),
    }


def test_the_less_may_be_added_the_further_from_the_fixed_image(found):
    fixed, moving = pushed()
    final = {name: halves(each.maps["final"] if each.maps else each.moved, fixed) for name, each in found.items()}
    assert final["metamorphosis"] < final["weighted"] < final["LDDMM"] < halves(moving, fixed)
    assert final["growing"] < final["LDDMM"]
    for each in found.values():
        assert float(each.jacobian.min()) > 0


def test_with_a_mask_it_moves_what_is_there_and_paints_the_lesion(found):
    """Outside the lesion it deforms better than metamorphosis, which paints there; the lesion is filled."""
    fixed, _ = pushed()
    outside, lesion = fixed.mask, ~fixed.mask
    left = {name: halves(each.moved, fixed, outside) for name, each in found.items()}
    for name in ("weighted", "growing"):
        assert left[name] < 0.8 * left["metamorphosis"]
        added = found[name].maps["appearance"].data.abs()  # which flows on with the tissue, by 3 voxels at most
        near = torch.nn.functional.max_pool2d(lesion.float(), 7, 1, 3) > 0
        assert float(added[near].sum()) > 0.99 * float(added.sum())
        assert float((found[name].maps["final"].data - fixed.data)[lesion].abs().mean()) < 0.1
    painted = found["metamorphosis"].maps["appearance"].data.abs()
    assert float(painted[lesion].sum()) < 0.7 * float(painted.sum())


def test_the_true_push_is_found(found):
    """Mean error over the ring of tissue about the lesion, where the truth moves by 2 voxels."""
    fixed, _ = pushed()
    where = fixed.grid.to_world(fixed.grid.voxels(fixed.data)[None])
    r = where.norm(dim=1, keepdim=True)
    truth = where * ((r.square() - 27).clamp(min=0).sqrt() / r - 1)
    ring = ((r > 6.5) & (r < 13))[:, 0]

    def off(name):
        return float((found[name].transform.displacement(fixed.grid) - truth).norm(dim=1)[ring].mean())

    assert float(truth.norm(dim=1)[ring].mean()) > 1.4
    assert off("weighted") < 0.75 < off("metamorphosis")


def test_maps_and_numbers_are_those_of_the_answer(found):
    answer = found["weighted"]
    assert set(answer.maps) == {"appearance", "final"}
    torch.testing.assert_close(
        answer.maps["final"].data, answer.moved.data + answer.maps["appearance"].data, rtol=0, atol=1e-6
    )
    fixed, _ = pushed()
    told = answer.stats.numbers
    assert told["similarity"] == pytest.approx(2 * halves(answer.maps["final"], fixed) / fixed.data.numel(), rel=0.05)
    plain = found["LDDMM"]
    assert not plain.maps
    assert plain.stats.numbers["added"] == 0
    # of a path with a constant norm: its length is the root of twice the energy
    assert plain.stats.numbers["length"] == pytest.approx((2 * plain.stats.numbers["kinetic"]) ** 0.5, rel=0.01)


def test_intensities_of_other_scales_and_a_lesion_that_outshines_all():
    """The unit of each image goes, and the maps are in that of the moving one; what the mask hides sets no scale."""
    fixed, moving = pushed()
    one = replace(QUICK, solver=Descend(12, 0.5))
    plain = one(fixed, moving)
    other = one(replace(fixed, data=300 * fixed.data - 20), replace(moving, data=90 * moving.data + 5))
    apart = (plain.transform.displacement(fixed.grid) - other.transform.displacement(fixed.grid)).norm(dim=1)
    assert float(apart.max()) < 0.02
    torch.testing.assert_close(other.maps["appearance"].data / 90, plain.maps["appearance"].data, rtol=0, atol=0.01)
    bright = replace(fixed, data=torch.where(fixed.mask, fixed.data, 5.0))
    shown = one(bright, moving)
    assert float(shown.maps["final"].data[~fixed.mask].mean()) > 1.5


def test_a_start_is_gone_on_from():
    fixed, moving = pushed()
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 2] = 30.0
    away = Image(moving.data, Grid(moving.grid.shape, matrix @ moving.grid.affine))
    one = replace(QUICK, solver=Descend(10, 0.5))
    plain, begun = one(fixed, moving), one(fixed, away, start=Affine(matrix))
    home = Affine(torch.linalg.inv(matrix)) @ begun.transform
    apart = (home.displacement(fixed.grid) - plain.transform.displacement(fixed.grid)).norm(dim=1)
    assert float(apart.max()) < 1e-2
    torch.testing.assert_close(begun.maps["final"].data, plain.maps["final"].data, rtol=0, atol=1e-3)


# ---- contracts and refusals

FEW = replace(METHOD.register, steps=4, solver=Descend(6, 0.5), levels=Levels(coarsest=20))


@pytest.mark.parametrize("problem", [*problems("identity", "shift", "mask", "anisotropic", "batch", ndim=2)], ids=str)
def test_contract(problem):
    check_register(Metamorphosis(steps=4, solver=Descend(6, 0.5), levels=Levels(coarsest=20)), problem, solves=False)


@pytest.mark.slow
@pytest.mark.parametrize("problem", problems("identity", "smooth", "mask", ndim=3), ids=str)
def test_contract_in_space(problem):
    check_register(FEW, problem, solves=problem.name == "identity")


def test_lddmm_is_without_addition_and_leaves_out_what_is_hidden():
    assert (LDDMM.register.addition, LDDMM.register.masked) == (0.0, True)
    (problem,) = problems("smooth", ndim=2)
    check_register(replace(LDDMM.register, solver=Descend(25, 0.5, last=0.1)), problem)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"steps": 0}, "one step"),
        ({"addition": -0.1}, "0 or more"),
        ({"penalty": float("nan")}, "0 or more"),
        ({"masked": True}, "addition of 0"),
    ],
)
def test_numbers_of_no_path_are_refused(numbers, said):
    with pytest.raises(InputError, match=said):
        Metamorphosis(**numbers)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_no_ball_are_refused(share):
    with pytest.raises(InputError, match="between 0 and 1"):
        Growth(share)


def test_a_kernel_narrower_than_a_voxel_is_refused():
    fixed, moving = pushed()
    with pytest.raises(InputError, match=r"kernel of 0\.5 is narrower than a voxel of 1 \(mm\)"):
        replace(QUICK, kernel=Gaussian(0.5))(fixed, moving)


def test_a_mask_of_what_to_see_is_no_mask_of_what_is_new():
    fixed, moving = pushed()
    with pytest.raises(InputError, match=r"hides 94% .*exclude the lesion alone"):
        replace(QUICK, scaled=False)(replace(fixed, mask=~fixed.mask), moving)


def test_a_lesion_far_from_the_moving_image_is_refused():
    fixed, moving = pushed()
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 2] = 30.0
    with pytest.raises(InputError, match="align the two first"):
        QUICK(fixed, replace(moving, grid=Grid(moving.grid.shape, matrix @ moving.grid.affine)))


def test_a_mask_that_hides_nothing_or_is_cut_off_is_told():
    fixed, moving = pushed()
    one = replace(QUICK, solver=Descend(1, 0.5))
    with pytest.warns(UserWarning, match="hides nothing"):
        answer = one(replace(fixed, mask=torch.ones_like(fixed.mask)), moving)
    assert not answer.maps["appearance"].data.any()
    cut = fixed.mask.clone()
    cut[..., 20:24] = False
    with pytest.warns(UserWarning, match="cut off by the border"):
        one(replace(fixed, mask=cut), moving)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one(fixed, moving)


def test_what_moves_too_far_in_a_step_is_told():
    fixed, moving = pushed()
    with pytest.raises(InputError, match=r"voxels in one of 6 steps: take more steps in time"):
        replace(QUICK, solver=Descend(3, 1e30))(fixed, moving)


# ---- the command


@pytest.mark.slow
def test_the_command_writes_the_maps_and_labels_follow_the_deformation(tmp_path):
    """After rigid and affine stages, which do not see the lesion; intensities are the files' own."""
    fixed, moving = pushed(size=52)
    edge = torch.diag(torch.tensor([1.5, 1.5, 1.0], dtype=torch.float64))
    grid = Grid(fixed.grid.shape, edge @ fixed.grid.affine)
    spots = Labels((moving.data > 0.7).long(), grid)
    for name, data in (("fixed", fixed.data * 200), ("moving", moving.data * 900 + 50)):
        write_image(Image(data, grid), tmp_path / f"{name}.nii.gz")
    write_image(Labels((~fixed.mask).long(), grid), tmp_path / "lesion.nii.gz")
    write_image(spots, tmp_path / "spots.nii.gz")
    few = {"steps": "5", "solver.steps": "30", "growing.solver.steps": "10", "kernel.sigma": "6"}
    register = register_of(How(method="metamorphosis", settings=few, start="header", preset="fast"))
    content = register_files(
        ImageFiles([tmp_path / "fixed.nii.gz"], exclude=tmp_path / "lesion.nii.gz"),
        ImageFiles([tmp_path / "moving.nii.gz"], labels=tmp_path / "spots.nii.gz"),
        register,
        tmp_path / "out",
    )
    read = {
        name: read_image(tmp_path / "out" / f"{name}.nii.gz").data
        for name in ("moved", "maps/appearance", "maps/final", "moved_labels")
    }
    torch.testing.assert_close(read["maps/final"], read["moved"] + read["maps/appearance"], rtol=0, atol=0.1)
    lesion = ~fixed.mask
    new = 50 + 900 * 0.5
    off = {name: float((read[name][lesion] - new).abs().mean()) for name in ("moved", "maps/final")}
    assert off["maps/final"] < 0.5 * off["moved"]
    there = read_transform(tmp_path / "out" / "fixed_to_moving.h5")
    again = pull(Image(moving.data * 900 + 50, grid), there, onto=grid).data
    torch.testing.assert_close(read["moved"], again, rtol=0, atol=1.0)
    assert torch.equal(read["moved_labels"].long(), pull(spots, there, onto=grid).data)
    assert {"similarity", "kinetic", "added", "length", "voxels per step"} <= content["found"].keys()
    assert [name for name in content["files"] if "/" in name] == ["maps/appearance.nii.gz", "maps/final.nii.gz"]


def test_lddmm_by_name_hides_the_lesion_and_metamorphosis_sees_it():
    """The lesion of the fixed image, wild as it may be, does not matter to the one and is painted by the other."""
    fixed, moving = pushed()
    wild = replace(fixed, data=torch.where(fixed.mask, fixed.data, 0.1))
    settings = {"steps": "4", "solver.steps": "8"}
    for name, alike in (("lddmm", True), ("metamorphosis", False)):
        few = settings | ({} if alike else {"growing": "null"})
        register = register_of(How(method=name, settings=few, aligned=True))
        one, two = register(fixed, moving), register(wild, moving)
        assert torch.equal(one.moved.data, two.moved.data) == alike
        assert bool(two.maps) != alike
