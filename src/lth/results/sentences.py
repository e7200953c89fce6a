"""The verdict on a run in sentences. What trials do not resolve is not claimed; one trial claims nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from lth.config import Experiment
from lth.results.captions import format_percent
from lth.results.early_stops import FEWEST
from lth.results.intervals import Interval
from lth.results.verdict import ACCURACY_MARGIN, TIME_MARGIN, TOLERANCE, Answer, Contrast, Control, Level, Verdict

WHOLE = "the whole network"
METHOD = (
    f"Intervals are 95%, paired by trial; networks are equal within {TIME_MARGIN:.0%} of the early stop and "
    f"{100 * ACCURACY_MARGIN:g} points of accuracy; what is resolved is corrected for the number of levels (Holm)."
)


def headline(verdict: Verdict) -> str:
    """The main finding, in one to three sentences."""
    focus = verdict.focus
    if not focus:
        return "No ticket can be compared with the network it was cut from yet: no trial has both, trained to the end."
    if focus.contrast.n == 1:
        return f"One trial: no claim. {_of_one_trial(verdict, focus)}"
    percent, trials = format_percent(focus.percent), f"{focus.contrast.n} trials"
    if verdict.winning is None:
        best = "Most accurate" if len(verdict.levels) > 1 else "The only level"
        return f"{_no_winner(verdict)} {best}: {percent}% of the weights. {_contrast(focus.contrast, verdict)}"
    winner = f"Winning level: {percent}% of the weights, resolved by {trials}."
    if focus.resolved != "yes":
        winner = f"Winning level on average: {percent}% of the weights; {trials} do not resolve it."
    return f"{winner} {_contrast(focus.contrast, verdict)}"


def remarks(verdict: Verdict) -> list[str]:
    """What follows the headline: the controls, the level that matches, and what it was judged by."""
    if not verdict.levels:
        return []
    basis = ["Judged by final accuracy, as the learning rate falls near the end."] if verdict.at_the_end else []
    return [*(control(one, verdict) for one in verdict.controls), matching(verdict), *basis]


def method(verdict: Verdict) -> list[str]:
    """How intervals and answers were made, if there are any."""
    return [METHOD] if any(level.contrast.n > 1 for level in verdict.levels) else []


def matching(verdict: Verdict) -> str:
    """The sparsest level within half a point of the accuracy of level 0."""
    within, level = f"within {100 * TOLERANCE:g} points of {WHOLE}'s accuracy", verdict.level(verdict.matching)
    if level is None:
        return f"Matching level: none is {within}."
    trials = "one trial" if level.contrast.n == 1 else f"mean of {level.contrast.n} trials"
    percent = format_percent(level.percent)
    return f"Matching level: {percent}% of the weights (level {level.level}), the sparsest {within}; {trials}."


def control(one: Control, verdict: Verdict) -> str:
    """How a branch compares with the tickets of the headline's level."""
    contrast, name = one.contrast, one.name
    if contrast.n == 1:
        numbers = _numbers(_reversed(contrast), "the ticket")
        return f"{name}, at the same level: {numbers}. One trial does not tell them apart."
    said = _contrast(_reversed(contrast), verdict, f"{name} compared with the ticket of this level")
    if name != "reinit" or not one.as_good or verdict.winning is None:
        return said
    equal = contrast.accuracy == "equal" and (verdict.at_the_end or contrast.time in ("equal", "worse"))
    if contrast.accuracy == "worse" or equal:
        return f"{said} New weights are as good: this is no winning ticket in the paper's sense."
    return f"{said} New weights are as good on average: this is not shown to be a winning ticket in the paper's sense."


SWAPPED: dict[Answer, Answer] = {"better": "worse", "worse": "better", "equal": "equal", "open": "open"}


def _reversed(contrast: Contrast) -> Contrast:
    """The contrast as the other network sees it."""
    g, sooner = contrast.gain, contrast.sooner
    gain = Interval(-g.value, -g.high, -g.low, -g.greatest, -g.least, g.n)
    answers = SWAPPED[contrast.time], SWAPPED[contrast.accuracy]
    swap = lambda pair: (pair[1], pair[0])
    stops, accuracies = contrast.stops and swap(contrast.stops), swap(contrast.accuracies)
    return Contrast(contrast.n, sooner and sooner.inverse, gain, stops, accuracies, *answers)


