"""Every wrong file is refused with its name and a remedy, and failed writing leaves nothing behind."""

import errno
import gzip
import os
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pullback.errors import InputError
from pullback.files.images.nifti import read_image, read_labels, write_image
from pullback.files.transforms.itk import write_transform
from pullback.files.transforms.nifti_field import read_field, write_field
from pullback.records.atomic import atomic_write
from pullback.records.manifest import manifest, peak_memory_mb, write_json
from pullback.space import Displacement, Grid, Image, Labels

READERS = [read_image, read_labels, read_field]
WRITERS = [
    lambda path: write_image(Image(torch.rand(1, 1, 4, 5, 6), Grid.centred((4, 5, 6))), path),
    lambda path: write_image(Labels(torch.ones(1, 1, 4, 5, 6, dtype=torch.uint8), Grid.centred((4, 5, 6))), path),
    lambda path: write_field(Displacement(torch.rand(1, 3, 4, 5, 6), Grid.centred((4, 5, 6))), path),
]
readers = pytest.mark.parametrize("reader", READERS, ids=lambda r: r.__name__)
writers = pytest.mark.parametrize("writer", WRITERS, ids=["image", "labels", "field"])


def saved(path, array, affine=None, intent=0, image=nib.Nifti1Image):
    stored = image(array, np.eye(4) if affine is None else affine)
    if intent:
        stored.header.set_intent(intent)
    nib.save(stored, path)
    return path


def refused(reader, path, *says):
    with pytest.raises(InputError) as caught:
        reader(path)
    message = str(caught.value)
    assert Path(path).name in message
    for word in says:
        assert word in message
    return message


# reading


@readers
def test_missing(tmp_path, reader):
    refused(reader, tmp_path / "nothing.nii.gz", "no such file")
    refused(reader, tmp_path, "is a folder")


@readers
@pytest.mark.parametrize("name", ["text.nii.gz", "text.nii", "text.png"])
def test_not_an_image(tmp_path, reader, name):
    (tmp_path / name).write_text("subject,age\n1,60\n" * 100)
    refused(reader, tmp_path / name, "not a readable")


@readers
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("packed.nii", "is compressed: name it .nii.gz"),
        ("packed", "is compressed: name it .nii.gz"),
        ("plain.nii.gz", "is not compressed: name it .nii"),
        ("plain", "is not compressed: name it .nii"),
        ("array.npy", "no affine"),
        ("points.txt", "points from .csv"),
    ],
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_name_that_misleads(tmp_path, reader, name, says, kind):
    content = kind(np.zeros((4, 5, 6), np.float32), np.eye(4)).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.startswith("packed") else content)
    if name == "array.npy":
        np.save(tmp_path / name, np.zeros((4, 5, 6)))
    elif name == "points.txt":
        (tmp_path / name).write_text("point\n1\n1 2 3\n")
    refused(reader, tmp_path / name, says)


@readers
def test_empty(tmp_path, reader):
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    refused(reader, tmp_path / "empty.nii.gz")


def whole(tmp_path, reader):
    """A file that `reader` reads."""
    values = np.random.default_rng(0).integers(0, 9, (16, 17, 18, 1, 3))
    if reader is read_field:
        return saved(tmp_path / "whole.nii.gz", values.astype(np.float32), intent=1007)
    return saved(tmp_path / "whole.nii.gz", values[..., 0, 0].astype(np.int16))


@readers
@pytest.mark.parametrize("keep", [0.01, 0.5, 0.99])
def test_truncated_gz(tmp_path, reader, keep):
    path = whole(tmp_path, reader)
    reader(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(reader, path)


def test_a_name_in_capitals(tmp_path):
    """Is written compressed, read back, and read to its checksum."""
    for writer, reader in ((WRITERS[0], read_image), (WRITERS[2], read_field)):
        path = tmp_path / "WHOLE.NII.GZ"
        writer(path)
        assert len(gzip.decompress(path.read_bytes())) > 400
        assert reader(path).grid == Grid.centred((4, 5, 6))
        path.write_bytes(path.read_bytes()[:-4])
        refused(reader, path)
    assert [name.name for name in tmp_path.iterdir()] == ["WHOLE.NII.GZ"]


@readers
def test_truncated_nii(tmp_path, reader):
    path = whole(tmp_path, reader)
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(path.read_bytes())[:2000])
    refused(reader, tmp_path / "cut.nii")


