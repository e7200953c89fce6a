"""Hold a mask in the trainers of Lightning and Hugging Face, with one callback for each.

Each is `lth.hold` from the beginning of the training to its end. Inside `lth.imp`, which holds the mask itself, neither
is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from lth.errors import UsageError
from lth.tickets.hold import hold

Switch = Callable[[nn.Module | None], None]


def lightning_callback(mask: Mapping[str, Tensor], module: str = "") -> Any:
    """A callback for Lightning's Trainer: `Trainer(callbacks=[lth.lightning_callback(ticket.mask)])`.

    `module` is the place of the masked module in the LightningModule, for example "model" for `self.model`; the
    LightningModule itself unless given. Raises UsageError without Lightning.
    """
    base: Any = _imported("lightning.pytorch.callbacks", "lightning").Callback
    switch = _switch(mask, module)

    class Hold(base):
        def on_train_start(
            self, trainer: Any, pl_module: nn.Module
        ) -> None:  # weights of a checkpoint are there by now
            switch(pl_module)

        def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
            switch(None)

        def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
            switch(None)

    return Hold()


def hf_callback(mask: Mapping[str, Tensor], module: str = "") -> Any:
    """A callback for Hugging Face's Trainer: `Trainer(..., callbacks=[lth.hf_callback(ticket.mask)])`.

    `module` is the place of the masked module in the model; the model itself unless given. Raises UsageError without
    transformers.
    """
    base: Any = _imported("transformers", "hf").TrainerCallback
    switch = _switch(mask, module)

    class Hold(base):
        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
            switch(model)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            switch(None)

    return Hold()


def _switch(mask: Mapping[str, Tensor], module: str) -> Switch:
    """A function that holds a model, and ends with None; after an interrupted training the next call ends it."""
    stack = ExitStack()

    def switch(model: nn.Module | None) -> None:
        stack.close()
        if model is not None:
            stack.enter_context(hold(model.get_submodule(module), mask))

    return switch


def _imported(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(f"{name.partition('.')[0]} is not installed: pip install 'lth[{extra}]'") from None
