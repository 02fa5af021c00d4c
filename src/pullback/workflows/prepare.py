"""Preparation of a folder of scans into the Learn2Reg layout, subject by subject."""

import json
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from pullback.data import FileCase, PairFolder, Subject, subject_of, write_dataset
from pullback.errors import InputError, Interrupted
from pullback.files import read_image, read_labels, write_image
from pullback.files.images.merge import MOST
from pullback.files.images.nifti import refuse_sheared
from pullback.records.atomic import leftovers
from pullback.records.csv_records import read_texts, write_csv
from pullback.records.ledger import LEDGER, Job, Ledger
from pullback.records.lock import locked
from pullback.records.manifest import manifest, write_json
from pullback.space import Grid, Labels
from pullback.study.arms import LATER
from pullback.study.recipe import as_data
from pullback.training.interrupt import asked_to_stop
from pullback.workflows.outputs import RECORD
from pullback.workflows.preparation import Preparation

SUBJECTS, HELD = "subjects.csv", "held out"
FOLDERS = {"image": "imagesTr", "label": "labelsTr", "mask": "masksTr"}
SubjectRow = dict[str, str]


def prepare(
    preparation: Preparation, out: str | Path, console: Console | None = None, workers: int = 1
) -> dict[str, Any]:
    """Prepare every subject into the folder `out`, which `Learn2Reg` reads with the splits of `preparation.data`.

    It gets `imagesTr/TASK_0001_0000.nii.gz` …, `labelsTr`, of 8 bits, and `masksTr` where there are some,
    `TASK_dataset.json`, `subjects.csv` (the file and the split of each subject), `labels.csv` (how many subjects have
    each label), `ledger.jsonl` and `run.json`. The same call continues a stopped one: files made by the same settings
    from the same bytes stay. New subjects get new numbers.

    Args:
        workers: how many subjects are at work at once.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: files that cannot be read or prepared, labels that do not fit 8 bits, or a folder that was prepared
            by other settings, or from subjects that are gone.
        Interrupted: it was asked to stop, and has finished its current subjects.
    """
    out, data = Path(out), preparation.data
    cases, splits = {case.name: case for case in data.cases if case.name not in {*data.without}}, _splits(data)
    settings = _settings(preparation)
    with locked(out):
        ledger = _ledger(out, settings, cases.keys())
        for path in (path for folder in FOLDERS.values() for path in leftovers(out / folder)):
            path.unlink()
        jobs = _jobs(ledger, preparation.task, cases)
        about = manifest() | {"data": data.root, "settings": settings, "subjects": len(cases)}
        with _recorded(about, out) as made, asked_to_stop("subject") as stopping:
            quiet = console is not None and not console.is_terminal
            work = ledger.map(
                jobs, lambda job: _make(cases[job.name], preparation, out, str(job.about)), workers, stopping
            )
            rows: dict[str, SubjectRow] = {}
            shown = track(work, "preparing", len(jobs), console=console, transient=True, disable=quiet)
            try:
                for job, row, now in shown:
                    split = splits.get(job.name, HELD)
                    rows[job.name] = {"subject": job.name, "file": str(job.about), "split": split, **row}
                    made.extend([job.name] * now)
            except Interrupted:
                ready = sum(ledger.known(job) is not None for job in jobs)
                raise Interrupted(f"stopped; {ready} of {len(jobs)} subjects are prepared") from None
            finally:
                if rows:
                    write_csv(list(rows.values()), out / SUBJECTS)
            _finish(preparation, rows, splits, out)
    return json.loads((out / RECORD).read_text())


def summary(content: Mapping[str, Any], out: Path) -> str:
    """Summarise the answer of `prepare` for a person."""
    rows = read_texts(out / SUBJECTS)
    splits = [row["split"] for row in rows]
    counts = ", ".join(f"{splits.count(split)} {split}" for split in dict.fromkeys(splits))
    edges = sorted({float(edge) for row in rows for edge in row["spacing"].split()})
    size = " to ".join(f"{edge:.3g}" for edge in dict.fromkeys((edges[0], edges[-1])))
    return (
        f"Prepared: {out}, {len(rows)} subjects ({counts}), {content['made']} of them now, in "
        f"{content['seconds']:.1f} s; voxels of {size} mm. "
        f"Next: pullback train RECIPE --data {out}"
    )


