"""Outcomes of a study as tables: over pairs and seeds, with paired tests."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from pullback.study.compare import short, summary
from pullback.study.families import compared
from pullback.study.study import Outcome, Part, Planned, Row
from pullback.training import mean_of


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """One row per pair: the mean over the seeds."""
    pairs: dict[str, list[Row]] = {}
    for row in rows:
        pairs.setdefault(str(row["pair"]), []).append(row)
    return [{"pair": pair, **mean_of(seeds)} for pair, seeds in pairs.items()]


def records(outcome: Outcome) -> list[dict[str, Any]]:
    """One record per arm and number: mean and sd over the pairs (of the means over seeds), sd of the seeds' means, and
    against the reference the mean paired difference, the ends of its 95 % interval, and the effect size, statistic
    and p of a two-sided Wilcoxon signed-rank test of pairs."""
    averaged = {arm: over_seeds(rows) for arm, rows in outcome.rows.items()}
    found = []
    for record in summary(averaged, outcome.reference):
        by_seed: dict[str, list[float]] = {}
        for row in outcome.rows[record["register"]]:
            if record["measure"] in row:
                by_seed.setdefault(str(row["seed"]), []).append(float(row[record["measure"]]))
        means = [fmean(values) for values in by_seed.values()]
        spread = stdev(means) if len(means) > 1 else None
        arm = record.pop("register")
        runs = outcome.runs.get(arm)
        made = {} if runs is None else _made(next(iter(runs.values())))
        counts = {"seeds": len(means), "sd of seeds": spread}
        found.append({"experiment": outcome.name, "arm": arm, **record, **counts, **made})
    return found


def _made(planned: Planned) -> dict[str, Any]:
    """How long a run learned, and by which folder it is found."""
    return {"updates": planned.recipe.training.updates, "run": planned.folder.parent.name}


def contrasts(outcome: Outcome, part: Part) -> list[dict[str, Any]]:
    """One record per contrast that the part asks for, of the means over seeds; of no family that lacks a register."""
    averaged = {arm: over_seeds(rows) for arm, rows in outcome.rows.items()}
    absent = outcome.experiment.registers.keys() - averaged.keys()
    found = compared(averaged, part.tested, [family for family in part.tests if not absent & set(family.groups)])
    return [{"experiment": outcome.name, **record} for record in found]


def shown(rows: Sequence[Row], part: Part) -> list[dict[str, str]]:
    """The records of a part in words: a row per experiment and arm."""
    lines = []
    for name, experiment in part.experiments.items():
        known = {(str(row["arm"]), str(row["measure"])): row for row in rows if row["experiment"] == name}
        for arm in dict.fromkeys(arm for arm, _ in known):
            made = next(row for (of, _), row in known.items() if of == arm)
            line = {"data, network": name.replace("/", ", "), "": arm}
            line |= {count: f"{made[count]:g}" if "updates" in made else "" for count in ("updates", "seeds")}
            for measure in part.measures:
                line[measure] = _mean(known[arm, measure]) if (arm, measure) in known else "·"
            lines.append(line | _against(known, arm, experiment.compared_with))
    return lines


def by_setting(rows: Sequence[Row], by: Sequence[str], measures: Sequence[str]) -> list[dict[str, str]]:
    """What a figure was measured for, in words: a row per experiment and values of the columns `by`, the means over
    the seeds, and in brackets their deviation."""
    grouped: dict[tuple[float | str, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["experiment"], *(row[name] for name in by)), []).append(row)
    lines = []
    for (experiment, *values), seeds in grouped.items():
        name = ", ".join(v if isinstance(v, str) else f"{key} {v:g}" for key, v in zip(by, values, strict=True))
        line = {"data, network": str(experiment).replace("/", ", "), "": name}
        for measure in measures:
            each = [float(row[measure]) for row in seeds if measure in row]
            spread = {"sd of seeds": stdev(each)} if len(each) > 1 else {}
            line[measure] = _mean({"mean": fmean(each), **spread}) if each else "·"
        lines.append(line)
    return lines


def _mean(record: Row) -> str:
    """Mean ± sd over the pairs, and in brackets the sd of the seeds' means."""
    pairs, seeds = record.get("sd"), record.get("sd of seeds")
    text = short(float(record["mean"])) + ("" if pairs is None else f" ± {short(float(pairs), float(record['mean']))}")
    return text + ("" if seeds is None else f" [{short(float(seeds), float(record['mean']))}]")


def _against(known: Mapping[tuple[str, str], Row], arm: str, reference: str) -> dict[str, str]:
    """The difference of Dice with its p, and folding as a share of the reference's."""
    dice = known.get((arm, "dice"), {})
    difference, p = dice.get("difference"), dice.get("p")
    gain = "" if difference is None else f"{difference:+.3f}" + ("" if p is None else f" (p {p:.1g})")
    folds = [float(known[one, "folding %"]["mean"]) for one in (arm, reference) if (one, "folding %") in known]
    here = arm not in (reference, "before") and len(folds) == 2 and folds[1] > 0
    return {"Δ dice": gain, "Δ folding": f"{100 * (folds[0] / folds[1] - 1):+.0f} %" if here else ""}
