"""A compact module computes what the whole one does, with everything gone that can go."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lth
from lth import config, masks, models
from lth.compacting import load_compact, measure
from lth.errors import LthError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")


def pruned(model: nn.Module, density: float = 0.15, dead: float = 0.5, seed: int = 0) -> nn.Module:
    """`model` with weights and biases at random, few of them left, and many units with nothing coming in."""
    drawn = torch.Generator().manual_seed(seed)
    last = list(models.counted(model).values())[-1]
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=drawn) * 0.5 + ("var" in name) * 3)
        for parameter in models.counted(model).values():
            parameter[torch.rand(parameter.shape, generator=drawn) > density] = 0
            if parameter is not last:
                parameter[torch.rand(len(parameter), generator=drawn) < dead] = 0
    for name, buffer in model.named_buffers():
        if "var" in name:
            buffer.abs_()
    return model.eval()


def sizes(model: nn.Module) -> int:
    return sum(p.numel() for p in models.counted(model).values())


@torch.no_grad()
def same_outputs(model: nn.Module, small: nn.Module, shape: tuple[int, ...], low: float = -1.0) -> bool:
    x = torch.empty(8, *shape).uniform_(low, 1, generator=torch.Generator().manual_seed(3))
    expected = model(x)
    assert expected.std(0).max() > 1e-4  # a network that always says the same would prove nothing
    return torch.allclose(small(x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet", (1, 28, 28)),
        ("conv2", (3, 8, 8)),
        ("conv6", (3, 16, 16)),
        ("resnet18", (3, 8, 8)),
        ("vgg19", (3, 16, 16)),
    ],
)
def test_the_networks_of_the_paper(name: str, shape: tuple[int, ...]) -> None:
    model = models.build(config.Model(name=name), shape, 10)
    model = pruned(model, density=0.3, dead=0.4)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    small = lth.compact(model, torch.zeros(2, *shape))
    assert same_outputs(model, small, shape) and sizes(small) < 0.85 * sizes(model)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())  # left alone
    again = load_compact(models.build(config.Model(name=name), shape, 10), small.state_dict())
    assert same_outputs(small, again, shape)


class Residual(nn.Module):
    """A stream to which two branches add: its channels are one space, of which a dead one goes everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch, self.back = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 8, 1)
        self.side, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = operator.add(self.side(x), self.back(torch.tanh(self.branch(x))))
        return self.head(x.mean((2, 3)))


class Functional(nn.Module):
    """Pooling, flattening and activation as functions; dropout that evaluation leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(1, 6, 3), nn.Linear(54, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = F.gelu(self.fc(x.view(x.size(0), -1)))
        return self.head(F.dropout(x, 0.5, self.training))


class Transformer(nn.Module):
    """A block: what cannot be followed keeps its size, and the units inside the feed-forward part go."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down, self.head = nn.Linear(8, 30), nn.Linear(30, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        attended, _ = self.attention(x, x, x)
        x = self.norm(x + attended)
        return self.head(x + self.down(F.gelu(self.up(x))))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "residual": (Residual, (2, 6, 6), 0.9),
    "functional": (Functional, (1, 8, 8), 0.8),
    "transformer": (Transformer, (4, 5), 0.8),
    "tabular": (lambda: nn.Sequential(nn.Linear(9, 30), nn.BatchNorm1d(30), nn.SiLU(), nn.Linear(30, 4)), (9,), 0.8),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(1, 6, 2), nn.ELU(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(48, 3)),
        (1, 5, 5, 5), 0.9,
    ),
    "sequences": (
        lambda: nn.Sequential(nn.Conv1d(2, 9, 3), nn.Sigmoid(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(9, 2)),
        (2, 7), 0.8,
    ),
    "norm-of-features": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(80), nn.Softplus(), nn.Linear(80, 3)
        ),
        (1, 6, 6), 0.8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_other_kinds(name: str) -> None:
    make, shape, share = NETWORKS[name]
    for seed in range(5):
        model = pruned(make(), density=0.6, seed=seed)
        small = lth.compact(model, torch.zeros(2, *shape))
        assert same_outputs(model, small, shape)
    assert sizes(small) < share * sizes(model)


def chain(*rows: list[list[float]], bias: list[float]) -> nn.Sequential:
    layers = [nn.Linear(len(matrix[0]), len(matrix)) for matrix in rows]
    with torch.no_grad():
        for layer, matrix in zip(layers, rows, strict=True):
            layer.weight.copy_(torch.tensor(matrix))
            layer.bias.copy_(torch.tensor(bias[: len(matrix)]))
    parts: list[nn.Module] = [nn.Flatten()]
    for layer in layers:
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


