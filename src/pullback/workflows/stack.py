"""Sections of a folder aligned as a stack: keypoints, matches, maps, and one file that is resampled once."""

import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pullback.errors import InputError
from pullback.files.images.stack import Sections, read_stack
from pullback.files.images.stack_file import stack_ending
from pullback.methods.group.mito import Mito
from pullback.methods.group.section_features import Features
from pullback.methods.group.stack_solution import SectionMatch, StackSolution
from pullback.numerics.synchronise import Edge
from pullback.records.atomic import atomic_write
from pullback.records.ledger import Job, Ledger
from pullback.records.lock import locked
from pullback.records.manifest import manifest, write_json
from pullback.space import Grid
from pullback.study.recipe import as_data
from pullback.workflows.outputs import RECORD, refuse_overwrite, refuse_without
from pullback.workflows.register import DRAWN_WITH
from pullback.workflows.stack_outputs import ShownItems, Written, write_outputs
from pullback.workflows.stack_sections import missing_numbers, read_mask, read_pixels, refuse_unlike, short_names

KEYPOINTS = "keypoints"


@dataclass(frozen=True)
class StackAsked:
    """The inputs of a stack, and what is to be done with them.

    Attributes:
        path: a folder of sections, or a TIFF of several pages.
        masks: of the sections, in their order, alike; None seeks keypoints in the images.
        reach: each section is compared with so many that follow it.
        spacing: mm of a pixel, in place of what the files say.
        thickness: mm from one section to the next; None is a pixel.
        skip: whether sections that cannot be used or match no other are laid between their neighbours.
    """

    path: Path
    masks: Path | None = None
    reach: int = 3
    spacing: float | None = None
    thickness: float | None = None
    skip: bool = False


def stack_files(asked: StackAsked, how: Mito, out: Path, shown: ShownItems = lambda items, _: items) -> dict[str, Any]:
    """Align the sections of a stack, and write them as one file.

    Beside `out`, in a folder of its name without ending, are `transforms/`, `transforms.csv`, `sections.csv`,
    `matches.csv`, `index.html`, `stack.png`, `run.json`, the aligned masks, and what was found so far: the same call
    goes on where it was stopped. Where sections match no others, and none are to be skipped, all but the stack is
    written.

    Args:
        asked: the inputs.
        how: they are aligned.
        out: the file.
        shown: shows progress of items, under a name.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: fewer than two sections, masks that are not theirs, sections without keypoints, files that cannot be
            read or written, or a reach below 1.
    """
    ending = stack_ending(out)
    refuse_without(DRAWN_WITH)
    if asked.reach < 1:
        raise InputError(f"--reach {asked.reach}: from 1 on expected: each section is compared with those after it")
    if asked.thickness is not None and not asked.thickness > 0:
        raise InputError(f"--thickness {asked.thickness:g}: a length in mm above 0 is expected")
    sections = read_stack(asked.path, asked.spacing)
    if len(sections) < 2:
        raise InputError(f"{asked.path}: {len(sections)} section; a stack has two or more")
    masks = None if asked.masks is None else read_stack(asked.masks, asked.spacing)
    if masks is not None:
        refuse_unlike(sections, masks)
    refuse_overwrite([out], [*_files(sections), *([] if masks is None else _files(masks))])
    folder = out.with_name(out.name[: -len(ending)])
    with locked(folder):
        begin = time.perf_counter()
        work = StackWork(asked, how, folder, sections, masks)
        known, notes = work.keypoints(shown)
        matches = work.matches(known, shown)
        grids = [work.grid(n) for n in range(len(sections))]
        found = how.solve(matches, grids)
        counts = {n: int(each["keypoints"]) for n, each in known.items()}
        sought = time.perf_counter() - begin
        written = write_outputs(
            Written(sections, masks, how.model, found, counts, asked.thickness, grids), folder, out, asked.skip, shown
        )
        content = _record(asked, how, sections, found, notes, written)
        content["seconds"] = {"matching": round(sought, 3), "writing": round(time.perf_counter() - begin - sought, 3)}
        write_json(content, folder / RECORD)
    return content


