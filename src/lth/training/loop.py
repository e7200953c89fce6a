"""The training loop, which is the same for every engine: evaluate, keep the best weights, write checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from lth.config import Recipe
from lth.errors import LthError, UsageError
from lth.plan import evaluations
from lth.pruning.masks import Weights

SLICE_SECONDS = 0.4  # approximate time between two checks for stops and checkpoints; slicing does not change the bits
CHECKPOINT_SECONDS = 5.0
CHECKPOINT_COST = 50  # a checkpoint takes at most this fraction of the time: large networks take seconds to write
OPTIMIZER = "optimizer/"  # prefix of the optimizer's tensors in a kept state
LARGEST_LOSS = (
    1e34  # largest loss of a training that has not diverged: beyond it, the sum over a batch may overflow float32
)
NOTHING = (None, None)  # loss and accuracy if they are not evaluated
CHECKPOINT_PAUSE = 1200.0  # maximum seconds until the next checkpoint, in case the machine slept while one was written


class Engine(Protocol):
    """The interface of an engine: one training, in slices of any length.

    `iteration` is that of the weights; a training may begin at any iteration. `state` is everything needed to resume,
    in the engine's own format; `moments` are the optimizer's tensors in a format that all engines share.
    """

    @property
    def iteration(self) -> int: ...
    def advance(self, until: int) -> Any: ...
    def evaluate(self, split: str) -> tuple[float, float | None]: ...  # the accuracy is None if the task has none
    def weights(self) -> dict[str, Tensor]: ...
    def set_weights(self, weights: Weights) -> None: ...
    def state(self) -> dict[str, Tensor]: ...
    def moments(self) -> dict[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """A row of the curve: the values after `iteration` updates; test values only where they were due."""

    iteration: int
    val_loss: float
    val_accuracy: float | None  # None in a task without accuracy
    test_loss: float | None
    test_accuracy: float | None


@dataclass
class Checkpoint:
    """An unfinished training: its results so far, and the engine's state."""

    iteration: int = 0
    seconds: float = 0.0
    curve: list[Evaluation] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # see Outcome


@dataclass(frozen=True)
class Hooks:
    """The communication of a training with its surroundings."""

    load: Callable[[], Checkpoint | None] = lambda: None
    save: Callable[[Checkpoint], None] = lambda checkpoint: None
    report: Callable[[int], None] = lambda iteration: None
    stopped: Callable[[], bool] = lambda: False
    save_every: float | None = None  # minimum seconds between checkpoints; None: CHECKPOINT_SECONDS


class Unusable(LthError):
    """A checkpoint does not belong to this training."""


class Stopped(LthError):
    """The training was stopped on request; its checkpoint is written."""


@dataclass(frozen=True)
class Outcome:
    """A finished training.

    `states` maps the iterations that `train` was asked to keep to `state_of` the engine there.
    """

    curve: list[Evaluation]
    trained: dict[str, Tensor]
    summary: dict[str, Any]  # the columns of summary.csv that follow from the training
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def train(
    engine: Engine,
    recipe: Recipe,
    hooks: Hooks | None = None,
    begin: int = 0,
    keep: Collection[int] = (),
    moments: bool = False,
) -> Outcome:
    """Train from iteration `begin`, the engine's present one, to the recipe's last, or until a loss is not finite.

    The early-stop iteration is determined at the end, over all evaluations. The weights of lowest validation loss are
    kept meanwhile, and the accuracies at early stop are computed from them. The state is kept at each iteration of
    `keep`, with the optimizer's tensors if `moments`. Raises Unusable, with the engine in an undefined state, if the
    checkpoint belongs to another training.
    """
    if begin >= recipe.iterations:
        raise ValueError(f"a training that begins at iteration {begin} cannot end at {recipe.iterations}")
    session = Session(engine, hooks or Hooks(), recipe.iterations)
    progress, tested = session.progress, dict(evaluations(recipe, begin))
    for iteration in session.ahead({*keep, *tested}):
        session.advance(iteration)
        if iteration in keep:
            progress.states[iteration] = state_of(engine, moments)
        if iteration in tested and not finite(session.evaluate(tested[iteration])):
            break
    trained = engine.weights()
    summary = summarise(engine, recipe, progress)
    return Outcome(progress.curve, trained, summary | {"seconds": session.seconds}, progress.states)


