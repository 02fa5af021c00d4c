"""Survey of a data set before the work: all faults of its files at once, by name, with what to do."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pullback.data.case import Case, Dataset, FileCase, subject_of
from pullback.data.faults import (
    ABSENT,
    APART,
    CHANNELS,
    COPIES,
    DIMENSIONS,
    EMPTY,
    HIDDEN,
    LINK,
    LITTLE,
    NO_LABELS,
    OTHER_GRID,
    SPACING,
    UNLABELLED,
    UNREADABLE,
    VISITS,
    VOXELS,
    Fault,
)
from pullback.data.folder import PairFolder
from pullback.data.ixi import PickledCase
from pullback.data.learn2reg import Learn2Reg
from pullback.data.pattern import Pattern
from pullback.data.people import copies, numbered, person_in
from pullback.errors import InputError
from pullback.files.audit.header import Finding, Severity
from pullback.files.images.nifti import read_grid, read_image, read_labels
from pullback.space import Grid

SHOWN = 50  # faults of one kind that are told by name
POINTS = 9  # along each edge of a field of view, by which overlap is measured
UNEVEN = 3.0  # of an image's voxels to the cohort's, by their edges, before the image is named
MIXED = 1.1  # of a cohort's largest voxels to its smallest, by their edges, before they are told


@dataclass(frozen=True)
class Survey:
    """Findings about a data set.

    Attributes:
        cases, people: how many there are.
        faults: in the order in which they were found.
        about: what all have in common, in words: shapes and spacings.
    """

    cases: int
    people: int
    faults: tuple[Fault, ...]
    about: str

    @property
    def bad(self) -> dict[str, str]:
        """The faults of the cases that cannot be used, by name."""
        return {fault.case: fault.said for fault in self.faults if fault.is_error}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """A finding for each kind of fault, which names all that have it, the worst first."""
        kinds = sorted(dict.fromkeys(f.kind for f in self.faults), key=lambda kind: [*Severity].index(kind.severity))
        found = []
        for kind in kinds:
            told = [fault.said for fault in self.faults if fault.kind is kind]
            more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
            lines = "\n".join(f"  {line}" for line in (*told[:SHOWN], *more))
            found.append(Finding(kind.severity, f"{len(told)} {kind.what}:\n{lines}", kind.remedy))
        return tuple(found)


def survey(
    data: Dataset,
    learns_labels: bool = False,
    only: Collection[str] | None = None,
    track: Callable[[Iterable[list[Fault]], int], Iterable[list[Fault]]] = lambda read, count: read,
) -> Survey:
    """Look at every file of a data set: all headers first, then all voxels, by several threads.

    Args:
        learns_labels: whether images without labels are a fault.
        only: names of the cases to look at; None looks at all, and at the folder.
        track: shows the progress of reading voxels, of so many images.

    Raises:
        InputError: there are no images to look at.
    """
    cases = [case for case in cases_of(data) if isinstance(case, FileCase | PickledCase)]
    left = {*data.without} if isinstance(data, PairFolder | Learn2Reg) else set()
    cases = [case for case in cases if case.name not in left and (only is None or case.name in only)]
    faults = [*_of_folder(data, cases)] if only is None else []
    files = [case for case in cases if isinstance(case, FileCase)]
    faults += [fault for case in cases for fault in _of_paths(case)]
    seen = {*(fault.case for fault in faults)}
    grids: dict[str, Grid] = {}
    for case in files:
        if case.name not in seen:
            faults += _of_headers(case, grids)
    centred = isinstance(data, PairFolder | Learn2Reg) and (data.centred or data.synthetic is not None)
    faults += [*_of_labels(files, learns_labels), *_of_cohort(files, grids, centred)]
    seen = {fault.case for fault in faults if fault.is_error}
    sound = [case for case in files if case.name not in seen]
    with ThreadPoolExecutor() as threads:
        found = [fault for read in track(threads.map(_of_voxels, sound), len(sound)) for fault in read]
    people = {person_in(subject_of(case)) for case in cases}
    return Survey(len(cases), len(people), (*faults, *found), _about(list(grids.values())))


def cases_of(data: Dataset) -> list[Case]:
    """Return all cases of a data set, those of its splits where it has no list."""
    if isinstance(data, PairFolder):
        return [*data.cases, *data.listing.moved.values()]
    if isinstance(data, Learn2Reg):
        return [*data.cases]
    pairs = [pair for split in (data.validation, data.test) for pair in split.pairs]
    return [*dict.fromkeys([*data.train.cases, *(case for pair in pairs for case in pair)])]


def _of_folder(data: Dataset, cases: Sequence[Case]) -> Iterator[Fault]:
    """Yield what a folder's names and bytes say: hidden files, copies, visits."""
    if not isinstance(data, PairFolder):
        images = {case.image: case for case in cases if isinstance(case, FileCase)}
        for group in copies(images):
            if len({person_in(images[path].name) for path in group}) > 1:
                yield Fault(COPIES, "", " = ".join(path.name for path in group))
        return
    for path in Pattern(data.listing.images[0]).hidden(Path(data.root)):
        yield Fault(HIDDEN, "", str(path))
    for group in copies(case.image for case in data.cases):
        yield Fault(COPIES, "", " = ".join(path.name for path in group))
    alone = [subject_of(case) for case in data.cases]
    for rest, names in numbered(name for name, often in Counter(alone).items() if often == 1).items():
        yield Fault(VISITS, "", f"{rest}: {', '.join(names)}")


