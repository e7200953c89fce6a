"""A verdict as plain values, for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from lth.results.intervals import Interval
from lth.results.verdict import Contrast, Control, Level, Verdict


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain lists and dicts; NaN and infinity are written as null.

    `weights_remaining` and accuracies are fractions. `sooner` is the other network's early stop divided by the
    ticket's, `gain` the ticket's accuracy minus the other's.
    """
    return {
        "judged_by": "final accuracy" if verdict.at_the_end else "early stop and accuracy there",
        "winning": _place(verdict.level(verdict.winning)),
        "matching": _place(verdict.level(verdict.matching)),
        "levels": [_level(level) for level in verdict.levels],
        "controls": [_control(control) for control in verdict.controls],
        "controls_at_level": verdict.focus.level if verdict.focus and verdict.controls else None,
        "early_stops_not_reached": verdict.unreached,
    }


def _place(level: Level | None) -> dict[str, Any] | None:
    if level is None:
        return None
    return {"level": level.level, "weights_remaining": level.percent / 100, "resolved": level.resolved}


def _level(level: Level) -> dict[str, Any]:
    compared = _contrast(level.contrast)
    return {"level": level.level, "weights_remaining": level.percent / 100, "resolved": level.resolved} | compared


def _control(control: Control) -> dict[str, Any]:
    return {"branch": control.name, "as_good": control.as_good} | _contrast(control.contrast)


def _contrast(contrast: Contrast) -> dict[str, Any]:
    """A ticket beside another network, whose values are second."""
    return {
        "n": contrast.n,
        "early_stops": list(contrast.stops) if contrast.stops else None,
        "accuracies": list(contrast.accuracies),
        "sooner": _interval(contrast.sooner),
        "sooner_answer": contrast.time,
        "gain": _interval(contrast.gain),
        "gain_answer": contrast.accuracy,
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in asdict(interval).items()}
