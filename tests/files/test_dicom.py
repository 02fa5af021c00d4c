"""DICOM written by pydicom, read as the image it is: placed as SimpleITK places the same series, or refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from pullback.errors import InputError
from pullback.files import audit, read_image, write_transform
from pullback.space import Affine

ROWS, COLUMNS, SLICES = 14, 18, 9
AXES = np.array([[0.8, 0.6, 0.0], [-0.48, 0.64, -0.6]])  # along a row, along a column
ACROSS = np.cross(*AXES)
RAS = np.array([-1.0, -1.0, 1.0])


def dataset(number: int, series: str, values: np.ndarray, **other) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    file.SeriesInstanceUID, file.StudyInstanceUID = series, "1.2.3"
    file.SeriesNumber, file.SeriesDescription, file.Modality = 4, "Chest, thin", "CT"
    file.Rows, file.Columns = values.shape[-2:]
    file.PixelSpacing, file.SliceThickness = [1.5, 0.75], 2.5  # of rows, of columns
    file.ImageOrientationPatient = AXES.flatten().tolist()
    file.ImagePositionPatient = (np.array([10.0, -20.0, 30.0]) + 2.5 * number * ACROSS).tolist()
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    file.PixelData = values.astype("<i2").tobytes()
    for name, value in other.items():
        setattr(file, name, value)
    return file


def voxels() -> np.ndarray:
    """`(slices, rows, columns)`, as stored."""
    return np.random.default_rng(0).integers(0, 3000, (SLICES, ROWS, COLUMNS))


def series(folder: Path, change=lambda number, file: None, uid: str = "1.2.3.4") -> Path:
    """Slices under names that do not sort as they lie, without a suffix."""
    folder.mkdir(exist_ok=True)
    for number, values in enumerate(voxels()):
        file = dataset(number, uid, values)
        if change(number, file) is not False:
            file.save_as(folder / f"IM{(number * 5) % SLICES:03d}{uid[-1]}", enforce_file_format=True)
    return folder


def test_a_folder_of_slices_is_the_image_that_simpleitk_reads(tmp_path):
    image = read_image(series(tmp_path / "scan"))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "scan"))
    known = sitk.ReadImage(names)
    assert image.grid.shape == (COLUMNS, ROWS, SLICES) == known.GetSize()
    np.testing.assert_array_equal(image.data[0, 0], sitk.GetArrayFromImage(known).T)
    for index in ((0, 0, 0), (17, 2, 3), (4, 13, 8)):
        here = image.grid.affine.numpy() @ np.array([*index, 1.0])
        np.testing.assert_allclose(here[:3], RAS * known.TransformIndexToPhysicalPoint(index), atol=1e-6)


def test_each_slice_has_its_own_slope(tmp_path):
    """As of PET: here the third slice counts half."""

    def change(number, file):
        file.RescaleSlope, file.RescaleIntercept = (0.5, 0.25) if number == 2 else (1, 0)

    image = read_image(series(tmp_path / "pet", change)).data[0, 0].numpy()
    known = voxels().transpose(2, 1, 0)
    np.testing.assert_array_equal(image[..., 3], known[..., 3])
    np.testing.assert_array_equal(image[..., 2], 0.5 * known[..., 2] + 0.25)


def test_of_several_series_one_is_named(tmp_path):
    series(tmp_path / "scans")
    series(tmp_path / "scans", lambda n, file: setattr(file, "SeriesNumber", 7), uid="1.2.3.5")
    with pytest.raises(InputError, match=r"holds 2 series.*@4: CT Chest, thin, 9 files; @7"):
        read_image(tmp_path / "scans")
    assert read_image(tmp_path / "scans@7").grid.shape == (COLUMNS, ROWS, SLICES)
    with pytest.raises(InputError, match="there is no series 5"):
        read_image(tmp_path / "scans@5")


def test_copies_and_other_files_do_not_matter(tmp_path):
    folder = series(tmp_path / "scan")
    before = read_image(folder)
    shutil.copy(folder / "IM0004", folder / "copy")
    (folder / "readme.txt").write_text("no slice")
    (folder / "DICOMDIR").write_bytes(b"nothing")
    after = read_image(folder)
    assert after.grid == before.grid
    assert bool((after.data == before.data).all())


def shifted(number: int, file: FileDataset, by: np.ndarray) -> None:
    file.ImagePositionPatient = (np.array(file.ImagePositionPatient, float) + by).tolist()


def missing(number, file):
    return number != 4


def doubled(number, file):
    file.ImagePositionPatient = dataset(number // 2, "1", voxels()[0]).ImagePositionPatient


def tilted(number, file):
    shifted(number, file, 2.5 * number * np.tan(np.radians(12)) * AXES[1])


def turned(number, file):
    if number == 3:
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def wider(number, file):
    if number == 3:
        file.PixelSpacing = [1.5, 0.8]


def nowhere(number, file):
    del file.ImagePositionPatient


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (missing, r"are 5 mm, between others 2.5: a slice is missing"),
        (doubled, r"4 slices lie where another lies"),
        (tilted, r"tilted by 12\.0°.*dcm2niix"),
        (turned, r"not parallel"),
        (wider, r"several sizes or spacings"),
        (nowhere, r"the header has no position \(0020,0032\)"),
    ],
)
def test_slices_that_make_no_image_are_refused_with_the_remedy(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        read_image(series(tmp_path / "scan", change))


def test_folders_without_dicom_name_those_that_have_it(tmp_path):
    (tmp_path / "study").mkdir()
    series(tmp_path / "study" / "S0001")
    with pytest.raises(InputError, match=r"without DICOM; there is some in S0001"):
        read_image(tmp_path / "study")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: is a folder without DICOM; name a file"):
        read_image(tmp_path / "empty")


def enhanced(path: Path) -> Path:
    """One file with all slices, as newer scanners write them."""
    file = dataset(0, "1.2.3.6", voxels(), NumberOfFrames=SLICES)
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness"):
        delattr(file, name)
    measures, plane, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.5, 0.75], 2.5
    plane.ImageOrientationPatient = AXES.flatten().tolist()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number in range(SLICES):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = dataset(number, "1", voxels()[0]).ImagePositionPatient
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    file.PerFrameFunctionalGroupsSequence = Sequence(frames)
    file.save_as(path, enforce_file_format=True)
    return path


def test_many_slices_in_one_file_are_those_of_many_files(tmp_path):
    one = read_image(enhanced(tmp_path / "scan.dcm"))
    many = read_image(series(tmp_path / "scan"))
    np.testing.assert_allclose(one.grid.affine, many.grid.affine, atol=1e-5)
    np.testing.assert_array_equal(one.data, many.data)


def test_dicom_is_taken_wherever_an_image_is(tmp_path, pullback):
    folder = series(tmp_path / "scan")
    assert not [finding for finding in audit(folder) if finding.severity.value == "error"]
    identity = tmp_path / "identity.h5"
    write_transform(Affine.identity(3), identity)
    code, _, said = pullback("apply", "-i", folder, "-r", folder, "-t", identity, "-o", tmp_path / "moved.nii.gz")
    assert code == 0, said
    moved, image = read_image(tmp_path / "moved.nii.gz"), read_image(folder)
    np.testing.assert_allclose(moved.data, image.data, atol=1e-3)
    code, said, _ = pullback("doctor", folder)
    assert code == 0, said
