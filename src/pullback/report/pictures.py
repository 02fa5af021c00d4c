"""An alignment as flat pictures: planes of the world, colours, PNGs and lines."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pullback.alignment import Alignment
from pullback.data import normalised
from pullback.metrics import foreground
from pullback.records.atomic import atomic_write
from pullback.space import Affine, Grid, Image, Labels, Transform, pull

FIXED, MOVED, FOLDED = "#56b4e9", "#f0a202", "#ffe800"  # told apart by colour-blind eyes (after Okabe and Ito 2008)
DIFFERENCE = ("#c9e8fb", "#3f9bd3", "#000000", "#dd8a00", "#ffe3a6")
JACOBIAN = ("#e9d2ff", "#9a5fd6", "#000000", "#1f9e78", "#b8f2d8")

LONGEST = 320  # pixels of a picture: keeps a report of noise under 3 MB
PLANES = (("Axial", 0, 1), ("Coronal", 0, 2), ("Sagittal", 1, 2))
ENDS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Plane:
    """A flat cut through the world, one voxel thick, with world axis `right` growing rightwards and `up` upwards.

    Attributes:
        name: the cut's name; `where` says in words where it lies.
        grid: square voxels along R, A, S; a 2D world is its own only cut.
        ends: what lies to the left, right, bottom and top.
    """

    name: str
    where: str
    grid: Grid
    right: int
    up: int
    ends: tuple[str, str, str, str]

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of columns and rows."""
        return self.grid.shape[self.right], self.grid.shape[self.up]

    def flat(self, values: Tensor) -> np.ndarray:
        """Return values `(1, C, *grid.shape)` as they are seen, `(C, rows, columns)`."""
        through = [axis + 1 for axis in range(self.grid.ndim) if axis not in (self.right, self.up)]
        seen = values[0].permute(0, self.up + 1, self.right + 1, *through).flatten(2)
        return seen.flip(1).detach().cpu().numpy()


@dataclass(frozen=True, eq=False)
class Cut:
    """A cut through an alignment along a plane: pictures `(rows, columns)`, the top left pixel first.

    Attributes:
        fixed, before, after: intensities in 0…1, 0 beyond the fixed grid; moving before registration is `before`.
        labels: integers by the same three names; empty where the pair has none.
        jacobian: det ∇φ, NaN beyond the fixed grid.
        reached: `(2, rows, columns)`, where φ leads, along `right` and `up`, in mm; NaN beyond the fixed grid.
        maps: what the register knows beside the transform, by name: 0…1 from its least to its greatest value.
    """

    plane: Plane
    fixed: np.ndarray
    before: np.ndarray
    after: np.ndarray
    labels: dict[str, np.ndarray]
    jacobian: np.ndarray
    reached: np.ndarray
    maps: dict[str, np.ndarray]


def cuts(alignment: Alignment, begin: Transform | None = None) -> list[Cut]:
    """Return cuts through the first pair of a batch and its first channel: three planes through its middle; one in 2D.

    `before` is the moving image seen through `begin`, or where its header puts it.
    """
    seen = _first(alignment)
    pair, begin = seen.pair, begin or Affine.identity(seen.pair.fixed.grid.ndim)
    fixed, moving = _windowed(pair.fixed), _windowed(pair.moving)
    known = Image(torch.cat([seen.jacobian, torch.ones_like(seen.jacobian)], 1), pair.fixed.grid)
    lit = torch.maximum(fixed.data, pull(moving, begin, onto=fixed).data)[0, 0] > 0.04
    whole = viewing_grid(pair.fixed.grid, lit)
    return [_cut(seen, plane, begin, fixed, moving, known) for plane in _planes(seen, whole)]


