"""An experiment, from its name to its figures: plan + store + executor, with progress."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lth import config
from lth.config import Experiment, deep_copy, nearest, read, recorded, resolve, to_setting
from lth.errors import LthError, UsageError
from lth.execution import executors
from lth.execution.executors import Executor, Job
from lth.execution.progress import Display, cost, duration
from lth.execution.schedule import execute, to_do
from lth.plan import Training, longest_chain, plan, trainings
from lth.results import tables, terminal
from lth.storage import atomic, documents, integrity, layout, outcomes, runs
from lth.storage.retention import Keeping

if TYPE_CHECKING:
    import pandas as pd

    from lth.data import Data
    from lth.execution.job import Ladder, Means


MOST_WORKERS = 1024  # also threads of one
MUCH = 2**30  # bytes on disk that are said before they are written
NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.IGNORECASE)  # as torch says it


class Interrupted(LthError):
    """Stopped by Ctrl-C or SIGTERM; all that was done is kept."""

    exit_code = 130


@dataclass(frozen=True)
class Run:
    """A run's folder and what it has found."""

    folder: Path

    @property
    def summary(self) -> pd.DataFrame:
        """summary.csv: a row a training."""
        return tables.load(self.folder).summary

    @property
    def curves(self) -> pd.DataFrame:
        """curves.csv: a row an evaluation."""
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
    means = Wanted(engine, device, threads, workers)
    wrong = wrong_options(means, executor, log)
    try:
        source = experiment if ticket is None else of_ticket(ticket, experiment)
        if source is None:
            raise UsageError("nothing to run: give a preset of `lth list presets`, a FILE.toml, or --ticket FILE")
        asked = recorded(resolve(source, settings, trials=trials, levels=levels, branches=branches, scale=scale))
    except UsageError as error:
        raise UsageError("\n".join([str(error), *wrong])) from None
    if wrong:
        raise UsageError("\n".join(wrong))
    folder = Path(out) if out else Path("runs") / asked.folder_name
    root = Path(data_root) if data_root else None
    options = {"ticket": ticket, "trials": trials, "levels": levels, "branches": branches, "scale": scale}
    options |= {"engine": engine, "device": device, "workers": workers, "threads": threads}
    command = command_of(experiment, settings, options)

    with signals_as_interrupts(), torch_threads_kept():
        try:
            with executors.executor(executor) as place:
                if dry_run:
                    show_plan(asked, folder, root, means, place, console)
                else:
                    _run(asked, folder, root, means, place, command, watch, log, pictures, console)
        except KeyboardInterrupt:
            if dry_run:
                raise
            here = [("--out", out), ("--data-root", data_root), ("--executor", executor if executor != "local" else "")]
            again = " ".join([command, *(f"{option} {shlex.quote(str(given))}" for option, given in here if given)])
            raise Interrupted(f"stopped; what is done is kept in {folder}. To go on: {again}") from None
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


@dataclass(frozen=True)
class Wanted:
    """What a call asks of the machine, whatever the experiment; None and auto leave it to fixed rules."""

    engine: str = "auto"
    device: str = "auto"
    threads: int | None = None  # a training
    workers: int | None = None  # trainings side by side


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


def _run(
    asked: Experiment,
    folder: Path,
    root: Path | None,
    wanted: Wanted,
    executor: Executor,
    command: str,
    watch: bool,
    log: str | None,
    pictures: bool,
    console: Console,
) -> None:
    from lth import data  # torch is imported here: a wrong name or value has been said long before
    from lth.execution import job
    from lth.report import events

    say = lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
    whole = runs.joined(folder, asked)
    kept = runs.read_environment(folder, whole)
    integrity.refuse(folder, whole, kept)
    refuse_lost_rows(folder, asked)
    loaded = data.load(asked.data.name, root, say)
    facts = facts_of(loaded)
    check_same_data(facts, kept, asked, folder)
    ladder = job.check(asked, loaded)
    means = means_of(kept, asked, loaded, wanted, folder, executor, say)
    for line in too_late(asked):
        say(line)
    room = executor.room(means)  # asked also beside --workers: it refuses threads that no node holds
    count = wanted.workers or room
    cost_of = lambda training: cost(training, ladder.density(training.level), means.engine)
    write_events = lambda name: events.write(folder, name) if log else None
    keeping = Keeping(asked, whole, folder)
    bench = job.bench_of(whole, means, folder, tuple(loaded.train_x.shape[1:]), loaded.classes)
    work = survey(asked, keeping, cost_of, job.bytes_of(bench, ladder))
    check_room(work.bytes, folder, say)
    with runs.lock(folder):  # here the first byte is written: whatever can be refused has been
        if runs.joined(folder, asked) != whole or runs.read_environment(folder, whole) != kept:
            raise UsageError(f"{folder}: another lth wrote to it a moment ago; run the same command again")
        outcomes.clear_unfinished(folder)
        runs.open_run(folder, asked)
        told = {"data": facts} | (kept or environment(asdict(means), whole, command))  # `lth repair` knows no data
        if kept != told:
            kept = told
            atomic.write_file(folder / layout.ENVIRONMENT, documents.sealed_json(kept))
        for training in trainings(asked):
            if outcomes.is_done(folder, training.id):
                write_events(training.id)
                keeping.release(training.id)
        total = f"{work.total} training{'s' * (work.total > 1)}"
        say(f"{asked.name}: {total}, {count} side by side, into {folder}")
        with watched(folder, say) if watch else nullcontext():
            with executor.open(Job(whole, means, folder, loaded, root, count, say)) as workers_:
                display = Display(console, cost_of, work.done, work.total, work.left)
                execute(trainings(asked), keeping, workers_, count, display, write_events)
            integrity.refuse(folder, whole, kept)  # what was trained again has the bits that others were made from
            if pictures:
                show_results(folder, console)


