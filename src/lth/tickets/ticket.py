"""Tickets: a mask, the start weights under it, and their origin; as values and as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lth.config import shown
from lth.data.classes import format_names
from lth.errors import Damaged, UsageError
from lth.models import format_not_counted, load
from lth.pruning import masks
from lth.pruning.masks import Mask
from lth.storage import checksums, layout, outcomes
from lth.storage.atomic import write_file
from lth.storage.tensors import load_tensors, pack, read_metadata, save_tensors, storage_fault, unpack
from lth.tickets import notebook, torch_format
from lth.tickets.hold import clear, find
from lth.tickets.misfit import check_fits, tied_in

FORMAT = 2
FORMATS = (1, FORMAT)  # format 1 had no checksum
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)
MOST_HEADER = 16 * 2**20  # maximum bytes of a ticket file's header: about 100,000 tensors
SIZE = 2**31  # maximum of a dimension or a number of classes


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(n) is int and 0 < n < SIZE for n in value)


def _are_seeds(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_whole, value.values()))


ORIGIN: dict[str, tuple[str, Callable[[Any], bool]]] = {  # the fields of a file's metadata and their types
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


@dataclass(frozen=True, repr=False)
class Ticket:
    """A mask, the start weights under it, and their origin. A ticket is immutable."""

    mask: Mask
    """One bool tensor per counted parameter, by name: true where the weight survives."""
    start: Mapping[str, Tensor]
    """The weights, biases and buffers with which training begins, by name."""
    origin: dict[str, Any] = field(default_factory=dict)
    """The model, trial, level, seeds, settings and versions that the ticket comes from, as far as they are known."""

    @property
    def density(self) -> float:
        """The fraction of counted weights that survive, in [0, 1]."""
        return masks.density(self.mask)

    def __repr__(self) -> str:
        return notebook.ticket_line(self.mask, self.origin)

    def _repr_html_(self) -> str:
        return notebook.ticket_html(self.mask, self.origin)

    def apply(self, model: nn.Module) -> nn.Module:
        """Load the start weights into `model` and set pruned weights to 0. Returns `model`.

        Raises UsageError naming every tensor and tie that does not fit.
        """
        check_fits(model, self.mask, self.start)
        held = find(model, self.mask)
        load(model, self.start)  # a ticket holds tensors only
        for one in held:  # by parameter, so that a tied weight is pruned under all its names
            clear(one.parameter, one)
        return model

    def to_prune(self, model: nn.Module) -> nn.Module:
        """Apply the ticket and store the mask as torch.nn.utils.prune does (NAME_orig, NAME_mask). Returns `model`.

        The module then trains, loads and copies like any other, and computes the outputs of the ticket. Raises
        UsageError if the ticket does not fit the model, and for parameters of torch.nn.utils.weight_norm.
        """
        torch_format.check(model, self.mask)
        torch_format.mask_in_place(self.apply(model), self.mask)
        return model

    @staticmethod
    def from_prune(model: nn.Module) -> Ticket:
        """The ticket of a model that was pruned with torch.nn.utils.prune, with its present weights as the start.

        The inverse of `to_prune`. Counted weights without a mask count as unpruned. Raises UsageError if the model has
        no such masks.
        """
        return Ticket(*torch_format.mask_and_weights(model))

    def save(self, path: str | Path) -> None:
        """Write a ticket file. Raises UsageError if it could not be loaded again."""
        write_file(Path(path), to_bytes(self))

    @staticmethod
    def load(path: str | Path) -> Ticket:
        """Read a ticket file. Raises UsageError naming the file and what is wrong with it."""
        if Path(path).exists() and not Path(path).is_file():  # reading a pipe might never end
            raise UsageError(f"{path} is not a file")
        try:
            return from_bytes(Path(path).read_bytes())
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"{path} is not a ticket file, or it is damaged: {error}") from None


def read_ticket(folder: Path, training_id: str) -> Ticket:
    """The ticket of a stored training of a run. Raises UsageError if it does not match the training's summary."""
    name = f"{training_id}/{layout.TICKET}"
    try:
        return from_bytes(outcomes.read_file(folder, name))
    except ValueError as error:
        raise Damaged(folder / name, str(error), layout.mended_by(folder)) from None


def to_bytes(ticket: Ticket) -> bytes:
    """The bytes of a ticket file: `mask/NAME` packed, `start/NAME`, and metadata as one key of sorted JSON.

    See `lth.storage.tensors` for the format. Raises UsageError for what `from_bytes` would refuse.
    """
    if fault := next(_faults(ticket), None):
        raise UsageError(f"the ticket cannot be saved: {fault}")
    tensors = {f"mask/{name}": pack(layer) for name, layer in ticket.mask.items()}
    tensors |= {f"start/{n}": t.contiguous() for n, t in masks.apply(ticket.mask, ticket.start).items()}
    origin = ticket.origin | {"format": FORMAT, "counts": masks.alive(ticket.mask), "density": ticket.density}
    return save_tensors(tensors, origin)


