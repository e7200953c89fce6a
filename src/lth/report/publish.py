"""Write the figures and the report of runs from what is stored so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lth.measures import tables
from lth.papers import behind
from lth.report import page
from lth.results import comparison, plots
from lth.results.records import Records
from lth.storage import atomic

COMPARISON = "comparison.csv"


def summarized(paths: Sequence[Path]) -> list[str]:
    """Lines that name what was written: the figures, the table of several runs, and the report."""
    *others, report = paths
    figures = [path for path in others if path.name != COMPARISON]
    lines = [f"figures: {figures[0].parent} ({len(figures)} files)"] if figures else []
    lines += [f"table: {path}" for path in others if path.name == COMPARISON]
    return [*lines, f"report: {report} (open it in a web browser)"]


def write_comparison(runs: Sequence[Records], folder: Path) -> Path:
    """Write comparison.csv: the rows of summary.csv of all runs with a column for each setting that differs."""
    path = folder / COMPARISON
    atomic.write_file(path, comparison.combined(runs).to_csv(index=False).encode())
    return path


def publish(runs: Sequence[Records], figures: Path, report: Path, width: float | None = None) -> list[Path]:
    """Compute missing anatomies, draw all figures and write the page. Returns the paths of figures and page."""
    for run in runs:
        tables.compute("anatomy", run.folder)
    measured = tables.figures(runs[0], width) if len(runs) == 1 else {}
    paths = plots.draw(runs, figures, behind.series, measured, width)
    pictures = {path.stem: path.read_bytes() for path in paths if path.suffix == ".svg" and path.stem in measured}
    if len(runs) > 1:
        paths.append(write_comparison(runs, report.parent))
    return [*paths, page.write(runs, report, pictures)]
