"""Pairs for studies that train nothing: of files as they are stored, and one alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pullback.alignment import Pair
from pullback.data import FileCase, Test
from pullback.errors import InputError


@dataclass(frozen=True)
class FilePairs:
    """Pairs of images in one folder, each on its own grid and with its own intensities; a test split alone.

    Attributes:
        root: the folder, or "" until one is given.
        pairs: names of the fixed and the moving image of each.
        images, labels: where the image and the labels of a name lie under `root`, as in `{}_T1w.nii.gz`.
        count: how many of the pairs, from the first on.
    """

    root: str = ""
    pairs: Sequence[tuple[str, str]] = ()
    images: str = "{}.nii.gz"
    labels: str | None = None
    count: int = 1000

    @property
    def test(self) -> Test:
        """The pairs.

        Raises:
            InputError: a file is missing.
        """
        return Test([(self._case(fixed), self._case(moving)) for fixed, moving in self.pairs[: self.count]])

    def _case(self, name: str) -> FileCase:
        image = Path(self.root) / self.images.format(name)
        labels = None if self.labels is None else Path(self.root) / self.labels.format(name)
        for file in filter(None, (image, labels)):
            if not file.is_file():
                raise InputError(f"{file}: no such file; name the folder in which it is with --data NAME=DIR")
        return FileCase(Path(name).name, image, labels, as_stored=True)


class OnePair(ABC):
    """A pair that is a data set by itself: a test split alone, of that one example."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the pair."""

    @abstractmethod
    def load(self) -> Pair:
        """Return the pair."""

    @property
    def test(self) -> Test:
        """The one pair."""
        return Test.singles([self])
