"""Which parameters of a module are pruned, and at which rate each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

from torch import nn

from lth.config import nearest, shown
from lth.errors import UsageError
from lth.models import computed, counted, norm_parameters, parameters, tied


def layer_rates(model: nn.Module, rate: float, rates: Mapping[str, float]) -> dict[str, float]:
    """The rate of each counted parameter, in the model's order; 0 for those that are never pruned.

    A parameter that is not counted by itself becomes one where a pattern is its full name. Raises UsageError naming
    every invalid rate and every pattern that matches nothing.
    """
    _check_values(model)
    aliases = _aliases(model, rates)
    wrong = [*_wrong_rates(rate, rates), *_wrong_patterns(model, rates, aliases), *_computed_weights(model, rates)]
    if not aliases:
        wrong.append(f"{type(model).__name__} has no weights to prune: no parameter of two dimensions or more")
    if wrong:
        raise UsageError("\n".join(wrong))
    return {
        name: float(next((r for pattern, r in rates.items() if _matches(pattern, names)), rate))
        for name, names in aliases.items()
    }


def _check_values(model: nn.Module) -> None:
    """Raise UsageError for parameters that have no shape or no values yet."""
    for name, parameter in parameters(model).items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise UsageError(f"{name} has no shape yet: call the model on a batch first")
        if parameter.is_meta:
            raise UsageError(f"{name} has no values: it is on the meta device; model.to_empty(...) and initialise it")


def _aliases(model: nn.Module, rates: Mapping[str, float]) -> dict[str, list[str]]:
    """The prunable parameters, each with all its names: more than one where it is tied."""
    ties, by_itself = tied(model), counted(model)
    names = [name for name in parameters(model) if name not in ties and (name in by_itself or name in rates)]
    return {name: [name, *(other for other, first in ties.items() if first == name)] for name in names}


def _matches(pattern: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _wrong_rates(rate: float, rates: Mapping[str, float]) -> Iterator[str]:
    for value in (rate, *rates.values()):
        if not _is_rate(value):
            yield f"rate = {shown(value)}: expected a number from 0 to below 1"


def _is_rate(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1


def _wrong_patterns(
    model: nn.Module, rates: Mapping[str, float], aliases: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    named, norms = parameters(model), norm_parameters(model)
    for pattern in rates:
        if pattern in named and (named[pattern].dim() < 2 or id(named[pattern]) in norms):
            yield f"{pattern} is never pruned: biases and the parameters of norms are not weights"
        elif not any(_matches(pattern, names) for names in aliases.values()):
            known = ", ".join(aliases)
            yield f"{shown(pattern)} matches no weight{nearest(pattern, aliases)}; the weights are {known}"


def _computed_weights(model: nn.Module, rates: Mapping[str, float]) -> Iterator[str]:
    """A weight that torch computes from other parameters is refused, unless one of them has a rate by name."""
    for weight, parts in computed(model).items():
        if not {*parts} & {*rates}:
            remover = "remove_weight_norm" if parts[0].endswith("_v") else "parametrize.remove_parametrizations"
            yield (
                f"{weight} is computed by a parametrization, which is not pruned by itself: remove it before "
                f"(torch.nn.utils.{remover}), or give a rate for {' or '.join(parts)}"
            )
