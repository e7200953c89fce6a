"""Resolve a preset or file, with settings from the command line, into a complete experiment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lth.config import approval, userfile
from lth.config.dependents import follow, format_notes
from lth.config.experiment import Experiment
from lth.config.fields import MOST_SCALE
from lth.config.naming import described
from lth.config.problems import validated
from lth.config.settings import Setting, apply, key_of, parse_branches
from lth.config.toml import deep_copy, read
from lth.errors import UsageError


def resolve(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    trials: int | None = None,
    levels: int | None = None,
    branches: str | None = None,
    scale: float | None = None,
) -> Experiment:
    """Resolve a preset, a TOML file or tables, with overrides, into a complete experiment.

    A value of the source that contradicts an override follows it (`lth.config.dependents`). `none` or None unsets a
    key. Raises UsageError naming all problems.
    """
    options = {"trials": trials, "levels": levels, "branches": branches, "scale": scale}
    return resolve_with_notes(source, overrides, **options)[0]


def resolve_with_notes(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    trials: int | None = None,
    levels: int | None = None,
    branches: str | None = None,
    scale: float | None = None,
) -> tuple[Experiment, list[str]]:
    """`resolve`, and one line per override that other values have followed."""
    before = deep_copy(source if isinstance(source, Mapping) else read(source))
    tables = deep_copy(before)
    settings: list[Setting] = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
    problems = [problem for setting in settings for problem in apply(tables, setting)]
    problems += _take_options(tables, {"trials": trials, "levels": levels}, branches)
    if scale is not None and not 0 < scale <= MOST_SCALE:
        problems.append(f"--scale takes a number above 0, {MOST_SCALE} at most; not {scale}")
    typed = {*map(key_of, settings), *(key for key, n in (("trials", trials), ("levels", levels)) if n is not None)}
    followed = follow(before, tables, typed)
    try:
        experiment = validated(tables)
    except UsageError as error:
        raise _refusal(source, [*problems, str(error)]) from None
    if problems := [*problems, *_idle(experiment, typed)]:
        raise _refusal(source, problems)
    notes = format_notes(before, experiment, followed, typed)
    experiment = described(before, experiment, typed)
    return experiment if scale is None else scaled(experiment, scale), notes


def _take_options(tables: dict[str, Any], counts: Mapping[str, int | None], branches: str | None) -> list[str]:
    """Write the values of options into the tables. Returns what is wrong with them."""
    tables |= {key: count for key, count in counts.items() if count is not None}
    given = tables.get("branch", [])
    if branches is not None and isinstance(given, list) and all(isinstance(b, Mapping) for b in given):
        try:
            tables["branch"] = parse_branches(branches, given)
        except UsageError as error:
            return [str(error)]
    return []


def _refusal(source: Any, problems: list[str]) -> UsageError:
    file = [f"in {source}:"] if isinstance(source, Path) else []
    return UsageError("\n".join(file + problems))


def _idle(experiment: Experiment, typed: set[str]) -> Iterator[str]:
    """The overrides that would have no effect, each with the reason."""
    for name, reason in experiment.prune.idle.items():
        if f"prune.{name}" in typed:
            yield f"prune.{name}: it would do nothing: {reason}; leave it out"
    for name, several in experiment.recipe.too_late.items():
        if f"recipe.{name}" in typed:
            last = f"{experiment.recipe.iterations:,}"
            yield f"recipe.{name}: {several} would do nothing: trainings end at {last}; give earlier ones, or none: []"


def recorded(experiment: Experiment) -> Experiment:
    """The experiment with the checksums of the ticket file and the custom functions that it names.

    Raises UsageError if a file does not exist or does not match its recorded checksum.
    """
    tables = experiment.model_dump()
    model, ticket = userfile.file_of(experiment.model.name), experiment.ticket
    tables["model"]["sha256"] = _checksum("model.name", model, "model.sha256", experiment.model.sha256)
    tables["ticket_sha256"] = _checksum("ticket", ticket, "ticket_sha256", experiment.ticket_sha256)
    tables["files"] = {
        path: _checksum(key, path, "files", experiment.files.get(path))
        for key, _, path, _ in _code(experiment)
        if key != "model.name"
    }
    return validated(tables)


def approve_typed(experiment: Experiment, source: Any, overrides: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Approve the files of a recorded experiment that the user named in settings or in tables given from Python.

    Files that only a TOML file or a ticket names are not approved. Returns lines to print.
    """
    tables = deep_copy(source) if isinstance(source, Mapping) else {}
    for setting in overrides.items() if isinstance(overrides, Mapping) else overrides:
        apply(tables, setting)
    typed = {name for _, name in _names(tables)}
    code = ((path, sha256) for _, name, path, sha256 in _code(experiment) if name in typed)
    notes = [approval.approve(approval.place(path), sha256) for path, sha256 in code if sha256]
    return list(dict.fromkeys(note for note in notes if note))


def approved_code(experiment: Experiment) -> dict[str, bytes]:
    """The files of a recorded experiment's custom functions by path, for workers elsewhere.

    Raises UsageError naming those that are not approved.
    """
    code: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    for key, _, path, sha256 in _code(experiment):
        try:
            code[path] = userfile.approved_content(key, path, sha256)
        except UsageError as error:
            problems.setdefault(path, str(error))
    if problems:
        raise UsageError("\n".join(problems.values()))
    return code


def _code(experiment: Experiment) -> Iterator[tuple[str, str, str, str | None]]:
    """Each custom function: the setting that names it, FILE.py:FUNCTION, its file, and the file's recorded checksum."""
    for key, name in _names(experiment.model_dump()):
        path = userfile.file_of(name)
        yield key, name, path, experiment.model.sha256 if key == "model.name" else experiment.files.get(path)


def _names(tables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The custom functions that tables name, each with its setting. The tables need not be valid yet."""
    of = lambda table, key: table.get(key) if isinstance(table, Mapping) else None
    names_by_setting = [
        (f"{table}.{key}", of(tables.get(table), key)) for table, key in (("model", "name"), ("prune", "score"))
    ]
    branches = tables.get("branch")
    for branch in branches if isinstance(branches, list | tuple) else ():
        names_by_setting += [(f"branch {of(branch, 'name')}: {key}", of(branch, key)) for key in ("mask", "start")]
    return ((key, name) for key, name in names_by_setting if isinstance(name, str) and userfile.is_custom(name))


def _checksum(key: str, path: str | None, record: str, before: str | None) -> str | None:
    """The checksum of the file that `key` names, if any, which must match the one in `record`, if any."""
    now = userfile.checksum(key, path) if path else None
    if before not in (None, now):
        raise UsageError(
            f"{key}: {path} has changed since this experiment was made, or is not named by it; "
            f"restore it, or leave out {record} for a new experiment"
        )
    return now


def scaled(experiment: Experiment, scale: float) -> Experiment:
    """Multiply all iteration counts except eval_every by `scale`, and record the product of scales."""
    times = lambda n: max(1, round(n * scale))
    tables = experiment.model_dump()
    tables["scale"] *= scale
    tables["recipe"]["warmup"] = round(experiment.recipe.warmup * scale)
    for counted in [tables["recipe"], *(b for b in tables["branch"] if b["iterations"])]:
        counted["iterations"] = times(counted["iterations"])
    for several in ("drops", "report_at"):
        tables["recipe"][several] = [times(n) for n in tables["recipe"][several]]
    return validated(tables)
