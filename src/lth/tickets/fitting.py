"""Checks that data, model and loss fit together, before the first update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth.config import Recipe
from lth.data.parts import Part
from lth.data.targets import class_expression, class_fault, range_fault, value_fault, whole
from lth.errors import UsageError
from lth.randomness import global_draws
from lth.training.batches import EVALUATION_BATCH
from lth.training.losses import IGNORED, Measure, squared_error

FROM_NUMPY = {  # NumPy expressions and their equivalents in other libraries
    "torch": {".astype('int64')": ".long()", ".astype('float32')": ".float()", "np.unique": "torch.unique"},
    "pandas": {
        "y[:, 0]": "y.iloc[:, 0]",
        "y.argmax(1)": "y.to_numpy().argmax(1)",
        "y[:, None]": "y.to_numpy()[:, None]",
    },
}


def check_fit(model: nn.Module, data: Mapping[str, Part], loss: Measure, recipe: Recipe) -> None:
    """Raise UsageError if the model fails on the inputs of a split, or the loss cannot be computed from its targets.

    The model is called on two examples of each split. All targets are checked; of a training Dataset, as many as the
    training would fetch. A custom loss is not called, because its requirements are not known.
    """
    if any(p.is_meta or isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        return  # refused by `lth.imp`
    most = {"train": recipe.iterations * recipe.batch}
    for name, part in data.items():
        with global_draws(torch.device("cpu")):
            x, y = part.batch(torch.arange(min(2, part.size)))
            _check_kind(name, y, data)
            shape = torch.Size((recipe.batch, *_outputs(model, x, f"{name}'s x").shape[1:]))
            for targets in _targets(part, min(part.size, most.get(name, part.size))):
                if fault := target_fault(loss, shape, targets.numpy(), part.library):
                    raise UsageError(fault if fault.startswith("the model") else f"{name}'s y {fault}")


def _check_kind(name: str, y: Tensor, data: Mapping[str, Part]) -> None:
    """Targets must be classes in all splits, or numbers in all."""
    first = data["train"].batch(torch.arange(1))[1]
    if first.is_floating_point() != y.is_floating_point():
        kinds = [("floating-point" if one.is_floating_point() else "whole") for one in (y, first)]
        raise UsageError(
            f"{name}'s y holds {kinds[0]} numbers, train's {kinds[1]} ones: give both in one type, such as "
            + (_spoken("y.astype('int64')", data[name].library) if kinds[0] != "whole" else "train's")
        )


def _targets(part: Part, count: int) -> Iterator[Tensor]:
    if part.y is not None:
        yield part.y.detach().cpu()
        return
    for places in torch.arange(count).split(EVALUATION_BATCH):
        yield part.batch(places)[1]


# ---------------------------------------------------------------------------------------------------------- the model


def _outputs(model: nn.Module, x: Tensor, name: str) -> Tensor:
    """The model's outputs for a few inputs. Raises UsageError if it fails on them or does not return a tensor."""
    device = next(model.parameters()).device
    try:
        with as_it_was(model), torch.no_grad():
            outputs = model.eval()(x.to(device))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:160]
        given = f"{str(x.dtype).removeprefix('torch.')} of shape {_shape(x.shape)}"
        raise UsageError(
            f"the model fails on {name}, {given}: {type(error).__name__}: {reason}{_advice(model, x)}"
        ) from error
    if not isinstance(outputs, Tensor):
        raise UsageError(
            f"the model returned {type(outputs).__name__}, expected a tensor; use lth.imp with a training function of "
            "your own"
        )
    if not outputs.dim() or len(outputs) != len(x):
        raise UsageError(f"the model returned {tuple(outputs.shape)} for {len(x)} examples: expected a row for each")
    return outputs


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Restore the training modes and buffers of a model at the end."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if buffer.shape == before.shape:
                    buffer.copy_(before)


def _advice(model: nn.Module, x: Tensor) -> str:
    """A hint on what may be wrong with the inputs of a model that fails."""
    if not (x.is_floating_point() or x.is_complex()):
        return "; if x are numbers and no indices, make them float32: x.float(), or x.astype('float32')"
    for name, module in model.named_modules():
        for kind, at in (("in_features", -1), ("in_channels", 1)):
            size = getattr(module, kind, None)
            if isinstance(size, int) and x.dim() > 1 and x.shape[at] != size:
                return f"; its first layer, {name or type(module).__name__}, takes {kind} = {size}"
            if isinstance(size, int):
                return ""
    return ""


# -------------------------------------------------------------------------------------------------------- the targets


def target_fault(loss: Measure, outputs: torch.Size, y: np.ndarray, library: str = "numpy") -> str | None:
    """Describe why `loss` cannot be computed from targets [n, ...] and outputs of this shape; None if no reason is
    known.

    The text follows "train's y", unless it begins with "the model". `library` decides in whose expressions the cure is
    given.
    """
    if loss is squared_error:
        fault = _number_fault(outputs, y)
    elif loss is cross_entropy or isinstance(loss, nn.CrossEntropyLoss):
        fault = _class_fault(outputs, y, getattr(loss, "ignore_index", IGNORED))
    else:
        return None
    return fault and _spoken(fault.replace(f"({len(y)},", "(n,"), library)


def _class_fault(outputs: torch.Size, y: np.ndarray, ignored: int) -> str | None:
    if y.dtype.kind == "f" and y.shape[1:] == outputs[1:]:
        return None  # probabilities
    if len(outputs) < 2 or outputs[1] == 1:
        return (
            f"the model's outputs are {tuple(outputs)}, but cross entropy takes one output for each class: give the "
            "model 2 outputs, or, for one, loss=torch.nn.functional.binary_cross_entropy_with_logits and targets "
            "y.astype('float32')[:, None]"
        )
    classes, shape = outputs[1], (len(y), *outputs[2:])
    if fault := class_fault(y, shape):
        return fault
    valid = y[y != ignored]
    fault = range_fault(int(valid.min()), int(valid.max()), classes) if valid.size else None
    return fault and f"{fault} (the model has {classes} outputs)"


def _number_fault(outputs: torch.Size, y: np.ndarray) -> str | None:
    if fault := value_fault(y):
        return fault
    if y.shape[1:] == outputs[1:]:
        return None
    classes = class_expression(y, (len(y), *outputs[2:])) if len(outputs) > 1 and outputs[1] > 1 else None
    if classes and whole(y):
        return (
            f"holds floating-point numbers of shape {_shape(y.shape)}, and the model's outputs are {_shape(outputs)}: "
            f"if they are classes, give {classes}; else targets of the outputs' shape"
        )
    return (
        f"the model's outputs are {tuple(outputs)}, but the targets {(outputs[0], *y.shape[1:])}: give targets of the "
        "outputs' shape (y[:, None]), or your own loss"
    )


def _shape(shape: Sequence[int]) -> str:
    """The shape, with any number of examples."""
    return f"({', '.join(['n', *map(str, shape[1:])])}{',' * (len(shape) == 1)})"


def _spoken(text: str, library: str) -> str:
    """A text with its expressions translated to torch, pandas or NumPy."""
    for numpys, others in FROM_NUMPY.get(library, {}).items():
        text = text.replace(numpys, others)
    return text