@dataclass(frozen=True, eq=False)
class StackWork:
    """The work on a stack that is recorded in its folder, and need not be done again.

    Attributes:
        asked, how: as of `stack_files`.
        folder: of the record.
        sections, masks: the inputs, opened.
    """

    asked: StackAsked
    how: Mito
    folder: Path
    sections: Sections
    masks: Sections | None

    def keypoints(self, shown: ShownItems) -> tuple[dict[int, dict[str, Any]], list[str]]:
        """Return what was found of each section, by its number, and notes; keypoints are kept in files.

        Raises:
            InputError: a section cannot be used, and none are to be skipped.
        """
        ledger, found, notes = Ledger(self.folder), {}, []
        lacking = missing_numbers(self.sections.names)
        if lacking:
            said = ", ".join(map(str, lacking))
            notes.append(f"no section has number {said}; sections on both sides are taken as neighbours")
        for n in shown(range(len(self.sections)), "keypoints"):
            try:
                found[n] = ledger.once(self._job_of(n), partial(self._sought, n))
            except InputError as error:
                if not self.asked.skip:
                    raise
                notes.append(str(error))
                continue
            notes += [found[n]["note"]] if found[n]["note"] else []
        return found, notes

    def matches(self, known: Mapping[int, object], shown: ShownItems) -> dict[Edge, SectionMatch]:
        """Return how the sections match that are known, each with those that follow within reach."""
        ledger, found = Ledger(self.folder), {}
        held: dict[int, Features] = {}
        count = len(self.sections)
        pairs = [(i, j) for i in range(count) for j in range(i + 1, min(i + self.asked.reach, count - 1) + 1)]
        for i, j in shown([(i, j) for i, j in pairs if i in known and j in known], "matches"):
            for n in [n for n in held if n < i]:
                del held[n]
            result = ledger.once(self._job_between(i, j), partial(self._matched, i, j, held))
            matrix = result["matrix"] and torch.tensor(result["matrix"], dtype=torch.float64)
            found[i, j] = SectionMatch(result["matches"], result["agree"], matrix, result["off"])
        return found

    def grid(self, n: int) -> Grid:
        """Return the grid of a section."""
        with suppress(OSError, KeyError):
            kept = load_file(self._path(n))
            return Grid(tuple(kept["shape"].tolist()), kept["affine"])
        return read_pixels(self.sections, n).image.grid

    def _sought(self, n: int, job: Job) -> dict[str, Any]:
        """Find the keypoints of a section, and keep them."""
        image, name = self.sections[n], self.sections.names[n]
        labels, note = (None, "") if self.masks is None else read_mask(self.masks, n)
        found = self.how.features(image, labels, name)
        kept = {"points": found.points, "descriptors": found.descriptors, "spacing": torch.tensor(found.spacing)}
        kept |= {"shape": torch.tensor(image.grid.shape), "affine": image.grid.affine}
        self._path(n).parent.mkdir(exist_ok=True)
        with atomic_write(self._path(n)) as temporary:
            save_file({key: value.contiguous() for key, value in kept.items()}, temporary)
        return {"keypoints": len(found), "note": note}

    def _matched(self, i: int, j: int, held: dict[int, Features], job: Job) -> dict[str, Any]:
        """Match two sections; keypoints that were read are held for the next pairs."""
        for n in (i, j):
            if n not in held:
                kept = load_file(self._path(n))
                held[n] = Features(kept["points"], kept["descriptors"], float(kept["spacing"]))
        match = self.how.match(held[i], held[j], i, j)
        matrix = None if match.matrix is None else match.matrix.tolist()
        return {"matches": match.matches, "agree": match.agree, "matrix": matrix, "off": match.off}

    def _job_of(self, n: int) -> Job:
        read = [_file(each, n) for each in (self.sections, self.masks) if each is not None]
        paged = [(str(path), path.stat().st_size, path.stat().st_mtime_ns, n) for path in read if path in self._paged]
        about = [vars(self.how) | {"reference": None}, self.asked.spacing, paged]
        files = tuple(path for path in read if path not in self._paged)
        return Job(f"{KEYPOINTS} of {self.sections.names[n]}", about, files, (f"{KEYPOINTS}/{self._path(n).name}",))

    def _job_between(self, i: int, j: int) -> Job:
        about = vars(self.how) | {"reference": None}
        names = self.sections.names
        return Job(f"match of {names[i]} and {names[j]}", about, (self._path(i), self._path(j)))

    @property
    def _paged(self) -> list[Path]:
        """Files of several pages, whose bytes are not read for each."""
        return [Path(each.path) for each in (self.sections, self.masks) if each is not None and _is_paged(each)]

    def _path(self, n: int) -> Path:
        return self.folder / KEYPOINTS / f"{short_names(self.sections.names)[n]}.safetensors"


