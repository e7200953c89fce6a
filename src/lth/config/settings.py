"""Parse and format settings as they are typed: `key=value`, and branches as `reinit:3,random-mask:1`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from lth.config.keys import keys
from lth.config.names import nearest_key, shown
from lth.config.registry import DATASETS
from lth.config.toml import literal, loads
from lth.errors import UsageError

Setting = str | tuple[str, Any]  # "key=value", or a key and its value
UNSET = "none"  # the value that removes a key from the experiment, so that its default applies
TEXTS = {"name", "about"}  # keys whose text may be "none"


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value`. The value is parsed as TOML, or taken as a string if it is not valid TOML."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise UsageError(f"{shown(text)} is not a setting: write key=value, such as recipe.lr=0.001")
    try:
        tables = loads(f"value = {value}")
    except ValueError:
        return key, value
    return key, tables["value"] if len(tables) == 1 else value


def to_setting(key: str, value: Any) -> str:
    """The `key=value` that `parse_override` accepts."""
    if value is None:
        return f"{key}={UNSET}"
    plain = f"{key}={value}"
    return plain if parse_override(plain) == (key, value) else f"{key}={literal(value)}"


def as_settings(experiment: BaseModel, prefix: str = "") -> dict[str, str]:
    """Each key of an experiment and its TOML value; the keys of a branch contain its name."""
    texts: dict[str, str] = {}
    for name in type(experiment).model_fields:
        value = getattr(experiment, name)
        if isinstance(value, BaseModel):
            texts |= as_settings(value, f"{prefix}{name}.")
        elif name == "branch":
            for branch in value:
                of_branch = as_settings(branch, f"branch.{branch.name}.")
                texts |= {key: text for key, text in of_branch.items() if not key.endswith(".name")}
        elif value is not None:
            texts[prefix + name] = to_setting("x", value).removeprefix("x=")
    return texts


def key_of(setting: Setting) -> str:
    return setting.partition("=")[0].strip() if isinstance(setting, str) else setting[0]


def apply(tables: dict[str, Any], setting: Setting) -> list[str]:
    """Write one setting into the tables of an experiment. Returns what is wrong with it."""
    known = keys()
    try:
        key, value = parse_override(setting) if isinstance(setting, str) else setting
    except UsageError as error:
        return [str(error)]
    if key == "scale":
        return ["scale is a record of what was done: use --scale S"]
    if key not in known:
        return [_unknown(key, value, tables, known)]
    unset = value is None or (isinstance(value, str) and value == UNSET and key not in TEXTS)
    if not put(tables, key, None if unset else value):
        return [f"{key} cannot be set: {key.rpartition('.')[0]} is not a table"]
    return []


def _unknown(key: Any, value: Any, tables: Mapping[str, Any], known: Iterable[str]) -> str:
    if key in ("recipe.epochs", "epochs"):
        return f"unknown key {key}: {_iterations(value, tables)}"
    return f"unknown key {shown(key)}{nearest_key(str(key), known)} (see `lth show lenet`)"


def _iterations(epochs: Any, tables: Mapping[str, Any]) -> str:
    """The setting to type instead of a number of epochs."""
    rule = "the length of a training is a number of iterations: recipe.iterations=N"
    try:
        data, batch = tables.get("data", {}), tables["recipe"]["batch"]
        examples = DATASETS[data.get("name", "mnist")].examples - data.get("validation", 5000)
        count = max(1, round(epochs * examples / batch))
    except (KeyError, TypeError, AttributeError, ArithmeticError, ValueError):  # other data, or invalid values
        return f"{rule}; one epoch is the number of training examples / recipe.batch"
    return f"{rule}; {epochs} epochs of {examples:,} examples in batches of {batch} are recipe.iterations={count}"


def put(tables: dict[str, Any], key: str, value: Any) -> bool:
    """Set a dotted key, or remove it if the value is None. Returns False if a value stands where a table is needed."""
    *path, name = key.split(".")
    for part in path:
        tables = tables.setdefault(part, {})
        if not isinstance(tables, dict):
            return False
    if value is None:
        tables.pop(name, None)
    else:
        tables[name] = value
    return True


def parse_branches(text: str, preset: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Parse `reinit:3,random-mask:1`. A branch that the preset has keeps its other options."""
    options = {b.get("name"): dict(b) for b in preset}
    branches = []
    for part in (part.strip() for part in text.split(",") if text.strip()):
        name, colon, count = part.partition(":")
        if not name or (colon and not re.fullmatch("[0-9]{1,9}", count)):
            raise UsageError(f"--branches takes NAME:COUNT,..., such as reinit:3,random-mask:1; not {shown(part)}")
        branches.append(options.get(name, {"name": name}) | {"count": int(count or 1)})
    return branches
