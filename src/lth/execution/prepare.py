"""What a run and its dry run need: the experiment, its data, resources, counts per level, and checks.

Nothing is written here, so that everything that can be refused is refused before the first write.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth.config import Experiment
from lth.errors import Damaged, UsageError
from lth.execution.environment import check_same_data, data_facts
from lth.execution.estimates import Sizes, relative, work
from lth.execution.executors import Executor
from lth.plan import Training, trainings
from lth.results import tables
from lth.storage import integrity, layout, manifest, runs
from lth.storage.retention import Retention

if TYPE_CHECKING:
    from lth.data import Data
    from lth.data.classes import Order
    from lth.execution.resources import Resources
    from lth.execution.setup import Levels

MUCH = 2**30  # bytes of disk space above which a run announces them


@dataclass(frozen=True)
class Wanted:
    """The resources that a call requests, independent of the experiment; None and auto stand for fixed rules."""

    engine: str = "auto"
    device: str = "auto"
    threads: int | None = None  # threads per training
    workers: int | None = None  # parallel trainings


@dataclass(frozen=True)
class Prepared:
    """A run before its first write: `asked` is this call's experiment, `whole` what the folder will hold."""

    asked: Experiment
    whole: Experiment
    folder: Path
    data_root: Path | None
    environment: dict[str, Any] | None  # the stored experiment; None in a new folder
    data: Data = field(repr=False)
    facts: dict[str, Any]  # facts about the data, for environment.json
    levels: Levels
    resources: Resources
    workers: int
    notes: tuple[str, ...]  # lines to print

    @property
    def retention(self) -> Retention:
        return Retention(self.asked, self.whole, self.folder)

    @property
    def sizes(self) -> Sizes:
        validation = self.asked.data.validation
        return Sizes(len(self.data.train_x) - validation, validation, len(self.data.test_x))

    def cost(self, training: Training) -> float:
        """The share of a training in the work, in updates of the dense network."""
        density = self.levels.density(training.level)
        return work(training.recipe, relative(density, self.resources.engine, training.recipe.batch), self.sizes)


