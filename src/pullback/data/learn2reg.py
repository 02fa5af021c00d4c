"""Datasets in the layout of Learn2Reg."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs, pairs_within
from pullback.data.people import MODALITY
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError
from pullback.files.suffixes import FORMATS, NIFTI, ends
from pullback.records.manifest import write_json

PAIRED = "paired"
Pairs = list[tuple[FileCase, FileCase]]


@dataclass(frozen=True)
class Learn2Reg:
    """A folder with one `<TASK>_dataset.json` (Hering et al. 2023).

    The test split is `registration_test` where the file has one, unless its labels are kept back while those of
    `registration_val` are at hand; else it is `registration_val`. The validation split, on which checkpoints are
    chosen, is `registration_val` when it is not the test split, else pairs of the last `held_out` training cases. The
    other training cases are for training; images listed for testing never are. Where the file lists pairs for training
    (`training_paired_images`), or says that its images are `paired`, these pairs alone are learned and, held out,
    validated by: fixed is fixed. Paired images that no list pairs are those of a patient, in the file's
    `registration_direction` where that names two modalities, else both ways.

    No patient is in two splits: images named TASK_PATIENT_MODALITY, the last two of four digits, such as
    `LungCT_0004_0000` and `LungCT_0004_0001` in one folder, are of one. Cases have the names of their images without
    endings, or, where two have the same, their paths as listed. Keypoints that the file lists, tables of voxel
    coordinates, match row by row between the images of a pair.

    Attributes:
        root: the folder, or "" until one is given.
        shape: cut or pad every image about its middle to this shape (along the axes near R, A, S), middles on top of
            each other; None leaves the images where their headers put them.
        held_out: cases kept from training for the validation split, and with them all others of their patients.
        validation_pairs: number of pairs of them.
        both_ways: measure the pairs that the file lists in both directions.
        masks: whether to use the masks that the file lists.
        synthetic: as in `PairFolder`.
        within: pairs are of one patient, fixed and moving as the file's `training_paired_images` lists them for
            training, or where it lists none, each image of a patient with each other, both ways. A patient with one
            image is in no split, and the names of the splits are the patients'.
        without: names of cases that are left out, as if they were not listed; nobody else moves.
        scale: divides the intensities, of which none is cut off: 500 for Hounsfield units; None normalises each image
            by its own percentiles.
    """

    root: str = ""
    shape: tuple[int, ...] | None = None
    held_out: int = 10
    validation_pairs: int = 20
    both_ways: bool = False
    masks: bool = True
    synthetic: Synthetic | None = None
    within: bool = False
    without: tuple[str, ...] = ()
    scale: float | None = None

    @property
    def cases(self) -> tuple[FileCase, ...]:
        """All images that are listed, for training first."""
        return tuple(self._listed(self._file)[0].values())

    @property
    def _file(self) -> Path:
        root = Path(self.root)
        files = sorted(path for path in root.glob("*_dataset.json") if not path.name.startswith("."))
        if not self.root or len(files) != 1:
            here = (self.root if root.is_dir() else f"{self.root}: not a folder") if self.root else "no folder given"
            raise InputError(
                f"{here}: a Learn2Reg folder holds exactly one *_dataset.json, found {len(files)}; say where it is "
                f"with --data DIR"
            )
        return files[0]

    @cached_property
    def _splits(self) -> tuple[Train, Validation, Test]:
        file, left = self._file, {*self.without}
        _, training, test, validation, paired = self._listed(file)
        if not test or (_labelled(validation) and not _labelled(test)):
            test, validation = validation, []
        if not test:
            raise InputError(f"{file}: lists neither registration_val nor registration_test pairs to evaluate on")
        tested = _patients(test)
        both = sorted({case.name for pair in validation for case in pair if _patient(case) in tested})
        if both:
            raise InputError(
                f"{file}: {len(both)} cases of registration_val, such as {both[0]}, are of patients of "
                f"registration_test, so checkpoints would be chosen on who is reported: take them out of one of the "
                f"two, or leave registration_val empty: then training cases are held out"
            )
        used = tested | _patients(validation)
        rest = [case for case in training if _patient(case) not in used]
        if not validation:
            late = {_patient(case) for case in rest[max(len(rest) - self.held_out, 0) :]}
            held = [case for case in rest if _patient(case) in late]
            pairs = _among(paired or [], held) if paired is not None else ordered_pairs(held, self.validation_pairs)
            validation, rest = pairs[: self.validation_pairs], [case for case in rest if _patient(case) not in late]
        rest, validation, test = (
            [case for case in rest if case.name not in left],
            *([pair for pair in pairs if not any(case.name in left for case in pair)] for pairs in (validation, test)),
        )
        learned = _among(paired or [], rest)
        if paired is not None:
            used_images = {case.image for pairs in (test, validation, learned) for pair in pairs for case in pair}
            within = {path.relative_to(file.parent): path.is_file() for path in sorted(used_images)}
            _refuse_absent(file, within)
        if not test:
            raise InputError(f"{file}: no pair is left to evaluate on, without {', '.join(self.without)}")
        if len(rest) < 2 or not validation or (paired is not None and not learned):
            raise InputError(
                f"{file}: {len(rest)} cases are left to train on and {len(validation)} pairs to validate by; at "
                f"least 2 and 1 are needed: set data.held_out (now {self.held_out}, of cases whose patients are in no "
                f"test pair) to 2 or more and data.validation_pairs (now {self.validation_pairs}) above 0; cases named "
                f"TASK_PATIENT_MODALITY are held out by patient"
            )
        train = Train(tuple(rest), pairs=tuple(learned), of=self)
        if self.synthetic is None:
            return train, Validation(tuple(validation)), Test(tuple(test))
        seen = [list(dict.fromkeys(case for pair in pairs for case in pair)) for pairs in (validation, test)]
        return train, self.synthetic.listed(Validation, seen[0]), self.synthetic.listed(Test, seen[1])

    def _listed(self, file: Path) -> tuple[dict[Path, FileCase], list[FileCase], Pairs, Pairs, Pairs | None]:
        """Read all cases, those for training, and the pairs for test, for validation and for training.

        None of training: any two cases are a pair.
        """
        try:
            layout = json.loads(file.read_text())
            parts = [layout["training"], [e for e in layout.get("test", []) if isinstance(e, dict)]]
            paths = {Path(e["image"]) for part in parts for e in part}
            often = Counter(map(_bare, paths))
            names = {path: _bare(path) if often[_bare(path)] == 1 else path.as_posix() for path in paths}
            training, tested = ({Path(e["image"]): self._case(file.parent, e, names) for e in part} for part in parts)
            cases = training | tested
            lists = ("registration_test", "registration_val", "training_paired_images")
            wanted = [[(Path(p["fixed"]), Path(p["moving"])) for p in layout.get(name) or []] for name in lists]
            is_paired = self.within or layout.get("pairings") == PAIRED or bool(wanted[2])
            direction = layout.get("registration_direction") or {}
            if is_paired:
                _refuse_absent(file, {path: path in cases for pairs in wanted for pair in pairs for path in pair})
            listed = [[(cases[fixed], cases[moving]) for fixed, moving in pairs] for pairs in wanted]
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"{file}: not the Learn2Reg layout: {error!r} is missing or unreadable") from error
        if self.both_ways:
            listed = [[way for pair in pairs for way in (pair, pair[::-1])] for pairs in listed]
        test, validation, paired = listed
        if self.within:
            _refuse_strangers(file, [pair for pairs in listed for pair in pairs])
        if not is_paired:
            return cases, list(training.values()), test, validation, None
        paired = paired or _of_patients(training.values(), {} if self.within else direction)
        return cases, list(dict.fromkeys(case for pair in paired for case in pair)), test, validation, paired

    def _case(self, root: Path, entry: Mapping[str, str], names: Mapping[Path, str]) -> FileCase:
        kinds = ("label", "mask") if self.masks else ("label",)
        label, mask = (root / entry[kind] if kind in kinds and kind in entry else None for kind in ("label", "mask"))
        name, points = names[Path(entry["image"])], root / entry["keypoints"] if "keypoints" in entry else None
        case = FileCase(name, root / entry["image"], label, mask, self.shape, points=points, scale=self.scale)
        return replace(case, subject=MODALITY.sub("", _unended(name))) if self.within else case

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


def _among(pairs: Pairs, cases: Sequence[FileCase]) -> Pairs:
    """Return the pairs of which both are among the cases."""
    known = {*cases}
    return [pair for pair in pairs if {*pair} <= known]


def _of_patients(cases: Iterable[FileCase], direction: Mapping[str, object]) -> Pairs:
    """Return the pairs of the images of each patient: all, or from one modality to another where these differ."""
    alike: dict[str, list[FileCase]] = {}
    for case in cases:
        alike.setdefault(_patient(case), []).append(case)
    pairs = pairs_within(alike.values())
    ends = [f"_{int(str(direction.get(side, 0))):04d}" for side in ("fixed", "moving")]
    if ends[0] == ends[1]:
        return pairs
    return [(a, b) for a, b in pairs if _bare(a.image).endswith(ends[0]) and _bare(b.image).endswith(ends[1])] or pairs


def _refuse_absent(file: Path, listed: Mapping[Path, bool]) -> None:
    """Refuse pairs of images that are not in the file's lists of images, or do not exist."""
    absent = [path.as_posix() for path, is_there in listed.items() if not is_there]
    if absent:
        raise InputError(
            f"{file}: {len(absent)} images of its pairs are not there, or not in its lists training and test, such as "
            f"{absent[0]}: put them there, or take their pairs out of the file"
        )


