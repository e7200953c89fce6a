"""Sentences for a score card: what is compared, and what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lth import config
from lth.papers import setups
from lth.papers.agreement import Agreement
from lth.papers.curves import by_density
from lth.papers.setups import Fit
from lth.papers.trials import Trials
from lth.results.captions import format_length
from lth.results.statistics import branch_order


def notes(run: Trials, drawn: Sequence[Agreement]) -> Iterator[str]:
    """The notes on a comparison with a paper; `drawn` are the compared curves."""
    if run.fit.setup is None:
        yield _no_setup(run.fit)
        return
    yield f"Compared with the paper's experiment, `{run.fit.setup.command}`."
    yield from _on_length(run, drawn)
    grid, theirs = run.experiment.recipe.eval_every, setups.experiment(run.fit.setup).recipe.eval_every
    if grid > theirs:
        yield f"Evaluated every {grid:,} iterations, the paper's every {theirs:,}: early stops have this resolution."
    if absent := _absent(run, {entry.curve.role for entry in drawn}):
        yield f"The run has no trainings to compare with the paper's curves of: {', '.join(absent)}."
    if short := _left_out(drawn):
        yield f"Left out of curves, as these trainings may have ended before their early stop: {'; '.join(short)}."


def _no_setup(fit: Fit) -> str:
    if fit.nearest is None or fit.differs is None:
        return "The paper has no experiment on this network and dataset: there are only the run's own statements."
    differs = [f"{key} ({_format(a)} there, {_format(b)} here)" for key, (a, b) in fit.differs.items()]
    return (
        f"This is not one of the paper's experiments, so nothing is compared with it. The nearest, "
        f"`{fit.nearest.command}`, differs in {', '.join(differs)}."
    )


def _format(value: Any) -> str:
    return "nothing" if value is None else config.to_setting("x", value).removeprefix("x=")


def _on_length(run: Trials, drawn: Sequence[Agreement]) -> Iterator[str]:
    """The notes on a run with another length than the paper's."""
    if not run.fit.iterations:
        return
    theirs, _ = run.fit.iterations
    length = f"Its trainings have {theirs:,} iterations, these {format_length(run.experiment)}: "
    if run.fit.scheduled:
        yield length + "because the learning rate changes during training, nothing can be compared."
    else:
        yield length + (
            "what is read at a fixed iteration cannot be compared, only what happens at early stop"
            f"{', where that comes before their end' if run.fit.shorter else ''}; and masks come from networks "
            "that were trained for that long."
        )
    if len(run.table) and not drawn:
        yield "No curve has a level that can be compared."


def _absent(run: Trials, compared: set[str]) -> list[str]:
    """The roles of the paper's curves that the run lacks."""
    roles = {key.role: None for key in by_density(run.paper) if key.setup == run.fit.setup}
    return [role for role in sorted(roles, key=branch_order) if role not in {*run.table["role"], *compared}]


def _left_out(drawn: Sequence[Agreement]) -> list[str]:
    """For example `reinit at level 9, 10`: the trainings that are left out of curves."""
    levels: dict[str, set[int]] = {}
    for entry in drawn:
        levels.setdefault(entry.curve.role, set()).update(entry.left_out)
    roles = sorted((role for role, at in levels.items() if at), key=branch_order)
    return [f"{role} at level {', '.join(map(str, sorted(levels[role])))}" for role in roles]
