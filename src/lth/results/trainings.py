"""The finished trainings of a run's folder, and the text that their files contribute to the tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lth.errors import Damaged, UsageError
from lth.results.records import EVALUATION, Place
from lth.results.statistics import branch_order
from lth.storage import atomic, checksums, layout, outcomes


def finished(folder: Path) -> dict[Place, Path]:
    """The finished trainings of a run and their folders."""
    return dict(each_training(folder))


def each_training(folder: Path) -> Iterator[tuple[Place, Path]]:
    """Yield the finished trainings and their folders in the order of rows. Names with a leading dot are unfinished."""
    for trial, trial_folder in _numbered(folder, "trial"):
        for level, level_folder in _numbered(trial_folder, "level"):
            names = [path.parent.name for path in level_folder.glob(f"*/{layout.SUMMARY}")]
            branches = sorted((name for name in names if re.match("[a-z]", name)), key=branch_order)
            if (level_folder / layout.SUMMARY).exists():
                yield Place(trial, level, "ticket"), level_folder
            for name in branches:
                yield Place(trial, level, name), level_folder / name


def _numbered(folder: Path, word: str) -> list[tuple[int, Path]]:
    """Folders such as level-07, by number."""
    matches = ((re.fullmatch(rf"{word}-(\d+)", path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match and path.is_dir())


def row_of(folder: Path, place: Place, digest: str | None) -> dict[str, Any]:
    """The summary of one training, with numbers as its file has them; its place follows from its folder."""
    path = folder / layout.SUMMARY
    try:
        content = atomic.read(path)
        row = json.loads(content, parse_float=str, parse_int=str, parse_constant=str)
        fault = checksums.text_fault(content)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(row, dict):
        raise _damaged(path, "it is not a JSON object")
    if fault or row.get("training", digest) != digest:
        raise _damaged(path, fault or "it belongs to another training or another run")
    return row | place._asdict()


def evaluations_of(path: Path, prefix: str, summary: dict[str, Any]) -> str:
    """The evaluations of one training by iteration, each preceded by `prefix`."""
    try:
        content = atomic.read(path)
        if fault := outcomes.file_fault(content, summary, path.name):
            raise ValueError(fault)
        if path.name in outcomes.digests_in(summary):  # unchanged, because the lines are in order and numerous
            _, _, body = content.decode().partition("\n")
            return prefix + body[:-1].replace("\n", f"\n{prefix}") + "\n" if body else ""
        header, *lines = content.decode().splitlines()
        if header != ",".join(EVALUATION) or any(line.count(",") != len(EVALUATION) - 1 for line in lines):
            raise ValueError(f"each line has {', '.join(EVALUATION)}")
        lines.sort(key=lambda line: int(line.partition(",")[0]))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    return "".join(f"{prefix}{line}\n" for line in lines)


def _damaged(path: Path, error: object) -> UsageError:
    error = error.strerror if isinstance(error, OSError) else error
    return Damaged(path, str(error), layout.mended_by(layout.run_of(path)))
