"""The row of a level's training, as a dict of columns and as a line of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lth.config import shown
from lth.errors import UsageError
from lth.models import unwrapped
from lth.pruning import masks
from lth.pruning.masks import Mask

RESERVED = ("level", "density", "weights", "status", "early_stop_reached")  # columns that lth fills in
NUMBERS = ("score", "early_stop_iteration")  # columns that decide which ticket wins


def columns(returned: Any) -> dict[str, Any]:
    """The value that train(model) returned, as columns. Raises UsageError if it has no valid form."""
    if returned is None:
        return {}
    if isinstance(returned, Mapping):
        return _from_mapping(returned)
    score = _number(returned)
    if _is_number(score):
        return {"score": float(score)}
    raise UsageError(
        f"train(model) returned {shown(score)}: expected nothing, a score (a number, higher is better), or a dict"
    )


def _from_mapping(returned: Mapping[Any, Any]) -> dict[str, Any]:
    reserved = [str(k) for k, value in returned.items() if k in RESERVED and (k, value) != ("status", "diverged")]
    if reserved:
        raise UsageError(
            f"train(model) returned {', '.join(reserved)}: lth fills in these columns; give them other names"
        )
    curve = returned.get("curve", [])
    if not isinstance(curve, list | tuple) or not all(isinstance(row, Mapping) for row in curve):
        raise UsageError(f"train(model) returned curve = {shown(curve)}: expected a list of dicts, one per evaluation")
    row = {str(key): _number(value) for key, value in returned.items()}
    for key in NUMBERS:
        if row.get(key, 0) is None:
            del row[key]
        elif not _is_number(row.get(key, 0)):
            raise UsageError(f"train(model) returned {key} = {shown(row[key])}: expected a number, or None")
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _number(value: Any) -> Any:
    """A tensor or array with one element, as a number."""
    single = isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1
    return value.item() if single else value


def row_of(level: int, mask: Mask, trained: Mapping[str, Tensor]) -> dict[str, Any]:
    """The columns of a level that lth computes from its mask and its trained weights."""
    alive = masks.alive(mask)
    finite = all(bool(weights.isfinite().all()) for weights in trained.values())
    status = "diverged" if not finite else "done" if all(alive.values()) else "collapsed"
    return {"level": level, "density": masks.density(mask), "weights": sum(alive.values()), "status": status}


def format_row(row: Mapping[str, Any], levels: int) -> str:
    """A progress line with the result of a level's training."""
    parts = [f"level {row['level']} of {levels}: {100 * row['density']:.2f}% of weights"]
    late = " (not reached)" if row.get("early_stop_reached") is False else ""
    parts += [f"early stop at {row['early_stop_iteration']:,}{late}"] if "early_stop_iteration" in row else []
    parts += [f"score {row['score']:.6g}"] if "score" in row else []
    return ", ".join(parts + ([row["status"]] if row["status"] != "done" else []))


def origin(model: nn.Module, level: int, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The origin of a ticket of `lth.imp`; `left_out` are the lines on uncounted parameters."""
    versions = {"lth": version("lth"), "torch": torch.__version__}
    facts = {"model": {"name": type(unwrapped(model)).__name__}, "trial": 1, "level": level, "versions": versions}
    return facts | ({"left_out": list(left_out)} if left_out else {})
