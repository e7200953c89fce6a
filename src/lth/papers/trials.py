"""The values of a run by trial, for measures.

The unit is the trial. The trainings of one branch at one level of a trial share its mask and are not independent
repetitions, so they are averaged first. Comparisons are paired: each trial's ticket with the unpruned network or the
branch of the same trial.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from lth.config import Experiment, Recipe
from lth.papers.claims import Term
from lth.papers.curves import comparable, latest_early_stop, roles
from lth.papers.paper import Derived, Paper, known_setups
from lth.papers.setups import Fit, Setup, fit, plays, role_of
from lth.results.records import PLACE, Records
from lth.results.statistics import family

LAST_TENTH = (
    0.9  # fraction of the iterations after which a minimum of validation loss may not be that of a longer training
)


class Missing(NamedTuple):
    """The data that a run lacks for a measure."""

    what: str


@dataclass(frozen=True, eq=False)
class Trials:
    """A run: its summary with the family and role of each training, without diverged trainings.

    `rows` are those of `table`, by family and level. `roles` are those of families in the paper, "" for none.
    `beside`: other runs, for claims about two experiments; trials with equal number are paired.
    """

    experiment: Experiment
    paper: Paper
    fit: Fit
    table: pd.DataFrame
    rows: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]
    roles: Mapping[str, str]
    beside: Mapping[Setup, Trials] = field(default_factory=dict)


def trials(run: Records, paper: Paper) -> Trials:
    """A run in the form that the claims of a paper read."""
    relation = fit(run.experiment, known_setups(paper))
    summary = run.summary.loc[run.summary["status"] != "diverged"]
    families = {label: family(label) for label in summary["branch"].unique()}
    played = {name: role_of(run.experiment, name, roles(paper)) or "" for name in families.values()}
    table = summary.assign(family=summary["branch"].map(families), role=summary["branch"].map(families).map(played))
    table = _blanked(table, run.experiment.recipe)
    if relation.setup and any(not curve.level and curve.setup == relation.setup for curve in paper.curves):
        tickets = run.curves.loc[run.curves["branch"] == "ticket"]
        table = table.merge(_from_curves(tickets, paper.derived), "left", list(PLACE))
    rows: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in table.to_dict("records"):
        rows.setdefault((row["family"], row["level"]), []).append({str(key): value for key, value in row.items()})
    return Trials(run.experiment, paper, relation, table, rows, played)


def _blanked(table: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The table without values that cannot be compared, of trainings that are longer or shorter than the tickets'."""
    columns = [name for name in table if "accuracy" in name or "loss" in name or "early_stop" in name]
    scheduled = bool(recipe.warmup or recipe.drops)
    lost = [name for name in columns if not comparable(name, True, scheduled)]
    apart = table["iterations"] != recipe.iterations
    return table.assign(**{name: table[name].mask(apart) for name in lost})


def _from_curves(evaluations: pd.DataFrame, derived: Mapping[str, Derived]) -> pd.DataFrame:
    """The paper's derived columns, one row per training."""
    rows = []
    for _, curve in evaluations.sort_values("iteration").groupby(list(PLACE)):
        row: dict[str, Any] = {name: curve[name].iloc[0] for name in PLACE}
        for name, (column, number) in derived.items():
            x, y = curve.loc[curve[column].notna(), ["iteration", column]].to_numpy(dtype=float).T
            row[name] = number(x, y) if len(x) else math.nan
        rows.append(row)
    return pd.DataFrame(rows, columns=[*PLACE, *derived])


def read(run: Trials, term: Term) -> dict[int, float] | Missing:
    """The value of a term in each trial that has all its levels (the mean over levels), or what is missing."""
    if term.of and term.of != run.fit.setup:
        if other := run.beside.get(term.of):
            return read(other, term)
        return Missing(f"another run, `{term.of.command}`: give its folder too")
    if run.fit.iterations and not comparable(term.column, True, run.fit.scheduled):
        theirs, ours = run.fit.iterations
        return Missing(f"trainings of {theirs:,} iterations; these have {ours:,}")
    families = [name for name, role in run.roles.items() if role == term.role]
    if not families:
        return Missing(_branch_missing(run.experiment, term.role))
    by_level = {level: [row for name in families for row in run.rows.get((name, level), ())] for level in term.levels}
    if absent := [level for level, rows in by_level.items() if not rows]:
        return Missing(_levels_missing(run.experiment, term.role, absent))
    rows = [row for rows in by_level.values() for row in rows if not math.isnan(row.get(term.column, math.nan))]
    if not rows:
        return Missing(_column_missing(run, term, [row for rows in by_level.values() for row in rows]))
    if short := [row for level, rows in by_level.items() if too_short(run, term.role, level, rows) for row in rows]:
        most = int(max(row["iterations"] for row in short))
        return Missing(f"longer trainings of {term.role}: {most:,} iterations may end before early stop")
    return by_trial(rows, term.column, term.levels) or Missing("a trial that has all of the levels")


def by_trial(rows: Iterable[Mapping[str, Any]], column: str, levels: Collection[int]) -> dict[int, float]:
    """For each trial that has all `levels`, the mean over levels of the means at each."""
    values: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        if not math.isnan(row[column]):
            values.setdefault(int(row["trial"]), {}).setdefault(row["level"], []).append(row[column])
    mean = lambda numbers: math.fsum(numbers) / len(numbers)
    return {t: mean([*map(mean, at.values())]) for t, at in sorted(values.items()) if len(at) == len(levels)}


def too_short(run: Trials, role: str, level: int, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether trainings shorter than the paper's may have ended before their early stop.

    They may if the paper's own early stops come later than their end, or if one of `rows` is `cut_off`: leaving only
    that one out would bias the mean of the others.
    """
    if run.fit.setup is None:
        return False
    theirs = run.fit.iterations[0] if run.fit.iterations else run.experiment.recipe.iterations
    latest = latest_early_stop(run.paper, run.fit.setup, role, level)
    return any(row["iterations"] < theirs and (latest > row["iterations"] or cut_off(row)) for row in rows)


def cut_off(row: Mapping[str, Any]) -> bool:
    """Return whether the minimum of validation loss is so late that a longer training may have had a lower one."""
    return bool(row["early_stop_iteration"] > LAST_TENTH * row["iterations"])


def _branch_missing(experiment: Experiment, role: str) -> str:
    if role == "ticket":
        return "tickets: nothing is trained yet"
    if any(plays(branch, role) for branch in experiment.branch):
        return f"trainings of {role}"
    return f"the branch {role}: `--branches {role}{':3' * (role == 'reinit')}`"


def _levels_missing(experiment: Experiment, role: str, levels: Collection[int]) -> str:
    few = f"level {min(levels)}" if len(levels) == 1 else f"levels {min(levels)} to {max(levels)}"
    if max(levels) > experiment.levels:
        return f"{few}: `--levels {max(levels)}`"
    return f"{few}{'' if role == 'ticket' else f' of {role}'}, trained without diverging"


def _column_missing(run: Trials, term: Term, rows: Sequence[Mapping[str, Any]]) -> str:
    if any(row["iterations"] != run.experiment.recipe.iterations for row in rows):
        return f"trainings of {term.role} that are as long as the tickets'"
    return f"{term.column}, which is blank here"
