"""Alignment of many pairs of files, each once, on the cores of this machine or on a cluster."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pullback.alignment import Register
from pullback.errors import InputError, Interrupted
from pullback.numerics.device import device_of
from pullback.records.csv_records import write_csv
from pullback.records.ledger import Job, Ledger
from pullback.records.lock import locked
from pullback.records.manifest import manifest, write_json
from pullback.records.workers import Engine, Worker
from pullback.report.page import write_page
from pullback.solvers import Refine
from pullback.training import asked_to_stop
from pullback.workflows.how import How, register_of
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.outputs import RECORD, ExtraOutputs
from pullback.workflows.pair_table import read_pair_table
from pullback.workflows.register import register_files

RESULTS, PAGE = "results.csv", "report.html"
ALIGNED, DOUBTFUL, FAILED, OPEN = "aligned", "looks failed", "failed", "open"
SUFFIXES = (".nii.gz", ".nii", ".mgz", ".nrrd", ".mha", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class FilePair:
    """A row of a table of pairs: the files of two images. A member that is not given is None.

    Attributes:
        name: of the folder of its results; no two pairs have the same.
        fixed, moving: files of images.
        fixed_mask, moving_mask: where to look.
        fixed_exclude, moving_exclude: where not to.
        fixed_labels, moving_labels: label maps.
        fixed_points: pushed to the moving image.
    """

    name: str
    fixed: str
    moving: str
    fixed_mask: str | None = None
    moving_mask: str | None = None
    fixed_exclude: str | None = None
    moving_exclude: str | None = None
    fixed_labels: str | None = None
    moving_labels: str | None = None
    fixed_points: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the pair."""
        given = (getattr(self, member.name) for member in fields(self) if member.name != "name")
        return tuple(Path(path) for path in given if path is not None)


def pairs_of(table: Path) -> list[FilePair]:
    """Read a table of pairs, CSV: columns `fixed` and `moving`, and of what else is known of them.

    Paths are relative to the table's folder. A column `name` names the folders of the results.

    Raises:
        InputError: as of `read_pair_table`, or two pairs are called alike.
    """
    rows = read_pair_table(table, [member.name for member in fields(FilePair)], ("fixed", "moving"))
    return refuse_alike([_pair(table.parent, row) for row in rows])


def _pair(folder: Path, row: Mapping[str, str]) -> FilePair:
    paths = {kind: str(folder / path) for kind, path in row.items() if kind != "name" and path}
    return FilePair(row.get("name") or _named(row["fixed"], row["moving"]), **paths)


def pairs_onto(template: Path, folder: Path, pattern: str) -> list[FilePair]:
    """Return one pair for each image of a folder, with a template as its fixed image.

    Args:
        pattern: of names within the folder, such as `sub-*/anat/*_T1w.nii.gz`.

    Raises:
        InputError: no such image, or two that are called alike.
    """
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and path.resolve() != template.resolve())
    if not found:
        raise InputError(f"{folder}: no file is called {pattern}; name others by --images")
    return refuse_alike([FilePair(_stem(path.name), str(template), str(path)) for path in found])


def refuse_alike(pairs: Sequence[FilePair]) -> list[FilePair]:
    """Return the pairs, if each has a name of its own that a folder can have.

    Raises:
        InputError: two are called alike, or one is no name of a folder.
    """
    seen: dict[str, FilePair] = {}
    for pair in pairs:
        if Path(pair.name).name != pair.name or pair.name.startswith("."):
            raise InputError(f"a pair called {pair.name!r}: its results lie in a folder of this name; give it another")
        if pair.name.lower() in seen:  # alike where letters' case does not count
            raise InputError(f"two pairs are called {pair.name}: name them in a column `name`")
        seen[pair.name.lower()] = pair
    return list(pairs)


def _named(fixed: str, moving: str) -> str:
    return f"{_stem(Path(moving).name)}_to_{_stem(Path(fixed).name)}"


