"""Find damaged or mixed-up files in a run's folder, without torch and before anything is trained on them.

Each file contains its checksum (`lth.storage.checksums`). Each training's summary contains the checksums of the files
next to it and of the files that the training was made from. An intact file that was copied from another run therefore
disagrees with the trainings that were made from the original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lth import plan
from lth.config import Experiment
from lth.errors import UsageError
from lth.storage import atomic, checksums, layout, outcomes

MEANS = ("engine", "device", "precision", "threads", "processes")
AT_HAND = 1024  # cache of summaries that are inputs of several trainings
Summaries = Mapping[str, Mapping[str, Any]]


class Link(NamedTuple):
    """A training was made from a file of `source` (a training or a trial's start); says whether the checksums agree."""

    source: str
    training: str
    agrees: bool


def refuse(folder: Path, experiment: Experiment, environment: Mapping[str, Any] | None) -> None:
    """Raise UsageError if stored files do not belong together, naming all of them.

    This reads summaries and starts only; other files are verified when they are used. Summaries are read one by one,
    because there may be a hundred thousand; only if two disagree are all of them compared.
    """
    means = environment and environment.get("means")
    at_hand = lru_cache(AT_HAND)(lambda name: outcomes.outcome(folder, name))
    some, agree = False, True
    for name, summary in stored(folder, experiment):
        some = True
        links = links_of(folder, {name: summary}, at_hand)
        agree = agree and all(link.agrees for link in links) and not other_means({name: summary}, means)
    if some and environment is None:
        raise UsageError(f"{folder / layout.ENVIRONMENT} is missing; {layout.mended_by(folder)}")
    given = given_fault(folder, experiment)
    if agree and not given:
        return
    summaries = dict(stored(folder, experiment))
    faults = strangers(folder, summaries) | ({layout.TICKET: given} if given else {})
    errors = [f"{folder / name} is damaged: {fault}" for name, fault in faults.items()]
    if other := other_means(summaries, means):
        errors.append(
            f"{folder / layout.ENVIRONMENT} is damaged: {other[0]} was trained with other resources than it contains"
        )
    if errors:
        raise UsageError("\n".join([*errors, layout.mended_by(folder)]))


def stored(folder: Path, experiment: Experiment) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stored trainings of an experiment and their summaries."""
    digest_of = plan.digests(experiment)
    for training in plan.trainings(experiment):
        if (summary := outcomes.outcome(folder, training.id, digest_of(training.id))) is not None:
            yield training.id, summary


def strangers(folder: Path, summaries: Summaries) -> dict[str, str]:
    """Trainings and starts that are intact but do not belong to the others, with the reason.

    Of two that disagree, the one with more disagreements, or else with fewer agreements, is reported; if both numbers
    are equal, both are.
    """
    links = list(links_of(folder, summaries, summaries.get))
    reasons: dict[str, str] = {}
    while apart := [link for link in links if not link.agrees]:
        ranks = {name: _rank(name, links) for link in apart for name in link[:2]}
        for name in sorted(name for name, rank in ranks.items() if rank == max(ranks.values())):
            reasons[name] = f"it does not belong to {next(_other(name, apart))}: one of them is of another run"
        links = [link for link in links if not {*link[:2]} & {*reasons}]
    return reasons


def _rank(name: str, links: Iterable[Link]) -> tuple[int, int]:
    answers = [link.agrees for link in links if name in link[:2]]
    return answers.count(False), -answers.count(True)


def _other(name: str, links: Iterable[Link]) -> Iterator[str]:
    return (link.training if link.source == name else link.source for link in links if name in link[:2])


def links_of(folder: Path, summaries: Summaries, find: Callable[[str], Mapping[str, Any] | None]) -> Iterator[Link]:
    """Compare the checksums that stored trainings recorded for their inputs with those of the inputs.

    `find` returns the summary of a source, or None if it is not a stored training.
    """
    starts: dict[str, str | None] = {}
    for name, summary in summaries.items():
        for file, digest in outcomes.digests_in(summary, "made_from").items():
            source, _, file_name = file.rpartition("/")
            if file_name == layout.START:
                if file not in starts:
                    starts[file] = start_digest(folder / file)
                source, there = file, starts[file]
            elif source_summary := find(source):
                there = outcomes.digests_in(source_summary).get(file_name)
            else:
                continue
            if there is not None:
                yield Link(source, name, there == digest)


def start_digest(path: Path) -> str | None:
    try:
        return checksums.digest(atomic.read(path))
    except OSError:
        return None  # `lth run` draws the start again


def given_fault(folder: Path, experiment: Experiment) -> str | None:
    """Describe what is wrong with the run's copy of the experiment's ticket file; None if it is intact or absent."""
    copy = folder / layout.TICKET
    if (
        experiment.ticket is None
        or not copy.is_file()
        or checksums.digest(atomic.read(copy)) == experiment.ticket_sha256
    ):
        return None
    return f"it is not the ticket file named in {layout.EXPERIMENT}"


def other_means(summaries: Summaries, means: object) -> list[str]:
    """The trainings that were made with another engine, device, precision or other resource."""
    if not isinstance(means, dict):
        return []
    return [n for n, s in summaries.items() if any(s.get(what, means.get(what)) != means.get(what) for what in MEANS)]


# ------------------------------------------------------------------------------------------------ all files, one by one


def on_disk(folder: Path) -> dict[str, Path]:
    """All folders of a run that hold files of a training, complete or not, by training id.

    Folders in results/ hold small tables for reports and no trainings.
    """
    return {name: path for name, path in layout.training_folders(folder) if _needed(path)}


def _needed(path: Path) -> list[Path]:
    return [file for file in own_files(path) if file.name not in layout.ANATOMY]


def own_files(path: Path) -> list[Path]:
    """The files of a training without those of its branches."""
    files = (file for file in path.iterdir() if file.is_file() and not file.is_symlink())
    return sorted(file for file in files if not file.name.startswith("."))


def fault_of(folder: Path, name: str, digest_of: Callable[[str], str | None]) -> str | None:
    """Read all files of a stored training and describe what is wrong; None if it is intact.

    Trained weights may be missing: `store.keep` may have deleted them, and they can be made again.
    """
    path = folder / name
    try:
        summary = outcomes.outcome(folder, name, digest_of(name))
    except UsageError as error:
        return error.fault
    if summary is None:
        return f"it has no {layout.SUMMARY}"
    if digest_of(name) is None and "training" in summary:
        return "the experiment has no such training"
    for file, digest in outcomes.digests_in(summary).items():
        try:
            content = atomic.read(path / file)
        except FileNotFoundError:
            if file not in (*layout.ANATOMY, layout.TRAINED):
                return f"it has no {file}"
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}"
        else:
            if file not in layout.ANATOMY and checksums.digest(content) != digest:
                return f"{file} does not match {layout.SUMMARY} in the same folder"
    return None


def spoilt_extras(folder: Path, name: str) -> list[Path]:
    """Files of an intact training that only reports read and that do not match its summary."""
    summary = outcomes.outcome(folder, name) or {}
    paths = [folder / name / file for file in layout.ANATOMY]
    return [path for path in paths if path.is_file() and outcomes.file_fault(atomic.read(path), summary, path.name)]
