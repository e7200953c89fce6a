"""Judge checks for a run: the measure in the paper's figure and in the run, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lth.papers.claims import Check, Kind, Rule, Term
from lth.papers.curves import Key, by_density
from lth.papers.intervals import Measured, over_trials
from lth.papers.paper import Derived, Paper
from lth.papers.setups import Setup
from lth.papers.trials import Missing, Trials, read

Verdict = Literal["agrees", "differs", "not enough data"]
AGREES: Verdict = "agrees"
DIFFERS: Verdict = "differs"
LACKING: Verdict = "not enough data"

EARLY_STOP = 0.25  # tolerance of early-stop iterations and of their quotients: a fraction of the paper's value
ACCURACY = {"mnist": 0.003, "cifar10": 0.015}  # tolerance of accuracies and of their differences, by dataset
ROUNDING = 1e-9  # sums of fractions such as 0.9793 differ in their last bits


@dataclass(frozen=True)
class Judged:
    """A check, its value in the paper's figure and in the run, and the verdict with the missing data."""

    check: Check
    figure: float | None
    run: Measured | None
    verdict: Verdict
    missing: str = ""


def judge(run: Trials, check: Check, of: Setup, figures: tuple[str, ...]) -> Judged:
    """Judge one check for a run: it must pass each of its rules."""
    figure = figure_value(run.paper, check, of, figures)
    measured = measure(run, check)
    if isinstance(measured, Missing):
        return Judged(check, figure, None, LACKING, measured.what)
    if measured.n < 2:
        return Judged(check, figure, measured, LACKING, "a second trial: one alone has no interval")
    tolerance = ACCURACY[run.experiment.data.name]
    verdict = worst([by_rule(rule, check, figure, measured, tolerance) for rule in check.rules])
    missing = f"more trials: the interval of {measured.n} reaches both sides" if verdict == LACKING else ""
    return Judged(check, figure, measured, verdict, missing)


def by_rule(rule: Rule, check: Check, figure: float | None, measured: Measured, tolerance: float) -> Verdict:
    """The verdict of a rule: by the mean for a range, by the whole interval for a side."""
    if rule == "above":
        low, high = measured.low - check.null, measured.high - check.null
        return AGREES if low > ROUNDING else DIFFERS if high <= ROUNDING else LACKING
    if rule == "side":
        assert figure is not None, check
        return DIFFERS if measured.high < check.null < figure or figure < check.null < measured.low else AGREES
    centre = figure if rule == "near" else check.null
    assert centre is not None, check
    low, high = around(check.kind, centre, tolerance)
    if rule == "held":
        high = math.inf
    if low - ROUNDING <= measured.mean <= high + ROUNDING:
        return AGREES
    return DIFFERS if measured.high < low or measured.low > high else LACKING


def around(kind: Kind, centre: float, tolerance: float) -> tuple[float, float]:
    """The range of values near `centre`: a fraction of quotients, points of accuracies and their differences."""
    if kind == "times":
        return centre * (1 - EARLY_STOP), centre * (1 + EARLY_STOP)
    if kind == "earlier":  # the fraction of the quotient itself
        return 1 - (1 - centre) * (1 + EARLY_STOP), 1 - (1 - centre) * (1 - EARLY_STOP)
    return centre - tolerance, centre + tolerance


def worst(verdicts: Collection[Verdict]) -> Verdict:
    """The verdict of several rules together: if one differs, the result is "differs"."""
    return DIFFERS if DIFFERS in verdicts else LACKING if LACKING in verdicts else AGREES


# ------------------------------------------------------------------------------------------------------------- measures


def measure(run: Trials, check: Check) -> Measured | Missing:
    """The measure of a check over the trials that have all its data, or what is missing."""
    a, b = read(run, check.a), None if check.b is None else read(run, check.b)
    if isinstance(a, Missing) or isinstance(b, Missing):
        return Missing("; ".join(dict.fromkeys(term.what for term in (a, b) if isinstance(term, Missing))))
    if b is None:
        return over_trials(check.kind, np.array([*a.values()]))
    if not (both := sorted({*a} & {*b})):
        return Missing("a trial that has both")
    return over_trials(check.kind, np.array([a[t] for t in both]), np.array([b[t] for t in both]))


def figure_value(paper: Paper, check: Check, of: Setup, figures: tuple[str, ...]) -> float | None:
    """The same measure of the paper's own means; None if its figures do not show them."""
    a = _plotted(paper, check.a, of, figures)
    if check.b is None or a is None:
        return a
    if (b := _plotted(paper, check.b, of, figures)) is None:
        return None
    return {"times": a / b, "earlier": 1 - a / b, "points": a - b}[check.kind]


def _plotted(paper: Paper, term: Term, of: Setup, figures: tuple[str, ...]) -> float | None:
    of = term.of or of
    if derived := paper.derived.get(term.column):
        return _by_iteration(paper, term, of, derived)
    curve = by_density(paper, figures).get(Key(of, term.role, term.column))
    points = curve.means if curve else {}
    if 0 not in points and term.levels == (0,) and (other := paper.dense_of(of)):
        return _plotted(paper, term, other, figures)
    values = [points.get(level, math.nan) for level in term.levels]
    return None if any(map(math.isnan, values)) else math.fsum(values) / len(values)


def _by_iteration(paper: Paper, term: Term, of: Setup, derived: Derived) -> float | None:
    """A derived column, computed from a curve by iteration."""
    column, number = derived
    (level,) = term.levels
    ladder = by_density(paper)[Key(of, "ticket", "early_stop_iteration")]
    percent = dict(zip(ladder.level, ladder.x, strict=True))[level]
    for curve in paper.curves:
        if (curve.setup, curve.role, curve.column) == (of, term.role, column) and curve.percent == round(percent, 1):
            return number(np.array(curve.x), np.array(curve.mean))
    return None


def figures_read(paper: Paper, check: Check, of: Setup, figures: tuple[str, ...]) -> list[str]:
    """The figures from which the values of a check are taken."""
    curves = by_density(paper, figures)
    keys = [Key(term.of or of, term.role, term.column) for term in (check.a, check.b) if term]
    return list(dict.fromkeys(curves[key].figure for key in keys if key in curves)) or list(figures)
