"""The stored tickets of a run, for measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lth.errors import UsageError
from lth.plan import training_id
from lth.results.records import Place
from lth.results.trainings import each_training
from lth.storage import layout, outcomes

Numbers = int | Sequence[int] | None  # trials or levels: one, several, or all


def tickets(folder: Path, trials: Numbers = None, levels: Numbers = None) -> dict[Place, Path]:
    """The folders of the trunk's stored tickets whose trial has its start.

    Raises UsageError if trials or levels are not whole numbers.
    """
    for name, numbers in (("trials", trials), ("levels", levels)):
        if numbers is not None and not all(type(n) is int for n in _several(numbers)):
            raise UsageError(f"{name}={numbers}: expected a whole number, or several, such as {name}=[1,2]")
    return {
        place: path
        for place, path in trunk(folder).items()
        if _among(place.trial, trials) and _among(place.level, levels)
        if (path / layout.TICKET).exists() and (folder / layout.start_name(place.trial)).exists()
    }


def trunk(folder: Path) -> dict[Place, Path]:
    """The finished trainings of the trunk and their folders."""
    return {place: path for place, path in each_training(folder) if place.branch == "ticket"}


def identity(folder: Path, place: Place) -> str:
    """The identity of a stored ticket: the first digits of its checksum; empty if it has none."""
    summary = outcomes.outcome(folder, training_id(*place)) or {}
    return outcomes.digests_in(summary).get(layout.TICKET, "")[:16]


def _among(number: int, numbers: Numbers) -> bool:
    return numbers is None or number in _several(numbers)


def _several(numbers: int | Sequence[int]) -> Sequence[int]:
    return numbers if isinstance(numbers, list | tuple) else [numbers]  # type: ignore[list-item]
