"""Places to seek a slice: the plates of an atlas, those of a run, or planes of a volume; or a volume."""

from pathlib import Path

from pullback.errors import InputError
from pullback.files.images.dicom import is_dicom

PLATES, VOLUME = "plates", "volume"


def kind_of(within: Path, run: Path | None = None) -> str:
    """Return `PLATES` for a folder of plates, a run, or the planes of a volume that a run is shown; else `VOLUME`.

    Raises:
        InputError: there is nothing of this name.
    """
    if not within.exists():
        raise InputError(f"{within}: no such file or folder; a folder of plates, a run, or a volume expected")
    if run is not None:
        return PLATES
    if within.is_file() or within.suffix == ".zarr":
        return VOLUME
    return VOLUME if any(is_dicom(path) for path in within.iterdir() if path.is_file()) else PLATES
