"""Pre-alignment as a part of a data set: moving images lie where a linear register puts them, before anyone sees them.

Voxels are not resampled: the grid of the moving image moves (`space.placed`), and whoever pulls the image through a
transform of the new pair interpolates once. The truth, labels and points come along.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register
from pullback.data.case import LOADED, Dataset, PairDataset, Singles, Test, Train, Validation
from pullback.energies import NMI
from pullback.errors import InputError
from pullback.files import read_transform, write_transform
from pullback.space import Affine, Grid, Image, placed, push, resample

KEPT, FAILED = ".tfm", ".failed.tfm"
ENOUGH = 10
"""Pairs after which a share of failures tells something."""
MAY_FAIL = 0.2
"""Share of the pairs that may fail."""
MAY_FALL = 0.1
"""Share of the similarity of a pair that a pre-alignment may lose; one that loses more has failed."""
VOXELS = 60_000
"""Of the fixed grid, at most, on which the similarity is measured."""


@dataclass(frozen=True)
class Prealigned:
    """A data set of pairs, whose moving images a linear register has brought onto the fixed ones.

    The splits are those of the other data set. A pair is aligned when it is first loaded. What is measured of it is of
    the new pair, in whose world the moving image is already aligned: its truth is A⁻¹ ∘ φ, where φ is the old one and A
    the pre-alignment, and A ∘ ψ is what an answer ψ is worth in the old world.

    A pre-alignment has failed where it loses a tenth of the similarity of the two images, or maps volumes to less than
    half or more than twice: such a pair stays as its headers say, and is named. Where that is so of more than a fifth
    of ten pairs or more, the register does not suit the images, and that is refused.

    Attributes:
        data: the other data set, of pairs of images.
        register: any whose answer is linear, such as `Classical(deformable=None)`. Its `repr` must say all its numbers,
            as that of a dataclass does.
        out: folder in which transforms are kept, a file for each two images and this register, by their content: from
            other images or by another register none is taken. A failed one ends in `.failed.tfm`. "" keeps them as long
            as the process lasts.
        root: the folder of the data set, where it is read from one; "" leaves it as it is.
    """

    data: Dataset
    register: Register
    out: str = ""
    root: str = ""

    @property
    def centred(self) -> bool:
        return cast(PairDataset, self.data).centred

    @property
    def train(self) -> Train:
        """The pairs for training, aligned.

        Raises:
            InputError: the data set has other examples than pairs.
        """
        known = self._placed.train
        if isinstance(known, Singles):
            raise InputError("Prealigned: a data set of pairs expected; this one has examples of single images")
        return replace(known, placing=self.aligned, of=self)

    @property
    def validation(self) -> Validation:
        return replace(self._placed.validation, placing=self.aligned)

    @property
    def test(self) -> Test:
        return replace(self._placed.test, placing=self.aligned)

    @cached_property
    def _placed(self) -> Dataset:
        return replace(self.data, root=self.root) if self.root else self.data  # type: ignore[type-var]

    def aligned(self, pair: Pair) -> Pair:
        """Return a pair with its moving image, and all that belongs to it, where the register puts it.

        Raises:
            InputError: as of `start`, or boxes or images between, which a turn would spoil.
        """
        if pair.between is not None or pair.moving_boxes is not None:
            what = "boxes lie along the axes of their image" if pair.between is None else "images between are not moved"
            raise InputError(f"{pair.name}: cannot be pre-aligned: {what}; leave them out of the data")
        start = self.start(pair)
        back, truth = start.inverse(), pair.truth
        return replace(
            pair,
            moving=placed(pair.moving, start),
            moving_labels=pair.moving_labels and placed(pair.moving_labels, start),
            moving_points=pair.moving_points and push(pair.moving_points, back),
            truth=truth and back @ truth,
        )

    def start(self, pair: Pair) -> Affine:
        """Return the pre-alignment A of a pair, fixed → moving; the identity where it has failed.

        Raises:
            InputError: the register deforms, or too many pairs failed.
        """
        key = _digest(self.register, pair.images)
        file = Path(self.out) / f"{_plain(pair.name)}-{key}" if self.out else None
        start, failed = LOADED.get((key, self.out), lambda: self._kept(pair, file))
        if failed and self.out:
            self._check_failures()
        return Affine.identity(pair.fixed.grid.ndim) if failed else start

    def _kept(self, pair: Pair, file: Path | None) -> tuple[Affine, bool]:
        """Return the pre-alignment, from its file or computed and kept, and whether it has failed."""
        for ending in (FAILED, KEPT) if file is not None else ():
            known = Path(f"{file}{ending}")
            if known.is_file():
                return cast(Affine, read_transform(known).as_affine), ending == FAILED
        with torch.no_grad():
            found = self.register(pair.fixed, pair.moving).transform.as_affine
        if found is None:
            raise InputError(
                "Prealigned: a register whose answer is linear expected, and this one deforms: leave out its last "
                "stage, as in Classical(deformable=None)"
            )
        start = Affine(found.matrix.detach().double().cpu())
        failed = not _is_sound(pair, start)
        if failed:
            text = f"{pair.name}: the pre-alignment has failed; the pair stays as its headers say"
            warnings.warn(text, UserWarning, stacklevel=2)
        if file is not None:
            write_transform(start, f"{file}{FAILED if failed else KEPT}")
        return start, failed

    def _check_failures(self) -> None:
        names = [path.name for path in Path(self.out).glob(f"*{KEPT}")]
        failed = sorted(name for name in names if name.endswith(FAILED))
        if len(names) >= ENOUGH and len(failed) > MAY_FAIL * len(names):
            raise InputError(
                f"{self.out}: {len(failed)} of {len(names)} pre-alignments have failed, such as {failed[0]}: look at "
                f"the headers of these images (`pullback doctor`), or take another register; then empty the folder"
            )


def _is_sound(pair: Pair, start: Affine) -> bool:
    """Return whether the images are as alike as before, or nearly, and volumes within a factor of two."""
    if not 0.5 < float(torch.linalg.det(start.matrix[:-1, :-1])) < 2:
        return False
    fixed, still = pair.fixed, Affine.identity(pair.fixed.grid.ndim)
    edge = (float(torch.tensor(fixed.grid.shape).prod()) / VOXELS) ** (1 / fixed.grid.ndim)
    grid = fixed.grid.at_spacing(tuple((max(edge, 1.0) * fixed.grid.spacing).tolist()))
    coarse = resample(fixed, grid)
    similarity = NMI(in_view=True)

    def alike(map_: Affine) -> float:
        seen = _seen(pair.moving, map_, grid)
        return 1 - float(similarity(Alignment(Pair(coarse, seen), still)))

    return alike(start) >= (1 - MAY_FALL) * alike(still)


def _seen(moving: Image, start: Affine, grid: Grid) -> Image:
    """Return the moving image through a map on a grid, with a mask where its field of view ends."""
    mask = torch.ones_like(moving.data[:, :1], dtype=torch.bool) if moving.mask is None else moving.mask
    return resample(replace(moving, mask=mask), grid, start)


def _digest(register: Register, images: Iterable[Image]) -> str:
    """Return letters that stand for a register and two images: their voxels, and where these are."""
    found = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(register)).encode())
    for image in images:
        for part in (image.data, image.mask, image.grid.affine):
            if part is not None:
                found.update(_bytes(part))
    return found.hexdigest()[:16]


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().numpy().tobytes()


def _plain(name: str) -> str:
    """Return the name of a pair as one of a file."""
    return re.sub(r"[^\w.=+-]+", "_", name)[:80]
