"""What stands beside a run's own numbers: the score card and the paper's curves. The one place where they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lth.paper import curves, verify
from lth.records import Records
from lth.report.charts import Line

VERDICTS = ("agrees", "differs", "not enough data")


@dataclass(frozen=True)
class Claim:
    """A row of a score card: what the paper's text says, its figure, this run, and the verdict."""

    id: str
    text: str
    figure: str
    run: str
    verdict: str


@dataclass(frozen=True)
class Beside:
    """`cards`: by the run's place on the page, its claims. `lines`: by column of summary.csv, curves drawn in grey."""

    cards: Mapping[int, Sequence[Claim]] = field(default_factory=dict)
    lines: Mapping[str, Sequence[Line]] = field(default_factory=dict)


def beside(runs: Sequence[Records]) -> Beside:
    """What the paper has to say to these runs; nothing where it has nothing."""
    cards = {i: [_claim(score) for score in verify.scored(run)] for i, run in enumerate(runs)}
    columns = dict.fromkeys(column for run in runs for column in run.summary)
    lines = {column: [_line(*found) for found in curves.behind_runs(runs, column)] for column in columns}
    return Beside(
        {i: claims for i, claims in cards.items() if claims},
        {column: found for column, found in lines.items() if found},
    )


def _claim(score: verify.Score) -> Claim:
    run = f"{score.run}; missing: {score.missing}" if score.missing else score.run
    text = f"{score.claim.text} ({verify.place(score.claim)})"
    return Claim(score.claim.id, text, score.figure, run, score.verdict)


def _line(label: str, curve: curves.Curve) -> Line:
    return Line(label, [*curve.x], [*curve.mean], [*curve.low], [*curve.high], level=[*curve.level], family=curve.role)
