"""The native engine does what torch does, bit for bit the same however a training is sliced, shared or resumed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lth import native
from lth.config import Model
from lth.data import load
from lth.models import build, init

pytestmark = pytest.mark.skipif(not native.available(), reason=str(native.why_not()))

LENET = (784, 300, 100, 10)
RATES = {"adam": 1.2e-3, "sgd": 0.02, "momentum": 0.005}
ALL_RATES = RATES | {"adamw": 1.2e-3, "nesterov": 0.005}
EXAMPLES = 600
CLOSE = 1e-5  # relative, of a loss


@dataclass(frozen=True)
class Case:
    """A network, its masks and its batches; everything else follows from the seed."""

    sizes: tuple[int, ...] = LENET
    density: float | tuple[float, ...] = 0.5
    optimizer: str = "adam"
    batch: int = 60
    iterations: int = 50
    weight_decay: float = 0.0
    clip: float = 0.0
    seed: int = 0
    masks: list[np.ndarray] = field(init=False, compare=False)
    weights: list[np.ndarray] = field(init=False, compare=False)
    biases: list[np.ndarray] = field(init=False, compare=False)
    images: np.ndarray = field(init=False, compare=False)
    labels: np.ndarray = field(init=False, compare=False)
    batches: np.ndarray = field(init=False, compare=False)

    def __post_init__(self):
        g = np.random.default_rng(self.seed)
        shapes = [(rows, columns) for columns, rows in pairwise(self.sizes)]
        densities = self.density if isinstance(self.density, tuple) else (self.density,) * len(shapes)
        masks = [g.random(shape) < d for shape, d in zip(shapes, densities, strict=True)]
        draw = lambda shape: (g.standard_normal(shape) * (2 / sum(shape)) ** 0.5).astype(np.float32)
        values = {
            "masks": masks,
            "weights": [draw(shape) * mask for shape, mask in zip(shapes, masks, strict=True)],
            "biases": [(0.1 * g.standard_normal(rows)).astype(np.float32) for rows, _ in shapes],
            "images": g.integers(0, 256, (EXAMPLES, self.sizes[0]), np.uint8),
            "labels": g.integers(0, self.sizes[-1], EXAMPLES),
            "batches": g.integers(0, EXAMPLES, (self.iterations, self.batch)),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def rate(self) -> float:
        return ALL_RATES[self.optimizer]

    def network(self, **options) -> native.Network:
        given = {"optimizer": self.optimizer, "weight_decay": self.weight_decay, "clip": self.clip} | options
        return native.Network(list(self.sizes), self.masks, self.weights, self.biases, **given)

    def dataset(self) -> native.Dataset:
        return native.Dataset(self.images, self.labels)


def train(case: Case, network: native.Network, first: int = 0, last: int | None = None) -> np.ndarray:
    batches = case.batches[first:last]
    ends = np.arange(1, len(batches) + 1) * case.batch
    return network.train(case.dataset(), batches.ravel(), ends, np.full(len(batches), case.rate))


def torch_model(case: Case, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    layers = []
    for weight, bias in zip(case.weights, case.biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
        layer.weight.data.copy_(torch.from_numpy(weight))
        layer.bias.data.copy_(torch.from_numpy(bias))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def torch_data(case: Case, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = (torch.from_numpy(case.images).float() / 255).to(dtype)
    return pixels, torch.from_numpy(case.labels)


def torch_optimizer(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    given = {"lr": case.rate, "weight_decay": case.weight_decay}
    if case.optimizer in ("adam", "adamw"):
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[case.optimizer](model.parameters(), **given)
    nesterov = case.optimizer == "nesterov"
    momentum = 0.9 if nesterov or case.optimizer == "momentum" else 0.0
    return torch.optim.SGD(model.parameters(), momentum=momentum, nesterov=nesterov, **given)


def torch_losses(case: Case, dtype: torch.dtype = torch.float32, model: nn.Sequential | None = None) -> np.ndarray:
    model = model or torch_model(case, dtype)
    optimizer, (images, labels) = torch_optimizer(case, model), torch_data(case, dtype)
    masks, losses = [torch.from_numpy(mask) for mask in case.masks], []
    for batch in torch.from_numpy(case.batches):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        for layer, mask in zip(model[::2], masks, strict=True):
            layer.weight.grad.mul_(mask)
        if case.clip:
            nn.utils.clip_grad_norm_(model.parameters(), case.clip)
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def departure(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b) / np.abs(b)))


def assert_follows_torch(case: Case, isas: list[str], prepared: Callable[[Case], Case] = lambda case: case) -> None:
    """Within CLOSE of torch at most of the seeds at which torch's float32 is itself within CLOSE of its float64.

    Where a pre-activation is within rounding of 0, a ReLU may open in one run and not in the other; both are right, and
    from there on they part. That is rare; a wrong formula departs at every seed.
    """
    cases = [prepared(replace(case, seed=case.seed + seed)) for seed in range(5)]
    singles = [torch_losses(c) for c in cases]
    sure = [departure(torch_losses(c, torch.float64), e) <= CLOSE for c, e in zip(cases, singles, strict=True)]
    assert sum(sure) >= 2, "torch agrees with itself too seldom: the case tests nothing"
    for isa in isas:
        found = [departure(train(c, c.network(isa=isa)), e) for c, e, s in zip(cases, singles, sure, strict=True) if s]
        assert sorted(found)[(len(found) - 1) // 2] <= CLOSE, (isa, found)


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    """Networks this small are no work for two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=native.instruction_sets())
def isa(request) -> str:
    return request.param


