"""A run's folder: what is done, and how files get there. Knows bytes and names, no tensors.

A training's folder exists whole or not at all: written beside, then renamed. What begins with a dot is unfinished.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lth.config import Experiment, merge, resolve, to_toml
from lth.errors import LthError, UsageError

EXPERIMENT, ENVIRONMENT, SUMMARY = "experiment.toml", "environment.json", "summary.json"
STATUSES = ("done", "diverged", "collapsed")
LOCK_SECONDS = 1.0
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# ------------------------------------------------------------------------------------------------------------- the run


def joined(folder: Path, experiment: Experiment) -> Experiment:
    """The experiment that the run's folder will hold with `experiment` in it. Writes nothing.

    Raises UsageError where the folder is something else, or holds another experiment.
    """
    path = folder / EXPERIMENT
    try:
        if path.exists():
            return merge(resolve(path), experiment)
        if folder.exists() and any(not f.name.startswith(".") for f in folder.iterdir()):
            raise UsageError(f"it holds files but no {EXPERIMENT}: it is no run")
    except UsageError as error:
        raise UsageError(f"{folder}: {error}\ngive another --out") from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be a run's folder: {error.strerror}; give another --out") from None
    return experiment


def open_run(folder: Path, experiment: Experiment) -> Experiment:
    """Begin the run in its folder, which is locked, or extend the one there; the experiment that it now holds."""
    experiment = joined(folder, experiment)
    text = to_toml(experiment).encode()
    path = folder / EXPERIMENT
    if not path.exists() or path.read_bytes() != text:
        write_file(path, text)
    return experiment


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Make the run's folder if need be, and hold it against other processes; a dead owner holds nothing."""
    make_folder(folder)
    with failures_named(folder / ".lock"):
        handle = (folder / ".lock").open("w")
    with handle:
        try:
            patience = time.monotonic() + LOCK_SECONDS
            while not (held := _held(handle)) and time.monotonic() < patience:
                time.sleep(0.013)  # it may be `in_use`, asking for a moment
        except OSError as error:
            raise LthError(f"{folder} cannot be locked: {error.strerror}; give an --out on another disk") from None
        if not held:
            raise UsageError(f"{folder} is in use by another lth; wait for it, or give another --out")
        yield


def make_folder(folder: Path) -> None:
    """A folder that can be written. Raises UsageError where there can be none, LthError where the disk fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        kind = LthError if error.errno in FULL | {errno.EIO} else UsageError
        raise kind(f"{folder} cannot be written: {error.strerror}; give another --out") from None


def _held(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def in_use(folder: Path) -> bool:
    """Whether a process holds the run's folder."""
    try:
        with (folder / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_json(path: Path, instead: str = "copy it again, or give another --out") -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; {instead}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged: {error}; {instead}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: it holds no JSON object; {instead}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_file(path, json_bytes(value))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


# ------------------------------------------------------------------------------------------------------------ trainings


def is_done(folder: Path, training_id: str) -> bool:
    return (folder / training_id / SUMMARY).exists()


def outcome(folder: Path, training_id: str) -> dict[str, Any] | None:
    """The summary of a stored training; None where it is not done."""
    path = folder / training_id / SUMMARY
    again = f"remove {path.parent} to train it again"
    summary = read_json(path, again)
    if summary is not None and summary.get("status") not in STATUSES:
        raise UsageError(f"{path} is damaged: it has no status; {again}")
    return summary


def status(folder: Path, training_id: str) -> str | None:
    """How a stored training ended, one of STATUSES; None where it is not done."""
    summary = outcome(folder, training_id)
    return summary["status"] if summary else None


def write_training(folder: Path, training_id: str, files: Mapping[str, bytes]) -> None:
    """Store a training: all files or, where that fails, none. Its checkpoint goes."""
    target = folder / training_id
    beside = target.parent / f".{target.name}.{os.getpid()}.unfinished"
    with failures_named(beside):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, content in files.items():
            _write_synced(beside / name, content)
        beside.rename(target)
    checkpoint_path(folder, training_id).unlink(missing_ok=True)


def read_file(folder: Path, name: str) -> bytes:
    """A stored file's bytes; raises LthError naming it where it is missing or cannot be read."""
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        again = "remove its folder to train it again"
        raise LthError(f"{folder / name} cannot be read: {error.strerror}; {again}") from None


def read_if_there(path: Path) -> bytes | None:
    """A file's bytes; None where there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def checkpoint_path(folder: Path, training_id: str) -> Path:
    target = folder / training_id
    return target.parent / f".{target.name}.checkpoint"


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes left half written; checkpoints stay, but for those of finished trainings."""
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            if name.startswith(".") and name.endswith(".unfinished"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            elif path.suffix == ".checkpoint" and is_done(Path(parent), path.stem.removeprefix(".")):
                path.unlink(missing_ok=True)  # killed between storing the training and removing this


# ---------------------------------------------------------------------------------------------------------------- files


def write_file(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader, or a crash, sees the old one or the new one."""
    beside = path.parent / f".{path.name}.{os.getpid()}.unfinished"
    with failures_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_synced(beside, content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


@contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """Turn a failing disk into one clear line: what could not be written, and that nothing stored is lost."""
    try:
        yield
    except OSError as error:
        mend = "make room" if error.errno in FULL else "mend that"
        raise LthError(
            f"{path} could not be written: {error.strerror}. What is stored is whole; "
            f"{mend} and run the same command again to go on"
        ) from None
