"""How far weights move from their start while the unpruned network trains, inside and outside a ticket.

See appendix F.5 of Frankle & Carbin 2019. The table has two rows per trial, level, kind and layer, `in the ticket`
and `not in it`. `movement` is |trained - start|, in 40 equal bins from 0 to limit; `growth` is |trained| - |start|,
from -limit to limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lth.config import Experiment
from lth.errors import UsageError
from lth.measures import tables
from lth.measures.histograms import BINS
from lth.measures.tickets import Numbers, tickets
from lth.plan import training_id
from lth.results.records import Place
from lth.storage import layout

KINDS = ("movement", "growth")
COLUMNS = ("trial", "level", "kind", "layer", "which", "limit", *map(str, range(1, BINS + 1)))


def compute(
    folder: Path,
    experiment: Experiment,
    stored: pd.DataFrame | None = None,
    trials: Numbers = None,
    levels: Numbers = None,
) -> pd.DataFrame:
    """`stored` with the missing rows of the tickets of `trials` and `levels` (default: all).

    Raises UsageError if the trained weights of level 0 are not stored.
    """
    if stored is not None:
        tables.check_columns(stored, "movement", folder, COLUMNS)
    measured = set() if stored is None else set(zip(stored["trial"], stored["level"], strict=True))
    places = [place for place in tickets(folder, trials, levels) if place.level and place[:2] not in measured]
    rows = [row for place in places for row in _rows(folder, place)]
    return stored if stored is not None and not rows else tables.joined(stored, rows, COLUMNS)


def _rows(folder: Path, place: Place) -> Iterator[dict[str, Any]]:
    """The table rows of one ticket, computed from its tensors."""
    from lth.storage.tensors import read_tensors
    from lth.tickets.ticket import read_ticket

    dense = f"{training_id(place.trial, 0)}/{layout.TRAINED}"
    if not (folder / dense).exists():
        raise UsageError(f"{folder} lacks {dense}, from which movement is computed: copy it there")
    names = (layout.start_name(place.trial), dense)
    start, trained = (read_tensors(folder, name) for name in names)
    ticket = read_ticket(folder, training_id(*place))
    for layer, mask in ticket.mask.items():
        before, after = (tensors[layer].double().numpy() for tensors in (start, trained))
        for kind, value in (("movement", np.abs(after - before)), ("growth", np.abs(after) - np.abs(before))):
            limit = float(np.abs(value).max()) or 1.0
            span = (0 if kind == "movement" else -limit, limit)
            for which, part in (("in the ticket", value[mask.numpy()]), ("not in it", value[~mask.numpy()])):
                counts = np.histogram(part, BINS, span)[0].tolist()
                head = (place.trial, place.level, kind, layer, which, limit)
                yield dict(zip(COLUMNS, (*head, *counts), strict=True))
