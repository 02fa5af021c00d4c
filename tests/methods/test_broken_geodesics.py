"""Broken geodesics: pieces that bring images nearer, one by one, and a length that tells how far they lay apart."""

import itertools
from dataclasses import replace

import pytest
import torch

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.energies import LNCC, Diffusion
from pullback.errors import InputError
from pullback.files import read_image
from pullback.methods.pair.broken_geodesics import METHOD, BrokenGeodesics
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.log_demons import LogDemons
from pullback.metrics import Folding, Length, piece_lengths
from pullback.numerics.integrate import compose
from pullback.solvers import DeformableStage, Descend, Stalled
from pullback.space import Affine, Displacement, Flow, Image, Velocity, joined, pull, resample
from pullback.testing import check_register, problems
from pullback.workflows.how import How, register_of

NEVER = Stalled(1, -1.0)
DEMONS = LogDemons(symmetric=False, iterations=40)
BROKEN = BrokenGeodesics(DEMONS, 4, NEVER)


def mse(pair, transform):
    return float((Alignment(pair, transform).moved.data - pair.fixed.data).square().mean())


@pytest.fixture(scope="module")
def slices(shared) -> list[Pair]:
    """Two pairs of real slices at half their resolution."""
    files = sorted((shared / "data" / "oasis_trt20_2d" / "images").glob("*.nii.gz"))[:3]
    images = [normalised(read_image(file)) for file in files]
    half = images[0].grid.at_spacing(tuple((2 * images[0].grid.spacing).tolist()))
    small = [resample(replace(image, grid=images[0].grid), half) for image in images]
    return [Pair(small[0], small[1]), Pair(small[2], small[0])]


def curvature(field):
    """Sum over axes of the largest second difference: linear interpolation is wrong by at most an eighth of it."""
    return sum(float(field.diff(n=2, dim=axis).abs().max()) for axis in range(2, field.ndim))


def first(flow: Flow, n: int) -> Flow:
    return replace(flow, field=flow.field[:n], pieces=n)


def test_each_piece_brings_real_slices_nearer_and_nothing_folds(slices):
    for pair in slices:
        found = BROKEN(*pair.images)
        flow = found.transform
        assert isinstance(flow, Flow)
        values = [mse(pair, Affine.identity(2)), *(mse(pair, first(flow, n)) for n in range(1, flow.pieces + 1))]
        assert flow.pieces == 4
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.6 * values[1]
        wrong = joined([Velocity(piece[None], flow.grid) for piece in flow.field.flip(0)])
        assert mse(pair, wrong) > 1.2 * values[-1]
        for n in range(flow.pieces):
            piece = Velocity(flow.field[n : n + 1], flow.grid)
            assert Folding()(Alignment(pair, piece))["folding % (all)"] == 0
        # det of a product is the product of dets: what is left is of differences over two voxels, where dets are small
        assert Folding()(Alignment(pair, flow))["folding % (all)"] < 0.1
        back = flow.inverse()
        there = flow.own_displacement
        home = compose(there, back.own_displacement).abs().max()
        assert (
            home < flow.pieces * curvature(there) / 2
        )  # what is interpolated on the way, by the field's second differences
        assert home < 0.2 * there.abs().max()


def test_lengths_are_told_piece_by_piece_and_fall(slices):
    for pair in slices:
        found = BROKEN(*pair.images)
        numbers = found.stats.numbers
        each = [numbers[f"length mm/{n}"] for n in range(1, 5)]
        assert each == piece_lengths(found)
        assert each == sorted(each, reverse=True)
        assert numbers["length mm"] == pytest.approx(sum(each)) == pytest.approx(Length()(found)["length mm"])
        assert numbers["pieces"] == 4
        assert [stage.name for stage in found.stats.stages] == [f"piece {n}" for n in range(1, 5)]


def test_one_piece_is_what_finds_it():
    pair = problems("smooth", ndim=2)[0].pair
    one, alone = replace(BROKEN, pieces=1)(*pair.images), DEMONS(*pair.images)
    assert torch.equal(one.transform.field, alone.transform.field)
    assert one.stats.numbers["length mm"] == alone.stats.numbers["length mm"] > 0


def test_pieces_are_the_same_however_many_are_allowed(slices):
    """Each is found from what the ones before have left, and nothing else."""
    pair = slices[0]
    two, four = (replace(BROKEN, pieces=n)(*pair.images).transform for n in (2, 4))
    torch.testing.assert_close(two.field, four.field[:2])
    seen = replace(pair, moving=pull(pair.moving, first(four, 1), onto=pair.fixed))
    second = DEMONS(*seen.images).transform
    assert (second.field - four.field[1:2]).norm() < 0.05 * second.field.norm()


def test_length_grows_with_the_size_of_a_deformation(smooth_field):
    """M = F ∘ exp(−s w): of nothing it is 0, and it rises with s."""
    (problem,) = problems("smooth", ndim=2)
    fixed = problem.pair.fixed
    w = smooth_field(fixed.grid.shape, 5, amplitude=1.0, shortest=40).to(fixed.data)
    lengths = []
    for size in (0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0):
        moving = pull(fixed, Velocity(-size * w, fixed.grid), onto=fixed) if size else fixed
        found = BrokenGeodesics(DEMONS)(fixed, moving)
        lengths.append(found.stats.numbers["length mm"])
    assert lengths[0] == pytest.approx(0, abs=1e-4)  # mm: rounding of float32
    assert lengths == sorted(lengths)


