"""A run's folder -> tidy tables, and what is read off them: means, the winning level, the table at a run's end.

The tables are made of the trainings' own files, `summary.json` and `curve.csv`, as text: no number is read and printed
again on its way. Everything after them needs the tables and `experiment.toml` alone. No torch here.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import math
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lth import config
from lth.config import Experiment
from lth.errors import UsageError
from lth.plan import digests, training_id
from lth.storage import atomic, checksums, layout, outcomes, runs

PLACE = ("trial", "level", "branch")
TEXTS = ("branch", "status", "engine", "precision")
EVALUATION = ("iteration", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
CURVES = (*PLACE, "density", *EVALUATION)
RESULTS = (
    *("density", "weights", "status", "early_stop_iteration", "val_loss_at_early_stop", "val_accuracy_at_early_stop"),
    *("test_accuracy_at_early_stop", "train_accuracy_at_early_stop"),
    *("final_test_accuracy", "final_train_accuracy", "final_val_accuracy"),
)
EFFORT = ("iterations", "engine", "precision", "seconds")
# Before 3.1, pandas reads floats to the last bit only when told to; since then always, and the option is deprecated.
PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT: dict[str, Any] = {} if PANDAS >= (3, 1) else {"float_precision": "round_trip"}
PACKED = "curves.csv.gz"  # in place of curves.csv, where results are kept
WHOLE_COPY = "copy the folder again, whole"
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Records:
    """What a run has to show: its experiment, `summary` (a row a training) and `curves` (a row an evaluation)."""

    folder: Path
    experiment: Experiment
    summary: pd.DataFrame
    curves: pd.DataFrame
    environment: dict[str, Any] | None = None


class Place(NamedTuple):
    """Which training it is; its order is the order of the tables' rows."""

    trial: int
    level: int
    branch: str


def summary_columns(experiment: Experiment) -> list[str]:
    """The columns of summary.csv, in order; two for each iteration of `recipe.report_at`."""
    report_at = sorted(set(experiment.recipe.report_at))
    reported = [f"{kind}_accuracy_at_{n}" for n in report_at for kind in ("test", "val")]
    return [*PLACE, *RESULTS, *reported, *EFFORT]


# ------------------------------------------------------------------------------------------- trainings' files -> tables


def write(folder: str | Path) -> int:
    """Make summary.csv and curves.csv again from the trainings' files; equal trainings give equal bytes.

    Each table is written beside and then renamed. Returns the number of trainings; where there are none, such as in a
    folder that holds the tables alone, nothing is touched.
    """
    folder = Path(folder)
    experiment, found = _experiment(folder), each_training(folder)
    first = next(found, None)
    if first is None:
        return 0
    with atomic.replacing(folder / "curves.csv") as curves, atomic.replacing(folder / "summary.csv") as summary:
        return _write_tables(experiment, chain([first], found), summary, curves)


def _write_tables(
    experiment: Experiment, found: Iterable[tuple[Place, Path]], summary: IO[str], curves: IO[str]
) -> int:
    """Both tables, a training after the other, so that memory does not grow with their number, which is returned.

    Raises UsageError naming a training that is damaged, or of another run.
    """
    columns, digest_of, count = summary_columns(experiment), digests(experiment), 0
    writer = csv.writer(summary, lineterminator="\n")
    writer.writerow(columns)
    curves.write(",".join(CURVES) + "\n")
    for place, path in found:
        row = _row(path, place, digest_of(training_id(*place)))
        writer.writerow([row.get(name, "") for name in columns])
        curves.write(_prefixed(path / "curve.csv", "{},{},{},{},".format(*place, row.get("density", "")), row))
        count += 1
    return count


def tables(experiment: Experiment, found: Mapping[Place, Path]) -> dict[str, str]:
    """The text of each table, by its file's name, of the trainings `found`; of none, headers alone."""
    summary, curves = io.StringIO(), io.StringIO()
    _write_tables(experiment, found.items(), summary, curves)
    return {"curves.csv": curves.getvalue(), "summary.csv": summary.getvalue()}


