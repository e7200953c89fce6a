"""An experiment, from its name to its figures: plan + store + executor, with progress."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lth import config
from lth.config import deep_copy, nearest, read, recorded, resolve, resolve_with_notes, to_setting
from lth.errors import Interrupted, LthError, UsageError
from lth.execution import executors
from lth.execution.dry_run import show_plan
from lth.execution.environment import environment
from lth.execution.executors import Executor, Job
from lth.execution.interrupts import signals_as_interrupts, torch_threads_kept
from lth.execution.prepare import Prepared, Wanted, check_disk, prepare, survey
from lth.execution.progress import Display
from lth.execution.schedule import execute
from lth.plan import trainings
from lth.results import tables, terminal
from lth.storage import atomic, documents, integrity, layout, outcomes, runs

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

MOST_WORKERS = 1024  # also threads of one
NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.IGNORECASE)  # as torch says it


@dataclass(frozen=True)
class Run:
    """A run's folder and what it has found."""

    folder: Path

    @property
    def summary(self) -> pd.DataFrame:
        """summary.csv: one row per training."""
        return tables.load(self.folder).summary

    @property
    def curves(self) -> pd.DataFrame:
        """curves.csv: one row per evaluation."""
        return tables.load(self.folder).curves


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
    dry_run: bool = False,
    watch: bool = False,
    log: str | None = None,
    pictures: bool = True,
    console: Console | None = None,
) -> Run:
    """Train, prune, reset, repeat: what `lth run` does, with the same names.

    `experiment` is a preset's name, a TOML file, or its tables; `overrides` are `key=value` texts or a mapping. Goes on
    where an earlier call stopped. With `ticket`, a ticket file, level 0 is that ticket, trained by the recipe and on
    the data that it was found with, unless `experiment` or `overrides` say otherwise; it is not pruned further unless
    `levels` does. Raises UsageError before any work, and LthError where work could not go on.
    `watch` serves the report on 127.0.0.1 meanwhile; `log="tensorboard"` writes event files into the run's folder;
    without `pictures`, there are no table, figures and report at the end.
    """
    if executors.follows():
        from lth.execution.executors import torchrun

        torchrun.follow()
        return Run(Path())
    console = console or Console(stderr=True)
    settings = overrides if isinstance(overrides, Mapping) else list(overrides)
    wanted = Wanted(engine, device, threads, workers)
    wrong = wrong_options(wanted, executor, log)
    try:
        source = experiment if ticket is None else of_ticket(ticket, experiment)
        if source is None:
            raise UsageError("nothing to run: give a preset of `lth list presets`, a FILE.toml, or --ticket FILE")
        asked, notes = resolve_with_notes(
            source, settings, trials=trials, levels=levels, branches=branches, scale=scale
        )
        asked = recorded(asked)
    except UsageError as error:
        raise UsageError("\n".join([str(error), *wrong])) from None
    if wrong:
        raise UsageError("\n".join(wrong))
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    folder = Path(out) if out else Path("runs") / asked.folder_name
    root = Path(data_root) if data_root else None
    options = {"ticket": ticket, "trials": trials, "levels": levels, "branches": branches, "scale": scale}
    options |= {"engine": engine, "device": device, "workers": workers, "threads": threads}
    command = command_of(experiment, settings, options)

    with signals_as_interrupts(), torch_threads_kept():
        try:
            with executors.executor(executor) as place:
                say = lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
                prepared = prepare(asked, folder, root, wanted, place, (lambda line: None) if dry_run else say)
                if dry_run:
                    show_plan(prepared, console)
                else:
                    for note in prepared.notes:
                        say(note)
                    carry_out(prepared, place, command, watch, log, pictures, console)
        except KeyboardInterrupt:
            if dry_run:
                raise
            here = [("--out", out), ("--data-root", data_root), ("--executor", executor if executor != "local" else "")]
            again = " ".join([command, *(f"{option} {shlex.quote(str(given))}" for option, given in here if given)])
            raise Interrupted(f"stopped; what is done is kept in {folder}", command=again) from None
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not NO_MEMORY.search(str(error)):
                raise
            reason = str(error).partition("\n")[0] or "out of memory"
            raise LthError(f"there is not enough memory: {reason}; try fewer --workers or a smaller network") from None
    return Run(folder)


