"""The single steps of `lth repair` in a run's folder. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lth.storage import atomic, integrity, layout, outcomes


@dataclass(frozen=True)
class Work:
    """One repair step: its description and its function. If `do` is None, it cannot be repaired."""

    description: str
    do: Callable[[], object] | None


def aside(folder: Path, name: str) -> Callable[[], None]:
    """Move a training's own files, or a file, into the folder `damaged` of the run, without overwriting anything."""

    def move() -> None:
        source, target = folder / name, folder / layout.ASIDE / name
        count = 1
        while target.exists():
            count += 1
            target = folder / layout.ASIDE / f"{name}.{count}"
        with atomic.failures_named(target):
            if source.is_dir():
                atomic.make_folders(target)
                for path in integrity.own_files(source):
                    atomic.rename(path, target / path.name)
                if not any(source.iterdir()):
                    source.rmdir()
            else:
                atomic.make_folders(target.parent)
                atomic.rename(source, target)

    return move


def start_from(folder: Path, level_0: str) -> Callable[[], None]:
    """Write a trial's start from the start weights in the ticket of its level 0."""

    def write() -> None:
        from lth.storage.tensors import save_tensors
        from lth.tickets.ticket import from_bytes

        trial = layout.trial_of(level_0)
        ticket = from_bytes(outcomes.read_file(folder, f"{level_0}/{layout.TICKET}"))
        atomic.write_file(folder / layout.start_name(trial), save_tensors(ticket.start, {"trial": trial}))

    return write