def _of_paths(case: FileCase | PickledCase) -> Iterator[Fault]:
    """Yield what is wrong with the files of a case before they are opened."""
    for path in case.files:
        if path is None:
            continue
        if path.is_symlink() and not path.exists():
            yield Fault(LINK, case.name, f"{path} → {path.readlink()}")
        elif not path.is_file():
            yield Fault(ABSENT, case.name, str(path))
        elif not path.stat().st_size:
            yield Fault(EMPTY, case.name, str(path))


def _of_headers(case: FileCase, grids: dict[str, Grid]) -> Iterator[Fault]:
    """Yield what is wrong with the headers of a case; the image's grid joins `grids`."""
    try:
        grid = grids[case.name] = read_grid(case.image)
    except (InputError, ValueError) as error:
        yield Fault(UNREADABLE, case.name, str(error))
        return
    for path in (case.labels, case.mask, *case.channels):
        if path is None:
            continue
        try:
            other = read_grid(path)
        except (InputError, ValueError) as error:
            yield Fault(UNREADABLE, case.name, str(error))
            continue
        if other != grid:
            kind = CHANNELS if path in case.channels else OTHER_GRID
            yield Fault(kind, case.name, f"{path}: on another grid: {_differs(other, grid)}")


def _of_labels(cases: Sequence[FileCase], learned: bool) -> Iterator[Fault]:
    """Yield images that lack labels or channels, as far as the recipe learns from them or others have some."""
    some, most = any(case.labels is not None for case in cases), max((len(case.channels) for case in cases), default=0)
    for case in cases:
        if case.labels is None and (learned or some):
            yield Fault(UNLABELLED if learned else NO_LABELS, case.name, str(case.image))
        if len(case.channels) < most and not case.name.endswith("/moving"):
            yield Fault(CHANNELS, case.name, f"{case.image}: {1 + len(case.channels)} of {1 + most} channels")


