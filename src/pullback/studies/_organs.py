"""Common parts of studies of organs as clouds: label maps, pairs of them, and what is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor

from pullback.alignment import Pair
from pullback.data import normalised
from pullback.errors import InputError
from pullback.files import read_image, read_labels
from pullback.numerics.graph import nearest
from pullback.space import Image, Labels, Points

ENDS = 0.03  # share of an organ's voxels whose mean is its bottom, or its top
ORGANS = (1, 2, 3, 4, 5, 6)  # spleen, kidneys, gallbladder, liver, stomach
OTHERS = (7, 8, 9)  # pancreas and adrenal glands, which no cloud holds


@dataclass(frozen=True)
class LabelMaps:
    """Label maps of several people, each brought onto each other's.

    Attributes:
        root: the folder, or "" until one is given.
        names: of the people, or images.
        labels: where a label map lies under `root`, as in `{}Lobes.nii.gz`.
        values: labels that take part.
        points: of each label's outline.
    """

    root: str = ""
    names: Sequence[str] = ()
    labels: str = "{}.nii.gz"
    values: tuple[int, ...] = ()
    points: int = 200

    def read(self, name: str) -> Labels:
        """Return the label map of one person.

        Raises:
            InputError: there is no such file.
        """
        path = Path(self.root) / self.labels.format(name)
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the folder in which it is with --data NAME=DIR")
        return read_labels(path)


@dataclass(frozen=True)
class CTandMR:
    """The CT of one abdomen, and the MR of another as its header lays it.

    Attributes:
        root: the folder of TotalSegmentator's reference files, or "" until one is given.
    """

    root: str = ""

    def pairs(self) -> Iterator[Pair]:
        """Yield the pair both ways, of intensities 0 … 1, with the labels of nine organs."""
        kinds = (("example_ct_sm", "example_seg"), ("example_mr_sm", "example_seg_mr"))
        read: list[tuple[Image, Labels]] = []
        for names in kinds:
            image, labels = (Path(self.root) / f"{name}.nii.gz" for name in names)
            known = normalised(read_image(image))
            told = read_labels(labels, on=known.grid)
            read.append((known, replace(told, data=told.data * (told.data <= max(OTHERS)))))
        for (fixed, here), (moving, there) in permutations(read, 2):
            yield Pair(fixed, moving, here, there, name="CT ← MR" if fixed is read[0][0] else "MR ← CT")


def landmarks(labels: Labels, values: Sequence[int]) -> Tensor:
    """Return the bottom, centre and top of each organ, `(organs · 3, d)` mm; NaN where it is not there."""
    found = []
    for value in values:
        voxels = (labels.data[0, 0] == value).nonzero().double()
        where = labels.grid.to_world(voxels.mT[None])[0].mT
        where = where[where[:, -1].argsort()]
        few = max(1, round(ENDS * len(where)))
        found += [where[:few].mean(0), where.mean(0), where[-few:].mean(0)]
    return torch.stack(found)


def crossing(points: Points, labels: Labels) -> float:
    """Return the share of points, in %, that lie in another organ than theirs."""
    assert points.label is not None
    at = labels.grid.to_voxels(points.data.mT)[0].mT.round().long()
    last = at.new_tensor(labels.grid.shape) - 1
    inside = ((at >= 0) & (at <= last)).all(1)
    seen = labels.data[0, 0][tuple(at.clamp(min=torch.zeros_like(last), max=last).mT)].long()
    other = inside & (seen != 0) & (seen != points.label[0])
    return 100 * float(other.double().mean())


def surface_distance(points: Points, others: Points) -> float:
    """Return the mean distance in mm of points to the nearest other of their label."""
    assert points.label is not None
    assert others.label is not None
    own = [(points[points.label[0] == n], others[others.label[0] == n]) for n in points.label.unique().tolist()]
    far = [nearest(here.data[0], there.data[0], 1)[0] for here, there in own if there.data.numel()]
    return float(torch.cat(far).mean())
