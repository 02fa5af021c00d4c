"""Points in files: their space is named, other columns stay, and pushing lands where the transform says."""

import csv
import json
import math
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from pullback.errors import InputError
from pullback.files import read_points, write, write_points
from pullback.files.points.tables import made_table
from pullback.space import Affine, BSpline, Displacement, Grid, Motion, Points, Velocity, push

TABLES = {
    "ras.csv": "label,R,A,S\none,1.5,-2,3\ntwo,0,4,-5e1\n",
    "lps.csv": "l, p ,s,weight\n-1.5,2,3,0.5\n0,-4,-50,1\n",
    "ants.csv": "x,y,z,t,label,comment\n-1.5,2,3,0,1,first\n0,-4,-50,0,2,\n",
    "five.fcsv": "# Markups fiducial file version = 5.8\n# CoordinateSystem = LPS\n# columns = id,x,y,z,ow\n"
    "a,-1.5,2,3,0\nb,0,-4,-50,0\n",
    "four.fcsv": "# Markups fiducial file version = 4.11\n# CoordinateSystem = 0\n# columns = id,x,y,z\n"
    "a,1.5,-2,3\nb,0,4,-50\n",
    "one.fcsv": "# CoordinateSystem = 1\na,-1.5,2,3\nb,0,-4,-50\n",
}
RAS = torch.tensor([[[1.5, -2, 3], [0, 4, -50]]], dtype=torch.float64)


