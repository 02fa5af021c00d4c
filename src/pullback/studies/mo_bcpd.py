"""The study of MO-BCPD (Joutard et al. 2022): what labels, and organs that move by themselves, are worth.

    pullback study mo-bcpd organs rank start --data ct-mr=totalsegmentator_ct_mr/tests/reference_files
    pullback study mo-bcpd lobes --data lobes=lung_proton_mri_lobes/
    pullback study mo-bcpd labels

The paper's 104 abdomens are LiTS's, whose landmarks are not public. Here `ct-mr` is the CT of one abdomen and the MR of
another, six organs, both ways, and `lobes` the five lobes of five people, in all 20 ordered pairs. Landmarks are of the
organs: the mean of the lowest 3 % of an organ's voxels, of all, and of the highest 3 %.

`labels` is the paper's figure 1: two organs that slide past each other, with 10 % of the labels of one cloud swapped at
the far ends. `start` asks what the paper leaves for later: images that go on from what organs found.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any

import torch

from pullback.alignment import Alignment, Pair
from pullback.example import PointPair
from pullback.methods.pair.classical import BALANCED
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.points.coherent_drift import CoherentDrift
from pullback.methods.points.mo_bcpd import MOBCPD
from pullback.metrics import Dice, Folding
from pullback.numerics.random import make_generator
from pullback.space import Affine, Displacement, Points, Transform, outline, push
from pullback.studies._images import FOLDING, SECONDS
from pullback.studies._organs import ORGANS, OTHERS, CTandMR, LabelMaps, crossing, landmarks, surface_distance
from pullback.study.arms import Arm, FunctionArm
from pullback.study.contrasts import Contrasts
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import Row

TOTAL = LabelMaps(names=("example_seg", "example_seg_mr"), values=ORGANS)
LOBES = LabelMaps(
    names=("0004", "0006", "0007", "0011", "0012"), labels="ProtonLobeMasks/{}Lobes.nii.gz", values=(1, 2, 3, 4, 5)
)


def onto_each_other(data: LabelMaps, seed: int, register: MOBCPD | None) -> Iterator[Row]:
    """Measure a register on every ordered pair; None measures how things stood before."""
    maps = {name: data.read(name) for name in data.names}
    maps = {
        name: replace(one, data=one.data * torch.isin(one.data.long(), torch.tensor(data.values)))
        for name, one in maps.items()
    }
    clouds = {name: outline(one, data.points, each=True, cut=False) for name, one in maps.items()}
    marks = {name: landmarks(one, data.values) for name, one in maps.items()}
    for fixed, moving in permutations(data.names, 2):
        start = time.perf_counter()
        transform: Transform = Affine.identity(3)
        row: Row = {"case": f"{fixed} ← {moving}", "subject": fixed}
        if register is not None:
            found = register(PointPair(clouds[fixed], clouds[moving]))
            transform = found.transform
            row |= {"seconds": time.perf_counter() - start, **(found.stats.numbers if found.stats else {})}
        off = (transform(marks[fixed]) - marks[moving]).norm(dim=1)
        moved = push(clouds[fixed], transform)
        row |= {"landmarks mm": float(off.nanmean()), "crossing %": crossing(moved, maps[moving])}
        yield row | {"surface mm": surface_distance(moved, clouds[moving])}


WAYS: Mapping[str, MOBCPD | None] = {
    "before": None,
    "similarity": MOBCPD(magnitude=0.0),
    "BCPD, λ 0.1": MOBCPD(known=False, magnitude=10**0.5),
    "BCPD, Λ 10": MOBCPD(known=False),
    "one coherence": MOBCPD(coherence=1.0),
    "half": MOBCPD(coherence=0.5),
    "organ coherence": MOBCPD(),
    "and Λ √10": MOBCPD(magnitude=10**0.5),
    "and rigid": MOBCPD(drift=CoherentDrift("rigid")),
    "and without variances": MOBCPD(drift=CoherentDrift(posterior=False)),
}
STIFF = {"and kidneys Λ 5": MOBCPD(magnitude=(10.0, 5.0, 5.0, 10.0, 10.0, 10.0))}
LANDMARKS = Column("landmarks", "mm", better="less", against="difference", digits=2)
COLUMNS = (
    LANDMARKS,
    Column("crossing", "%", better="less", digits=2),
    Column("surface", "mm", better="less", digits=2),
    Column("sigma", "mm", digits=2),
    Column("scale", digits=2),
    SECONDS,
)


def _arms(ways: Mapping[str, MOBCPD | None]) -> dict[str, Arm]:
    return {name: FunctionArm(partial(onto_each_other, register=way), seeded=False) for name, way in ways.items()}


# ---- labels that are wrong


def mislabelled(data: None, seed: int, side: str, register: MOBCPD, count: int = 60) -> Iterator[Row]:
    """Measure by how much two organs that slide past each other are missed, with labels of one cloud swapped.

    Args:
        side: whose labels: `"fixed"`, `"moving"` or `""` for neither's.
    """
    for number in range(5):
        chance = make_generator(seed, number)
        ball = torch.randn(2, count, 3, generator=chance, dtype=torch.float64)
        ball = ball / ball.norm(dim=2, keepdim=True) * torch.tensor([40.0, 20, 20])
        way = torch.tensor([-1.0, 1]).double().view(2, 1, 1)
        fixed = ball + way * torch.tensor([45.0, 0, 0])
        slid = way * torch.tensor([0, 15.0, 0]) + torch.tensor([0, 0, 6.0]) * (ball[..., :1] / 25).sin()
        moving = (fixed + slid).reshape(1, -1, 3)
        labels = torch.tensor([[1, 2]]).repeat_interleave(count, 1)
        ends = (-way * ball[..., :1]).argsort(1)[:, : count // 10, 0] + torch.tensor([[0], [count]])
        wrong = labels.clone()
        wrong[0, ends.flatten()] = 3 - labels[0, ends.flatten()]
        here, there = (wrong if side == name else labels for name in ("fixed", "moving"))
        pair = PointPair(Points(fixed.reshape(1, -1, 3), {"label": here}), Points(moving, {"label": there}))
        found = register(pair).transform(pair.fixed.data)
        yield {"case": str(number), "off mm": float((found - moving).square().sum(2).mean().sqrt())}


def _labels(side: str) -> Experiment:
    ways = {
        f"coherence {number:g}, {said}": MOBCPD(coherence=number, confusion=share, passes=passes)
        for number in (0.0, 0.5, 1.0)
        for said, share, passes in (("U = 1", 0.0, 1), ("U 0.9", 0.1, 1), ("U 0.9, two passes", 0.1, 2))
    }
    arms: dict[str, Arm] = {
        name: FunctionArm(partial(mislabelled, side=side, register=way), seeded=False) for name, way in ways.items()
    }
    return Experiment(arms)


# ---- low rank


def of_rank(data: LabelMaps, seed: int, register: MOBCPD) -> Iterator[Row]:
    """Measure seconds, and the distance in mm of the fixed points from where the whole rank leads them."""
    clouds = [outline(data.read(name), data.points, each=True, cut=False) for name in data.names]
    for number, (fixed, moving) in enumerate(permutations(clouds, 2)):
        pair = PointPair(fixed, moving)
        whole = replace(register, tolerance=1e-8, rank=10_000)(pair)
        start = time.perf_counter()
        found = register(pair)
        seconds = time.perf_counter() - start
        off = (found.transform(found.pair.fixed.data) - whole.transform(found.pair.fixed.data)).norm(dim=2)
        rank = found.stats.numbers["rank"] if found.stats else 0.0
        yield {"case": data.names[number], "rank": rank, "off mm": float(off.mean()), "seconds": seconds}


RANKED = MOBCPD(labels=ORGANS)
RANKS = {
    "whole": replace(RANKED, tolerance=1e-8),
    **{f"rank {n}": replace(RANKED, tolerance=0.0, rank=n) for n in (20, 50, 100)},
    "a thousandth": RANKED,
}


# ---- as a start of images


def by_organs(pair: Pair) -> Transform:
    """Return what the six organs of both label maps find, on the fixed grid."""
    assert pair.fixed_labels is not None
    assert pair.moving_labels is not None
    here, there = (outline(one, 200, each=True, cut=False) for one in (pair.fixed_labels, pair.moving_labels))
    found = MOBCPD(labels=ORGANS)(PointPair(here, there)).transform
    return Displacement(found.displacement(pair.fixed.grid).float(), pair.fixed.grid)


def started(
    data: CTandMR, seed: int, register: Callable[..., Any] | None, start: Callable[[Pair], Transform] | None
) -> Iterator[Row]:
    """Measure a register of the images, from what organs found or by itself; None is the start alone."""
    for pair in data.pairs():
        clock = time.perf_counter()
        transform = Affine.identity(3) if start is None else start(pair)
        if register is not None:
            transform = register(*pair.images, *(() if start is None else (transform,))).transform
        seconds, alignment = time.perf_counter() - clock, Alignment(pair, transform)
        row: Row = {"case": pair.name, "dice": Dice(ORGANS)(alignment)["dice"]}
        row |= {"others": Dice(OTHERS)(alignment)["dice"], **Folding()(alignment), "seconds": seconds}
        yield row


AFTER = replace(BALANCED, initialise=None, linear=())
RIGID = replace(BALANCED, linear=BALANCED.linear[:1], deformable=None)


def rigidly(pair: Pair) -> Transform:
    """Return what intensities find rigidly."""
    return RIGID(pair.fixed, pair.moving).transform


STARTS: Mapping[str, tuple[Callable[..., Any] | None, Callable[[Pair], Transform] | None]] = {
    "before": (None, None),
    "rigid, by intensities": (None, rigidly),
    "register": (BALANCED, None),
    "ConvexAdam from rigid": (ConvexAdam(), rigidly),
    "organs": (None, by_organs),
    "register from organs": (AFTER, by_organs),
    "ConvexAdam from organs": (ConvexAdam(), by_organs),
}

study = Study(
    about="A multi-organ point cloud registration algorithm for abdominal CT registration (Joutard et al. 2022)",
    tables={
        "organs": Table(
            "Six organs of the CT of one person and the MR of another, both ways",
            "Table 1, five organs of 104 people, mm at landmarks of kidneys: BCPD 18 to 26, one coherence 15 to 24, "
            "organ coherence 5 to 10; the liver's centre 12, 12 and 11, its top 24, 25 and 26. Figure 2: with one "
            "coherence organs no longer overlap.",
            {"ct-mr": Experiment(_arms({**WAYS, **STIFF}), "organ coherence", TOTAL)},
            COLUMNS,
        ),
        "lobes": Table(
            "Five lobes of the lungs of five people, 20 ordered pairs",
            "This is not shown: organs that breathe together.",
            {"lobes": Experiment(_arms(WAYS), "organ coherence", LOBES)},
            COLUMNS,
            tests=(
                Contrasts(
                    "organ coherence against the others",
                    paired,
                    [("organ coherence", other) for other in ("one coherence", "BCPD, Λ 10", "BCPD, λ 0.1")],
                ),
            ),
            tested="landmarks mm",
            unit="subject",
        ),
        "labels": Table(
            "Two organs that slide, with 10 % of the labels of one cloud swapped",
            "Figure 1: with the labels' confusion modelled they come to lie where they belong, without it not.",
            {side or "neither": _labels(side) for side in ("", "moving", "fixed")},
            (Column("off", "mm", better="less", digits=2),),
        ),
        "rank": Table(
            "Fewer eigenvalues of the covariance",
            "2: ten times as fast, with negligible error from 20 eigenvalues on.",
            {
                "ct-mr": Experiment(
                    {name: FunctionArm(partial(of_rank, register=way), seeded=False) for name, way in RANKS.items()},
                    "whole",
                    TOTAL,
                )
            },
            (Column("rank", digits=0), Column("off", "mm", better="less", digits=2), SECONDS),
        ),
        "start": Table(
            "Organs as a start of images: CT and MR of two people, six organs, and three that no cloud holds",
            "Figures 3 and 4 of the supplement: better than by intensities, also where a structure takes no part. "
            "To go on from there is future work.",
            {
                "ct-mr": Experiment(
                    {
                        name: FunctionArm(partial(started, register=register, start=start), seeded=False)
                        for name, (register, start) in STARTS.items()
                    },
                    "organs",
                    CTandMR(),
                )
            },
            (
                Column("Dice", better="more", against="difference"),
                Column("others", better="more"),
                FOLDING,
                SECONDS,
            ),
        ),
    },
)
