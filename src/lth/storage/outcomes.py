"""Stored trainings: which are done, how they ended, and their files, verified by checksum."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lth.errors import Damaged, UsageError
from lth.storage import checksums, layout
from lth.storage.atomic import failures_named, make_folders, read, rename, sync_folder, write_synced
from lth.storage.documents import read_json
from lth.storage.layout import SUMMARY, TRAINED, checkpoint_path, mended_by

STATUSES = ("done", "diverged", "collapsed")


def is_done(folder: Path, training_id: str) -> bool:
    return (folder / training_id / SUMMARY).exists()


def outcome(folder: Path, training_id: str, digest: str | None = None) -> dict[str, Any] | None:
    """The summary of a stored training; None if it is not done.

    `digest` is the training's digest in the plan (`plan.digests`), if it is known. Raises UsageError if the summary is
    damaged or belongs to another training.
    """
    path = folder / training_id / SUMMARY
    again = mended_by(folder)
    summary = read_json(path, again)
    if summary is not None and summary.get("status") not in STATUSES:
        raise Damaged(path, "it has no status", again)
    if summary and digest and summary.get("training", digest) != digest:
        raise Damaged(path, "it belongs to another training or another run", again)
    return summary


def status(folder: Path, training_id: str) -> str | None:
    """How a stored training ended, one of STATUSES; None if it is not done."""
    summary = outcome(folder, training_id)
    return summary["status"] if summary else None


def write_training(folder: Path, training_id: str, files: Mapping[str, bytes]) -> None:
    """Store all files of a training, or none if that fails, and delete its checkpoint."""
    target = folder / training_id
    beside = layout.unfinished(target)
    with failures_named(beside):
        make_folders(beside)
        for name, content in files.items():
            write_synced(beside / name, content)
        sync_folder(beside)
        if target.exists() and not is_done(folder, training_id):
            # remains of a damaged training, and the branches below it
            for name in sorted(files, key=lambda name: name == SUMMARY):  # written last: it makes the training complete
                rename(beside / name, target / name)
            beside.rmdir()
        else:
            try:
                beside.rename(target)
            except OSError:
                if not is_done(folder, training_id):
                    raise
                shutil.rmtree(beside)  # a worker of a driver that died stored it first, with the same bits
            sync_folder(target.parent)
    checkpoint = checkpoint_path(folder, training_id)
    with failures_named(checkpoint):
        checkpoint.unlink(missing_ok=True)


def read_file(folder: Path, name: str) -> bytes:
    """Read `TRAINING/FILE` and verify it against the training's summary.

    Raises UsageError with its name if it is missing, unreadable or different.
    """
    training_id, _, file = name.rpartition("/")
    path = folder / name
    try:
        content = read(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; {mended_by(folder)}") from None
    summary = outcome(folder, training_id) or {}
    if fault := file_fault(content, summary, file):
        raise Damaged(path, fault, mended_by(folder))
    return content


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """The checksums that a training's summary has of the files next to it."""
    return {name: checksums.digest(content) for name, content in sorted(files.items())}


def file_fault(content: bytes, summary: Mapping[str, Any], file: str) -> str | None:
    """Describe what is wrong with a training's file; None if it is intact or not listed in the summary."""
    recorded = digests_in(summary)
    other = file in recorded and checksums.digest(content) != recorded[file]
    return f"it does not match {SUMMARY} in the same folder" if other else None


def digests_in(summary: Mapping[str, Any], kind: str = "files") -> dict[str, str]:
    """File -> checksum, for the files next to a summary or those that the training was `made_from`."""
    recorded = summary.get(kind)
    return recorded if isinstance(recorded, dict) else {}


def has_trained(folder: Path, training_id: str) -> bool:
    return (folder / training_id / TRAINED).exists()


def drop_trained(folder: Path, training_id: str) -> None:
    """Delete a training's trained weights. They can be made again from its ticket, to the same bits."""
    with failures_named(folder / training_id / TRAINED):
        (folder / training_id / TRAINED).unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Delete partial files of killed processes, and the checkpoints of finished trainings."""
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            if layout.is_unfinished(name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            elif path.suffix == layout.CHECKPOINT and has_trained(Path(parent), layout.checkpointed(path)):
                path.unlink(missing_ok=True)  # killed between storing the training and deleting its checkpoint