def table(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", TABLES)
def test_one_set_of_points_in_any_table(tmp_path, name):
    path = table(tmp_path, name, TABLES[name])
    read = read_points(path, "lps" if name == "ants.csv" else None)
    assert torch.equal(read.points.data, RAS)
    moved = read.moved(Points(RAS + torch.tensor([0.1, 0, 1 / 3], dtype=torch.float64)))
    write(moved, tmp_path / f"moved_{name}")
    again = read_points(tmp_path / f"moved_{name}", "lps" if name == "ants.csv" else None)
    assert torch.equal(again.points.data, moved.points.data)
    assert again.head == read.head
    kept = [[c for n, c in enumerate(row) if n not in read.columns] for row in read.rows]
    assert [[c for n, c in enumerate(row) if n not in again.columns] for row in again.rows] == kept


@pytest.mark.parametrize(("header", "sign"), [("R,A", 1), ("L,P", -1), ("x,y", -1)])
def test_tables_in_two_dimensions(tmp_path, header, sign):
    path = table(tmp_path, "flat.csv", f"{header},label\n1,2,a\n3,4,b\n")
    read = read_points(path, "lps" if header == "x,y" else None)
    assert torch.equal(read.points.data, sign * torch.tensor([[[1.0, 2], [3, 4]]], dtype=torch.float64))


KNOWN = {  # names and labels of the points, which a table and Slicer's markups hold in columns of many titles
    "label,R,A,S\none,1,2,3\ntwo,4,5,6\n": (("one", "two"), None),
    "x,y,z,t,Label\n1,2,3,0,7\n4,5,6,0, -2 \n": (("7", "-2"), [7, -2]),
    "label,name,R,A,S\n7,tip,1,2,3\n7,root,4,5,6\n": (("tip", "root"), [7, 7]),
    "label,name,R,A,S\nL,tip,1,2,3\nR,root,4,5,6\n": (("L", "R"), None),
    "R,A,S,id\n1,2,3,a\n4,5,6\n": (("a", ""), None),
    "R,A,S,label\n1,2,3,5\n4,5,6\n": (("5", ""), None),
    ",R,A,S\n0,1,2,3\n1,4,5,6\n": (("0", "1"), None),
    "R,A,S,weight\n1,2,3,5\n4,5,6,6\n": ((), None),
}


@pytest.mark.parametrize("text", KNOWN)
def test_columns_of_tables(tmp_path, text):
    read = read_points(table(tmp_path, "p.csv", text), "lps" if "x,y" in text else None)
    name, label = KNOWN[text]
    assert read.points.name == name
    assert (read.points.label is None) if label is None else read.points.label.tolist() == [label]
    moved = read.moved(Points(read.points.data + 1))
    assert moved.points.name == name
    write(moved, tmp_path / "out.csv")
    again = read_points(tmp_path / "out.csv", "lps" if "x,y" in text else None)
    assert again.points.columns.keys() == read.points.columns.keys()
    assert again.points.name == name


def test_columns_of_slicer(tmp_path):
    text = "# CoordinateSystem = 1\n# columns = id,x,y,z,label\na,1,2,3,4\nb,0,-4,-50,4\n"
    read = read_points(table(tmp_path, "p.fcsv", text))
    assert (read.points.name, read.points.label.tolist()) == (("4", "4"), [[4, 4]])
    controls = [{"label": label, "position": [n, 0, 0]} for n, label in enumerate(("12", "tip"))]
    assert read_points(markups(tmp_path, controlPoints=controls)).points.name == ("12", "tip")
    assert read_points(markups(tmp_path, controlPoints=controls)).points.label is None
    assert read_points(markups(tmp_path, controlPoints=controls[:1])).points.label.tolist() == [[12]]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("titles", [(), ("label",), ("name",), ("label", "name")])
def test_points_that_come_from_no_file_are_written_with_their_columns(tmp_path, titles, ndim):
    known = {"label": torch.tensor([[3, -1]]), "name": ("left, upper", "b")}
    points = Points(RAS[:, :, :ndim] / 3, {title: known[title] for title in titles})
    write(made_table(points), tmp_path / "made.csv")
    read = read_points(tmp_path / "made.csv").points
    assert torch.equal(read.data, points.data)
    assert ("label" in titles) == (read.label is not None)
    assert read.name == {(): (), ("label",): ("3", "-1")}.get(titles, known["name"])


def test_quotes_and_byte_order_marks_are_read(tmp_path):
    path = table(tmp_path, "excel.csv", '\ufeffR,A,S,"a, b"\r\n1,2,3,"tip, left"\r\n')
    read = read_points(path)
    write_points(read, tmp_path / "again.csv")
    with (tmp_path / "again.csv").open() as file:
        assert list(csv.reader(file)) == [["R", "A", "S", "a, b"], ["1.0", "2.0", "3.0", "tip, left"]]


@pytest.mark.parametrize(
    ("name", "text", "space", "says"),
    [
        ("p.csv", "x,y,z\n1,2,3\n", None, ["--space", "R,A,S"]),
        ("p.csv", "x,y,z\n1,2,3\n", "mni", ["ras or lps", "mni"]),
        ("p.csv", "R,A,S\n1,2,3\n", "lps", ["RAS", "lps"]),
        ("p.csv", "1,2,3\n4,5,6\n", "lps", ["first line", "1,2,3"]),
        ("p.csv", "R,A,S\n", None, ["no points"]),
        ("p.csv", "", None, ["first line"]),
        ("p.csv", "R,A,S\n1,2,3\n4,five,6\n", None, ["line 3", "column 2", "five"]),
        ("p.csv", "R,A,S\n1,2\n", None, ["line 2", "column 3"]),
        ("p.csv", "R,A,S\n1,2,nan\n", None, ["line 2", "finite"]),
        ("p.csv", "R,A,S,R\n1,2,3,4\n", None, ["twice"]),
        ("p.fcsv", "a,1,2,3\n", None, ["CoordinateSystem"]),
        ("p.fcsv", "# Markups\na,1,2,3\n", None, ["--space"]),
        ("p.fcsv", "# CoordinateSystem = IJK\na,1,2,3\n", None, ["IJK", "LPS"]),
        ("p.fcsv", "# CoordinateSystem = 1\n# columns = id,x,y\na,1,2\n", None, ["columns"]),
    ],
)
def test_tables_that_do_not_say_where_their_points_are(tmp_path, name, text, space, says):
    with pytest.raises(InputError) as caught:
        read_points(table(tmp_path, name, text), space)
    for word in ("p.", *says):
        assert word in str(caught.value)


def test_tables_that_are_missing_or_written_as_something_else(tmp_path):
    with pytest.raises(InputError, match=r"none.csv: no such file$"):
        read_points(tmp_path / "none.csv")
    read = read_points(table(tmp_path, "ras.csv", TABLES["ras.csv"]))
    with pytest.raises(InputError, match=r"as .csv"):
        write_points(read, tmp_path / "out.fcsv")
    with pytest.raises(ValueError, match="expected"):
        read.moved(Points(RAS[:, :1]))


MARKUPS = {  # as 3D Slicer's developer guide has it, and what newer versions add
    "@schema": "https://raw.githubusercontent.com/Slicer/Slicer/main/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#",
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [
                {"label": "one", "position": [-1.5, 2.0, 3.0], "positionStatus": "defined"},
                {"label": "not set", "positionStatus": "undefined"},
                {"label": "two", "position": [0, -4, -50], "selected": False},
            ],
            "display": {"opacity": 0.5},
        }
    ],
}


