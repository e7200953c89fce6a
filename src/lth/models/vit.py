"""A small Vision Transformer for 32 x 32 images (Dosovitskiy et al., ICLR 2021), with pre-norm blocks.

Its weight matrices are counted: the patch embedding, qkv, the projection, both layers of each MLP, and the output
layer; 200,320 weights for CIFAR-10. The class token, the positional embeddings, biases and norms are not counted and
never pruned. All counted layers except the output layer are in the group `fc`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from lth.config import Model
from lth.errors import UsageError
from lth.models import init
from lth.models.architecture import Architecture
from lth.models.dropout import CounterDropout

PATCH, WIDTH, DEPTH, HEADS, MLP = 4, 64, 6, 4, 128
EMBEDDING_SIGMA = 0.02  # for the class token and the positional embeddings, as in the authors' code


class Patches(nn.Module):
    """Images [batch, channels, height, width] as [batch, patches, channels * PATCH * PATCH]."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # [batch, channels, rows, columns, PATCH, PATCH]
        return x.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


class Tokens(nn.Module):
    """Prepend a class token to the patches' tokens, and add a positional embedding to each."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, patches + 1, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1) + self.positions


class Attention(nn.Module):
    """Multi-head self-attention, without fused kernels, whose gradients may not be reproducible on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * (WIDTH // HEADS) ** -0.5).softmax(-1)
        return self.projection((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and added to its input."""

    def __init__(self, dropout: float, first: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)
        self.dropout1, self.dropout2 = (drop(dropout, layer) for layer in (first, first + 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout1(self.attention(self.norm1(x)))
        return x + self.dropout2(self.fc2(gelu(self.fc1(self.norm2(x)))))


class VisionTransformer(nn.Module):
    """Patches, tokens, blocks, a layer norm, and an output layer on the class token."""

    def __init__(self, config: Model, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        if height % PATCH or width % PATCH:
            raise UsageError(
                f"model {config.name} takes images whose sides are multiples of {PATCH} pixels; the data are "
                f"{height} x {width}"
            )
        self.patches, self.embedding = Patches(), nn.Linear(channels * PATCH**2, WIDTH)
        self.tokens = Tokens((height // PATCH) * (width // PATCH))
        self.dropout = drop(config.dropout, 0)
        self.blocks = nn.Sequential(*[Block(config.dropout, 1 + 2 * n) for n in range(DEPTH)])
        self.norm, self.output = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.dropout(self.tokens(self.embedding(self.patches(x)))))
        return self.output(self.norm(x[:, 0]))


def drop(share: float, layer: int) -> nn.Module:
    """Dropout with this probability; the identity for 0."""
    return CounterDropout(share, layer) if share else nn.Identity()


def draw_tokens(tokens: nn.Module, generator: torch.Generator, init_sigma: float | None) -> init.Tensors:
    """Draw class token and positional embeddings from a truncated Gaussian with sigma 0.02, not with `init_sigma`."""
    return {name: init.truncated_normal(t, EMBEDDING_SIGMA, generator) for name, t in tokens.state_dict().items()}


# float32 unless recipe.precision = bfloat16 is given, because layers this narrow are not faster in bfloat16 on a CPU,
# and its 8 bits are few for attention scores. In bfloat16, the residual stream, layer norms, embeddings and
# the output layer stay float32 (training/bfloat16/lowering.py).
vit = Architecture(
    VisionTransformer, smallest=PATCH, draw=partial(init.draw, further=((Tokens, draw_tokens),)), bfloat16=False
)
