"""A figure of the paper, from its trainings to the picture: `lth figure N`.

needed(figure, version)  the runs of a figure, each an experiment with a folder
make(number, ...)        train what is not stored yet, and draw the figure
listing(...)             one line per figure: content, required runs, stored runs, time for the rest
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lth import config
from lth.config import Experiment
from lth.errors import UsageError
from lth.execution import executors
from lth.measures import tables as measures
from lth.papers.figures import PaperFigure
from lth.papers.lottery_ticket.figures import figures
from lth.papers.setups import Setup, differences, experiment
from lth.plan import Training, plan
from lth.results import tables
from lth.storage import atomic, outcomes

FOLDER = "figures"  # folder of the pictures, next to the runs


@dataclass(frozen=True)
class Version:
    """How a figure differs from the paper's: its size or other settings."""

    trials: int | None = None
    levels: int | None = None
    branches: str | None = None
    scale: float | None = None
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = [config.parse_override(setting)[0] for setting in self.settings]
        options = {"trials": "--trials", "levels": "--levels", "branch": "--branches"}
        if taken := [f"give {options[key]} in place of the setting {key}" for key in keys if key in options]:
            raise UsageError("\n".join(taken))

    @property
    def name(self) -> str:
        """The folder of this version; empty for the full figure."""
        numbers = {"scale": self.scale, "trials": self.trials, "levels": self.levels, "branches": self.branches}
        texts = [
            f"{option}{value:g}" if option == "scale" else f"{option}{value}"
            for option, value in numbers.items()
            if value is not None
        ]
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([*texts, *self.settings])).strip("-.")

    @property
    def text(self) -> str:
        """The beginning of the caption; empty for the paper's own size."""
        numbers = {"scale": self.scale, "trials": self.trials, "levels": self.levels, "branches": self.branches}
        texts = [f"{option} {value}" for option, value in numbers.items() if value is not None]
        return f"Not the paper's size: {', '.join([*texts, *self.settings])}. " if self.name else ""


@dataclass(frozen=True)
class Needed:
    """A run of a figure, as `lth run` takes it."""

    setup: Setup
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    folder: Path

    @property
    def experiment(self) -> Experiment:
        return config.resolve(self.setup.preset, self.settings, **self.options)


def of_command(first: str | None, others: Sequence[str]) -> tuple[int | None, list[str]]:
    """The figure's number and the settings of a command; the first word may be either. Raises UsageError otherwise."""
    if first is None or "=" in first:
        return None, [*([first] if first else []), *others]
    if not re.fullmatch("[0-9]{1,4}", first):
        raise UsageError(
            f"{config.shown(first)} is not a figure of the paper: give its number, as `lth figure --list` does"
        )
    return int(first), list(others)


def figure_of(number: int) -> PaperFigure:
    """A figure of the paper. Raises UsageError if it does not exist or shows no results."""
    if number not in figures():
        raise UsageError(
            f"figure {number} is not one of the paper's figures of results: 1, and 3 to 45 (lth figure --list)"
        )
    return figures()[number]


def needed(figure: PaperFigure, version: Version, out: Path) -> list[Needed]:
    """The runs of a figure in the order of its panels; figures share equal runs.

    Raises UsageError for a setting that the figure sets itself, which its folders and legends would contradict.
    """
    if taken := overruled(figure, version):
        raise UsageError("\n".join(_not_here(figure, key, setting) for key, setting in taken.items()))
    runs = []
    for of, need in figure.needs().items():
        levels = need.levels if version.levels is None else min(need.levels, _as_deep(of, version.levels))
        branches = [
            {"name": name, "count": count, "levels": f"1-{min(last, levels)}"}
            for name, (count, last) in need.branches.items()
            if levels
        ]
        name = config.member_name(of.preset, dict(of.settings))
        settings = {"name": name, "branch": branches, **dict(of.settings)}
        settings |= dict(map(config.parse_override, version.settings))
        options = {"trials": version.trials or figure.trials, "levels": levels}
        options |= {"branches": version.branches, "scale": version.scale}
        run = Needed(of, settings, options, Path())
        folder = out / version.name / (name if version.name else run.experiment.folder_name)
        runs.append(replace(run, folder=folder))
    return runs


def _as_deep(of: Setup, levels: int) -> int:
    """The levels of a setup down to the density of level `levels` of iterative pruning.

    One-shot pruning takes smaller steps: figure 4 compares both at the same densities.
    """
    prune = experiment(of).prune
    if experiment(of).strategy != "oneshot":
        return levels
    return sum(1 - rate >= (1 - prune.rate) ** levels - 1e-9 for rate in prune.rates)


