"""A compact module computes what the whole one does, with everything gone that can go."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

import lth
from lth import config, models
from lth.errors import LthError, UsageError
from lth.pruning import masks
from lth.tickets.compact import load_compact
from lth.tickets.speed import measure

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
        ("vit", (3, 8, 8)),
    ],
)
def test_built_in_networks(name: str, shape: tuple[int, ...]) -> None:
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


# ------------------------------------------------------------------------------------------------ written in place


class Shared(nn.Module):
    """A tensor that is written to in place by `act` and then read under its first name."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out, self.act = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3), act

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        y = self.fc2(self.act(x))
        return self.out(x + y)


class Statement(nn.Module):
    """In-place operations as statements, one of them on a tensor with two names."""

    def __init__(self, act: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out, self.act = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3), act

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        self.act(x)
        return self.out(self.fc2(x))


def increased(x: Tensor) -> Tensor:
    y = x
    y += 3
    return y


class Preactivated(nn.Module):
    """A block of a pre-activation ResNet, whose first activation writes to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.norm, self.norm2 = nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(self.relu(x)))
        return x + self.norm2(self.conv2(F.relu(y)))


def preactivated() -> nn.Module:
    stem = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
    return nn.Sequential(*stem, Preactivated(), Preactivated(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def negative(model: nn.Module) -> nn.Module:
    """Half of the first layer's units dead, with biases that ReLU takes to 0, and half of the second's fed by those."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape))
        first = model.get_submodule("fc1")
        first.weight[:4] = 0  # pyright: ignore
        first.bias.fill_(-1)  # pyright: ignore
        model.get_submodule("fc2").weight[:4, 4:] = 0  # pyright: ignore
    return model.eval()


WRITERS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(inplace=True),
    "function": F.relu_,
    "method": lambda x: x.relu_(),
    "argument": lambda x: F.relu(x, inplace=True),
    "unknown": lambda x: x.clamp_(min=0.5),
    "product": lambda x: x.mul_(2),
    "output": lambda x: torch.clamp(x, min=0.5, out=x),
    "operator": increased,
    "sum": lambda x: x.add_(x),
    "other-shape": lambda x: x.view(-1).relu_().view(-1, 8),
    "same-shape": lambda x: F.dropout(x, 0.5, False).relu_(),
    "transposed": lambda x: x.t().relu_().t(),
    "data": lambda x: x.data.relu_(),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_written_in_place_is_written_for_all_that_read_it(writer: str) -> None:
    for make in (Shared, Statement):
        model = negative(make(WRITERS[writer]))
        small = lth.compact(model, torch.randn(5, 6))
        assert same_outputs(model, small, (6,))
        if writer in ("module", "function", "method", "argument"):
            assert small.fc1.out_features == 4


def test_a_stream_that_is_activated_in_place() -> None:
    for seed in range(4):
        model = pruned(preactivated(), density=0.2, dead=0.4, seed=seed)
        small = lth.compact(model, torch.rand(2, 3, 6, 6))
        assert same_outputs(model, small, (3, 6, 6)) and sizes(small) < sizes(model)


def test_inputs_that_are_written_to_after_they_were_flattened() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten, self.fc = nn.Flatten(), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            flat = self.flatten(x)
            flat.relu_()
            return self.fc(flat) + x.sum((1, 2))[:, None]

    model, x = Written().eval(), torch.randn(4, 2, 4)
    with torch.no_grad():
        model.fc.weight[:, :5] = 0
    before = x.clone()
    small = lth.compact(model, x)
    assert torch.equal(x, before)  # the example stays as it was
    assert torch.allclose(small(x.clone()), model(x.clone()))


# ------------------------------------------------------------------------------------------- what pins what it touches