def _planes(alignment: Alignment, whole: Grid) -> list[Plane]:
    """Return planes of the world through the centre of mass of the fixed labels, or else of the fixed foreground."""
    if whole.ndim == 2:
        return [Plane("Image", "", whole, 0, 1, ("−x", "x", "−y", "y"))]
    labels = alignment.pair.fixed_labels
    inside = foreground(alignment) if labels is None or not bool((labels.data > 0).any()) else labels.data > 0
    middle = alignment.pair.fixed.grid.to_world(_middle(inside[0, 0])[None, :, None])
    centre = whole.to_voxels(middle)[0, :, 0].round()
    return [_slice(whole, centre, name, right, up) for name, right, up in PLANES]


def _slice(whole: Grid, centre: Tensor, name: str, right: int, up: int) -> Plane:
    normal = 3 - right - up
    shape, affine = list(whole.shape), whole.affine.clone()
    shape[normal] = 1
    affine[normal, 3] += affine[normal, normal] * centre[normal]
    at = float(affine[normal, 3])
    at = 0.0 if abs(at) < 0.5 * min(1.0, float(whole.spacing.min())) else at
    told = f"{abs(at):.0f}" if abs(at) >= 0.5 or not at else f"{abs(at):.2g}"
    where = f"{ENDS[normal][at > 0]} {told}\N{NO-BREAK SPACE}mm" if at else "0\N{NO-BREAK SPACE}mm"
    return Plane(name, where, Grid(tuple(shape), affine), right, up, ENDS[right] + ENDS[up])


def viewing_grid(grid: Grid, lit: Tensor) -> Grid:
    """Return voxels along R, A, S, with one edge length, about the `lit` voxels of `grid`, `(*grid.shape)` bool.

    They are the voxels of `grid` wherever those lie so, whatever their stored order.
    """
    world = grid.to_world(_rim(lit if bool(lit.any()) else ~lit).double().T[None])[0]
    low, extent = world.amin(1), world.amax(1) - world.amin(1)
    edge = max(float(grid.spacing.min()), 1.08 * float(extent.max()) / (LONGEST - 4))
    margin = torch.ceil(0.04 * extent / edge)
    affine = torch.diag(torch.tensor([edge] * grid.ndim + [1.0], dtype=torch.float64))
    affine[:-1, -1] = low - margin * edge
    return Grid(tuple(int(n) + 1 for n in (extent / edge - 1e-3).ceil() + 2 * margin), affine)


def _rim(lit: Tensor) -> Tensor:
    """Return the first and last True voxels of each line along the first axis, `(N, d)`; no other lies further out."""
    lines = lit.any(0)
    ends = (lit.byte().argmax(0), lit.shape[0] - 1 - lit.flip(0).byte().argmax(0))
    return torch.cat([torch.cat([end[lines][:, None], lines.nonzero()], 1) for end in ends])


def _middle(inside: Tensor) -> Tensor:
    """Return the centre of mass of `(*shape)` bool in voxels, `(d,)` float64; the middle where nothing is True."""
    inside = inside if bool(inside.any()) else ~inside
    along = [inside.sum([a for a in range(inside.ndim) if a != axis]).double() for axis in range(inside.ndim)]
    return torch.stack([(n * torch.arange(len(n))).sum() / n.sum() for n in along])


def _first(alignment: Alignment) -> Alignment:
    """Return the first channel of the first pair, with labels and transform, detached and readable by numpy."""
    here = torch.device("cpu")
    pair = alignment.pair.to(here)
    fixed, moving = (replace(i, data=i.data[:1, :1].detach().float()) for i in (pair.fixed, pair.moving))
    transform = alignment.transform.with_params(*(p.detach().to(here) for p in alignment.transform.params))
    maps = {name: _stretched(image.to(here)) for name, image in alignment.maps.items()}
    return Alignment(replace(pair, fixed=fixed, moving=moving), transform, maps)


def _stretched(image: Image) -> Image:
    """Scale the first channel from its least and greatest value to 0…1."""
    data = image.data[:1, :1].detach().float()
    extent = data.max() - data.min()
    return Image((data - data.min()) / extent.where(extent > 0, 1), image.grid)


