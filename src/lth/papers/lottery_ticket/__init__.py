"""Frankle & Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks, ICLR 2019, as data.

The text, figures and numbers are those of its last version, arXiv 1803.03635v5; earlier ones have other numbers.

series.py    the curves of its figures, in reference_curves.csv.gz, and what each of them shows
claims/      its claims by section
figures.py   its figures: which trainings each is made of, and its panels
setups.py    its networks and experiments by name
"""

from __future__ import annotations

from functools import cache

from lth.papers.lottery_ticket import series
from lth.papers.lottery_ticket.claims import CLAIMS
from lth.papers.lottery_ticket.derived import DERIVED
from lth.papers.lottery_ticket.setups import dense_of
from lth.papers.paper import Paper


@cache
def paper() -> Paper:
    """The paper as a value."""
    return Paper("Frankle & Carbin", series.curves(), CLAIMS, series.ORDER, series.BY_TEST, DERIVED, dense_of)
