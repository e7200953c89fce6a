"""The score card of a run: the paper's claims and curves against it, and what it says by itself.

card(run)     the card as a value, made of tables alone: the run's, and further runs' for claims about two experiments
as_json(card) plain lists and dicts
render(card)  tables for a terminal
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lth import config
from lth.papers import curves, setups
from lth.papers.claims import CLAIMS, Claim, claims_of
from lth.papers.curves import Curve
from lth.papers.measure import (
    ACCURACY,
    AGREES,
    DIFFERS,
    EARLY_STOP,
    LACKING,
    ROUNDING,
    Judged,
    Kind,
    Measured,
    Trials,
    Verdict,
    by_trial,
    cut_off,
    figures_read,
    judge,
    measured_said,
    over_trials,
    too_short,
    trials,
    value_said,
    worst,
)
from lth.papers.setups import Fit, Setup, fit
from lth.results.captions import format_diverged, format_length, format_trials
from lth.results.records import Records
from lth.results.statistics import aggregate, beside_dense, branch_order, winning_level

ES, TEST = "early_stop_iteration", "test_accuracy_at_early_stop"
MAIN = (ES, TEST, "final_test_accuracy")
METHOD = (
    "Mean over trials ± half of its 95% interval (Student's t); in brackets the least and the greatest of n trials. "
    "Trainings of one branch in one trial are averaged first; differences and quotients are paired within trials, a "
    "quotient being that of the means. Two networks differ beyond the spread of trials where the interval leaves out "
    "that they do not."
)
JUDGED = (
    "Judged by the paper's figure: a value agrees where its mean is within {es:.0%} of the figure's (early stops) or "
    "{accuracy:g} points (accuracies, and differences of two), and differs where its whole interval is outside, or, "
    "where the claim is of a side, on the other side of no difference. A claim that one thing is above another agrees"
    " where the whole interval is above, and differs where none of it is; one that something holds or improves agrees"
    " where its mean is lower by no more than that. Else more trials are needed. A curve is within where the run's "
    "mean is within the paper's error bar, or as near as this."
)


@dataclass(frozen=True)
class Score:
    """A claim and how the run does by it."""

    claim: Claim
    judged: tuple[Judged, ...]
    verdict: Verdict

    @property
    def figure(self) -> str:
        """What the paper's own figure gives, in words."""
        given = [self._labelled(j, value_said(j.check.kind, j.figure)) for j in self.judged if j.figure is not None]
        read = [figures_read(j.check, self.claim.setup, self.claim.figures) for j in self.judged]
        numbers = list(dict.fromkeys(itertools.chain(*read))) or self.claim.figures
        said = "; ".join([*given, *([self.claim.note] if self.claim.note else [])])
        where = f"figure{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else "no figure"
        return f"{said} ({where})" if said else where

    @property
    def run(self) -> str:
        """What the run gives, in words."""
        given = [self._labelled(j, measured_said(j.check.kind, j.run)) for j in self.judged if j.run]
        return "; ".join(given) or "-"

    def _labelled(self, judged: Judged, said: str) -> str:
        return f"{judged.check.what}: {said}" if len(self.judged) > 1 else said

    @property
    def missing(self) -> str:
        """What is missing for a verdict; nothing where there is one."""
        if self.verdict != LACKING:
            return ""
        parts = [part for j in self.judged if j.missing for part in j.missing.split("; ")]
        return "; ".join(dict.fromkeys(parts)) or self.claim.lacks