class First(nn.Module):
    """Reads the first row of the hidden units, which is no question for the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x))
        return self.fc2(x) + x[0].sum()


class Sizes(nn.Module):
    """Asks for the batch size in three ways, and for sizes without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 6, 3), nn.Linear(24, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        y = F.relu(self.fc1(x.view(x.shape[0], -1)))
        return self.fc2(y.reshape(y.size(0), -1)) * y.size()[0]


def test_a_row_of_a_tensor_is_no_batch_size() -> None:
    model = First().eval()
    with torch.no_grad():
        model.fc2.weight[:, :3] = 0
    assert same_outputs(model, lth.compact(model, torch.randn(5, 6)), (6,))
    model = pruned(Sizes(), density=0.6)
    small = lth.compact(model, torch.randn(2, 1, 4, 4))
    assert same_outputs(model, small, (1, 4, 4)) and small.conv.out_channels < 6 and small.fc1.out_features < 8


def test_without_a_batch_the_first_size_is_of_the_features() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc1(x)
            return self.fc2(x) * x.size(0)

    model, x = Single().eval(), torch.randn(6)
    with torch.no_grad():
        model.fc2.weight[:, :3] = 0
    assert torch.allclose(lth.compact(model, x)(x), model(x))


@pytest.mark.parametrize(
    "pool", [nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(3, 1), nn.AdaptiveAvgPool1d(8), nn.AdaptiveMaxPool1d(5)]
)
@pytest.mark.parametrize("as_function", [False, True])
def test_a_pool_of_a_tensor_without_channels_pools_over_features(pool: nn.Module, as_function: bool) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.pool, self.fc2 = nn.Linear(6, 8), pool, nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc1(x)
            return self.fc2(F.max_pool1d(x, 3, 1, 1) if as_function else self.pool(x))

    model = Pooled()
    with torch.no_grad():
        model(torch.zeros(2, 6))
        model.fc1.weight[:4] = 0
        model.fc1.weight[6] = 0
        model.fc1.bias.fill_(1)
        model.fc2.weight[:, 0] = 0
    assert same_outputs(model.eval(), lth.compact(model, torch.randn(5, 6)), (6,))


def test_a_module_that_is_named_like_a_sum_is_none() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.add, self.head = (
                nn.Linear(4, 6),
                nn.Linear(4, 6),
                nn.Bilinear(6, 6, 6),
                nn.Linear(6, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.add(self.a(x), self.b(x)))

    model = pruned(Named(), density=0.7, dead=0.4)
    assert same_outputs(model, lth.compact(model, torch.randn(5, 4)), (4,))


def test_a_layer_with_two_names_keeps_its_size() -> None:
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)])
            self.last = self.layers[1]

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[2](F.relu(self.last(F.relu(self.layers[0](x)))))

    model = pruned(Aliased(), density=0.6)
    small = lth.compact(model, torch.randn(5, 4))
    assert same_outputs(model, small, (4,)) and small.last.weight.shape == (8, 8)


def derived(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    """A network whose second of three layers is wrapped, with dead units in the first two."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    model = pruned(model, density=0.8, dead=0.3)
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        model[2].weight += 0.01  # weight norm divides by the length of a row
    model[2] = wrap(model[2])
    return model


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrized(layer: nn.Module) -> nn.Module:
    return nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, inputs, output: output + 1)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "wrap", [parametrized, nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm, hooked]
)
@pytest.mark.parametrize("backward", [False, True])
def test_a_layer_whose_weights_are_derived_keeps_its_size(
    wrap: Callable[[nn.Module], nn.Module], backward: bool
) -> None:
    model = derived(wrap).train()
    if backward:  # what the layer computed stays with it, with the graph of its gradients
        model(torch.randn(5, 6)).sum().backward()
    small = lth.compact(model, torch.randn(5, 6))
    assert model.training and same_outputs(model.eval(), small, (6,))
    assert small[2].weight.shape == (8, 8) and small[0].out_features == 8
    dead_behind = small[4].in_features  # the outputs of the pinned layer are pinned too
    assert dead_behind == 8


def test_an_activation_with_a_hook_is_not_followed() -> None:
    model = pruned(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)), density=0.8)
    hooked(model[1])
    small = lth.compact(model, torch.randn(5, 6))
    assert same_outputs(model, small, (6,)) and small[0].out_features == 8 and small[2].out_features < 8


def test_masks_of_torchs_own_pruning_are_to_be_made_final_first() -> None:
    from torch.nn.utils import prune

    model = derived(lambda layer: prune.random_unstructured(layer, "weight", amount=0.5))
    with pytest.raises(
        UsageError,
        match=r'2 is pruned by torch.nn.utils.prune.* call torch.nn.utils.prune.remove\(module, "weight"\) first',
    ):
        lth.compact(model, torch.randn(5, 6))
    model(torch.randn(5, 6)).sum().backward()
    with pytest.raises(UsageError, match=r"prune\.remove"):
        lth.compact(model, torch.randn(5, 6))
    prune.remove(model[2], "weight")
    small = lth.compact(model, torch.randn(5, 6))
    assert same_outputs(model, small, (6,)) and sizes(small) < sizes(model)


def test_what_cannot_be_copied_is_refused() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.seen = nn.Linear(3, 2), list[Tensor]()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(self.fc(x))
            return self.seen[-1]

    model = Remembering()
    model(torch.zeros(2, 3))
    with pytest.raises(UsageError, match="Remembering cannot be made compact: Python cannot copy it"):
        lth.compact(model, torch.zeros(2, 3))


def test_the_order_in_memory_is_no_hindrance() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.drop, self.b = nn.Conv2d(3, 8, 3), nn.Dropout2d(), nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.drop(self.a(x).contiguous(memory_format=torch.channels_last)))

    model = pruned(Last(), density=0.8)
    small = lth.compact(model, torch.randn(2, 3, 8, 8))
    assert same_outputs(model, small, (3, 8, 8)) and small.a.out_channels < 8


# ----------------------------------------------------------------------------------------- devices, and the last check


class There(Tensor):
    """A tensor that counts as being on another device."""


class TwoDevices(TorchFunctionMode):
    """Plays a second device, `xpu`, of There tensors: what mixes the two is refused, as a GPU would."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs))
        if any(isinstance(x, fx.Proxy) for x in given):
            return func(*args, **(kwargs or {}))
        tensors, kwargs = [x for x in given if isinstance(x, Tensor)], dict(kwargs or {})
        there = any(isinstance(x, There) for x in tensors)
        with torch._C.DisableTorchFunction():
            if func == Tensor.device.__get__:  # pyright: ignore
                return torch.device("xpu" if there else "cpu")
            if func is Tensor.cpu:
                return args[0].as_subclass(Tensor)
            if func is Tensor.__deepcopy__:
                copied = args[0].detach().clone().as_subclass(type(args[0]))
                copied._is_param = isinstance(args[0], nn.Parameter)
                return copied
            if func in (Tensor.__getitem__, Tensor.copy_):  # a mask may be elsewhere, and values are carried over
                there = isinstance(args[0], There)
            elif there and any(x.dim() and not isinstance(x, There) for x in tensors):
                raise RuntimeError(f"tensors on two devices: {func}")
            device = kwargs.pop("device", None)
            there = there if device is None else device.type == "xpu"
            found = func(*args, **kwargs)
        made = lambda x: isinstance(x, Tensor) and not isinstance(x, nn.Parameter)
        return tree_map(lambda x: x.as_subclass(There if there else Tensor) if made(x) else x, found)


@pytest.mark.parametrize(("name", "shape"), [("lenet", (1, 28, 28)), ("resnet18", (3, 8, 8))])
def test_tensors_of_two_devices_are_never_mixed(name: str, shape: tuple[int, ...]) -> None:
    model = pruned(models.build(config.Model(name=name), shape, 10), density=0.02 if name == "lenet" else 0.3)
    x = torch.rand(2, *shape)
    small = lth.compact(model, x)
    for module in model.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, key, nn.Parameter(parameter.detach().as_subclass(There)))
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, buffer.as_subclass(There))
    with TwoDevices():
        state = lth.compact(model, x.as_subclass(There)).state_dict()
    assert ("flatten.places" in state) == (name == "lenet")
    for key, tensor in small.state_dict().items():
        assert isinstance(state[key], There) and torch.equal(state[key].as_subclass(Tensor), tensor)