@pytest.mark.parametrize("optimizer", ALL_RATES)
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.01])
def test_lenet_has_the_losses_of_torch(optimizer, density):
    assert_follows_torch(Case(density=density, optimizer=optimizer), native.instruction_sets())


@pytest.mark.parametrize("optimizer", ["adamw", "nesterov"])
@pytest.mark.parametrize("density", [0.3, 0.9])
def test_weight_decay_is_that_of_torch(optimizer, density):
    """Decoupled for AdamW; so much of it that a wrong formula shows."""
    case = Case((37, 19, 7, 3), density, optimizer, 17, iterations=20, weight_decay=0.5)
    assert_follows_torch(case, native.instruction_sets())


@pytest.mark.parametrize("optimizer", ALL_RATES)
@pytest.mark.parametrize("batch", [17, 130])
@pytest.mark.parametrize("density", [(0.3, 0.9, 0.5), (0.9, 0.0, 1.0)], ids=str)
def test_clipping_is_that_of_torch(optimizer, batch, density):
    case = Case((37, 19, 7, 3), density, optimizer, batch, iterations=20, weight_decay=1e-3, clip=0.05)
    unclipped = replace(case, clip=0.0)
    assert departure(torch_losses(case), torch_losses(unclipped)) > 0, "nothing was clipped"
    assert_follows_torch(case, native.instruction_sets())


def test_a_gradient_below_the_largest_norm_is_left_as_it_is(isa):
    case = Case((37, 19, 7, 3), 0.5, iterations=10)
    free, clipped = case.network(isa=isa), case.network(isa=isa, clip=1e6)
    np.testing.assert_allclose(train(case, free), train(case, clipped), rtol=CLOSE)


@pytest.fixture(scope="module")
def digits(data_root):
    found = load("mnist", data_root, say=lambda line: None)
    return found.train_x.reshape(60_000, -1), found.train_y


def on_mnist(case: Case, digits) -> Case:
    """The case with real images and the paper's initialisation."""
    generator = torch.Generator().manual_seed(case.seed)
    start = init.draw(build(Model.model_validate({}), (1, 28, 28), 10), generator)
    for number, name in enumerate(("fc1", "fc2", "output")):
        case.weights[number][:] = start[f"{name}.weight"].numpy() * case.masks[number]
        case.biases[number][:] = 0
    chosen = torch.randperm(60_000, generator=generator)[:EXAMPLES].numpy()
    case.images[:], case.labels[:] = digits[0][chosen], digits[1][chosen]
    return case


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.01])
def test_lenet_on_mnist_has_the_losses_of_torch(digits, optimizer, density):
    assert_follows_torch(
        Case(density=density, optimizer=optimizer), native.instruction_sets(), lambda c: on_mnist(c, digits)
    )


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("batch", [1, 17, 64, 65, 130])
@pytest.mark.parametrize("sizes", [(37, 19, 7, 3), (5, 2), (100, 33, 70, 41, 6)])
@pytest.mark.parametrize("density", [0.3, 0.9])
def test_odd_sizes_have_the_losses_of_torch(sizes, batch, density, optimizer):
    case = Case(sizes, density, optimizer, batch, iterations=20, weight_decay=1e-3)
    assert_follows_torch(case, native.instruction_sets())