@readers
@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_damaged_gz(tmp_path, reader, at):
    """Half of such damage still decompresses, to other numbers: the checksum tells."""
    path = whole(tmp_path, reader)
    content = bytearray(path.read_bytes())
    start = int(at * len(content))
    content[start : start + 40] = bytes(255 - b for b in content[start : start + 40])
    path.write_bytes(content)
    refused(reader, path)


@readers
@pytest.mark.parametrize("good", [100, 2000], ids=["in the header", "in the voxels"])
def test_gz_that_cannot_be_decompressed(tmp_path, reader, good):
    """Some bytes that are fine, and then a block of the type that deflate does not have."""
    path = whole(tmp_path, reader)
    squeeze = zlib.compressobj(wbits=31)
    start = squeeze.compress(gzip.decompress(path.read_bytes())[:good]) + squeeze.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(start + b"\xff" * 4000)
    refused(reader, path)


@readers
def test_another_format(tmp_path, reader):
    path = tmp_path / "thickness.gii"
    nib.save(nib.gifti.GiftiImage(darrays=[nib.gifti.GiftiDataArray(np.ones(4, np.float32))]), path)
    refused(reader, path, "convert it to NIfTI")


@readers
def test_a_header_that_lies_nowhere(tmp_path, reader):
    values = np.random.default_rng(0).integers(0, 9, (4, 5, 6, 1, 3)).astype(np.float32)
    array = values if reader is read_field else values[..., 0, 0]
    affine = np.diag([1.0, 0, 1, 1])
    image = nib.Nifti1Image(array, None)
    image.header.set_sform(affine, code=1)
    image.header["intent_code"] = 1007 if reader is read_field else 0
    nib.save(nib.Nifti1Image(array, affine, image.header), tmp_path / "flat.nii.gz")
    refused(reader, tmp_path / "flat.nii.gz", "affine")


def test_a_slice_whose_affine_is_not_finite(tmp_path):
    affine = np.eye(4)
    affine[0, 2] = np.nan
    path = saved(tmp_path / "slice.nii", np.arange(20, dtype=np.float32).reshape(4, 5))
    content = bytearray(path.read_bytes())
    content[280:328] = affine[:3].astype(np.float32).tobytes()
    path.write_bytes(content)
    refused(read_image, path, "where the voxels are")


def test_nan(tmp_path):
    values = np.ones((4, 5, 6), np.float32)
    values[0, 0, :2] = np.nan, np.inf
    path = saved(tmp_path / "nan.nii.gz", values)
    refused(read_image, path, "2 voxels", "NaN")
    refused(read_labels, path, "whole numbers")
    field = np.zeros((4, 5, 6, 1, 3), np.float32)
    field[0, 0, 0] = np.nan
    refused(read_field, saved(tmp_path / "field.nii.gz", field, intent=1007), "NaN")


def test_beyond_float32(tmp_path):
    refused(read_image, saved(tmp_path / "huge.nii.gz", np.array([[1e300, 1], [2, 3]])), "1 voxels", "infinite")
    refused(read_labels, saved(tmp_path / "huge.nii.gz", np.array([[1e30, 1], [2, 3]])), "64 bits")


def test_an_empty_mask(tmp_path):
    image = saved(tmp_path / "image.nii.gz", np.random.default_rng(0).random((4, 5, 6)))
    mask = saved(tmp_path / "mask.nii.gz", np.zeros((4, 5, 6), np.uint8))
    refused(lambda p: read_image(image, mask=p), mask, "mask", "leave it out")


@readers
@pytest.mark.parametrize(
    ("at", "value"), [(70, np.int16(1234)), (108, np.float32(77)), (108, np.float32(-1e30))], ids=["type", "low", "far"]
)
def test_a_damaged_header(tmp_path, reader, at, value):
    path = tmp_path / "damaged.nii"
    content = bytearray(gzip.decompress(whole(tmp_path, reader).read_bytes()))
    content[at : at + value.nbytes] = value.tobytes()
    path.write_bytes(content)
    refused(reader, path)