def _stem(name: str) -> str:
    return next((name[: -len(end)] for end in SUFFIXES if name.lower().endswith(end)), Path(name).stem)


@dataclass(frozen=True)
class Aligner:
    """The way each pair is aligned, made in a worker's own process; it answers with what a table tells of a pair.

    Attributes:
        how: as on the command line.
        out: folder of all results.
        wanted: optional outputs.
        device: by name.
        trusted: packages whose parts a run may use.
        threads: of a worker; where all compute on the same cores, more than there are slow each other down.
    """

    how: How
    out: Path
    wanted: ExtraOutputs = ExtraOutputs()
    device: str = "cpu"
    trusted: tuple[str, ...] = ()
    threads: int = 1

    def __call__(self) -> Callable[[FilePair], dict[str, Any]]:
        """Return what aligns a pair, its network or method loaded.

        Raises:
            InputError: as of `register_of`.
        """
        torch.set_num_threads(self.threads)
        device = device_of(self.device)
        return partial(self._align, register_of(self.how, device, self.trusted), device)

    def _align(self, register: Register | Refine, device: torch.device, pair: FilePair) -> dict[str, Any]:
        content = register_files(
            ImageFiles([pair.fixed], pair.fixed_mask, pair.fixed_exclude, pair.fixed_labels),
            ImageFiles([pair.moving], pair.moving_mask, pair.moving_exclude, pair.moving_labels),
            register,
            self.out / pair.name,
            pair.fixed_points,
            start=self.how.file,
            wanted=self.wanted,
            device=device,
            about={"start": self.how.start, "seed": self.how.seed or 0},
        )
        quality = content["quality"]
        return {
            "status": ALIGNED if quality["passed"] else DOUBTFUL,
            "score": quality["score"],
            "why": "; ".join(quality["reasons"]),
            "numbers": content["numbers"]["after"],
            "peak memory MB": content["peak memory MB"],
        }


def cohort_files(
    pairs: Sequence[FilePair], aligner: Aligner, engine: Engine, at_once: int, console: Console | None = None
) -> dict[str, Any]:
    """Align pairs, each once, and write a table of all, a page in order of suspicion, and a folder for each.

    What is done is not done again; what failed is tried again by the next call, and so is what a killed process left.

    Args:
        pairs: of different names.
        aligner: aligns one.
        engine: has the workers.
        at_once: number of workers.
        console: to show progress on.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: another process is at work in the folder, or it cannot be written.
        Interrupted: it was asked to stop; what was begun is done, and the table tells how far it came.
    """
    out = aligner.out
    with locked(out), asked_to_stop("pair") as stopping:
        rows = _all(pairs, aligner, engine, at_once, stopping, console)
        content = _written(out, [rows.get(pair.name, _row(pair, OPEN)) for pair in pairs]) | {
            "at once": at_once,
            "threads": aligner.threads,
            "engine": type(engine).__name__.lower(),
        }
        write_json(content, out / RECORD)
        if stopping():
            raise Interrupted(f"stopped after {len(rows)} of {len(pairs)} pairs; the same command goes on")
    return content


def _all(
    pairs: Sequence[FilePair],
    aligner: Aligner,
    engine: Engine,
    at_once: int,
    stopping: Callable[[], bool],
    console: Console | None,
) -> dict[str, dict[str, Any]]:
    """Return a row for each pair that was done or tried, by its name."""
    ledger, about = Ledger(aligner.out), _about(aligner)
    rows: dict[str, dict[str, Any]] = {}
    waiting, alone = iter(pairs), threading.Lock()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()

    def following() -> FilePair | None:
        with alone:
            return None if stopping() else next(waiting, None)

    with Progress(*columns, console=console, disable=console is None) as bar:
        task = bar.add_task("aligning", total=len(pairs))

        def work() -> None:
            worker = engine.worker(aligner)
            try:
                while (pair := following()) is not None:
                    row = _once(pair, ledger, about, worker)
                    with alone:
                        rows[pair.name] = row
                        failed = sum(one["status"] != ALIGNED for one in rows.values())
                        bar.update(task, advance=1, description=f"aligning, {failed} to look at")
            finally:
                worker.close()

        with ThreadPoolExecutor(at_once) as pool:
            for future in [pool.submit(work) for _ in range(at_once)]:
                future.result()
    return rows


