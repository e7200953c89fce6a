"""Sweeps: lists of values, each of which stands for several runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lth.config.keys import keys, takes_list
from lth.config.names import shown
from lth.config.settings import parse_override
from lth.errors import UsageError

MOST_MEMBERS = 1000  # maximum number of runs in a sweep


def sweep(settings: Mapping[str, Any] | Iterable[str]) -> list[dict[str, Any]]:
    """The settings of each run of a sweep: recipe.lr=[0.0008,0.0012] gives two, two such lists all combinations.

    A key that takes a list as its value, such as model.layers, is varied by a list of lists.
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
    """The name of a preset with changed settings, also for its folder: lenet-lr0.0008, lenet-layers25x9, conv2-sgd."""
    return "-".join([preset, *(_short(key.rpartition(".")[2], value) for key, value in settings.items())])


def _short(key: str, value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple):
        text = key + "x".join(map(str, value))
    else:
        text = f"{key}{value}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
