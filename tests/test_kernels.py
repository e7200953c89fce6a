"""The compiled bfloat16 kernels against torch's float32: results, gradients, updates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lth.config import Recipe
from lth.training.bfloat16 import kernels, sparse, updates
from lth.training.optimizers import optimizer_for
from lth.training.precision import hardware

pytestmark = [
    pytest.mark.skipif(kernels.core() is None, reason="the kernels are not built, or not for this processor"),
    pytest.mark.usefixtures("one_thread"),
]

CASES = [  # images, inputs, outputs, height, width
    (5, 64, 64, 16, 16),
    (3, 16, 48, 8, 12),
    (7, 32, 16, 6, 10),  # no image of 4x4 tiles
    (130, 16, 32, 2, 2),
    (2, 128, 64, 4, 4),
    (1, 16, 16, 32, 32),  # more tiles in an image than a block has, of floats
    (1, 16, 16, 40, 44),  # and of bfloat16
]
NUMBERS = pytest.mark.parametrize("numbers", [torch.bfloat16, torch.float32], ids=str, indirect=True)
AFTERS: list[tuple[str, ...]] = [(), ("relu",), ("pool", "relu")]


def images(seed: int, *shape: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.bfloat16().contiguous(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def _the_same_layers_every_time() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


@pytest.fixture
def numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Products of these numbers, whichever this processor would choose."""
    monkeypatch.setattr(kernels, "products", lambda: request.param)
    return request.param


def off(found: Tensor, expected: Tensor) -> float:
    return ((found.detach().float() - expected.detach()).norm() / expected.detach().norm()).item()


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, after: tuple[str, ...]) -> Tensor:
    y = F.conv2d(x, weight, bias, padding=1)
    y = F.max_pool2d(y, 2) if "pool" in after else y
    return F.relu(y) if "relu" in after else y


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("after", AFTERS, ids=["plain", "relu", "pool-relu"])
@pytest.mark.parametrize("case", CASES, ids=str)
@NUMBERS
def test_winograd_is_the_convolution(
    numbers: torch.dtype, case: tuple[int, ...], after: tuple[str, ...], biased: bool
) -> None:
    n, c, k, h, w = case
    x, conv = images(1, n, c, h, w).requires_grad_(), nn.Conv2d(c, k, 3, padding=1, bias=biased)
    y = kernels.Winograd.apply(x, conv.weight, conv.bias, after)
    exact = x.detach().float().requires_grad_()
    expected = reference(exact, conv.weight, conv.bias, after)
    assert y.dtype == torch.bfloat16 and y.shape == expected.shape
    least, most = (0.0022, 0.006) if numbers == torch.bfloat16 else (0, 0.002)  # y is rounded either way
    assert least < off(y, expected.detach()) < most
    gradient = images(2, *y.shape)
    inputs = (x, conv.weight, conv.bias) if biased else (x, conv.weight)
    found = torch.autograd.grad(y, inputs, gradient)
    wanted = torch.autograd.grad(expected, (exact, *inputs[1:]), gradient.float())
    # a maximum or a sign that rounding has changed sends a whole gradient elsewhere: a few in a thousand
    slack = 0.2 if after else 0.02 if numbers == torch.bfloat16 else 0.003
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape and off(mine, theirs) < slack


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("after", AFTERS[:2], ids=["plain", "relu"])
@pytest.mark.parametrize(
    "case",
    [  # images, inputs, outputs, height, width
        (64, 128, 64, 4, 4),
        (5, 64, 112, 2, 2),  # more outputs than whose gradients are made at once; an odd image
        (1, 16, 48, 1, 1),
        (3, 48, 16, 1, 5),
        (2, 32, 16, 3, 1),
        (130, 16, 32, 2, 3),  # more images than are done at once
    ],
    ids=str,
)
def test_small_images(case: tuple[int, ...], after: tuple[str, ...], biased: bool) -> None:
    n, c, k, h, w = case
    x, conv = images(1, n, c, h, w).requires_grad_(), nn.Conv2d(c, k, 3, padding=1, bias=biased)
    y = kernels.Small.apply(x, conv.weight, conv.bias, after)
    exact = x.detach().float().requires_grad_()
    weight = conv.weight.detach().bfloat16().float().requires_grad_()  # the kernel rounds weights, and sums in float32
    expected = reference(exact, weight, conv.bias, ())
    assert y.shape == expected.shape and y.dtype == torch.bfloat16
    assert off(y, (F.relu(expected) if after else expected).bfloat16().float()) < 5e-4
    gradient = images(2, *y.shape)
    alive = gradient.float() * (y > 0) if after else gradient.float()
    own = (conv.bias,) if biased else ()
    x_gradient, *found = torch.autograd.grad(y, (x, conv.weight, *own), gradient)
    wanted, *others = torch.autograd.grad(expected, (exact, weight, *own), alive)
    assert off(x_gradient, wanted.bfloat16().float()) < 5e-4
    for mine, theirs in zip(found, others, strict=True):
        assert mine.shape == theirs.shape and off(mine, theirs) < 1e-5