def in_the_dark(case: Case) -> Case:
    """The case with a third of the pixels black in every image, another third in most."""
    case.images[:, ::3] = 0
    case.images[np.arange(EXAMPLES) % 50 != 0, 1::3] = 0
    return case


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("batch", [1, 60, 70])
def test_inputs_that_are_0_in_a_batch_are_passed_over(batch, optimizer):
    case = Case((130, 19, 7, 3), 0.9, optimizer, batch, iterations=20, weight_decay=1e-3)
    assert_follows_torch(case, native.instruction_sets(), in_the_dark)


@pytest.mark.parametrize("density", [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.5, 0.5, 0.0), (0.002, 0.01, 0.02)])
def test_layers_and_units_without_weights(density):
    case = Case((50, 40, 30, 5), density, iterations=30)
    assert_follows_torch(case, native.instruction_sets())


def test_smaller_last_batches(isa):
    case = Case((30, 20, 4), iterations=1, batch=150)
    network, model = case.network(isa=isa), torch_model(case)
    order, ends = case.batches.ravel(), [60, 120, 150]
    losses = network.train(case.dataset(), order, ends, [case.rate] * 3)
    optimizer, (images, labels) = torch_optimizer(case, model), torch_data(case)
    for loss, part in zip(losses, np.split(order, ends[:-1]), strict=True):
        optimizer.zero_grad()
        expected = F.cross_entropy(model(images[part]), labels[part])
        expected.backward()
        for layer, mask in zip(model[::2], case.masks, strict=True):
            layer.weight.grad.mul_(torch.from_numpy(mask))
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=CLOSE)


@pytest.mark.parametrize("batch", [1, 60, 100])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.05])
def test_gradients_are_those_of_float64(isa, density, batch):
    """The first momentum buffer of SGD is the gradient itself."""
    case = Case(density=density, optimizer="momentum", batch=batch, iterations=1)
    network, model = case.network(isa=isa), torch_model(case, torch.float64)
    train(case, network)
    images, labels = torch_data(case, torch.float64)
    F.cross_entropy(model(images[case.batches[0]]), labels[case.batches[0]]).backward()
    state = network.state()
    for number, (layer, mask) in enumerate(zip(model[::2], case.masks, strict=True)):
        exact = {"weight": layer.weight.grad.numpy()[mask], "bias": layer.bias.grad.numpy()}
        for name, gradient in exact.items():
            error = np.abs(state[f"momentum_buffer.{number}.{name}"] - gradient).max()
            assert error <= 16 * np.finfo(np.float32).eps * np.abs(gradient).max(), (number, name)


def test_a_long_training_departs_no_more_than_float64_does():
    departures = {"native": [], "float64": []}
    for seed in range(5):
        case = Case((64, 48, 32, 10), 0.5, iterations=1000, seed=seed)
        single, double = torch_losses(case), torch_losses(case, torch.float64)
        departures["native"].append(np.median(np.abs(train(case, case.network()) - single) / single))
        departures["float64"].append(np.median(np.abs(double - single) / single))
    assert np.median(departures["native"]) <= 3 * np.median(departures["float64"])


def test_final_accuracies_are_statistically_those_of_torch():
    """Ten seeds of a task that can be learned: the means differ by less than three standard errors."""
    accuracies = []
    for seed in range(10):
        case = Case((30, 40, 20, 5), 0.5, iterations=200, seed=seed)
        teacher = np.random.default_rng(100 + seed).standard_normal((30, 5))
        case.labels[:] = ((case.images - 127.5) @ teacher).argmax(1)
        network, model = case.network(), torch_model(case)
        train(case, network)
        torch_losses(case, model=model)
        images, labels = torch_data(case)
        correct = (model(images).argmax(1) == labels).sum().item()
        accuracies.append((network.evaluate(case.dataset())[1] / EXAMPLES, correct / EXAMPLES))
    ours, theirs = np.array(accuracies).T
    assert ours.mean() > 0.5
    assert abs(ours.mean() - theirs.mean()) <= 3 * np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 10)


@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ALL_RATES)
@pytest.mark.parametrize("density", [1.0, 0.2])
def test_slices_change_no_bit(isa, density, optimizer, clip):
    case = Case((70, 50, 10), density, optimizer, iterations=30, clip=clip)
    whole, sliced = case.network(isa=isa, dropout=0.3), case.network(isa=isa, dropout=0.3)
    losses = train(case, whole)
    parts = [train(case, sliced, first, last) for first, last in pairwise([0, 1, 7, 8, 30])]
    sliced.evaluate(case.dataset())
    np.testing.assert_array_equal(losses, np.concatenate(parts))
    assert_same_state(whole, sliced)


