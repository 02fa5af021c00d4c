"""The study of PDD-Net distilled from PWC-Net (Nicke et al. 2022), part by part.

    pullback study pdd-net table1/compressions/own
    pullback study pdd-net table1/compressions/pdd-net soft few --data slices=oasis_trt20_2d/
    pullback study pdd-net speed --seed 0

The paper's videos are not public: a phantom of such videos takes their place, whose truth is known. Its teacher learned
from films of another world; here it is told by the motion of slices of brains that are moved, or, where no images are
at hand, of the first frames of the phantom's own videos (`own`). A row is of a video, the mean over its frames.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pullback.alignment import Alignment, Pair
from pullback.data import Compressions
from pullback.data.case import person_of
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.pdd_net import Distilled, PDDNet, Propagator
from pullback.metrics import Dice
from pullback.recipes import find
from pullback.recipes.pdd_net import LABELS, NAME
from pullback.recipes.pwc_net import NAME as TEACHER
from pullback.space import Displacement, Image
from pullback.studies._images import DICE, FOLDING, UNTRAINED
from pullback.study.arms import FunctionArm, Source, SourceArm, TrainedArm
from pullback.study.figures import boxes, by_number, curves
from pullback.study.result import Result, network_of
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import Row, align, device_of, evaluating, seeded

OWN = "told"  # the data of a teacher that learned from the phantom's first frames
SOFT = (0.25, 1.0)
FEW = (4, 10)
BIN = 5  # frames
HD = Column("HD", "mm", better="less", against="difference")
COLUMNS = (
    DICE,
    HD,
    Column("HD95", "mm", better="less"),
    Column("variance of HD", "mm²", better="less", key="variance of hd mm"),
    FOLDING,
)
MILLISECONDS = Column("time", "ms", better="less", against="ratio", of="median", key="milliseconds")


def _teacher(data: str) -> Source:
    kept = OWN if data == "compressions" else data
    return Source(TrainedArm(find(TEACHER, on=data)), "supervision.teacher.folder", kept)


def _experiment(teacher: str, data: Compressions | None = None, soft: tuple[float, ...] = ()) -> Experiment:
    """Return the experiment of one teacher, by the data that it learned from."""
    source, plain, distilled = _teacher(teacher), find(LABELS), find(NAME)
    supervision = distilled.supervision
    assert isinstance(supervision, Distilled)
    arms = {
        **UNTRAINED,
        "PWC-Net": SourceArm(source),
        "PDD": TrainedArm(plain),
        "PDD distilled": TrainedArm(distilled, source),
    }
    for weight in soft:
        other = replace(distilled, supervision=replace(supervision, soft=weight))
        arms[f"PDD distilled, {weight:g}"] = TrainedArm(other, source)
    needs = () if teacher == "compressions" else (teacher,)
    return Experiment(arms, "PDD", data or plain.data, plain.metrics, plain.evaluation, needs=needs)


def _both(make: Any) -> Mapping[str, Experiment]:
    """Make an experiment for each teacher."""
    return {"compressions/pdd-net": make("slices"), "compressions/own": make("compressions")}


def _few() -> Mapping[str, Experiment]:
    return {
        f"compressions-{count}/{name}": _experiment(teacher, Compressions(train_videos=count, at_once=4))
        for count in FEW
        for name, teacher in (("pdd-net", "slices"), ("own", "compressions"))
    }


# ---- drift


def drift(result: Result) -> list[Row]:
    """Measure Dice by the distance from the reference, straight and frame by frame.

    Returns:
        One row for each arm that was trained, seed, way and bin of distances, the mean over frames and videos.
    """
    rows: list[Row] = []
    for arm, units in result.runs.items():
        for unit in units:
            network = network_of(unit).to(device_of())
            found: dict[tuple[str, int], list[float]] = {}
            for way, distance, dice in _ways(network, unit.trial.data):
                found.setdefault((way, BIN * (distance // BIN)), []).append(dice)
            rows += [
                {"way": f"{arm}, {way}", "seed": unit.trial.seed, "frames": at, "dice": sum(each) / len(each)}
                for (way, at), each in found.items()
            ]
    return rows


def _ways(network: torch.nn.Module, data: Compressions) -> Iterator[tuple[str, int, float]]:
    """Yield ways, distances and Dice of each test pair; a chain passes through every frame between."""
    chain = last = None
    for fixed, moving in data.test.pairs:
        frame, reference = fixed.load(), moving.load()
        if last is None or person_of(last[0]) != person_of(fixed):
            chain, last = None, (moving, reference)
        pair = Pair(frame.image, reference.image, frame.labels, reference.labels).to(device_of())
        straight = align(network, pair)
        step = align(network, Pair(frame.image, last[1].image).to(device_of())).transform
        chain = step if chain is None else chain @ step
        chain = Displacement(chain.displacement(pair.fixed.grid), pair.fixed.grid)
        last = (fixed, frame)
        distance = int(fixed.name[-3:]) - int(moving.name[-3:])
        for way, answer in (("straight", straight), ("chained", Alignment(pair, chain))):
            yield way, distance, Dice()(answer)["dice"]


# ---- speed


def timed_frames(data: Compressions, seed: int, way: str) -> Iterator[Row]:
    """Measure the milliseconds that each frame of the first test video takes, on one thread.

    Args:
        data: the videos.
        seed: of the weights.
        way: "cached", "uncached" or "ConvexAdam".
    """
    frames = [case.load().image for case in data.video(0)]
    with seeded(seed):
        network = PDDNet(2).eval()
    register: Any = ConvexAdam()
    if way != "ConvexAdam":
        cached = Propagator(network, frames[0])
        register = (lambda frame, _: cached(frame)) if way == "cached" else network
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for n, frame in enumerate(frames[: 5 if way == "ConvexAdam" else None]):
            milliseconds = _milliseconds(register, network, frame, frames[0])
            if n:  # the first warms up
                yield {"pair": f"frame {n}", "milliseconds": milliseconds}
    finally:
        torch.set_num_threads(threads)


def _milliseconds(register: Any, network: torch.nn.Module, frame: Image, reference: Image) -> float:
    with evaluating(network):
        begin = time.thread_time()  # of the processor, whatever else it does meanwhile
        _ = register(frame, reference).transform.displacement(frame.grid)
        return 1000 * (time.thread_time() - begin)


SPEED = Experiment(
    {way: FunctionArm(partial(timed_frames, way=way)) for way in ("cached", "uncached", "ConvexAdam")},
    "cached",
    Compressions(side=256, train_videos=1, validation_videos=1, test_videos=1),
)
TRAINING = Figure(partial(curves, columns=(DICE, HD)))
VIDEOS = Figure(partial(boxes, column=DICE))
DRIFT = Figure(
    partial(by_number, columns=(DICE,), number="frames", label="frames from the reference", of="way"),
    drift,
    ("way", "frames"),
)

study = Study(
    about="Realtime optical flow estimation on vein and artery ultrasound sequences based on knowledge distillation "
    "(Nicke et al. 2022)",
    tables={
        "table1": Table(
            "Labels of one frame carried through a video: by labels alone, distilled, and the teacher itself",
            "Table 1: Dice 45.7 % by labels alone and 47.3 distilled (vein 46.9 and 47.9, artery 44.5 and 46.7), HD "
            "26.8 and 25.9, unit not given; the teacher 40.6 and 26.5; nnU-Net by frames 56.4 and 25.3, with the "
            "largest variance of HD. The paper's ± are variances.",
            _both(_experiment),
            COLUMNS,
            {"training": TRAINING, "videos": VIDEOS, "drift": DRIFT},
        ),
        "soft": Table(
            "The weight of the soft target; distilled has 0.5",
            "This is not shown.",
            _both(partial(_experiment, soft=SOFT)),
            COLUMNS,
        ),
        "few": Table(
            "Few labelled videos, of which table 1 has 40",
            "This is not shown; the paper hopes that soft targets help where labels are scarce.",
            _few(),
            COLUMNS,
        ),
        "speed": Table(
            "Milliseconds a frame, on one core, 256×256 voxels",
            "2.7 ms, and 1.7 with the reference's features kept, on an RTX 2060; 0.14 GFLOP a frame.",
            {"compressions/speed": SPEED},
            (MILLISECONDS,),
        ),
    },
)
