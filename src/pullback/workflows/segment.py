"""Multi-atlas segmentation: labels of atlases are brought onto targets, and become one label map of each."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console

from pullback.data.candidates import CandidateDraws, Candidates
from pullback.errors import InputError
from pullback.files import write_image
from pullback.methods.labels.consensus import Consensus, dice_with, majority, simple, staple
from pullback.methods.labels.deep_staple import TRUST, CandidateAffine, LearnedTrust, TrustedSegmenter
from pullback.networks import SegmentationUNet
from pullback.records.csv_records import write_csv
from pullback.records.ledger import Job, Ledger
from pullback.records.manifest import manifest, write_json
from pullback.report.animation import write_animation
from pullback.report.film import pictures
from pullback.space import Image, Labels, Series
from pullback.training import RandomAffine, Training, seeded
from pullback.training.train import fabric_of, train
from pullback.workflows.atlases import StoredTarget, as_seen
from pullback.workflows.choices import named
from pullback.workflows.outputs import RECORD, names_in, refuse_without, transaction
from pullback.workflows.register import DRAWN_WITH

LEARNED = "deep-staple"
BY_LABELS: Mapping[str, Callable[[Labels], Consensus]] = {
    "simple": simple,
    "majority": majority,
    "staple": partial(staple, cropped=True),
}
WAYS = (*BY_LABELS, LEARNED)
"""Ways to a consensus, by name."""
EACH, SURE, TABLE, FILM, TRAINED = "labels", "probability", "trust.csv", "segmented.png", "training"
LEAST = 50
"""Label maps of all targets, below which trust has too little to compare."""
MOST = 30_000  # voxels of what a network sees
UNET = partial(SegmentationUNet, widths=(8, 16, 32))
FLAT = 0.1  # deviation of data parameters, below which nothing was learned of them
LOST = 0.5
"""Dice of the consensus with the label maps, by their weights, below which a target is called lost."""
NOTES = (
    "weight: of a label map in the consensus, 1 in sum over a target; with staple its sensitivity. dice: with the "
    "consensus, which is no truth.",
    "agreement: the mean Dice of the label maps with the consensus, by weight. It tells label maps that contradict "
    "each other, and not those that are wrong alike.",
)


@dataclass(frozen=True)
class Learning:
    """The numbers by which trust is learned.

    Attributes:
        epochs: how often each label map is seen.
        at_once, each: label maps of an update, and how many of them are of one image, as of `CandidateDraws`.
        begins: share of the epochs after which trust begins to learn: before, the network knows too little.
        lr: learning rate of the network.
        most: voxels that it sees of a target, about.
        seed: of all that is random.
    """

    epochs: int = 30
    at_once: int = 16
    each: int = 4
    begins: float = 0.5
    lr: float = 1e-2
    most: int = MOST
    seed: int = 0


def segment_files(
    targets: Mapping[str, Path],
    maps: Mapping[str, Mapping[str, Path]],
    way: str,
    out: str | Path,
    learning: Learning = Learning(),
    device: torch.device = torch.device("cpu"),
    about: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Make one label map of several for each target, and write the results into `out`.

    These are `labels/` and how probable they are, `probability/`, a file for each target; `trust.csv` with the weight
    of each label map in its target's consensus; a picture of each target in an animation, `segmented.png`; and
    `run.json`. With `deep-staple` a network learns from all of them in `training/`, where it goes on if it was stopped.

    Args:
        targets: images, by name.
        maps: label maps on the grid of each target, by target and atlas.
        way: one of `WAYS`.
        out: the folder.
        learning: of `deep-staple`.
        device: where to compute.
        about: more to keep in `run.json`.
        console: where progress is shown.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: no such way, a file that cannot be read, label maps on another grid, targets without any, or of
            `deep-staple` too few.
        Interrupted: the training was asked to stop; the same call goes on.
    """
    named(way, dict.fromkeys(WAYS), "--consensus")
    refuse_without(DRAWN_WITH)
    out, begin = Path(out), time.perf_counter()
    bare = [name for name in targets if not maps.get(name)]
    if bare:
        raise InputError(f"{', '.join(bare)}: no label map of any atlas, so there is nothing to make a consensus of")
    known = as_seen(targets, maps, learning.most)
    lost = [name for name in targets if name not in {one.name for one in known}]
    if lost:
        warnings.warn(f"no atlas marks anything in {', '.join(lost)}; their labels are empty", stacklevel=2)
    if way == LEARNED:
        fuse = _learned(known, learning, out, device, console).consensus
    else:
        by = BY_LABELS[way]

        def fuse(candidates: Candidates) -> Consensus:
            return by(candidates.labels)

    every = [*known, *(StoredTarget(name, targets[name], tuple(maps[name].items())) for name in lost)]
    given = [*targets.values(), *(path for each in maps.values() for path in each.values())]
    with transaction(out, given, [TABLE, FILM, RECORD]) as folder:
        rows, agreement = _written([replace(one, box=None) for one in every], fuse, lost, folder)
        write_csv(rows, folder / TABLE)
        apart = [name for name, value in agreement.items() if value < LOST]
        content: dict[str, Any] = manifest() | {
            "targets": {name: str(path) for name, path in targets.items()},
            "consensus": way,
            "label maps": len(rows),
            "agreement": round(fmean(agreement.values()), 4),
            "quality": {"passed": 2 * len(apart) <= len(agreement), "lost": apart},
            "notes": list(NOTES),
            "seconds": {"consensus": round(time.perf_counter() - begin, 3)},
            "device": str(device),
            **({"learning": vars(learning)} if way == LEARNED else {}),
            **(about or {}),
        }
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def refuse_few(way: str, count: int) -> None:
    """Refuse to learn from so few label maps of all targets.

    Raises:
        InputError: they are too few, and this way learns.
    """
    if way == LEARNED and count < LEAST:
        raise InputError(
            f"{LEARNED} compares the label maps of all targets, and learns little from {count}; give {LEAST} or more, "
            f"or say --consensus simple"
        )


