"""What stands beside a run's own numbers: the score card and the paper's curves. The one place where they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lth.papers import curves, verify
from lth.report.charts import Line
from lth.results.records import Records

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
    """What the page shows of the paper: by the run's place on it `cards`, the claims, and `notes`, how they are judged.

    `lines`: by column of summary.csv, curves drawn in grey.
    """

    cards: Mapping[int, Sequence[Claim]] = field(default_factory=dict)
    lines: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    notes: Mapping[int, str] = field(default_factory=dict)


def beside(runs: Sequence[Records]) -> Beside:
    """What the paper has to say to these runs; nothing where it has nothing."""
    cards = {i: card for i, run in enumerate(runs) if (card := verify.card(run, runs)).measured}
    columns = dict.fromkeys(str(column) for run in runs for column in run.summary)
    lines = {column: [_line(*found) for found in curves.behind_runs(runs, column)] for column in columns}
    return Beside(
        {i: [_claim(score) for score in card.scores] for i, card in cards.items()},
        {column: found for column, found in lines.items() if found},
        {i: " ".join([*card.notes, card.method]) for i, card in cards.items()},
    )


def _claim(score: verify.Score) -> Claim:
    run = f"{score.run}; missing: {score.missing}" if score.missing else score.run
    text = f"{score.claim.text} ({verify.place(score.claim)})"
    return Claim(score.claim.id, text, score.figure, run, score.verdict)


def _line(label: str, curve: curves.Curve) -> Line:
    return Line(label, [*curve.x], [*curve.mean], [*curve.low], [*curve.high], level=[*curve.level], family=curve.role)
