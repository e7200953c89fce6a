"""The tables of a run: created from the files of its trainings, written, verified and read.

The tables are concatenated from `summary.json` and `curve.csv` of each training as text, so numbers are not parsed and
formatted again. All other results need only the tables and `experiment.toml`.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pandas as pd

from lth.config import Experiment
from lth.errors import Damaged, UsageError
from lth.plan import digests, training_id
from lth.results.early_stops import is_reached, with_reached
from lth.results.records import CURVES, PLACE, REACHED, TEXTS, Place, Records, summary_columns
from lth.results.trainings import each_training, evaluations_of, finished, row_of
from lth.storage import atomic, layout, manifest, runs

# before 3.1, pandas reads floats exactly only with this option; since then it always does, and the option is deprecated
PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT: dict[str, Any] = {} if PANDAS >= (3, 1) else {"float_precision": "round_trip"}
TYPES: dict[Any, Any] = dict.fromkeys(TEXTS, str) | {REACHED: "boolean"}  # text columns
WHOLE_COPY = "copy the folder again, whole"
TABLES = (layout.CURVES_TABLE, layout.SUMMARY_TABLE)
log = logging.getLogger(__name__)


def write(folder: str | Path) -> int:
    """Write summary.csv and curves.csv from the files of the trainings. Equal trainings give equal bytes.

    Each table is replaced atomically. Returns the number of trainings; if there are none, for example in a folder that
    has the tables only, nothing is written.
    """
    folder = Path(folder)
    experiment, trainings = _experiment(folder), each_training(folder)
    first = next(trainings, None)
    if first is None:
        return 0
    with manifest.replacing(folder, TABLES) as (curves, summary):
        return _write_tables(experiment, chain([first], trainings), summary, curves)


def _write_tables(
    experiment: Experiment, trainings: Iterable[tuple[Place, Path]], summary: IO[str], curves: IO[str]
) -> int:
    """Write both tables one training at a time, so that memory does not grow. Returns the number of trainings.

    Raises UsageError naming a training that is damaged or belongs to another run.
    """
    columns, digest_of, count = summary_columns(experiment), digests(experiment), 0
    writer = csv.writer(summary, lineterminator="\n")
    writer.writerow(columns)
    curves.write(",".join(CURVES) + "\n")
    for place, path in trainings:
        row = row_of(path, place, digest_of(training_id(*place)))
        prefix = "{},{},{},{},".format(*place, row.get("density", ""))
        evaluations = evaluations_of(path / layout.CURVE, prefix, row)
        row[REACHED] = _reached(row.get("early_stop_iteration"), evaluations, len(prefix))
        writer.writerow([row.get(name, "") for name in columns])
        curves.write(evaluations)
        count += 1
    return count


def _reached(early_stop: str | None, evaluations: str, prefix: int) -> bool | None:
    """The column `early_stop_reached` of a training; in each line, `prefix` characters precede the iteration."""
    if early_stop is None:
        return None
    return is_reached([float(line[prefix:].partition(",")[0]) for line in evaluations.splitlines()], float(early_stop))


def texts(experiment: Experiment, trainings: Mapping[Place, Path]) -> dict[str, str]:
    """The text of each table by file name, made from `trainings`; without any, only the header."""
    summary, curves = io.StringIO(), io.StringIO()
    _write_tables(experiment, trainings.items(), summary, curves)
    return {layout.CURVES_TABLE: curves.getvalue(), layout.SUMMARY_TABLE: summary.getvalue()}


def collect(folder: str | Path) -> Records:
    """The tables made from the present files of the trainings; writes nothing."""
    folder = Path(folder)
    experiment = _experiment(folder)
    made = texts(experiment, finished(folder))
    return Records(
        folder,
        experiment,
        _parsed(folder / layout.SUMMARY_TABLE, summary_columns(experiment), made[layout.SUMMARY_TABLE].encode()),
        _parsed(folder / layout.CURVES_TABLE, CURVES, made[layout.CURVES_TABLE].encode()),
        runs.read_environment(folder, experiment),
    )


def load(folder: str | Path) -> Records:
    """Read the tables of a run from summary.csv and curves.csv or curves.csv.gz; empty if nothing is finished yet.

    Tables that are missing, or differ from the trainings in the folder, are written again first, unless rows would be
    lost. Other tables are verified against the manifest, with a warning if they have no checksum. Raises UsageError if
    the folder is not a run, or naming a missing or damaged file.
    """
    folder = Path(folder)
    experiment, trainings = _experiment(folder), finished(folder)
    manifest.read(folder, experiment)
    paths = (folder / layout.SUMMARY_TABLE, _curves_path(folder))
    missing = [path for path in paths if not path.exists()]
    if missing and not trainings:
        if len(missing) == 1:
            raise UsageError(f"{missing[0]} is missing, and {folder} holds no trainings to make it from: {WHOLE_COPY}")
        return collect(folder)
    if missing:
        _make_missing(folder, missing[0], next((path for path in paths if path.exists()), None))
    summary = _table(paths[0], summary_columns(experiment))
    places = set(summary[list(PLACE)].itertuples(index=False, name=None))
    if not missing and places <= set(trainings):
        refresh(folder, experiment, trainings, complete=len(places) == len(trainings))
    elif not places >= set(trainings):
        raise _damaged_table(paths[0], "its rows belong to other trainings than those in the folder")
    manifest.warn_of_unsealed(folder, [path.name for path in paths])
    summary, curves = _table(paths[0], summary_columns(experiment), True), _table(_curves_path(folder), CURVES, True)
    return Records(folder, experiment, with_reached(summary, curves), curves, runs.read_environment(folder, experiment))


def _make_missing(folder: Path, missing: Path, other: Path | None) -> None:
    """Write both tables if one is missing. Raises UsageError if the other one would lose rows."""
    if other and (lost := unbacked(folder)):
        raise UsageError(
            f"{missing} is missing, and {other} has rows of {format_trainings(lost)} that {folder} does not hold, "
            f"which would be lost if both were made again: {WHOLE_COPY}, or move {other} away"
        )
    write(folder)


def refresh(folder: Path, experiment: Experiment, trainings: dict[Place, Path], complete: bool = True) -> None:
    """Write the tables that differ from those of `trainings`; warn about each if they seemed `complete`."""
    made = texts(experiment, trainings)
    while (now := finished(folder)) != trainings:  # another run in this folder may have written newer tables
        trainings, made = now, texts(experiment, now)
    for name, text in made.items():
        path, content = folder / name, text.encode()
        if not path.exists():
            continue
        there, fault = manifest.checked_table(folder, name)
        if fault or not is_of(there, text):
            if complete and there != content:
                log.warning("%s did not match the trainings' files; it was written again", path)
            manifest.write_table(folder, name, content)


def is_of(stored: bytes, made: str) -> bool:
    """Return whether the bytes of a table are those of its trainings, as written now or by version 0.1."""
    return stored == made.encode() or stored == _without_reached(made).encode()


def _without_reached(text: str) -> str:
    """The text of a table in the format of version 0.1."""
    rows = list(csv.reader(io.StringIO(text)))
    if REACHED not in rows[0]:
        return text
    at, older = rows[0].index(REACHED), io.StringIO()
    csv.writer(older, lineterminator="\n").writerows([*row[:at], *row[at + 1 :]] for row in rows)
    return older.getvalue()


def unbacked(folder: Path) -> set[str]:
    """The ids of trainings in a table that are not in the folder; a new table would lose their rows."""
    stored = {training_id(*place) for place in finished(folder)} if folder.is_dir() else set()
    for path in (folder / layout.SUMMARY_TABLE, _curves_path(folder)):
        try:
            with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
                rows = {(row["trial"], row["level"], row["branch"]) for row in csv.DictReader(file)}
            return {training_id(int(trial), int(level), branch) for trial, level, branch in rows} - stored
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, csv.Error):
            continue  # missing or damaged
    return set()


def format_trainings(names: Collection[str]) -> str:
    """`1 training`, `1,234 trainings`."""
    return f"{len(names):,} training{'s' * (len(names) != 1)}"


def _experiment(folder: Path) -> Experiment:
    path = folder / layout.EXPERIMENT
    if not path.is_file():
        what = "holds no experiment.toml" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} is not a run folder: it {what}; `lth run lenet` makes runs/lenet")
    return runs.read_experiment(folder)


def _curves_path(folder: Path) -> Path:
    plain, packed = folder / layout.CURVES_TABLE, folder / layout.PACKED_CURVES
    return packed if packed.exists() and not plain.exists() else plain


def _table(path: Path, columns: Sequence[str], checked: bool = False) -> pd.DataFrame:
    """Read a table with all of `columns`; with `checked`, verify it against the manifest."""
    try:
        content = (manifest.read_table if checked else _read)(path.parent, path.name)
    except (OSError, ValueError) as error:
        raise _damaged_table(path, error) from None
    return _parsed(path, columns, content)


def _read(folder: Path, name: str) -> bytes:
    return atomic.read(folder / name)


def _parsed(path: Path, columns: Sequence[str], content: bytes) -> pd.DataFrame:
    """A table with all of `columns`, parsed from the content of its file; numbers are exact to the last bit."""
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        elif not content.endswith(b"\n"):
            raise ValueError("its last line is truncated")
        table = pd.read_csv(io.BytesIO(content), dtype=TYPES, low_memory=False, **EXACT)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged_table(path, error) from None
    if missing := [name for name in columns if name not in table and name != REACHED]:
        raise _damaged_table(path, f"it has no column {', '.join(missing)}")
    for name, column in table.items():
        if name in columns and name not in TYPES and len(table) and (fault := _fault(str(name), column)):
            raise _damaged_table(path, f"column {name} {fault}")
    of_a_row = [*PLACE, *({"iteration"} & {*columns})]
    if (twice := table.duplicated(of_a_row)).any():
        place = ", ".join(f"{name} {value}" for name, value in table.loc[twice, of_a_row].iloc[0].items())
        raise _damaged_table(path, f"it has {place} twice")
    if not len(table):  # pandas cannot infer its types
        table = table.astype({name: int if name in PLACE else float for name in columns if name not in TYPES})
    return table.fillna({name: "" for name in TEXTS if name in columns})


def _fault(name: str, column: pd.Series) -> str | None:
    """Describe what is wrong with a column of numbers: places are integers, and some columns have no blanks."""
    if not pd.api.types.is_numeric_dtype(column):
        return "holds a value that is not a number"
    if name in PLACE and not pd.api.types.is_integer_dtype(column):
        return "holds a value that is not an integer"
    return "has blanks" if name in ("density", "weights") and bool(column.isna().any()) else None


def _damaged_table(path: Path, error: object) -> UsageError:
    if finished(path.parent):
        cure = f"delete it, and `lth report {layout.quoted(path.parent)}` makes it again from the trainings"
    else:
        cure = f"its folder holds no trainings to make it again from: {WHOLE_COPY}"
    return Damaged(path, str(error), cure)
