"""The kinds of faults that a survey finds in the files of a data set."""

from dataclasses import dataclass

from pullback.files.audit.header import Severity


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault: how bad it is, what the files have in common, and what to do."""

    severity: Severity
    what: str
    remedy: str


ABSENT = FaultKind(
    Severity.ERROR, "listed, but not there", "Put them there, or take them out of the list; --skip-bad leaves them out."
)
LINK = FaultKind(
    Severity.ERROR,
    "links to nowhere",
    "Fetch them (datalad get, git annex get), or mend the links; --skip-bad leaves them out.",
)
EMPTY = FaultKind(Severity.ERROR, "empty files", "Copy or convert them anew; --skip-bad leaves them out.")
UNREADABLE = FaultKind(Severity.ERROR, "cannot be used", "Mend them as each says; --skip-bad leaves them out.")
DIMENSIONS = FaultKind(
    Severity.ERROR,
    "of other dimensions than the others",
    "Slices and volumes make no pair; --skip-bad leaves them out.",
)
CHANNELS = FaultKind(
    Severity.ERROR, "without all channels, or on another grid", "Add or resample them; --skip-bad leaves them out."
)
OTHER_GRID = FaultKind(
    Severity.ERROR,
    "labels or masks on another grid than their image",
    "Either resample them onto it, by nearest voxels, or take others; --skip-bad leaves the images out.",
)
UNLABELLED = FaultKind(
    Severity.ERROR, "images without labels, which this recipe learns from", "Add them; --skip-bad leaves them out."
)
NO_LABELS = FaultKind(
    Severity.WARNING, "images without labels, where others have some", "Nothing is measured of them; check the names."
)
APART = FaultKind(
    Severity.ERROR,
    "images that overlap with no other as their headers lie",
    "Where headers do not place them, lay them middle on middle, --set data.shape=[…]; else register them onto one "
    "image first; --skip-bad leaves them out.",
)
LITTLE = FaultKind(
    Severity.WARNING,
    "images that overlap by less than half with the one in the middle",
    "A network learns little of pairs so far apart: --set data.shape=[…] lays them middle on middle.",
)
SPACING = FaultKind(
    Severity.WARNING,
    "images with voxels of another size",
    "Networks learn in voxels: `pullback prepare --spacing MM` brings all to one size.",
)
VOXELS = FaultKind(
    Severity.WARNING,
    "cohort of several voxel sizes",
    "Networks learn in voxels, so a run takes one size for its own, and `evaluate` and `register` show it images at "
    "that: `pullback prepare --spacing MM` brings all to one size.",
)
COPIES = FaultKind(
    Severity.WARNING,
    "the same image, byte by byte, under several names",
    "Copies are of one person: take all but one out.",
)
VISITS = FaultKind(
    Severity.WARNING,
    "names that look like several images of one person, which splits may part",
    'Say whose they are: --set "data.person={person}_*", or a table; or --set data.person=… that names each alone.',
)
HIDDEN = FaultKind(
    Severity.NOTE, "hidden files, which are left out", "Nothing to do; `dot_clean` removes those of macOS."
)


@dataclass(frozen=True)
class Fault:
    """A fault of a case, or of the folder where `case` is empty; `said` names the file, with numbers."""

    kind: FaultKind
    case: str
    said: str

    @property
    def is_error(self) -> bool:
        """Whether the case cannot be used."""
        return self.kind.severity is Severity.ERROR
