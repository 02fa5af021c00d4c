"""Broken inputs, one row each, through the real commands: what is said, and that nothing is left behind."""

import struct
import subprocess
import sys
import zipfile

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pullback import cli

SHAPE = (12, 14, 10)
SHEARED = np.eye(4)
SHEARED[0, 1] = 0.3
FAR = np.eye(4)
FAR[:3, 3] = 500
IDENTITY = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
NUMBERS = "Parameters: {} 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n"


def noise(*shape):
    return np.random.default_rng(0).random(shape or SHAPE, np.float32)


def saved(path, data=None, affine=None, intent=0):
    data = noise() if data is None else data
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine, dtype=data.dtype)
    image.header.set_intent(intent)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def patched(path, offset, form, *values):
    saved(path)
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of good files and of every bad one."""
    folder = tmp_path_factory.mktemp("files")
    saved(folder / "good.nii.gz")
    saved(folder / "slice.nii.gz", noise(12, 14))
    saved(folder / "labels.nii.gz", (3 * noise()).astype(np.uint8))
    sitk.WriteTransform(sitk.AffineTransform(3), str(folder / "good.h5"))
    sitk.WriteTransform(sitk.AffineTransform(2), str(folder / "flat.h5"))
    sitk.WriteTransform(sitk.AffineTransform(3), str(folder / "ants_0GenericAffine.mat"))
    (folder / "link.nii.gz").symlink_to("good.nii.gz")
    (folder / "good.csv").write_text("R,A,S\n1,2,3\n")
    _images(folder)
    _scans(folder)
    _transforms(folder)
    for name, text in {
        "nowhere.csv": "x,y,z\n1,2,3\n",
        "nan.csv": "R,A,S\n1,2,nan\n",
        "text.csv": "R,A,S\n1,2,three\n",
        "absent.csv": "R,A\n1,2\n",
        "unnamed.csv": "one,two,three\n1,2,3\n",
        "empty.csv": "",
        "twice.csv": "label,merged\n1,2\n1,3\n",
        "half.csv": "label,name\n1,one\n",
        "plane.csv": "R,A,S\n" + "".join(f"{x},{y},5\n" for x in range(5) for y in range(5)),
        "elastix.txt": "point\n1\n1 2 3\n",
        "mesh.vtk": "no mesh at all\n",
        "mesh.gii": "<GIFTI>",
    }.items():
        (folder / name).write_text(text)
    return folder


def _images(folder):
    cut = (folder / "good.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(cut[: len(cut) // 2])
    (folder / "text.nii.gz").write_text("subject,age\n1,60\n")
    (folder / "text.mha").write_text("subject,age\n1,60\n")
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "folder.nii.gz").mkdir()
    patched(folder / "zero.nii", 80, "<3f", 0, 0, 0)
    patched(folder / "singular.nii", 280, "<4f", 0, 0, 0, 0)
    holes = noise()
    holes[3, 4, 5] = np.nan
    saved(folder / "nan.nii.gz", holes)
    saved(folder / "inf.nii.gz", np.where(np.isnan(holes), np.float32(np.inf), holes))
    saved(folder / "constant.nii.gz", np.full(SHAPE, 7, np.float32))
    saved(folder / "nothing.nii.gz", np.zeros(SHAPE, np.uint8))
    inside = np.zeros(SHAPE, np.uint8)
    inside[3:9, 3:10, 3:8] = 1
    saved(folder / "inside.nii.gz", inside)
    saved(folder / "organ.nii.gz", noise() * inside)
    saved(folder / "elsewhere.nii.gz", np.ones((6, 7, 5), np.uint8))
    saved(folder / "far.nii.gz", affine=FAR)
    saved(folder / "rgb.nii.gz", np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((14, 12, 3), np.uint8), isVector=True), str(folder / "rgb.png"))
    saved(folder / "complex.nii.gz", noise().astype(np.complex64))
    saved(folder / "huge.nii.gz", (noise() * 2).astype(np.int64) * 2**40)
    saved(folder / "frames.nii.gz", noise(*SHAPE, 3))
    saved(folder / "thin.nii.gz", noise(12, 1, 1))
    saved(folder / "sheared.nii.gz", affine=SHEARED)


def _scans(folder):
    """Six scans with labels, the first of which is broken by each pattern."""
    names, grid = "abcdef", (3 * noise()).astype(np.uint8)
    scans = folder / "scans"
    scans.mkdir()
    for name in names:
        saved(scans / f"{name}_T1w.nii.gz")
        for kind in ("dseg", "float", "wide", "minus"):
            saved(scans / f"{name}_{kind}.nii.gz", grid)
        for kind in ("frames",):
            saved(scans / f"{name}_{kind}.nii.gz")
    saved(scans / "a_frames.nii.gz", noise(*SHAPE, 3))
    saved(scans / "a_float.nii.gz")
    saved(scans / "a_wide.nii.gz", grid.astype(np.int16) * 1000)
    saved(scans / "a_minus.nii.gz", grid.astype(np.int16) - 1)
    for name in names:
        saved(scans / f"{name}_moved.nii.gz", grid, FAR)
        saved(scans / f"{name}_all.nii.gz", np.zeros(SHAPE, np.uint8))
        saved(scans / f"{name}_sheared.nii.gz", affine=SHEARED)


def _transforms(folder):
    field = np.zeros((*SHAPE, 1, 3), np.float32)
    saved(folder / "warp.nii.gz", field, intent=1007)
    saved(folder / "intent.nii.gz", field)
    saved(folder / "frames_warp.nii.gz", field[..., 0, :], intent=1007)
    saved(folder / "nan_warp.nii.gz", field + np.float32(np.nan), intent=1007)
    saved(folder / "flat_warp.nii.gz", field[:, :, :1, :, :2], intent=1007)
    (folder / "flat.txt").write_text(IDENTITY + NUMBERS.format(0))
    for name in ("words.txt", "words.h5"):
        (folder / name).write_text("turn it a little\n" * 9)
    (folder / "cut.h5").write_bytes((folder / "good.h5").read_bytes()[:900])
    torch.save({"matrix": torch.eye(4)}, folder / "weights.pt")
    np.savez(folder / "disp.npz", noise(4, 4, 4, 3))
    with zipfile.ZipFile(folder / "bad.npz", "w") as file:
        file.writestr("arr_0.npy", "no array")
    np.savetxt(folder / "flirt.mat", np.zeros((4, 4)))


def apply(**changes):
    options = {"i": "good.nii.gz", "r": "good.nii.gz", "t": "good.h5", "o": "OUT/moved.nii.gz"} | changes
    return ["apply", *(part for key, value in options.items() if value for part in (f"-{key}", value))]


def convert(given, out, *more):
    return ["convert", given, f"OUT/{out}", *more]


def match(fixed, moving, *more):
    return ["match", "-f", fixed, "-m", moving, "-o", "OUT/result", *more]


def prepare(*more, labels="dseg", images="T1w", data="scans"):
    patterns = {"images": images, "labels": labels}
    settings = [f"data.{key}=*_{kind}.nii.gz" for key, kind in patterns.items() if kind]
    return ["prepare", "--data", data, "-o", "OUT/out", *(word for s in settings for word in ("--set", s)), *more]


def register(fixed="good.nii.gz", moving="good.nii.gz", *more):
    return ["register", "-f", fixed, "-m", moving, "-o", "OUT/result", *more]


OVER = ("is read here", "another place")
GRIDS = ("--fixed", "good.nii.gz", "--moving", "good.nii.gz")
ROWS = {  # the command, and what its one line on stderr must say
    "missing image": (apply(i="none.nii.gz"), ["none.nii.gz", "no such file"]),
    "folder as image": (apply(i="folder.nii.gz"), ["folder.nii.gz", "is a folder"]),
    "points of elastix": (apply(i="elastix.txt"), ["elastix.txt", "points from .csv, .fcsv, .mrk.json"]),
    "points of elastix, alone": (apply(i="elastix.txt", r=None), ["elastix.txt", "-r", "points are read from .csv"]),
    "no image": (apply(i="text.nii.gz"), ["text.nii.gz", "not a readable"]),
    "no MetaImage": (apply(i="text.mha"), ["text.mha", "not a readable image"]),
    "empty image": (apply(i="empty.nii.gz"), ["empty.nii.gz", "not a readable"]),
    "truncated gz": (apply(i="cut.nii.gz"), ["cut.nii.gz"]),
    "singular affine": (apply(i="singular.nii"), ["singular.nii", "inverted"]),
    "singular reference": (apply(r="singular.nii"), ["singular.nii", "inverted"]),
    "NaN": (apply(i="nan.nii.gz"), ["nan.nii.gz", "1 voxels", "replace"]),
    "infinity": (apply(i="inf.nii.gz"), ["inf.nii.gz", "1 voxels", "replace"]),
    "colours": (apply(i="rgb.nii.gz"), ["rgb.nii.gz", "colours", "grey"]),
    "a colour picture": (apply(i="rgb.png"), ["rgb.png", "colours", "grey"]),
    "complex": (apply(i="complex.nii.gz"), ["complex.nii.gz", "complex", "magnitude"]),
    "frames of labels": ([*apply(i="frames.nii.gz"), "--labels"], ["frames.nii.gz", "4-D", "one frame"]),
    "one voxel thick": (apply(i="thin.nii.gz"), ["thin.nii.gz", "(12, 1)", "two voxels"]),
    "thick reference": (apply(r="thin.nii.gz"), ["thin.nii.gz", "(12, 1)", "two voxels"]),
    "float labels": ([*apply(), "--labels"], ["good.nii.gz", "whole numbers"]),
    "labels beyond 32 bits": ([*apply(i="huge.nii.gz"), "--labels"], ["huge.nii.gz", "32 bits", "number them anew"]),
    "transform of a slice": (apply(t="flat.h5"), ["good.nii.gz", "3-D", "2"]),
    "transforms of two kinds": ([*apply(), "-t", "flat_warp.nii.gz"], ["flat_warp.nii.gz", "good.h5", "alike"]),
    "sheared reference": (apply(r="sheared.nii.gz"), ["sheared.nii.gz", "sheared", "Resample"]),
    "no reference": (apply(r=None), ["good.nii.gz", "-r"]),
    "missing reference": (apply(r="none.nii.gz"), ["none.nii.gz", "no such file"]),
    "missing transform": (apply(t="none.h5"), ["none.h5", "no such file"]),
    "corrupt h5": (apply(t="cut.h5"), ["cut.h5", "cut short", "copy it anew"]),
    "text as h5": (apply(t="words.h5"), ["words.h5", "no HDF5"]),
    "text as transform": (apply(t="words.txt"), ["words.txt", "not a transform"]),
    "pickled transform": (apply(t="weights.pt"), ["weights.pt", "not a transform"]),
    "image as transform": (apply(t="good.nii.gz"), ["good.nii.gz", "not a displacement field"]),
    "field of intent 0": (apply(t="intent.nii.gz"), ["intent.nii.gz", "intent 0", "1007"]),
    "4-D field": (apply(t="frames_warp.nii.gz"), ["frames_warp.nii.gz", "(12, 14, 10, 3)", "1007"]),
    "field of NaN": (apply(t="nan_warp.nii.gz"), ["nan_warp.nii.gz", "NaN"]),
    "affine that flattens": (apply(t="flat.txt"), ["flat.txt", "inverted"]),
    "broken bracket": (apply(t="[good.h5,2]"), ["[good.h5,2]", "[NAME,1]"]),
    "unknown interpolation": ([*apply(), "-n", "sinc"], ["sinc", "linear, cubic, nearest"]),
    "labels between voxels": ([*apply(i="labels.nii.gz"), "--labels", "-n", "cubic"], ["-n cubic", "nearest"]),
    "labels beyond": ([*apply(i="labels.nii.gz"), "--labels", "--outside", "7"], ["--outside", "labels are 0"]),
    "points between voxels": ([*apply(i="good.csv", o="OUT/p.csv"), "-n", "cubic"], ["-n cubic", "points are pushed"]),
    "an image's space": ([*apply(), "--space", "ras"], ["--space", "of points"]),
    "unknown ending": (apply(o="OUT/moved.dcm"), ["moved.dcm", ".nii.gz"]),
    "output in a file": (apply(o="OUT/file/moved.nii.gz"), ["moved.nii.gz", "cannot write"]),
    "output is a folder": (apply(o="OUT/folder.nii.gz"), ["folder.nii.gz", "is a folder"]),
    "unwritable folder": (apply(o="/proc/moved.nii.gz"), ["/proc/moved.nii.gz", "cannot write"]),
    "over the image": (apply(i="labels.nii.gz", o="labels.nii.gz"), ["labels.nii.gz", *OVER]),
    "over the reference": (apply(i="labels.nii.gz", o="good.nii.gz"), ["good.nii.gz", *OVER]),
    "over what a link leads to": (apply(i="link.nii.gz", r="labels.nii.gz", o="good.nii.gz"), ["good.nii.gz", *OVER]),
    "over the points": (apply(i="good.csv", o="./good.csv"), ["good.csv", *OVER]),
    "over the transform": (apply(t="[warp.nii.gz,1]", o="warp.nii.gz"), ["warp.nii.gz", *OVER]),
    "points of no space": (apply(i="nowhere.csv", o="OUT/p.csv"), ["nowhere.csv", "--space"]),
    "points of two spaces": ([*apply(i="good.csv", o="OUT/p.csv"), "--space", "lps"], ["good.csv", "RAS", "lps"]),
    "unknown space": ([*apply(i="nowhere.csv", o="OUT/p.csv"), "--space", "mni"], ["nowhere.csv", "mni", "ras or lps"]),
    "points of NaN": (apply(i="nan.csv", o="OUT/p.csv"), ["nan.csv", "line 2", "column 3"]),
    "points of text": (apply(i="text.csv", o="OUT/p.csv"), ["text.csv", "line 2", "three"]),
    "points in a plane": (apply(i="absent.csv", o="OUT/p.csv"), ["absent.csv", "2-D", "3"]),
    "unnamed columns": (apply(i="unnamed.csv", o="OUT/p.csv"), ["unnamed.csv", "R,A,S"]),
    "no points": (apply(i="empty.csv", o="OUT/p.csv"), ["empty.csv", "first line"]),
    "points as an image": (apply(i="good.csv"), ["moved.nii.gz", ".csv"]),
    "no GIFTI": (apply(i="mesh.gii", o="OUT/m.gii"), ["mesh.gii", "not a readable"]),
    "no VTK": (apply(i="mesh.vtk", o="OUT/m.vtk"), ["mesh.vtk"]),
    "unknown kind": (convert("good.h5", "a.h5", "--to", "afni"), ["--to afni", "itk", "niftyreg", "fsl"]),
    "kind not said": (convert("good.h5", "a.mat"), ["a.mat", "--to", "itk", "ants", "fsl"]),
    "no transform to convert": (convert("none.h5", "a.tfm"), ["none.h5", "no such file"]),
    "no pieces": (convert("none_", "a.h5", "--from", "ants"), ["none_", "neither"]),
    "no grids": (convert("good.h5", "disp_1.nii.gz"), ["disp_1.nii.gz", "--fixed", "--moving"]),
    "no grid for ANTs": (convert("good.h5", "ours_", "--to", "ants"), ["ours_", "--fixed"]),
    "affine as a field": (convert("good.h5", "warp.nii.gz"), ["warp.nii.gz", "fixed"]),
    "field as a matrix": (convert("warp.nii.gz", "a.mat", "--to", "fsl", *GRIDS), ["a.mat", ".nii.gz"]),
    "deformation as a matrix": (convert("warp.nii.gz", "a.mat", "--to", "itk"), ["a.mat", "deforms", ".h5"]),
    "grid of a slice": (
        convert("good.h5", "w.nii.gz", "--fixed", "slice.nii.gz"),
        ["good.h5", "3-D", "slice.nii.gz is 2-D"],
    ),
    "no arrays": (convert("bad.npz", "a.h5", *GRIDS), ["bad.npz", "floating point"]),
    "another shape": (convert("disp.npz", "a.h5", *GRIDS), ["disp.npz", "(4, 4, 4, 3)", "(12, 14, 10, 3)"]),
    "singular FLIRT": (convert("flirt.mat", "a.h5", "--from", "fsl", *GRIDS), ["flirt.mat"]),
    "sheared grid for ITK": (
        convert("good.h5", "warp.nii.gz", "--fixed", "sheared.nii.gz"),
        ["warp.nii.gz", "sheared", "Resample"],
    ),
    "convert over itself": (["convert", "warp.nii.gz", "warp.nii.gz"], ["warp.nii.gz", *OVER]),
    "convert over the fixed image": (
        ["convert", "warp.nii.gz", "good.nii.gz", "--fixed", "good.nii.gz"],
        ["good.nii.gz", *OVER],
    ),
    "convert pieces over themselves": (
        ["convert", "ants_", "ants_", "--to", "ants", "--fixed", "good.nii.gz"],
        ["ants_0GenericAffine.mat", *OVER],
    ),
    "prepare nothing": (prepare(data="none"), ["none", "not a folder", "--data"]),
    "prepare no match": (prepare(images="T2w"), ["scans", "0 images match", "--set"]),
    "prepare no labels": (prepare(labels="aseg"), ["no labels match", "--set"]),
    "prepare another setting": (prepare("--set", "crop=mask"), ["--set crop", "data"]),
    "prepare a misspelt setting": (prepare("--set", "data.lables=*.nii.gz"), ["did you mean 'labels'"]),
    "prepare frames": (prepare(images="frames"), ["a_frames.nii.gz", "4-D", "one frame"]),
    "prepare another grid": (prepare(labels="moved"), ["a_moved.nii.gz", "another grid", "resample"]),
    "prepare float labels": (prepare(labels="float"), ["a_float.nii.gz", "whole numbers"]),
    "prepare wide labels": (prepare(labels="wide"), ["a_wide.nii.gz", "0 to 2000", "--merge", "label,merged"]),
    "prepare negative labels": (prepare(labels="minus"), ["a_minus.nii.gz", "-1 to 1", "--merge"]),
    "prepare around nothing": (prepare("--crop", "labels", labels="all"), ["a_all.nii.gz", "empty"]),
    "prepare around no masks": (prepare("--crop", "mask"), ["data.masks"]),
    "prepare around what": (prepare("--crop", "liver"), ["'liver'", "labels or mask"]),
    "prepare an empty mask": (prepare("--set", "data.masks=*_all.nii.gz"), ["a_all.nii.gz", "0 everywhere"]),
    "prepare by no table": (prepare("--merge", "none.csv"), ["none.csv", "not a table"]),
    "prepare by half a table": (prepare("--merge", "half.csv"), ["half.csv", "'merged'", "label,name"]),
    "prepare by a table of twos": (prepare("--merge", "twice.csv"), ["twice.csv", "line 3", "label 1", "twice"]),
    "prepare dropping nothing": (prepare("--drop"), ["--drop", "--merge"]),
    "prepare a margin of nothing": (prepare("--margin", "5"), ["margin", "crop"]),
    "prepare voxels of no size": (prepare("--spacing", "-1"), ["spacing of -1", "more than 0"]),
    "prepare voxels of dust": (prepare("--spacing", "0.001"), ["a_T1w.nii.gz", "GB", "larger --spacing"]),
    "prepare voxels of nothing": (prepare("--spacing", "1e-30"), ["a_T1w.nii.gz", "GB", "larger --spacing"]),
    "prepare a shape of terabytes": (prepare("--shape", "100000"), ["a_T1w.nii.gz", "GB", "smaller --shape"]),
    "prepare no shape": (prepare("--shape", "64x64"), ["--shape 64x64", "160,192,224"]),
    "prepare a flat shape": (prepare("--shape", "64,64"), ["a_T1w.nii.gz", "3-D", "(64, 64)"]),
    "prepare stretched to nothing": (prepare("--stretch"), ["stretch", "shape"]),
    "prepare sheared": (prepare(images="sheared", labels=None), ["a_sheared.nii.gz", "sheared", "--spacing"]),
    "prepare into a file": ([*prepare()[:4], "OUT/file", *prepare()[5:]], ["file", "cannot write", "-o"]),
    "a folder of patients": (["doctor", "scans"], ["scans", "is a folder", "which of its files"]),
    "no patient": (["doctor", "none.nii.gz"], ["none.nii.gz", "no such file"]),
    "patient without a header": (["doctor", "good.nii.gz", "text.nii.gz"], ["text.nii.gz", "not a readable"]),
    "register nothing": (register("none.nii.gz"), ["none.nii.gz", "no such file"]),
    "register truncated gz": (register(moving="cut.nii.gz"), ["cut.nii.gz"]),
    "register a constant": (register(moving="constant.nii.gz"), ["constant.nii.gz", "every voxel is 7"]),
    "register NaN": (register("nan.nii.gz"), ["nan.nii.gz", "replace"]),
    "register frames": (register(moving="frames.nii.gz"), ["frames.nii.gz", "4-D", "one frame"]),
    "register slice and volume": (register(moving="slice.nii.gz"), ["slice.nii.gz", "2", "3", "alike"]),
    "register sheared": (register("sheared.nii.gz"), ["sheared.nii.gz", "Resample"]),
    "register into a file": (["register", "-f", "good.nii.gz", "-m", "good.nii.gz", "-o", "OUT/file"], ["file", "-o"]),
    "register into /proc": (["register", "-f", "good.nii.gz", "-m", "good.nii.gz", "-o", "/proc/x"], ["/proc/x", "-o"]),
    "register by no preset": (register("good.nii.gz", "good.nii.gz", "--preset", "quick"), ["--preset quick", "fast"]),
    "register with an empty mask": (
        register("good.nii.gz", "good.nii.gz", "--fixed-mask", "nothing.nii.gz"),
        ["nothing.nii.gz", "0 everywhere"],
    ),
    "register with a mask for an exclude": (
        register("organ.nii.gz", "good.nii.gz", "--fixed-exclude", "inside.nii.gz"),
        ["inside.nii.gz", "organ.nii.gz is 0 everywhere", "other way round"],
    ),
    "register with labels of nothing": (
        register("good.nii.gz", "good.nii.gz", "--moving-labels", "nothing.nii.gz"),
        ["nothing.nii.gz", "0 everywhere"],
    ),
    "register with labels of one": (
        register("good.nii.gz", "good.nii.gz", "--fixed-labels", "labels.nii.gz"),
        ["--fixed-labels", "--moving-labels"],
    ),
    "register from a start that is neither a name nor a file": (
        register("good.nii.gz", "good.nii.gz", "--start", "gobal"),
        ["--start gobal", "did you mean 'global'"],
    ),
    "register without an end": (
        register("good.nii.gz", "good.nii.gz", "--smoothness", "inf"),
        ["--smoothness inf", "factor"],
    ),
    "register in a space of nothing": (
        register("good.nii.gz", "good.nii.gz", "--space", "ras"),
        ["--space", "--fixed-points"],
    ),
    "match a plane": (match("plane.csv", "plane.csv"), ["fixed cloud", "one plane"]),
    "match in 2-D and 3-D": (match("plane.csv", "absent.csv"), ["plane.csv", "absent.csv", "3-D", "2-D"]),
    "match and push in 2-D": (
        match("plane.csv", "plane.csv", "--matched", "--fixed-points", "absent.csv"),
        ["plane.csv", "absent.csv", "3-D", "2-D"],
    ),
    "register with another grid's mask": (
        register("good.nii.gz", "good.nii.gz", "--fixed-mask", "elsewhere.nii.gz"),
        ["elsewhere.nii.gz", "another grid", "resample"],
    ),
}
SICK = {  # the patients, and what `doctor` must say on stdout
    "zero spacing": (["zero.nii"], ["zero.nii", "0 × 0 × 0", "set_zooms"]),
    "singular affine": (["singular.nii"], ["singular.nii", "singular", "set_sform"]),
    "truncated gz": (["cut.nii.gz"], ["cut.nii.gz", "cannot be read"]),
    "NaN": (["good.nii.gz", "nan.nii.gz"], ["nan.nii.gz", "1 voxels", "nan_to_num"]),
    "infinity": (["good.nii.gz", "inf.nii.gz"], ["inf.nii.gz", "1 voxels", "nan_to_num"]),
    "constant": (["constant.nii.gz", "good.nii.gz"], ["constant.nii.gz", "every voxel is 7"]),
    "frames": (["good.nii.gz", "frames.nii.gz"], ["frames.nii.gz", "4-D", "fslroi"]),
    "one voxel thick": (["thin.nii.gz"], ["thin.nii.gz", "fewer than two"]),
    "colours": (["rgb.nii.gz"], ["rgb.nii.gz", "colour"]),
    "a colour picture": (["rgb.png"], ["rgb.png", "colour", "1 mm is taken"]),
    "complex": (["complex.nii.gz"], ["complex.nii.gz", "complex", "magnitude"]),
    "slice against volume": (["good.nii.gz", "slice.nii.gz"], ["slice.nii.gz", "2-D", "3-D"]),
    "fields of view apart": (["good.nii.gz", "far.nii.gz"], ["0 %", "far.nii.gz", "866.0 mm apart"]),
}


@pytest.fixture
def run(files, tmp_path, monkeypatch, capfd):
    """A command in the folder of bad files; afterwards, that nothing new lies there or in OUT. Exit code, out, err."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.nii.gz").mkdir()
    monkeypatch.chdir(files)
    monkeypatch.setenv("COLUMNS", "500")

    def call(arguments):
        before = [sorted(folder.rglob("*")) for folder in (files, tmp_path)]
        monkeypatch.setattr(sys, "argv", ["pullback", *(a.replace("OUT", str(tmp_path)) for a in arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        assert [sorted(folder.rglob("*")) for folder in (files, tmp_path)] == before
        return code, *capfd.readouterr()

    return call


def test_the_table_is_long():
    assert len(ROWS) >= 60
    assert len(SICK) >= 12
    assert {command[0] for command, _ in ROWS.values()} == {
        "apply",
        "convert",
        "doctor",
        "match",
        "prepare",
        "register",
    }


@pytest.mark.filterwarnings("ignore:.*sheared.nii.gz. here, as in nibabel")
@pytest.mark.parametrize("name", ROWS)
def test_one_clear_line_and_nothing_left(run, name):
    arguments, words = ROWS[name]
    code, out, err = run(arguments)
    assert code == 1, err
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("pullback: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize("name", SICK)
def test_the_doctor_finds_it(run, name):
    patients, words = SICK[name]
    code, out, err = run(["doctor", *patients])
    assert (code, err) == (1, "")
    said = " ".join(out.split())
    for word in words:
        assert word in said
    assert "mend the errors first" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["truncated gz", "corrupt h5", "points of text"])
def test_the_same_in_a_process_of_its_own(files, tmp_path, name):
    arguments = [a.replace("OUT", str(tmp_path)) for a in ROWS[name][0]]
    done = subprocess.run(
        [sys.executable, "-m", "pullback.cli", *arguments], cwd=files, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("pullback: ")
    assert list(tmp_path.iterdir()) == []


def test_the_good_files_are_good(files, tmp_path, monkeypatch, capfd):
    """Else the rows above would be refused for another reason than theirs."""
    for arguments in (apply(), apply(t="warp.nii.gz"), apply(i="good.csv", o="OUT/p.csv"), convert("good.h5", "a.tfm")):
        monkeypatch.chdir(files)
        monkeypatch.setattr(sys, "argv", ["pullback", *(a.replace("OUT", str(tmp_path)) for a in arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    assert {path.name for path in tmp_path.iterdir()} == {"moved.nii.gz", "p.csv", "a.tfm"}


@pytest.mark.parametrize("kind", ["an accelerator", "the processor", "Python"])
def test_too_little_memory_is_told_as_what_it_is(run, monkeypatch, kind):
    """Wherever it runs out; any other error of torch keeps its traceback."""

    def full(*_):
        if kind == "Python":
            raise MemoryError
        if kind == "an accelerator":
            raise torch.OutOfMemoryError("tried to allocate 3 GiB")
        torch.empty(10**15)

    monkeypatch.setattr("pullback.workflows.doctor.audit", full)
    code, out, err = run(["doctor", "good.nii.gz"])
    assert (code, out) == (1, "")
    assert err.startswith("pullback: not enough memory; work on smaller images")
    monkeypatch.setattr("pullback.workflows.doctor.audit", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        run(["doctor", "good.nii.gz"])