def test_ends_where_pieces_gain_too_little():
    pair = problems("smooth", ndim=2)[0].pair
    for share in (0.02, 0.3):
        register = replace(BROKEN, pieces=8, until=Stalled(1, share))
        flow = register(*pair.images).transform
        values = [mse(pair, Affine.identity(2)), *(mse(pair, first(flow, n)) for n in range(1, flow.pieces + 1))]
        gains = [a - b for a, b in itertools.pairwise(values)]
        assert 1 <= flow.pieces < 8
        assert all(gain > share * values[0] for gain in gains[:-1])


def test_a_piece_that_makes_it_worse_is_not_kept():
    """By a register that goes the wrong way: the answer does not move, and says so."""

    def wrong(fixed: Image, moving: Image, start=None) -> Alignment:
        found = DEMONS(fixed, moving)
        return replace(found, transform=found.transform.inverse())

    pair = problems("smooth", ndim=2)[0].pair
    found = BrokenGeodesics(wrong)(*pair.images)
    assert not found.transform.field.any()
    assert found.stats.numbers["length mm"] == 0
    assert len(found.stats.stages) == 1


def test_goes_on_from_a_start():
    (problem,) = problems("shift", ndim=2)
    truth = problem.pair.truth
    half = Affine.about(torch.eye(2, dtype=torch.float64), torch.zeros(2).double(), truth.matrix[:2, 2] / 2)
    found = BROKEN(*problem.pair.images, start=half)
    assert found.transform.parts[0].as_affine is not None
    assert problem.distance(found.transform) < problem.within
    assert 0 < found.stats.numbers["length mm"] < float(truth.matrix[:2, 2].norm())


@pytest.mark.filterwarnings("ignore:the images' intensities")
def test_pieces_by_local_correlation_see_through_contrast():
    """The moving image inverted: demons go astray, and local correlation does not see it."""
    (problem,) = problems("smooth", ndim=2)
    moving = replace(problem.pair.moving, data=1 - problem.pair.moving.data)
    by = DeformableStage(LNCC(7) + 0.5 * Diffusion(), steps=(60,), solver=Descend(step_size=0.15))
    same, found = (
        BrokenGeodesics(by, 2, energy=LNCC(7))(problem.pair.fixed, image).transform
        for image in (problem.pair.moving, moving)
    )
    assert problem.distance(found) < 0.6 * problem.distance(Affine.identity(2))
    assert problem.distance(found) == pytest.approx(problem.distance(same), abs=0.1)
    with pytest.warns(UserWarning, match="correlation of -"):
        demons = BROKEN(problem.pair.fixed, moving).transform
    assert problem.distance(demons) > problem.distance(found) + 0.3


def test_pieces_of_other_registers_are_refused():
    pair = problems("shift", ndim=2)[0].pair
    with pytest.raises(InputError, match="a Velocity or a Flow expected, got a Displacement"):
        BrokenGeodesics(ConvexAdam(spacing=4))(*pair.images)
    with pytest.raises(InputError, match="one piece or more"):
        BrokenGeodesics(pieces=0)


def test_a_batch_is_of_pairs_that_take_more_and_fewer_pieces():
    """One of the two does not move at all; those that are ready wait without motion."""
    (one,), (two,) = problems("smooth", ndim=2), problems("identity", ndim=2)
    fixed, moving = (a.stack([b]) for a, b in zip(one.pair.images, two.pair.images, strict=True))
    both = BROKEN(fixed, moving).transform
    assert both.batch == 2
    alone = BROKEN(*one.pair.images).transform
    torch.testing.assert_close(both.own_displacement[:1], alone.own_displacement)
    assert float(both.own_displacement[1].abs().max()) == pytest.approx(0, abs=1e-4)  # voxels: rounding


@pytest.mark.filterwarnings("ignore:the images' intensities")
@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("smooth", ndim=3)], ids=str)
def test_contract(problem):
    rounding = None if problem.name in METHOD.solves else problem.within
    solves = problem.name in METHOD.solves
    check_register(BrokenGeodesics(LogDemons(iterations=40), 2), problem, solves=solves, rounding=rounding)


def test_joined_flows_are_composed_from_left_to_right(smooth_field):
    grid = problems("shift", ndim=2)[0].pair.fixed.grid
    one, two, three = (Velocity(smooth_field(grid.shape, seed, amplitude=1.0), grid, 6 + seed) for seed in range(3))
    whole = joined([joined([one, two]), Affine.identity(2) @ three])
    assert (whole.pieces, whole.squarings) == (3, 8)
    apart = (whole.displacement(grid) - (one @ two @ three).displacement(grid))[:, :, 4:-4, 4:-4]
    assert apart.abs().max() < 0.05
    assert (whole.displacement(grid) - (three @ two @ one).displacement(grid)).abs().max() > 0.1
    other = Velocity(one.field[:, :, 1:], type(grid)((grid.shape[0] - 1, grid.shape[1]), grid.affine))
    turn = Affine(torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64))
    for wrong in ([], [one, other], [turn @ one], [one, Displacement(one.field, grid)]):
        with pytest.raises(InputError, match="expected"):
            joined(wrong)


def test_as_the_command_line_calls_it():
    settings = {"pieces": "2", "by.iterations": "30", "by.symmetric": "false"}
    register = register_of(How(method="broken-geodesics", aligned=True, settings=settings))
    (problem,) = problems("smooth", ndim=2)
    found = register(*problem.pair.images)
    assert problem.distance(found.transform) < problem.within
    numbers = found.stats.numbers
    assert numbers["length mm"] == pytest.approx(numbers["length mm/1"] + numbers["length mm/2"])