def markups(tmp_path, **changes):
    return table(tmp_path, "p.mrk.json", json.dumps(MARKUPS | {"markups": [MARKUPS["markups"][0] | changes]}))


@pytest.mark.parametrize("space", ["LPS", "RAS", None])
def test_markups_move_and_all_else_stays(tmp_path, space):
    path = markups(tmp_path, coordinateSystem=space) if space else table(tmp_path, "p.mrk.json", without_space())
    signs = torch.tensor([1, 1, 1] if space != "RAS" else [-1, -1, 1])
    read = read_points(path)
    assert torch.equal(read.points.data, RAS * signs)
    moved = read.moved(Points(read.points.data + torch.tensor([0.1, 0, 1 / 3], dtype=torch.float64)))
    write(moved, tmp_path / "moved.MRK.json")
    assert torch.equal(read_points(tmp_path / "moved.MRK.json").points.data, moved.points.data)
    before, after = (json.loads(p.read_text()) for p in (path, tmp_path / "moved.MRK.json"))
    first, last = (after["markups"][0]["controlPoints"][n] for n in (0, 2))
    sign = 1 if space == "RAS" else -1
    np.testing.assert_allclose(first["position"], [-1.5 + sign * 0.1, 2, 3 + 1 / 3])
    first["position"], last["position"] = [-1.5, 2.0, 3.0], [0, -4, -50]
    assert before == after


def without_space():
    """LPS, says the schema."""
    (points,) = MARKUPS["markups"]
    return json.dumps({"markups": [{key: value for key, value in points.items() if key != "coordinateSystem"}]})


@pytest.mark.parametrize(
    ("changes", "space", "says"),
    [
        ({"type": "ROI"}, None, ["ROI", "list of their own"]),
        ({"coordinateSystem": "IJK"}, None, ["ijk", "LPS or RAS"]),
        ({"coordinateUnits": ["um", "UCUM", "micrometer"]}, None, ["um", "mm"]),
        ({"controlPoints": []}, None, ["no control points"]),
        ({"controlPoints": [{"position": [1, 2]}]}, None, ["three coordinates"]),
        ({"controlPoints": [{"position": [1, 2, math.nan]}]}, None, ["NaN"]),
        ({"controlPoints": [{"label": "a"}]}, None, ["position"]),
        ({}, "ras", ["LPS", "--space says ras"]),
        ({}, "mni", ["ras or lps", "mni"]),
    ],
)
def test_markups_that_do_not_say_where_their_points_are(tmp_path, changes, space, says):
    with pytest.raises(InputError) as caught:
        read_points(markups(tmp_path, **changes), space)
    for word in ("p.mrk.json", *says):
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"markups": 3}', '{"markups": [3]}'])
def test_other_json_is_no_markups(tmp_path, text):
    with pytest.raises(InputError, match=r"p\.mrk\.json: not Slicer's markups"):
        read_points(table(tmp_path, "p.mrk.json", text))


def test_markups_are_written_as_such(tmp_path):
    with pytest.raises(InputError, match=r"as \.mrk\.json"):
        write(read_points(markups(tmp_path)), tmp_path / "out.fcsv")


