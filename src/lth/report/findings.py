"""The result of a run as JSON values, for `--json`."""

from __future__ import annotations

from typing import Any

from lth.report import words
from lth.results import sentences, serialize, verdict
from lth.results.records import Records
from lth.storage import layout


def as_json(run: Records) -> dict[str, Any]:
    """The headline of the run, further remarks, and the verdict; `report` is null until the report exists."""
    stored, expected = words.progress(run)
    judged, report = verdict.of(run), run.folder / layout.REPORT
    return {
        "run": str(run.folder),
        "name": run.experiment.name,
        "about": run.experiment.about,
        "trainings": {"stored": stored, "expected": expected},
        "headline": sentences.headline(judged),
        "remarks": [*sentences.remarks(judged), *words.state(run)],
        "verdict": serialize.as_json(judged),
        "report": str(report) if report.is_file() else None,
    }
