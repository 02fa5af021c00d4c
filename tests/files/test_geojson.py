"""Annotations of QuPath: every vertex in its place, and back."""

import json

import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.files import is_points, read_points, write_points

PIXEL = (0.25e-3, 0.5e-3)
SQUARE = [[[10, 20], [30, 20], [30, 40], [10, 20]]]
HOLES = [[[0.5, 0.5], [9, 0], [9, 9], [0.5, 0.5]], [[2, 2], [3, 2], [3, 3], [2, 2]]]
SHAPES = {
    "Point": [12.25, 7.5],
    "MultiPoint": [[1, 2], [3, 4]],
    "LineString": [[1, 2], [3, 4], [9, 9]],
    "Polygon": SQUARE,
    "MultiPolygon": [SQUARE, HOLES],
}


def feature(kind, coordinates, name=None, **more):
    about = {"objectType": "annotation", **({"name": name} if name else {})}
    return {"type": "Feature", "id": "x", "geometry": {"type": kind, "coordinates": coordinates}, **more} | {
        "properties": about
    }


def saved(path, *features, whole=True):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features} if whole else list(features)))
    return path


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("whole", [True, False])
def test_all_vertices_come_back_where_they_were(kind, whole, tmp_path):
    nucleus = {"nucleusGeometry": {"type": "Polygon", "coordinates": SQUARE}}
    path = saved(tmp_path / "a.geojson", feature(kind, SHAPES[kind], **nucleus), whole=whole)
    table = read_points(path, pixel=PIXEL)
    assert is_points(path)
    assert (
        table.points.data.shape[1] == np.array(np.concatenate([np.ravel(x) for x in _flat(SHAPES[kind])])).size // 2 + 4
    )
    write_points(table.moved(table.points), tmp_path / "b.geojson")
    assert _rounded(json.loads((tmp_path / "b.geojson").read_text())) == _rounded(json.loads(path.read_text()))


def _flat(coordinates):
    return (
        [coordinates]
        if not isinstance(coordinates[0], list)
        else [leaf for each in coordinates for leaf in _flat(each)]
    )


def _rounded(content):
    return json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 9), parse_int=float)


def test_a_vertex_at_half_a_pixel_is_the_middle_of_the_first_one(tmp_path):
    path = saved(tmp_path / "a.geojson", feature("MultiPoint", [[0.5, 0.5], [4.5, 8.5]]))
    where = read_points(path, pixel=PIXEL).points.data[0]
    torch.testing.assert_close(where, -torch.tensor([[0, 0], [4, 8]]).double() * torch.tensor(PIXEL))


def test_points_have_names_and_pixels_of_another_slide(tmp_path):
    path = saved(tmp_path / "a.geojson", *(feature("Point", [n, 2 * n], f"L{n}") for n in range(3)))
    table = read_points(path, pixel=PIXEL)
    assert table.points.name == ("L0", "L1", "L2")
    write_points(table.told_in((0.5e-3, 0.5e-3)), tmp_path / "b.geojson")
    again = json.loads((tmp_path / "b.geojson").read_text())["features"][2]["geometry"]["coordinates"]
    assert again == pytest.approx([0.5 + (2 - 0.5) / 2, 0.5 + (4 - 0.5)])


def test_tables_in_pixels(tmp_path):
    (tmp_path / "a.csv").write_text(",X,Y\n1,10,20\n2,30.5,40\n")
    table = read_points(tmp_path / "a.csv", "px", pixel=PIXEL)
    torch.testing.assert_close(
        table.points.data[0], -torch.tensor([[10, 20], [30.5, 40]]).double() * torch.tensor(PIXEL)
    )
    write_points(table, tmp_path / "b.csv")
    numbers = np.loadtxt(tmp_path / "b.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(numbers, [[1, 10, 20], [2, 30.5, 40]])


def test_what_is_refused(tmp_path):
    path = saved(tmp_path / "a.geojson", feature("Point", [1, 2]))
    with pytest.raises(InputError, match="name its slide"):
        read_points(path)
    with pytest.raises(InputError, match="leave --space ras out"):
        read_points(path, "ras", pixel=PIXEL)
    for name, content in (("text", "no json"), ("empty", '{"features": []}'), ("other", '{"a": 1}')):
        (tmp_path / f"{name}.geojson").write_text(content)
        with pytest.raises(InputError, match=rf"{name}\.geojson"):
            read_points(tmp_path / f"{name}.geojson", pixel=PIXEL)
    with pytest.raises(InputError, match=r"here as \.geojson"):
        write_points(read_points(path, pixel=PIXEL), tmp_path / "b.csv")
