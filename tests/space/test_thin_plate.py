"""Maps known at points: what they meet, what they leave straight, and the way back."""

import pytest
import torch
from scipy import ndimage

from pullback.data.lung_matches import read_matches
from pullback.errors import InputError
from pullback.numerics.random import make_generator
from pullback.space import Grid, Labels, Points, ThinPlate, outline, push


def drawn(n, ndim, seed=0, reach=50.0):
    return Points(reach * torch.randn(1, n, ndim, dtype=torch.float64, generator=make_generator(seed)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_landmark_is_met_and_its_way_back(ndim):
    fixed = drawn(30, ndim)
    moving = Points(fixed.data + drawn(30, ndim, 1, 3.0).data)
    transform = ThinPlate.between(fixed, moving)
    torch.testing.assert_close(push(fixed, transform).data, moving.data, atol=1e-6, rtol=0)
    torch.testing.assert_close(push(moving, transform.inverse()).data, fixed.data, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("ndim", "smoothing"), [(2, 0.0), (3, 0.0), (3, 100.0)])
def test_an_affine_map_is_met_everywhere(ndim, smoothing):
    linear = torch.eye(ndim, dtype=torch.float64) + 0.1 * torch.randn(ndim, ndim, generator=make_generator(2)).double()
    fixed, anywhere = drawn(20, ndim), drawn(40, ndim, 3, 200.0)
    transform = ThinPlate.between(fixed, Points(fixed.data @ linear + 7), smoothing)
    torch.testing.assert_close(transform(anywhere.data), anywhere.data @ linear + 7, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 5)])
def test_on_a_grid_it_is_what_it_is_at_its_voxels(oblique, shape):
    fixed = drawn(20, len(shape))
    transform = ThinPlate.between(fixed, Points(fixed.data + drawn(20, len(shape), 1, 2.0).data))
    grid = oblique(shape, seed=1)
    where = grid.voxels(fixed.data)[None]
    moved = grid.to_world(where + transform.displacement(grid)).flatten(2).mT
    torch.testing.assert_close(moved, transform(grid.to_world(where).flatten(2).mT))


@pytest.mark.parametrize(
    ("fixed", "moving", "what"),
    [
        (drawn(9, 3), drawn(8, 3), "got 9 and 8"),
        (drawn(3, 3), drawn(3, 3), "at least four points"),
        (Points(torch.ones(1, 9, 3).double()), drawn(9, 3), "four points that do not lie in one plane"),
        (Points(drawn(9, 3).data.repeat(1, 2, 1)), drawn(18, 3), "two of the fixed points coincide"),
    ],
)
def test_landmarks_that_make_no_map_are_refused(fixed, moving, what):
    with pytest.raises(InputError, match=what):
        ThinPlate.between(fixed, moving)


@pytest.mark.parametrize("shape", [(20, 18), (12, 14, 11)])
def test_an_outline_is_what_scipys_erosion_takes_away(oblique, shape):
    generator = make_generator(4)
    inside = torch.from_numpy(ndimage.gaussian_filter(torch.randn(shape, generator=generator).numpy(), 1.5)) > 0
    grid = oblique(shape, seed=3)
    wanted = inside.numpy() & ~ndimage.binary_erosion(inside.numpy())
    found = outline(Labels(inside[None, None].to(torch.uint8), grid), 10**6)
    voxels = grid.to_voxels(found.data.mT)[0].round().long()
    assert found.data.shape[1] == wanted.sum()
    assert wanted[tuple(voxels.numpy())].all()
    few = outline(Labels(inside[None, None].to(torch.uint8), grid), 10)
    assert few.data.shape[1] == 10
    assert torch.equal(few.data, found.data[:, :10])
    nothing = Labels(torch.zeros(1, 1, *shape, dtype=torch.uint8), Grid.centred(shape))
    assert outline(nothing, 10).data.shape[1] == 0


@pytest.mark.parametrize("ndim", [2, 3])
def test_outlines_of_each_label_are_those_of_each_alone(ndim):
    """Where two touch both have one, and none knows of the other's."""
    grid = Grid.centred((9, 8, 7)[:ndim])
    values = torch.randint(0, 4, (1, 1, *[3] * ndim), generator=make_generator(0)).repeat_interleave(3, 2)
    for axis in range(3, ndim + 2):
        values = values.repeat_interleave(3, axis)
    values = values[(..., *(slice(n) for n in grid.shape))]
    found = outline(Labels(values, grid), 10**6, each=True)
    for label in range(1, 4):
        alone = outline(Labels((values == label).long(), grid), 10**6).data[0]
        own = found[found.label[0] == label].data[0]
        assert {*map(tuple, own.tolist())} == {*map(tuple, alone.tolist())}
    few = outline(Labels(values, grid), 5, each=True)
    assert few.label[0].unique(return_counts=True)[1].tolist() == [5] * len(values[values > 0].unique())
    assert {*map(tuple, few.data[0].tolist())} < {*map(tuple, found.data[0].tolist())}
    assert outline(Labels(values, grid), 5).label is None
    whole = outline(Labels(values, grid), 10**6, each=True, cut=False).data
    voxels, last = grid.to_voxels(found.data.mT)[0].mT.round(), torch.tensor(grid.shape) - 1
    inner = found.data[0][((voxels > 0) & (voxels < last)).all(1)]
    assert {*map(tuple, whole[0].tolist())} == {*map(tuple, inner.tolist())}


@pytest.mark.parametrize("shape", [(23, 30), (14, 17, 12)])
def test_on_a_lattice_it_is_exact_at_its_nodes_and_near_between(oblique, shape):
    grid = oblique(shape, seed=3)
    fixed = drawn(25, len(shape))
    transform = ThinPlate.between(fixed, Points(fixed.data + drawn(25, len(shape), 1, 1.0).data), 20.0)
    found, exact = transform.on(grid, 4).displacement(grid), transform.displacement(grid)
    assert float((found - exact).abs().max()) < 0.05
    nodes = (..., *[slice(None, None, 4)] * len(shape))
    torch.testing.assert_close(found[nodes], exact[nodes], rtol=0, atol=1e-8)
    torch.testing.assert_close(transform.on(grid, 1).displacement(grid), exact, rtol=0, atol=1e-8)


def test_on_a_lattice_an_affine_map_stays_one(oblique):
    fixed, grid = drawn(20, 2), oblique((60, 52), seed=3)
    linear = torch.eye(2, dtype=torch.float64) + 0.05 * torch.randn(2, 2, generator=make_generator(2)).double()
    transform = ThinPlate.between(fixed, Points(fixed.data @ linear + 7), 10.0)
    off = (transform.on(grid).displacement(grid) - transform.displacement(grid)).abs()
    assert float(off.max()) < 0.02


def test_lungs_on_a_lattice(shared):
    """A real breath, known at every 4th voxel of the scan: a fiftieth of a voxel off, where points are dense more."""
    folder = shared / "data" / "lung_keypoints"
    if not folder.is_dir():
        pytest.skip("no real data: `shared/data/lung_keypoints` is missing")
    fixed, moving = (Points(points[None]) for points in read_matches(folder, "copd_04"))
    transform = ThinPlate.between(fixed, moving, 10.0)
    moved = torch.eye(4, dtype=torch.float64)
    moved[:3, 3] = fixed.data[0].median(0).values.round() - 20
    grid = Grid((40, 40, 40), moved)
    off = transform.on(grid).displacement(grid) - transform.displacement(grid)
    assert float(off.norm(dim=1).mean()) < 0.05
    assert float(off.abs().max()) < 0.25
