"""The papers that runs are compared with: the claims, curves and figures of each as data, and the score card.

A paper is a folder of this package, which contains only data, and an entry of PAPERS. The code that all papers share is
here:

setups.py      experiments of a paper, each a preset with changed settings; which of them a run repeats curves.py
curves of figures as values, and how they are found claims.py      claims as values: which trainings are compared, by
which measure and rule paper.py       a paper as a value trials.py      the values of a run by trial intervals.py
means over trials with their intervals judging.py     the verdict on a claim for a run scores.py, agreement.py,
statements.py, notes.py     the parts of the score card card.py        the score card; terminal.py and serialize.py
format it behind.py      the curves of papers drawn behind those of a run figures.py     figures as data; drawing.py and
portraits.py draw them
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
