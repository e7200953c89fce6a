"""The score card of a run: the claims and curves of papers against it, and what it shows by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lth.papers import papers
from lth.papers.agreement import Agreement, agreements
from lth.papers.judging import ACCURACY, EARLY_STOP
from lth.papers.notes import notes
from lth.papers.paper import Paper
from lth.papers.scores import Score, scores
from lth.papers.statements import Count, Statement, counts, statements, winning
from lth.papers.trials import Trials, trials
from lth.results import verdict
from lth.results.captions import format_diverged
from lth.results.records import Records
from lth.results.verdict import Verdict

METHOD = (
    "Mean over trials ± half of its 95% interval (Student's t), or a quotient [and its 95% interval, by Fieller's "
    "theorem]; in round brackets the least and the greatest of n trials. "
    "Trainings of one branch in one trial are averaged first; differences and quotients are paired within trials, a "
    "quotient being that of the means. Two networks differ if the 95% interval of their difference excludes zero, or "
    "that of their quotient one."
)
JUDGED = (
    "Judged by the paper's figure: a value agrees where its mean is within {es:.0%} of the figure's (early stops) or "
    "{accuracy:g} points (accuracies, and differences of two), and differs where its whole interval is outside, or, "
    "where the claim is of a side, on the other side of no difference. A claim that one thing is above another agrees"
    " where the whole interval is above, and differs where none of it is; one that something holds or improves agrees"
    " where its mean is lower by no more than that. Else more trials are needed. A curve is within where the run's "
    "mean is within the paper's error bar, or as near as this."
)


@dataclass(frozen=True)
class Card:
    """The score card. `notes` name what is compared, and what of the papers' is left out."""

    name: str
    about: str
    notes: tuple[str, ...]
    scores: tuple[Score, ...]
    curves: tuple[Agreement, ...]
    winning: str
    verdict: Verdict
    statements: tuple[Statement, ...]
    counts: tuple[Count, ...]
    method: str

    @property
    def measured(self) -> bool:
        """Whether the run has a value for any claim."""
        return any(judged.run for score in self.scores for judged in score.judged)


def card(run: Records, beside: Iterable[Records] = ()) -> Card:
    """The score card of a run, from its experiment and tables alone.

    Claims about two experiments read `beside` too. The papers of the registry are those that the run repeats an
    experiment of; if there are none, the notes name the nearest experiment.
    """
    others = sorted(beside, key=size)  # the largest run of each experiment is read, the last one here
    compared = _compared([_beside(run, paper, others) for paper in papers()])
    drawn = [tuple(agreements(one)) for one in compared]
    return Card(
        name=run.experiment.name,
        about=run.experiment.about,
        notes=(*_notes(compared, drawn), *(f"Left out: {n}, of which no number is." for n in format_diverged(run))),
        scores=tuple(score for one in compared for score in scores(one)),
        curves=tuple(entry for entries in drawn for entry in entries),
        winning=winning(run),
        verdict=verdict.of(run),
        statements=tuple(statements(compared[0])),
        counts=tuple(counts(compared[0])),
        method=method(compared[0]),
    )


def _beside(run: Records, paper: Paper, others: Sequence[Records]) -> Trials:
    """A run as the claims of a paper read it, with the other runs that repeat its experiments."""
    tables = (trials(other, paper) for other in others)
    return replace(trials(run, paper), beside={table.fit.setup: table for table in tables if table.fit.setup})


def _compared(tables: Sequence[Trials]) -> Sequence[Trials]:
    """The comparisons with papers that the run repeats an experiment of; else with the one of the nearest."""
    repeated = [table for table in tables if table.fit.setup]
    near = [table for table in tables if table.fit.nearest]
    return repeated or near[:1] or tables[:1]


def _notes(compared: Sequence[Trials], drawn: Sequence[Sequence[Agreement]]) -> Iterable[str]:
    for table, entries in zip(compared, drawn, strict=True):
        cite = f"{table.paper.cite}: " if len(compared) > 1 else ""
        yield from (f"{cite}{note}" for note in notes(table, entries))


def size(run: Records) -> tuple[int, int]:
    """The size of a run, by which one of several of an experiment is chosen: iterations, then trained tickets."""
    tickets = run.summary["branch"].tolist().count("ticket")
    return run.experiment.recipe.iterations if tickets else 0, tickets


def method(run: Trials) -> str:
    """How values are made, and verdicts if there are any."""
    if run.fit.setup is None:
        return METHOD
    return f"{METHOD} {JUDGED.format(es=EARLY_STOP, accuracy=100 * ACCURACY[run.experiment.data.name])}"
