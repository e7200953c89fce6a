"""The curves of papers that are drawn behind those of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lth.config import Experiment
from lth.papers import papers
from lth.papers.curves import Curve, Key, by_density, comparable, latest_early_stop, part, points, roles
from lth.papers.paper import Paper, plotted_setups
from lth.papers.setups import fit, role_of
from lth.results.looks import paper_look
from lth.results.records import Records
from lth.results.series import Series


def series(runs: Sequence[Records], column: str) -> list[Series]:
    """The curves of papers drawn in grey behind those of runs, within their range; see lth.results.plots.Behind."""
    return [_series(label, curve) for label, curve in behind_runs(runs, column)]


def _series(label: str, curve: Curve) -> Series:
    x, mean, low, high = map(np.array, (curve.x, curve.mean, curve.low, curve.high))
    return Series(label, x, mean, low, high, paper_look(curve.role))


def behind_runs(runs: Sequence[Records], column: str) -> list[tuple[str, Curve]]:
    """The curves of all papers for overlaid runs, each once, with its label, within the range of the runs."""
    percents = [100 * float(d) for run in runs for d in run.summary["density"] if d > 0]
    curves = {curve: paper for paper in papers() for run in runs for curve in behind(paper, run.experiment, column)}
    several = len({curve.setup for curve in curves}) > 1
    cites = len({*curves.values()}) > 1
    if not percents:
        return []
    labels = (_label(curve, paper.cite if cites else "the paper", several) for curve, paper in curves.items())
    parts = (part(curve, percents) for curve in curves)
    return [(label, curve) for label, curve in zip(labels, parts, strict=True) if curve.x]


def _label(curve: Curve, paper: str, several: bool) -> str:
    """`the paper`, `the paper: reinit`; with the setup if the curves belong to several."""
    label = paper if curve.role == "ticket" else f"{paper}: {curve.role}"
    return f"{label} ({curve.setup.text})" if several else label


def behind(paper: Paper, experiment: Experiment, column: str, figure: str | None = None) -> list[Curve]:
    """The paper's curves of a column of summary.csv to draw behind a run's own, beginning with the ticket's.

    Empty if the run repeats no experiment of the paper, or if the column cannot be compared. They are those of `figure`
    or, by default, of the first figure that shows them.
    """
    relation = fit(experiment, plotted_setups(paper))
    if relation.setup is None or not comparable(column, relation.iterations is not None, relation.scheduled):
        return []
    curves, ours = by_density(paper, (figure,) if figure else None), experiment.recipe.iterations
    theirs = relation.iterations[0] if relation.iterations else ours
    behind = []
    for role, length in _lengths(paper, experiment, column):
        if curve := curves.get(Key(relation.setup, role, column)):
            behind.append(_ended_by(paper, curve, length) if length < theirs else curve)
    return [curve for curve in behind if curve.x]


def _lengths(paper: Paper, experiment: Experiment, column: str) -> Iterator[tuple[str, int]]:
    """The roles of a run's trainings and their numbers of iterations; only the first branch of each role."""
    recipe = experiment.recipe
    scheduled = bool(recipe.warmup or recipe.drops)
    lengths = {"ticket": recipe.iterations}
    for branch in experiment.branch:
        length, role = branch.iterations or recipe.iterations, role_of(experiment, branch.name, roles(paper))
        if role and comparable(column, length != recipe.iterations, scheduled):
            lengths.setdefault(role, length)
    return iter(lengths.items())


def _ended_by(paper: Paper, curve: Curve, iterations: int) -> Curve:
    """The levels of a curve at which all early stops of the paper are within so many iterations."""
    latest = (latest_early_stop(paper, curve.setup, curve.role, level) for level in curve.level)
    return points(curve, [stop <= iterations for stop in latest])