@pytest.mark.parametrize("optimizer", ALL_RATES)
@pytest.mark.parametrize("density", [1.0, 0.2])
def test_a_state_goes_on_to_the_same_bits(isa, density, optimizer):
    case = Case((70, 50, 10), density, optimizer, iterations=20)
    whole, before, after = (case.network(isa=isa, dropout=0.5, dropout_key=7) for _ in range(3))
    train(case, whole)
    train(case, before, 0, 10)
    after.load_state(before.state())
    assert after.iteration == 10
    train(case, after, 10)
    assert_same_state(whole, after)


def test_a_state_of_version_0_1_has_done_all_its_updates_by_one_optimizer(isa):
    case = Case((70, 50, 10), 0.2, iterations=20)
    whole, before, after = (case.network(isa=isa) for _ in range(3))
    train(case, whole)
    train(case, before, 0, 10)
    state = before.state()
    del state["updates"]
    after.load_state(state)
    assert (after.iteration, after.updates) == (10, 10)
    train(case, after, 10)
    assert_same_state(whole, after)


def test_dropout_follows_the_iteration_and_adam_its_own_updates(isa):
    case = Case((70, 50, 10), 0.2, iterations=1)
    zero, later = (case.network(isa=isa, dropout=0.5, dropout_key=7, iteration=i) for i in (0, 500))
    assert train(case, zero) != train(case, later)
    assert (later.iteration, later.updates) == (501, 1)
    plain, at_500 = case.network(isa=isa), case.network(isa=isa, iteration=500)
    assert train(case, plain) == train(case, at_500)
    for name, values in plain.state().items():
        if name != "iteration":
            np.testing.assert_array_equal(values, at_500.state()[name], err_msg=name)


def assert_same_state(a: native.Network, b: native.Network) -> None:
    a, b = a.state(), b.state()
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_state_holds_survivors_in_row_major_order(isa):
    for density in (0.1, 0.9):
        case = Case((20, 30, 5), density)
        state, weights = case.network(isa=isa).state(), case.network(isa=isa).weights()
        for number, (start, mask, weight) in enumerate(zip(case.weights, case.masks, weights, strict=True)):
            np.testing.assert_array_equal(state[f"{number}.weight"], start[mask])
            np.testing.assert_array_equal(weight, start)


def test_a_state_that_does_not_fit_is_refused():
    network = Case((20, 30, 5), 0.1).network()
    with pytest.raises(ValueError, match=r'"0\.weight" has \d+ numbers, not \d+'):
        network.load_state(Case((20, 30, 5), 0.5).network().state())
    with pytest.raises(ValueError, match=r'has no "exp_avg\.0\.weight"'):
        network.load_state(Case((20, 30, 5), 0.1, "sgd").network().state())


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_pruned_weights_stay_zero(isa, density):
    case = Case((40, 30, 10), (density, 0.8), weight_decay=0.01)
    network = case.network(isa=isa)
    train(case, network)
    for weight, mask in zip(network.weights(), case.masks, strict=True):
        assert not weight[~mask].any()