@pytest.mark.parametrize("name", ["P.CSV", "P.Fcsv"])
def test_capitals_end_a_name_as_well(tmp_path, name):
    path = table(tmp_path, name, TABLES["ras.csv" if name == "P.CSV" else "five.fcsv"])
    write(read_points(path), tmp_path / f"MOVED{path.suffix.upper()}")
    assert torch.equal(read_points(tmp_path / f"MOVED{path.suffix.upper()}").points.data, RAS)


# every kind of transform


def known(kind, grid, field):
    matrix = torch.eye(grid.ndim + 1, dtype=torch.float64)
    matrix[:-1, :-1] += 0.1 * torch.randn(grid.ndim, grid.ndim, generator=torch.Generator().manual_seed(1)).double()
    matrix[:-1, -1] = torch.tensor([1.0, -2, 3])[: grid.ndim]
    affine = Affine(matrix)
    return {
        "affine": affine,
        "displacement": Displacement(field, grid),
        "motion": Motion.rigid(affine, grid).with_params(torch.linspace(-1, 1, 3 * grid.ndim - 3).double()),
        "velocity": Velocity(field, grid),
        "spline": BSpline(field, grid),
        "composite": affine @ Displacement(field, grid),
    }[kind]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("space", ["ras", "lps"])
@pytest.mark.parametrize("kind", ["affine", "motion", "displacement", "velocity", "spline", "composite"])
def test_pushed_landmarks_land_on_the_moving_ones(tmp_path, oblique, smooth_field, kind, space, ndim):
    """The moving image shows at φ(x) what the fixed shows at x: its voxel coordinates of a landmark are those of φ(x).

    Landmarks lie on voxels, where a displacement is known, and a spline by its coefficients with scipy; a linear
    velocity has the matrix exponential as its flow.
    """
    grid, moving = oblique((14, 15, 13)[:ndim], 3), oblique((12, 16, 15)[:ndim], 4)
    index = torch.tensor([[4, 5, 6], [7, 7, 7], [9, 6, 5]])[:, :ndim].T
    where, middle = grid.voxels(torch.zeros(1).double()), (torch.tensor(grid.shape).double() - 1) / 2
    field = smooth_field(grid.shape, 2, amplitude=0.8)
    if kind == "velocity":
        slope = 0.1 * torch.tensor([[0.3, -1, 0.5], [1, 0.2, 0.4], [-0.5, -0.4, -0.3]]).double()[:ndim, :ndim]
        field = torch.einsum("ab,b...->a...", slope, where - middle.view(-1, *[1] * ndim))[None]
    transform = known(kind, grid, field)
    landed = index.double()
    if kind == "velocity":
        landed = torch.linalg.matrix_exp(slope) @ (landed - middle[:, None]) + middle[:, None]
    elif kind == "spline":
        moved = [map_coordinates(c, index.numpy(), order=3, mode="mirror", prefilter=False) for c in field[0].numpy()]
        landed = landed + torch.from_numpy(np.array(moved))
    elif kind in ("displacement", "composite"):
        landed = landed + field[(0, slice(None), *index)]
    landed = nib.affines.apply_affine(grid.affine.numpy(), landed.T.numpy())
    if kind in ("affine", "motion", "composite"):
        matrix = transform.outer.matrix if kind == "composite" else transform.matrix
        landed = nib.affines.apply_affine(matrix.numpy(), landed)
    at = grid.to_world(index[None].double())
    signs = torch.tensor([-1.0, -1, 1])[:ndim] if space == "lps" else torch.ones(ndim)
    rows = "\n".join(",".join(map(repr, row)) for row in (at[0].T * signs.double()).tolist())
    path = table(tmp_path, "fixed.csv", ",".join(space[:ndim]) + f"\n{rows}\n")
    read = read_points(path)
    write(read.moved(push(read.points, transform)), tmp_path / "moving.csv")
    lines = (tmp_path / "moving.csv").read_text().splitlines()[1:]
    stored = torch.tensor([[float(x) for x in line.split(",")] for line in lines], dtype=torch.float64) * signs
    expected = moving.to_voxels(torch.from_numpy(landed).T[None])
    tolerance = 1e-3 if kind == "velocity" else 1e-9  # seven squarings
    torch.testing.assert_close(moving.to_voxels(stored.T[None]), expected, rtol=0, atol=tolerance)


