"""What a claim is measured by, in the paper's curves and in a run: differences and quotients over trials.

The unit is the trial. Trainings of one branch at one level of a trial share its mask, so that they are no independent
repetitions: they are averaged first. What is compared is paired: each trial's ticket with the same trial's unpruned
network or branch. Over the trials there is a mean and its 95% interval, by Student's t. A quotient of early-stop
iterations is the quotient of their means over trials, as the paper's figures give it; its interval comes from what each
trial contributes to it in first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from lth.config import Experiment, Recipe
from lth.papers import curves
from lth.papers.curves import Key
from lth.papers.setups import Fit, Setup, plays, role_of
from lth.results.records import PLACE, Records
from lth.results.statistics import family

Kind = Literal["times", "earlier", "points", "accuracy"]
Rule = Literal["near", "side", "above", "held", "same"]
Verdict = Literal["agrees", "differs", "not enough data"]
AGREES: Verdict = "agrees"
DIFFERS: Verdict = "differs"
LACKING: Verdict = "not enough data"

LAST = 0.9  # a least validation loss in the last tenth of a training may not be the least of a longer one
EARLY_STOP = 0.25  # an early-stop iteration, or a quotient of two, is near the paper's within this share of it
ACCURACY = {"mnist": 0.003, "cifar10": 0.015}  # an accuracy, or a difference of two, within these
ROUNDING = 1e-9  # sums of fractions such as 0.9793 are equal but for this

# Two-sided 95% quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
NORMAL = 1.959964


# --------------------------------------------------------------------------------------------------------- what to read


@dataclass(frozen=True)
class Term:
    """Trainings of a role at a level, or at all of a range, and the column that is read; `of`: another run's."""

    role: str
    level: int | tuple[int, int]
    column: str
    of: Setup | None = None

    @property
    def levels(self) -> tuple[int, ...]:
        return (self.level,) if isinstance(self.level, int) else tuple(range(self.level[0], self.level[1] + 1))


@dataclass(frozen=True)
class Check:
    """One measure and what is asked of it.

    times: a over b; earlier: by which share of b is a smaller; points: a less b; accuracy: a itself.
    near: within the tolerance of the paper's figure; side: not all of the interval on the other side of no difference
    than the figure, where its tolerance may reach; above: the whole interval is above no difference; held: no lower
    than no difference less the tolerance, however much higher; same: no difference, within the tolerance.
    """

    kind: Kind
    a: Term
    b: Term | None
    rules: tuple[Rule, ...]
    what: str = ""

    @property
    def null(self) -> float:
        return 1.0 if self.kind == "times" else 0.0


class Missing(NamedTuple):
    what: str


@dataclass(frozen=True)
class Measured:
    """Over n trials: the mean, its 95% interval (nan to nan for one trial), and the least and greatest trial."""

    mean: float
    low: float
    high: float
    min: float
    max: float
    n: int

    @property
    def half(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2


# --------------------------------------------------------------------------------------------------------------- a run

# What claims need of tickets' curves.csv: as further columns, each a number made of iterations and values.
FROM_CURVES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "last_val_loss_over_least": ("val_loss", lambda x, y: float(y[-1] / y.min())),
    "iteration_of_97.5%": ("test_accuracy", lambda x, y: float(x[y >= 0.975][0]) if (y >= 0.975).any() else math.nan),
}


@dataclass(frozen=True, eq=False)
class Trials:
    """A run as measures read it: its summary with each training's family and role, diverged trainings left out.

    `beside`: other runs, for claims about two experiments; trials of one number are paired.
    """

    experiment: Experiment
    fit: Fit
    table: pd.DataFrame
    rows: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]  # those of the table, by family and level
    roles: Mapping[str, str]  # of each family; "" where it plays none of the paper's
    beside: Mapping[Setup, Trials] = field(default_factory=dict)


