"""Counter-based dropout: equal in every engine, on every device, with any number of threads or interruptions.

Whether an element is kept is an integer hash of (key of the training, update, layer, example of the batch, unit). So
resuming needs no generator state, and the native engine computes the same hash.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF


def _splitmix64(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


def _mix32(x: Tensor) -> Tensor:
    """A 32-bit integer hash on int64 tensors with values in [0, 2^32)."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK32
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK32
    return x ^ (x >> 16)


def hashes(key: int, update: int, layer: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    """A number in [0, 2^32) for each element of `shape` (batch, units), as int64."""
    z = _splitmix64((key + 0x9E3779B97F4A7C15 * (update * 64 + layer + 1)) & _MASK64)
    element = torch.arange(shape[0] * shape[1], dtype=torch.int64, device=device).reshape(shape)
    return _mix32((_mix32(element ^ (z & _MASK32)) + (z >> 32)) & _MASK32)


def keep_mask(key: int, update: int, layer: int, shape: tuple[int, int], p: float, device: torch.device) -> Tensor:
    """A bool tensor of `shape` (batch, units): the elements that dropout with probability `p` keeps in this update."""
    return hashes(key, update, layer, shape, device) >= int(p * 2**32)


class CounterDropout(nn.Module):
    """Inverted dropout with probability `p`; the engine sets `key` and `update` before each update.

    `row` is the position in the batch at which its inputs begin; it is not 0 if several processes divide a batch.
    """

    def __init__(self, p: float, layer: int) -> None:
        super().__init__()
        self.p, self.layer, self.key, self.update, self.row = p, layer, 0, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        shape = (self.row + x.shape[0], x.shape[1:].numel())
        keep = keep_mask(self.key, self.update, self.layer, shape, self.p, x.device)[self.row :].reshape(x.shape)
        return x * keep * (1 / (1 - self.p))


def set_counter(model: nn.Module, key: int, update: int) -> None:
    """Set the training's key and the update in every dropout layer of `model`."""
    for module in model.modules():
        if isinstance(module, CounterDropout):
            module.key, module.update = key, update


def set_row(model: nn.Module, row: int) -> None:
    """Set the position in the batch at which the inputs begin, in every dropout layer of `model`."""
    for module in model.modules():
        if isinstance(module, CounterDropout):
            module.row = row
