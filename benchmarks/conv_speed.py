"""Time of a training iteration of the convolutional networks on a CPU: plain PyTorch compared with `lth run`.

    python benchmarks/conv_speed.py [conv2 conv4 ...] [--rounds 5] [--iterations 4] [--density 1.0] [--sparse]

Four variants in short alternating rounds: torch's float32 (channels first, one trial on all cores), bfloat16 by
autocast with channels_last, and the bfloat16 of this package, twice. For the second and third, one single-threaded
trial per core runs in a process of its own, and the time is that of an iteration divided by their number; for the
fourth, one trial runs on all cores, like `lth run --threads`. Images are random; the recipes are the presets'. The
minimum and median over rounds are printed as a Markdown table, with the processor time of one iteration of one trial,
which shows how much of the time was spent waiting on a busy machine.

--sparse: instead, layers of Conv-2 and VGG-19 by density, dense and from their surviving weights only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from lth.config import Recipe, resolve
from lth.models import build, groups
from lth.models.init import draw
from lth.pruning import masks
from lth.randomness import generator
from lth.training.bfloat16 import sparse, updates
from lth.training.bfloat16.lowering import lower
from lth.training.optimizers import optimizer_for
from lth.training.torch_engine import TorchEngine

NAMES = ("conv2", "conv4", "conv6", "conv6-256", "resnet18", "vgg19")
WAYS = ("float32", "autocast", "ours", "alone")
EXAMPLES = 1500
LAYERS: dict[str, tuple[Callable[[], nn.Linear | nn.Conv2d], tuple[int, ...]]] = {  # with the presets' batches
    "Conv-2, fc1": (lambda: nn.Linear(16384, 256), (60, 16384)),
    **{
        f"VGG-19, {n} channels of {side}x{side}": (
            lambda n=n: nn.Conv2d(n, n, 3, padding=1, bias=False),
            (64, n, side, side),
        )
        for n, side in ((256, 8), (512, 4), (512, 2))
    },
}
Run = Callable[[int], None]


def engine(name: str, precision: str, density: float, images: torch.Tensor, labels: torch.Tensor) -> Run:
    experiment = resolve(name)
    network = build(experiment.model, (3, 32, 32), 10)
    start, drawn = draw(network, generator(1)), generator(2)
    mask = {part: torch.rand(start[part].shape, generator=drawn) < density for part in groups(network)}
    recipe = experiment.recipe.model_copy(update={"precision": precision})
    made = TorchEngine(network, masks.apply(mask, start), mask, recipe, {"train": (images, labels)}, (name,), "cpu")

    def run(count: int) -> None:
        made.advance(made.iteration + count)

    return run


def autocast(name: str, recipe: Recipe, images: torch.Tensor, labels: torch.Tensor) -> Run:
    network = build(resolve(name).model, (3, 32, 32), 10)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    optimizer, order = optimizer_for(recipe, list(network.parameters())), torch.Generator().manual_seed(1)

    def run(count: int) -> None:
        for _ in range(count):
            batch = torch.randint(EXAMPLES, (recipe.batch,), generator=order)
            x = (images[batch].float() / 255).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = network(x)
            optimizer.zero_grad()
            F.cross_entropy(outputs.float(), labels[batch]).backward()
            optimizer.step()

    return run


def worker(number: int, count: int, given: argparse.Namespace, meet, results) -> None:
    """One of `count` trials: take part in every round of every variant together with the others."""
    drawn = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (EXAMPLES, 3, 32, 32), dtype=torch.uint8, generator=drawn)
    labels = torch.randint(0, 10, (EXAMPLES,), generator=drawn)
    for name in given.names:
        recipe = resolve(name).recipe
        runs: dict[str, Run] = {
            "float32": engine(name, "float32", given.density, images, labels),
            "autocast": autocast(name, recipe, images, labels),
            "ours": engine(name, "bfloat16", given.density, images, labels),
        }
        runs["alone"] = runs["ours"]
        for round_ in range(given.rounds + 1):  # warm-up
            for way in WAYS:
                alone = way in ("float32", "alone")
                torch.set_num_threads(count if alone else 1)
                meet.wait()
                if alone and number:
                    meet.wait()
                    continue
                began, cpu = time.perf_counter(), time.process_time()
                runs[way](given.iterations)
                cpu = (time.process_time() - cpu) / given.iterations
                meet.wait()
                wall = (time.perf_counter() - began) / given.iterations / (1 if alone else count)
                if round_ and not number:
                    results.put((name, way, wall, cpu))
    results.put(None) if not number else None


def compare(given: argparse.Namespace) -> None:
    count = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    meet, results = context.Barrier(count), context.Queue()
    trials = [context.Process(target=worker, args=(n, count, given, meet, results)) for n in range(count)]
    for trial in trials:
        trial.start()
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    while row := results.get():
        found.setdefault(row[:2], []).append(row[2:])
    for trial in trials:
        trial.join()
    rounds = f"lowest (median) of {given.rounds} rounds of {given.iterations}"
    print(f"Milliseconds per iteration of a trial, {rounds}; [processor time of one trial's iteration, lowest];")
    print(f"density {given.density:g}\n")
    columns = ("network", "batch", f"float32, {count} threads", f"autocast, {count} trials", f"ours, {count} trials")
    columns += (f"ours, 1 trial on {count} threads",)
    print(f"| {' | '.join(columns)} | ours / float32 | the same of processor time |\n|{'---|' * 8}")
    for name in given.names:
        cells, lowest, processor = [], {}, {}
        for way in WAYS:
            walls, cpus = zip(*found[name, way], strict=True)
            lowest[way], processor[way] = min(walls), min(cpus)
            cells.append(f"{1e3 * min(walls):.1f} ({1e3 * statistics.median(walls):.1f}) [{1e3 * min(cpus):.0f}]")
        ratio = lowest["ours"] / lowest["float32"]
        cells += [f"{ratio:.2f}", f"{processor['ours'] / processor['float32']:.2f}"]
        print(f"| {name} | {resolve(name).recipe.batch} | " + " | ".join(cells) + " |", flush=True)


def iteration(
    layer: nn.Linear | nn.Conv2d, mask: torch.Tensor, shape: tuple[int, ...], alone: bool
) -> Callable[[], None]:
    """Forward, backward and update of a layer as `lth run` computes it: dense, or from surviving weights (`alone`)."""
    sparse.BELOW = sparse.KERNELS_BELOW = sparse.MATRIX_BELOW = 2.0 if alone else 0.0
    lowered = lower(nn.Sequential(layer, nn.Linear(1, 1)), "cpu", {"0.weight": mask})  # the last density stays as it is
    weight, recipe = lowered.parameters["0.weight"], Recipe(lr=1e-3, iterations=1)
    weight.data.copy_(lowered.arranged("0.weight", layer.weight.data * mask))
    narrow = weight.dtype == torch.bfloat16
    kept = None if alone else torch.empty_like(weight, dtype=torch.bool).copy_(mask)
    slot = updates.slot(recipe, weight.data.float() if narrow else weight.data, kept, weight.data if narrow else None)
    x = torch.randn(shape).clamp(0).bfloat16()
    x = (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x).requires_grad_()
    computes = lowered.module.get_submodule("0")
    gradient = torch.randn_like(computes(x))

    def once() -> None:
        updates.step(recipe, 1e-3, 1, [slot], torch.autograd.grad(computes(x), (x, weight), gradient)[1:])

    return once


def compare_sparse(given: argparse.Namespace) -> None:
    """Layers by density, dense and from their surviving weights: one thread, processor time."""
    torch.set_num_threads(1)
    print("Milliseconds of an iteration, dense and from the survivors alone, lowest\n")
    print(f"| density | {' | '.join(LAYERS)} |\n|{'---|' * (len(LAYERS) + 1)}")
    for density in (0.3, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01):
        cells = []
        for made, shape in LAYERS.values():
            layer = made()
            mask = torch.rand(layer.weight.shape) < density
            ways = [iteration(layer, mask, shape, alone) for alone in (False, True)]
            times: list[list[float]] = [[], []]
            for _ in range(3 * given.rounds):
                for way, seconds in zip(ways, times, strict=True):
                    began = time.thread_time()
                    way()
                    seconds.append(time.thread_time() - began)
            cells.append(" ".join(f"{1e3 * min(seconds):.1f}" for seconds in times))
        print(f"| {density:g} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", default=NAMES, metavar="NETWORK", help=", ".join(NAMES))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--iterations", type=int, default=4)
    options.add_argument("--density", type=float, default=1.0)
    options.add_argument("--sparse", action="store_true")
    given = options.parse_args()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    print(f"{processor}, {os.cpu_count()} cores, load before {load:.1f}; torch {torch.__version__}\n", flush=True)
    compare_sparse(given) if given.sparse else compare(given)


if __name__ == "__main__":
    main()