def test_constant(tmp_path):
    refused(read_image, saved(tmp_path / "flat.nii.gz", np.full((4, 5, 6), 7.0)), "7", "constant")


@pytest.mark.parametrize("reader", [read_image, read_labels])
def test_four_dimensions(tmp_path, reader):
    array = np.random.default_rng(0).integers(0, 9, (4, 5, 6, 3)).astype(np.int16)
    refused(reader, saved(tmp_path / "frames.nii.gz", array), "4-D", "one frame")


@pytest.mark.parametrize("reader", [read_image, read_labels])
@pytest.mark.parametrize("shape", [(5,), (5, 1, 1), (1, 5, 1), (1, 1, 6)])
def test_too_few_voxels(tmp_path, reader, shape):
    refused(reader, saved(tmp_path / "thin.nii", np.arange(np.prod(shape)).reshape(shape).astype(np.int16)))


def test_colours(tmp_path):
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(read_image, saved(tmp_path / "colours.nii", rgb))


def test_fractional_labels(tmp_path):
    probability = np.random.default_rng(0).random((4, 5, 6))
    refused(read_labels, saved(tmp_path / "labels.nii.gz", probability), "whole numbers")


def test_labels_stored_as_floats_are_fine_when_they_are_whole(tmp_path):
    values = np.random.default_rng(0).integers(0, 40, (4, 5, 6))
    path = saved(tmp_path / "labels.nii.gz", values.astype(np.float32))
    np.testing.assert_array_equal(read_labels(path).data[0, 0].numpy(), values)


@pytest.mark.parametrize("grid", [Grid.centred((4, 5, 7)), Grid.centred((4, 5, 6), 1.1)])
def test_labels_on_another_grid(tmp_path, grid):
    path = saved(tmp_path / "labels.nii.gz", np.ones((4, 5, 6), np.uint8), Grid.centred((4, 5, 6)).affine.numpy())
    assert read_labels(path, on=Grid.centred((4, 5, 6))).data.all()
    refused(lambda p: read_labels(p, on=grid), path, "labels on another grid", "resample")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((2, 3, 1.5), "its first voxel lies 1.5 mm from the image's; resample"),
        ((1, 1, -1.0), "grid than the image: its axes point elsewhere; resample"),
        ((1, 1, 1.001), "grid than the image: spacing 1×1.001×1 against 1×1×1; resample"),
    ],
)
def test_masks_on_another_grid(tmp_path, change, says):
    """What is alike is not named."""
    row, column, value = change
    affine = np.eye(4)
    image = saved(tmp_path / "image.nii.gz", np.random.default_rng(0).random((40, 50, 60)), affine)
    affine = np.eye(4)
    affine[row, column] = value
    path = saved(tmp_path / "mask.nii.gz", np.ones((40, 50, 60), np.uint8), affine)
    refused(lambda p: read_image(image, p), path, "mask on another grid", says)
    half = saved(tmp_path / "half.nii.gz", np.full((40, 50, 60), 0.5))
    refused(lambda p: read_image(image, p), half, "mask: whole numbers", "threshold it")


@pytest.mark.parametrize(
    ("shape", "intent"),
    [
        ((4, 5, 6, 1, 3), 0),
        ((4, 5, 6, 1, 3), 1002),
        ((4, 5, 6, 3), 1007),
        ((4, 5, 6, 3), 0),
        ((4, 5, 6), 1007),
        ((4, 5, 6, 2, 3), 1007),
        ((4, 5, 6, 1, 4), 1007),
        ((4, 5, 6, 1, 2), 1007),
    ],
)
def test_what_other_tools_would_misread_as_a_field(tmp_path, shape, intent):
    path = saved(tmp_path / "field.nii.gz", np.zeros(shape, np.float32), intent=intent)
    refused(read_field, path, "not a displacement field", f"intent {intent}", "1007", "1006")


# writing