@dataclass(frozen=True)
class Against:
    """A curve of the paper and the run's: at how many levels its mean is within the paper's bar or the tolerance."""

    curve: Curve
    levels: tuple[int, ...]  # compared
    within: tuple[int, ...]  # of them
    inside: tuple[int, ...]  # of these, those inside the bar itself
    level: int  # of the largest departure
    departure: float  # there: of an early stop as a share of the paper's, of an accuracy as a difference
    means: tuple[float, float]  # there, the paper's and the run's
    n: tuple[int, ...]  # trainings at each level
    left_out: tuple[int, ...] = ()  # levels at which the run's trainings are too short

    @property
    def share(self) -> float:
        return len(self.within) / len(self.levels)

    @property
    def of(self) -> str:
        return f"{self.curve.role}: {self.curve.column.replace('_', ' ')}"

    @property
    def furthest(self) -> str:
        """The largest departure in words."""
        percent = self.curve.x[self.curve.level.index(self.level)]
        theirs, ours = self.means
        if self.curve.column == ES:
            return f"{self.departure:+.0%} at {percent:.3g}%: {ours:,.0f}, the paper's {theirs:,.0f}"
        return f"{100 * self.departure:+.2f} points at {percent:.3g}%: {100 * ours:.2f}, the paper's {100 * theirs:.2f}"


Bound = Literal["", "at least", "at most"]


@dataclass(frozen=True)
class Statement:
    """What a run says by itself about two of its networks at a level: do they differ beyond the spread of trials?

    `run` is a less b, or of early-stop iterations a over b: no more than a bound where trainings of a or of b may have
    ended before theirs.
    """

    a: str
    b: str
    level: int
    percent: float
    column: str
    kind: Kind
    run: Measured
    differ: bool | None  # None where it cannot be told
    bound: Bound = ""

    @property
    def what(self) -> str:
        quantity = "early-stop iteration" if self.column == ES else "test accuracy at early stop"
        return f"{quantity}: {self.a} over {self.b}"

    @property
    def verdict(self) -> str:
        if self.differ is None:
            return "one trial: no interval" if self.run.n < 2 else "may have ended before early stop"
        return "differ beyond the spread of trials" if self.differ else "within the spread of trials"


@dataclass(frozen=True)
class Count:
    """At how many of the levels one network is more, and less, accurate than another beyond the spread of trials."""

    a: str
    b: str
    more: int
    less: int
    levels: int


@dataclass(frozen=True)
class Card:
    """All of it. `notes` say what the comparison is of, and what of the paper's is left out."""

    name: str
    about: str
    notes: tuple[str, ...]
    scores: tuple[Score, ...]
    curves: tuple[Against, ...]
    winning: str
    own: tuple[Statement, ...]
    counts: tuple[Count, ...]
    method: str

    @property
    def measured(self) -> bool:
        """Whether there is anything in the run that a claim is about."""
        return any(judged.run for score in self.scores for judged in score.judged)


def card(run: Records, beside: Iterable[Records] = ()) -> Card:
    """The score card of a run, from its experiment and tables alone; claims about two experiments read `beside` too."""
    others = [_trials(other) for other in sorted(beside, key=size)]  # of each experiment the largest speaks, the last
    table = replace(_trials(run), beside={other.fit.setup: other for other in others if other.fit.setup})
    drawn = tuple(against(table))
    return Card(
        name=run.experiment.name,
        about=run.experiment.about,
        notes=(*notes(table, drawn), *(f"Left out: {said}, of which no number is." for said in format_diverged(run))),
        scores=scores(table),
        curves=drawn,
        winning=winning(run),
        own=tuple(own(table)),
        counts=tuple(counts(table)),
        method=method(table),
    )


def size(run: Records) -> tuple[int, int]:
    """Of the runs of one experiment the one of largest size speaks: of the longest, that of most trained tickets."""
    tickets = run.summary["branch"].tolist().count("ticket")
    return run.experiment.recipe.iterations if tickets else 0, tickets


def _trials(run: Records) -> Trials:
    return trials(run, fit(run.experiment, known_setups()))


@cache
def known_setups() -> tuple[Setup, ...]:
    """Every experiment of the paper that there is a curve of or a claim about."""
    return tuple(dict.fromkeys((*curves.setups(), *(claim.setup for claim in CLAIMS))))