def overruled(figure: PaperFigure, version: Version) -> dict[str, str]:
    """The settings that the figure sets itself, by key, in its setups or through presets that differ in them.

    Settings of data are not included, because they depend on the network: figures 1 and 14 use two datasets.
    """
    first, *others = figure.needs()
    fixed = {"name", *(key for of in (first, *others) for key, _ in of.settings)}
    fixed |= {key for of in others for key in differences(experiment(first), of) if not key.startswith("data.")}
    given = {config.parse_override(setting)[0]: setting for setting in version.settings}
    return {key: setting for key, setting in given.items() if key in fixed}


def _not_here(figure: PaperFigure, key: str, setting: str) -> str:
    preset = min((of.preset for of in figure.needs()), key=len)  # the base preset: variants have longer names
    alone = f"lth run {preset} {shlex.quote(setting)}"
    return f"{key}: figure {figure.number} sets it itself; leave {setting} out, or run it without the figure: {alone}"


def make(
    number: int,
    version: Version,
    out: Path,
    *,
    console: Console,
    dry_run: bool = False,
    width: float | None = None,
    **means: Any,
) -> list[Path]:
    """Train what figure `number` needs and is not stored below `out`, draw it, and return the paths of the pictures.

    `means` are data_root, engine, device, workers, threads, executor and insecure, as for `lth.run`.
    """
    from lth.execution import running

    figure = figure_of(number)
    leads, runs = not executors.follows(), needed(figure, version, out)
    for n, run in enumerate(runs, 1):
        if leads:
            console.print(f"figure {number}, run {n} of {len(runs)}: {run.folder}", highlight=False, soft_wrap=True)
        if dry_run:
            _plan(run, console, **means)
        else:
            running.run(
                run.setup.preset,
                run.settings,
                out=run.folder,
                pictures=False,
                console=console,
                **run.options,
                **means,
            )
    return [] if dry_run or not leads else picture(figure, version, runs, out, width)


def _plan(run: Needed, console: Console, *, data_root: Path | None = None, executor: str = "local",
          insecure: bool = False, **wanted: Any) -> None:  # fmt: skip
    """Print the plan of a run with times by arithmetic, as in `lth figure --list`: a figure has up to 30 runs."""
    from lth.execution import running
    from lth.execution.call import Call, Size
    from lth.execution.prepare import Wanted

    call = Call(
        run.setup.preset, run.settings, None, Size(**run.options), Wanted(**wanted), executor, run.folder, data_root,
        insecure,
    )  # fmt: skip
    running.start(call, running.Output(True, False, None, False, console, by_arithmetic=True))


def picture(
    figure: PaperFigure, version: Version, runs: Sequence[Needed], out: Path, width: float | None = None
) -> list[Path]:
    """Draw a figure from its stored runs. Returns the paths of the pictures."""
    from lth.papers.drawing import draw
    from lth.results.sheets import save

    folders = {run.setup: run.folder for run in runs}
    for portrait in figure.portraits:
        measures.compute(portrait.measure, folders[portrait.setup], levels=portrait.level)
    records = {setup: tables.load(folder) for setup, folder in folders.items()}
    folder = out / version.name / FOLDER
    atomic.make_folder(folder)
    return save(draw(figure, records, version.text, width), folder / f"figure-{figure.number:02}")


# -------------------------------------------------------------------------------------------------------------- listing


def listing(
    version: Version, out: Path, seconds: Callable[[Experiment, Training], float] | None = None
) -> Iterator[str]:
    """One line per figure, beginning with its number; `seconds` estimates the time of a training of an experiment."""
    for number, figure in figures().items():
        if taken := overruled(figure, version):
            yield f"{number:<2}  {figure.about}: it sets {', '.join(taken)} itself"
        else:
            yield _line(number, figure, needed(figure, version, out), seconds)


def _line(number: int, figure: PaperFigure, runs: Sequence[Needed], seconds: Any) -> str:
    total = done = 0
    left = 0.0
    for run in runs:
        of = run.experiment
        trainings = plan(of)
        todo = [t for t in trainings if not (run.folder.exists() and outcomes.is_done(run.folder, t.id))]
        total, done = total + len(trainings), done + len(trainings) - len(todo)
        if seconds and todo:
            left += sum(seconds(of, t) for t in todo)
    from lth.execution.estimates import format_duration

    time = f"about {format_duration(left)} here" if left else "nothing left to train"
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}, {total:,} trainings, {done:,} stored"
    return f"{number:<2}  {figure.about}: {count}; {time}"
