"""Comparison of several runs: the settings that differ, and the result of each run, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lth.config import as_settings
from lth.results import verdict
from lth.results.captions import format_percent, run_names
from lth.results.intervals import Interval, average, difference
from lth.results.records import Records
from lth.results.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 3  # minimum number of trials to tell two runs apart: levels are discrete, and two trials often agree
RANKED = (
    "Runs with a winning level come first, the sparsest at the top, then the most accurate; runs without one follow, "
    "the most accurate first, at their most accurate level (in regression: of the lowest loss). Winning and matching "
    "levels are percentages of weights remaining, with the range of single trials; ± is half the 95% interval, by "
    "Student's t over trials."
)
NOTHING = Interval(math.nan, math.nan, math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, eq=False)
class Ranked:
    """A run in a comparison, at its winning level or, without one, at its most accurate level.

    `settings` are those that differ between the runs. `winners` are the percentages of weights at which each trial wins
    by itself, None for a trial without a winning level. `early_stop` is None if it was not reached.
    """

    run: Records
    name: str
    settings: Mapping[str, str]
    judged: Verdict
    level: int
    percent: float  # percentage of weights remaining
    winners: Mapping[int, float | None]
    score: Interval  # test accuracy as a fraction, or loss
    early_stop: Interval | None

    @property
    def wins(self) -> bool:
        return self.judged.winning is not None

    @property
    def trials(self) -> int:
        return self.score.n


def ranked(runs: Sequence[Records]) -> list[Ranked]:
    """The runs in the order of `RANKED`, without those that have no trained ticket."""
    differing = varied(runs)
    rows = [_ranked(*row) for row in zip(runs, run_names(runs), differing, strict=True)]
    return sorted((row for row in rows if row), key=_rank)


def _rank(row: Ranked) -> tuple[bool, float, float]:
    better = row.score.value if row.judged.metric.relative else -row.score.value
    return not row.wins, row.percent if row.wins else 0.0, better


def varied(runs: Sequence[Records]) -> list[dict[str, str]]:
    """For each run, its TOML value of each setting that differs between the runs; "" if it lacks the setting."""
    texts = [as_settings(run.experiment) for run in runs]
    keys = [key for key in dict.fromkeys(key for text in texts for key in text) if key not in ("name", "about")]
    differing = [key for key in keys if len({text.get(key, "") for text in texts}) > 1]
    return [{key: text.get(key, "") for key in differing} for text in texts]


def _ranked(run: Records, name: str, settings: Mapping[str, str]) -> Ranked | None:
    judged = verdict.of(run)
    level = judged.focus.level if judged.focus else 0
    tickets = run.summary.loc[(run.summary["branch"] == "ticket") & (run.summary["status"] != "diverged")]
    results = verdict.results_of(run.summary, judged.at_the_end, judged.metric).get((level, "ticket"), {}).values()
    if not results:
        return None
    density = float(tickets.loc[tickets["level"] == level, "density"].mean())
    reached = not judged.at_the_end and all(result.reached is not False for result in results)
    early_stop = average([result.stop for result in results]) if reached else None
    score = average([result.score for result in results])
    return Ranked(run, name, settings, judged, level, 100 * density, _winners(run, judged), score, early_stop)


def _winners(run: Records, judged: Verdict) -> dict[int, float | None]:
    """The percentage of weights at which each trial wins by itself."""
    percents = {level.level: level.percent for level in judged.levels}
    winners = {}
    for trial, rows in run.summary.groupby("trial"):
        level = verdict.judge(rows, run.experiment.recipe, judged.metric).winning
        winners[int(str(trial))] = None if level is None else percents[level]
    return winners


# ---------------------------------------------------------------------------------------------------------- as a table


def table(rows: Sequence[Ranked]) -> pd.DataFrame:
    """One row per run, the best first. Densities and accuracies are fractions; missing values are blank.

    Columns: run, the settings that differ, trials, winning_density with the minimum and maximum over single trials
    (blank if a trial has no winning level), resolved (yes, no or open), level, density, test_accuracy and
    early_stop_iteration there with their 95% intervals, and matching_density. In regression, test_loss replaces
    test_accuracy.
    """
    import pandas as pd

    return pd.DataFrame([_values(row) for row in rows])


def _values(row: Ranked) -> dict[str, object]:
    least, greatest = winning_range(row) or (math.nan, math.nan)
    name = f"test_{row.judged.metric.name}"
    winning, matching = (row.judged.level(level) for level in (row.judged.winning, row.judged.matching))
    stop = row.early_stop or NOTHING
    return {
        "run": str(row.run.folder),
        **row.settings,
        "trials": row.trials,
        "winning_density": row.percent / 100 if winning else math.nan,
        "winning_density_least": least / 100,
        "winning_density_greatest": greatest / 100,
        "resolved": winning.resolved if winning else "",
        "level": row.level,
        "density": row.percent / 100,
        name: row.score.value,
        f"{name}_low": row.score.low,
        f"{name}_high": row.score.high,
        "early_stop_iteration": stop.value,
        "early_stop_iteration_low": stop.low,
        "early_stop_iteration_high": stop.high,
        "matching_density": matching.percent / 100 if matching else math.nan,
    }


def combined(runs: Sequence[Records]) -> pd.DataFrame:
    """The rows of summary.csv of all runs, preceded by the run and one column per setting that differs."""
    import pandas as pd

    parts = []
    for run, settings in zip(runs, varied(runs), strict=True):
        part = run.summary.copy()
        for i, (key, text) in enumerate({"run": str(run.folder), **settings}.items()):
            part.insert(i, key, text)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def winning_range(row: Ranked) -> tuple[float, float] | None:
    """The minimum and maximum percentage at which single trials win; None if a trial has no winning level."""
    percents = [percent for percent in row.winners.values() if percent is not None]
    return (min(percents), max(percents)) if percents and len(percents) == len(row.winners) else None


# ------------------------------------------------------------------------------------------------------------- in words

MOST_SETTINGS = 4  # maximum number of setting columns; with more, the name of the run is shown instead


def heads(rows: Sequence[Ranked]) -> list[str]:
    """The column heads for the rows of `cells`."""
    return [*_names(rows), "winning %", _measured(rows), "early stop", "matching %", "trials"]


def cells(rows: Sequence[Ranked]) -> list[list[str]]:
    """The rows of a table for readers: values with their intervals."""
    return [[*(row.settings.get(name, row.name) for name in _names(rows)), *_cells(row)] for row in rows]


def _measured(rows: Sequence[Ranked]) -> str:
    """`test accuracy %`, `test loss`, or both if runs of both tasks are compared."""
    metrics = dict.fromkeys(row.judged.metric for row in rows)
    return " / ".join(f"test {metric.name} {metric.sign}".strip() for metric in metrics)


def _names(rows: Sequence[Ranked]) -> list[str]:
    names = list(rows[0].settings) if rows else []
    return names if 0 < len(names) <= MOST_SETTINGS else ["run"]


def _cells(row: Ranked) -> list[str]:
    metric, matching = row.judged.metric, row.judged.level(row.judged.matching)
    at = "" if row.wins else f" (at {_percent(row)})"
    stop = "" if row.judged.at_the_end else "not reached"
    return [
        _winning(row),
        f"{_plus_minus(row.score, metric.unit, metric.form)}{at}",
        _plus_minus(row.early_stop, 1, ",.0f") if row.early_stop else stop,
        format_percent(matching.percent) if matching else "none",
        str(row.trials),
    ]


def _winning(row: Ranked) -> str:
    if not row.wins:
        return "none"
    single, text = winning_range(row), format_percent(row.percent)
    if row.trials == 1:
        return text
    if single is None:
        without = sum(percent is None for percent in row.winners.values())
        return f"{text} (none in {without} of {len(row.winners)} trials)"
    least, greatest = map(format_percent, single)
    return f"{text} (each trial)" if least == greatest == text else f"{text} ({least} to {greatest})"


def _plus_minus(interval: Interval, unit: float, form: str) -> str:
    text = format(unit * interval.value, form)
    return text if interval.n < 2 else f"{text} ± {format(unit * (interval.high - interval.value), form)}"


def headline(rows: Sequence[Ranked]) -> str:
    """Which runs have the sparsest winning tickets, and whether the trials tell the first from the next."""
    if not rows:
        return "Nothing is trained yet."
    first = rows[0]
    if not first.wins:
        return f"None of {len(rows)} runs has a winning level. {_best(first)}: {label(first)}, {_score(first)}."
    sparsest = [row for row in rows if row.wins and math.isclose(row.percent, first.percent)]
    tickets = f"the sparsest winning tickets, {_percent(first)} of the weights"
    if len(sparsest) > 1:
        last = sum(row.level == row.run.experiment.levels for row in sparsest)
        deeper = f" {last} of them win at their last level: prune further to tell them apart." if last else ""
        which = f"All {len(rows)} runs" if len(sparsest) == len(rows) else f"{len(sparsest)} of {len(rows)} runs"
        return f"{which} have {tickets}. {_best(first)} of them: {label(first)}, {_score(first)}.{deeper}"
    best, second = f"Of {len(rows)} runs, {label(first)} has {tickets}", next(iter(rows[1:]), None)
    if second is None or not second.wins:
        return f"{best}. No other run has a winning level."
    return f"{best}; next is {label(second)}, {_percent(second)}. {_told_apart(first, second)}"


def label(row: Ranked) -> str:
    """The name of a run in a sentence: the settings that differ, or its name if there are many or none."""
    settings = [f"{key} = {text}" for key, text in row.settings.items() if text]
    return ", ".join(settings) if 0 < len(settings) <= 2 else row.name


def _percent(row: Ranked) -> str:
    return f"{format_percent(row.percent)}%"


def _best(row: Ranked) -> str:
    return row.judged.metric.best


def _score(row: Ranked) -> str:
    return f"{row.judged.metric.text(row.score.value)} at {_percent(row)} of the weights"


def _told_apart(first: Ranked, second: Ranked) -> str:
    """Return whether the logarithms of the winning levels of paired trials differ significantly."""
    pairs = [(first.winners[trial], second.winners.get(trial)) for trial in first.winners]
    logarithms = [(math.log(a), math.log(b)) for a, b in pairs if a and b]
    n = len(logarithms)
    if n == len(pairs) >= FEWEST:
        firsts, seconds = zip(*logarithms, strict=True)
        if difference(firsts, seconds).high < 0:
            return f"The winning levels of single trials differ (95% interval, paired, {n} trials)."
    trials = "One trial does" if first.trials == 1 else f"{first.trials} trials do"
    return f"{trials} not tell the two apart."


def remarks(rows: Sequence[Ranked]) -> list[str]:
    """The limits of the comparison, and how it is ordered."""
    several = len({row.run.experiment.data.name for row in rows}) > 1
    different = ["The runs are trained on different data: their accuracies are not comparable."] if several else []
    return [*different, RANKED] if rows else []
