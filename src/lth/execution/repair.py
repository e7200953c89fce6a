"""Repair a run's folder: move damaged trainings away, so that `lth run` repeats them to the same bits, and write
derived files again. Nothing is deleted except partial files of killed processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lth import plan
from lth.config import Experiment
from lth.errors import UsageError
from lth.execution.environment import environment
from lth.execution.mending import Work, aside, start_from
from lth.execution.repair_tables import (
    experiment_of,
    manifest_works,
    measure_works,
    stale_tables,
    store_tables,
    tables_at_fault,
)  # fmt: skip
from lth.results import tables
from lth.storage import atomic, checksums, documents, integrity, layout, manifest, outcomes, runs
from lth.storage.links import refuse_links

UNKNOWN = "; the record of the examples is lost, and the next run assumes its own examples"


def repair(folder: Path, yes: bool, say: Callable[[str], None]) -> None:
    """Print what is damaged in a run's folder and what will be done, one line each; with `yes`, do it.

    Raises UsageError if the folder is not a run, is in use, or has lost its experiment.
    """
    if not any((folder / name).is_file() for name in (layout.EXPERIMENT, layout.MANIFEST)):
        raise UsageError(f"{folder} is not a run folder: it holds no {layout.EXPERIMENT}; put a copy of that file back")
    refuse_links(folder)
    if runs.in_use(folder):
        raise UsageError(f"{folder} is in use by another lth process; wait for it")
    with nullcontext() if not yes else runs.lock(folder):
        experiment, works = experiment_of(folder)
        faults, alone = faults_of(folder, experiment), not integrity.on_disk(folder)
        works += works_of(folder, experiment, faults, copied=bool(works))
        for work in works:
            say(work.description if work.do is None else f"{'' if yes else 'would '}{work.description}")
            if yes and work.do:
                work.do()
        if yes and not alone and (rebuilt := stale_tables(folder, experiment)):
            store_tables(folder, rebuilt)
    again = sum(1 for _ in filter(plan.digests(experiment), faults))
    say(conclusion(folder, works, again, yes))


def conclusion(folder: Path, works: Sequence[Work], again: int, yes: bool) -> str:
    """The last line: the next command."""
    if not works:
        left = ", ".join((manifest.read(folder) or {}).get("left_out", ()))
        return f"{folder}: nothing is damaged{f'; left out on purpose: {left}' if left else ''}"
    if all(work.do is None for work in works):
        return f"{folder}: nothing can be made again here"
    if not yes:
        return f"nothing is done yet; to do it: lth repair {layout.quoted(folder)} --yes"
    if not again:
        return "done"
    run = f"lth run {layout.quoted(folder / layout.EXPERIMENT)} --out {layout.quoted(folder)}"
    return f"done; {again} training{'s' * (again > 1)} to do again: {run}"


# -------------------------------------------------------------------------------------------------------------- finding


def faults_of(folder: Path, experiment: Experiment) -> dict[str, str]:
    """What is wrong with each damaged training or start, by name; every stored file is read."""
    digest_of = plan.digests(experiment)
    faults = {}
    for path in layout.starts(folder):
        if fault := checksums.tensors_fault(atomic.read(path)):
            faults[path.relative_to(folder).as_posix()] = fault
    stored = integrity.on_disk(folder)
    faults |= {name: fault for name in stored if (fault := integrity.fault_of(folder, name, digest_of))}
    whole = {name: outcomes.outcome(folder, name) or {} for name in stored if name not in faults}
    return faults | {n: f for n, f in integrity.strangers(folder, whole).items() if n not in faults}


def works_of(folder: Path, experiment: Experiment, faults: Mapping[str, str], copied: bool) -> Iterator[Work]:
    """All repair steps in order; `copied`: experiment.toml is restored from its copy."""
    yield from manifest_works(folder, experiment, copied)
    for name, fault in faults.items():
        yield Work(
            f"set aside {folder / name}: {fault}{format_dependents(name, faults, folder, experiment)}",
            aside(folder, name),
        )
    if fault := integrity.given_fault(folder, experiment):
        yield Work(f"set aside {folder / layout.TICKET}: {fault}", aside(folder, layout.TICKET))
    whole = [name for name in integrity.on_disk(folder) if name not in faults]
    for name in (plan.training_id(trial, 0) for trial in range(1, experiment.trials + 1)):
        start = folder / layout.start_name(layout.trial_of(name))
        if name in whole and (not start.exists() or start.relative_to(folder).as_posix() in faults):
            yield Work(
                f"make {start} again from the ticket of level 0, in which nothing is pruned", start_from(folder, name)
            )
    yield from measure_works(folder, whole)
    for path in layout.checkpoints(folder):
        if checksums.tensors_fault(atomic.read(path)):
            yield Work(f"delete {path}: a damaged checkpoint; its training starts over", path.unlink)
    summaries = {name: summary for name in whole if (summary := outcomes.outcome(folder, name))}
    if summaries and (fault := environment_fault(folder, experiment, summaries)):
        known = data_known(folder, experiment)
        made = environment(means_of(summaries), experiment, f"lth run {layout.EXPERIMENT}") | known
        write = lambda: atomic.write_file(folder / layout.ENVIRONMENT, documents.sealed_json(made))
        yield Work(
            f"make {folder / layout.ENVIRONMENT} again from the trainings: {fault}{'' if known else UNKNOWN}", write
        )
    at_fault = tables_at_fault(folder, experiment, faults)
    lost = tables.unbacked(folder) if at_fault else set()
    for name in (layout.CURVES_TABLE, layout.SUMMARY_TABLE):
        if lost and (folder / name).exists():
            what = f"it has rows of {tables.format_trainings(lost)} that the folder does not hold"
            yield Work(f"set aside {folder / name}: {what}", aside(folder, name))
    for name in at_fault:
        yield Work(f"make {folder / name} again from the trainings", lambda: None)  # after all other steps


def format_dependents(name: str, faults: Mapping[str, str], folder: Path, experiment: Experiment) -> str:
    """The number of intact trainings that were made from a damaged one.

    They stay, because it is repeated to the same bits.
    """
    needs = {t.id: (*t.needs, layout.start_name(t.trial)) for t in plan.plan(experiment)}
    made = [t for t in integrity.on_disk(folder) if name in needs.get(t, ()) and t not in faults]
    return f" ({len(made)} whole training{'s' * (len(made) > 1)} made from it: kept)" if made else ""


def environment_fault(folder: Path, experiment: Experiment, summaries: integrity.Summaries) -> str | None:
    try:
        environment = runs.read_environment(folder, experiment)
    except UsageError as error:
        return error.fault
    if environment is None:
        return "it is missing"
    means = environment.get("means")
    if not isinstance(means, dict) or set(means) != set(integrity.MEANS) or integrity.other_means(summaries, means):
        return "it does not contain the resources of the trainings"
    return None


def data_known(folder: Path, experiment: Experiment) -> dict[str, Any]:
    """The facts about the data in environment.json, if it can be read."""
    try:
        environment = runs.read_environment(folder, experiment) or {}
    except UsageError:
        return {}
    return {"data": environment["data"]} if "data" in environment else {}


def means_of(summaries: integrity.Summaries) -> dict[str, Any]:
    """The resources of most trainings; older summaries lack resources that were then always the same."""
    usual = {"device": "cpu", "threads": 1}
    rows = [tuple((what, s.get(what, usual.get(what))) for what in integrity.MEANS) for s in summaries.values()]
    return dict(Counter(rows).most_common(1)[0][0])
