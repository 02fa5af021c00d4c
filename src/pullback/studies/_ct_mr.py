"""The MR of one upper abdomen and the CT of another, of TotalSegmentator's reference files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pullback.alignment import Pair
from pullback.data import Singles, Test, Validation, normalised
from pullback.data.case import LOADED
from pullback.files import read_image, read_labels
from pullback.methods.pair.classical import BALANCED, Classical
from pullback.space import Affine, pull

ORGANS = 9  # classes 1 … 9 are the same organs in the models for CT and for MR
RIGID = replace(BALANCED, linear=BALANCED.linear[:1], deformable=None)


@dataclass(frozen=True)
class CTtoMR:
    """The MR of one upper abdomen, rigidly laid on the grid of the CT of another: one pair.

    It is learned from both ways, without its labels, and measured one way by them; so nothing is to be chosen by
    validation, which is on the same pair.

    Attributes:
        root: the folder of TotalSegmentator's reference files, or "" until one is given.
        rigid: lays the MR on the CT.
        back: whether the MR is the fixed image.
    """

    root: str = ""
    rigid: Classical = RIGID
    back: bool = False
    centred: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "MR ← CT" if self.back else "CT ← MR"

    @property
    def train(self) -> Singles:
        """The pair, both ways."""
        return Singles([self, replace(self, back=not self.back)], of=self)

    @property
    def validation(self) -> Validation:
        """The one pair."""
        return Validation.singles([self])

    @property
    def test(self) -> Test:
        """The one pair."""
        return Test.singles([self])

    def load(self) -> Pair:
        """Return the pair, of intensities 0 … 1, with the labels of nine organs."""
        pair = LOADED.get((self.root, self.rigid), self._read)
        if not self.back:
            return pair
        return Pair(pair.moving, pair.fixed, pair.moving_labels, pair.fixed_labels, name=self.name)

    def _read(self) -> Pair:
        files = {"fixed": ("example_ct_sm", "example_seg"), "moving": ("example_mr_sm", "example_seg_mr")}
        paths = {side: [Path(self.root) / f"{name}.nii.gz" for name in names] for side, names in files.items()}
        images = {side: normalised(read_image(image)) for side, (image, _) in paths.items()}
        labels = {side: read_labels(labels, on=images[side].grid) for side, (_, labels) in paths.items()}
        few = {side: replace(one, data=one.data * (one.data <= ORGANS)) for side, one in labels.items()}
        start = self.rigid(images["fixed"], images["moving"]).transform
        onto, still = images["fixed"], Affine.identity(3)
        return Pair(
            onto,
            pull(images["moving"], start, onto=onto),
            pull(few["fixed"], still, onto=onto),
            pull(few["moving"], start, onto=onto),
            name="CT ← MR",
        )
