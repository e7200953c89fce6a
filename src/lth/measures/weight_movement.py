"""How far weights move from their start while the unpruned network trains, in a ticket and out of it (Appendix F.5).

Computed from the stored tensors once, and kept as movement.csv beside summary.csv, so that figures need no tensors: two
rows a kind and layer, `in the ticket` and `not in it`. `movement` is |trained - start|, in 40 equal bins from 0 to
limit; `growth` is |trained| - |start|, from -limit to limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lth.errors import UsageError
from lth.measures.anatomy import BINS
from lth.storage import atomic, outcomes

FILE = "movement.csv"
KINDS = ("movement", "growth")
COLUMNS = ["trial", "level", "kind", "layer", "which", "limit", *map(str, range(1, BINS + 1))]


def load(folder: Path, level: int, trials: Sequence[int]) -> pd.DataFrame:
    """The rows of a level; made of the tensors first where they are not there. Raises UsageError without either."""
    table = _stored(folder)
    if lacking := sorted({*trials} - {*table.loc[table["level"] == level, "trial"]}):
        rows = [row for trial in lacking for row in _rows(folder, trial, level)]
        table = pd.concat(
            [table, pd.DataFrame(rows, columns=COLUMNS)] if len(table) else [pd.DataFrame(rows, columns=COLUMNS)]
        )
        table = table.sort_values(["level", "trial"], kind="stable", ignore_index=True)
        atomic.write_file(folder / FILE, table.to_csv(index=False, lineterminator="\n").encode())
    return table.loc[(table["level"] == level) & table["trial"].isin(trials)]


def _stored(folder: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(folder / FILE)
    except FileNotFoundError:
        return pd.DataFrame(columns=COLUMNS)
    except (ValueError, OSError) as error:
        raise UsageError(f"{folder / FILE} is damaged: {error}; delete it, and it is made again") from None
    if list(table.columns) != COLUMNS:
        raise UsageError(f"{folder / FILE} is damaged: it has other columns; delete it, and it is made again")
    return table


def _rows(folder: Path, trial: int, level: int) -> Iterator[list]:
    from lth.storage.tensors import load_tensors
    from lth.tickets.ticket import Ticket

    names = [f"trial-{trial}/{name}" for name in ("start.safetensors", "level-00/trained.safetensors")]
    if missing := [name for name in names if not (folder / name).exists()]:
        raise UsageError(f"{folder} has neither {FILE} nor {missing[0]}, of which it is made: copy one of them there")
    start, trained = (load_tensors(outcomes.read_file(folder, name)) for name in names)
    ticket = Ticket.load(folder / f"trial-{trial}/level-{level:02}" / "ticket.safetensors")
    for name, layer in ticket.mask.items():
        before, after, mask = (
            t.double().numpy() if t.is_floating_point() else t.numpy() for t in (start[name], trained[name], layer)
        )
        values = {"movement": np.abs(after - before), "growth": np.abs(after) - np.abs(before)}
        for kind, value in values.items():
            limit = float(np.abs(value).max()) or 1.0
            span = (0 if kind == "movement" else -limit, limit)
            for which, part in (("in the ticket", value[mask]), ("not in it", value[~mask])):
                yield [trial, level, kind, name, which, limit, *np.histogram(part, BINS, span)[0].tolist()]
