"""Tickets: a mask, the start weights under it, and where they came from; as a value and as a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lth.config import shown
from lth.errors import UsageError
from lth.models import counted, everywhere, load, stored, tensors, unwrapped
from lth.pruning import masks
from lth.pruning.masks import Mask
from lth.storage import checksums
from lth.storage.atomic import write_file
from lth.storage.tensors import load_tensors, pack, read_metadata, save_tensors, unpack
from lth.tickets.hold import clear, find

FORMAT = 2
FORMATS = (1, FORMAT)  # 1 had no checksum
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)
MOST_HEADER = 16 * 2**20  # bytes of a ticket file's header: some 100,000 tensors
SIZE = 2**31  # of a dimension or a number of classes, at most


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(n) is int and 0 < n < SIZE for n in value)


def _are_seeds(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_whole, value.values()))


ORIGIN: dict[str, tuple[str, Callable[[Any], bool]]] = {  # what a file's metadata may say, and what each has to be
    "settings": ("a table", lambda value: isinstance(value, dict)),
    "model": ("a table", lambda value: isinstance(value, dict)),
    "versions": ("a table", lambda value: isinstance(value, dict)),
    "seeds": ("a table of whole numbers", _are_seeds),
    "inputs": ("a list of sizes, such as [1, 28, 28]", _is_shape),
    "classes": ("a number of classes", lambda value: _is_whole(value) and 0 < value < SIZE),
    "trial": ("a whole number", _is_whole),
    "level": ("a whole number", _is_whole),
    "branch": ("a text", lambda value: isinstance(value, str)),
    "experiment": ("a text", lambda value: isinstance(value, str)),
}


@dataclass(frozen=True)
class Ticket:
    """A mask, the start weights (with biases and buffers) under it, and where they came from."""

    mask: Mask
    start: dict[str, Tensor]
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def density(self) -> float:
        return masks.density(self.mask)

    def apply(self, model: nn.Module) -> nn.Module:
        """Give `model` the start weights under the mask. Raises UsageError naming what does not fit."""
        state = stored(model)
        wrong = sorted({*state} ^ {*self.start})
        wrong += [f"{n} {tuple(t.shape)}" for n, t in self.start.items() if n in state and state[n].shape != t.shape]
        if wrong:
            raise UsageError(f"the ticket does not fit this model; they differ in {', '.join(wrong)}")
        held = find(model, self.mask)
        load(model, self.start)  # a ticket holds tensors only
        for one in held:  # by parameter, so that a tied one is pruned under all its names
            clear(one.parameter, one)
        return model

    def to_prune(self, model: nn.Module) -> nn.Module:
        """`apply`, and the mask as torch.nn.utils.prune stores it: NAME_orig, NAME_mask, NAME computed from them."""
        self.apply(model)
        for name, layer in everywhere(model, self.mask).items():
            module, key = _owner(model, name)
            prune.custom_from_mask(module, key, layer.to(getattr(module, key).device))
        return model

    @staticmethod
    def from_prune(model: nn.Module) -> Ticket:
        """The ticket of a model that torch.nn.utils.prune has pruned, with the present weights as its start.

        Counted weights without a mask are not pruned. Raises UsageError where nothing is pruned by it.
        """
        state = tensors(model)
        pruned = [n.removesuffix("_mask") for n in state if n.endswith("_mask") and f"{n[:-5]}_orig" in state]
        if not pruned:
            raise UsageError(
                "the model is not pruned by torch.nn.utils.prune: no parameter NAME_orig has its NAME_mask"
            )
        shapes = {name.removesuffix("_orig"): parameter.shape for name, parameter in counted(model).items()}
        mask = {name: state.get(f"{name}_mask", torch.ones(shape)).bool() for name, shape in shapes.items()}
        start = {n.removesuffix("_orig"): t for n, t in state.items() if n.removesuffix("_mask") not in pruned}
        further = {name: state[f"{name}_mask"].bool() for name in pruned if name not in mask}  # tied, or biases
        return Ticket(mask, masks.apply(mask | further, start), {})

    def save(self, path: str | Path) -> None:
        write_file(Path(path), to_bytes(self))

    @staticmethod
    def load(path: str | Path) -> Ticket:
        """Read a ticket file. Raises UsageError naming the file and what is wrong with it."""
        if Path(path).exists() and not Path(path).is_file():  # a pipe might never end
            raise UsageError(f"{path} is no file")
        try:
            return from_bytes(Path(path).read_bytes())
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"{path} is no ticket file, or damaged: {error}") from None


def to_bytes(ticket: Ticket) -> bytes:
    """The file's bytes: `mask/NAME` packed, `start/NAME`, one key of sorted JSON; see `lth.storage.tensors`."""
    tensors = {f"mask/{name}": pack(layer) for name, layer in ticket.mask.items()}
    tensors |= {f"start/{n}": t.contiguous() for n, t in masks.apply(ticket.mask, ticket.start).items()}
    origin = ticket.origin | {"format": FORMAT, "counts": masks.alive(ticket.mask), "density": ticket.density}
    return save_tensors(tensors, origin)


