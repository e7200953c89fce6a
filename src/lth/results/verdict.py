"""The verdict on a run: which level wins, whether its trials resolve this, and how the controls compare.

The winning level is that of `statistics.winning_index`, by means. Whether it could be due to chance is judged
separately: 95% intervals paired by trial, margins within which two networks count as equal, and Holm's correction over
the levels. All of these were fixed before any result was seen. Terminal, report, captions and JSON format the values
computed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lth.config import Recipe
from lth.results.early_stops import judged_at_the_end
from lth.results.intervals import Interval, exceeds, holm, quotient
from lth.results.metrics import ACCURACY, Metric, metric_of
from lth.results.records import REACHED, Records
from lth.results.statistics import Comparison, branch_order, family, matching_index, winning_index

if TYPE_CHECKING:
    import pandas as pd

TIME_MARGIN = 0.05  # fraction of the early stop within which two networks are equally early
CHANCE = 0.05

Answer = Literal["better", "worse", "equal", "open"]
Resolved = Literal["yes", "no", "open"]


@dataclass(frozen=True)
class Contrast:
    """A ticket compared with another network, over the trials that have both.

    `sooner` is the other's early stop over the ticket's, None if the experiment is judged by final accuracy or an early
    stop was not reached. `gain` is the ticket's accuracy minus the other's, a fraction, or the fraction by which its
    loss is lower (`lth.results.metrics`). `stops` and `scores` are the means of (ticket, other). `time` and `score` are
    the answers of the trials for the ticket: better or worse beyond chance, equal within the margins, or open.
    """

    n: int
    sooner: Interval | None
    gain: Interval
    stops: tuple[float, float] | None
    scores: tuple[float, float]
    time: Answer = "open"
    score: Answer = "open"


@dataclass(frozen=True)
class Level:
    """A level's tickets compared with level 0. `resolved`: whether they are no later and no worse, beyond chance."""

    level: int
    percent: float  # percentage of weights remaining
    contrast: Contrast
    unreached: bool  # an early stop needed for the comparison was not reached
    resolved: Resolved


@dataclass(frozen=True)
class Control:
    """The tickets of the level `Verdict.focus` compared with a branch, whose trainings are averaged per trial."""

    name: str
    contrast: Contrast
    unreached: bool
    margin: float = ACCURACY.margin

    @property
    def as_good(self) -> bool:
        """Return whether the branch is, on average, as good as the ticket within the margins, or better."""
        gain, sooner = self.contrast.gain.value, self.contrast.sooner
        if gain > self.margin:
            return False
        as_early = not self.unreached and (sooner is None or sooner.value <= 1 + TIME_MARGIN)
        return gain < -self.margin or as_early


@dataclass(frozen=True)
class Verdict:
    """The result of a run.

    `unreached` of its `trained` trainings (without diverged ones) did not reach an early stop.
    """

    at_the_end: bool  # judged by the final value of the metric
    levels: tuple[Level, ...]
    winning: int | None
    matching: int | None  # the sparsest level within the metric's tolerance of level 0
    controls: tuple[Control, ...]
    unreached: int
    trained: int
    metric: Metric = ACCURACY

    @property
    def focus(self) -> Level | None:
        """The winning level or, without one, the best by the metric."""
        if not self.levels:
            return None
        best = max(self.levels, key=lambda level: (round(level.contrast.gain.value, 6), level.level))
        return self.level(self.winning) or best

    def level(self, number: int | None) -> Level | None:
        return next((level for level in self.levels if level.level == number), None)


class Result(NamedTuple):
    """The early stop of a network in a trial, whether it was reached (None: unknown), and its score."""

    stop: float
    reached: bool | None
    score: float


KNOWN = {True: True, False: False}  # the columns needed here
Pair = tuple[Result, Result]  # for one trial: the ticket, the other network


def of(run: Records) -> Verdict:
    """The verdict on a run."""
    return judge(run.summary, run.experiment.recipe, metric_of(run.experiment))