def _learned(
    targets: Sequence[StoredTarget], learning: Learning, out: Path, device: torch.device, console: Console | None
) -> TrustedSegmenter:
    """Return a network that learned how far each label map can be trusted.

    Raises:
        InputError: there are too few label maps.
    """
    count = sum(len(one.maps) for one in targets)
    refuse_few(LEARNED, count)
    loaded = [one.load() for one in targets]
    labels = tuple(sorted({value for one in loaded for value in one.labels.data.unique().tolist() if value}))
    total = max(int(one.numbers.max()) for one in loaded) + 1
    with seeded(learning.seed):
        network = TrustedSegmenter(loaded[0].image.grid.ndim, labels, 1, UNET, total)
    slight = CandidateAffine(RandomAffine(degrees=5.0, scale=0.05, shear=0.02, shift=0.02))
    updates = max(1, round(learning.epochs * count / learning.at_once))
    numbers = Training(updates, lr=learning.lr, seed=learning.seed, players=(TRUST,), augment=slight)
    files = tuple(path for one in targets for path in (one.image, *(path for _, path in one.maps)))
    key, _ = Ledger(out).key(Job(LEARNED, [vars(learning), [one.name for one in targets]], files))
    folder = out / TRAINED / key
    begun = (folder / "last.safetensors").is_file()
    draws = CandidateDraws(targets, None, learning.at_once, learning.each)
    supervision = LearnedTrust(labels, begins=learning.begins)
    train(network, draws, supervision, numbers, None, folder, begun, fabric_of(device), console)
    every = torch.cat([one.numbers for one in loaded])
    spread = float(network.data_parameters(every).detach().std())
    if spread < FLAT:
        warnings.warn(f"label maps are trusted nearly alike (deviation {spread:.2g}): more --epochs", stacklevel=2)
    return network


def _written(
    targets: Sequence[StoredTarget], fuse: Callable[[Candidates], Consensus], lost: Sequence[str], folder: Path
) -> tuple[list[dict[str, object]], dict[str, float]]:
    """Write the consensus of each target; return a row for each label map, and how far they agree, by target."""
    for name in (EACH, SURE):
        (folder / name).mkdir()
    rows: list[dict[str, object]] = []
    agreement, drawn = {}, []
    for one in targets:
        known = one.load()
        found = majority(known.labels) if one.name in lost else fuse(known)
        write_image(found.labels, folder / EACH / f"{one.name}.nii.gz", like=one.image)
        write_image(Image(found.probability, found.labels.grid), folder / SURE / f"{one.name}.nii.gz", like=one.image)
        dice, weights = dice_with(known.labels, found.labels), found.weights
        agreement[one.name] = 0.0 if one.name in lost else float((dice * weights).sum() / weights.sum())
        order = (-weights).argsort(stable=True).argsort().tolist()
        for n, atlas in enumerate(known.atlases):
            numbers = {"weight": round(float(weights[n]), 6), "rank": order[n] + 1, "dice": round(float(dice[n]), 4)}
            rows.append({"target": one.name, "atlas": atlas, **numbers})
        series = Series((known.image,), known.image.grid, torch.zeros(1, dtype=torch.float64))
        drawn += pictures(series, found.labels.data[0, 0].numpy()[..., None])
    write_animation(_alike(drawn), folder / FILM, 1000)
    return rows, agreement


def _alike(drawn: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return pictures of one size, with black below and beside."""
    rows, columns = (max(picture.shape[axis] for picture in drawn) for axis in (0, 1))
    return [np.pad(one, ((0, rows - one.shape[0]), (0, columns - one.shape[1]), (0, 0))) for one in drawn]


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `segment_files` for a person."""
    lost = content["quality"]["lost"]
    lines = [
        f"{len(content['targets'])} targets, {content['label maps']} label maps, consensus by {content['consensus']}",
        f"agreement: {content['agreement']:.2f} of 1 (mean)",
        f"quality: {'sound' if content['quality']['passed'] else 'looks FAILED (exit code 3)'}",
        *([f"  label maps do not agree on {', '.join(lost)}"] if lost else []),
    ]
    return "\n".join([*lines, f"Look at {Path(out) / FILM} and {Path(out) / TABLE}"])
