"""From a preset's name or a file, with settings from the command line, to a complete experiment; and two to one."""

from __future__ import annotations

import hashlib
import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lth.config.fields import MOST_SCALE
from lth.config.names import nearest_key, shown
from lth.config.schema import Data, Experiment, Model, identity, keys, plain, takes_list, validated
from lth.config.toml import deep_copy, literal, read
from lth.errors import UsageError

MOST_MEMBERS = 1000  # of a sweep
# What belongs to the dataset or the network that is named, and not to another that is named in its place.
OF_THE_NAMED = {"data": {"mean", "std"}, "model": {*Model.model_fields}}


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is read as TOML, and as a plain string where it is none."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise UsageError(f"{shown(text)} is no setting: write key=value, such as recipe.lr=0.001")
    try:
        tables = deep_copy(tomllib.loads(f"value = {value}"))
    except (ValueError, RecursionError):
        return key, value
    return key, tables["value"] if len(tables) == 1 else value


def to_setting(key: str, value: Any) -> str:
    """The `key=value` that `parse_override` takes back."""
    plain = f"{key}={value}"
    return plain if parse_override(plain) == (key, value) else f"{key}={literal(value)}"


def sweep(settings: Mapping[str, Any] | Iterable[str]) -> list[dict[str, Any]]:
    """The settings of each run that lists stand for: recipe.lr=[0.0008,0.0012] makes two, two such lists all pairs.

    A key whose own value is a list, such as model.layers, takes a list of lists. Without such a list there is one run.
    """
    pairs = dict(settings.items() if isinstance(settings, Mapping) else map(parse_override, settings))
    choices = {key: value if _several(key, value) else [value] for key, value in pairs.items()}
    if wrong := [key for key, values in choices.items() if not values or not _each_once(values)]:
        raise UsageError("\n".join(f"{key} takes a list of different values; not {shown(pairs[key])}" for key in wrong))
    members = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    if len(members) > MOST_MEMBERS:
        raise UsageError(f"a sweep of {len(members):,} runs is more than {MOST_MEMBERS:,}; give shorter lists")
    return members


def _several(key: str, value: Any) -> bool:
    if key not in keys() or not isinstance(value, list | tuple):
        return False
    return not takes_list(key) or (key != "branch" and all(isinstance(v, list | tuple) for v in value) and bool(value))


def _each_once(values: Iterable[Any]) -> bool:
    texts = [repr(value) for value in values]
    return len({*texts}) == len(texts)


def member_name(preset: str, settings: Mapping[str, Any]) -> str:
    """What to call a preset with something changed, also its folder: lenet-lr0.0008, lenet-layers25x9, conv2-sgd."""
    return "-".join([preset, *(_short(key.rpartition(".")[2], value) for key, value in settings.items())])


def _short(key: str, value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple):
        text = key + "x".join(map(str, value))
    else:
        text = f"{key}{value}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")


