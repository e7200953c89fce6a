"""Hold a mask in the trainers of Lightning and Hugging Face, with one callback for each.

Each is `lth.hold` from the beginning of the training to its end. Inside `lth.imp`, which holds the mask itself, neither
is needed.
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
    """A callback for Lightning's Trainer: `Trainer(callbacks=[lth.lightning_callback(ticket.mask)])`.

    `module` is the place of the masked module in the LightningModule, for example "model" for `self.model`; the
    LightningModule itself unless given. Averages of the weights that other callbacks keep (WeightAveraging,
    StochasticWeightAveraging) are masked too. Raises UsageError without Lightning.
    """
    callbacks: Any = _imported("lightning.pytorch.callbacks", "lightning")

    class MaskCallback(callbacks.Callback):
        def __init__(self) -> None:
            self.held = Held(mask, module)

        def __reduce__(self) -> tuple[Any, ...]:
            return lightning_callback, (mask, module)

        def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
            """The weights of a checkpoint are there by now. From here on other callbacks act before this one."""
            self.held.begin(pl_module)
            others = [one for one in trainer.callbacks if one is not self]
            for average in _averages(others, pl_module):
                with hold(average.get_submodule(module), mask):
                    pass  # an average that is 0 where the model is 0 stays so
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
    """A callback for Hugging Face's Trainer: `Trainer(..., callbacks=[lth.hf_callback(ticket.mask)])`.

    `module` is the place of the masked module in the model; the model itself unless given. The mask is held until
    `trainer.train()` ends, also by an exception. Raises UsageError without transformers.
    """
    base: Any = _imported("transformers", "hf").TrainerCallback

    class MaskCallback(base):
        def __init__(self) -> None:
            self.held = Held(mask, module)

        def __reduce__(self) -> tuple[Any, ...]:
            return hf_callback, (mask, module)

        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
            """From here on other callbacks act before this one."""
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
    """The module at a place such as "model.encoder"; the model itself at "". Raises UsageError if there is none."""
    places = [name for name, _ in model.named_modules()]
    if place in places:
        return model.get_submodule(place)
    first = ", ".join(name for name, _ in model.named_children()) or "none"
    raise UsageError(
        f"module = {shown(place)} is no module of {type(model).__name__}, whose own are: {first}"
        f"{nearest(str(place), places[1:])}"
    )


@dataclass
class Held:
    """The mask of a callback, and the hold of the training that it is in."""

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
        """End the hold, with a last clearing unless the training was interrupted before."""
        held, self.hold = self.hold, None
        if held is not None and held.ended():
            held.release()
        elif held is not None and held.entered:
            held.__exit__(kind)


def _averages(callbacks: Iterable[Any], model: nn.Module) -> Iterator[nn.Module]:
    """The averages of `model` that callbacks keep as an attribute, by its names."""
    for callback in callbacks:
        for value in vars(callback).values():
            inner = value.module if isinstance(value, AveragedModel) else value
            if type(inner) is type(model) and inner is not model:
                yield inner


def _caller(attribute: str) -> tuple[Any, Callable[[], bool]]:
    """The trainer that calls a callback, known by an attribute, and whether its function that trains has ended.

    Hugging Face's trainer tells its callbacks nothing of an exception, and a notebook keeps the trainer after it. So
    the training has ended when the trainer's outermost method is no longer on the stack of its thread.
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
    """A frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _imported(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(f"{name.partition('.')[0]} is not installed: pip install 'lth[{extra}]'") from None