def _once(pair: FilePair, ledger: Ledger, about: object, worker: Worker) -> dict[str, Any]:
    job = Job(pair.name, about, pair.files, (f"{pair.name}/{RECORD}",))
    try:
        found = ledger.once(job, lambda _: worker(pair))
    except InputError as error:
        return _row(pair, FAILED, str(error))
    numbers = {name: value for name, value in found["numbers"].items() if "/" not in name}
    return _row(pair, found["status"], found["why"]) | {
        "score": found["score"],
        **numbers,
        "seconds": ledger.entries[pair.name].seconds,
        "peak memory MB": found["peak memory MB"],
    }


def _row(pair: FilePair, status: str, why: str = "") -> dict[str, Any]:
    return {"name": pair.name, "fixed": pair.fixed, "moving": pair.moving, "status": status, "why": why}


def _about(aligner: Aligner) -> dict[str, Any]:
    """Return what an answer depends on beside the files of the pair: options, and the weights of networks."""
    how = {name: str(value) for name, value in vars(aligner.how).items()} | {"wanted": str(aligner.wanted)}
    runs = [Path(run) for run in (aligner.how.network, aligner.how.run) if run is not None]
    weights = [path for run in runs for path in (run / "recipe.yaml", run / "best.safetensors") if path.is_file()]
    given = [*weights, *([aligner.how.file] if aligner.how.file is not None else [])]
    return how | {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in given if path.is_file()}


# ---- out


def _written(out: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the table and the page, and return what `run.json` tells of them."""
    write_csv(rows, out / RESULTS)
    counts = {status: sum(row["status"] == status for row in rows) for status in (ALIGNED, DOUBTFUL, FAILED, OPEN)}
    told = {status: count for status, count in counts.items() if count}
    names = [name for name in _keys(rows) if name not in ("name", "fixed", "moving", "status", "why")]
    known = {name: [row[name] for row in rows if name in row] for name in names}
    means = {name: round(fmean(values), 4) for name, values in known.items()}
    content = manifest() | {
        "pairs": len(rows),
        "counts": told,
        "means": means,
        "files": [RESULTS, PAGE, RECORD],
    }
    shown = [
        {"name": row["name"], "status": row["status"], "why": row["why"]}
        | {name: f"{row[name]:.4g}" if name in row else "" for name in names}
        | {"link": f"{row['name']}/{PAGE}" if row["status"] in (ALIGNED, DOUBTFUL) else ""}
        for row in sorted(rows, key=suspicion)
    ]
    write_page(out / PAGE, "cohort", title=f"{len(rows)} pairs", counts=told, names=names, rows=shown, means=means)
    return content


def suspicion(row: Mapping[str, Any]) -> tuple[int, float, str]:
    """Return the place of a row in the order of suspicion: failed ones first, then by score, the worst first."""
    return (FAILED, DOUBTFUL, ALIGNED, OPEN).index(row["status"]), float(row.get("score", 0)), row["name"]


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(rows)))


def cores() -> int:
    """Return the number of cores to use: those that torch uses by itself, or `OMP_NUM_THREADS`."""
    return torch.get_num_threads()


def summary(content: Mapping[str, Any], out: Path) -> str:
    """Summarise the answer of `cohort_files` for a person."""
    counts = ", ".join(f"{count} {status}" for status, count in content["counts"].items())
    means = ", ".join(f"{name} {value:.4g}" for name, value in content["means"].items())
    lines = [f"{content['pairs']} pairs: {counts}", *([f"means: {means}"] if means else [])]
    return "\n".join([*lines, f"Look at {out / PAGE}, most doubtful first, and {out / RESULTS}"])
