"""The score card of a run: its comparison with claims and curves of papers, and its own statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lth.papers import papers
from lth.papers.agreement import Agreement, agreements
from lth.papers.judging import ACCURACY, EARLY_STOP
from lth.papers.notes import notes
from lth.papers.paper import Paper, known_setups
from lth.papers.scores import Score, scores
from lth.papers.setups import fit
from lth.papers.statements import Count, Statement, counts, statements, winning
from lth.papers.trials import Trials, trials
from lth.results import verdict
from lth.results.captions import format_diverged
from lth.results.records import Records
from lth.results.verdict import Verdict

METHOD = (
    "Values are means over trials ± half of the 95% interval (Student's t), or quotients [with their 95% interval by "
    "Fieller's theorem]; in parentheses the minimum and maximum of n trials. Trainings of one branch in one trial are "
    "averaged first. Differences and quotients are paired by trial; a quotient is that of the means. Two networks "
    "differ if the 95% interval of their difference excludes zero, or that of their quotient excludes one."
)
JUDGED = (
    "Claims are judged by the paper's figure. An early stop agrees if its mean is within {es:.0%} of the figure's; "
    "an accuracy, or a difference of two, if it is within {accuracy:g} points. It differs if its whole interval is "
    "outside or, in a claim about a direction, on the other side of no difference. A claim that one value is above "
    "another agrees if the whole interval is above no difference, and differs if none of it is. A claim that a value "
    "holds or improves agrees if its mean is lower by no more than the tolerance. Otherwise more trials are needed. A "
    "point of a curve agrees if the run's mean is within the paper's error bar or the tolerance."
)


@dataclass(frozen=True)
class Card:
    """The score card. `notes` say what is compared, and which parts of the papers are left out."""

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
        """Return whether the run has a value for any claim."""
        return any(judged.run for score in self.scores for judged in score.judged)


def card(run: Records, beside: Iterable[Records] = ()) -> Card:
    """The score card of a run, computed from its experiment and tables.

    Claims about two experiments also read `beside`. A paper is included if the run repeats one of its experiments; if
    there is none, the notes name the nearest experiment.
    """
    others = sorted(beside, key=size)  # for each experiment the largest run is read; this run is the last
    compared = _compared([_beside(run, paper, others) for paper in papers()])
    drawn = [tuple(agreements(one)) for one in compared]
    return Card(
        name=run.experiment.name,
        about=run.experiment.about,
        notes=(
            *_notes(compared, drawn),
            *(f"Left out: {n}, for which there are no numbers." for n in format_diverged(run)),
        ),
        scores=tuple(score for one in compared for score in scores(one)),
        curves=tuple(entry for entries in drawn for entry in entries),
        winning=winning(run),
        verdict=verdict.of(run),
        statements=tuple(statements(compared[0])),
        counts=tuple(counts(compared[0])),
        method=method(compared[0]),
    )


def _beside(run: Records, paper: Paper, others: Sequence[Records]) -> Trials:
    """A run in the form that the claims of a paper read, with the other runs that its claims compare it with."""
    own = trials(run, paper)
    claims = paper.claims_of(own.fit.setup) if own.fit.setup else ()
    compared = {term.of for claim in claims for check in claim.checks for term in check.terms if term.of}
    by_setup = {fit(other.experiment, known_setups(paper)).setup: other for other in others} if compared else {}
    return replace(own, beside={of: trials(by_setup[of], paper) for of in compared if of in by_setup})


def _compared(tables: Sequence[Trials]) -> Sequence[Trials]:
    """The comparisons with papers whose experiments the run repeats, or else with the nearest experiment."""
    repeated = [table for table in tables if table.fit.setup]
    near = [table for table in tables if table.fit.nearest]
    return repeated or near[:1] or tables[:1]


def _notes(compared: Sequence[Trials], drawn: Sequence[Sequence[Agreement]]) -> Iterable[str]:
    for table, entries in zip(compared, drawn, strict=True):
        cite = f"{table.paper.cite}: " if len(compared) > 1 else ""
        yield from (f"{cite}{note}" for note in notes(table, entries))


def size(run: Records) -> tuple[int, int]:
    """The size of a run, for choosing one of several: iterations, then trained tickets."""
    tickets = run.summary["branch"].tolist().count("ticket")
    return run.experiment.recipe.iterations if tickets else 0, tickets


def method(run: Trials) -> str:
    """How values and, if there are any, verdicts are computed."""
    if run.fit.setup is None:
        return METHOD
    return f"{METHOD} {JUDGED.format(es=EARLY_STOP, accuracy=100 * ACCURACY[run.experiment.data.name])}"