def refuse_lost_rows(folder: Path, asked: Experiment) -> None:
    """Raise UsageError where tables have rows of trainings that are not there and will not be: a run writes over them.

    Beside packed curves, which no run writes but results are kept with, not even those may be that will be.
    """
    lost = tables.unbacked(folder)
    if lost and not (folder / layout.PACKED_CURVES).exists():
        lost -= {training.id for training in trainings(asked)}
    if lost:
        raise UsageError(
            f"the tables of {folder} have rows of {tables.format_trainings(lost)} that it does not hold, and a run "
            "would write over them; give another --out, or move them away"
        )


@dataclass(frozen=True)
class Work:
    """What a call of `run` has to do: trainings, of which some are done; the cost of the others, and their disk."""

    total: int
    done: int
    left: float
    bytes: float


def survey(
    asked: Experiment, keeping: Keeping, cost_of: Callable[[Training], float], bytes_of: Callable[[Training], float]
) -> Work:
    total, done, left, needed = 0, 0, 0.0, 0.0
    for training in trainings(asked):
        total += 1
        if keeping.status(training.id):
            done += 1
        else:
            left += cost_of(training)
            needed += bytes_of(training)
    return Work(total, done, left, needed)


def check_room(needed: float, folder: Path, say: Callable[[str], None]) -> None:
    """Raise UsageError where the disk has less room than a run is about to need; say it where that is much."""
    total, _, free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    if total == 0:  # no disk, such as /proc: writing says what is wrong with it
        return
    if needed > free:
        raise UsageError(
            f"{folder} would take about {size_said(needed)}, and {size_said(free)} are free there; "
            "give an --out on another disk, or store.keep=last"
        )
    if needed > MUCH:
        say(f"about {size_said(needed)} will be written; {size_said(free)} are free")


def size_said(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


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


# ---------------------------------------------------------------------------------------------------------------- means


def too_late(experiment: Experiment) -> Iterator[str]:
    """What a preset's recipe has beyond the last iteration of a shorter one, in a line each."""
    for key, several in experiment.recipe.too_late.items():
        last = f"{experiment.recipe.iterations:,}"
        yield f"recipe.{key} at {several} do nothing: trainings end at {last}; --scale shortens everything alike"


def means_of(
    kept: Mapping[str, Any] | None,
    experiment: Experiment,
    loaded: Any,
    wanted: Wanted,
    folder: Path,
    executor: Executor,
    say: Callable[[str], None],
) -> Means:
    """How to train: as the run did so far, else chosen now by fixed rules and said in a line."""
    from lth.execution import job

    shape = tuple(loaded.train_x.shape[1:])
    if kept is None:
        means, reason = executor.choose(experiment, shape, loaded.classes, wanted.engine, wanted.device)
        means = replace(means, threads=wanted.threads or means.threads)
        if means.engine == "native" and means.threads > 1:
            raise UsageError(
                f"--threads {means.threads}: the native engine trains on one thread, and trainings side by side on "
                "several; leave it out, or give --engine torch"
            )
        threads = f"{means.threads} thread{'s' * (means.threads > 1)} a training"
        say(f"engine {means.engine} on {means.device}, {means.precision}, {threads}: {reason}")
        return means
    try:
        means = job.Means(**kept["means"])
        known = means.engine in job.ENGINES and means.device in ("cpu", "cuda")
        if not known or not all(type(n) is int and n > 0 for n in (means.threads, means.processes)):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f"{folder / layout.ENVIRONMENT} is damaged: it does not say engine, device, precision and threads; "
            f"{layout.mended_by(folder)}"
        ) from None
    for option, given, stored in (
        ("--engine", wanted.engine, means.engine),
        ("--device", wanted.device, means.device),
        ("--threads", wanted.threads, means.threads),
    ):
        if given not in ("auto", None, stored):
            raise UsageError(
                f"{folder} was begun with {option} {stored}, and its numbers must stay comparable; "
                f"leave out {option}, or give another --out"
            )
    try:
        again, _ = executor.choose(experiment, shape, loaded.classes, means.engine, means.device)
    except UsageError as error:
        raise UsageError(
            f"{folder} was begun with the {means.engine} engine on {means.device}, and its numbers must stay "
            f"comparable; here that cannot be had: {error}, and another --out"
        ) from None
    if again.processes != means.processes:
        start = (
            f"torchrun --nproc-per-node {means.processes} --no-python lth run ..." if means.processes > 1 else "lth run"
        )
        raise UsageError(
            f"{folder} was begun with {means.processes} process{'es' * (means.processes > 1)} a training, and its "
            f"numbers must stay comparable; start it by {start}, or give another --out"
        )
    return means


