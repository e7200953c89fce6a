"""The papers that runs are compared with: the claims, curves and figures of each as data, and the score card.

A paper is a folder of this package and an entry of PAPERS. Its folder holds data alone; what every paper needs is here:

setups.py      experiments of a paper, each a preset and what is changed in it; which of them a run repeats
curves.py      curves of figures as values, and how they are found
claims.py      claims as values: which trainings are compared, in what measure, by which rule
paper.py       a paper as a value
trials.py      a run as measures read it
intervals.py   means over trials with their intervals
judging.py     a claim held against a run: the verdict
scores.py, agreement.py, statements.py, notes.py     the parts of the score card
card.py        the score card; terminal.py and serialize.py write it
behind.py      the curves of papers behind those of a run
figures.py     figures as data; drawing.py and portraits.py draw them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lth.config.registry import Entry

if TYPE_CHECKING:
    from lth.papers.paper import Paper

PAPERS: dict[str, Entry] = {
    "lottery-ticket": Entry(
        "Frankle & Carbin, The Lottery Ticket Hypothesis, ICLR 2019", "lth.papers.lottery_ticket:paper"
    ),
}


def papers() -> tuple[Paper, ...]:
    """All papers, in the order of the registry."""
    return tuple(entry.load()() for entry in PAPERS.values())
