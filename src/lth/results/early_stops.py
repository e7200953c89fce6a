"""Whether early stops were reached, and which experiments are judged by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lth.config import Recipe
from lth.results.records import PLACE, REACHED
from lth.results.statistics import family

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 20  # evaluations; the minimum of fewer says little of when it came
LATE = 10  # a minimum in the last of this many parts may not be the minimum of a longer training


def is_reached(iterations: Sequence[float], early_stop: float) -> bool:
    """Whether a training went on long enough after its lowest validation loss for this to be an early stop.

    `iterations` are those of its evaluations. There have to be FEWEST of them, and the lowest validation loss may not
    be among the last tenth.
    """
    return passed(len(iterations), sum(iteration <= early_stop for iteration in iterations))


def passed(evaluations: int, place: int) -> bool:
    """`is_reached`, from the number of evaluations and the place of the lowest among them, counted from 1."""
    return evaluations >= FEWEST and LATE * place <= (LATE - 1) * evaluations


def with_reached(summary: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The summary with the column `early_stop_reached`, computed from the curves where it has none.

    It is missing for trainings that have no early stop, or no curve.
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
    """By level, the branches with a training, not diverged, whose early stop was not reached."""
    if REACHED not in summary:
        return {}
    rows = summary.loc[(summary["status"] != "diverged") & (summary[REACHED] == False).fillna(False)]  # noqa: E712
    gathered: dict[int, set[str]] = {}
    for level, branch in zip(rows["level"], rows["branch"], strict=True):
        gathered.setdefault(int(level), set()).add(family(branch))
    return {level: frozenset(names) for level, names in gathered.items()}


def judged_at_the_end(recipe: Recipe) -> bool:
    """Whether an experiment is judged by its final accuracy, as its learning rate falls in the second half.

    The lowest validation loss then comes soon after the last drop, whatever the network (section 4 of the paper).
    """
    return recipe.schedule != "steps" or any(2 * drop >= recipe.iterations for drop in recipe.drops)
