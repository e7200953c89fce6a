"""Export a stored training as a ticket, a plain state_dict, or an ONNX network."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from lth.config import Model, nearest, shown
from lth.data.classes import format_names
from lth.errors import UsageError
from lth.models import build
from lth.plan import training_id
from lth.results import tables, verdict
from lth.storage import atomic, layout
from lth.storage.links import refuse_links
from lth.storage.tensors import read_tensors
from lth.tickets import compact as compacted
from lth.tickets import speed
from lth.tickets.ticket import Ticket, class_names, read_ticket

ENDINGS = (".safetensors", ".pt", ".onnx")
WEIGHTS = ("trained", "start")
ONNX_MISSING = "a .onnx file needs onnx and onnxscript: pip install 'lth[onnx]'"
BATCH = 64  # batch of the example from which shapes are read and with which speed is measured


def export(
    run: str | Path,
    trial: int,
    level: int | None,
    to: str | Path,
    *,
    branch: str = "ticket",
    weights: str | None = None,
    compact: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a training of a run as a file, in the format given by the suffix of `to`; the function behind `lth export`.

    .safetensors is the ticket: mask and start. .pt is a plain state_dict, and .onnx a network with inputs [batch, ...]
    as in the run (pixels in [0, 1], standardised if `data.mean` is set); both hold the `trained` weights or the
    `start`. If classes have names, NAME.classes.json next to the file lists them in the order of the outputs. With
    `compact` the file holds the smaller dense module of `lth.compact`. The default level is the winning one. Returns
    the path. Raises UsageError if there is no such training, or the options contradict each other.
    """
    folder, to = Path(run), Path(to)
    _check(to, weights, compact)
    refuse_links(folder)
    level = _winning(folder) if level is None else level
    ticket = stored_ticket(folder, trial, level, branch)
    if to.suffix == ".safetensors":
        ticket.save(to)
        say(f"{to}: the ticket of trial {trial}, level {level}, {100 * ticket.density:.2f}% of weights, with its start")
        return to
    which = weights or "trained"
    state = ticket.start if which == "start" else trained_weights(folder, trial, level, branch)
    content = _content(ticket, state, to.suffix, compact, say)
    atomic.write_file(to, content)
    if names := class_names(ticket):
        beside = to.with_name(f"{to.stem}.classes.json")
        atomic.write_file(beside, (json.dumps(names, ensure_ascii=False) + "\n").encode())
        say(f"{beside}: the classes in the order of the outputs: {format_names(names)}")
    of = " of the compact network" if compact else ""
    say(f"{to}: the {which} weights{of}, trial {trial}, level {level}, {len(content):,} bytes")
    return to


def stored_ticket(folder: Path, trial: int, level: int, branch: str) -> Ticket:
    """The ticket of a stored training. Raises UsageError naming the stored trials and levels if it does not exist."""
    return read_ticket(folder, _stored(folder, trial, level, branch))


def trained_weights(folder: Path, trial: int, level: int, branch: str) -> dict[str, Tensor]:
    """The trained weights of a stored training. Raises UsageError if they are not stored."""
    name = _stored(folder, trial, level, branch)
    path = folder / name / layout.TRAINED
    if not path.exists():
        raise UsageError(
            f"{path} does not exist: trained weights were not kept (store.keep). --weights start exports the start; "
            f"lth run --ticket {path.with_name(layout.TICKET)} trains it again, on batches in another order"
        )
    return read_tensors(folder, f"{name}/{layout.TRAINED}")


def _stored(folder: Path, trial: int, level: int, branch: str) -> str:
    name = training_id(trial, level, branch)
    if not (folder / name / layout.TICKET).is_file():
        raise UsageError(f"{folder} has no trial {trial}, level {level}, {branch}{_format_available(folder)}")
    return name


def _content(
    ticket: Ticket, state: Mapping[str, Tensor], suffix: str, compact: bool, say: Callable[[str], None]
) -> bytes:
    """The bytes of a .pt or .onnx file."""
    if not compact and suffix == ".pt":
        return to_pt(state)
    model, example = network(ticket)
    model.load_state_dict(state)
    if compact:
        whole, model = model, compacted.compact(model, example)
        for line in speed.measure(whole, model, example).lines():
            say(line)
    return onnx(model, example) if suffix == ".onnx" else to_pt(model.state_dict())


def network(ticket: Ticket) -> tuple[nn.Module, Tensor]:
    """The network that a ticket was pruned from, in evaluation mode, and a batch of inputs, uniform in [0, 1]."""
    origin = ticket.origin
    try:
        config = Model(**origin["model"])
        shape, classes = tuple(map(int, origin["inputs"])), int(origin["classes"])
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            "the ticket does not name its network; with your model: ticket.apply(model), then lth.compact"
        ) from None
    drawn = torch.Generator().manual_seed(0)
    return build(config, shape, classes).eval(), torch.rand(BATCH, *shape, generator=drawn)


def to_pt(state: Mapping[str, Tensor]) -> bytes:
    """A state_dict in torch.save's format, with tensors only, for torch.load(weights_only=True)."""
    content = io.BytesIO()
    torch.save({name: tensor.detach().clone() for name, tensor in state.items()}, content)
    return content.getvalue()


def onnx(model: nn.Module, example: Tensor) -> bytes:
    """The module as ONNX for batches of any size, by torch's exporter."""
    batch = torch.export.Dim("batch")
    with _exporter_quiet():
        program = torch.onnx.export(
            model, (example,), input_names=["inputs"], output_names=["outputs"], dynamo=True, verbose=False,
            dynamic_shapes=({0: batch},),
        )  # fmt: skip
    assert program is not None
    return program.model_proto.SerializeToString()


@contextmanager
def _exporter_quiet() -> Iterator[None]:
    """Hide the exporter's deprecation warnings, and its warning that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _check(to: Path, weights: str | None, compact: bool) -> None:
    """Raise UsageError for contradicting options, before anything is read."""
    if to.suffix not in ENDINGS:
        raise UsageError(f"--to {to}: expected a name that ends in {', '.join(ENDINGS)}{nearest(to.suffix, ENDINGS)}")
    if weights not in (None, *WEIGHTS):
        raise UsageError(f"--weights takes {', '.join(WEIGHTS)}; not {shown(weights)}{nearest(str(weights), WEIGHTS)}")
    if to.suffix == ".safetensors" and (weights or compact):
        option = "--compact" if compact else "--weights"
        raise UsageError(f"{option} is for .pt and .onnx: a ticket file holds the mask and the start, whole")
    if to.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UsageError(ONNX_MISSING)


def _winning(folder: Path) -> int:
    judged = verdict.of(tables.load(folder))
    if judged.winning is None:
        unreached = any(level.unreached for level in judged.levels)
        reason = ", as the early stop was not reached at some level" if unreached else ""
        raise UsageError(f"{folder} has no winning level{reason}: give --level")
    return judged.winning


def _format_available(folder: Path) -> str:
    """The stored trials and levels, for an error message."""
    places = [(trial, level) for trial, level, path in layout.trunk_folders(folder) if (path / layout.TICKET).exists()]
    if not places:
        return ": there are no tickets in it"
    trials, levels = (sorted({*several}) for several in zip(*places, strict=True))
    return f": it has trials {', '.join(map(str, trials))} and levels {levels[0]} to {levels[-1]}"
