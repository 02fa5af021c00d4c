"""The Learn2Reg layout."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError
from pullback.files.endings import FORMATS, NIFTI, ends
from pullback.files.manifest import write_json

Pairs = list[tuple[FileCase, FileCase]]


@dataclass(frozen=True)
class Learn2Reg:
    """A folder with one `<TASK>_dataset.json` (Hering et al. 2023).

    The test split is `registration_test` where the file has one, unless its labels are kept back while those of
    `registration_val` are at hand; else it is `registration_val`. The validation split, on which checkpoints are
    chosen, is `registration_val` when it is not the test split, else pairs of the last `held_out` training cases. The
    other training cases are learned from; of images listed for testing nothing is learned.

    No patient is in two splits: images named TASK_PATIENT_MODALITY, the last two of four digits, such as
    `LungCT_0004_0000` and `LungCT_0004_0001` in one folder, are of one. Cases have the names of their images without
    endings, or, where two have the same, their paths as listed.

    Attributes:
        root: the folder, or "" until one is given.
        shape: cut or pad every image about its middle to this shape (along the axes near R, A, S), middles on top of
            each other; None leaves the images where their headers put them.
        held_out: cases kept from training for the validation split, and with them all others of their patients.
        validation_pairs: how many pairs of them.
        both_ways: the pairs that the file lists are measured in both directions.
        masks: whether images are looked at within the masks that the file lists alone.
        synthetic: as in `PairFolder`.
    """

    root: str = ""
    shape: tuple[int, ...] | None = None
    held_out: int = 10
    validation_pairs: int = 20
    both_ways: bool = False
    masks: bool = True
    synthetic: Synthetic | None = None

    @cached_property
    def _splits(self) -> tuple[Train, Validation, Test]:
        root = Path(self.root)
        files = sorted(root.glob("*_dataset.json"))
        if not self.root or len(files) != 1:
            here = (self.root if root.is_dir() else f"{self.root}: not a folder") if self.root else "no folder given"
            raise InputError(
                f"{here}: a Learn2Reg folder holds exactly one *_dataset.json, found {len(files)}; say where it is "
                f"with --data DIR"
            )
        training, test, validation = self._listed(files[0])
        if not test or (_labelled(validation) and not _labelled(test)):
            test, validation = validation, []
        if not test:
            raise InputError(f"{files[0]}: lists neither registration_val nor registration_test pairs to evaluate on")
        tested = _patients(test)
        both = sorted({case.name for pair in validation for case in pair if _patient(case) in tested})
        if both:
            raise InputError(
                f"{files[0]}: {len(both)} cases of registration_val, such as {both[0]}, are of patients of "
                f"registration_test, so checkpoints would be chosen on who is reported: take them out of one of the "
                f"two, or leave registration_val empty: then training cases are held out"
            )
        used = tested | _patients(validation)
        rest = [case for case in training if _patient(case) not in used]
        if not validation:
            late = {_patient(case) for case in rest[max(len(rest) - self.held_out, 0) :]}
            validation = ordered_pairs([case for case in rest if _patient(case) in late], self.validation_pairs)
            rest = [case for case in rest if _patient(case) not in late]
        if len(rest) < 2 or not validation:
            raise InputError(
                f"{files[0]}: {len(rest)} cases are left to train on and {len(validation)} pairs to validate by; at "
                f"least 2 and 1 are needed: set data.held_out (now {self.held_out}, of cases whose patients are in no "
                f"test pair) to 2 or more and data.validation_pairs (now {self.validation_pairs}) above 0; cases named "
                f"TASK_PATIENT_MODALITY are held out by patient"
            )
        if self.synthetic is None:
            return Train(tuple(rest)), Validation(tuple(validation)), Test(tuple(test))
        seen = [list(dict.fromkeys(case for pair in pairs for case in pair)) for pairs in (validation, test)]
        return Train(tuple(rest)), self.synthetic.listed(Validation, seen[0]), self.synthetic.listed(Test, seen[1])

    def _listed(self, file: Path) -> tuple[list[FileCase], Pairs, Pairs]:
        """The cases for training, and the pairs for test and for validation, as the file has them."""
        try:
            layout = json.loads(file.read_text())
            parts = [layout["training"], [e for e in layout.get("test", []) if isinstance(e, dict)]]
            paths = {Path(e["image"]) for part in parts for e in part}
            often = Counter(map(_bare, paths))
            names = {path: _bare(path) if often[_bare(path)] == 1 else path.as_posix() for path in paths}
            training, tested = ({Path(e["image"]): self._case(file.parent, e, names) for e in part} for part in parts)
            cases = training | tested
            wanted = [layout.get("registration_test") or [], layout.get("registration_val") or []]
            test, validation = ([(cases[Path(p["fixed"])], cases[Path(p["moving"])]) for p in ps] for ps in wanted)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{file}: not the Learn2Reg layout: {error!r} is missing or unreadable") from error
        if self.both_ways:
            test, validation = ([way for pair in pairs for way in (pair, pair[::-1])] for pairs in (test, validation))
        return list(training.values()), test, validation

    def _case(self, root: Path, entry: Mapping[str, str], names: Mapping[Path, str]) -> FileCase:
        kinds = {"labels": "label", "mask": "mask"} if self.masks else {"labels": "label"}
        optional = {kind: root / entry[key] for kind, key in kinds.items() if key in entry}
        return FileCase(names[Path(entry["image"])], root / entry["image"], **optional, shape=self.shape)

    @property
    def centred(self) -> bool:
        return self.shape is not None

    @property
    def train(self) -> Train:
        return self._splits[0]

    @property
    def validation(self) -> Validation:
        return self._splits[1]

    @property
    def test(self) -> Test:
        return self._splits[2]


def _bare(path: Path) -> str:
    """The name of an image without its ending."""
    ending = next((ending for ending in NIFTI + FORMATS if ends(path, ending)), "")
    return path.name[: len(path.name) - len(ending)]


def _patient(case: FileCase) -> str:
    """An image's path without its ending and, where it ends in _PATIENT_MODALITY, without the latter."""
    return re.sub(r"(?<=_\d{4})_\d{4}$", "", str(case.image.parent / _bare(case.image)))