def _of_cohort(cases: Sequence[FileCase], grids: Mapping[str, Grid], centred: bool) -> Iterator[Fault]:
    """Yield images that do not go with the others: of other dimensions, voxels or places."""
    images = {case.name: case.image for case in cases}
    ndims = Counter(grid.ndim for grid in grids.values())
    usual = max(ndims, key=lambda ndim: ndims[ndim], default=3)
    alike = {name: grid for name, grid in grids.items() if grid.ndim == usual}
    for name in grids.keys() - alike.keys():
        yield Fault(DIMENSIONS, name, f"{images[name]}: {grids[name].ndim}-D, and {ndims[usual]} are {usual}-D")
    if len(alike) < 2:
        return
    edges = {name: float(grid.spacing.prod()) ** (1 / grid.ndim) for name, grid in alike.items()}
    middle = float(np.median([*edges.values()]))
    for name, edge in edges.items():
        if max(edge / middle, middle / edge) > UNEVEN:
            yield Fault(SPACING, name, f"{images[name]}: {_in_words(alike[name])}; the middle is {middle:.3g} mm")
    if MIXED * min(edges.values()) < max(edges.values()):
        sizes = Counter(_edges(grid) for grid in alike.values()).most_common()
        more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
        yield Fault(VOXELS, "", ", ".join(f"{often} of {size} mm" for size, often in sizes[:3]) + more)
    if not centred:
        yield from _of_places(images, alike)


def _of_places(images: Mapping[str, Path], grids: Mapping[str, Grid]) -> Iterator[Fault]:
    """Yield images whose fields of view do not, or hardly, overlap with that of the image nearest to the middle of all.

    Each is measured against one, so that the work grows with their number alone.
    """
    centres = {name: grid.centre for name, grid in grids.items()}
    median = torch.stack([*centres.values()]).median(0).values
    first = min(centres, key=lambda name: float((centres[name] - median).norm()))
    for name, grid in grids.items():
        share = overlap(grids[first], grid)
        apart = float((centres[name] - centres[first]).norm())
        if share < 0.5:
            said = f"{images[name]}: {100 * share:.2g} % overlap with {first}, centres {apart:.0f} mm apart"
            yield Fault(LITTLE if share else APART, name, said)


def overlap(one: Grid, other: Grid) -> float:
    """Return the share of the smaller of two fields of view that lies in the other, as their affines place them."""
    small, large = sorted((one, other), key=lambda grid: float(grid.affine[:-1, :-1].det().abs()) * np.prod(grid.shape))
    at = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
    points = torch.cartesian_prod(*[at] * small.ndim) * torch.tensor(small.shape) - 0.5
    whole = torch.linalg.inv(large.affine) @ small.affine
    there = points @ whole[:-1, :-1].mT + whole[:-1, -1]
    inside = (there >= -0.5) & (there <= torch.tensor(large.shape) - 0.5)
    return float(inside.all(1).double().mean())


def _of_voxels(case: FileCase) -> list[Fault]:
    """Return what is wrong with the voxels of a case, file by file."""
    found: list[Fault] = []

    def tried(read: Callable[[], object]) -> None:
        try:
            read()
        except (InputError, ValueError) as error:
            found.append(Fault(UNREADABLE, case.name, str(error)))

    for path in (case.image, *case.channels):
        tried(lambda path=path: read_image(path))  # type: ignore[misc]
    if case.labels is not None:
        labels = case.labels
        tried(lambda: read_labels(labels))
    if case.mask is not None:
        mask = case.mask
        tried(lambda: _refuse_empty(mask))
    return found


def _refuse_empty(path: Path) -> None:
    if not read_labels(path, what="mask").data.any():
        raise InputError(f"{path}: the mask is 0 everywhere; leave it out, or mark where to look")


def _differs(grid: Grid, on: Grid) -> str:
    """Say how a grid differs from that of its image."""
    words = _in_words(grid), _in_words(on)
    if words[0] != words[1]:
        return f"{words[0]}, and its image {words[1]}"
    apart = float((grid.centre - on.centre).norm())
    return f"its centre lies {apart:.3g} mm from the image's" if apart > 0 else "its axes point elsewhere"


def _in_words(grid: Grid) -> str:
    return f"{'×'.join(map(str, grid.shape))} voxels of {_edges(grid)} mm"


def _edges(grid: Grid) -> str:
    return "×".join(f"{x:.3g}" for x in grid.spacing.tolist())


def _about(grids: Sequence[Grid]) -> str:
    """Say which sizes and voxels the images have."""
    kinds = Counter(map(_in_words, grids))
    if not kinds:
        return "none can be read"
    (usual, often), *others = kinds.most_common()
    return usual if not others else f"{len(kinds)} kinds of grids, {often} of {usual}"
