"""The table at the end of a run, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lth.results import comparison, sentences, verdict
from lth.results.captions import format_at_chance, format_diverged, format_scale, format_trials
from lth.results.early_stops import unreached_at
from lth.results.metrics import Metric, metric_of
from lth.results.records import Records
from lth.results.statistics import aggregate, branch_order

LATE = "+"  # marks an early stop that was not reached: a longer training may stop later
UNBOUNDED = 10_000  # more columns than any table has


class Stat(NamedTuple):
    mean: float
    min: float
    max: float
    n: int


@dataclass(frozen=True)
class Headline:
    """A row of the table: the tickets of a level and its branches."""

    level: int
    percent: float  # percentage of weights remaining
    weights: int
    early_stop: dict[str, Stat]  # branch -> early-stop iteration; "ticket" is one of them
    score: dict[str, Stat]  # branch -> test accuracy or test loss at early stop
    n: int  # number of tickets in the means
    winning: bool
    unreached: frozenset[str]  # branches in which an early stop was not reached


def headline_table(records: Records) -> list[Headline]:
    """One row per level that has a ticket, beginning with level 0, with its branches that have results."""
    summary, metric = records.summary, metric_of(records.experiment)
    early_stop, score = (_stats(summary, what) for what in ("early_stop_iteration", metric.at_early_stop))
    winning, unreached = verdict.of(records).winning, unreached_at(summary)
    rows = []
    for level, tickets in summary[summary["branch"] == "ticket"].groupby("level"):
        level = int(str(level))
        at = early_stop.get(level, {})
        n = at["ticket"].n if "ticket" in at else 0
        percent, weights = 100 * float(np.mean(tickets["density"])), round(float(np.mean(tickets["weights"])))
        rows.append(
            Headline(
                level,
                percent,
                weights,
                at,
                score.get(level, {}),
                n,
                level == winning,
                unreached.get(level, frozenset()),
            )
        )
    return rows


def _stats(summary: pd.DataFrame, value: str) -> dict[int, dict[str, Stat]]:
    stats: dict[int, dict[str, Stat]] = {}
    table = aggregate(summary, value)
    for row in table[["level", "family", "mean", "min", "max", "n"]].itertuples(index=False, name=None):
        stats.setdefault(int(row[0]), {})[row[1]] = Stat(float(row[2]), float(row[3]), float(row[4]), int(row[5]))
    return stats


def render_tables(records: Records, console: Console) -> list[Table]:
    """The table at the end of a run; 80 columns are enough for tickets and one branch.

    If the branches do not fit into the width, there is one table per branch, each with the tickets.
    """
    rows = headline_table(records)
    branches = sorted({name for row in rows for name in row.early_stop}, key=branch_order) or ["ticket"]
    metric = metric_of(records.experiment)
    whole = _headline(rows, branches, metric)
    tables, controls = [whole], [name for name in branches if name != "ticket"]
    if console.measure(whole, options=console.options.update_width(UNBOUNDED)).maximum > console.width and controls:
        tables = [
            _headline(rows, [name for name in branches if name in ("ticket", control)], metric) for control in controls
        ]
    tables[-1].caption, tables[-1].caption_justify = _caption(records, rows), "left"
    return tables


def render_comparison(rows: Sequence[comparison.Ranked]) -> Table:
    """The table of a comparison of runs, with its headline."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for header in comparison.heads(rows):
        table.add_column(header, justify="right", vertical="top", overflow="fold")
    for cells in comparison.cells(rows):
        table.add_row(*map(Text, cells))
    table.caption = "\n".join([comparison.headline(rows), *comparison.remarks(rows)])
    table.caption_justify = "left"
    return table


def _headline(rows: Sequence[Headline], branches: Sequence[str], metric: Metric) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    headers = [
        f"{name}\n{what}" for name in branches for what in ("early stop", f"{metric.name} {metric.sign}".strip())
    ]
    for header in ("level", "left %", "weights", *headers):
        table.add_column(header, justify="right", vertical="top", overflow="fold")
    between = "\n" if len(branches) > 1 else "  "
    for row in rows:
        percent = f"{row.percent:.1f}" if row.percent >= 1 else f"{row.percent:.2f}"
        cells: list[Text | str] = [f"{'* ' if row.winning else ''}{row.level}", percent, f"{row.weights:,}"]
        for name in branches:
            mark = LATE if name in row.unreached else ""
            cells.append(_cell(row.early_stop.get(name), 1, ",.0f", between, mark))
            cells.append(_cell(row.score.get(name), metric.unit, metric.form, between))
        table.add_row(*cells, style="bold" if row.winning else None)
    return table


def _cell(stat: Stat | None, unit: float, form: str, between: str, mark: str = "") -> Text | str:
    if stat is None:
        return "-"
    mean, low, high = (format(unit * number, form) for number in stat[:3])
    mean += mark
    return mean if stat.n == 1 else Text.assemble(mean, between, (f"{low}-{high}", "dim"))


def _caption(records: Records, rows: Sequence[Headline]) -> str:
    """The number of trials, and the winning level."""
    judged = verdict.of(records)
    marks = [f"{LATE} early stop not reached"] if any(row.unreached for row in rows) else []
    marks += ["* winning level"] if judged.winning is not None else []
    lines = [sentences.headline(judged), *sentences.remarks(judged)] if rows else []
    what = f"{records.experiment.name}: {format_trials([row.n for row in rows])}{format_scale(records.experiment)}"
    left_out = [f"left out: {text}" for text in format_diverged(records)]
    return "\n".join(
        [
            what,
            f"{judged.metric.name} on the test set at early stop",
            *marks,
            *left_out,
            *format_at_chance(records),
            *lines,
        ]
    )
