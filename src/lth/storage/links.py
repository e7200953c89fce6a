"""Refuse links, pipes and devices inside a run's folder, so that paths stay inside it. The folder itself may be a link.

`lth.storage.atomic` opens the files of a run without following links, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lth.errors import UsageError
from lth.storage import layout


def refuse_links(folder: Path) -> None:
    """Raise UsageError if anything below a run's folder is neither a file nor a folder.

    Reads directory entries only.
    """
    for entry in _strange(str(folder)):
        what = "a link, which may lead out of the run's folder" if entry.is_symlink() else "a pipe or device"
        raise UsageError(f"{entry.path} is {what}; put the file or folder itself there, or remove it")


def _strange(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # missing or unreadable: reported by whoever reads it
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != layout.JOBS:  # created by submitit
                yield from _strange(entry.path)
        elif not entry.is_file(follow_symlinks=False):
            yield entry
