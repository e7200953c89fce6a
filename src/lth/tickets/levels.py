"""What the tickets of one search share: one start, one byte per weight, and the trained weights of the levels."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from lth.errors import LthError
from lth.pruning.masks import Mask
from lth.storage.tensors import load_tensors, save_tensors

IN_MEMORY = 64 * 2**20  # bytes of trained weights of all levels; the rest is written to files
UNWRITABLE = (
    OSError,
    SafetensorError,
    ValueError,
    KeyError,
    RuntimeError,
)  # the disk is full, or torch cannot save the dtype


@dataclass(frozen=True, eq=False, repr=False)
class View(Mapping[str, Tensor]):
    """Tensors by name, computed when they are read. Copied and pickled as an OrderedDict of tensors."""

    names: Collection[str]
    make: Callable[[str], Tensor]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        return self.make(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __or__(self, other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**other, **self}

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(self.items())

    def __repr__(self) -> str:
        return f"<{len(self)} tensors: {', '.join([*self][:4])}{', ...' if len(self) > 4 else ''}>"


class Levels:
    """The masks and starts of nested levels, stored as one start and the level that removed each weight."""

    def __init__(self, start: Mapping[str, Tensor], mask: Mask, levels: int) -> None:
        dtype = torch.uint8 if levels < 255 else torch.int32
        self.start = start
        self.removed_at = {name: torch.full(m.shape, torch.iinfo(dtype).max, dtype=dtype) for name, m in mask.items()}

    def remove(self, mask: Mask, level: int) -> None:
        """Record `mask` as the mask of `level`. It must be inside the mask of the previous level."""
        for name, layer in mask.items():
            removed_at = self.removed_at[name]
            removed_at[~layer & (removed_at > level)] = level

    def mask(self, level: int) -> View:
        """The mask of a level, as a view."""
        return View(self.removed_at, lambda name: self.removed_at[name] > level)

    def masked_start(self, level: int, removed_at: Mapping[str, Tensor]) -> View:
        """The start under the mask of a level, as a view. `removed_at` includes all names of tied weights."""

        def masked(name: str) -> Tensor:
            weights = self.start[name].clone()
            if name in removed_at:
                weights[removed_at[name] <= level] = 0
            return weights

        return View(self.start, masked)


@dataclass(eq=False, repr=False)
class Trained:
    """The trained weights of each level: in memory up to a limit, then in a folder that is deleted with the object.

    Weights that cannot be written stay in memory, so that a full disk does not end a search.
    """

    states: list[dict[str, Tensor] | Path] = field(default_factory=list)
    folder: Path | None = None

    def add(self, state: dict[str, Tensor]) -> None:
        """Store the state of the next level. Its tensors must not change afterwards."""
        in_memory = sum(map(_size, (state for state in self.states if not isinstance(state, Path))))
        self.states.append(state if in_memory + _size(state) <= IN_MEMORY else self._written(state))

    def read(self, level: int) -> dict[str, Tensor]:
        """A copy of a level's state. Raises LthError if its file no longer exists."""
        state = self.states[level]
        if not isinstance(state, Path):
            return {name: tensor.clone() for name, tensor in state.items()}
        try:
            return load_tensors(state.read_bytes())
        except (OSError, ValueError) as error:
            raise LthError(f"the trained weights of level {level} cannot be read: {error}", path=state) from None

    def _written(self, state: dict[str, Tensor]) -> dict[str, Tensor] | Path:
        path = None
        try:
            path = self._folder() / f"level-{len(self.states):02d}.safetensors"
            path.write_bytes(save_tensors(state, {}))
            return path
        except UNWRITABLE:
            if path is not None:
                path.unlink(missing_ok=True)
            return state

    def _folder(self) -> Path:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="lth-trained-"))
            weakref.finalize(self, _remove, self.folder, os.getpid())
        return self.folder

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also in another process, has all states in memory."""
        return Trained, ([self.read(level) for level in range(len(self.states))],)


def _size(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not by a forked worker, which has a copy of the object in its memory
        shutil.rmtree(folder, ignore_errors=True)
