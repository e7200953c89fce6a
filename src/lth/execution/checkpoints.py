"""Checkpoints: unfinished trainings as the bytes of a safetensors file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from lth.storage import checksums
from lth.storage.tensors import load_tensors, read_metadata, save_tensors
from lth.training.loop import Checkpoint, Evaluation

log = logging.getLogger(__name__)


def checkpoint_bytes(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> bytes:
    """The checkpoint of the training that `identity` names, as bytes."""
    tensors = {f"state/{name}": tensor for name, tensor in checkpoint.state.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in checkpoint.best.items()}
    for iteration, state in checkpoint.states.items():
        tensors |= {f"states/{iteration}/{name}": tensor for name, tensor in state.items()}
    facts = {
        "iteration": checkpoint.iteration,
        "seconds": checkpoint.seconds,
        "curve": [asdict(row) for row in checkpoint.curve],
        "states": list(checkpoint.states),
        "identity": dict(identity),
    }
    return save_tensors(tensors, facts)


def from_checkpoint_bytes(content: bytes | None, identity: Mapping[str, Any]) -> Checkpoint | None:
    """The inverse of `checkpoint_bytes`; None without content.

    A checkpoint that is damaged, or belongs to another training than `identity`, is ignored with a warning.
    """
    if content is None:
        return None
    try:
        tensors, facts = load_tensors(content), read_metadata(content)
        if not facts.pop(checksums.KEY, None) or facts.pop("identity", None) != identity:
            raise ValueError("it belongs to another training")
        facts["curve"] = [_row(row) for row in facts["curve"]]
        if type(facts["iteration"]) is not int or not isinstance(facts["seconds"], int | float):
            raise ValueError("it has no iteration, or no seconds")
        state, best = (below(prefix, tensors) for prefix in ("state/", "best/"))
        states = {iteration: below(f"states/{iteration}/", tensors) for iteration in facts.pop("states", [])}
        return Checkpoint(**facts, state=state, best=best, states=states)
    except (KeyError, ValueError, TypeError) as error:
        log.warning("a checkpoint cannot be used: %s; its training starts over", error)
        return None


def _row(values: Mapping[str, Any]) -> Evaluation:
    row = Evaluation(**values)
    numbers = (row.val_loss, row.val_accuracy or 0.0, row.test_loss or 0.0, row.test_accuracy or 0.0)
    if type(row.iteration) is not int or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("its curve has values that are not numbers")
    return row


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
