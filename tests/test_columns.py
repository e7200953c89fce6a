"""Convolutions as products of matrices against torch's: results, gradients, and where they are taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lth import masks
from lth.config import resolve
from lth.models import build, groups
from lth.models.init import draw
from lth.randomness import generator
from lth.training import columns, kernels, lowering

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(5, 6, 4, 4, 4), (3, 16, 32, 2, 2), (1, 5, 7, 1, 1), (2, 3, 8, 3, 5), (70, 8, 8, 2, 2)]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def matrix_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "hardware", lambda device: "the processor's amx_bf16")


def test_a_row_of_columns_is_a_pixel_and_its_neighbours_by_hand() -> None:
    x = torch.arange(1.0, 5.0).view(1, 1, 2, 2)
    expected = [[0, 0, 0, 0, 1, 2, 0, 3, 4], [0, 0, 0, 1, 2, 0, 3, 4, 0], [0, 1, 2, 0, 3, 4, 0, 0, 0]]
    assert columns.columns(x).tolist() == [*expected, [1, 2, 0, 3, 4, 0, 0, 0, 0]]
    both = columns.columns(torch.cat([x, 10 * x], 1))
    assert both.view(4, 9, 2)[..., 1].equal(10 * columns.columns(x))


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients_are_a_convolutions(shape: tuple[int, ...], biased: bool) -> None:
    n, c, k, h, w = shape
    x, weight = drawn(1, n, c, h, w).double().requires_grad_(), drawn(2, k, c, 3, 3).double().requires_grad_()
    given = [x, weight, *([drawn(3, k).double().requires_grad_()] if biased else [])]
    gradient = drawn(4, n, k, h, w).double()
    for arrange in (channels_last, torch.clone):
        y = columns.Columns.apply(*map(arrange, (x, weight)), given[2] if biased else None)
        assert isinstance(y, Tensor) and y.is_contiguous(memory_format=torch.channels_last)
        expected = F.conv2d(x, weight, given[2] if biased else None, padding=1)
        torch.testing.assert_close(y, expected)
        found = torch.autograd.grad(y, given, arrange(gradient))
        bias = slice(2, None)  # of Columns summed in float32, which is more than a bfloat16 bias needs
        wanted = torch.autograd.grad(expected, given, gradient)
        torch.testing.assert_close(found[:2], wanted[:2])
        torch.testing.assert_close(found[bias], wanted[bias], rtol=1e-5, atol=1e-5)


def test_no_gradient_is_made_that_nobody_needs() -> None:
    x, conv = drawn(1, 2, 4, 4, 4), nn.Conv2d(4, 8, 3, padding=1)
    columns.Columns.apply(x, conv.weight, conv.bias).sum().backward()
    assert x.grad is None and conv.weight.grad is not None and conv.bias is not None and conv.bias.grad is not None


def test_in_bfloat16_only_results_are_rounded() -> None:
    x, weight = (channels_last(drawn(n, *shape)) for n, shape in enumerate([(64, 256, 4, 4), (64, 256, 3, 3)]))
    x, weight = x.bfloat16().requires_grad_(), weight.bfloat16().requires_grad_()
    exact = F.conv2d(x.float(), weight.float(), padding=1)
    gradient = channels_last(drawn(3, *exact.shape)).bfloat16()
    y = columns.Columns.apply(x, weight, None)
    assert isinstance(y, Tensor)
    for found, wanted in zip(
        (y, *torch.autograd.grad(y, (x, weight), gradient)),
        (exact, *torch.autograd.grad(exact, (x, weight), gradient.float())),
        strict=True,
    ):
        assert found.dtype == torch.bfloat16
        assert ((found.float() - wanted).norm() / wanted.norm()).item() < 0.004


@pytest.mark.usefixtures("matrix_unit")
@pytest.mark.parametrize(
    ("conv", "taken"),
    [
        (nn.Conv2d(256, 8, 3, padding=1), True),
        (nn.Conv2d(300, 7, 3, padding=1), True),
        (nn.Conv2d(255, 8, 3, padding=1), False),
        (nn.Conv2d(256, 8, 3), False),
        (nn.Conv2d(256, 8, 3, stride=2, padding=1), False),
        (nn.Conv2d(256, 8, 3, padding=1, groups=2), False),
        (nn.Conv2d(256, 8, 1), False),
        (nn.Conv2d(256, 8, 3, padding=1, padding_mode="circular"), False),
    ],
    ids=str,
)
def test_which_convolutions_are_taken(conv: nn.Conv2d, taken: bool) -> None:
    assert columns.fits(conv) is taken


def test_without_a_matrix_unit_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "hardware", lambda device: "the processor's avx512_bf16")
    assert not columns.fits(nn.Conv2d(256, 8, 3, padding=1))


@pytest.mark.parametrize(("side", "by_columns"), [(4, True), (2, True), (8, False)])
def test_only_small_images_are_done_by_columns(side: int, by_columns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(columns.Columns, "apply", lambda x, weight, bias: asked.append(True) or x)
    columns.Conv(nn.Conv2d(4, 4, 3, padding=1))(torch.zeros(1, 4, side, side))
    assert bool(asked) is by_columns


@pytest.mark.skipif(kernels.core() is None, reason="the kernels are not built, or not for this processor")
@pytest.mark.usefixtures("matrix_unit")
def test_vgg_is_arranged_of_them_and_rounds_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(resolve("vgg19").model, (3, 32, 32), 10)
    start, x = draw(network, generator(1)), drawn(1, 8, 3, 32, 32)
    network.load_state_dict(start)
    exact = network(x)

    def error(taken: int) -> float:
        lowered = lowering.lower(network, "cpu", masks.ones(start, groups(network)))
        assert [type(part) for part in lowered.module.children()].count(columns.Conv) == taken
        for name, value in lowered.parameters.items():
            value.data.copy_(lowered.arranged(name, start[name]))
        found = lowered.module(channels_last(x).bfloat16())
        return ((found - exact).norm() / exact.norm()).item()

    by_columns = error(11)
    monkeypatch.setattr(columns, "fits", lambda conv: False)
    assert by_columns < 1.5 * error(0)
