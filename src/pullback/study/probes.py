"""What is measured of runs beside their answers: how far pairs were apart, rounds, refinement, the loss around the
weights, the optimiser."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.func import functional_call

from pullback.alignment import Alignment, Pair
from pullback.energies import Energy
from pullback.methods.pair.ofg import Guided
from pullback.metrics import Dice, Folding, SDLogJ, numbers_of
from pullback.numerics.random import make_generator
from pullback.records.csv_records import read_csv
from pullback.solvers import Descend
from pullback.space import Displacement
from pullback.study.run import build
from pullback.study.study import Outcome, Row
from pullback.training import align, device_of, mean_of, measure

METRICS = (Dice(), Folding(), SDLogJ())
APART = ("far apart", "between", "close")


def by_distance(outcome: Outcome) -> list[Row]:
    """Thirds of the test pairs, by their Dice before: one row per third, arm and seed, the means over its pairs."""
    rows = outcome.rows
    start = {str(row["pair"]): float(row["dice"]) for row in rows["before"] if "dice" in row}
    thirds = np.array_split(sorted(start, key=lambda pair: start[pair]), len(APART))
    found: list[Row] = []
    for apart, third in zip(APART, thirds, strict=True):
        for arm in ("before", *outcome.runs):
            mine = [row for row in rows[arm] if str(row["pair"]) in third]
            for seed in dict.fromkeys(row["seed"] for row in mine):
                means = mean_of([row for row in mine if row["seed"] == seed])
                found.append({"pairs": apart, "arm": arm, "seed": seed, **means})
    return found


def refined(outcome: Outcome, energy: Energy, steps: Sequence[int] = (0, 10, 50), step_size: float = 0.1) -> list[Row]:
    """The networks' answers to the test pairs after so many steps of descent, pair by pair: one row per arm, seed and
    number of steps, the means over the pairs."""
    device = device_of()
    rows: list[Row] = []
    for arm, runs in outcome.runs.items():
        for seed in runs:
            network = outcome.network(arm, seed).to(device)
            found: dict[int, list[Row]] = {n: [] for n in steps}
            test = outcome.recipe.data.test
            for known in track(test, f"refinement: {outcome.name}, {arm}, seed {seed}", len(test), transient=True):
                pair = known.to(device)
                begin = align(network, pair).transform
                for n in steps:
                    transform = Descend(n, step_size)(energy.on(pair), begin)[0]
                    found[n].append({**numbers_of(Alignment(pair, transform), METRICS)})
            rows += [{"arm": arm, "seed": seed, "steps": n, **mean_of(each)} for n, each in found.items()]
    return rows


def by_rounds(outcome: Outcome) -> list[Row]:
    """Of runs in rounds, validation after each: one row per arm, seed and round, of which 0 is before any."""
    return [
        {"arm": arm, "seed": seed, **row}
        for arm, runs in outcome.runs.items()
        for seed, run in runs.items()
        for row in read_csv(run.folder / "rounds.csv")
    ]


def reconfigured(outcome: Outcome, changes: Mapping[str, Mapping[str, object]]) -> list[Row]:
    """The reference's networks with each of these changes to their refinement at test time: one row per seed and
    change, the means over the test pairs, with seconds."""
    rows: list[Row] = []
    for seed in outcome.seeds:
        for name, change in changes.items():
            network = outcome.network(outcome.reference, seed)
            network.refinement = replace(network.refinement, **change)  # type: ignore[type-var]
            test = outcome.recipe.data.test
            measured = measure(network.to(device_of()), test, METRICS, device_of())
            rows.append({"setting": name, "seed": seed, **mean_of(track(measured, name, len(test), transient=True))})
    return rows


def descended(outcome: Outcome, energy: Energy, steps: int = 50, every: int = 5, pairs: int = 10) -> list[Row]:
    """The optimiser alone, from the answer of a network with random weights and from random parameters: one row per
    start and number of steps, the means over the first test pairs. Parameters are drawn with a deviation of 0.1 voxel,
    one step of the optimiser."""
    recipe = outcome.recipe
    network = build(recipe).to(device_of())
    found: dict[tuple[str, int], list[Row]] = {}
    for number, known in enumerate(track(islice(recipe.data.test, pairs), "optimiser", pairs, transient=True)):
        pair = known.to(device_of())
        grid = pair.fixed.grid
        noise = torch.randn(1, grid.ndim, *grid.shape, generator=make_generator(recipe.training.seed, number))
        starts = {
            "random network": align(network, pair).transform,
            "random parameters": Displacement(0.1 * noise.to(pair.fixed.data), grid),
        }
        for start, begin in starts.items():
            for done in range(0, steps + 1, every):
                transform = replace(Guided().solver, steps=done)(energy.on(pair), begin)[0]
                alignment = Alignment(pair, transform)
                numbers = {**numbers_of(alignment, METRICS), "energy": float(energy(alignment))}
                found.setdefault((start, done), []).append({**numbers})
    return [{"start": start, "steps": done, **mean_of(rows)} for (start, done), rows in found.items()]


def landscape(outcome: Outcome, energy: Energy, size: int = 13, reach: float = 1.0, pairs: int = 2) -> list[Row]:
    """The energy of the networks' answers around their weights, along two random directions: one row per arm and place.

    Li et al. 2018: each filter of a direction has the length of the network's own, biases and norms stay. The mean over
    the first validation pairs, with the first seed; all arms share the random numbers.
    """
    device, seed = device_of(), outcome.seeds[0]
    places = torch.linspace(-reach, reach, size).tolist()
    known = [pair.to(device) for pair in islice(outcome.recipe.data.validation, pairs)]
    rows: list[Row] = []
    for arm in outcome.runs:
        network = outcome.network(arm, seed).to(device).eval()
        weights = {name: p.detach() for name, p in network.named_parameters()}
        first, second = (_direction(weights, number) for number in (0, 1))
        for a in track(places, f"landscape: {outcome.name}, {arm}", transient=True):
            for b in places:
                moved = {k: w + a * first[k] + b * second[k] for k, w in weights.items()}
                losses = [_energy(network, moved, pair, energy) for pair in known]
                rows.append({"arm": arm, "first": a, "second": b, "energy": sum(losses) / len(losses)})
    return rows


def _direction(weights: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    generator = make_generator(0, number)
    found = {}
    for name, weight in weights.items():
        random = torch.randn(weight.shape, generator=generator).to(weight)
        if weight.ndim < 2:
            found[name] = torch.zeros_like(weight)
            continue
        lengths = [each.flatten(1).norm(dim=1) for each in (weight, random)]
        found[name] = random * (lengths[0] / (lengths[1] + 1e-10)).view(-1, *[1] * (weight.ndim - 1))
    return found


def _energy(network: nn.Module, weights: dict[str, Tensor], pair: Pair, energy: Energy) -> float:
    with torch.no_grad():
        transform = functional_call(network, weights, (pair.fixed, pair.moving)).transform
        return float(energy(Alignment(pair, transform)))
