"""A call of `lth run` as a value: the arguments, the resolved experiment, and the command that repeats it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth.config import (
    Experiment,
    approve_typed,
    approved_code,
    deep_copy,
    describe,
    nearest,
    read,
    recorded,
    resolve,
    resolve_with_notes,
    to_setting,
)
from lth.errors import UsageError
from lth.execution import executors
from lth.execution.prepare import Wanted
from lth.storage import layout, runs

MOST_WORKERS = 1024  # also the maximum number of threads
Source = str | Path | Mapping[str, Any] | None
Settings = Mapping[str, Any] | Sequence[str]


@dataclass(frozen=True)
class Size:
    """The requested size of an experiment; None leaves it to the experiment."""

    trials: int | None = None
    levels: int | None = None
    branches: str | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Call:
    """The arguments of a command, or of a call from Python."""

    experiment: Source
    settings: Settings
    ticket: str | Path | None
    size: Size
    wanted: Wanted
    executor: str
    out: str | Path | None
    data_root: str | Path | None
    insecure: bool = False

    def folder(self, asked: Experiment) -> Path:
        """--out, or the experiment's own folder, or the preset's if this experiment was begun there."""
        if self.out:
            return Path(self.out)
        folder, earlier = Path("runs") / asked.folder_name, self._earlier_folder(asked)
        return earlier if earlier and not folder.exists() and runs.holds(earlier, asked) else folder

    def _earlier_folder(self, asked: Experiment) -> Path | None:
        """The folder name of version 0.1 for a preset or file with a changed model or dataset."""
        if self.experiment is None or self.ticket:
            return None
        name = (self.experiment if isinstance(self.experiment, Mapping) else read(self.experiment)).get("name")
        return Path("runs") / asked.model_copy(update={"name": name}).folder_name if name else None

    @property
    def data_folder(self) -> Path | None:
        return Path(self.data_root) if self.data_root else None

    @property
    def command(self) -> str:
        """The command that repeats the call, without the machine-specific options --data-root and --out."""
        name = "FILE.toml" if isinstance(self.experiment, Mapping) else str(self.experiment)
        pairs = self.settings.items() if isinstance(self.settings, Mapping) else ()
        texts = [to_setting(*pair) for pair in pairs] or list(self.settings)
        words = ["lth", "run", *([] if self.experiment is None else [name]), *texts]
        for option, value in {"ticket": self.ticket, **vars(self.size), **_asked(self.wanted)}.items():
            if value is not None and value != "auto":
                words += [f"--{option}", str(value)]
        return shlex.join(words)

    @property
    def whole_command(self) -> str:
        """The command that continues the run here."""
        here = {"out": self.out, "data-root": self.data_root}
        here |= {"executor": self.executor if self.executor != "local" else None}
        words = [f"--{option} {shlex.quote(str(v))}" for option, v in here.items() if v]
        return " ".join([self.command, *words, *(["--insecure"] if self.insecure else [])])


def _asked(wanted: Wanted) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in ("engine", "device", "workers", "threads")}


def resolved(call: Call, log: str | None) -> tuple[Experiment, list[str]]:
    """The requested experiment, and one line for each key that followed another.

    Raises UsageError naming everything that is wrong with the call.
    """
    wrong = wrong_options(call.wanted, call.executor, log, call.insecure)
    try:
        source = call.experiment if call.ticket is None else of_ticket(call.ticket, call.experiment)
        if source is None:
            raise UsageError("nothing to run: give a preset of `lth list presets`, a FILE.toml, or --ticket FILE")
        asked, notes = resolve_with_notes(source, call.settings, **vars(call.size))
        asked = recorded(asked)
        notes = [*notes, *approve_typed(asked, call.experiment, call.settings)]
        approved_code(asked)
    except UsageError as error:
        raise UsageError("\n".join([str(error), *wrong])) from None
    if wrong:
        raise UsageError("\n".join(wrong))
    return asked, notes


def of_ticket(ticket: str | Path, experiment: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """The tables of an experiment that begins with a ticket file: those of `experiment`, or else the ticket's own."""
    if experiment is not None:
        return deep_copy(experiment if isinstance(experiment, Mapping) else read(experiment)) | {"ticket": str(ticket)}
    from lth.tickets.ticket import Ticket

    settings = Ticket.load(ticket).origin.get("settings")
    if not isinstance(settings, dict):
        raise UsageError(f"{ticket} does not say how it was trained: lth run PRESET|FILE.toml --ticket {ticket}")
    tables = settings | {"name": name_of_ticket(Path(ticket)), "trials": 1, "levels": 0, "ticket": str(ticket)}
    return tables | {"about": f"{describe(resolve(tables))}, from the ticket {Path(ticket).name}"}


def name_of_ticket(file: Path) -> str:
    """The name for the run of a ticket file: that of the file or, for a file in a run folder, of its place there."""
    path = file.resolve()
    run = next((folder for folder in path.parents if (folder / layout.EXPERIMENT).exists()), None)
    name = path.stem if run is None else "-".join(path.parent.relative_to(run.parent).parts)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"ticket-{name}")[:100]


def wrong_options(wanted: Wanted, executor: str, log: str | None = None, insecure: bool = False) -> list[str]:
    """What is wrong with the options that are not part of an experiment."""
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
    if wrong_executor := executors.wrong_name(executor, insecure):
        wrong.append(wrong_executor)
    for option, number in (("--workers", wanted.workers), ("--threads", wanted.threads)):
        if number is not None and not 1 <= number <= MOST_WORKERS:
            wrong.append(f"{option} takes a number from 1 to {MOST_WORKERS}, not {number}")
    if log == "tensorboard" and not events.available():
        wrong.append(events.NEEDED)
    return wrong