def prepare(
    asked: Experiment,
    folder: Path,
    data_root: Path | None,
    wanted: Wanted,
    executor: Executor,
    say: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Check the folder, load the data, choose the resources. Raises UsageError for everything that cannot be done."""
    from lth import data  # torch is imported here, long after wrong names and values have been reported
    from lth.execution import setup
    from lth.execution.draws import check_draws

    whole = runs.joined(folder, asked)
    stored = runs.read_environment(folder, whole)
    manifest.read(folder, whole)
    integrity.refuse(folder, whole, stored)
    refuse_lost_rows(folder, asked)
    begun = (folder / layout.EXPERIMENT).exists()
    order = order_of(asked, whole, begun)
    loaded = data.load(asked.data.name, data_root, say, asked.data.size, order, asked.data.task)
    asked, whole = (with_classes(each, loaded, whole, begun) for each in (asked, whole))
    facts = data_facts(loaded)
    check_same_data(facts, stored, asked, folder)
    levels = setup.check(asked, loaded)
    same = check_draws(whole, tuple(loaded.train_x.shape[1:]), loaded.classes)
    resources, reason = resources_of(stored, asked, loaded, wanted, folder, executor)
    room = executor.room(resources)  # called even with --workers, because it refuses threads that no node has
    return Prepared(
        asked, whole, folder, data_root, stored, loaded, facts, levels, resources, wanted.workers or room,
        (*([reason] if reason else []), *same, *levels.left_out, *too_late(asked)),
    )  # fmt: skip


def order_of(asked: Experiment, whole: Experiment, begun: bool) -> Order:
    """The order of classes: the recorded one, or that of version 0.1 if a run or its ticket has no record."""
    from lth.data.classes import by_number, by_text, in_ticket, recorded

    if record := whole.data.classes:
        return recorded(record)
    if begun:
        return by_text
    return in_ticket(*_classes_in(Path(asked.ticket), asked.data.name)) if asked.ticket else by_number


def _classes_in(path: Path, name: str) -> tuple[tuple[str, ...], bool]:
    """The class names in a ticket file, and whether it was found on the dataset with this name."""
    from lth.tickets.ticket import Ticket, class_names, data_name

    ticket = Ticket.load(path)
    return class_names(ticket), data_name(ticket) == name


def with_classes(experiment: Experiment, data: Data, whole: Experiment, begun: bool) -> Experiment:
    """The experiment with its classes recorded, unless its run was begun without a record.

    Raises UsageError if it names classes that the data or the run do not have.
    """
    given = experiment.data.classes
    if given and not data.class_names:
        raise UsageError(f"data.classes: the classes of {data.name} have no names but their numbers; leave it out")
    if given and given != data.class_names:
        raise UsageError(
            "data.classes: the run was begun with its classes in the order of their names as text; leave it out, or "
            "give another --out"
        )
    if begun and not whole.data.classes:
        return experiment
    options = experiment.data.model_copy(update={"classes": data.class_names})
    return experiment.model_copy(update={"data": options})


def refuse_lost_rows(folder: Path, asked: Experiment) -> None:
    """Raise UsageError if tables have rows of trainings that are missing and will not be trained: a run would drop
    them.

    Next to packed curves, which only results/ has, even rows of trainings that will be trained count.
    """
    lost = tables.unbacked(folder)
    if lost and not (folder / layout.PACKED_CURVES).exists():
        lost -= {training.id for training in trainings(asked)}
    if lost:
        raise UsageError(
            f"the tables of {folder} have rows of {tables.format_trainings(lost)} that it does not hold, and a run "
            "would overwrite them; give another --out, or move them away"
        )


def too_late(experiment: Experiment) -> Iterator[str]:
    """What a preset's recipe has beyond the last iteration of a shorter one, in one line each."""
    for key, several in experiment.recipe.too_late.items():
        last = f"{experiment.recipe.iterations:,}"
        yield f"recipe.{key} at {several} have no effect: trainings end at {last}; --scale shortens all by one factor"


# ------------------------------------------------------------------------------------------------------------ resources


def resources_of(
    stored: Mapping[str, Any] | None,
    experiment: Experiment,
    data: Data,
    wanted: Wanted,
    folder: Path,
    executor: Executor,
) -> tuple[Resources, str]:
    """The resources: those of the run so far, or chosen now by fixed rules, with a line that gives the reason."""
    shape = tuple(data.train_x.shape[1:])
    if stored is not None:
        resources = stored_resources(stored, folder)
        _refuse_others(resources, wanted, folder)
        _check_available(resources, experiment, shape, data.classes, folder, executor)
        return resources, ""
    resources, reason = executor.choose(experiment, shape, data.classes, wanted.engine, wanted.device)
    resources = replace(resources, threads=wanted.threads or resources.threads)
    if resources.engine == "native" and resources.threads > 1:
        raise UsageError(
            f"--threads {resources.threads}: the native engine trains on one thread, and trainings side by side on "
            "several; leave it out, or give --engine torch"
        )
    threads = f"{resources.threads} thread{'s' * (resources.threads > 1)} per training"
    line = f"engine {resources.engine} on {resources.device}, {resources.precision}, {threads}: {reason}"
    return resources, line


def stored_resources(stored: Mapping[str, Any], folder: Path) -> Resources:
    """The resources in environment.json. Raises UsageError if it is damaged."""
    from lth.execution.resources import Resources
    from lth.execution.setup import ENGINES

    try:
        resources = Resources(**stored["means"])
        known = resources.engine in ENGINES and resources.device in ("cpu", "cuda")
        if not known or not all(type(n) is int and n > 0 for n in (resources.threads, resources.processes)):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        fault = "it does not say engine, device, precision and threads"
        raise Damaged(folder / layout.ENVIRONMENT, fault, layout.mended_by(folder)) from None
    return resources


def _refuse_others(resources: Resources, wanted: Wanted, folder: Path) -> None:
    for option, given, stored in (
        ("--engine", wanted.engine, resources.engine),
        ("--device", wanted.device, resources.device),
        ("--threads", wanted.threads, resources.threads),
    ):
        if given not in ("auto", None, stored):
            raise UsageError(
                f"{folder} was begun with {option} {stored}, and its numbers must stay comparable; "
                f"leave out {option}, or give another --out"
            )


def _check_available(
    resources: Resources,
    experiment: Experiment,
    shape: tuple[int, ...],
    classes: int,
    folder: Path,
    executor: Executor,
) -> None:
    """Raise UsageError if a run's engine, device or number of processes is not available here."""
    try:
        again, _ = executor.choose(experiment, shape, classes, resources.engine, resources.device)
    except UsageError as error:
        raise UsageError(
            f"{folder} was begun with the {resources.engine} engine on {resources.device}, and its numbers must stay "
            f"comparable; here that is not available: {error}, and another --out"
        ) from None
    if again.processes != resources.processes:
        count = resources.processes
        start = f"torchrun --nproc-per-node {count} --no-python lth run ..." if count > 1 else "lth run"
        raise UsageError(
            f"{folder} was begun with {count} process{'es' * (count > 1)} per training, and its numbers must stay "
            f"comparable; start it with {start}, or give another --out"
        )


# ----------------------------------------------------------------------------------------------------------- what to do


@dataclass(frozen=True)
class Work:
    """The work of a call of `run`: trainings, some of which are done; the cost of the others, and their disk space."""

    total: int
    done: int
    left: float
    bytes: float


def survey(prepared: Prepared, bytes_of: Callable[[Training], float]) -> Work:
    """Count finished and pending trainings, one training at a time."""
    total, done, left, needed = 0, 0, 0.0, 0.0
    retention = prepared.retention
    for training in trainings(prepared.asked):
        total += 1
        if retention.status(training.id):
            done += 1
        else:
            left += prepared.cost(training)
            needed += bytes_of(training)
    return Work(total, done, left, needed)


def check_disk(needed: float, folder: Path, say: Callable[[str], None]) -> None:
    """Raise UsageError if the disk has less space than the run needs; announce it if it is much."""
    total, _, free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    if total == 0:  # not a disk, such as /proc: writing will report the problem
        return
    if needed > free:
        raise UsageError(
            f"{folder} would take about {format_size(needed)}, and {format_size(free)} are free there; "
            "give an --out on another disk, or store.keep=last"
        )
    if needed > MUCH:
        say(f"about {format_size(needed)} will be written; {format_size(free)} are free")


def format_size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