def lowbias32(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def keep(key: int, iteration: int, layer: int, rows: int, units: int, p: float) -> np.ndarray:
    """The definition of dropout in network.cpp, once more."""
    z = (key + 0x9E3779B97F4A7C15 * (64 * iteration + layer + 1)) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    k = z ^ (z >> 31)
    element = np.arange(rows * units, dtype=np.uint32).reshape(rows, units)
    mixed = lowbias32(lowbias32(element ^ np.uint32(k % 2**32)) + np.uint32(k >> 32))
    return mixed >= np.uint32(int(p * 2**32))


class Drop(nn.Module):
    def __init__(self, key: int, layer: int, p: float):
        super().__init__()
        self.key, self.layer, self.p, self.iteration = key, layer, p, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = keep(self.key, self.iteration, self.layer, *x.shape, self.p)
        self.iteration += 1
        return x * torch.from_numpy(kept) / (1 - self.p)


@pytest.mark.parametrize("batch", [60, 100])
def test_dropout_is_its_definition(isa, batch):
    key, p, worst = 2**63 + 12345, 0.3, []
    for seed in range(3):  # a ReLU may open within rounding: see assert_follows_torch
        case = Case((40, 30, 20, 5), 0.6, batch=batch, iterations=20, seed=seed)
        linear = torch_model(case)[::2]
        model = nn.Sequential(linear[0], nn.Sequential(nn.ReLU(), Drop(key, 0, p)), linear[1],
                              nn.Sequential(nn.ReLU(), Drop(key, 1, p)), linear[2])  # fmt: skip
        network = case.network(isa=isa, dropout=p, dropout_key=key)
        worst.append(departure(train(case, network), torch_losses(case, model=model)))
    assert min(worst) <= CLOSE


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_evaluation_is_that_of_torch(isa, density, floats):
    case = Case((50, 40, 10), density)
    images, labels = torch_data(case)
    data = native.Dataset(images.numpy(), case.labels) if floats else case.dataset()
    chosen = np.random.default_rng(0).integers(0, EXAMPLES, 77)
    with torch.no_grad():
        logits = torch_model(case)(images)
    for which in (None, chosen):
        at = slice(None) if which is None else which
        loss, correct = case.network(isa=isa, dropout=0.5).evaluate(data, which)
        assert loss == pytest.approx(F.cross_entropy(logits[at].double(), labels[at]).item(), rel=1e-6)
        assert correct == int((logits[at].argmax(1) == labels[at]).sum())


def test_equal_logits_count_for_the_lowest_class(isa):
    zeros = [np.zeros((10, 4), np.float32)]
    network = native.Network([4, 10], [zeros[0] > 0], zeros, [np.zeros(10, np.float32)], isa=isa)
    assert network.evaluate(native.Dataset(np.zeros((10, 4), np.uint8), np.arange(10)))[1] == 1


def test_bytes_are_pixels_over_255_to_the_last_bit(isa):
    """All 256 values, one after the other, move the weights as the quotients do."""
    pixels = np.arange(256, dtype=np.uint8).reshape(256, 1)
    as_floats = pixels.astype(np.float32) / np.float32(255)
    states = []
    for images in (pixels, as_floats):
        one = np.ones((2, 1), np.float32)
        network = native.Network([1, 2], [one > 0], [one], [np.zeros(2, np.float32)], optimizer="sgd", isa=isa)
        network.train(native.Dataset(images, np.zeros(256, np.int64)), np.arange(256), np.arange(1, 257), np.ones(256))
        states.append(network.state()["0.weight"])
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_a_diverged_training_shows(isa, density, poison):
    case = Case((20, 10, 5), density, iterations=3)
    case.biases[0][0] = poison
    assert not np.isfinite(train(case, case.network(isa=isa))).all()


def test_threads_share_the_data_and_change_no_bit():
    case = Case(density=0.1, iterations=40)
    data = case.dataset()

    def run(_: int) -> np.ndarray:
        network = case.network()
        ends = np.arange(1, 41) * case.batch
        return network.train(data, case.batches.ravel(), ends, np.full(40, case.rate))

    with ThreadPoolExecutor(4) as pool:
        for losses in pool.map(run, range(8)):
            np.testing.assert_array_equal(losses, run(0))


def test_what_does_not_fit_is_refused():
    case = Case((20, 10, 5))
    network, data = case.network(), case.dataset()
    with pytest.raises(IndexError, match="outside the dataset"):
        network.train(data, [EXAMPLES], [1], [0.1])
    with pytest.raises(ValueError, match="ends must rise"):
        network.train(data, [0, 1], [1, 3], [0.1, 0.1])
    with pytest.raises(ValueError, match="lrs and ends"):
        network.train(data, [0], [1], [])
    with pytest.raises(ValueError, match="21 features, the network takes 20"):
        network.evaluate(native.Dataset(np.zeros((3, 21), np.uint8), np.zeros(3, np.int64)))
    with pytest.raises(ValueError, match="labels go up to 5, the network has 5 outputs"):
        network.evaluate(native.Dataset(np.zeros((1, 20), np.uint8), np.array([5])))
    for label in (2**31 - 1, 2**32):
        with pytest.raises(ValueError, match=f"labels must be below 2147483647, not {label}"):
            native.Dataset(np.zeros((2, 20), np.uint8), np.array([label, 0]))
    with pytest.raises(ValueError, match="uint8 or float32"):
        native.Dataset(np.zeros((3, 20)), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="give one of: sgd, momentum, nesterov, adam, adamw"):
        case.network(optimizer="adagrad")
    with pytest.raises(ValueError, match="does not run here; give one of"):
        case.network(isa="mmx")
