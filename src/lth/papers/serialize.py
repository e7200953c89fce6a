"""The score card as JSON values."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from lth.papers.agreement import Agreement
from lth.papers.card import Card
from lth.papers.intervals import Measured
from lth.papers.scores import Score
from lth.papers.statements import Statement
from lth.results import serialize


def as_json(card: Card) -> dict[str, Any]:
    """The card as lists and dicts. NaN and infinity are written as null."""
    return {
        "run": card.name,
        "about": card.about,
        "notes": list(card.notes),
        "claims": [_claim(score) for score in card.scores],
        "curves": [_curve(entry) for entry in card.curves],
        "winning": card.winning,
        "verdict": serialize.as_json(card.verdict),
        "own": [_statement(statement) for statement in card.statements],
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


def _measured(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return {"mean": None, "min": None, "max": None, "n": 0, "interval": None}
    ends = [end if math.isfinite(end) else None for end in (measured.low, measured.high)]
    interval = None if math.isnan(measured.low) else ends
    return {"mean": measured.mean, "min": measured.min, "max": measured.max, "n": measured.n, "interval": interval}


def _curve(entry: Agreement) -> dict[str, Any]:
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
