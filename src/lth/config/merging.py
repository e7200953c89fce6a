"""Merge a stored experiment with a requested one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lth.config.experiment import Experiment, identity
from lth.config.fields import plain
from lth.config.problems import validated
from lth.config.toml import literal
from lth.errors import UsageError


def merge(stored: Experiment, asked: Experiment) -> Experiment:
    """The stored experiment with the trials, levels and branches that `asked` adds.

    Raises UsageError naming all other differences.
    """
    paths = {*stored.files} & {*asked.files}  # a new branch may bring another file
    old_files, new_files = ({"files": {path: e.files[path] for path in paths}} for e in (stored, asked))
    old, new = identity(stored), identity(asked)
    if not (stored.data.classes and asked.data.classes):  # recorded; the stored value counts
        old["data"].pop("classes", None)
        new["data"].pop("classes", None)
    differences = [*_differences(old, new), *_differences(old_files, new_files)]
    branches = {b.name: b for b in stored.branch}
    for branch in asked.branch:
        old = branches.get(branch.name, branch)
        if old.model_copy(update={"count": 1, "levels": None}) != branch.model_copy(
            update={"count": 1, "levels": None}
        ):
            differences.append(f"branch {branch.name}: {literal(plain(old))} there, {literal(plain(branch))} here")
        everywhere = old.levels is None or branch.levels is None
        levels = None if everywhere else tuple(sorted({*(old.levels or ()), *(branch.levels or ())}))
        branches[branch.name] = old.model_copy(update={"count": max(old.count, branch.count), "levels": levels})
    if differences:
        raise UsageError("it holds another experiment:\n" + "\n".join(differences))
    return validated(
        stored.model_dump()
        | {
            "trials": max(stored.trials, asked.trials),
            "levels": max(stored.levels, asked.levels),
            "files": stored.files | asked.files,
            "branch": [branch.model_dump() for branch in branches.values()],
            "store": asked.store.model_dump(),
            "prune": max(stored.prune, asked.prune, key=lambda p: len(p.rates) + len(p.densities)).model_dump(),
        }
    )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif prefix + key in ("prune.rates", "prune.densities") and a and b and a[: len(b)] == b[: len(a)]:
            continue  # one experiment has more levels than the other
        elif a != b:
            show = lambda v: "nothing" if v is None else literal(v)
            yield f"{prefix}{key}: {show(a)} there, {show(b)} here"
