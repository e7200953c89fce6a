"""A stored run as a Python object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from lth.config import Experiment
from lth.errors import UsageError
from lth.report import words
from lth.results import comparison, sentences, tables, terminal, verdict
from lth.results.captions import format_percent
from lth.results.html import html_image, html_table
from lth.results.metrics import Metric, metric_of
from lth.results.records import Records
from lth.results.trainings import finished
from lth.storage import atomic, layout

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from lth.tickets.ticket import Ticket


@dataclass(frozen=True, repr=False)
class Run:
    """A run's folder and what is stored in it: `lth.Run("runs/lenet")`.

    Files are read on each access, so a run that is still being trained shows its present state. Raises UsageError if
    the folder is not a run, and LthError if a file is damaged.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        return self._records.experiment

    @property
    def summary(self) -> pd.DataFrame:
        """summary.csv: one row per training."""
        return self._records.summary

    @property
    def curves(self) -> pd.DataFrame:
        """curves.csv: one row per evaluation."""
        return self._records.curves

    @property
    def verdict(self) -> verdict.Verdict:
        """The winning level, what the trials resolve, and how the controls compare."""
        return verdict.of(self._records)

    @property
    def winning(self) -> Ticket | None:
        """The first trial's ticket at the winning level; None if no level wins."""
        level = self.verdict.winning
        first = min((place.trial for place in finished(self.folder)), default=1)
        return None if level is None else self.ticket(level, first)

    def tickets(self, trial: int = 1, branch: str = "ticket") -> list[Ticket]:
        """The stored tickets of a trial by level; level 0 is the unpruned network."""
        levels = [place.level for place in finished(self.folder) if (place.trial, place.branch) == (trial, branch)]
        return [self.ticket(level, trial, branch) for level in levels]

    def ticket(self, level: int, trial: int = 1, branch: str = "ticket") -> Ticket:
        """The ticket of a training: its mask, and the start weights under it. Raises UsageError if it is not stored."""
        from lth.tickets import export

        return export.stored_ticket(self.folder, trial, level, branch)

    def trained(self, level: int, trial: int = 1, branch: str = "ticket") -> dict[str, Tensor]:
        """The weights at the end of a training, with biases and buffers, on the CPU: a state_dict.

        Raises UsageError if they are not stored, for example with store.keep = "tickets".
        """
        from lth.tickets import export

        return export.trained_weights(self.folder, trial, level, branch)

    @property
    def figures(self) -> dict[str, Path]:
        """The figures as PNG files by name; they are drawn first if there are none."""
        folder = self.folder / layout.FIGURES
        if not any(folder.glob("*.png")):
            self.draw()
        return {path.stem: path for path in sorted(folder.glob("*.png"))}

    @property
    def report(self) -> Path:
        """The path of the report, one HTML page; it is written first if it is missing."""
        if not (self.folder / layout.REPORT).is_file():
            self.draw()
        return self.folder / layout.REPORT

    def draw(self) -> list[Path]:
        """Draw the figures and write the report from what is stored now, like `lth report`. Returns their paths."""
        from lth.report import publish  # loads matplotlib

        figures = self.folder / layout.FIGURES
        atomic.make_folder(figures)
        return publish.publish([self._records], figures, self.folder / layout.REPORT)

    def __repr__(self) -> str:
        if not (self.folder / layout.EXPERIMENT).is_file():
            return f"Run({str(self.folder)!r}: nothing stored)"
        stored, expected = words.progress(self._records)
        lines = [f"Run({str(self.folder)!r}: {stored} of {expected} trainings)", words.headline(self._records)]
        return "\n  ".join([*lines, *filter(None, [sentences.evidence(self.verdict)])])

    def _repr_html_(self) -> str:
        if not (self.folder / layout.SUMMARY_TABLE).is_file():
            return f"<div>{escape(repr(self))}</div>"
        lines = "".join(f"<div>{escape(line)}</div>" for line in repr(self).split("\n"))
        return f"<div>{lines}{_levels(self._records)}{self._overview()}</div>"

    def _overview(self) -> str:
        picture = self.figures.get("overview")
        if picture is None:
            return ""
        return html_image(picture.read_bytes(), f"early stop and {metric_of(self.experiment).name} by density")

    @property
    def _records(self) -> Records:
        return tables.load(self.folder)


def compare(runs: Iterable[Run | str | Path]) -> pd.DataFrame:
    """Compare runs: one row per run, the best first, with the settings that differ and the results.

    `runs` are run folders or results of `lth.run`, at least one. Runs with a winning level come first, the sparsest at
    the top; then runs without one, the most accurate first. Columns: run, the settings that differ, trials,
    winning_density with the minimum and maximum over single trials, resolved, level, density, test_accuracy and
    early_stop_iteration there with their 95% intervals (Student's t over trials), and matching_density. Densities and
    accuracies are fractions; unknown values are blank. In regression, test_loss replaces test_accuracy. Raises
    UsageError if a folder is not a run.
    """
    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    if not folders:
        raise UsageError("lth.compare takes the folders of runs, or what lth.run returned; not an empty list")
    return comparison.table(comparison.ranked([tables.load(folder) for folder in folders]))


def _levels(records: Records) -> str:
    """The table of the levels as HTML, with tickets and `reinit`."""
    rows, metric = terminal.headline_table(records), metric_of(records.experiment)
    branches = [name for name in ("ticket", "reinit") if any(name in row.early_stop for row in rows)]
    names = [f"{name}: {what}" for name in branches for what in ("early stop", metric.name)]
    cells = [[*_level(row), *(cell for name in branches for cell in _means(row, name, metric))] for row in rows]
    return html_table(["level", "weights remaining", *names], cells)


def _level(row: terminal.Headline) -> tuple[str, str]:
    return f"{row.level}{' *' * row.winning}", f"{format_percent(row.percent)}%"


def _means(row: terminal.Headline, branch: str, metric: Metric) -> tuple[str, str]:
    stop, score = row.early_stop.get(branch), row.score.get(branch)
    late = terminal.LATE * (branch in row.unreached)
    return f"{stop.mean:,.0f}{late}" if stop else "", metric.text(score.mean) if score else ""
