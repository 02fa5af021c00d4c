"""Your own images in a folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from pullback.data.case import FileCase, Test, Train, Validation, ordered_pairs
from pullback.errors import InputError
from pullback.numerics.random import generator


@dataclass(frozen=True)
class PairFolder:
    """Images of several subjects, any two of which make a pair.

    Attributes:
        root: the folder, or "" until one is given.
        images, labels, masks: patterns under `root` with one `*`; what it stands for is the subject's name, and labels
            and masks belong to the image of the same name. A subject without labels is fine.
        validation, test: names of subjects, or a share of them (0 … 1, at least two) drawn by `seed`.
        shape: as in `Learn2Reg`.
        seed: of the draw.
    """

    root: str = ""
    images: str = "*.nii.gz"
    labels: str | None = None
    masks: str | None = None
    validation_names: tuple[str, ...] | float = 0.15
    test_names: tuple[str, ...] | float = 0.15
    shape: tuple[int, ...] | None = None
    seed: int = 0

    @cached_property
    def cases(self) -> tuple[FileCase, ...]:
        """All subjects, by name."""
        images = self._matches(self.images)
        if len(images) < 2:
            raise InputError(
                f"{self.root or 'no folder given'}: {len(images)} images match {self.images!r}; at least 2 are needed: "
                f"check --data DIR and --set data.images='PATTERN*.nii.gz'"
            )
        labels = self._matches(self.labels) if self.labels else {}
        masks = self._matches(self.masks) if self.masks else {}
        for kind, pattern, found in (("labels", self.labels, labels), ("masks", self.masks, masks)):
            if pattern and not found.keys() & images.keys():
                raise InputError(f"{self.root}: no {kind} match {pattern!r} for any of the {len(images)} images")
        return tuple(
            FileCase(name, path, labels.get(name), masks.get(name), self.shape) for name, path in sorted(images.items())
        )

    def _matches(self, pattern: str) -> dict[str, Path]:
        if pattern.count("*") != 1:
            raise InputError(f"{pattern!r}: one * is needed, which stands for the subject's name")
        if not self.root or not Path(self.root).is_dir():
            raise InputError(
                f"{self.root or 'no folder given'}: not a folder; say where the images are with --data DIR"
            )
        whole = str(Path(self.root) / pattern)
        before, after = whole.split("*")
        return {str(p)[len(before) : len(str(p)) - len(after)]: p for p in Path(self.root).glob(pattern) if p.is_file()}

    @cached_property
    def _groups(self) -> dict[str, tuple[FileCase, ...]]:
        named = {case.name: case for case in self.cases}
        left = [self.cases[i] for i in torch.randperm(len(named), generator=generator(self.seed))]
        groups = {}
        for split, wanted in (("test", self.test_names), ("validation", self.validation_names)):
            if isinstance(wanted, tuple):
                unknown = [name for name in wanted if name not in named]
                if unknown:
                    raise InputError(
                        f"{self.root}: no subject {unknown[0]!r} for the {split} split; found {sorted(named)}"
                    )
                groups[split] = tuple(named[name] for name in wanted)
            else:
                taken = {
                    name
                    for names in (self.test_names, self.validation_names)
                    if isinstance(names, tuple)
                    for name in names
                }
                count = max(2, round(wanted * len(named)))
                groups[split] = tuple([case for case in left if case.name not in taken][:count])
            left = [case for case in left if case not in groups[split]]
        groups["train"] = tuple(sorted(left, key=lambda case: case.name))
        if len(groups["train"]) < 2 or min(map(len, groups.values())) < 2:
            sizes = {split: len(cases) for split, cases in groups.items()}
            raise InputError(f"{self.root}: {len(named)} subjects make splits of {sizes}; each needs at least 2")
        return groups

    @property
    def centred(self) -> bool:
        return self.shape is not None

    @property
    def train(self) -> Train:
        return Train(self._groups["train"])

    @property
    def validation(self) -> Validation:
        return Validation(ordered_pairs(self._groups["validation"], 20))

    @property
    def test(self) -> Test:
        return Test(ordered_pairs(self._groups["test"], 100))