def collect(folder: str | Path) -> Records:
    """What the trainings' files hold at this moment, without writing anything."""
    folder = Path(folder)
    experiment, found = _experiment(folder), trainings(folder)
    texts = tables(experiment, found)
    return Records(
        folder,
        experiment,
        _table(folder / "summary.csv", summary_columns(experiment), io.StringIO(texts["summary.csv"])),
        _table(folder / "curves.csv", CURVES, io.StringIO(texts["curves.csv"])),
        runs.read_environment(folder, experiment),
    )


def load(folder: str | Path) -> Records:
    """A run's tables, read from summary.csv and curves.csv or curves.csv.gz; empty where nothing is finished yet.

    Tables that are missing, lack trainings that the folder holds, or say anything else than these do are made again
    first; never so that a row is lost. Raises UsageError where the folder is no run's, or a file of it is missing or
    damaged, naming it.
    """
    folder = Path(folder)
    experiment, found = _experiment(folder), trainings(folder)
    columns, paths = summary_columns(experiment), (folder / "summary.csv", _curves_path(folder))
    missing = [path for path in paths if not path.exists()]
    if missing and not found:
        if len(missing) == 1:
            raise UsageError(f"{missing[0]} is missing, and {folder} holds no trainings to make it from: {WHOLE_COPY}")
        return collect(folder)
    if missing:
        if lost := unbacked(folder):
            there = next(path for path in paths if path.exists())
            raise UsageError(
                f"{missing[0]} is missing, and {there} has rows of {said(lost)} that {folder} does not hold, which "
                f"would be lost if both were made again: {WHOLE_COPY}, or move {there} away"
            )
        write(folder)
    summary = _table(paths[0], columns)
    held = set(summary[list(PLACE)].itertuples(index=False, name=None))
    if not missing and held <= set(found):
        refresh(folder, experiment, found, complete=len(held) == len(found))
        summary = _table(paths[0], columns)
    elif not held >= set(found):
        raise _damaged_table(paths[0], "its rows are of other trainings than the folder holds")
    curves = _table(_curves_path(folder), CURVES)
    return Records(folder, experiment, summary, curves, runs.read_environment(folder, experiment))


def refresh(folder: Path, experiment: Experiment, found: dict[Place, Path], complete: bool = True) -> None:
    """Write those tables again that are not what the trainings `found` make; if they seemed `complete`, say so."""
    made = tables(experiment, found)
    while (now := trainings(folder)) != found:  # a run beside this may have written later tables than these
        found, made = now, tables(experiment, now)
    for name, text in made.items():
        path, content = folder / name, text.encode()
        if path.exists() and path.read_bytes() != content:
            if complete:
                log.warning("%s was not what the trainings' own files make; it is made again", path)
            atomic.write_file(path, content)


def unbacked(folder: Path) -> set[str]:
    """The trainings, by their ids, that a table has rows of and the folder does not hold: made again, it loses them."""
    held = {training_id(*place) for place in trainings(folder)} if folder.is_dir() else set()
    for path in (folder / "summary.csv", _curves_path(folder)):
        try:
            with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
                rows = {(row["trial"], row["level"], row["branch"]) for row in csv.DictReader(file)}
            return {training_id(int(trial), int(level), branch) for trial, level, branch in rows} - held
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, csv.Error):
            continue  # missing, or damaged: no row of it can be told
    return set()


def said(names: Collection[str]) -> str:
    """How many trainings."""
    return f"{len(names):,} training{'s' * (len(names) != 1)}"


def _experiment(folder: Path) -> Experiment:
    path = folder / layout.EXPERIMENT
    if not path.is_file():
        what = "holds no experiment.toml" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} is no run's folder: it {what}; `lth run lenet` makes runs/lenet")
    return runs.read_experiment(folder)


def trainings(folder: Path) -> dict[Place, Path]:
    return dict(each_training(folder))