def _faults(ticket: Ticket) -> Iterator[str]:
    """The reasons why a ticket cannot be stored in a file that could be loaded again."""
    if not ticket.mask:
        yield "its mask is empty"
    for name, layer in ticket.mask.items():
        if layer.dtype != torch.bool:
            yield f"the mask of {name} is {layer.dtype}, expected torch.bool: give mask != 0"
        elif name not in ticket.start:
            yield f"its start lacks {name}"
        elif ticket.start[name].dtype not in FLOATS or layer.shape != ticket.start[name].shape:
            start = ticket.start[name]
            yield f"{name} is {start.dtype} {tuple(start.shape)}, expected floats of the mask's {tuple(layer.shape)}"
    for name, tensor in ticket.start.items():
        if fault := storage_fault(tensor):
            yield f"{name} {fault}"


def from_bytes(content: bytes) -> Ticket:
    """The inverse of `to_bytes`. Raises ValueError with the reason if the bytes are invalid."""
    if (head := checksums.head_of(content)) > MOST_HEADER + 8:
        raise ValueError(f"its header has {head:,} bytes, more than the maximum of {MOST_HEADER:,} for a ticket")
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


def class_names(ticket: Ticket) -> tuple[str, ...]:
    """The names of the classes in the order of the network's outputs; empty if classes are only numbers."""
    names = _data_settings(ticket).get("classes")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def data_name(ticket: Ticket) -> str:
    """The dataset on which the ticket was found; "" if it is not known."""
    return str(_data_settings(ticket).get("name", ""))


def _data_settings(ticket: Ticket) -> Mapping[str, Any]:
    settings = ticket.origin.get("settings")
    data = settings.get("data") if isinstance(settings, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def describe(ticket: Ticket) -> list[str]:
    """Lines of text about a ticket and its origin."""
    rest = sum(t.numel() for name, t in ticket.start.items() if name not in ticket.mask)
    return [
        *(f"{name:10}  {text}" for name, text in _facts(ticket).items() if text),
        *_format_layers(ticket.mask),
        f"and {rest:,} values that are not counted (biases, norms, buffers)",
        *_format_left_out(ticket),
    ]


def facts(ticket: Ticket) -> dict[str, Any]:
    """The same information as `describe`, as JSON values: density, counts per layer, origin."""
    alive = masks.alive(ticket.mask)
    layers = {name: {"shape": list(m.shape), "alive": alive[name]} for name, m in ticket.mask.items()}
    counted = {"weights": sum(alive.values()), "of": masks.size(ticket.mask), "density": ticket.density}
    return counted | {"layers": layers, "origin": dict(ticket.origin)}


def _format_left_out(ticket: Ticket) -> list[str]:
    """A line on uncounted parameters, from the search or, for other tickets, from its tensors."""
    if isinstance(lines := ticket.origin.get("left_out"), list):
        return [f"  {line}" for line in lines]
    mask, start = ticket.mask, ticket.start
    others = [name for name in start if start[name].dim() > 1 and name not in mask]
    shapes = {name: start[name].shape for name in others if not tied_in(mask, start, name)}
    reason = "not a weight matrix or kernel, or a buffer"
    return [f"  {line}" for line in format_not_counted(dict.fromkeys(shapes, reason), shapes)]


def _facts(ticket: Ticket) -> dict[str, str]:
    origin = {key: value for key, value in ticket.origin.items() if value is not None}
    settings = origin.get("settings", {})
    weights, total = sum(masks.alive(ticket.mask).values()), masks.size(ticket.mask)
    seeds, names = origin.get("seeds", {}), class_names(ticket)
    number = "classes" if _data_settings(ticket).get("task", "classification") == "classification" else "outputs"
    return {
        "model": _format_table(origin.get("model")),
        "weights": f"{weights:,} of {total:,} remain: {100 * ticket.density:.2f}% (density {ticket.density:.6g})",
        "place": ", ".join(f"{key} {origin[key]}" for key in ("trial", "level", "branch") if key in origin),
        "seed": str(seeds["experiment"]) if "experiment" in seeds else "",
        "inputs": " x ".join(map(str, origin.get("inputs", []))),
        number: ": ".join([str(origin.get("classes", "")), *([format_names(names, 20)] if names else [])]),
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