def _patients(pairs: Pairs) -> set[str]:
    return {_patient(case) for pair in pairs for case in pair}


def _labelled(pairs: Pairs) -> bool:
    return any(case.labels is not None for pair in pairs for case in pair)


def write_dataset(
    root: Path,
    task: str,
    entries: Mapping[str, Mapping[str, str]],
    pairs: Mapping[str, Sequence[tuple[str, str]]],
    labels: Mapping[int, str],
    shape: Sequence[int] | None = None,
) -> None:
    """`<task>_dataset.json`: what `Learn2Reg` reads, and the tools of the challenge.

    Args:
        root: the folder that holds the files.
        task: its name.
        entries: of each subject, the paths `"image"` and, where it has them, `"label"` and `"mask"`, within `root`.
        pairs: `"validation"` and `"test"`: fixed and moving subjects. Whoever is in neither is for training.
        labels: their names.
        shape: of all images, where they have one.
    """
    tested = {name for pair in pairs["test"] for name in pair}
    named = {"0": "background", **{str(label): name or f"label {label}" for label, name in sorted(labels.items())}}
    listed = {
        split: [{"fixed": entries[fixed]["image"], "moving": entries[moving]["image"]} for fixed, moving in both]
        for split, both in pairs.items()
    }
    content = {
        "name": task,
        "tensorImageShape": {"0": list(shape)} if shape else {},
        "modality": {"0": "unknown"},
        "labels": {"0": named},
        "registration_direction": {"fixed": "0", "moving": "0"},
        "numTraining": len(entries) - len(tested),
        "numTest": len(tested),
        "training": [entry for name, entry in entries.items() if name not in tested],
        "test": [entry for name, entry in entries.items() if name in tested],
        "registration_val": listed["validation"],
        "registration_test": listed["test"],
    }
    write_json(content, root / f"{task}_dataset.json")