def _refuse_strangers(file: Path, pairs: Pairs) -> None:
    for fixed, moving in pairs:
        if _patient(fixed) != _patient(moving):
            raise InputError(
                f"{file}: lists {fixed.name} with {moving.name}, which are of two patients by their names, "
                f"TASK_PATIENT_MODALITY: leave data.within out, or take the pair out of the file"
            )


def _bare(path: Path) -> str:
    """Return the name of an image without its ending."""
    return _unended(path.name)


def _unended(text: str) -> str:
    return text.removesuffix(next((text[-len(ending) :] for ending in NIFTI + FORMATS if ends(text, ending)), ""))


def _patient(case: FileCase) -> str:
    """Return an image's path without its ending and, where it ends in _PATIENT_MODALITY, without the latter."""
    return MODALITY.sub("", str(case.image.parent / _bare(case.image)))


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
    """Write `<task>_dataset.json`, which `Learn2Reg` and the tools of the challenge read.

    Args:
        root: the folder that holds the files.
        task: its name.
        entries: for each subject the paths `"image"` and, where it has them, `"label"` and `"mask"`, within `root`.
        pairs: `"validation"` and `"test"`: fixed and moving subjects. All others are for training, and so are the
            pairs of `"train"`, where there are some.
        labels: their names.
        shape: of all images, where they have one.
    """
    tested = {name for pair in pairs["test"] for name in pair}
    named = {"0": "background", **{str(label): name or f"label {label}" for label, name in sorted(labels.items())}}
    listed = {
        split: [{"fixed": entries[fixed]["image"], "moving": entries[moving]["image"]} for fixed, moving in both]
        for split, both in pairs.items()
    }
    trained = listed.get("train", [])
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
        **({"numPairedTraining": len(trained), "training_paired_images": trained} if trained else {}),
        "registration_val": listed["validation"],
        "registration_test": listed["test"],
    }
    write_json(content, root / f"{task}_dataset.json")
