"""The verdict on a run in sentences. They state only what the trials resolve; a single trial supports no statement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from lth.config import Experiment
from lth.results.captions import format_percent
from lth.results.early_stops import FEWEST
from lth.results.intervals import Interval
from lth.results.metrics import Metric
from lth.results.verdict import TIME_MARGIN, Answer, Contrast, Control, Level, Verdict

WHOLE = "the whole network"
METHOD = (
    "Intervals are 95%, paired by trial; networks are equal within {time:.0%} of the early stop and {margin} of "
    "{name}; what is resolved is corrected for the number of levels (Holm)."
)


def headline(verdict: Verdict) -> str:
    """The main finding and its numbers, in one to three sentences."""
    return " ".join(filter(None, [conclusion(verdict), evidence(verdict)]))


def conclusion(verdict: Verdict) -> str:
    """The main finding in one or two sentences, without numbers except the percentage of weights."""
    focus = verdict.focus
    if not focus:
        return "No ticket can be compared with the unpruned network yet: no trial has finished both."
    if focus.contrast.n == 1:
        return f"A single trial supports no claim. {_of_one_trial(verdict, focus)}"
    if verdict.winning is None:
        return _no_winner(verdict)
    percent, trials = format_percent(focus.percent), f"{focus.contrast.n} trials"
    if focus.resolved == "yes":
        return f"Winning level: {percent}% of the weights, resolved by {trials}."
    return f"Winning level on average: {percent}% of the weights; {trials} do not resolve it."


def caveats(verdict: Verdict) -> list[str]:
    """What invalidates the conclusion: new weights under the winning mask do as well."""
    return [_as_good(one.contrast, verdict) for one in verdict.controls if refutes(one, verdict)]


def evidence(verdict: Verdict) -> str:
    """The numbers behind the conclusion in one or two sentences; empty if nothing can be compared."""
    focus = verdict.focus
    if not focus:
        return ""
    compared = _contrast(focus.contrast, verdict)
    if focus.contrast.n == 1:
        compared = f"{_numbers(focus.contrast, verdict.metric, WHOLE)}."
        compared = f"{compared[0].upper()}{compared[1:]}"
    if verdict.winning is not None:
        return compared
    best = verdict.metric.best if len(verdict.levels) > 1 else "The only level"
    return f"{best}: {format_percent(focus.percent)}% of the weights. {compared}"


def facts(verdict: Verdict) -> list[tuple[str, str]]:
    """The rows of the table of evidence: what is compared, and the result."""
    focus = verdict.focus
    if not focus:
        return []
    kind = (
        "winning level"
        if verdict.winning is not None
        else f"level of {verdict.metric.best.lower()}"
        if verdict.metric.relative
        else "most accurate level"
    )
    rows = [(kind, f"{format_percent(focus.percent)}% of the weights (level {focus.level})")]
    if focus.contrast.n == 1:
        rows.append((f"compared with {WHOLE}", _numbers(focus.contrast, verdict.metric, WHOLE)))
        rows += [
            (f"{one.name}, same level", _numbers(_reversed(one.contrast, verdict.metric), verdict.metric, "the ticket"))
            for one in verdict.controls
        ]
    else:
        rows.append((f"compared with {WHOLE}", _amounts(focus.contrast, verdict)))
        rows += [
            (f"{one.name}, compared with the ticket", _amounts(_reversed(one.contrast, verdict.metric), verdict))
            for one in verdict.controls
        ]
    return [*rows, ("matching level", _matching(verdict))]


def remarks(verdict: Verdict) -> list[str]:
    """The sentences after the headline: controls, matching level, and the criterion."""
    if not verdict.levels:
        return []
    return [*(control(one, verdict) for one in verdict.controls), matching(verdict), *basis(verdict)]


def basis(verdict: Verdict) -> list[str]:
    """The criterion, if it is not the early stop."""
    return (
        [f"Judged by final {verdict.metric.name}, because the learning rate falls near the end."]
        if verdict.at_the_end
        else []
    )


def method(verdict: Verdict) -> list[str]:
    """How intervals and decisions are computed, if there are any."""
    margin = verdict.metric.amount(verdict.metric.margin)
    name = f"{'the ' * verdict.metric.relative}{verdict.metric.name}"
    text = METHOD.format(time=TIME_MARGIN, margin=margin, name=name)
    return [text] if any(level.contrast.n > 1 for level in verdict.levels) else []


def matching(verdict: Verdict) -> str:
    """The sparsest level within the tolerance of level 0: half a percentage point of accuracy, or 5% of the loss."""
    return f"Matching level: {_matching(verdict)}."


def _matching(verdict: Verdict) -> str:
    within, level = (
        f"within {verdict.metric.amount(verdict.metric.tolerance)} of {WHOLE}'s {verdict.metric.name}",
        verdict.level(verdict.matching),
    )
    if level is None:
        return f"none is {within}"
    trials = "one trial" if level.contrast.n == 1 else f"mean of {level.contrast.n} trials"
    return f"{format_percent(level.percent)}% of the weights (level {level.level}), the sparsest {within}; {trials}"


def control(one: Control, verdict: Verdict) -> str:
    """How a branch compares with the tickets of the level in the headline."""
    contrast, name = one.contrast, one.name
    if contrast.n == 1:
        numbers = _numbers(_reversed(contrast, verdict.metric), verdict.metric, "the ticket")
        return f"{name}, at the same level: {numbers}. One trial does not tell them apart."
    sentence = _contrast(_reversed(contrast, verdict.metric), verdict, f"{name} compared with the ticket of this level")
    if not refutes(one, verdict):
        return sentence
    return f"{sentence} {_as_good(contrast, verdict)}"


def refutes(one: Control, verdict: Verdict) -> bool:
    """Return whether new weights under the winning mask are as good as the ticket, over several trials."""
    return one.name == "reinit" and one.as_good and verdict.winning is not None and one.contrast.n > 1


def _as_good(contrast: Contrast, verdict: Verdict) -> str:
    equal = contrast.score == "equal" and (verdict.at_the_end or contrast.time in ("equal", "worse"))
    if contrast.score == "worse" or equal:
        return "New weights are as good: this is not a winning ticket in the paper's sense."
    return "New weights are as good on average: this is not shown to be a winning ticket in the paper's sense."


SWAPPED: dict[Answer, Answer] = {"better": "worse", "worse": "better", "equal": "equal", "open": "open"}


def _reversed(contrast: Contrast, metric: Metric) -> Contrast:
    """The contrast from the other network's side."""
    sooner, gain = contrast.sooner, metric.reversed(contrast.gain)
    answers = SWAPPED[contrast.time], SWAPPED[contrast.score]
    swap = lambda pair: (pair[1], pair[0])
    stops, scores = contrast.stops and swap(contrast.stops), swap(contrast.scores)
    return Contrast(contrast.n, sooner and sooner.inverse, gain, stops, scores, *answers)


