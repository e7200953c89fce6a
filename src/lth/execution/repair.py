"""Mend a run's folder: set damaged trainings aside, so that `lth run` does them again to the same bits, and remake what
is made from the others. Nothing is deleted but what a killed process left half written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth import plan
from lth.config import Experiment
from lth.errors import UsageError
from lth.execution.environment import environment
from lth.results import tables, trainings
from lth.storage import atomic, checksums, documents, integrity, layout, outcomes, runs

UNKNOWN = "; by which examples they were made is lost, and the next run takes its own for these"


@dataclass(frozen=True)
class Work:
    """One thing to do: said in a line, then done."""

    said: str
    do: Callable[[], object]


def repair(folder: Path, yes: bool, say: Callable[[str], None]) -> None:
    """Say what is damaged in a run's folder and what will be done, a line each; with `yes`, do it.

    Raises UsageError where the folder is no run's, is in use, or its experiment.toml is damaged.
    """
    if not (folder / layout.EXPERIMENT).is_file():
        raise UsageError(f"{folder} is no run's folder: it holds no {layout.EXPERIMENT}; put a copy of that file back")
    if runs.in_use(folder):
        raise UsageError(f"{folder} is in use by another lth; wait for it")
    experiment = runs.read_experiment(folder)
    with runs.lock(folder) if yes else nullcontext():
        faults, alone = faults_of(folder, experiment), not integrity.on_disk(folder)
        works = list(works_of(folder, experiment, faults))
        for work in works:
            say(f"{'' if yes else 'would '}{work.said}")
            if yes:
                work.do()
        if yes and not alone and (rebuilt := stale_tables(folder, experiment)):
            store_tables(folder, rebuilt)
    again = sum(1 for _ in filter(plan.digests(experiment), faults))
    say(conclusion(folder, bool(works), again, yes))


def conclusion(folder: Path, any_work: bool, again: int, yes: bool) -> str:
    """The last line: what to type now."""
    if not any_work:
        return f"{folder}: nothing is damaged"
    if not yes:
        return f"nothing is done yet; to do it: lth repair {layout.quoted(folder)} --yes"
    if not again:
        return "done"
    run = f"lth run {layout.quoted(folder / layout.EXPERIMENT)} --out {layout.quoted(folder)}"
    return f"done; {again} training{'s' * (again > 1)} to do again: {run}"


# -------------------------------------------------------------------------------------------------------------- finding


def faults_of(folder: Path, experiment: Experiment) -> dict[str, str]:
    """What is wrong with each damaged training or trial's start, by its name; every stored file is read."""
    digest_of = plan.digests(experiment)
    found = {}
    for path in layout.starts(folder):
        if fault := checksums.tensors_fault(path.read_bytes()):
            found[path.relative_to(folder).as_posix()] = fault
    stored = integrity.on_disk(folder)
    found |= {name: fault for name in stored if (fault := integrity.fault_of(folder, name, digest_of))}
    whole = {name: outcomes.outcome(folder, name) or {} for name in stored if name not in found}
    return found | {n: f for n, f in integrity.strangers(folder, whole).items() if n not in found}


def works_of(folder: Path, experiment: Experiment, faults: Mapping[str, str]) -> Iterator[Work]:
    """All that is to be done, in order."""
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
                f"make {start} again from the ticket of level 0, which nothing is pruned of", start_from(folder, name)
            )
    for path in (path for name in whole for path in integrity.spoilt_extras(folder, name)):
        name = path.relative_to(folder).as_posix()
        yield Work(f"set aside {path}: reports do without it", aside(folder, name))
    for path in layout.checkpoints(folder):
        if checksums.tensors_fault(path.read_bytes()):
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
        yield Work(f"make {folder / name} again from the trainings", lambda: None)  # when the rest is done


def format_dependents(name: str, faults: Mapping[str, str], folder: Path, experiment: Experiment) -> str:
    """How many whole trainings were made from a damaged one: they stay, for it will have the same bits again."""
    needs = {t.id: (*t.needs, layout.start_name(t.trial)) for t in plan.plan(experiment)}
    made = [t for t in integrity.on_disk(folder) if name in needs.get(t, ()) and t not in faults]
    return f" ({len(made)} whole training{'s' * (len(made) > 1)} made from it: kept)" if made else ""


def environment_fault(folder: Path, experiment: Experiment, summaries: integrity.Summaries) -> str | None:
    try:
        kept = runs.read_environment(folder, experiment)
    except UsageError as error:
        return error.fault
    if kept is None:
        return "it is missing"
    means = kept.get("means")
    if not isinstance(means, dict) or set(means) != set(integrity.MEANS) or integrity.other_means(summaries, means):
        return "it does not say by what means the trainings were done"
    return None


def data_known(folder: Path, experiment: Experiment) -> dict[str, Any]:
    """What environment.json tells of the examples, where it can be read."""
    try:
        kept = runs.read_environment(folder, experiment) or {}
    except UsageError:
        return {}
    return {"data": kept["data"]} if "data" in kept else {}


def means_of(summaries: integrity.Summaries) -> dict[str, Any]:
    """By what means most trainings were done; older summaries leave out what was then always the same."""
    usual = {"device": "cpu", "threads": 1}
    rows = [tuple((what, s.get(what, usual.get(what))) for what in integrity.MEANS) for s in summaries.values()]
    return dict(Counter(rows).most_common(1)[0][0])


# -------------------------------------------------------------------------------------------------------------- mending


def aside(folder: Path, name: str) -> Callable[[], None]:
    """Moves a training's own files, or a file, below the run's folder `damaged`; never over what is there."""

    def move() -> None:
        source, target = folder / name, folder / layout.ASIDE / name
        count = 1
        while target.exists():
            count += 1
            target = folder / layout.ASIDE / f"{name}.{count}"
        with atomic.failures_named(target):
            if source.is_dir():
                target.mkdir(parents=True)
                for path in integrity.own_files(source):
                    path.rename(target / path.name)
                if not any(source.iterdir()):
                    source.rmdir()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)

    return move


def start_from(folder: Path, level_0: str) -> Callable[[], None]:
    """Writes a trial's start: the start weights in the ticket of its level 0."""

    def write() -> None:
        from lth.storage.tensors import save_tensors
        from lth.tickets.ticket import from_bytes

        trial = layout.trial_of(level_0)
        ticket = from_bytes(outcomes.read_file(folder, f"{level_0}/{layout.TICKET}"))
        atomic.write_file(folder / layout.start_name(trial), save_tensors(ticket.start, {"trial": trial}))

    return write


def tables_at_fault(folder: Path, experiment: Experiment, faults: Mapping[str, str]) -> list[str]:
    """The tables that are to be made again: all where trainings are set aside, else those that say anything else.

    None in a folder that holds the tables alone, as there is nothing to make them from.
    """
    trained = integrity.on_disk(folder)
    if not trained:
        return []
    if any(name in trained for name in faults):
        return [name for name in (layout.CURVES_TABLE, layout.SUMMARY_TABLE) if (folder / name).exists()]
    return list(stale_tables(folder, experiment))


def stale_tables(folder: Path, experiment: Experiment) -> dict[str, bytes]:
    """The tables whose files are not what the trainings make, with what they should be."""
    made = tables.texts(experiment, trainings.finished(folder))
    stale = lambda path, text: not path.exists() or not tables.is_of(path.read_bytes(), text)
    return {name: text.encode() for name, text in made.items() if stale(folder / name, text)}


def store_tables(folder: Path, made: Mapping[str, bytes]) -> None:
    for name, content in made.items():
        atomic.write_file(folder / name, content)
