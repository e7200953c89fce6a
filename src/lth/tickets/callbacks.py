"""Callbacks that hold a mask in the trainers of Lightning and Hugging Face.

Each holds the mask from the beginning of the training to its end, like `lth.hold`. Inside `lth.imp`, which holds the
mask itself, they are not needed.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lth.config import nearest, shown
from lth.errors import UsageError
from lth.tickets.hold import Hold, hold


def lightning_callback(mask: Mapping[str, Tensor], module: str = "") -> Any:
    """Create a callback for Lightning: `Trainer(callbacks=[lth.lightning_callback(ticket.mask)])`.

    `module` is the path of the masked module in the LightningModule, for example "model" for `self.model`; by default
    the LightningModule itself. Averaged weights of other callbacks (WeightAveraging, StochasticWeightAveraging) are
    masked too. Raises UsageError if Lightning is not installed.
    """
    callbacks: Any = _imported("lightning.pytorch.callbacks", "lightning")

    class MaskCallback(callbacks.Callback):
        def __init__(self) -> None:
            self.held = Held(mask, module)

        def __reduce__(self) -> tuple[Any, ...]:
            return lightning_callback, (mask, module)

        def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
            """Begin the hold, after the weights of a checkpoint are loaded.

            Other callbacks then act before this one.
            """
            self.held.begin(pl_module)
            others = [one for one in trainer.callbacks if one is not self]
            for average in _averages(others, pl_module):
                with hold(average.get_submodule(module), mask):
                    pass  # if the model's weight is 0, its masked average stays 0
            trainer.callbacks = sorted([*others, self], key=lambda one: isinstance(one, callbacks.Checkpoint))

        def _clear(self, *_: Any) -> None:
            self.held.clear()

        on_train_batch_start = on_train_epoch_end = on_validation_batch_start = on_validation_end = _clear

        def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
            self.held.end()

        def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
            self.held.end(type(exception))

    return MaskCallback()


def hf_callback(mask: Mapping[str, Tensor], module: str = "") -> Any:
    """Create a callback for Hugging Face: `Trainer(..., callbacks=[lth.hf_callback(ticket.mask)])`.

    `module` is the path of the masked module in the model; by default the model itself. The mask is held until
    `trainer.train()` ends, also by an exception. Raises UsageError if transformers is not installed.
    """
    base: Any = _imported("transformers", "hf").TrainerCallback

    class MaskCallback(base):
        def __init__(self) -> None:
            self.held = Held(mask, module)

        def __reduce__(self) -> tuple[Any, ...]:
            return hf_callback, (mask, module)

        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
            """Begin the hold. Other callbacks then act before this one."""
            trainer, ended = _caller("callback_handler")
            held = self.held.begin(model, ended)
            if trainer is not None:
                weakref.finalize(trainer, held.release).atexit = False
                handler = trainer.callback_handler
                handler.callbacks = [*(one for one in handler.callbacks if one is not self), self]

        def _clear(self, *_: Any, **__: Any) -> None:
            self.held.clear()

        on_step_begin = on_step_end = on_epoch_end = on_prediction_step = on_evaluate = _clear

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.held.end()

    return MaskCallback()


def part_of(model: nn.Module, place: str) -> nn.Module:
    """The module at a path such as "model.encoder"; the model itself for "". Raises UsageError if it does not exist."""
    places = [name for name, _ in model.named_modules()]
    if place in places:
        return model.get_submodule(place)
    first = ", ".join(name for name, _ in model.named_children()) or "none"
    raise UsageError(
        f"module = {shown(place)} is not a module of {type(model).__name__}, which has: {first}"
        f"{nearest(str(place), places[1:])}"
    )


@dataclass
class Held:
    """The mask of a callback, and the hold of the current training."""

    mask: Mapping[str, Tensor]
    module: str
    hold: Hold | None = None

    def begin(self, model: nn.Module, ended: Callable[[], bool] = lambda: False) -> Hold:
        self.end()
        held = Hold(part_of(model, self.module), self.mask, ended=ended)
        held.__enter__()
        self.hold = held
        return held

    def clear(self) -> None:
        if self.hold is not None:
            self.hold.clear()

    def end(self, kind: type[BaseException] | None = None) -> None:
        """End the hold, and clear pruned weights once more unless the training was interrupted."""
        held, self.hold = self.hold, None
        if held is not None and held.ended():
            held.release()
        elif held is not None and held.entered:
            held.__exit__(kind)


def _averages(callbacks: Iterable[Any], model: nn.Module) -> Iterator[nn.Module]:
    """The averages of `model` that callbacks keep as an attribute with one of their names."""
    for callback in callbacks:
        for value in vars(callback).values():
            inner = value.module if isinstance(value, AveragedModel) else value
            if type(inner) is type(model) and inner is not model:
                yield inner


def _caller(attribute: str) -> tuple[Any, Callable[[], bool]]:
    """The trainer that calls a callback, found by an attribute, and whether its training function has ended.

    Hugging Face's trainer does not report exceptions to its callbacks, and in a notebook the trainer lives on after
    one. The training has ended when the trainer's outermost method is no longer on the stack of its thread.
    """
    callers = [(frame.f_locals.get("self"), frame.f_code) for frame in _frames(sys._getframe(2))]
    trainer = next((owner for owner, _ in callers if hasattr(owner, attribute)), None)
    if trainer is None:
        return None, lambda: False
    outermost = [code for owner, code in callers if owner is trainer][-1]
    return trainer, partial(_has_ended, weakref.ref(trainer), outermost, threading.get_ident())


def _has_ended(reference: weakref.ref[Any], code: CodeType, thread: int) -> bool:
    trainer, frames = reference(), _frames(sys._current_frames().get(thread))
    return not any(frame.f_code is code and frame.f_locals.get("self") is trainer for frame in frames)


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and its callers."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _imported(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(f"{name.partition('.')[0]} is not installed: pip install 'lth[{extra}]'") from None
