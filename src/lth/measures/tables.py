"""The tables of measures: computed by name and stored as RUN/measures/NAME.csv."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lth.config import nearest
from lth.config.registry import MEASURES, Measure
from lth.errors import Damaged, UsageError
from lth.results.records import Records
from lth.results.tables import EXACT
from lth.storage import layout, manifest, runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXTS = ("ticket", "layer", "shape")  # text columns that may look like numbers


def compute(name: str, folder: Path, **options: Any) -> Path | None:
    """Compute the missing rows of a measure's table. Returns its path, or None if it has no rows.

    Raises UsageError for an unknown measure or option, or naming a missing or damaged file.
    """
    entry = measure(name)
    if unknown := [option for option in options if option not in entry.options]:
        hint = nearest(unknown[0], entry.options)
        raise UsageError(f"{name} has no option {unknown[0]!r}{hint}; it takes {', '.join(entry.options)}")
    stored = read(name, folder)
    table = entry.load()(folder, runs.read_experiment(folder), stored, **options)
    path = layout.measure_path(folder, name)
    if len(table) and (not path.exists() or stored is None or not table.equals(stored)):
        write(name, folder, table)
    return path if path.exists() else None


def measure(name: str) -> Measure:
    """The registry entry of a measure. Raises UsageError if it is unknown."""
    if name not in MEASURES:
        raise UsageError(f"there is no measure {name!r}{nearest(name, MEASURES)}; lth list measures")
    return MEASURES[name]


def read(name: str, folder: Path) -> pd.DataFrame | None:
    """The stored table of a measure; None if it does not exist. Raises UsageError if it is damaged."""
    paths = (layout.measure_path(folder, name), layout.first_measure_path(folder, name))
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None
    try:
        content = manifest.read_table(folder, path.relative_to(folder).as_posix())
        return pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, **EXACT)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None


def write(name: str, folder: Path, table: pd.DataFrame) -> None:
    """Replace the stored table of a measure."""
    path = layout.measure_path(folder, name).relative_to(folder).as_posix()
    manifest.write_table(folder, path, table.to_csv(index=False, lineterminator="\n").encode())


def damaged(path: Path, fault: object) -> UsageError:
    """The error of a damaged table."""
    return Damaged(
        path, str(fault), "delete it to have it written again from the trainings; without trainings, copy it again"
    )


def joined(stored: pd.DataFrame | None, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A stored table with new rows, sorted by level and trial."""
    new = pd.DataFrame(rows, columns=[*columns])
    parts = [table for table in (stored, new) if table is not None and len(table)]
    table = pd.concat(parts) if parts else new
    return table.sort_values(["level", "trial"], kind="stable", ignore_index=True)


def check_columns(table: pd.DataFrame, name: str, folder: Path, columns: Sequence[str]) -> None:
    """Raise UsageError if a stored table has other columns."""
    if list(table.columns) != [*columns]:
        raise damaged(layout.measure_path(folder, name), "it has other columns")


def figures(run: Records, width: float | None = None) -> dict[str, Figure]:
    """The figures of all measures of a run by file name, without measures that have no table."""
    return dict(_figures(run, width))


def _figures(run: Records, width: float | None) -> Iterator[tuple[str, Figure]]:
    for name, entry in MEASURES.items():
        if entry.draw and (table := read(name, run.folder)) is not None and len(table):
            yield from Measure("", entry.draw).load()(run, width).items()