@pytest.mark.parametrize("function", [kernels.Winograd, kernels.Thin, kernels.Small], ids=["winograd", "thin", "small"])
def test_gradients_that_are_a_part_of_others(function: type[torch.autograd.Function]) -> None:
    """Beside other channels, a gradient comes in whose pixels do not follow one another."""
    channels = 3 if function is kernels.Thin else 32
    x, conv = images(1, 4, channels, 8, 8), nn.Conv2d(channels, 32, 3, padding=1)
    beside = images(2, 4, 5, 8, 8)
    found = []
    for whole in (lambda y: torch.cat([beside, y], 1), lambda y: y):
        y = whole(function.apply(x, conv.weight, conv.bias, ()))
        gradient = images(3, 4, 37, 8, 8)[:, -y.shape[1] :]
        found.append(torch.autograd.grad(y, conv.weight, gradient.contiguous(memory_format=torch.channels_last)))
    assert off(found[0][0], found[1][0]) < 0.01


@NUMBERS
def test_which_convolutions_are_taken(numbers: torch.dtype) -> None:
    if "amx" in (hardware("cpu") or ""):
        pytest.skip("processors with AMX keep to oneDNN")
    taken = [nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)]
    left = [
        nn.Conv2d(64, 64, 5, padding=2),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, 2, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(40, 64, 3, padding=1),
        nn.Conv2d(64, 10, 3, padding=1),
    ]
    assert all(map(kernels.fits, taken)) and not any(map(kernels.fits, left))
    assert {kernels.layout(conv) for conv in taken} == {torch.contiguous_format}
    assert {kernels.layout(conv) for conv in left} == {torch.channels_last}
    deep = nn.Conv2d(512, 512, 3, padding=1)
    by_winograd = numbers == torch.float32
    assert kernels.fits(deep)
    assert kernels.layout(deep) == (torch.contiguous_format if by_winograd else torch.channels_last)


@pytest.mark.parametrize("after", AFTERS, ids=["plain", "relu", "pool-relu"])
@pytest.mark.parametrize("case", [(64, 512, 4), (64, 256, 4), (128, 256, 4), (2, 288, 2), (3, 288, 8)], ids=str)
@NUMBERS
@pytest.mark.usefixtures("numbers")
def test_a_convolution_is_one_by_whichever_kernel(case: tuple[int, ...], after: tuple[str, ...]) -> None:
    n, c, side = case
    x, conv = images(1, n, c, side, side), nn.Conv2d(c, 32, 3, padding=1)
    expected = reference(x.float(), conv.weight, conv.bias, after)
    y = kernels.Conv(conv, after)(x)
    assert y.dtype == torch.bfloat16 and off(y, expected.detach()) < 0.006
    gradient = images(2, *y.shape)
    (found,) = torch.autograd.grad(y, conv.weight, gradient)
    (wanted,) = torch.autograd.grad(expected, conv.weight, gradient.float())
    assert found.dtype == torch.float32 and off(found, wanted) < (0.2 if after else 0.02)