def test_what_goes_and_what_stays_unit_by_unit() -> None:
    """Units without inputs, whose bias moves on; without outputs; that fed only those; and alive."""
    first = [[1.0, 2.0, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, 3.0, 0.0], [0.5, 0.0, 0.0, 0.0]]
    second = [[1.0, 4.0, 0.0, 0.0], [0.0, 5.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    third = [[2.0, 0.0, 7.0]]
    model = chain(first, second, third, bias=[0.1, 0.2, 0.3, 0.4])
    small = lth.compact(model, torch.zeros(2, 4))
    assert small[1].weight.tolist() == [[1.0, 2.0]]
    assert small[0].places.tolist() == [0, 1]
    assert small[3].weight.tolist() == [[1.0]] and small[3].bias.tolist() == pytest.approx([0.1 + 4 * 0.2])
    # the third of the second layer is constant: relu(0.3 + 1 * 0.2), times 7
    assert small[5].bias.tolist() == pytest.approx([0.1 + 7 * 0.5])
    assert (small[1].in_features, small[1].out_features, small[3].in_features) == (2, 1, 1)
    assert same_outputs(model, small, (4,))


def test_a_constant_beside_a_border_of_zeros_stays_where_it_is_not_zero() -> None:
    for bias, channels in ((0.5, 2), (-0.5, 1)):  # ReLU leaves 0.5, or nothing
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)).eval()
        with torch.no_grad():
            model[0].weight[1] = 0
            model[0].bias.copy_(torch.tensor([0.1, bias]))
            model[0].weight[0] = 1
        small = lth.compact(model, torch.zeros(1, 1, 5, 5))
        assert small[0].out_channels == channels and same_outputs(model, small, (1, 5, 5))


def test_a_batch_norm_of_scale_zero_makes_a_constant() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].weight.fill_(0.5)
        model[1].weight[0], model[1].bias[0] = 0, 0.7
    small = lth.compact(model, torch.zeros(2, 3))
    assert small[1].num_features == 1 and same_outputs(model, small, (3,))


def test_a_layer_that_lost_everything_keeps_one_unit() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        model[1].weight.zero_()
    small = lth.compact(model, torch.zeros(2, 6))
    assert small[1].weight.shape == (1, 1)
    assert torch.allclose(small(torch.rand(4, 6)), model(torch.rand(4, 6)))


class Twice(nn.Module):
    """A layer that is called twice: its two uses need different units."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(F.relu(self.shared(x))))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 3), nn.Linear(4, 5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(x), self.b(x).sigmoid()], 1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)
        self.last = nn.Linear(4, 6)
        self.last.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.down(F.relu(self.up(x)))))


class Seen(nn.Module):
    """Hidden units that a layer needs in part, and something unknown needs whole."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(x)
        return self.head(x) + x.cumsum(1)[:, -2:]


class Decoded(nn.Module):
    """A layer whose weights another product reads, transposed, as autoencoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.Linear(4, 12), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.head(F.relu(self.up(x)))), self.up.weight.t())


class Scaled(nn.Module):
    """A batch norm whose scales are also read beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(4, 12), nn.BatchNorm1d(12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.hidden(x)))) + self.norm.weight.sum()


GROUPED = lambda: nn.Sequential(
    nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 2)
)
DILUTED = lambda: nn.Sequential(
    nn.Conv2d(4, 20, 1), nn.AvgPool2d(2, padding=1), nn.Conv2d(20, 2, 1), nn.Flatten(), nn.Linear(32, 2)
)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Twice, (4,)),
        (Concatenated, (4,)),
        (Tied, (4,)),
        (Seen, (4,)),
        (Decoded, (4,)),
        (Scaled, (4,)),
        (GROUPED, (4, 6, 6)),
        (DILUTED, (4, 6, 6)),
    ],
)
def test_what_cannot_be_followed_keeps_its_size_and_its_outputs(make: Callable[[], nn.Module], shape: Any) -> None:
    for seed in range(3):
        model = pruned(make(), density=0.6, dead=0.3, seed=seed)
        assert same_outputs(model, lth.compact(model, torch.zeros(2, *shape)), shape)


def test_what_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError, match="Branching cannot be made compact"):
        lth.compact(Branching(), torch.zeros(2, 3))
    with pytest.raises(UsageError, match="the state_dict does not fit Sequential"):
        load_compact(nn.Sequential(nn.Linear(3, 2)), {"1.weight": torch.zeros(1)})


def test_size_and_speed_are_measured_and_a_wrong_module_is_noticed() -> None:
    model = pruned(models.build(config.Model(name="lenet"), (1, 28, 28), 10), density=0.02)
    small = lth.compact(model, torch.zeros(2, 1, 28, 28))
    worth = measure(model, small, torch.rand(64, 1, 28, 28), rounds=3)
    numbers = lambda module: sum(tensor.numel() for tensor in module.state_dict().values())
    assert worth.weights == (266_610, numbers(small)) and worth.difference < 1e-5 and set(worth.milliseconds) == {1, 64}
    times = 266_610 / numbers(small)
    assert worth.lines()[0] == f"{numbers(small):,} numbers, were 266,610: {times:.1f} times as small"
    with torch.no_grad():
        small[-1].bias += 1
    with pytest.raises(LthError, match="outputs differ by"):
        measure(model, small, torch.rand(64, 1, 28, 28), rounds=1)


def test_a_mask_at_random_too() -> None:
    """Nothing dead on purpose: what dies by chance at one percent."""
    model = models.build(config.Model(name="lenet"), (1, 28, 28), 10)
    drawn = torch.Generator().manual_seed(1)
    start = models.init.draw(model, drawn)
    mask = {name: torch.rand(start[name].shape, generator=drawn) < 0.01 for name in models.groups(model)}
    model.load_state_dict(masks.apply(mask, start))
    small = lth.compact(model.eval(), torch.zeros(2, 1, 28, 28))
    alive = sum(masks.alive(mask).values())
    assert same_outputs(model, small, (1, 28, 28), low=0.0) and alive < sizes(small) < sizes(model)
