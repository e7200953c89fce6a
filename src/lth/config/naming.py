"""The name of an experiment, which is also that of its folder, and its description in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lth.config import registry
from lth.config.data import Data, is_path
from lth.config.experiment import Experiment, identity
from lth.config.model import Model
from lth.config.problems import validated
from lth.config.settings import to_setting
from lth.config.sweeping import member_name
from lth.errors import UsageError

SAME_SCIENCE = {"seed", "scale", "ticket", "ticket_sha256", "sha256"}  # settings that do not appear in a description
MOST_SHOWN = 3  # maximum number of settings in a description
MOST_NAME = 100  # maximum number of characters


def described(before: Mapping[str, Any], experiment: Experiment, typed: set[str]) -> Experiment:
    """`experiment` with a description of what it trains and, with another model or dataset, another name.

    `before` contains the tables of the preset or file without the `typed` settings. Typed names and descriptions stay.
    """
    if not typed - SAME_SCIENCE:
        return experiment
    try:
        old = validated(dict(before))
    except UsageError:  # the file was only complete with the typed settings
        return experiment
    changed = {key: value for key, value in changes(old, experiment).items() if key in typed}
    if not changed:
        return experiment
    tables = experiment.model_dump()
    if "about" not in typed:
        tables["about"] = f"{describe(experiment)} (changed from {old.name}: {_format_changes(changed)})"
    if "name" not in typed:
        tables["name"] = _name(old, experiment, changed)
    return validated(tables)


def changes(old: Experiment, new: Experiment) -> dict[str, Any]:
    """The settings that differ and affect training: dotted key -> new value."""
    before, after = (_leaves(identity(experiment)) for experiment in (old, new))
    return {key: value for key, value in after.items() if before.get(key) != value}


def describe(experiment: Experiment) -> str:
    """`LeNet-300-100 on MNIST, iterative pruning with resetting`."""
    strategy = registry.STRATEGIES[experiment.strategy].title
    return f"{model_title(experiment.model)} on {data_title(experiment.data)}, {strategy}"


def model_title(model: Model) -> str:
    """`LeNet-300-100`, `Conv-2`, `the custom model net.py:build`."""
    if model.name not in registry.MODELS:
        return f"the custom model {model.name}"
    return registry.MODELS[model.name].title.format(layers="-".join(map(str, model.layers or ())))


def data_title(data: Data) -> str:
    """`MNIST`, `the data in ./photos`."""
    return registry.DATASETS[data.name].title if data.name in registry.DATASETS else f"the data in {data.name}"


def _name(old: Experiment, new: Experiment, changed: Mapping[str, Any]) -> str:
    """The old name, adapted to model and data: `vit-cifar10`, `conv2-cifar100`, `lenet-layers50`."""
    parts = [_stem(new.model.name) if "model.name" in changed else old.name]
    if "data.name" in changed:
        parts.append(_stem(new.data.name))
    rest = {k: v for k, v in changed.items() if k.startswith(("model.", "data.")) and not k.endswith(".name")}
    return member_name("-".join(parts), rest)[:MOST_NAME]


def _stem(name: str) -> str:
    """A folder name: `photos` for ./photos/, `my-build` for lib/my.py:build."""
    path, _, function = name.partition(".py:")
    stem = Path(path).stem if is_path(path) else path
    return member_name("", {"name": f"{stem} {function}"}).lstrip("-") or "custom"


def _format_changes(changed: Mapping[str, Any]) -> str:
    texts = [_short(to_setting(key, value)) for key, value in list(changed.items())[:MOST_SHOWN]]
    more = len(changed) - MOST_SHOWN
    return ", ".join(texts) + (f" and {more} more setting{'s' * (more > 1)}" if more > 0 else "")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:50]}...{text[-7:]}"


def _leaves(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted key -> value, without keys that do not appear in a description."""
    leaves: dict[str, Any] = {}
    for key, value in tables.items():
        if key in SAME_SCIENCE:
            continue
        leaves |= _leaves(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return leaves
