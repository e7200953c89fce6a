"""The paper's claims by which a run can be judged, each with its figures and checks, by section."""

from __future__ import annotations

from lth.papers.claims import Claim
from lth.papers.lottery_ticket.claims.appendices import APPENDICES
from lth.papers.lottery_ticket.claims.section_2 import SECTION_2
from lth.papers.lottery_ticket.claims.section_3 import SECTION_3
from lth.papers.lottery_ticket.claims.section_4 import SECTION_4
from lth.papers.lottery_ticket.claims.sweeps import SWEEPS

CLAIMS: tuple[Claim, ...] = (*SECTION_2, *SECTION_3, *SECTION_4, *APPENDICES, *SWEEPS)