@pytest.mark.parametrize(
    ("floats_are_faster", "unit", "numbers"),
    [
        (True, "the processor's avx512_bf16", torch.float32),
        (False, "the processor's avx512_bf16", torch.bfloat16),
        (True, "the processor's amx_bf16", torch.bfloat16),
    ],
    ids=["intel", "amd", "amx"],
)
def test_products_are_of_what_this_processor_multiplies_fastest(
    floats_are_faster: bool, unit: str, numbers: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = True
    core = SimpleNamespace(floats_are_faster=lambda: floats_are_faster, matrix_unit=lambda: allowed)
    monkeypatch.setattr(kernels, "core", lambda: core)
    monkeypatch.setattr(kernels, "hardware", lambda device: unit)
    assert kernels.products() == numbers
    plain = "amx" in unit
    assert kernels.fits(nn.Conv2d(64, 64, 3, padding=1)) is not plain
    assert kernels.fits(nn.Conv2d(16, 64, 3, padding=1)) is (numbers == torch.float32)
    said = f"convolutions use compiled kernels, with products of {str(numbers).removeprefix('torch.')}"
    assert kernels.format_support() == (
        "convolutions of large images use oneDNN, the rest uses compiled kernels" if plain else said
    )
    allowed = False
    assert kernels.format_support() == ("convolutions use oneDNN, the rest uses compiled kernels" if plain else said)


@pytest.mark.parametrize("needed", [True, False], ids=["needed", "not needed"])
def test_winograd_makes_the_images_gradient_where_somebody_needs_it(
    needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, asked = kernels._convolutions(kernels.products()), []
    backward = lambda *given: asked.append(given[-3] != 0) or core.backward(*given)
    spied = SimpleNamespace(**vars(core) | {"backward": backward})
    monkeypatch.setattr(kernels, "_convolutions", lambda numbers: spied)
    x, conv = images(1, 4, 16, 8, 8).requires_grad_(needed), nn.Conv2d(16, 16, 3, padding=1)
    kernels.Winograd.apply(x, conv.weight, conv.bias, ("relu",)).sum().backward()
    assert asked == [needed] and (x.grad is not None) is needed and conv.weight.grad is not None


@NUMBERS
@pytest.mark.usefixtures("numbers")
def test_winograd_repeats_itself_to_the_bit() -> None:
    x, conv = images(1, 9, 32, 8, 8).requires_grad_(), nn.Conv2d(32, 32, 3, padding=1)

    def once() -> list[Tensor]:
        y = kernels.Winograd.apply(x, conv.weight, conv.bias, ("pool", "relu"))
        return [y, *torch.autograd.grad(y, (x, conv.weight, conv.bias), images(2, *y.shape))]

    first = once()
    kernels.Winograd.apply(images(3, 2, 64, 16, 16), nn.Conv2d(64, 64, 3).weight, None, ())  # leaves its workspace
    assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))


def of_winograd(after: tuple[str, ...]) -> list[Tensor]:
    x, conv = images(1, 5, 32, 8, 8).requires_grad_(), nn.Conv2d(32, 32, 3, padding=1)
    y = kernels.Winograd.apply(x, conv.weight, conv.bias, after)
    return [y, *torch.autograd.grad(y, (x, conv.weight, conv.bias), images(2, *y.shape))]


def of_the_first() -> list[Tensor]:
    x, conv = images(1, 5, 3, 7, 6), nn.Conv2d(3, 32, 3, padding=1)
    y = kernels.Thin.apply(x, conv.weight, conv.bias, ("relu",))
    return [y, *torch.autograd.grad(y, (conv.weight, conv.bias), images(2, *y.shape))]


def of_small_images() -> list[Tensor]:
    x, conv = images(1, 5, 48, 4, 3).requires_grad_(), nn.Conv2d(48, 128, 3, padding=1)
    y = kernels.Small.apply(x, conv.weight, conv.bias, ("relu",))
    return [y, *torch.autograd.grad(y, (x, conv.weight, conv.bias), images(2, *y.shape))]


