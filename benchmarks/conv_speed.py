"""Time of a training iteration of the convolutional networks on a CPU: plain float32 against what `lth run` does.

    python benchmarks/conv_speed.py [conv2 conv4 ...] [--rounds 5] [--iterations 4] [--density 1.0] [--sparse]

Four ways, in short alternating rounds: float32 as torch has it (channels first, one trial on all cores), bfloat16 by
autocast with channels_last, and the bfloat16 of this package, twice. Of the second and third, as many one-thread trials
as there are cores run side by side, in processes of their own, and the time is that of an iteration divided by their
number; of the fourth, one trial runs on all cores, as by `lth run --threads`. Images are random; the recipes are the
presets'. Lowest and median over rounds are printed as a Markdown table; beside them the processor time of one iteration
of one trial, which tells how much of a time was waiting for a busy machine.

--sparse: in place of that, Conv-2's first fully connected layer by density, dense and from its surviving weights alone.
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

from lth import masks
from lth.config import Recipe, resolve
from lth.models import build, groups
from lth.models.init import draw
from lth.randomness import generator
from lth.training import sparse, updates
from lth.training.learners import optimizer_for
from lth.training.torch_engine import TorchEngine

NAMES = ("conv2", "conv4", "conv6", "conv6-256", "resnet18", "vgg19")
WAYS = ("float32", "autocast", "ours", "alone")
EXAMPLES = 1500
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
    """One of `count` trials: does every round of every way together with the others."""
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
        for round_ in range(given.rounds + 1):  # the first warms up
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


def compare_sparse(given: argparse.Namespace) -> None:
    """Conv-2's first fully connected layer: forward, backward and update, batch 60, one thread, processor time."""
    torch.set_num_threads(1)
    recipe, inputs, outputs = Recipe(lr=1e-3, iterations=1), 16384, 256
    x = torch.randn(60, inputs).clamp(0).bfloat16().requires_grad_()
    gradient = torch.randn(60, outputs).bfloat16()
    print("| density | dense, ms | survivors alone, ms |\n|---|---|---|")
    for density in (0.5, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01):
        mask = torch.rand(outputs, inputs) < density
        weight = nn.init.trunc_normal_(torch.empty(outputs, inputs)) * mask
        where, bias = sparse.places(mask), torch.zeros(outputs)
        values, used = where.gather(weight).requires_grad_(), weight.bfloat16().requires_grad_()
        slots = updates.slot(recipe, weight, mask, used.data), updates.slot(recipe, values.data)

        def dense(used=used, slot=slots[0], bias=bias) -> None:
            y = F.linear(x, used, bias.bfloat16())
            updates.step(recipe, 1e-3, 1, [slot], torch.autograd.grad(y, (x, used), gradient)[1:])

        def survivors(values=values, slot=slots[1], bias=bias, where=where) -> None:
            y = sparse.SparseProduct.apply(x, values, bias, where)
            updates.step(recipe, 1e-3, 1, [slot], torch.autograd.grad(y, (x, values), gradient)[1:])

        times: dict[Callable[[], None], list[float]] = {dense: [], survivors: []}
        for _ in range(3 * given.rounds):
            for way, seconds in times.items():
                began = time.thread_time()
                way()
                seconds.append(time.thread_time() - began)
        print(f"| {density:g} | {1e3 * min(times[dense]):.1f} | {1e3 * min(times[survivors]):.1f} |", flush=True)


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