def judge(summary: pd.DataFrame, recipe: Recipe, metric: Metric = ACCURACY) -> Verdict:
    """The verdict on a summary of trainings with a recipe. Diverged trainings are left out.

    A level is compared with level 0 over the trials that have both. A level with an early stop that was not reached
    does not win.
    """
    at_the_end = judged_at_the_end(recipe)
    results = results_of(summary, at_the_end, metric)
    dense = results.get((0, "ticket"), {})
    paired: dict[int, list[Pair]] = {}
    for (level, branch), tickets in sorted(results.items()):
        both = [(tickets[trial], dense[trial]) for trial in tickets if trial in dense]
        if branch == "ticket" and level and both:
            paired[level] = both
    densities = _densities(summary)
    rows = [(level, densities[level], _comparisons(pairs, at_the_end, metric)) for level, pairs in paired.items()]
    levels = _levels(paired, densities, at_the_end, metric)
    trained = summary.loc[summary["status"] != "diverged"]
    unreached = int(trained[REACHED].eq(False).sum()) if REACHED in trained else 0
    winning, matching = winning_index(rows), matching_index(rows, metric.tolerance)
    verdict = Verdict(at_the_end, levels, winning, matching, (), unreached, len(trained), metric)
    focus = verdict.focus
    controls = _controls(results, focus.level, at_the_end, metric) if focus else ()
    return replace(verdict, controls=controls)


def results_of(
    summary: pd.DataFrame, at_the_end: bool, metric: Metric = ACCURACY
) -> dict[tuple[int, str], dict[int, Result]]:
    """For each level and branch, the result in each trial: the mean over the branch's trainings."""
    column = metric.final if at_the_end else metric.at_early_stop
    columns = ["level", "branch", "trial", "early_stop_iteration", REACHED, column, "status"]
    gathered: dict[tuple[int, str], dict[int, list[Result]]] = {}
    for level, branch, trial, stop, reached, value, status in summary.reindex(columns=columns).itertuples(
        index=False, name=None
    ):
        if status != "diverged" and not math.isnan(value) and (at_the_end or not math.isnan(stop)):
            result = Result(stop, KNOWN.get(reached), value)
            gathered.setdefault((int(level), family(branch)), {}).setdefault(int(trial), []).append(result)
    return {key: {trial: _mean(of) for trial, of in trials.items()} for key, trials in gathered.items()}


def _mean(results: Sequence[Result]) -> Result:
    stops, reached, scores = zip(*results, strict=True)
    known = False if False in reached else None if None in reached else True
    return Result(math.fsum(stops) / len(stops), known, math.fsum(scores) / len(scores))


def _densities(summary: pd.DataFrame) -> dict[int, float]:
    tickets = summary.loc[(summary["branch"] == "ticket") & (summary["status"] != "diverged")]
    return {int(level): float(mean) for level, mean in tickets.groupby("level")["density"].mean().items()}  # type: ignore[arg-type]


def _unreached(pairs: Iterable[Pair], at_the_end: bool) -> bool:
    return not at_the_end and any(result.reached is False for pair in pairs for result in pair)


def _comparisons(pairs: Sequence[Pair], at_the_end: bool, metric: Metric) -> list[Comparison]:
    """The rows of `winning_index`: how much later and better each ticket is; nan if an early stop was not reached."""
    later = lambda pair: 0.0 if at_the_end else math.nan if _unreached([pair], False) else pair[0].stop - pair[1].stop
    return list(zip(map(later, pairs), metric.betters(*_scores(pairs)), strict=True))


