"""Paths stay inside a run's folder: nothing below it may be a link, a pipe or a device; it may be a link itself.

The files of a run are opened without following links too (`lth.storage.atomic`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lth.errors import UsageError
from lth.storage import layout


def refuse_links(folder: Path) -> None:
    """Raise UsageError where something below a run's folder is neither a file nor a folder. Reads names alone."""
    for entry in _strange(str(folder)):
        what = (
            "a link, which may lead out of the run's folder" if entry.is_symlink() else "no file, but a pipe or device"
        )
        raise UsageError(f"{entry.path} is {what}; put the file or folder itself there, or remove it")


def _strange(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # it is not there, or may not be read: whoever reads it says so
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != layout.JOBS:  # submitit's own
                yield from _strange(entry.path)
        elif not entry.is_file(follow_symlinks=False):
            yield entry