def sweep(
    experiment: str | Path | Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    out: str | Path | None = None,
    console: Console | None = None,
    **options: Any,
) -> list[Run]:
    """A run for each member of a sweep, then one report over all; `run` where no key is given a list of values.

    `recipe.lr=[0.0008,0.0012]` makes two runs, below `out` (default: runs) in folders named after what differs, and the
    report in the folder of the sweep's own name. Options are those of `run`, but watch.
    """
    members = config.sweep(overrides)
    if len(members) == 1:
        return [run(experiment, overrides, out=out, console=console, **options)]
    if options.get("watch"):
        raise UsageError("--watch is for one run; lth report RUN RUN --serve watches several")
    if experiment is None:
        raise UsageError("a sweep is of a preset or a file: name it, also beside --ticket")
    console = console or Console(stderr=True)
    preset = members[0].get("name", resolve(experiment).name)
    varied = [key for key in members[0] if any(member[key] != members[0][key] for member in members)]
    if overruled := [key for key in ("trials", "levels") if key in varied and options.get(key) is not None]:
        raise UsageError(f"--{overruled[0]} would make the runs of {overruled[0]}=[...] one: leave out one of them")
    below = Path(out) if out else Path("runs")
    given = {name: options[name] for name in ("trials", "levels", "branches", "scale") if name in options}
    own = lambda member: config.member_name(preset, {key: member[key] for key in varied})
    named = [member if "name" in varied else member | {"name": own(member)} for member in members]
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


def of_ticket(ticket: str | Path, experiment: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """The tables of an experiment whose level 0 is a ticket file: those of `experiment`, else the ticket's own."""
    if experiment is not None:
        return deep_copy(experiment if isinstance(experiment, Mapping) else read(experiment)) | {"ticket": str(ticket)}
    from lth.tickets.ticket import Ticket

    settings = Ticket.load(ticket).origin.get("settings")
    if not isinstance(settings, dict):
        raise UsageError(f"{ticket} does not say how it was trained: lth run PRESET|FILE.toml --ticket {ticket}")
    return settings | {"name": name_of_ticket(Path(ticket)), "trials": 1, "levels": 0, "ticket": str(ticket)}


def name_of_ticket(file: Path) -> str:
    """What the run of a ticket file is called: by the file, or, of one that a run holds, by its place there."""
    path = file.resolve()
    run = next((folder for folder in path.parents if (folder / layout.EXPERIMENT).exists()), None)
    said = path.stem if run is None else "-".join(path.parent.relative_to(run.parent).parts)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"ticket-{said}")[:100]


def wrong_options(wanted: Wanted, executor: str, log: str | None = None) -> list[str]:
    """What is wrong with the options that belong to no experiment."""
    from lth.report import events

    chosen = {
        "--engine": (wanted.engine, ("auto", "native", "torch")),
        "--device": (wanted.device, ("auto", "cpu", "cuda")),
        "--log": (log or "tensorboard", ("tensorboard",)),
    }
    wrong = [
        f"{option} takes {', '.join(valid)}; not {given!r}{nearest(given, valid)}"
        for option, (given, valid) in chosen.items()
        if given not in valid
    ]
    if wrong_executor := executors.wrong_name(executor):
        wrong.append(wrong_executor)
    for option, number in (("--workers", wanted.workers), ("--threads", wanted.threads)):
        if number is not None and not 1 <= number <= MOST_WORKERS:
            wrong.append(f"{option} takes a number from 1 to {MOST_WORKERS}, not {number}")
    if log == "tensorboard" and not events.available():
        wrong.append(events.NEEDED)
    return wrong