def method(run: Trials) -> str:
    """How numbers are made, and verdicts where there are any."""
    if run.fit.setup is None:
        return METHOD
    return f"{METHOD} {JUDGED.format(es=EARLY_STOP, accuracy=100 * ACCURACY[run.experiment.data.name])}"


# -------------------------------------------------------------------------------------------------------------- claims


def scores(run: Trials) -> tuple[Score, ...]:
    """How the run does by each claim that its experiment can speak to."""
    return tuple(score(run, claim) for claim in claims_of(run.fit.setup)) if run.fit.setup else ()


def score(run: Trials, claim: Claim) -> Score:
    judged = tuple(judge(run, check, claim.setup, claim.figures) for check in claim.checks)
    return Score(claim, judged, worst([j.verdict for j in judged]) if judged else LACKING)


# -------------------------------------------------------------------------------------------------------------- curves


def against(run: Trials) -> Iterator[Against]:
    """Each of the paper's curves that the run has levels of, by role and column."""
    of = run.fit.setup
    if of is None:
        return
    own = [curve for key, curve in curves.by_density().items() if key.setup == of]
    for curve in sorted(own, key=lambda curve: (_rank(curve.column), branch_order(curve.role))):
        comparable = curves.comparable(curve.column, run.fit.iterations is not None, run.fit.scheduled)
        if comparable and (found := _against(run, curve)):
            yield found


def _rank(column: str) -> int:
    """The three that the paper's main text plots come first."""
    return MAIN.index(column) if column in MAIN else len(MAIN)


def _against(run: Trials, curve: Curve) -> Against | None:
    rows = run.table.loc[run.table["role"] == curve.role]
    if curve.column not in rows or not rows[curve.column].notna().any():
        return None
    levels = sorted(rows["level"].unique().tolist())
    short = [
        level for level in levels if too_short(run, curve.role, level, rows[rows["level"] == level].to_dict("records"))
    ]
    table = aggregate(rows.loc[~rows["level"].isin(short)], curve.column, ["level"])
    ours = {int(level): (float(mean), int(n)) for level, mean, n in table[["level", "mean", "n"]].to_numpy()}
    points = {level: i for i, level in enumerate(curve.level) if level in ours}
    if not points:
        return None
    departures = {level: _departure(curve, i, ours[level][0]) for level, i in points.items()}
    worst_level = max(departures, key=lambda level: abs(departures[level]))
    tolerance = EARLY_STOP if curve.column == ES else ACCURACY[run.experiment.data.name]
    inside = [
        level for level, i in points.items() if curve.low[i] - ROUNDING <= ours[level][0] <= curve.high[i] + ROUNDING
    ]
    within = [level for level in points if level in inside or abs(departures[level]) <= tolerance + ROUNDING]
    means = (curve.mean[points[worst_level]], ours[worst_level][0])
    left_out = tuple(level for level in short if level in curve.level)
    n = tuple(ours[level][1] for level in points)
    furthest = (worst_level, departures[worst_level], means)
    return Against(curve, tuple(points), tuple(within), tuple(inside), *furthest, n, left_out)


def _departure(curve: Curve, i: int, ours: float) -> float:
    theirs = curve.mean[i]
    return ours / theirs - 1 if curve.column == ES else ours - theirs


