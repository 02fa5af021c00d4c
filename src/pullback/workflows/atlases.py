"""Atlases in folders, and their labels brought onto targets: each registration is done once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from pullback.alignment import Register
from pullback.data.candidates import Candidates
from pullback.data.case import LOADED, stamp
from pullback.data.normalise import preprocessed
from pullback.data.pattern import some
from pullback.errors import InputError
from pullback.files import read_image, read_labels, write_image
from pullback.files.images.nifti import refuse_sheared
from pullback.files.suffixes import BRAINS, FORMATS, NIFTI, ends
from pullback.records.ledger import Job, Ledger
from pullback.solvers import Refine
from pullback.space import Grid, Labels, around, canonical, pull
from pullback.training import asked_to_stop
from pullback.workflows.register import settings_of

CANDIDATES = "candidates"  # folder of the label maps, by target
ENDINGS = (*NIFTI, *FORMATS, *BRAINS)
CHANNEL = re.compile(r"_\d{4}$")  # of an image, as nnU-Net calls it; its labels are called without
MARGIN = 10.0  # mm about all that a label map marks, that the network sees


@dataclass(frozen=True)
class StoredTarget:
    """A target with label maps on disk, all on its grid: a case of `CandidateDraws`.

    Attributes:
        name: of the target.
        image: its file.
        maps: files of the label maps, by atlas.
        first: number of the first of them among those of all targets.
        box: what a network sees: the shape, and the affine as rows of numbers; None for the image's own grid.
    """

    name: str
    image: Path
    maps: tuple[tuple[str, Path], ...]
    first: int = 0
    box: tuple[tuple[int, ...], tuple[tuple[float, ...], ...]] | None = None

    def load(self) -> Candidates:
        """Return the candidates; those that were read before are kept until files change.

        Raises:
            InputError: a file that cannot be read, or labels on another grid.
        """
        return LOADED.get((self, *self._stamps), self._read)

    def seen(self) -> Candidates:
        """Return the candidates on the box that a network sees, intensities 0 to 1."""
        return LOADED.get((self, "seen", *self._stamps), self._shrunk)

    @property
    def _stamps(self) -> list[tuple[int, int]]:
        return [stamp(path) for path in (self.image, *(path for _, path in self.maps))]

    def _read(self) -> Candidates:
        image = read_image(self.image)
        data = [read_labels(path, on=image.grid).data.long() for _, path in self.maps]
        numbers = torch.arange(self.first, self.first + len(data))
        names = tuple(name for name, _ in self.maps)
        wide = torch.cat(data)
        labels = Labels(wide.to(torch.uint8) if int(wide.max()) < 256 else wide.int(), image.grid)
        return Candidates(image, labels, numbers, None, names, self.name)

    def _shrunk(self) -> Candidates:
        known = self.load()
        known = Candidates(preprocessed(known.image), known.labels, known.numbers, None, known.atlases, self.name)
        grid = known.image.grid
        return known.on(grid if self.box is None else Grid(self.box[0], torch.tensor(self.box[1], dtype=torch.float64)))


def images_in(folder: str | Path) -> dict[str, Path]:
    """Return the images of a folder by their names without endings, sorted.

    Raises:
        InputError: no such folder, no images, or two of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and ends(path.name, ENDINGS):
            name = path.name[: -len(next(ending for ending in sorted(ENDINGS, key=len)[::-1] if ends(path, ending)))]
            if name in found:
                raise InputError(f"{path} and {found[name]}: are called alike; give each another name")
            found[name] = path
    if not found:
        raise InputError(f"{folder}: no images are in it ({', '.join(NIFTI)} and others)")
    return found


def labels_of(images: Mapping[str, Path], folder: str | Path) -> dict[str, tuple[Path, Path]]:
    """Return each image with its labels in `folder`: those of its name, or of its name without `_0000`.

    Raises:
        InputError: as of `images_in`, or some have none.
    """
    labels = images_in(folder)
    partners = {name: labels.get(name, labels.get(CHANNEL.sub("", name))) for name in images}
    lonely = [name for name, path in partners.items() if path is None]
    if lonely:
        raise InputError(
            f"{folder}: no labels of {some(lonely)}; labels are called as their atlas, and there are {some(labels)}"
        )
    return {name: (images[name], path) for name, path in partners.items() if path is not None}


