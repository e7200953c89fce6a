"""The figures of a paper as values: the trainings of each, and the contents of its panels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lth.papers.curves import Curve
from lth.papers.setups import Setup, experiment

Axis = Literal["percent", "linear percent", "thousands", "linear thousands", "iteration"]


class Line(NamedTuple):
    """A series: its label and its trainings."""

    label: str
    setup: Setup
    role: str = "ticket"  # or the role of a branch
    level: int | None = None  # if x is the iteration
    last: int | None = None  # the level, if the paper's curve does not give it; None: the experiment's own


@dataclass(frozen=True)
class Panel:
    """Axes, the lines on them, and the paper's own curves behind."""

    title: str
    axis: Axis
    column: str  # of summary.csv, or of curves.csv if x is the iteration
    lines: tuple[Line, ...]
    paper: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Portrait:
    """A panel on the contents of tickets of one level: a histogram for each layer, over all trials."""

    kind: Literal["starts", "movement", "growth", "incoming", "outgoing"]
    setup: Setup
    level: int

    @property
    def measure(self) -> str:
        """The measure that the panel shows."""
        return "movement" if self.kind in ("movement", "growth") else "anatomy"


@dataclass(frozen=True)
class Need:
    """The part of a setup that a figure needs: levels 0 to `levels`, and of each branch (count, last level)."""

    levels: int
    branches: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class PaperFigure:
    """A figure: its panels, and the number of trials if it is not the preset's.

    `count`: how many trainings of a branch each ticket of a setup has. `by_test`: early stop is the iteration of
    minimum test loss, not validation loss.
    """

    number: int
    about: str
    panels: tuple[Panel, ...] = ()
    portraits: tuple[Portrait, ...] = ()
    trials: int | None = None
    by_test: bool = False
    count: Callable[[Setup, str], int] = lambda of, role: 1

    def needs(self) -> dict[Setup, Need]:
        """What must be trained of each setup, in the order of the panels."""
        levels: dict[Setup, dict[str, int]] = {}
        for panel in self.panels:
            for line in panel.lines:
                _deepen(levels, line.setup, line.role, _last(panel, line))
        for portrait in self.portraits:
            _deepen(levels, portrait.setup, "ticket", portrait.level)
        return {of: self._need(of, roles) for of, roles in levels.items()}

    def _need(self, of: Setup, roles: Mapping[str, int]) -> Need:
        branches = {role: (self.count(of, role), last) for role, last in roles.items() if role != "ticket" and last}
        return Need(max(roles.values()), branches)


def _deepen(levels: dict[Setup, dict[str, int]], of: Setup, role: str, last: int) -> None:
    roles = levels.setdefault(of, {})
    roles[role] = max(last, roles.get(role, 0))


def _last(panel: Panel, line: Line) -> int:
    """The last level that a line shows."""
    if line.level is not None:
        return line.level
    plotted = [max(c.level) for c in panel.paper if c.level and (c.setup, c.role) == (line.setup, line.role)]
    if plotted:
        return plotted[-1]
    return experiment(line.setup).levels if line.last is None else line.last