def _is_paged(sections: Sections) -> bool:
    return not Path(sections.path).is_dir()


def _file(sections: Sections, n: int) -> Path:
    return Path(sections.path) if _is_paged(sections) else Path(sections.path) / sections.names[n]


def _files(sections: Sections) -> list[Path]:
    return [_file(sections, n) for n in range(1 if _is_paged(sections) else len(sections))]


def _record(
    asked: StackAsked,
    how: Mito,
    sections: Sections,
    found: StackSolution,
    notes: list[str],
    written: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `run.json` tells."""
    failures = found.failures(sections.names)
    suspect = [sections.names[n] for n in range(len(sections)) if _is_suspect(found, n, how.threshold)]
    if suspect:
        notes = [*notes, f"loops through {', '.join(suspect)} do not close: its matches contradict each other"]
    if not sections.measured:
        notes = [*notes, "nothing says how large a pixel is; 1 mm stands for it, or say --spacing"]
    for note in failures if asked.skip else []:
        warnings.warn(note, stacklevel=2)
    worst = max(found.loops.values(), default=None)
    return manifest() | {
        "sections": len(sections),
        "folder": str(asked.path),
        "masks": asked.masks and str(asked.masks),
        "reference": sections.names[found.reference],
        "pairs": len(found.matches),
        "matched": sum(match.matrix is not None for match in found.matches.values()),
        "loop error px": None if found.loop_error is None else round(found.loop_error, 3),
        "worst loop px": None if worst is None else round(worst, 3),
        "quality": {
            "passed": not suspect and (asked.skip or not found.unmatched),
            "unmatched": [sections.names[n] for n in found.unmatched],
            "suspect": suspect,
            "failures": failures,
        },
        **written,
        "method": as_data(how),
        "settings": {"reach": asked.reach, "spacing": sections.spacing, "thickness": asked.thickness},
        "notes": notes,
    }


def _is_suspect(found: StackSolution, section: int, threshold: float) -> bool:
    """Return whether no loop through a section closes within the threshold, though there are some."""
    return min(found.loop_errors(section), default=0.0) > threshold


def summary(content: Mapping[str, Any], out: Path) -> str:
    """Summarise the answer of `stack_files` for a person."""
    quality, folder = content["quality"], out.with_name(out.name[: -len(stack_ending(out))])
    lines = [f"{content['sections']} sections, {content['matched']} of {content['pairs']} pairs match"]
    if content["loop error px"] is not None:
        lines.append(f"loop error: {content['loop error px']:.2f} px (median), {content['worst loop px']:.2f} (worst)")
    for name, (before, after) in content["neighbours"].items():
        lines.append(f"{name} of neighbours: {before:.2f} before, {after:.2f} after")
    lines.append(f"quality: {'sound' if quality['passed'] else 'looks FAILED (exit code 3)'}")
    lines += [f"  {failure}" for failure in quality["failures"]]
    lines += [f"  {name}: its matches contradict each other" for name in quality["suspect"]]
    wrote = (
        f"{out} is written" if content["aligned"] else f"{out} is not written: --skip-bad lays such sections between"
    )
    return "\n".join([*lines, wrote, f"Look at {folder / 'index.html'}"])
