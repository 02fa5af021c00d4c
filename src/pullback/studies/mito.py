"""The study of MITO: how errors grow along a stack, table 1 on stacks whose truth is known, speed, and real sections.

    pullback study mito drift --seed 0
    pullback study mito table --seed 0
    pullback study mito speed --seed 0
    pullback study mito real --data lung=DIR

Sections of the phantom are padded and turned by angles from U(−π, π), as the paper turns Lucchi++. Seconds are of a
whole stack in one process: find, describe, match, fit, resample; files are not read, and nothing counts the time to
segment the masks. With OMP_NUM_THREADS=1 they are of one core, also OpenCV's. In `table` each section is matched with
the next alone and maps are homographies, as in the paper, by our own RANSAC; FAST without a mask takes minutes a stack
and stands on four sections by itself. `speed` is OpenCV's own pipeline beside ours, in turns.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from pullback.data.phantoms.em_stack import EMStack
from pullback.files.images.stack import Sections, read_stack
from pullback.group import Group
from pullback.methods.group.mito import Mito
from pullback.methods.group.opencv_features import SUPPORT, opencv
from pullback.methods.group.stack_solution import StackSolution
from pullback.numerics.ransac import HOMOGRAPHY, MODELS, projected
from pullback.report.stack import SectionView
from pullback.space import Affine, Grid, Image, Labels, Transform, pull
from pullback.study.arms import Arm, FunctionArm
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import Row

STACKS = 3  # that are kept
SOME = 4  # sections, of what takes minutes
TURNS = 3  # of the pipelines whose speed is compared

# ---- stacks whose truth is known


@lru_cache(maxsize=STACKS)
def _bytes(data: EMStack) -> tuple[list[Tensor], list[Tensor]]:
    """Return sections and masks, `(1, 1, X, Y)` uint8 each; all arms see the same."""
    every = range(data.sections)
    return [data.section(z).data.byte() for z in every], [data.mask(z).data for z in every]


def _made(data: EMStack) -> tuple[list[Image], list[Labels]]:
    sections, masks = _bytes(data)
    return [Image(each.float(), data.grid) for each in sections], [Labels(each, data.grid) for each in masks]


def _solve(how: Mito, images: Sequence[Image], masks: Sequence[Labels | None], reach: int) -> StackSolution:
    every = [how.features(image, mask) for image, mask in zip(images, masks, strict=True)]
    edges = Group.chain(images, reach).edges
    return how.solve({(i, j): how.match(every[i], every[j], i, j) for i, j in edges}, [each.grid for each in images])


def aligned(data: EMStack, seed: int, how: Mito, reach: int = 1) -> Iterator[Row]:
    """Align the stack of a seed; measure error against the truth, Dice of neighbours' masks and its ceiling, time."""
    one = replace(data, seed=seed)
    images, masks = _made(one)
    begin = time.perf_counter()
    found = _solve(how, images, masks, reach)
    transforms = found.transforms(how.model)
    for image, transform in zip(images, transforms, strict=True):
        pull(image, transform, one.grid, outside=0.0)
    seconds = time.perf_counter() - begin
    off = errors(one, transforms, found.reference)
    truths = [truth @ one.truths[found.reference].inverse() for truth in one.truths]
    dice, ceiling = (neighbours_dice(masks, each, one.grid) for each in (transforms, truths))
    pixels = one.sections * one.grid.shape[0] * one.grid.shape[1] / 1e6
    yield {
        "case": f"stack {seed}",
        "dice": dice,
        "of ceiling": dice / ceiling,
        "error px": median(off),
        "last px": off[-1],
        "failed": float(sum(match.matrix is None for (i, j), match in found.matches.items() if j == i + 1)),
        "seconds": seconds,
        "speed": pixels / seconds,
        **({} if found.loop_error is None else {"loop px": found.loop_error}),
    }


def errors(data: EMStack, transforms: Sequence[Transform], reference: int) -> list[float]:
    """Return how far each map leads from where the truth does, px: a mean over a section before it was padded."""
    inner = data.inner
    x, y = (torch.linspace(0, n - 1, 5, dtype=torch.float64) for n in inner.shape)
    at = inner.to_world(torch.cartesian_prod(x, y).mT[None])[0].mT
    back = data.truths[reference].inverse()
    found = []
    for transform, truth in zip(transforms, data.truths, strict=True):
        # points of tissue: where they lie in the reference, and from there by both maps in the section
        here = data.truths[reference](at)
        found.append(float((transform(here) - truth(back(here))).norm(dim=-1).mean()) / data.pixel)
    return found


