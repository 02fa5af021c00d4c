"""The Learn2Reg layout."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError
from pullback.files.manifest import write_json


@dataclass(frozen=True)
class Learn2Reg:
    """A folder with one `<TASK>_dataset.json` (Hering et al. 2023).

    The test split is `registration_test` where the file has one, unless its labels are kept back while those of
    `registration_val` are at hand; else it is `registration_val`. The validation split, on which checkpoints are
    chosen, is `registration_val` when it is not the test split, else pairs of the last `held_out` training cases that
    are in no test pair. The other training cases are learned from; of images listed for testing nothing is learned.

    Attributes:
        root: the folder, or "" until one is given.
        shape: cut or pad every image about its middle to this shape (along the axes near R, A, S), middles on top of
            each other; None leaves the images where their headers put them.
        held_out: cases kept from training for the validation split.
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
        try:
            layout = json.loads(files[0].read_text())
            training = {_key(e["image"]): self._case(root, e) for e in layout["training"]}
            tested = [e for e in layout.get("test", []) if isinstance(e, dict)]
            cases = training | {_key(e["image"]): self._case(root, e) for e in tested}
            wanted = [layout.get("registration_test") or [], layout.get("registration_val") or []]
            splits = [[(cases[_key(p["fixed"])], cases[_key(p["moving"])]) for p in pairs] for pairs in wanted]
            if self.both_ways:
                splits = [[way for pair in pairs for way in (pair, pair[::-1])] for pairs in splits]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{files[0]}: not the Learn2Reg layout: {error!r} is missing or unreadable") from error
        test, validation = splits
        if not test or (_labelled(validation) and not _labelled(test)):
            test, validation = validation, []
        if not test:
            raise InputError(f"{files[0]}: lists neither registration_val nor registration_test pairs to evaluate on")
        used = {case.name for pairs in (test, validation) for pair in pairs for case in pair}
        rest = [case for case in training.values() if case.name not in used]
        if not validation:
            kept = max(len(rest) - self.held_out, 0)
            rest, held = rest[:kept], rest[kept:]
            validation = ordered_pairs(held, self.validation_pairs)
        if len(rest) < 2 or not validation:
            raise InputError(
                f"{files[0]}: {len(rest)} cases are left to train on and {len(validation)} pairs to validate by; at "
                f"least 2 and 1 are needed: set data.held_out (now {self.held_out}, of cases that are in no test pair) "
                f"to 2 or more and data.validation_pairs (now {self.validation_pairs}) above 0"
            )
        if self.synthetic is None:
            return Train(tuple(rest)), Validation(tuple(validation)), Test(tuple(test))
        seen = [list(dict.fromkeys(case for pair in pairs for case in pair)) for pairs in (validation, test)]
        return Train(tuple(rest)), self.synthetic.listed(Validation, seen[0]), self.synthetic.listed(Test, seen[1])

    def _case(self, root: Path, entry: dict[str, str]) -> FileCase:
        kinds = {"labels": "label", "mask": "mask"} if self.masks else {"labels": "label"}
        optional = {kind: root / entry[key] for kind, key in kinds.items() if key in entry}
        return FileCase(_key(entry["image"]), root / entry["image"], **optional, shape=self.shape)

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


def _key(path: str) -> str:
    return Path(path).name.split(".")[0]


def _labelled(pairs: Sequence[tuple[FileCase, FileCase]]) -> bool:
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