def advice(verdict: Verdict, experiment: Experiment) -> str | None:
    """What to type where early stops were not reached and a level could not win because of it."""
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
    """The setting of a training that is twice as long, with enough evaluations."""
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
        return f"No winning level: no ticket is, on average, as accurate at the end as {WHOLE}."
    return f"No winning level: no ticket is, on average, both as early and as accurate as {WHOLE}{reason}."


def _of_one_trial(verdict: Verdict, focus: Level) -> str:
    percent = format_percent(focus.percent)
    if verdict.winning is None:
        reason = " The early stop was not reached." if focus.unreached else " No level wins in it."
        return f"{reason.strip()} At {percent}% of the weights: {_numbers(focus.contrast, WHOLE)}."
    return f"By its numbers, the winning level has {percent}% of the weights: {_numbers(focus.contrast, WHOLE)}."


def _numbers(contrast: Contrast, other: str) -> str:
    """The two networks side by side, without a claim."""
    ticket, than = contrast.accuracies
    parts = [f"test accuracy {100 * ticket:.2f}% ({other} {100 * than:.2f}%)"]
    if contrast.stops:
        parts.insert(0, f"early stop at iteration {contrast.stops[0]:,.0f} ({other} {contrast.stops[1]:,.0f})")
    return ", ".join(parts)


def _contrast(contrast: Contrast, verdict: Verdict, of: str = f"Compared with {WHOLE}") -> str:
    """A network beside another, each quantity with what is known of it."""
    final = "final " if verdict.at_the_end else ""
    parts = [_amount(f"{final}test accuracy", ACCURACY, contrast.accuracy, contrast.gain)]
    if contrast.sooner:
        parts.insert(0, _amount("early stop", TIME, contrast.time, contrast.sooner))
    elif not verdict.at_the_end:
        parts.insert(0, "early stop not reached")
    return f"{of}: {'; '.join(parts)}."


class Quantity(NamedTuple):
    """How a quantity is said: equal within the margins, the size of a difference, and which side is which."""

    equal: str
    size: Callable[[float], str]
    unit: str
    sides: tuple[str, str]  # of a value that is better, or worse, than `null`
    null: float
    opposite: Callable[[float], float]


ACCURACY = Quantity("about equally accurate", lambda x: _points(x), "points", ("higher", "lower"), 0.0, lambda x: -x)
TIME = Quantity("about equally early", lambda x: f"{x:.2f}", "times", ("sooner", "later"), 1.0, lambda x: 1 / x)


def _amount(what: str, of: Quantity, answer: Answer, interval: Interval) -> str:
    """`early stop 1.32 times sooner (95% interval 1.11 to 1.60)`; if not resolved, the range of single trials."""
    if answer == "equal":
        side = _side(of, interval.value)
        return of.equal if side == "equal" else f"{of.equal} ({side})"
    if answer == "open":
        least, greatest = _side(of, interval.least), _side(of, interval.greatest)
        each = f"all {least}" if least == greatest else f"single trials: {least} to {greatest}"
        return f"{what} not resolved with {interval.n} trials ({each})"
    ends = interval.low, interval.high
    if answer == "worse":
        ends = tuple(math.inf if of.null and end == 0 else of.opposite(end) for end in reversed(ends))
    low, high = ends
    between = f"at least {of.size(low)}" if math.isinf(high) else f"{of.size(low)} to {of.size(high)}"
    return f"{what} {_side(of, interval.value)} (95% interval {between})"


def _side(of: Quantity, value: float) -> str:
    """`1.32 times sooner`, `0.4 points lower`, `equal`."""
    better = value > of.null
    size = of.size(value if better else of.opposite(value))
    return "equal" if size == of.size(of.null) else f"{size} {of.unit} {of.sides[not better]}"


def _points(gain: float) -> str:
    """A difference of accuracies, a fraction, in points."""
    points = 100 * gain
    return f"{points:.1f}" if abs(points) >= 0.095 else f"{points:.2f}"
