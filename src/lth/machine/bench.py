"""Measure the time per training iteration by density on this machine, for both engines, and its peak arithmetic rate.

LeNet-300-100 at batch 60, Adam, one thread, uniform random masks (the given density in each hidden layer, twice it, at
most 1, in the output layer), synthetic images of MNIST's shape. The engines are measured in short alternating rounds in
one process, so that other load affects both.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lth import native
from lth.errors import UsageError
from lth.training import processor

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
SIZES = (784, 300, 100, 10)
SCALED = (1.0, 0.05)  # densities at which several trainings run in parallel
BATCH = 60
EXAMPLES = 60_000
RATE = 1.2e-3
SEED = 1


@dataclass(frozen=True)
class Start:
    """A masked LeNet before training: one mask, weight and bias per layer, in torch's shapes."""

    masks: list[np.ndarray]
    weights: list[np.ndarray]
    biases: list[np.ndarray]


def random_start(density: float, sizes: Sequence[int] = SIZES, seed: int = SEED) -> Start:
    """Glorot weights under uniform random masks: `density` in the hidden layers, twice it (at most 1) in the output
    layer.
    """
    generator = np.random.default_rng(seed)
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    densities = [density] * (len(shapes) - 1) + [min(1.0, 2 * density)]
    masks = [generator.random(shape) < d for shape, d in zip(shapes, densities, strict=True)]
    scales = [(2 / sum(shape)) ** 0.5 for shape in shapes]
    draw = lambda shape, scale: (generator.standard_normal(shape) * scale).astype(np.float32)
    weights = [draw(shape, scale) * mask for shape, scale, mask in zip(shapes, scales, masks, strict=True)]
    return Start(masks, weights, [np.zeros(rows, np.float32) for rows, _ in shapes])


def synthetic_images(count: int, features: int = SIZES[0]) -> tuple[np.ndarray, np.ndarray]:
    """Random uint8 images [count, features] and int64 labels [count] from a fixed seed."""
    generator = np.random.default_rng(SEED)
    return generator.integers(0, 256, (count, features), np.uint8), generator.integers(0, SIZES[-1], count)


def arithmetic(start: Start, batch: int = BATCH) -> int:
    """Floating-point operations per iteration on surviving weights: forward, weight gradient, input gradient."""
    alive = [int(mask.sum()) for mask in start.masks]
    return 2 * batch * (2 * sum(alive) + sum(alive[1:]))


def torch_round(start: Start, images: torch.Tensor, labels: torch.Tensor) -> Callable[[int], float]:
    """Return a function that trains n iterations with torch and returns seconds per iteration."""
    layers = [nn.Linear(mask.shape[1], mask.shape[0]) for mask in start.masks]
    for layer, weight, bias in zip(layers, start.weights, start.biases, strict=True):
        layer.weight.data.copy_(torch.from_numpy(weight))
        layer.bias.data.copy_(torch.from_numpy(bias))
    masks = [torch.from_numpy(mask).float() for mask in start.masks]
    model = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    generator = torch.Generator().manual_seed(SEED)

    def step(batch: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images.index_select(0, batch)), labels.index_select(0, batch)).backward()
        for layer, mask in zip(layers, masks, strict=True):
            layer.weight.grad.mul_(mask)  # pyright: ignore[reportOptionalMemberAccess]
        optimizer.step()

    def run(iterations: int) -> float:
        batches = torch.randint(len(images), (iterations, BATCH), generator=generator)
        begin = time.perf_counter()
        for batch in batches:
            step(batch)
        return (time.perf_counter() - begin) / iterations

    return run


def native_round(start: Start, data: Any, isa: str | None = None) -> Callable[[int], float]:
    """Return a function that trains n iterations with the native engine and returns seconds per iteration."""
    sizes = [start.masks[0].shape[1], *(mask.shape[0] for mask in start.masks)]
    network = native.Network(sizes, start.masks, start.weights, start.biases, isa=isa)
    generator = np.random.default_rng(SEED)

    def run(iterations: int) -> float:
        batches = generator.integers(0, len(data), iterations * BATCH)
        ends = np.arange(1, iterations + 1) * BATCH
        rates = np.full(iterations, RATE)
        begin = time.perf_counter()
        network.train(data, batches, ends, rates)
        return (time.perf_counter() - begin) / iterations

    return run


def alternate(runs: Sequence[Callable[[int], float]], rounds: int, seconds: float) -> list[list[float]]:
    """Run the functions in turn, `rounds` times, each round about `seconds` long.

    Returns seconds per iteration of each.
    """
    iterations = [max(5, int(seconds / run(5))) for run in runs]
    samples = [[run(n) for run, n in zip(runs, iterations, strict=True)] for _ in range(rounds)]
    return [list(column) for column in zip(*samples, strict=True)]


