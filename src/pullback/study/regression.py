"""Linear models of scores, and what of the variance of people a variable explains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution

from pullback.errors import InputError
from pullback.study.statistics import Values, benjamini_hochberg

ALL = "all"
"""The name of the model of all variables at once."""
CODES = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
MOST_GROUPS = 12  # of a variable in words; with more it is a name


@dataclass(frozen=True)
class Fit:
    """A linear model of numbers, by ordinary least squares.

    Attributes:
        slopes: of each variable, without the intercept.
        r2: share of the variance that it explains.
        p: that all slopes are 0, by F, which of one variable is the test by t.
        n: how many rows were known.
    """

    slopes: tuple[float, ...]
    r2: float
    p: float
    n: int


def regression(y: Values, *x: Values) -> Fit | None:
    """Fit numbers by variables and an intercept. Rows of which a number is missing, NaN, are left out.

    None where nothing can be told: no more rows than unknowns, numbers that do not vary, or variables that follow from
    each other.

    Args:
        y: `(n,)`.
        x: variables, `(n,)` each.

    Raises:
        InputError: no variable, another length, or an infinite number.
    """
    columns = [np.asarray(each, dtype=np.float64) for each in (y, *x)]
    if not x or len({each.shape for each in columns}) > 1 or any(np.isinf(each).any() for each in columns):
        raise InputError(f"regression: finite variables of {len(columns[0])} numbers expected, got {[*map(len, x)]}")
    known = ~np.isnan(columns).any(0)
    target, *variables = (each[known] for each in columns)
    n, k = len(target), len(variables)
    if n < k + 2 or any(np.ptp(each) == 0 for each in (target, *variables)):
        return None
    table = np.stack([(each - each.mean()) / each.std() for each in variables], 1)
    if np.linalg.matrix_rank(table) < k:
        return None
    off = target - target.mean()
    slopes = np.linalg.lstsq(table, off, rcond=None)[0]
    left = float(np.square(off - table @ slopes).sum() / np.square(off).sum())
    statistic = (1 - left) / k / (left / (n - k - 1)) if left > 0 else math.inf
    slopes = slopes / [each.std() for each in variables]
    return Fit(tuple(slopes.tolist()), 1 - left, float(f_distribution.sf(statistic, k, n - k - 1)), n)


def explanations(
    scores: Mapping[str, np.ndarray],
    explained: Mapping[str, Sequence[float]],
    variables: Mapping[str, Sequence[float | str | None]],
) -> list[dict[str, object]]:
    """Explain each dimension by each variable alone, and by all together: the paper's table 1, and what it leaves out.

    Each p stands as it is and, as `corrected`, after Benjamini and Hochberg over the table. `whole` is the share of the
    whole variance of its kind that a variable explains, Σ explained · R² over the dimensions; it stands in the row of
    the first one.

    Args:
        scores: `(n, d)` by kind of distance.
        explained: shares of the variance of these dimensions.
        variables: of each person by name: numbers, or words for groups, None where one is not known. Those that do not
            vary, or are names, are left out.

    Returns:
        A row for each kind, dimension and variable.
    """
    columns = {name: made for name, values in variables.items() if (made := _columns(values))}
    if len(columns) > 1:
        columns[ALL] = [each for made in columns.values() for each in made]
    rows: list[dict[str, object]] = []
    for kind, of_kind in scores.items():
        for name, made in columns.items():
            fits = [regression(of_kind[:, d], *made) for d in range(of_kind.shape[1])]
            if not any(fits):
                continue
            whole = sum(share * fit.r2 for share, fit in zip(explained[kind], fits, strict=True) if fit)
            for d, fit in enumerate(fits):
                row = {"kind": kind, "dimension": d + 1, "explained": explained[kind][d], "variable": name}
                row |= {"r2": fit.r2, "p": fit.p, "code": code(fit.p), "n": fit.n} if fit else {}
                row |= {"slope": fit.slopes[0]} if fit and len(fit.slopes) == 1 else {}
                rows.append(row | ({"whole": whole} if d == 0 else {}))
    corrected = benjamini_hochberg([row.get("p") for row in rows])  # type: ignore[misc]
    return [row | ({} if p is None else {"corrected": p}) for row, p in zip(rows, corrected, strict=True)]


def code(p: float) -> str:
    """Return the stars of a p: *** below 0.001, ** below 0.01, * below 0.05."""
    return next((stars for level, stars in CODES if p < level), "")


def _columns(values: Sequence[float | str | None]) -> list[np.ndarray]:
    """Return a variable as numbers: itself, or of each group but the first whether one is in it; [] of none."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in known):
        numbers = np.array([math.nan if value is None else float(value) for value in values])
        return [numbers] if len({*known}) > 1 else []
    groups = sorted({str(value) for value in known})
    if not 1 < len(groups) <= min(MOST_GROUPS, len(known) // 2):
        return []
    return [
        np.array([math.nan if value is None else float(str(value) == group) for value in values])
        for group in groups[1:]
    ]