def neighbours_dice(masks: Sequence[Labels], transforms: Sequence[Transform], plane: Grid) -> float:
    """Return the mean Dice of the masks of neighbours in the common plane."""
    moved = (pull(mask, each, plane).data != 0 for mask, each in zip(masks, transforms, strict=True))
    return fmean(2 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0) for a, b in pairwise(moved))


PAPER = Mito(model=HOMOGRAPHY, least=0)
"""As published, but for the descriptor."""
UNCAPPED = replace(PAPER, most=0)
ROWS: Mapping[str, Mito] = {
    "BRISK": replace(UNCAPPED, detector="brisk", descriptor="brisk"),
    "ORB": replace(PAPER, detector="orb", descriptor="orb"),
    "ORB + BRISK": replace(PAPER, detector="orb", descriptor="brisk"),
    "ORB + FREAK": replace(PAPER, detector="orb", descriptor="freak"),
}
FAST: Mapping[str, Mito] = {
    "FAST + BRISK": replace(UNCAPPED, detector="fast", descriptor="brisk"),
    "FAST + FREAK": replace(UNCAPPED, detector="fast", descriptor="freak"),
}
MITO: Mapping[str, Mito] = {
    "MITO + BRISK": replace(PAPER, descriptor="brisk"),
    "MITO + FREAK": replace(PAPER, descriptor="freak"),
}


def _arms(hows: Mapping[str, Mito]) -> dict[str, Arm]:
    return {name: FunctionArm(partial(aligned, how=how)) for name, how in hows.items()}


def _table1(matcher: str) -> Experiment:
    masked = {f"{name}, mask": replace(how, masked=True) for name, how in {**ROWS, **FAST}.items()}
    hows = {name: replace(how, matcher=matcher) for name, how in {**ROWS, **masked, **MITO}.items()}
    ours = {"MITO + polar": PAPER, "MITO + polar, rigid": replace(PAPER, model="rigid")}
    return Experiment(_arms(hows | (ours if matcher == "mutual" else {})), "MITO + FREAK", EMStack())


def _fast() -> Experiment:
    hows = {**FAST, **{f"{name}, mask": replace(how, masked=True) for name, how in FAST.items()}, **MITO}
    return Experiment(_arms(hows), "MITO + FREAK", EMStack(sections=SOME))


def _drift() -> Experiment:
    """Return arms from the first section on, by the kind of map and by how far sections are compared."""
    arms: dict[str, Arm] = {}
    for reach in (1, 3):
        for model in MODELS:
            how = Mito(model=model, reference=0)
            arms[f"{model}, reach {reach}"] = FunctionArm(partial(aligned, how=how, reach=reach))
    return Experiment(arms, "rigid, reach 1", EMStack())


# ---- OpenCV's own pipeline beside ours, in turns


@lru_cache(maxsize=1)
def _raced(data: EMStack) -> dict[str, list[tuple[float, float]]]:
    """Return seconds and the median error of pairs, px, of each pipeline in each turn."""
    sections, areas = ([each[0, 0].numpy() for each in one] for one in _bytes(data))  # (X, Y)
    pipelines: dict[str, Callable[[], list[Tensor]]] = {
        "ORB by OpenCV": partial(_by_opencv, sections, areas, "orb"),
        "MITO + FREAK by OpenCV": partial(_by_opencv, sections, areas, "mito"),
        "MITO + polar, homography": partial(_by_ours, data, sections, areas, PAPER),
        "MITO + polar, rigid": partial(_by_ours, data, sections, areas, Mito()),
        "corners + polar, rigid": partial(_by_ours, data, sections, None, Mito()),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in pipelines}
    for _ in range(TURNS):
        for name, run in pipelines.items():
            begin = time.perf_counter()
            maps = run()
            seconds = time.perf_counter() - begin
            found[name].append((seconds, median(_pair_error(data, z, each) for z, each in enumerate(maps))))
    return found


def raced(data: EMStack, seed: int, name: str) -> Iterator[Row]:
    """Tell one pipeline's seconds and errors, by turns."""
    one = replace(data, seed=seed)
    pixels = one.sections * one.grid.shape[0] * one.grid.shape[1] / 1e6
    for turn, (seconds, off) in enumerate(_raced(one)[name]):
        yield {"case": f"turn {turn}", "seconds": seconds, "speed": pixels / seconds, "error px": off}


