"""Repair files other than trainings: the experiment from its copy, tables and measures from trainings, the manifest."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lth.config import Experiment, resolve
from lth.errors import Damaged, UsageError
from lth.execution.mending import Work, aside
from lth.measures import tables as measures
from lth.results import tables, trainings
from lth.storage import atomic, integrity, layout, manifest, runs

ANATOMY = "anatomy"
COPY = "its folder has no files to make it from; copy it again"


# ----------------------------------------------------------------------------------------------------------- experiment


def experiment_of(folder: Path) -> tuple[Experiment, list[Work]]:
    """The run's experiment.

    If its file is damaged or belongs to another run, it is restored from the manifest's copy.
    """
    copy = None
    with suppress(UsageError):
        copy = manifest.copy_of_experiment(folder)
    try:
        experiment = runs.read_experiment(folder)
        fault = "it belongs to another run" if copy and _outvoted(folder, experiment) else None
    except UsageError as error:
        if copy is None:
            raise
        experiment, fault = None, error.fault
    if experiment and not fault:
        return experiment, []
    assert copy
    path = folder / layout.EXPERIMENT

    def write() -> None:
        if path.exists():
            aside(folder, layout.EXPERIMENT)()
        atomic.write_file(path, runs.sealed_text(copy))

    line = f"make {path} again from its copy in {layout.MANIFEST}: {fault if path.exists() else 'it is missing'}"
    return resolve(tomllib.loads(copy)), [Work(line, write)]


def _outvoted(folder: Path, experiment: Experiment) -> bool:
    """Return whether the manifest and environment.json agree that the run has another experiment."""
    with suppress(UsageError):
        recorded = (manifest.read(folder) or {}).get("experiment")
        environment = runs.stored_environment(folder) or {}
        return recorded == environment.get("experiment") != experiment.digest(0)
    return False


# ------------------------------------------------------------------------------------------------ manifest and measures


def manifest_works(folder: Path, experiment: Experiment, copied: bool) -> Iterator[Work]:
    """The steps that write a damaged manifest again, or add the checksums of tables that have none.

    `copied`: experiment.toml is restored from the manifest, so it is intact.
    """
    path = folder / layout.MANIFEST
    alone = not integrity.on_disk(folder)
    fresh = lambda: manifest.seal(folder, experiment, runs.text_of(folder))
    try:
        document = manifest.read(folder, None if copied else experiment) or {}
    except Damaged as error:
        if alone and manifest.is_whole(folder):
            yield Work(f"{path} is damaged: {error.fault}, and so may be the tables; {COPY}", None)
        else:
            yield Work(f"make {path} again, of the tables as they are: {error.fault}", fresh)
        return
    if unsealed := [name for name in manifest.tables(folder) if name not in document.get("files", {})]:
        add = lambda: manifest.add(folder, experiment, runs.text_of(folder), unsealed)
        yield Work(f"add the checksums of {_format_names(unsealed)} to {path}: they have none", add)


def _format_names(names: Sequence[str]) -> str:
    """The first names, and the number of others."""
    more = len(names) - 3
    return f"{', '.join(names[:3])}{f' and {more} more' if more > 0 else ''}"


def measure_works(folder: Path, whole: Collection[str]) -> Iterator[Work]:
    """The steps that move damaged tables away and compute them again if possible; `whole` are the intact trainings."""
    again = False
    for name, fault in faults(folder).items():
        path = folder / name
        if not whole:
            yield Work(f"{path} is damaged: {fault}; {COPY}", None)
        elif name not in tables.TABLES:  # written again from the trainings
            again = again or path.stem == ANATOMY or path.name in layout.ANATOMY
            mend = "" if path.stem == ANATOMY else f"; `lth measure {path.stem} {layout.quoted(folder)}` makes it again"
            yield Work(f"set aside {path}: {fault}{mend}", aside(folder, name))
    for name in whole:
        for path in (spoilt := integrity.spoilt_extras(folder, name)):
            yield Work(f"set aside {path}: it does not match {layout.SUMMARY}", _extras_aside(folder, name))
        again = again or bool(spoilt)
    if again:
        path = layout.measure_path(folder, ANATOMY)
        yield Work(f"make {path} again from the tickets", lambda: measures.compute(ANATOMY, folder))


def _extras_aside(folder: Path, name: str) -> Callable[[], None]:
    """Move all four anatomy files that version 0.1 wrote next to a ticket, because they are read together."""

    def move() -> None:
        for file in layout.ANATOMY:
            if (folder / name / file).exists():
                aside(folder, f"{name}/{file}")()

    return move


def faults(folder: Path) -> dict[str, str]:
    """What is wrong with each table in the manifest."""
    try:
        document = manifest.read(folder) or {}
    except UsageError:
        return {}
    faults = {}
    for name in document.get("files", {}):
        if (folder / name).is_file():
            if fault := manifest.mismatch(document, name, atomic.read(folder / name)):
                faults[name] = fault
        elif not integrity.on_disk(folder) and not manifest.left_out(document, name):
            faults[name] = f"it is missing, and {layout.MANIFEST} does not list it as left out"
    return faults


# -------------------------------------------------------------------------------------------------- tables of trainings


def tables_at_fault(folder: Path, experiment: Experiment, faulty: Mapping[str, str]) -> list[str]:
    """The tables to write again: all if trainings are moved away, else those that differ from the trainings.

    None in a folder that has only the tables, because there is nothing to make them from.
    """
    trained = integrity.on_disk(folder)
    if not trained:
        return []
    if any(name in trained for name in faulty):
        return [name for name in tables.TABLES if (folder / name).exists()]
    return list(stale_tables(folder, experiment))


def stale_tables(folder: Path, experiment: Experiment) -> dict[str, bytes]:
    """The tables that differ from what the trainings make, with their correct content."""
    made, faulty = tables.texts(experiment, trainings.finished(folder)), faults(folder)
    return {n: text.encode() for n, text in made.items() if n in faulty or _differs(folder / n, text)}


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or not tables.is_of(atomic.read(path), text)


def store_tables(folder: Path, made: Mapping[str, bytes]) -> None:
    for name, content in made.items():
        manifest.write_table(folder, name, content)
