"""The ticket of a regression network for tabular data: find_tickets does the training.

    python examples/tabular.py

The target depends on three of eight inputs, and the network is far larger than it needs to be. The results are a table
of levels, the winning ticket in a file, and a small dense network with the same outputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lth


def table(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight columns of numbers, and a target computed from three of them, with a little noise."""
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(rows, 8)).astype(np.float32)
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.05 * drawn.normal(size=rows)
    return x, y[:, None].astype(np.float32)


def r2(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The explained share of the targets' variance: a metric is higher where the network is better."""
    return 1 - float((outputs - targets).square().sum() / (targets - targets.mean()).square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--levels", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("tabular"))
    options = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 1))
    tickets = lth.find_tickets(
        model,
        {"train": table(4000, seed=1), "test": table(1000, seed=2)},
        lth.Recipe(optimizer="adam", lr=0.002, iterations=options.iterations, batch=100, eval_every=50),
        rate=0.3,
        levels=options.levels,
        rates={"5.*": 0.1},  # the output layer, more slowly
        metric=r2,
        say=print,
    )
    print(tickets.summary[["level", "density", "weights", "early_stop_iteration", "score"]].to_string(index=False))

    ticket = tickets.winning or tickets[len(tickets) - 1]
    ticket.save(options.out / "ticket.safetensors")
    print(f"{options.out / 'ticket.safetensors'}: {100 * ticket.density:.1f}% of the weights")

    small = lth.compact(model, torch.zeros(2, 8))  # of the last level: `model` has its weights
    before, after = (sum(t.numel() for t in module.state_dict().values()) for module in (model, small))
    print(f"the last level without its dead units: {after:,} numbers instead of {before:,}")


if __name__ == "__main__":
    main()
