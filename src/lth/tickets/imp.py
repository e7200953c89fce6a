"""Iterative magnitude pruning of any module with any training function (section 2 of Frankle & Carbin, 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lth.config import shown
from lth.errors import UsageError
from lth.models import Choice, everywhere, format_not_counted, not_counted, not_stored, parameters, tensors, unwrapped
from lth.pruning import masks
from lth.pruning.allocation import Advice, Pools, descend, pools, removals
from lth.pruning.rules import keep
from lth.pruning.scores import magnitude
from lth.results.early_stops import is_reached
from lth.results.metrics import ACCURACY, LOSS
from lth.results.records import REACHED
from lth.results.statistics import Comparison, matching_index, winning_index
from lth.tickets import notebook
from lth.tickets.hold import hold
from lth.tickets.levels import Levels, Trained
from lth.tickets.rates import layer_rates
from lth.tickets.reset import EarlierOptimizers, fresh_optimizers, resetter
from lth.tickets.rows import columns, format_row, origin, row_of
from lth.tickets.ticket import Ticket

if TYPE_CHECKING:
    import pandas as pd

SCOPES = ("layerwise", "global")
Train = Callable[[nn.Module], Any]
Row = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Tickets:
    """The tickets of one module by level. Level 0 is the unpruned network."""

    tickets: tuple[Ticket, ...]
    rows: tuple[dict[str, Any], ...]  # the summary of each level's training
    curve_rows: tuple[dict[str, Any], ...] = ()
    trained_levels: Trained = field(default_factory=Trained)
    at_the_end: bool = False  # the scores are from the last iteration, because the learning rate falls near the end
    minus_loss: bool = False  # the scores are minus the loss, so that `matching` uses a relative tolerance

    def __getitem__(self, level: int) -> Ticket:
        return self.tickets[level]

    def __len__(self) -> int:
        return len(self.tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self.tickets)

    def __repr__(self) -> str:
        return notebook.levels_text(self.rows)

    def _repr_html_(self) -> str:
        return notebook.levels_html(self.rows, self.curve_rows)

    @property
    def summary(self) -> pd.DataFrame:
        """One row per level, with the columns that the training returned."""
        return _table(self.rows)

    @property
    def curves(self) -> pd.DataFrame:
        """One row per evaluation; empty if the training function returned no curves."""
        return _table(self.curve_rows)

    def trained(self, level: int) -> dict[str, Tensor]:
        """The weights at the end of a level's training, with biases and buffers, on the CPU: a state_dict.

        Raises UsageError if the level does not exist, and LthError if the file that holds them was deleted.
        """
        if not -len(self) <= level < len(self.trained_levels.states):
            raise UsageError(f"there are no trained weights of level {level}: the levels are 0 to {len(self) - 1}")
        state = self.trained_levels.read(level % len(self))
        return {name: state[name] for name in self.tickets[level].start}

    @property
    def winning(self) -> Ticket | None:
        """The sparsest ticket that trains no later and no worse than level 0; None if there is none.

        "No worse": its score is not lower. "No later": its early-stop iteration, if known, is not larger. An early stop
        that was not reached (`early_stop_reached` in the summary) does not win. There is one training per level, so
        this says nothing about chance. Raises UsageError if the training function returned no score.
        """
        return self._at(winning_index(self._compared()))

    def matching(self, tolerance: float | None = None) -> Ticket | None:
        """The sparsest ticket whose score is at most `tolerance` (default 0.005) below level 0's; None if there is
        none.

        If scores are minus the loss (`lth.find_tickets` without a metric), `tolerance` (default 0.05) is relative to
        the loss of level 0. Raises UsageError if `tolerance` is not a nonnegative number, or the training function
        returned no score.
        """
        if tolerance is None:
            tolerance = (LOSS if self.minus_loss else ACCURACY).tolerance
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
            raise UsageError(f"tolerance = {shown(tolerance)}: expected a number from 0, such as 0.005")
        unit = abs(self.rows[0].get("score", 1.0)) if self.minus_loss else 1.0
        return self._at(matching_index(self._compared(), tolerance * unit))

    def _at(self, level: int | None) -> Ticket | None:
        return None if level is None else self.tickets[level]

    def _compared(self) -> list[tuple[int, float, list[Comparison]]]:
        """The rows for `winning_index`."""
        if not all("score" in row for row in self.rows if row["status"] != "diverged"):
            raise UsageError(
                "the winning ticket is unknown: train(model) returned no score. Let it return a number, higher is "
                "better (such as the validation accuracy), or a dict with score and early_stop_iteration"
            )
        dense, *pruned = self.rows
        whole = [row for row in pruned if "diverged" not in (row["status"], dense["status"])]
        return [(row["level"], row["density"], [_beside(row, dense, self.at_the_end)]) for row in whole]


def _beside(row: Row, dense: Row, at_the_end: bool) -> Comparison:
    """How much later than level 0 a level stops early, if known, and how much better its score is."""
    better = row["score"] - dense["score"]
    if at_the_end or "early_stop_iteration" not in dense:
        return 0.0, better
    if False in (row.get(REACHED), dense.get(REACHED)):
        return math.nan, better
    return row.get("early_stop_iteration", math.inf) - dense["early_stop_iteration"], better


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
    count: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Tickets:
    """Find tickets by iterative magnitude pruning. `train(model)` is called once per level, under the level's mask.

    `train` trains the model in place with its own optimizer. It may return a score (a number, higher is better) or a
    dict of columns for `Tickets.summary`, for example with `score` and `early_stop_iteration`; `Tickets.winning` needs
    the score. The start is the state of the model when `imp` is called. Before each level, the model is reset to it:
    weights, biases, buffers and modes. At the end the model is as the last training left it.

    Each level removes the fraction `rate` of a layer's surviving weights, those of smallest magnitude. `rates` maps
    patterns of parameter names, such as "encoder.*", to other rates; the first matching pattern applies, and layers
    with rate 0 are not pruned. With scope "global" all layers with the same rate compete. Biases and norms are never
    pruned. `count` and `leave_out` are names or patterns of parameters that are counted, or not counted, against the
    default. `say` is called with one line about uncounted parameters and one line per level, for example say=print.

    Raises UsageError before any training if a pattern matches nothing or a level would remove nothing, and later if an
    optimizer's state or learning rate is carried over from one level to the next. The last level is the first one whose
    weights are not finite, or for which `train` returns the status "diverged"; its status is "diverged".
    """
    choice = Choice(count, leave_out)
    layers, competing = _checked(model, rate, levels, rates, scope, choice)
    left_out = _left_out(model, layers, choice)
    for line in left_out:
        say(line)
    reset, initial, optimizers = resetter(model), tensors(model), EarlierOptimizers()
    mask = masks.ones(parameters(model), layers)
    shared, trained_levels = Levels(initial, mask, levels), Trained()
    removed_at = everywhere(model, shared.removed_at)
    tickets: list[Ticket] = []
    rows: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    for level in range(levels + 1):
        reset()
        with hold(model, mask), fresh_optimizers(model, level, optimizers):
            returned = columns(train(model))
        trained_levels.add(tensors(model))
        trained = {name: parameters(model)[name].detach().cpu() for name in mask}
        evaluated = returned.pop("curve", [])
        curve += [{"level": level, **row} for row in evaluated]
        rows.append(row_of(level, mask, trained) | returned | _reached(evaluated, returned.get("early_stop_iteration")))
        start = shared.masked_start(level, removed_at)
        tickets.append(Ticket(shared.mask(level), start, origin(model, level, left_out)))
        say(format_row(rows[-1], levels))
        if rows[-1]["status"] == "diverged" or level == levels:
            break
        mask = keep(magnitude(trained), mask, removals(masks.alive(mask), competing))
        shared.remove(mask, level + 1)
    return Tickets(tuple(tickets), tuple(rows), tuple(curve), trained_levels)


def _reached(curve: Sequence[Row], early_stop: float | None) -> dict[str, bool]:
    """The column `early_stop_reached`, if the training function returned an early stop and its evaluated iterations."""
    iterations = [row["iteration"] for row in curve if "iteration" in row]
    return {} if early_stop is None or not iterations else {REACHED: is_reached(iterations, early_stop)}


def _checked(
    model: nn.Module, rate: float, levels: int, rates: Mapping[str, float] | None, scope: str, choice: Choice
) -> tuple[dict[str, float], Pools]:
    """The rate of each counted layer, and the pools.

    Raises UsageError for everything that is wrong before any training.
    """
    unwrapped(model)  # which raises for what is no module
    if rates is not None and not isinstance(rates, Mapping):
        raise UsageError(f"rates = {shown(rates)}: expected a dict of patterns and rates, such as {{'encoder.*': 0.3}}")
    layers = layer_rates(model, rate, rates or {}, choice)
    if scope not in SCOPES:
        raise UsageError(f"scope takes {', '.join(SCOPES)}; not {shown(scope)}")
    if isinstance(levels, bool) or not isinstance(levels, Integral) or levels < 0:
        raise UsageError(f"levels = {shown(levels)}: expected a whole number from 0")
    competing = pools(layers, scope)
    sizes = {name: parameters(model)[name].numel() for name in layers}
    prunable = [name for names, _ in competing for name in names]
    descend(sizes, levels, lambda alive, _: removals(alive, competing), prunable, Advice("levels={}", "rate"))
    return layers, competing


def _left_out(model: nn.Module, layers: Collection[str], choice: Choice) -> list[str]:
    """One line per uncounted parameter with the reason, and per tensor that no ticket can hold."""
    reasons = {name: reason for name, reason in not_counted(model, choice).items() if name not in layers}
    shapes = {name: parameters(model)[name].shape for name in reasons}
    return [*format_not_counted(reasons, shapes), *not_stored(model)]