# surfaces

VERTICES = np.array([[1.5, -2, 3], [0, 4, -50], [7, 8, 9], [1, 1, 1]])
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def gifti(path, coordinates=VERTICES, system=None):
    arrays = [
        nib.gifti.GiftiDataArray(coordinates.astype(np.float32), intent="NIFTI_INTENT_POINTSET", coordsys=system),
        nib.gifti.GiftiDataArray(TRIANGLES, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), path)
    return path


def test_gifti_vertices_move_and_triangles_stay(tmp_path):
    surface = read_points(gifti(tmp_path / "white.surf.gii"))
    np.testing.assert_array_equal(surface.points.data[0], VERTICES)
    moved = surface.moved(Points(surface.points.data + 1))
    write(moved, tmp_path / "MOVED.SURF.GII")
    np.testing.assert_array_equal(read_points(tmp_path / "MOVED.SURF.GII").points.data[0], VERTICES + 1)
    write(moved, tmp_path / "moved.surf.gii")
    np.testing.assert_array_equal(read_points(tmp_path / "moved.surf.gii").points.data[0], VERTICES + 1)
    stored = nib.load(tmp_path / "moved.surf.gii")
    np.testing.assert_array_equal(stored.agg_data("triangle"), TRIANGLES)
    np.testing.assert_array_equal(surface.source.agg_data("pointset"), VERTICES)


@pytest.mark.parametrize("mirrored", [False, True])
def test_faces_of_gifti_are_counterclockwise_in_the_world(tmp_path, mirrored):
    """From where the file's own faces are so: a mirror would turn normals inwards."""
    matrix = np.diag([-2.0 if mirrored else 2.0, 1, 1, 1])
    system = nib.gifti.GiftiCoordSystem(dataspace=0, xformspace=1, xform=matrix)
    surface = read_points(gifti(tmp_path / "a.gii", system=system))
    assert sorted(map(sorted, surface.faces.tolist())) == sorted(map(sorted, TRIANGLES.tolist()))
    inner = np.zeros_like(VERTICES)  # in the file's space
    for face in TRIANGLES:
        a, b, c = VERTICES[face]
        inner[face] += np.cross(b - a, c - a)
    outer = inner @ np.linalg.inv(matrix[:3, :3])  # as planes turn, with the same sign: out of the body stays so
    assert (((surface.normals[0].numpy() * outer).sum(1) > 0) == (np.linalg.norm(inner, axis=1) > 0)).all()


def test_faces_of_other_vertices_are_refused_and_surfaces_without_faces_are_not(tmp_path):
    arrays = [nib.gifti.GiftiDataArray(VERTICES.astype(np.float32), intent="NIFTI_INTENT_POINTSET")]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / "bare.gii")
    surface = read_points(tmp_path / "bare.gii")
    assert surface.faces.shape == (0, 3)
    assert torch.equal(surface.normals, torch.zeros(1, 4, 3, dtype=torch.float64))
    arrays.append(nib.gifti.GiftiDataArray(TRIANGLES + 2, intent="NIFTI_INTENT_TRIANGLE"))
    nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / "bad.gii")
    with pytest.raises(InputError, match=r"bad.gii: triangles of the 4 vertices expected"):
        read_points(tmp_path / "bad.gii")


def test_gifti_goes_to_the_world_by_its_matrix_where_its_own_space_has_no_name(tmp_path):
    matrix = nib.affines.from_matvec(np.diag([1.0, 2, -1]), [3, 4, 5])
    system = nib.gifti.GiftiCoordSystem(dataspace=0, xformspace=1, xform=matrix)
    surface = read_points(gifti(tmp_path / "a.gii", system=system))
    expected = nib.affines.apply_affine(matrix, VERTICES)
    np.testing.assert_allclose(surface.points.data[0], expected)
    write(surface.moved(Points(surface.points.data * 2)), tmp_path / "b.gii")
    np.testing.assert_allclose(read_points(tmp_path / "b.gii").points.data[0], 2 * expected, rtol=1e-6)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.gii").darrays[0].coordsys.xform, matrix)
    scanner = nib.gifti.GiftiCoordSystem(dataspace=1, xformspace=3, xform=matrix)
    np.testing.assert_array_equal(read_points(gifti(tmp_path / "c.gii", system=scanner)).points.data[0], VERTICES)


