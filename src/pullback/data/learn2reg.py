"""The Learn2Reg layout."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs
from pullback.errors import InputError


@dataclass(frozen=True)
class Learn2Reg:
    """A folder with one `<TASK>_dataset.json` (Hering et al. 2023).

    The test split is `registration_test` where the file has one whose labels are at hand, else `registration_val`. The
    validation split, on which checkpoints are chosen, is `registration_val` when it is not the test split, else pairs
    of the last `held_out` cases that are in no test pair. The rest is for training.

    Attributes:
        root: the folder, or "" until one is given.
        shape: cut or pad every image about its middle to this shape (along the axes near R, A, S), middles on top of
            each other; None leaves the images where their headers put them.
        held_out: cases kept from training for the validation split.
        validation_pairs: how many pairs of them.
        both_ways: the pairs that the file lists are measured in both directions.
    """

    root: str = ""
    shape: tuple[int, ...] | None = None
    held_out: int = 10
    validation_pairs: int = 20
    both_ways: bool = False

    @cached_property
    def _splits(self) -> tuple[Train, Validation, Test]:
        root = Path(self.root)
        files = sorted(root.glob("*_dataset.json"))
        if not self.root or len(files) != 1:
            raise InputError(
                f"{self.root or 'no folder given'}: a Learn2Reg folder holds exactly one *_dataset.json, found "
                f"{len(files)}; say where it is with --data DIR"
            )
        try:
            layout = json.loads(files[0].read_text())
            entries = [*layout["training"], *(e for e in layout.get("test", []) if isinstance(e, dict))]
            cases = {_key(e["image"]): self._case(root, e) for e in entries}
            wanted = [layout.get("registration_test") or [], layout.get("registration_val") or []]
            splits = [[(cases[_key(p["fixed"])], cases[_key(p["moving"])]) for p in pairs] for pairs in wanted]
            if self.both_ways:
                splits = [[way for pair in pairs for way in (pair, pair[::-1])] for pairs in splits]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{files[0]}: not the Learn2Reg layout: {error!r} is missing or unreadable") from error
        test, validation = splits
        if not test or any(case.labels is None for pair in test for case in pair):
            test, validation = validation, []
        if not test:
            raise InputError(f"{files[0]}: lists neither registration_val nor registration_test pairs to evaluate on")
        used = {case.name for pairs in (test, validation) for pair in pairs for case in pair}
        rest = [case for case in cases.values() if case.name not in used]
        if not validation:
            held, rest = rest[-self.held_out :], rest[: -self.held_out]
            validation = ordered_pairs(held, self.validation_pairs)
        if len(rest) < 2:
            raise InputError(f"{files[0]}: {len(rest)} cases are left to train on; at least 2 are needed")
        return Train(tuple(rest)), Validation(tuple(validation)), Test(tuple(test))

    def _case(self, root: Path, entry: dict[str, str]) -> FileCase:
        optional = {kind: root / entry[key] for kind, key in (("labels", "label"), ("mask", "mask")) if key in entry}
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
