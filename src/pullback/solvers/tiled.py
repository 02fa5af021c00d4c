"""Registration by overlapping tiles, for images too large to be seen as a whole."""

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pullback.alignment import Alignment, Pair, Register, continued, seen
from pullback.errors import InputError
from pullback.numerics.tiles import Tiling, Window, hat
from pullback.space import Affine, Displacement, Image, Transform, part_of, pull
from pullback.stats import Stats

LEAST = 16  # voxels along an axis, of a tile that is not the whole image
FAR = 0.25  # of what a register sees along an axis: motion that is longer may come from beyond it


@dataclass(frozen=True, eq=False)
class Tiled:
    """A register that runs another one on overlapping tiles of the fixed image, one by one, and blends its fields.

    Each tile is seen beside the moving image as pulled onto the tile's grid. Displacements, further transforms and maps
    are means over the tiles by weights that add up to 1: what all tiles agree on stays, such as one linear map, and
    there are no seams. What is held is the images, what is answered, and what the register needs for one tile. No tile
    sees what moved into it from beyond; motion longer than a quarter of a tile is warned of.

    Attributes:
        register: of images on one grid.
        size: of the tiles in voxels along each axis, or along all; along an axis that is shorter it is the image's.
        stride: how far apart tiles are at most; None is half their size.
        margin: voxels around each tile that are seen in addition, and not answered for; images go on beyond their ends
            with the least value of their border.
        passes: how many times all tiles are looked at: each time the moving image is seen as moved so far, and pulled
            once through all of it.
        window: weights of a tile's voxels along an axis: `hat`, or `bell`.

    Raises:
        InputError: sizes below 16 voxels, strides that leave gaps, a margin below 0, or no pass.
    """

    register: Register
    size: int | tuple[int, ...] = 128
    stride: int | tuple[int, ...] | None = None
    margin: int = 0
    passes: int = 1
    window: Window = hat

    def __post_init__(self) -> None:
        sizes, strides = _numbers(self.size), _numbers(1 if self.stride is None else self.stride)
        if min(sizes) < LEAST:
            raise InputError(f"tiles of {LEAST} voxels or more along each axis expected, got {_said(sizes)}")
        gaps = any(b > a for a, b in zip(sizes, strides, strict=False)) or max(strides) > max(sizes)
        if gaps or min(strides) < 1 or self.margin < 0 or self.passes < 1:
            raise InputError(
                f"tiles of {_said(sizes)}: a stride from 1 to their size, a margin of 0 or more and one pass or more "
                f"expected, got {_said(strides)}, {self.margin} and {self.passes}"
            )

    def tiling(self, shape: Sequence[int]) -> Tiling:
        """Return the tiles of an image of this shape.

        Raises:
            InputError: sizes for another number of axes.
        """
        size = tuple(map(min, shape, _each(self.size, shape, "size")))
        half = tuple(max(n // 2, 1) for n in size) if self.stride is None else _each(self.stride, shape, "stride")
        return Tiling(tuple(shape), size, tuple(map(min, size, half)))

    def __call__(self, fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        """Align two images, fixed → moving, by a displacement on the fixed grid after the `start`.

        Raises:
            InputError: as of `tiling`, or tiles on which the register answers with other maps or transforms than on
                others.
        """
        tiling, pair = self.tiling(fixed.grid.shape), Pair(fixed, moving)
        found, further, maps = self._blended(tiling, pair, start)
        self._warn(found, tiling)
        whole: Transform = found if start is None else start @ found
        for _ in range(self.passes - 1):
            found, further, maps = self._blended(tiling, pair, whole)
            further, whole = continued(whole, further), whole @ found
        if self.passes == 1 and start is not None:
            further = continued(start, further)
        return Alignment(pair, whole, maps, further, Stats(start=start, numbers={"tiles": float(len(tiling))}))

    def _blended(
        self, tiling: Tiling, pair: Pair, start: Transform | None
    ) -> tuple[Displacement, dict[str, Transform], dict[str, Image]]:
        """Return the displacement, the further ones and the maps of the tiles' answers, on the fixed grid."""
        grid, answers = pair.fixed.grid, self._answers(tiling, pair, start)
        first = next(answers)
        whole = tiling.blended((self._values(one, first) for one in itertools.chain((first,), answers)), self.window)
        fields = (1 + len(first.transforms)) * grid.ndim
        found, *further = (Displacement(field, grid) for field in whole[:, :fields].split(grid.ndim, 1))
        channels = [image.data.shape[1] for image in first.maps.values()]
        maps = whole[:, fields:].split(channels, 1) if channels else ()
        return (
            found,
            dict(zip(first.transforms, further, strict=True)),
            {name: Image(values, grid) for name, values in zip(first.maps, maps, strict=True)},
        )

    def _answers(self, tiling: Tiling, pair: Pair, start: Transform | None) -> Iterator[Alignment]:
        """Yield what the register answers on each tile, on the tile's grid with its margin."""
        begin = Affine.identity(pair.fixed.grid.ndim) if start is None else start
        still = start is None and pair.moving.grid == pair.fixed.grid
        for place in tiling.places:
            box = tuple(slice(a - self.margin, a + n + self.margin) for a, n in zip(place, tiling.size, strict=True))
            fixed = part_of(pair.fixed, box)
            moving = part_of(pair.moving, box) if still else pull(pair.moving, begin, onto=fixed)
            yield seen(Pair(fixed, moving), self.register(fixed, moving))

    def _values(self, answer: Alignment, first: Alignment) -> Tensor:
        """Return the displacement, further ones and maps of an answer as channels, `(B, C, *size)`, without the margin.

        Raises:
            InputError: others than those of the first tile.
        """
        if answer.transforms.keys() != first.transforms.keys() or answer.maps.keys() != first.maps.keys():
            names = [sorted((*each.maps, *each.transforms)) for each in (first, answer)]
            raise InputError(
                f"Tiled: the same maps and transforms on each tile expected, got {names[0]} and {names[1]}"
            )
        grid = answer.pair.fixed.grid
        core = (slice(None), slice(None), *(slice(self.margin, n - self.margin) for n in grid.shape))
        transforms = (answer.transform, *(answer.transforms[name] for name in first.transforms))
        values = [one.displacement(grid) for one in transforms] + [answer.maps[name].data for name in first.maps]
        batch = max(map(len, values))
        like = answer.pair.fixed.data
        return torch.cat([each[core].expand(batch, -1, *[-1] * grid.ndim).to(like) for each in values], 1)

    def _warn(self, found: Displacement, tiling: Tiling) -> None:
        """Warn of motion that is long, in tiles and their margins."""
        for axis, (size, n) in enumerate(zip(tiling.size, tiling.shape, strict=True)):
            far = float(found.field[:, axis].detach().abs().amax())
            if size < n and far > FAR * (size + 2 * self.margin):
                warnings.warn(
                    f"Tiled: motion of {far:.0f} voxels along axis {axis}, where {size + 2 * self.margin} are seen at "
                    f"once: what comes from beyond a tile is not found; take larger tiles, or start from nearer",
                    UserWarning,
                    stacklevel=3,
                )
                return


def _numbers(sizes: int | tuple[int, ...]) -> tuple[int, ...]:
    return (sizes,) if isinstance(sizes, int) else sizes


def _each(sizes: int | tuple[int, ...], shape: Sequence[int], what: str) -> tuple[int, ...]:
    """Return one number for each axis.

    Raises:
        InputError: another number of them.
    """
    if isinstance(sizes, int):
        return (sizes,) * len(shape)
    if len(sizes) != len(shape):
        raise InputError(
            f"tiles: one {what}, or one for each of the {len(shape)} axes of the images expected, got {_said(sizes)}"
        )
    return sizes


def _said(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))