def parse_branches(text: str, preset: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Read `reinit:3,random-mask:1`; a branch that the preset has keeps its other options."""
    options = {b.get("name"): dict(b) for b in preset}
    branches = []
    for part in (part.strip() for part in text.split(",") if text.strip()):
        name, colon, count = part.partition(":")
        if not name or (colon and not re.fullmatch("[0-9]{1,9}", count)):
            raise UsageError(f"--branches takes NAME:COUNT,..., such as reinit:3,random-mask:1; not {shown(part)}")
        branches.append(options.get(name, {"name": name}) | {"count": int(count or 1)})
    return branches


def resolve(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    trials: int | None = None,
    levels: int | None = None,
    branches: str | None = None,
    scale: float | None = None,
) -> Experiment:
    """A preset's name, a TOML file or its tables, with overrides, as a complete experiment.

    Raises UsageError naming every problem at once.
    """
    tables = deep_copy(source if isinstance(source, Mapping) else read(source))
    problems: list[str] = []
    experiment = None
    settings = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
    for setting in sorted(settings, key=lambda s: not _names_another(s)):  # which clears what the others may set
        problems += _override(tables, setting)
    given = tables.get("branch", [])
    if branches is not None and isinstance(given, list) and all(isinstance(b, Mapping) for b in given):
        try:
            tables["branch"] = parse_branches(branches, given)
        except UsageError as error:
            problems.append(str(error))
    tables |= {k: v for k, v in {"trials": trials, "levels": levels}.items() if v is not None}
    if scale is not None and not 0 < scale <= MOST_SCALE:
        problems.append(f"--scale takes a number above 0, {MOST_SCALE} at most; not {scale}")
    try:
        experiment = validated(tables)
        problems += _idle(experiment, settings)
    except UsageError as error:
        problems.append(str(error))
    if problems or experiment is None:
        file = [f"in {source}:"] if isinstance(source, Path) else []
        raise UsageError("\n".join(file + problems))
    return experiment if scale is None else scaled(experiment, scale)


def recorded(experiment: Experiment) -> Experiment:
    """The experiment with the checksums of the files that it names, a network of one's own and a ticket.

    Raises UsageError where a file is not there, or is another than the one that was recorded.
    """
    tables = experiment.model_dump()
    own = experiment.model.name.rpartition(":")[0]
    for what, path, place, key in (
        ("model.name", own, tables["model"], "sha256"),
        ("ticket", experiment.ticket, tables, "ticket_sha256"),
    ):
        found = _checksum(what, path) if path else None
        if place[key] not in (None, found):
            raise UsageError(
                f"{what}: {path} is no longer the file that this experiment was made with, or it names none; "
                f"bring that one back, or leave out {'model.' if place is not tables else ''}{key} for a new experiment"
            )
        place[key] = found
    return validated(tables)


def _checksum(what: str, path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{what}: {path} cannot be read: {error.strerror}") from None


def _override(tables: dict[str, Any], setting: str | tuple[str, Any]) -> list[str]:
    """Put one setting into the tables; what is wrong with it."""
    known = keys()
    try:
        key, value = parse_override(setting) if isinstance(setting, str) else setting
    except UsageError as error:
        return [str(error)]
    if key == "scale":
        return ["scale is a record of what was done: use --scale S"]
    if key not in known:
        return [f"unknown key {shown(key)}{nearest_key(str(key), known)} (see `lth show lenet`)"]
    table, _, name = key.rpartition(".")
    if name == "name" and isinstance(before := tables.get(table), Mapping) and _name_in(table, before) != value:
        tables[table] = {own: given for own, given in before.items() if own not in OF_THE_NAMED[table]}
    if not _set(tables, key.split("."), value):
        return [f"{key} cannot be set: {table} is no table"]
    return []


def _idle(experiment: Experiment, settings: Iterable[str | tuple[str, Any]]) -> Iterable[str]:
    """What is wrong with settings that would do nothing."""
    given = {_key_of(setting) for setting in settings}
    for name, reason in experiment.prune.idle.items():
        if f"prune.{name}" in given:
            yield f"prune.{name}: it would do nothing: {reason}; leave it out"
    for name, several in experiment.recipe.too_late.items():
        if f"recipe.{name}" in given:
            last = f"{experiment.recipe.iterations:,}"
            yield f"recipe.{name}: {several} would do nothing: trainings end at {last}; give earlier ones, or none: []"


def _name_in(table: str, given: Mapping[str, Any]) -> Any:
    return given.get("name", {"data": Data, "model": Model}[table].model_fields["name"].default)


def _names_another(setting: str | tuple[str, Any]) -> bool:
    return _key_of(setting) in {f"{table}.name" for table in OF_THE_NAMED}


def _key_of(setting: str | tuple[str, Any]) -> str:
    return setting.partition("=")[0].strip() if isinstance(setting, str) else setting[0]


def _set(tables: dict[str, Any], path: list[str], value: Any) -> bool:
    for part in path[:-1]:
        tables = tables.setdefault(part, {})
        if not isinstance(tables, dict):
            return False
    tables[path[-1]] = value
    return True


def scaled(experiment: Experiment, scale: float) -> Experiment:
    """Multiply all that is counted in iterations, but not eval_every, by `scale`, and keep the product on record."""
    times = lambda n: max(1, round(n * scale))
    tables = experiment.model_dump()
    tables["scale"] *= scale
    tables["recipe"]["warmup"] = round(experiment.recipe.warmup * scale)
    for counted in [tables["recipe"], *(b for b in tables["branch"] if b["iterations"])]:
        counted["iterations"] = times(counted["iterations"])
    for several in ("drops", "report_at"):
        tables["recipe"][several] = [times(n) for n in tables["recipe"][several]]
    return validated(tables)


def merge(stored: Experiment, asked: Experiment) -> Experiment:
    """The stored experiment with what `asked` adds to it: trials, levels, branches.

    Raises UsageError naming what else differs.
    """
    differences = list(_differences(identity(stored), identity(asked)))
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
            continue  # one ladder goes further down than the other
        elif a != b:
            show = lambda v: "nothing" if v is None else literal(v)
            yield f"{prefix}{key}: {show(a)} there, {show(b)} here"
