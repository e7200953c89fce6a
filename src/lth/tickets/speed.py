"""What a smaller module is worth beside the one that it was made of: size, speed, and that outputs are the same."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth.errors import LthError


@dataclass(frozen=True)
class Worth:
    """What was achieved: numbers stored, and milliseconds of a forward pass by batch (before, after)."""

    weights: tuple[int, int]
    milliseconds: dict[int, tuple[float, float]]
    difference: float  # the largest of any output, relative to the largest output
    rounds: int

    def lines(self) -> list[str]:
        before, after = self.weights
        how = f"one thread, median of {self.rounds} alternating rounds"
        return [
            f"{after:,} numbers, were {before:,}: {before / after:.1f} times as small",
            *(
                f"batch {batch}: {new:.3f} ms, was {old:.3f} ms: {old / new:.1f} times as fast ({how})"
                for batch, (old, new) in self.milliseconds.items()
            ),
            f"outputs differ by {self.difference:.1e} of the largest at most",
        ]


def difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """How far outputs differ at most, relative to the largest of their tensor.

    Raises LthError where that is more than rounding.
    """
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        apart = _apart(a, b)
        worst = max(worst, apart)
        if not apart < _rounding(a):
            raise LthError(f"the compact module's outputs differ by {apart:.1e} of the largest: please report this")
    return worst


def _apart(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return math.inf
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0  # a class that is chosen by the largest of two near equals may change with rounding
    a, b = (
        t.detach().cpu().to(torch.complex128 if t.is_complex() else torch.float64).nan_to_num()
        for t in (expected, found)
    )
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) if a.numel() else 0.0


def _rounding(tensor: Tensor) -> float:
    """What counts as rounding. A GPU may multiply float32 with the ten bits of TF32."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 1.0
    eps = torch.finfo(tensor.dtype).eps
    return max(1e-3, 16 * (eps if tensor.device.type == "cpu" else max(eps, 2**-10)))


@torch.no_grad()
def measure(model: nn.Module, small: nn.Module, example: Tensor, rounds: int = 15) -> Worth:
    """Size and speed of `small` beside `model`, in evaluation mode, and how far their outputs differ on `example`.

    Times are of one thread: small networks lose on several where the cores are busy. Raises LthError where outputs
    differ by more than rounding.
    """
    model, small = model.eval(), small.eval()
    found = difference([model(example)], [small(example)])
    times, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for batch in (1, len(example)):
            x = example[:batch]
            rows = [(_time(model, x), _time(small, x)) for _ in range(rounds)]
            before, after = (statistics.median(column) for column in zip(*rows, strict=True))
            times[batch] = (1000 * before, 1000 * after)
    finally:
        torch.set_num_threads(threads)
    numbers = lambda module: sum(tensor.numel() for tensor in module.state_dict().values())
    return Worth((numbers(model), numbers(small)), times, found, rounds)


def _time(model: nn.Module, x: Tensor) -> float:
    began = time.perf_counter()
    model(x)
    return time.perf_counter() - began
