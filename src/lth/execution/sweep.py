"""Run a sweep: one run for each combination of values, then one report over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from lth import config
from lth.config import resolve
from lth.errors import UsageError
from lth.execution import executors
from lth.execution.running import Run, run
from lth.results import comparison, tables, terminal
from lth.storage import atomic, layout


def sweep(
    experiment: str | Path | Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    out: str | Path | None = None,
    console: Console | None = None,
    **options: Any,
) -> list[Run]:
    """Run each member of a sweep, then write one report over all; like `run` if no key has a list of values.

    `recipe.lr=[0.0008,0.0012]` makes two runs in folders below `out` (default: runs) that are named after the values,
    and a report in the sweep's own folder. Options are those of `run`, except watch.
    """
    members = config.sweep(overrides)
    if len(members) == 1:
        return [run(experiment, overrides, out=out, console=console, **options)]
    if options.get("watch"):
        raise UsageError("--watch is for one run; lth report RUN RUN --serve watches several")
    if experiment is None:
        raise UsageError("a sweep needs a preset or a file, also with --ticket")
    console = console or Console(stderr=True)
    preset = members[0].get("name", resolve(experiment).name)
    varied = [key for key in members[0] if any(member[key] != members[0][key] for member in members)]
    if overruled := [key for key in ("trials", "levels") if key in varied and options.get(key) is not None]:
        raise UsageError(f"--{overruled[0]} would make the runs of {overruled[0]}=[...] one: leave out one of them")
    below = Path(out) if out else Path("runs")
    given = {name: options[name] for name in ("trials", "levels", "branches", "scale") if name in options}
    name_of = lambda member: config.member_name(preset, {key: member[key] for key in varied})
    named = [member if "name" in varied else member | {"name": name_of(member)} for member in members]
    folders = [below / resolve(experiment, settings, **given).folder_name for settings in named]
    if twice := [folder for folder, count in Counter(folders).items() if count > 1]:
        raise UsageError(f"two runs of the sweep would go into {twice[0]}: give values whose names differ")
    leads, runs = not executors.follows(), []
    for settings, folder in zip(named, folders, strict=True):
        if leads:
            console.print(f"run {len(runs) + 1} of {len(members)}: {folder}", highlight=False, soft_wrap=True)
        runs.append(run(experiment, settings, out=folder, console=console, **options))
    if leads and not options.get("dry_run"):
        show_overlaid(
            [r.folder for r in runs], below / f"{preset}-{'-'.join(k.rpartition('.')[2] for k in varied)}", console
        )
    return runs


def show_overlaid(folders: Iterable[Path], out: Path, console: Console) -> None:
    """Print the comparison of several runs, and write their figures and report into `out`."""
    from lth.report import publish

    records = [tables.load(folder) for folder in folders]
    console.print(terminal.render_comparison(comparison.ranked(records)))
    atomic.make_folder(out / layout.FIGURES)
    for line in publish.summarized(publish.publish(records, out / layout.FIGURES, out / layout.REPORT)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
