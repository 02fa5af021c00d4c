"""Cyclical self-training of networks that align images: rounds of learning from labels of their own.

Bigalke, Hansen, Mok, Heinrich: Unsupervised 3D registration through optimization-guided cyclical self-training, MICCAI
2023, section 2.2.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pullback.alignment import Pair, Registered
from pullback.data import Case, Train, pair_of
from pullback.errors import InputError, Interrupted
from pullback.files.rows import read_csv, write_csv
from pullback.methods.pair.correlated import Correlated
from pullback.numerics.random import generator
from pullback.solvers import Optimised
from pullback.space import Affine, Displacement, Image
from pullback.training import (
    Apart,
    RandomAffine,
    Task,
    asked_to_stop,
    device_of,
    draw,
    easy_first,
    load_tensors,
    load_weights,
    mean_of,
    measure,
    rounds,
    save_tensors,
    save_weights,
    score,
    seeded,
    seen_through,
    train,
)

LOOKS = 8  # pairs that an untrained network sees before it labels any


class Descending(nn.Module):
    """Any network whose labels are refined by descent: cyclical self-training for VoxelMorph and the like.

    It answers as the network does, in training and in evaluation; only labels are refined. The paper of On-the-Fly
    Guidance (table 3) compares with such a one.

    Args:
        network: makes it.
        refine: goes on from its answer.
    """

    def __init__(self, network: Callable[[], nn.Module], refine: Optimised) -> None:
        super().__init__()
        self.network = network()
        self.refine = refine

    def forward(self, fixed: Image, moving: Image) -> Registered:
        return self.network(fixed, moving)

    def guess(self, fixed: Image, moving: Image) -> Registered:
        """The network's answer."""
        return self.network(fixed, moving)

    def refined(self, fixed: Image, moving: Image) -> Registered:
        """After the descent."""
        return self.refine(fixed, moving, self.network(fixed, moving).transform)


@dataclass(frozen=True)
class Labelled:
    """Training pairs whose labels are their truth: drawn by weight, each image through a random affine map of its own.

    Attributes:
        pairs: fixed ← moving.
        labels: displacements on the fixed grids, `(d, *spatial)` in voxels, half precision.
        weights: how often each is drawn.
        augment: None leaves the images as they are.
    """

    pairs: Sequence[tuple[Case, Case]]
    labels: Sequence[Tensor]
    weights: Tensor
    augment: Apart | None

    def draw(self, generator: torch.Generator) -> Pair:
        n = int(torch.multinomial(self.weights, 1, generator=generator))
        pair = pair_of(*self.pairs[n])
        pair = replace(pair, truth=_everywhere(Displacement(self.labels[n][None].float(), pair.fixed.grid)))
        return pair if self.augment is None else self.augment(pair, generator)


