"""The papers' score cards and curves for a set of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lth.papers.behind import behind_runs
from lth.papers.card import card
from lth.papers.curves import Curve
from lth.papers.scores import Score
from lth.report.charts import Line
from lth.results.records import Records

VERDICTS = ("agrees", "differs", "not enough data")


@dataclass(frozen=True)
class Claim:
    """A row of a score card: the paper's text, its figure, this run, and the verdict."""

    id: str
    text: str
    figure: str
    run: str
    verdict: str


@dataclass(frozen=True)
class Beside:
    """The papers' part of the page, by run index: the claims (`cards`) and how they are judged (`notes`).

    `lines` are the curves drawn in grey, by column of summary.csv.
    """

    cards: Mapping[int, Sequence[Claim]] = field(default_factory=dict)
    lines: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    notes: Mapping[int, str] = field(default_factory=dict)


def beside(runs: Sequence[Records]) -> Beside:
    """The claims and curves that papers have for these runs."""
    cards = {i: scored for i, run in enumerate(runs) if (scored := card(run, runs)).measured}
    columns = dict.fromkeys(str(column) for run in runs for column in run.summary)
    lines = {column: [_line(*pair) for pair in behind_runs(runs, column)] for column in columns}
    return Beside(
        {i: [_claim(score) for score in scored.scores] for i, scored in cards.items()},
        {column: curves for column, curves in lines.items() if curves},
        {i: " ".join([*scored.notes, scored.method]) for i, scored in cards.items()},
    )


def _claim(score: Score) -> Claim:
    run = f"{score.run}; missing: {score.missing}" if score.missing else score.run
    return Claim(score.claim.id, score.text, score.figure, run, score.verdict)


def _line(label: str, curve: Curve) -> Line:
    return Line(label, [*curve.x], [*curve.mean], [*curve.low], [*curve.high], level=[*curve.level], family=curve.role)
