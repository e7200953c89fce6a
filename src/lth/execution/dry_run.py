"""Print the plan of a run with its time and disk space on this machine; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from rich.console import Console
from rich.table import Table

from lth.execution.estimates import format_duration, work
from lth.execution.prepare import Prepared, format_size
from lth.execution.schedule import to_do
from lth.plan import Training, longest_chain, plan


def show_plan(prepared: Prepared, console: Console, by_arithmetic: bool = False) -> None:
    """Print the pending trainings of each level, and the estimated time for all of them.

    The time is measured on a few examples, which takes some seconds, or computed from the arithmetic, which is less
    accurate.
    """
    from lth.execution import pace
    from lth.execution.setup import set_up

    asked, resources = prepared.asked, prepared.resources
    whole_plan = plan(asked)
    todo = list(to_do(whole_plan, prepared.retention.status))
    # the other processes of torchrun print nothing
    few, data = pace.sample(asked, prepared.data)
    setup = set_up(few, replace(resources, processes=1), prepared.folder, data)
    if by_arithmetic:
        product = cache(pace.product_speed)
        paces = {t.level: pace.by_arithmetic(asked, t, product) for t in todo}
    else:
        paces = pace.paces(setup, {t.level: prepared.levels.density(t.level) for t in todo}) if todo else {}
    seconds = {t.id: work(t.recipe, paces[t.level], prepared.sizes) for t in todo}
    time = max(longest_chain(todo, seconds), sum(seconds.values()) / prepared.workers)
    size = sum(map(pace.bytes_of(setup, prepared.levels), todo))
    console.print(plan_table(todo, prepared, seconds))
    for line in prepared.notes:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{len(whole_plan)} trainings, {len(todo)} of them to do; engine {resources.engine} on {resources.device}; "
        f"about {format_duration(time)} with {prepared.workers} side by side"
        f"{' and one process per training' * (resources.processes > 1)}, "
        f"about {format_size(size)}, into {prepared.folder}",
        highlight=False,
        soft_wrap=True,
    )


def plan_table(todo: Sequence[Training], prepared: Prepared, seconds: Mapping[str, float]) -> Table:
    table = Table("level", "weights", "% remaining", "trainings to do", "time each", box=None)
    for level in sorted({t.level for t in todo}):
        here = [t for t in todo if t.level == level]
        kinds = Counter(t.branch.rpartition("-")[0] or t.branch for t in here)
        each = sum(seconds[t.id] for t in here) / len(here)
        table.add_row(
            str(level),
            f"{prepared.levels.remaining[level]:,}",
            f"{100 * prepared.levels.density(level):.2f}",
            ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
            format_duration(each),
        )
    return table
