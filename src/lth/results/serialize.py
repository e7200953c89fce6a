"""A verdict as JSON values."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from lth.results.intervals import Interval
from lth.results.verdict import Contrast, Control, Level, Verdict


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as lists and dicts. NaN and infinity are written as null.

    `weights_remaining` and accuracies are fractions; in regression, losses replace accuracies. `sooner` is the other
    network's early stop divided by the ticket's. `gain` is the ticket's accuracy minus the other's, or the fraction by
    which its loss is lower.
    """
    name, plural = verdict.metric.name, verdict.metric.plural
    return {
        "judged_by": f"final {name}" if verdict.at_the_end else f"early stop and {name} there",
        "winning": _place(verdict.level(verdict.winning)),
        "matching": _place(verdict.level(verdict.matching)),
        "levels": [_level(level, plural) for level in verdict.levels],
        "controls": [_control(control, plural) for control in verdict.controls],
        "controls_at_level": verdict.focus.level if verdict.focus and verdict.controls else None,
        "early_stops_not_reached": verdict.unreached,
    }


def _place(level: Level | None) -> dict[str, Any] | None:
    if level is None:
        return None
    return {"level": level.level, "weights_remaining": level.percent / 100, "resolved": level.resolved}


def _level(level: Level, plural: str) -> dict[str, Any]:
    compared = _contrast(level.contrast, plural)
    return {"level": level.level, "weights_remaining": level.percent / 100, "resolved": level.resolved} | compared


def _control(control: Control, plural: str) -> dict[str, Any]:
    return {"branch": control.name, "as_good": control.as_good} | _contrast(control.contrast, plural)


def _contrast(contrast: Contrast, plural: str) -> dict[str, Any]:
    """A ticket compared with another network, whose values come second."""
    return {
        "n": contrast.n,
        "early_stops": list(contrast.stops) if contrast.stops else None,
        plural: list(contrast.scores),
        "sooner": _interval(contrast.sooner),
        "sooner_answer": contrast.time,
        "gain": _interval(contrast.gain),
        "gain_answer": contrast.score,
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in asdict(interval).items()}
