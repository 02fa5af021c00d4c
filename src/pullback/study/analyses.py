"""Analyses of results beside the arms' rows: distance, choice, rounds, refinement, optimiser, loss landscape."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from statistics import fmean

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.func import functional_call

from pullback.alignment import Alignment, Pair
from pullback.energies import Energy
from pullback.metrics import Metric, numbers_of
from pullback.numerics.random import make_generator
from pullback.records.csv_records import read_csv
from pullback.solvers import Descend
from pullback.space import Displacement
from pullback.study.compare import against, by_case, frame_of
from pullback.study.result import Result, network_of
from pullback.study.run import build
from pullback.training import Row, align, device_of, mean_of, measure

APART = ("far apart", "between", "close")


def by_distance(result: Result, number: str, start: str) -> list[Row]:
    """Average each arm over thirds of the cases, by their number for the arm `start`, of which more is closer.

    Returns:
        One row per third, arm and seed, the means over its cases.
    """
    rows = result.rows
    known = {str(row["pair"]): float(row[number]) for row in rows[start] if number in row}
    thirds = np.array_split(sorted(known, key=lambda pair: known[pair]), len(APART))
    found: list[Row] = []
    for apart, third in zip(APART, thirds, strict=True):
        for arm in (start, *result.runs):
            mine = [row for row in rows[arm] if str(row["pair"]) in third]
            for seed in dict.fromkeys(row["seed"] for row in mine):
                means = mean_of([row for row in mine if row["seed"] == seed])
                found.append({"pairs": apart, "arm": arm, "seed": seed, **means})
    return found


def refined(
    result: Result,
    energy: Energy,
    metrics: Sequence[Metric],
    steps: Sequence[int] = (0, 10, 50),
    step_size: float = 0.1,
) -> list[Row]:
    """Refine the networks' answers to the test pairs by so many steps of descent.

    Returns:
        One row per arm, seed and number of steps, the means over the pairs.
    """
    device = device_of()
    rows: list[Row] = []
    for arm, units in result.runs.items():
        for unit in units:
            network, test = network_of(unit).to(device), unit.trial.data.test
            found: dict[int, list[Row]] = {n: [] for n in steps}
            said = f"refinement: {result.name}, {arm}, seed {unit.trial.seed}"
            for known in track(test, said, len(test), transient=True):
                pair = known.to(device)
                begin = align(network, pair).transform
                for n in steps:
                    transform = Descend(n, step_size)(energy.on(pair), begin)[0]
                    found[n].append({**numbers_of(Alignment(pair, transform), metrics)})
            rows += [{"arm": arm, "seed": unit.trial.seed, "steps": n, **mean_of(each)} for n, each in found.items()]
    return rows


def by_validation(result: Result, ways: Sequence[str], number: str, unit: str = "") -> list[Row]:
    """Choose one arm of each way to learn by validation, and compare their test cases with those of the first way's.

    An arm is of the way that its name begins with, up to a comma. Its validation is the best number of each run,
    of which more is better, averaged over the runs. Test cases are looked at once the choice is made.

    Args:
        ways: in order; those without a run are left out.
        number: in the rows, which validation has too.
        unit: as in `Table`.

    Returns:
        One row per way: the arm that was chosen, its validation, and the means over runs and test cases; for each
        but the first, the `difference` of the number to the first's, a mean over units, with the p of the signed-rank
        test over units where they differ.
    """
    frame = frame_of(result.rows)
    found: list[Row] = []
    for way in ways:
        best = {
            arm: fmean(max(float(row[number]) for row in read_csv(run.folder / "validation.csv")) for run in runs)
            for arm, runs in result.runs.items()
            if arm.split(",")[0] == way
        }
        if not best:
            continue
        arm = max(best, key=lambda one: best[one])
        row: Row = {"way": way, "arm": arm, "validation": best[arm], **mean_of(result.rows[arm])}
        if found:
            both = (by_case(frame, one, number, unit) for one in (arm, str(found[0]["arm"])))
            told = against(*both)
            row |= {name: value for name in ("difference", "p") if (value := told.get(name)) is not None}
        found.append(row)
    return found


def by_rounds(result: Result) -> list[Row]:
    """Return the validation of runs in rounds: one row per arm, run and round, of which 0 is before any."""
    return [
        {"arm": arm, "seed": unit.trial.seed, **row}
        for arm, units in result.runs.items()
        for unit in units
        if (unit.folder / "rounds.csv").is_file()
        for row in read_csv(unit.folder / "rounds.csv")
    ]


def reconfigured(result: Result, changes: Mapping[str, Mapping[str, object]], metrics: Sequence[Metric]) -> list[Row]:
    """Measure the baseline's networks with each of these changes to their refinement at test time.

    Returns:
        One row per seed and change, the means over the test pairs, with seconds.
    """
    rows: list[Row] = []
    for unit in result.runs[result.baseline]:
        for name, change in changes.items():
            network = network_of(unit)
            network.refinement = replace(network.refinement, **change)  # type: ignore[type-var]
            test = unit.trial.data.test
            measured = measure(network.to(device_of()), test, metrics, device_of())
            means = mean_of(track(measured, name, len(test), transient=True))
            rows.append({"setting": name, "seed": unit.trial.seed, **means})
    return rows


def descended(
    result: Result,
    energy: Energy,
    solver: Descend,
    metrics: Sequence[Metric],
    steps: int = 50,
    every: int = 5,
    pairs: int = 10,
) -> list[Row]:
    """Run the optimiser alone, from the answer of a network with random weights and from random parameters.

    Parameters are drawn with a deviation of 0.1 voxel, one step of the optimiser.

    Returns:
        One row per start and number of steps, the means over the first test pairs.
    """
    recipe = result.recipe
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
                transform = replace(solver, steps=done)(energy.on(pair), begin)[0]
                alignment = Alignment(pair, transform)
                numbers = {**numbers_of(alignment, metrics), "energy": float(energy(alignment))}
                found.setdefault((start, done), []).append({**numbers})
    return [{"start": start, "steps": done, **mean_of(rows)} for (start, done), rows in found.items()]


def landscape(result: Result, energy: Energy, size: int = 13, reach: float = 1.0, pairs: int = 2) -> list[Row]:
    """Measure the energy of the networks' answers around their weights, along two random directions.

    Li et al. 2018: each filter of a direction has the length of the network's own, biases and norms stay. The mean over
    the first validation pairs, with the first seed; all arms share the random numbers.
    """
    device = device_of()
    places = torch.linspace(-reach, reach, size).tolist()
    known = [pair.to(device) for pair in islice(result.data.validation, pairs)]
    rows: list[Row] = []
    for arm, units in result.runs.items():
        network = network_of(units[0]).to(device).eval()
        weights = {name: p.detach() for name, p in network.named_parameters()}
        first, second = (_direction(weights, number) for number in (0, 1))
        for a in track(places, f"landscape: {result.name}, {arm}", transient=True):
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
