"""The results of a run by itself: its winning level, and which of its networks differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lth.papers.claims import ES, TEST, Kind
from lth.papers.intervals import Measured, over_trials
from lth.papers.judging import ROUNDING
from lth.papers.trials import Trials, by_trial, cut_off
from lth.results import sentences, verdict
from lth.results.metrics import metric_of
from lth.results.records import Records
from lth.results.statistics import aggregate, branch_order

Bound = Literal["", "at least", "at most"]


@dataclass(frozen=True)
class Statement:
    """Two networks of a run at a level: do they differ?

    `run` is a minus b, or a over b for early-stop iterations. With a bound, trainings of a or b may have ended before
    their early stop, and `run` is that bound alone.
    """

    a: str
    b: str
    level: int
    percent: float
    column: str
    kind: Kind
    run: Measured
    differ: bool | None  # None if it is unknown
    bound: Bound = ""

    @property
    def what(self) -> str:
        """The compared networks and quantity."""
        quantity = "early-stop iteration" if self.column == ES else "test accuracy at early stop"
        return f"{quantity}: {self.a} over {self.b}"

    @property
    def verdict(self) -> str:
        """The answer as text."""
        if self.differ is None:
            return "one trial: no interval" if self.run.n < 2 else "may have ended before early stop"
        return "differ" if self.differ else "not resolved"


@dataclass(frozen=True)
class Count:
    """The numbers of levels at which a is more, and less, accurate than b by the 95% interval."""

    a: str
    b: str
    more: int
    less: int
    levels: int


def winning(run: Records) -> str:
    """The verdict on the run by itself, as sentences."""
    if not len(run.summary):
        return "Nothing is trained yet."
    judged = verdict.of(run)
    return " ".join([sentences.headline(judged), *sentences.remarks(judged), *sentences.method(judged)])


def statements(run: Trials) -> Iterator[Statement]:
    """Comparisons of the unpruned network, the ticket and each branch at the winning level or that of `_level`."""
    level = _level(run)
    if level is None:
        return
    for a, b in _pairs(run):
        for column in (TEST, ES):
            if statement := compare(run, level, a, b, column):
                yield statement


def _level(run: Trials) -> int | None:
    """The winning level; without one, the level of the most accurate tickets."""
    level = verdict.judge(run.table, run.experiment.recipe, metric_of(run.experiment)).winning
    tickets = run.table.loc[(run.table["family"] == "ticket") & (run.table["level"] > 0)]
    if level is not None or not tickets[TEST].notna().any():
        return level
    means = aggregate(tickets, TEST, ["level"])
    return int(means["level"].iloc[int(means["mean"].to_numpy().argmax())])


def _pairs(run: Trials) -> list[tuple[str, str]]:
    """The compared networks: each with the unpruned one, and the ticket with each branch."""
    branches = sorted({*run.table["family"]} - {"ticket"}, key=branch_order)
    return [("ticket", "dense"), *((name, "dense") for name in branches), *(("ticket", name) for name in branches)]


def compare(run: Trials, level: int, a: str, b: str, column: str) -> Statement | None:
    """Two networks of a run at a level, over the trials that have both; None if there are none, or no early stops."""
    first, second = _by_trial(run, a, level, column), _by_trial(run, b, level, column)
    both = sorted({*first} & {*second})
    if not both:
        return None
    kind: Kind = "times" if column == ES else "points"
    measured = over_trials(kind, np.array([first[t] for t in both]), np.array([second[t] for t in both]))
    late = tuple(column == ES and any(map(cut_off, _rows(run, name, level))) for name in (a, b))
    if all(late):
        return None
    bound: Bound = "at least" if late[0] else "at most" if late[1] else ""
    differ = _differ(measured, 1.0 if kind == "times" else 0.0, bound)
    return Statement(a, b, level, _percent(run, level), column, kind, measured, differ, bound)


def _differ(measured: Measured, null: float, bound: Bound) -> bool | None:
    """Return whether the interval excludes no difference; None for one trial, or if a bound leaves it open."""
    above, below = measured.low > null + ROUNDING, measured.high < null - ROUNDING
    known = {"": True, "at least": above, "at most": below}[bound]
    return (above or below) if known and measured.n > 1 else None


def _by_trial(run: Trials, name: str, level: int, column: str) -> dict[int, float]:
    return by_trial(_rows(run, name, level), column, (0 if name == "dense" else level,))


def _rows(run: Trials, name: str, level: int) -> Sequence[Mapping[str, Any]]:
    return run.rows.get(("ticket", 0) if name == "dense" else (name, level), ())


def _percent(run: Trials, level: int) -> float:
    return 100 * float(np.mean(run.table.loc[run.table["level"] == level, "density"]))


def counts(run: Trials) -> Iterator[Count]:
    """For each pair of networks, at how many levels, each by itself, their test accuracies differ."""
    levels = sorted({int(level) for level in run.table["level"]} - {0})
    for a, b in _pairs(run):
        known = [s for level in levels if (s := compare(run, level, a, b, TEST)) and s.differ is not None]
        more, less = (sum(s.differ is True and sign * s.run.mean > 0 for s in known) for sign in (1, -1))
        if known:
            yield Count(a, b, more, less, len(known))