def each_training(folder: Path) -> Iterator[tuple[Place, Path]]:
    """The finished trainings and their folders, in the order of rows. What begins with a dot is not finished."""
    for trial, trial_folder in _numbered(folder, "trial"):
        for level, level_folder in _numbered(trial_folder, "level"):
            names = [path.parent.name for path in level_folder.glob("*/summary.json")]
            branches = sorted((name for name in names if re.match("[a-z]", name)), key=branch_order)
            if (level_folder / layout.SUMMARY).exists():
                yield Place(trial, level, "ticket"), level_folder
            for name in branches:
                yield Place(trial, level, name), level_folder / name


def _numbered(folder: Path, word: str) -> list[tuple[int, Path]]:
    """The folders such as level-07, by their numbers."""
    found = {int(match[1]): path for path in folder.iterdir() if (match := re.fullmatch(rf"{word}-(\d+)", path.name))}
    return sorted((number, path) for number, path in found.items() if path.is_dir())


def _row(folder: Path, place: Place, digest: str | None) -> dict[str, Any]:
    """One training's summary, each number as its file writes it; its place is its folder's."""
    path = folder / layout.SUMMARY
    try:
        content = path.read_bytes()
        row = json.loads(content, parse_float=str, parse_int=str, parse_constant=str)
        fault = checksums.text_fault(content)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged_training(path, error) from None
    if not isinstance(row, dict):
        raise _damaged_training(path, "it is no JSON object")
    if fault or row.get("training", digest) != digest:
        raise _damaged_training(path, fault or "it is of another training, or another run")
    return row | place._asdict()


def _prefixed(path: Path, prefix: str, summary: dict[str, Any]) -> str:
    """The evaluations of one training, by iteration, each with `prefix` in front."""
    try:
        content = path.read_bytes()
        if fault := outcomes.file_fault(content, summary, path.name):
            raise ValueError(fault)
        if path.name in outcomes.told_of(summary):  # as it was written, then: in order, and there are many
            _, _, body = content.decode().partition("\n")
            return prefix + body[:-1].replace("\n", f"\n{prefix}") + "\n" if body else ""
        header, *lines = content.decode().splitlines()
        if header != ",".join(EVALUATION) or any(line.count(",") != len(EVALUATION) - 1 for line in lines):
            raise ValueError(f"each line has {', '.join(EVALUATION)}")
        lines.sort(key=lambda line: int(line.partition(",")[0]))
    except (OSError, ValueError) as error:
        raise _damaged_training(path, error) from None
    return "".join(f"{prefix}{line}\n" for line in lines)


def _damaged_training(path: Path, error: object) -> UsageError:
    error = error.strerror if isinstance(error, OSError) else error
    run = next(parent.parent for parent in path.parents if parent.name.startswith("trial-"))
    return UsageError(f"{path} is damaged: {error}; {layout.mended_by(run)}")


# ------------------------------------------------------------------------------------------------------ reading tables


def _curves_path(folder: Path) -> Path:
    plain = folder / "curves.csv"
    packed = folder / PACKED
    return packed if packed.exists() and not plain.exists() else plain


def _table(path: Path, columns: Sequence[str], text: io.StringIO | None = None) -> pd.DataFrame:
    """A table with all of `columns`, from `text` where given; numbers to the last bit."""
    try:
        if text is None and path.suffix == ".csv" and not _ends_whole(path):
            raise ValueError("it is cut off in its last line")
        table = pd.read_csv(text or path, dtype=dict.fromkeys(TEXTS, str), low_memory=False, **EXACT)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged_table(path, error) from None
    if missing := [name for name in columns if name not in table]:
        raise _damaged_table(path, f"it has no column {', '.join(missing)}")
    for name, column in table.items():
        if name in columns and name not in TEXTS and len(table) and (fault := _fault(str(name), column)):
            raise _damaged_table(path, f"column {name} {fault}")
    of_a_row = [*PLACE, *({"iteration"} & {*columns})]
    if (twice := table.duplicated(of_a_row)).any():
        place = ", ".join(f"{name} {value}" for name, value in table.loc[twice, of_a_row].iloc[0].items())
        raise _damaged_table(path, f"it has {place} twice")
    if not len(table):  # which says nothing about its types
        table = table.astype({name: int if name in PLACE else float for name in columns if name not in TEXTS})
    return table.fillna({name: "" for name in TEXTS if name in columns})


