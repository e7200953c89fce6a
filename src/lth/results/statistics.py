"""Statistics over the trials of a run: means by branch and level, and the winning level."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from lth import config
from lth.errors import UsageError
from lth.results.intervals import ROUNDING
from lth.results.metrics import metric_of

if TYPE_CHECKING:
    import pandas as pd

    from lth.results.records import Records


def family(label: str) -> str:
    """The branch of a label: `reinit` for `reinit-2`; `ticket` and `continued` stay as they are."""
    name, dash, number = label.rpartition("-")
    return name if dash and number.isdigit() else label


def branch_order(label: str) -> tuple:
    """A sort key for labels and branches: `ticket` first, `reinit-10` after `reinit-9`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", family(label))
    natural = [float(part) if i % 2 else part for i, part in enumerate(parts)]
    return label != "ticket", natural, int(label.removeprefix(family(label) + "-")) if label != family(label) else 0


def aggregate(summary: pd.DataFrame, value: str, by: Sequence[str] = ("family", "level")) -> pd.DataFrame:
    """Mean, min, max and n of the column `value` in each group of trainings, with the mean density and weights.

    Every training of a branch counts: 5 trials with 3 reinits each give n = 15. Diverged trainings and those whose
    `value` is blank are left out; n is the number of the others, and a group without any has no row. `by` may include
    `family`, which is not a column of summary.csv. Rows are sorted by `by`, families by `branch_order`.
    """
    if value not in summary:
        raise UsageError(f"summary.csv has no column {value!r}{config.nearest(value, summary.columns)}")
    valid = summary.loc[summary[value].notna() & (summary["status"] != "diverged")]
    groups = valid.assign(family=[family(label) for label in valid["branch"]]).groupby(list(by))
    table = groups[value].agg(["mean", "min", "max", "count"]).set_axis(["mean", "min", "max", "n"], axis=1)
    # rounding can put the mean of equal values outside of their range; error bars must not be negative
    table["mean"] = table["mean"].clip(table["min"], table["max"])
    table[["density", "weights"]] = groups[["density", "weights"]].mean()
    return table.reset_index().sort_values(list(by), key=_sorting, kind="stable", ignore_index=True)


def _sorting(column: pd.Series) -> pd.Series:
    if column.name not in ("family", "branch"):
        return column
    ranks = {name: rank for rank, name in enumerate(sorted(set(column), key=branch_order))}
    return column.map(ranks)


Comparison = tuple[float, float]  # a ticket compared with level 0: how much later, and how much better
Rows = Iterable[tuple[int, float, Sequence[Comparison]]]  # level, density, comparisons with level 0


def winning_index(rows: Rows) -> int | None:
    """The winning level among rows of (level, density, comparisons with level 0); None if no level wins.

    The winning level is the one of lowest density at which tickets, on average, train no later and no worse than level
    0. A comparison is one ticket minus level 0 of the same trial: the difference of their early-stop iterations, and of
    their accuracies (or of any score for which higher is better). A level with an unknown comparison (nan), for example
    because an early stop was not reached, does not win. The rows do not include level 0. Of two levels with equal
    density, the lower level wins.
    """
    return _sparsest(rows, lambda later, better: later <= 0 and better >= -ROUNDING)


def matching_index(rows: Rows, tolerance: float) -> int | None:
    """The level of lowest density whose tickets are, on average, at most `tolerance` worse than level 0."""
    return _sparsest(rows, lambda later, better: better >= -tolerance - ROUNDING)


def _sparsest(rows: Rows, passes: Callable[[float, float], bool]) -> int | None:
    totals = (
        (density, level, [math.fsum(c) / len(c) for c in zip(*each, strict=True)]) for level, density, each in rows
    )
    return min(((density, level) for density, level, means in totals if passes(*means)), default=(0, None))[1]


def at_chance(records: Records) -> list[int]:
    """The levels at which no ticket is better than a constant answer.

    The margin is three standard deviations of its accuracy, or 2% of its loss. Empty if the environment does not
    contain the score of a constant answer. Diverged trainings are left out.
    """
    facts = (records.environment or {}).get("data")
    facts = facts if isinstance(facts, dict) else {}
    chance, n = facts.get("chance"), facts.get("test_examples")
    if not isinstance(chance, float) or not isinstance(n, int) or n < 1:
        return []
    summary, metric = records.summary, metric_of(records.experiment)
    tickets = summary.loc[(summary["branch"] == "ticket") & (summary["status"] != "diverged")]
    scores = tickets.groupby("level")[metric.at_early_stop]
    best = scores.min() if metric.relative else scores.max()
    return [int(str(level)) for level, score in best.items() if metric.of_constant(score, chance, n)]
