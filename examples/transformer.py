"""The tickets of a small transformer, with a custom training loop, which imp calls once per level.

    python examples/transformer.py

The task is to reverse a sequence. The loop makes its optimizer and its schedule as usual, and contains no masks:
`lth.imp` resets everything before each level, and holds pruned weights at 0 after every step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lth

SYMBOLS, LENGTH = 12, 8


class Transformer(nn.Module):
    """Embedding, positions, encoder layers; the output layer is tied to the embedding."""

    def __init__(self, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, width)
        self.positions = nn.Parameter(torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, nhead=4, dim_feedforward=2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.output = nn.Linear(width, SYMBOLS, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.encoder(self.embedding(x) + self.positions))


def batch(size: int, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, SYMBOLS, (size, LENGTH), generator=drawn)
    return x, x.flip(1)


def accuracy(model: nn.Module) -> float:
    x, y = batch(500, torch.Generator().manual_seed(2))
    with torch.no_grad():
        return (model.eval()(x).argmax(2) == y).double().mean().item()


def trainer(iterations: int) -> Callable[[nn.Module], float]:
    def train(model: nn.Module) -> float:
        drawn = torch.Generator().manual_seed(1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=iterations)
        for _ in range(iterations):
            x, y = batch(64, drawn)
            loss = cross_entropy(model(x).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return accuracy(model)

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--levels", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("transformer"))
    options = parser.parse_args()

    torch.manual_seed(0)
    model = Transformer()
    # attention faster than the rest; the embedding, which is the output layer too, not at all
    rates = {"*attn*": 0.4, "embedding.*": 0.0}
    tickets = lth.imp(model, trainer(options.iterations), rate=0.3, levels=options.levels, rates=rates, say=print)
    print(tickets.summary.to_string(index=False))

    ticket = tickets.winning
    if ticket is None:
        print("no ticket is as good as the whole network: more iterations, or smaller rates, may help")
        return
    ticket.save(options.out / "ticket.safetensors")
    print(f"{options.out / 'ticket.safetensors'}: {100 * ticket.density:.1f}% of the weights, reset and ready to train")


if __name__ == "__main__":
    main()