def from_bytes(content: bytes) -> Ticket:
    """The inverse of `to_bytes`. Raises ValueError saying what is wrong."""
    if (head := checksums.head_of(content)) > MOST_HEADER + 8:
        raise ValueError(f"its header has {head:,} bytes, more than the {MOST_HEADER:,} that are read of a ticket")
    tensors = load_tensors(content)
    start = {k.removeprefix("start/"): v for k, v in tensors.items() if k.startswith("start/")}
    packed = {k.removeprefix("mask/"): v for k, v in tensors.items() if k.startswith("mask/")}
    if missing := [f"start/{name}" for name in sorted({*packed} - {*start})] or ([] if packed else ["mask/..."]):
        raise ValueError(f"it lacks {', '.join(missing)}")
    mask = {name: unpack(layer, start[name].shape) for name, layer in packed.items()}
    origin = read_metadata(content)
    _check_origin(origin, mask)
    _check_start(start, mask)
    return Ticket(mask, start, origin)


def _check_origin(origin: Mapping[str, Any], mask: Mask) -> None:
    form, counts = origin.get("format"), origin.get("counts")
    if type(form) is not int or form not in FORMATS:
        raise ValueError(f"its format is {shown(form)}, not {FORMAT}")
    if form > 1 and checksums.KEY not in origin:
        raise ValueError(checksums.BROKEN)
    whole = isinstance(counts, dict) and all(type(count) is int for count in counts.values())
    if not whole or counts != masks.alive(mask):
        raise ValueError("its masks do not have the counts that it states")
    for key, (what, fits) in ORIGIN.items():
        if origin.get(key) is not None and not fits(origin[key]):
            raise ValueError(f"its {key} is {shown(origin[key])}, expected {what}")
    _check_tables(origin.get("settings") or {})


def _check_tables(settings: Mapping[str, Any]) -> None:
    for key in ("data", "model", "recipe", "prune"):
        if not isinstance(settings.get(key, {}), dict):
            raise ValueError(f"its settings.{key} is {shown(settings[key])}, expected a table")


def _check_start(start: Mapping[str, Tensor], mask: Mask) -> None:
    for name, layer in mask.items():
        if not layer.numel():
            raise ValueError(f"start/{name} has no weights: its shape is {tuple(layer.shape)}")
        if start[name].dtype not in FLOATS:
            raise ValueError(f"start/{name} is of type {start[name].dtype}, expected one of {FLOATS}")
        if torch.any(start[name][~layer] != 0):
            raise ValueError(f"start/{name} is not 0 where mask/{name} prunes")


def describe(ticket: Ticket) -> list[str]:
    """What a ticket is and where it comes from: lines of text."""
    rest = sum(t.numel() for name, t in ticket.start.items() if name not in ticket.mask)
    return [
        *(f"{name:10}  {text}" for name, text in _facts(ticket).items() if text),
        *_format_layers(ticket.mask),
        f"and {rest:,} numbers that are not pruned (biases, norms, buffers)",
    ]


def _facts(ticket: Ticket) -> dict[str, str]:
    origin = {key: value for key, value in ticket.origin.items() if value is not None}
    settings = origin.get("settings", {})
    weights, total = sum(masks.alive(ticket.mask).values()), masks.size(ticket.mask)
    seeds = origin.get("seeds", {})
    return {
        "model": _format_table(origin.get("model")),
        "weights": f"{weights:,} of {total:,} remain: {100 * ticket.density:.2f}% (density {ticket.density:.6g})",
        "place": ", ".join(f"{key} {origin[key]}" for key in ("trial", "level", "branch") if key in origin),
        "seed": str(seeds["experiment"]) if "experiment" in seeds else "",
        "inputs": " x ".join(map(str, origin.get("inputs", []))),
        "classes": str(origin.get("classes", "")),
        "data": str(settings.get("data", {}).get("name", "")),
        "recipe": _format_table(settings.get("recipe")),
        "made with": _format_table(origin.get("versions")),
        "experiment": str(origin.get("experiment", "")),
    }


def _format_layers(mask: Mask) -> list[str]:
    alive, width = masks.alive(mask), max(map(len, mask), default=0)
    return [
        f"  {name:{width}}  {'x'.join(map(str, layer.shape)):>12}  {alive[name]:>11,} of {layer.numel():>11,}"
        f"  {100 * alive[name] / layer.numel():6.2f}%"
        for name, layer in mask.items()
    ]


def _format_table(table: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in table.items() if value) if isinstance(table, Mapping) else ""


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, key = name.rpartition(".")
    return unwrapped(model).get_submodule(path), key
