"""The content of environment.json: enough to repeat the run, without names of machine and user. No torch here."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth.config import Experiment
from lth.errors import UsageError
from lth.training import processor

if TYPE_CHECKING:
    from lth.data import Data

PACKAGES = ("lth", "torch", "numpy", "safetensors", "pandas", "matplotlib")


def environment(resources: Mapping[str, Any], experiment: Experiment, command: str) -> dict[str, Any]:
    """The object in environment.json, without the facts about the data."""
    return {
        "means": dict(resources),
        "experiment": experiment.digest(0),
        "command": command,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor.name(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
    }


def data_facts(data: Data) -> dict[str, Any]:
    """Facts about the data that are not in the tables: the score of a constant answer, test examples, a checksum."""
    from lth.data import digest

    return {
        "chance": _chance(data),
        "test_examples": len(data.test_y),
        "sha256": digest(data),
    }


def _chance(data: Data) -> float:
    """The accuracy of the test set's most frequent class; in regression, the loss of the training targets' mean."""
    if data.test_y.dtype.kind == "f":
        mean = data.train_y.mean(0, dtype="float64")
        return float(((data.test_y - mean) ** 2).mean())
    return max(Counter(data.test_y.tolist()).values()) / len(data.test_y)


def check_same_data(
    facts: Mapping[str, Any], stored: Mapping[str, Any] | None, experiment: Experiment, folder: Path
) -> None:
    """Raise UsageError if the run was begun with other examples: the content of a path may have changed."""
    before = (stored or {}).get("data")
    known = before.get("sha256") if isinstance(before, Mapping) else None
    if known not in (None, facts["sha256"]):
        raise UsageError(
            f"data.name: {experiment.data.name} no longer has the examples with which {folder} was begun; "
            "restore them, or give another --out"
        )