def advice(verdict: Verdict, experiment: Experiment) -> str | None:
    """The command to type if early stops were not reached, so that a level could not win."""
    if not any(level.unreached for level in verdict.levels):
        return None
    recipe = experiment.recipe
    which = f"{verdict.unreached} of {verdict.trained} trainings"
    evaluations = 1 + -(-(recipe.iterations - 1) // recipe.eval_every)
    why = "their lowest validation loss is in the last tenth of the evaluations"
    if evaluations < FEWEST:
        why = f"{evaluations} evaluations are too few to find it ({FEWEST} are needed)"
    return f"The early stop was not reached in {which}: {why}. Train longer, into another --out: {_longer(experiment)}"


def _longer(experiment: Experiment) -> str:
    """The setting for a training that is twice as long and has enough evaluations."""
    recipe = experiment.recipe
    factor = max(2, math.ceil((FEWEST + 5) * recipe.eval_every / recipe.iterations))
    if experiment.scale != 1:
        return f"--scale {factor * experiment.scale:g}"
    return f"recipe.iterations={factor * recipe.iterations}"


# ------------------------------------------------------------------------------------------------------ parts of speech


def _no_winner(verdict: Verdict) -> str:
    unreached = sum(level.unreached for level in verdict.levels)
    if unreached == len(verdict.levels):
        return "No level can win: the early stop was not reached."
    reason = f" (early stop not reached at {unreached} of {len(verdict.levels)} levels)" if unreached else ""
    if verdict.at_the_end:
        return f"No winning level: no ticket is, on average, as {verdict.metric.kind} at the end as {WHOLE}."
    return f"No winning level: no ticket is, on average, both as early and as {verdict.metric.kind} as {WHOLE}{reason}."


def _of_one_trial(verdict: Verdict, focus: Level) -> str:
    if verdict.winning is None:
        return "The early stop was not reached." if focus.unreached else "No level wins in it."
    return f"By its numbers, the winning level has {format_percent(focus.percent)}% of the weights."


def _numbers(contrast: Contrast, metric: Metric, other: str) -> str:
    """The values of the two networks, without a statement about them."""
    ticket, than = map(metric.text, contrast.scores)
    parts = [f"test {metric.name} {ticket} ({other} {than})"]
    if contrast.stops:
        parts.insert(0, f"early stop at iteration {contrast.stops[0]:,.0f} ({other} {contrast.stops[1]:,.0f})")
    return ", ".join(parts)


def _contrast(contrast: Contrast, verdict: Verdict, of: str = f"Compared with {WHOLE}") -> str:
    return f"{of}: {_amounts(contrast, verdict)}."


def _amounts(contrast: Contrast, verdict: Verdict) -> str:
    """A network compared with another, by each quantity."""
    final = "final " if verdict.at_the_end else ""
    of = quantity(verdict.metric)
    parts = [_amount(f"{final}test {verdict.metric.name}", of, contrast.score, contrast.gain)]
    if contrast.sooner:
        parts.insert(0, _amount("early stop", TIME, contrast.time, contrast.sooner))
    elif not verdict.at_the_end:
        parts.insert(0, "early stop not reached")
    return "; ".join(parts)


class Quantity(NamedTuple):
    """The words for a quantity: equality within the margins, the size of a difference, and its two sides."""

    equal: str
    size: Callable[[float], str]
    unit: str
    sides: tuple[str, str]  # for a value that is better, or worse, than `null`
    null: float
    opposite: Callable[[float], float]


TIME = Quantity("about equally early", lambda x: f"{x:.2f}", " times", ("sooner", "later"), 1.0, lambda x: 1 / x)


def quantity(metric: Metric) -> Quantity:
    """The words for a difference of the metric."""
    return Quantity(metric.equal, metric.size, metric.difference, metric.sides, 0.0, lambda gain: -gain)


def _amount(what: str, of: Quantity, answer: Answer, interval: Interval) -> str:
    """For example `early stop 1.32 times sooner (95% interval 1.11 to 1.60)`; if not resolved, the range of trials."""
    if answer == "equal":
        side = _side(of, interval.value)
        return of.equal if side == "equal" else f"{of.equal} ({side})"
    if answer == "open":
        return f"{what} not resolved with {interval.n} trials ({_range(of, interval)})"
    ends = interval.low, interval.high
    if answer == "worse":
        ends = tuple(math.inf if of.null and end == 0 else of.opposite(end) for end in reversed(ends))
    low, high = ends
    if low <= of.null:  # few trials may resolve a difference without bounding the quotient (Fieller's theorem)
        return f"{what} {_side(of, interval.value)} (the 95% interval of the factor has no bounds)"
    between = f"at least {of.size(low)}" if math.isinf(high) else f"{of.size(low)} to {of.size(high)}"
    return f"{what} {_side(of, interval.value)} (95% interval {between})"


def _range(of: Quantity, interval: Interval) -> str:
    """The range of single trials, the smaller difference first if all are on one side."""
    ends = interval.least, interval.greatest
    if max(ends) < of.null:
        ends = ends[::-1]
    first, last = (_side(of, end) for end in ends)
    if first == last:
        return f"all {first}"
    one_side = (min(ends) > of.null or max(ends) < of.null) and "equal" not in (first, last)
    return f"single trials: {first.partition(' ')[0] if one_side else first} to {last}"


def _side(of: Quantity, value: float) -> str:
    """`1.32 times sooner`, `0.4 points lower`, `equal`."""
    better = value > of.null
    size = of.size(value if better else of.opposite(value))
    return "equal" if size == of.size(of.null) else f"{size}{of.unit} {of.sides[not better]}"