def notes(run: Trials, drawn: tuple[Against, ...]) -> Iterator[str]:
    """What is compared with what, and what is not."""
    found, experiment = run.fit, run.experiment
    if found.setup is None:
        yield _no_setup(found)
        return
    yield f"Compared with the paper's experiment, `{found.setup.command}`."
    if found.iterations:
        theirs, _ = found.iterations
        length = f"Its trainings have {theirs:,} iterations, these {format_length(experiment)}: "
        if found.scheduled:
            yield length + "as the learning rate changes on the way, nothing can be compared."
        else:
            yield length + (
                "what is read at a fixed iteration cannot be compared, only what happens at early stop"
                f"{', where that comes before their end' if found.shorter else ''}; and masks come from networks "
                "trained so long."
            )
        if len(run.table) and not drawn:
            yield "There is no level at which a curve can be compared."
    grid, theirs = experiment.recipe.eval_every, setups.experiment(found.setup).recipe.eval_every
    if grid > theirs:
        yield f"Evaluated every {grid:,} iterations, the paper's every {theirs:,}: early stops are as coarse."
    if absent := _absent(run, {entry.curve.role for entry in drawn}):
        yield f"Of the paper's curves there is nothing here of: {', '.join(absent)}."
    left_out: dict[str, set[int]] = {}
    for entry in drawn:
        left_out.setdefault(entry.curve.role, set()).update(entry.left_out)
    roles = sorted((role for role, at in left_out.items() if at), key=branch_order)
    if short := [f"{role} at level {', '.join(map(str, sorted(left_out[role])))}" for role in roles]:
        yield f"Left out of curves, as these trainings may have ended before their early stop: {'; '.join(short)}."


def _no_setup(found: Fit) -> str:
    if found.nearest is None or found.differs is None:
        return "The paper has no experiment on this network and dataset: there are only the run's own statements."
    said = lambda value: "nothing" if value is None else config.to_setting("x", value).removeprefix("x=")
    differs = [f"{key} ({said(a)} there, {said(b)} here)" for key, (a, b) in found.differs.items()]
    return (
        f"This is none of the paper's experiments, so that nothing is compared with it. The nearest, "
        f"`{found.nearest.command}`, differs in {', '.join(differs)}."
    )


def _absent(run: Trials, compared: set[str]) -> list[str]:
    roles = {key.role: None for key in curves.by_density() if key.setup == run.fit.setup}
    return [role for role in sorted(roles, key=branch_order) if role not in {*run.table["role"], *compared}]


# ---------------------------------------------------------------------------------------------------- by the run itself


def winning(run: Records) -> str:
    """The winning level in words."""
    level = winning_level(run.summary)
    if not len(run.summary):
        return "Nothing is trained yet."
    if level is None:
        return "No level is, on average, both as early and as accurate as level 0."
    compared = beside_dense(run.summary)[level]
    percent = 100 * float(np.mean([density for density, _, _ in compared]))
    return (
        f"Winning level: {level}, with {percent:.3g}% of the weights: the smallest density at which tickets are, on "
        f"average, neither later nor less accurate than level 0 ({format_trials([len(compared)])})."
    )


def own(run: Trials) -> Iterator[Statement]:
    """Dense, ticket and each branch beside each other, at the level that `_shown_level` picks."""
    level = _shown_level(run)
    if level is None:
        return
    for a, b in _pairs(run):
        for column in (TEST, ES):
            if found := compare(run, level, a, b, column):
                yield found


def _shown_level(run: Trials) -> int | None:
    """The winning level; where there is none, the one of the most accurate tickets."""
    won = winning_level(run.table)
    tickets = run.table.loc[(run.table["family"] == "ticket") & (run.table["level"] > 0)]
    if won is not None or not tickets[TEST].notna().any():
        return won
    means = aggregate(tickets, TEST, ["level"])
    return int(means["level"].iloc[int(means["mean"].to_numpy().argmax())])


def _pairs(run: Trials) -> list[tuple[str, str]]:
    """Which networks are compared: each with the dense one, and the ticket with each branch."""
    branches = sorted({*run.table["family"]} - {"ticket"}, key=branch_order)
    return [("ticket", "dense"), *((name, "dense") for name in branches), *(("ticket", name) for name in branches)]


