"""Compare the size, speed and outputs of a compact module with those of the original."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth.errors import LthError


@dataclass(frozen=True)
class Speedup:
    """Pairs (before, after): number of stored values, and milliseconds per forward pass by batch size."""

    weights: tuple[int, int]
    milliseconds: dict[int, tuple[float, float]]
    difference: float  # largest difference of any output, relative to the largest output
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


def difference(expected: list[Tensor], outputs: list[Tensor]) -> float:
    """The largest difference of outputs, relative to the largest output of the same tensor.

    Raises LthError if it is more than rounding.
    """
    worst = 0.0
    for a, b in zip(expected, outputs, strict=True):
        apart = _apart(a, b)
        worst = max(worst, apart)
        if not apart < _rounding(a):
            raise LthError(f"the compact module's outputs differ by {apart:.1e} of the largest: please report this")
    return worst


def _apart(expected: Tensor, output: Tensor) -> float:
    if expected.shape != output.shape:
        return math.inf
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0  # the argmax of two nearly equal values may change with rounding
    a, b = (
        t.detach().cpu().to(torch.complex128 if t.is_complex() else torch.float64).nan_to_num()
        for t in (expected, output)
    )
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) if a.numel() else 0.0


def _rounding(tensor: Tensor) -> float:
    """The largest difference that counts as rounding. A GPU may multiply float32 with TF32's ten-bit mantissa."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 1.0
    eps = torch.finfo(tensor.dtype).eps
    return max(1e-3, 16 * (eps if tensor.device.type == "cpu" else max(eps, 2**-10)))


@torch.no_grad()
def measure(model: nn.Module, small: nn.Module, example: Tensor, rounds: int = 15) -> Speedup:
    """Size and speed of `small` compared with `model`, in evaluation mode, and their difference on `example`.

    Times are measured on one thread, because small networks are slower on several threads of busy cores. Raises
    LthError if the outputs differ by more than rounding.
    """
    model, small = model.eval(), small.eval()
    apart = difference([model(example)], [small(example)])
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
    return Speedup((numbers(model), numbers(small)), times, apart, rounds)


def _time(model: nn.Module, x: Tensor) -> float:
    began = time.perf_counter()
    model(x)
    return time.perf_counter() - began