def stored_maps(folder: str | Path, targets: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Return the label maps that lie in a folder for each target, by target and atlas.

    Raises:
        InputError: a target has no folder of its name there, or as of `images_in`.
    """
    lonely = [name for name in targets if not (Path(folder) / name).is_dir()]
    if lonely:
        raise InputError(
            f"{folder}: no folder of label maps for {some(lonely)}; FOLDER/TARGET/ATLAS.nii.gz is expected"
        )
    return {name: images_in(Path(folder) / name) for name in targets}


def registered_maps(
    targets: Mapping[str, Path],
    atlases: Mapping[str, tuple[Path, Path]],
    register: Register | Refine,
    out: Path,
    device: torch.device,
    console: Console,
) -> dict[str, dict[str, Path]]:
    """Bring the labels of every atlas onto every target, into `out`, and return the files by target and atlas.

    What is there already by the same files and the same register is not made again. A target that is an atlas itself
    gets the others alone.

    Raises:
        InputError: a file that cannot be read, or is of an image in other dimensions.
        Interrupted: it was asked to stop; the same call goes on.
    """
    ledger, about = Ledger(out), settings_of(register)
    paths: dict[str, dict[str, Path]] = {name: {} for name in targets}
    jobs, work = [], {}
    for target, image in targets.items():
        for atlas, (moving, labels) in atlases.items():
            if moving.resolve() == image.resolve():
                continue
            path = Path(CANDIDATES) / target / f"{atlas}.nii.gz"
            paths[target][atlas] = out / path
            job = Job(f"{atlas} onto {target}", about, (image, moving, labels), (path.as_posix(),))
            jobs.append(job)
            work[job.name] = partial(_pulled, image, moving, labels, register, out / path, device)
    with asked_to_stop("registration") as stopping:
        done = ledger.map(jobs, lambda job: work[job.name](), stopping=stopping)
        for _ in track(done, "registrations", len(jobs), console=console, transient=True):
            pass
    return paths


@torch.no_grad()
def _pulled(
    target: Path, atlas: Path, labels: Path, register: Register | Refine, path: Path, device: torch.device
) -> None:
    """Write the labels of an atlas on a target's grid."""
    fixed, moving = (LOADED.get((one, stamp(one)), partial(read_image, one)) for one in (target, atlas))
    for one, file in ((fixed, target), (moving, atlas)):
        refuse_sheared(one.grid, file)
        if one.grid.ndim != fixed.grid.ndim:
            raise InputError(f"{atlas}: {one.grid.ndim}-D, and {target} is {fixed.grid.ndim}-D")
    known = read_labels(labels, on=moving.grid)
    found = register(fixed.to(device), moving.to(device)).transform
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(pull(known.to(device), found, onto=fixed.to(device)).to(torch.device("cpu")), path, like=target)


def as_seen(targets: Mapping[str, Path], maps: Mapping[str, Mapping[str, Path]], most: int) -> list[StoredTarget]:
    """Return the targets whose label maps mark anything, with a box about that of as many voxels for each.

    Args:
        targets, maps: files by target, and by target and atlas.
        most: voxels of the box, about; they are cubes.
    """
    found, first = [], 0
    for name, image in targets.items():
        found.append(StoredTarget(name, image, tuple(maps[name].items()), first))
        first += len(maps[name])
    middles = {one.name: _extent(one.load()) for one in found if bool((one.load().labels.data != 0).any())}
    if not middles:
        return []
    size = torch.stack([size for _, size, _ in middles.values()]).amax(0)
    least = max(float(axes.norm(dim=0).min()) for _, _, axes in middles.values())
    spacing = max(least, float(size.prod() / most) ** (1 / len(size)))
    shape = tuple(max(4, int(n)) for n in torch.ceil(size / spacing))
    boxes = {}
    for name, (middle, _, axes) in middles.items():
        affine = torch.eye(len(shape) + 1, dtype=torch.float64)
        affine[:-1, :-1] = axes / axes.norm(dim=0) * spacing
        affine[:-1, -1] = middle - affine[:-1, :-1] @ ((torch.tensor(shape, dtype=torch.float64) - 1) / 2)
        boxes[name] = (shape, tuple(tuple(row) for row in affine.tolist()))
    return [
        StoredTarget(one.name, one.image, one.maps, one.first, boxes[one.name]) for one in found if one.name in boxes
    ]


def _extent(known: Candidates) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the middle of all that is marked, in the world, its size with a margin, mm, and the voxels' axes."""
    labels = canonical(known.labels)
    part = around(labels.data != 0, labels.grid, MARGIN)
    low, high = (torch.tensor([float(end) for end in ends], dtype=torch.float64) for ends in _ends(part))
    middle = labels.grid.to_world(((low + high - 1) / 2)[None, :, None])[0, :, 0]
    return middle, (high - low) * labels.grid.spacing, labels.grid.affine[:-1, :-1]


def _ends(part: tuple[slice, ...]) -> tuple[list[int], list[int]]:
    return [along.start for along in part], [along.stop for along in part]