def _windowed(image: Image) -> Image:
    """Scale an image from its own percentiles to 0…1; a constant image becomes black."""
    if bool(image.data.min() == image.data.max()):
        return Image(torch.zeros_like(image.data), image.grid)
    return Image(normalised(image).data, image.grid)


def _cut(seen: Alignment, plane: Plane, begin: Transform, fixed: Image, moving: Image, known: Image) -> Cut:
    still = Affine.identity(plane.grid.ndim)
    det, inside = plane.flat(pull(known, still, plane.grid, "nearest").data)
    beyond = inside == 0

    def shown(what: Image | Labels, transform: Transform) -> np.ndarray:
        return np.where(beyond, 0, plane.flat(pull(what, transform, plane.grid).data)[0])

    pair, labels = seen.pair, {}
    if pair.fixed_labels is not None and pair.moving_labels is not None:
        labels = {
            "fixed": shown(pair.fixed_labels, still),
            "before": shown(pair.moving_labels, begin),
            "after": shown(pair.moving_labels, seen.transform),
        }
    displacement = seen.transform.displacement(plane.grid).double()
    world = plane.flat(plane.grid.to_world(plane.grid.voxels(displacement)[None] + displacement))
    reached = np.where(beyond, np.nan, world[[plane.right, plane.up]])
    seen_by = (shown(fixed, still), shown(moving, begin), shown(moving, seen.transform))
    maps = {name: shown(image, still) for name, image in seen.maps.items()}
    return Cut(plane, *seen_by, labels, np.where(beyond, np.nan, det), reached, maps)


def ramp(stops: Sequence[str], count: int = 251) -> np.ndarray:
    """Return colours between evenly spaced `stops` such as `"#0d0d10"`, `(count, 3)` uint8."""
    known = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops])
    at = np.linspace(0, len(stops) - 1, count)
    return np.stack([np.interp(at, range(len(stops)), channel) for channel in known.T], 1).round().astype(np.uint8)


def signed(values: np.ndarray, limit: float) -> np.ndarray:
    """Return `values` from −limit to limit as indices 0…250 of a `ramp`, uint8."""
    return np.rint(125 * (1 + np.clip(values / limit, -1, 1))).astype(np.uint8)