def carry_out(
    prepared: Prepared, executor: Executor, command: str, watch: bool, log: str | None, pictures: bool, console: Console
) -> None:
    """Write what is not stored yet: the experiment, its trainings, its tables and figures."""
    from lth.execution import pace, setup
    from lth.report import events

    folder, whole, asked, retention = prepared.folder, prepared.whole, prepared.asked, prepared.retention
    say = lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
    shape, classes = tuple(prepared.data.train_x.shape[1:]), prepared.data.classes
    bytes_of = pace.bytes_of(setup.setup_of(whole, prepared.resources, folder, shape, classes), prepared.levels)
    work = survey(prepared, bytes_of)
    check_disk(work.bytes, folder, say)
    write_events = lambda name: events.write(folder, name) if log else None
    with runs.lock(folder):  # here the first byte is written: whatever can be refused has been
        stored = open_folder(prepared, command)
        for training in trainings(asked):
            if outcomes.is_done(folder, training.id):
                write_events(training.id)
                retention.release(training.id)
        total = f"{work.total} training{'s' * (work.total > 1)}"
        say(f"{asked.name}: {total}, {prepared.workers} side by side, into {folder}")
        job = Job(whole, prepared.resources, folder, prepared.data, prepared.data_root, prepared.workers, say)
        with watched(folder, say) if watch else nullcontext():
            with executor.open(job) as workers:
                display = Display(console, prepared.cost, work.done, work.total, work.left)
                execute(trainings(asked), retention, workers, prepared.workers, display, write_events)
            integrity.refuse(folder, whole, stored)  # what was trained again has the bits that others were made from
            if pictures:
                show_results(folder, console)


def open_folder(prepared: Prepared, command: str) -> dict[str, Any]:
    """Write experiment.toml and environment.json where they are new or extended; the environment as it is now."""
    folder, whole, stored = prepared.folder, prepared.whole, prepared.environment
    if runs.joined(folder, prepared.asked) != whole or runs.read_environment(folder, whole) != stored:
        raise UsageError(f"{folder}: another lth wrote to it a moment ago; run the same command again")
    outcomes.clear_unfinished(folder)
    runs.open_run(folder, prepared.asked)
    first = stored or environment(asdict(prepared.resources), whole, command)
    now = {"data": prepared.facts} | first  # `lth repair` knows no data
    if stored != now:
        atomic.write_file(folder / layout.ENVIRONMENT, documents.sealed_json(now))
    return now


@contextmanager
def watched(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Serve the report on 127.0.0.1 meanwhile."""
    from lth.report import serve

    with serve.serving(serve.Live([folder])) as address:
        say(f"watch it on {address}")
        yield


def show_results(folder: Path, console: Console) -> None:
    """The table, and the paths of the figures and the report."""
    from lth.report import publish

    records = tables.load(folder)
    if len(records.summary):
        for table in terminal.render_tables(records, console):
            console.print(table)
        for path in publish.publish([records], folder / layout.FIGURES, folder / layout.REPORT):
            console.print(str(path), highlight=False, soft_wrap=True)


def show_overlaid(folders: Iterable[Path], out: Path, console: Console) -> None:
    """Figures and the report of several runs over each other, into `out`."""
    from lth.report import publish

    records = [tables.load(folder) for folder in folders]
    atomic.make_folder(out / layout.FIGURES)
    for path in publish.publish(records, out / layout.FIGURES, out / layout.REPORT):
        console.print(str(path), highlight=False, soft_wrap=True)


def command_of(experiment: Any, settings: Mapping[str, Any] | Iterable[str], options: Mapping[str, Any]) -> str:
    """The command that repeats a call, without what belongs to one machine: --data-root and --out."""
    name = "FILE.toml" if isinstance(experiment, Mapping) else str(experiment)
    texts = [to_setting(*pair) for pair in settings.items()] if isinstance(settings, Mapping) else settings
    words = ["lth", "run", *([] if experiment is None else [name]), *texts]
    for option, value in options.items():
        if value is not None and value != "auto":
            words += [f"--{option}", str(value)]
    return shlex.join(words)