def _by_ours(
    data: EMStack, sections: Sequence[np.ndarray], areas: Sequence[np.ndarray] | None, how: Mito
) -> list[Tensor]:
    """Return maps in pixels between neighbours; each section is resampled."""
    before, maps = None, []
    for n, section in enumerate(sections):
        image = Image(torch.from_numpy(section).float()[None, None], data.grid)
        mask = None if areas is None else Labels(torch.from_numpy(areas[n])[None, None], data.grid)
        now = how.features(image, mask)
        if before is not None:
            match = how.match(before, now, n - 1, n)
            matrix = torch.eye(3, dtype=torch.float64) if match.matrix is None else match.matrix
            pull(image, Affine(matrix) if how.model != HOMOGRAPHY else Affine(matrix / matrix[2, 2]), data.grid)
            maps.append(torch.linalg.inv(data.grid.affine) @ matrix @ data.grid.affine)
        before = now
    return maps


def _by_opencv(sections: Sequence[np.ndarray], areas: Sequence[np.ndarray], kind: str) -> list[Tensor]:
    """Return maps in pixels between neighbours, each section warped: all by OpenCV's functions with their defaults."""
    cv2 = opencv()
    make = cv2.ORB_create if kind == "orb" else getattr(cv2, "xfeatures2d", cv2).FREAK_create
    known, matcher = make(), cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
    before, maps = None, []
    for section, area in zip(sections, areas, strict=True):
        if kind == "orb":
            now = known.detectAndCompute(section, None)
        else:
            _, _, _, centres = cv2.connectedComponentsWithStats(area)
            # an array (X, Y) is to OpenCV a picture whose rows run along x
            now = known.compute(section, [cv2.KeyPoint(x, y, SUPPORT) for x, y in centres[1:].tolist()])
        if before is not None:
            pairs = matcher.match(before[1], now[1])
            p = np.array([before[0][each.queryIdx].pt for each in pairs])
            q = np.array([now[0][each.trainIdx].pt for each in pairs])
            matrix = cv2.findHomography(p, q, cv2.RANSAC, 5.0)[0]
            matrix = np.eye(3) if matrix is None else matrix
            cv2.warpPerspective(section, matrix, section.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            swap = np.eye(3)[[1, 0, 2]]  # to our order of axes
            maps.append(torch.from_numpy(swap @ matrix @ swap))
        before = now
    return maps


def _pair_error(data: EMStack, z: int, matrix: Tensor) -> float:
    """Return how far a map in pixels between sections z and z + 1 leads from the truth, px: a mean over tissue."""
    truth = Affine(data.truths[z + 1].matrix @ data.truths[z].inverse().matrix).in_voxels(data.grid, data.grid)
    x, y = (torch.linspace(0, n - 1, 5, dtype=torch.float64) for n in data.inner.shape)
    at = data.grid.to_voxels(data.truths[z](data.inner.to_world(torch.cartesian_prod(x, y).mT[None])[0].mT).mT[None])[
        0
    ].mT
    return float((projected(matrix, at) - projected(truth, at)).norm(dim=1).mean())


# ---- real sections


@dataclass(frozen=True)
class SectionFolder:
    """Sections in a folder; their masks are where it is brightest, by Otsu's threshold: lumens, or whatever else.

    Attributes:
        root: the folder, or "" until one is given.
        least: px, of a blob at least.
    """

    root: str = ""
    least: int = 200

    @cached_property
    def sections(self) -> Sections:
        """The sections, opened."""
        return read_stack(self.root)

    @cached_property
    def images(self) -> tuple[Image, ...]:
        """The sections, read."""
        return tuple(self.sections)

    @cached_property
    def masks(self) -> tuple[Labels, ...]:
        """Bright blobs of each section."""
        return tuple(_bright(image) for image in self.images)


def _bright(image: Image) -> Labels:
    """Return pixels above Otsu's threshold (1979) of an image smoothed by three pixels, opened by seven."""
    from scipy import ndimage  # noqa: PLC0415 (of this study alone)

    values = ndimage.gaussian_filter(image.data[0, 0].numpy(), 3)
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    total = np.cumsum(counts * middles)
    with np.errstate(all="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    mask = ndimage.binary_opening(values > middles[int(np.nanargmax(between))], iterations=7)
    return Labels(torch.from_numpy(mask.astype(np.uint8))[None, None], image.grid)


def real(data: SectionFolder, seed: int, how: Mito, masks: bool = False) -> Iterator[Row]:
    """Align real sections, three apart at most: how well loops close, and how like neighbours are before and after."""
    given: Sequence[Labels | None] = data.masks if masks else [None] * len(data.images)
    how = replace(how, seed=seed)
    begin = time.perf_counter()
    found = _solve(how, data.images, given, 3)
    seconds = time.perf_counter() - begin
    plane = data.images[found.reference].grid
    still = [Affine.identity(2)] * len(data.images)
    moved = found.transforms(how.model)
    yield {
        "case": "stack",
        "matched": 100 * fmean(match.matrix is not None for match in found.matches.values()),
        "loop px": found.loop_error or float("nan"),
        "worst px": max(found.loops.values(), default=float("nan")),
        "correlation before": _correlation(data.images, still, plane),
        "correlation": _correlation(data.images, moved, plane),
        "dice before": neighbours_dice(data.masks, still, plane),
        "dice": neighbours_dice(data.masks, moved, plane),
        "seconds": seconds,
    }


def _correlation(images: Sequence[Image], transforms: Sequence[Transform], plane: Grid) -> float:
    none = np.zeros(0)
    views = []
    for image, transform in zip(images, transforms, strict=True):
        one = Image(torch.ones_like(image.data), image.grid)
        seen, inside = (pull(each, transform, plane, outside=0.0).data[0, 0].numpy() for each in (image, one))
        views.append(SectionView(none, none, seen, inside > 0.999))
    return fmean(b.correlation(a) for a, b in pairwise(views))


def _real() -> Experiment:
    arms: dict[str, Arm] = {model: FunctionArm(partial(real, how=Mito(model=model))) for model in MODELS}
    arms["rigid, bright blobs"] = FunctionArm(partial(real, how=Mito(area=200), masks=True))
    arms["rigid, ORB"] = FunctionArm(partial(real, how=replace(Mito(), detector="orb", descriptor="orb")))
    arms["rigid, ORB + FREAK"] = FunctionArm(partial(real, how=replace(Mito(), detector="orb", descriptor="freak")))
    brisk = Mito(detector="brisk", descriptor="brisk", most=2000)
    return Experiment(arms | {"rigid, BRISK": FunctionArm(partial(real, how=brisk))}, "rigid", SectionFolder())


SECONDS = Column("seconds", better="less", against="ratio", digits=2)
SPEED = Column("Mpx/s", better="more", against="ratio", digits=1, key="speed")
ERROR = Column("error", "px", better="less", of="median", digits=2)
FIRST = (
    Column("Dice", better="more", digits=3, key="dice"),
    Column("of ceiling", better="more", digits=3),
    ERROR,
    Column("last", "px", better="less", of="median", digits=2),
    Column("failed", digits=1),
    SECONDS,
    SPEED,
)

study = Study(
    about="Faster EM image alignment with mitochondria (MITO) (Goyal et al. 2022)",
    tables={
        "drift": Table(
            "How errors grow along a stack of 40 sections, from the first on",
            "None: the paper fits homographies and shows no error.",
            {"phantom": _drift()},
            (*FIRST, Column("loop", "px", better="less", of="median", digits=2)),
        ),
        "table": Table(
            "Detectors, descriptors and matchers on stacks of mitochondria",
            "Table 1, brute force, Dice and seconds of 165 sections: BRISK 0.935 and 47.0, with mask 0.857 and 19.3; "
            "ORB 0.753 and 19.4, with mask 0.823 and 20.4; ORB + BRISK 0.629 and 16.3, 0.794 and 17.0; ORB + FREAK "
            "0.832 and 16.6, 0.764 and 16.8; FAST + BRISK 0.918 and 2420, 0.876 and 28.5; FAST + FREAK 0.941 and 2392, "
            "0.914 and 25.1; MITO + BRISK 0.914 and 7.8; MITO + FREAK 0.896 and 8.4. FLANN: MITO 0.906 and 0.893.",
            {"mutual": _table1("mutual"), "flann": _table1("flann"), "fast": _fast()},
            FIRST,
        ),
        "speed": Table(
            "Megapixels a second beside OpenCV's own pipeline, in turns",
            "33 Mpx/s or more with MITO, 15 to 21 with ORB; a microscope makes 11.",
            {
                "phantom": Experiment(
                    {
                        name: FunctionArm(partial(raced, name=name))
                        for name in (
                            "ORB by OpenCV",
                            "MITO + FREAK by OpenCV",
                            "MITO + polar, homography",
                            "MITO + polar, rigid",
                            "corners + polar, rigid",
                        )
                    },
                    "ORB by OpenCV",
                    EMStack(sections=12),
                )
            },
            (SPEED, SECONDS, ERROR),
        ),
        "real": Table(
            "Real sections, which have no truth: loops of three, and neighbours before and after",
            "None: Lucchi++ was aligned before it was turned.",
            {"lung": _real()},
            (
                Column("matched", "%", better="more", digits=0, key="matched"),
                Column("loop", "px", better="less", digits=2),
                Column("worst", "px", better="less", digits=2),
                Column("correlation before", digits=3),
                Column("correlation", better="more", digits=3),
                Column("Dice before", digits=3, key="dice before"),
                Column("Dice", better="more", digits=3, key="dice"),
                SECONDS,
            ),
        ),
    },
)