def state_of(engine: Engine, moments: bool = False) -> dict[str, Tensor]:
    """Weights and buffers by the network's names; with `moments`, also the optimizer's tensors under optimizer/."""
    gathered = engine.moments() if moments else {}
    return engine.weights() | {OPTIMIZER + name: tensor for name, tensor in gathered.items()}


def parts_of(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The `start` and `moments` for an engine that begins at a `state_of`; moments are None if it has none."""
    weights = {name: tensor for name, tensor in state.items() if not name.startswith(OPTIMIZER)}
    moments = {name.removeprefix(OPTIMIZER): state[name] for name in state if name not in weights}
    return weights, moments or None


class Session:
    """A period of work on one training: slices of the engine's work, with checks between them."""

    def __init__(self, engine: Engine, hooks: Hooks, last: int) -> None:
        self.engine, self.hooks = engine, hooks
        loaded = hooks.load()
        self.progress, self.resumed = loaded or Checkpoint(), loaded is not None
        if self.resumed:
            restore(engine, self.progress, last)
        self.saved = time.monotonic()
        self.began = self.saved - self.progress.seconds
        self.least = self.pause = hooks.save_every or CHECKPOINT_SECONDS  # between checkpoints, and until the next
        self.slice = 1

    @property
    def seconds(self) -> float:
        """The time that this training has taken, including earlier sessions."""
        return time.monotonic() - self.began

    def ahead(self, stops: Iterable[int]) -> list[int]:
        """The iterations of `stops` that are still ahead, in order; a checkpoint has done those up to its own."""
        now = self.engine.iteration
        return sorted(stop for stop in stops if (stop > now if self.resumed else stop >= now))

    def evaluate(self, with_test: bool) -> Evaluation:
        """Add a row to the curve, and keep the weights if their validation loss is the lowest so far."""
        progress = self.progress
        row = evaluate(self.engine, self.engine.iteration, with_test)
        if bounded(row.val_loss) and row.val_loss < lowest(progress.curve):
            progress.best = self.engine.weights()
        progress.curve.append(row)
        return row

    def advance(self, until: int) -> None:
        """Train until iteration `until`. If asked to stop, write a checkpoint and raise Stopped."""
        while self.engine.iteration < until:
            stop = self.hooks.stopped()
            if stop or time.monotonic() - self.saved > self.pause:
                self.save()
            if stop:
                raise Stopped("stopped; run the same command again to continue")
            self._work(until)
            self.hooks.report(self.engine.iteration)

    def save(self) -> None:
        progress, began = self.progress, time.monotonic()
        progress.iteration, progress.state, progress.seconds = self.engine.iteration, self.engine.state(), self.seconds
        self.hooks.save(progress)
        self.saved = time.monotonic()
        self.pause = max(self.least, min(CHECKPOINT_COST * (self.saved - began), CHECKPOINT_PAUSE))

    def _work(self, until: int) -> None:
        first, began = self.engine.iteration, time.perf_counter()
        self.engine.advance(min(until, first + self.slice))
        if self.engine.iteration - first == self.slice:  # a slice that an evaluation cut short does not show the pace
            fits = SLICE_SECONDS / max(time.perf_counter() - began, 1e-6)
            self.slice = max(1, int(self.slice * min(fits, 4.0)))


def restore(engine: Engine, progress: Checkpoint, last: int) -> None:
    """Restore a checkpoint. Raises Unusable if it does not belong to this training, which ends at `last`."""
    iterations = [engine.iteration, *(row.iteration for row in progress.curve), progress.iteration, last]
    if iterations != sorted(iterations) or (progress.iteration > engine.iteration and not progress.curve):
        raise Unusable(f"its iteration, {progress.iteration}, does not match its curve")
    if progress.best and _shapes(progress.best) != _shapes(engine.weights()):
        raise Unusable("its best weights belong to another network")
    shapes, stored_shapes = _shapes(engine.state()), _shapes(progress.state)
    if wrong := [name for name in shapes if stored_shapes.get(name, shapes[name]) != shapes[name]]:
        raise Unusable(f"its {wrong[0]} has another shape or type")
    try:
        if progress.iteration:
            engine.restore(progress.state, progress.iteration)
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, AttributeError, UsageError) as error:
        reason, _, _ = str(error).partition("\n")
        raise Unusable(f"its state does not fit: {reason}") from error


