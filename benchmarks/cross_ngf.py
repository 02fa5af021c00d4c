"""CrossNGF on the CPU: the FFT against the direct algorithm, and trials of the global search.

    python benchmarks/cross_ngf.py --timing
    python benchmarks/cross_ngf.py --trials 20 [--first 0] [--brains ../shared/data/brains/2mm] [--paper]
    python benchmarks/cross_ngf.py --contrasts chris_t1.nii.gz chris_PD.nii.gz

Trials as in 4.2 of the paper: the first image of a pair is turned at random over the whole sphere, shifted by up to
30 mm along each axis and resampled by cubic interpolation; of both, a central block of 151 mm is cut out. A trial
succeeds when the block's corners come back within 5 mm on average (the paper's 5 voxels; a voxel there is 1 mm).

With `--contrasts` the second of two files goes onto the first by rigid maps, from the start that `auto` chooses, from
the headers and from the global search; no truth is known, so normalised mutual information tells, and how far
the corners of the fixed grid lie from where the chosen start brings them. To be judged by eye, too:
`pullback register --transform rigid` draws both in its report.

Threads wait for each other at every small step: where other work runs beside it, OMP_NUM_THREADS=1 is many times faster
than 2, and two processes share the trials better than two threads.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.energies import NMI
from pullback.files import read_image, read_labels
from pullback.methods.pose.cross_ngf import EPS, SMALL, CrossNGF, cross_similarity
from pullback.numerics.random import make_generator
from pullback.numerics.rotation import uniform
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image, Labels, Linear, Transform, pull
from pullback.workflows.choices import classical

SIDES = (8, 16, 32, 64)
PATIENCE = 60.0  # seconds, beyond which the direct algorithm looks at a share of the shifts
OVERLAP = 0.5
BLOCK_MM, SHIFT_MM, SUCCESS_MM = 151.0, 30.0, 5.0
BRAINS = Path(__file__).resolve().parents[2] / "shared" / "data" / "brains" / "2mm"
MEASURES = ("error_mm", "seconds", "similarity", "rival")
KINDS = ("same contrast", "inverted contrast", "two contrasts")


def timing() -> list[dict[str, float]]:
    """Seconds of both algorithms for cubes, all shifts with at least half the voxels in common."""
    rows = []
    for side in SIDES:
        one, two = (gaussian(torch.rand(1, 1, *(side,) * 3, generator=make_generator(i)), 1.0)[0, 0] for i in range(2))
        seen = torch.ones_like(one, dtype=torch.bool)
        fast = min(seconds(lambda a=one, b=two, m=seen: cross_similarity(a, b, m, m, OVERLAP)) for _ in range(5))
        values, first = cross_similarity(one, two, seen, seen, OVERLAP)
        shifts = values.isfinite().nonzero() + torch.tensor(first)
        shifts = shifts[torch.randperm(len(shifts), generator=make_generator(0))]
        count, direct, difference = 0, 0.0, 0.0
        for some in shifts.split(200):
            start = time.perf_counter()
            slow = directly(one, two, some)
            direct, count = direct + time.perf_counter() - start, count + len(some)
            found = values[(some - torch.tensor(first)).unbind(1)]
            difference = max(difference, float((slow - found).abs().max()))
            if direct > PATIENCE:
                break
        share = count / len(shifts)
        rows.append(
            {"side": side, "shifts": len(shifts), "share": share, "direct": direct / share, "fft": fast}
            | {"difference": difference}
        )
    return rows


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def directly(one: Tensor, two: Tensor, shifts: Tensor) -> Tensor:
    """The mean squared dot product over the overlap, shift after shift."""
    fixed, moving = directions(one), directions(two)
    out = []
    for shift in shifts.tolist():
        a, b = fixed, moving
        for axis, (s, n) in enumerate(zip(shift, one.shape, strict=True), 1):
            a, b = a.narrow(axis, max(0, -s), n - abs(s)), b.narrow(axis, max(0, s), n - abs(s))
        out.append((a * b).sum(0).square().mean())
    return torch.stack(out)


def directions(image: Tensor) -> Tensor:
    """Normalised gradients (eq. 1), `(d, *spatial)`; central differences of the image continued by its border."""
    around = F.pad(image[None, None], [1] * 6, mode="replicate")[0, 0]
    slopes = []
    for axis, n in enumerate(image.shape):
        inner = around[tuple(slice(None) if a == axis else slice(1, -1) for a in range(3))]
        slopes.append((inner.narrow(axis, 2, n) - inner.narrow(axis, 0, n)) / 2)
    gradient = torch.stack(slopes)
    return gradient / (gradient.square().sum(0) + EPS**2).sqrt()


def show_timing(rows: list[dict[str, float]]) -> None:
    title = f"CSNGF for all shifts with ≥ {OVERLAP:.0%} overlap, {torch.get_num_threads()} threads"
    table = Table("side", "shifts", "direct, s", "FFT, s", "ratio", "largest difference", title=title)
    for r in rows:
        direct = f"{r['direct']:.3g}" + (f" (from {r['share']:.0%} of the shifts)" if r["share"] < 1 else "")
        ratio = f"{r['direct'] / r['fft']:.0f}×"
        table.add_row(f"{r['side']}", f"{r['shifts']}", direct, f"{r['fft']:.2g}", ratio, f"{r['difference']:.1e}")
    Console().print(table)


def trials(brains: Path, first: int, count: int, search: CrossNGF) -> list[dict[str, float | str]]:
    """`count` motions from number `first` on, each for the three kinds of pairs."""
    names = sorted(path.name.split("_")[0] for path in brains.glob("*_dseg.nii.gz"))
    rows: list[dict[str, float | str]] = []
    for index in track(range(first, first + count), "trials"):
        name = names[index % len(names)]
        image = read_image(brains / f"{name}_T1w.nii.gz")
        labels = read_labels(brains / f"{name}_dseg.nii.gz")
        block, truth = block_of(image.grid), motion(image.grid, index)
        fixed = pull(image, truth, onto=block, mode="cubic")
        floating = (image, Image(image.data.max() - image.data, image.grid), contrast(labels, index))
        for kind, other in zip(KINDS, floating, strict=True):
            start = time.perf_counter()
            found = search(fixed, pull(other, Affine.identity(3), onto=block))
            spent = time.perf_counter() - start
            error = corners_apart(found.transform, truth, block)
            rows.append(
                {"kind": kind, "trial": index, "name": name, "error_mm": error, "seconds": spent}
                | dict(found.stats.numbers)
            )
    return rows


def block_of(grid: Grid) -> Grid:
    """A cube of 151 mm about the middle of the grid, voxels as there."""
    shape = tuple(round(BLOCK_MM / s) for s in grid.spacing.tolist())
    affine = grid.about_origin(shape).affine
    affine[:-1, -1] += grid.centre
    return Grid(shape, affine)


def motion(grid: Grid, index: int) -> Affine:
    """A rotation about the middle of the grid and a shift."""
    generator = make_generator(26, index)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = uniform(3, 1, generator)[0]
    shift = SHIFT_MM * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)
    matrix[:3, 3] = grid.centre - matrix[:3, :3] @ grid.centre + shift
    return Affine(matrix)


def contrast(labels: Labels, index: int) -> Image:
    """Another look at a brain: any intensity per label, a little blurred, and noise."""
    generator = make_generator(27, index)
    intensities = torch.rand(int(labels.data.max()) + 1, generator=generator) * 0.85 + 0.15
    intensities[0] = 0
    data = gaussian(intensities[labels.data.long()], 0.7)
    return Image((data + 0.03 * torch.randn(data.shape, generator=generator)).clamp(min=0), labels.grid)


def corners_apart(one: Transform, other: Transform, grid: Grid) -> float:
    """The mean distance between where two maps bring the corners of a grid, mm."""
    ends = torch.tensor(list(itertools.product(*((0.0, n - 1.0) for n in grid.shape))), dtype=torch.float64)
    corners = grid.to_world(ends.T[None])
    return float((one.at(corners) - other.at(corners)).norm(dim=1).mean())


def show_trials(rows: list[dict[str, float | str]]) -> None:
    title = f"Global rigid search, {torch.get_num_threads()} threads"
    columns = ("", "trials", f"< {SUCCESS_MM:g} mm", "median error, mm", "worst, mm", "median s", "similarity", "rival")
    table = Table(*columns, title=title)
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        error, spent, similarity, rival = ([float(row[key]) for row in mine] for key in MEASURES)
        good = sum(e < SUCCESS_MM for e in error) / len(mine)
        figures = (statistics.median(error), max(error), statistics.median(spent))
        ends = (statistics.median(similarity), max(rival))
        table.add_row(kind, f"{len(mine)}", f"{good:.0%}", *(f"{x:.2f}" for x in (*figures, *ends)))
    Console().print(table)


def contrasts(fixed: Path, moving: Path) -> list[dict[str, float | str]]:
    """Rigid maps of two contrasts of one head, by `--init`."""
    images = [read_image(path) for path in (fixed, moving)]
    pair = Pair(*(normalised(image) for image in images))
    rows: list[dict[str, float | str]] = [{"start": "as the headers say", **_likeness(pair, Affine.identity(3))}]
    chosen: Transform | None = None
    for init in ("auto", "header", "global"):
        solved = classical(transform="rigid", start=init)(*images)
        chosen = chosen or solved.transform
        away = corners_apart(solved.transform, chosen, pair.fixed.grid)
        row = {"start": init, "seconds": sum(stage.seconds for stage in solved.stats.stages), "apart_mm": away}
        rows.append(row | _likeness(pair, solved.transform))
    return rows


def _likeness(pair: Pair, transform: Transform) -> dict[str, float]:
    """NMI of Studholme et al., from 1 (nothing shared) to 2, and the angle of the rotation."""
    assert isinstance(transform, Linear)
    cosine = (float(transform.matrix.reshape(-1, 4, 4)[0, :3, :3].trace()) - 1) / 2
    angle = math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))
    return {"nmi": 2 - float(NMI()(Alignment(pair, transform))), "angle": angle}


def show_contrasts(rows: list[dict[str, float | str]]) -> None:
    table = Table("start", "NMI", "rotation, °", "corners apart, mm", "seconds", title="Two contrasts, rigid")
    for row in rows:
        figures = (row["nmi"], row["angle"], row.get("apart_mm"), row.get("seconds"))
        table.add_row(str(row["start"]), *("" if f is None else f"{float(f):.3f}" for f in figures))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timing", action="store_true", help="FFT against the direct algorithm")
    parser.add_argument("--trials", type=int, default=0, metavar="N", help="motions; three pairs are aligned for each")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first motion, to share work")
    parser.add_argument("--brains", type=Path, default=BRAINS, help="folder of *_T1w.nii.gz and *_dseg.nii.gz")
    parser.add_argument("--paper", action="store_true", help="the paper's numbers of rotations instead of SMALL's")
    parser.add_argument("--contrasts", type=Path, nargs=2, metavar="FILE", help="two contrasts of one head")
    parser.add_argument("--json", action="store_true", help="one line per result for scripts")
    arguments = parser.parse_args()
    if arguments.timing:
        rows = timing()
        print(json.dumps(rows)) if arguments.json else show_timing(rows)
    if arguments.trials:
        results = trials(arguments.brains, arguments.first, arguments.trials, CrossNGF() if arguments.paper else SMALL)
        print(json.dumps(results)) if arguments.json else show_trials(results)
    if arguments.contrasts:
        pairs = contrasts(*arguments.contrasts)
        print(json.dumps(pairs)) if arguments.json else show_contrasts(pairs)


if __name__ == "__main__":
    main()
