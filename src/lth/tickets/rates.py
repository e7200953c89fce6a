"""The pruning rate of each parameter of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import nn

from lth.config import nearest, shown
from lth.errors import UsageError
from lth.models import AUTOMATIC, Choice, aliases, computed, counted, matches, norm_parameters, parameters
from lth.models.values import check_prunable


def layer_rates(
    model: nn.Module, rate: float, rates: Mapping[str, float], choice: Choice = AUTOMATIC
) -> dict[str, float]:
    """The rate of each counted parameter, in the model's order; 0 for those that are never pruned.

    A parameter that is not counted by default is counted if `choice` or a pattern with its full name says so. Raises
    UsageError naming every invalid rate and every pattern that matches nothing.
    """
    check_prunable(model)
    named = _prunable(model, rates, choice)
    wrong = [*_wrong_rates(rate, rates), *_wrong_patterns(model, rates, named)]
    wrong += _computed_weights(model, rates, (*choice.count, *choice.leave_out))
    if not named:
        wrong.append(f"{type(model).__name__} has no weights to prune: no parameter of two dimensions or more")
    if wrong:
        raise UsageError("\n".join(wrong))
    return {
        name: float(next((r for pattern, r in rates.items() if matches(pattern, names)), rate))
        for name, names in named.items()
    }


def _prunable(model: nn.Module, rates: Mapping[str, float], choice: Choice) -> dict[str, list[str]]:
    """The prunable parameters, each with all its names; several names if it is tied."""
    by_itself, named = counted(model, choice), aliases(model)
    return {name: names for name, names in named.items() if name in by_itself or name in rates}


def _wrong_rates(rate: float, rates: Mapping[str, float]) -> Iterator[str]:
    for value in (rate, *rates.values()):
        if not _is_rate(value):
            yield f"rate = {shown(value)}: expected a number from 0 to below 1"


def _is_rate(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1


def _wrong_patterns(
    model: nn.Module, rates: Mapping[str, float], prunable: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    named, norms = parameters(model), norm_parameters(model)
    for pattern in rates:
        if pattern in named and (named[pattern].dim() < 2 or id(named[pattern]) in norms):
            yield f"{pattern} is never pruned: biases and the parameters of norms are not weights"
        elif not any(matches(pattern, names) for names in prunable.values()):
            known = ", ".join([*prunable][:5]) + (", ..." if len(prunable) > 5 else "")
            yield f"{shown(pattern)} matches no weight{nearest(pattern, prunable)}; the weights are {known}"


def _computed_weights(model: nn.Module, rates: Mapping[str, float], chosen: Sequence[str]) -> Iterator[str]:
    """Refuse weights that torch computes from other parameters, unless the user gives rates for these."""
    for weight, parts in computed(model).items():
        if not {*parts} & {*rates} and not any(matches(pattern, parts) for pattern in chosen):
            remover = "remove_weight_norm" if parts[0].endswith("_v") else "parametrize.remove_parametrizations"
            yield (
                f"{weight} is computed by a parametrization, which is not pruned by itself: remove it before "
                f"(torch.nn.utils.{remover}), or give a rate for {' or '.join(parts)}, or leave_out=[{parts[0]!r}]"
            )