def of_pooling() -> list[Tensor]:
    x = images(1, 5, 16, 8, 6).requires_grad_()
    y = kernels.PoolRelu.apply(x)
    return [y, *torch.autograd.grad(y, x, images(2, *y.shape))]


def of_survivors() -> list[Tensor]:
    drawn = torch.Generator().manual_seed(1)
    where = sparse.places(torch.rand((9, 1500), generator=drawn) < 0.1)
    values = torch.randn(len(where.survivors.flat), generator=drawn, requires_grad=True)
    x = torch.randn(5, 1500, generator=drawn).bfloat16().requires_grad_()
    y = sparse.SparseProduct.apply(x, values, torch.ones(9), where)
    return [y, *torch.autograd.grad(y, (x, values), torch.randn(5, 9, generator=drawn).bfloat16())]


def of_an_update() -> list[Tensor]:
    drawn = torch.Generator().manual_seed(1)
    count = 3 * updates.WORTH_A_THREAD + 5
    value, gradient = (torch.randn(count, generator=drawn) for _ in range(2))
    slot = updates.slot(Recipe(optimizer="adam", lr=0.01, iterations=1), value, gradient > 0, value.bfloat16())
    updates.step(Recipe(optimizer="adam", lr=0.01, iterations=1), 0.01, 1, [slot], [gradient.bfloat16()])
    assert slot.copy is not None
    return [slot.value, *slot.moments, slot.copy]


@pytest.mark.parametrize("threads", [2, 3, 8])  # of 5 images, the last
@pytest.mark.parametrize(
    "do",
    [
        *(lambda after=after: of_winograd(after) for after in AFTERS),
        of_the_first,
        of_small_images,
        of_pooling,
        of_survivors,
        of_an_update,
    ],
    ids=["plain", "relu", "pool-relu", "first", "small", "pooling", "survivors", "update"],
)
@NUMBERS
@pytest.mark.usefixtures("numbers")
def test_threads_share_a_batch(do: Callable[[], list[Tensor]], threads: int) -> None:
    found = {}
    for count in (1, threads, threads):
        torch.set_num_threads(count)
        torch.manual_seed(1)
        found.setdefault(count, []).append(do())
    (alone,), (first, second) = found[1], found[threads]
    for one, shared, again in zip(alone, first, second, strict=True):
        assert torch.equal(shared, again)
        if one.shape[0] == 5 or do in (of_an_update, of_small_images):  # each image's own; but for sums over images
            assert torch.equal(one, shared)
        torch.testing.assert_close(one, shared, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("after", AFTERS[:2], ids=["plain", "relu"])
@pytest.mark.parametrize("case", [(5, 3, 64, 16, 16), (3, 1, 16, 7, 5), (2, 4, 32, 3, 1), (2, 2, 16, 1, 120)], ids=str)
@NUMBERS
def test_the_first_convolution(numbers: torch.dtype, case: tuple[int, ...], after: tuple[str, ...]) -> None:
    n, c, k, h, w = case
    x, conv = images(1, n, c, h, w), nn.Conv2d(c, k, 3, padding=1)
    y = kernels.Thin.apply(x, conv.weight, conv.bias, after)
    weight = conv.weight.detach().to(numbers).float()  # the kernel rounds weights to its numbers, and sums in float32
    expected = reference(x.float(), weight, conv.bias, after)
    assert off(y, expected.detach().bfloat16().float()) < 5e-4
    gradient = images(2, *y.shape)
    found = torch.autograd.grad(y, (conv.weight, conv.bias), gradient)
    alive = gradient.float() * (y > 0) if after else gradient.float()
    exact = nn.functional.conv2d(x.float(), conv.weight, conv.bias, padding=1)
    for mine, theirs in zip(found, torch.autograd.grad(exact, (conv.weight, conv.bias), alive), strict=True):
        assert off(mine, theirs) < 1e-5


def test_pooling_is_torchs_to_the_bit_and_ties_go_to_the_first() -> None:
    x = images(1, 4, 32, 6, 10)
    x = (x * 2).round() / 2  # many ties, many zeros
    x.requires_grad_()
    y, expected = kernels.PoolRelu.apply(x), F.relu(F.max_pool2d(x, 2))
    gradient = images(2, *y.shape)
    assert torch.equal(y, expected)
    (mine,), (theirs,) = (torch.autograd.grad(of, x, gradient) for of in (y, expected))
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "kernel", [kernels.PoolRelu, kernels.Winograd, kernels.Small], ids=["pool", "winograd", "small"]
)
@NUMBERS
@pytest.mark.usefixtures("numbers")
def test_a_number_that_is_none_is_not_lost(kernel: type[torch.autograd.Function]) -> None:
    x = images(1, 2, 16, 4, 4)
    x[1, 3, 2, 2] = torch.nan
    x.requires_grad_()
    conv = nn.Conv2d(16, 16, 3, padding=1)
    y = kernel.apply(x) if kernel is kernels.PoolRelu else kernel.apply(x, conv.weight, None, ("relu",))
    assert not y[0].isnan().any() and y[1].isnan().any()
    if kernel is kernels.Small:
        (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, torch.nan))
        assert gradient[1].isnan().any()