@pytest.mark.parametrize("content", [b"", b"<GIFTI", b"not xml"])
def test_a_broken_gifti(tmp_path, content):
    (tmp_path / "bad.surf.gii").write_bytes(content)
    with pytest.raises(InputError, match=r"bad.surf.gii"):
        read_points(tmp_path / "bad.surf.gii")


def test_gifti_without_vertices_or_out_of_ras(tmp_path):
    nib.save(nib.gifti.GiftiImage(darrays=[nib.gifti.GiftiDataArray(np.zeros(4, np.float32))]), tmp_path / "f.gii")
    with pytest.raises(InputError, match="0 sets of vertices"):
        read_points(tmp_path / "f.gii")
    with pytest.raises(InputError, match="GIFTI's coordinates are RAS"):
        read_points(gifti(tmp_path / "a.gii"), "lps")


LEGACY = """# vtk DataFile Version 4.2
{title}
ASCII
DATASET POLYDATA
POINTS 4 double
-1.5 2 3 0 -4 -50 -7 -8 9 -1 -1 1
POLYGONS 2 8
3 0 1 2
3 0 2 3
POINT_DATA 4
SCALARS thickness float 1
LOOKUP_TABLE default
1 2 3 4
"""


@pytest.fixture
def vtk():
    return pytest.importorskip("vtk", reason="VTK surfaces need the optional vtk")


def test_vtk_of_slicer_names_its_space(tmp_path, vtk):
    path = tmp_path / "lung.vtk"
    path.write_text(LEGACY.format(title="3D Slicer output. SPACE=LPS"))
    surface = read_points(path)
    np.testing.assert_array_equal(surface.points.data[0], VERTICES)
    write(surface.moved(Points(surface.points.data + 1)), tmp_path / "moved.vtk")
    again = read_points(tmp_path / "moved.vtk")
    np.testing.assert_array_equal(again.points.data[0], VERTICES + 1)
    np.testing.assert_array_equal(surface.points.data[0], VERTICES)
    assert (tmp_path / "moved.vtk").read_text().splitlines()[1] == "3D Slicer output. SPACE=LPS"
    assert again.source.GetNumberOfCells() == 2
    kept = again.source.GetPointData().GetArray("thickness")
    assert [kept.GetValue(n) for n in range(4)] == [1, 2, 3, 4]
    assert [again.source.GetCell(1).GetPointId(n) for n in range(3)] == [0, 2, 3]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("POLYGONS 2 8\n3 0 1 2\n3 0 2 3\n", [[0, 1, 2], [0, 2, 3]]),
        ("POLYGONS 1 5\n4 0 1 2 3\n", None),
        ("TRIANGLE_STRIPS 1 5\n4 0 1 2 3\n", [[0, 1, 2], [1, 3, 2]]),
        ("LINES 1 3\n2 0 1\n", []),
    ],
)
def test_faces_of_vtk(tmp_path, vtk, cells, expected):
    head = LEGACY.format(title="SPACE=RAS").split("POLYGONS")[0]
    (tmp_path / "mesh.vtk").write_text(head + cells)
    faces = read_points(tmp_path / "mesh.vtk").faces.tolist()
    rolled = sorted(face[face.index(min(face)) :] + face[: face.index(min(face))] for face in faces)
    if expected is None:
        assert rolled in ([[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]])
    else:
        assert rolled == expected


def test_other_vtk_is_told_its_space(tmp_path, vtk):
    path = tmp_path / "mesh.vtk"
    path.write_text(LEGACY.format(title="vtk output"))
    with pytest.raises(InputError, match=r"mesh.vtk.*--space"):
        read_points(path)
    np.testing.assert_array_equal(read_points(path, "lps").points.data[0], VERTICES)
    path.write_text(LEGACY.format(title="SPACE=RAS"))
    with pytest.raises(InputError, match="RAS"):
        read_points(path, "lps")