@writers
@pytest.mark.parametrize("name", ["image.mha", "image", "image.nii.bz2"])
def test_only_nifti_is_written(tmp_path, writer, name):
    refused(writer, tmp_path / name, ".nii.gz")
    assert not list(tmp_path.iterdir())


@writers
@pytest.mark.parametrize("before", [None, b"what was here before"], ids=["new", "overwriting"])
@pytest.mark.parametrize("step", ["save", "replace"])
def test_a_full_disk_leaves_things_as_they_were(tmp_path, monkeypatch, writer, before, step):
    def full(*arguments, **options):
        if step == "save":
            Path(arguments[1]).write_bytes(b"the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "out.nii.gz"
    if before:
        path.write_bytes(before)
    monkeypatch.setattr(*((nib, "save", full) if step == "save" else (os, "replace", full)))
    refused(writer, path, "No space left on device")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([before] if before else [])


@writers
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, writer):
    def interrupted(*arguments, **options):
        Path(arguments[1]).write_bytes(b"the first half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer(tmp_path / "out.nii.gz")
    assert not list(tmp_path.iterdir())


@writers
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, writer):
    """Tests may run as root, to whom nothing is read-only: the refusal of the system is played."""

    def denied(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", denied)
    refused(writer, tmp_path / "out.nii.gz", "Read-only file system")
    assert not list(tmp_path.iterdir())


@writers
def test_a_file_where_the_folder_should_be(tmp_path, writer):
    (tmp_path / "folder").write_text("a file")
    refused(writer, tmp_path / "folder" / "out.nii.gz", "cannot write")
    assert (tmp_path / "folder").read_text() == "a file"


def test_labels_that_no_reader_would_accept(tmp_path):
    labels = Labels(torch.full((1, 1, 4, 5, 6), 2**40), Grid.centred((4, 5, 6)))
    refused(lambda p: write_image(labels, p), tmp_path / "labels.nii.gz", "32 bits")
    assert not list(tmp_path.iterdir())


def sheared(ndim):
    affine = torch.eye(ndim + 1, dtype=torch.float64) * 2
    affine[-1, -1], affine[0, 1] = 1, 0.01
    return Grid((4, 5, 6)[:ndim], affine)


SHEARED_WRITERS = {
    "image.nii.gz": lambda grid, path: write_image(Image(torch.rand(1, 1, *grid.shape), grid), path),
    "labels.nii.gz": lambda grid, path: write_image(Labels(torch.ones(1, 1, *grid.shape).int(), grid), path),
    "field.nii.gz": lambda grid, path: write_field(Displacement(torch.rand(1, grid.ndim, *grid.shape), grid), path),
    "field.h5": lambda grid, path: write_transform(Displacement(torch.rand(1, grid.ndim, *grid.shape), grid), path),
}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", SHEARED_WRITERS)
def test_sheared_grids_are_not_written(tmp_path, ndim, name):
    """ITK reads such a NIfTI file as another grid, in silence: it takes the qform, which cannot shear."""
    refused(lambda path: SHEARED_WRITERS[name](sheared(ndim), path), tmp_path / name, "sheared", "Resample")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("writer", ["plain", "replacing"])
def test_the_umask_says_who_may_read(tmp_path, umask, writer):
    """Also where the writer puts a file of its own in the place of the temporary one, as safetensors does."""
    path, before = tmp_path / "patient.txt", os.umask(umask)
    try:
        with atomic_write(path) as temporary:
            if writer == "replacing":
                temporary.unlink()
                os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
            temporary.write_text("what nobody else may see")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


# manifests


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run" / "manifest.json"
    write_json(manifest() | {"where": path}, path)
    assert '"torch"' in path.read_text()
    endless = {}
    endless["self"] = endless
    with pytest.raises(ValueError, match="Circular"):
        write_json(endless, path)
    assert [p.name for p in path.parent.iterdir()] == ["manifest.json"]
    assert '"torch"' in path.read_text()


def test_the_peak_of_memory_grows_with_what_is_held():
    before = peak_memory_mb(torch.device("cpu"))
    held = torch.ones(int(before) * 2**18 + 2**24)  # as much again
    assert peak_memory_mb(torch.device("cpu")) > before
    assert held.numel()