def _fault(name: str, column: pd.Series) -> str | None:
    """What is wrong with a column of numbers; where a training stands is said in whole ones, and always."""
    if not pd.api.types.is_numeric_dtype(column):
        return "holds what is no number"
    if name in PLACE and not pd.api.types.is_integer_dtype(column):
        return "holds what is no whole number"
    return "has blanks" if name in ("density", "weights") and bool(column.isna().any()) else None


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _damaged_table(path: Path, error: object) -> UsageError:
    if trainings(path.parent):
        cure = f"delete it, and `lth report {layout.quoted(path.parent)}` makes it again from the trainings"
    else:
        cure = f"its folder holds no trainings to make it again from: {WHOLE_COPY}"
    return UsageError(f"{path} is damaged: {error}; {cure}")


# -------------------------------------------------------------------------------------------------- what the tables say


def family(label: str) -> str:
    """The branch of a label: `reinit` of `reinit-2`; `ticket` and `continued` are their own."""
    name, dash, number = label.rpartition("-")
    return name if dash and number.isdigit() else label


def branch_order(label: str) -> tuple:
    """A key that sorts labels, or branches, as people do: `ticket` first, `reinit-10` after `reinit-9`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", family(label))
    natural = [float(part) if i % 2 else part for i, part in enumerate(parts)]
    return label != "ticket", natural, int(label.removeprefix(family(label) + "-")) if label != family(label) else 0


def aggregate(summary: pd.DataFrame, value: str, by: Sequence[str] = ("family", "level")) -> pd.DataFrame:
    """Mean, min, max and n of the column `value` in each group of trainings, with the mean density and weights.

    Every training of a branch counts by itself: 5 trials with 3 reinits each are n = 15. Diverged trainings and those
    whose `value` is blank are left out, so that n says how many count; a group with none has no row. `family` may stand
    in `by` though it is no column. Rows are sorted by `by`, families as `branch_order` does.
    """
    if value not in summary:
        raise UsageError(f"summary.csv has no column {value!r}{config.nearest(value, summary.columns)}")
    kept = summary.loc[summary[value].notna() & (summary["status"] != "diverged")]
    groups = kept.assign(family=[family(label) for label in kept["branch"]]).groupby(list(by))
    table = groups[value].agg(["mean", "min", "max", "count"]).set_axis(["mean", "min", "max", "n"], axis=1)
    # Rounding can put the mean of equal values beside them, and an error bar of negative length is none.
    table["mean"] = table["mean"].clip(table["min"], table["max"])
    table[["density", "weights"]] = groups[["density", "weights"]].mean()
    return table.reset_index().sort_values(list(by), key=_sorting, kind="stable", ignore_index=True)


def _sorting(column: pd.Series) -> pd.Series:
    if column.name not in ("family", "branch"):
        return column
    ranks = {name: rank for rank, name in enumerate(sorted(set(column), key=branch_order))}
    return column.map(ranks)


def winning_level(summary: pd.DataFrame) -> int | None:
    """The level of smallest density whose tickets learn no later and no worse than level 0, on average; or None.

    No later: the mean early-stop iteration; no worse: the mean test accuracy there. Level 0 itself does not count.
    """
    winning = []
    for level, differences in beside_dense(summary).items():
        density, later, better = map(math.fsum, zip(*differences, strict=True))
        if later <= 0 and better >= -1e-9:  # sums of fractions such as 0.9793 are equal but for rounding
            winning.append((density / len(differences), level))
    return min(winning)[1] if winning else None


def beside_dense(summary: pd.DataFrame) -> dict[int, list[tuple[float, float, float]]]:
    """By level above 0, of each ticket: its density, and how much later and more accurate at early stop than level 0.

    A level is compared with level 0 over those trials that have both of them, neither diverged.
    """
    columns = ["trial", "level", "density", "early_stop_iteration", "test_accuracy_at_early_stop"]
    tickets = summary.loc[(summary["branch"] == "ticket") & (summary["status"] != "diverged"), columns]
    rows = [row for row in tickets.itertuples(index=False, name=None) if not any(map(math.isnan, row))]
    dense = {trial: (when, accuracy) for trial, level, _, when, accuracy in rows if level == 0}
    levels: dict[int, list[tuple[float, float, float]]] = {}
    for trial, level, density, when, accuracy in rows:
        if level > 0 and trial in dense:
            levels.setdefault(level, []).append((density, when - dense[trial][0], accuracy - dense[trial][1]))
    return levels


# -------------------------------------------------------------------------------------------- the table at a run's end


class Stat(NamedTuple):
    mean: float
    min: float
    max: float
    n: int


@dataclass(frozen=True)
class Headline:
    """A level of the ladder: its tickets, and its branches beside them."""

    level: int
    percent: float  # of weights remaining
    weights: int
    early_stop: dict[str, Stat]  # branch -> early-stop iteration; "ticket" is one of them
    accuracy: dict[str, Stat]  # branch -> test accuracy there
    n: int  # tickets that the means are over
    winning: bool


def headline_table(records: Records) -> list[Headline]:
    """A row for each level that has a ticket, from level 0 down; branches only where they have results."""
    summary = records.summary
    early_stop, accuracy = (_stats(summary, what) for what in ("early_stop_iteration", "test_accuracy_at_early_stop"))
    winning = winning_level(summary)
    rows = []
    for level, tickets in summary[summary["branch"] == "ticket"].groupby("level"):
        level = int(str(level))
        at = early_stop.get(level, {})
        n = at["ticket"].n if "ticket" in at else 0
        percent, weights = 100 * float(np.mean(tickets["density"])), round(float(np.mean(tickets["weights"])))
        rows.append(Headline(level, percent, weights, at, accuracy.get(level, {}), n, level == winning))
    return rows


def _stats(summary: pd.DataFrame, value: str) -> dict[int, dict[str, Stat]]:
    stats: dict[int, dict[str, Stat]] = {}
    table = aggregate(summary, value)
    for row in table[["level", "family", "mean", "min", "max", "n"]].itertuples(index=False, name=None):
        stats.setdefault(int(row[0]), {})[row[1]] = Stat(float(row[2]), float(row[3]), float(row[4]), int(row[5]))
    return stats


UNBOUNDED = 10_000  # columns: wider than any table


def render_tables(records: Records, console: Console) -> list[Table]:
    """The headline table for a terminal: 80 columns are enough for tickets and one branch.

    Where all branches do not fit side by side there is a table for each, beside the tickets.
    """
    rows = headline_table(records)
    branches = sorted({name for row in rows for name in row.early_stop}, key=branch_order) or ["ticket"]
    whole = _headline(rows, branches)
    found, controls = [whole], [name for name in branches if name != "ticket"]
    if console.measure(whole, options=console.options.update_width(UNBOUNDED)).maximum > console.width and controls:
        found = [_headline(rows, [name for name in branches if name in ("ticket", control)]) for control in controls]
    found[-1].caption, found[-1].caption_justify = _caption(records, rows), "left"
    return found


def _headline(rows: Sequence[Headline], branches: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    headers = [f"{name}\n{what}" for name in branches for what in ("early stop", "accuracy %")]
    for header in ("level", "left %", "weights", *headers):
        table.add_column(header, justify="right", vertical="top", overflow="fold")
    between = "\n" if len(branches) > 1 else "  "
    for row in rows:
        percent = f"{row.percent:.1f}" if row.percent >= 1 else f"{row.percent:.2f}"
        cells: list[Text | str] = [f"{'* ' if row.winning else ''}{row.level}", percent, f"{row.weights:,}"]
        for name in branches:
            cells.append(_cell(row.early_stop.get(name), 1, ",.0f", between))
            cells.append(_cell(row.accuracy.get(name), 100, ".2f", between))
        table.add_row(*cells, style="bold" if row.winning else None)
    return table


def _cell(stat: Stat | None, unit: float, form: str, between: str) -> Text | str:
    if stat is None:
        return "-"
    mean, low, high = (format(unit * number, form) for number in stat[:3])
    return mean if stat.n == 1 else Text.assemble(mean, between, (f"{low}-{high}", "dim"))


def _caption(records: Records, rows: Sequence[Headline]) -> str:
    """What the numbers are: means of how many trials, and which level wins."""
    winner = next((row for row in rows if row.winning), None)
    verdict = "no level is as early and as accurate as level 0"
    if winner:
        verdict = f"* winning level: {winner.percent:.3g}% of the weights, no later, no less accurate"
    what = f"{records.experiment.name}: {trials_said([row.n for row in rows])}{scale_said(records.experiment)}"
    left_out = [f"left out: {said}" for said in diverged_said(records)]
    return "\n".join([what, "accuracy on the test set at early stop", verdict, *left_out, *at_chance_said(records)])


def diverged_said(records: Records) -> list[str]:
    """How many trainings diverged, where any did; no mean is of them."""
    count = len(records.summary.loc[records.summary["status"] == "diverged"])
    return [f"{count} training{'s' * (count > 1)} that diverged"] if count else []


def at_chance(records: Records) -> list[int]:
    """The levels of which no ticket is more accurate than it is to answer always the same.

    That is, by less than three standard deviations of such an accuracy; none where the environment does not say what it
    is. Diverged trainings count for nothing.
    """
    facts = (records.environment or {}).get("data")
    facts = facts if isinstance(facts, dict) else {}
    chance, n = facts.get("chance"), facts.get("test_examples")
    if not isinstance(chance, float) or not isinstance(n, int) or n < 1:
        return []
    most = chance + 3 * math.sqrt(chance * (1 - chance) / n)
    summary = records.summary
    tickets = summary.loc[(summary["branch"] == "ticket") & (summary["status"] != "diverged")]
    best = tickets.groupby("level")["test_accuracy_at_early_stop"].max()
    return [int(str(level)) for level, accuracy in best.items() if accuracy <= most]


def at_chance_said(records: Records) -> list[str]:
    """A sentence where whole levels are at chance, else none."""
    levels = at_chance(records)
    if not levels:
        return []
    chance = 100 * (records.environment or {})["data"]["chance"]
    which = f"level{'s' * (len(levels) > 1)} {', '.join(map(str, levels))}"
    return [f"at chance (about {chance:.0f}%): all tickets of {which}; nothing is learned there"]


def trials_said(counts: Sequence[int]) -> str:
    """How many trials a mean is over, in words: "1 trial", "mean (min-max) of 3 to 5 trials"."""
    low, high = min(counts, default=0), max(counts, default=0)
    if high < 2:
        return "1 trial" if high else "nothing trained yet"
    return f"mean (min-max) of {high if low == high else f'{low} to {high}'} trials"


def length_said(experiment: Experiment) -> str:
    """How long the trainings of a run are, and its branches' where it differs: `5,000 iterations (reinit 6,000)`."""
    apart = [
        f"{b.name} {b.iterations:,}"
        for b in experiment.branch
        if b.iterations not in (None, experiment.recipe.iterations)
    ]
    branches = f" ({', '.join(apart)})" if apart else ""
    return f"{experiment.recipe.iterations:,} iterations{branches}{scale_said(experiment)}"


def scale_said(experiment: Experiment) -> str:
    """The end of a caption: nothing, or that the iterations were scaled."""
    return "" if experiment.scale == 1 else f", at scale {experiment.scale:g} of the full iterations"