@pytest.mark.parametrize("named", [True, False])
def test_vtp_keeps_cells_and_arrays(tmp_path, vtk, named):
    (tmp_path / "mesh.vtk").write_text(LEGACY.format(title="SPACE=LPS"))
    mesh = read_points(tmp_path / "mesh.vtk").source
    if named:
        space = vtk.vtkStringArray()
        space.SetName("SPACE")
        space.InsertNextValue("LPS")
        mesh.GetFieldData().AddArray(space)
    writer = vtk.vtkXMLPolyDataWriter()
    writer.SetFileName(str(tmp_path / "mesh.vtp"))
    writer.SetInputData(mesh)
    writer.Write()
    surface = read_points(tmp_path / "mesh.vtp", None if named else "lps")
    np.testing.assert_array_equal(surface.points.data[0], VERTICES)
    write(surface.moved(Points(surface.points.data * 2)), tmp_path / "moved.vtp")
    again = read_points(tmp_path / "moved.vtp", None if named else "lps")
    np.testing.assert_array_equal(again.points.data[0], VERTICES * 2)
    assert again.source.GetNumberOfCells() == 2
    assert again.source.GetPointData().GetArray("thickness").GetValue(3) == 4


@pytest.mark.parametrize("name", ["cut.vtk", "text.vtp", "text.vtk"])
def test_broken_vtk(tmp_path, vtk, name):
    whole = LEGACY.format(title="SPACE=LPS")
    (tmp_path / name).write_text(whole[:120] if name.startswith("cut") else "no mesh")
    with pytest.raises(InputError, match=name):
        read_points(tmp_path / name)


def test_without_vtk_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vtkmodules.vtkIOLegacy", None)
    (tmp_path / "mesh.vtk").write_text(LEGACY.format(title="SPACE=LPS"))
    with pytest.raises(InputError, match=r"mesh.vtk.*pullback\[surfaces\]"):
        read_points(tmp_path / "mesh.vtk")


# surfaces about the centre of FreeSurfer's volume


def volume_of(grid):
    """The volume of a grid, by the names of FreeSurfer's footer; `cras` is the world of the voxel at half the shape."""
    affine, size = grid.affine.numpy(), grid.spacing.numpy()
    columns = affine[:3, :3] / size
    centre = affine[:3, :3] @ (np.array(grid.shape) / 2) + affine[:3, 3]
    return {
        "head": np.array([2, 0, 20], np.int32),
        "valid": "1  # volume info valid",
        "filename": "orig.mgz",
        "volume": np.array(grid.shape),
        "voxelsize": size,
        **{f"{axis}ras": column for axis, column in zip("xyz", columns.T, strict=True)},
        "cras": centre,
    }


def in_surface_coordinates(world, grid):
    """Through the voxels: x to the left, y down, z forwards, about the voxel at half the shape."""
    size, half = grid.spacing.numpy(), np.array(grid.shape) / 2
    voxels = (world - grid.affine[:3, 3].numpy()) @ np.linalg.inv(grid.affine[:3, :3].numpy()).T
    return ((voxels - half) * size) @ np.array([[-1, 0, 0], [0, 0, -1], [0, 1, 0]])


@pytest.fixture(params=["conformed", "oblique"])
def volume(request, oblique):
    if request.param == "oblique":
        return oblique((20, 24, 18), 3)
    affine = np.array([[-1.0, 0, 0, 140], [0, 0, 1, -100], [0, -1, 0, 117], [0, 0, 0, 1]])
    return Grid((256, 256, 256), torch.from_numpy(affine))


