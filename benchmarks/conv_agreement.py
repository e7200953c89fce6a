"""Compare learning in float32 and bfloat16: trainings of a convolutional network from equal starts and batches.

    python benchmarks/conv_agreement.py [--model conv2] [--iterations 1500] [--seeds 3] [--density 1.0] [--csv FILE]

A seed determines a start, a mask (if the density is below 1) and an order of batches; each is trained once in float32
and once in bfloat16, on one thread. At each evaluation the validation loss and accuracy of both are printed, the
difference between the precisions (mean over seeds), and the range of float32 over seeds.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch

from lth import data
from lth.config import Recipe, resolve
from lth.execution import setup
from lth.models import build, groups
from lth.models.init import draw
from lth.pruning import masks
from lth.randomness import generator
from lth.training.torch_engine import Prepared, TorchEngine, prepare

PRECISIONS = ("float32", "bfloat16")


Row = tuple[str, int, int, float, float]  # precision, seed, iteration, loss, accuracy


def curve(
    model: str, recipe: Recipe, prepared: Prepared, seed: int, density: float, every: int
) -> list[tuple[int, float, float]]:
    """(iteration, validation loss, validation accuracy) of one training."""
    network = build(resolve(model).model, (3, 32, 32), 10)
    start, mask = draw(network, generator(seed, "start")), {}
    drawn = generator(seed, "mask")
    for name in groups(network):
        mask[name] = torch.rand(start[name].shape, generator=drawn) < density
    engine = TorchEngine(network, masks.apply(mask, start), mask, recipe, prepared, (seed, "agreement"), "cpu")
    found, began = [], time.perf_counter()
    for iteration in range(every, recipe.iterations + 1, every):
        engine.advance(iteration)
        found.append((iteration, *engine.evaluate("validation")))
    print(f"  {recipe.precision}, seed {seed}: {found[-1]}, {time.perf_counter() - began:.0f} s", flush=True)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="conv2")
    options.add_argument("--iterations", type=int, default=1500)
    options.add_argument("--every", type=int, default=250)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--first", type=int, default=1, help="the first of them")
    options.add_argument("--density", type=float, default=1.0)
    options.add_argument("--csv", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    prepared = prepare(setup.splits_of(resolve(given.model), data.load("cifar10", None, print)), "cpu")
    rows: list[Row] = []
    for seed in range(given.first, given.first + given.seeds):
        for precision in PRECISIONS:
            recipe = resolve(given.model).recipe.model_copy(
                update={"iterations": given.iterations, "precision": precision}
            )
            found = curve(given.model, recipe, prepared, seed, given.density, given.every)
            rows += [(precision, seed, *row) for row in found]
            if given.csv:
                with given.csv.open("w", newline="") as file:
                    csv.writer(file).writerows([("precision", "seed", "iteration", "val_loss", "val_accuracy"), *rows])
    report(given, rows)


def report(given: argparse.Namespace, rows: list[Row]) -> None:
    print(f"\n{given.model}, density {given.density:g}, {given.seeds} seeds, torch {torch.__version__}\n")
    print("| iteration | what | float32 | bfloat16 | difference | spread of seeds |\n|---|---|---|---|---|---|")
    for iteration in sorted({row[2] for row in rows}):
        for what in ("loss", "accuracy"):
            here = [(p, loss if what == "loss" else accuracy) for p, _, i, loss, accuracy in rows if i == iteration]
            of = {p: [value for precision, value in here if precision == p] for p in PRECISIONS}
            mean = {p: sum(values) / len(values) for p, values in of.items()}
            spread = max(of["float32"]) - min(of["float32"])
            difference = mean["bfloat16"] - mean["float32"]
            cells = (mean["float32"], mean["bfloat16"], difference, spread)
            print(f"| {iteration} | {what} | " + " | ".join(f"{value:.4f}" for value in cells) + " |")


if __name__ == "__main__":
    main()