@pytest.mark.parametrize("count", [1, 15, 16, 17, 1000])
@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": "adam"},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "sgd", "weight_decay": 0.1},
        {"optimizer": "momentum", "momentum": 0.8, "weight_decay": 0.1},
        {"optimizer": "nesterov", "momentum": 0.8, "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.5},
        {"optimizer": "adam", "clip": 0.1},
        {"optimizer": "momentum", "clip": 0.1},
    ],
    ids=[
        "adam",
        "adam-decay",
        "sgd-decay",
        "momentum-decay",
        "nesterov-decay",
        "adamw-decay",
        "adam-clip",
        "momentum-clip",
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_updates_are_torchs(count: int, given: dict[str, Any], compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "core", lambda: None)
    recipe = Recipe(lr=0.01, iterations=1, **given)
    drawn = torch.Generator().manual_seed(count)
    mask = torch.rand(count, generator=drawn) < 0.7
    parameter = nn.Parameter(torch.randn(count, generator=drawn) * mask)
    slot = updates.slot(recipe, parameter.data.clone(), mask, torch.zeros(count, dtype=torch.bfloat16))
    optimizer = optimizer_for(recipe, [parameter])
    for number in range(1, 6):
        gradient = torch.randn(count, generator=drawn).bfloat16()
        parameter.grad = gradient.float() * mask
        if recipe.clip:
            nn.utils.clip_grad_norm_([parameter], recipe.clip)
        optimizer.step()
        updates.step(recipe, 0.01, number, [slot], [gradient if number % 2 else gradient.float()])
        torch.testing.assert_close(slot.value, parameter.data, rtol=1e-5, atol=1e-6)
        assert torch.equal(slot.copy, slot.value.bfloat16()) and not slot.value[~mask].any()


@pytest.mark.parametrize("examples", [1, 60, 64, 130])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.15])
@pytest.mark.parametrize("shape", [(24, 1024), (7, 3001)], ids=str)
def test_sparse_products_are_the_dense_ones(examples: int, density: float, shape: tuple[int, int]) -> None:
    drawn = torch.Generator().manual_seed(examples)
    mask = torch.rand(shape, generator=drawn) < density
    weight = torch.randn(shape, generator=drawn) * mask
    where, bias = sparse.places(mask), torch.randn(shape[0], generator=drawn, requires_grad=True)
    few = where.survivors
    assert torch.equal(few.scatter(few.gather(weight)), weight)
    x = torch.randn(examples, shape[1], generator=drawn).bfloat16().requires_grad_()
    values = few.gather(weight).requires_grad_()
    y = sparse.SparseProduct.apply(x, values, bias, where)
    exact, dense = x.detach().float().requires_grad_(), weight.requires_grad_()
    expected = F.linear(exact, dense, bias)
    torch.testing.assert_close(y.float(), expected, rtol=0.006, atol=1e-5)
    gradient = torch.randn(y.shape, generator=drawn).bfloat16()
    x_gradient, value_gradient, bias_gradient = torch.autograd.grad(y, (x, values, bias), gradient)
    wanted = torch.autograd.grad(expected, (exact, dense, bias), gradient.float())
    torch.testing.assert_close(x_gradient.float(), wanted[0], rtol=0.006, atol=1e-5)
    torch.testing.assert_close(few.scatter(value_gradient), wanted[1] * mask, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bias_gradient, wanted[2], rtol=1e-5, atol=1e-5)


