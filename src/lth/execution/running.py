"""Run an experiment from its name to its figures: plan, storage and executor, with progress."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lth.config import approved_code, printable
from lth.errors import Interrupted, LthError, UsageError
from lth.execution import executors
from lth.execution.call import Call, Size, resolved
from lth.execution.dry_run import show_plan
from lth.execution.environment import environment
from lth.execution.executors import Executor, Job, bootstrap
from lth.execution.interrupts import signals_as_interrupts, torch_threads_kept
from lth.execution.prepare import Prepared, Wanted, check_disk, prepare, survey
from lth.execution.progress import Display
from lth.execution.schedule import execute
from lth.execution.stored import Run
from lth.plan import trainings
from lth.results import sentences, tables, terminal, verdict
from lth.storage import atomic, documents, integrity, layout, outcomes, runs

if TYPE_CHECKING:
    from collections.abc import Callable

NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.IGNORECASE)  # as torch formats it


@dataclass(frozen=True)
class Output:
    """What a run prints and writes during its work and at its end."""

    dry_run: bool
    watch: bool
    log: str | None
    pictures: bool
    console: Console
    by_arithmetic: bool = False  # estimates the time of a dry run

    def say(self, line: str) -> None:
        self.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def run(
    experiment: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    ticket: str | Path | None = None,
    trials: int | None = None,
    levels: int | None = None,
    branches: str | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    scale: float | None = None,
    engine: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    threads: int | None = None,
    executor: str = "local",
    insecure: bool = False,
    dry_run: bool = False,
    watch: bool = False,
    log: str | None = None,
    pictures: bool = True,
    console: Console | None = None,
) -> Run:
    """Run an experiment: train, prune, reset, repeat. The function behind `lth run`, with the same argument names.

    `experiment` is a preset's name, a TOML file, or tables; `overrides` are `key=value` strings or a mapping. A stopped
    run is resumed. With a file as `ticket`, level 0 is that ticket, trained with its own recipe and data unless
    `experiment` or `overrides` say otherwise; it is pruned further only if `levels` is given.

    `insecure` allows `executor` to be a Ray cluster without a token. `watch` serves the report on 127.0.0.1 during the
    run. `log="tensorboard"` writes event files into the run's folder. Without `pictures`, there are no table, figures
    and report at the end. Raises UsageError before any work, and LthError if the work could not continue.
    """
    bootstrap.refuse_in_starting_process()
    if executors.follows():
        from lth.execution.executors import torchrun

        torchrun.follow()
        return Run(Path())
    settings = overrides if isinstance(overrides, Mapping) else list(overrides)
    size = Size(trials, levels, branches, scale)
    whole = lambda number: int(number) if isinstance(number, Integral) else number  # including NumPy integers
    wanted = Wanted(engine, device, whole(threads), whole(workers))
    call = Call(experiment, settings, ticket, size, wanted, executor, out, data_root, insecure)
    return start(call, Output(dry_run, watch, log, pictures, console or Console(stderr=True)))


def start(call: Call, output: Output) -> Run:
    """Check the call, prepare it, carry it out. Everything that can be refused is refused before the first write."""
    asked, notes = resolved(call, output.log)
    for note in notes:
        output.say(note)
    folder = call.folder(asked)
    with signals_as_interrupts(), torch_threads_kept():
        try:
            with executors.executor(call.executor, call.insecure) as place:
                say = (lambda line: None) if output.dry_run else output.say
                prepared = prepare(asked, folder, call.data_folder, call.wanted, place, say)
                if output.dry_run:
                    show_plan(prepared, output.console, output.by_arithmetic)
                else:
                    carry_out(prepared, place, call.command, output)
        except KeyboardInterrupt:
            if output.dry_run:
                raise
            raise Interrupted(f"stopped; finished work is kept in {folder}", command=call.whole_command) from None
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not NO_MEMORY.search(str(error)):
                raise
            reason = str(error).partition("\n")[0] or "out of memory"
            raise LthError(f"there is not enough memory: {reason}; try fewer --workers or a smaller network") from None
    return Run(folder)


def carry_out(prepared: Prepared, executor: Executor, command: str, output: Output) -> None:
    """Store what is missing: the experiment, its trainings, its tables and figures."""
    from lth.execution import pace, setup
    from lth.report import events

    folder, whole, asked, retention = prepared.folder, prepared.whole, prepared.asked, prepared.retention
    say = output.say
    for note in prepared.notes:
        say(note)
    shape, classes = tuple(prepared.data.train_x.shape[1:]), prepared.data.classes
    bytes_of = pace.bytes_of(setup.setup_of(whole, prepared.resources, folder, shape, classes), prepared.levels)
    work = survey(prepared, bytes_of)
    check_disk(work.bytes, folder, say)
    write_events = lambda name: events.write(folder, name) if output.log else None
    with runs.lock(folder):  # the first write; everything that can be refused has been refused
        stored = open_folder(prepared, command)
        for training in trainings(asked):
            if outcomes.is_done(folder, training.id):
                write_events(training.id)
                retention.release(training.id)
        total = f"{work.total} training{'s' * (work.total > 1)}"
        say(f"{asked.name}: {total}, {prepared.workers} side by side, into {folder}")
        code = approved_code(asked)
        job = Job(whole, prepared.resources, folder, prepared.data, prepared.data_root, prepared.workers, say, code)
        with watched(folder, say) if output.watch else nullcontext():
            with executor.open(job) as workers:
                display = Display(output.console, prepared.cost, work.done, work.total, work.left)
                execute(trainings(asked), retention, workers, prepared.workers, display, write_events)
            integrity.refuse(folder, whole, stored)  # repeated trainings have the bits from which others were made
            if output.pictures:
                show_results(folder, output.console)


def open_folder(prepared: Prepared, command: str) -> dict[str, Any]:
    """Write experiment.toml and environment.json if they are new or extended, with the present environment."""
    folder, whole, stored = prepared.folder, prepared.whole, prepared.environment
    if runs.joined(folder, prepared.asked) != whole or runs.read_environment(folder, whole) != stored:
        raise UsageError(f"{folder}: another lth process wrote to it a moment ago; run the same command again")
    outcomes.clear_unfinished(folder)
    runs.open_run(folder, prepared.asked)
    first = stored or environment(asdict(prepared.resources), whole, command)
    now = {"data": prepared.facts} | first  # `lth repair` does not know the data
    if stored != now:
        atomic.write_file(folder / layout.ENVIRONMENT, documents.sealed_json(now))
    return now


@contextmanager
def watched(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Serve the report on 127.0.0.1 during the run."""
    from lth.report import serve

    with serve.serving(serve.Live([folder])) as address:
        say(f"live report: {address}")
        yield


def show_results(folder: Path, console: Console) -> None:
    """Print the table and the places of the figures and the report."""
    from lth.report import publish

    records = tables.load(folder)
    if len(records.summary):
        for table in terminal.render_tables(records, console):
            console.print(table)
        if advice := sentences.advice(verdict.of(records), records.experiment):
            console.print(advice, highlight=False, markup=False, soft_wrap=True)
        for line in publish.summarized(publish.publish([records], folder / layout.FIGURES, folder / layout.REPORT)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