def jacobian_picture(jacobian: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return palette indices, `(rows, columns)` uint8, and the palette: 251 is folded, 252 beyond the grid (black)."""
    log = np.log2(np.clip(np.nan_to_num(jacobian, nan=1.0), 2.0**-16, None))
    index = np.where(np.isnan(jacobian), 252, np.where(jacobian <= 0, 251, signed(log, limit)))
    return index.astype(np.uint8), np.concatenate([ramp(JACOBIAN), ramp([FOLDED], 1), ramp(["#000000"], 1)])


def jacobian_limit(jacobian: Tensor) -> float:
    """Return a round log₂ that 98 % of det ∇φ stay under, from 0.25 to 4."""
    log = jacobian[jacobian > 0].double().log2().abs().flatten().sort().values
    reach = float(log[int(0.98 * (len(log) - 1))]) if len(log) else 1.0
    return next((limit for limit in (0.25, 0.5, 1.0, 2.0, 3.0) if reach <= limit), 4.0)


def png(pixels: np.ndarray, palette: np.ndarray | None = None) -> str:
    """Encode `(rows, columns)` uint8, grey or indices into `palette` `(n, 3)`, as the data URI of a PNG."""
    from PIL import Image as Picture  # noqa: PLC0415 (slow to import; comes with matplotlib)

    picture = Picture.fromarray(np.ascontiguousarray(pixels))
    if palette is not None:
        picture.putpalette(palette.tobytes())
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def grey(values: np.ndarray) -> np.ndarray:
    """Return values 0…1 as uint8."""
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def borders(labels: np.ndarray) -> str:
    """Trace the outline of every label above 0 of `(rows, columns)`, as an SVG path in pixels."""
    padded = np.pad(labels, 1)
    return "".join(_lines(padded == value, [0.5], shift=-0.5) for value in np.unique(labels) if value > 0)


def grid_lines(cut: Cut, step: float) -> str:
    """Trace the lines of a regular grid of `step` mm in the moving world, pulled by φ, as an SVG path in pixels."""
    both = zip(cut.reached, lattice(cut, step), strict=True)
    return "".join(_lines(np.ma.masked_invalid(along), heights, shift=0.5) for along, heights in both)


def lattice(cut: Cut, step: float) -> list[list[float]]:
    """Return the heights, in mm along `right` and along `up`, of the grid lines that `reached` crosses.

    Centred on the plane, so that a transform that moves nothing leaves an even margin.
    """
    plane, found = cut.plane, []
    for axis, along in zip((plane.right, plane.up), cut.reached, strict=True):
        extent = float(plane.grid.spacing[axis]) * (plane.grid.shape[axis] - 1)
        cells = math.floor(extent / step - 0.3)
        start = float(plane.grid.affine[axis, -1]) + (extent - cells * step) / 2
        low, high = (np.nanmin(along) - start) / step, (np.nanmax(along) - start) / step
        found.append([start + n * step for n in range(math.ceil(low), math.floor(high) + 1)])
    return found


def grid_step(shown: Sequence[Cut]) -> float:
    """Return a round number of mm, about an eighteenth of the longest side of the cuts."""
    wanted = max(float(cut.plane.grid.spacing[0]) * max(cut.plane.size) for cut in shown) / 18
    power = 10.0 ** math.floor(math.log10(wanted))
    return power * min((1, 2, 2.5, 5, 10), key=lambda n: abs(math.log(n * power / wanted)))


def _lines(values: np.ndarray, heights: Sequence[float], shift: float) -> str:
    from contourpy import contour_generator  # noqa: PLC0415 (slow to import; comes with matplotlib)

    generator = contour_generator(z=values.astype(float))
    found = [np.asarray(line) + shift for height in heights for line in generator.lines(height)]
    return "".join("M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in line) for line in found)


def picture(alignment: Alignment, path: str | Path) -> None:
    """Write one PNG for a README: fixed, moving, moved, the deformation, and the change of volume."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    shown = cuts(alignment)[:2]
    limit, step = jacobian_limit(alignment.jacobian[:1].detach()), grid_step(shown)
    captions = ("fixed", "moving", "moved", "deformation", "volume change")
    heights = [cut.plane.size[1] / cut.plane.size[0] for cut in shown]
    wide, gap, caption = 2.3, 0.09, 0.42  # inches
    width, height = len(captions) * (wide + gap) + gap, caption + sum(wide * tall + gap for tall in heights)
    figure = Figure(figsize=(width, height), dpi=160, facecolor="#14171b")
    FigureCanvasAgg(figure)
    bottom = height - caption
    for cut, tall in zip(shown, heights, strict=True):
        bottom -= wide * tall
        boxes = [(gap + n * (wide + gap), bottom, wide, wide * tall) for n in range(len(captions))]
        _draw(
            [figure.add_axes((x / width, y / height, w / width, h / height)) for x, y, w, h in boxes], cut, limit, step
        )
        bottom -= gap
    for n, words in enumerate(captions):
        middle = (gap + n * (wide + gap) + wide / 2) / width
        figure.text(middle, 1 - caption / 2 / height, words, color="#d9dde2", size=12, ha="center", va="center")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())


def _draw(row: Sequence, cut: Cut, limit: float, step: float) -> None:
    """Draw five square-pixel axes: fixed, before, after, the grid over the fixed image, log det ∇φ."""
    index, palette = jacobian_picture(cut.jacobian, limit)
    for ax, values in zip(row, (cut.fixed, cut.before, cut.after, 0.7 * cut.fixed), strict=False):
        ax.imshow(values, cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
    for along, heights in zip(cut.reached, lattice(cut, step), strict=True):
        row[3].contour(along, heights, colors=MOVED, linewidths=0.9, linestyles="solid")
    row[4].imshow(palette[index], interpolation="nearest")
    for ax in row:
        ax.set_axis_off()
