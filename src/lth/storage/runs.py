"""A run's folder: its experiment and environment, and the lock that one process holds."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lth.config import Experiment, merge, resolve, to_toml
from lth.errors import Damaged, LthError, UsageError
from lth.storage import checksums, manifest
from lth.storage.atomic import failures_named, make_folder, open_plain, read, write_file
from lth.storage.documents import read_json
from lth.storage.layout import ENVIRONMENT, EXPERIMENT, LOCK, quoted
from lth.storage.links import refuse_links

LOCK_SECONDS = 1.0
SEAL_LINE = f"# {checksums.KEY}: "


def joined(folder: Path, experiment: Experiment) -> Experiment:
    """The experiment that the run's folder will hold after `experiment` is added. Writes nothing.

    Raises UsageError if the folder is not a run, or holds a different experiment.
    """
    refuse_links(folder)
    path = folder / EXPERIMENT
    try:
        if path.exists():
            return merge(read_experiment(folder), experiment)
        if folder.exists() and any(not f.name.startswith(".") for f in folder.iterdir()):
            raise UsageError(f"it holds files but no {EXPERIMENT}: it is not a run")
    except UsageError as error:
        raise UsageError(f"{folder}: {error}\ngive another --out") from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be a run's folder: {error.strerror}; give another --out") from None
    return experiment


def holds(folder: Path, experiment: Experiment) -> bool:
    """Return whether the run in `folder` has this experiment, possibly with other trials, levels or branches."""
    try:
        return (folder / EXPERIMENT).exists() and bool(joined(folder, experiment))
    except LthError:
        return False


def open_run(folder: Path, experiment: Experiment) -> Experiment:
    """Create or extend the run in a locked folder. Returns the experiment that it now holds."""
    experiment = joined(folder, experiment)
    text, path = to_toml(experiment), folder / EXPERIMENT
    if not path.exists() or read(path) != sealed_text(text):
        write_file(path, sealed_text(text))
    manifest.record(folder, experiment, text)
    return experiment


def sealed_text(text: str) -> bytes:
    """The content of experiment.toml: its checksum and the experiment."""
    return checksums.sealed(f"{SEAL_LINE}{checksums.BLANK}\n{text}".encode())


def text_of(folder: Path) -> str:
    """The text of a run's experiment.toml without its checksum."""
    text = read(folder / EXPERIMENT).decode()
    return text.partition("\n")[2] if text.startswith(SEAL_LINE) else text


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run. Raises UsageError if its file is damaged."""
    refuse_links(folder)
    path = folder / EXPERIMENT
    try:
        fault = checksums.text_fault(read(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if fault:
        cure = f"if you changed it yourself, remove its first line; otherwise `lth repair {quoted(folder)}` repairs it"
        raise Damaged(path, fault, cure)
    return resolve(path)


def read_environment(folder: Path, experiment: Experiment) -> dict[str, Any] | None:
    """The content of environment.json, or None if it does not exist. Raises UsageError if it is damaged."""
    environment = stored_environment(folder)
    if environment and environment.get("experiment", digest := experiment.digest(0)) != digest:
        raise Damaged(folder / ENVIRONMENT, "it belongs to another run", _again(folder))
    return environment


def stored_environment(folder: Path) -> dict[str, Any] | None:
    """Like `read_environment`, for any experiment."""
    return read_json(folder / ENVIRONMENT, _again(folder))


def _again(folder: Path) -> str:
    return f"`lth repair {quoted(folder)}` makes it again, or copy it again"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Create the run's folder if necessary and lock it for this process. The lock of a dead process does not count."""
    make_folder(folder)
    with failures_named(folder / LOCK):
        handle = open_plain(folder / LOCK, "ab")
    with handle:
        try:
            patience = time.monotonic() + LOCK_SECONDS
            while not (held := _held(handle)) and time.monotonic() < patience:
                time.sleep(0.013)  # another process may be checking `in_use` at this moment
        except OSError as error:
            raise LthError(f"{folder} cannot be locked: {error.strerror}; give an --out on another disk") from None
        if not held:
            raise UsageError(f"{folder} is in use by another lth process; wait for it, or give another --out")
        yield


def _held(handle: IO[bytes]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def in_use(folder: Path) -> bool:
    """Return whether a process holds the lock of the run's folder."""
    try:
        with open_plain(folder / LOCK, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
