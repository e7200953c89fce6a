"""Whether early stops were reached, and which experiments are judged by their final accuracy instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lth.config import Recipe
from lth.results.records import PLACE, REACHED
from lth.results.statistics import family

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 20  # minimum number of evaluations to locate the minimum
LATE = 10  # a minimum in the last of this many parts may not be the minimum of a longer training


def is_reached(iterations: Sequence[float], early_stop: float) -> bool:
    """Return whether a training continued long enough after its lowest validation loss for an early stop.

    `iterations` are the evaluated ones. There must be at least FEWEST, and the lowest validation loss must not be among
    the last tenth.
    """
    return passed(len(iterations), sum(iteration <= early_stop for iteration in iterations))


def passed(evaluations: int, place: int) -> bool:
    """Like `is_reached`, given the number of evaluations and the position of the lowest one, counted from 1."""
    return evaluations >= FEWEST and LATE * place <= (LATE - 1) * evaluations


def with_reached(summary: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The summary with the column `early_stop_reached`, computed from the curves if it is missing.

    It is blank for trainings without an early stop or a curve.
    """
    if REACHED in summary:
        return summary
    import pandas as pd

    place, when = list(PLACE), "early_stop_iteration"
    rows = curves[[*place, "iteration"]].merge(summary[[*place, when]], "inner", place)
    rows = rows.loc[rows[when].notna()]
    counts = rows.assign(before=rows["iteration"] <= rows[when]).groupby(place)["before"].agg(["count", "sum"])
    known = {at: passed(int(n), int(before)) for at, n, before in counts.itertuples(name=None)}
    places = summary[place].itertuples(index=False, name=None)
    column = pd.array([known.get(at) for at in places], dtype="boolean")
    table = summary.copy()
    table.insert(list(table.columns).index(when) + 1, REACHED, column)
    return table


def unreached_at(summary: pd.DataFrame) -> dict[int, frozenset[str]]:
    """For each level, the branches with a training that did not diverge and did not reach its early stop."""
    if REACHED not in summary:
        return {}
    rows = summary.loc[(summary["status"] != "diverged") & (summary[REACHED] == False).fillna(False)]  # noqa: E712
    gathered: dict[int, set[str]] = {}
    for level, branch in zip(rows["level"], rows["branch"], strict=True):
        gathered.setdefault(int(level), set()).add(family(branch))
    return {level: frozenset(names) for level, names in gathered.items()}


def judged_at_the_end(recipe: Recipe) -> bool:
    """Return whether an experiment is judged by its final accuracy: its learning rate falls in the second half.

    The lowest validation loss then occurs soon after the last drop, for any network (section 4 of the paper).
    """
    return recipe.schedule != "steps" or any(2 * drop >= recipe.iterations for drop in recipe.drops)