@pytest.mark.parametrize("kind", ["freesurfer", "gifti"])
def test_freesurfers_vertices_lie_where_its_volume_does(tmp_path, volume, kind):
    stored = in_surface_coordinates(VERTICES, volume)
    if volume.shape[0] == 256:
        np.testing.assert_allclose(stored, VERTICES - volume_of(volume)["cras"], atol=1e-9)  # the known special case
    path = tmp_path / ("lh.white" if kind == "freesurfer" else "lh.white.gii")
    if kind == "freesurfer":
        nib.freesurfer.write_geometry(path, stored, TRIANGLES, "made", volume_of(volume))
    else:
        gifti(path, stored, nib.gifti.GiftiCoordSystem(0, 3, np.diag([1.1, 1.1, 1.1, 1])))  # to Talairach: not meant
        add_volume(path, volume)
    surface = read_points(path)
    np.testing.assert_allclose(surface.points.data[0], VERTICES, atol=1e-4)
    out = tmp_path / ("lh.moved" if kind == "freesurfer" else "moved.gii")
    write(surface.moved(Points(surface.points.data + 1)), out)
    np.testing.assert_allclose(read_points(out).points.data[0], VERTICES + 1, atol=1e-4)
    if kind == "freesurfer":
        vertices, faces, footer = nib.freesurfer.read_geometry(out, read_metadata=True)
        np.testing.assert_allclose(vertices, in_surface_coordinates(VERTICES + 1, volume), atol=1e-4)
        np.testing.assert_array_equal(faces, TRIANGLES)
        np.testing.assert_allclose(footer["cras"], volume_of(volume)["cras"], rtol=1e-6)


def add_volume(path, grid, only=()):
    image, said = nib.load(path), volume_of(grid)
    meta = image.darrays[0].meta
    for key, names in (("volume", ("Width", "Height", "Depth")), ("voxelsize", ("Xsize", "Ysize", "Zsize"))):
        meta.update({f"VolGeom{name}": str(value) for name, value in zip(names, said[key], strict=True)})
    for axis, key in (("X", "xras"), ("Y", "yras"), ("Z", "zras"), ("C", "cras")):
        meta.update({f"VolGeom{axis}_{letter}": str(value) for letter, value in zip("RAS", said[key], strict=True)})
    for key in [key for key in meta if only and key not in only]:
        del meta[key]
    nib.save(image, path)


def test_gifti_in_scanner_coordinates_stays_and_a_centre_alone_is_a_shift(tmp_path, volume):
    path = gifti(tmp_path / "a.gii", system=nib.gifti.GiftiCoordSystem(1, 1, np.eye(4)))
    add_volume(path, volume)
    np.testing.assert_array_equal(read_points(path).points.data[0], VERTICES)
    path = gifti(tmp_path / "b.gii")
    add_volume(path, volume, only=[f"VolGeomC_{letter}" for letter in "RAS"])
    np.testing.assert_allclose(read_points(path).points.data[0], VERTICES + volume_of(volume)["cras"], atol=1e-4)


def test_a_surface_without_a_volume_is_asked_about(tmp_path):
    path = tmp_path / "rh.pial"
    nib.freesurfer.write_geometry(path, VERTICES, TRIANGLES, "made")
    with pytest.raises(InputError, match=r"rh\.pial.*--space ras"):
        read_points(path)
    np.testing.assert_array_equal(read_points(path, "ras").points.data[0], VERTICES)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"rh\.pial"):
        read_points(path, "ras")


# slices


def test_tables_of_ants_for_slices_are_points_of_a_plane(tmp_path):
    (tmp_path / "s.csv").write_text("x,y,z,t,label\n1,2,0,0,7\n3,4,0.0,0,8\n")
    assert read_points(tmp_path / "s.csv", "lps").points.data.shape == (1, 2, 3)
    table = read_points(tmp_path / "s.csv", "lps", ndim=2)
    torch.testing.assert_close(table.points.data, torch.tensor([[[-1.0, -2], [-3, -4]]], dtype=torch.float64))
    write(table.moved(replace(table.points, data=table.points.data - 1)), tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "x,y,z,t,label\n2.0,3.0,0,0,7\n4.0,5.0,0.0,0,8\n"
    (tmp_path / "v.csv").write_text("x,y,z,t\n1,2,0,0\n3,4,5,0\n")
    assert read_points(tmp_path / "v.csv", "lps", ndim=2).points.data.shape == (1, 2, 3)