def compare(run: Trials, level: int, a: str, b: str, column: str) -> Statement | None:
    """Two networks of a run at a level, over the trials that have both."""
    first, second = _by_trial(run, a, level, column), _by_trial(run, b, level, column)
    both = sorted({*first} & {*second})
    if not both:
        return None
    kind: Kind = "times" if column == ES else "points"
    found = over_trials(kind, np.array([first[t] for t in both]), np.array([second[t] for t in both]))
    null = 1.0 if kind == "times" else 0.0
    above, below = found.low > null + ROUNDING, found.high < null - ROUNDING
    late = tuple(column == ES and any(map(cut_off, _rows(run, name, level))) for name in (a, b))
    if all(late):
        return None
    bound: Bound = "at least" if late[0] else "at most" if late[1] else ""
    told = {"": True, "at least": above, "at most": below}[bound]
    differ = (above or below) if told and found.n > 1 else None
    return Statement(a, b, level, _percent(run, level), column, kind, found, differ, bound)


def _by_trial(run: Trials, name: str, level: int, column: str) -> dict[int, float]:
    return by_trial(_rows(run, name, level), column, (0 if name == "dense" else level,))


def _rows(run: Trials, name: str, level: int) -> Sequence[Mapping[str, Any]]:
    return run.rows.get(("ticket", 0) if name == "dense" else (name, level), ())


def _percent(run: Trials, level: int) -> float:
    return 100 * float(np.mean(run.table.loc[run.table["level"] == level, "density"]))


def counts(run: Trials) -> Iterator[Count]:
    """At how many of the levels, each by itself, the test accuracies of two networks differ beyond the spread."""
    levels = sorted({int(level) for level in run.table["level"]} - {0})
    for a, b in _pairs(run):
        found = [s for level in levels if (s := compare(run, level, a, b, TEST)) and s.differ is not None]
        more, less = (sum(s.differ is True and sign * s.run.mean > 0 for s in found) for sign in (1, -1))
        if found:
            yield Count(a, b, more, less, len(found))


# ------------------------------------------------------------------------------------------------------------ as JSON


def as_json(card: Card) -> dict[str, Any]:
    """The card as plain values; `claims` and `curves` are its lists."""
    return {
        "run": card.name,
        "about": card.about,
        "notes": list(card.notes),
        "claims": [_claim(score) for score in card.scores],
        "curves": [_curve(entry) for entry in card.curves],
        "winning": card.winning,
        "own": [_statement(statement) for statement in card.own],
        "counts": [asdict(count) for count in card.counts],
        "method": card.method,
    }


def _claim(score: Score) -> dict[str, Any]:
    first = next((j.run for j in score.judged if j.run), None)
    return {
        "id": score.claim.id,
        "section": score.claim.section,
        "text": score.claim.text,
        "figure": score.figure,
        "run": _measured(first) | {"said": score.run},
        "verdict": score.verdict,
        "missing": score.missing,
        "checks": [
            {
                "what": j.check.what,
                "measure": j.check.kind,
                "rules": list(j.check.rules),
                "figure": j.figure,
                "run": _measured(j.run),
                "verdict": j.verdict,
                "missing": j.missing,
            }
            for j in score.judged
        ],
    }


def _measured(found: Measured | None) -> dict[str, Any]:
    if found is None:
        return {"mean": None, "min": None, "max": None, "n": 0, "interval": None}
    interval = None if math.isnan(found.low) else [found.low, found.high]
    return {"mean": found.mean, "min": found.min, "max": found.max, "n": found.n, "interval": interval}


def _curve(entry: Against) -> dict[str, Any]:
    curve = entry.curve
    at = curve.level.index(entry.level)
    return {
        "curve": curve.role,
        "column": curve.column,
        "figure": curve.figure,
        "series": curve.series,
        "levels": len(entry.levels),
        "within": len(entry.within),
        "share": entry.share,
        "outside": [level for level in entry.levels if level not in entry.within],
        "left_out": list(entry.left_out),
        "n": {"min": min(entry.n), "max": max(entry.n)},
        "largest_departure": {
            "level": entry.level,
            "percent": curve.x[at],
            "departure": entry.departure,
            "paper": entry.means[0],
            "run": entry.means[1],
        },
    }


