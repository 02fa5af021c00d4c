"""Every fault is planted, found, named with its file and numbers, and nothing is found in a good file."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from pullback.errors import InputError
from pullback.files import Severity, audit, audit_pair

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
GOOD = nib.affines.from_matvec(np.diag([2.0, 2, 2.5]), [-20, -22, -25])


def noise(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def saved(path, array=None, affine=GOOD, codes=(1, 1), unit="mm", qform=None):
    image = nib.Nifti1Image(noise(20, 22, 20) if array is None else array, affine, dtype=getattr(array, "dtype", None))
    image.header.set_xyzt_units(unit)
    image.set_qform(affine if qform is None else qform, codes[0])
    image.set_sform(affine, codes[1])
    nib.save(image, path)
    return path


def patched(path, *fields):
    """Bytes of the header, at offsets of the NIfTI-1 standard."""
    content = bytearray(path.read_bytes())
    for offset, form, *values in fields:
        struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)
    return path


def turned(degrees):
    a = np.radians(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


def affine(linear):
    return nib.affines.from_matvec(linear, [0, 0, 0])


RGB = np.zeros((20, 22, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
HOLES = noise(20, 22, 20)
HOLES[3, :2, 4] = np.nan, np.inf
FAULTS = {
    "left-handed": (lambda p: saved(p, affine=affine(np.diag([-2.0, 2, 2]))), NOTE, ["LAS", "left-handed"]),
    "oblique": (lambda p: saved(p, affine=affine(turned(12) * 2)), NOTE, ["12.0°"]),
    "sheared": (lambda p: saved(p, affine=affine([[2.0, 0.2, 0], [0, 2, 0], [0, 0, 2]])), WARNING, ["sheared", "5.7°"]),
    "apart": (
        lambda p: saved(p, qform=GOOD + np.array([[0, 0, 0, 3], [0, 0, 0, 4], *[[0] * 4] * 2])),
        WARNING,
        ["qform and sform", "5 mm"],
    ),
    "mirrored": (lambda p: saved(p, qform=affine(np.diag([-2.0, 2, 2.5]))), ERROR, ["mirror"]),
    "no code": (lambda p: saved(p, codes=(0, 0)), WARNING, ["neither a qform nor an sform"]),
    "pixdim": (
        lambda p: patched(saved(p, codes=(0, 1)), (80, "<3f", 2, 2, 4)),
        WARNING,
        ["elsewhere", "pixdim"],
    ),
    "no unit": (lambda p: saved(p, unit="unknown"), NOTE, ["no unit"]),
    "micrometres": (lambda p: saved(p, unit="micron"), WARNING, ["micrometres"]),
    "metres": (lambda p: saved(p, unit="meter"), WARNING, ["metres"]),
    "zero voxels": (lambda p: patched(saved(p, codes=(0, 1)), (80, "<f", 0)), ERROR, ["0 × 2 × 2.5"]),
    "tiny voxels": (lambda p: saved(p, affine=affine(np.eye(3) * 0.004)), WARNING, ["0.004 × 0.004 × 0.004 mm"]),
    "huge voxels": (lambda p: saved(p, affine=affine(np.eye(3) * 1000)), WARNING, ["1e+03"]),
    "anisotropic": (lambda p: saved(p, affine=affine(np.diag([1.0, 1, 5]))), NOTE, ["1 × 1 × 5", "5.0 to one"]),
    "singular": (lambda p: patched(saved(p, codes=(0, 1)), (280, "<4f", 0, 0, 0, 0)), ERROR, ["singular"]),
    "not finite affine": (
        lambda p: patched(saved(p, codes=(0, 1)), (280, "<4f", np.nan, 0, 0, 0)),
        ERROR,
        ["singular or not finite"],
    ),
    "NaN": (lambda p: saved(p, HOLES), ERROR, ["2 voxels", "NaN"]),
    "NaN alone": (lambda p: saved(p, np.full((20, 22, 20), np.nan, np.float32)), ERROR, ["infinite, 100 % of"]),
    "constant": (lambda p: saved(p, np.full((20, 22, 20), 7, np.int16)), ERROR, ["every voxel is 7"]),
    "frames": (lambda p: saved(p, noise(20, 22, 20, 3)), ERROR, ["4-D", "(20, 22, 20, 3)"]),
    "vectors": (lambda p: saved(p, noise(20, 22, 20, 1, 3)), ERROR, ["5-D"]),
    "colours": (lambda p: saved(p, RGB), ERROR, ["colour"]),
    "complex": (lambda p: saved(p, noise(20, 22, 20).astype(np.complex64)), ERROR, ["complex"]),
    "long": (lambda p: saved(p, (noise(20, 22, 20) * 9).astype(np.int64)), WARNING, ["int64"]),
    "slope": (
        lambda p: patched(saved(p, (noise(20, 22, 20) * 99).astype(np.int16)), (112, "<2f", np.nan, np.nan)),
        WARNING,
        ["slope nan"],
    ),
    "narrow": (lambda p: saved(p, noise(20, 22, 4)), WARNING, ["4 voxels wide"]),
    "flat": (lambda p: saved(p, noise(20, 1, 1)), ERROR, ["fewer than two"]),
    "small": (lambda p: saved(p, affine=affine(np.eye(3) * 0.1)), WARNING, ["2 × 2.2 × 2 mm"]),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("error")
def test_a_planted_fault_is_found(tmp_path, name):
    plant, severity, words = FAULTS[name]
    path = plant(tmp_path / "image.nii")
    found = audit(path)
    hits = [f for f in found if all(word in f.what for word in words)]
    assert len(hits) == 1, found
    assert hits[0].severity is severity
    assert "image.nii" in hits[0].what
    assert hits[0].remedy.endswith(".")
    assert [f.severity.name for f in found] == sorted((f.severity.name for f in found), key="ERROR WARNING NOTE".find)


@pytest.mark.parametrize("shape", [(20, 22), (20, 22, 20), (20, 22, 20, 1)])
def test_nothing_is_found_in_a_good_file(tmp_path, shape):
    assert audit(saved(tmp_path / "good.nii.gz", noise(*shape))) == ()


def test_voxels_that_cannot_be_read_are_a_finding(tmp_path):
    path = saved(tmp_path / "image.nii.gz")
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[: len(whole) // 2]))
    (finding,) = [f for f in audit(path) if f.severity is ERROR]
    assert "image.nii.gz" in finding.what


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "image.nii").write_text("no image")
    for name in ("image.nii", "none.nii"):
        with pytest.raises(InputError, match=name):
            audit(tmp_path / name)
        with pytest.raises(InputError, match=name):
            audit_pair(tmp_path / name, tmp_path / name)


def test_real_headers_are_audited(shared):
    paths = [
        *sorted((shared / "data" / "monai_small_anat").rglob("*.nii*")),
        *sorted((shared / "data" / "elastix_examples").rglob("*.nii*")),
    ]
    assert paths
    for path in paths:
        for finding in audit(path):
            assert str(path) in finding.what


# pairs


def boxes(tmp_path, first, second, shapes=((20, 20, 20), (20, 20, 20))):
    a = saved(tmp_path / "fixed.nii", noise(*shapes[0]), first)
    return audit_pair(a, saved(tmp_path / "moving.nii", noise(*shapes[1]), second))


def shifted(size, *mm):
    return nib.affines.from_matvec(np.eye(3) * size, mm)


def test_the_same_box_is_fine(tmp_path):
    assert boxes(tmp_path, GOOD, GOOD) == ()
    assert boxes(tmp_path, GOOD, GOOD, ((20, 20), (20, 20))) == ()


@pytest.mark.parametrize(("mm", "severity"), [(38, WARNING), (30, WARNING), (41, ERROR)])
def test_the_overlap_is_that_of_two_shifted_cubes(tmp_path, mm, severity):
    """Cubes of 40 mm, shifted by mm along an axis, share 1 − mm/40; by 25 points an edge, 1/50 more or less."""
    found = boxes(tmp_path, shifted(2.0, 0, 0, 0), shifted(2.0, mm, 0, 0))
    (finding,) = found
    assert finding.severity is severity
    stated = float(finding.what.split(" %")[0])
    assert abs(stated - 100 * max(1 - mm / 40, 0)) <= 100 / 50
    assert f"{mm}.0 mm apart" in finding.what
    assert "fixed.nii" in finding.what
    assert "moving.nii" in finding.what


def test_slices_of_one_plane_overlap_in_it(tmp_path):
    shapes = ((20, 20), (20, 20))
    assert boxes(tmp_path, shifted(2.0, 0, 0, 0), shifted(2.0, 0, 0, 100), shapes) == ()
    (finding,) = boxes(tmp_path, shifted(2.0, 0, 0, 0), shifted(2.0, 30, 0, 0), shapes)
    assert abs(float(finding.what.split(" %")[0]) - 25) <= 100 / 50


def test_slices_of_different_planes_have_nothing_in_common(tmp_path):
    coronal = shifted(2.0, 0, 0, 0)[:, [0, 2, 1, 3]]
    (finding,) = boxes(tmp_path, shifted(2.0, 0, 0, 0), coronal, ((20, 20), (20, 20)))
    assert finding.severity is WARNING
    assert "planes 90° apart" in finding.what


def test_dimensions_must_agree(tmp_path):
    (finding,) = boxes(tmp_path, GOOD, GOOD, ((20, 20, 20), (20, 20)))
    assert finding.severity is ERROR
    assert "3-D" in finding.what
    assert "2-D" in finding.what


def test_micrometres_against_millimetres(tmp_path):
    found = boxes(tmp_path, shifted(1.0, 0, 0, 0), shifted(1000.0, 0, 0, 0))
    assert found[0].severity is ERROR
    assert "a factor of 1e+03" in found[0].what
    assert any("1 mm" in f.what and "1e+03" in f.what and "to one" in f.what for f in found)


def test_coarse_against_fine(tmp_path):
    (finding,) = boxes(tmp_path, shifted(1.0, 0, 0, 0), shifted(4.0, 1.5, 1.5, 1.5), ((40, 40, 40), (10, 10, 10)))
    assert finding.severity is NOTE
    assert "4.0 to one" in finding.what


def test_centres_are_those_of_the_fields_of_view(tmp_path):
    """Ten voxels of 1 mm from 0 reach from -0.5 to 9.5 mm, of 2 mm from 30 from 29 to 49 mm."""
    (finding,) = boxes(tmp_path, shifted(1.0, 0, 0, 0), shifted(2.0, 30, -5.0, -5.0), ((10, 10, 10), (10, 10, 10)))
    assert "centres are 34.5 mm apart" in finding.what
