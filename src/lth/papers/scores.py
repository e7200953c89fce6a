"""The result of a run for each claim of a paper."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lth.papers.claims import Claim
from lth.papers.judging import LACKING, Judged, Verdict, figures_read, judge, worst
from lth.papers.paper import Paper
from lth.papers.trials import Trials
from lth.papers.wording import format_measured, format_value


@dataclass(frozen=True)
class Score:
    """A claim, its checks judged for a run, and the verdict."""

    claim: Claim
    paper: Paper
    judged: tuple[Judged, ...]
    verdict: Verdict

    @property
    def figure(self) -> str:
        """The values of the paper's figure as text."""
        values = [self._labelled(j, format_value(j.check.kind, j.figure)) for j in self.judged if j.figure is not None]
        text = "; ".join([*values, *([self.claim.note] if self.claim.note else [])])
        numbers = self._figures()
        where = f"figure{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else "no figure"
        return f"{text} ({where})" if text else where

    def _figures(self) -> list[str]:
        claim = self.claim
        read = [figures_read(self.paper, j.check, claim.setup, claim.figures) for j in self.judged]
        return list(dict.fromkeys(itertools.chain(*read))) or list(claim.figures)

    @property
    def run(self) -> str:
        """The values of the run as text."""
        values = [self._labelled(j, format_measured(j.check.kind, j.run)) for j in self.judged if j.run]
        return "; ".join(values) or "-"

    def _labelled(self, judged: Judged, text: str) -> str:
        return f"{judged.check.what}: {text}" if len(self.judged) > 1 else text

    @property
    def missing(self) -> str:
        """What is missing for a verdict; empty if there is one."""
        if self.verdict != LACKING:
            return ""
        parts = [part for j in self.judged if j.missing for part in j.missing.split("; ")]
        return "; ".join(dict.fromkeys(parts)) or self.claim.lacks

    @property
    def text(self) -> str:
        """The claim's text and its place in the paper."""
        return f"{self.claim.text} ({place(self.claim)})"


def scores(run: Trials) -> tuple[Score, ...]:
    """The results of a run for all claims about its experiment."""
    return tuple(score(run, claim) for claim in run.paper.claims_of(run.fit.setup)) if run.fit.setup else ()


def score(run: Trials, claim: Claim) -> Score:
    """The result of a run for one claim."""
    judged = tuple(judge(run, check, claim.setup, claim.figures) for check in claim.checks)
    return Score(claim, run.paper, judged, worst([j.verdict for j in judged]) if judged else LACKING)


def place(claim: Claim) -> str:
    """The place of a claim in its paper."""
    if claim.section == "abstract":
        return claim.section
    return f"{'section' if claim.section[0].isdigit() else 'appendix'} {claim.section}"
