"""The verdict of pairs whose outcome is known, right and wrong: false alarms, false peace, seconds to decide.

    python benchmarks/verdict.py [--data FOLDER] [--kinds KIND …] [--threads 1] [-o OUT.csv]

Each pair is judged as it lies under a transform that is known to be right (headers of images that lie on each other,
the map with which a phantom was made, landmarks, the middles of organs) or wrong (turned, shifted, mirrored, one
vertebra off, unrelated). A right pair that looks failed is a false alarm, a wrong one that looks sound false peace.
Thresholds were chosen on the pairs of the first half; the second half has other people, phantoms and sections.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.files import read_image, read_labels
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import of_vector
from pullback.numerics.smooth import gaussian
from pullback.records.atomic import atomic_write
from pullback.solvers import Levels, LinearStage
from pullback.space import Affine, Grid, Image, Motion, Transform, pull
from pullback.workflows.quality import verdict

SHARED = Path(__file__).parents[2] / "shared" / "data"
HALVES = ("chosen on", "held out")


@dataclass(frozen=True)
class Case:
    """A pair under a transform, and whether that is right."""

    name: str
    right: bool
    pair: Pair
    transform: Transform


def turned(image: Image, degrees: float, axis: int = 2, shift: tuple[float, ...] = ()) -> Affine:
    """A turn about the middle of the image, and a shift in mm after it."""
    d = image.grid.ndim
    vector = torch.zeros(1, 1 if d == 2 else 3, dtype=torch.float64)
    vector[0, 0 if d == 2 else axis] = math.radians(degrees)
    middle = image.grid.centre
    to = middle + torch.tensor(shift or (0.0,) * d, dtype=torch.float64)
    return Affine.about(of_vector(vector)[0], middle, to)


def shifted(*shift: float) -> Affine:
    zero = torch.zeros(len(shift), dtype=torch.float64)
    return Affine.about(
        torch.eye(len(shift), dtype=torch.float64), zero, zero + torch.tensor(shift, dtype=torch.float64)
    )


def wrongs(pair: Pair, right: Transform, far: float) -> Iterator[Case]:
    """Half turns about each axis, a turn by 40°, shifts of `far` mm, and where a registration from there settles."""
    d = pair.fixed.grid.ndim
    along, across = torch.zeros(2, d, dtype=torch.float64)
    along[-1], across[0] = far, -far
    starts = {f"half turn {axis}": turned(pair.fixed, 180, axis) for axis in range(d if d == 3 else 1)}
    starts |= {"40° off": turned(pair.fixed, 40, d - 1)}
    starts |= {f"{far:g} mm along {d - 1}": shifted(*along.tolist()), f"{far:g} mm along 0": shifted(*across.tolist())}
    for name, start in starts.items():
        yield Case(name, False, pair, right @ start)
    for name in ("half turn 0", f"{far:g} mm along {d - 1}"):
        yield from settled(name, pair, right, right @ starts[name], far)


def settled(name: str, pair: Pair, right: Transform, start: Transform, far: float) -> Iterator[Case]:
    """The answer of a rigid registration from `start`, if it is clear what it is: at home, or half of `far` from it."""
    rigid_stage = LinearStage(Motion.rigid, levels=Levels(most=20_000))
    found = rigid_stage(normalised(pair.fixed), normalised(pair.moving), start).transform
    grid = pair.fixed.grid
    corners = torch.cartesian_prod(*[torch.tensor([0.25 * n, 0.75 * n]) for n in grid.shape]).T.double()
    where = grid.to_world(corners[None])
    off = float((found.at(where) - right.at(where)).norm(dim=1).mean())
    if off < far / 6 or off > far / 2:
        yield Case(f"{name}, registered", off < far / 6, pair, found)


def still(pair: Pair) -> Affine:
    return Affine.identity(pair.fixed.grid.ndim)


def noise(shape: tuple[int, ...], seed: int, smooth: float = 0.0) -> Tensor:
    values = torch.randn(1, 1, *shape, generator=make_generator(seed))
    if not smooth:
        return values
    values = gaussian(values, smooth)
    return values / values.std()


def slab(image: Image, axis: int, low: int, high: int) -> Image:
    """The slices from `low` to `high` along an axis."""
    affine = image.grid.affine.clone()
    affine[:-1, -1] += low * affine[:-1, axis]
    data = image.data.narrow(2 + axis, low, high - low).contiguous()
    return Image(data, Grid(tuple(data.shape[2:]), affine))


# ---- kinds: each yields the cases of one half


def brains(data: Path, half: int) -> Iterator[Case]:
    names = (("15", "16"), ("01", "03"))[half], (("09", "11"), ("05", "06"))[half]
    first, second = ([read_image(data / "brains" / "2mm" / f"sub-{n}_T1w.nii.gz") for n in two] for two in names)
    pair, other = Pair(*first), Pair(*second)
    yield Case("by headers", True, pair, still(pair))
    yield Case("others, by headers", True, other, still(other))
    top = float(other.moving.data.max())
    dark = replace(other.moving, data=(top - other.moving.data) * (other.moving.data > 0.02 * top))
    yield Case("inverted contrast", True, Pair(other.fixed, dark), still(other))
    yield Case("3 mm and 4° off, as after a poor start", True, pair, turned(pair.fixed, 4, 1, (1.0, 2.0, -2.0)))
    yield from wrongs(pair, still(pair), 24.0)
    yield from list(wrongs(Pair(other.fixed, dark), still(other), 30.0))[:2]
    flipped = replace(pair.fixed, data=pair.fixed.data.flip(2) * (1 + 0.03 * noise(pair.fixed.grid.shape, half)))
    yield Case("flipped left–right", False, Pair(pair.fixed, flipped), still(pair))
    for smooth in (0.0, 4.0):
        none = Image(noise(pair.fixed.grid.shape, half + 2, smooth) + 5, pair.fixed.grid)
        yield Case(f"noise, σ {smooth:g}", False, Pair(pair.fixed, none), still(pair))


def slabs(data: Path, half: int) -> Iterator[Case]:
    names = (("15", "16"), ("10", "12"))[half]
    one, two = (read_image(data / "brains" / "2mm" / f"sub-{n}_T1w.nii.gz") for n in names)
    axis, low, high = ((2, 40, 60), (2, 58, 76))[half]
    thin = slab(two, axis, low, high)
    shift = [0.0] * 3
    shift[axis] = 20.0
    yield Case("whole ← slab", True, Pair(one, thin), Affine.identity(3))
    yield Case("slab ← whole", True, Pair(slab(one, axis, low, high), two), Affine.identity(3))
    yield Case("whole ← slab, 20 mm off", False, Pair(one, thin), shifted(*shift))
    yield Case("whole ← slab, upside down", False, Pair(one, thin), turned(thin, 180, (axis + 1) % 3))
    airy = [in_air(image, half + n) for n, image in enumerate((one, two))]
    part = slab(airy[1], 2, 0, (80, 76)[half])
    yield Case(
        "half of the other's view, in noisy air", True, Pair(slab(airy[0], 2, 44, 112), part), Affine.identity(3)
    )
    shape = (56, 60)[half], (48, 56)[half], 5
    grid = Grid(shape, torch.diag(torch.tensor([0.3, 0.3, 1.5, 1.0], dtype=torch.float64)))
    body = head(grid, half)
    moved = pull(Image(body, grid), shifted(0.9, -0.6, 0.0), grid).data + 0.01 * noise(shape, half)
    five_slices = Pair(Image(body, grid), Image(moved, grid))
    yield Case("five slices", True, five_slices, shifted(-0.9, 0.6, 0.0))
    yield Case("five slices, half a turn off", False, five_slices, turned(five_slices.fixed, 180, 2))


def in_air(image: Image, seed: int) -> Image:
    level = 0.01 * float(image.data.max())
    return replace(image, data=image.data + level * noise(image.grid.shape, seed).abs())


def head(grid: Grid, seed: int) -> Tensor:
    """A lopsided ellipsoid with texture."""
    x = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in grid.shape], indexing="ij"))
    edges = torch.tensor([0.72, 0.83, 1.4][: grid.ndim]).view(-1, *[1] * grid.ndim)
    radius = (x / edges).norm(dim=0) + 0.15 * x[0] * x[1]
    return torch.sigmoid(15 * (1 - radius)) * (1 + 0.25 * noise(grid.shape, seed, 2.5))


def spines(data: Path, half: int) -> Iterator[Case]:
    period, count = ((18.0, 6), (13.0, 8))[half]
    for d in (2, 3):
        pair, truth = spine(d, period, count, half)
        yield Case(f"{d}-D", True, pair, truth)
        for sign in (1, -1):
            off = [0.0] * d
            off[-1] = sign * period
            name = f"{d}-D, one vertebra {'up' if sign > 0 else 'down'}"
            yield Case(name, False, pair, truth @ shifted(*off))
            yield from settled(name, pair, truth, truth @ shifted(*off), period)
        yield Case(f"{d}-D, half a vertebra off", False, pair, truth @ shifted(*[0.0] * (d - 1), period / 2))


def spine(d: int, period: float, count: int, seed: int) -> tuple[Pair, Affine]:
    """Vertebrae that grow downwards, each a little brighter or darker, in soft tissue."""
    shape = ((48, round(period * count)), (40, 36, round(period * count)))[d - 2]
    truth, images = shifted(*([2.0, -1.5, 3.0][:d])), []
    for n, placed in enumerate((Affine.identity(d), truth)):
        grid = Grid.centred(shape)
        where = placed.inverse().at(grid.to_world(grid.voxels(placed.matrix)[None]))[0]
        level = torch.tensor(noise((count + 4,), seed).flatten().tolist(), dtype=torch.float64)
        value = 0.25 + 0.05 * (where[0] / 9).sin() * (where[-1] / 31).cos()
        for k in range(-2, count + 2):
            middle = (k + 0.5) * period - period * count / 2
            wide = 7.0 + 0.25 * k
            edges = torch.tensor([wide, *[0.8 * wide] * (d - 2), 0.36 * period], dtype=torch.float64)
            centre = torch.tensor([2 * math.sin(k / 2), *[0.0] * (d - 2), middle], dtype=torch.float64)
            away = (where - centre.view(-1, *[1] * d)) / edges.view(-1, *[1] * d)
            value = value + (0.6 + 0.06 * level[k + 2]) * torch.sigmoid(8 * (1 - (away**4).sum(0) ** 0.25))
        images.append(Image(value.float()[None, None] + 0.03 * noise(shape, 10 * seed + n), grid))
    return Pair(*images), truth


def round_things(data: Path, half: int) -> Iterator[Case]:
    for name, d, size in (("ring", 2, (18.0, 21.0)[half]), ("ball", 3, (9.0, 10.5)[half])):
        grid, truth = Grid.centred((64, 70) if d == 2 else (30, 32, 34)), shifted(*[2.4, -2.2, 1.0][:d])
        images = []
        for n, placed in enumerate((Affine.identity(d), truth)):
            away = placed.inverse().at(grid.to_world(grid.voxels(placed.matrix)[None]))[0].norm(dim=0)
            value = torch.sigmoid(3 * (size - away)) - 0.5 * ((away - size / 2).abs() < 2) + 0.3 * (away < size / 4)
            smooth = gaussian(value.float()[None, None], 0.7)
            images.append(Image(smooth + (0.01, 0.05)[half] * noise(grid.shape, 10 * half + n), grid))
        pair = Pair(*images)
        yield Case(name, True, pair, truth)
        yield Case(f"{name}, turned too", True, pair, truth @ turned(pair.fixed, 70, 0))
        for share in (0.5, 1.0):
            off = shifted(share * size, *[0.0] * (d - 1))
            yield Case(f"{name}, off by {share:g} of its radius", False, pair, truth @ off)


def slices(data: Path, half: int) -> Iterator[Case]:
    folder = data / "ants_2d_slices" / "inst" / "extdata"
    names = (("r16", "r64"), ("r62", "r85"))[half], (("r30", "r62"), ("r64", "r27"))[half]
    for two in names:
        pixels = [picture(folder / f"{name}slice.jpg") for name in two]
        pair = Pair(*pixels)
        yield Case(" ← ".join(two), True, pair, middles(pair))
        yield from wrongs(pair, middles(pair), 40.0)
    folder = data / "oasis_trt20_2d" / "images"
    numbers = ((1, 2), (9, 10))[half]
    pair = Pair(*(read_image(folder / f"OASIS-TRT-20-{n:02d}.nii.gz") for n in numbers))
    yield Case("OASIS", True, pair, still(pair))
    yield from wrongs(pair, still(pair), 30.0)


def picture(path: Path) -> Image:
    pixels = torch.from_numpy(np.asarray(Picture.open(path).convert("L"), np.float32).copy())
    return Image(pixels[None, None], Grid.centred(tuple(pixels.shape)))


def middles(pair: Pair) -> Affine:
    """The shift from middle to middle of what is bright."""
    means = []
    for image in pair.images:
        lit = (image.data[0, 0] > 0.1 * image.data.max()).nonzero().double()
        means.append(image.grid.to_world(lit.T[None])[0].mean(1))
    return Affine.about(torch.eye(pair.fixed.grid.ndim, dtype=torch.float64), *means)


def histology(data: Path, half: int) -> Iterator[Case]:
    organ, one, two = (
        ("rat-kidney_", "Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin"),
        ("lesions_", "Izd2-29-041-w35_HE", "Izd2-29-041-w35_proSPC"),
    )[half]
    folder = data / "birl_histology" / "data-images" / organ / "scale-5pc"
    for first, second in ((one, two), (two, one)):
        pair = Pair(*(picture(folder / f"{name}.jpg") for name in (first, second)))
        names = zip((first, second), pair.images, strict=True)
        ends = [pixel_points(folder / f"{name}.csv", image) for name, image in names]
        truth = linear(*ends)
        yield Case(f"{first} fixed", True, pair, truth)
        yield from wrongs(pair, truth, 0.2 * pair.fixed.grid.shape[0])
        flipped = replace(pair.moving, data=pair.moving.data.flip(2))
        yield Case("flipped", False, Pair(pair.fixed, flipped), truth)


def pixel_points(path: Path, image: Image) -> Tensor:
    """Landmarks as world points, `(N, 2)`: files have column, then row."""
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1:]
    voxels = torch.from_numpy(rows[:, ::-1].copy()).T[None]
    return image.grid.to_world(voxels)[0].T


def linear(fixed: Tensor, moving: Tensor) -> Affine:
    """The affine map of least squares, of points `(N, d)`."""
    known = torch.cat([fixed, torch.ones_like(fixed[:, :1])], 1)
    count = min(len(fixed), len(moving))
    matrix = torch.eye(fixed.shape[1] + 1, dtype=torch.float64)
    matrix[:-1] = torch.linalg.lstsq(known[:count], moving[:count]).solution.T
    return Affine(matrix)


def rigid(fixed: Tensor, moving: Tensor) -> Affine:
    """The motion of least squares (Kabsch), of points `(N, d)`."""
    one, two = fixed.mean(0), moving.mean(0)
    u, _, vh = torch.linalg.svd((moving - two).T @ (fixed - one))
    signs = torch.ones(fixed.shape[1], dtype=torch.float64)
    signs[-1] = torch.linalg.det(u @ vh).sign()
    return Affine.about(u * signs @ vh, one, two)


def abdomens(data: Path, half: int) -> Iterator[Case]:
    """CT and MR of two patients, by the middles of nine organs; in the second half the other way round."""
    folder = data / "totalsegmentator_ct_mr" / "tests" / "reference_files"
    images = [read_image(folder / f"example_{kind}_sm.nii.gz") for kind in ("ct", "mr")]
    organs = [read_labels(folder / f"{name}.nii.gz") for name in ("example_seg", "example_seg_mr")]
    points = []
    for labels in organs:
        where = [(labels.data[0, 0] == k).nonzero().double() for k in range(1, 10)]
        points.append([None if len(one) < 50 else labels.grid.to_world(one.T[None])[0].mean(1) for one in where])
    both = [(a, b) for a, b in zip(*points, strict=True) if a is not None and b is not None]
    ends = [torch.stack(side) for side in zip(*both, strict=True)]
    if half:
        images, ends = images[::-1], ends[::-1]
    pair, truth = Pair(*images), rigid(*ends)
    yield Case(("CT ← MR", "MR ← CT")[half], True, pair, truth)
    yield from wrongs(pair, truth, 60.0)
    brain = read_image(data / "brains" / "2mm" / f"sub-{('15', '08')[half]}_T1w.nii.gz")
    yield Case("a brain in its place", False, Pair(pair.fixed, brain), middles(Pair(pair.fixed, brain)))


def hippocampi(data: Path, half: int) -> Iterator[Case]:
    names = (("0001", "0003"), ("0033", "0036"))[half], (("0007", "0011"), ("0042", "0046"))[half]
    for two in names:
        folder = data / "hippocampus" / "imagesTr"
        pair = Pair(*(read_image(folder / f"HippocampusMR_{n}_0000.nii.gz") for n in two))
        truth = Affine.about(torch.eye(3, dtype=torch.float64), pair.fixed.grid.centre, pair.moving.grid.centre)
        yield Case(" ← ".join(two), True, pair, truth)
        yield from wrongs(pair, truth, 12.0)


def masks(data: Path, half: int) -> Iterator[Case]:
    """A mask in which nothing is to be seen, and the affine map that makes most of that; a mask about a lesion."""
    names = (("15", "16"), ("08", "04"))[half]
    pair = Pair(*(read_image(data / "brains" / "2mm" / f"sub-{n}_T1w.nii.gz") for n in names))
    grid = pair.fixed.grid
    where = grid.to_world(grid.voxels(pair.fixed.data)[None].double())[0] - grid.centre.view(-1, 1, 1, 1)
    cube = (where.abs().amax(0) < 20)[None, None]
    flat = replace(pair.fixed, data=torch.where(cube, 0.5 * pair.fixed.data.max(), pair.fixed.data), mask=cube)
    flat = replace(flat, data=flat.data + 1e-3 * float(flat.data.max()) * noise(grid.shape, half))
    yield Case("nothing within", False, Pair(flat, pair.moving), still(pair))
    stretch = Affine.about(torch.diag(torch.tensor([1.6, 1.0, 0.7], dtype=torch.float64)), grid.centre)
    yield Case("nothing within, stretched", False, Pair(flat, pair.moving), stretch)
    hole = replace(pair.fixed, mask=~(where - 15).norm(dim=0)[None, None].lt(12))
    yield Case("all but a lesion", True, Pair(hole, pair.moving), still(pair))
    part = replace(pair.fixed, mask=(where.norm(dim=0) < 40)[None, None])
    yield Case("the middle alone", True, Pair(part, pair.moving), still(pair))
    yield Case("the middle alone, half a turn off", False, Pair(part, pair.moving), turned(part, 180, 0))


KINDS: dict[str, Callable[[Path, int], Iterator[Case]]] = {
    "brain": brains,
    "slab": slabs,
    "spine": spines,
    "round": round_things,
    "slice": slices,
    "histology": histology,
    "CT–MR": abdomens,
    "hippocampus": hippocampi,
    "mask": masks,
}


def judged(case: Case, kind: str, half: int) -> dict[str, str | float | bool]:
    start = time.process_time()
    found = verdict(Alignment(case.pair, still(case.pair)), Alignment(case.pair, case.transform))
    seconds = time.process_time() - start
    # what lies worse than the headers is told by that alone; here it is not
    told = [reason for reason in found.reasons if "less alike than before" not in reason]
    about = {"half": HALVES[half], "kind": kind, "case": case.name, "right": case.right, "sound": not told}
    return {**about, "seconds": round(seconds, 3), "reasons": "; ".join(told), **found.numbers}


def write(rows: list[dict[str, str | float | bool]], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def counted(rows: list[dict[str, str | float | bool]]) -> Table:
    """Each kind and half: right ones called failed, wrong ones called sound, and seconds."""
    table = Table("half", "kind", "pairs", "false alarms", "false peace", "seconds, median", title="known outcomes")
    for half in HALVES:
        for kind in (*KINDS, "all"):
            these = [row for row in rows if row["half"] == half and kind in (row["kind"], "all")]
            if these:
                right, wrong = ([row for row in these if row["right"] is known] for known in (True, False))
                alarms = f"{sum(not row['sound'] for row in right)} of {len(right)}"
                peace = f"{sum(bool(row['sound']) for row in wrong)} of {len(wrong)}"
                middle = float(np.median([float(row["seconds"]) for row in these]))
                table.add_row(half, kind, str(len(these)), alarms, peace, f"{middle:.2f}")
    return table


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=SHARED, help="real data; default: ../shared/data")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("-o", "--output", type=Path, help="the numbers, as CSV")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    rows: list[dict[str, str | float | bool]] = []
    for kind in given.kinds:
        for half in range(len(HALVES)):
            for case in KINDS[kind](given.data, half):
                rows.append(judged(case, kind, half))
                print(*list(rows[-1].values())[:7], flush=True)
                if given.output:
                    write(rows, given.output)
    Console().print(counted(rows))


if __name__ == "__main__":
    main()
