"""Cyclical self-training: a network learns from labels that it made itself in the round before.

Bigalke, Hansen, Mok, Heinrich: Unsupervised 3D registration through optimization-guided cyclical self-training, MICCAI
2023, section 2.2, for images and for clouds alike; a `Labelling` says what a label is.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from pullback.errors import InputError, Interrupted
from pullback.numerics.device import device_of
from pullback.numerics.random import make_generator
from pullback.records.csv_records import write_csv
from pullback.records.ledger import Job, Ledger
from pullback.training.checkpoint import load_tensors, load_weights, save_tensors, save_weights
from pullback.training.interrupt import asked_to_stop
from pullback.training.measure import in_words, mean_of
from pullback.training.procedure import Task


class Several(Protocol):
    """Examples of which several can be drawn once, for all rounds."""

    def several(self, count: int, generator: torch.Generator, /) -> Sequence[Any]:
        """Draw `count` different examples, or all there are."""
        ...

    def load(self, item: Any, /) -> Any:
        """Load one of these as an `Example`."""
        ...


class Labelling(Protocol):
    """The making and the use of labels for one kind of example."""

    def untrained(self, network: Any, examples: Any, seed: int, /) -> Any:
        """Return the network whose features make the first labels, ready to do so."""
        ...

    def label(self, network: Any, example: Any, how: "Cyclical", generator: torch.Generator, /) -> tuple[Tensor, float]:
        """Return the label of an example, on the CPU, and by how much refinement changed it."""
        ...

    def told(self, example: Any, label: Tensor, /) -> Any:
        """Return the example with its label as its truth."""
        ...


@dataclass(frozen=True)
class Labelled:
    """Examples with labels as their truth, drawn by weight and then augmented.

    Attributes:
        examples: where they are loaded from.
        items: which of them.
        labels: as `labelling` makes them.
        weights: probability of each to be drawn.
        labelling: how labels are made and used.
        augment: None leaves the examples as they are.
    """

    examples: Several
    items: Sequence[Any]
    labels: Sequence[Tensor]
    weights: Tensor
    labelling: Labelling
    augment: Any = None

    def draw(self, generator: torch.Generator) -> Any:
        n = int(torch.multinomial(self.weights, 1, generator=generator))
        example = self.labelling.told(self.examples.load(self.items[n]), self.labels[n])
        return example if self.augment is None else self.augment(example, generator)


@dataclass(frozen=True)
class Cyclical:
    """The procedure of cyclical self-training: rounds of learning from labels by the network of the round before.

    Section 2.2. All rounds together have the updates of `Training`, a share each; its schedule starts anew in every
    round.

    Attributes:
        labelling: how labels are made and used.
        rounds: number of rounds.
        pairs: number of training examples that are labelled; they are drawn once, all different.
        augment: of the examples, in the labels' stream and in the learner's; None for neither.
        refined: whether labels are refined; without, none changes, and so all are drawn alike.
        easy: whether examples whose label changed little as it was refined are drawn more often.
    """

    labelling: Labelling
    rounds: int = 8
    pairs: int = 190
    augment: Any = None
    refined: bool = True
    easy: bool = True

    def __call__(self, task: Task) -> nn.Module:
        """Train a network in rounds, and return that of the round that did best in validation.

        Without a folder or an evaluation it is that of the last round. The task's folder gets one folder per round, the
        labels of the current round, and `rounds.csv`, of validation. Round 0 is the untrained network that makes the
        first labels.

        Raises:
            InputError: fewer updates than rounds.
        """
        out, best = task.out, None
        network: nn.Module = nn.Identity()
        for row, network in self.after_each(task):
            if task.evaluation is None or not row["round"] or row["round"] < task.training.choose_from * self.rounds:
                continue
            reached = task.evaluation.score(row)
            if best is None or reached > best:
                best = reached
                if out is not None:
                    save_weights(network, out / "best.safetensors", {**row})
        if out is not None and best is not None:
            load_weights(network, out / "best.safetensors")
        return network.cpu().eval()

    def after_each(self, task: Task) -> Iterator[tuple[dict[str, float], nn.Module]]:
        """Yield the row of validation and the network, untrained and after each round.

        The first labels come from the features of one random network, which is round 0. The learner begins with other
        weights, lest it learn to reproduce them (section 2.2), and in each later round continues from its weights: a
        warm restart.

        Raises:
            InputError: fewer updates than rounds.
        """
        seed, out = task.training.seed, task.out
        if task.training.updates < self.rounds:
            raise InputError(f"{task.training.updates} updates for {self.rounds} rounds: each needs one at least")
        items = task.examples.several(self.pairs, make_generator(seed, 2))
        teacher = network = self.labelling.untrained(task.make(0), task.examples, seed)
        ledger = None if out is None else Ledger(out)
        done = _finished(ledger, self.rounds) if ledger is not None and task.resume else []
        rows: list[dict[str, float]] = []
        for number in range(self.rounds + 1):
            if number:
                network = task.make(1) if number == 1 else network
                teacher = network = self._round(task, items, number, teacher, network, number < len(done))
            rows.append(done[number] if number < len(done) else self._row(network, number, task))
            if ledger is not None and number >= len(done):
                ledger.once(_round_job(number), lambda _: rows[-1])
                write_csv(rows, ledger.folder / "rounds.csv")
            yield rows[-1], network
            if out is not None:
                _labels(out, number).unlink(missing_ok=True)

    def _round(
        self, task: Task, items: Sequence[Any], number: int, teacher: nn.Module, network: nn.Module, done: bool
    ) -> nn.Module:
        """Return the network after a round of learning from the teacher's labels."""
        share, left = divmod(task.training.updates, self.rounds)
        seed, updates = task.training.seed, share + (number <= left)
        if done:  # nothing is left to draw
            labelled = Labelled(task.examples, (), (), torch.empty(0), self.labelling)
        else:
            kept = None if task.out is None else _labels(task.out, number)
            labelled = self.labelled(teacher, task.examples, items, (seed, 2, number - 1), kept, task.console)
        training = replace(task.training, updates=updates, seed=make_generator(seed, number - 1).initial_seed())
        return replace(task.part(f"round-{number}", training), examples=labelled, evaluation=None).trained(network)

    def labelled(
        self,
        network: nn.Module,
        examples: Several,
        items: Sequence[Any],
        seed: tuple[int, ...],
        kept: Path | None,
        console: Console | None,
    ) -> Labelled:
        """Return the examples with labels of this network, or with those in the file `kept`, where new ones are put.

        Raises:
            Interrupted: it was asked to stop.
        """
        make = partial(self._made, network, examples, items, seed, console)
        if kept is None:
            known = make()
        else:
            job = Job(f"labels, {kept.stem}", outputs=(kept.name,))
            Ledger(kept.parent).once(job, lambda _: save_tensors(make(), kept, {}))
            known, _ = load_tensors(kept)
        labels = [known[f"label.{n}"] for n in range(len(items))]
        return Labelled(examples, items, labels, known["weights"], self.labelling, self.augment)

    def _made(
        self,
        network: nn.Module,
        examples: Several,
        items: Sequence[Any],
        seed: tuple[int, ...],
        console: Console | None,
    ) -> dict[str, Tensor]:
        """Return the labels of this network by number, and the weights by which they are drawn."""
        network = network.to(device_of()).eval()
        labels, changes = [], []  # of their own sizes, which may differ
        with asked_to_stop("label") as stopping, torch.no_grad():
            for n, item in enumerate(track(items, "labels", console=console, transient=True)):
                if stopping():
                    raise Interrupted(f"stopped after label {n} of {len(items)}, which are made anew")
                found, change = self.labelling.label(network, examples.load(item), self, make_generator(*seed, n))
                labels.append(found)
                changes.append(change)
        weights = easy_first(changes) if self.easy and self.refined else torch.full((len(items),), 1 / len(items))
        return {"weights": weights, **{f"label.{n}": each for n, each in enumerate(labels)}}

    def _row(self, network: nn.Module, number: int, task: Task) -> dict[str, float]:
        """Return the row of validation after a round."""
        if task.evaluation is None:
            return {"round": number}
        means = mean_of(task.evaluation.rows(network.to(device_of()), device_of()))
        if task.console is not None:
            task.console.print(f"round {number} of {self.rounds}: {in_words(means)}", highlight=False)
        return {"round": number, **means}


def easy_first(differences: Sequence[float]) -> Tensor:
    """Return the probability of each pair to be drawn, `(pairs,)`, higher where refinement changed the label less.

    Pairs are ranked by `differences`, and the weights are a sigmoid of −5 (largest) to 5 (section 2.3.1).
    """
    order = torch.tensor(differences, dtype=torch.float64).argsort(descending=True, stable=True)
    weights = torch.empty(len(order), dtype=torch.float64)
    weights[order] = torch.linspace(-5, 5, len(order), dtype=torch.float64).sigmoid()
    return weights / weights.sum()


def _labels(out: Path, number: int) -> Path:
    """Return the file of the labels from which a round learns."""
    return out / f"labels-{number}.safetensors"


def _round_job(number: int) -> Job:
    """Return the ledger's job of a round, whose result is its row of validation."""
    return Job(f"round {number}", outputs=(f"round-{number}",) if number else ())


def _finished(ledger: Ledger, rounds: int) -> list[dict[str, float]]:
    """Read the rows of the untrained network and of the rounds that an earlier call finished."""
    known = itertools.takewhile(lambda entry: entry is not None, map(ledger.known, map(_round_job, range(rounds + 1))))
    return [entry.result for entry in known if entry is not None]
