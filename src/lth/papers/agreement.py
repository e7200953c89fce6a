"""How closely the curves of a run agree with those of a paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lth.papers.claims import ES, LAST, TEST
from lth.papers.curves import Curve, by_density, comparable
from lth.papers.judging import ACCURACY, EARLY_STOP, ROUNDING
from lth.papers.trials import Trials, too_short
from lth.results.statistics import aggregate, branch_order

MAIN = (ES, TEST, LAST)


@dataclass(frozen=True)
class Agreement:
    """A curve of the paper and of the run: the levels at which the run's mean is within the paper's error bar or
    tolerance.
    """

    curve: Curve
    levels: tuple[int, ...]  # number of compared levels
    within: tuple[int, ...]  # of `levels`, those that agree
    inside: tuple[int, ...]  # of `within`, those inside the error bar
    level: int  # level of the largest departure
    departure: float  # departure there: a fraction of the paper's early stop, or a difference of accuracies
    means: tuple[float, float]  # values there, of the paper and the run
    n: tuple[int, ...]  # number of trainings at each level
    left_out: tuple[int, ...] = ()  # levels at which the run's trainings are too short

    @property
    def share(self) -> float:
        """The fraction of levels that agree."""
        return len(self.within) / len(self.levels)

    @property
    def of(self) -> str:
        """The quantity of the curve."""
        return f"{self.curve.role}: {self.curve.column.replace('_', ' ')}"

    @property
    def furthest(self) -> str:
        """The largest departure in words."""
        percent = self.curve.x[self.curve.level.index(self.level)]
        theirs, ours = self.means
        if self.curve.column == ES:
            return f"{self.departure:+.0%} at {percent:.3g}%: {ours:,.0f}, the paper's {theirs:,.0f}"
        return f"{100 * self.departure:+.2f} points at {percent:.3g}%: {100 * ours:.2f}, the paper's {100 * theirs:.2f}"


def agreements(run: Trials) -> Iterator[Agreement]:
    """The agreement of the paper's curves with the run, by column and role, if they share levels."""
    if run.fit.setup is None:
        return
    curves = [curve for key, curve in by_density(run.paper).items() if key.setup == run.fit.setup]
    for curve in sorted(curves, key=lambda curve: (_rank(curve.column), branch_order(curve.role))):
        if comparable(curve.column, run.fit.iterations is not None, run.fit.scheduled):
            yield from _agreement(run, curve)


def _rank(column: str) -> int:
    """The columns of MAIN come first."""
    return MAIN.index(column) if column in MAIN else len(MAIN)


def _agreement(run: Trials, curve: Curve) -> Iterator[Agreement]:
    """The agreement of one curve, if the run has levels of it."""
    rows = run.table.loc[run.table["role"] == curve.role]
    if curve.column not in rows or not rows[curve.column].notna().any():
        return
    short = _too_short(run, curve.role, rows)
    table = aggregate(rows.loc[~rows["level"].isin(short)], curve.column, ["level"])
    ours = {int(level): (float(mean), int(n)) for level, mean, n in table[["level", "mean", "n"]].to_numpy()}
    at = {level: i for i, level in enumerate(curve.level) if level in ours}
    if not at:
        return
    departures = {level: _departure(curve, i, ours[level][0]) for level, i in at.items()}
    worst = max(departures, key=lambda level: abs(departures[level]))
    inside = [n for n, i in at.items() if curve.low[i] - ROUNDING <= ours[n][0] <= curve.high[i] + ROUNDING]
    yield Agreement(
        curve,
        levels=tuple(at),
        within=_within(departures, inside, _tolerance(run, curve)),
        inside=tuple(inside),
        level=worst,
        departure=departures[worst],
        means=(curve.mean[at[worst]], ours[worst][0]),
        n=tuple(ours[level][1] for level in at),
        left_out=tuple(level for level in short if level in curve.level),
    )


def _too_short(run: Trials, role: str, rows: pd.DataFrame) -> list[int]:
    """The levels at which trainings may have ended before their early stop."""
    levels = sorted(rows["level"].unique().tolist())
    return [n for n in levels if too_short(run, role, n, _rows(rows, n))]


def _rows(rows: pd.DataFrame, level: int) -> list[dict[str, Any]]:
    table = rows.loc[rows["level"] == level].to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in table]


def _tolerance(run: Trials, curve: Curve) -> float:
    return EARLY_STOP if curve.column == ES else ACCURACY[run.experiment.data.name]


def _within(departures: Mapping[int, float], inside: Sequence[int], tolerance: float) -> tuple[int, ...]:
    return tuple(n for n, departure in departures.items() if n in inside or abs(departure) <= tolerance + ROUNDING)


def _departure(curve: Curve, i: int, ours: float) -> float:
    theirs = curve.mean[i]
    return ours / theirs - 1 if curve.column == ES else ours - theirs
