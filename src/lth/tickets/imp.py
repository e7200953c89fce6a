"""Iterative magnitude pruning of any module, with anybody's training: train, prune, reset, repeat (section 2)."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from lth.config import nearest, shown
from lth.errors import UsageError
from lth.models import computed, counted, everywhere, norm_parameters, parameters, tensors, tied, unwrapped
from lth.pruning import masks
from lth.pruning.allocation import SCORES, Budget, keep, share
from lth.pruning.masks import Mask
from lth.tickets.hold import hold
from lth.tickets.ticket import Ticket

if TYPE_CHECKING:
    import pandas as pd

OWN = ("level", "density", "weights", "status")  # the columns of a level that lth fills in
Train = Callable[[nn.Module], Any]
Pools = list[tuple[tuple[str, ...], float]]  # layers that compete with each other, and their rate


@dataclass(frozen=True)
class Tickets:
    """The tickets of a ladder, by level; level 0 is the unpruned network."""

    tickets: tuple[Ticket, ...]
    rows: tuple[dict[str, Any], ...]  # what is known of each training
    curve_rows: tuple[dict[str, Any], ...] = ()

    def __getitem__(self, level: int) -> Ticket:
        return self.tickets[level]

    def __len__(self) -> int:
        return len(self.tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self.tickets)

    @property
    def summary(self) -> pd.DataFrame:
        """A row a level; what the training said of itself stands in columns."""
        return _table(self.rows)

    @property
    def curves(self) -> pd.DataFrame:
        """A row an evaluation, where the training told of any."""
        return _table(self.curve_rows)

    @property
    def winning(self) -> Ticket | None:
        """The ticket of smallest density that trains no later and no worse than level 0; None where there is none.

        No worse: its score is not lower. No later: its early-stop iteration is not larger, where there is one. Raises
        UsageError where the training told no score.
        """
        rows = [row for row in self.rows if row["status"] != "diverged"]
        if not all("score" in row for row in rows):
            raise UsageError(
                "which ticket wins is not known: train(model) told no score. Let it return a number, higher is "
                "better (such as the validation accuracy), or a dict with score and early_stop_iteration"
            )
        if self.rows[0]["status"] == "diverged":  # so there is nothing to hold tickets against
            return None
        won = [row for row in rows[1:] if _no_later(row, rows[0]) and _no_worse(row, rows[0])]
        return self.tickets[min(won, key=lambda row: row["density"])["level"]] if won else None


def _no_worse(row: Mapping[str, Any], dense: Mapping[str, Any]) -> bool:
    return row["score"] >= dense["score"] - 1e-9  # the same accuracy can differ by rounding


def _no_later(row: Mapping[str, Any], dense: Mapping[str, Any]) -> bool:
    if "early_stop_iteration" not in dense:
        return True
    return row.get("early_stop_iteration", math.inf) <= dense["early_stop_iteration"]


def _table(rows: tuple[dict[str, Any], ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows)).dropna(axis="columns", how="all")


def imp(
    model: nn.Module,
    train: Train,
    rate: float = 0.2,
    levels: int = 10,
    *,
    rates: Mapping[str, float] | None = None,
    scope: str = "layerwise",
    say: Callable[[str], None] = lambda line: None,
) -> Tickets:
    """The tickets of any module: `train(model)` is called once a level, from the model's present weights under a mask.

    `train` is the user's own function, left untouched: it trains the model in place and makes its own optimizer. It may
    return a score (a number, higher is better) or a dict of columns for `Tickets.summary`, with `score` and
    `early_stop_iteration` among them; `Tickets.winning` needs the score. Before each level the module is reset:
    weights, biases, buffers, modes. The model is left as the last training left it.

    Each level removes `rate` of a layer's surviving weights, those of smallest magnitude. `rates` maps patterns of
    parameter names, such as "encoder.*", to rates of their own; the first that fits holds, and 0 leaves a layer whole.
    With scope "global" all layers of one rate compete; biases and norms are never pruned. `say` gets a line after each
    level, such as say=print.

    Raises UsageError, before any training, where a pattern fits nothing or a level would remove nothing; and later
    where an optimizer's state or its learning rate is carried over from one level to the next. A level whose weights
    are not finite is the last, with status "diverged", and so is one of which `train` returns that status.
    """
    if rates is not None and not isinstance(rates, Mapping):
        raise UsageError(f"rates = {shown(rates)}: expected a dict of patterns and rates, such as {{'encoder.*': 0.3}}")
    layers = layer_rates(model, rate, rates or {})
    pools = make_pools(layers, scope)
    check_ladder(model, layers, pools, levels)
    reset = resetter(model)
    initial = tensors(model)
    mask = masks.ones(parameters(model), layers)
    tickets: list[Ticket] = []
    rows: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    before = Optimizers()
    for level in range(levels + 1):
        reset()
        with hold(model, mask), fresh_optimizers(model, level, before):
            told = columns(train(model))
        trained = {name: parameters(model)[name].detach().cpu() for name in mask}
        curve += [{"level": level, **row} for row in told.pop("curve", [])]
        rows.append(row_of(level, mask, trained) | told)
        tickets.append(Ticket(mask, masks.apply(everywhere(model, mask), initial), origin(model, level)))
        say(in_a_line(rows[-1], levels))
        if rows[-1]["status"] == "diverged":
            break
        mask = keep(SCORES["magnitude"](trained), mask, budget(masks.alive(mask), pools))
    return Tickets(tuple(tickets), tuple(rows), tuple(curve))


# ------------------------------------------------------------------------------------------------------- what is pruned


def layer_rates(model: nn.Module, rate: float, rates: Mapping[str, float]) -> dict[str, float]:
    """The rate of each counted parameter, in the model's order; 0 for those that are never pruned.

    A parameter that is not counted by itself is where a pattern is its very name. Raises UsageError naming every rate
    that is none, and every pattern that fits nothing.
    """
    own = parameters(model)
    if lazy := [name for name, p in own.items() if isinstance(p, nn.parameter.UninitializedParameter)]:
        raise UsageError(f"{lazy[0]} has no shape yet: call the model on a batch first")
    if empty := [name for name, p in own.items() if p.is_meta]:
        raise UsageError(f"{empty[0]} has no values: it is on the meta device; model.to_empty(...) and initialise it")
    ties, by_itself = tied(model), counted(model)
    aliases = {name: [name] for name in own if name not in ties and (name in by_itself or name in rates)}
    for name, first in ties.items():
        aliases.get(first, []).append(name)
    fits = lambda pattern, name: any(fnmatchcase(alias, pattern) for alias in aliases[name])
    wrong = [
        f"rate = {shown(r)}: expected a number from 0 to below 1" for r in (rate, *rates.values()) if not is_rate(r)
    ]
    for pattern in rates:
        if pattern in own and (own[pattern].dim() < 2 or id(own[pattern]) in norm_parameters(model)):
            wrong.append(f"{pattern} is never pruned: biases and what belongs to a norm are no weights")
        elif not any(fits(pattern, name) for name in aliases):
            wrong.append(f"{shown(pattern)} fits no weight{nearest(pattern, aliases)}; they are {', '.join(aliases)}")
    for weight, parts in computed(model).items():
        if not {*parts} & {*rates}:
            wrong.append(
                f"{weight} is computed by a parametrization, which is not pruned by itself: remove it before "
                f"(torch.nn.utils.{remover(parts)}), or give a rate for {' or '.join(parts)}"
            )
    if not aliases:
        wrong.append(f"{type(model).__name__} has no weights to prune: no parameter of two dimensions or more")
    if wrong:
        raise UsageError("\n".join(wrong))
    return {name: float(next((r for p, r in rates.items() if fits(p, name)), rate)) for name in aliases}


def remover(parts: Sequence[str]) -> str:
    """What of torch.nn.utils turns what a weight is computed from into the weight again."""
    return "remove_weight_norm" if parts[0].endswith("_v") else "parametrize.remove_parametrizations"


def is_rate(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1


def make_pools(layers: Mapping[str, float], scope: str) -> Pools:
    """Each layer a pool of its own, or with scope "global" all layers of one rate in one."""
    if scope not in ("layerwise", "global"):
        raise UsageError(f"scope takes layerwise, global; not {shown(scope)}")
    pruned = {name: rate for name, rate in layers.items() if rate > 0}
    if scope == "layerwise":
        return [((name,), rate) for name, rate in pruned.items()]
    together = dict.fromkeys(pruned.values())
    return [(tuple(n for n, of in pruned.items() if of == rate), rate) for rate in together]


def budget(alive: Mapping[str, int], pools: Pools) -> Budget:
    """How many weights each pool loses at the next level."""
    return [(names, share(sum(alive[name] for name in names), rate)) for names, rate in pools]


def check_ladder(model: nn.Module, layers: Mapping[str, float], pools: Pools, levels: int) -> None:
    """Raise UsageError at a level that would remove nothing or leave nothing: known before any training."""
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 0:
        raise UsageError(f"levels = {shown(levels)}: expected a whole number from 0")
    own = parameters(model)
    alive = [sum(own[name].numel() for name in names) for names, _ in pools]
    for level in range(1, levels + 1):
        lost = [share(count, rate) for count, (_, rate) in zip(alive, pools, strict=True)]
        if not sum(lost):
            raise UsageError(
                f"level {level} would remove nothing: {sum(alive):,} weights remain of {len(layers)} layers; "
                f"give levels={level - 1} or higher rates"
            )
        alive = [count - less for count, less in zip(alive, lost, strict=True)]
        if not sum(alive):
            raise UsageError(f"level {level} would leave no weight; give levels={level - 1} or lower rates")


# ---------------------------------------------------------------------------------------------------------------- reset


def resetter(model: nn.Module) -> Callable[[], None]:
    """What brings back the present state of all of `model`; gradients go.

    All is weights, biases, buffers (also those that state_dict leaves out), extra state, modes, and which parameters
    are trained.
    """
    model = unwrapped(model)
    kept = lambda value: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
    state = {name: kept(value) for name, value in model.state_dict().items()}
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    buffers = [
        (module, {n: b if b is None else b.clone() for n, b in module._buffers.items()}) for module in model.modules()
    ]
    modes = [(module, module.training) for module in model.modules()]
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def reset() -> None:
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(kinds.get(name, parameter.dtype))
        for module, kept_buffers in buffers:
            for name in {*module._buffers} - {*kept_buffers}:
                del module._buffers[name]
            for name, buffer in kept_buffers.items():
                module._buffers[name] = _as_before(module._buffers.get(name), buffer)
        model.load_state_dict(state)
        for module, mode in modes:
            module.training = mode
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained.get(name, parameter.requires_grad))
            parameter.grad = None

    return reset


def _as_before(now: Tensor | None, before: Tensor | None) -> Tensor | None:
    """A buffer with its former content; the same tensor where it can be, for whatever else refers to it."""
    if now is None or before is None or (now.shape, now.dtype) != (before.shape, before.dtype) or 0 in now.stride():
        return None if before is None else before.clone()
    return now.copy_(before)


@dataclass(frozen=True)
class Optimizers:
    """What is remembered of the optimizers of earlier levels."""

    known: weakref.WeakSet[Optimizer] = field(default_factory=weakref.WeakSet)
    rates: dict[int, list[float]] = field(default_factory=dict)  # of the n-th of level 0, at its first step
    filled: dict[int, bool] = field(default_factory=dict)  # whether it had a state then, as Adagrad's is made with one


@contextmanager
def fresh_optimizers(model: nn.Module, level: int, before: Optimizers) -> Iterator[None]:
    """Refuse an optimizer that comes from the level before: with its state, or with its last learning rate."""
    own = {id(parameter) for parameter in parameters(model).values()}
    seen: list[Optimizer] = []

    def look(optimizer: Optimizer, *_: Any) -> None:
        trained = [p for group in optimizer.param_groups for p in group["params"] if id(p) in own]
        if not trained or any(optimizer is known for known in seen):
            return
        seen.append(optimizer)
        rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
        filled = any(optimizer.state.get(parameter) for parameter in trained)
        if level == 0:
            before.rates[len(seen)], before.filled[len(seen)] = rates, filled
            return
        first = before.rates.get(len(seen), rates)
        if filled and (optimizer in before.known or not before.filled.get(len(seen))):
            what = f"the optimizer comes to level {level} with what it remembers of level {level - 1}"
        elif rates != first:
            now, then = (", ".join(f"{rate:g}" for rate in several) for several in (rates, first))
            what = f"level {level} begins with learning rate {now}, but level 0 with {then}"
        else:
            return
        raise UsageError(f"{what}: make the optimizer and its schedule inside train(model), so that both are reset too")

    handle = register_optimizer_step_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
        before.known.update(seen)


# ----------------------------------------------------------------------------------------------------------------- rows


def columns(told: Any) -> dict[str, Any]:
    """What train(model) returned, as columns."""
    if told is None:
        return {}
    if isinstance(told, Mapping):
        if taken := [str(key) for key, value in told.items() if key in OWN and (key, value) != ("status", "diverged")]:
            raise UsageError(f"train(model) returned {', '.join(taken)}: lth itself says that; give it another name")
        curve = told.get("curve", [])
        if not isinstance(curve, list | tuple) or not all(isinstance(row, Mapping) for row in curve):
            raise UsageError(
                f"train(model) returned curve = {shown(curve)}: expected a list of dicts, one an evaluation"
            )
        found = {str(key): _number(value) for key, value in told.items()}
        for key in ("score", "early_stop_iteration"):
            if found.get(key, 0) is None:
                del found[key]
            elif not _is_number(found.get(key, 0)):
                raise UsageError(f"train(model) returned {key} = {shown(found[key])}: expected a number, or None")
        return found
    told = _number(told)
    if _is_number(told):
        return {"score": float(told)}
    raise UsageError(
        f"train(model) returned {shown(told)}: expected nothing, a score (a number, higher is better), or a dict"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _number(value: Any) -> Any:
    """A tensor or array of one number as that number."""
    single = isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1
    return value.item() if single else value


def in_a_line(row: Mapping[str, Any], levels: int) -> str:
    """What a level's training came to, for somebody who waits."""
    parts = [f"level {row['level']} of {levels}: {100 * row['density']:.2f}% of weights"]
    parts += [f"early stop at {row['early_stop_iteration']:,}"] if "early_stop_iteration" in row else []
    parts += [f"score {row['score']:.6g}"] if "score" in row else []
    return ", ".join(parts + ([row["status"]] if row["status"] != "done" else []))


def origin(model: nn.Module, level: int) -> dict[str, Any]:
    versions = {"lth": version("lth"), "torch": torch.__version__}
    return {"model": {"name": type(unwrapped(model)).__name__}, "trial": 1, "level": level, "versions": versions}


def row_of(level: int, mask: Mask, trained: Mapping[str, Tensor]) -> dict[str, Any]:
    alive = masks.alive(mask)
    finite = all(bool(weights.isfinite().all()) for weights in trained.values())
    status = "diverged" if not finite else "done" if all(alive.values()) else "collapsed"
    return {"level": level, "density": masks.density(mask), "weights": sum(alive.values()), "status": status}
