"""Numbers and names of a run in words: for tables, captions, legends and reports."""

from __future__ import annotations

from collections.abc import Sequence

from lth.config import Experiment
from lth.results.records import Records
from lth.results.statistics import at_chance


def format_diverged(records: Records) -> list[str]:
    """The number of trainings that diverged, if any did; means leave them out."""
    count = len(records.summary.loc[records.summary["status"] == "diverged"])
    return [f"{count} training{'s' * (count > 1)} that diverged"] if count else []


def format_at_chance(records: Records) -> list[str]:
    """A sentence on the levels whose tickets are all at chance, if there are any."""
    levels = at_chance(records)
    if not levels:
        return []
    chance = 100 * (records.environment or {})["data"]["chance"]
    which = f"level{'s' * (len(levels) > 1)} {', '.join(map(str, levels))}"
    return [f"at chance (about {chance:.0f}%): all tickets of {which}; nothing is learned there"]


def format_trials(counts: Sequence[int]) -> str:
    """The number of trials of a mean: `1 trial`, `mean (min-max) of 3 to 5 trials`."""
    low, high = min(counts, default=0), max(counts, default=0)
    if high < 2:
        return "1 trial" if high else "nothing trained yet"
    return f"mean (min-max) of {high if low == high else f'{low} to {high}'} trials"


def format_length(experiment: Experiment) -> str:
    """The length of the trainings, and of branches where it differs: `5,000 iterations (reinit 6,000)`."""
    apart = [
        f"{b.name} {b.iterations:,}"
        for b in experiment.branch
        if b.iterations not in (None, experiment.recipe.iterations)
    ]
    branches = f" ({', '.join(apart)})" if apart else ""
    return f"{experiment.recipe.iterations:,} iterations{branches}{format_scale(experiment)}"


def format_scale(experiment: Experiment) -> str:
    """The end of a caption: the scale of a run whose iterations were scaled, else nothing."""
    return "" if experiment.scale == 1 else f", at scale {experiment.scale:g} of the full iterations"