def environment(means: Mapping[str, Any], experiment: Experiment, command: str) -> dict[str, Any]:
    """What environment.json says of a run: enough to repeat it, nothing that names the machine or its user."""
    packages = ("lth", "torch", "numpy", "safetensors", "pandas", "matplotlib")
    return {
        "means": dict(means),
        "experiment": experiment.digest(0),
        "command": command,
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
    }


def facts_of(loaded: Data) -> dict[str, Any]:
    """What tables say nothing of: how accurate it is to answer always the same, on how many examples, and which."""
    from lth import data

    counts = Counter(loaded.test_y.tolist())
    return {
        "chance": max(counts.values()) / len(loaded.test_y),
        "test_examples": len(loaded.test_y),
        "sha256": data.digest(loaded),
    }


def check_same_data(
    facts: Mapping[str, Any], kept: Mapping[str, Any] | None, experiment: Experiment, folder: Path
) -> None:
    """Raise UsageError where a run was begun with other examples: a path may hold others by now."""
    before = (kept or {}).get("data")
    known = before.get("sha256") if isinstance(before, Mapping) else None
    if known not in (None, facts["sha256"]):
        raise UsageError(
            f"data.name: {experiment.data.name} does not hold the examples that {folder} was begun with; "
            "bring those back, or give another --out"
        )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# -------------------------------------------------------------------------------------------------------------- dry run


def show_plan(
    asked: Experiment,
    folder: Path,
    root: Path | None,
    wanted: Wanted,
    executor: Executor,
    console: Console,
) -> None:
    """The plan with time and disk, measured on this machine in a few seconds; nothing is written."""
    from lth import data
    from lth.execution import job

    quiet = lambda line: None
    whole = runs.joined(folder, asked)
    kept = runs.read_environment(folder, whole)
    integrity.refuse(folder, whole, kept)
    refuse_lost_rows(folder, asked)
    loaded = data.load(asked.data.name, root, quiet)
    check_same_data(facts_of(loaded), kept, asked, folder)
    ladder = job.check(asked, loaded)
    means = means_of(kept, asked, loaded, wanted, folder, executor, quiet)
    keeping = Keeping(asked, whole, folder)
    todo = list(to_do(plan(asked), keeping.status))
    bench = job.set_up(asked, replace(means, processes=1), folder, loaded)  # the others of torchrun's do not listen
    seconds = job.estimate_seconds(bench, {t.level: ladder.density(t.level) for t in todo}, todo)
    room = executor.room(means)  # asked also beside --workers: it refuses threads that no node holds
    count = wanted.workers or room
    least = longest_chain(todo, seconds)
    console.print(plan_table(todo, ladder, seconds))
    for line in too_late(asked):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{len(plan(asked))} trainings, {len(todo)} of them to do; engine {means.engine} on {means.device}; "
        f"about {duration(max(least, sum(seconds.values()) / count))} with {count} side by side"
        f"{' and one process a training' * (means.processes > 1)}, "
        f"about {size_said(sum(map(job.bytes_of(bench, ladder), todo)))}, into {folder}",
        highlight=False,
        soft_wrap=True,
    )


def plan_table(todo: list[Training], ladder: Ladder, seconds: Mapping[str, float]) -> Table:
    table = Table("level", "weights", "% remaining", "trainings to do", "time each", box=None)
    for level in sorted({t.level for t in todo}):
        here = [t for t in todo if t.level == level]
        kinds = Counter(t.branch.rpartition("-")[0] or t.branch for t in here)
        each = sum(seconds[t.id] for t in here) / len(here)
        table.add_row(
            str(level),
            f"{ladder.remaining[level]:,}",
            f"{100 * ladder.density(level):.2f}",
            ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
            duration(each),
        )
    return table


# ---------------------------------------------------------------------------------------------------------------- calls


def command_of(experiment: Any, settings: Mapping[str, Any] | Iterable[str], options: Mapping[str, Any]) -> str:
    """The command that repeats a call, without what belongs to one machine: --data-root and --out."""
    name = "FILE.toml" if isinstance(experiment, Mapping) else str(experiment)
    texts = [to_setting(*pair) for pair in settings.items()] if isinstance(settings, Mapping) else settings
    words = ["lth", "run", *([] if experiment is None else [name]), *texts]
    for option, value in options.items():
        if value is not None and value != "auto":
            words += [f"--{option}", str(value)]
    return shlex.join(words)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, where nobody has said what else it does. Only the main thread can listen."""
    taken = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.default_int_handler)
    if taken or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """A run sets torch's threads for itself; a caller's own number comes back."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
