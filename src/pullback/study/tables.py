"""Outcomes of a study as tables: over pairs and seeds, with paired tests."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from pullback.study.compare import short, summary
from pullback.study.families import compared
from pullback.study.study import Outcome, Part, Row
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
        found.append({"experiment": outcome.name, "arm": arm, **record, "seeds": len(means), "sd of seeds": spread})
    return found


def contrasts(outcome: Outcome, part: Part) -> list[dict[str, Any]]:
    """One record per contrast that the part asks for, of the means over seeds."""
    averaged = {arm: over_seeds(rows) for arm, rows in outcome.rows.items()}
    found = compared(averaged, part.tested, part.tests)
    return [{"experiment": outcome.name, **record} for record in found]


def shown(outcomes: Sequence[Outcome], measures: Sequence[str]) -> list[dict[str, str]]:
    """These numbers in words: a row per experiment and arm."""
    lines = []
    for outcome in outcomes:
        known = {(r["arm"], r["measure"]): r for r in records(outcome)}
        for arm in outcome.rows:
            line = {"data, network": outcome.name.replace("/", ", "), "": arm}
            for measure in measures:
                record = known.get((arm, measure))
                line[measure] = "·" if record is None else _mean(record)
            line |= _against(known, arm, outcome.reference)
            lines.append(line)
    return lines


def _mean(record: dict[str, Any]) -> str:
    spread = record["sd of seeds"]
    return short(record["mean"]) + ("" if spread is None else f" ± {short(spread)}")


def _against(known: dict[tuple[str, str], dict[str, Any]], arm: str, reference: str) -> dict[str, str]:
    """The difference of Dice with its p, and folding as a share of the reference's."""
    dice = known.get((arm, "dice"), {})
    gain = dice.get("difference")
    found = {"Δ dice": "" if gain is None else f"{gain:+.3f}" + ("" if dice["p"] is None else f" (p {dice['p']:.1g})")}
    folds = [known[one, "folding %"]["mean"] for one in (arm, reference) if (one, "folding %") in known]
    here = arm not in (reference, "before") and len(folds) == 2 and folds[1] > 0
    return found | {"Δ folding": f"{100 * (folds[0] / folds[1] - 1):+.0f} %" if here else ""}