SPARSE_CASES = [  # images, inputs, outputs, height, width
    (64, 40, 48, 4, 4),
    (70, 48, 17, 2, 2),
    (20, 8, 33, 8, 8),
    (3, 5, 6, 1, 1),
    (17, 3, 3, 1, 8),
    (5, 7, 9, 7, 3),
    (18, 16, 16, 4, 5),
    (33, 16, 5, 3, 6),
    (2, 4, 4, 9, 7),
    (3, 8, 6, 5, 9),  # wider than the kernels' images
]


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("case", SPARSE_CASES, ids=str)
def test_sparse_convolutions_are_the_dense_ones(case: tuple[int, ...], density: float) -> None:
    n, c, k, h, w = case
    drawn = torch.Generator().manual_seed(n)
    mask = torch.rand((k, c, 3, 3), generator=drawn) < density
    weight, bias = torch.randn(mask.shape, generator=drawn) * mask, nn.Parameter(torch.randn(k, generator=drawn))
    conv = sparse.SparseConv(bias, sparse.kernel_places(mask))
    few = conv.where.survivors
    assert torch.equal(few.scatter(few.gather(weight)), weight)
    conv.weight.data.copy_(few.gather(weight))
    x, gradient = images(1, n, c, h, w).requires_grad_(), images(2, n, k, h, w)
    exact, dense = x.detach().float().requires_grad_(), weight.requires_grad_()
    expected = F.conv2d(exact, dense, bias, padding=1)
    y = conv(x)
    assert y.dtype == torch.bfloat16 and y.is_contiguous(memory_format=torch.channels_last)
    near = 0.005 if kernels.core().sparse_width(w) else 0.02  # the others round weights too
    assert off(y, expected) < near
    assert conv.bias is not None
    found = torch.autograd.grad(y, (x, conv.weight, conv.bias), gradient)
    wanted = torch.autograd.grad(expected, (exact, dense, bias), gradient.float())
    for a, b in ((found[0], wanted[0]), (few.scatter(found[1]), wanted[1] * mask), (found[2], wanted[2])):
        torch.testing.assert_close(a.float(), b, rtol=near, atol=near * float(b.abs().max()))


def test_sparse_convolutions_are_the_same_bits_on_any_threads() -> None:
    mask = torch.rand((48, 40, 3, 3), generator=torch.Generator().manual_seed(3)) < 0.1
    conv, x = sparse.SparseConv(None, sparse.kernel_places(mask)), images(1, 70, 40, 4, 4).requires_grad_()
    conv.weight.data.normal_(generator=torch.Generator().manual_seed(4))
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        y = conv(x)
        found.append([y, *torch.autograd.grad(y, (x, conv.weight), images(2, *y.shape))])
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_sparse_convolutions_let_no_pixel_in_from_outside() -> None:
    """What lies beyond an image, be it the next row, image or channel, or what a batch before left, changes nothing."""
    mask = torch.ones((16, 16, 3, 3), dtype=torch.bool)
    conv, x = sparse.SparseConv(None, sparse.kernel_places(mask)), images(1, 5, 16, 4, 4)
    conv.weight.data.fill_(1.0)
    alone = conv(x)[2:3].clone()
    beside = torch.full_like(x, torch.nan)
    beside[2] = x[2]
    assert torch.equal(conv(beside)[2:3], alone)
    assert torch.equal(conv(x[2:3]), alone)