def _statement(statement: Statement) -> dict[str, Any]:
    return {
        "what": statement.what,
        "a": statement.a,
        "b": statement.b,
        "column": statement.column,
        "level": statement.level,
        "percent": statement.percent,
        "measure": statement.kind,
        "bound": statement.bound,
        "run": _measured(statement.run),
        "verdict": statement.verdict,
    }


# ------------------------------------------------------------------------------------------------------- for a terminal

STYLES: Mapping[str, str] = {AGREES: "green", DIFFERS: "bold red", LACKING: "yellow"}


def render(card: Card) -> Group:
    """The card for a terminal."""
    parts: list[RenderableType] = [Text(f"{card.name}: {card.about}".removesuffix(": "), style="bold")]
    parts += [Text(note) for note in card.notes]
    if card.scores:
        parts += [Text(), _claims_table(card.scores), Text(_summary(card.scores))]
    if card.curves:
        parts += [Text(), _curves_table(card.curves)]
    parts += [Text(), Text("By the run itself", style="bold"), Text(card.winning)]
    if card.own:
        parts += [Text(), _own_table(card.own)]
    if card.counts:
        parts += [Text(), _counts_table(card.counts)]
    return Group(*parts, Text(), Text(card.method, style="dim"))


def _table(*heads: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_lines=False)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold", vertical="top")
    return table


def _claims_table(scores: tuple[Score, ...]) -> Table:
    table = _table("claim", "the paper's text", "its figure", "this run", "verdict")
    for column, ratio in zip(table.columns, (None, 3, 3, 4, None), strict=True):
        column.ratio, column.no_wrap = ratio, column.header == "claim"
    for score in scores:
        run = Text(score.run)
        if score.missing:
            run.append(f"\nmissing: {score.missing}", style="dim")
        verdict = Text(score.verdict, style=STYLES[score.verdict])
        text = Text(f"{score.claim.text} ({place(score.claim)})")
        table.add_row(score.claim.id, text, Text(score.figure), run, verdict, end_section=True)
    return table


def place(claim: Claim) -> str:
    """Where in the paper a claim stands."""
    if claim.section == "abstract":
        return claim.section
    return f"{'section' if claim.section[0].isdigit() else 'appendix'} {claim.section}"


def _summary(scores: tuple[Score, ...]) -> str:
    found = Counter(score.verdict for score in scores)
    return f"{len(scores)} claims: {found[AGREES]} agree, {found[DIFFERS]} differ, {found[LACKING]} lack data."


def _curves_table(entries: tuple[Against, ...]) -> Table:
    table = _table("the paper's curve", "figure", "within", "levels", "largest departure", right=("within", "levels"))
    for entry in entries:
        table.add_row(entry.of, entry.curve.figure, f"{entry.share:.0%}", str(len(entry.levels)), entry.furthest)
    return table


def _own_table(statements: tuple[Statement, ...]) -> Table:
    first = statements[0]
    columns = {TEST: "test accuracy at early stop", ES: "early-stop iteration"}
    table = _table(f"at level {first.level}, {first.percent:.3g}%", *columns.values())
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for s in statements:
        said = f"{s.bound} {measured_said(s.kind, s.run)}".lstrip()
        cells.setdefault((s.a, s.b), {})[s.column] = f"{said}\n{s.verdict}"
    for (a, b), own in cells.items():
        table.add_row(f"{a} over {b}", *(own.get(column, "-") for column in columns))
    return table


def _counts_table(found: tuple[Count, ...]) -> Table:
    heads = ("beyond the spread, at each level by itself", "more accurate at", "less accurate at", "of levels")
    table = _table(*heads, right=heads[1:])
    for count in found:
        table.add_row(f"{count.a} over {count.b}", str(count.more), str(count.less), str(count.levels))
    return table