def _scores(pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
    return [ticket.score for ticket, _ in pairs], [other.score for _, other in pairs]


def _levels(
    paired: Mapping[int, Sequence[Pair]], densities: Mapping[int, float], at_the_end: bool, metric: Metric
) -> tuple[Level, ...]:
    contrasts, no_worse = _contrasts(list(paired.values()), at_the_end, metric)
    levels = []
    for (number, pairs), contrast, p in zip(paired.items(), contrasts, no_worse, strict=True):
        unreached = _unreached(pairs, at_the_end)
        worse = "worse" in (contrast.time, contrast.score)
        resolved: Resolved = "no" if worse else "yes" if p <= CHANCE and not unreached else "open"
        levels.append(Level(number, 100 * densities[number], contrast, unreached, resolved))
    return tuple(levels)


def _controls(
    results: Mapping[tuple[int, str], Mapping[int, Result]], level: int, at_the_end: bool, metric: Metric
) -> tuple[Control, ...]:
    tickets = results[level, "ticket"]
    names = sorted({name for at, name in results if at == level} - {"ticket"}, key=branch_order)
    paired = {}
    for name in names:
        others = results[level, name]
        if both := [(tickets[trial], others[trial]) for trial in tickets if trial in others]:
            paired[name] = both
    contrasts, _ = _contrasts(list(paired.values()), at_the_end, metric)
    return tuple(
        Control(name, contrast, _unreached(pairs, at_the_end), metric.margin)
        for (name, pairs), contrast in zip(paired.items(), contrasts, strict=True)
    )


# ------------------------------------------------------------------------------------------------- intervals and tests


class Tests(NamedTuple):
    """Two-sided p-values of one quantity of a comparison: it differs, is no worse, is equal within the margins."""

    differs: float
    no_worse: float
    equal: float


UNKNOWN = Tests(math.nan, math.nan, math.nan)


def _contrasts(
    paired: Sequence[Sequence[Pair]], at_the_end: bool, metric: Metric
) -> tuple[list[Contrast], list[float]]:
    """The contrast of each comparison with p-values corrected for their number, and those of "no worse"."""
    timed = [not at_the_end and not _unreached(pairs, at_the_end) for pairs in paired]
    times = [_time_tests(pairs) if known else UNKNOWN for pairs, known in zip(paired, timed, strict=True)]
    gains = [_score_tests(pairs, metric) for pairs in paired]
    is_better = lambda pairs: math.fsum(metric.betters(*_scores(pairs))) > 0
    answers = zip(_answers(times, paired, _is_sooner), _answers(gains, paired, is_better), strict=True)
    contrasts = [
        _contrast(pairs, known, metric, *answer) for pairs, known, answer in zip(paired, timed, answers, strict=True)
    ]
    both = [
        max(time.no_worse, gain.no_worse) if known else gain.no_worse
        for time, gain, known in zip(times, gains, timed, strict=True)
    ]
    return contrasts, holm(both)


def _contrast(pairs: Sequence[Pair], timed: bool, metric: Metric, time: Answer, score: Answer) -> Contrast:
    tickets, others = zip(*pairs, strict=True)
    stops = [r.stop for r in tickets], [r.stop for r in others]
    scores = _scores(pairs)
    sooner = quotient(stops[1], stops[0]) if timed else None
    mean = lambda values: math.fsum(values) / len(values)
    return Contrast(
        len(pairs),
        sooner,
        metric.gain(*scores),
        (mean(stops[0]), mean(stops[1])) if timed else None,
        (mean(scores[0]), mean(scores[1])),
        time,
        score,
    )


def _time_tests(pairs: Sequence[Pair]) -> Tests:
    margin = 1 + TIME_MARGIN
    stops = [(ticket.stop, other.stop) for ticket, other in pairs]
    return _tests([o - t for t, o in stops], [margin * o - t for t, o in stops], [margin * t - o for t, o in stops])


def _score_tests(pairs: Sequence[Pair], metric: Metric) -> Tests:
    scale = metric.scale([other.score for _, other in pairs])
    better, no_worse, no_better = zip(*(metric.within(t.score / scale, o.score / scale) for t, o in pairs), strict=True)
    return _tests(better, no_worse, no_better)


def _tests(better: Sequence[float], no_worse: Sequence[float], no_better: Sequence[float]) -> Tests:
    """How much better each ticket is, and the remaining margin on either side."""
    sides = exceeds(better, 0), exceeds([-value for value in better], 0)
    low, high = 2 * exceeds(no_worse, 0), 2 * exceeds(no_better, 0)
    return Tests(2 * min(sides), low, max(low, high))


def _answers(tests: Sequence[Tests], paired: Sequence[Sequence[Pair]], better: Any) -> list[Answer]:
    differs, equal = holm([test.differs for test in tests]), holm([test.equal for test in tests])
    answers: list[Answer] = []
    for d, e, pairs in zip(differs, equal, paired, strict=True):
        side: Answer = "better" if better(pairs) else "worse"
        answers.append("equal" if e <= CHANCE else side if d <= CHANCE else "open")
    return answers


def _is_sooner(pairs: Sequence[Pair]) -> bool:
    return math.fsum(ticket.stop - other.stop for ticket, other in pairs) < 0