def peak() -> float:
    """Floating-point operations per second of the best float32 matrix product of several shapes on one thread."""
    return max(matrix_product(*shape) for shape in [(BATCH, 784, 300), (256, 256, 256), (512, 512, 512), (1024,) * 3])


def matrix_product(rows: int, inner: int, columns: int, repeats: int = 12) -> float:
    a, b, work = torch.rand(rows, inner), torch.rand(inner, columns), 2 * rows * inner * columns
    inner_repeats = max(1, int(2e8 / work))

    def seconds() -> float:
        begin = time.perf_counter()
        for _ in range(inner_repeats):
            torch.mm(a, b)
        return (time.perf_counter() - begin) / inner_repeats

    return work / min(seconds() for _ in range(repeats))


def scaling(runs: Sequence[Callable[[int], float]], rounds: int, seconds: float) -> float:
    """Throughput of all `runs` in parallel, one thread each, relative to one alone: the median over rounds."""
    iterations = max(5, int(seconds / runs[0](20)))

    def elapsed(active: Sequence[Callable[[int], float]]) -> float:
        begin = time.perf_counter()
        list(pool.map(lambda run: run(iterations), active))
        return time.perf_counter() - begin

    with ThreadPoolExecutor(len(runs)) as pool:
        return statistics.median(len(runs) * elapsed(runs[:1]) / elapsed(runs) for _ in range(rounds))


@contextmanager
def one_thread():
    """Use one torch thread, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, Any]:
    """Processor, cores and memory, without the host name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor.name(),
        "cores": processor.cores(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def measure(start: Start, density: float, data: Any, tensors: Any, limit: float, rounds: int, seconds: float) -> dict:
    """One row of the table; without native data, only torch's time."""
    runs = [torch_round(start, *tensors)] + ([native_round(start, data)] if data else [])
    samples = alternate(runs, rounds, seconds)
    medians = [statistics.median(column) for column in samples]
    row = {"density": density, "native_ms": None, "torch_ms": 1e3 * medians[0], "ratio": None, "share_of_peak": None}
    if data:
        row["native_ms"] = 1e3 * medians[1]
        row["ratio"] = statistics.median(b / a for a, b in zip(*samples, strict=True))
        row["share_of_peak"] = arithmetic(start) / medians[1] / limit
    return row


def check_file(file: Path) -> None:
    """Raise UsageError if the numbers could not be written there, before they are measured."""
    if file.is_dir():
        raise UsageError(f"--json {file}: it is a folder; name a file, such as {file / 'bench.json'}")
    above = next(folder for folder in file.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"--json {file}: {above} is no folder that can be written; name another file")


def bench(
    densities: Sequence[float] = DENSITIES,
    rounds: int = 9,
    seconds: float = 0.15,
    examples: int = EXAMPLES,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure both engines and return what `lth bench --json` writes.

    Each density takes `rounds` rounds of about `seconds` per engine. Times are medians in milliseconds, `ratio` is the
    median over rounds of native / torch, `share_of_peak` the arithmetic on surviving weights relative to the best
    matrix product of this run, `scaling` the throughput of one training per core relative to a single one (the lowest
    of `scaling_by_density`). Without the native engine its columns are None and `why_not` has the reason.
    """
    pixels, labels = synthetic_images(examples)
    tensors = (torch.from_numpy(pixels).float().div_(255), torch.from_numpy(labels))
    data = native.Dataset(pixels, labels) if native.available() else None
    with one_thread():
        limit = peak()
        rows = []
        for density in densities:
            row = measure(random_start(density), density, data, tensors, limit, rounds, seconds)
            rows.append(row)
            tell(describe(row))
        limit = max(limit, peak())
    side_by_side = lambda density: scaling(
        [native_round(random_start(density), data) for _ in range(processor.cores())], rounds, seconds
    )
    by_density = {density: side_by_side(density) for density in SCALED if data}
    return {
        "rows": rows,
        "scaling": min(by_density.values(), default=None),
        "scaling_by_density": {str(d): value for d, value in by_density.items()},
        "peak_gflops": limit / 1e9,
        "machine": machine(),
        "versions": versions(),
        "instruction_set": native.instruction_set(),
        "n": rounds,
        "why_not": native.why_not(),
    }


def describe(row: dict[str, Any]) -> str:
    """Format a row of the result."""
    line = f"density {row['density']:<5g} torch {row['torch_ms']:.3f} ms"
    if row["native_ms"] is None:
        return line
    return f"{line}  native {row['native_ms']:.3f} ms  ratio {row['ratio']:.3f}  {row['share_of_peak']:.0%} of peak"
