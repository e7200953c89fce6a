"""Values that follow an overridden key.

Some values make sense only with others, such as a momentum with an optimizer, or drops before the last iteration. If
the user overrides a key, the values that depend on it and that the user did not type take the nearest valid value or
their default. So only values that the user typed can contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lth.config.data import is_path
from lth.config.experiment import Experiment
from lth.config.keys import fields
from lth.config.model import Model
from lth.config.problems import refused_keys
from lth.config.registry import PRUNED
from lth.config.settings import put
from lth.config.toml import deep_copy, literal

LADDERS = ("prune.rates", "prune.densities")
RECORDS = {"model.sha256", "ticket_sha256", "data.classes"}  # not reported in a note


@dataclass(frozen=True)
class Change:
    """The tables of an experiment before and after the user's overrides."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]

    def old(self, key: str) -> Any:
        return value_of(self.before, key)

    def new(self, key: str) -> Any:
        return value_of(self.after, key)

    @cached_property
    def refused(self) -> set[str]:
        """The keys whose values the schema refuses after the overrides."""
        return refused_keys(self.after)


Follow = Callable[[str, Any, Change], Any]  # (key, its value, change) -> its new value; None for the default


@dataclass(frozen=True)
class Dependent:
    """A key whose value follows the keys that it depends on."""

    key: str
    on: tuple[str, ...]
    follow: Follow


def default(key: str, value: Any, change: Change) -> Any:
    return None


def unless_refused(key: str, value: Any, change: Change) -> Any:
    return None if key in change.refused else value


def nearest_multiple(key: str, value: Any, change: Change) -> Any:
    """test_every: equal to eval_every if it was before, else the nearest multiple of it."""
    old, new = change.old("recipe.eval_every"), change.new("recipe.eval_every")
    if value is None or "recipe.eval_every" in change.refused:
        return value
    return new if value == old else max(1, round(value / new)) * new


def before_the_end(key: str, value: Any, change: Change) -> Any:
    """The iterations before the last update of a training."""
    return value and [n for n in value if n < change.new("recipe.iterations")]


def until_the_end(key: str, value: Any, change: Change) -> Any:
    return [n for n in value if n <= change.new("recipe.iterations")]


def within_the_training(key: str, value: Any, change: Change) -> Any:
    return value if value <= change.new("recipe.iterations") else None


def of_own_data(key: str, value: Any, change: Change) -> Any:
    """data.task: the known datasets have one task."""
    return value if is_path(str(change.new("data.name"))) else None


def output_factor(key: str, value: Any, change: Change) -> Any:
    """The default if the value is refused, or if the output layer was not pruned before but is now."""
    old, new = (groups or PRUNED for groups in (change.old("prune.groups"), change.new("prune.groups")))
    left_whole = value == 0 and "output" not in old and "output" in new
    return None if left_whole else unless_refused(key, value, change)


def without_the_other(key: str, value: Any, change: Change) -> Any:
    """prune.rates together with prune.densities: the typed one applies."""
    other = {"prune.rates": "prune.densities", "prune.densities": "prune.rates"}[key]
    return None if change.new(other) else value


def per_level(key: str, value: Any, change: Change) -> Any:
    """The rates of oneshot refer to the whole network, those of other strategies to the previous level."""
    return None if "oneshot" in (change.old("strategy"), change.new("strategy")) else value


def as_long_as_the_ladder(key: str, value: Any, change: Change) -> Any:
    return min([value, *(len(ladder) for k in LADDERS if (ladder := change.new(k)))])


DEPENDENTS = (
    Dependent("data.task", ("data.name",), of_own_data),
    Dependent("data.mean", ("data.name",), default),
    Dependent("data.std", ("data.name",), default),
    Dependent("data.size", ("data.name",), default),
    Dependent("data.classes", ("data.name", "data.task"), default),
    *(Dependent(f"model.{name}", ("model.name",), default) for name in Model.model_fields if name != "name"),
    Dependent("ticket_sha256", ("ticket",), default),
    Dependent("recipe.momentum", ("recipe.optimizer",), unless_refused),
    Dependent("recipe.test_every", ("recipe.eval_every",), nearest_multiple),
    Dependent("recipe.warmup", ("recipe.iterations",), within_the_training),
    Dependent("recipe.drops", ("recipe.schedule",), unless_refused),
    Dependent("recipe.drops", ("recipe.iterations",), before_the_end),
    Dependent("recipe.report_at", ("recipe.iterations",), until_the_end),
    Dependent("prune.conv_rate", ("prune.scope", "prune.groups", "prune.rate"), unless_refused),
    Dependent("prune.output_factor", ("prune.scope", "prune.groups"), output_factor),
    Dependent("prune.rates", ("strategy",), per_level),
    Dependent("prune.rates", ("prune.densities",), without_the_other),
    Dependent("prune.densities", ("prune.rates",), without_the_other),
    Dependent("levels", LADDERS, as_long_as_the_ladder),
)


def follow(before: Mapping[str, Any], tables: dict[str, Any], typed: set[str]) -> dict[str, str]:
    """Update `tables`, which contain the overrides. Returns dependent key -> the typed key that it follows."""
    change = Change(before, deep_copy(tables))
    followed: dict[str, str] = {}
    for dependent in DEPENDENTS:
        causes = [key for key in dependent.on if key in typed and change.old(key) != change.new(key)]
        if dependent.key in typed or not causes:
            continue
        value = value_in(tables, dependent.key)
        with suppress(TypeError, ValueError, ArithmeticError):  # a value of the wrong type, which the schema refuses
            if (new := dependent.follow(dependent.key, value, change)) != value:
                put(tables, dependent.key, new)
                followed[dependent.key] = causes[0]
    return followed


def format_notes(
    before: Mapping[str, Any], experiment: Experiment, followed: Mapping[str, str], typed: set[str]
) -> list[str]:
    """One line per typed key that other values have followed: their old and new values.

    The line for a new optimizer adds that the learning rate stays, because one chosen for another optimizer is rarely
    suitable.
    """
    notes: dict[str, list[str]] = {}
    for key, cause in followed.items():
        old, new = value_in(before, key), of_experiment(experiment, key)
        if key not in RECORDS and old not in (None, [], ()) and literal(old) != literal(new):
            change = f"= {_short(old)} is left out" if new in (None, ()) else f"is {_short(new)}, was {_short(old)}"
            notes.setdefault(cause, []).append(f"{key} {change}")
    optimizer = value_of(before, "recipe.optimizer")
    if experiment.recipe.optimizer != optimizer and "recipe.lr" not in typed:
        note = f"recipe.lr stays {experiment.recipe.lr}, which was chosen for {optimizer}"
        notes.setdefault("recipe.optimizer", []).append(note)
    return [f"{cause} = {_short(of_experiment(experiment, cause))}: {'; '.join(n)}" for cause, n in notes.items()]


def _short(value: Any) -> str:
    text = literal(value)
    return text if len(text) <= 60 else f"{text[:50]}...{text[-7:]}"


def value_in(tables: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    for part in key.split("."):
        tables = tables.get(part) if isinstance(tables, Mapping) else None
    return tables


def value_of(tables: Any, key: str) -> Any:
    """The value of a dotted key, or its default."""
    value = value_in(tables, key)
    return fields()[key].get_default(call_default_factory=True) if value is None else value


def of_experiment(experiment: Experiment, key: str) -> Any:
    value: Any = experiment
    for part in key.split("."):
        value = getattr(value, part)
    return value