def _splits(data: PairFolder) -> dict[str, str]:
    """Return the split of each image, by the name of its case, without subjects that are in no pair."""
    of = {name: split for split in ("train", "validation", "test") for name in getattr(data, split).names}
    return {case.name: of[subject_of(case)] for case in data.cases if subject_of(case) in of}


def _settings(preparation: Preparation) -> dict[str, Any]:
    """Return the settings that determine the files and the splits, flat, without the place of the images."""
    tree = json.loads(json.dumps(as_data(preparation)))
    data = {f"data.{key}": value for key, value in tree.pop("data").items() if value or key not in LATER}
    data = {key: value for key, value in data.items() if key not in ("data.root", "data.part", "data.without")}
    return data | {key: value for key, value in tree.items() if key != "part"}


def _ledger(out: Path, settings: dict[str, Any], names: Collection[str]) -> Ledger:
    """Read the ledger of earlier calls in the folder, which must be of the same settings and subjects."""
    if not (out / RECORD).is_file():
        other = [*out.glob("*_dataset.json"), *out.glob(FOLDERS["image"])]
        if other:
            raise InputError(f"{other[0]}: there is another data set already; name another folder by -o")
        return Ledger(out)
    try:
        stored = dict(json.loads((out / RECORD).read_text())["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out / RECORD}: not of a preparation; name another folder by -o") from error
    before = _settings(Preparation(PairFolder())) | stored  # what was not there yet was as it is by default
    for key in sorted(before.keys() | settings.keys()):
        if before.get(key) != settings.get(key):
            was, now = (json.dumps(values[key]) if key in values else "as by default" for values in (before, settings))
            raise InputError(
                f"{out}: was prepared with other settings: {key} was {was:.80} and is {now:.80}; take those, or name "
                f"another folder by -o"
            )
    ledger = Ledger(out)
    if (out / SUBJECTS).is_file() and not ledger.entries:
        raise InputError(f"{out}: was prepared before there was a ledger of it; name another folder by -o")
    gone = sorted(ledger.entries.keys() - set(names))
    if gone:
        raise InputError(
            f"{out}: {len(gone)} subjects that were prepared are not among the scans any more, {gone[0]} for one; put "
            f"them back, or name another folder by -o"
        )
    return ledger


@contextmanager
def _recorded(about: dict[str, Any], out: Path) -> Iterator[list[str]]:
    """Write `run.json`, however the work ends, unless nothing came of it; yield a list for names of subjects made."""
    begin = time.perf_counter()
    made: list[str] = []

    def note(status: str) -> None:
        spent = {"made": len(made), "seconds": round(time.perf_counter() - begin, 2), "status": status}
        write_json(about | spent, out / RECORD)

    note("running")
    try:
        yield made
    except Interrupted as error:
        note("interrupted")
        raise Interrupted(f"{error}; the same command goes on") from None
    except BaseException:
        if (out / FOLDERS["image"]).is_dir():
            note("failed")
        else:
            for name in (RECORD, LEDGER, SUBJECTS):
                (out / name).unlink(missing_ok=True)
        raise
    note("finished")


def _jobs(ledger: Ledger, task: str, cases: Mapping[str, FileCase]) -> list[Job]:
    """Return the work on each case; numbers once given are kept: TASK_SUBJECT_IMAGE names the files."""
    files = {name: str(entry.about) for name, entry in ledger.entries.items()}
    whose = {name: subject_of(case) for name, case in cases.items()}
    given: dict[str, tuple[int, int]] = {}  # of each subject its number, and that of its last image
    for name, file in files.items():
        number, image = (int(part) for part in file.split("_")[-2:])
        first, last = given.get(whose.get(name, name), (number, image))
        given[whose.get(name, name)] = (first, max(last, image))
    highest = max((number for number, _ in given.values()), default=0)
    for name in cases:
        if name not in files:
            highest += whose[name] not in given
            number, image = given.get(whose[name], (highest, -1))
            given[whose[name]] = (number, image + 1)
            files[name] = f"{task}_{number:04d}_{image + 1:04d}"
    return [
        Job(
            name,
            files[name],
            tuple(path for path in (case.image, case.labels, case.mask) if path is not None),
            tuple(_paths(case, files[name]).values()),
        )
        for name, case in cases.items()
    ]


def _paths(case: FileCase, file: str) -> dict[str, str]:
    """Return the paths of a case's image, and of its label and mask where it has them, within the folder."""
    kinds = {"image": case.image, "label": case.labels, "mask": case.mask}
    return {kind: f"./{FOLDERS[kind]}/{file}.nii.gz" for kind, path in kinds.items() if path is not None}


def _make(case: FileCase, preparation: Preparation, out: Path, file: str) -> SubjectRow:
    """Write the files of a subject and return its row."""
    image = read_image(case.image, case.mask)
    labels = None if case.labels is None else read_labels(case.labels, on=image.grid)
    about = {"labels": case.labels, "mask": case.mask}.get(preparation.crop or "") or case.image
    try:
        subject = preparation(Subject(image, labels))
    except ValueError as error:  # of what is in them, InputError too
        raise InputError(f"{about}: {error}") from error
    _refuse_wide(subject.labels, case.labels)
    _refuse_sheared(subject.image.grid, case.image)
    mask = subject.image.mask
    parts = {
        "image": subject.image,
        "label": subject.labels,
        "mask": None if mask is None else Labels(mask.to(torch.uint8), subject.image.grid),
    }
    for kind, folder in FOLDERS.items():
        part = parts[kind]
        if part is None:
            (out / folder / f"{file}.nii.gz").unlink(missing_ok=True)
        else:
            write_image(part, out / folder / f"{file}.nii.gz")
    grid = subject.image.grid
    known = [] if subject.labels is None else subject.labels.data.unique().tolist()
    return {
        "image": case.image.relative_to(preparation.data.root).as_posix(),
        "shape": " ".join(map(str, grid.shape)),
        "spacing": " ".join(f"{edge:.6g}" for edge in grid.spacing.tolist()),
        "labels": " ".join(str(label) for label in known if label),
    }


def _refuse_wide(labels: Labels | None, path: Path | None) -> None:
    if labels is None:
        return
    low, high = int(labels.data.min()), int(labels.data.max())
    if low < 0 or high > MOST:
        raise InputError(
            f"{path}: labels from {low} to {high}; 8 bits hold 0 to {MOST}: number them anew by --merge TABLE, a CSV "
            f"of the columns label,merged,name"
        )


def _refuse_sheared(grid: Grid, path: Path) -> None:
    try:
        refuse_sheared(grid, path)
    except InputError as error:
        raise InputError(f"{error}: --spacing does that") from error


def _finish(preparation: Preparation, rows: dict[str, SubjectRow], splits: Mapping[str, str], out: Path) -> None:
    """Write the tables and the layout of all subjects."""
    data, names = preparation.data, preparation.merge.names if preparation.merge else {}
    found = Counter(int(label) for row in rows.values() for label in row["labels"].split())
    labels = {label: names.get(label, "") for label in sorted(found)}
    if labels:
        counted = [{"label": label, "name": name, "subjects": found[label]} for label, name in labels.items()]
        write_csv(counted, out / "labels.csv")
    shapes = {row["shape"] for row in rows.values()}
    write_dataset(
        out,
        preparation.task,
        {
            case.name: _paths(case, rows[case.name]["file"])
            for case in data.cases
            if case.name in splits and case.name in rows
        },
        {
            split: [(fixed.name, moving.name) for fixed, moving in getattr(data, split).pairs]
            for split in ("train", "validation", "test")
        },
        labels,
        [int(n) for n in shapes.pop().split()] if len(shapes) == 1 else None,
    )
    absent = sorted(set(preparation.merge.table.values()) - {0} - labels.keys()) if preparation.merge else []
    if absent:
        few = ", ".join(f"{label} {names.get(label, '')}".strip() for label in absent)
        warnings.warn(f"nobody has the merged labels {few}: check the table", UserWarning, stacklevel=2)
