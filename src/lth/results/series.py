"""Curves as values, computed from the tables of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from lth.results import verdict
from lth.results.captions import format_percent, run_names
from lth.results.early_stops import unreached_at
from lth.results.looks import family_look, level_look, run_look
from lth.results.records import PLACE, Records
from lth.results.statistics import aggregate, family

MOST_CURVES = 8  # maximum number of levels in one panel


@dataclass(frozen=True, eq=False)
class Series:
    """A curve: mean, minimum and maximum of one quantity at each x. `look` is passed to matplotlib.

    `winning` is the index of the winning level on the curve, `late` the indices of early stops that were not reached.
    """

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    look: Mapping[str, Any] = field(default_factory=dict)
    winning: int | None = None
    late: tuple[int, ...] = ()


def density_series(
    run: Records, value: str, looks: Callable[[str], Mapping[str, Any]], prefix: str = ""
) -> list[Series]:
    """One series for the tickets and one per branch: the column `value` against the percentage of weights."""
    table = aggregate(run.summary, value)
    table = table.loc[table["density"] > 0].assign(x=100 * table["density"])
    series = []
    for name in dict.fromkeys(table["family"]):
        if not trained_alike(run, name, value):
            continue
        rows = table.loc[table["family"] == name]
        marks = marks_of(run, name, value, [int(level) for level in rows["level"]])
        series.append(replace(_series(prefix + _label(run, name), rows, looks(name)), **marks))
    return series


def marks_of(run: Records, branch: str, value: str, levels: Sequence[int]) -> dict[str, Any]:
    """The `winning` and `late` indices of a branch's curve."""
    winning, unreached = verdict.of(run).winning, unreached_at(run.summary) if "early_stop" in value else {}
    late = tuple(i for i, level in enumerate(levels) if branch in unreached.get(level, ()))
    return {"winning": levels.index(winning) if branch == "ticket" and winning in levels else None, "late": late}


def trained_alike(run: Records, branch: str, value: str) -> bool:
    """Return whether a branch can be compared with the tickets: its final values only after equally long training."""
    lengths = {b.name: b.iterations for b in run.experiment.branch}
    return not value.startswith("final_") or lengths.get(branch) in (None, run.experiment.recipe.iterations)


def iteration_series(run: Records, value: str, levels: Sequence[int], branch: str = "ticket") -> list[Series]:
    """One series per level: the column `value` of curves.csv by iteration, without diverged trainings.

    The label of the winning level ends with a star.
    """
    winning = verdict.of(run).winning
    curves = run.curves.loc[run.curves["level"].isin(levels) & np.isfinite(run.curves[value])]
    curves = curves.loc[curves["branch"].isin([name for name in set(curves["branch"]) if family(name) == branch])]
    diverged = run.summary.loc[run.summary["status"] == "diverged", list(PLACE)]
    lost = set(diverged.itertuples(index=False, name=None))
    places = curves[list(PLACE)].itertuples(index=False, name=None)
    curves = curves.loc[[place not in lost for place in places]]
    series = []
    for i, level in enumerate(levels):
        rows = curves.loc[curves["level"] == level]
        if len(rows):
            table = rows.groupby("iteration")[value].agg(["mean", "min", "max"]).rename_axis("x").reset_index()
            label = format_percent(100 * float(np.mean(rows["density"]))) + " *" * (level == winning)
            series.append(_series(label, table, level_look(i, len(levels))))
    return series


def pick_levels(levels: Sequence[int], winning: int | None = None, most: int = MOST_CURVES) -> list[int]:
    """At most `most` levels, evenly spread, including the first, the last and the winning one."""
    levels = sorted(levels)
    if len(levels) <= most:
        return levels
    picked = [levels[round(i)] for i in np.linspace(0, len(levels) - 1, most)]
    if winning in levels and winning not in picked:
        nearest = min(range(1, most - 1), key=lambda i: abs(picked[i] - levels[levels.index(winning)]))
        picked[nearest] = winning
    return picked


def _label(run: Records, name: str) -> str:
    count = next((b.count for b in run.experiment.branch if b.name == name), 1)
    return f"{name} ({count} a trial)" if count > 1 else name


def _series(label: str, table: pd.DataFrame, look: Mapping[str, Any]) -> Series:
    x, mean, low, high = table[["x", "mean", "min", "max"]].to_numpy(dtype=float).T
    return Series(
        label, x, np.clip(mean, low, high), low, high, look
    )  # rounding can put the mean of equal values outside of their range


def overlaid(runs: Sequence[Records], value: str) -> list[Series]:
    """The density series of all runs; with several runs, each label begins with the run's name."""
    names = {family(label) for run in runs for label in run.summary["branch"].unique()}
    series = []
    for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True)):
        if value not in run.summary:
            continue
        if len(runs) == 1:
            series += density_series(run, value, lambda branch: family_look(branch, names))
        else:
            series += density_series(run, value, lambda branch, i=i: run_look(i, branch, names), f"{name}: ")
    return series