def test_a_state_is_loaded_to_where_the_module_is() -> None:
    model = pruned(nn.Sequential(nn.Flatten(), nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    state = lth.compact(model, torch.randn(2, 4, 4)).state_dict()
    assert "0.places" in state
    like = nn.Sequential(nn.Flatten(), nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3)).to("meta")
    with pytest.warns(UserWarning, match="no-op"):  # meta tensors hold no values to copy into
        small = load_compact(like, state)
    assert {name: tensor.device.type for name, tensor in small.state_dict().items()} == dict.fromkeys(state, "meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("name", "shape"), [("lenet", (1, 28, 28)), ("resnet18", (3, 8, 8))])
def test_a_module_on_a_gpu(name: str, shape: tuple[int, ...]) -> None:
    model = pruned(models.build(config.Model(name=name), shape, 10), density=0.3, dead=0.4)
    small = lth.compact(model, torch.rand(2, *shape))
    there = lth.compact(model.cuda(), torch.rand(2, *shape).cuda())
    assert {tensor.device.type for tensor in there.state_dict().values()} == {"cuda"}
    for key, tensor in small.state_dict().items():
        torch.testing.assert_close(there.state_dict()[key].cpu(), tensor)


def test_a_compact_module_with_other_outputs_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from lth.tickets import compact

    model = pruned(models.build(config.Model(name="lenet"), (1, 28, 28), 10))
    x, right = torch.rand(4, 1, 28, 28), compact.smaller_state
    wrong = lambda *given: {key: t + 1 if key.endswith("bias") else t for key, t in right(*given).items()}
    monkeypatch.setattr(compact, "smaller_state", wrong)
    with pytest.raises(LthError, match=r"the compact module's outputs differ by .* of the largest"):
        lth.compact(model, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rounding_is_of_the_modules_own_precision(dtype: torch.dtype) -> None:
    model = pruned(models.build(config.Model(name="lenet"), (1, 28, 28), 10), density=0.3).to(dtype)
    small = lth.compact(model, torch.rand(4, 1, 28, 28, dtype=dtype))
    assert sizes(small) < sizes(model) and {p.dtype for p in small.parameters()} == {dtype}


def test_outputs_of_several_kinds_are_compared_and_draws_at_random_repeated() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(4, 12), nn.Linear(12, 5)

        def forward(self, x: Tensor) -> dict[str, Any]:
            scores = self.head(F.relu(self.fc(x)))
            noisy = F.dropout(scores, 0.5, training=True)
            return {"noisy": noisy, "more": (scores.log(), [scores.argmax(1), None])}

    model, x = pruned(Several(), density=0.6), torch.randn(5, 4)
    torch.manual_seed(4)
    after = torch.rand(3)
    torch.manual_seed(4)
    small = lth.compact(model, x)
    assert sizes(small) < sizes(model) and torch.equal(torch.rand(3), after)  # the user's generators are left alone
    with torch.inference_mode():
        assert sizes(lth.compact(model, x)) == sizes(small)