def trials(run: Records, fit: Fit) -> Trials:
    kept = run.summary.loc[run.summary["status"] != "diverged"]
    families = {label: family(label) for label in kept["branch"].unique()}
    roles = {name: role_of(run.experiment, name, curves.roles()) or "" for name in families.values()}
    table = kept.assign(family=kept["branch"].map(families), role=kept["branch"].map(families).map(roles))
    table = _blanked(table, run.experiment.recipe)
    if fit.setup and any(not curve.level and curve.setup == fit.setup for curve in curves.curves()):
        tickets = run.curves.loc[run.curves["branch"] == "ticket"]
        table = table.merge(_from_curves(tickets), "left", list(PLACE))
    rows: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in table.to_dict("records"):
        rows.setdefault((row["family"], row["level"]), []).append({str(key): value for key, value in row.items()})
    return Trials(run.experiment, fit, table, rows, roles)


def _blanked(table: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Without what cannot be compared of trainings that are longer or shorter than the tickets'."""
    columns = [name for name in table if "accuracy" in name or "loss" in name or "early_stop" in name]
    scheduled = bool(recipe.warmup or recipe.drops)
    lost = [name for name in columns if not curves.comparable(name, True, scheduled)]
    apart = table["iterations"] != recipe.iterations
    return table.assign(**{name: table[name].mask(apart) for name in lost})


def _from_curves(evaluations: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, own in evaluations.sort_values("iteration").groupby(list(PLACE)):
        row: dict[str, Any] = {name: own[name].iloc[0] for name in PLACE}
        for name, (column, number) in FROM_CURVES.items():
            x, y = own.loc[own[column].notna(), ["iteration", column]].to_numpy(dtype=float).T
            row[name] = number(x, y) if len(x) else math.nan
        rows.append(row)
    return pd.DataFrame(rows, columns=[*PLACE, *FROM_CURVES])


def read(run: Trials, term: Term) -> dict[int, float] | Missing:
    """The value of a term in each trial, its mean over the levels; or what is missing. Only trials with all levels."""
    if term.of and term.of != run.fit.setup:
        if other := run.beside.get(term.of):
            return read(other, term)
        return Missing(f"another run, `{term.of.command}`: give its folder too")
    if run.fit.iterations and not curves.comparable(term.column, True, run.fit.scheduled):
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
        if any(row["iterations"] != run.experiment.recipe.iterations for own in by_level.values() for row in own):
            return Missing(f"trainings of {term.role} that are as long as the tickets'")
        return Missing(f"{term.column}, which is blank here")
    if short := [row for level, own in by_level.items() if too_short(run, term.role, level, own) for row in own]:
        most = int(max(row["iterations"] for row in short))
        return Missing(f"longer trainings of {term.role}: {most:,} iterations may end before early stop")
    return by_trial(rows, term.column, term.levels) or Missing("a trial that has all of the levels")


def by_trial(rows: Iterable[Mapping[str, Any]], column: str, levels: Collection[int]) -> dict[int, float]:
    """The mean over levels of the means at each, of those trials that have all `levels`."""
    values: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        if not math.isnan(row[column]):
            values.setdefault(int(row["trial"]), {}).setdefault(row["level"], []).append(row[column])
    mean = lambda numbers: math.fsum(numbers) / len(numbers)
    return {t: mean([*map(mean, own.values())]) for t, own in sorted(values.items()) if len(own) == len(levels)}


def too_short(run: Trials, role: str, level: int, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether trainings that are shorter than the paper's may have ended before their early stop.

    So it is where the paper's own early stops come later than these end, and where one of the `rows` is `cut_off`: to
    leave that one out alone would make the mean of the others too small.
    """
    if run.fit.setup is None:
        return False
    theirs = run.fit.iterations[0] if run.fit.iterations else run.experiment.recipe.iterations
    latest = curves.latest_early_stop(run.fit.setup, role, level)
    return any(row["iterations"] < theirs and (latest > row["iterations"] or cut_off(row)) for row in rows)


def cut_off(row: Mapping[str, Any]) -> bool:
    """Whether the least validation loss comes so late that a longer training may have had a lower one."""
    return bool(row["early_stop_iteration"] > LAST * row["iterations"])


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


def measure(run: Trials, check: Check) -> Measured | Missing:
    """The check's measure over the trials that have all it needs, or what is missing."""
    a, b = read(run, check.a), None if check.b is None else read(run, check.b)
    if isinstance(a, Missing) or isinstance(b, Missing):
        return Missing("; ".join(dict.fromkeys(term.what for term in (a, b) if isinstance(term, Missing))))
    if b is None:
        return over_trials(check.kind, np.array([*a.values()]))
    if not (both := sorted({*a} & {*b})):
        return Missing("a trial that has both")
    return over_trials(check.kind, np.array([a[t] for t in both]), np.array([b[t] for t in both]))


def over_trials(kind: Kind, a: np.ndarray, b: np.ndarray | None = None) -> Measured:
    """The mean of a measure over trials, its interval, and its least and greatest trial."""
    if b is None:
        return _student(a, a)
    if kind == "points":
        return _student(a - b, a - b)
    quotient = a.mean() / b.mean()
    contributions = quotient + (a - quotient * b) / b.mean()  # whose mean is the quotient
    if kind == "earlier":
        return _student(1 - contributions, 1 - a / b)
    return _student(contributions, a / b)


def _student(values: np.ndarray, each: np.ndarray) -> Measured:
    n, mean = len(values), float(values.mean())
    half = student(n - 1) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    least, greatest = float(each.min()), float(each.max())
    mean = min(max(mean, least), greatest)  # rounding can put it beside equal values
    return Measured(mean, mean - half, mean + half, least, greatest, n)


def student(freedom: int) -> float:
    """The two-sided 95% quantile of Student's t, to four digits."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return NORMAL + (NORMAL**3 + NORMAL) / (4 * freedom) + (5 * NORMAL**5 + 16 * NORMAL**3) / (96 * freedom**2)


# ----------------------------------------------------------------------------------------------------------- the paper


def figure_value(check: Check, of: Setup, figures: tuple[str, ...]) -> float | None:
    """The same measure in the paper's own means; None where its figures do not have it."""
    a = _plotted(check.a, of, figures)
    if check.b is None or a is None:
        return a
    if (b := _plotted(check.b, of, figures)) is None:
        return None
    return {"times": a / b, "earlier": 1 - a / b, "points": a - b}[check.kind]


def _plotted(term: Term, of: Setup, figures: tuple[str, ...]) -> float | None:
    of = term.of or of
    if term.column in FROM_CURVES:
        return _by_iteration(term, of)
    curve = curves.by_density(figures).get(Key(of, term.role, term.column))
    points = curve.means if curve else {}
    if 0 not in points and term.levels == (0,) and (resetting := _resetting(of)):
        return _plotted(term, resetting, figures)
    values = [points.get(level, math.nan) for level in term.levels]
    return None if any(map(math.isnan, values)) else math.fsum(values) / len(values)


def _resetting(of: Setup) -> Setup | None:
    """The experiment of strategy 1 beside one of strategy 2: the unpruned network is plotted there for both."""
    if of == Setup("lenet-continued"):
        return Setup("lenet")
    rest = tuple(setting for setting in of.settings if setting != ("strategy", "continued"))
    return Setup(of.preset, rest) if rest != of.settings else None


def _by_iteration(term: Term, of: Setup) -> float | None:
    column, number = FROM_CURVES[term.column]
    (level,) = term.levels
    ladder = curves.by_density()[Key(of, "ticket", "early_stop_iteration")]
    percent = dict(zip(ladder.level, ladder.x, strict=True))[level]
    for curve in curves.curves():
        if (curve.setup, curve.role, curve.column) == (of, term.role, column) and curve.percent == round(percent, 1):
            return number(np.array(curve.x), np.array(curve.mean))
    return None


def figures_read(check: Check, of: Setup, figures: tuple[str, ...]) -> list[str]:
    """Which of `figures` the check's values are taken from."""
    known = curves.by_density(figures)
    keys = [Key(term.of or of, term.role, term.column) for term in (check.a, check.b) if term]
    return list(dict.fromkeys(known[key].figure for key in keys if key in known)) or list(figures)


# ------------------------------------------------------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Judged:
    """A check, what the paper's figure gives for it, what the run gives, and the verdict with what it lacks."""

    check: Check
    figure: float | None
    run: Measured | None
    verdict: Verdict
    missing: str = ""


def judge(run: Trials, check: Check, of: Setup, figures: tuple[str, ...]) -> Judged:
    """Hold one check against a run: each of its rules has to hold."""
    figure = figure_value(check, of, figures)
    found = measure(run, check)
    if isinstance(found, Missing):
        return Judged(check, figure, None, LACKING, found.what)
    if found.n < 2:
        return Judged(check, figure, found, LACKING, "a second trial: one alone has no interval")
    tolerance = ACCURACY[run.experiment.data.name]
    verdict = worst([by_rule(rule, check, figure, found, tolerance) for rule in check.rules])
    lacking = f"more trials: the interval of {found.n} reaches both sides" if verdict == LACKING else ""
    return Judged(check, figure, found, verdict, lacking)


def by_rule(rule: Rule, check: Check, figure: float | None, found: Measured, tolerance: float) -> Verdict:
    """The verdict of a rule: by the mean for a range, by the whole interval for a side."""
    if rule == "above":
        low, high = found.low - check.null, found.high - check.null
        return AGREES if low > ROUNDING else DIFFERS if high <= ROUNDING else LACKING
    if rule == "side":
        assert figure is not None, check
        return DIFFERS if found.high < check.null < figure or figure < check.null < found.low else AGREES
    centre = figure if rule == "near" else check.null
    assert centre is not None, check
    low, high = around(check.kind, centre, tolerance)
    if rule == "held":
        high = math.inf
    if low - ROUNDING <= found.mean <= high + ROUNDING:
        return AGREES
    return DIFFERS if found.high < low or found.low > high else LACKING


def around(kind: Kind, centre: float, tolerance: float) -> tuple[float, float]:
    """The range that counts as near: of quotients a share, of accuracies and their differences so many points."""
    if kind == "times":
        return centre * (1 - EARLY_STOP), centre * (1 + EARLY_STOP)
    if kind == "earlier":  # the share of a quotient, again
        return 1 - (1 - centre) * (1 + EARLY_STOP), 1 - (1 - centre) * (1 - EARLY_STOP)
    return centre - tolerance, centre + tolerance


def worst(verdicts: Collection[Verdict]) -> Verdict:
    """What all of them together come to: one that differs is enough to differ."""
    return DIFFERS if DIFFERS in verdicts else LACKING if LACKING in verdicts else AGREES


# ---------------------------------------------------------------------------------------------------------------- words


def value_said(kind: Kind, value: float) -> str:
    """A measure in words: `2.16 times`, `19.5% earlier`, `+0.41 points`, `98.37%`."""
    if kind == "earlier":
        return f"{100 * abs(value):.1f}% {'later' if value < 0 else 'earlier'}"
    unit = {"times": " times", "points": " points", "accuracy": "%"}[kind]
    return number_said(kind, value) + unit


def number_said(kind: Kind, value: float) -> str:
    if kind == "times":
        return f"{value:.2f}"
    if kind == "earlier":
        return f"{100 * value:.1f}"
    return f"{100 * value:+.2f}" if kind == "points" else f"{100 * value:.2f}"


def measured_said(kind: Kind, found: Measured) -> str:
    """`2.16 times +- 0.40 (1.80 to 2.61, n = 5)`: the mean, half of its interval, and the extremes over trials."""
    low, high = (number_said(kind, value) for value in (found.min, found.max))
    if found.n == 1:
        return f"{value_said(kind, found.mean)} (n = 1)"
    half = f"{found.half:.2f}" if kind == "times" else f"{100 * found.half:.{1 if kind == 'earlier' else 2}f}"
    return f"{value_said(kind, found.mean)} ± {half} ({low} to {high}, n = {found.n})"
