"""Labels and numbers of vertices as nibabel writes them, and tables of connections."""

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.files.points.vertices import read_connections, read_vertex_labels, read_vertex_values


def gifti(values, intent, path, labels=None):
    table = nib.gifti.GiftiLabelTable()
    for key, name in (labels or {}).items():
        one = nib.gifti.GiftiLabel(key)
        one.label = name
        table.labels.append(one)
    array = nib.gifti.GiftiDataArray(np.asarray(values), intent=intent)
    nib.save(nib.GiftiImage(darrays=[array], labeltable=table), path)
    return path


def test_labels_of_gifti_and_of_freesurfer_are_the_same_partition(tmp_path):
    values = np.array([0, 1, 2, 2, 1, 0, 3], np.int32)
    names = {0: "???", 1: "precentral", 2: "postcentral", 3: "Medial_wall"}
    path = gifti(values, "NIFTI_INTENT_LABEL", tmp_path / "a.label.gii", names)
    one, known = read_vertex_labels(path)
    assert one.tolist() == [0, 1, 2, 2, 1, 0, 0]
    assert known == {1: "precentral", 2: "postcentral"}
    colours = np.array([[n, 20 * n, 7, 0, n + 256 * 20 * n + 65536 * 7] for n in range(4)], np.int32)
    nib.freesurfer.write_annot(tmp_path / "lh.annot", values, colours, [*names.values()], fill_ctab=True)
    other, known = read_vertex_labels(tmp_path / "lh.annot")
    assert [other[n] == 0 for n in range(7)] == [one[n] == 0 for n in range(7)]
    assert sorted(known.values()) == ["postcentral", "precentral"]
    assert {*zip(one.tolist(), other.tolist(), strict=True)} == {(0, 0), (1, 2), (2, 3)}


def test_numbers(tmp_path):
    path = gifti(np.array([0.5, 2.0], np.float32), "NIFTI_INTENT_SHAPE", tmp_path / "depth.shape.gii")
    assert read_vertex_values(path).tolist() == [0.5, 2.0]
    nib.freesurfer.write_morph_data(tmp_path / "lh.sulc", np.array([1.0, -3.0], np.float32))
    assert read_vertex_values(tmp_path / "lh.sulc").tolist() == [1.0, -3.0]
    (tmp_path / "text.shape.gii").write_text("nothing")
    with pytest.raises(InputError, match="one number for each vertex"):
        read_vertex_values(tmp_path / "text.shape.gii")


@pytest.mark.parametrize("text", ["a,b\n1,2\n3,4\n", ",a,b\na,1,2\nb,3,4\n", "a,b\na,1,2\nb,3,4\n"])
def test_connections_with_and_without_names_of_lines(tmp_path, text):
    (tmp_path / "c.csv").write_text(text)
    values, names = read_connections(tmp_path / "c.csv")
    assert names == ["a", "b"]
    assert torch.equal(values, torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "a,a\n1,2\n3,4\n", "a,b\n1,x\n3,4\n", "", ",a,b\nb,1,2\na,3,4\n"])
def test_no_connections(tmp_path, text):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match="square table"):
        read_connections(tmp_path / "c.csv")


def test_no_labels(tmp_path):
    (tmp_path / "a.label.gii").write_text("nothing")
    with pytest.raises(InputError, match="labels of vertices"):
        read_vertex_labels(tmp_path / "a.label.gii")
    with pytest.raises(InputError, match="no such file"):
        read_vertex_labels(tmp_path / "b.annot")
