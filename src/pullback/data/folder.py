"""Your own images in a folder."""

import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs, with_atlas
from pullback.data.synthesis import Synthetic
from pullback.errors import InputError
from pullback.numerics.random import drawn_number

NO_IMAGES = re.compile(r"[_.](dseg|probseg|seg|mask|labels?)\.\w+(\.gz)?$", re.I)  # endings of BIDS and of others
LEAST = 2  # subjects of a split: fewer make no pair


@dataclass(frozen=True)
class PairFolder:
    """Images of several subjects, any two of which make a pair.

    By shares, each subject draws a number in [0, 1) that depends on `seed` and its name alone. It is a test subject
    below `test_split`, a validation subject below `test_split + validation_split`, and else for training; where that
    leaves fewer than two for test, or then for validation, those who drew least are taken. So subjects that are added
    later change nothing for the others, except that in a small folder one may push another from test to validation or
    from validation to training: never towards test, and never from test to training at once.

    Validation has 20 pairs and test 100, or all there are; where it has more subjects, one of each. Each subject is
    fixed as often as any other, up to one, and moving too.

    Attributes:
        root: the folder, or "" until one is given.
        images, labels, masks: patterns under `root`, such as `*_T1w.nii.gz` or `sub-*/anat/sub-*_T1w.nii.gz`: every `*`
            stands for the subject's name, and labels and masks belong to the image of the same name. A subject without
            labels is fine.
        validation_split, test_split: names of subjects, or about what share of them (0 … 1, at least two). Who names
            those of validation names those of test too.
        shape: as in `Learn2Reg`.
        seed: of the draw.
        atlas: name of the subject that is in every pair, and in no split; None pairs subjects.
        atlas_moves: whether it is the moving image of all pairs, else the fixed one.
        synthetic: validation and test pairs are made of their subjects by it; None takes pairs of stored images.
    """

    root: str = ""
    images: str = "*.nii.gz"
    labels: str | None = None
    masks: str | None = None
    validation_split: tuple[str, ...] | float = 0.15
    test_split: tuple[str, ...] | float = 0.15
    shape: tuple[int, ...] | None = None
    seed: int = 0
    atlas: str | None = None
    atlas_moves: bool = True
    synthetic: Synthetic | None = None

    @cached_property
    def cases(self) -> tuple[FileCase, ...]:
        """All subjects, by name.

        Raises:
            InputError: fewer images than three splits need, or none at all; or labels are among them.
        """
        images = self._matches(self.images)
        self._check_endings(images)
        others = {
            "labels": self._others("labels", self.labels, images),
            "mask": self._others("masks", self.masks, images),
        }
        if len(images) < LEAST:
            raise InputError(
                f"{self.root}: {len(images)} images match {self.images!r}; at least {LEAST} are needed: {self._remedy}"
            )
        return tuple(
            FileCase(name, path, **{kind: found.get(name) for kind, found in others.items()}, shape=self.shape)
            for name, path in sorted(images.items())
        )

    def _check_endings(self, images: Mapping[str, Path]) -> None:
        """A pattern that takes labels or masks beside images means the images alone."""
        other = {name: path for name, path in images.items() if NO_IMAGES.search(path.name)}
        if 0 < len(other) < len(images):
            image = next(path for name, path in sorted(images.items()) if name not in other).name
            narrow = f'narrow it: --set "data.images=*_{image.split("_")[-1]}"'
            raise InputError(
                f"{min(other.values())}: by its name labels or a mask, but the pattern of the images, {self.images!r}, "
                f"takes it, as it takes {image}: {narrow if '_' in image else 'put one kind into a folder of its own'}"
            )

    def _others(self, kind: str, pattern: str | None, images: dict[str, Path]) -> dict[str, Path]:
        """Labels or masks by subject, none of which is an image too."""
        if not pattern:
            return {}
        found = self._matches(pattern)
        both = sorted(set(found.values()) & set(images.values()))
        if both:
            raise InputError(
                f"{both[0]} matches the pattern of the images, {self.images!r}, and that of the {kind}, {pattern!r}; "
                f'narrow the one of the images: --set "data.images=*_T1w.nii.gz"'
            )
        if images and not found.keys() & images.keys():
            raise InputError(
                f"{self.root}: no {kind} match {pattern!r} for any of the {len(images)} images, whose names are "
                f'{_some(images)}; check --set "data.{kind}={pattern}"'
            )
        return found

    @property
    def _remedy(self) -> str:
        plain = self.images.removesuffix(".gz")
        if plain != self.images and self._matches(plain):
            return f'there are some that are not compressed: --set "data.images={plain}"'
        return 'check --data DIR, and the pattern: --set "data.images=*_T1w.nii.gz"'

    def _matches(self, pattern: str) -> dict[str, Path]:
        """Files by what the `*` of their pattern stand for; whatever else the pattern says stands for itself."""
        pattern = str(PurePosixPath(pattern))
        if "*" not in pattern or "**" in pattern or pattern.startswith("/"):
            raise InputError(
                f"{pattern!r}: a path within the folder is expected, in which every * stands for the subject's name "
                f"(and there is no **), such as *_T1w.nii.gz or sub-*/anat/sub-*_T1w.nii.gz"
            )
        root = Path(self.root)
        if not self.root or not root.is_dir():
            raise InputError(
                f"{self.root or 'no folder given'}: not a folder; say where the images are with --data DIR"
            )
        first, *rest = pattern.split("*")
        named = re.compile(re.escape(first) + "(?P<name>[^/]+)" + "(?P=name)".join(map(re.escape, rest)))
        found = {}
        for path in root.glob("*".join(map(glob.escape, (first, *rest)))):
            match = named.fullmatch(path.relative_to(root).as_posix())
            if match and path.is_file():
                found[match["name"]] = path
        return found

    @cached_property
    def _groups(self) -> dict[str, tuple[FileCase, ...]]:
        named = {case.name: case for case in self.cases if case.name != self.atlas}
        self._check_splits(set(named))
        chosen = {
            name for split in (self.test_split, self.validation_split) if isinstance(split, tuple) for name in split
        }
        drawn = sorted((drawn_number(self.seed, name), name) for name in named.keys() - chosen)
        groups, below = {}, 0.0
        for kind, split in (("test", self.test_split), ("validation", self.validation_split)):
            if isinstance(split, tuple):
                groups[kind] = tuple(named[name] for name in split)
                continue
            below += split
            count = max(LEAST, sum(number < below for number, _ in drawn))
            groups[kind] = tuple(named[name] for _, name in drawn[:count])
            drawn = drawn[count:]
        groups["train"] = tuple(named[name] for name in sorted(name for _, name in drawn))
        if min(map(len, groups.values())) < LEAST:
            sizes = {kind: len(cases) for kind, cases in groups.items()}
            raise InputError(
                f"{self.root}: {len(named)} subjects make splits of {sizes}; each needs at least {LEAST}: add some, "
                f"take smaller shares or another seed, or name the subjects of validation and test"
            )
        return groups

    def _check_splits(self, known: set[str]) -> None:
        """Names that are there, once, or shares that leave something to train on."""
        test, validation = self.test_split, self.validation_split
        if isinstance(validation, tuple) and not isinstance(test, tuple):
            raise InputError("validation_split names subjects, so test_split must name its own, not be a share")
        names = [name for split in (test, validation) if isinstance(split, tuple) for name in split]
        for name in names:
            if name not in known:
                raise InputError(f"{self.root}: no subject {name!r} for the splits; found {_some(known)}")
            if names.count(name) > 1:
                raise InputError(f"{self.root}: subject {name!r} is named twice in the splits; name it in one of them")
        shares = [split for split in (test, validation) if not isinstance(split, tuple)]
        if any(share < 0 for share in shares) or sum(shares) >= 1:
            raise InputError(f"shares for test and validation of {shares}: none below 0 and less than 1 together")

    @property
    def centred(self) -> bool:
        return self.shape is not None

    @property
    def train(self) -> Train:
        return Train(self._groups["train"], self._atlas, self.atlas_moves)

    @property
    def validation(self) -> Validation:
        if self.synthetic is not None:
            return self.synthetic.listed(Validation, self._groups["validation"])
        return Validation(self._pairs("validation", 20), self._atlas)

    @property
    def test(self) -> Test:
        if self.synthetic is not None:
            return self.synthetic.listed(Test, self._groups["test"])
        return Test(self._pairs("test", 100), self._atlas)

    @property
    def _atlas(self) -> FileCase | None:
        if self.atlas is None:
            return None
        for case in self.cases:
            if case.name == self.atlas:
                return case
        raise InputError(f"{self.root}: no atlas {self.atlas!r}; found {_some(case.name for case in self.cases)}")

    def _pairs(self, split: str, limit: int) -> list[tuple[FileCase, FileCase]]:
        """About so many, but each subject is the fixed one of some."""
        cases, atlas = self._groups[split], self._atlas
        if atlas is None:
            return ordered_pairs(cases, max(limit, len(cases)))
        return [with_atlas(case, atlas, self.atlas_moves) for case in cases]


def _some(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:8]) + (" …" if len(first) > 8 else "")
