"""Points keep what is known of them, wherever they go; normals are those of the surface where it lies."""

import math

import pytest
import torch

from pullback.numerics.random import make_generator
from pullback.space import Affine, Points, normals, push


def cloud(batch, count, ndim):
    known = {
        "label": torch.arange(count).expand(batch, -1) % 3,
        "name": tuple(f"point {n}" for n in range(count)),
        "weight": torch.rand(1, count, 2, generator=make_generator(1)),
    }
    return Points(torch.randn(batch, count, ndim, generator=make_generator(2), dtype=torch.float64), known)


@pytest.mark.parametrize(("batch", "ndim"), [(1, 2), (1, 3), (3, 3)])
def test_columns_go_where_points_go(batch, ndim):
    points = cloud(batch, 7, ndim)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, -1] = 5
    for moved in (push(points, Affine(matrix)), points.to(torch.device("cpu"))):
        assert moved.name == points.name
        assert torch.equal(moved.label, points.label)
        assert torch.equal(moved.columns["weight"], points.columns["weight"])
    torch.testing.assert_close(push(points, Affine(matrix)).data, points.data + 5)
    last = points.nth(batch - 1)
    assert last.name == points.name
    assert torch.equal(last.label[0], points.label[batch - 1])
    assert torch.equal(last.columns["weight"], points.columns["weight"])


@pytest.mark.parametrize(
    "which",
    [
        [4, 0, 4],
        (1,),
        [],
        slice(1, 6, 2),
        torch.tensor([3, 2]),
        torch.tensor([True, False, True, False, False, True, True]),
    ],
)
def test_some_points_are_those_and_what_is_known_of_them(which):
    points = cloud(2, 7, 3)
    rows = which if isinstance(which, slice) else torch.as_tensor(which)
    rows = torch.arange(7)[rows if isinstance(which, slice) or len(which) else rows.long()].tolist()
    some = points[which]
    assert some.data.shape == (2, len(rows), 3)
    for n, row in enumerate(rows):
        assert torch.equal(some.data[:, n], points.data[:, row])
        assert torch.equal(some.label[:, n], points.label[:, row])
        assert torch.equal(some.columns["weight"][:, n], points.columns["weight"][:, row])
        assert some.name[n] == points.name[row]
    with pytest.raises(TypeError, match="a slice"):
        points[3]


def test_columns_that_do_not_fit_are_refused():
    data = torch.zeros(2, 5, 3)
    for columns, what in (
        ({"name": ("a",) * 4}, "column 'name' for 2 × 5 points expected, got 4 words"),
        ({"label": torch.zeros(2, 4, dtype=torch.long)}, r"column 'label' .* got \(2, 4\)"),
        ({"label": torch.zeros(5, dtype=torch.long)}, r"got \(5,\)"),
        ({"weight": torch.zeros(3, 5)}, r"got \(3, 5\)"),
        ({"label": torch.zeros(2, 5)}, "integers"),
        ({"label": torch.zeros(2, 5, 1, dtype=torch.long)}, "integers"),
        ({"label": ("a",) * 5}, "integers"),
        ({"name": torch.zeros(2, 5)}, "tuple of strings"),
    ):
        with pytest.raises(ValueError, match=what):
            Points(data, columns)
    assert Points(data).name == ()
    assert Points(data).label is None


def test_points_in_a_few_words():
    assert repr(Points(torch.zeros(1, 1, 2))) == "Points(data=[[[0.0, 0.0]]])"
    shown = repr(cloud(1, 40, 3))
    assert (
        shown == "Points(data=1×40×3, columns={label: 1×40, name: ('point 0', 'point 1', … 40 in all), weight: 1×40×2})"
    )


def ball(rings=12, around=24):
    """A sphere of radius 3 about (1, 2, 3), its triangles counterclockwise from outside."""
    rows = [[n * around + (m + step) % around for step in (0, 1)] for n in range(rings) for m in range(around)]
    at = torch.linspace(0, math.pi, rings + 2, dtype=torch.float64)[1:-1]
    turn = torch.arange(around, dtype=torch.float64) * (2 * math.pi / around)
    height, turn = at.repeat_interleave(around), turn.repeat(rings)
    unit = torch.stack([height.sin() * turn.cos(), height.sin() * turn.sin(), height.cos()], 1)
    faces = []
    for n, m in ((n, m) for n in range(rings - 1) for m in range(around)):
        a, b = rows[n * around + m]
        c, d = a + around, b + around
        faces += [[a, c, b], [b, c, d]]
    return unit, Points((3 * unit + torch.tensor([1.0, 2, 3]).double())[None]), torch.tensor(faces)


def test_normals_of_a_sphere_point_away_from_its_centre():
    unit, points, faces = ball()
    found = normals(points, faces)[0]
    inner = slice(24, -24)  # the outermost rings have faces on one side alone
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found), dtype=torch.float64))
    assert float((found[inner] * unit[inner]).sum(1).min()) > math.cos(math.radians(3))  # a facet spans 15°
    torch.testing.assert_close(normals(points, faces.flip(1))[0], -found)


def test_normals_turn_with_the_surface():
    """By the inverse transposed, as normals do, where the surface is flat; and a reflection turns them over."""
    corners = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    linear = torch.randn(3, 3, generator=make_generator(4), dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = linear
    up = torch.linalg.inv(linear).mT @ torch.tensor([0.0, 0, 1], dtype=torch.float64) * torch.linalg.det(linear).sign()
    turned = normals(push(Points(corners), Affine(matrix)), faces)
    torch.testing.assert_close(turned[0], (up / up.norm()).expand(4, 3))


def test_normals_of_an_outline_in_the_plane():
    turn = torch.arange(36, dtype=torch.float64) * (2 * math.pi / 36)
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    edges = torch.stack([torch.arange(36), (torch.arange(36) + 1) % 36], 1)  # counterclockwise: outside is right
    torch.testing.assert_close(normals(Points(5 * circle[None]), edges)[0], circle)


def test_large_faces_weigh_more_and_lonely_vertices_face_nowhere():
    data = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 1], [0, 1, 0], [9, 9, 9]]])
    found = normals(Points(data), torch.tensor([[0, 1, 2], [0, 4, 3]]))[0]
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0, 4]) / 17**0.5)
    assert torch.equal(found[5], torch.zeros(3))
    with pytest.raises(ValueError, match=r"\(F, 3\)"):
        normals(Points(data), torch.tensor([[0, 1]]))
