"""The curves of a run as TensorBoard event files in the folder `tensorboard/`, one TensorBoard run per training."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lth.errors import LthError
from lth.storage import atomic, layout, outcomes

FOLDER = layout.TENSORBOARD
NEEDED = "--log tensorboard needs another package: pip install 'lth[tensorboard]'"


def available() -> bool:
    return find_spec("tensorboard") is not None


def write(folder: Path, training_id: str) -> None:
    """Write the evaluations of a stored training atomically, unless they are already there."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    name = training_id if training_id.count("/") > 1 else f"{training_id}/ticket"
    target = folder / FOLDER / name
    if target.exists():
        return
    event: Any = vars(event_pb2)["Event"]  # created at import time from a description that type checkers do not see
    summary: Any = vars(summary_pb2)["Summary"]
    rows = csv.DictReader(outcomes.read_file(folder, f"{training_id}/{layout.CURVE}").decode().splitlines())
    beside = layout.unfinished(target)
    with atomic.failures_named(beside):
        beside.mkdir(parents=True)
        writer = EventFileWriter(str(beside))
        try:
            for row in rows:
                step = int(row.pop("iteration"))
                values = [{"tag": tag, "simple_value": float(value)} for tag, value in row.items() if value]
                writer.add_event(event(step=step, summary=summary(value=values)))
        except (ValueError, KeyError) as error:
            raise LthError(f"{folder / training_id / layout.CURVE} is damaged: {error}; remove its folder") from None
        finally:
            writer.close()
        atomic.rename(beside, target)