def _shapes(weights: Weights) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


def evaluate(engine: Engine, iteration: int, with_test: bool) -> Evaluation:
    val_loss, val_accuracy = engine.evaluate("validation")
    test_loss, test_accuracy = engine.evaluate("test") if with_test else (None, None)
    return Evaluation(iteration, val_loss, val_accuracy, test_loss, test_accuracy)


def finite(row: Evaluation) -> bool:
    """Return whether the losses of an evaluation are finite, so that training can continue.

    A missing test set has NaN as loss and no accuracy; a test loss that became NaN comes with an accuracy.
    """
    tested = row.test_loss is not None and not (row.test_accuracy is not None and math.isnan(row.test_accuracy))
    return bounded(row.val_loss) and (not tested or bounded(row.test_loss or 0.0))


def bounded(loss: float) -> bool:
    """Return whether a loss is a value that every engine computes alike."""
    return abs(loss) <= LARGEST_LOSS


def lowest(curve: list[Evaluation]) -> float:
    """The lowest validation loss so far; infinity before the first."""
    return min((row.val_loss for row in curve if bounded(row.val_loss)), default=math.inf)


def summarise(engine: Engine, recipe: Recipe, progress: Checkpoint) -> dict[str, Any]:
    """Early stop, final and intermediate accuracies; in a task without accuracy, losses.

    Leaves the engine at the weights of the early stop.
    """
    curve, last = progress.curve, progress.curve[-1]
    of_train = lambda: engine.evaluate("train") if recipe.train_accuracy else NOTHING
    trained = of_train()
    summary: dict[str, Any] = {
        "status": "done" if finite(last) else "diverged",
        "iterations": engine.iteration,
        "final_val_accuracy": last.val_accuracy,
        "final_test_accuracy": last.test_accuracy,
        "final_train_accuracy": trained[1],
    }
    by_loss = last.val_accuracy is None
    if by_loss:
        summary |= {
            "final_val_loss": last.val_loss, "final_test_loss": last.test_loss, "final_train_loss": trained[0]
        }  # fmt: skip
    by_iteration = {row.iteration: row for row in curve}
    for n in recipe.report_at:
        if n in by_iteration:
            row = by_iteration[n]
            summary |= {f"test_accuracy_at_{n}": row.test_accuracy, f"val_accuracy_at_{n}": row.val_accuracy}
            if by_loss:
                summary |= {f"test_loss_at_{n}": row.test_loss, f"val_loss_at_{n}": row.val_loss}
    if progress.best:
        best = next(row for row in curve if row.val_loss == lowest(curve))
        engine.set_weights(progress.best)
        tested, trained = engine.evaluate("test"), of_train()
        summary |= {
            "early_stop_iteration": best.iteration,
            "val_loss_at_early_stop": best.val_loss,
            "val_accuracy_at_early_stop": best.val_accuracy,
            "test_accuracy_at_early_stop": tested[1],
            "train_accuracy_at_early_stop": trained[1],
        }
        if by_loss:
            summary |= {"test_loss_at_early_stop": tested[0], "train_loss_at_early_stop": trained[0]}
    return summary