@dataclass(frozen=True)
class Cyclical:
    """The procedure: rounds of learning from labels of the network of the round before (section 2.2).

    The network is a `Correlated`, a `Descending`, or any that can give its `guess` and that `refined`. All rounds
    together have the updates of `Training`, a share each; its schedule begins anew with every round.

    Attributes:
        rounds: how many.
        pairs: how many training pairs are labelled, drawn once, no two alike.
        augment: of the images, in the labels' stream and in the learner's; None for neither.
        refined: whether labels are refined; without, none changes, and so all pairs are drawn alike.
        easy: whether pairs whose label changed little as it was refined are drawn more often.
    """

    rounds: int = 8
    pairs: int = 190
    augment: Apart | None = Apart(RandomAffine(5.0, 0.05, 0.03, 0.03))
    refined: bool = True
    easy: bool = True

    def __call__(self, task: Task) -> nn.Module:
        """In the task's folder: one per round, the labels of the one that goes on, and `rounds.csv`, of validation.

        Round 0 is the untrained network whose labels are the first. The answer is the network of the round that did
        best in validation, as `train` has it; without a folder that of the last.

        Raises:
            InputError: fewer updates than rounds.
        """
        seed, out, console = task.training.seed, task.out, task.console
        share, left = divmod(task.training.updates, self.rounds)
        if not share:
            raise InputError(f"{task.training.updates} updates for {self.rounds} rounds: each needs one at least")
        pairs = task.data.train.several(self.pairs, generator(seed, 2))
        untrained = accustomed(task.make(0), task.data.train, seed)
        done = _finished(out) if out is not None and task.resume else []

        def label(network: Correlated | Descending, number: int) -> Labelled:
            if number + 1 < len(done):  # nothing is left to draw
                return Labelled((), (), torch.empty(0), None)
            kept = None if out is None else _labels(out, number + 1)
            return self._labelled(network, pairs, (seed, 2, number), kept, console)

        def learn(network: Correlated | Descending, labels: Labelled, number: int) -> Correlated | Descending:
            folder = None if out is None else out / f"round-{number + 1}"
            updates = share + (number < left)
            part = replace(task.training, updates=updates, seed=generator(seed, number).initial_seed())
            again = task.resume and folder is not None and (folder / "last.safetensors").is_file()
            return train(network, labels, task.supervision, part, None, task.metrics, folder, again, console=console)

        def measured(network: nn.Module) -> dict[str, float]:
            number = len(rows)
            if number < len(done):
                rows.append(done[number])
                return rows[-1]
            means = mean_of(measure(network.to(device_of()), task.data.validation, task.metrics, device_of()))
            rows.append({"round": number, **means})
            if console is not None:
                shown = ", ".join(f"{k} {v:.4g}" for k, v in means.items() if "/" not in k)
                console.print(f"round {number} of {self.rounds}: {shown}", highlight=False)
            if out is not None:
                write_csv(rows, out / "rounds.csv")
            return rows[-1]

        rows: list[dict[str, float]] = []
        network: nn.Module = untrained
        measured(network)
        best: float | None = None
        for network in rounds(lambda number: task.make(number) if number else untrained, label, learn, self.rounds):
            row = measured(network)
            reached = score(row, task.metrics)
            if best is None or reached > best:
                best = reached
                if out is not None:
                    save_weights(network, out / "best.safetensors", {**row})
            if out is not None:
                _labels(out, len(rows) - 1).unlink(missing_ok=True)
        if out is not None:
            load_weights(network, out / "best.safetensors")
        return network.cpu().eval()

    def _labelled(
        self,
        network: Correlated | Descending,
        pairs: Sequence[tuple[Case, Case]],
        seed: tuple[int, ...],
        kept: Path | None,
        console: Console | None,
    ) -> Labelled:
        if kept is not None and kept.is_file():
            known, _ = load_tensors(kept)
            labels = [known[f"label.{n}"] for n in range(len(pairs))]
            return Labelled(pairs, labels, known["weights"], self.augment)
        device = device_of()
        register = network.to(device).eval()
        labels, changes = [], []  # of their own grids, which may differ
        with asked_to_stop("label") as stopping:
            for n, (fixed, moving) in enumerate(track(pairs, "labels", console=console, transient=True)):
                if stopping():
                    raise Interrupted(f"stopped after label {n} of {len(pairs)}, which are made anew")
                found, change = self._label(register, pair_of(fixed, moving), generator(*seed, n), device)
                labels.append(found)
                changes.append(change)
        weights = easy_first(changes) if self.easy and self.refined else torch.full((len(pairs),), 1 / len(pairs))
        if kept is not None:
            save_tensors({"weights": weights, **{f"label.{n}": each for n, each in enumerate(labels)}}, kept, {})
        return Labelled(pairs, labels, weights, self.augment)

    @torch.no_grad()
    def _label(
        self, register: Correlated | Descending, pair: Pair, chance: torch.Generator, device: torch.device
    ) -> tuple[Tensor, float]:
        """The displacement of a pair, `(d, *spatial)`, and the mean square by which refinement changed it."""
        grid, still = pair.fixed.grid, Affine.identity(pair.fixed.grid.ndim)
        maps = (still, still) if self.augment is None else self.augment.maps(pair, chance)
        seen = (pair if self.augment is None else seen_through(pair, *maps)).to(device)
        guess = register.guess(seen.fixed, seen.moving).transform.displacement(grid)
        found = register.refined(seen.fixed, seen.moving).transform.displacement(grid) if self.refined else guess
        whole = _everywhere(Displacement(found, grid))
        label = (maps[1] @ (whole @ maps[0].inverse())).displacement(grid)
        return label[0].half().cpu(), float((found - guess).square().mean())


def _labels(out: Path, number: int) -> Path:
    """What the round of this number learns from."""
    return out / f"labels-{number}.safetensors"


def _finished(out: Path) -> list[dict[str, float]]:
    """The rows of the untrained network and of the rounds that an earlier call finished."""
    if not (out / "rounds.csv").is_file():
        return []
    rows = [{key: float(value) for key, value in row.items()} for row in read_csv(out / "rounds.csv")]
    there = itertools.takewhile(lambda n: (out / f"round-{n}").is_dir(), range(1, len(rows)))
    return [{**row, "round": n} for n, row in enumerate(rows[: 1 + len(list(there))])]


def _everywhere(label: Displacement) -> Displacement:
    """Continued beyond the image, where its affine maps look: the label of one is not the label of the other.

    By a quarter along each axis; of slabs some eight times as wide as thick, turned maps look farther than that.
    """
    return label.continued([math.ceil(n / 4) for n in label.grid.shape])


def accustomed(network: Correlated | Descending, pairs: Train, seed: int) -> Correlated | Descending:
    """An untrained network whose batch normalisation, if it has any, has seen some of the pairs.

    Else what it makes of an image would shrink from layer to layer, and with it what tells two voxels apart: labels of
    random features, which the paper begins with, would be of none. A seed gives the same statistics also with dropout.
    """
    device = device_of()
    with seeded(seed, 1):
        update_bn((draw(pairs, seed, n).to(device) for n in range(LOOKS)), _Guessing(network.to(device)))
    return network


class _Guessing(nn.Module):
    """The network's guess as a function of a pair."""

    def __init__(self, network: Correlated | Descending) -> None:
        super().__init__()
        self.network = network

    def forward(self, pair: Pair) -> Registered:
        return self.network.guess(pair.fixed, pair.moving)
